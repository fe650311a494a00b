"""Maximum inner product search that looks at a part of the rows, and scores what it finds exactly."""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from geo_mf.errors import IncompatibleIndex, InvalidInput
from geo_mf.index.exact import Hits, Search, SearchLimits, valid_vectors
from geo_mf.index.filters import search_filtered
from geo_mf.index.lift import Lift
from geo_mf.index.scan import faiss, openmp_threads, rescore, scan, scan_rows, valid_threads
from geo_mf.index.training import cells_of, take_cells, train

__all__ = ["ApproximateIndex", "Effort"]

ROWS_AT_ONCE = 2**16
TOO_FAR = 0.02  # of its length: a row that moved less is as good as where it was, within the steps of SQ8
# Where Faiss ends the process or never comes back: a zero where a number stands, a graph of one link, NSG (whose search
# has no filters anyway), and refining by rows that lie in cells.
FATAL = re.compile(r"(?<!\d)0+(?!\d)|HNSW0*1(?!\d)|NSG|Refine\(.*(IVF|IMI)")
_deserialization = threading.Lock()  # the limits of Faiss are global to the process


@dataclass(frozen=True)
class Effort:
    """How hard an index looks.

    Attributes:
        probes: cells that a query visits (IVF), or how many rows it keeps in sight (HNSW); other kinds have no use for
            it.
        oversample: times k + 10, how many candidates are scored exactly.
        exact_below: where a filter allows a smaller share of the rows than this, all allowed rows are scored.
    """

    probes: int = 64
    oversample: float = 12.0
    exact_below: float = 0.05

    def __post_init__(self) -> None:
        if self.probes < 1 or not 1 <= self.oversample < np.inf or not 0 <= self.exact_below <= 1:
            raise InvalidInput(
                f"{self}; expected at least one probe, an oversample of at least 1, exact_below from 0 to 1"
            )

    def candidates(self, k: int) -> int:
        """How many are scored exactly for k rows."""
        return int(np.ceil(self.oversample * (k + 10)))


