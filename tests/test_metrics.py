"""Metrics: hand fractions, agreement with trec_eval through ir-measures, and the properties that must hold."""

import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from geo_mf.errors import InvalidInput
from geo_mf.evaluation import metrics

FUNCTIONS = [metrics.recall, metrics.precision, metrics.ndcg, metrics.map, metrics.mrr, metrics.hit]


def relevance(rows: list[list[int]], n_items: int) -> sparse.csr_array:
    dense = np.zeros((len(rows), n_items), np.float32)
    for user, items in enumerate(rows):
        dense[user, items] = 2.5  # any weight: a stored entry is relevant
    return sparse.csr_array(dense)


def random_lists(rng: np.random.Generator, users: int, n_items: int, width: int) -> tuple[np.ndarray, sparse.csr_array]:
    """Lists of random lengths (0..width) and at least one relevant item for each user."""
    ranked = np.stack([rng.permutation(n_items)[:width] for _ in range(users)]).astype(np.int32)
    ranked[np.arange(width) >= rng.integers(0, width + 1, size=users)[:, None]] = -1
    wanted = [rng.permutation(n_items)[: rng.integers(1, n_items + 1)].tolist() for _ in range(users)]
    return ranked, relevance(wanted, n_items)


cases = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(2, 12)).map(
    lambda t: random_lists(np.random.default_rng(t[0]), t[1], t[2], min(t[2], 8))
)


def test_metrics_are_these_fractions() -> None:
    ranked = np.array([[0, 9, 2, 8], [9, 8, 7, -1], [3, -1, -1, -1]], np.int32)
    relevant = relevance([[0, 1, 2, 3, 4, 5], [0], [3]], 10)
    ideal_3 = 1 + 1 / math.log2(3) + 1 / 2
    expected = {
        "recall": [2 / 6, 0, 1],
        "precision": [2 / 3, 0, 1 / 3],
        "ndcg": [(1 + 1 / 2) / ideal_3, 0, 1],
        "map": [1 / 6 * (1 / 1 + 2 / 3), 0, 1],
        "mrr": [1, 0, 1],
        "hit": [1, 0, 1],
    }
    found = metrics.per_user(ranked, relevant, 3)
    assert list(found) == list(metrics.PER_USER) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=name)


def test_the_first_hit_may_be_late() -> None:
    ranked = np.array([[5, 4, 1]], np.int32)
    relevant = relevance([[1, 2]], 6)
    assert metrics.mrr(ranked, relevant, 3) == 1 / 3
    assert metrics.map(ranked, relevant, 3) == 1 / 2 * 1 / 3
    assert metrics.ndcg(ranked, relevant, 3) == pytest.approx((1 / 2) / (1 + 1 / math.log2(3)))
    assert metrics.hit(ranked, relevant, 2) == 0


def test_a_list_shorter_than_k_is_judged_over_k_places() -> None:
    ranked = np.array([[1, 2]], np.int32)
    relevant = relevance([[1, 2, 3]], 4)
    assert metrics.precision(ranked, relevant, 10) == 2 / 10
    gains = [1 / math.log2(j + 1) for j in (1, 2, 3)]
    assert metrics.ndcg(ranked, relevant, 10) == pytest.approx(sum(gains[:2]) / sum(gains))


@given(cases, st.integers(1, 10))
def test_agrees_with_trec_eval(case: tuple[np.ndarray, sparse.csr_array], k: int) -> None:
    ranked, relevant = case
    qrels = [ir_measures.Qrel(str(u), str(i), 1) for u, i in zip(*relevant.nonzero(), strict=True)]
    run = [
        ir_measures.ScoredDoc(str(user), str(item), 100.0 - place)
        for user, items in enumerate(ranked)
        for place, item in enumerate(items)
        if item >= 0
    ]
    theirs = {
        "recall": ir_measures.parse_measure(f"R@{k}"),
        "precision": ir_measures.parse_measure(f"P@{k}"),
        "ndcg": ir_measures.parse_measure(f"nDCG@{k}"),
        "map": ir_measures.parse_measure(f"AP@{k}"),
        "mrr": ir_measures.parse_measure(f"RR@{k}"),
        "hit": ir_measures.parse_measure(f"Success@{k}"),
    }
    expected = ir_measures.calc_aggregate(theirs.values(), qrels, run)
    for name, values in metrics.per_user(ranked, relevant, k).items():
        assert values.mean() == pytest.approx(expected[theirs[name]], abs=1e-9), name


