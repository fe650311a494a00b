"""Catalog: the items, their texts and their attributes, in one row order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from geo_mf.data.ids import IdMap
from geo_mf.data.interactions import ReadReport
from geo_mf.data.where import row_mask
from geo_mf.errors import InvalidInput

__all__ = ["Catalog"]

_TITLE_LENGTH = 80
_MOST_CHUNKS = 32  # of a table that grew; every further one costs each look at a column a little


@dataclass(frozen=True, eq=False)
class Catalog:
    """n items: ids, texts and a table of attributes, row by row.

    texts: one string per item, "" for an item without text.
    table: every column as read, the id column included.
    id_column, title_column: names of columns of `table`; no title column is None.
    template: how texts are composed from columns (see `geo_mf.data.template`); None when that is not known.

    Raises InvalidInput when the parts do not have the same length or a named column is not there.
    """

    items: IdMap
    texts: list[str]
    table: pa.Table
    id_column: str
    title_column: str | None
    report: ReadReport
    template: str | None = None

    def __post_init__(self) -> None:
        n = len(self.items)
        if len(self.texts) != n or self.table.num_rows != n:
            raise InvalidInput(
                f"a catalog of {n} items needs {n} texts and {n} table rows, "
                f"got {len(self.texts)} texts and {self.table.num_rows} rows"
            )
        for name in (self.id_column, self.title_column):
            if name is not None and name not in self.table.column_names:
                raise InvalidInput(f"the catalog has no column {name!r}; its columns are {', '.join(self.columns)}")

    @classmethod
    def deferred(cls, *, texts: Callable[[], list[str]], table: Callable[[], pa.Table], **parts: Any) -> "Catalog":
        """A catalogue whose texts and table are read at their first use; what reading raises comes up there.

        Args:
            texts, table: give those parts, n rows each, with the columns that are named.
            parts: the other parts, as they are.
        """
        made = cls.__new__(cls)
        made.__dict__.update(parts, _later={"texts": texts, "table": table})
        return made

    def __getattr__(self, name: str) -> Any:
        """Python asks here for what the instance does not hold: a part that `deferred` left for later."""
        later = self.__dict__.get("_later", {})
        if name not in later:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        return self.__dict__.setdefault(name, later[name]())

    @classmethod
    def from_ids(cls, items: IdMap) -> "Catalog":
        """A catalog of ids alone: no text, no attributes."""
        table = pa.table({"item_id": items.ids})
        n = len(items)
        return cls(items, [""] * n, table, "item_id", None, ReadReport(read=n, accepted=n, unit="row"))

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return (
            f"Catalog({len(self):,} items, {int(self.has_text.sum()):,} with text; columns: {', '.join(self.columns)})"
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the table's columns."""
        return tuple(self.table.column_names)

    @property
    def has_text(self) -> np.ndarray:
        """Which items have text, bool [n]."""
        return np.fromiter((bool(text) for text in self.texts), dtype=bool, count=len(self.texts))

    @property
    def titles(self) -> list[str]:
        """What to call each item: its title, else the first 80 characters of its text, else its id."""
        named = [None] * len(self) if self.title_column is None else self.table.column(self.title_column).to_pylist()
        return self._titled(named, range(len(self)), self.items.ids.to_pylist())

    def titles_of(self, rows: np.ndarray) -> list[str]:
        """What to call the items of these rows, int [n], without a look at the others."""
        named: list[Any] = [None] * len(rows)
        if self.title_column is not None:
            column = self.table.column(self.title_column)
            named = [column[row].as_py() for row in rows.tolist()]
        return self._titled(named, rows.tolist(), self.items.take(rows))

    def _titled(self, named: Sequence[Any], rows: Sequence[int], ids: Sequence[Any]) -> list[str]:
        return [
            str(name) if name is not None and str(name).strip() else self.texts[row][:_TITLE_LENGTH] or str(id)
            for name, row, id in zip(named, rows, ids, strict=True)
        ]

    def take(self, rows: np.ndarray | Sequence[int]) -> "Catalog":
        """The items of these rows, in this order. Raises InvalidInput for a row that does not exist or occurs twice."""
        ids = self.items.take(rows)
        positions = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            items=IdMap(pa.array(ids, type=self.items.type)),
            texts=[self.texts[int(row)] for row in positions],
            table=_taken(self.table, positions),
        )

    def joined(self, more: "Catalog") -> "Catalog":
        """These items, and behind them those of a catalogue with the same columns."""
        target = _open_schema(more.table.schema)
        table = pa.concat_tables([self.table.cast(target), more.table.cast(target)])
        return replace(
            self,
            items=self.items.joined(more.items),
            texts=[*self.texts, *more.texts],
            table=table.combine_chunks() if table.column(0).num_chunks > _MOST_CHUNKS else table,
        )

    def replaced(self, rows: np.ndarray, by: "Catalog") -> "Catalog":
        """The same items, with the texts and columns of these rows, int [n], taken from `by`, n items in this order."""
        target = _open_schema(by.table.schema)
        texts = list(self.texts)
        for row, text in zip(rows.tolist(), by.texts, strict=True):
            texts[row] = text
        source = np.arange(len(self))
        source[rows] = len(self) + np.arange(len(rows))
        both = pa.concat_tables([self.table.cast(target), by.table.cast(target)])
        return replace(self, texts=texts, table=_taken(both, source))

    def mask(self, where: str | None) -> np.ndarray:
        """The items for which the expression holds, bool [n]; None allows every item. See `geo_mf.data.where`."""
        if where is None:
            return np.ones(len(self), dtype=bool)
        return row_mask(where, self.table)


def _taken(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """These rows of a table, int64 [n], in this order."""
    # Arrow cannot take rows of string views.
    plain = [f.with_type(pa.large_string()) if pa.types.is_string_view(f.type) else f for f in table.schema]
    return table.cast(pa.schema(plain, metadata=table.schema.metadata)).take(pa.array(rows)).cast(table.schema)


def _open_schema(schema: pa.Schema) -> pa.Schema:
    """The same columns, each of which may hold a missing value."""
    return pa.schema([field.with_nullable(True) for field in schema], metadata=schema.metadata)
