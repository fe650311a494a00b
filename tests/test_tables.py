"""Tables on the host and on a device: one contract. A CPU is a device too, so both run here."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from geo_mf.factorize.histories import Places
from geo_mf.factorize.tables import DeviceTables, HostTables, Piece, Tables

USED, CAPACITY, RANK = 9001, 9100, 6


@pytest.fixture(params=["host", "device"])
def tables(request: pytest.FixtureRequest) -> Iterator[Tables]:
    with ThreadPoolExecutor(2) as pool:
        yield HostTables(pool) if request.param == "host" else DeviceTables()


@pytest.fixture
def rows() -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((CAPACITY, RANK)).astype(np.float32)
    rows[USED:] = 0
    return rows


@pytest.fixture
def places() -> Places:
    return Places(np.random.default_rng(1).permutation(USED), np.ones(USED, np.int64), USED, CAPACITY, 1.0)


def test_a_table_holds_its_rows_and_not_the_caller_s_memory(tables: Tables, rows: np.ndarray, places: Places) -> None:
    given = rows[:USED]
    held, before = tables.hold(places, given), given.copy()
    assert held.shape == (CAPACITY, RANK) and held.dtype == jnp.float32
    given[:] = 7
    assert np.array_equal(np.asarray(held)[places.position], before)
    assert not np.asarray(held)[-1].any(), "what pads a history points at a row of zeros"
    assert np.array_equal(np.asarray(tables.read(held))[:USED], np.asarray(held)[:USED])


def test_gram_and_rotation(tables: Tables, rows: np.ndarray, places: Places) -> None:
    table = tables.hold(places, rows[:USED])
    wide = np.asarray(table)[:USED].astype(float)
    gram = tables.gram(table, USED)
    assert gram.dtype == np.float64
    assert gram == pytest.approx(wide.T @ wide, rel=1e-4, abs=1e-2)
    axes = np.linalg.qr(np.random.default_rng(1).standard_normal((RANK, RANK)))[0].astype(np.float32)
    turned = tables.rotated(table, USED, axes)
    assert turned.shape == (CAPACITY, RANK)
    assert np.asarray(turned)[:USED] == pytest.approx(wide @ axes, abs=1e-5)
    assert not np.asarray(turned)[-1].any()


def test_pieces_are_joined_where_they_belong(tables: Tables, rows: np.ndarray, places: Places) -> None:
    def piece(start: int, stop: int) -> Piece:
        spare = np.concatenate([rows[start:stop], np.full((3, RANK), np.nan, np.float32)])
        return slice(start, stop), stop - start, lambda: jnp.asarray(spare)

    pieces = [piece(0, 4000), piece(4000, 4001), piece(4001, 8000)]
    table = tables.hold(places, np.zeros((USED, RANK), np.float32))
    joined = tables.joined(table, pieces, (slice(8000, USED), rows[8000:USED]))
    assert joined.shape == (CAPACITY, RANK)
    assert np.array_equal(np.asarray(joined)[:USED], rows[:USED])
    assert not np.asarray(joined)[-1].any()


def test_in_host_memory_pieces_have_any_rows(rows: np.ndarray, places: Places) -> None:
    mixed = np.random.default_rng(2).permutation(USED)
    parts = [mixed[:3000], mixed[3000:3001], mixed[3001:8000]]
    with ThreadPoolExecutor(2) as pool:
        tables = HostTables(pool)
        table = tables.hold(places, np.zeros((USED, RANK), np.float32))
        pieces: list[Piece] = [(part, len(part), partial(jnp.asarray, rows[part])) for part in parts]
        joined = tables.joined(table, pieces, (mixed[8000:], rows[mixed[8000:]]))
    assert np.array_equal(np.asarray(joined)[:USED], rows[:USED])
