"""How far two spaces fit each other on items held out: turned and scaled, or by a linear map.

What is compared are directions (rows of unit length), whose mean over the items learned from is taken off. A fifth of
the items, drawn at random, is held out of everything that is learned.

Orthogonal Procrustes (Schönemann 1966): the narrower space is filled up with zeros to X, Y [n, d]. With U S Vᵀ = XᵀY
over the items learned from, X is laid on Y by the rotation U Vᵀ and the scale tr S / |X|^2, and Y on X the same way
back. The residual is |s X Q - Y|^2 / |Y|^2 over the items held out, and the mean of both ways is given: 0 where one
space is the other, turned and scaled; 1 where they have nothing in common, and a little above where noise was learned.

Ridge regression: B = (XᵀX + c I)^-1 XᵀY, with c chosen from PENALTIES, in units of the mean eigenvalue of XᵀX, on a
fifth of the items learned from. R^2 = 1 - |X B - Y|^2 / |Y - mean|^2 over the items held out and all columns at once
(scikit-learn's "variance_weighted").
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo_mf.comparison.bootstrap import estimate, resampled_sums
from geo_mf.comparison.figures import Alignment, Reading
from geo_mf.comparison.spaces import ROWS, Space

HELD_OUT = 0.2
PENALTIES = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, float("inf"))

Floats = NDArray[np.float64]


def alignment(a: Space, b: Space, seed: int, rows: int = ROWS) -> Alignment:
    """Residual and R^2 both ways, with bootstrap intervals over the items held out."""
    order = np.random.default_rng(seed).permutation(len(a))
    held, learned = np.split(order, [max(2, round(HELD_OUT * len(order)))])
    tried, rest = np.split(learned, [max(2, round(HELD_OUT * len(learned)))])
    tuned, whole = Moments.of(a, b, rest, rows), Moments.of(a, b, learned, rows)
    ways = ((b, a, whole.swapped(), tuned.swapped()), (a, b, whole, tuned))
    columns: list[Floats] = []
    penalties: list[float] = []
    for source, target, learnt, trial in ways:
        penalties.append(_chosen(source, target, trial, tried, rows))
        errors, sizes = _read(source, target, learnt, penalties[-1:], held, rows)
        columns += [*_laid(source, target, learnt, held, rows), errors[0], sizes]
    sums = resampled_sums(np.stack(columns, axis=1), seed)
    shares = np.divide(sums[:, ::2], sums[:, 1::2], out=np.ones((len(sums), 4)), where=sums[:, 1::2] > 0)
    readings = [
        Reading(source.name, target.name, estimate(1 - shares[:, column]), penalty)
        for (source, target, *_), column, penalty in zip(ways, (1, 3), penalties, strict=True)
    ]
    return Alignment(estimate((shares[:, 0] + shares[:, 2]) / 2), (readings[0], readings[1]), len(held))


@dataclass(frozen=True, eq=False)
class Moments:
    """Means of two spaces over some items, and the products of their centred rows.

    Attributes:
        means: float64 [dx] and [dy].
        xx, yy, xy: float64 [dx, dx], [dy, dy], [dx, dy].
    """

    means: tuple[Floats, Floats]
    xx: Floats
    yy: Floats
    xy: Floats

    @classmethod
    def of(cls, x: Space, y: Space, items: NDArray[np.integer], rows: int) -> "Moments":
        """Over the rows `items`, `rows` at a time."""
        parts = [items[start : start + rows] for start in range(0, len(items), rows)]
        first, second = (
            np.sum([side.directions[part].sum(axis=0, dtype=np.float64) for part in parts], axis=0) / len(items)
            for side in (x, y)
        )
        width = len(first)
        both = np.zeros((width + len(second),) * 2)
        for part in parts:
            joined = np.concatenate([x.directions[part] - first, y.directions[part] - second], axis=1)
            both += joined.T @ joined
        return cls((first, second), both[:width, :width], both[width:, width:], both[:width, width:])

    def swapped(self) -> "Moments":
        """The same with the second space first."""
        return Moments((self.means[1], self.means[0]), self.yy, self.xx, self.xy.T)


def _laid(x: Space, y: Space, learnt: Moments, held: NDArray[np.integer], rows: int) -> tuple[Floats, Floats]:
    """|s x_i Q - y_i|^2 and |y_i|^2 of the rows held out. The zeros that would fill up a space are left out of the
    sums: where y is the narrower one, what x Q has beyond y's columns counts as an error, by its length."""
    left, values, right = np.linalg.svd(learnt.xy, full_matrices=False)
    scale = values.sum() / max(float(np.trace(learnt.xx)), 1e-300)
    turn = left @ right
    errors, sizes = [], []
    for source, target in _chunks(x, y, learnt, held, rows):
        laid = source @ turn
        # The rotation keeps all of x's length; `turn` shows the part of it that lies in y's columns.
        outside = (source**2).sum(axis=1) - (laid**2).sum(axis=1)
        errors.append(((scale * laid - target) ** 2).sum(axis=1) + scale**2 * np.maximum(outside, 0))
        sizes.append((target**2).sum(axis=1))
    return np.concatenate(errors), np.concatenate(sizes)


def _read(
    x: Space, y: Space, learnt: Moments, penalties: Sequence[float], held: NDArray[np.integer], rows: int
) -> tuple[Floats, Floats]:
    """|x_i B - y_i|^2 [penalties, held], and |y_i - mean|^2 with the mean of the rows held out."""
    values, axes = np.linalg.eigh(learnt.xx)
    rotated = axes.T @ learnt.xy
    unit = max(float(values.mean()), 1e-300)
    maps = [axes @ (rotated / (np.maximum(values, 0) + c * unit)[:, None]) for c in penalties]
    errors: list[list[Floats]] = [[] for _ in penalties]
    targets = np.zeros(len(learnt.means[1]))
    for source, target in _chunks(x, y, learnt, held, rows):
        targets += target.sum(axis=0)
        for kept, linear in zip(errors, maps, strict=True):
            kept.append(((source @ linear - target) ** 2).sum(axis=1))
    middle = targets / len(held)
    sizes = [((target - middle) ** 2).sum(axis=1) for _, target in _chunks(x, y, learnt, held, rows)]
    return np.stack([np.concatenate(kept) for kept in errors]), np.concatenate(sizes)


def _chosen(x: Space, y: Space, learnt: Moments, tried: NDArray[np.integer], rows: int) -> float:
    """The penalty with the least error on the rows `tried`; the larger one on a tie."""
    errors = _read(x, y, learnt, PENALTIES, tried, rows)[0].sum(axis=1)
    return PENALTIES[len(PENALTIES) - 1 - int(errors[::-1].argmin())]


def _chunks(
    x: Space, y: Space, learnt: Moments, items: NDArray[np.integer], rows: int
) -> Iterator[tuple[Floats, Floats]]:
    """Centred rows of both spaces, some at a time."""
    for start in range(0, len(items), rows):
        part = items[start : start + rows]
        yield x.directions[part] - learnt.means[0], y.directions[part] - learnt.means[1]
