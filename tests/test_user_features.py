"""What is known of users: a prior in their row solves, the same mathematics as for items."""

from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import geo_mf as gm
from geo_mf.errors import InvalidInput
from geo_mf.factorize.checkpoint import fingerprint
from geo_mf.factorize.fit import Factors, Priors, Settings, fit
from geo_mf.factorize.ials import Objective

USERS, ITEMS, RANK, DIM = 30, 40, 5, 3
COLD, BARE = 4, 7  # users without a history; the second has no features either


@pytest.fixture(scope="module")
def clicks() -> sparse.csr_array:
    seen = np.random.default_rng(5).random((USERS, ITEMS)) < 0.2
    seen[[COLD, BARE]] = False
    return sparse.csr_array(seen.astype(np.float32))


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    drawn = np.random.default_rng(6).standard_normal((USERS, DIM)).astype(np.float32)
    drawn[BARE] = 0
    return drawn


@pytest.fixture(scope="module")
def model(clicks: sparse.csr_array, features: np.ndarray) -> gm.IALS:
    return fitted(clicks, features)


def fitted(clicks: sparse.csr_array, features: np.ndarray | None) -> gm.IALS:
    return gm.IALS(RANK, 0.01, 0.01, 4, 1.0, "cholesky", random_state=0).fit(clicks, user_features=features)


def close(found: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-4) -> bool:
    return bool(np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max())


# --- the same mathematics as for items -----------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), nu=st.sampled_from([0.0, 0.7, 1.0]), with_items=st.booleans())
@settings(deadline=None, max_examples=15)
def test_users_are_the_items_of_the_transposed_matrix(seed: int, nu: float, with_items: bool) -> None:
    """An epoch solves items, then users. Of the transposed matrix it solves users, then items: begun at the items that
    the first half of an epoch gave, it goes on as the epochs of the matrix itself do."""
    rng = np.random.default_rng(seed)
    matrix = sparse.csr_array(((rng.random((12, 9)) < 0.4) * rng.choice([0.5, 1, 2], (12, 9))).astype(np.float32))
    matrix.data[:1] = 1.0
    if not matrix.nnz:
        return
    objective = Objective(0.05, 0.02, nu)
    of_users = (rng.standard_normal((12, 2)) * (rng.random((12, 1)) < 0.8)).astype(np.float32)
    of_items = rng.standard_normal((9, 2)).astype(np.float32) if with_items else None
    # Users whose Gram matrix is diagonal, and rising: the first half-epoch then turns nothing.
    turned = np.linalg.qr(rng.standard_normal((12, 3)))[0] * [0.5, 1.0, 2.0]
    users, items = turned.astype(np.float32), rng.standard_normal((9, 3)).astype(np.float32)

    def run(transposed: bool, epochs: int, start: tuple[np.ndarray, np.ndarray]) -> Factors:
        given = sparse.csr_array(matrix.T) if transposed else matrix
        of = (of_users, of_items) if transposed else (of_items, of_users)
        return fit(
            given, Settings(3, objective, epochs, "cholesky"), lambda: start, Priors.of(given, objective, 2, *of)
        )

    half = _first_items(matrix, objective, users, items, of_items)
    for epochs in (1, 3):
        here, there = run(False, epochs, (users, items)), run(True, epochs, (half, users))
        assert close(there.items @ there.items.T, here.users @ here.users.T, 2e-3)
        after = run(False, epochs + 1, (users, items))
        assert close(there.users @ there.users.T, after.items @ after.items.T, 2e-3)


def _first_items(
    matrix: sparse.csr_array,
    objective: Objective,
    users: np.ndarray,
    items: np.ndarray,
    features: np.ndarray | None,
) -> np.ndarray:
    """float32 [items, K] after the first half-epoch, as the textbook has it."""
    prior = Priors.of(matrix, objective, 2, features).items
    expected = np.zeros_like(items) if prior is None else prior.predict(prior.fit(items))
    w, dense = users.astype(float), matrix.toarray()
    ridge = objective.ridge(np.count_nonzero(dense, axis=0), len(users))
    a0 = objective.unobserved_weight
    return np.stack(
        [
            np.linalg.solve(a0 * w.T @ w + (w.T * c) @ w + r * np.eye(3), w.T @ c + r * p)
            for c, r, p in zip(dense.T, ridge, expected, strict=True)
        ]
    ).astype(np.float32)


