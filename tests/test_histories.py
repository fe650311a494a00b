"""Padded histories hold the matrix, the whole matrix and nothing but the matrix."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from geo_mf.factorize.histories import Histories, Places, prepare


@st.composite
def matrices(draw: st.DrawFn) -> sparse.csr_array:
    """Sparse float32 matrices with empty rows, empty columns, long rows, and weights that may all be equal."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, columns = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    # Row and column densities differ by orders of magnitude, as in life.
    appetite, appeal = (rng.random(n) ** draw(st.sampled_from([0, 1, 6])) for n in (rows, columns))
    mask = rng.random((rows, columns)) < draw(st.sampled_from([0.0, 0.05, 0.5, 1.0])) * np.outer(appetite, appeal)
    equal = draw(st.booleans())
    weights = np.full(mask.shape, 0.5) if equal else rng.choice([0.25, 1.0, 3.0], mask.shape)
    return sparse.csr_array((weights * mask).astype(np.float32))


def entries(histories: Histories, other: Histories) -> list[tuple[int, int, float]]:
    """Every unpadded place as (row, column, weight) of the matrix; the padding is checked on the way."""
    row_at, column_at = (inverse(side) for side in (histories, other))
    found, first = [], 0
    for bucket in histories.buckets:
        assert bucket.start == first, "buckets stand one after the other"
        first += bucket.rows
        in_use = np.arange(bucket.lengths.shape[1]) < bucket.counts[:, None]
        assert not bucket.lengths[~in_use].any(), "room that is not in use is empty"
        columns = bucket.columns[in_use].reshape(-1, bucket.width)
        lengths = bucket.lengths[in_use].reshape(-1)
        assert columns.dtype == np.int32
        assert len(columns) == len(lengths) == bucket.rows
        live = np.arange(bucket.width) < lengths[:, None]
        assert not columns[~live].any(), "padding points at place 0, which exists"
        if bucket.weights is None:
            weights = np.full(columns.shape, histories.weight, np.float32)
        else:
            weights = bucket.weights[in_use].reshape(columns.shape)
            assert weights.dtype == np.float32
            assert not weights[~live].any()
        for j in range(len(columns)):
            if lengths[j]:
                row = row_at[bucket.start + j]
                places = zip(columns[j, live[j]].tolist(), weights[j, live[j]].tolist(), strict=True)
                found += [(row, column_at[place], weight) for place, weight in places]
    assert first <= histories.size
    return found


def inverse(side: Places) -> dict[int, int]:
    """Place in the table -> row of the matrix; the positions are different and lie in the table."""
    at = {int(place): row for row, place in enumerate(side.position)}
    assert len(at) == len(side.position), "no two rows share a place"
    assert all(0 <= place < side.size for place in at)
    return at


def expected(matrix: sparse.csr_array) -> list[tuple[int, int, float]]:
    coo = matrix.tocoo()
    rows, columns = coo.coords
    return sorted(zip(rows.tolist(), columns.tolist(), coo.data.tolist(), strict=True))


def check(matrix: sparse.csr_array, rank: int, **options: int) -> None:
    users, items = prepare(matrix, rank, **options)
    assert sorted(entries(users, items)) == expected(matrix)
    assert sorted((u, i, c) for i, u, c in entries(items, users)) == expected(matrix)
    present = matrix.toarray() > 0
    for side, counts in ((users, present.sum(axis=1)), (items, present.sum(axis=0))):
        assert side.lengths.tolist() == counts.tolist()
        assert side.table_lengths.dtype == np.float32
        assert side.table_lengths[side.position].tolist() == counts.tolist()
        assert side.table_lengths.sum() == matrix.nnz, "a place that no row has is empty"


@given(matrix=matrices(), rank=st.sampled_from([1, 4, 1000]), tile_bytes=st.sampled_from([1, 4096, 512 * 1024]))
def test_every_interaction_stands_once_on_each_side_with_its_weight(
    matrix: sparse.csr_array, rank: int, tile_bytes: int
) -> None:
    check(matrix, rank, tile_bytes=tile_bytes)


@given(matrix=matrices())
def test_a_table_keeps_every_row(matrix: sparse.csr_array) -> None:
    for side, rows in zip(prepare(matrix, 4), matrix.toarray().shape, strict=True):
        factors = np.random.default_rng(0).standard_normal((rows, 3)).astype(np.float32)
        table = side.to_table(factors)
        assert table.shape == (side.capacity, 3)
        assert side.size <= side.capacity
        assert np.array_equal(side.from_table(table), factors)
        unused = np.ones(side.capacity, bool)
        unused[side.position] = False
        assert not table[unused].any()


@given(matrix=matrices())
def test_rows_without_a_history_stand_behind_all_buckets(matrix: sparse.csr_array) -> None:
    for side in prepare(matrix, 4):
        behind = sum(bucket.rows for bucket in side.buckets)
        assert np.array_equal(side.position >= behind, side.lengths == 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1)])
@pytest.mark.parametrize("value", [0.0, 2.0])
def test_one_user_one_item(shape: tuple[int, int], value: float) -> None:
    check(sparse.csr_array(np.full(shape, value, np.float32)), 4)


def test_one_very_long_history_among_tiny_ones() -> None:
    rng = np.random.default_rng(0)
    items = 100_000
    rows = np.r_[np.zeros(items, np.int64), np.repeat(np.arange(1, 400), 2)]
    columns = np.r_[np.arange(items), rng.integers(0, items // 2, 2 * 399) * 2 + np.tile([0, 1], 399)]
    matrix = sparse.csr_array((rng.uniform(0.5, 2, len(rows)).astype(np.float32), (rows, columns)), shape=(400, items))
    check(matrix, 16)
    users, _ = prepare(matrix, 16)
    slots = sum(bucket.columns.size for bucket in users.buckets)
    assert slots < 1.3 * matrix.nnz, "the tiny histories are not padded to the length of the long one"


@given(matrix=matrices())
def test_the_matrix_is_left_as_it_was(matrix: sparse.csr_array) -> None:
    before = matrix.copy()
    prepare(matrix, 4)
    for name in ("data", "indices", "indptr"):
        assert np.array_equal(getattr(matrix, name), getattr(before, name))
