"""Gradient losses: formulas by hand, gradients of a dense loss, lazy rows, and the front door of GradientMF."""

import dataclasses
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import geo_mf as gm
from geo_mf.factorize import gradient, optimizer_rows
from geo_mf.factorize.fit_gradient import Settings, fit, hold_out, ndcg
from geo_mf.factorize.gradient import Data, Loss, Objective, Touched

LOSSES = get_args(Loss)
USERS, ITEMS, RANK, BATCH, NEGATIVES, HARDEST, PAST = 9, 7, 4, 12, 5, 2, 3
every_loss = pytest.mark.parametrize("loss", LOSSES)


def objective(loss: Loss, regularization: float = 0.03, history: int = 0) -> Objective:
    return Objective(loss, NEGATIVES, 0.3, 0.1, 2.0, regularization, HARDEST, history)


def tables(loss: Loss = "bpr", text: bool = False) -> gradient.Tables:
    rng = np.random.default_rng(0)
    shapes = {"users": USERS, "items": ITEMS} | ({"text": 3} if text else {})
    given = {name: jnp.asarray(rng.standard_normal((n, RANK)), jnp.float32) for name, n in shapes.items()}
    bias = jnp.asarray(rng.standard_normal(ITEMS), jnp.float32)
    return given | ({"bias": bias} if loss in gradient.COSINE else {})


def batch(text: bool = False, popular: bool = False) -> tuple[Data, jax.Array]:
    """Interactions in which rows repeat, and negatives that are among their items."""
    rng = np.random.default_rng(1)
    users, items = np.sort(rng.integers(0, USERS - 2, BATCH)), rng.integers(0, ITEMS - 1, BATCH)
    lengths = np.bincount(users, minlength=USERS)
    chances = np.bincount(items, minlength=ITEMS) / BATCH if popular else np.full(ITEMS, 1 / ITEMS)
    with np.errstate(divide="ignore"):
        log_chance = np.log(chances)
    data = Data(
        jnp.asarray(users, jnp.int32),
        jnp.asarray(items, jnp.int32),
        jnp.asarray(rng.uniform(0.5, 2, BATCH), jnp.float32),
        jnp.asarray(np.cumsum(lengths) - lengths, jnp.int32),
        jnp.asarray(lengths, jnp.int32),
        jnp.asarray(np.cumsum(chances), jnp.float32) if popular else None,
        jnp.asarray(log_chance, jnp.float32),
        jnp.asarray(rng.standard_normal((ITEMS, 3)), jnp.float32) if text else None,
    )
    drawn = jnp.asarray([items[0], items[1], items[0], items[2], items[3]], jnp.int32)
    return data, drawn


def past_items(data: Data, history: int) -> jax.Array:
    return gradient.draw_history(jax.random.key(4), data, jnp.arange(BATCH), history)


def loss_by_hand(given: gradient.Tables, data: Data, drawn: jax.Array, how: Objective) -> float:
    """The docstring's formulas in float64, one interaction and one negative at a time."""
    w, h = (np.asarray(given[name], np.float64) for name in ("users", "items"))
    if data.features is not None:
        h = h + np.asarray(data.features, np.float64) @ np.asarray(given["text"], np.float64)
    past = np.asarray(past_items(data, how.history))
    triples = zip(*(np.asarray(a) for a in (data.users, data.items, data.weights)), strict=True)
    total = 0.0
    for place, (u, i, c) in enumerate(triples):
        total += how.regularization * (w[u] @ w[u] + h[i] @ h[i])
        alone = np.sum(np.asarray(data.users) == u) == 1
        user = w[u] + (0 if alone or not how.history else np.mean([h[j] for j in past[place]], axis=0))

        def score(j: int, user: np.ndarray = user) -> float:
            if how.loss == "mse":
                return float(user @ h[j])
            cosine = user @ h[j] / np.linalg.norm(user) / np.linalg.norm(h[j])
            return float(cosine + 0.1 * given["bias"][j])

        s, others = score(i), [int(j) for j in np.asarray(drawn) if j != i]
        t = np.array([score(j) for j in others])
        if how.loss == "mse":
            total += c * (1 - s) ** 2 + how.negative_weight * np.mean(t**2)
        elif how.loss == "bpr":
            pairs = [[score(int(j)) for j in pair if j != i] for pair in np.split(np.asarray(drawn), [2, 4])]
            best = np.array([max(pair) for pair in pairs if pair])
            total += c * np.mean(np.log1p(np.exp((best - s) / how.temperature)))
        elif how.loss == "softmax":
            q = np.exp(np.asarray(data.log_chance, np.float64))[others]
            mass = np.sum(np.exp(t / how.temperature) / (how.negatives * q))
            total += c * (np.log(np.exp(s / how.temperature) + mass) - s / how.temperature)
        else:
            total += c * (1 - s) + how.negative_weight * np.mean(np.maximum(0, t - how.margin))
    return total


