"""Which vectors leave an index, part by part: those of its items or of its users, in one of its spaces."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pyarrow as pa

from geo_mf import __version__
from geo_mf.errors import InvalidInput
from geo_mf.geometry import blend

if TYPE_CHECKING:
    from geo_mf.snapshot import Snapshot

Of = Literal["items", "users"]

SPACES = ("blend", "factors", "text")

IDS = ".ids.parquet"
"""What is added to the name of a file of vectors alone, for that of the file with their ids."""

PART_BYTES = 2**24
"""Of vectors that are made at a time."""

OWN_COLUMNS = ("item_id", "vector", "cold")


@dataclass(frozen=True, eq=False)
class VectorRows:
    """Vectors that are to be written, and what stands beside them.

    Attributes:
        ids: the caller's own.
        dim: numbers in a vector.
        about: of all of them, as JSON.
        make: from positions, int [m], to vectors, float32 [m, dim].
        beside: from positions to the columns that say more of each row.
        titles: from positions to what to call each row; None where there is only the id.
    """

    ids: pa.Array
    dim: int
    about: Mapping[str, Any]
    make: Callable[[np.ndarray], np.ndarray]
    beside: Callable[[np.ndarray], dict[str, Any]]
    titles: Callable[[np.ndarray], list[str]] | None

    @classmethod
    def of(cls, now: "Snapshot", space: str, of: str, columns: Sequence[str] = ()) -> "VectorRows":
        """The vectors of a snapshot.

        Raises:
            InvalidInput: an unknown space, `of` or column.
        """
        if space not in SPACES:
            raise InvalidInput(f"space is {space!r}; expected one of {', '.join(SPACES)}")
        if of not in get_args(Of):
            raise InvalidInput(f"of is {of!r}; expected items or users")
        names = _checked(columns, now, of)
        make, dim = (_items if of == "items" else _users)(now, space)
        about = {
            "space": space,
            "of": of,
            "dim": dim,
            "index_version": now.card.get("version"),
            "encoder": now.fingerprint,
            "geo_mf": __version__,
        }
        if of == "users":
            return cls(now.users.ids, dim, about, make, lambda at: {}, None)
        alive = np.flatnonzero(now.live)

        def beside(at: np.ndarray) -> dict[str, Any]:
            rows = alive[at]
            table = now.catalog.table.select(names).take(pa.array(rows))
            return {"cold": pa.array(now.cold[rows]), **dict(zip(names, table.columns, strict=True))}

        return cls(
            now.catalog.items.ids.take(pa.array(alive)),
            dim,
            about,
            lambda at: make(alive[at]),
            beside,
            lambda at: now.catalog.titles_of(alive[at]),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def parts(self) -> Iterator[tuple[int, np.ndarray]]:
        """Where each part begins, and its vectors, float32 [m, dim], C-contiguous."""
        step = max(1, PART_BYTES // (4 * self.dim))
        for start in range(0, len(self), step):
            made = self.make(np.arange(start, min(start + step, len(self))))
            yield start, np.ascontiguousarray(made, np.float32)

    def labels(self, start: int, count: int) -> pa.Table:
        """The id of each of some rows, and the columns beside it."""
        at = np.arange(start, start + count)
        return pa.table({id_column(self.about["of"]): self.ids.slice(start, count), **self.beside(at)})


def id_column(of: object) -> str:
    """What the ids are called in a table."""
    return "item_id" if of == "items" else "user_id" if of == "users" else "id"


def vector_column(matrix: np.ndarray) -> pa.Array:
    """Vectors [n, dim], C-contiguous, as one column of fixed-size lists; nothing is copied."""
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])


_Make = tuple[Callable[[np.ndarray], np.ndarray], int]


def _items(now: "Snapshot", space: str) -> _Make:
    factors, text = now.item_factors, now.embeddings
    if space == "factors":
        return (lambda rows: factors[rows]), factors.shape[1]
    if space == "text":
        return (lambda rows: text[rows]), text.shape[1]

    def blended(rows: np.ndarray) -> np.ndarray:
        return blend.vectors(factors[rows], text[rows], now.trend[rows], now.blend)

    return blended, factors.shape[1] + text.shape[1] + 1


def _users(now: "Snapshot", space: str) -> _Make:
    if space == "factors":
        return (lambda rows: now.user_factors[rows]), now.user_factors.shape[1]
    if space == "text":
        return (lambda rows: blend.profiles(now.history[rows], now.embeddings)), now.embeddings.shape[1]
    # As `recommend` asks: folded in from the history. These two bring JAX.
    from geo_mf.export.best import threads
    from geo_mf.factorize.fold_in_many import FoldInMany

    fold = FoldInMany.of(now.folding.fold_in, now.item_factors)

    def asked(rows: np.ndarray) -> np.ndarray:
        with ThreadPoolExecutor(threads()) as pool:
            histories = now.folding.balance.user_rows(now.history[rows])
            priors = None if now.told is None else now.told.of_users[rows]
            folded = fold.solve(histories, now.user_factors[rows], pool, priors)
        return now.queries(rows, folded)

    return asked, now.item_factors.shape[1] + now.embeddings.shape[1] + 1


def _checked(columns: Sequence[str], now: "Snapshot", of: str) -> list[str]:
    """The names of columns, each of which the catalogue has."""
    names = [columns] if isinstance(columns, str) else list(columns)
    if names and of == "users":
        raise InvalidInput(
            f"columns are {', '.join(names)}, but nothing is known of users beside their ids; leave it out"
        )
    for name in names:
        if name not in now.catalog.columns:
            raise InvalidInput(
                f"the catalogue has no column {name!r}; its columns are {', '.join(now.catalog.columns)}"
            )
        if name in OWN_COLUMNS or names.count(name) > 1:
            raise InvalidInput(f"the column {name!r} is in the file already, or named twice; leave it out")
    return names
