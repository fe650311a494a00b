"""The recommender by its front door, against brute force over `vectors`; the data stand in conftest.py."""

import dataclasses
import tracemalloc
from typing import Any

import numpy as np
import pytest
from conftest import SIZE, changed, small_catalog
from hypothesis import given
from hypothesis import strategies as st

import geo_mf as gm
from geo_mf.errors import IncompatibleIndex, InvalidInput, UnknownId
from geo_mf.recommendations import Because

USERS = range(100, 100 + SIZE)


def row(rec: gm.Recommender, id: object) -> int:
    return rec.catalog.items.row(id)


def touched(rec: gm.Recommender, user: int) -> set[Any]:
    at = rec.users.row(user)
    return set(rec.catalog.items.take(rec.history.indices[rec.history.indptr[at] : rec.history.indptr[at + 1]]))


# --- the contract of an answer -----------------------------------------------------------------------------------

ITEMS = small_catalog().items.ids.to_pylist()
requests = st.fixed_dictionaries(
    {},
    optional={
        "user": st.sampled_from(USERS),
        "history": st.one_of(
            st.lists(st.sampled_from(ITEMS), max_size=12),
            st.dictionaries(st.sampled_from(ITEMS), st.floats(0.1, 5), max_size=12),
        ),
        "text": st.sampled_from(["", "  ", "boats on the water", "snow", "nothing of the kind", "?!"]),
        "weights": st.sampled_from([(1, 0), (0, 1), (1, 1), (0.2, 7)]),
        "where": st.sampled_from(["year >= 1990", "topic == 1", "year < 1900", "year == 1984 or topic == 0"]),
        "k": st.integers(1, 40),
        "exclude_seen": st.booleans(),
    },
)


@given(request=requests)
def test_an_answer_obeys_its_contract(recommender: gm.Recommender, request: dict[str, Any]) -> None:
    rec, k, where = recommender, request.get("k", 10), request.get("where")
    asked = {name: request[name] for name in ("user", "history", "text", "weights") if name in request}
    if "user" not in asked and not asked.get("history") and not asked.get("text", "").strip():
        with pytest.raises(InvalidInput, match="nothing to go by"):
            rec.recommend(**request)
        return
    found = rec.recommend(**request)
    query = rec.query(**asked)
    assert len(set(found.ids)) == len(found)
    assert found.asked == k
    if not found.ids and "weight is 0" in found.reason:
        assert not (query.weights.behaviour * query.behaviour).any()
        assert not (query.weights.text * query.text).any()
        return
    # Brute force over the indexed vectors.
    allowed = rec.catalog.mask(where)
    if request.get("exclude_seen", True):
        seen = set(asked.get("history", [])) | (touched(rec, asked["user"]) if "user" in asked else set())
        assert not seen & set(found.ids)
        allowed[[row(rec, id) for id in seen]] = False
    scores = (query.vector @ rec.vectors.T)[0]
    places = np.asarray([row(rec, id) for id in found.ids], int)
    assert len(found) == min(k, int(allowed.sum()))
    assert allowed[places].all()
    assert found.scores == pytest.approx(scores[places].tolist(), abs=1e-5)
    assert found.scores == pytest.approx(np.sort(scores[allowed])[::-1][:k].tolist(), abs=1e-5)
    assert found.scores == sorted(found.scores, reverse=True)
    if len(found) < k:
        assert found.reason.startswith(f"{len(found)} of {k}: no other item is allowed")
        assert where is None or where in found.reason
    else:
        assert found.reason == ""
    for item in found:
        assert item.score == pytest.approx(item.behaviour + item.text, abs=1e-5)
        assert item.cold == (item.id in ("wet", "steep", "bare"))
        assert item.title == rec.titles[row(rec, item.id)]
    # What the history and the text added sums to the score; `because` names the largest shares.
    if len(found):
        shares = rec.now._shares(query, places)
        names = [*rec.catalog.items.take(query.rows), *(["typed"] if query.typed is not None else []), "trend"]
        assert shares.sum(axis=0) == pytest.approx(scores[places], abs=1e-4)
        for place, item in enumerate(found):
            spoken = {"what you typed": "typed", "popular lately": "trend", "popular": "trend"}
            told = [(because.id or spoken[because.title], because.share) for because in item.because]
            best = sorted(zip(-shares[:, place], names, strict=True), key=lambda pair: pair[0])[:3]
            assert [share for _, share in told] == pytest.approx([-share for share, _ in best if share < 0])
            for id, share in told:
                assert share == pytest.approx(shares[names.index(id), place])


