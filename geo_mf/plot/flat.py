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
        shares: float64 [dim], each principal direction's share of the variance, falling, summing to 1.
    """

    points: NDArray[np.float64]
    shares: NDArray[np.float64]

    @property
    def drawn(self) -> NDArray[np.bool_]:
        """bool [items], items that have a place."""
        return np.isfinite(self.points[:, 0])

    def turned_towards(self, other: "Plane") -> "Plane":
        """The same plane, rotated or mirrored to lie over the other (orthogonal Procrustes, Schönemann 1966)."""
        both = self.drawn & other.drawn
        u, _, v = np.linalg.svd(self.points[both].T @ other.points[both])
        return Plane(self.points @ (u @ v), self.shares)


def flatten(vectors: ArrayLike, what: str) -> Plane:
    """Lay a space flat.

    Rows are first scaled to unit length: the length of a factor mostly tells how popular the item is. A row of zeros
    has no direction and gets no place.

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
    unit -= unit.mean(axis=0)
    values, axes = np.linalg.eigh(unit.T @ unit)
    values, axes = np.maximum(values[::-1], 0), axes[:, ::-1]
    # A direction and its opposite are equally good: take the one whose largest part is positive.
    heaviest = axes[np.abs(axes).argmax(axis=0), np.arange(len(values))]
    axes = axes * np.where(heaviest < 0, -1, 1)
    points = np.full((len(rows), 2), np.nan)
    points[alive] = unit @ axes[:, :2]
    total = values.sum()
    return Plane(points, values / total if total > 1e-12 else np.full(len(values), 1 / len(values)))
