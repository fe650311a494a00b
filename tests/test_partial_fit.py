"""Users and items fitted in part: exact for the rows given, nothing for the others, and tables that grow."""

from copy import deepcopy
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import geo_mf as gm
from geo_mf.errors import FitDiverged, InvalidInput, UnknownId

USERS, ITEMS, RANK, DIM = 30, 40, 5, 3


@pytest.fixture(scope="module")
def clicks() -> sparse.csr_array:
    return sparse.csr_array((np.random.default_rng(5).random((USERS, ITEMS)) < 0.2).astype(np.float32))


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(6).standard_normal((ITEMS, DIM)).astype(np.float32)


def fitted(clicks: sparse.csr_array, features: np.ndarray | None = None, discount: float = 0.4) -> gm.IALS:
    model = gm.IALS(RANK, 0.01, 0.01, iterations=4, solver="cholesky", random_state=0)
    model.set_params(activity_discount=discount, popularity_discount=discount)
    return model.fit(clicks, features)


def close(found: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-4) -> bool:
    return bool(np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max())


def histories(rng: np.random.Generator, rows: int, columns: int) -> sparse.csr_array:
    weights = (rng.random((rows, columns)) < 0.3) * rng.choice([0.5, 1, 4], (rows, columns))
    return sparse.csr_array(weights.astype(np.float32))


# --- unchanged histories -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_features", [False, True])
def test_an_unchanged_user_keeps_the_exact_factor(
    clicks: sparse.csr_array, features: np.ndarray, with_features: bool
) -> None:
    model = fitted(clicks, features if with_features else None)
    before = model.user_factors
    some = np.asarray([20, 3, 29])
    assert model.partial_fit_users(some, clicks[some]) is model
    assert close(model.user_factors, before)
    everyone = np.arange(USERS)
    assert close(model.partial_fit_users(everyone, clicks).user_factors, before)


@pytest.mark.parametrize("with_features", [False, True])
def test_an_unchanged_item_keeps_its_factor_once_the_fit_has_converged(
    clicks: sparse.csr_array, features: np.ndarray, with_features: bool
) -> None:
    """Items are solved before users; after many epochs another half-epoch of items moves nothing."""
    given = features if with_features else None
    model = gm.IALS(2, 0.3, 0.3, iterations=400, solver="cholesky", random_state=0).fit(clicks, given)
    before, everything = model.item_factors, np.arange(ITEMS)
    model.partial_fit_items(everything, clicks.T, given)
    assert close(model.item_factors, before, 1e-3)


def test_the_same_rows_again_change_nothing(clicks: sparse.csr_array, features: np.ndarray) -> None:
    model = fitted(clicks, features)
    once = model.partial_fit_items([2, 8], sparse.csr_array(clicks.T)[[2, 8]], features[[2, 8]]).item_factors
    twice = model.partial_fit_items([8, 2], sparse.csr_array(clicks.T)[[8, 2]], features[[8, 2]]).item_factors
    assert np.array_equal(once, twice)


# --- the rows given, and no other ----------------------------------------------------------------------------------


@given(data=st.data())
@settings(deadline=None, max_examples=50)
def test_rows_are_solved_and_the_rest_is_left_alone(data: st.DataObject, clicks: sparse.csr_array) -> None:
    model = MODELS.setdefault("plain", fitted(clicks))
    users, items = model.user_factors, model.item_factors
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    old = data.draw(st.lists(st.integers(0, USERS - 1), unique=True, max_size=5))
    new = data.draw(st.integers(0, 3))
    rows = [*old, *range(USERS, USERS + new)]
    if not rows:
        return
    given = histories(rng, len(rows), ITEMS)
    copy = deepcopy(model)
    copy.partial_fit_users(rows, given)
    assert copy.user_factors.shape == (USERS + new, RANK)
    assert np.array_equal(copy.user_factors[rows], model.recalculate_user(rows, given))
    others = np.setdiff1d(np.arange(USERS), rows)
    assert np.array_equal(copy.user_factors[others], users[others])
    assert np.array_equal(copy.item_factors, items)
    assert len(users) == USERS, "what a caller holds stays as it was"


MODELS: dict[str, gm.IALS] = {}