@given(cases, st.integers(1, 10))
def test_every_metric_lies_between_0_and_1_and_more_places_never_hurt_recall(
    case: tuple[np.ndarray, sparse.csr_array], k: int
) -> None:
    ranked, relevant = case
    for function in FUNCTIONS:
        values = function(ranked, relevant, k)
        assert values.dtype == np.float64 and values.shape == (len(ranked),)
        assert (values >= 0).all() and (values <= 1 + 1e-12).all()
        np.testing.assert_array_equal(values, metrics.per_user(ranked, relevant, k)[function.__name__])
    assert (metrics.recall(ranked, relevant, k + 1) >= metrics.recall(ranked, relevant, k)).all()


def test_the_ideal_list_scores_1() -> None:
    relevant = relevance([[0, 3, 4], [2]], 6)
    ideal = np.array([[4, 0, 3], [2, 1, 5]], np.int32)
    np.testing.assert_allclose(metrics.ndcg(ideal, relevant, 3), 1)
    np.testing.assert_allclose(metrics.map(ideal, relevant, 3), 1)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_user_without_relevant_items_scores_0_and_not_nan(function: metrics.Metric) -> None:
    ranked = np.array([[0, 1], [-1, -1]], np.int32)
    np.testing.assert_array_equal(function(ranked, relevance([[], []], 3), 2), [0, 0])


def test_relevance_stored_twice_counts_once_and_is_not_modified() -> None:
    twice = sparse.csr_array(
        (np.ones(3, np.float32), np.array([2, 0, 2], np.int32), np.array([0, 3], np.int32)), shape=(1, 4)
    )
    before = twice.indices.copy()
    assert metrics.recall(np.array([[2, 1]], np.int32), twice, 2) == 1 / 2
    np.testing.assert_array_equal(twice.indices, before)


@pytest.mark.parametrize(
    ("ranked", "k", "message"),
    [
        ([[0, 1]], 0, "k is 0"),
        ([[0, 1]], True, "k is True"),
        ([[0, 0]], 2, "holds an item twice"),
        ([[0, 4]], 2, "rows from 0 to 4"),
        ([[0, -2]], 2, "rows from -2 to 0"),
        ([[0.0, 1.0]], 2, "as integers"),
        ([[0], [1]], 1, "one row per user"),
    ],
)
def test_lists_that_cannot_be_judged_are_refused(ranked: list[list[int]], k: int, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        metrics.recall(np.array(ranked), relevance([[1]], 4), k)


def test_relevance_must_be_sparse() -> None:
    with pytest.raises(InvalidInput, match="ndarray"):
        metrics.recall(np.array([[0]]), np.ones((1, 2)), 1)  # pyright: ignore[reportArgumentType]


def test_coverage_novelty_and_gini_by_hand() -> None:
    ranked = np.array([[0, 1, 9], [0, -1, -1]], np.int32)
    rankable = np.ones(10, bool)
    assert metrics.coverage(ranked, rankable, 2) == 2 / 10
    assert metrics.coverage(ranked, rankable, 3) == 3 / 10
    users = np.array([8, 2, 0, 0, 0, 0, 0, 0, 0, 0])
    # Places: item 0 twice (1 bit), item 1 (3 bits), item 9, which nobody touched, as if one user had (4 bits).
    assert metrics.novelty(ranked, users, 16, 3) == (1 + 1 + 3 + 4) / 4
    # Exposures in ascending order: 0 (seven times), 1, 1, 2.
    assert metrics.gini(ranked, rankable, 3) == pytest.approx((5 * 1 + 7 * 1 + 9 * 2) / (10 * 4))


@given(st.integers(1, 20))
def test_gini_is_0_for_equal_exposure_and_largest_for_one_item(n: int) -> None:
    equal = np.arange(n, dtype=np.int32)[:, None]
    assert metrics.gini(equal, np.ones(n, bool), 1) == 0
    assert metrics.gini(np.zeros((5, 1), np.int32), np.ones(n, bool), 1) == pytest.approx((n - 1) / n)


def test_coverage_and_gini_are_over_the_rankable_items() -> None:
    ranked = np.array([[0], [2]], np.int32)
    rankable = np.array([True, False, True, False])
    assert metrics.coverage(ranked, rankable, 1) == 1
    assert metrics.gini(ranked, rankable, 1) == 0


def test_empty_lists_have_no_exposure() -> None:
    nothing = np.full((3, 2), -1, np.int32)
    assert metrics.coverage(nothing, np.ones(4, bool), 2) == 0
    assert metrics.gini(nothing, np.ones(4, bool), 2) == 0
    assert metrics.novelty(nothing, np.ones(4, np.int64), 3, 2) == 0


def test_bootstrap_of_a_normal_sample_is_near_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, size=4000)
    low, high = metrics.bootstrap_interval(values, seed=3)
    error = 1.96 * values.std() / math.sqrt(values.size)
    assert low == pytest.approx(values.mean() - error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + error, abs=0.2 * error)
    wide = metrics.bootstrap_interval(values, seed=3, level=0.99)
    assert wide[0] < low < high < wide[1]


