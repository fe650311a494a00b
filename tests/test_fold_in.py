"""Folding in: one row solve, the same that training makes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import geo_mf as gm
from geo_mf.factorize.fold_in import FoldIn
from geo_mf.factorize.ials import Objective

RANK = 6


@st.composite
def systems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, Objective]:
    """The factors of a fixed side, a history in it (also empty, also longer than RANK), its weights, an objective."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    factors = rng.standard_normal((draw(st.integers(1, 30)), RANK)).astype(np.float32)
    history = rng.choice(len(factors), draw(st.integers(0, len(factors))), replace=False)
    weights = rng.choice([0.3, 1.0, 4.0], len(history)).astype(np.float32)
    a0, regularization = draw(st.sampled_from([0.001, 0.1])), draw(st.sampled_from([0.01, 1.0]))
    objective = Objective(a0, regularization, draw(st.floats(0, 2)))
    return factors, history, weights, objective


def textbook(
    factors: np.ndarray, history: np.ndarray, weights: np.ndarray, objective: Objective, prior: np.ndarray
) -> np.ndarray:
    """(a0 HᵀH + lam r I + Xᵀ C X) w = Xᵀ C 1 + lam r p, in float64, by a general solver."""
    x, c, h = factors[history].astype(float), weights.astype(float), factors.astype(float)
    a0 = objective.unobserved_weight
    ridge = objective.regularization * (len(history) + a0 * len(h)) ** objective.nu
    return np.linalg.solve(a0 * h.T @ h + ridge * np.eye(RANK) + (x.T * c) @ x, x.T @ c + ridge * prior)


def same(found: np.ndarray, wanted: np.ndarray) -> bool:
    return bool(np.abs(found - wanted).max(initial=0) <= 1e-4 * np.abs(wanted).max(initial=1e-6))


@given(system=systems())
def test_a_solve_is_the_textbook_s(system: tuple[np.ndarray, np.ndarray, np.ndarray, Objective]) -> None:
    factors, history, weights, objective = system
    solver = FoldIn.of(factors, objective)
    for prior in (None, np.arange(RANK, dtype=np.float32)):
        found = solver.solve(factors[history], weights, prior)
        wanted = textbook(*system, np.zeros(RANK) if prior is None else prior)
        assert found.dtype == np.float32
        assert same(found, wanted)


@given(system=systems())
def test_the_contributions_of_a_history_sum_to_the_score(
    system: tuple[np.ndarray, np.ndarray, np.ndarray, Objective],
) -> None:
    factors, history, weights, objective = system
    solver = FoldIn.of(factors, objective)
    parts = solver.contributions(factors[history], weights, factors)
    assert parts.shape == (len(history), len(factors))
    scores = factors @ solver.solve(factors[history], weights)
    assert same(parts.sum(axis=0), scores)


def test_an_item_that_agrees_contributes_and_one_that_disagrees_takes_away() -> None:
    factors = np.asarray([[1, 0], [1, 0], [-1, 0], [0, 1]], np.float32)
    parts = FoldIn.of(factors, Objective(0.01, 0.1, 0)).contributions(factors[:1], np.ones(1), factors[1:])[0]
    assert parts[0] > 0 > parts[1] == -parts[0]
    assert parts[2] == 0


@pytest.mark.parametrize("a0", [0.0, 0.1])
def test_an_empty_history_is_the_prior_or_nothing(a0: float) -> None:
    factors = np.eye(4, 3, dtype=np.float32)
    solver = FoldIn.of(factors, Objective(a0, 0.1, 1))
    prior = np.asarray([1, -2, 0.5], np.float32)
    assert not solver.solve(factors[:0], np.zeros(0)).any()
    pulled = solver.solve(factors[:0], np.zeros(0), prior)
    if a0 == 0:
        assert pulled == pytest.approx(prior)
    else:  # nobody touched it, which is weak evidence against it: D^-1 lam r p with D = a0 + lam r
        ridge = 0.1 * 4 * a0
        assert pulled == pytest.approx(prior * ridge / (a0 + ridge))
    assert solver.contributions(factors[:0], np.zeros(0), factors).shape == (0, 4)


@pytest.mark.parametrize("features", [False, True])
def test_a_training_history_gives_the_stored_factor(features: bool) -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((50, 30)) < np.outer(rng.uniform(0.02, 0.9, 50), np.ones(30))
    matrix = sparse.csr_array(mask * rng.choice([0.5, 1.0, 3.0], mask.shape))
    lengths = np.diff(matrix.indptr)
    assert lengths.min() < RANK <= lengths.max()
    given = rng.standard_normal((30, 4)) if features else None
    model = gm.IALS(RANK, iterations=3, solver="cholesky", random_state=0).fit(matrix, given)
    folded = model.recalculate_user(np.arange(50), matrix)
    assert same(folded, model.user_factors)
    alone = model.recalculate_user(7, matrix[[7]])
    assert alone.shape == (RANK,)
    assert np.array_equal(alone, folded[7])
