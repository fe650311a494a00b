"""How many of the true best rows an index finds, altogether and by group of rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from geo_mf.index.exact import Hits, VectorIndex
from geo_mf.index.scan import scan

__all__ = ["GROUPS", "Recall", "Truth", "norm_groups", "tenths"]

GROUPS = 10
FEWEST_PAIRS = 100  # of fewer true rows .95 is known to worse than .022: a tenth with fewer counts with the next
DEPTHS = (10, 100)


def tenths(values: np.ndarray) -> np.ndarray:
    """int [n]: the tenth that each value falls in, 0 for the smallest; equal values fall in the same."""
    return np.searchsorted(np.quantile(values, np.arange(1, GROUPS) / GROUPS), values, side="left")


def norm_groups(vectors: np.ndarray) -> np.ndarray:
    """int [n]: the tenth that a row's length falls in."""
    return tenths(np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)))


@dataclass(frozen=True)
class Recall:
    """A share of the true best rows, over some queries.

    Attributes:
        overall: of all of them.
        pairs: how many there were.
        by_group: of those in each group of rows; a group with too few of them is told with the next, or at
            the end with the one before.
        group_pairs: how many those were.
    """

    overall: float
    pairs: int
    by_group: Mapping[int, float] = field(default_factory=dict)
    group_pairs: Mapping[int, int] = field(default_factory=dict)

    @property
    def worst(self) -> float:
        """Of the worst group."""
        return min([self.overall, *self.by_group.values()])

    def holds(self, target: float) -> bool:
        """Whether overall and in each group the share, less its standard error, reaches the target."""
        shares = [(self.overall, self.pairs), *((r, self.group_pairs[g]) for g, r in self.by_group.items())]
        return all(share - np.sqrt(share * (1 - share) / pairs) >= target for share, pairs in shares)


@dataclass(frozen=True, eq=False)
class Truth:
    """Queries and their true best rows.

    Attributes:
        queries: float32 [q, dim].
        best: the DEPTHS[-1] best rows of each, or all rows.
        groups: int [n], the group of each row.
    """

    queries: np.ndarray
    best: Hits
    groups: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, queries: np.ndarray, groups: np.ndarray) -> "Truth":
        """By scoring every row."""
        k = min(DEPTHS[-1], len(vectors))
        queries = np.ascontiguousarray(queries, np.float32)
        return cls(queries, Hits.best(*scan(queries, vectors, k), k), groups)

    def recall(self, index: VectorIndex, k: int, allowed: np.ndarray | None = None) -> Recall:
        """Of the k best, how many `index` finds. A row that ties with the last of them is as good as that one."""
        k = min(k, self.best.rows.shape[1])
        found, rows = index.search(self.queries, k, allowed), self.best.rows[:, :k]
        line = np.arange(len(rows), dtype=np.int64)[:, None] * (len(self.groups) + 1)
        hit = np.isin(rows + line, found.rows + line)
        last = self.best.scores[:, k - 1 : k]
        slack = 1e-5 * np.abs(last)
        # Each found row that is none of `rows`, and yet as good as the last, stands for one that ties with the last.
        others = (found.scores >= last - slack) & ~np.isin(found.rows + line, rows + line)
        tied = ~hit & (self.best.scores[:, :k] <= last + slack)
        hit |= tied & (np.cumsum(tied, axis=1) <= np.count_nonzero(others, axis=1)[:, None])
        return self.share(hit)

    def share(self, hit: np.ndarray) -> Recall:
        """Of the true best rows, those marked in `hit`, bool [q, k]."""
        group = self.groups[self.best.rows[:, : hit.shape[1]]]
        pairs = np.bincount(group.ravel(), minlength=GROUPS)
        hits = np.bincount(group.ravel(), hit.ravel(), GROUPS)
        shares: dict[int, float] = {}
        counts: dict[int, int] = {}
        found = among = told = 0
        for g in range(GROUPS):
            found, among = found + int(hits[g]), among + int(pairs[g])
            if among >= FEWEST_PAIRS:
                shares[g], counts[g], told = found / among, among, g
                found = among = 0
        if among and shares:  # too few at the end count with those before them
            shares[told] = (shares[told] * counts[told] + found) / (counts[told] + among)
            counts[told] += among
        return Recall(float(hit.mean()) if hit.size else 1.0, max(1, hit.size), shares, counts)
