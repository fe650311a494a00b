"""Histories in blocks hold the matrix and nothing but it; rows are solved one at a time as tiles of them are."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from test_histories import expected, inverse, matrices

import geo_mf as gm
from geo_mf.factorize import fit, ials, one_row, sides
from geo_mf.factorize.blocks import Blocks, Layout, Side, prepare


def entries(side: Blocks, other: Blocks) -> list[tuple[int, int, float]]:
    """Every interaction of every call as (row, column, weight); what calls rely on is checked on the way."""
    row_at, column_at = inverse(side), inverse(other)
    found, solved = [], set[int]()
    for number, (span, rows) in enumerate(zip(side.spans, side.batches, strict=True)):
        columns, weights = side.histories(number)
        assert (columns.dtype, rows.firsts.dtype, rows.places.dtype) == (np.int32, np.int32, np.int32)
        lengths = np.diff(rows.firsts[: rows.count + 1])
        blocks = -(-lengths // side.block)
        assert blocks.sum() == span.blocks and blocks.min() > 0 and blocks.max() <= span.scratch
        assert rows.firsts[0] == 0 and rows.firsts[rows.count] + side.block <= len(columns), "room for the last block"
        assert weights is None or np.isfinite(weights).all()
        for place, first, n in zip(rows.in_use.tolist(), rows.firsts.tolist(), lengths.tolist(), strict=False):
            assert place not in solved
            solved.add(place)
            row = row_at[place]
            assert n == side.lengths[row]
            for at in range(first, first + n):
                weight = side.weight if weights is None else weights[at]
                found.append((row, column_at[int(columns[at])], float(weight)))
    assert solved == set(np.flatnonzero(side.lengths).tolist())
    assert side.in_order, "so that nobody has to look up where a row stands"
    assert other.size < other.capacity, "padding points at a row of zeros"
    return found


@given(matrix=matrices(), rank=st.sampled_from([1, 4, 1000, 100_000]))
def test_every_interaction_stands_once_on_each_side_with_its_weight(matrix: sparse.csr_array, rank: int) -> None:
    given, starts = matrix.indices.copy(), matrix.indptr.copy()
    users, items = prepare(matrix, rank)
    assert sorted(entries(users, items)) == expected(matrix)
    assert sorted((user, item, weight) for item, user, weight in entries(items, users)) == expected(matrix)
    assert np.array_equal(matrix.indices, given) and np.array_equal(matrix.indptr, starts), "what is given stays"
    layout = Layout.of(np.diff(matrix.indptr), np.diff(matrix.tocsc().indptr), rank)
    assert layout.capacity == users.capacity == items.capacity
    for side, planned in ((users, layout.users), (items, layout.items)):
        assert [span.rows.tolist() for span in side.spans] == [span.rows.tolist() for span in planned.spans]


def test_the_users_side_shares_the_memory_of_the_matrix() -> None:
    matrix = sparse.csr_array(np.tri(40, dtype=np.float32) + np.eye(40, dtype=np.float32))
    users, items = prepare(matrix, 8)
    assert np.shares_memory(users.columns, matrix.indices)
    assert users.weights is not None and np.shares_memory(users.weights, matrix.data)
    assert items.weights is not None and not np.shares_memory(items.columns, matrix.indices)
    assert prepare(matrix.astype(bool).astype(np.float32), 8)[1].weights is None


@pytest.mark.parametrize("shape", [(400, 3), (3, 400), (400, 390)])
def test_what_a_fit_returns_keeps_no_memory_of_the_larger_side(shape: tuple[int, int]) -> None:
    matrix = sparse.csr_array(np.ones(shape, np.float32))
    model = gm.IALS(64, iterations=1, random_state=0).fit(matrix)
    for factors in (model.user_factors, model.item_factors):
        memory = factors
        while isinstance(memory.base, np.ndarray):
            memory = memory.base
        assert memory.nbytes < 2.2 * factors.nbytes
        assert not np.shares_memory(factors, matrix.data)


def test_calls_of_one_scratch_share_their_shapes() -> None:
    """Rows with long histories among short ones: the short ones around them are still taken together."""
    lengths = np.tile([3, 0, 900, 5], 50)
    columns = np.concatenate([np.arange(n) for n in lengths])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    matrix = sparse.csr_array((np.ones(len(columns), np.float32), columns, starts), shape=(200, 900))
    users, items = prepare(matrix, 512)
    shapes = {(span.scratch, len(side.histories(n)[0])) for side in (users, items) for n, span in enumerate(side.spans)}
    assert len(shapes) == len({span.scratch for span in users.spans + items.spans}) == 2
    assert sorted(entries(users, items)) == expected(matrix)


def test_a_call_has_room_for_the_histories_that_it_is_given() -> None:
    lengths = np.r_[np.full(3, 300_000), np.full(40, 9000), np.full(100_000, 11)]
    side = Side.of(lengths, 64)
    assert sorted(np.concatenate([span.rows for span in side.spans])) == list(range(len(lengths)))
    assert len({span.scratch for span in side.spans}) <= 3, "a few sizes, each compiled once"
    assert side.scratch < 1.2 * lengths.max(), "no more than the longest needs"
    assert side.block * sum(span.blocks for span in side.spans) < 1.5 * lengths.sum()
    assert all(span.blocks <= span.room for span in side.spans)


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("steps", "rank", "block"), [(0, 1, 2), (1, 3, 8), (3, 16, 4), (3, 37, 8), (3, 64, 2)])
def test_one_row_at_a_time_is_a_tile_of_rows(steps: int, rank: int, block: int, weighted: bool, features: bool) -> None:
    """Were one of these shapes to make the compiler abort, the whole test run would end here."""
    random = np.random.default_rng(0)
    size, rows, width, most = 50, 9, 24, 12
    table = random.standard_normal((size, rank)).astype(np.float32)
    table[-1] = 0
    lengths = random.integers(0, width + 1, rows)
    lengths[0] = width
    tile = np.where(np.arange(width) < lengths[:, None], random.integers(0, size - 1, (rows, width)), size - 1)
    weights = random.uniform(0.5, 2, tile.shape).astype(np.float32)
    live = np.arange(width) < lengths[1:, None]
    spare = np.full(2 * block, 7)  # other columns, as stand behind a history that is not the last
    columns = np.concatenate([tile[1:][live], spare]).astype(np.int32)
    one_by_one = np.concatenate([weights[1:][live], spare]).astype(np.float32)
    firsts, places = np.zeros(most + 1, np.int32), np.zeros(most, np.int32)
    firsts[1:rows] = np.cumsum(lengths[1:])
    places[: rows - 1] = np.arange(1, rows)
    prior = jnp.asarray(random.standard_normal((rows + 3, rank)), jnp.float32) if features else None
    spectrum = jnp.asarray(random.uniform(0.1, 2, rank), jnp.float32)
    half = ials.HalfEpoch(jnp.asarray(table), spectrum, jnp.full(rows + 3, 0.3, jnp.float32), prior)
    same = jnp.float32(1.5)
    arguments = columns, one_by_one if weighted else same, firsts, places, np.int32(rows - 1)
    scratch = max(2, int(-(-lengths.max() // block)))
    found = np.asarray(one_row.solve_span(half, *arguments, steps, block, scratch))
    given = jnp.asarray(weights[None]) if weighted else same
    tiles = (jnp.asarray(tile[None].astype(np.int32)), given, jnp.asarray(lengths[None].astype(np.int32)))
    wanted = np.asarray(ials.solve_rows(half, np.int32(0), np.int32(1), *tiles, "cg", steps))
    assert found.shape == (most, rank)
    assert found[: rows - 1] == pytest.approx(wanted[1:], rel=1e-4, abs=1e-5)
    assert not found[rows - 1 :].any()


@pytest.mark.parametrize("features", [False, True])
def test_an_accelerator_s_way_gives_the_same_scores(features: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles and tables on a device, which is this CPU here, against rows in turn and tables in host memory."""
    random = np.random.default_rng(0)
    chance = np.outer(random.random(80) ** 2, random.random(60) ** 2)
    matrix = sparse.csr_array(np.where(random.random(chance.shape) < chance, 1, 0).astype(np.float32))
    described = random.standard_normal((60, 4)).astype(np.float32) if features else None

    def scores() -> np.ndarray:
        model = gm.IALS(7, 0.01, 0.1, iterations=3, random_state=0).fit(matrix, described)
        return model.user_factors @ model.item_factors.T

    here = scores()
    for module in (fit, sides):
        monkeypatch.setattr(module, "on_cpu", lambda: False)
    assert scores() == pytest.approx(here, rel=1e-3, abs=1e-4)
