"""What every factor model shares, on IALS and on a model with biases: lists, neighbours, pairs, settings, files."""

from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import geo_mf as gm
from geo_mf.errors import IncompatibleIndex, InvalidInput, UnknownId
from geo_mf.factorize import retrieval
from geo_mf.factorize.estimators import Ranked
from geo_mf.factorize.retrieval import FactorModel

USERS, ITEMS, RANK = 30, 40, 5


class Biased(FactorModel):
    """Scores mu + b_u + b_i + <w, h>, from a table of biases: the vectors are kept, the factors are a part of them."""

    def __init__(self, mean: float = 3.0, random_state: int | None = None) -> None:
        super().__init__()
        self.mean = mean
        self.random_state = random_state

    def fit(self, users: np.ndarray, items: np.ndarray, user_bias: np.ndarray, item_bias: np.ndarray) -> "Biased":
        self._vectors = (
            np.column_stack([users, self.mean + user_bias, np.ones(len(users))]).astype(np.float32),
            np.column_stack([items, np.ones(len(items)), item_bias]).astype(np.float32),
        )
        self._set_factors(self._vectors[0][:, :-2], self._vectors[1][:, :-2])
        return self

    @property
    def user_vectors(self) -> np.ndarray:
        return self._vectors[0]

    @property
    def item_vectors(self) -> np.ndarray:
        return self._vectors[1]

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"user_vectors": self._vectors[0], "item_vectors": self._vectors[1]}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self._vectors = arrays["user_vectors"], arrays["item_vectors"]
        self._set_factors(self._vectors[0][:, :-2], self._vectors[1][:, :-2])


