"""Nearest neighbours by cosine: what both spaces share (mutual k-nearest neighbours), and who is everybody's neighbour.

The overlap is that of Huh et al. 2024, "The Platonic Representation Hypothesis" (arXiv 2405.07987); k-occurrence and
hubs are those of Radovanović et al. 2010, "Hubs in Space". Items at the same cosine stand in an order drawn anew for
each item asked about, and in each space another: the order of the rows would be the same in both, and make hubs of the
first.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from geo_mf.comparison.figures import Estimate, Hub, Hubness, Overlap
from geo_mf.comparison.ranks import TIE
from geo_mf.comparison.spaces import ROWS, Items, Space
from geo_mf.index.scan import scan

CUTS = (1, 5, 10, 20, 50, 100)
OCCURRENCE = 10
"""k of the k-occurrences."""
HUBS = 5
"""Hubs that are named."""
QUERIES = 4096
"""Rows whose neighbours are looked for at once."""
LOTS = 8
"""Columns by which ties are drawn."""


def nearest(
    directions: NDArray[np.float32], asked: NDArray[np.integer], k: int, rows: int = QUERIES, ties: int = 0
) -> NDArray[np.int64]:
    """int64 [len(asked), min(k, n - 1)]: the rows nearest to the rows `asked`, themselves left out, best first.

    Args:
        directions: float32 [n, dim], of unit length.
        asked: int64 [m].
        k: at least 1.
        rows: rows asked about at once.
        ties: seed of the order of those at the same cosine.
    """
    k = min(k, len(directions) - 1)
    order = np.random.default_rng(ties).permutation(len(directions))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    drawn = _with_lots(directions, order, ties)
    found = np.empty((len(asked), k), np.int64)
    for start in range(0, len(asked), rows):
        some = place[asked[start : start + rows]]
        best = scan(drawn[some], drawn, k + 1)[0]
        # Among many equal rows the row itself need not come: then the last one goes.
        other = best != some[:, None]
        other[other.all(axis=1), -1] = False
        found[start : start + rows] = order[best[other]].reshape(len(some), k)
    return found


def _with_lots(directions: NDArray[np.float32], order: NDArray[np.int64], ties: int) -> NDArray[np.float32]:
    """float32 [n, dim + LOTS]: rows in this order, each with a short random direction of its own. What these add to a
    cosine is below TIE, and another number for each pair of rows."""
    lots = np.random.default_rng((ties, LOTS)).standard_normal((len(order), LOTS))
    dim = directions.shape[1]
    rows = np.empty((len(order), dim + LOTS), np.float32)
    rows[:, dim:] = TIE**0.5 * lots / np.linalg.norm(lots, axis=1, keepdims=True)
    for start in range(0, len(order), ROWS):
        rows[start : start + ROWS, :dim] = directions[order[start : start + ROWS]]
    return rows


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Nearest neighbours in both spaces.

    Attributes:
        asked: int64 [m], the rows asked about, rising.
        first, second: int64 [m, k], their nearest rows in each space, best first.
    """

    asked: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]

    @classmethod
    def of(cls, a: Space, b: Space, asked: NDArray[np.int64], rows: int = QUERIES) -> "Neighbours":
        """Of the rows `asked`, among all."""
        first, second = (nearest(space.directions, asked, CUTS[-1], rows, ties) for ties, space in enumerate((a, b)))
        return cls(asked, first, second)

    @cached_property
    def depths(self) -> NDArray[np.int64]:
        """int64 [m, k]: for each neighbour in the first space, the smallest cut at which both spaces name it; k + 1
        where the second does not name it."""
        m, k = self.first.shape
        size = max(int(self.first.max()), int(self.second.max())) + 1
        keys = [np.arange(m)[:, None] * size + side for side in (self.first, self.second)]
        order = np.argsort(keys[1], axis=None)
        ranked = keys[1].ravel()[order]
        at = np.minimum(np.searchsorted(ranked, keys[0]), len(ranked) - 1)
        place = np.where(ranked[at] == keys[0], order[at] % k, k)
        return np.maximum(place, np.arange(k)) + 1

    def overlaps(self, n: int) -> tuple[Overlap, ...]:
        """At each cut below n; the mean over the items asked about, with a normal interval."""
        return tuple(Overlap(k, mean_of((self.depths <= k).sum(axis=1) / k), k / (n - 1)) for k in CUTS if k < n)


def hubness(space: Space, nearest: NDArray[np.int64], items: Items) -> Hubness:
    """Of n items, from their nearest rows [n, >= k]."""
    k = min(OCCURRENCE, nearest.shape[1])
    occurrence = np.bincount(nearest[:, :k].ravel(), minlength=len(items))
    # The largest first, equal ones in the order of rows.
    largest = np.argsort(-occurrence, kind="stable")[:HUBS]
    names = items.names(largest)
    hubs = tuple(Hub(name, int(occurrence[row])) for name, row in zip(names, largest, strict=True))
    return Hubness(space.name, k, len(items), skewness(occurrence), float((occurrence == 0).mean()), hubs)


def skewness(values: NDArray[np.integer]) -> float:
    """E (x - mean)^3 / sd^3; 0 where all values are equal."""
    apart = values - values.mean()
    spread = np.sqrt((apart**2).mean())
    return float((apart**3).mean() / spread**3) if spread > 0 else 0.0


def mean_of(values: NDArray[np.floating]) -> Estimate:
    """The mean of shares, with its normal 95 % interval, within 0 and 1."""
    mean, half = float(values.mean()), 1.96 * float(values.std()) / len(values) ** 0.5
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half))
