"""Explicit ratings: a float64 reference, the front door of BiasedMF, and what must be refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import geo_mf as gm
from geo_mf.evaluation.metrics import mae, rmse
from geo_mf.factorize.fit_ratings import INITIAL_NOISE, Fitted, Settings, fit
from geo_mf.factorize.ratings import Objective
from geo_mf.geometry.prior import RidgePrior

RANK, USERS, ITEMS, EPOCHS = 5, 40, 30, 3
COLD_USER, COLD_ITEM = 3, 5
ALPHA = 3.0


def rated(low: float = 1.0, step: float = 1.0) -> sparse.csr_array:
    """Five grades from `low` on; histories shorter and longer than RANK, and rows without any."""
    rng = np.random.default_rng(7)
    mask = rng.random((USERS, ITEMS)) < np.outer(rng.uniform(0.02, 1, USERS), rng.uniform(0.1, 1, ITEMS))
    mask[COLD_USER], mask[:, COLD_ITEM] = False, False
    user, item = np.nonzero(mask)
    lengths = np.bincount(user, minlength=USERS)
    assert lengths[lengths > 0].min() < RANK <= lengths.max()
    grades = np.float32(low + step * rng.integers(0, 5, len(user)))
    return sparse.csr_array((grades, (user, item)), shape=(USERS, ITEMS))


def features() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((ITEMS, 3)).astype(np.float32)


def weights_of(matrix: sparse.csr_array) -> np.ndarray:
    return (np.bincount(matrix.indices, minlength=ITEMS) > 0).astype(float)


class Reference:
    """The same alternation in float64, one dense inverse a row, as the module's docstring writes it."""

    def __init__(self, matrix: sparse.csr_array, objective: Objective, given: np.ndarray | None, factors: np.ndarray):
        self.objective, self.given = objective, given
        self.user, self.item, self.r = *matrix.nonzero(), matrix.data.astype(float)
        if len(self.user) != len(self.r):  # nonzero() leaves out ratings of zero
            self.user, self.item = np.repeat(np.arange(USERS), np.diff(matrix.indptr)), matrix.indices
        self.mean, self.scale = self.r.mean(), self.r.std()
        self.noise = INITIAL_NOISE * self.scale**2
        self.a_users = np.c_[factors, np.zeros(USERS)]
        self.a_items = np.zeros((ITEMS, RANK + 1))
        self.s_users = np.zeros((USERS, RANK + 1, RANK + 1))
        if given is not None:
            rated = np.bincount(self.item, minlength=ITEMS) > 0
            design = np.c_[given, np.ones(ITEMS)]
            weighted = design * rated[:, None]
            shrinkage = np.full(design.shape[1], ALPHA)
            shrinkage[-1] *= 1e-6
            self.regress = np.linalg.solve(weighted.T @ design + np.diag(shrinkage), weighted.T)
            self.design = design

    def kept(self, s: np.ndarray) -> np.ndarray:
        """Only variances, and covariances with the bias."""
        mask = np.eye(RANK + 1)
        mask[-1] = mask[:, -1] = 1
        return s * mask

    def half(self, rows: np.ndarray, columns: np.ndarray, size: int, fixed: Any, prior: np.ndarray) -> Any:
        a, s = fixed
        out, spread = np.zeros((size, RANK + 1)), np.zeros((size, RANK + 1, RANK + 1))
        for row in range(size):
            at = rows == row
            ridge = np.append(np.full(RANK, self.objective.regularization * self.scale), 0)
            ridge[-1] = self.objective.bias_regularization
            ridge *= max(at.sum(), 1) ** self.objective.nu
            x = np.c_[a[columns[at], :-1], np.ones(at.sum())]
            y = self.r[at] - self.mean - a[columns[at], -1]
            around = s[columns[at]].sum(0)
            system, right = x.T @ x + np.diag(ridge), x.T @ y + ridge * prior[row]
            if self.objective.variational:
                system[:-1, :-1] += around[:-1, :-1]
                right[:-1] -= around[:-1, -1]
            out[row] = np.linalg.solve(system, right)
            spread[row] = self.kept(self.noise * np.linalg.inv(system)) * self.objective.variational
        return out, spread

    def run(self, epochs: int) -> "Reference":
        for _ in range(epochs):
            prior = np.zeros((ITEMS, RANK + 1))
            if self.given is not None:
                prior = self.design @ (self.regress @ self.a_items)
            users = self.a_users, self.s_users
            self.a_items, self.s_items = self.half(self.item, self.user, ITEMS, users, prior)
            items = self.a_items, self.s_items
            self.a_users, self.s_users = self.half(self.user, self.item, USERS, items, np.zeros((USERS, RANK + 1)))
            self.error = self.expected_error()
            self.noise = min(self.error, self.scale**2)
        return self

    def expected_error(self) -> float:
        """Rating by rating, from E[xxᵀ] and E[aaᵀ] of independent Gaussians."""
        total = 0.0
        for u, i, r in zip(self.user, self.item, self.r, strict=True):
            (w, b), (h, c) = (self.a_users[u, :-1], self.a_users[u, -1]), (self.a_items[i, :-1], self.a_items[i, -1])
            su, si = self.s_users[u], self.s_items[i]
            total += (r - self.mean - b - c - w @ h) ** 2 + su[-1, -1] + si[-1, -1]
            total += np.trace((su[:-1, :-1] + np.outer(w, w)) @ (si[:-1, :-1] + np.outer(h, h))) - (w @ h) ** 2
            total += 2 * (h @ su[:-1, -1] + w @ si[:-1, -1])
        return total / len(self.r)

    def predictions(self) -> np.ndarray:
        return self.mean + self.a_users[:, -1:] + self.a_items[:, -1] + self.a_users[:, :-1] @ self.a_items[:, :-1].T


