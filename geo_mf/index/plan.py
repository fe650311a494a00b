"""Which index, and how hard it has to look: chosen by size, trained, measured, and raised until the target holds.

What was measured before this was written, on 10^6 rows of 128 like a factorization's, two cores, recall@10 and rate:
scoring all rows 1.00 at 690 queries a second; IVF with 16,384 cells, 1,319 of them visited, .985 at 2,200 with half a
byte for two numbers (PQ fast-scan) and 400 candidates scored exactly, .992 at 850 with a byte a number (SQ8) and 32;
HNSW32 over the same lifted rows .80 at 1,250, for its queries lie far from all rows. So HNSW is never chosen; it can be
named.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from geo_mf.errors import InvalidInput
from geo_mf.index.approximate import ApproximateIndex, Effort
from geo_mf.index.cost import Cost
from geo_mf.index.exact import Hits
from geo_mf.index.faiss import FaissIndex
from geo_mf.index.recall import DEPTHS, Recall, Truth, norm_groups, tenths
from geo_mf.index.scan import faiss, scan, scan_rows
from geo_mf.index.training import cells_of

__all__ = ["EXACT", "Goal", "Measured", "again", "choose", "make"]

EXACT = "Flat"

BYTES_A_SECOND = 2e10
"""What one core reads of an index in memory, where all rows are scored; on two cores with AVX-512, 1.5 to 4e10."""

OVERSAMPLES = (24.0, 12.0, 6.0, 3.0, 1.5)
FEWEST_PROBES = 8
FEWEST_ROWS = 160  # four cells of 40
WORTH_LOOKING = 1 / 24
"""Share of the vectors' bytes from which on looking at some cells is no faster than one matrix product over all: on
10^6 rows of 128 the product takes 1.2 ms a query of a batch, and codes are read at 1/50 of the bytes in .6."""
SHARES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
TIMED_QUERIES = 10
SOME_QUERIES = 50


@dataclass(frozen=True)
class Goal:
    """What an index has to do.

    Attributes:
        recall: share of the true 10 and of the true 100 best rows that it finds, for each kind of query and in each
            tenth of the rows by popularity.
        rate: queries a second that one core should answer. Where scoring all rows does that, nothing else is built.
        memory: bytes that it may take beside the vectors; None sets no limit.
    """

    recall: float = 0.95
    rate: float = 300.0
    memory: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise InvalidInput(f"the recall to reach is {self.recall}; expected more than 0, and at most 1")
        if not self.rate > 0:
            raise InvalidInput(f"the rate to reach is {self.rate} queries a second; expected more than 0")
        if self.memory is not None and not self.memory >= 0:
            raise InvalidInput(
                f"the memory to stay in is {self.memory} bytes; expected 0 or more, or None for no limit"
            )


@dataclass(frozen=True)
class Measured:
    """What an index is, and what it was seen to do.

    Attributes:
        factory: Faiss's factory string; "Flat" scores all rows.
        dims: columns that candidates are looked for in.
        effort: how hard it looks; None for "Flat".
        target: the recall it had to reach.
        recall: by kind of query, of the true 10 and 100 best.
        queries_per_second: of a batch, on all its threads.
        single_ms: milliseconds of one query alone, the median.
        bytes: what it takes beside the vectors.
        seconds: what making and measuring it took.
    """

    factory: str
    dims: int
    effort: Effort | None
    target: float
    recall: Mapping[str, tuple[Recall, Recall]]
    queries_per_second: float
    single_ms: float
    bytes: int
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether the target is reached everywhere."""
        return all(one.holds(self.target) for both in self.recall.values() for one in both)

    def to_dict(self) -> dict[str, Any]:
        """For the index's card."""
        told: dict[str, Any] = {"factory": self.factory, "dims": self.dims}
        told |= {} if self.effort is None else asdict(self.effort)
        for place, k in enumerate(DEPTHS):
            told[f"recall_at_{k}"] = round(min((r[place].overall for r in self.recall.values()), default=1.0), 4)
            told[f"worst_tenth_at_{k}"] = round(min((r[place].worst for r in self.recall.values()), default=1.0), 4)
        told |= {"target": self.target, "target_holds": self.holds}
        told["by_query"] = {name: [round(one.overall, 4) for one in both] for name, both in self.recall.items()}
        told |= {"queries_per_second": round(self.queries_per_second), "single_ms": round(self.single_ms, 3)}
        return told | {"bytes": self.bytes, "seconds": round(self.seconds, 2)}