def test_the_withheld_diagonal_is_each_user_s_top_item(recommender: gm.Recommender) -> None:
    for weights in (None, (1, 0)):
        assert [recommender.recommend(user, k=1, weights=weights).ids[0] for user in USERS] == ITEMS[:SIZE]


def test_a_known_user_is_folded_in_from_the_stored_history(recommender: gm.Recommender) -> None:
    rec = recommender
    for user in (100, 113):
        stored = dict(zip(rec.catalog.items.take(rec.query(user).rows), rec.query(user).clicks.tolist(), strict=True))
        assert set(stored) == touched(rec, user)
        # The same clicks of somebody unknown, who is pulled to the mean user.
        x = np.stack([rec.item_factors[row(rec, id)] for id in stored]).astype(float)
        weights = balanced(rec, [row(rec, id) for id in stored], list(stored.values()))
        assert rec.query(user).behaviour == pytest.approx(row_solve(rec, x, weights), abs=2e-6)
        assert rec.query(history=stored).behaviour == pytest.approx(row_solve(rec, x, weights, new=True), abs=2e-6)
        # Three conjugate gradient steps are near the exact solve.
        stored_factor = rec.user_factors[rec.users.row(user)]
        assert rec.query(user).behaviour == pytest.approx(stored_factor, abs=0.02)


def row_solve(rec: gm.Recommender, x: np.ndarray, c: np.ndarray, new: bool = False) -> np.ndarray:
    """(a0 HᵀH + lam r I + Xᵀ C X) w = Xᵀ C 1, H being the items that somebody touched, in float64; for somebody new,
    the ridge pulls to the mean user."""
    hot, a0 = rec.item_factors[~rec.cold].astype(float), rec.objective.unobserved_weight
    ridge = rec.objective.regularization * (len(x) + a0 * len(rec.catalog)) ** rec.objective.nu
    return np.linalg.solve(
        a0 * hot.T @ hot + ridge * np.eye(8) + (x.T * c) @ x, x.T @ c + new * ridge * rec.user_factors.mean(axis=0)
    )


def balanced(rec: gm.Recommender, rows: list[int], clicks: list[float], typed: bool = False) -> np.ndarray:
    """Weights as the fit counts them: times n_u^-p n_i^-q, with a mean factor of 1 over what was fitted."""
    p, q = rec.objective.activity_discount, rec.objective.popularity_discount
    assert p and q
    users, items = np.diff(rec.history.indptr), np.bincount(rec.history.indices, minlength=len(rec.catalog))
    mean = np.mean(np.repeat(users, users) ** -p * items[rec.history.indices] ** -q)
    counts = [max(items[at], 1) for at in rows] + [items[items > 0].mean()] * typed
    return np.asarray([*clicks, 1.0][: len(counts)]) * len(counts) ** -p * np.asarray(counts, float) ** -q / mean


def test_behaviour_is_the_row_solve_of_everything_given(recommender: gm.Recommender) -> None:
    rec = recommender
    one = rec.query(history=["i2"])
    x = rec.item_factors[[row(rec, "i2")]].astype(float)
    assert one.behaviour == pytest.approx(row_solve(rec, x, balanced(rec, [row(rec, "i2")], [1.0]), new=True), abs=2e-6)

    query = rec.query(104, history={"i2": 2.5, "i3": 1}, text="paths of snow")
    clicks = dict(zip(rec.catalog.items.take(rec.query(104).rows), rec.query(104).clicks.tolist(), strict=True))
    clicks["i2"] = clicks.get("i2", 0) + 2.5
    clicks["i3"] = clicks.get("i3", 0) + 1
    typed = rec.encoder.encode(["paths of snow"])[0]
    prior = rec.prior(typed[None])[0]
    x = np.stack([*(rec.item_factors[row(rec, id)] for id in clicks), prior]).astype(float)
    weights = balanced(rec, [row(rec, id) for id in clicks], list(clicks.values()), typed=True)
    assert query.behaviour == pytest.approx(row_solve(rec, x, weights), abs=2e-6)
    assert query.text == pytest.approx(typed)
    assert query.weights == rec.blend.weights(len(clicks), typed=True)
    assert rec.query(text="paths of snow").weights == rec.blend.with_text