class ApproximateIndex:
    """A Faiss index finds candidates, exact inner products order them. See `VectorIndex` for the contract.

    The one difference: among the `k` rows there may be some that are not of the `k` best; how many are is what the
    planner measures (`geo_mf.index.plan`). The scores are exact, and there are always `k` rows where `k` remain: a
    query that finds fewer is answered again by scoring all allowed rows.

    Args:
        vectors: float32 [size, dim], C-contiguous and finite; kept, not copied: it must not change.
        lift: what the rows go through before Faiss sees them.
        index: the Faiss index of the lifted rows, in the same order.
        effort: how hard to look.
        norm: length of the longest row.
        threads: OpenMP threads of one search; None leaves the process's setting alone.
    """

    def __init__(
        self, vectors: np.ndarray, lift: Lift, index: Any, effort: Effort, *, norm: float, threads: int | None = None
    ) -> None:
        self.vectors, self.lift, self.effort, self.norm = vectors, lift, effort, norm
        self.faiss_index, self._threads = index, valid_threads(threads)
        self._limits = SearchLimits(len(vectors), vectors.shape[1], norm)

    @classmethod
    def build(
        cls,
        vectors: np.ndarray,
        factory: str,
        *,
        basis: np.ndarray | None = None,
        effort: Effort | None = None,
        like: "ApproximateIndex | None" = None,
        seed: int = 0,
        threads: int | None = None,
    ) -> "ApproximateIndex":
        """Train an index and fill it.

        Args:
            vectors: float32 or float64 [size, dim], finite.
            factory: a Faiss factory string, such as "IVF4096,SQ8", "HNSW32" or "IVF1024,PQ32x4fs".
            basis: float32 [dim, r], what candidates are looked for in; see `Lift`.
            effort: how hard to look.
            like: an index of the same rows, lifted alike; cells of the same number are taken from it, not trained.
            seed: of the training.
            threads: as above.

        Raises:
            InvalidInput: see `valid_vectors`; or Faiss does not know the factory string, or cannot train it on so few
                rows.
        """
        vectors, norm = valid_vectors(vectors)
        lift = Lift.of(vectors, basis)
        with openmp_threads(valid_threads(threads)):
            try:
                if FATAL.search(factory):
                    raise RuntimeError("it has no such kind that can be searched with filters")
                index = faiss.index_factory(lift.width(vectors.shape[1]), factory, faiss.METRIC_L2)
                if not len(vectors) and not index.is_trained:  # Faiss would ask LAPACK for a matrix of nothing
                    raise RuntimeError("there is nothing to train it on")
                if like is not None:
                    take_cells(index, like.faiss_index)
                train(index, vectors, lift, seed)
                for start in range(0, len(vectors), ROWS_AT_ONCE):
                    index.add(lift.rows(vectors[start : start + ROWS_AT_ONCE]))
                _check_filters(index)
            except (RuntimeError, AssertionError, MemoryError) as error:
                told = re.sub(r"^Error in .*? at \S+:\d+: (Error: )?", "", str(error).strip(), flags=re.DOTALL)
                raise InvalidInput(
                    f"Faiss cannot make a searchable {factory!r} of {len(vectors)} rows with "
                    f"{lift.width(vectors.shape[1])} columns: {told}. Leave the choice to the planner, or name another "
                    'factory string, such as "IVF1024,SQ8"'
                ) from error
        return cls(vectors, lift, index, effort or Effort(), norm=norm, threads=threads)

    def with_effort(self, effort: Effort) -> "ApproximateIndex":
        """The same index, looking harder or less hard."""
        return ApproximateIndex(
            self.vectors, self.lift, self.faiss_index, effort, norm=self.norm, threads=self._threads
        )

    def following(self, vectors: np.ndarray) -> tuple["ApproximateIndex", np.ndarray]:
        """The same index for rows that moved a little, and the rows, int64 [n], that moved too far to be found by it.

        Args:
            vectors: float32 [size, dim], kept.

        Raises:
            InvalidInput: see `valid_vectors`.
        """
        vectors, norm = valid_vectors(vectors)
        far: list[np.ndarray] = []
        unit = np.float32(max(norm, self.norm) or 1)  # squares of very long or short rows do not fit float32
        for start in range(0, len(vectors), ROWS_AT_ONCE):
            new, old = vectors[start : start + ROWS_AT_ONCE], self.vectors[start : start + ROWS_AT_ONCE]
            apart, length = (np.square(rows / unit).sum(axis=1) for rows in (new - old, old))
            far.append(start + np.flatnonzero(apart > TOO_FAR**2 * length))
        found = ApproximateIndex(vectors, self.lift, self.faiss_index, self.effort, norm=norm, threads=self._threads)
        return found, np.concatenate(far) if far else np.zeros(0, np.int64)

    def absorbing(self, vectors: np.ndarray, rows: np.ndarray) -> "ApproximateIndex | None":
        """The same cells and codes, filled with rows that were written since; None for a kind that rows cannot leave.

        Args:
            vectors: float32 [n, dim], n at least `size`: all rows as they are now; kept.
            rows: int64 [m], without duplicates: those that changed, and all from `size` on.

        Raises:
            InvalidInput: see `valid_vectors`; or there are fewer rows than before.
        """
        if not self.cells:
            return None
        vectors, norm = valid_vectors(vectors)
        if len(vectors) < self.size:
            raise InvalidInput(f"there are {len(vectors)} vectors for an index of {self.size} rows; rows cannot go")
        # Read back, not cloned: a clone of an index that was opened from a file would write into the file's pages.
        with _deserialization:  # another thread that reads a file has its limits set
            index = faiss.deserialize_index(faiss.serialize_index(self.faiss_index))
        with openmp_threads(self._threads):
            try:
                index.remove_ids(faiss.IDSelectorBatch(rows[rows < self.size]))
            except RuntimeError:  # refining by rows that are kept beside the cells
                return None
            for start in range(0, len(rows), ROWS_AT_ONCE):
                some = np.ascontiguousarray(rows[start : start + ROWS_AT_ONCE])
                index.add_with_ids(self.lift.rows(vectors[some]), some)
        return ApproximateIndex(vectors, self.lift, index, self.effort, norm=norm, threads=self._threads)

    @property
    def size(self) -> int:
        return self._limits.size

    @property
    def dim(self) -> int:
        return self._limits.dim

    @property
    def cells(self) -> int:
        """Cells of an IVF; 0 for other kinds."""
        found = cells_of(self.faiss_index)
        return 0 if found is None else int(found.nlist)

    @cached_property
    def bytes_in_memory(self) -> int:
        """What the candidates are found in, in bytes; the vectors themselves come on top."""
        return len(self.to_bytes())

    def cell_places(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
        """int [q, m]: the how-manieth cell that a query visits holds each of its rows, int [q, m].

        None for a kind that has no cells, or looks for cells by an index of their own.
        """
        if not isinstance(self.faiss_index, faiss.IndexIVF):
            return None
        quantizer = faiss.downcast_index(self.faiss_index.quantizer)
        if not isinstance(quantizer, faiss.IndexFlat):
            return None
        centres = quantizer.reconstruct_n(0, self.cells)
        cell = np.empty(self.size, np.int64)
        lists = self.faiss_index.invlists
        for at in range(self.cells):
            if held := lists.list_size(at):
                cell[faiss.rev_swig_ptr(lists.get_ids(at), held)] = at
        places = np.empty(rows.shape, np.int64)
        lifted, squares = self.lift.queries(queries), np.einsum("cd,cd->c", centres, centres)
        for start in range(0, len(rows), 256):
            some = slice(start, start + 256)
            distances = squares - 2 * (lifted[some] @ centres.T)
            mine = np.take_along_axis(distances, cell[rows[some]], axis=1)
            ordered = np.sort(distances, axis=1)
            places[some] = [np.searchsorted(line, own) for line, own in zip(ordered, mine, strict=True)]
        return places

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
            hits = search_filtered(ask, self.size, self._top)
            return self._completed(hits, ask)

    def _top(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        count = self.size if allowed is None else int(np.count_nonzero(allowed))
        if count <= k or (allowed is not None and count <= self.effort.exact_below * self.size):
            return self._exact(queries, k, allowed)
        wanted = min(count, self.effort.candidates(k))
        share = count / self.size
        # Faiss keeps only pointers: the bits and the selector must outlive the search.
        bits = None if allowed is None or share == 1 else np.packbits(allowed, bitorder="little")
        selector = None if bits is None else faiss.IDSelectorBitmap(bits)
        # Where half of the rows are allowed, twice the cells hold as many of them.
        parameters = _parameters(self.faiss_index, int(np.ceil(self.effort.probes / share)), wanted, selector)
        try:
            _, candidates = self.faiss_index.search(self.lift.queries(queries), wanted, params=parameters)
        except RuntimeError as error:  # what the caller gave was checked
            raise IncompatibleIndex(f"the Faiss index is damaged: {error}. Build it again.") from error
        return rescore(queries, self.vectors, candidates, min(k, count))

    def _exact(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        if allowed is None:
            return scan(queries, self.vectors, k)
        return scan_rows(queries, self.vectors, np.flatnonzero(allowed), k)

    def _completed(self, hits: Hits, ask: Search) -> Hits:
        """Answer again, exactly, where fewer rows were found than there are."""
        short = np.flatnonzero(hits.counts < min(ask.k, self.size))
        allowed = self.size if ask.allowed is None else int(np.count_nonzero(ask.allowed))
        for j in short.tolist():
            withheld = np.zeros(0, np.int64) if ask.exclude is None else ask.exclude[j]
            gone = len(withheld) if ask.allowed is None else int(np.count_nonzero(ask.allowed[withheld]))
            if hits.counts[j] < min(ask.k, allowed - gone):
                mask = np.ones(self.size, bool) if ask.allowed is None else ask.allowed.copy()
                mask[withheld] = False
                again = Hits.best(*self._exact(ask.queries[j : j + 1], ask.k, mask), ask.k)
                hits.rows[j], hits.scores[j] = again.rows[0], again.scores[0]
        return hits

    def to_bytes(self) -> bytes:
        """What finds the candidates, in Faiss's own format: an index of distances between lifted rows."""
        return faiss.serialize_index(self.faiss_index).tobytes()

    @classmethod
    def from_bytes(
        cls,
        data: bytes | memoryview,
        vectors: np.ndarray,
        lift: Lift,
        effort: Effort,
        *,
        norm: float,
        threads: int | None = None,
    ) -> "ApproximateIndex":
        """Read what `to_bytes` wrote, without a copy: `data` must not change. Check its SHA-256 first.

        Raises:
            IncompatibleIndex: Faiss cannot read it, or it is not an index of these vectors.
        """
        buffer = np.frombuffer(data, np.uint8)
        with _deserialization, _limited(buffer.nbytes):
            try:
                index = faiss.read_index(
                    faiss.ZeroCopyIOReader(faiss.swig_ptr(buffer), buffer.nbytes), faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE
                )
            except (RuntimeError, MemoryError) as error:
                raise IncompatibleIndex(f"Faiss cannot read the index: {error}. Build it again.") from error
        expected = len(vectors), lift.width(vectors.shape[1])
        if (index.ntotal, index.d) != expected or index.metric_type != faiss.METRIC_L2:
            raise IncompatibleIndex(
                f"the Faiss index is a {type(index).__name__} of {index.ntotal} rows with {index.d} columns and metric "
                f"{index.metric_type}; expected {expected[0]} rows with {expected[1]} columns and metric "
                f"{faiss.METRIC_L2}. Build it again."
            )
        index.referenced_objects = [buffer]  # Faiss points into it
        cells = cells_of(index)
        if isinstance(cells, faiss.IndexIVFPQ):  # its tables may be larger than the file, and so were left out above
            cells.precompute_table()
        return cls(vectors, lift, index, effort, norm=norm, threads=threads)


def _check_filters(index: Any) -> None:
    """Raises what Faiss raises for a kind that cannot leave rows out while it searches."""
    bits = np.full(index.ntotal // 8 + 1, 255, np.uint8)
    selector = faiss.IDSelectorBitmap(bits)
    index.search(np.zeros((1, index.d), np.float32), 1, params=_parameters(index, 1, 1, selector))


def _parameters(index: Any, probes: int, candidates: int, selector: Any) -> Any:
    """Search parameters of Faiss for whatever kind the index is."""
    if isinstance(index, faiss.IndexPreTransform):
        inner = _parameters(faiss.downcast_index(index.index), probes, candidates, selector)
        return faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        inner = _parameters(faiss.downcast_index(index.base_index), probes, candidates, selector)
        return faiss.IndexRefineSearchParameters(base_index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=min(probes, index.nlist), sel=selector)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=max(probes, candidates), sel=selector)
    return faiss.SearchParameters(sel=selector)


@contextmanager
def _limited(size: int) -> Iterator[None]:
    """Let Faiss allocate little more than the file could hold while it reads.

    A table of 16 floats for each cell and half byte of a code counts as well, though it is not made: with a cell's
    centre in the file, that is at most 16 times its size.
    """
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    faiss.set_deserialization_vector_byte_limit(16 * size + 1)
    faiss.set_deserialization_loop_limit(max(1, size))
    try:
        yield
    finally:
        faiss.set_deserialization_vector_byte_limit(before[0])
        faiss.set_deserialization_loop_limit(before[1])