def choose(size: int, dim: int, goal: Goal, dims: int | None = None) -> str:
    """A Faiss factory string for `size` rows of `dim` numbers, whose candidates are looked for in `dims` columns."""
    if size < FEWEST_ROWS or 4 * size * dim * goal.rate <= BYTES_A_SECOND:
        return EXACT
    # 16 sqrt(n) cells, as many as Faiss's guidelines allow (finer cells find more among as many rows), but no fewer
    # than 40 rows in each.
    cells = 2 ** max(2, round(np.log2(min(16 * np.sqrt(size), size / 40))))
    width = (dims or dim) + 1
    width += -width % 8
    for columns in (2, 4, 8):  # of each half byte
        if goal.memory is None or columns == 8 or size * (width / columns / 2 + 8) + 4 * cells * width <= goal.memory:
            break
    return f"IVF{cells},PQ{width // columns}x4fs"


def make(
    vectors: np.ndarray,
    queries: Mapping[str, np.ndarray],
    goal: Goal,
    *,
    factory: str | None = None,
    basis: np.ndarray | None = None,
    popularity: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[FaissIndex | ApproximateIndex, Measured]:
    """Make the index for these rows, and measure it.

    Args:
        vectors: float32 [size, dim].
        queries: float32 [q, dim] of each kind that will be asked; the target has to hold for every one.
        goal: what it has to do.
        factory: a Faiss factory string, instead of the planner's choice; then a target that is missed is only reported.
        basis: float32 [dim, r], orthonormal: candidates are looked for among rows reduced to it; not where the planner
            chooses and the target could not hold for it.
        popularity: [size], by whose tenths the target has to hold; None takes the rows' lengths for it.
        seed: of the training.

    Raises:
        InvalidInput: vectors that cannot be indexed, or Faiss cannot make the named index of them.
    """
    began = time.perf_counter()
    truths: dict[str, Truth] = {}
    if len(vectors):
        groups = norm_groups(vectors) if popularity is None else tenths(popularity)
        truths = {name: Truth.of(vectors, asked, groups) for name, asked in queries.items() if len(asked)}
    if factory is None and basis is not None and not _keeps(vectors, basis, truths, goal):
        basis = None
    wanted = factory or choose(len(vectors), vectors.shape[1], goal, None if basis is None else basis.shape[1])
    if factory is None and not truths:
        wanted = EXACT  # nothing would tell what cells find
    kinds = [wanted] if wanted != EXACT or (factory is not None and basis is not None) else []
    if factory is None and kinds and goal.memory is None:
        kinds += _finer(wanted)
    index = None
    fewest = 0
    for kind in kinds:
        if index is not None and _share(index, fewest, bytes_with(index, kind)) > WORTH_LOOKING:
            break  # nor would finer codes serve: their cells are the same, and they take more bytes
        index = ApproximateIndex.build(vectors, kind, basis=basis, like=index, seed=seed)
        fewest = _ladder(index.cells)[_first_rung(index, truths, goal)]
        if factory is None and _share(index, fewest) > WORTH_LOOKING:
            break
        index = _raised(index, truths, goal)
        if factory is None and _share(index, index.effort.probes) > WORTH_LOOKING:
            continue
        index = index.with_effort(replace(index.effort, exact_below=_exact_below(index, kind, truths, goal)))
        measured = _measured(index, kind, truths, goal, began)
        if factory is not None or _serves(index, measured, goal):
            return index, measured
    exact = FaissIndex(vectors)
    return exact, _measured(exact, EXACT, truths, goal, began)


def again(
    index: ApproximateIndex,
    factory: str,
    queries: Mapping[str, np.ndarray],
    goal: Goal,
    popularity: np.ndarray,
    named: bool = False,
) -> tuple[ApproximateIndex, Measured] | None:
    """Measure an index whose rows have changed, and raise its effort where the target does not hold any more; None
    where that does not help, or `make` would not keep it.

    Args:
        index: of the present rows.
        factory: what it was made by.
        queries, goal, popularity: as in `make`.
        named: the caller wants this kind: it only has to hold the target.
    """
    began = time.perf_counter()
    groups = tenths(popularity)
    truths = {name: Truth.of(index.vectors, asked, groups) for name, asked in queries.items() if len(asked)}
    if not _holds(index, truths, goal):
        raised = _raised(index, truths, goal)
        index = raised.with_effort(replace(raised.effort, exact_below=index.effort.exact_below))
    measured = _measured(index, factory, truths, goal, began)
    return (index, measured) if _serves(index, measured, goal) or (named and measured.holds) else None


def _serves(index: ApproximateIndex, measured: Measured, goal: Goal) -> bool:
    """Whether it finds enough, takes no more than it may, and is faster than scoring all rows."""
    fits = goal.memory is None or measured.bytes <= goal.memory
    return measured.holds and fits and _share(index, index.effort.probes) <= WORTH_LOOKING


def _finer(factory: str) -> list[str]:
    """Codes for the same cells that tell more: text alone, in a blend, asks for half a byte or a byte a number.

    Half a byte a number finds on 10^6 rows of 128 factors and 128 text .96 of the 10 best by text alone where half a
    byte for two finds .95 overall and .93 of some tenth, at the same rate; a byte a number halves the rate.
    """
    cells, codes = factory.split(",")
    halves = re.fullmatch(r"PQ(\d+)x4fs", codes)
    return [f"{cells},SQ8"] if halves is None else [f"{cells},PQ{2 * int(halves[1])}x4fs", f"{cells},SQ8"]


def _keeps(vectors: np.ndarray, basis: np.ndarray, truths: Mapping[str, Truth], goal: Goal) -> bool:
    """Whether the true rows are among the candidates that a search of all reduced rows would give."""
    wanted = min(len(vectors), Effort(oversample=OVERSAMPLES[0]).candidates(DEPTHS[-1]))
    reduced = vectors @ basis
    for truth in truths.values():
        candidates = scan(truth.queries[:SOME_QUERIES] @ basis, reduced, wanted)[0]
        best = truth.best.rows[:SOME_QUERIES]
        if np.mean([np.isin(mine, theirs).mean() for mine, theirs in zip(best, candidates, strict=True)]) < goal.recall:
            return False
    return True


def _share(index: ApproximateIndex, probes: int, bytes_in_memory: int | None = None) -> float:
    """How many bytes a query looks at, of those of the vectors; an index without cells looks at all of its own."""
    cells = min(1.0, probes / index.cells) if index.cells else 1.0
    return cells * (bytes_in_memory or index.bytes_in_memory) / max(1, index.vectors.nbytes)


def bytes_with(index: ApproximateIndex, kind: str) -> int:
    """What the cells of an index take with the codes of another kind, about: tables of codes are left as they are."""
    now = cells_of(index.faiss_index)
    then = cells_of(faiss.index_factory(now.d, kind, faiss.METRIC_L2))
    return index.bytes_in_memory + len(index.vectors) * (then.code_size - now.code_size)


def _raised(index: ApproximateIndex, truths: Mapping[str, Truth], goal: Goal) -> ApproximateIndex:
    """The index with few probes that hold the target, and then with the fewest candidates that still do."""
    ladder = _ladder(index.cells)
    start = _first_rung(index, truths, goal)
    # Where cells hold enough and the search finds too little, it is for the codes: more cells help a little at most.
    rungs = ladder[start::2][:5] if start else ladder[::2]
    for probes in rungs:
        found = None
        for oversample in OVERSAMPLES:
            if not _holds(looking := index.with_effort(Effort(probes, oversample, 0.0)), truths, goal):
                break
            found = looking
        if found is not None:
            return found
    return index.with_effort(Effort(rungs[-1], OVERSAMPLES[0], 0.0))


def _first_rung(index: ApproximateIndex, truths: Mapping[str, Truth], goal: Goal) -> int:
    """The first rung of `_ladder` whose cells hold enough of the true rows of each kind of query."""
    ladder = _ladder(index.cells)
    return max((_covering(index, truth, goal, ladder) for truth in truths.values()), default=0)


def _covering(index: ApproximateIndex, truth: Truth, goal: Goal, ladder: list[int]) -> int:
    """The first rung of probes whose cells hold enough of the true rows: no search tells more than that."""
    places = index.cell_places(truth.queries, truth.best.rows)
    if places is None:
        return 0
    for rung, probes in enumerate(ladder):
        met = [truth.share(places[:, :k] < probes) for k in DEPTHS]
        if all(one.holds(goal.recall) for one in met):
            return rung
    return len(ladder) - 1


def _ladder(cells: int) -> list[int]:
    """Numbers of probes, each about a fifth more than the one before, ending with all; without cells the efSearch of an
    HNSW."""
    most = cells or 4096
    steps = max(0, int(np.ceil(np.log(most / FEWEST_PROBES) / np.log(1.2))))
    found = {round(FEWEST_PROBES * 1.2**step) for step in range(steps)}
    return sorted({probes for probes in found if probes < most} | {most})


def _holds(index: ApproximateIndex, truths: Mapping[str, Truth], goal: Goal) -> bool:
    return all(truth.recall(index, k).holds(goal.recall) for k in DEPTHS for truth in truths.values())


def _exact_below(index: ApproximateIndex, kind: str, truths: Mapping[str, Truth], goal: Goal) -> float:
    """The share of allowed rows below which scoring them all costs less than searching, or searching finds too few:
    half way, in powers, between the first share where that is so and the last where it is not."""
    if not truths:
        return SHARES[0]
    last, cost = 1.0, Cost.of(index, graph="HNSW" in kind)
    vectors, rng = index.vectors, np.random.default_rng(0)
    truth = next(iter(truths.values()))
    asked = truth.queries[:SOME_QUERIES]
    direction = rng.standard_normal(index.dim).astype(np.float32) @ np.diag(vectors[:4096].std(axis=0))
    along = vectors @ direction.astype(np.float32)
    looking = index.with_effort(replace(index.effort, exact_below=0.0))
    for share in SHARES:
        if cost.exact(share) < cost.search(share):
            return float(np.sqrt(last * share))
        # Rows taken at random, and rows that lie on one side, away from most queries: a filter by date, one by topic.
        for allowed in (rng.random(index.size) < share, along >= np.quantile(along, 1 - share)):
            chosen = np.flatnonzero(allowed)
            if len(chosen) <= DEPTHS[0]:
                return float(np.sqrt(last * share))
            best = Hits.best(*scan_rows(asked, vectors, chosen, DEPTHS[0]), DEPTHS[0])
            if Truth(asked, best, truth.groups).recall(looking, DEPTHS[0], allowed).overall < goal.recall:
                return float(np.sqrt(last * share))
        last = share
    return 0.0


def _measured(
    index: FaissIndex | ApproximateIndex, factory: str, truths: Mapping[str, Truth], goal: Goal, began: float
) -> Measured:
    recall = {
        name: (_recall(index, truth, DEPTHS[0]), _recall(index, truth, DEPTHS[1])) for name, truth in truths.items()
    }
    rate, single = 0.0, 0.0
    if truths:
        asked = np.concatenate([truth.queries for truth in truths.values()])
        start = time.perf_counter()
        index.search(asked, DEPTHS[0])
        rate = len(asked) / (time.perf_counter() - start)
        single = _median_ms(lambda one: index.search(one, DEPTHS[0]), asked)
    looking = index if isinstance(index, ApproximateIndex) else None
    return Measured(
        factory=factory,
        dims=index.dim if looking is None or looking.lift.basis is None else looking.lift.basis.shape[1],
        effort=None if looking is None else looking.effort,
        target=goal.recall,
        recall=recall,
        queries_per_second=rate,
        single_ms=single,
        bytes=0 if looking is None else looking.bytes_in_memory,
        seconds=time.perf_counter() - began,
    )


def _recall(index: FaissIndex | ApproximateIndex, truth: Truth, k: int) -> Recall:
    """Of the k best. To score every row is how the truth was found: that is not done twice."""
    if isinstance(index, FaissIndex):
        return truth.share(np.ones(truth.best.rows[:, :k].shape, bool))
    return truth.recall(index, k)


def _median_ms(search: Callable[[np.ndarray], object], queries: np.ndarray) -> float:
    """Milliseconds of one query alone, the median of some."""
    spent = []
    for j in range(min(TIMED_QUERIES, len(queries))):
        start = time.perf_counter()
        search(queries[j : j + 1])
        spent.append(time.perf_counter() - start)
    return float(np.median(spent)) * 1e3