def test_a_user_without_a_history_gets_what_the_features_predict_shrunk(model: gm.IALS, features: np.ndarray) -> None:
    prior, h = model.user_prior(features[COLD])[0], model.item_factors.astype(float)
    a0, lam, nu, *_ = astuple(model.objective)
    ridge = lam * (a0 * ITEMS) ** nu
    wanted = np.linalg.solve(a0 * h.T @ h + ridge * np.eye(RANK), ridge * prior)
    assert close(model.user_factors[COLD], wanted)
    assert np.linalg.norm(wanted) < np.linalg.norm(prior)
    assert not model.user_factors[BARE].any(), "neither history nor features"
    assert model.prior_coefficients is None, "nothing was said of the items"


def test_features_tell_the_taste_of_somebody_without_a_history(checkerboard: sparse.csr_array) -> None:
    """Even users like even items: who is said to be even does so too."""
    parity = np.eye(2, dtype=np.float32)[np.arange(40) % 2]
    silent = sparse.csr_array(sparse.vstack([checkerboard, sparse.csr_array((2, 40))]))
    model = gm.IALS(8, random_state=0).fit(silent, user_features=np.vstack([parity, parity[:2]]))
    even, odd = model.user_factors[40:] @ model.item_factors.T
    assert even[::2].min() > 1.5 * even[1::2].max() and odd[1::2].min() > 1.5 * odd[::2].max()
    ids, _ = model.recommend(99, sparse.csr_array((1, 40)), N=20, recalculate_user=True, user_features=parity[1])
    assert (np.asarray(ids) % 2 == 1).all()


def test_features_of_nobody_change_nothing(clicks: sparse.csr_array) -> None:
    with_zeros, without = fitted(clicks, np.zeros((USERS, 2), np.float32)), fitted(clicks, None)
    assert with_zeros.user_factors == pytest.approx(without.user_factors, abs=1e-5)
    assert without.user_prior_coefficients is None


def test_a_fit_without_features_forgets_those_of_the_fit_before(clicks: sparse.csr_array, features: np.ndarray) -> None:
    again = fitted(clicks, features).fit(clicks)
    assert again.user_prior_coefficients is None
    assert np.array_equal(
        again.recalculate_user(3, clicks[3]), fitted(clicks, None).fit(clicks).recalculate_user(3, clicks[3])
    )


# --- the model knows the features of its users --------------------------------------------------------------------


def test_a_history_folded_in_is_the_stored_factor(model: gm.IALS, clicks: sparse.csr_array) -> None:
    everyone = np.arange(USERS)
    assert close(model.recalculate_user(everyone, clicks), model.user_factors)
    assert close(model.recalculate_user(COLD, clicks[COLD]), model.user_factors[COLD])
    stored, solved = (model.recommend(9, clicks[9], N=8, recalculate_user=how) for how in (False, True))
    assert np.array_equal(stored[0], solved[0])
    assert np.asarray(solved[1]) == pytest.approx(np.asarray(stored[1]), rel=1e-3)


def test_another_number_has_no_features_unless_they_are_given(
    model: gm.IALS, clicks: sparse.csr_array, features: np.ndarray
) -> None:
    nobody = model.recalculate_user(10**6, clicks[9])
    assert not close(nobody, model.user_factors[9], 1e-3)
    assert np.array_equal(nobody, model.recalculate_user(9, clicks[9], np.zeros((1, DIM))))
    assert np.array_equal(model.recalculate_user(9, clicks[9]), model.recalculate_user(10**6, clicks[9], features[9]))
    assert not model.recalculate_user(-1, sparse.csr_array((1, ITEMS))).any()


@pytest.mark.parametrize("user", [0, 9, COLD, BARE, 10**6])
def test_the_shares_of_history_and_features_sum_to_the_score(
    model: gm.IALS, clicks: sparse.csr_array, user: int
) -> None:
    row = clicks[[min(user, USERS - 1)]]
    for item in (0, 11):
        score, shares, system = model.explain(user, row, item, N=ITEMS)
        assert score == pytest.approx(float(model.recalculate_user(user, row) @ model.item_factors[item]), abs=1e-5)
        # Without features, the score is what the items of the history add.
        bare = float(model.recalculate_user(10**6, row) @ model.item_factors[item])
        assert sum(share for _, share in shares) == pytest.approx(bare, abs=1e-5)
        assert model.explain(user, row, item, system)[0] == pytest.approx(score)


def test_a_model_that_was_saved_knows_them_too(
    model: gm.IALS, clicks: sparse.csr_array, features: np.ndarray, tmp_path: Path
) -> None:
    model.save(tmp_path / "model")
    loaded = gm.IALS.load(tmp_path / "model")
    assert np.array_equal(loaded.user_prior(features), model.user_prior(features))
    assert np.array_equal(loaded.recalculate_user(9, clicks[9]), model.recalculate_user(9, clicks[9]))
    fitted(clicks, None).save(tmp_path / "without")
    assert gm.IALS.load(tmp_path / "without").user_prior_coefficients is None