def dense_loss(
    given: gradient.Tables, data: Data, chosen: jax.Array, drawn: jax.Array, past: jax.Array, how: Objective
) -> jax.Array:
    w, h = given["users"], given["items"]
    if data.features is not None:
        h = h + data.features @ given["text"]
    users, items = data.users[chosen], data.items[chosen]
    ridge = how.regularization * (jnp.sum(w[users] ** 2) + jnp.sum(h[items] ** 2))
    u = w[users]
    if how.history:
        u = u + jnp.where((data.lengths[users] > 1)[:, None], h[past].mean(axis=1), 0)
    if how.loss != "mse":
        u, h = gradient.unit(u), gradient.unit(h)
    scores = u @ h.T + (0.1 * given["bias"][None] if how.loss != "mse" else 0)
    own = items[:, None] == drawn[None]
    expected = data.log_chance[drawn] + jnp.log(jnp.float32(how.negatives))
    s = jnp.take_along_axis(scores, items[:, None], axis=1)[:, 0]
    return gradient.batch_loss(s, scores[:, drawn], data.weights[chosen], own, expected, how) + ridge


@every_loss
@pytest.mark.parametrize("text", [False, True], ids=["rows", "text"])
@pytest.mark.parametrize(("popular", "history"), [(False, 0), (True, 0), (False, PAST)])
def test_the_loss_is_its_formula_and_the_gradient_that_of_the_whole_tables(
    loss: Loss, text: bool, popular: bool, history: int
) -> None:
    given, (data, drawn), how = tables(loss, text), batch(text, popular), objective(loss, history=history)
    past, everything = past_items(data, history), jnp.arange(BATCH)
    users = Touched.of(data.users, USERS)
    items = Touched.of(jnp.concatenate([data.items, drawn, past.ravel()]), ITEMS)
    places = {"users": users.rows, "items": items.rows} | ({"bias": items.rows} if loss in gradient.COSINE else {})
    gathered = {name: given[name].at[rows].get(mode="clip") for name, rows in places.items()}
    if text:
        gathered["text"] = given["text"]
    value, by_rows = gradient.rows_gradient(gathered, users, items, data, everything, drawn, how)
    assert float(value) == pytest.approx(loss_by_hand(given, data, drawn, how), rel=1e-5)
    wanted = jax.grad(dense_loss)(given, data, everything, drawn, past, how)
    for name, rows in places.items():
        found = jnp.zeros_like(wanted[name]).at[rows].add(by_rows[name], mode="drop")
        np.testing.assert_allclose(found, wanted[name], rtol=1e-4, atol=1e-5)
    if text:
        np.testing.assert_allclose(by_rows["text"], wanted["text"], rtol=1e-4, atol=1e-5)


def test_a_history_is_drawn_evenly_from_the_users_other_items() -> None:
    data, _ = batch()
    data = dataclasses.replace(data, items=jnp.arange(BATCH, dtype=jnp.int32))  # an interaction is its own item
    past = np.asarray(gradient.draw_history(jax.random.key(5), data, jnp.arange(BATCH), 4000))
    users = np.asarray(data.users)
    for place, user in enumerate(users):
        others = np.flatnonzero((users == user) & (np.arange(BATCH) != place))
        share = np.bincount(past[place], minlength=BATCH) / 4000
        if len(others):
            np.testing.assert_allclose(share[others], 1 / len(others), atol=0.04)
            assert share[others].sum() == pytest.approx(1)
    assert np.any(np.bincount(users) == 1)  # whose draws do not count


def run(optimizer: optax.GradientTransformation, loss: Loss = "bpr", text: bool = False) -> Any:
    given, (data, _) = tables(loss, text), batch(text)
    state = optimizer.init(given)
    how = objective(loss, regularization=0.0, history=PAST)
    return gradient.epoch(dict(given), state, data, jax.random.key(3), optimizer, how, 4, 3)


