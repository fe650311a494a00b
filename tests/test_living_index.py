"""An index after any number of writes answers as one that was made anew."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_mf.errors import InvalidInput
from geo_mf.index.approximate import ApproximateIndex, Effort
from geo_mf.index.exact import ExactIndex, Hits, VectorIndex
from geo_mf.index.faiss import FaissIndex
from geo_mf.index.living import LivingIndex, changed

DIM = 4


def thorough(vectors: np.ndarray) -> VectorIndex:
    """Approximate by its kind, and exact by its effort."""
    return ApproximateIndex.build(vectors, "HNSW8" if len(vectors) < 4 else "IVF4,Flat", effort=Effort(4, 1e3, 0.0))


MAKERS = [ExactIndex, FaissIndex, thorough]
each = pytest.mark.parametrize("make", MAKERS)


def whole(rng: np.random.Generator, n: int) -> np.ndarray:
    """Small whole numbers, whose inner products are exact in float32."""
    return rng.integers(-3, 4, (n, DIM)).astype(np.float32)


def same(got: Hits, want: Hits) -> None:
    """But for which of the rows that tie for the last place are told."""
    assert (got.scores == want.scores).all()
    assert (got.counts == want.counts).all()
    above = want.scores > want.scores[:, -1:]
    assert (got.rows[above] == want.rows[above]).all()


@each
@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), writes=st.integers(1, 12))
def test_many_writes_are_as_one_index(make: Any, seed: int, writes: int) -> None:
    """Rows change, come, change again; one write of three removes rows, as the caller does it: by what is allowed."""
    rng = np.random.default_rng(seed)
    vectors = whole(rng, int(rng.integers(0, 30)))
    live = np.ones(len(vectors), bool)
    index: VectorIndex = make(vectors)
    for _ in range(writes):
        more = int(rng.choice([0, 0, 1, 5]))
        size = len(vectors) + more
        old = rng.permutation(len(vectors))[: rng.integers(0, 6)]
        rows = rng.permutation(np.concatenate([old, np.arange(len(vectors), size)]))
        vectors = np.concatenate([vectors, np.zeros((more, DIM), np.float32)])
        vectors[rows] = whole(rng, len(rows))
        index = changed(index, rows, vectors[rows], size)
        live = np.append(live, np.ones(more, bool))
        live[rng.permutation(size)[: rng.integers(0, 3)]] = False
        assert index.size == size
        assert index.dim == DIM
        queries, k = whole(rng, 3), int(rng.integers(1, size + 3))
        exclude = [rng.integers(0, size, rng.integers(0, 2 * size)) if size else [] for _ in queries]
        for allowed, withheld in ((None, None), (live, None), (live, exclude), (None, exclude)):
            same(index.search(queries, k, allowed, withheld), ExactIndex(vectors).search(queries, k, allowed, withheld))
    assert isinstance(index, LivingIndex)
    assert not isinstance(index.main, LivingIndex)  # one segment, however many writes
    assert (np.diff(index.rows) > 0).all()


@each
def test_a_write_leaves_the_index_before_it_as_it_was(make: Any) -> None:
    rng = np.random.default_rng(0)
    vectors, queries = whole(rng, 20), whole(rng, 5)
    first = make(vectors)
    second = changed(first, np.array([3, 20]), whole(rng, 2) + 9, 21)
    before = first.search(queries, 30), second.search(queries, 30)
    segment, rows = second.segment.vectors.copy(), second.rows.copy()
    given_rows, given_vectors = np.array([20, 3, 5, 21]), whole(rng, 4) - 9
    third = changed(second, given_rows, given_vectors, 22)
    after = first.search(queries, 30), second.search(queries, 30)
    for was, is_now in zip(before, after, strict=True):
        assert (was.rows == is_now.rows).all()
        assert (was.scores == is_now.scores).all()
    assert (second.segment.vectors == segment).all()
    assert (second.rows == rows).all()
    assert (first.size, second.size, third.size) == (20, 21, 22)
    # Nor does the new one hang on what the caller gave.
    told = third.search(queries, 30)
    given_rows[:], given_vectors[:] = 0, 0
    assert (third.search(queries, 30).scores == told.scores).all()


@each
def test_a_changed_row_is_told_once_and_by_its_new_vector(make: Any) -> None:
    vectors = np.eye(DIM, dtype=np.float32)
    index = changed(make(vectors), np.array([0]), np.array([[0, 0, 0, 5]], np.float32), DIM)
    hits = index.search(np.array([[1, 0, 0, 0], [0, 0, 0, 1]], np.float32), 10)
    assert hits.counts.tolist() == [4, 4]
    assert hits.rows[1, :2].tolist() == [0, 3]
    assert hits.scores[0, :4].tolist() == [0, 0, 0, 0]


@each
def test_all_rows_changed_and_none(make: Any) -> None:
    rng = np.random.default_rng(1)
    vectors, new, queries = whole(rng, 12), whole(rng, 12), whole(rng, 4)
    all_new = changed(make(vectors), np.arange(12), new, 12)
    same(all_new.search(queries, 6), ExactIndex(new).search(queries, 6))
    none_new = changed(make(vectors), np.zeros(0, np.int64), np.zeros((0, DIM), np.float32), 12)
    same(none_new.search(queries, 6), ExactIndex(vectors).search(queries, 6))
    assert all_new.search(queries, 3, np.zeros(12, bool)).counts.tolist() == [0] * 4


def test_what_cannot_be_written_or_asked_is_refused() -> None:
    index = FaissIndex(np.eye(DIM, dtype=np.float32))
    with pytest.raises(InvalidInput, match="NaN"):
        changed(index, np.array([0]), np.full((1, DIM), np.nan, np.float32), DIM)
    living = changed(index, np.array([4]), np.ones((1, DIM), np.float32), 5)
    query = np.ones((1, DIM), np.float32)
    calls: list[dict[str, Any]] = [
        {"k": 0},
        {"queries": np.ones((1, 3))},
        {"queries": np.full((1, DIM), np.inf)},
        {"allowed": np.ones(4, bool)},
        {"exclude": [[5]]},
        {"exclude": []},
    ]
    good: dict[str, Any] = {"queries": query, "k": 1}
    for bad in calls:
        with pytest.raises(InvalidInput):
            living.search(**(good | bad))
    # A query too long for either part.
    huge = changed(index, np.array([4]), np.full((1, DIM), 1e30, np.float32), 5)
    for long in (huge, changed(huge, np.array([0]), query, 5)):
        with pytest.raises(InvalidInput, match="does not fit float32"):
            long.search(query * np.float32(1e10), 1)