def test_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    samples = np.random.default_rng(2).exponential(1.0, size=(300, 80))
    intervals = [metrics.bootstrap_interval(values, seed=j, n=300) for j, values in enumerate(samples)]
    covered = np.mean([low <= 1.0 <= high for low, high in intervals])
    assert 0.88 <= covered <= 0.98


def test_bootstrap_is_fixed_by_its_seed_and_its_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(50)
    first = metrics.bootstrap_means(values[:, None], seed=7, n=200)
    assert not np.array_equal(first, metrics.bootstrap_means(values[:, None], seed=8, n=200))
    monkeypatch.setattr(metrics, "_DRAWS_AT_ONCE", 130)
    np.testing.assert_allclose(metrics.bootstrap_means(values[:, None], seed=7, n=200), first)


def test_bootstrap_columns_share_their_draws() -> None:
    values = np.random.default_rng(0).random(30)
    means = metrics.bootstrap_means(np.stack([values, 2 * values], axis=1), seed=0, n=50)
    np.testing.assert_allclose(means[:, 1], 2 * means[:, 0])


def test_paired_bootstrap_sees_a_small_steady_difference_that_unpaired_intervals_miss() -> None:
    rng = np.random.default_rng(0)
    second = rng.random(200)
    first = second + 0.01 + 0.001 * rng.standard_normal(200)
    mean, low, high = metrics.paired_bootstrap(first, second)
    assert mean == pytest.approx(0.01, abs=0.001) and 0 < low < mean < high
    assert metrics.bootstrap_interval(first)[0] < metrics.bootstrap_interval(second)[1]
    reverse = metrics.paired_bootstrap(second, first)
    np.testing.assert_allclose(reverse, [-mean, -high, -low])


def test_bootstrap_refuses_what_has_no_mean() -> None:
    with pytest.raises(InvalidInput, match="at least one user"):
        metrics.bootstrap_interval(np.zeros(0))
    with pytest.raises(InvalidInput, match="NaN"):
        metrics.bootstrap_interval(np.array([1.0, np.nan]))
    with pytest.raises(InvalidInput, match="level is 95"):
        metrics.bootstrap_interval(np.ones(3), level=95)
    with pytest.raises(InvalidInput, match="n is 0"):
        metrics.bootstrap_interval(np.ones(3), n=0)
    with pytest.raises(InvalidInput, match="one value per user"):
        metrics.bootstrap_interval(np.ones((3, 2)))
    with pytest.raises(InvalidInput, match="same users"):
        metrics.paired_bootstrap(np.ones(3), np.ones(4))
