"""Rows that came or changed since an index was made: a small exact segment beside it, and a mask over what is stale."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geo_mf.errors import InvalidInput
from geo_mf.index.exact import Hits, SearchLimits, VectorIndex, valid_vectors
from geo_mf.index.faiss import FaissIndex

__all__ = ["LivingIndex", "changed"]


@dataclass(frozen=True, eq=False)
class LivingIndex:
    """An index and what changed since. See `VectorIndex` for the contract; as exact as `main` is.

    Attributes:
        main: rows 0..m-1 as they were.
        rows: int64 [s], rising: rows of which `segment` holds the present vectors. Those below m are stale in `main`.
        segment: exact, of s rows.
        size: how many rows there are; all from m on are in `rows`.
    """

    main: VectorIndex
    rows: np.ndarray
    segment: FaissIndex
    size: int

    @property
    def dim(self) -> int:
        return self.main.dim

    def search(
        self,
        queries: np.ndarray,
        k: int,
        allowed: np.ndarray | None = None,
        exclude: Sequence[npt.ArrayLike] | None = None,
    ) -> Hits:
        """See `VectorIndex.search`."""
        # Both parts check what they are given; this checks the filters, which speak of all rows.
        ask = SearchLimits(self.size, self.dim, 0.0).check(queries, k, allowed, exclude)
        stale = self.rows[: np.searchsorted(self.rows, self.main.size)]
        fresh = None if ask.allowed is None else ask.allowed[: self.main.size]
        if len(stale):
            fresh = np.ones(self.main.size, bool) if fresh is None else fresh.copy()
            fresh[stale] = False
        inside = None if ask.exclude is None else [rows[rows < self.main.size] for rows in ask.exclude]
        old = self.main.search(ask.queries, ask.k, fresh, inside)
        mask = None if ask.allowed is None else ask.allowed[self.rows]
        places = None if ask.exclude is None else [np.flatnonzero(np.isin(self.rows, rows)) for rows in ask.exclude]
        new = self.segment.search(ask.queries, ask.k, mask, places)
        here = np.append(self.rows, -1)[new.rows]
        return Hits.best(np.hstack([old.rows, here]), np.hstack([old.scores, new.scores]), ask.k)


def changed(index: VectorIndex, rows: np.ndarray, vectors: np.ndarray, size: int) -> LivingIndex:
    """An index after a write; nothing of the old one is touched, and requests that hold it go on.

    Args:
        index: before the write; a `LivingIndex` keeps its segment, which grows.
        rows: int64 [s], what was written, without duplicates; all rows from `index.size` on must be among them.
        vectors: float32 [s, dim], their vectors.
        size: rows after the write.

    Raises:
        InvalidInput: a vector is not finite, or a row after the last is missing.
    """
    missing = np.setdiff1d(np.arange(index.size, size), rows)
    if len(missing):
        raise InvalidInput(f"row {missing[0]} is new in an index of {index.size} rows, and no vector was given for it")
    vectors, _ = valid_vectors(vectors)
    main = index
    if isinstance(index, LivingIndex):
        main, kept = index.main, ~np.isin(index.rows, rows)
        rows = np.concatenate([index.rows[kept], rows])
        vectors = np.concatenate([index.segment.vectors[kept], vectors])
    order = np.argsort(rows)
    return LivingIndex(main, rows[order].astype(np.int64), FaissIndex(vectors[order]), size)
