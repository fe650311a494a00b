"""A space laid flat: principal component analysis of directions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geo_mf.errors import InvalidInput


@dataclass(frozen=True)
class Plane:
    """A space laid flat.

    Attributes:
        points: float64 [items, 2], NaN for a row of zeros.
        shares: float64 [dim], each principal direction's share of the variance, falling, summing to 1; empty where
            the axes are no directions.
    """

    points: NDArray[np.float64]
    shares: NDArray[np.float64]

    @property
    def drawn(self) -> NDArray[np.bool_]:
        """bool [items], items that have a place."""
        return np.isfinite(self.points[:, 0])

    def laid_over(self, other: "Plane") -> "Plane":
        """The same plane, moved, rotated or mirrored, and brought to the same spread, to lie over the other (orthogonal
        Procrustes, Schönemann 1966)."""
        both = self.drawn & other.drawn
        if not both.any():
            return self
        mine, theirs = self.points[both], other.points[both]
        middle, there = mine.mean(axis=0), theirs.mean(axis=0)
        u, _, v = np.linalg.svd((mine - middle).T @ (theirs - there))
        spread, wanted = np.linalg.norm(mine - middle), np.linalg.norm(theirs - there)
        scale = wanted / spread if spread > 1e-12 and wanted > 1e-12 else 1.0
        return Plane(scale * (self.points - middle) @ (u @ v) + there, self.shares)


def directions(vectors: ArrayLike, what: str) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which rows are not zero, bool [items], and those rows at unit length, float64 [n, dim].

    Args:
        vectors: [items, dim] float.
        what: the array's name, for messages.

    Raises:
        InvalidInput: not a finite matrix with at least 2 columns and 3 rows that are not zero.
    """
    rows = np.asarray(vectors, np.float64)
    if rows.ndim != 2 or rows.shape[1] < 2:
        raise InvalidInput(f"{what} have shape {rows.shape}; expected [items, dim] with at least 2 dimensions")
    if not np.isfinite(rows).all():
        row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise InvalidInput(f"{what} must be finite; row {row} is not: remove or replace its NaN or infinity")
    # Divided by the largest part first, so that neither tiny nor huge rows lose their squares.
    largest = np.abs(rows).max(axis=1, initial=0)
    alive = largest > 0
    if np.count_nonzero(alive) < 3:
        raise InvalidInput(f"{np.count_nonzero(alive)} rows of {what} are not zero; a picture needs at least 3")
    unit = rows[alive] / largest[alive, None]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return alive, unit


def flatten(vectors: ArrayLike, what: str) -> Plane:
    """Lay a space flat by its principal components.

    Rows are first scaled to unit length: the length of a factor mostly tells how popular the item is. A row of zeros
    has no direction and gets no place. Arguments and errors are those of `directions`.
    """
    alive, unit = directions(vectors, what)
    unit -= unit.mean(axis=0)
    values, axes = np.linalg.eigh(unit.T @ unit)
    values, axes = np.maximum(values[::-1], 0), axes[:, ::-1]
    # A direction and its opposite are equally good: take the one whose largest part is positive.
    heaviest = axes[np.abs(axes).argmax(axis=0), np.arange(len(values))]
    axes = axes * np.where(heaviest < 0, -1, 1)
    points = np.full((len(alive), 2), np.nan)
    points[alive] = unit @ axes[:, :2]
    total = values.sum()
    return Plane(points, values / total if total > 1e-12 else np.full(len(values), 1 / len(values)))
