"""Text to factor: a weighted ridge regression, held against the textbook in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_mf.errors import InvalidInput
from geo_mf.geometry.prior import RidgePrior, apply


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Features (some rows zero), weights (some zero), factors, alpha."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    items, dim, rank = draw(st.integers(1, 30)), draw(st.integers(1, 8)), draw(st.integers(1, 4))
    features = rng.standard_normal((items, dim)).astype(np.float32) * (rng.random((items, 1)) < 0.8)
    weights = rng.choice([0.0, 0.5, 1.0, 20.0], items)
    factors = rng.standard_normal((items, rank)).astype(np.float32)
    return features.astype(np.float32), weights, factors, draw(st.sampled_from([0.1, 1.0, 30.0]))


def textbook(features: np.ndarray, weights: np.ndarray, factors: np.ndarray, alpha: float) -> np.ndarray:
    """argmin sum_i r_i |h_i - B [g_i; 1]|^2 + alpha rbar |B|^2, as one least-squares problem."""
    known = np.any(features != 0, axis=1) & (weights > 0)
    if not known.any():
        return np.zeros((features.shape[1] + 1, factors.shape[1]))
    design = np.c_[features, np.ones(len(features))][known].astype(float)
    root = np.sqrt(weights[known])[:, None]
    shrink = np.sqrt(alpha * weights[known].mean()) * np.eye(design.shape[1])
    shrink[-1] *= 1e-3  # the square of which is the trace that the constant keeps
    rows = np.concatenate([root * design, shrink])
    wanted = np.concatenate([root * factors[known], np.zeros((design.shape[1], factors.shape[1]))])
    return np.linalg.lstsq(rows, wanted, rcond=None)[0]


@given(problem=problems())
def test_the_regression_is_the_textbook_s(problem: tuple[np.ndarray, np.ndarray, np.ndarray, float]) -> None:
    features, weights, factors, alpha = problem
    prior = RidgePrior.of(features, weights, alpha)
    found, wanted = prior.fit(factors), textbook(*problem)
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() <= 1e-4 * max(1, np.abs(wanted).max())
    mean = weights[(weights > 0) & np.any(features != 0, axis=1)].mean() if wanted.any() else 0
    penalty = alpha * mean * (np.sum(wanted[:-1] ** 2) + 1e-6 * np.sum(wanted[-1] ** 2))
    assert prior.penalty(found) == pytest.approx(penalty, rel=1e-3, abs=1e-6)


@given(problem=problems())
def test_a_prediction_is_the_map_applied_and_zero_without_features(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray, float],
) -> None:
    features, weights, factors, alpha = problem
    prior = RidgePrior.of(features, weights, alpha)
    coefficients = prior.fit(factors)
    predicted = prior.predict(coefficients)
    known = np.any(features != 0, axis=1)
    assert not predicted[~known].any()
    assert np.allclose(predicted[known], features[known] @ coefficients[:-1] + coefficients[-1], atol=1e-4)
    applied = apply(coefficients, features)
    assert applied.dtype == np.float32
    assert np.allclose(applied, predicted, atol=1e-4)


def test_an_item_of_weight_zero_is_not_learned_from_but_is_predicted() -> None:
    features = np.asarray([[1.0], [2.0], [3.0]])
    factors = np.asarray([[1.0], [2.0], [-50.0]], np.float32)
    prior = RidgePrior.of(features, np.asarray([1.0, 1.0, 0.0]), 1e-6)
    assert prior.predict(prior.fit(factors))[2, 0] == pytest.approx(3, rel=1e-2)


def test_much_shrinkage_leaves_the_weighted_mean() -> None:
    features = np.asarray([[1.0], [-1.0]])
    factors = np.asarray([[1.0], [5.0]], np.float32)
    prior = RidgePrior.of(features, np.asarray([3.0, 1.0]), 1e4)
    assert prior.predict(prior.fit(factors))[:, 0] == pytest.approx([2, 2], rel=2e-2)


def test_features_of_very_different_sizes() -> None:
    rng = np.random.default_rng(0)
    features = np.c_[rng.integers(1900, 2020, 3000), rng.standard_normal(3000)].astype(np.float32)
    factors = (0.01 * (features[:, :1] - 1960) + features[:, 1:]).astype(np.float32)
    prior = RidgePrior.of(features, np.ones(3000), 1.0)
    assert np.abs(prior.predict(prior.fit(factors)) - factors).max() < 1e-2


@pytest.mark.parametrize(
    ("features", "weights", "alpha", "message"),
    [
        (np.ones((3, 2)), np.ones(4), 1.0, r"shape \(3, 2\) do not fit 4 items: .*\(4, dim\)"),
        (np.ones(3), np.ones(3), 1.0, "do not fit 3 items"),
        (np.asarray([[1.0], [np.nan]]), np.ones(2), 1.0, "row 1 is not"),
        (np.asarray([[np.inf], [1.0]]), np.ones(2), 1.0, "row 0 is not"),
        (np.ones((2, 1)), np.ones(2), 0.0, "must be positive, not 0"),
        (np.ones((2, 1)), np.ones(2), np.nan, "must be positive"),
        (np.full((2, 2), 1e9), np.ones(2), 1e-9, "too small for these item features"),
    ],
)
def test_bad_input(features: np.ndarray, weights: np.ndarray, alpha: float, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        RidgePrior.of(features, weights, alpha)
