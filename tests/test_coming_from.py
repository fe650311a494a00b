"""docs/coming_from.md is true: its Python runs, its methods exist, its formulas turn one fit into the other."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from threadpoolctl import threadpool_limits

import geo_mf as gm

PAGE = Path(gm.__file__).parent.parent / "docs" / "coming_from.md"
TEXT = PAGE.read_text(encoding="utf-8")
USERS, ITEMS, RANK = 60, 45, 6

SIGNATURES = {
    "recommend": "userid user_items N filter_already_liked_items filter_items recalculate_user items",
    "similar_items": "itemid N recalculate_item item_users filter_items items",
    "similar_users": "userid N filter_users users",
    "explain": "userid user_items itemid user_weights N",
    "recalculate_user": "userid user_items",
    "recalculate_item": "itemid item_users",
    "partial_fit_users": "userids user_items",
    "partial_fit_items": "itemids item_users",
}
MORE = {
    "similar_items": "item_features",
    "recalculate_item": "item_features",
    "partial_fit_items": "item_features",
    "recommend": "user_features",
    "recalculate_user": "user_features",
    "partial_fit_users": "user_features",
}


def arguments(method: Any) -> list[str]:
    return [name for name in inspect.signature(method).parameters if name != "self"]


def implicit_als() -> Any:
    """`implicit`'s estimator, where it is installed."""
    als = pytest.importorskip("implicit.cpu.als", reason="implicit is not installed (the extra `bench` brings it)")
    return als.AlternatingLeastSquares


@pytest.fixture(scope="module")
def clicks() -> sparse.csr_array:
    return sparse.csr_array((np.random.default_rng(1).random((USERS, ITEMS)) < 0.2).astype(np.float32))


def start(seed: int) -> np.ndarray:
    """The user factors that IALS starts from."""
    return np.random.default_rng(seed).standard_normal((USERS, RANK), np.float32) * np.float32(0.1 / np.sqrt(RANK))


def closed_form(confidences: np.ndarray, fixed: np.ndarray, regularization: np.ndarray) -> np.ndarray:
    """Hu, Koren and Volinsky's row solves, in float64: confidences [rows, n], 0 for "not seen"; fixed [n, K]."""
    solved = []
    for c, ridge in zip(confidences.astype(float), regularization, strict=True):
        observed = (c > 0).astype(float)
        weight = np.where(observed, c, 1)
        matrix = (fixed.T * weight) @ fixed + ridge * np.eye(fixed.shape[1])
        solved.append(np.linalg.solve(matrix, fixed.T @ (weight * observed)))
    return np.asarray(solved)


def epochs(confidences: np.ndarray, users: np.ndarray, regularization: float, count: int) -> np.ndarray:
    """Scores [users, items] after `count` epochs, items first."""
    items = np.zeros((0, RANK))
    for _ in range(count):
        items = closed_form(confidences.T, users, np.full(ITEMS, regularization))
        users = closed_form(confidences, items, np.full(USERS, regularization))
    return users @ items.T


@pytest.mark.parametrize("c", [1.5, 7.0, 40.0])
@pytest.mark.parametrize("count", [1, 3])
def test_equal_confidences_convert_exactly(clicks: sparse.csr_array, c: float, count: int) -> None:
    regularization, t = 0.3, (c - 1) / c
    model = gm.IALS(RANK, regularization / c, 1 / (c - 1), count, nu=0, solver="cholesky", random_state=0).fit(clicks)
    wanted = epochs(c * clicks.toarray(), start(0).astype(float) / np.sqrt(t), regularization, count)
    assert np.abs(model.user_factors @ model.item_factors.T - t * wanted).max() < 1e-4 * np.abs(wanted).max()


def test_only_the_ratio_of_weights_to_the_unobserved_one_counts(clicks: sparse.csr_array) -> None:
    plain = gm.IALS(RANK, 0.01, 0.1, 3, nu=0, solver="cholesky", random_state=0).fit(clicks)
    tenfold = gm.IALS(RANK, 0.1, 1.0, 3, nu=0, solver="cholesky", random_state=0).fit(10 * clicks)
    scores = plain.user_factors @ plain.item_factors.T
    assert np.abs(scores - tenfold.user_factors @ tenfold.item_factors.T).max() < 1e-4 * np.abs(scores).max()