def _side(tables: gradient.Tables) -> dict[str, str]:
    return {name: "u" if name == "users" else "i" for name in tables}


def _users(tables: gradient.Tables) -> dict[str, str]:
    return dict.fromkeys(tables, "u")


def _no_bias(tables: gradient.Tables) -> dict[str, bool]:
    return {name: name != "bias" for name in tables}


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(0.05),
        optax.sgd(0.05, momentum=0.9),
        optax.adam(optax.exponential_decay(0.05, 1, 0.9)),
        optax.adagrad(0.05),
        optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.05)),
        optax.inject_hyperparams(optax.rmsprop)(learning_rate=0.05),
        optax.chain(optax.masked(optax.scale_by_adam(), _no_bias), optax.scale(-0.05)),
        optax.inject_hyperparams(lambda rate: optax.partition({"u": optax.adam(rate), "i": optax.sgd(rate)}, _side))(
            0.05
        ),
        optax.apply_if_finite(optax.chain(optax.zero_nans(), optax.novograd(0.05)), 2),
        optax.chain(optax.contrib.muon(0.05), optax.contrib.reduce_on_plateau()),
    ],
    ids=[
        "sgd",
        "momentum",
        "adam",
        "adagrad",
        "clipped adamw",
        "injected rmsprop",
        "masked adam",
        "injected labels",
        "novograd",
        "muon on a plateau",
    ],
)
def test_any_optimizer_and_only_touched_rows_move(optimizer: optax.GradientTransformation) -> None:
    before = tables(text=True)
    after, state, value = run(optimizer, text=True)
    moved = np.any(np.asarray(after["users"]) != np.asarray(before["users"]), axis=1)
    touched = np.isin(np.arange(USERS), np.asarray(batch()[0].users))
    assert np.array_equal(moved, touched) and not touched.all()
    assert np.isfinite(float(value)) and np.any(np.asarray(after["text"]) != np.asarray(before["text"]))
    # A plateau's own count begins anew with each mean that it takes.
    counts = optax.tree_utils.tree_get_all_with_path(
        state, "count", lambda path, _: "ReduceLROnPlateau" not in str(path)
    )
    assert all(int(count) == 3 for _, count in counts)


def test_each_table_has_the_optimizer_of_its_label() -> None:
    before = tables()
    after, _, _ = run(optax.partition({"u": optax.sgd(0.05), "i": optax.set_to_zero()}, _side))
    moved, _, _ = run(optax.sgd(0.05))
    assert all(np.array_equal(after[name], before[name]) for name in ("items", "bias"))
    assert np.any(np.asarray(after["users"]) != np.asarray(before["users"]))
    assert np.any(np.asarray(moved["items"]) != np.asarray(before["items"]))


