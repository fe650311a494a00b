"""rank against a sort by hand; evaluate from a split to a report."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from geo_mf.data.interactions import Interactions
from geo_mf.errors import InvalidInput
from geo_mf.evaluation import metrics, ranking
from geo_mf.evaluation.baselines import Popularity, Random
from geo_mf.evaluation.run import EvaluationReport, ReportRow, evaluate, rank, scorers_of
from geo_mf.evaluation.split import Split, cold_items_split


@dataclass(frozen=True)
class Table:
    """A scorer that reads its scores from a matrix [users, items]."""

    matrix: np.ndarray
    name: str = "table"

    def scores(self, user_rows: np.ndarray) -> np.ndarray:
        return self.matrix[user_rows]


def sorted_by_hand(row: np.ndarray, allowed: np.ndarray, k: int, ties: np.ndarray) -> list[int]:
    items = [item for item in range(row.size) if allowed[item] and row[item] > -np.inf]
    best = sorted(items, key=lambda item: (-row[item], ties[item]))[:k]
    return best + [-1] * (k - len(best))


few_scores = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 1.0, 1e30, np.inf])  # many ties
matrices = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=few_scores | st.floats(-2, 2, width=32)
)


@given(matrices, st.integers(1, 12), st.integers(0, 2**16), st.sampled_from([None, 1, 2]))
def test_rank_is_the_sort_by_hand(matrix: np.ndarray, k: int, seed: int, batch: int | None) -> None:
    rng = np.random.default_rng(seed)
    n_users, n_items = matrix.shape
    users = rng.integers(n_users, size=4)
    candidates = rng.random(n_items) < 0.7
    withheld = rng.random(matrix.shape) < 0.3
    ties = rng.permutation(n_items)
    before = matrix.copy()
    plain = np.arange(n_items)

    found = rank(Table(matrix), users, k, batch=batch)
    everything = np.ones(n_items, bool)
    assert found.dtype == np.int32 and found.shape == (4, k)
    assert found.tolist() == [sorted_by_hand(matrix[user], everything, k, plain) for user in users]

    exclude = sparse.csr_array(withheld.astype(np.float32))
    found = rank(Table(matrix), users, k, candidates=candidates, exclude=exclude, batch=batch, ties=ties)
    assert found.tolist() == [sorted_by_hand(matrix[user], candidates & ~withheld[user], k, ties) for user in users]
    np.testing.assert_array_equal(matrix, before)


@given(st.integers(0, 2**16), st.integers(1, 4), st.integers(64, 700) | st.just(5000), st.sampled_from([2, 50, 10**6]))
def test_rank_of_wide_rows_is_the_sort_by_hand(seed: int, k: int, n_items: int, levels: int) -> None:
    """Wide enough to be cut into runs of columns, runs into runs; few levels make whole runs equal."""
    rng = np.random.default_rng(seed)
    matrix = rng.integers(levels, size=(3, n_items)).astype(np.float32)
    matrix[2, rng.permutation(n_items)[: n_items - 2]] = -np.inf  # two items left
    everything, plain, ties = np.ones(n_items, bool), np.arange(n_items), rng.permutation(n_items)
    users = np.arange(3)
    assert rank(Table(matrix), users, k).tolist() == [sorted_by_hand(row, everything, k, plain) for row in matrix]
    found = rank(Table(matrix), users, k, ties=ties)
    assert found.tolist() == [sorted_by_hand(row, everything, k, ties) for row in matrix]


def test_rank_works_in_blocks_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    @dataclass(frozen=True)
    class Watched(Random):
        def scores(self, user_rows: np.ndarray) -> np.ndarray:
            sizes.append(len(user_rows))
            return super().scores(user_rows)

    users = np.arange(23)
    whole = rank(Watched(100), users, 5, candidates=np.ones(100, bool))
    monkeypatch.setattr(ranking, "_BLOCK_BYTES", 4 * 100 * 7 + 50)
    np.testing.assert_array_equal(rank(Watched(100), users, 5, candidates=np.ones(100, bool)), whole)
    assert sizes == [23, 7, 7, 7, 2]


def test_rank_of_scores_that_cannot_be_written_to() -> None:
    train = Interactions.from_arrays(["a", "a", "b"], [7, 8, 8])
    found = rank(Popularity(train), np.arange(2), 2, exclude=sparse.csr_array(np.array([[0.0, 1], [0, 0]])))
    assert found.tolist() == [[0, -1], [1, 0]]


@pytest.mark.parametrize("users", [np.array([-1]), np.array([[0]]), np.array([0.0])])
def test_rank_refuses_user_rows_that_are_not_rows(users: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match="rows of users"):
        rank(Random(3), users, 1)


def test_rank_refuses_bad_scores_and_sizes() -> None:
    matrix = np.zeros((3, 4), np.float32)
    matrix[2, 1] = np.nan
    with pytest.raises(InvalidInput, match="table: NaN scores for user row 2"):
        rank(Table(matrix), np.array([0, 2]), 1)
    with pytest.raises(InvalidInput, match=r"shape \(1, 4\), expected \(1, 5\)"):
        rank(Table(matrix), np.array([0]), 1, candidates=np.ones(5, bool))
    with pytest.raises(InvalidInput, match=r"\[4, 5\] items"):
        rank(Table(matrix), np.array([0]), 1, candidates=np.ones(5, bool), ties=np.arange(4))
    for k in (0, -3):
        with pytest.raises(InvalidInput, match=f"k is {k}"):
            rank(Table(matrix), np.array([0]), k)
    assert rank(Table(matrix), np.zeros(0, np.int32), 3).shape == (0, 3)


# Users a, b, c, d (d has no history); items 0..5, of which 4 and 5 are cold.
TRAIN = Interactions.from_arrays([*"aabbc"], [0, 1, 1, 2, 3])
TEST = Interactions.from_arrays([*"aabcd"], [2, 4, 5, 4, 1])
SPLIT = Split.of(TRAIN, TEST, name="six items")
ORACLE = np.array(
    [  # item ids 0 1 2 3 4 5 are rows 0 1 2 3 4 5
        [9, 9, 8, 1, 7, 0],
        [5, 9, 9, 1, 0, 8],
        [0, 0, 0, 9, 8, 0],
        [1, 9, 0, 0, 0, 0],
    ],
    np.float32,
)


def test_an_oracle_finds_everything_in_every_list() -> None:
    report = evaluate(Table(ORACLE, "oracle"), SPLIT, k=2)
    for name, users in (("overall", 4), ("warm", 2), ("cold", 3)):
        row = report.row("oracle", "recall", name)
        assert (row.value, row.low, row.high, row.n_users) == (1, 1, 1, users)
        assert report.row("oracle", "ndcg", name).value == pytest.approx(1)
        assert report.best("recall", name).scorer == "oracle"


def test_figures_by_hand() -> None:
    report = evaluate(Table(-ORACLE, "worst"), SPLIT, k=(1, 3), lists=("overall", "cold"))
    # Overall, without training items, worst first. a: 5 3 4, b: 4 3 0, c: among 0 1 2 5 in some order, d: 1 comes last.
    assert report.row("worst", "recall", "overall", 3).value == pytest.approx((1 / 2 + 0 + 0 + 0) / 4)
    assert report.row("worst", "mrr", "overall", 3).value == pytest.approx((1 / 3 + 0 + 0 + 0) / 4)
    # Cold, only items 4 and 5. a: 5 4, b: 4 5, c: 5 4: all found at the second place.
    assert report.row("worst", "recall", "cold", 1).value == 0
    assert report.row("worst", "recall", "cold", 3).value == 1
    assert report.row("worst", "map", "cold", 3).value == 1 / 2
    assert report.row("worst", "precision", "cold", 3).value == 1 / 3
    assert report.row("worst", "coverage", "cold", 1).value == 1
    assert report.row("worst", "novelty", "cold", 3).value == pytest.approx(np.log2(3))  # three training users
    assert report.row("worst", "gini", "cold", 3).value == 0


def test_baselines_are_always_in_the_table() -> None:
    unit = np.eye(6, dtype=np.float32)
    names = {row.scorer for row in evaluate(Random(6), SPLIT).rows}
    assert names == {"random", "popularity"}
    assert {row.scorer for row in evaluate([], SPLIT, embeddings=unit).rows} == {"popularity", "content kNN"}
    assert {row.scorer for row in evaluate(Popularity(SPLIT.train, "mine"), SPLIT).rows} == {"mine"}


def test_the_baseline_by_embeddings_finds_the_cold_items() -> None:
    embeddings = np.array([[1, 0], [1, 0], [0, 1], [0.6, 0.8], [1, 0], [0, 1]], np.float32)
    report = evaluate([], SPLIT, k=1, lists=["cold"], embeddings=embeddings)
    # a likes the first axis and finds 4. b likes both equally. c leans to the second axis and misses 4.
    assert report.row("content kNN", "recall", "cold").value in (1 / 3, 2 / 3)


def test_training_items_and_excluded_items_are_never_ranked() -> None:
    worst = Table(-ORACLE, "worst")  # its first cold item is the wrong one for a, b and c
    assert evaluate(worst, SPLIT, k=1).row("worst", "recall", "cold").value == 0
    other = Interactions.from_arrays([*"abz"], [5, 4, 0])  # user z is unknown to the split
    for exclude in (other, other.align(SPLIT.users, SPLIT.items)[0].to_csr()):
        report = evaluate(worst, SPLIT, k=1, exclude=exclude)
        assert report.row("worst", "recall", "cold").value == pytest.approx(2 / 3)  # c still gets the wrong one
    with pytest.raises(InvalidInput, match="1 pairs of the test"):
        evaluate(Random(6), SPLIT, exclude=Interactions.from_arrays(["a"], [4]))
    with pytest.raises(InvalidInput, match=r"exclude has shape \(2, 2\), expected \(4, 6\)"):
        evaluate(Random(6), SPLIT, exclude=sparse.csr_array((2, 2)))


def test_candidates_bound_what_is_ranked_and_what_is_relevant() -> None:
    only = np.array([True, True, True, True, True, False])
    report = evaluate(Table(ORACLE), SPLIT, k=1, candidates=only)
    assert report.row("table", "recall", "cold").n_users == 2  # b's only cold item may not be ranked
    assert report.row("table", "recall", "overall").n_users == 3
    for unfit in (np.ones(5, bool), np.ones(6)):
        with pytest.raises(InvalidInput, match=r"expected bool\[6\]"):
            evaluate(Random(6), SPLIT, candidates=unfit)  # pyright: ignore[reportArgumentType]


def test_a_list_without_relevant_items_is_skipped_and_said() -> None:
    warm_only = Split.of(TRAIN, Interactions.from_arrays(["a"], [2]))
    report = evaluate(Random(4), warm_only, k=2)
    assert report.skipped == ("cold",) and {row.list for row in report.rows} == {"overall", "warm"}
    assert "cold: skipped" in str(report)
    with pytest.raises(InvalidInput, match="no test user has a relevant item in cold"):
        evaluate(Random(4), warm_only, lists=["cold"])


def test_a_user_without_history_is_judged_and_an_empty_list_scores_0() -> None:
    silent = ORACLE.copy()
    silent[3] = -np.inf
    report = evaluate(Table(silent), SPLIT, k=2, lists=["warm"])
    assert report.row("table", "recall", "warm").value == 1 / 2
    assert report.row("table", "recall", "warm").n_users == 2


def test_equal_scores_gain_nothing_from_the_order_of_the_file() -> None:
    """Item rows follow first appearance, so low rows are popular rows. A scorer that knows nothing must not profit."""
    rng = np.random.default_rng(0)
    users, items = rng.integers(200, size=4000), (300 * rng.random(4000) ** 4).astype(int)
    interactions = Interactions.from_arrays(users, items)
    split = cold_items_split(interactions, 0.5)
    nothing = Table(np.zeros((len(split.users), len(split.items)), np.float32), "nothing")
    relevant = int(split.cold_items.sum())
    runs = [
        evaluate(nothing, split, k=10, lists=["cold"], seed=seed).row("nothing", "recall", "cold") for seed in range(30)
    ]
    assert np.mean([row.value for row in runs]) == pytest.approx(10 / relevant, rel=0.4)
    by_row = rank(nothing, np.arange(len(split.users)), 10, candidates=split.cold_items)
    hits = sparse.csr_array(split.test.to_csr())
    with_history = np.flatnonzero(np.diff(hits.indptr))
    assert metrics.recall(by_row[with_history], hits[with_history], 10).mean() > 2 * 10 / relevant


def test_same_seed_same_report() -> None:
    assert evaluate(Random(6), SPLIT, seed=4) == evaluate(Random(6), SPLIT, seed=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": (5, -1)}, "k is -1"),
        ({"k": ()}, "k is empty"),
        ({"lists": ["hot"]}, "'overall', 'warm', 'cold'"),
        ({"lists": "cold"}, "a sequence"),
        ({"lists": []}, "a sequence"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        evaluate(Random(6), SPLIT, **settings)


def test_subjects_that_are_not_scorers_are_refused() -> None:
    assert scorers_of(Random(6), SPLIT) == (Random(6),)
    with pytest.raises(InvalidInput, match="cannot evaluate a dict"):
        evaluate({}, SPLIT)
    with pytest.raises(InvalidInput, match="cannot evaluate a int"):
        evaluate([Random(6), 3], SPLIT)
    with pytest.raises(InvalidInput, match="two scorers are called 'random'"):
        evaluate([Random(6), Random(6, seed=1)], SPLIT)


def test_k_beyond_the_number_of_items_gives_the_whole_catalogue() -> None:
    report = evaluate(Table(ORACLE), SPLIT, k=50)
    assert report.row("table", "recall").value == 1
    assert report.row("table", "precision").value == pytest.approx((2 + 1 + 1 + 1) / 4 / 50)


@pytest.fixture(scope="module")
def report() -> EvaluationReport:
    return evaluate([Table(ORACLE, "<oracle>"), Random(6)], SPLIT, k=(1, 2))


def test_report_has_every_figure_once(report: EvaluationReport) -> None:
    keys = [(row.list, row.k, row.scorer, row.metric) for row in report.rows]
    assert len(keys) == len(set(keys)) == 3 * 2 * 3 * (len(metrics.PER_USER) + len(metrics.PER_LIST))
    for row in report.rows:
        if row.metric in metrics.PER_USER:
            assert row.low is not None and row.high is not None
            assert 0 <= row.low <= row.value + 1e-12 and row.value <= row.high + 1e-12 <= 1 + 1e-6
        else:
            assert row.low is None and row.high is None


def test_report_prints_aligned_tables(report: EvaluationReport) -> None:
    blocks = str(report).split("\n\n")
    assert blocks[0] == "split: six items"
    assert [block.splitlines()[0] for block in blocks[1:-1]] == [
        f"{name}, k = {k}, {users} users" for name, users in (("overall", 4), ("warm", 2), ("cold", 3)) for k in (1, 2)
    ]
    for block in blocks[1:-1]:
        _, header, *body = block.splitlines()
        assert header.split() == ["scorer", *metrics.PER_USER, *metrics.PER_LIST]
        assert len(body) == 3 and len({len(line) for line in (header, *body)}) == 1


def test_report_as_html_json_and_pandas(report: EvaluationReport) -> None:
    page = report._repr_html_()
    assert "&lt;oracle&gt;" in page and "<oracle>" not in page and page.count("<table>") == 6
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [ReportRow(**row) for row in plain["rows"]] == list(report.rows)
    assert plain["split"] == "six items" and plain["level"] == 0.95
    frame = report.to_pandas()
    assert list(frame.columns) == ["scorer", "list", "k", "metric", "value", "low", "high", "n_users"]
    assert len(frame) == len(report.rows)


def test_best_is_the_largest_and_for_gini_the_smallest() -> None:
    row = ReportRow("a", "overall", 10, "recall", 0.2, 0.1, 0.3, 9)
    rows = (
        row,
        replace(row, scorer="b", value=0.4),
        replace(row, metric="gini"),
        replace(row, metric="gini", scorer="b", value=0.9),
    )
    report = EvaluationReport("s", 0, rows)
    assert report.best("recall").scorer == "b" and report.best("gini").scorer == "a"
    with pytest.raises(InvalidInput, match="recall, gini in the lists overall at k = 10"):
        report.best("ndcg")
    with pytest.raises(InvalidInput, match="no scorer is called 'c'; this report has a, b"):
        report.row("c", "recall")
    with pytest.raises(InvalidInput, match="k = 5, 10; say which"):
        EvaluationReport("s", 0, (*rows, replace(row, k=5))).best("recall")