def predictions(fitted: Fitted) -> np.ndarray:
    users, items = fitted.users.astype(float), fitted.items.astype(float)
    return fitted.mean + users[:, -1:] + items[:, -1] + users[:, :-1] @ items[:, :-1].T


@pytest.mark.parametrize("low", [1.0, -2.0], ids=["1-5", "with zeros"])
@pytest.mark.parametrize("with_features", [False, True], ids=["ratings", "features"])
@pytest.mark.parametrize(
    ("variational", "nu", "lam"),
    [(True, 0.0, 4.0), (True, 0.3, 2.0), (True, 0.0, 0.4), (False, 1.0, 0.4), (False, 0.5, 0.4)],
)
def test_the_fit_is_the_reference(low: float, with_features: bool, variational: bool, nu: float, lam: float) -> None:
    matrix, objective = rated(low), Objective(lam, 0.7, nu, variational)
    given = features() if with_features else None
    prior = None if given is None else RidgePrior.of(given, weights_of(matrix), ALPHA)
    told = []
    fitted = fit(
        matrix,
        Settings(RANK, objective, EPOCHS),
        np.random.default_rng(0),
        prior,
        callback=lambda epoch, seconds, error: told.append(error),
    )
    factors = np.random.default_rng(0).standard_normal((USERS, RANK), np.float32)
    wanted = Reference(matrix, objective, given, factors * 0.1 * np.sqrt(fitted.scale)).run(EPOCHS)
    assert np.abs(predictions(fitted) - wanted.predictions()).max() < 2e-4 * fitted.scale
    assert told[-1] == pytest.approx(wanted.error, rel=1e-4)


def test_without_doubt_the_objective_falls() -> None:
    matrix, told = rated(), []
    objective = Objective(0.05, 0.05, 0.0, False)

    def value(fitted: Fitted) -> float:
        user = np.repeat(np.arange(USERS), np.diff(matrix.indptr))
        error = matrix.data - predictions(fitted)[user, matrix.indices]
        sides = (fitted.users.astype(float), fitted.items.astype(float))
        ridge = sum(0.05 * fitted.scale * np.sum(s[:, :-1] ** 2) + 0.05 * np.sum(s[:, -1] ** 2) for s in sides)
        return float(np.sum(error**2) + ridge)

    for epochs in (1, 2, 4, 8):
        told.append(value(fit(matrix, Settings(RANK, objective, epochs), np.random.default_rng(0))))
    assert told == sorted(told, reverse=True) and told[-1] < told[0]


@pytest.fixture(scope="module")
def model() -> gm.BiasedMF:
    return gm.BiasedMF(factors=RANK, iterations=5, random_state=0).fit(rated())


