"""The planner: what it chooses, and whether what it says of its choice is so."""

import json
from dataclasses import replace

import numpy as np
import pytest

from geo_mf.errors import InvalidInput
from geo_mf.index import plan
from geo_mf.index.approximate import ApproximateIndex, Effort
from geo_mf.index.cost import Cost
from geo_mf.index.exact import ExactIndex
from geo_mf.index.faiss import FaissIndex
from geo_mf.index.plan import EXACT, FEWEST_ROWS, Goal, Measured, again, choose, make
from geo_mf.index.recall import Truth, norm_groups
from geo_mf.index.stored import files, opened

DIM = 24
FAST = Goal(rate=1e9)  # so many queries a second that scoring all rows is out of the question


def clustered(n: int, seed: int, lengths: float = 0.0) -> np.ndarray:
    """float32 [n, DIM] about a hundred centres, of log-normal lengths."""
    centres = np.random.default_rng(1).standard_normal((100, DIM)) * 1.5
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(0, 100, n)] + rng.standard_normal((n, DIM)) * 0.5
    return (rows * np.exp(lengths * rng.standard_normal((n, 1)))).astype(np.float32)


@pytest.fixture(scope="module")
def planned() -> tuple[ApproximateIndex, Measured]:
    vectors = clustered(20_000, 0, 0.4)
    asked = {"clicks": clustered(300, 2), "mixed": clustered(200, 3) + clustered(200, 4)}
    index, measured = make(vectors, asked, FAST)
    assert isinstance(index, ApproximateIndex)
    return index, measured


