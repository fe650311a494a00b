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
    """Every place in use as (row, column, weight) of the matrix; the padding is checked on the way."""
    row_at, column_at = inverse(side), inverse(other)
    assert side.columns.dtype == np.int32
    found, first = [], 0
    for span in side.spans:
        assert span.start == first, "calls stand one after the other"
        first += span.rows
        assert side.firsts[first] - side.firsts[span.start] == span.blocks
        assert np.diff(side.firsts)[span.start : first].max() <= span.scratch
    for place in range(first):
        row = row_at[place]
        columns = side.columns[side.firsts[place] : side.firsts[place + 1]].reshape(-1)
        n = side.lengths[row]
        assert (columns[n:] == other.size).all() and other.size < other.capacity, "padding points at the row of zeros"
        weights = np.full(len(columns), side.weight, np.float32)
        if side.weights is not None:
            weights = side.weights[side.firsts[place] : side.firsts[place + 1]].reshape(-1)
            assert not weights[n:].any()
        found += [(row, column_at[int(at)], float(weight)) for at, weight in zip(columns[:n], weights[:n], strict=True)]
    assert (np.diff(side.firsts)[first:] == 0).all(), "rows without a history stand last"
    return found


@given(matrix=matrices(), rank=st.sampled_from([1, 4, 1000, 100_000]))
def test_every_interaction_stands_once_on_each_side_with_its_weight(matrix: sparse.csr_array, rank: int) -> None:
    users, items = prepare(matrix, rank)
    assert sorted(entries(users, items)) == expected(matrix)
    assert sorted((user, item, weight) for item, user, weight in entries(items, users)) == expected(matrix)
    assert users.columns.shape == items.columns.shape, "so that both share their compiled code"
    layout = Layout.of(np.diff(matrix.indptr), np.diff(matrix.tocsc().indptr), rank)
    assert (layout.users.spans, layout.items.spans, layout.capacity) == (users.spans, items.spans, users.capacity)


def test_a_call_has_room_for_the_histories_that_it_is_given() -> None:
    lengths = np.r_[np.full(3, 300_000), np.full(40, 9000), np.full(100_000, 11)]
    side = Side.of(lengths, 64)
    assert sum(span.rows for span in side.spans) == len(lengths)
    assert len({span.scratch for span in side.spans}) <= 3, "a few sizes, each compiled once"
    assert side.scratch < 1.2 * lengths.max(), "no more than the longest needs"
    assert side.slots < 1.5 * lengths.sum()


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
    blocks = -(-lengths // block)
    cut = np.concatenate([row[: n * block] for row, n in zip(tile, blocks, strict=True)])
    cut_weights = np.concatenate([row[: n * block] for row, n in zip(weights, blocks, strict=True)])
    spare = np.zeros(2 * block)
    columns = np.concatenate([cut, spare]).reshape(-1, block).astype(np.int32)
    in_blocks = np.concatenate([cut_weights, spare]).reshape(-1, block).astype(np.float32)
    firsts = np.concatenate([[0], np.cumsum(blocks)]).astype(np.int32)
    prior = jnp.asarray(random.standard_normal((rows + 3, rank)), jnp.float32) if features else None
    spectrum = jnp.asarray(random.uniform(0.1, 2, rank), jnp.float32)
    half = ials.HalfEpoch(jnp.asarray(table), spectrum, jnp.full(rows + 3, 0.3, jnp.float32), prior)
    same = jnp.float32(1.5)
    arguments = (jnp.asarray(columns), jnp.asarray(in_blocks) if weighted else same, jnp.asarray(firsts))
    scratch = max(2, int(blocks.max()))
    found = np.asarray(one_row.solve_span(half, *arguments, np.int32(1), np.int32(rows - 1), steps, most, scratch))
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