def test_rows_at_once_are_rows_one_by_one(clicks: sparse.csr_array, features: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    rows = [4, 0, USERS, USERS + 1]
    given = histories(rng, 4, ITEMS)
    at_once, one_by_one = fitted(clicks).partial_fit_users(rows, given), fitted(clicks)
    for j, row in enumerate(rows):
        one_by_one.partial_fit_users(row, given[j])
    assert np.array_equal(at_once.user_factors, one_by_one.user_factors)

    rows, given, more = [4, 0, ITEMS, ITEMS + 1], histories(rng, 4, USERS), rng.standard_normal((4, DIM))
    at_once, one_by_one = fitted(clicks, features).partial_fit_items(rows, given, more), fitted(clicks, features)
    for j, row in enumerate(rows):
        one_by_one.partial_fit_items([row], given[[j]], more[j])
    assert close(at_once.item_factors, one_by_one.item_factors, 1e-6)


def test_a_new_user_is_the_history_folded_in(clicks: sparse.csr_array) -> None:
    model = fitted(clicks)
    history = histories(np.random.default_rng(2), 1, ITEMS)
    before = model.recommend(0, history, recalculate_user=True)
    model.partial_fit_users([USERS], history)
    after = model.recommend(USERS, history)
    assert np.array_equal(before[0], after[0]) and np.array_equal(before[1], after[1])
    assert np.asarray(model.similar_users(USERS, N=1)[0]).tolist() == [USERS]


# --- new items ---------------------------------------------------------------------------------------------------


def test_a_new_item_starts_from_its_features(clicks: sparse.csr_array, features: np.ndarray) -> None:
    """With no history its factor is D^-1 lam r p in the eigenbasis of the users: what fit gives a cold item."""
    model = fitted(clicks, features)
    model.partial_fit_items(
        [ITEMS, ITEMS + 1], sparse.csr_array((2, USERS)), np.vstack([features[:1], np.zeros((1, DIM))])
    )
    prior, w = model.item_prior(features[0])[0], model.user_factors.astype(float)
    a0, lam, nu, *_ = astuple(model.objective)
    ridge = lam * (a0 * USERS) ** nu
    wanted = np.linalg.solve(a0 * w.T @ w + ridge * np.eye(RANK), ridge * prior)
    assert close(model.item_factors[ITEMS], wanted)
    assert not model.item_factors[ITEMS + 1].any(), "no features and no history: no factor"
    assert ITEMS in np.asarray(model.similar_items(ITEMS, N=1)[0]).tolist()


def test_behaviour_takes_over_from_features(clicks: sparse.csr_array, features: np.ndarray) -> None:
    model = fitted(clicks, features)
    twin = sparse.csr_array(clicks.T)[
        [6]
    ]  # the new item is touched by those who touched item 6, and worded like item 9
    prior = model.item_prior(features[9])[0]
    distances = []
    for weight in (0, 0.01, 1, 100):
        model.partial_fit_items([ITEMS], weight * twin, features[9])
        behaviour = model.recalculate_item(0, 1e6 * twin, features[9])
        distances.append(np.linalg.norm(model.item_factors[ITEMS] - behaviour))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.1 * distances[0]
    assert np.abs(prior).max() > 0


def test_new_items_are_recommended_and_new_users_get_them(clicks: sparse.csr_array) -> None:
    """Two users and two items arrive; what was prepared for the old tables is forgotten."""
    model = fitted(clicks, discount=0.0)
    for prepare in (model.similar_items, model.similar_users):
        prepare(0)
    model.recommend(0, clicks[0], recalculate_user=True)
    like_3 = sparse.csr_array(clicks.T)[[3, 3]]
    model.partial_fit_items([ITEMS, ITEMS + 1], like_3)
    assert set(np.asarray(model.similar_items(ITEMS, N=3)[0]).tolist()) == {3, ITEMS, ITEMS + 1}
    wider = sparse.csr_array(sparse.hstack([clicks, clicks[:, [3, 3]]]))
    model.partial_fit_users([USERS, USERS + 1], wider[[3, 4]])
    assert (model.user_factors.shape, model.item_factors.shape) == ((USERS + 2, RANK), (ITEMS + 2, RANK))
    fan = int(np.flatnonzero(~wider.toarray()[:, 3].astype(bool))[0])
    ids, scores = model.recommend(fan, wider[fan], N=ITEMS)
    scored = dict(zip(np.asarray(ids).tolist(), np.asarray(scores).tolist(), strict=True))
    assert scored[ITEMS] == scored[ITEMS + 1] == pytest.approx(scored[3], rel=0.5)
    assert close(model.recalculate_user(0, wider[0]), solve(model, wider[[0]].indices)), (
        "against all items there are now"
    )


def test_items_are_solved_against_the_users_of_the_moment(clicks: sparse.csr_array) -> None:
    model, item_users = fitted(clicks), sparse.csr_array(clicks.T)
    before = model.recalculate_item(0, item_users[0])
    loud = sparse.csr_array(np.eye(USERS, ITEMS, dtype=np.float32) * 50)
    model.partial_fit_users(np.arange(USERS), loud)
    after = model.recalculate_item(0, item_users[0])
    fresh = deepcopy(model)
    fresh._set_factors(model.user_factors, model.item_factors)
    assert np.array_equal(after, fresh.recalculate_item(0, item_users[0]))
    assert not close(after, before, 0.1)


def solve(model: gm.IALS, history: np.ndarray) -> np.ndarray:
    h = model.item_factors.astype(float)
    a0, lam, nu, *_ = astuple(model.objective)
    ridge = lam * (len(history) + a0 * len(h)) ** nu
    x = h[history]
    return np.linalg.solve(a0 * h.T @ h + ridge * np.eye(RANK) + x.T @ x, x.sum(axis=0))


def test_a_model_that_grew_is_saved_whole(clicks: sparse.csr_array, features: np.ndarray, tmp_path: Any) -> None:
    model = fitted(clicks, features).partial_fit_items(ITEMS, sparse.csr_array((1, USERS)), features[0])
    model.save(tmp_path / "model")
    loaded = gm.IALS.load(tmp_path / "model")
    assert np.array_equal(loaded.item_factors, model.item_factors)
    more = sparse.csr_array((1, USERS))
    again = loaded.partial_fit_items(ITEMS + 1, more, features[0])
    assert close(again.item_factors[ITEMS + 1], again.item_factors[ITEMS], 1e-6)


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (
            [USERS + 1],
            UnknownId,
            "user 31 is not in this model, whose users are 0 to 29: new users must be 30, 31, ...",
        ),
        ([USERS, USERS + 2], UnknownId, "user 32 is not in this model"),
        ([USERS + 1, USERS], UnknownId, "user 31 is not in this model"),
        ([10**12], UnknownId, "user 1000000000000 is not in this model"),
        ([-1], UnknownId, "user -1 is not in this model: its users are 0 to 29"),
        ([4, 4], InvalidInput, "user 4 is named twice"),
        ([USERS, USERS], InvalidInput, "user 30 is named twice"),
    ],
)
def test_rows_that_cannot_be_written(clicks: sparse.csr_array, rows: Any, error: type[Exception], message: str) -> None:
    model = MODELS.setdefault("plain", fitted(clicks))
    before = model.user_factors, model.item_factors
    with pytest.raises(error, match=message):
        model.partial_fit_users(rows, clicks[: len(rows)])
    as_items = [row + ITEMS - USERS if row >= USERS else row for row in rows]
    with pytest.raises(error, match=message[:4].replace("user", "item")):
        model.partial_fit_items(as_items, clicks.T[: len(rows)])
    assert model.user_factors is before[0] and model.item_factors is before[1]


