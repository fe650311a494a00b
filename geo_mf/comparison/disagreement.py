"""Items and pairs of items on which two spaces disagree most, with where they stand in each.

To rank everything in both spaces would take all n^2 cosines twice. So a few candidates are chosen first, and only these
are ranked exactly, among all items. What chooses them is the cosine that an item's nearest of one space have to it in
the
other, in standard deviations of its cosines to all items there: their mean q.m and variance qᵀCq follow from the mean m
and the covariance C of that space. For pairs it is the lowest, for items the lowest on average, both ways.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo_mf.comparison.figures import DisagreeingItem, DisagreeingPair, Disagreement
from geo_mf.comparison.neighbours import Neighbours
from geo_mf.comparison.ranks import ranks
from geo_mf.comparison.spaces import ROWS, Items, Space

NEAR = 10
"""How near is near."""
LEAST = 5
"""Interactions that an item needs to be judged: a factor learned from fewer is mostly noise."""
LISTED = 10
"""Items, and pairs each way, that are listed."""
CANDIDATES = 200
"""Items, and pairs each way, that are ranked exactly."""
NAMED = 3
"""Neighbours that are named of an item."""
PAIRS = 2**14
"""Pairs whose cosines are taken at once."""


def disagreement(a: Space, b: Space, items: Items, found: Neighbours) -> Disagreement:
    """Among the items whose neighbours were looked for, and which have enough interactions."""
    fair = np.ones(len(items), bool) if items.counts is None else items.counts >= LEAST
    near = min(NEAR, found.first.shape[1])
    judged = np.flatnonzero(fair[found.asked])
    sides = [
        Near(
            found.asked[judged], side[judged, :near], standard_cosines(other, found.asked[judged], side[judged, :near])
        )
        for side, other in ((found.first, b), (found.second, a))
    ]
    return Disagreement(
        near,
        len(judged),
        0 if items.counts is None else LEAST,
        _items(a, b, items, sides, (found.depths[judged] <= near).sum(axis=1) / near),
        _pairs(a, b, items, sides[0].among(fair), 0),
        _pairs(a, b, items, sides[1].among(fair), 1),
    )


@dataclass(frozen=True, eq=False)
class Near:
    """Items, and those near them in one space.

    Attributes:
        asked: int64 [m].
        near: int64 [m, k].
        cosines: float64 [m, k], to them in the other space, in standard deviations.
    """

    asked: NDArray[np.int64]
    near: NDArray[np.int64]
    cosines: NDArray[np.float64]

    def among(self, fair: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The candidates: pairs both of which may be named, bool [n], the farthest in the other space first."""
        asked, other, cosines = np.repeat(self.asked, self.near.shape[1]), self.near.ravel(), self.cosines.ravel()
        able = np.flatnonzero(fair[other])
        chosen = able[np.lexsort((other[able], asked[able], cosines[able]))[:CANDIDATES]]
        return asked[chosen], other[chosen]


def standard_cosines(space: Space, asked: NDArray[np.int64], near: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 [m, k]: cosines of the rows asked [m] to others [m, k], in standard deviations of those to all rows."""
    size = space.directions.shape[1]
    mean = space.directions.mean(axis=0, dtype=np.float64)
    scatter = np.zeros((size, size))
    for start in range(0, len(space), ROWS):
        part = space.directions[start : start + ROWS] - mean
        scatter += part.T @ part
    found = np.empty(near.shape)
    step = max(1, PAIRS // max(1, near.shape[1]))
    for start in range(0, len(asked), step):
        some = slice(start, start + step)
        left = space.directions[asked[some]].astype(np.float64)
        spread = np.einsum("ij,ij->i", left @ scatter, left) / len(space)
        cosines = np.einsum("ij,ikj->ik", left, space.directions[near[some]]) - (left @ mean)[:, None]
        found[some] = cosines / np.sqrt(np.maximum(spread, 1e-12))[:, None]
    # Rounded, so that the last digits of a sum do not order equal pairs.
    return found.round(6)


def _items(
    a: Space, b: Space, items: Items, sides: list[Near], overlap: NDArray[np.float64]
) -> tuple[DisagreeingItem, ...]:
    first, second = sides
    odd = first.cosines.mean(axis=1) + second.cosines.mean(axis=1)
    chosen = np.lexsort((first.asked, odd.round(6)))[:CANDIDATES]
    asked = np.repeat(first.asked[chosen], first.near.shape[1])
    ranked = [
        ranks(a, b, asked, side.near[chosen].ravel())[:, other].reshape(-1, side.near.shape[1])
        for side, other in ((first, 1), (second, 0))
    ]
    typical = [np.exp(np.log(rank).mean(axis=1)) for rank in ranked]
    order = np.argsort(-typical[0] * typical[1], kind="stable")[:LISTED]
    return tuple(
        DisagreeingItem(
            name,
            float(overlap[chosen[at]]),
            (float(typical[0][at]), float(typical[1][at])),
            (tuple(items.names(first.near[chosen[at], :NAMED])), tuple(items.names(second.near[chosen[at], :NAMED]))),
        )
        for at, name in zip(order, items.names(first.asked[chosen[order]]), strict=True)
    )


def _pairs(
    a: Space, b: Space, items: Items, pairs: tuple[NDArray[np.int64], NDArray[np.int64]], near: int
) -> tuple[DisagreeingPair, ...]:
    """Pairs that are near in the first space (0) or in the second (1), the farthest in the other one first."""
    asked, other = pairs
    ranked = ranks(a, b, asked, other)[:, :2]
    listed: dict[frozenset[int], int] = {}
    # Stable: equal ranks stay in the order of cosines.
    for at in np.argsort(-ranked[:, 1 - near], kind="stable").tolist():
        # The same two the other way round say nothing new.
        listed.setdefault(frozenset((int(asked[at]), int(other[at]))), at)
    kept = np.asarray(list(listed.values())[:LISTED], np.int64)
    names = zip(items.names(asked[kept]), items.names(other[kept]), strict=True)
    return tuple(
        DisagreeingPair(item, one, (float(ranked[at, 0]), float(ranked[at, 1])))
        for at, (item, one) in zip(kept, names, strict=True)
    )
