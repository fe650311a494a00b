"""IALS by its front door: the checkerboard, the filters, the refusals, what is promised about seeds and views."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from threadpoolctl import threadpool_info

import geo_mf as gm
from geo_mf.errors import FitDiverged, InvalidInput, UnknownId
from geo_mf.geometry.prior import RidgePrior

SIZE = 40


@pytest.fixture(scope="module")
def parity() -> np.ndarray:
    """Features [SIZE, 2] that tell even items from odd ones."""
    return np.eye(2, dtype=np.float32)[np.arange(SIZE) % 2]


@pytest.fixture(scope="module")
def model(checkerboard: sparse.csr_array) -> gm.IALS:
    return gm.IALS(factors=8, iterations=8, random_state=0).fit(checkerboard)


@pytest.mark.parametrize("solver", ["cg", "cholesky"])
@pytest.mark.parametrize("features", [False, True])
def test_the_withheld_diagonal_is_each_user_s_top_item(
    checkerboard: sparse.csr_array, parity: np.ndarray, solver: Any, features: bool
) -> None:
    model = gm.IALS(factors=8, iterations=8, solver=solver, random_state=0)
    model.fit(checkerboard, parity if features else None)
    users = np.arange(SIZE)
    for again in (False, True):
        ids, scores = model.recommend(users, checkerboard, N=2, recalculate_user=again)
        assert isinstance(ids, np.ndarray)
        assert ids[:, 0].tolist() == users.tolist()
        assert np.all(np.asarray(scores)[:, 0] > np.asarray(scores)[:, 1] + 0.3)


def test_types_and_order(model: gm.IALS, checkerboard: sparse.csr_array) -> None:
    assert model.user_factors.dtype == model.item_factors.dtype == np.float32
    assert model.user_factors.shape == model.item_factors.shape == (SIZE, 8)
    ids, scores = model.recommend(3, checkerboard[3], N=7)
    assert isinstance(ids, np.ndarray)
    assert isinstance(scores, np.ndarray)
    assert (ids.dtype, scores.dtype, ids.shape, scores.shape) == (np.int32, np.float32, (7,), (7,))
    assert np.all(np.diff(scores) <= 0)
    assert scores == pytest.approx((model.item_factors @ model.user_factors[3])[ids], abs=1e-6)


def test_a_batch_is_many_single_calls(model: gm.IALS, checkerboard: sparse.csr_array) -> None:
    users = np.asarray([5, 0, 39, 5])
    calls: list[Callable[[Any], Any]] = [
        lambda u: model.recommend(u, checkerboard[u], N=4),
        lambda u: model.recommend(u, checkerboard[u], N=4, recalculate_user=True),
        lambda u: model.recommend(u, N=4, filter_already_liked_items=False),
        lambda u: model.similar_items(u, N=4),
        lambda u: model.similar_users(u, N=4),
    ]
    for call in calls:
        ids, scores = call(users)
        assert ids.shape == scores.shape == (4, 4)
        for j, user in enumerate(users):
            alone = call(int(user))
            assert np.sort(alone[1])[::-1] == pytest.approx(scores[j], abs=1e-5)
            # Items of one parity tie up to rounding, so the order of the ids says nothing.
            assert model.item_factors[alone[0]] == pytest.approx(model.item_factors[ids[j]], abs=0.05)
    folded = model.recalculate_user(users, checkerboard[users])
    assert np.array_equal(folded[1], model.recalculate_user(0, checkerboard[0]))


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csr_matrix, sparse.csc_array, sparse.coo_array])
def test_any_sparse_kind_and_dtype_gives_the_same_factors_and_is_left_alone(
    kind: Any, checkerboard: sparse.csr_array, model: gm.IALS
) -> None:
    for dtype in (np.float32, np.float64, np.int64, bool):
        given = kind(checkerboard.astype(dtype))
        before = given.copy()
        fitted = gm.IALS(factors=8, iterations=8, random_state=0).fit(given)
        assert np.array_equal(fitted.item_factors, model.item_factors)
        assert given.dtype == dtype
        assert (given != before).nnz == 0
    row = kind(checkerboard).tocsr()[3]  # one row of a csr_array has one dimension, of a csr_matrix two
    assert np.array_equal(model.recommend(3, row)[0], model.recommend(3, checkerboard[[3]])[0])


def test_entries_stored_twice_are_summed_and_stored_zeros_are_not_seen() -> None:
    twice = sparse.csr_array(([1.0, 2.0, 0.0, 1.0], ([0, 0, 0, 1], [1, 1, 2, 0])), shape=(2, 3))
    once = sparse.csr_array(np.asarray([[0.0, 3.0, 0.0], [1.0, 0.0, 0.0]]))
    a, b = (gm.IALS(factors=2, iterations=2, random_state=0).fit(matrix) for matrix in (twice, once))
    assert np.array_equal(a.user_factors, b.user_factors)
    ids, _ = a.recommend(0, twice[[0]], N=3)
    assert set(np.asarray(ids).tolist()) == {0, 2}
    unsorted = sparse.csr_array((np.asarray([1.0, 1, 2, 0], np.float32), [2, 1, 1, 0], [0, 3, 4]), shape=(2, 3))
    gm.IALS(factors=2, iterations=1).fit(unsorted)
    assert unsorted.indices.tolist() == [2, 1, 1, 0], "the input stays as it is"
    assert unsorted.data.tolist() == [1, 1, 2, 0]


# --- seeds and threads -------------------------------------------------------------------------------------------


def quick(matrix: sparse.csr_array, seed: Any, threads: int = 0) -> np.ndarray:
    return gm.IALS(factors=8, iterations=2, random_state=seed, num_threads=threads).fit(matrix).item_factors


def test_a_seed_decides_the_factors(checkerboard: sparse.csr_array) -> None:
    first = quick(checkerboard, 0)
    assert np.array_equal(first, quick(checkerboard, 0))
    assert np.array_equal(first, quick(checkerboard, np.int64(0)))
    assert np.array_equal(first, quick(checkerboard, np.random.default_rng(0)))
    assert not np.allclose(first, quick(checkerboard, 1))
    assert not np.allclose(quick(checkerboard, None), quick(checkerboard, None))
    old = quick(checkerboard, np.random.RandomState(0))
    assert np.array_equal(old, quick(checkerboard, np.random.RandomState(0)))
    assert not np.allclose(old, quick(checkerboard, np.random.RandomState(1)))


def test_the_number_of_threads_does_not_change_the_factors(checkerboard: sparse.csr_array) -> None:
    assert np.array_equal(quick(checkerboard, 0, 1), quick(checkerboard, 0, 2))
    assert np.array_equal(quick(checkerboard, 0, 1), quick(checkerboard, 0, 5))


def test_fits_at_the_same_time_do_not_disturb_each_other(checkerboard: sparse.csr_array) -> None:
    before = [pool["num_threads"] for pool in threadpool_info()]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda seed: quick(checkerboard, seed), [0, 1, 0]))
    assert np.array_equal(found[0], quick(checkerboard, 0))
    assert np.array_equal(found[1], quick(checkerboard, 1))
    assert np.array_equal(found[2], found[0])
    assert [pool["num_threads"] for pool in threadpool_info()] == before, "BLAS has its threads back"


def test_a_callback_sees_every_epoch_and_may_fit_a_model_of_its_own(checkerboard: sparse.csr_array) -> None:
    seen: list[tuple[int, float, float | None]] = []

    def callback(epoch: int, seconds: float, loss: float | None) -> None:
        seen.append((epoch, seconds, loss))
        quick(checkerboard, 1)

    model = gm.IALS(factors=8, iterations=3, random_state=0, calculate_training_loss=True)
    thread = threading.Thread(target=lambda: model.fit(checkerboard, callback=callback), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert [epoch for epoch, _, _ in seen] == [0, 1, 2]
    assert all(seconds > 0 for _, seconds, _ in seen)
    losses = [loss for _, _, loss in seen if loss is not None]
    assert len(losses) == 3
    assert losses[2] < losses[1] < losses[0]
    seen.clear()
    gm.IALS(factors=8, iterations=2, random_state=0).fit(checkerboard, callback=lambda *told: seen.append(told))
    assert [loss for _, _, loss in seen] == [None, None]


def test_progress_goes_to_stderr_and_only_when_asked(
    checkerboard: sparse.csr_array, capsys: pytest.CaptureFixture[str]
) -> None:
    model = gm.IALS(factors=8, iterations=2, random_state=0, calculate_training_loss=True)
    model.fit(checkerboard)
    assert capsys.readouterr() == ("", "")
    model.fit(checkerboard, show_progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/2" in err
    assert "loss" in err


def test_no_iterations_leave_the_start(checkerboard: sparse.csr_array) -> None:
    start = gm.IALS(factors=8, iterations=0, random_state=0).fit(checkerboard)
    assert np.std(start.item_factors) == pytest.approx(0.1 / np.sqrt(8), rel=0.1)


# --- cold rows ---------------------------------------------------------------------------------------------------


def test_a_cold_item_takes_its_factor_from_its_features(checkerboard: sparse.csr_array, parity: np.ndarray) -> None:
    cold = sparse.csr_array(sparse.hstack([checkerboard, sparse.csr_array((SIZE, 2))]))
    features = np.concatenate([parity, parity[:1], np.zeros((1, 2), np.float32)])
    model = gm.IALS(factors=8, iterations=8, random_state=0).fit(cold, features)
    scores = model.user_factors @ model.item_factors[SIZE]
    assert scores[::2].min() > 1.5 * scores[1::2].max(), "it is worded like the even items"
    assert not model.item_factors[SIZE + 1].any(), "no features, no factor"
    assert model.item_prior(parity[0]).shape == (1, 8)
    assert model.item_prior(parity)[:, 0].std() > 0
    assert not model.item_prior(np.zeros((1, 2))).any()
    # Nobody's items teach nothing: the map is the regression over the others, each with the weight of its ridge.
    weights = np.r_[np.bincount(checkerboard.indices) + 0.01 * SIZE, 0, 0]
    regression = RidgePrior.of(features, weights, 10.0).fit(model.item_factors)
    assert model.prior_coefficients == pytest.approx(regression, abs=1e-5)


def test_without_features_cold_rows_are_zero(checkerboard: sparse.csr_array) -> None:
    cold = sparse.csr_array(sparse.block_diag([checkerboard, sparse.csr_array((1, 2))]))
    model = gm.IALS(factors=8, iterations=3, unobserved_weight=1e-4, random_state=0).fit(cold)
    assert model.prior_coefficients is None
    assert not model.user_factors[SIZE].any()
    assert not model.item_factors[SIZE:].any()
    with pytest.raises(InvalidInput, match="fitted without item_features"):
        model.item_prior(np.zeros((1, 2)))


def test_features_of_nobody_s_items_change_nothing(checkerboard: sparse.csr_array) -> None:
    """Zero rows say "no features": the fit is the fit without them."""
    with_zeros = gm.IALS(factors=8, iterations=4, random_state=0).fit(checkerboard, np.zeros((SIZE, 3)))
    without = gm.IALS(factors=8, iterations=4, random_state=0).fit(checkerboard)
    assert with_zeros.item_factors == pytest.approx(without.item_factors, abs=1e-5)
    assert with_zeros.prior_coefficients is not None
    assert not with_zeros.prior_coefficients.any()


# --- filters -----------------------------------------------------------------------------------------------------


def test_n_beyond_what_is_left_gives_a_short_list(model: gm.IALS, checkerboard: sparse.csr_array) -> None:
    liked = set(checkerboard[[3]].indices.tolist())
    for n in (SIZE, 10**9):
        ids, scores = model.recommend(3, checkerboard[3], N=n)
        assert sorted(np.asarray(ids).tolist()) == sorted(set(range(SIZE)) - liked)
        assert np.isfinite(scores).all()
    assert len(model.similar_items(3, N=10**9)[0]) == SIZE
    assert len(model.similar_users(3, N=10**9)[0]) == SIZE


def test_rows_with_lists_of_different_lengths(model: gm.IALS, checkerboard: sparse.csr_array) -> None:
    rows = sparse.csr_array(sparse.vstack([checkerboard[[0]], sparse.csr_array((1, SIZE)), np.ones((1, SIZE))]))
    ids, scores = model.recommend([0, 1, 2], rows, N=SIZE)
    assert [len(row) for row in ids] == [len(row) for row in scores] == [SIZE - 19, SIZE, 0]


def test_filters_compose(model: gm.IALS, checkerboard: sparse.csr_array) -> None:
    liked = checkerboard[[3]].indices.tolist()
    only = [3, 5, 7, 8, 9, 9]
    ids, _ = model.recommend(3, checkerboard[3], N=9, items=only, filter_items=[8, 2])
    assert sorted(np.asarray(ids).tolist()) == sorted(set(only) - {8} - set(liked))
    ids, _ = model.recommend(3, N=9, items=only, filter_items=[8], filter_already_liked_items=False)
    assert sorted(np.asarray(ids).tolist()) == [3, 5, 7, 9]
    ids, _ = model.recommend(3, checkerboard[3], items=[], N=9)
    assert len(ids) == 0
    ids, _ = model.similar_items(3, N=9, items=only, filter_items=[3])
    assert sorted(np.asarray(ids).tolist()) == [5, 7, 8, 9]
    ids, _ = model.similar_users(3, N=9, users=only, filter_users=[3])
    assert sorted(np.asarray(ids).tolist()) == [5, 7, 8, 9]


def test_similar_rows_are_the_nearest_by_cosine(model: gm.IALS) -> None:
    for search, table in ((model.similar_items, model.item_factors), (model.similar_users, model.user_factors)):
        unit = table / np.linalg.norm(table, axis=1, keepdims=True)
        ids, scores = search(4, N=SIZE)
        assert scores == pytest.approx((unit @ unit[4])[ids], abs=1e-5)
        assert scores[0] == pytest.approx(1)
        assert set(np.asarray(ids)[:20].tolist()) == set(range(0, SIZE, 2))


def test_nothing_is_normalised_in_place(model: gm.IALS, checkerboard: sparse.csr_array) -> None:
    factors = model.user_factors.copy(), model.item_factors.copy()
    before = model.recommend(5, checkerboard[5])
    model.similar_items(5)
    model.similar_users(5)
    model.recalculate_user(5, checkerboard[5])
    after = model.recommend(5, checkerboard[5])
    assert np.array_equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    assert np.array_equal(factors[0], model.user_factors)
    assert np.array_equal(factors[1], model.item_factors)


def test_zero_factors_are_similar_to_nothing_and_make_no_nan(checkerboard: sparse.csr_array) -> None:
    cold = sparse.csr_array(sparse.hstack([checkerboard, sparse.csr_array((SIZE, 1))]))
    _, scores = gm.IALS(factors=8, iterations=2, random_state=0).fit(cold).similar_items(SIZE, N=SIZE + 1)
    assert not np.asarray(scores).any()


# --- refusals ----------------------------------------------------------------------------------------------------


def with_value(value: float) -> sparse.csr_array:
    matrix = sparse.csr_array(np.eye(3))
    matrix.data[1] = value
    return matrix


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (with_value(np.nan), "NaN"),
        (with_value(np.inf), "infinity"),
        (with_value(-np.inf), "negative"),
        (with_value(1e300), "beyond float32"),
        (sparse.csr_array((np.full(2, 3e38, np.float32), [0, 0], [0, 2])), "beyond float32"),
        (with_value(-1), r"negative weight \(-1\)"),
        (sparse.csr_array(np.eye(3) * 1j), "complex128: weights must be real"),
        (np.full((2, 2), "a"), "real numbers"),
        (sparse.csr_array((3, 4)), "no interactions"),
        (sparse.csr_array((0, 4)), "at least one user"),
        (sparse.csr_array((4, 0)), "at least one user"),
        (sparse.coo_array(np.ones(3)), "at least one user and one item"),
        (np.ones(3), "shape \\[users, items\\]"),
        ([[1, 0]], "list: give a scipy sparse matrix"),
        (None, "NoneType"),
    ],
)
def test_a_bad_matrix(matrix: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        gm.IALS(factors=2, iterations=1).fit(matrix)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones((SIZE + 1, 2)), r"shape \(41, 2\), expected \(40, dim\)"),
        (np.ones((30, 2)), "one row per user, so user_items may be transposed"),
        (np.ones(SIZE), "expected"),
        (sparse.csr_array(np.ones((SIZE, 2))), "toarray"),
        (np.full((SIZE, 2), np.nan), "row 0 is not"),
        (np.full((SIZE, 2), 1e300), "row 0 is not"),
        (np.full((SIZE, 2), "a"), "table of numbers"),
    ],
)
def test_bad_features(features: Any, message: str, checkerboard: sparse.csr_array) -> None:
    with pytest.raises(InvalidInput, match=message):
        gm.IALS(factors=2, iterations=1).fit(checkerboard[:30], features)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"factors": 0}, "factors is 0; it must be a whole number of at least 1"),
        ({"factors": 2.5}, "whole number"),
        ({"factors": True}, "whole number"),
        ({"regularization": 0}, "regularization is 0; it must be a finite number above 0"),
        ({"regularization": np.nan}, "finite"),
        ({"regularization": np.inf}, "finite"),
        ({"regularization": "0.1"}, "regularization is '0.1'"),
        ({"unobserved_weight": -1}, "unobserved_weight is -1"),
        ({"iterations": -1}, "iterations is -1"),
        ({"iterations": 2.5}, "iterations is 2.5"),
        ({"nu": 3}, "between 0 and 2"),
        ({"solver": "lu"}, "solver is 'lu'; it must be 'cg' or 'cholesky'"),
        ({"solver": ["cg"]}, "solver"),
        ({"cg_steps": 0}, "cg_steps is 0"),
        ({"prior_regularization": 0}, "prior_regularization is 0"),
        ({"num_threads": -1}, "num_threads is -1"),
        ({"random_state": -1}, "random_state is -1"),
        ({"random_state": "seed"}, "random_state is 'seed'"),
    ],
)
def test_a_bad_setting(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        gm.IALS(**setting)


def test_a_transposed_matrix_is_named(checkerboard: sparse.csr_array) -> None:
    wide = checkerboard[:30]  # 30 users, 40 items
    model = gm.IALS(factors=8, iterations=2, random_state=0).fit(wide)
    users = np.arange(30)
    turned = sparse.csr_array(wide.T)
    for call in (
        lambda: model.recommend(users, turned),
        lambda: model.recommend(3, turned[3]),
        lambda: model.recommend(3, turned[[3]]),
        lambda: model.recalculate_user(users, turned),
    ):
        with pytest.raises(InvalidInput, match="transposed"):
            call()
    with pytest.raises(InvalidInput, match=r"30 rows for 1 users asked for: pass user_items\[userid\]"):
        model.recommend(3, wide)
    with pytest.raises(InvalidInput, match=r"shape \(1, 7\), expected \(1, 40\): pass user_items\[userid\], with 40"):
        model.recommend(3, wide[[3], :7])


@pytest.mark.parametrize("bad", [-1, SIZE, 10**12, [0, -3], np.uint64(2**63)])
def test_ids_out_of_range(bad: Any, model: gm.IALS) -> None:
    with pytest.raises(UnknownId, match=r"is not in this model: its users are 0 to 39"):
        model.recommend(bad, filter_already_liked_items=False)
    with pytest.raises(UnknownId, match="its users are 0 to 39"):
        model.similar_users(bad)
    with pytest.raises(UnknownId, match="its items are 0 to 39"):
        model.similar_items(bad)
    with pytest.raises(UnknownId, match="its items are 0 to 39"):
        model.similar_items(0, items=np.atleast_1d(bad))
    with pytest.raises(UnknownId, match="its items are 0 to 39"):
        model.recommend(0, filter_already_liked_items=False, filter_items=np.atleast_1d(bad))


@pytest.mark.parametrize("bad", [1.5, "3", True, None, [[1, 2]], [1.0]])
def test_ids_that_are_no_integers(bad: Any, model: gm.IALS) -> None:
    with pytest.raises(InvalidInput, match="one integer or a flat list of integers"):
        model.recommend(bad, filter_already_liked_items=False)
    with pytest.raises(InvalidInput, match="one integer or a flat list of integers"):
        model.similar_items(bad)


@pytest.mark.parametrize("n", [0, -1, 2.5, True, "3"])
def test_n_that_is_no_count(n: Any, model: gm.IALS, checkerboard: sparse.csr_array) -> None:
    with pytest.raises(InvalidInput, match=f"N is {n!r}; it must be a whole number of at least 1"):
        model.recommend(0, checkerboard[0], N=n)
    with pytest.raises(InvalidInput, match=f"N is {n!r}"):
        model.similar_items(0, N=n)


def test_a_history_that_is_missing_or_bad(model: gm.IALS, checkerboard: sparse.csr_array) -> None:
    with pytest.raises(InvalidInput, match="user_items is needed"):
        model.recommend(0)
    with pytest.raises(InvalidInput, match="user_items is needed"):
        model.recommend(0, filter_already_liked_items=False, recalculate_user=True)
    bad = checkerboard[[0]]
    bad.data[0] = np.nan
    with pytest.raises(InvalidInput, match="NaN"):
        model.recommend(0, bad)
    assert len(model.recommend(10**6, checkerboard[0], recalculate_user=True)[0]) == 10, "a new user has any number"


def test_before_a_fit(checkerboard: sparse.csr_array) -> None:
    empty = gm.IALS()
    for call in (
        lambda: empty.user_factors,
        lambda: empty.item_factors,
        lambda: empty.recommend(0, checkerboard[0]),
        lambda: empty.similar_items(0),
        lambda: empty.recalculate_user(0, checkerboard[0]),
    ):
        with pytest.raises(InvalidInput, match=r"call fit\(user_items\) first"):
            call()


def test_a_failed_fit_leaves_the_old_factors_and_gives_blas_its_threads_back(checkerboard: sparse.csr_array) -> None:
    before = [pool["num_threads"] for pool in threadpool_info()]
    model = gm.IALS(factors=8, iterations=2, random_state=0).fit(checkerboard)
    old = model.item_factors
    with pytest.raises(FitDiverged, match="scale the weights down"):
        model.fit(checkerboard * 1e38)
    assert model.item_factors is old
    assert [pool["num_threads"] for pool in threadpool_info()] == before
