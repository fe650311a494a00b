"""Lifted rows are as far from a lifted query as their inner product is small."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_mf.index.lift import PADDED_TO, QUERY_LENGTH, Lift


@st.composite
def spaces(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.random.Generator]:
    """Rows and queries of any length, and perhaps a basis."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, dim = draw(st.integers(1, 60)), draw(st.integers(1, 20))
    rows = rng.standard_normal((n, dim)) * np.exp(rng.standard_normal((n, 1)))
    queries = rng.standard_normal((7, dim)) * 10.0 ** rng.uniform(-20, 20, (7, 1))
    rows *= 10.0 ** draw(st.integers(-30, 30))
    basis = None
    if draw(st.booleans()):
        basis = np.linalg.qr(rng.standard_normal((dim, dim)))[0][:, : draw(st.integers(1, dim))].astype(np.float32)
    return rows.astype(np.float32), queries.astype(np.float32), basis, rng


def squared_distances(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.square(queries[:, None].astype(np.float64) - rows.astype(np.float64)).sum(axis=2)


@given(space=spaces())
def test_distances_are_what_the_transformation_says(
    space: tuple[np.ndarray, np.ndarray, np.ndarray | None, np.random.Generator],
) -> None:
    rows, queries, basis, _ = space
    lift = Lift.of(rows, basis)
    up, asked = lift.rows(rows), lift.queries(queries)
    assert up.dtype == asked.dtype == np.float32
    assert up.shape[1] == asked.shape[1] == lift.width(rows.shape[1])
    assert up.shape[1] % PADDED_TO == 0
    flat, ask = (
        a.astype(np.float64) if basis is None else a.astype(np.float64) @ basis.astype(np.float64)
        for a in (rows, queries)
    )
    assert lift.length == pytest.approx(np.linalg.norm(flat, axis=1).max(), rel=1e-5)
    np.testing.assert_allclose(np.linalg.norm(up.astype(np.float64), axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(asked.astype(np.float64), axis=1), QUERY_LENGTH, rtol=1e-5)
    scale = QUERY_LENGTH / np.linalg.norm(ask, axis=1)[:, None]
    want = QUERY_LENGTH**2 + 1 - 2 * scale * (ask @ (flat / lift.length).T)
    np.testing.assert_allclose(squared_distances(asked, up), want, atol=1e-4)


@given(space=spaces())
def test_the_nearest_row_has_the_largest_inner_product(
    space: tuple[np.ndarray, np.ndarray, np.ndarray | None, np.random.Generator],
) -> None:
    rows, queries, _, _ = space
    lift = Lift.of(rows)
    distances = squared_distances(lift.queries(queries), lift.rows(rows))
    scores = queries.astype(np.float64) @ rows.astype(np.float64).T
    best = np.take_along_axis(scores, np.argmin(distances, axis=1)[:, None], axis=1)[:, 0]
    slack = 1e-5 * np.linalg.norm(queries.astype(np.float64), axis=1) * lift.length
    assert (best >= scores.max(axis=1) - slack).all()


def test_a_rotation_changes_no_distance() -> None:
    rng = np.random.default_rng(0)
    rows, queries = (rng.standard_normal((n, 10)).astype(np.float32) for n in (50, 8))
    turn = np.linalg.qr(rng.standard_normal((10, 10)))[0].astype(np.float32)
    plain, turned = Lift.of(rows), Lift.of(rows, turn)
    want = squared_distances(plain.queries(queries), plain.rows(rows))
    np.testing.assert_allclose(squared_distances(turned.queries(queries), turned.rows(rows)), want, atol=1e-5)


def test_by_hand() -> None:
    lift = Lift.of(np.array([[3, 4], [0, 0]], np.float32))
    assert lift.length == 5
    assert lift.rows(np.array([[3, 4], [0, 0], [0, 4]], np.float32))[:, :3].tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8), pytest.approx(0, abs=1e-3)],
        [0, 0, 1],
        [0, pytest.approx(0.8), pytest.approx(0.6)],
    ]
    assert lift.queries(np.array([[0, 2], [0, 0]], np.float32))[:, :3].tolist() == [[0, QUERY_LENGTH, 0], [0, 0, 0]]


def test_odd_rows_stay_finite() -> None:
    for rows in (np.zeros((3, 4)), np.zeros((0, 4)), np.full((2, 4), 1e-45), np.full((2, 4), 4e37)):
        rows = rows.astype(np.float32)
        lift = Lift.of(rows)
        assert lift.length > 0
        assert np.isfinite(lift.rows(rows)).all()
        assert np.isfinite(lift.queries(rows)).all()
    # Rows that came later may be longer than M: they end outside the sphere, and stay finite too.
    assert Lift(None, 1.0).rows(np.array([[2, 0]], np.float32))[0, :3].tolist() == [2, 0, 0]


@pytest.mark.parametrize(("dim", "basis", "width"), [(7, None, 8), (8, None, 16), (128, None, 136), (20, 7, 8)])
def test_columns_come_in_eights(dim: int, basis: int | None, width: int) -> None:
    assert Lift(None if basis is None else np.eye(dim, basis, dtype=np.float32), 1.0).width(dim) == width
