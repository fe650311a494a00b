"""How recall is counted: by hand, with ties, and by groups of rows."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_mf.index.exact import ExactIndex, Hits
from geo_mf.index.recall import FEWEST_PAIRS, GROUPS, Recall, Truth, norm_groups


class Fixed:
    """An index that always finds these rows."""

    def __init__(self, vectors: np.ndarray, rows: list[list[int]]) -> None:
        self.vectors, self.rows, (self.size, self.dim) = vectors, np.array(rows), vectors.shape

    def search(self, queries: np.ndarray, k: int, allowed: Any = None, exclude: Any = None) -> Hits:
        scores = np.where(
            self.rows < 0, -np.inf, (queries @ self.vectors.T)[np.arange(len(queries))[:, None], self.rows]
        )
        return Hits.best(self.rows, scores.astype(np.float32), k)


def line(*scores: float) -> tuple[np.ndarray, Truth]:
    """Rows of one number, and one query that scores them so."""
    vectors = np.array(scores, np.float32)[:, None]
    return vectors, Truth.of(vectors, np.ones((1, 1), np.float32), np.zeros(len(scores), np.int64))


@pytest.mark.parametrize(
    ("found", "recall"),
    [
        ([0, 1, 2], 1),
        ([2, 1, 0], 1),
        ([0, 1, 3], 2 / 3),
        ([3, 4, 5], 0),
        ([0, -1, -1], 1 / 3),
        ([-1, -1, -1], 0),
    ],
)
def test_by_hand(found: list[int], recall: float) -> None:
    vectors, truth = line(9, 8, 7, 6, 5, 4)
    assert truth.recall(Fixed(vectors, [found]), 3).overall == pytest.approx(recall)


@pytest.mark.parametrize(
    ("found", "recall"),
    [
        ([0, 1, 2], 1),
        ([0, 3, 4], 1),  # rows 1 to 4 tie: any two of them will do
        ([0, 4, 1], 1),
        ([1, 2, 3], 2 / 3),  # three as good as the last, and yet the best is missing
        ([0, 4, 5], 2 / 3),
        ([4, 5, -1], 1 / 3),
        ([5, 6, -1], 0),
    ],
)
def test_rows_that_tie_with_the_last_are_as_good(found: list[int], recall: float) -> None:
    vectors, truth = line(9, 7, 7, 7, 7, 1, 0)
    assert truth.recall(Fixed(vectors, [found]), 3).overall == pytest.approx(recall)


@given(seed=st.integers(0, 2**32 - 1))
def test_recall_is_that_of_the_scores(seed: int) -> None:
    """Whatever is found: a found row counts where it is among the best, or as good as the last of them."""
    rng = np.random.default_rng(seed)
    n, q = rng.integers(1, 30), rng.integers(1, 6)
    vectors, queries = (rng.integers(-1, 2, (m, 3)).astype(np.float32) for m in (n, q))
    k = int(rng.integers(1, n + 1))
    found = [rng.permutation(n)[:k].tolist() for _ in range(q)]
    truth = Truth.of(vectors, queries, np.zeros(n, np.int64))
    scores = queries @ vectors.T
    want = [
        np.count_nonzero(scores[j, found[j]] >= np.sort(scores[j])[-k]) for j in range(q)
    ]  # never more than k, for k are looked at
    above = [np.count_nonzero(scores[j, found[j]] > np.sort(scores[j])[-k]) for j in range(q)]
    best_above = [np.count_nonzero(scores[j] > np.sort(scores[j])[-k]) for j in range(q)]
    tied = [min(w - a, k - b) for w, a, b in zip(want, above, best_above, strict=True)]
    expected = (sum(above) + sum(tied)) / (k * q)
    assert truth.recall(Fixed(vectors, found), k).overall == pytest.approx(expected)
    assert truth.recall(ExactIndex(vectors), k).overall == 1


def test_only_groups_with_enough_rows_are_told() -> None:
    """Of two groups, of 2 and of 1 best rows for each query, one query in four misses the row of the second group,
    which counts with the first as long as it is small."""
    vectors = np.array([[3.0], [2.0], [1.0], [0.0]], np.float32)
    for queries, told in ((FEWEST_PAIRS - 1, {0}), (FEWEST_PAIRS, {0, 9})):
        truth = Truth.of(vectors, np.ones((queries, 1), np.float32), np.array([0, 0, 9, 9]))
        found = [[0, 1, 3 if j % 4 == 0 else 2] for j in range(queries)]
        recall = truth.recall(Fixed(vectors, found), 3)
        misses = -(-queries // 4)
        assert recall.pairs == 3 * queries
        assert recall.overall == pytest.approx(1 - misses / (3 * queries))
        assert set(recall.by_group) == told
        if 9 in told:
            assert (recall.by_group[0], recall.group_pairs[0]) == (1, 2 * queries)
            assert recall.worst == recall.by_group[9] == pytest.approx(1 - misses / queries)
        else:
            assert recall.group_pairs[0] == recall.pairs
            assert recall.worst == pytest.approx(recall.overall)


def test_groups_with_too_few_rows_are_told_together() -> None:
    """No row escapes: 30 pairs in each of five groups make one group, for the last 30 count with those before."""
    groups = np.array([0, 2, 3, 5, 8])
    vectors = np.arange(5, 0, -1, dtype=np.float32)[:, None]
    truth = Truth.of(vectors, np.ones((30, 1), np.float32), groups)
    recall = truth.recall(Fixed(vectors, [[0, 1, 3, 4]] * 30), 5)
    assert recall.group_pairs == {5: 150}
    assert recall.by_group == {5: pytest.approx(0.8)}
    assert recall.worst == recall.by_group[5]


def test_recall_holds_by_more_than_its_standard_error() -> None:
    assert Recall(1.0, 1).holds(1.0)
    assert not Recall(0.95, 10**6).holds(0.95)
    error = np.sqrt(0.95 * 0.05 / 1000)
    assert Recall(0.95, 1000).holds(0.95 - error - 1e-9)
    assert not Recall(0.95, 1000).holds(0.95 - error + 1e-9)
    assert not Recall(0.99, 10**6, {3: 0.94}, {3: 1000}).holds(0.95)
    assert Recall(0.99, 10**6, {3: 0.97}, {3: 1000}).holds(0.95)
    assert Recall(0.99, 10**6, {3: 0.94}, {3: 1000}).worst == 0.94


def test_a_depth_beyond_the_rows() -> None:
    vectors, truth = line(3, 2)
    assert truth.recall(ExactIndex(vectors), 100).overall == 1
    assert truth.recall(Fixed(vectors, [[0, -1]]), 100).overall == 0.5


def test_no_queries_is_no_fault() -> None:
    vectors = np.eye(3, dtype=np.float32)
    recall = Truth.of(vectors, np.zeros((0, 3), np.float32), np.zeros(3, np.int64)).recall(ExactIndex(vectors), 2)
    assert (recall.overall, recall.by_group) == (1.0, {})


def test_tenths_by_length() -> None:
    vectors = np.arange(1, 101, dtype=np.float32)[:, None]
    assert np.bincount(norm_groups(vectors)).tolist() == [10] * GROUPS
    assert norm_groups(vectors)[[0, 99]].tolist() == [0, GROUPS - 1]
    assert set(norm_groups(np.ones((50, 3), np.float32))) == {0}
    assert norm_groups(np.ones((1, 3), np.float32)).tolist() == [0]
    huge = norm_groups(vectors * np.float32(1e35))
    assert (huge == norm_groups(vectors)).all()
