"""Exact maximum inner product search with Faiss."""

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from geo_mf.errors import IncompatibleIndex, InvalidInput
from geo_mf.index.exact import Hits, SearchLimits, valid_vectors
from geo_mf.index.filters import search_filtered
from geo_mf.index.scan import openmp_threads, scan, scan_rows, valid_threads

__all__ = ["FaissIndex"]

# The file of an IndexFlatIP: kind, dim, rows, two unused, trained, metric, length; then the floats.
_HEADER = struct.Struct("<4siqqqBiQ")
_KIND = b"IxFI"
_INNER_PRODUCT = 0
_UNUSED = 2**20


class FaissIndex:
    """Exact inner products, with the filters applied inside the search. See `VectorIndex` for the contract.

    Args:
        vectors: float32 or float64 [size, dim], finite; copied, as float32.
        threads: OpenMP threads of one search; None leaves the process's setting alone. It changes no more than the last
            digit of a score.

    Raises:
        InvalidInput: see `valid_vectors`; or `threads` below 1.
    """

    def __init__(self, vectors: np.ndarray, *, threads: int | None = None) -> None:
        threads = valid_threads(threads)
        checked, norm = valid_vectors(vectors)
        self._adopt(checked.copy() if np.may_share_memory(checked, vectors) else checked, norm, threads)

    def _adopt(self, vectors: np.ndarray, norm: float, threads: int | None) -> None:
        self.vectors = vectors.view()
        self.vectors.flags.writeable = False
        self._limits = SearchLimits(len(vectors), vectors.shape[1], norm)
        self._threads = threads

    @property
    def size(self) -> int:
        return self._limits.size

    @property
    def dim(self) -> int:
        return self._limits.dim

    @property
    def norm(self) -> float:
        """Length of the longest row."""
        return self._limits.norm

    def search(
        self,
        queries: np.ndarray,
        k: int,
        allowed: np.ndarray | None = None,
        exclude: Sequence[npt.ArrayLike] | None = None,
    ) -> Hits:
        """See `VectorIndex.search`."""
        ask = self._limits.check(queries, k, allowed, exclude)
        with openmp_threads(self._threads, len(ask.queries)):
            return search_filtered(ask, self.size, self._top)

    def _top(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        if allowed is None or allowed.all():
            return scan(queries, self.vectors, k)
        return scan_rows(queries, self.vectors, np.flatnonzero(allowed), k)

    def to_bytes(self) -> bytes:
        """The index in Faiss's own format, an IndexFlatIP; the same vectors give the same bytes."""
        size, dim = self.vectors.shape
        head = _HEADER.pack(_KIND, dim, size, _UNUSED, _UNUSED, True, _INNER_PRODUCT, size * dim)
        return head + self.vectors.tobytes()

    @classmethod
    def from_bytes(
        cls, data: bytes | memoryview, *, size: int, dim: int, norm: float | None = None, threads: int | None = None
    ) -> "FaissIndex":
        """Read what `to_bytes` wrote, without a copy: `data` must not change afterwards.

        Args:
            data: a whole serialized `IndexFlatIP`; other kinds are refused. Faiss's own reader is not needed.
            size: the number of rows it must have.
            dim: the number of columns it must have.
            norm: length of the longest row, where it is known of vectors that were checked; None reads and checks all.
            threads: as in `FaissIndex`.

        Raises:
            IncompatibleIndex: another kind, size or dim, a wrong length, or vectors that are not finite.
        """
        threads = valid_threads(threads)
        expected = _HEADER.size + 4 * size * dim
        if len(data) != expected:
            raise IncompatibleIndex(
                f"the Faiss index is {len(data)} bytes; {size} rows of {dim} float32 take {expected}. Build it again."
            )
        kind, found_dim, found_size, _, _, _, metric, floats = _HEADER.unpack_from(data)
        if kind != _KIND or metric != _INNER_PRODUCT:
            raise IncompatibleIndex(
                f"the Faiss index is of kind {kind!r} with metric {metric}; expected an exact inner-product index "
                f"({_KIND!r}, metric {_INNER_PRODUCT}). Build it again."
            )
        if (found_size, found_dim, floats) != (size, dim, size * dim):
            raise IncompatibleIndex(
                f"the Faiss index says {found_size} rows of {found_dim} ({floats} numbers); expected {size} rows of "
                f"{dim}. Build it again."
            )
        vectors = np.frombuffer(data, np.float32, offset=_HEADER.size).reshape(size, dim)
        if norm is None:
            try:
                _, norm = valid_vectors(vectors)
            except InvalidInput as error:
                raise IncompatibleIndex(f"the Faiss index cannot be searched: {error}") from error
        self = cls.__new__(cls)
        self._adopt(vectors, norm, threads)
        return self
