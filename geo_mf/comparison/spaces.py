"""What is compared: checked rows, brought to directions, and the items they stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geo_mf.comparison.figures import ItemName
from geo_mf.data.ids import IdMap, IdValues
from geo_mf.errors import InvalidInput

FEWEST = 10
"""Items that a comparison needs."""
ROWS = 8192
"""Rows handled at once."""


@dataclass(frozen=True, eq=False)
class Space:
    """One set of vectors, row by row a direction and a length.

    Attributes:
        name: what to call it.
        directions: float32 [n, dim], unit length; a zero row for a zero vector.
        lengths: float64 [n].
    """

    name: str
    directions: NDArray[np.float32]
    lengths: NDArray[np.float64]

    @classmethod
    def of(cls, name: str, vectors: ArrayLike, centre: NDArray[np.float32] | None = None) -> "Space":
        """The directions and the lengths of [n, dim] vectors.

        Args:
            name: what to call it.
            vectors: finite numbers.
            centre: [dim], taken off before the direction is taken, not before the length is. A zero row stays zero.

        Raises:
            InvalidInput: not a finite matrix of numbers with at least one column.
        """
        rows = _array(vectors, name)
        if not rows.ndim:
            raise InvalidInput(
                f"{name} are a {type(vectors).__name__}; expected a 2-D array of numbers, [items, dim]: of vectors "
                "with ids, give their .matrix and their .ids"
            )
        if rows.ndim != 2 or not rows.shape[1]:
            raise InvalidInput(f"{name} have shape {rows.shape}; expected [items, dim], one row of numbers per item")
        if rows.dtype.kind not in "fiu":
            raise InvalidInput(f"{name} have dtype {rows.dtype}; expected numbers, such as float32")
        directions, lengths = np.empty(rows.shape, np.float32), np.empty(len(rows))
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS].astype(np.float64)
            if not np.isfinite(part).all():
                row = start + int(np.flatnonzero(~np.isfinite(part).all(axis=1))[0])
                raise InvalidInput(f"{name} must be finite; row {row} is not: remove it or replace its NaN or infinity")
            unit, length = _unit(part)
            lengths[start : start + ROWS] = length
            if centre is not None:
                unit = _unit(np.where(length[:, None] > 0, part - centre, 0))[0]
            directions[start : start + ROWS] = unit
        return cls(name, directions, lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, rows: NDArray[np.integer]) -> "Space":
        """Some of the rows, in this order."""
        return Space(self.name, self.directions[rows], self.lengths[rows])

    @property
    def known(self) -> NDArray[np.bool_]:
        """bool [n], items of which the space knows anything."""
        return self.lengths > 0


@dataclass(frozen=True, eq=False)
class Items:
    """What the rows stand for.

    Attributes:
        ids: of the items, or None where nobody gave any: then the row is the id.
        titles: or None: then the id is the title.
        counts: int64 [n], interactions when the spaces were learned, or None.
        rows: int64 [n], the caller's rows.
    """

    ids: IdMap | None
    titles: Sequence[str] | None
    counts: NDArray[np.int64] | None
    rows: NDArray[np.int64]

    @classmethod
    def of(
        cls, n: int, ids: IdValues | IdMap | None, titles: Sequence[str] | None, counts: ArrayLike | None
    ) -> "Items":
        """Raises InvalidInput when there are not n of each, an id is there twice, or a count is not a whole number
        from 0 on."""
        made = ids if isinstance(ids, IdMap) or ids is None else IdMap(ids)
        # A pandas Series looks rows up by its own labels, not by their place.
        titles = None if titles is None else list(titles)
        for what, found in (("ids", made), ("titles", titles)):
            if found is not None and len(found) != n:
                raise InvalidInput(f"there are {len(found)} {what} for {n} rows; give one for each row")
        return cls(made, titles, None if counts is None else _counts(counts, n), np.arange(n))

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: NDArray[np.integer]) -> "Items":
        """Some of the items, in this order."""
        counts = None if self.counts is None else self.counts[rows]
        return Items(self.ids, self.titles, counts, self.rows[rows])

    def names(self, chosen: NDArray[np.integer]) -> list[ItemName]:
        """What the caller calls some of the items."""
        rows = self.rows[chosen]
        ids: list[Any] = rows.tolist() if self.ids is None else self.ids.take(rows)
        titles = [str(id) for id in ids] if self.titles is None else [str(self.titles[row]) for row in rows.tolist()]
        return [ItemName(id, title) for id, title in zip(ids, titles, strict=True)]


def check_aligned(a: Space, b: Space) -> None:
    """Raises InvalidInput when the spaces have different numbers of rows."""
    if len(a) != len(b):
        raise InvalidInput(
            f"{a.name} have {len(a)} rows and {b.name} have {len(b)}; "
            "the rows must be of the same items in the same order"
        )


def comparable(a: Space, b: Space, items: Items) -> tuple[Space, Space, Items]:
    """The rows of which both spaces, of equally many rows, know something.

    Raises:
        InvalidInput: fewer than 10 rows are left, or all of one space point the same way.
    """
    rows = np.flatnonzero(a.known & b.known)
    if len(rows) < FEWEST:
        raise InvalidInput(
            f"{len(rows)} of {len(a)} items have a row that is not zero in both {a.name} and {b.name}; "
            f"a comparison needs at least {FEWEST}"
        )
    for space in (a, b):
        used = space.directions[rows]
        if np.ptp(used, axis=0).max() < 1e-6:
            raise InvalidInput(f"all rows of {space.name} point the same way; there is nothing to compare")
    if len(rows) == len(a):
        return a, b, items
    return a.take(rows), b.take(rows), items.take(rows)


def _unit(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows of unit length, and the lengths they had."""
    # Divided by the largest part first, so that neither tiny nor huge rows lose their squares.
    largest = np.abs(rows).max(axis=1, initial=0)
    scaled = rows / np.where(largest > 0, largest, 1)[:, None]
    size = np.linalg.norm(scaled, axis=1)
    return scaled / np.where(size > 0, size, 1)[:, None], size * largest


def _array(values: ArrayLike, name: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InvalidInput(
            f"{name} are no array: {error}; expected one row of numbers per item, all as long"
        ) from error


def _counts(counts: ArrayLike, n: int) -> NDArray[np.int64]:
    found = _array(counts, "counts")
    if found.shape != (n,):
        raise InvalidInput(f"counts have shape {found.shape}; expected ({n},), one for each row")
    if found.dtype.kind not in "fiu":
        raise InvalidInput(f"counts have dtype {found.dtype}; expected whole numbers of interactions")
    odd = np.flatnonzero(~np.isfinite(found) | (found != np.floor(found)))
    if len(odd):
        raise InvalidInput(f"counts has {found[odd[0]]} at row {odd[0]}; expected whole numbers of interactions")
    if len(found) and found.min() < 0:
        raise InvalidInput(
            f"counts go from {found.min()} to {found.max()}; expected numbers of interactions, from 0 on"
        )
    return found.astype(np.int64)
