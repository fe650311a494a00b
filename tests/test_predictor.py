"""Features to factors: a linear map or a curved one, held against the objective as documented, in float64."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_mf.errors import InvalidInput
from geo_mf.geometry import predictor
from geo_mf.geometry.features import Filling
from geo_mf.geometry.predictor import JITTER, Predictor, Shape
from geo_mf.geometry.prior import RidgePrior, apply

Problem = tuple[np.ndarray, np.ndarray, np.ndarray]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Features (some rows zero), factors, weights (some zero); at least one item is of use."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    items, dim, rank = draw(st.integers(1, 30)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    features = rng.standard_normal((items, dim)) * (rng.random((items, 1)) < 0.8)
    weights = rng.choice([0.0, 0.5, 1.0, 20.0], items)
    features[0], weights[0] = 1, 1
    return features.astype(np.float32), rng.standard_normal((items, rank)).astype(np.float32), weights


def fresh(dim: int, n: int = 20) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((n, dim)).astype(np.float32)


def dense(problem: Problem, shape: Shape, asked: np.ndarray) -> np.ndarray:
    """Predictions by argmin sum_i r_i |h_i - Cᵀ k_i - c|^2 + alpha rbar tr(Cᵀ K C), every item of use a landmark, as
    one least-squares problem."""
    known = np.any(problem[0] != 0, axis=1) & (problem[2] > 0)
    x, h, r = (part[known].astype(float) for part in problem)
    bandwidth = shape.gamma / np.mean(np.sum(x**2, axis=1))

    def kernel(points: np.ndarray) -> np.ndarray:
        return np.exp(-bandwidth / 2 * np.sum((points[:, None] - x[None]) ** 2, axis=2))

    n, root = len(x), np.sqrt(r)[:, None]
    design = np.c_[kernel(x), np.ones(n)]
    shrink = np.zeros((n + 1, n + 1))
    strength = shape.alpha * r.mean()
    shrink[:n, :n] = np.sqrt(strength) * np.linalg.cholesky(kernel(x) + JITTER * np.eye(n)).T
    shrink[n, n] = np.sqrt(1e-6 * strength)  # the trace that the constant keeps
    rows, wanted = np.concatenate([root * design, shrink]), np.concatenate([root * h, np.zeros((n + 1, h.shape[1]))])
    solved = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    return kernel(asked.astype(float)) @ solved[:n] + solved[n]


# --- what a map is -----------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(problem=problems(), alpha=st.sampled_from([0.1, 1.0, 30.0]))
def test_without_curvature_it_is_the_ridge_regression(problem: Problem, alpha: float) -> None:
    features, factors, weights = problem
    found = Predictor.fit(features, factors, weights, Shape(0.0, alpha), seed=3)
    usable = (weights > 0) & features.any(axis=1)
    ridge = RidgePrior.of(features[usable], weights[usable], alpha).fit(factors[usable])
    assert np.array_equal(found.coefficients, ridge)
    assert found.landmarks.shape == (0, features.shape[1])
    assert (found.bandwidth, found.shape) == (0.0, Shape(0.0, alpha))
    asked = fresh(features.shape[1])
    assert found(asked) == pytest.approx(apply(ridge, asked), abs=1e-6)


@settings(max_examples=40)
@given(problem=problems(), gamma=st.sampled_from([0.1, 0.5, 2.0]), alpha=st.sampled_from([0.01, 0.3, 3.0]))
def test_a_curved_map_is_the_minimum_of_its_objective(problem: Problem, gamma: float, alpha: float) -> None:
    shape = Shape(gamma, alpha)
    found = Predictor.fit(*problem, shape, seed=0)
    asked = np.concatenate([problem[0][:1], fresh(problem[0].shape[1])])
    wanted = dense(problem, shape, asked)
    assert found.shape == shape
    assert found.landmarks.dtype == found.coefficients.dtype == np.float32
    assert np.abs(found(asked) - wanted).max() <= 2e-3 * max(1, np.abs(wanted).max())


def test_the_kernel_by_hand() -> None:
    # Two items at -1 and 1, so s = 1; with gamma 2, k(g)_j = exp(-(g - l_j)^2).
    found = Predictor.fit(
        np.asarray([[-1.0], [1.0]], np.float32), np.zeros((2, 1), np.float32), np.ones(2), Shape(2.0, 1.0), seed=0
    )
    assert found.landmarks.tolist() == [[-1], [1]]
    assert found.bandwidth == 2.0
    by_hand = replace(found, coefficients=np.asarray([[10], [1], [0.5]], np.float32))
    wanted = [10 * np.exp(-4) + 1 + 0.5, 10 * np.exp(-0.25) + np.exp(-2.25) + 0.5]
    assert by_hand(np.asarray([[1.0], [-0.5]]))[:, 0] == pytest.approx(wanted, rel=1e-6)


def test_much_shrinkage_leaves_the_weighted_mean() -> None:
    features = np.asarray([[1.0], [-1.0]], np.float32)
    factors = np.asarray([[1.0], [5.0]], np.float32)
    found = Predictor.fit(features, factors, np.asarray([3.0, 1.0]), Shape(0.5, 1e4), seed=0)
    assert found(features)[:, 0] == pytest.approx([2, 2], rel=2e-2)


def test_a_curved_map_learns_a_product_of_features_and_a_linear_one_cannot() -> None:
    rng = np.random.default_rng(0)
    features = rng.choice([-1.0, 1.0], (600, 4)).astype(np.float32) + 0.1 * rng.standard_normal((600, 4)).astype("f4")
    factors = (features[:, :1] * features[:, 1:2]).astype(np.float32)
    learned_from, weights = np.arange(600) < 300, np.ones(600)
    errors = []
    for shape in (Shape(0.0, 0.1), Shape(0.5, 0.1)):
        found = Predictor.fit(features, factors, weights * learned_from, shape, seed=0)
        errors.append(np.mean((found(features) - factors)[~learned_from] ** 2) / factors.var())
    assert errors[0] > 0.9
    assert errors[1] < 0.1


@settings(max_examples=30)
@given(problem=problems(), gamma=st.sampled_from([0.0, 0.5]))
def test_no_features_no_factor(problem: Problem, gamma: float) -> None:
    found = Predictor.fit(*problem, Shape(gamma, 1.0), seed=0)
    asked = np.concatenate([problem[0], np.zeros((2, problem[0].shape[1]), np.float32)])
    predicted, known = found(asked), np.any(asked != 0, axis=1)
    assert predicted.dtype == np.float32
    assert predicted.shape == (len(asked), problem[1].shape[1])
    assert not predicted[~known].any()
    # Each row by itself; none at all is no trouble.
    assert predicted[known] == pytest.approx(np.concatenate([found(row[None]) for row in asked[known]]), abs=1e-5)
    assert found(asked[:0]).shape == (0, problem[1].shape[1])


@settings(max_examples=30)
@given(problem=problems(), gamma=st.sampled_from([0.0, 0.5]))
def test_what_is_zero_or_weightless_teaches_nothing(problem: Problem, gamma: float) -> None:
    features, factors, weights = problem
    usable = (weights > 0) & features.any(axis=1)
    changed = np.where(usable[:, None], factors, np.float32(1e6))
    shape, asked = Shape(gamma, 1.0), fresh(features.shape[1])
    assert np.array_equal(
        Predictor.fit(features, changed, weights, shape, 0)(asked), Predictor.fit(*problem, shape, 0)(asked)
    )


@settings(max_examples=30)
@given(problem=problems(), gamma=st.sampled_from([0.0, 0.5]), seed=st.integers(0, 2**32 - 1))
def test_predictions_turn_with_the_space(problem: Problem, gamma: float, seed: int) -> None:
    rank = problem[1].shape[1]
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((rank, rank)))[0]
    found = Predictor.fit(*problem, Shape(gamma, 1.0), seed=0)
    asked, turned = fresh(problem[0].shape[1]), found.rotated(turn)
    scale = max(1.0, float(np.abs(found.coefficients).max()))
    assert turned(asked) == pytest.approx(found(asked) @ turn, abs=1e-4 * scale)
    assert (turned.shape, turned.bandwidth) == (found.shape, found.bandwidth)
    assert np.array_equal(turned.landmarks, found.landmarks)
    # The same as fitting to factors that were turned before.
    again = Predictor.fit(problem[0], (problem[1] @ turn).astype(np.float32), problem[2], Shape(gamma, 1.0), seed=0)
    assert turned(asked) == pytest.approx(again(asked), abs=1e-3 * scale)


@settings(max_examples=20)
@given(problem=problems(), gamma=st.sampled_from([0.0, 0.5]))
def test_several_strengths_at_once_are_one_after_the_other(problem: Problem, gamma: float) -> None:
    alphas = (3.0, 0.01, 0.3)
    found = Predictor.fits(*problem, gamma, alphas, 5)
    assert [each.shape for each in found] == [Shape(gamma, alpha) for alpha in alphas]
    for each in found:
        alone = Predictor.fit(*problem, each.shape, 5)
        assert np.array_equal(each.coefficients, alone.coefficients)
        assert np.array_equal(each.landmarks, alone.landmarks)


# --- what may not break it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_items_that_are_all_alike_get_their_mean(gamma: float) -> None:
    features = np.full((300, 4), 0.5, np.float32)
    factors = np.random.default_rng(0).standard_normal((300, 2)).astype(np.float32)
    found = Predictor.fit(features, factors, np.ones(300), Shape(gamma, 0.01), seed=0)
    assert found(features[:1])[0] == pytest.approx(factors.mean(axis=0), abs=1e-3)
    assert np.isfinite(found(-features)).all()


def test_items_that_are_nearly_alike() -> None:
    # Unit rows 0.002 apart from each other: the rounding of a kernel in float32 must not reach the factorization.
    rng = np.random.default_rng(0)
    features = np.eye(1, 64) + 2e-4 * rng.standard_normal((1500, 64))
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    factors = rng.standard_normal((1500, 2)).astype(np.float32)
    found = Predictor.fit(features, factors, np.ones(1500), Shape(0.5, 1.0), seed=0)
    assert found(features).mean(axis=0) == pytest.approx(factors.mean(axis=0), abs=1e-2)


def test_a_single_item_is_given_back() -> None:
    for gamma in (0.0, 0.5):
        found = Predictor.fit(
            np.ones((1, 2), np.float32), np.full((1, 3), 7, np.float32), np.ones(1), Shape(gamma, 1.0), seed=0
        )
        assert found(np.ones((1, 2), np.float32)) == pytest.approx(np.full((1, 3), 7.0), rel=1e-3)


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_a_large_catalogue_is_sampled(gamma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((200, 3)).astype(np.float32)
    features[:20] = 0
    factors = features @ rng.standard_normal((3, 2)).astype(np.float32)
    monkeypatch.setattr(predictor, "LEARNED_FROM", 50)
    found = Predictor.fit(features, factors, np.ones(200), Shape(gamma, 0.01), seed=0)
    assert np.array_equal(
        found.coefficients, Predictor.fit(features, factors, np.ones(200), Shape(gamma, 0.01), 0).coefficients
    ), "the same sample each time"
    other = Predictor.fit(features, factors, np.ones(200), Shape(gamma, 0.01), seed=1)
    assert not np.array_equal(found.coefficients, other.coefficients)
    if gamma:
        assert len(np.unique(found.landmarks, axis=0)) == 50, "the sample are the landmarks, each once, none without"
        assert found.landmarks.any(axis=1).all()
    else:
        assert found(features[20:]) == pytest.approx(factors[20:], abs=1e-2)


def test_there_are_no_more_landmarks_than_allowed_and_all_items_teach(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((400, 2)).astype(np.float32)
    factors = np.sin(features[:, :1])
    monkeypatch.setattr(predictor, "LANDMARKS", 40)
    monkeypatch.setattr(predictor, "ROWS", 64)
    found = Predictor.fit(features, factors, np.ones(400), Shape(0.5, 0.01), seed=0)
    assert found.landmarks.shape == (40, 2)
    assert np.isin(found.landmarks[:, 0], features[:, 0]).all()
    assert np.mean((found(features) - factors) ** 2) < 0.01 * factors.var()
    # Items beyond the landmarks count: with their factors changed, the map is another one.
    others = ~np.isin(features[:, 0], found.landmarks[:, 0])
    moved = Predictor.fit(features, factors + others[:, None].astype("f4"), np.ones(400), Shape(0.5, 0.01), seed=0)
    assert (moved(features) - found(features)).mean() > 0.5


@pytest.mark.parametrize("gamma", [0.0, 0.5])
@pytest.mark.parametrize(
    ("features", "weights"), [(np.ones((3, 2)), np.zeros(3)), (np.zeros((3, 2)), np.ones(3)), (np.eye(2), [0.0, 0.0])]
)
def test_nothing_to_learn_from(gamma: float, features: np.ndarray, weights: np.ndarray) -> None:
    factors = np.ones((len(features), 1), np.float32)
    with pytest.raises(InvalidInput, match="no item has both features and interactions"):
        Predictor.fit(features.astype(np.float32), factors, np.asarray(weights), Shape(gamma, 1.0), seed=0)


# --- what stands for a missing part ------------------------------------------------------------------------------

EMBEDDINGS = np.asarray([[1, 0], [0, 1], [0, 0], [0, 0], [1, 0]], np.float32)
BLOCKS = np.asarray([[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]], np.float32)


def test_a_missing_part_stands_at_the_mean_and_a_missing_item_nowhere() -> None:
    filling = Filling.of(EMBEDDINGS, BLOCKS)
    text, attributes = [2 / 3, 1 / 3], [1 / 3, 1 / 3, 1 / 3]
    assert filling.text == pytest.approx(text)
    assert filling.attributes == pytest.approx(attributes)
    found = filling.features(EMBEDDINGS, BLOCKS)
    wanted = [[1, 0, 1, 0, 0], [0, 1, *attributes], [*text, 0, 1, 0], [0] * 5, [1, 0, 0, 0, 1]]
    assert found.dtype == np.float32
    assert found == pytest.approx(np.asarray(wanted))


def test_later_items_are_filled_with_the_means_of_the_build() -> None:
    filling = Filling.of(EMBEDDINGS, BLOCKS)
    found = filling.features(np.zeros((1, 2), np.float32), np.asarray([[0, 0, 1]], np.float32))
    assert found[0] == pytest.approx([2 / 3, 1 / 3, 0, 0, 1])


def test_without_attributes_the_features_are_the_embeddings() -> None:
    none = np.zeros((5, 0), np.float32)
    assert np.array_equal(Filling.of(EMBEDDINGS, none).features(EMBEDDINGS, none), EMBEDDINGS)


def test_where_nothing_is_known_the_mean_is_zero() -> None:
    filling = Filling.of(np.zeros((2, 3), np.float32), np.asarray([[1, 0], [0, 0]], np.float32))
    assert filling.text.tolist() == [0, 0, 0]
    assert filling.features(np.zeros((1, 3), np.float32), np.asarray([[0, 1]], np.float32)).tolist() == [
        [0, 0, 0, 0, 1]
    ]
