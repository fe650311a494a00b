"""Vectors with the ids of their rows: what goes to other tools and comes back from them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from geo_mf.data.ids import IdMap
from geo_mf.errors import InvalidInput
from geo_mf.export.vector_rows import Of, VectorRows, id_column, vector_column
from geo_mf.index.exact import valid_vectors

if TYPE_CHECKING:
    import pandas

    from geo_mf.likeness import Space
    from geo_mf.recommender import Recommender

__all__ = ["Vectors"]


@dataclass(frozen=True, eq=False)
class Vectors:
    """n vectors, one for each id.

    Attributes:
        ids: the id of each row; whatever `IdMap` takes is made one.
        matrix: float32 [n, dim]; float16 and float64 become float32.
        about: what is known of them, as JSON: "space", "of", "index_version", ... Empty for vectors from elsewhere.

    Raises:
        InvalidInput: ids that are missing, occur twice or are none; not as many as rows; a matrix that is not of
            floats, not two-dimensional, without columns, or with a number that is not finite; a "space" or "of"
            that is no string.
    """

    ids: IdMap
    matrix: np.ndarray
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = self.ids if isinstance(self.ids, IdMap) else IdMap(self.ids)
        half = isinstance(self.matrix, np.ndarray) and self.matrix.dtype == np.float16
        matrix, _ = valid_vectors(self.matrix.astype(np.float32) if half else self.matrix)
        if len(ids) != len(matrix):
            raise InvalidInput(f"there are {len(ids):,} ids for {len(matrix):,} vectors; expected one for each")
        for name in ("space", "of"):
            if not isinstance(self.about.get(name), str | None):
                raise InvalidInput(
                    f"about says that {name!r} is {self.about[name]!r}; expected a string, or leave it out"
                )
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "matrix", matrix)

    @classmethod
    def of(cls, rec: "Recommender", *, space: "Space" = "blend", of: Of = "items") -> "Vectors":
        """The vectors that `export_vectors` writes, in memory. Arguments and errors as there."""
        rows = VectorRows.of(rec.now, space, of)
        matrix = np.empty((len(rows), rows.dim), np.float32)
        for start, part in rows.parts():
            matrix[start : start + len(part)] = part
        return cls(IdMap(rows.ids), matrix, rows.about)

    @property
    def space(self) -> str | None:
        """ "blend", "factors" or "text"; None for vectors from elsewhere."""
        return self.about.get("space")

    def aligned(self, other: "Vectors") -> "tuple[Vectors, Vectors]":
        """Both, cut to the ids that both have, in this one's order: row i is the same item in each.

        Raises:
            InvalidInput: they have no id in common.
        """
        rows = other.ids.rows_or_missing(self.ids.ids)
        mine = np.flatnonzero(rows >= 0)
        if not len(mine):
            raise InvalidInput(
                f"no id is in both {self.ids!r} and {other.ids!r}; expected the same ids, of one type (ids of CSV "
                "files are always strings)"
            )
        return self._taken(mine), other._taken(rows[mine])

    def to_pandas(self) -> "pandas.DataFrame":
        """A data frame: the ids are its index, and there is one float32 column for each dimension."""
        import pandas

        ids = self.ids.ids.to_pandas()
        return pandas.DataFrame(self.matrix, index=pandas.Index(ids, name=id_column(self.about.get("of"))))

    def to_arrow(self) -> pa.Table:
        """The table that `export_vectors` writes to Parquet: an id and a fixed-size list of float32."""
        table = pa.table({id_column(self.about.get("of")): self.ids.ids, "vector": vector_column(self.matrix)})
        return table.replace_schema_metadata({"geo_mf": json.dumps(dict(self.about), sort_keys=True)})

    def __len__(self) -> int:
        return len(self.matrix)

    def __iter__(self) -> Iterator[tuple[Any, np.ndarray]]:
        """Pairs of an id and its vector."""
        return zip(self.ids.ids.to_pylist(), self.matrix, strict=True)

    def __repr__(self) -> str:
        n, dim = self.matrix.shape
        known = "".join(f", {self.about[name]}" for name in ("of", "space") if name in self.about)
        return f"Vectors({n:,} x {dim}{known}; {self.ids!r})"

    def _taken(self, rows: np.ndarray) -> "Vectors":
        return Vectors(IdMap(self.ids.ids.take(pa.array(rows))), self.matrix[rows], self.about)