def test_a_history_is_also_a_text_query(recommender: gm.Recommender) -> None:
    rec = recommender
    query = rec.query(history={"i0": 3, "i1": 1})
    profile = 3 * rec.embeddings[row(rec, "i0")] + rec.embeddings[row(rec, "i1")]
    assert query.text == pytest.approx(profile / np.linalg.norm(profile), abs=1e-6)
    assert query.weights == rec.blend.weights(2, typed=False)


def test_clicks_count_by_weight_and_by_repetition(recommender: gm.Recommender) -> None:
    rec = recommender
    assert rec.recommend(history=["i2", "i2", "i5"]) == rec.recommend(history={"i2": 2, "i5": 1})
    forms: list[Any] = [["i2"], ("i2",), iter(["i2"]), np.asarray(["i2"]), {"i2": 1}]
    assert len({tuple(rec.recommend(history=form).ids) for form in forms}) == 1
    wet = rec.recommend(history={"i2": 5, "i5": 0.1}, k=3, where="year < 2004")
    steep = rec.recommend(history={"i2": 0.1, "i5": 5}, k=3, where="year < 2004")
    assert [[ITEMS.index(id) % 2 for id in found.ids] for found in (wet, steep)] == [[0, 0, 0], [1, 1, 1]]


def test_where_acts_inside_the_search(recommender: gm.Recommender) -> None:
    found = recommender.recommend(100, k=5, where="topic == 1")
    assert len(found) == 5
    assert found.reason == ""
    assert {recommender.catalog.table.column("topic")[row(recommender, id)].as_py() for id in found.ids} == {1}
    few = recommender.recommend(100, k=5, where="year >= 2004")
    assert few.ids and set(few.ids) == {"wet", "steep", "bare"}
    assert few.reason == "3 of 5: no other item is allowed (where 'year >= 2004', the 11 already seen left out)"
    none = recommender.recommend(100, k=5, where="year < 0")
    assert none.ids == []
    assert none.reason.startswith("0 of 5")
    with pytest.raises(InvalidInput, match="year"):
        recommender.recommend(100, where="yaer > 3")
    with pytest.raises(InvalidInput):
        recommender.recommend(100, where="__import__('os')")


