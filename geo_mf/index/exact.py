"""The contract of every vector index, and its specification in NumPy.

An index holds `size` rows of `dim` numbers and answers: which `k` rows have the largest inner product with this query?
`ExactIndex` is the definition of the right answer; every other index is tested against it.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from geo_mf.errors import InvalidInput

__all__ = ["ExactIndex", "Hits", "Search", "SearchLimits", "VectorIndex", "valid_vectors"]

MAX_ROWS = 2**31 - 1
# By Cauchy-Schwarz no score, and no partial sum of one, exceeds |query| * |vector|. float32 ends at 3.4e38; the margin
# is for rounding. Below this bound every score is finite, so -inf can mean "no such row".
MAX_SCORE = 1e38
BLOCK_SCORES = 2**24  # scores held at once by ExactIndex: 64 MiB of float32 (one query over all rows at the least)


@dataclass(frozen=True, eq=False)
class Hits:
    """The best rows of each query, best first.

    Attributes:
        rows: int32 [q, k]. Where fewer than `k` rows could be returned, the list ends with row -1.
        scores: float32 [q, k], the inner products, falling along each line; -inf where `rows` is -1.
    """

    rows: np.ndarray
    scores: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """int32 [q]: how many rows each query really has."""
        return np.count_nonzero(self.rows >= 0, axis=1).astype(np.int32)

    @classmethod
    def best(cls, rows: np.ndarray, scores: np.ndarray, k: int) -> "Hits":
        """Order candidates [q, c] by (-score, row), drop those whose score is -inf, and cut or pad each line to `k`."""
        order = np.lexsort((rows, -scores))[:, :k]
        width = order.shape[1]
        best_rows = np.full((len(rows), k), -1, np.int32)
        best_scores = np.full((len(rows), k), -np.inf, np.float32)
        best_scores[:, :width] = np.take_along_axis(scores, order, axis=1)
        best_rows[:, :width] = np.where(
            np.isneginf(best_scores[:, :width]), -1, np.take_along_axis(rows, order, axis=1)
        )
        return cls(best_rows, best_scores)


class VectorIndex(Protocol):
    """Maximum inner product search over fixed rows 0..size-1."""

    @property
    def size(self) -> int: ...

    @property
    def dim(self) -> int: ...

    def search(
        self,
        queries: np.ndarray,
        k: int,
        allowed: np.ndarray | None = None,
        exclude: Sequence[npt.ArrayLike] | None = None,
    ) -> Hits:
        """Return the `k` rows with the largest inner product, for each query.

        Both filters act inside the search: `k` rows come back whenever `k` rows remain, never a duplicate and never a
        filtered row. The order is score falling, then row rising. Where several rows tie for the k-th place, any of
        them may take it.

        Args:
            queries: float32 or float64 [q, dim], finite.
            k: how many rows, at least 1; it may exceed `size` (the answer takes 8 * q * k bytes).
            allowed: bool [size], the rows that any query may return; None allows all.
            exclude: one integer array per query, rows withheld from that query (say, what its user has seen).

        Raises:
            InvalidInput: a wrong dtype, shape or range, a number that is not finite, or scores beyond float32.
        """
        ...


class ExactIndex:
    """The specification: every inner product in NumPy, a block of queries at a time.

    Ties at the k-th place go to the smallest row, which is stricter than `VectorIndex` asks.

    Args:
        vectors: float32 or float64 [size, dim], finite; copied, as float32.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        vectors, norm = valid_vectors(vectors)
        self._vectors = vectors.copy()
        self._limits = SearchLimits(len(vectors), vectors.shape[1], norm)

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
        rows = np.full((len(ask.queries), ask.k), -1, np.int32)
        scores = np.full((len(ask.queries), ask.k), -np.inf, np.float32)
        step = max(1, BLOCK_SCORES // max(1, self.size))
        for start in range(0, len(ask.queries), step):
            block = ask.queries[start : start + step] @ self._vectors.T
            if ask.allowed is not None:
                block[:, ~ask.allowed] = -np.inf
            for j, line in enumerate(block, start):
                if ask.exclude is not None:
                    line[ask.exclude[j]] = -np.inf
                found = _largest(line, ask.k)
                rows[j, : len(found)] = found
                scores[j, : len(found)] = line[found]
        return Hits(rows, scores)


def _largest(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions of the `k` largest scores above -inf, by (-score, position)."""
    reachable = scores > -np.inf
    if k < len(scores):
        reachable &= scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
    found = np.flatnonzero(reachable)
    return found[np.argsort(-scores[found], kind="stable")][:k]


# --- what an index accepts ---------------------------------------------------------------------------------------


def valid_vectors(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """Check the rows of an index; return them as C-contiguous float32 [size, dim], and the largest row norm.

    Raises:
        InvalidInput: not two-dimensional, no column, not float32/float64, or a row that is not finite in float32.
    """
    matrix, norms = _finite_matrix(vectors, "vectors")
    if len(matrix) > MAX_ROWS:
        raise InvalidInput(f"vectors has {len(matrix)} rows; an index holds at most {MAX_ROWS}. Split it.")
    largest = float(norms.max(initial=0.0))
    if largest > MAX_SCORE:
        raise InvalidInput(f"a row of vectors has length {largest:.3g}; at most {MAX_SCORE:.0e} fits. Scale them down.")
    return matrix, largest


@dataclass(frozen=True)
class Search:
    """One checked call: float32 C-contiguous queries [q, dim], `k`, and the filters (`exclude`: int64 rows, unique)."""

    queries: np.ndarray
    k: int
    allowed: np.ndarray | None
    exclude: tuple[np.ndarray, ...] | None


@dataclass(frozen=True)
class SearchLimits:
    """What one index can answer: `size` rows of `dim` numbers, none longer than `norm`."""

    size: int
    dim: int
    norm: float

    def check(
        self,
        queries: np.ndarray,
        k: int,
        allowed: np.ndarray | None,
        exclude: Sequence[npt.ArrayLike] | None,
    ) -> Search:
        """Refuse what cannot be searched; convert the rest. Faiss itself checks with `assert`, or not at all."""
        matrix, norms = _finite_matrix(queries, "queries")
        if matrix.shape[1] != self.dim:
            raise InvalidInput(f"queries has {matrix.shape[1]} columns; this index has {self.dim}.")
        longest = float(norms.max(initial=0.0))
        if longest * self.norm > MAX_SCORE:
            raise InvalidInput(
                f"a query has length {longest:.3g} and a row has {self.norm:.3g}: their product does not fit float32. "
                "Scale the queries down; the order of the results stays the same."
            )
        return Search(matrix, _valid_k(k), self._allowed(allowed), self._exclude(exclude, len(matrix)))

    def _allowed(self, allowed: np.ndarray | None) -> np.ndarray | None:
        if allowed is None:
            return None
        mask = np.asarray(allowed)
        if mask.dtype != np.bool_ or mask.shape != (self.size,):
            raise InvalidInput(
                f"allowed is {mask.dtype} {list(mask.shape)}; expected a bool mask [{self.size}], one entry per row."
            )
        return mask

    def _exclude(self, exclude: Sequence[npt.ArrayLike] | None, q: int) -> tuple[np.ndarray, ...] | None:
        if exclude is None:
            return None
        if len(exclude) != q:
            raise InvalidInput(f"exclude has {len(exclude)} entries for {q} queries; give one array of rows per query.")
        return tuple(self._rows(rows, j) for j, rows in enumerate(exclude))

    def _rows(self, rows: npt.ArrayLike, j: int) -> np.ndarray:
        array = np.asarray(rows)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise InvalidInput(
                f"exclude[{j}] is {array.dtype} {list(array.shape)}; expected a one-dimensional array of integer rows."
            )
        if not array.size:
            return np.empty(0, np.int64)
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= self.size:
            bad = low if low < 0 else high
            raise InvalidInput(f"exclude[{j}] holds row {bad}; this index has rows 0 to {self.size - 1}.")
        return np.unique(array.astype(np.int64))


def _valid_k(k: int) -> int:
    try:
        number = operator.index(k)
    except TypeError:
        number = 0
    if number < 1 or isinstance(k, bool | np.bool_):
        raise InvalidInput(f"k is {k!r}; expected an integer of at least 1.")
    return number


def _finite_matrix(values: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """C-contiguous float32 [n, m] and its row norms in float64 [n]."""
    matrix = np.asarray(values)
    if matrix.ndim != 2 or matrix.shape[1] < 1:
        raise InvalidInput(
            f"{name} has shape {list(matrix.shape)}; expected [rows, dim]. A single vector v goes in as v[None, :]."
        )
    if matrix.dtype not in (np.float32, np.float64):
        raise InvalidInput(f"{name} is {matrix.dtype}; expected float32 or float64. Convert with astype('float32').")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf and is named below
        matrix = np.ascontiguousarray(matrix, np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
    # One sum tells whether all are finite; the search for the culprit is made only when there is one.
    if not math.isfinite(norms.sum()):
        row = int(np.flatnonzero(~np.isfinite(norms))[0])
        raise InvalidInput(f"{name} row {row} holds NaN, infinity or a number beyond float32; remove or repair it.")
    return matrix, norms