@pytest.mark.parametrize("variational", [True, False])
def test_a_checkerboard_of_tastes_is_recovered(variational: bool) -> None:
    # Even users give even items 5 and odd ones 1, odd users the reverse; a tenth is withheld. No bias can tell it.
    n = 24
    pairs = np.random.default_rng(0).permutation(n * n)
    user, item = pairs // n, pairs % n
    grades = np.where(user % 2 == item % 2, 5.0, 1.0)
    train, test = slice(n * n // 10, None), slice(0, n * n // 10)
    matrix = sparse.csr_array((grades[train], (user[train], item[train])), shape=(n, n))
    settings: dict[str, Any] = {"regularization": 0.5} if variational else {"regularization": 0.1, "nu": 0.5}
    fitted = gm.BiasedMF(factors=4, random_state=0, variational=variational, **settings).fit(matrix)
    found = fitted.predict(user[test], item[test])
    assert rmse(found, grades[test]) < 0.25
    assert found.dtype == np.float32


def test_scale_and_offset_of_the_grades_change_nothing() -> None:
    base = gm.BiasedMF(factors=RANK, iterations=5, random_state=0).fit(rated())
    turned = gm.BiasedMF(factors=RANK, iterations=5, random_state=0).fit(rated(low=-20.0, step=10.0))
    users, items = np.divmod(np.arange(USERS * ITEMS), ITEMS)
    np.testing.assert_allclose(
        turned.predict(users, items), 10 * base.predict(users, items).astype(float) - 30, atol=0.01
    )


def test_predictions_are_the_parts_and_stay_in_range(model: gm.BiasedMF) -> None:
    users, items = np.divmod(np.arange(USERS * ITEMS), ITEMS)
    parts = model.global_mean + model.user_bias[users] + model.item_bias[items]
    parts = parts + np.sum(model.user_factors[users] * model.item_factors[items], axis=1)
    np.testing.assert_allclose(model.predict(users, items), np.clip(parts, 1, 5), atol=1e-5)
    assert model.rating_range == (1, 5)
    free = gm.BiasedMF(factors=RANK, iterations=5, clip=False, random_state=0).fit(rated())
    np.testing.assert_allclose(free.predict(users, items), parts, atol=1e-5)
    assert float(model.predict(1, 2)) == pytest.approx(float(model.predict([1], [2])[0]))


def test_cold_rows_are_predicted_from_what_is_known(model: gm.BiasedMF) -> None:
    assert not model.user_factors[COLD_USER].any() and model.user_bias[COLD_USER] == 0
    assert float(model.predict(COLD_USER, COLD_ITEM)) == pytest.approx(model.global_mean, abs=1e-5)
    assert float(model.predict(COLD_USER, 0)) == pytest.approx(model.global_mean + model.item_bias[0], abs=1e-5)


def test_features_give_cold_items_their_quality_and_their_taste() -> None:
    # Two kinds of items, liked by opposite users, and a feature that tells the kind; the last item is cold.
    n = 24
    user, item = np.divmod(np.arange(n * n), n)
    grades = np.where(user % 2 == item % 2, 5.0, 1.0)
    hot = item < n - 1
    matrix = sparse.csr_array((grades[hot], (user[hot], item[hot])), shape=(n, n))
    kinds = np.where(np.arange(n) % 2, 1.0, -1.0)[:, None]
    fitted = gm.BiasedMF(factors=4, random_state=0, prior_regularization=0.1).fit(matrix, kinds)
    assert rmse(fitted.predict(np.arange(n), n - 1), grades[~hot]) < 0.3
    assert fitted.prior_coefficients is not None and fitted.prior_coefficients.shape == (2, 5)


def test_folding_a_training_user_in_gives_that_user(model: gm.BiasedMF) -> None:
    matrix = rated()
    folded = model.recalculate_user(np.arange(USERS), matrix)
    # The noise moved once more after the last half-epoch, and enters through the items' spread only.
    np.testing.assert_allclose(folded, model.user_vectors, atol=2e-4)
    ids, scores = model.recommend(7, matrix[7], N=5, recalculate_user=True)
    assert len(ids) == 5 and not set(ids) & set(matrix[[7]].indices)
    assert np.all(np.diff(scores) <= 0)


def test_recommend_scores_are_unclipped_predictions(model: gm.BiasedMF) -> None:
    ids, scores = model.recommend(2, N=4, filter_already_liked_items=False)
    np.testing.assert_allclose(np.clip(scores, 1, 5), model.predict(2, np.asarray(ids)), atol=1e-5)


def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads() -> None:
    a, b = (
        gm.BiasedMF(factors=RANK, iterations=3, random_state=4, num_threads=n).fit(rated()).user_vectors for n in (1, 2)
    )
    assert np.array_equal(a, b)
    other = gm.BiasedMF(factors=RANK, iterations=3, random_state=5).fit(rated())
    assert not np.array_equal(a, other.user_vectors)


def test_a_saved_model_answers_as_before(model: gm.BiasedMF, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    again = gm.BiasedMF.load(tmp_path / "m.safetensors")
    users, items = np.divmod(np.arange(USERS * ITEMS), ITEMS)
    assert np.array_equal(again.predict(users, items), model.predict(users, items))
    assert np.array_equal(again.recalculate_user(7, rated()[[7]]), model.recalculate_user(7, rated()[[7]]))
    assert again.noise == model.noise and again.get_params() == model.get_params()


def test_a_stored_zero_is_a_rating_and_the_input_stays_as_it_is() -> None:
    matrix = rated(low=0.0)
    before = matrix.copy()
    fitted = gm.BiasedMF(factors=2, iterations=2, random_state=0).fit(matrix)
    assert fitted.rating_range == (0, 4)
    assert fitted.global_mean == pytest.approx(before.data.mean())
    assert matrix.nnz == before.nnz and np.array_equal(matrix.data, before.data)


def test_one_user_one_item_and_equal_grades() -> None:
    one = gm.BiasedMF(factors=3, iterations=2, random_state=0).fit(sparse.csr_array(np.array([[4.0]])))
    assert float(one.predict(0, 0)) == pytest.approx(4)
    same = gm.BiasedMF(factors=3, iterations=2, random_state=0).fit(sparse.csr_array(np.full((4, 3), 2.0)))
    np.testing.assert_allclose(same.predict(np.arange(4), 1), 2, atol=1e-5)


def _twice() -> sparse.csr_array:
    data, indices = np.array([1.0, 2.0]), np.array([1, 1])
    return sparse.csr_array((data, indices, np.array([0, 2, 2])), shape=(2, 3))


@pytest.mark.parametrize(
    ("ratings", "said"),
    [
        (np.ones((3, 3)), "cannot tell a rating of 0"),
        (sparse.csr_array(np.array([[1.0, np.nan]])), "user 0 gave item 1"),
        (sparse.csr_array(np.array([[1.0, 1e300]])), "beyond float32"),
        (_twice(), "user 0 rated item 1 more than once"),
        (sparse.csr_array((3, 3)), "nothing to fit"),
        (sparse.csr_array((0, 3)), "at least one user"),
        (sparse.csr_array(np.array([[1j]])), "real numbers"),
    ],
)
def test_ratings_that_cannot_be_used(ratings: Any, said: str) -> None:
    with pytest.raises(gm.InvalidInput, match=said):
        gm.BiasedMF(factors=2, iterations=1).fit(ratings)


@pytest.mark.parametrize(
    "setting",
    [
        {"factors": 0},
        {"regularization": 0},
        {"bias_regularization": -1.0},
        {"iterations": 0},
        {"nu": 3},
        {"random_state": -1},
        {"prior_regularization": 0},
    ],
)
def test_settings_out_of_range(setting: dict[str, Any]) -> None:
    with pytest.raises(gm.InvalidInput, match=next(iter(setting))):
        gm.BiasedMF(**setting)


def test_a_model_that_has_seen_nothing_says_so() -> None:
    empty = gm.BiasedMF()
    for ask in ("user_bias", "global_mean", "rating_range", "item_vectors", "user_factors"):
        with pytest.raises(gm.InvalidInput, match="call fit"):
            getattr(empty, ask)
    with pytest.raises(gm.InvalidInput, match="call fit"):
        empty.predict(0, 0)


def test_unknown_rows_and_wrong_histories(model: gm.BiasedMF) -> None:
    with pytest.raises(gm.UnknownId, match="item 30"):
        model.predict(0, ITEMS)
    with pytest.raises(gm.InvalidInput, match="transposed"):
        model.recalculate_user(np.arange(ITEMS), rated().T)


def test_rmse_and_mae_by_hand() -> None:
    predicted, observed = np.array([1.0, 4.0], np.float32), np.array([3.0, 3.0])
    assert rmse(predicted, observed) == pytest.approx(np.sqrt((4 + 1) / 2))
    assert mae(predicted, observed) == pytest.approx((2 + 1) / 2)
    for wrong in (np.array([1.0]), np.array([np.nan, 1.0]), np.ones((2, 1))):
        with pytest.raises(gm.InvalidInput):
            rmse(wrong, observed)
    with pytest.raises(gm.InvalidInput):
        mae(np.array([]), np.array([]))