def recall(index: ApproximateIndex, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> float:
    hits = index.search(queries, k, allowed)
    best = ExactIndex(index.vectors).search(queries, k, allowed)
    assert (hits.counts == best.counts).all()
    return float(np.mean([np.isin(b, h).mean() for h, b in zip(hits.rows, best.rows, strict=True)]))


class TestChoice:
    def test_few_rows_are_all_scored(self) -> None:
        assert choose(0, 8, Goal()) == choose(20_000, 64, Goal()) == EXACT
        for size in range(FEWEST_ROWS):
            assert choose(size, 8, FAST) == EXACT

    def test_cells_grow_with_the_rows(self) -> None:
        cells = [int(choose(10**power, 128, FAST).split(",")[0][3:]) for power in range(3, 9)]
        assert cells == sorted(cells)
        assert cells[0] < cells[-1]
        assert all(count & (count - 1) == 0 for count in cells)
        assert all(10**power / count >= 20 for power, count in enumerate(cells, 3))

    def test_little_memory_asks_for_smaller_codes(self) -> None:
        codes = [
            choose(10**6, 128, Goal(rate=1e4, memory=memory)).split(",")[1] for memory in (None, 10**8, 4 * 10**7, 1)
        ]
        assert codes == ["PQ68x4fs", "PQ68x4fs", "PQ34x4fs", "PQ17x4fs"]
        assert choose(10**6, 128, Goal(rate=1e4, memory=4 * 10**7), 63).endswith("PQ32x4fs")

    @pytest.mark.parametrize(
        "bad",
        [{"recall": 0.0}, {"recall": 1.1}, {"recall": -1}, {"recall": np.nan}, {"rate": 0}, {"rate": -5}]
        + [{"rate": np.nan}, {"memory": -1}, {"memory": np.nan}],
    )
    def test_goals_that_mean_nothing_are_refused(self, bad: dict[str, float]) -> None:
        with pytest.raises(InvalidInput, match="to reach is|to stay in is"):
            Goal(**bad)  # pyright: ignore[reportArgumentType]


class TestPlanned:
    def test_cells_are_chosen_and_hold(self, planned: tuple[ApproximateIndex, Measured]) -> None:
        index, measured = planned
        assert measured.holds
        assert measured.factory == choose(20_000, DIM, FAST)
        assert set(measured.recall) == {"clicks", "mixed"}
        assert measured.effort == index.effort
        assert index.effort.probes < index.cells
        assert measured.bytes == len(index.to_bytes())

    @pytest.mark.parametrize("k", [10, 100])
    def test_the_target_holds_on_fresh_queries(self, planned: tuple[ApproximateIndex, Measured], k: int) -> None:
        """In each tenth by length too, but for a fluctuation: these queries are not those that were measured."""
        index, _ = planned
        groups = norm_groups(index.vectors)
        for queries in (clustered(600, 12), clustered(600, 13) + clustered(600, 14)):
            found = Truth.of(index.vectors, queries, groups).recall(index, k)
            assert found.overall >= 0.95
            assert found.worst >= 0.92

    @pytest.mark.parametrize("share", [0.5, 0.05, 0.005])
    def test_filters_leave_k_rows_and_the_recall(
        self, planned: tuple[ApproximateIndex, Measured], share: float
    ) -> None:
        """Rows at random, and rows on one side or the other: `recall` checks that there are as many as there can be."""
        index, _ = planned
        assert 0 <= index.effort.exact_below < 0.75
        rng, queries = np.random.default_rng(7), clustered(200, 15)
        along = index.vectors @ rng.standard_normal(DIM)
        for allowed in (
            rng.random(20_000) < share,
            along >= np.quantile(along, 1 - share),
            along <= np.quantile(along, share),
        ):
            assert recall(index, queries, 10, allowed) >= 0.95
            looking = index.with_effort(replace(index.effort, exact_below=0.0))
            assert recall(looking, queries, 10, allowed) > 0.5  # `recall` checks the counts here too

    def test_what_is_told_is_json(self, planned: tuple[ApproximateIndex, Measured]) -> None:
        told = planned[1].to_dict()
        assert json.loads(json.dumps(told, allow_nan=False)) == told
        assert told["target_holds"] is True
        assert Effort(told["probes"], told["oversample"], told["exact_below"]) == planned[0].effort
        assert min(told["recall_at_10"], told["recall_at_100"]) >= 0.95 - 0.01

    def test_the_same_seed_gives_the_same_cells(self, planned: tuple[ApproximateIndex, Measured]) -> None:
        again, measured = make(planned[0].vectors, {"clicks": clustered(300, 2)}, FAST)
        assert measured.factory == planned[1].factory
        assert isinstance(again, ApproximateIndex)
        # Threads add up sums in an order of their own: as near as rounding.
        best = clustered(50, 3)
        rows = ExactIndex(planned[0].vectors).search(best, 10).rows
        first, second = planned[0].cell_places(best, rows), again.cell_places(best, rows)
        assert first is not None
        assert second is not None
        assert (first == second).mean() > 0.95


class TestWhereAllAllowedRowsAreScored:
    def test_equal_builds_decide_alike(self, planned: tuple[ApproximateIndex, Measured]) -> None:
        asked = {"clicks": clustered(100, 2)}
        both = [make(planned[0].vectors, asked, FAST, factory="IVF128,SQ8")[0] for _ in range(2)]
        first, second = (index.effort for index in both if isinstance(index, ApproximateIndex))
        assert first == second

    def test_no_search_costs_more_than_all_allowed_rows(self, planned: tuple[ApproximateIndex, Measured]) -> None:
        index, _ = planned
        cost, below = Cost.of(index), index.effort.exact_below
        assert [share for share in plan.SHARES if share > below and cost.exact(share) < cost.search(share)] == []
        assert below == 0 or below > min(plan.SHARES)

    @pytest.mark.parametrize("factory", ["IVF64,SQ8", "IVF64,PQ16x4fs", "SQ8", "HNSW16"])
    def test_costs_grow_with_what_is_looked_at(self, factory: str) -> None:
        index, graph = ApproximateIndex.build(clustered(3000, 0), factory), factory.startswith("HNSW")
        cost = Cost.of(index, graph)
        searches = [cost.search(share) for share in plan.SHARES]
        assert searches == sorted(searches), "a search under a filter looks further"
        assert [cost.exact(share) for share in plan.SHARES] == pytest.approx(cost.exact(1) * np.asarray(plan.SHARES))
        harder = index.with_effort(Effort(2 * index.effort.probes, 2 * index.effort.oversample))
        assert Cost.of(harder, graph).search(0.5) > cost.search(0.5)

    @pytest.mark.parametrize(
        ("probes", "share", "seconds"),
        [(64, 0.5, 0.41e-3), (64, 0.1, 0.80e-3), (64, 0.02, 3.05e-3), (256, 0.2, 1.55e-3), (1024, 0.5, 2.17e-3)],
    )
    def test_costs_are_what_was_measured(self, probes: int, share: float, seconds: float) -> None:
        """Of 200,000 rows of 128 in 4,096 cells, with half a byte for two numbers."""
        cost = Cost(200_000, 128, 136, 4096, 67.0, Effort(probes, 6.0))
        assert cost.search(share) == pytest.approx(1e9 * seconds, rel=0.15)
        assert cost.exact(0.1) == pytest.approx(0.65e6, rel=0.15)


def test_what_was_planned_can_be_read_back(planned: tuple[ApproximateIndex, Measured]) -> None:
    """With as few rows in a cell as the planner gives: Faiss's limits while it reads are relative to the file."""
    index, _ = planned
    assert index.size < 41 * index.cells
    settings = files(index)[1]
    read = opened(memoryview(index.to_bytes()), {"vectors": index.vectors}, settings, index.size, index.dim)
    asked = clustered(50, 3)
    assert (read.search(asked, 10).rows == index.search(asked, 10).rows).all()


class TestChanged:
    def test_an_index_that_absorbed_rows_is_measured_again(self, planned: tuple[ApproximateIndex, Measured]) -> None:
        index, measured = planned
        rows = np.arange(15_000, 23_000)
        vectors = np.concatenate([index.vectors[:15_000], clustered(8000, 21, 0.4)])
        asked = {"clicks": clustered(300, 2)}
        absorbed = index.absorbing(vectors, rows)
        assert absorbed is not None
        kept = again(absorbed, measured.factory, asked, FAST, np.arange(len(vectors)))
        assert kept is not None
        found, told = kept
        assert told.holds
        assert told.factory == measured.factory
        assert recall(found, asked["clicks"], 10) >= 0.95

    def test_effort_is_raised_where_the_target_is_missed(self, planned: tuple[ApproximateIndex, Measured]) -> None:
        index, measured = planned
        lazy = index.with_effort(Effort(1, 1.0, 0.125))
        popularity = np.arange(index.size)
        kept = again(lazy, measured.factory, {"clicks": clustered(300, 2)}, FAST, popularity)
        assert kept is not None
        found, told = kept
        assert told.holds
        assert found.effort.probes > 1
        assert found.effort.exact_below == 0.125

    def test_what_the_planner_would_not_keep_is_not_kept(
        self, planned: tuple[ApproximateIndex, Measured], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        index, measured = planned
        given = index, measured.factory, {"clicks": clustered(300, 2)}
        assert again(*given, replace(FAST, memory=1000), np.arange(index.size)) is None
        monkeypatch.setattr(plan, "WORTH_LOOKING", 1e-6)
        assert again(*given, FAST, np.arange(index.size)) is None
        assert again(*given, FAST, np.arange(index.size), named=True) is not None

    def test_cells_of_another_index_are_taken(self, planned: tuple[ApproximateIndex, Measured]) -> None:
        index, measured = planned
        cells = measured.factory.split(",")[0]
        finer = ApproximateIndex.build(index.vectors, f"{cells},SQ8", like=index)
        own = ApproximateIndex.build(index.vectors, "IVF16,SQ8", like=index)
        asked = clustered(50, 3)
        rows = ExactIndex(index.vectors).search(asked, 10).rows
        first, second = index.cell_places(asked, rows), finer.cell_places(asked, rows)
        assert first is not None
        assert second is not None
        assert (first == second).all()
        assert own.cells == 16

    @pytest.mark.parametrize("codes", ["SQ8", "PQ16x4fs", "PQ32x4fs"])
    def test_other_codes_take_what_was_foreseen(self, planned: tuple[ApproximateIndex, Measured], codes: str) -> None:
        index, measured = planned
        kind = f"{measured.factory.split(',')[0]},{codes}"
        foreseen = plan.bytes_with(index, kind)
        found = ApproximateIndex.build(index.vectors, kind, like=index).bytes_in_memory
        assert 0.8 * found < foreseen < 1.1 * found


class TestFinerCodes:
    def test_where_half_bytes_for_two_tell_too_little(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A build in which only finer codes hold ends with them, in the cells that were trained for the first."""
        vectors = clustered(20_000, 0, 0.4)
        asked = {"clicks": clustered(300, 2)}
        monkeypatch.setattr(plan, "OVERSAMPLES", (1.5,))
        index, measured = make(vectors, asked, FAST)
        assert isinstance(index, ApproximateIndex)
        assert measured.holds
        assert measured.factory.split(",")[1] in ("PQ32x4fs", "SQ8")


class TestForced:
    def test_a_target_that_is_missed_is_told(self) -> None:
        """64 cells, all of them visited, and codes too coarse for the target: the most effort, and no secret."""
        rng = np.random.default_rng(0)
        vectors, asked = (rng.standard_normal((n, DIM)).astype(np.float32) for n in (4000, 100))
        index, measured = make(vectors, {"any": asked}, Goal(recall=1.0), factory="IVF64,PQ4x4fs")
        assert isinstance(index, ApproximateIndex)
        assert not measured.holds
        told = measured.to_dict()
        assert told["target_holds"] is False
        assert told["recall_at_10"] < 1
        assert (told["probes"], told["oversample"]) == (64, 24.0)
        json.dumps(told, allow_nan=False)

    @pytest.mark.parametrize("factory", ["Flat", "HNSW16", "IVF16,Flat", "SQ8"])
    @pytest.mark.parametrize("reduced", [False, True])
    def test_any_kind_can_be_named(self, factory: str, reduced: bool) -> None:
        vectors, asked = clustered(1500, 0), clustered(60, 2)
        basis = np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, 8)))[0].astype(np.float32)
        index, measured = make(vectors, {"any": asked}, Goal(), factory=factory, basis=basis if reduced else None)
        assert measured.factory == factory
        assert measured.dims == (8 if reduced else DIM)
        assert isinstance(index, FaissIndex) == (factory == EXACT and not reduced)
        assert measured.holds or reduced
        assert index.search(asked, 10).counts.tolist() == [10] * 60

    def test_what_faiss_cannot_make_is_refused(self) -> None:
        for factory in ("nonsense", "IVF64,SQ8", "LSH", ""):
            if factory:
                with pytest.raises(InvalidInput, match="or name another factory string"):
                    make(clustered(30, 0), {"any": clustered(5, 1)}, Goal(), factory=factory)
        with pytest.raises(InvalidInput, match="of 0 rows"):
            make(np.zeros((0, DIM), np.float32), {}, Goal(), factory="IVF4,SQ8")


class TestExactAfterAll:
    def test_where_cells_do_not_pay(self) -> None:
        """Nothing lies near anything: most cells have to be visited, and one product over all rows is faster."""
        rng = np.random.default_rng(0)
        vectors, asked = (rng.standard_normal((n, DIM)).astype(np.float32) for n in (3000, 100))
        index, measured = make(vectors, {"any": asked}, FAST)
        assert isinstance(index, FaissIndex)
        assert (measured.factory, measured.effort, measured.bytes, measured.holds) == (EXACT, None, 0, True)
        assert measured.to_dict()["recall_at_10"] == 1

    def test_where_nothing_was_measured(self) -> None:
        for asked in ({}, {"none": np.zeros((0, DIM), np.float32)}):
            index, measured = make(clustered(3000, 0), asked, FAST)
            assert isinstance(index, FaissIndex)
            assert measured.recall == {}
            json.dumps(measured.to_dict(), allow_nan=False)

    def test_where_cells_exceed_the_memory(self) -> None:
        index, measured = make(clustered(20_000, 0), {"any": clustered(100, 2)}, Goal(rate=1e9, memory=1000))
        assert isinstance(index, FaissIndex)
        assert measured.bytes == 0

    @pytest.mark.parametrize("goal", [Goal(), FAST])
    @pytest.mark.parametrize("n", [0, 1, 3, 159, 161, 400])
    def test_of_few_rows(self, n: int, goal: Goal) -> None:
        asked = clustered(12, 1)
        index, measured = make(clustered(n, 0), {"any": asked, "none": asked[:0]}, goal)
        assert index.search(asked, 10).counts.tolist() == [min(10, n)] * 12
        assert measured.holds
        told = measured.to_dict()
        assert json.loads(json.dumps(told, allow_nan=False)) == told

    @pytest.mark.parametrize("factory", [None, "IVF16,SQ8", "HNSW8", "IVF8,PQ16x4fs"])
    @pytest.mark.parametrize("row", [0.0, 1.0])
    def test_of_rows_and_queries_that_are_all_alike(self, factory: str | None, row: float) -> None:
        """Any ten rows are the best ten; queries of length zero say nothing either."""
        vectors = np.full((800, DIM), row, np.float32)
        asked = {"zero": np.zeros((5, DIM), np.float32), "one": np.ones((5, DIM), np.float32)}
        index, measured = make(vectors, asked, FAST, factory=factory)
        assert measured.holds
        hits = index.search(asked["one"], 20)
        assert hits.counts.tolist() == [20] * 5
        assert (hits.scores == row * DIM).all()
        json.dumps(measured.to_dict(), allow_nan=False)