def test_a_million_recommendations_take_no_more_room_than_there_are_items(recommender: gm.Recommender) -> None:
    tracemalloc.start()
    try:
        for k in (10**9, 10**30):
            assert len(recommender.recommend(100, k=k)) == len(ITEMS) - 11
            assert len(recommender.similar_items("i1", k=k)) == len(ITEMS) - 1
            assert len(recommender.audience("i1", k=k)) == SIZE - 11
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_reasons_of_long_lists_are_those_of_short_ones(
    recommender: gm.Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = recommender.recommend(100, k=20, text="boats")
    monkeypatch.setattr(gm.snapshot, "EXPLAINED_TOGETHER", 3)
    pieces = recommender.recommend(100, k=20, text="boats")
    assert pieces.ids == whole.ids
    for a, b in zip(pieces, whole, strict=True):
        assert [because.share for because in a.because] == pytest.approx([because.share for because in b.because])


# --- cold items and items of which nothing is known --------------------------------------------------------------


def test_a_cold_item_is_found_by_text_alone_and_by_those_who_would_like_it(recommender: gm.Recommender) -> None:
    rec = recommender
    assert rec.item_factors[row(rec, "wet")].any()
    assert rec.cold[row(rec, "wet")]
    exact = rec.catalog.texts[row(rec, "wet")]
    found = rec.recommend(text=exact, k=2, weights=(0, 1))
    assert found.ids == ["i8", "wet"], "they are worded alike"
    assert [item.cold for item in found] == [False, True]
    assert found[1].because == (Because(None, "what you typed", found[1].because[0].share),)
    assert found[1].because[0].share == pytest.approx(found[1].score)
    assert "wet" in rec.recommend(text=exact, k=13).ids
    by_behaviour = {user: rec.recommend(user, weights=(1, 0), k=2).ids for user in USERS}
    assert all(("wet" in ids) == (user % 2 == 0) for user, ids in by_behaviour.items())


def test_what_says_nothing_gives_an_empty_list_and_the_reason(recommender: gm.Recommender) -> None:
    rec = recommender
    for weights in (None, (0, 1)):
        found = rec.recommend(history=["bare"], weights=weights, k=3)
        assert found.ids == []
        assert found.reason == "0 of 3: neither behaviour nor text is known of what was given, or its weight is 0"
    for space in ("factors", "text", "blend"):
        found = rec.similar_items("bare", k=3, space=space)
        assert found.ids == []
        assert found.reason == f"0 of 3: nothing is known of 'bare' in the space '{space}'"
    assert rec.audience("bare") == []


def test_without_any_text_a_sentence_says_nothing() -> None:
    interactions = gm.Interactions.from_arrays([1, 1, 2, 2], ["a", "b", "b", "c"])
    rec = gm.build(interactions, config=gm.BuildConfig.of(factors=8, iterations=1, cache=False))
    assert rec.recommend(text="anything").reason.startswith("0 of 10: neither behaviour nor text is known")
    assert rec.recommend(1, text="anything").ids[0] == "c"


# --- similar items, audience -------------------------------------------------------------------------------------


def cosines(vectors: np.ndarray, at: int) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1)
    unit = vectors / np.where(lengths > 0, lengths, 1)[:, None]
    return unit @ unit[at]


@pytest.mark.parametrize("space", ["factors", "text", "blend"])
def test_similar_items_are_the_nearest_by_cosine(recommender: gm.Recommender, space: Any) -> None:
    rec = recommender
    some = rec.item_factors.any(axis=1, keepdims=True)
    centred = (rec.item_factors - rec.item_factors[~rec.cold].mean(axis=0)) * some
    for item in ("i3", "wet"):
        at = row(rec, item)
        behaviour, text = cosines(centred, at), cosines(rec.embeddings, at)
        wanted = {"factors": behaviour, "text": text, "blend": (behaviour + text) / 2}[space]
        found = rec.similar_items(item, k=5, space=space)
        places = [row(rec, id) for id in found.ids]
        assert item not in found.ids
        assert found.scores == pytest.approx(wanted[places].tolist(), abs=1e-5)
        assert found.scores == pytest.approx(np.sort(np.delete(wanted, at))[::-1][:5].tolist(), abs=1e-5)
        for neighbour in found:
            assert neighbour.score == pytest.approx(neighbour.behaviour + neighbour.text, abs=1e-6)
    assert all(int(id[1:]) % 2 == 1 for id in rec.similar_items("i3", k=8, space=space).ids if id != "steep")


def test_similar_items_with_a_condition(recommender: gm.Recommender) -> None:
    found = recommender.similar_items("i3", k=9, where="year < 1984")
    assert set(found.ids) == {"i0", "i1", "i2"}
    assert found.reason == "3 of 9: no other item is allowed (where 'year < 1984', the 1 already seen left out)"


def test_searching_leaves_everything_as_it_was(recommender: gm.Recommender) -> None:
    rec = recommender
    held = rec.item_factors.copy(), rec.embeddings.copy(), rec.history.data.copy(), rec.vectors.copy()
    before = rec.recommend(105)
    rec.similar_items("i5")
    rec.audience("i5")
    rec.recommend(105, history={"i5": 2, "i7": 1}, text="snow")
    assert rec.recommend(105) == before
    now = rec.item_factors, rec.embeddings, rec.history.data, rec.vectors
    assert all(np.array_equal(a, b) for a, b in zip(held, now, strict=True))


