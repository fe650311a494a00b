"""Exact maximum inner product search with Faiss."""

import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import faiss as _faiss
import numpy as np
import numpy.typing as npt

from geo_mf.errors import IncompatibleIndex, InvalidInput
from geo_mf.index.exact import Hits, Search, SearchLimits, valid_vectors

__all__ = ["FaissIndex"]

faiss = cast(Any, _faiss)  # the stubs of 1.15 leave out serialization, thread counts and IDSelectorBitmap(bits)

# Faiss walks a selector row by row; over a gathered copy it uses one matrix product. Measured on two cores, 10^4 x 128
# and 2*10^5 x 256: for a batch the copy wins from half of the rows downwards, for a few queries from a twentieth.
FEW_QUERIES, GATHER_FEW, GATHER_BATCH = 8, 0.05, 0.5
GATHER_BYTES = 2**28  # and no larger copy than this is made
# In a batch it is cheaper to ask for k + |excluded| rows, and to drop the excluded, than to give each query a selector;
# up to here.
OVERFETCH = 1024
BLOCK_CANDIDATES = 2**22  # candidates held at once

# The file of an IndexFlatIP: kind, dim, rows, two unused, trained, metric (0: inner product), length; then the floats.
_HEADER = struct.Struct("<4siqqqBiQ")
_KIND = b"IxFI"
_deserialization = threading.Lock()  # the limits of Faiss are global to the process


