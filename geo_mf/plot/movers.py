"""Items that stand elsewhere in one map than in the other: which they are, and arrows from place to place."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from geo_mf.errors import InvalidInput
from geo_mf.plot.flat import Plane
from geo_mf.plot.style import INK, SMALL

MOST = 8
"""More arrows than this cannot be followed."""

APART = 0.35
"""How far the ends of two arrows lie from each other, in root mean square distances of the left map."""


SHORTEST, HEAD = 34.0, 22.0
"""Pixels between two places that an arrow needs, and from the middle of a badge to that of the arrow's head."""


def moving(wanted: int | Sequence[int], left: Plane, right: Plane) -> list[int]:
    """Rows to draw arrows for: those named, or the few that move farthest.

    Items that move together would give one thick arrow: of items that start and end near each other, only the one that
    moves farthest is taken. There may be fewer than wanted.

    Raises:
        InvalidInput: more than MOST, or a row that has no place in one of the maps.
    """
    size = len(left.points)
    count = wanted if isinstance(wanted, int) else len(wanted)
    if not 0 <= count <= MOST:
        raise InvalidInput(f"movers asks for {count} arrows; expected 0 to {MOST}")
    placed = left.drawn & right.drawn
    if not isinstance(wanted, int):
        for row in wanted:
            if not 0 <= row < size or not placed[row]:
                raise InvalidInput(
                    f"movers names row {row}; expected rows from 0 to {size - 1} that have a place in both maps, "
                    "which a row of zeros has not"
                )
        return list(dict.fromkeys(map(int, wanted)))
    distance = np.where(placed, np.linalg.norm(right.points - left.points, axis=1), 0.0)
    unit = APART * np.sqrt(np.mean(np.sum(left.points[placed] ** 2, axis=1)))
    chosen: list[int] = []
    for row in np.argsort(-distance, kind="stable"):
        if len(chosen) == count or distance[row] <= 1e-6 * unit:
            break
        ends = [np.linalg.norm(plane.points[chosen] - plane.points[row], axis=1) for plane in (left, right)]
        if not chosen or (np.minimum(*ends) >= unit).all():
            chosen.append(int(row))
    return chosen


def badge(axes: Axes, number: int, at: NDArray[np.float64]) -> None:
    """A number on a dark disc."""
    axes.scatter(*at, s=230, facecolors=INK, edgecolors="white", linewidths=1.2, zorder=7)
    axes.text(float(at[0]), float(at[1]), str(number), color="white", fontsize=SMALL, fontweight="bold", ha="center",
              va="center_baseline", zorder=8, in_layout=False)  # fmt: skip


def arrow(axes: Axes, tail: NDArray[np.float64], tip: NDArray[np.float64]) -> NDArray[np.float64]:
    """An arrow from a ring to the rim of a badge; the ring alone where there is no room for an arrow.

    Returns what no name should cover, float64 [2, 2] in the data: the ring and the head.
    """
    axes.scatter(*tail, s=60, facecolors="white", edgecolors=INK, linewidths=1.6, zorder=5)
    length = float(np.linalg.norm(np.diff(axes.transData.transform([tail, tip]), axis=0)))
    if length < SHORTEST:
        return np.array([tail, tail])
    axes.add_patch(
        FancyArrowPatch(
            (float(tail[0]), float(tail[1])),
            (float(tip[0]), float(tip[1])),
            arrowstyle="-|>",
            mutation_scale=16,
            shrinkA=4,
            shrinkB=8,
            color=INK,
            linewidth=1.8,
            zorder=4,
            path_effects=[withStroke(linewidth=4, foreground="white")],
        )
    )
    return np.array([tail, tip + (tail - tip) * HEAD / length])