@pytest.fixture(scope="module")
def clicks() -> sparse.csr_array:
    return sparse.csr_array((np.random.default_rng(5).random((USERS, ITEMS)) < 0.2).astype(np.float32))


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(6).standard_normal((ITEMS, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model(clicks: sparse.csr_array) -> gm.IALS:
    return gm.IALS(RANK, 0.01, 0.01, iterations=4, solver="cholesky", random_state=0).fit(clicks)


@pytest.fixture(scope="module")
def biased() -> Biased:
    rng = np.random.default_rng(7)
    return Biased().fit(
        rng.standard_normal((USERS, RANK)),
        rng.standard_normal((ITEMS, RANK)),
        rng.standard_normal(USERS),
        2 * rng.standard_normal(ITEMS),
    )


@pytest.fixture(params=["ials", "biased"])
def either(request: pytest.FixtureRequest, model: gm.IALS, biased: Biased) -> FactorModel:
    return model if request.param == "ials" else biased


# --- lists -------------------------------------------------------------------------------------------------------


@given(data=st.data())
@settings(deadline=None)
def test_a_list_is_the_sorted_scores_of_what_is_allowed(
    data: st.DataObject, model: gm.IALS, biased: Biased, clicks: sparse.csr_array
) -> None:
    asked = data.draw(st.sampled_from([model, biased]))
    some_items = st.none() | st.lists(st.integers(0, ITEMS - 1))
    users = data.draw(st.lists(st.integers(0, USERS - 1), min_size=1, max_size=4))
    only, never, liked = data.draw(some_items), data.draw(some_items), data.draw(st.booleans())
    n = data.draw(st.integers(1, ITEMS + 5))
    found, scores = asked.recommend(users, clicks[users], n, liked, filter_items=never, items=only)
    for j, user in enumerate(users):
        allowed = set(range(ITEMS) if only is None else only) - set(never or ())
        if liked:
            allowed -= set(clicks[[user]].indices.tolist())
        every = asked.user_vectors[user] @ asked.item_vectors.T
        wanted = sorted(allowed, key=lambda item: -every[item])[:n]
        assert found[j].tolist() == wanted
        assert np.allclose(scores[j], every[wanted], atol=1e-5)
        assert found[j].dtype == np.int32 and scores[j].dtype == np.float32


def test_biases_decide_lists_and_do_not_disturb_neighbours(biased: Biased, clicks: sparse.csr_array) -> None:
    ids, _ = biased.recommend(0, clicks[0], N=3, filter_already_liked_items=False)
    by_factor = np.argsort(-(biased.item_factors @ biased.user_factors[0]))[:3]
    assert set(np.asarray(ids).tolist()) != set(by_factor.tolist())
    unit = biased.item_factors / np.linalg.norm(biased.item_factors, axis=1, keepdims=True)
    near, cosines = biased.similar_items(4, N=ITEMS)
    assert np.asarray(near).tolist() == np.argsort(-(unit @ unit[4])).tolist()
    assert np.allclose(cosines, np.sort(unit @ unit[4])[::-1], atol=1e-5)


def test_no_users_no_lists(either: FactorModel) -> None:
    ids, scores = either.recommend([], filter_already_liked_items=False)
    assert isinstance(ids, np.ndarray) and isinstance(scores, np.ndarray)
    assert len(ids) == len(scores) == 0


def test_lists_follow_the_factors(clicks: sparse.csr_array) -> None:
    """What is prepared for one fit is not used for the next."""
    model = gm.IALS(RANK, iterations=3, random_state=0)
    answers: list[list[Ranked]] = []
    for matrix in (clicks, clicks[::-1]):
        model.fit(matrix)
        fresh = gm.IALS(RANK, iterations=3, random_state=0).fit(matrix)
        answers.append([])
        for asked in (model, fresh):
            answers[-1] += [asked.recommend(2, matrix[[2]]), asked.similar_items(2), asked.similar_users(2)]
        for ours, wanted in zip(answers[-1][:3], answers[-1][3:], strict=True):
            assert np.array_equal(ours[0], wanted[0]) and np.array_equal(ours[1], wanted[1])
    assert not np.allclose(answers[0][2][1], answers[1][2][1])


def test_factors_cannot_be_written_to(either: FactorModel) -> None:
    for table in (either.user_factors, either.item_factors):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 0


# --- pairs -------------------------------------------------------------------------------------------------------


def test_predict_is_the_inner_product_of_vectors(either: FactorModel, monkeypatch: pytest.MonkeyPatch) -> None:
    every = either.user_vectors @ either.item_vectors.T
    users, items = (np.random.default_rng(0).integers(0, n, 100) for n in (USERS, ITEMS))
    monkeypatch.setattr(retrieval, "_PAIRS", 7)
    found = either.predict(users, items)
    assert (found.dtype, found.shape) == (np.float32, (100,))
    assert np.allclose(found, every[users, items], atol=1e-5)
    assert np.allclose(either.predict(3, items), every[3, items], atol=1e-5)
    assert np.allclose(either.predict(users, 3), every[users, 3], atol=1e-5)
    alone = either.predict(3, 4)
    assert np.ndim(alone) == 0 and alone == pytest.approx(every[3, 4], abs=1e-5)
    assert either.predict([3], [4]).shape == (1,)
    assert either.predict([], []).shape == either.predict(3, []).shape == (0,)


def test_pairs_that_are_none(either: FactorModel) -> None:
    with pytest.raises(InvalidInput, match="2 users and 3 items"):
        either.predict([0, 1], [0, 1, 2])
    with pytest.raises(InvalidInput, match="1 users and 3 items"):
        either.predict([0], [0, 1, 2])
    with pytest.raises(UnknownId, match="user 30 is not in this model"):
        either.predict([0, 30], [0, 1])
    with pytest.raises(UnknownId, match="item -1 is not in this model"):
        either.predict(0, -1)


# --- items again -------------------------------------------------------------------------------------------------


def item_solve(model: gm.IALS, history: np.ndarray, weights: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """(a0 WᵀW + lam r I + Xᵀ C X) h = Xᵀ C 1 + lam r p, in float64."""
    w = model.user_factors.astype(float)
    a0, lam, nu, *_ = astuple(model.objective)
    ridge = lam * (len(history) + a0 * len(w)) ** nu
    x = w[history]
    matrix = a0 * w.T @ w + ridge * np.eye(RANK) + (x.T * weights) @ x
    return np.linalg.solve(matrix, x.T @ weights + ridge * prior)


def test_an_item_recalculated_is_its_row_solve(model: gm.IALS, clicks: sparse.csr_array) -> None:
    item_users = sparse.csr_array(2.5 * clicks.T)
    items = np.asarray([7, 0, 39])
    found = model.recalculate_item(items, item_users[items])
    assert (found.dtype, found.shape) == (np.float32, (3, RANK))
    for row, item in zip(found, items, strict=True):
        history = item_users[[item]].indices
        wanted = item_solve(model, history, np.full(len(history), 2.5), np.zeros(RANK))
        assert np.abs(row - wanted).max() < 1e-4 * np.abs(wanted).max()
        assert np.array_equal(model.recalculate_item(int(item), item_users[item]), row)
    unit = model.item_factors / np.linalg.norm(model.item_factors, axis=1, keepdims=True)
    near, cosines = model.similar_items(items, 6, recalculate_item=True, item_users=item_users[items])
    for j in range(3):
        wanted = unit @ (found[j] / np.linalg.norm(found[j]))
        assert near[j].tolist() == np.argsort(-wanted)[:6].tolist()
        assert np.allclose(cosines[j], np.sort(wanted)[::-1][:6], atol=1e-5)
        alone = model.similar_items(10**6, 6, recalculate_item=True, item_users=item_users[items[j]])
        assert np.array_equal(alone[0], near[j]), "a new item has any number"


def test_items_recalculated_with_their_features(clicks: sparse.csr_array, features: np.ndarray) -> None:
    model = gm.IALS(RANK, 0.01, 0.01, iterations=4, random_state=0).fit(clicks, features)
    item_users, some = sparse.csr_array(clicks.T), [4, 9]
    given = np.concatenate([features[4:5], np.zeros((1, 3), np.float32)])
    found = model.recalculate_item(some, item_users[some], given)
    for row, item, prior in zip(found, some, model.item_prior(given), strict=True):
        history = item_users[[item]].indices
        wanted = item_solve(model, history, np.ones(len(history)), prior)
        assert np.abs(row - wanted).max() < 1e-4 * np.abs(wanted).max()
    near = model.similar_items(4, 3, True, item_users[4], item_features=features[4])
    assert 4 in np.asarray(near[0]).tolist()
    for call in (
        lambda: model.recalculate_item(4, item_users[4]),
        lambda: model.similar_items(4, recalculate_item=True, item_users=item_users[4]),
    ):
        with pytest.raises(InvalidInput, match="pass those of these items as item_features, a zero row"):
            call()
    for bad in (features[:2, :2], features[:3], np.ones(2), np.ones((2, 3, 1))):
        with pytest.raises(InvalidInput, match=r"expected \(2, 3\): a row for each item"):
            model.recalculate_item(some, item_users[some], bad)
    with pytest.raises(InvalidInput, match="row 1 is not"):
        model.recalculate_item(some, item_users[some], np.asarray([[0, 0, 0], [0, np.nan, 0]]))
    with pytest.raises(InvalidInput, match=r"expected \(n, 3\)"):
        model.item_prior(np.ones((4, 2)))


def test_histories_of_items_that_are_missing_or_bad(model: gm.IALS, clicks: sparse.csr_array) -> None:
    with pytest.raises(InvalidInput, match=r"pass item_users\[itemid\]"):
        model.similar_items(3, recalculate_item=True)
    with pytest.raises(InvalidInput, match=r"item_users has shape \(1, 40\), expected \(1, 30\): it looks transposed"):
        model.recalculate_item(3, clicks[3])
    with pytest.raises(InvalidInput, match=r"40 rows for 1 items asked for: pass item_users\[itemid\]"):
        model.recalculate_item(3, clicks.T)
    with pytest.raises(InvalidInput, match="item_users holds a negative weight"):
        model.recalculate_item(3, -sparse.csr_array(clicks.T)[3])
    with pytest.raises(InvalidInput, match="fitted without item_features"):
        model.recalculate_item(3, sparse.csr_array(clicks.T)[3], np.ones(3))


def test_a_model_that_cannot_recalculate_says_so(biased: Biased, clicks: sparse.csr_array) -> None:
    with pytest.raises(InvalidInput, match="Biased cannot recalculate a user"):
        biased.recalculate_user(0, clicks[0])
    with pytest.raises(InvalidInput, match="Biased cannot recalculate a user"):
        biased.recommend(0, clicks[0], recalculate_user=True)
    with pytest.raises(InvalidInput, match="Biased cannot recalculate an item"):
        biased.recalculate_item(0, sparse.csr_array(clicks.T)[0])


def test_a_progress_bar_in_the_place_of_features(clicks: sparse.csr_array) -> None:
    with pytest.raises(InvalidInput, match="show_progress=False"):
        gm.IALS().fit(clicks, False)  # pyright: ignore[reportArgumentType]


# --- explanations ------------------------------------------------------------------------------------------------


@given(data=st.data())
@settings(deadline=None)
def test_shares_sum_to_the_score(data: st.DataObject, model: gm.IALS, clicks: sparse.csr_array) -> None:
    user, item = data.draw(st.integers(0, USERS - 1)), data.draw(st.integers(0, ITEMS - 1))
    weight = data.draw(st.sampled_from([0.1, 1.0, 30.0, 1e7]))
    score, parts, weights = model.explain(user, weight * clicks, item, N=ITEMS)
    assert score == pytest.approx(sum(share for _, share in parts), rel=1e-6, abs=1e-9)
    folded = model.recalculate_user(user, weight * clicks[user]) @ model.item_factors[item]
    assert score == pytest.approx(folded, rel=1e-3, abs=1e-5)
    shares = [share for _, share in parts]
    assert shares == sorted(shares, reverse=True)
    assert sorted(item for item, _ in parts) == clicks[[user]].indices.tolist()
    n = data.draw(st.integers(1, 5))
    again = model.explain(user, weight * clicks[user], item, user_weights=weights, N=n)
    assert again[0] == pytest.approx(score, rel=1e-6, abs=1e-9)
    assert again[1] == parts[:n]


def test_an_explanation_is_of_the_stored_score_when_users_are_solved_exactly(
    model: gm.IALS, clicks: sparse.csr_array
) -> None:
    for user in range(5):
        ids, scores = model.recommend(user, clicks[user], N=1)
        assert model.explain(user, clicks, int(ids[0]))[0] == pytest.approx(float(scores[0]), abs=1e-4)


def test_a_share_is_what_goes_with_the_item_when_the_system_stays(model: gm.IALS, clicks: sparse.csr_array) -> None:
    """Hu et al., section 5: W^u of the whole history, applied to one item of it."""
    history = clicks[[3]].indices
    _, parts, _ = model.explain(3, clicks, 8, N=1)
    h = model.item_factors.astype(float)
    a0, lam, nu, *_ = astuple(model.objective)
    ridge = lam * (len(history) + a0 * ITEMS) ** nu
    system = a0 * h.T @ h + ridge * np.eye(RANK) + h[history].T @ h[history]
    shares = h[history] @ np.linalg.solve(system, h[8])
    assert parts[0][0] == history[np.argmax(shares)]
    assert parts[0][1] == pytest.approx(shares.max(), abs=1e-6)


def test_nothing_explains_a_user_without_history(model: gm.IALS) -> None:
    score, parts, _ = model.explain(0, sparse.csr_array((1, ITEMS)), 3)
    assert (score, parts) == (0.0, [])


def test_explanations_that_cannot_be_given(model: gm.IALS, clicks: sparse.csr_array) -> None:
    assert model.explain(10**6, clicks[3], 3)[0] == model.explain(3, clicks, 3)[0], "one row: a user of any number"
    assert model.explain(3, clicks.toarray(), 3)[0] == model.explain(3, clicks.tocoo(), 3)[0]
    for user in (-1, USERS):
        with pytest.raises(UnknownId, match=f"user {user} has no row in user_items, which has 30 rows"):
            model.explain(user, clicks, 3)
    with pytest.raises(UnknownId, match="item 40 is not in this model"):
        model.explain(3, clicks, ITEMS)
    with pytest.raises(InvalidInput, match="itemid is .*one integer"):
        model.explain(3, clicks, [1, 2])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidInput, match="transposed"):
        model.explain(3, clicks.T, 3)
    with pytest.raises(InvalidInput, match="N is 0"):
        model.explain(3, clicks, 3, N=0)
    with pytest.raises(InvalidInput, match="pass what explain returned last for this user"):
        model.explain(3, clicks, 3, (np.eye(3), True))
    with pytest.raises(InvalidInput, match="scale them down"):
        model.explain(3, sparse.csr_array(([3e38], ([0], [5])), shape=(1, ITEMS)), 3)


# --- settings ----------------------------------------------------------------------------------------------------


def test_settings_are_the_constructor_s_arguments() -> None:
    model = gm.IALS(8, nu=0.5, solver="cholesky", random_state=3)
    params = model.get_params()
    assert params == model.get_params(deep=False)
    assert (params["factors"], params["nu"], params["solver"], params["random_state"]) == (8, 0.5, "cholesky", 3)
    assert gm.IALS(**params).get_params() == params
    assert eval(repr(model), {"IALS": gm.IALS}).get_params() == params
    assert repr(Biased(2.5)) == "Biased(mean=2.5, random_state=None)"


def test_settings_change_together_or_not_at_all(model: gm.IALS) -> None:
    fresh = gm.IALS()
    assert fresh.set_params(nu=0.5, factors=7) is fresh
    assert (fresh.nu, fresh.factors) == (0.5, 7)
    assert fresh.set_params() is fresh
    assert type(fresh.set_params(regularization=1, factors=np.int64(7)).factors) is int
    assert type(fresh.regularization) is float, "as the constructor keeps them"
    before = fresh.get_params()
    with pytest.raises(InvalidInput, match="regularization is -1"):
        fresh.set_params(nu=1.0, regularization=-1)
    with pytest.raises(InvalidInput, match="IALS has no setting 'regularisation'; the nearest is 'regularization'"):
        fresh.set_params(nu=1.0, regularisation=0.1)
    with pytest.raises(InvalidInput, match="no setting 'user_factors'"):
        fresh.set_params(user_factors=1)
    assert fresh.get_params() == before


def test_scikit_learn_clones_a_model(model: gm.IALS) -> None:
    base = pytest.importorskip("sklearn.base", reason="scikit-learn is not installed")
    copy: Any = base.clone(model)
    assert copy.get_params() == model.get_params()
    with pytest.raises(InvalidInput, match="no factors yet"):
        copy.user_factors  # noqa: B018


def test_folding_in_obeys_the_settings_of_the_moment(clicks: sparse.csr_array) -> None:
    model = gm.IALS(RANK, regularization=0.01, iterations=2, random_state=0).fit(clicks)
    loose, stored = model.recalculate_user(0, clicks[0]), model.user_factors[0].copy()
    tight = model.set_params(regularization=10.0).recalculate_user(0, clicks[0])
    assert np.linalg.norm(tight) < 0.5 * np.linalg.norm(loose)
    assert np.array_equal(model.user_factors[0], stored)
    assert np.array_equal(model.set_params(regularization=0.01).recalculate_user(0, clicks[0]), loose)
    open_again = model.set_params(regularization=None).recalculate_user(0, clicks[0])
    assert np.array_equal(open_again, loose), "what is left open stays as the fit had it"


# --- files -------------------------------------------------------------------------------------------------------


def test_what_was_saved_answers_alike(either: FactorModel, clicks: sparse.csr_array, tmp_path: Path) -> None:
    path = tmp_path / "model"
    either.save(path)
    loaded = type(either).load(path)
    assert loaded.get_params() == either.get_params()
    for ours, wanted in zip(
        [*loaded.recommend([1, 2], clicks[[1, 2]]), *loaded.similar_items(3), loaded.predict(3, 4)],
        [*either.recommend([1, 2], clicks[[1, 2]]), *either.similar_items(3), either.predict(3, 4)],
        strict=True,
    ):
        assert np.array_equal(ours, wanted)


def test_a_file_of_another_kind_of_model_is_refused(biased: Biased, tmp_path: Path) -> None:
    biased.save(tmp_path / "model")
    with pytest.raises(IncompatibleIndex, match="'Biased', format .*; expected 'IALS'"):
        gm.IALS.load(tmp_path / "model")


def test_a_generator_is_no_setting_that_a_file_can_keep(clicks: sparse.csr_array, tmp_path: Path) -> None:
    model = gm.IALS(2, iterations=1, random_state=np.random.default_rng(0)).fit(clicks)
    model.save(tmp_path / "model")
    assert gm.IALS.load(tmp_path / "model").random_state is None
