"""Balanced weights: the formula, their mean, and one rule for training and for folding in."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import geo_mf as gm
from geo_mf.factorize.balance import Balance


@st.composite
def matrices(draw: st.DrawFn) -> sparse.csr_array:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    weights = (rng.random(shape) < draw(st.floats(0.1, 1))) * rng.choice([0.5, 1, 3], shape)
    weights[0, 0] = 1
    return sparse.csr_array(weights.astype(np.float32))


@given(matrix=matrices(), p=st.floats(0, 1), q=st.floats(0, 1))
def test_the_formula_with_a_mean_of_one(matrix: sparse.csr_array, p: float, q: float) -> None:
    balance, dense = Balance.of(matrix, p, q), matrix.toarray().astype(float)
    touched = dense > 0
    users, items = (np.maximum(touched.sum(axis=axis), 1.0) for axis in (1, 0))
    factors = users[:, None] ** -p * items[None] ** -q
    wanted = dense * factors / factors[touched].mean()
    assert balance.user_rows(matrix).toarray() == pytest.approx(wanted, rel=1e-4)
    by_item = balance.item_rows(sparse.csr_array(matrix.T)).toarray()
    assert by_item.T == pytest.approx(wanted, rel=1e-4), "both sides weigh a pair alike"
    first = matrix.indices[: matrix.indptr[1]]
    alone = balance.of_user(first, matrix.data[: len(first)])
    assert alone == pytest.approx(wanted[0, first], rel=1e-4), "one user's history as the whole matrix"


@given(matrix=matrices())
def test_without_discounts_the_weights_are_the_caller_s(matrix: sparse.csr_array) -> None:
    balance = Balance.of(matrix, 0, 0)
    assert balance.user_rows(matrix) is matrix
    amounts = np.arange(len(matrix.indices[:3]) + 1)
    assert balance.of_user(matrix.indices[:3], amounts) is amounts


def test_a_text_counts_as_an_average_item() -> None:
    matrix = sparse.csr_array(np.asarray([[1, 1, 1], [1, 0, 0], [1, 0, 0]], np.float32))
    balance = Balance.of(matrix, 0.0, 1.0)  # counts 3, 1, 1: five interactions, mean of their inverses 3/5
    assert balance.of_user(np.asarray([0, 1]), np.ones(3)) == pytest.approx([5 / 9, 5 / 3, 1.0])


RAGGED = sparse.csr_array((np.random.default_rng(0).random((40, 30)) < np.linspace(0.02, 0.6, 30)).astype(np.float32))


def test_what_is_fitted_is_what_is_folded_in() -> None:
    """A stored user is the row solve of the user's history, balanced as in the fit."""
    model = gm.IALS(8, solver="cholesky", random_state=0, activity_discount=0.4, popularity_discount=0.6).fit(RAGGED)
    folded = model.recalculate_user(np.arange(40), RAGGED)
    assert folded == pytest.approx(model.user_factors, abs=1e-4)
    model.set_params(popularity_discount=0.0)
    assert np.array_equal(model.recalculate_user(np.arange(40), RAGGED), folded), "a setting acts at the next fit"
    plain = gm.IALS(8, solver="cholesky", random_state=0).fit(RAGGED).recalculate_user(np.arange(40), RAGGED)
    assert not np.allclose(np.linalg.norm(plain, axis=1), np.linalg.norm(folded, axis=1), rtol=0.01)


def test_a_saved_model_keeps_its_balance(tmp_path: Path) -> None:
    model = gm.IALS(4, random_state=0, activity_discount=0.3, popularity_discount=0.5).fit(RAGGED)
    model.save(tmp_path / "m.safetensors")
    again = gm.IALS.load(tmp_path / "m.safetensors")
    folded = again.recalculate_user(3, RAGGED[[3]])
    assert np.array_equal(folded, model.recalculate_user(3, RAGGED[[3]]))
    score, shares, _ = again.explain(3, RAGGED, 5, N=1000)
    assert score == pytest.approx(float(folded @ again.item_factors[5]), abs=1e-4)
    assert sum(share for _, share in shares) == pytest.approx(score)


def test_a_setting_changed_after_the_fit_does_not_change_the_balance_that_is_saved(tmp_path: Path) -> None:
    model = gm.IALS(4, 0.02, 0.05, random_state=0, activity_discount=0.4, popularity_discount=0.4).fit(RAGGED)
    folded = model.recalculate_user(3, RAGGED[[3]])
    model.set_params(popularity_discount=0.9).save(tmp_path / "m.safetensors")
    again = gm.IALS.load(tmp_path / "m.safetensors")
    assert np.array_equal(again.recalculate_user(3, RAGGED[[3]]), folded)


def test_rows_fitted_in_part_are_counted(tmp_path: Path) -> None:
    model = gm.IALS(4, random_state=0).fit(RAGGED)
    model.partial_fit_items([2, 30], sparse.csr_array(np.ones((2, 40), np.float32)))
    wider = sparse.csr_array(sparse.hstack([RAGGED, np.ones((40, 1))]), dtype=np.float32)
    model.partial_fit_users([40], wider[[0]])
    model.save(tmp_path / "m.safetensors")
    for one in (model, gm.IALS.load(tmp_path / "m.safetensors")):
        counts = one._balanced
        assert (len(counts.user_counts), len(counts.item_counts)) == (41, 31)
        assert counts.item_counts[[2, 30]].tolist() == [40, 40]
        assert counts.user_counts[40] == wider[[0]].nnz