@pytest.mark.parametrize("rows", [[0.5], [[1, 2]], True, None, "3"])
def test_rows_that_are_no_integers(clicks: sparse.csr_array, rows: Any) -> None:
    model = MODELS.setdefault("plain", fitted(clicks))
    with pytest.raises(InvalidInput, match="one integer or a flat list of integers"):
        model.partial_fit_users(rows, clicks[0])
    with pytest.raises(InvalidInput, match="one integer or a flat list of integers"):
        model.partial_fit_items(rows, clicks.T[[0]])


def test_histories_that_do_not_fit(clicks: sparse.csr_array, features: np.ndarray) -> None:
    model, worded = MODELS.setdefault("plain", fitted(clicks)), fitted(clicks, features)
    item_users = sparse.csr_array(clicks.T)
    with pytest.raises(InvalidInput, match="3 rows for 2 users asked for"):
        model.partial_fit_users([0, 1], clicks[:3])
    with pytest.raises(InvalidInput, match="transposed"):
        model.partial_fit_users([0, 1], item_users[:2])
    with pytest.raises(InvalidInput, match="transposed"):
        model.partial_fit_items([0, 1], clicks[:2])
    with pytest.raises(InvalidInput, match=r"pass item_users\[itemid\], with 30 columns, one for each user"):
        model.partial_fit_items([0, 1], item_users[:2, :7])
    with pytest.raises(InvalidInput, match="negative"):
        model.partial_fit_users(0, -clicks[0])
    with pytest.raises(InvalidInput, match="fitted without item_features"):
        model.partial_fit_items([0], item_users[[0]], features[:1])
    with pytest.raises(InvalidInput, match="a zero row for an item without"):
        worded.partial_fit_items([0], item_users[[0]])
    with pytest.raises(InvalidInput, match=r"shape \(2, 3\), expected \(1, 3\)"):
        worded.partial_fit_items([0], item_users[[0]], features[:2])
    with pytest.raises(InvalidInput, match=r"call fit\(user_items\) first"):
        gm.IALS().partial_fit_users(0, clicks[0])


@pytest.mark.parametrize("size", [1e-42, 0.0])
def test_what_cannot_be_solved_is_not_stored(size: float) -> None:
    """Without any regularisation left, who likes tiny items would need a factor beyond float32."""
    model = fitted(sparse.csr_array(np.ones((2, RANK), np.float32)))
    model.set_params(regularization=1e-300, unobserved_weight=0.0)
    model._set_factors(np.ones((2, RANK), np.float32), np.diag([size] * RANK).astype(np.float32))
    before = model.user_factors
    for history in (np.eye(1, RANK), np.ones((1, RANK))):
        with pytest.raises(FitDiverged, match="scale the weights down to around 1"):
            model.partial_fit_users(0, history)
        assert model.user_factors is before


def test_no_rows_are_no_work(clicks: sparse.csr_array) -> None:
    model = MODELS.setdefault("plain", fitted(clicks))
    before = model.user_factors, model.item_factors
    model.partial_fit_users([], clicks[:0]).partial_fit_items([], sparse.csr_array((0, USERS)))
    assert model.user_factors is before[0] and model.item_factors is before[1]