def test_equal_confidences_give_the_scores_of_implicit_itself(clicks: sparse.csr_array) -> None:
    make = implicit_als()
    c, regularization = 7.0, 0.3
    t = (c - 1) / c
    with threadpool_limits(1, "blas"):
        # Turned round, for implicit solves the rows of its matrix first and IALS the items.
        theirs = make(
            RANK, regularization, alpha=c, use_cg=False, iterations=3, num_threads=1, calculate_training_loss=False
        )
        theirs.user_factors = np.zeros((ITEMS, RANK), np.float32)
        theirs.item_factors = start(0) / np.float32(np.sqrt(t))
        theirs.fit(sparse.csr_matrix(clicks.T), show_progress=False)
    model = gm.IALS(RANK, regularization / c, 1 / (c - 1), 3, nu=0, solver="cholesky", random_state=0).fit(clicks)
    scores = theirs.item_factors @ theirs.user_factors.T
    assert np.abs(model.user_factors @ model.item_factors.T - t * scores).max() < 1e-4 * np.abs(scores).max()


def test_explanations_are_those_of_implicit(clicks: sparse.csr_array) -> None:
    make = implicit_als()
    c, regularization = 7.0, 0.3
    t = (c - 1) / c
    model = gm.IALS(RANK, regularization / c, 1 / (c - 1), 3, nu=0, solver="cholesky", random_state=0).fit(clicks)
    with threadpool_limits(1, "blas"):
        theirs = make(RANK, regularization, alpha=c, use_cg=False, num_threads=1)
    theirs.item_factors = model.item_factors / np.float32(np.sqrt(t))
    score, parts, _ = theirs.explain(4, sparse.csr_matrix(clicks), 11, N=3)
    found, ours, _ = model.explain(4, clicks, 11, N=3)
    assert found == pytest.approx(t * score, abs=1e-5)
    assert [item for item, _ in ours] == [item for item, _ in parts]
    assert [share for _, share in ours] == pytest.approx([t * share for _, share in parts], abs=1e-5)


def test_unequal_confidences_give_the_same_matrix_and_nearly_the_same_right_side(clicks: sparse.csr_array) -> None:
    rng = np.random.default_rng(2)
    confidences = clicks.toarray() * rng.uniform(20, 40, clicks.shape)
    mean, regularization = confidences[confidences > 0].mean(), 0.3
    t = (mean - 1) / mean
    weights = np.where(confidences > 0, (confidences - 1) / (mean - 1), 0)
    model = gm.IALS(RANK, regularization / mean, 1 / (mean - 1), 3, nu=0, solver="cholesky", random_state=0)
    model.fit(sparse.csr_array(weights))
    wanted = epochs(confidences, start(0).astype(float) / np.sqrt(t), regularization, 3)
    error = np.abs(model.user_factors @ model.item_factors.T - t * wanted).max() / np.abs(wanted).max()
    assert 1e-4 < error < 0.05


def test_spark_s_equation_converts_up_to_the_stronger_hold_on_short_histories(clicks: sparse.csr_array) -> None:
    """A user's row solve against the same items: with regParam (n + a0 m) in place of regParam n it is exact."""
    alpha, value, regularization = 3.0, 2.0, 0.05
    c = 1 + alpha * value
    t = (c - 1) / c
    model = gm.IALS(RANK, regularization / c, 1 / (alpha * value), 2, nu=1, random_state=0).fit(clicks)
    items = model.item_factors.astype(float) / np.sqrt(t)
    lengths = clicks.toarray().sum(axis=1)
    confidences = c * clicks.toarray()
    scores = model.recalculate_user(np.arange(USERS), clicks) @ model.item_factors.T
    same = closed_form(confidences, items, regularization * (lengths + ITEMS / (alpha * value))) @ items.T
    assert np.abs(scores - t * same).max() < 1e-4 * np.abs(scores).max()
    spark = closed_form(confidences, items, regularization * lengths) @ items.T
    assert np.abs(scores - t * spark).max() < 0.2 * np.abs(scores).max()


@pytest.mark.parametrize("method", SIGNATURES)
def test_arguments_have_the_names_and_the_order_of_implicit(method: str) -> None:
    names = arguments(getattr(gm.IALS, method))
    assert names == [*SIGNATURES[method].split(), *MORE.get(method, "").split()]


@pytest.mark.parametrize("method", SIGNATURES)
def test_implicit_still_has_these_arguments(method: str) -> None:
    assert arguments(getattr(implicit_als(), method)) == SIGNATURES[method].split()


def test_methods_of_the_page_exist() -> None:
    section = TEXT[TEXT.index("### Methods") : TEXT.index("### Different")]
    rows = [row.split("|")[2] for row in section.splitlines() if row.startswith("| ") and "geo_mf" not in row]
    named = {name for cell in rows for name in re.findall(r"`(\w+)[`(]", cell)} - {
        "item_features",
        "user_features",
        "item_vectors",
    }
    assert len(named) >= 12
    assert {name for name in named if not callable(getattr(gm.IALS, name, None))} == set()
    assert set(SIGNATURES) <= named


def test_the_page_s_python_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        run = subprocess.run([sys.executable, "-W", "error", "-c", block], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-2000:]
        assert run.stdout.strip()
