"""Exact scores by Faiss's own loops, over vectors that lie anywhere: in memory, or mapped from a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import faiss as _faiss
import numpy as np

from geo_mf.errors import InvalidInput
from geo_mf.threads import chosen

__all__ = ["openmp_threads", "rescore", "scan", "scan_rows", "valid_threads"]

faiss = cast(Any, _faiss)  # the stubs of 1.15 leave out thread counts, loops over chosen rows and zero-copy readers

# Faiss 1.15 multiplies matrices only from 128,000 numbers of queries on: 500 queries it scores one by one, six times
# slower (10^5 x 129 on two cores: .74 ms a query, .13 with this). It is a setting of the process, and changes the
# time alone.
faiss.cvar.distance_compute_blas_threshold = min(faiss.cvar.distance_compute_blas_threshold, 20)

# Two ways to score chosen rows: read them where they lie, a query at a time on one core, or copy them together and
# multiply. Measured on two cores over 10^6 x 128: one by one wins below 8 queries whatever the number of rows, and in a
# batch up to a thousand rows; a copy of 50,000 rows takes 40 ms.
FEW_QUERIES, FEW_ROWS = 8, 4096
GATHER_BYTES = 2**28  # and no larger copy than this is made at once


def scan(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64 and scores float32 [q, min(k, n)] of the largest inner products, best first.

    Args:
        queries: float32 [q, dim], C-contiguous.
        vectors: float32 [n, dim], C-contiguous.
        k: at least 1.
    """
    k = min(k, len(vectors))
    if not k or not len(queries):
        return np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    scores, rows = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    return rows, scores


def scan_rows(queries: np.ndarray, vectors: np.ndarray, chosen: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """As `scan`, among the rows `chosen`, int64 [m]; at most m columns."""
    k = min(k, len(chosen))
    if not k or not len(queries):
        return np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    if len(queries) < FEW_QUERIES or len(chosen) <= FEW_ROWS:
        return _by_row(queries, vectors, chosen, 0, k)
    step = max(k, GATHER_BYTES // (4 * vectors.shape[1]))
    parts = []
    for start in range(0, len(chosen), step):
        some = chosen[start : start + step]
        rows, scores = scan(queries, np.take(vectors, some, axis=0), k)
        parts.append((some[rows], scores))
    if len(parts) == 1:
        return parts[0]
    rows, scores = (np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True))
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, best, axis=1), np.take_along_axis(scores, best, axis=1)


def rescore(queries: np.ndarray, vectors: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """As `scan`, each query among its own candidates, int64 [q, c], whose ends may be filled up with -1.

    Where a query has fewer than `k`, the line ends with rows -1 and scores -inf.
    """
    k = min(k, candidates.shape[1])
    if not k or not len(queries):
        return np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    rows, scores = _by_row(queries, vectors, np.ascontiguousarray(candidates), candidates.shape[1], k)
    scores[rows < 0] = -np.inf
    return rows, scores


def _by_row(
    queries: np.ndarray, vectors: np.ndarray, candidates: np.ndarray, step: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """`step` is the distance of two queries' candidates: 0 where all have the same ones."""
    rows, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    pointers = [faiss.swig_ptr(array) for array in (queries, vectors, candidates)]
    n, m = len(vectors), candidates.shape[-1]
    out = faiss.swig_ptr(scores), faiss.swig_ptr(rows)
    faiss.knn_inner_products_by_idx(*pointers, vectors.shape[1], len(queries), n, m, k, *out, step)
    return rows, scores


def valid_threads(threads: int | None) -> int | None:
    """Raises InvalidInput for a number of threads below 1."""
    if threads is not None and (isinstance(threads, bool) or threads < 1):
        raise InvalidInput(f"threads is {threads}; expected an integer of at least 1, or None for the process's own.")
    return threads


@contextmanager
def openmp_threads(threads: int | None, queries: int = 0) -> Iterator[None]:
    """Run Faiss on this many threads; None takes what `set_threads` chose, or leaves the process's setting alone.

    Neither counts for one query alone.

    Faiss shares queries among threads. One query gains nothing from a second thread (10^5 x 129: 1.34 ms on one, 1.62
    where two are at hand), and where other work holds the second core, it waits for it: 16 ms.
    """
    threads = 1 if queries == 1 else threads or chosen()
    if threads is None:
        yield
        return
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
