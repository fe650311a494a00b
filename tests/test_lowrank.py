"""One matrix as two thinner ones: the best of its rank, for the inputs it gets, under one budget for all."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_mf.errors import InvalidInput
from geo_mf.text.lowrank import Shape, allocate, conditioned, directions


def moment(random: np.random.Generator, d: int, samples: int) -> np.ndarray:
    x = random.normal(size=(samples, d)) * random.uniform(0.1, 3, d)
    return x.T @ x / samples


def loss(weight: np.ndarray, product_of: np.ndarray, inputs: np.ndarray, outputs: np.ndarray | None) -> float:
    error = weight - product_of
    return float(np.trace((np.eye(len(weight)) if outputs is None else outputs) @ error @ inputs @ error.T))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32), st.booleans())
def test_the_loss_is_what_is_left_out_and_full_rank_is_exact(rows: int, columns: int, seed: int, both: bool) -> None:
    random = np.random.default_rng(seed)
    weight = random.normal(size=(rows, columns))
    inputs = conditioned(moment(random, columns, 40), 40)
    outputs = conditioned(moment(random, rows, 40), 40) if both else None
    found = directions(weight, inputs, outputs)
    full = min(rows, columns)
    left, right = found.factors(full)
    np.testing.assert_allclose(left @ right, weight, atol=1e-8)
    assert (np.diff(found.losses) <= 1e-9 * found.losses[0]).all()
    for rank in range(1, full + 1):
        left, right = found.factors(rank)
        assert left.shape == (rows, rank) and right.shape == (rank, columns)
        assert loss(weight, left @ right, inputs, outputs) == pytest.approx(found.losses[rank:].sum(), abs=1e-8)


def test_no_other_matrix_of_that_rank_loses_less() -> None:
    """Alternating least squares from 20 starts: what a search by hand finds is not better, and sometimes the same."""
    random = np.random.default_rng(0)
    weight, inputs = random.normal(size=(6, 8)), conditioned(moment(random, 8, 30), 30)
    left, right = directions(weight, inputs).factors(2)
    best = loss(weight, left @ right, inputs, None)
    tried = []
    for _ in range(20):
        a, b = np.zeros((6, 2)), random.normal(size=(2, 8))
        for _ in range(300):
            a = weight @ inputs @ b.T @ np.linalg.inv(b @ inputs @ b.T)
            b = np.linalg.inv(a.T @ a) @ a.T @ weight
        tried.append(loss(weight, a @ b, inputs, None))
    assert min(tried) == pytest.approx(best, rel=1e-6)
    u, s, vt = np.linalg.svd(weight)
    assert best < loss(weight, (u[:, :2] * s[:2]) @ vt[:2], inputs, None)


def test_both_factors_have_the_same_scale() -> None:
    left, right = directions(np.diag([100.0, 1.0, 0.0]), np.eye(3)).factors(3)
    np.testing.assert_allclose(np.linalg.norm(left, axis=0)[:2], np.linalg.norm(right, axis=1)[:2])
    assert np.isfinite(left).all() and np.isfinite(right).all()


def test_inputs_that_span_less_than_the_space_and_fewer_samples_than_dimensions() -> None:
    random = np.random.default_rng(1)
    weight = random.normal(size=(5, 12))
    x = random.normal(size=(3, 12))  # three inputs in twelve dimensions
    inputs = conditioned(x.T @ x / 3, 3)
    left, right = directions(weight, inputs).factors(3)
    # Rank 3 is all that three inputs show: they come out as they did.
    seen = np.linalg.norm(left @ right @ x.T - weight @ x.T) / np.linalg.norm(weight @ x.T)
    assert seen < 0.2
    left, right = directions(weight, inputs).factors(5)
    np.testing.assert_allclose(left @ right, weight, atol=1e-8)  # and no direction is lost where the rank allows it


def test_inputs_that_were_never_seen() -> None:
    np.testing.assert_array_equal(conditioned(np.zeros((3, 3)), 0), np.eye(3))
    assert np.linalg.matrix_rank(conditioned(np.diag([1.0, 0, 0]), 10)) == 3


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InvalidInput, match="weight of shape"):
        directions(np.full((2, 2), np.nan), np.eye(2))
    with pytest.raises(InvalidInput, match="outputs of shape"):
        directions(np.eye(2), np.eye(2), np.full((2, 2), np.inf))


def spent(ranks: list[int | None], shapes: list[Shape]) -> int:
    return sum(shape.dense if rank is None else rank * shape.each for rank, shape in zip(ranks, shapes, strict=True))


def left_over(ranks: list[int | None], losses: list[np.ndarray]) -> float:
    return sum(0.0 if rank is None else float(one[rank:].sum()) for rank, one in zip(ranks, losses, strict=True))


def every(losses: list[np.ndarray], shapes: list[Shape], budget: int) -> float:
    """The least loss within a budget, by trying all."""
    options = [[*range(1, shape.most + 1), None] for shape in shapes]
    fitting = [ranks for ranks in product(*options) if spent(list(ranks), shapes) <= budget]
    return min(left_over(list(ranks), losses) for ranks in fitting)


@given(st.integers(0, 2**32))
def test_ranks_of_equal_layers_are_the_best_there_are(seed: int) -> None:
    """With one price a step and no layer that pays to leave whole, greedy is optimal."""
    random = np.random.default_rng(seed)
    shapes = [Shape(6, 6)] * 3
    # Falling to almost nothing, so that the step to a whole layer is not worth its price.
    losses = [np.sort(random.uniform(1, 2, 6) * 0.01 ** np.arange(6))[::-1] for _ in shapes]
    budget = int(random.integers(48, 109))
    found = allocate(losses, shapes, budget)
    assert spent(found, shapes) <= budget
    # A last step that does not fit is the only thing greedy can be behind by.
    assert left_over(found, losses) <= every(losses, shapes, budget - 12) + 1e-12
    if budget % 12 == 0:
        assert left_over(found, losses) == pytest.approx(every(losses, shapes, budget))


@given(st.integers(0, 2**32))
def test_ranks_of_any_layers_are_near_the_best(seed: int) -> None:
    random = np.random.default_rng(seed)
    shapes = [Shape(*random.integers(3, 9, 2).tolist()) for _ in range(3)]
    losses = [np.sort(random.exponential(size=min(s.rows, s.columns)) ** 2)[::-1] for s in shapes]
    least, most = sum(min(s.each, s.dense) for s in shapes), sum(s.dense for s in shapes)
    budget = int(random.integers(least, most + 1))
    found = allocate(losses, shapes, budget)
    assert spent(found, shapes) <= budget
    largest = max(s.dense for s in shapes)
    assert left_over(found, losses) >= every(losses, shapes, budget) - 1e-9
    if budget - largest >= least:
        assert left_over(found, losses) <= every(losses, shapes, budget - largest) + 1e-9


@given(st.integers(0, 2**32), st.integers(1, 8), st.floats(0, 1))
def test_no_layer_grows(seed: int, step: int, share: float) -> None:
    random = np.random.default_rng(seed)
    shapes = [Shape(*random.integers(1, 40, 2).tolist()) for _ in range(4)]
    losses = [np.sort(random.exponential(size=min(s.rows, s.columns)))[::-1] for s in shapes]
    budget = int(sum(s.dense for s in shapes) * share)
    try:
        found = allocate(losses, shapes, budget, step)
    except InvalidInput:
        return
    for rank, shape in zip(found, shapes, strict=True):
        assert rank is None or rank * shape.each < shape.dense
    assert spent(found, shapes) <= budget


def test_a_whole_budget_leaves_everything_whole_and_a_useless_layer_gets_least() -> None:
    shapes = [Shape(10, 10), Shape(10, 10)]
    losses = [np.linspace(2, 1, 10), np.zeros(10)]
    assert allocate(losses, shapes, 200) == [None, 1]
    assert allocate([losses[0]] * 2, shapes, 200) == [None, None]


def test_too_small_a_budget_is_named() -> None:
    with pytest.raises(InvalidInput, match="39 numbers are too few for 2 layers: the least they need is 40"):
        allocate([np.ones(10)] * 2, [Shape(10, 10)] * 2, 39)
    assert allocate([np.ones(10)] * 2, [Shape(10, 10)] * 2, 40) == [1, 1]