def test_the_audience_is_brute_force_over_all_users(recommender: gm.Recommender) -> None:
    rec = recommender
    for item in ("i6", "wet", "steep"):
        scores = rec.queries(np.arange(SIZE)) @ rec.vectors[row(rec, item)]
        wanted = sorted(
            (
                (score, user)
                for score, user in zip(scores.tolist(), USERS, strict=True)
                if item not in touched(rec, user)
            ),
            reverse=True,
        )
        found = rec.audience(item, k=10)
        assert len(found) == 10
        assert [score for _, score in found] == pytest.approx([score for score, _ in wanted[:10]], abs=1e-5)
        for user, score in found:
            assert item not in touched(rec, user)
            assert score == pytest.approx(scores[rec.users.row(user)], abs=1e-5)
    assert {user % 2 for user, _ in rec.audience("wet", k=12)} == {0}


def test_query_vectors_of_known_users(recommender: gm.Recommender) -> None:
    rec = recommender
    chosen = np.asarray([3, 0])
    vectors = rec.queries(chosen)
    assert vectors.dtype == np.float32
    for vector, at in zip(vectors, chosen, strict=True):
        query = rec.query(100 + at)
        weights = query.weights
        assert vector[:8] == pytest.approx(weights.behaviour * rec.user_factors[at], abs=1e-6)
        assert vector[8:-1] == pytest.approx(weights.text * query.text, abs=1e-6)
        assert vector[-1] == pytest.approx((rec.item_factors @ rec.user_factors[at]).std(), rel=1e-4)
        assert weights.behaviour == 1


def test_the_trend_moves_who_typed_nothing(recommender: gm.Recommender) -> None:
    crowd = np.zeros(SIZE + 3, np.float32)
    crowd[:SIZE] = np.arange(SIZE) - SIZE / 2
    lately = changed(recommender, trend=crowd, blend=dataclasses.replace(recommender.blend, trend=100.0))
    rec = changed(lately, index=gm.FaissIndex(lately.vectors))
    assert rec.recommend(100, k=3, exclude_seen=False).ids == ["i23", "i22", "i21"]
    assert rec.recommend(history=["i1"], k=3).ids == ["i23", "i22", "i21"]
    first = rec.recommend(100, k=1, exclude_seen=False)[0]
    assert first.because[0].id is None and first.because[0].title == "popular lately"
    spread = float((rec.item_factors @ rec.query(100).behaviour).std())
    assert first.because[0].share == pytest.approx(100 * rec.trend[23] * spread, rel=1e-3)
    plain = changed(recommender, blend=dataclasses.replace(recommender.blend, trend=0.0))
    plain = changed(plain, index=gm.FaissIndex(plain.vectors))
    typed: list[dict[str, Any]] = [{"text": "boats"}, {"user": 100, "text": "boats"}]
    for call in [*typed, {"user": 100, "weights": (0, 1)}, {"history": ["bare", "i4"], "weights": (0, 2)}]:
        assert rec.recommend(**call).ids == plain.recommend(**call).ids
    assert rec.similar_items("i4") == plain.similar_items("i4")
    assert rec.recommend(history=["bare"]).ids == []


def test_trending(recommender: gm.Recommender) -> None:
    crowd = np.zeros(SIZE + 3, np.float32)
    crowd[:SIZE] = np.r_[1:SIZE, 1000]
    rec = changed(recommender, touches=crowd)
    found = rec.trending(k=3)
    assert found.ids == ["i23", "i22", "i21"]
    assert found.scores == [1000, 23, 22]
    assert rec.trending(k=2, where="topic == 0").ids == ["i22", "i20"]
    every = rec.trending(k=100)
    assert len(every) == SIZE and every.reason == "24 of 100: no other item is allowed"
    assert recommender.trending(k=SIZE).scores == [11.0] * SIZE
    with pytest.raises(InvalidInput, match="k is 0"):
        rec.trending(k=0)
    with pytest.raises(InvalidInput, match="nowhere"):
        rec.trending(where="nowhere == 1")


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [{}, {"history": []}, {"history": {}}, {"text": ""}, {"text": " \n", "history": ()}])
def test_nothing_to_go_by(recommender: gm.Recommender, call: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"nothing to go by.*give user=, history=.*text="):
        recommender.recommend(**call)


