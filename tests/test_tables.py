"""Tables on the host and on a device: one contract. A CPU is a device too, so both run here."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geo_mf.factorize.histories import Places
from geo_mf.factorize.tables import DeviceTables, HostTables, Tables

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
    assert not np.asarray(held)[USED].any(), "what pads a history points at a row of zeros"
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
    assert not np.asarray(turned)[USED].any()


def test_pieces_are_joined_where_they_belong(tables: Tables, rows: np.ndarray, places: Places) -> None:
    def piece(start: int, count: int) -> tuple[int, int, Callable[[], jax.Array]]:
        spare = np.concatenate([rows[start : start + count], np.full((3, RANK), np.nan, np.float32)])
        return start, count, lambda: jnp.asarray(spare)

    starts = [0, 4000, 4001]
    pieces = [piece(start, stop - start) for start, stop in zip(starts, [*starts[1:], 8000], strict=True)]
    table = tables.hold(places, np.zeros((USED, RANK), np.float32))
    joined = tables.joined(table, pieces, (8000, rows[8000:USED]))
    assert joined.shape == (CAPACITY, RANK)
    assert np.array_equal(np.asarray(joined)[:USED], rows[:USED])