# --- users fitted in part -----------------------------------------------------------------------------------------


def test_known_users_keep_their_features_and_new_ones_bring_theirs(
    clicks: sparse.csr_array, features: np.ndarray
) -> None:
    model = fitted(clicks, features)
    before = model.user_factors
    assert close(model.partial_fit_users([9, COLD], clicks[[9, COLD]]).user_factors, before)
    model.partial_fit_users([USERS, USERS + 1], clicks[[9, COLD]], features[[9, COLD]])
    assert close(model.user_factors[USERS:], before[[9, COLD]])
    assert close(model.recalculate_user(USERS, clicks[9]), before[9]), "and it is remembered"
    model.partial_fit_users(9, clicks[9], np.zeros((1, DIM)))
    assert close(model.user_factors[9], model.recalculate_user(10**6, clicks[9]))
    assert close(model.recalculate_user(9, clicks[9]), model.user_factors[9]), "also that there are none any more"


def test_partial_fits_that_are_refused(model: gm.IALS, clicks: sparse.csr_array, features: np.ndarray) -> None:
    before = model.user_factors
    with pytest.raises(InvalidInput, match="user 30 is new, and this model was fitted with user_features: pass those"):
        model.partial_fit_users([2, USERS], clicks[[2, 3]])
    with pytest.raises(InvalidInput, match=r"user_features has shape \(1, 3\), expected \(2, 3\): a row for each user"):
        model.partial_fit_users([2, 3], clicks[[2, 3]], features[:1])
    with pytest.raises(InvalidInput, match="user_features must be finite; row 0 is not"):
        model.partial_fit_users(2, clicks[2], np.full((1, DIM), np.nan))
    with pytest.raises(InvalidInput, match="fitted without user_features"):
        fitted(clicks, None).partial_fit_users(2, clicks[2], features[:1])
    with pytest.raises(InvalidInput, match="fitted without user_features"):
        fitted(clicks, None).recommend(2, clicks[2], recalculate_user=True, user_features=features[:1])
    assert model.user_factors is before


def test_a_model_without_features_of_users_says_so(clicks: sparse.csr_array) -> None:
    ratings = sparse.csr_array(clicks * 3)
    biased = gm.BiasedMF(factors=2, iterations=1).fit(ratings)
    with pytest.raises(InvalidInput, match="BiasedMF takes no features of users"):
        biased.recalculate_user(0, ratings[0], np.ones((1, DIM)))


# --- what a fit takes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.ones((USERS + 1, 2)), r"user_features has shape \(31, 2\), expected \(30, dim\): one row per user"),
        (np.ones((ITEMS, 2)), "one row per item, so user_items may be transposed"),
        (np.ones(USERS), "expected"),
        (sparse.csr_array(np.ones((USERS, 2))), r"user_features is sparse: give a dense array \[users, dim\]"),
        (np.full((USERS, 2), np.inf), "user features must be finite; row 0 is not"),
        (True, "user_features is True: to ask for a progress bar write show_progress=True"),
    ],
)
def test_bad_features(bad: Any, message: str, clicks: sparse.csr_array) -> None:
    with pytest.raises(InvalidInput, match=message):
        gm.IALS(2, iterations=1).fit(clicks, user_features=bad)


def test_a_plan_counts_them(clicks: sparse.csr_array) -> None:
    model = gm.IALS(RANK)
    without, with_users, with_both = (
        model.plan(clicks, dim, timed=False, user_features=width) for dim, width in ((0, 0), (0, 500), (500, 500))
    )
    assert with_users.parts["prior"] == 4 * USERS * (3 * 500 + 3 * RANK)
    assert with_both.parts["prior"] == 4 * (USERS + ITEMS) * (3 * 500 + 3 * RANK)
    assert without.parts["prior"] == 0
    assert model.plan((100, 50, 300), timed=False, user_features=7).parts["prior"] == 4 * 100 * (21 + 3 * RANK)
    with pytest.raises(InvalidInput, match="user_features is -1"):
        model.plan(clicks, user_features=-1)


def test_the_same_features_of_items_and_of_users_are_other_fits(checkerboard: sparse.csr_array) -> None:
    some = np.ones((40, 3), np.float32)
    found = {fingerprint(checkerboard, a, {}, b) for a in (None, some) for b in (None, some)}
    assert len(found) == 4