class FaissIndex:
    """Exact inner products, with the filters applied inside the search. See `VectorIndex` for the contract.

    Args:
        vectors: float32 or float64 [size, dim], finite; copied, as float32.
        threads: OpenMP threads of one search; None leaves the process's setting alone. It does not change the answer.

    Raises:
        InvalidInput: see `valid_vectors`; or `threads` below 1.
    """

    def __init__(self, vectors: np.ndarray, *, threads: int | None = None) -> None:
        threads = _valid_threads(threads)
        vectors, norm = valid_vectors(vectors)
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        self._adopt(index, norm, threads)

    def _adopt(self, index: Any, norm: float, threads: int | None) -> None:
        self._index = index
        self._vectors = _stored(index)
        self._limits = SearchLimits(index.ntotal, index.d, norm)
        self._threads = threads

    @property
    def size(self) -> int:
        return self._limits.size

    @property
    def dim(self) -> int:
        return self._limits.dim

    def search(
        self,
        queries: np.ndarray,
        k: int,
        allowed: np.ndarray | None = None,
        exclude: Sequence[npt.ArrayLike] | None = None,
    ) -> Hits:
        """See `VectorIndex.search`."""
        ask = self._limits.check(queries, k, allowed, exclude)
        with _openmp_threads(self._threads):
            if ask.exclude is None:
                return Hits.best(*self._top(ask.queries, ask.k, ask.allowed), ask.k)
            return self._search_excluding(ask, ask.exclude)

    def _search_excluding(self, ask: Search, exclude: tuple[np.ndarray, ...]) -> Hits:
        hits = Hits(
            np.full((len(ask.queries), ask.k), -1, np.int32), np.full((len(ask.queries), ask.k), -np.inf, np.float32)
        )
        lengths = np.array([len(rows) for rows in exclude], np.int64)
        together = lengths <= (OVERFETCH if len(exclude) > 1 else 0)
        for j in np.flatnonzero(~together):
            mask = np.ones(self.size, bool) if ask.allowed is None else ask.allowed.copy()
            mask[exclude[j]] = False
            alone = Hits.best(*self._top(ask.queries[j : j + 1], ask.k, mask), ask.k)
            hits.rows[j], hits.scores[j] = alone.rows[0], alone.scores[0]
        batch = np.flatnonzero(together)
        step = max(1, BLOCK_CANDIDATES // min(self.size + 1, ask.k + OVERFETCH))
        for start in range(0, len(batch), step):
            block = batch[start : start + step]
            rows, scores = self._top(ask.queries[block], ask.k + int(lengths[block].max()), ask.allowed)
            withheld = np.concatenate([exclude[j] for j in block])
            # (query, row) as one number: both lists hold each pair once.
            line = np.arange(len(block), dtype=np.int64) * self.size
            scores[np.isin(rows + line[:, None], withheld + np.repeat(line, lengths[block]))] = -np.inf
            best = Hits.best(rows, scores, ask.k)
            hits.rows[block], hits.scores[block] = best.rows, best.scores
        return hits

    def _top(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Rows int64 and scores float32 [q, min(k, allowed rows)] of the best allowed rows, in no promised order."""
        count = self.size if allowed is None else int(np.count_nonzero(allowed))
        k = min(k, count)
        if k == 0 or not len(queries):
            return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
        if allowed is None or count == self.size:
            scores, rows = self._index.search(queries, k)
            return rows, scores
        share = GATHER_FEW if len(queries) < FEW_QUERIES else GATHER_BATCH
        if count <= share * self.size and count * self.dim * 4 <= GATHER_BYTES:
            chosen = np.flatnonzero(allowed)
            gathered = np.take(self._vectors, chosen, axis=0)
            scores, rows = faiss.knn(queries, gathered, k, metric=faiss.METRIC_INNER_PRODUCT)
            return chosen[rows], scores
        bits = np.packbits(allowed, bitorder="little")  # Faiss keeps only a pointer: `bits` must outlive the search
        selector = faiss.IDSelectorBitmap(bits)
        scores, rows = self._index.search(queries, k, params=faiss.SearchParameters(sel=selector))
        return rows, scores

    def to_bytes(self) -> bytes:
        """The index in Faiss's own format, readable with plain Faiss; the same vectors give the same bytes."""
        return faiss.serialize_index(self._index).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, *, size: int, dim: int, threads: int | None = None) -> "FaissIndex":
        """Read what `to_bytes` wrote. Check the bytes against their SHA-256 first: Faiss does not notice flipped bits.

        Args:
            data: a whole serialized `IndexFlatIP`; other kinds are refused before Faiss sees them.
            size: the number of rows it must have.
            dim: the number of columns it must have.
            threads: as in `FaissIndex`.

        Raises:
            IncompatibleIndex: another kind, size or dim, a wrong length, or vectors that are not finite.
        """
        threads = _valid_threads(threads)
        expected = _HEADER.size + 4 * size * dim
        if len(data) != expected:
            raise IncompatibleIndex(
                f"the Faiss index is {len(data)} bytes; {size} rows of {dim} float32 take {expected}. Build it again."
            )
        kind, found_dim, found_size, _, _, _, metric, floats = _HEADER.unpack_from(data)
        if kind != _KIND or metric != faiss.METRIC_INNER_PRODUCT:
            raise IncompatibleIndex(
                f"the Faiss index is of kind {kind!r} with metric {metric}; this version reads only exact "
                f"inner-product indexes ({_KIND!r}, metric {faiss.METRIC_INNER_PRODUCT}). Build it again."
            )
        if (found_size, found_dim, floats) != (size, dim, size * dim):
            raise IncompatibleIndex(
                f"the Faiss index says {found_size} rows of {found_dim} ({floats} numbers); expected {size} rows of "
                f"{dim}. Build it again."
            )
        with _deserialization, _limited(floats):
            try:
                index = faiss.deserialize_index(np.frombuffer(data, np.uint8))
            except RuntimeError as error:
                raise IncompatibleIndex(f"Faiss cannot read the index: {error}. Build it again.") from error
        if type(index) is not faiss.IndexFlatIP or (index.ntotal, index.d) != (size, dim):
            raise IncompatibleIndex(
                f"the Faiss index is a {type(index).__name__} [{index.ntotal}, {index.d}]; expected an IndexFlatIP "
                f"[{size}, {dim}]. Build it again."
            )
        try:
            _, norm = valid_vectors(_stored(index))
        except InvalidInput as error:
            raise IncompatibleIndex(f"the Faiss index cannot be searched: {error}") from error
        self = cls.__new__(cls)
        self._adopt(index, norm, threads)
        return self


def _stored(index: Any) -> np.ndarray:
    """Faiss's own memory as float32 [size, dim]; valid as long as the index lives."""
    if not index.ntotal:
        return np.empty((0, index.d), np.float32)
    return faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)


def _valid_threads(threads: int | None) -> int | None:
    if threads is not None and (isinstance(threads, bool) or threads < 1):
        raise InvalidInput(f"threads is {threads}; expected an integer of at least 1, or None for the process's own.")
    return threads


@contextmanager
def _openmp_threads(threads: int | None) -> Iterator[None]:
    if threads is None:
        yield
        return
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@contextmanager
def _limited(floats: int) -> Iterator[None]:
    """Let Faiss allocate no more than `floats` numbers while it reads (its test is `floats < limit / 4`)."""
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    faiss.set_deserialization_vector_byte_limit(4 * (floats + 1))
    faiss.set_deserialization_loop_limit(max(1, floats))
    try:
        yield
    finally:
        faiss.set_deserialization_vector_byte_limit(before[0])
        faiss.set_deserialization_loop_limit(before[1])
