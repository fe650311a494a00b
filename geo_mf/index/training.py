"""Training an index that Faiss has made: cells on all cores, and codes on one."""

from typing import Any

import numpy as np

from geo_mf.index.lift import Lift
from geo_mf.index.scan import faiss, openmp_threads

ROWS = 32
"""That a cell is trained on."""

ROUNDS = 6
"""Of k-means; on 10^6 rows, ten find no better cells."""


def train(index: Any, vectors: np.ndarray, lift: Lift, seed: int) -> None:
    """Train on a sample, as large as the cells need.

    Args:
        index: of Faiss, empty.
        vectors: float32 [size, dim].
        lift: what makes rows of the index out of them.
        seed: of the sample, and of k-means.

    Raises:
        RuntimeError: Faiss cannot.
    """
    found = cells_of(index)
    wanted = 2**16
    _quieten(index)
    if found is not None:
        found.cp.seed, found.cp.niter, found.cp.max_points_per_centroid = seed + 1, ROUNDS, ROWS
        wanted = max(wanted, ROWS * found.nlist)
    if index.is_trained:
        return
    rows = lift.rows(vectors[np.sort(np.random.default_rng(seed).permutation(len(vectors))[:wanted])])
    if not isinstance(index, faiss.IndexIVFPQ | faiss.IndexIVFPQFastScan):
        index.train(rows)
        return
    index.train_q1(len(rows), faiss.swig_ptr(rows), False, index.metric_type)
    # Each part of a code is k-means of a few thousand points with two to eight numbers: a second thread gains nothing,
    # and where other work holds its core, both wait for each other (708 parts: 4.4 s on one, 45 on two).
    with openmp_threads(1):
        index.train(rows)


def take_cells(index: Any, trained: Any) -> None:
    """Give an untrained IVF the cells of another one, where both have as many."""
    mine, theirs = cells_of(index), cells_of(trained)
    if mine is not None and theirs is not None and (mine.nlist, mine.d) == (theirs.nlist, theirs.d):
        quantizer = faiss.downcast_index(theirs.quantizer)
        mine.quantizer.add(quantizer.reconstruct_n(0, theirs.nlist))


def cells_of(index: Any) -> Any:
    """The IVF in an index, or None."""
    found = faiss.try_extract_index_ivf(index)
    return None if found is None else faiss.downcast_index(found)


def _quieten(index: Any) -> None:
    """Faiss would complain to stderr where it trains codes or cells on few rows."""
    if isinstance(index, faiss.IndexPreTransform):
        _quieten(faiss.downcast_index(index.index))
    elif isinstance(index, faiss.IndexRefine):
        _quieten(faiss.downcast_index(index.base_index))
        _quieten(faiss.downcast_index(index.refine_index))
    elif isinstance(index, faiss.IndexHNSW):
        _quieten(faiss.downcast_index(index.storage))
    parts: tuple[Any, Any] = index, getattr(index, "pq", None)
    for part in parts:
        if hasattr(part, "cp"):
            part.cp.min_points_per_centroid = 1