def test_unknown_ids(recommender: gm.Recommender) -> None:
    with pytest.raises(UnknownId, match="user: unknown id 7; ids here are integers, such as 100"):
        recommender.recommend(7)
    with pytest.raises(UnknownId, match="user: .*ids here are integers: pass 103, not '103'"):
        recommender.recommend("103")
    with pytest.raises(UnknownId, match="history: 2 of 3 ids are unknown: 'x', 'y'"):
        recommender.recommend(history=["i1", "x", "y"])
    with pytest.raises(UnknownId, match="history: "):
        recommender.recommend(history=[1, 2])
    for call in (recommender.similar_items, recommender.audience):
        with pytest.raises(UnknownId, match="item: unknown id 'unlisted'"):
            call("unlisted")


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "3", None])
def test_a_k_that_is_no_count(recommender: gm.Recommender, k: Any) -> None:
    for call in (
        lambda: recommender.recommend(100, k=k),
        lambda: recommender.similar_items("i1", k=k),
        lambda: recommender.audience("i1", k=k),
    ):
        with pytest.raises(InvalidInput, match=f"k is {k!r}; expected a whole number of at least 1"):
            call()
    assert len(recommender.recommend(100, k=np.int64(2))) == 2  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"history": "i1"}, r"history is the single value 'i1'; expected a list of item ids: pass \['i1'\]"),
        ({"history": b"i1"}, "single value b'i1'"),
        ({"history": 5}, "history must be a list of item ids"),
        ({"history": [["i1"]]}, "ids"),
        ({"history": [None]}, "ids"),
        ({"history": {"i1": -1e-7}}, "is -1e-07; expected a number from 1e-06 to 1e"),
        ({"history": {"i1": 1, "i2": 0}}, "is 0; expected"),
        ({"history": {"i1": np.nan}}, "is nan; expected"),
        ({"history": {"i1": 1e7}}, "is 10000000.0; expected"),
        ({"history": {"i1": 10**30}}, "must be numbers"),
        ({"history": {"i1": 1e-60}}, "is 1e-60; expected"),
        ({"history": {"i1": "2"}}, r"must be numbers, not \['2'\]"),
        ({"history": {"i1": None}}, "must be numbers"),
        ({"text": 5}, "text is 5, a int; expected a sentence"),
        ({"text": ["snow"]}, "expected a sentence"),
        ({"user": 100, "weights": (0, 0)}, "not both 0"),
        ({"user": 100, "weights": (-1, 1)}, "from 0 to 1e6"),
        ({"user": 100, "weights": (np.nan, 1)}, "from 0 to 1e6"),
        ({"user": 100, "weights": 1}, r"expected two numbers \(behaviour, text\)"),
        ({"user": 100, "weights": (1, 2, 3)}, "expected two numbers"),
        ({"user": 100, "weights": "12"}, "expected two numbers"),
    ],
)
def test_bad_requests(recommender: gm.Recommender, request_: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        recommender.recommend(**request_)


def test_an_unknown_space(recommender: gm.Recommender) -> None:
    with pytest.raises(InvalidInput, match="space is 'words'; expected one of blend, factors, text"):
        recommender.similar_items("i1", space="words")  # pyright: ignore[reportArgumentType]


def test_another_encoder_is_refused_where_it_would_matter(recommender: gm.Recommender) -> None:
    other = changed(recommender, encoder=gm.HashEncoder(dim=32, seed=1))
    assert other.recommend(100) == recommender.recommend(100)
    with pytest.raises(IncompatibleIndex, match=r"built by an encoder with fingerprint .* but hash-32 has"):
        other.recommend(text="snow")


def test_the_largest_weights_still_give_finite_answers(recommender: gm.Recommender) -> None:
    found = recommender.recommend(history={"i1": 1e6, "i3": 1e6, "i5": 1e-6}, weights=(1e6, 1e6))
    assert np.isfinite(found.scores).all()
    assert all(np.isfinite(because.share) for item in found for because in item.because)