@given(
    users=st.integers(1, 9),
    items=st.integers(1, 9),
    optimizer=st.sampled_from([optax.adam(0.1), optax.sm3(0.1), optax.multi_transform({"u": optax.adam(0.1)}, _users)]),
)
def test_a_part_of_a_state_belongs_to_the_table_it_grows_with(users: int, items: int, optimizer: Any) -> None:
    shapes = {"users": (users, 3), "items": (items, 3), "bias": (items,)}
    owned = jax.tree.leaves(optimizer_rows.owners(optimizer, shapes))
    given = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    for name, leaf in zip(owned, jax.tree.leaves(optimizer.init(given)), strict=True):
        assert name == "" or len(leaf) == shapes[name][0]
    assert owned.count("users") >= 1


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (optax.MultiSteps(optax.adam(0.1), 4).gradient_transformation(), "MultiStepsState.*raise batch_size"),
        (optax.chain(optax.apply_every(3), optax.sgd(0.1)), "ApplyEvery.*raise batch_size"),
        (optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1)), "SAMState.*second gradient"),
        (optax.lookahead(optax.sgd(0.1), 5, 0.5), "no attribute 'fast'.*wrapped parameters"),
        (optax.chain(optax.sgd(0.1), optax.scale_by_backtracking_linesearch(5)), "value_fn.*line search"),
        (optax.lbfgs(), "rows of users in an array of shape"),
        (optax.flatten(optax.adam(0.1)), "rows of users in an array of shape"),
        (optax.masked(optax.adam(0.1), {"users": True, "items": True}), "tables users, items, bias"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
@pytest.mark.filterwarnings("ignore")
def test_what_needs_more_than_touched_rows_is_refused_before_the_fit(
    optimizer: optax.GradientTransformation, message: str, checkerboard: sparse.csr_array
) -> None:
    for call in (gm.GradientMF(4, optimizer=optimizer).fit, gm.GradientMF(4, optimizer=optimizer).plan):
        with pytest.raises(gm.InvalidInput, match=message):
            call(checkerboard)


@every_loss
@pytest.mark.parametrize("name", ["sgd", "adagrad"])
def test_without_memory_of_untouched_rows_lazy_is_dense(loss: Loss, name: str) -> None:
    optimizer = getattr(optax, name)(0.05)
    after, _, _ = run(optimizer, loss)
    given: Any = tables(loss)
    (data, _), how = batch(), objective(loss, regularization=0.0, history=PAST)
    state = optimizer.init(given)
    shuffling, drawing = jax.random.split(jax.random.key(3))
    order = jax.random.permutation(shuffling, BATCH).reshape(3, 4)
    for chosen, key in zip(order, jax.random.split(drawing, 3), strict=True):
        past = gradient.draw_history(jax.random.fold_in(key, 1), data, chosen, PAST)
        slope = jax.grad(dense_loss)(given, data, chosen, gradient.draw(key, data, NEGATIVES), past, how)
        change, state = optimizer.update(slope, state, given)
        given = optax.apply_updates(given, change)
    for table, wanted in given.items():
        np.testing.assert_allclose(after[table], wanted, rtol=1e-4, atol=1e-5)


def test_negatives_are_drawn_by_their_chances() -> None:
    data, _ = batch(popular=True)
    drawn = np.bincount(np.asarray(gradient.draw(jax.random.key(0), data, 60_000)), minlength=ITEMS)
    np.testing.assert_allclose(drawn / 60_000, np.exp(np.asarray(data.log_chance)), atol=0.01)
    uniform = np.bincount(np.asarray(gradient.draw(jax.random.key(0), batch()[0], 60_000)), minlength=ITEMS)
    np.testing.assert_allclose(uniform / 60_000, 1 / ITEMS, atol=0.01)


def test_what_is_held_out_and_how_it_is_judged() -> None:
    matrix = sparse.csr_array(np.array([[1, 1, 1, 0], [0, 1, 1, 0], [1, 1, 0, 1]], np.float32))
    held = hold_out(matrix, np.random.default_rng(0))
    assert len(held) == 2 and 0 <= held[0] < 3 and 5 <= held[1] < 8
    # Scores 4, 3, 2, 1 for everybody. User 0: item 2 held out, items 0 and 1 left out: first. User 2: item 3 held out,
    # items 0 and 1 left out, 2 stands before it: second.
    factors = np.ones((3, 1), np.float32), np.array([[4], [3], [2], [1]], np.float32)
    assert ndcg(factors, np.array([0, 2]), np.array([2, 3]), matrix) == pytest.approx((1 + 1 / np.log2(3)) / 2)


ADAM = optax.adam(0.03)


def small(**changes: Any) -> gm.GradientMF:
    settings: dict[str, Any] = {"factors": 8, "epochs": 60, "batch_size": 64, "negatives": 16, "patience": 0}
    settings |= {"negative_weight": 1.0, "margin": 0.0, "temperature": 0.2, "random_state": 0, "optimizer": ADAM}
    return gm.GradientMF(**settings | changes)


@every_loss
@pytest.mark.parametrize("popularity", [0.0, 1.0])
def test_a_checkerboard_is_recovered(loss: Loss, popularity: float, checkerboard: sparse.csr_array) -> None:
    model = small(loss=loss, popularity=popularity).fit(checkerboard)
    users = np.arange(40)
    ids, scores = model.recommend(users, checkerboard, N=1)
    assert np.array_equal(np.asarray(ids)[:, 0], users)
    np.testing.assert_allclose(np.asarray(scores)[:, 0], model.predict(users, users), rtol=1e-5)
    if loss in gradient.COSINE:
        np.testing.assert_allclose(np.linalg.norm(model.item_factors, axis=1), 1, rtol=1e-5)


@every_loss
def test_a_user_is_its_own_row_and_the_mean_of_its_items(loss: Loss, checkerboard: sparse.csr_array) -> None:
    how = Settings(4, objective(loss, history=PAST), optax.sgd(0.0), 1, 64, 0.0, 5, 0)
    rows = fit(checkerboard, how, np.random.default_rng(0))
    means = (checkerboard @ rows.items) / checkerboard.sum(axis=1)[:, None]
    if loss in gradient.COSINE:  # a mean of rows of unit length is not the mean of the rows: only its sign is known
        assert np.mean(np.einsum("uk,uk->u", rows.users, means) > 0) == 1
        np.testing.assert_allclose(np.linalg.norm(rows.users, axis=1), 1, rtol=1e-5)
    else:  # nothing was learned, so the users' own rows are still zero
        np.testing.assert_allclose(rows.users, means, rtol=1e-5, atol=1e-6)


def test_popularity_has_a_place_beside_the_cosine() -> None:
    rng = np.random.default_rng(0)
    chances = np.where(np.arange(30) < 5, 0.9, 0.1)  # five items that nearly all like, and no taste at all
    board = sparse.csr_array((rng.random((200, 30)) < chances).astype(np.float32))
    model = small(loss="softmax").fit(board)
    assert model.item_bias[:5].min() > model.item_bias[5:].max()
    assert not small(loss="mse", epochs=1).fit(board).item_bias.any()


def test_the_same_seed_gives_the_same_bits(checkerboard: sparse.csr_array) -> None:
    a, b, c = (small(epochs=2, random_state=n).fit(checkerboard).item_factors for n in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_the_best_look_is_kept_and_the_fit_stops(checkerboard: sparse.csr_array) -> None:
    told: list[tuple[Any, ...]] = []
    model = small(epochs=400, patience=2, validate_every=3).fit(
        checkerboard, callback=lambda *given: told.append(given)
    )
    looks = list(model.history.values())
    assert len(told) < 400 and list(model.history)[-1] == len(told)
    assert len(looks) - 1 - looks.index(max(looks)) == 2
    assert [value for *_, value in told if value is not None] == looks


def test_features_place_cold_items() -> None:
    n = 41  # the last item is cold, and even
    user, item = np.indices((40, n))
    board = sparse.csr_array(((user % 2 == item % 2) & (item < n - 1)).astype(np.float32))
    kinds = np.where(np.arange(n) % 2, 1.0, -1.0)[:, None]
    model = small().fit(board, kinds)
    scores = model.predict(np.arange(40), n - 1)
    assert scores[::2].min() > scores[1::2].max()
    assert model.text_factors is not None and model.text_factors.shape == (1, 8)
    bare = small(epochs=1).fit(board)
    assert not bare.item_factors[n - 1].any() and bare.text_factors is None


def test_a_saved_model_answers_as_before(tmp_path: Path, checkerboard: sparse.csr_array) -> None:
    model = small(epochs=1).fit(checkerboard)
    model.save(tmp_path / "m.safetensors")
    again = gm.GradientMF.load(tmp_path / "m.safetensors")
    assert np.array_equal(again.item_vectors, model.item_vectors) and again.loss == model.loss
    assert again.optimizer is None


@pytest.mark.parametrize(
    "setting",
    [
        {"loss": "hinge"},
        {"optimizer": "adam"},
        {"factors": 0},
        {"epochs": 0},
        {"negatives": 0},
        {"popularity": -1},
        {"temperature": 0},
        {"margin": 2},
        {"hardest": 0},
        {"history_items": -1},
        {"patience": -1},
    ],
)
def test_settings_out_of_range(setting: dict[str, Any]) -> None:
    with pytest.raises(gm.InvalidInput, match=next(iter(setting))):
        gm.GradientMF(**setting)


@pytest.mark.filterwarnings("ignore:overflow")
def test_input_that_cannot_be_used(checkerboard: sparse.csr_array) -> None:
    with pytest.raises(gm.InvalidInput, match="nothing to fit"):
        gm.GradientMF().fit(sparse.csr_array((3, 3), dtype=np.float32))
    with pytest.raises(gm.InvalidInput, match="negative weight"):
        gm.GradientMF().fit(-checkerboard)
    with pytest.raises(gm.InvalidInput, match="NaN or infinity"):
        gm.GradientMF().fit(checkerboard, np.full((40, 2), np.nan))
    with pytest.raises(gm.FitDiverged, match="learning rate"):
        small(loss="mse", optimizer=optax.sgd(1e6)).fit(checkerboard)
    with pytest.raises(gm.InvalidInput, match="cannot recalculate"):
        small(epochs=1).fit(checkerboard).recalculate_user(0, checkerboard[[0]])
