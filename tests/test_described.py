"""What a request says beside clicks: what is disliked, and attributes of what is looked for."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import SIZE, changed
from hypothesis import given, settings
from hypothesis import strategies as st
from test_recommender import balanced, row

import geo_mf as gm
from geo_mf.errors import InvalidInput
from geo_mf.query import DISLIKED, Query

GENRES = ("drama", "comedy", "war")
HOT = [f"m{at}" for at in range(36)]
COLD = [*(f"new {genre}" for genre in GENRES), "mute"]
USERS = range(30)


def genre(id: str) -> str | None:
    if id in COLD:
        return id[4:] if id != "mute" else None
    return GENRES[int(id[1:]) % 3]


def small_table() -> pa.Table:
    """Films of three genres, old and new ones; the new items have a genre and a year, and no title, one has nothing."""
    ids = HOT + COLD
    titles = [f"{GENRES[at % 3]} tale number {at}" if at % 4 else f"tale {at}" for at in range(36)]
    return pa.table(
        {
            "item_id": ids,
            "title": pa.array([*titles, None, None, None, None], pa.string()),
            "genre": pa.array([genre(id) for id in ids], pa.string()),
            "year": pa.array([*(1980 + at for at in range(36)), 1990, 1990, 1990, None], pa.int64()),
        }
    )


@pytest.fixture(scope="module")
def films() -> gm.Recommender:
    """User u keeps to genre u % 3 and has met two thirds of it; the trend counts a little."""
    pairs = [(u, id) for u in USERS for at, id in enumerate(HOT) if at % 3 == u % 3 and (at // 3 + u // 3) % 3]
    interactions = gm.Interactions.from_arrays(*map(list, zip(*pairs, strict=True)))
    catalog = gm.read_catalog(small_table(), text="{title}")
    config = gm.BuildConfig.of(
        factors=8, iterations=8, cache=False, learn_blend=False, attributes=("genre", "year"), prior_regularization=0.3
    )
    built = gm.build(interactions, catalog, config=config, encoder=gm.HashEncoder(dim=32))
    trendy = changed(built, blend=replace(built.blend, trend=0.1))
    return changed(trendy, index=gm.FaissIndex(trendy.vectors))


def scores(rec: gm.Recommender, **asked: Any) -> np.ndarray:
    """Of all items."""
    return (rec.query(**asked).vector @ rec.vectors.T)[0]


# --- any mix -----------------------------------------------------------------------------------------------------

weight = st.one_of(st.floats(0.1, 3), st.floats(-3, -0.1))
requests = st.fixed_dictionaries(
    {},
    optional={
        "user": st.sampled_from(USERS),
        "history": st.dictionaries(st.sampled_from([*HOT, *COLD]), weight, min_size=1, max_size=14),
        "text": st.sampled_from(["drama tale", "war", "number 4"]),
        "attributes": st.fixed_dictionaries(
            {}, optional={"genre": st.lists(st.sampled_from(GENRES), min_size=1), "year": st.integers(1970, 2020)}
        ).filter(bool),
    },
).filter(bool)


def described(rec: gm.Recommender, request: dict[str, Any]) -> np.ndarray | None:
    """The factor of an item of this text and these attributes, if there are any."""
    if "text" not in request and "attributes" not in request:
        return None
    now, text = rec.now, rec.now.filling.text
    asked = now.attributes.encode_one(request.get("attributes", {}))
    if "text" in request:
        text = rec.encoder.encode([request["text"]], kind="query")[0]
    return now.prior(np.concatenate([text, asked if asked.any() else now.filling.attributes])[None])[0]


def reference(rec: gm.Recommender, query: Query, request: dict[str, Any]) -> np.ndarray:
    """(a0 HᵀH + lam r I + Xᵀ C X) w = Xᵀ C y + lam r m in float64; y is 1 or DISLIKED, m the mean user for somebody new
    with a history of which something is known, else zero."""
    hot, a0 = rec.item_factors[~rec.cold].astype(float), rec.objective.unobserved_weight
    x, y = rec.item_factors[query.rows].astype(float), np.where(query.clicks > 0, 1.0, DISLIKED)
    new = "user" not in request and bool(x.any())
    prior = described(rec, request)
    if prior is not None:
        x, y = np.vstack([x, prior]), np.append(y, 1.0)
    c = balanced(rec, query.rows.tolist(), np.abs(query.clicks).tolist(), typed=prior is not None)
    ridge = rec.objective.regularization * (len(x) + a0 * len(rec.catalog)) ** rec.objective.nu
    left = a0 * hot.T @ hot + ridge * np.eye(hot.shape[1]) + (x.T * c) @ x
    return np.linalg.solve(left, x.T @ (c * y) + new * ridge * rec.user_factors.mean(axis=0, dtype=float))


@settings(max_examples=60)
@given(request=requests)
def test_behaviour_is_the_row_solve_of_everything_given(films: gm.Recommender, request: dict[str, Any]) -> None:
    query = films.query(**request)
    assert query.behaviour == pytest.approx(reference(films, query, request), abs=5e-6)


@settings(max_examples=60)
@given(request=requests)
def test_the_shares_of_all_reasons_sum_to_the_score(films: gm.Recommender, request: dict[str, Any]) -> None:
    query = films.query(**request)
    everything = np.arange(len(films.catalog))
    shares = films.now._shares(query, everything)
    asked = "text" in request or "attributes" in request
    assert shares.shape == (len(query.rows) + asked + 1, len(everything))
    assert shares.sum(axis=0) == pytest.approx(scores(films, **request), abs=1e-4)
    # What is disliked adds nothing by behaviour, and by text it takes away as much as a click would add.
    total = query.clicks @ films.embeddings[query.rows]
    length = np.linalg.norm(total)
    by_text = query.weights.text * films.blend.scale / length if length > 1e-6 and query.typed is None else 0.0
    for at in np.flatnonzero(query.clicks < 0):
        wanted = by_text * query.clicks[at] * (films.embeddings @ films.embeddings[query.rows[at]])
        assert shares[at] == pytest.approx(wanted, abs=1e-4)


@settings(max_examples=40)
@given(request=requests)
def test_an_answer_is_sorted_finite_new_and_explained(films: gm.Recommender, request: dict[str, Any]) -> None:
    found = films.recommend(**request, k=7)
    assert np.isfinite(found.scores).all()
    assert found.scores == sorted(found.scores, reverse=True)
    assert not set(found.ids) & set(request.get("history", {}))
    assert len(found) == 7 or found.reason
    wanted = scores(films, **request)
    for item in found:
        assert item.score == pytest.approx(wanted[row(films, item.id)], abs=1e-5)
        assert item.score == pytest.approx(item.behaviour + item.text, abs=1e-5)
        assert all(because.share > 0 for because in item.because)
        disliked = {id for id, amount in request.get("history", {}).items() if amount < 0}
        told = {because.title for because in item.because if because.id is None}
        assert not (told & {"what you typed"} and "text" not in request)
        assert not (told & {"the attributes you named"} and ("text" in request or "attributes" not in request))
        for because in item.because:
            if because.id in disliked:  # only what is the opposite in words
                near = films.embeddings[row(films, item.id)] @ films.embeddings[row(films, because.id)]
                assert near < 0


# --- what is disliked --------------------------------------------------------------------------------------------


def test_a_dislike_lowers_the_item_and_what_is_like_it(films: gm.Recommender) -> None:
    lowered = 0
    likes_of = (["m0"], ["m0", "m1", "m2"], ["m4", "m7", "m10", "m12"])
    for liked, disliked, user, weights in product(likes_of, ("m3", "m13", "m35"), (None, 0, 1, 2), ((1, 0), None)):
        same = [row(films, id) for id in HOT if genre(id) == genre(disliked)]
        other = [row(films, id) for id in HOT if genre(id) != genre(disliked)]
        at, likes = row(films, disliked), dict.fromkeys(liked, 1.0)
        asked: dict[str, Any] = {"user": user, "weights": weights}
        before = scores(films, history=likes, **asked)
        after = scores(films, history=likes | {disliked: -1.0}, **asked)
        # An item of which nothing is known tells nothing, but makes the history as long.
        control = scores(films, history=likes | {"mute": -1.0}, **asked)
        if before[at] <= 0.03:  # DISLIKED is a score of 0: what is there already has nothing to lose
            continue
        lowered += 1
        for without in (before, control):
            assert after[at] < without[at]
            assert after[same].mean() < without[same].mean()
        assert (control - after)[same].mean() > (control - after)[other].mean()
    assert lowered >= 24


def test_the_stronger_a_dislike_the_lower_the_item(films: gm.Recommender) -> None:
    at = row(films, "m3")
    found = [scores(films, history={"m0": 1.0, "m3": -size}, weights=(1, 0))[at] for size in (0.1, 1.0, 10.0, 1000.0)]
    assert (np.diff(found) < 0).all()
    assert found[-1] == pytest.approx(DISLIKED, abs=0.02)


def test_a_dislike_turns_the_list_of_a_known_user(films: gm.Recommender) -> None:
    # User 0 has met dramas alone; whoever dislikes most of them gets fewer of the rest on top.
    unseen = [id for id in HOT if genre(id) == "drama" and row(films, id) not in films.query(0).rows]
    places = [row(films, id) for id in unseen[1:]]
    before, after = scores(films, user=0), scores(films, user=0, history={unseen[0]: -1})
    assert (after[places] < before[places]).all()


def test_a_dislike_stands_against_earlier_clicks(films: gm.Recommender) -> None:
    known = films.query(0)
    clicked = films.catalog.items.take(known.rows)[2]
    at = int(np.flatnonzero(known.rows == row(films, clicked))[0])
    query = films.query(0, history={clicked: -1.5})
    assert np.array_equal(query.rows, known.rows), "it is one item, and no other is lost"
    assert query.clicks[at] == -1.5
    assert np.array_equal(np.delete(query.clicks, at), np.delete(known.clicks, at))
    assert query.behaviour @ films.item_factors[row(films, clicked)] < (
        known.behaviour @ films.item_factors[row(films, clicked)]
    )
    assert clicked not in films.recommend(0, history={clicked: -1.5}, k=50).ids
    # A click on top of earlier clicks adds up, as it did.
    assert films.query(0, history={clicked: 1.5}).clicks[at] == pytest.approx(known.clicks[at] + 1.5)


@pytest.mark.parametrize("disliked", [["m0"], ["m0", "m1", "m2"], ["mute"], ["new war"], [*HOT, *COLD]])
@pytest.mark.parametrize("weights", [None, (1, 0), (0, 1)])
def test_only_dislikes_are_a_request_too(films: gm.Recommender, disliked: list[str], weights: Any) -> None:
    history = dict.fromkeys(disliked, -1.0)
    found = films.recommend(history=history, k=5, weights=weights)
    assert not set(found.ids) & set(disliked)
    assert len(found) == 5 or found.reason
    assert np.isfinite(found.scores).all()
    query = films.query(history=history)
    assert query.behaviour == pytest.approx(reference(films, query, {"history": history}), abs=5e-6)


def test_a_stranger_s_dislikes_turn_away_from_them(films: gm.Recommender) -> None:
    history = {id: -1.0 for id in HOT[:18] if genre(id) == "war"}
    unseen = {kind: [row(films, id) for id in HOT[18:] if genre(id) == kind] for kind in GENRES}
    for weights in ((1, 0), None):
        found = scores(films, history=history, weights=weights)
        means = {kind: found[rows].mean() for kind, rows in unseen.items()}
        assert means["war"] < min(means["drama"], means["comedy"])


# --- attributes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", GENRES)
def test_attributes_alone_find_what_has_them(films: gm.Recommender, wanted: str) -> None:
    for asked in (wanted, [wanted]):
        found = films.recommend(attributes={"genre": asked}, k=10)
        assert [genre(id) for id in found.ids] == [wanted] * 10
        assert found[0].because[0].title == "the attributes you named"
        assert found[0].because[0].id is None
    everything = films.recommend(attributes={"genre": wanted}, k=13).ids
    assert f"new {wanted}" in everything, "an item that nobody touched, and without a text, is found by what it is"


def test_attributes_predict_as_an_item_s_do(films: gm.Recommender) -> None:
    now = films.now
    asked = now.attributes.encode_one({"genre": "war", "year": 1990})
    wanted = now.prior(np.concatenate([now.filling.text, asked])[None])[0]
    assert films.query(attributes={"genre": "war", "year": 1990}).system.factors[-1] == pytest.approx(wanted, abs=1e-6)
    # "new war" is just that, and nobody touched it.
    assert films.item_factors[row(films, "new war")] == pytest.approx(films.blend.cold_scale * wanted, abs=1e-6)
    typed = films.encoder.encode(["war tale"], kind="query")[0]
    both = now.prior(np.concatenate([typed, asked])[None])[0]
    query = films.query(text="war tale", attributes={"genre": "war", "year": 1990})
    assert query.system.factors[-1] == pytest.approx(both, abs=1e-6)
    assert query.text == pytest.approx(typed)


def test_attributes_move_a_known_user_and_a_sentence(films: gm.Recommender) -> None:
    war = [row(films, id) for id in HOT if genre(id) == "war"]
    for asked in ({"user": 0}, {"text": "tale"}, {"history": ["m0"]}):
        plain, named = scores(films, **asked), scores(films, **asked, attributes={"genre": "war"})
        rest = np.setdiff1d(np.arange(36), war)
        assert named[war].mean() - named[rest].mean() > plain[war].mean() - plain[rest].mean()


def test_an_item_without_text_and_attributes_has_a_zero_prior(films: gm.Recommender) -> None:
    assert not films.now.features[row(films, "mute")].any()
    assert not films.item_factors[row(films, "mute")].any()
    for id in COLD[:3]:
        assert films.item_factors[row(films, id)].any()


@pytest.mark.parametrize("attributes", [{"genre": "opera"}, {}, {"genre": [], "year": None}])
def test_attributes_that_no_item_has_are_nothing_to_go_by(films: gm.Recommender, attributes: Any) -> None:
    with pytest.raises(InvalidInput, match=r"nothing to go by.*attributes= that some item has"):
        films.recommend(attributes=attributes)
    assert films.recommend(0, attributes=attributes) == films.recommend(0)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"gnere": "war"}, "no attribute 'gnere'; they are genre, year"),
        ({"year": "1990"}, "'year' holds string; expected numbers"),
        (["war"], "expected a mapping"),
    ],
)
def test_attributes_that_cannot_be_asked(films: gm.Recommender, attributes: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        films.recommend(0, attributes=attributes)


def test_an_index_without_attributes_says_so(recommender: gm.Recommender) -> None:
    with pytest.raises(InvalidInput, match=r"no attribute 'year'; it was built without any: BuildConfig\(attributes"):
        recommender.recommend(100 + SIZE - 1, attributes={"year": 1990})


# --- kept, and changed -------------------------------------------------------------------------------------------

ASKED: list[dict[str, Any]] = [
    {"attributes": {"genre": "war"}},
    {"attributes": {"genre": ["war", "drama"], "year": 2001}, "text": "a tale"},
    {"user": 3, "attributes": {"year": 1984}, "history": {"m4": -1, "new comedy": 2}},
    {"history": {"m4": -1}},
]


def test_an_index_read_from_disk_answers_the_same(films: gm.Recommender, tmp_path: Path) -> None:
    gm.save(films, tmp_path / "films")
    loaded = gm.load(tmp_path / "films")
    assert loaded.now.attributes == films.now.attributes
    assert np.array_equal(loaded.now.filling.text, films.now.filling.text)
    assert np.array_equal(loaded.now.filling.attributes, films.now.filling.attributes)
    assert np.array_equal(loaded.now.features, films.now.features)
    for asked in ASKED:
        assert loaded.recommend(**asked, k=20) == films.recommend(**asked, k=20)


def test_a_curved_map_is_kept(films: gm.Recommender, tmp_path: Path) -> None:
    from geo_mf.geometry.predictor import Predictor, Shape

    now = films.now
    curved = Predictor.fit(now.features, now.item_factors, (~now.cold).astype(float), Shape(0.5, 0.1), 0)
    rec = changed(films, prior=curved)
    gm.save(rec, tmp_path / "curved")
    loaded = gm.load(tmp_path / "curved")
    assert loaded.prior.shape == Shape(0.5, 0.1)
    assert len(loaded.prior.landmarks) == 36
    for asked in ASKED:
        assert loaded.recommend(**asked, k=20) == rec.recommend(**asked, k=20)
        assert asked == ASKED[3] or rec.recommend(**asked, k=20) != films.recommend(**asked, k=20)


@pytest.mark.parametrize("through_disk", [False, True])
def test_a_new_item_with_attributes_and_no_text_gets_a_factor(
    films: gm.Recommender, through_disk: bool, tmp_path: Path
) -> None:
    rec = gm.Recommender(films.now)
    if through_disk:
        gm.save(films, tmp_path / "films")
        rec = gm.load(tmp_path / "films")
    rec.add_items(pa.table({"item_id": ["latest", "lost"], "genre": pa.array(["war", None], pa.string())}))
    at = row(rec, "latest")
    now = rec.now
    assert not rec.embeddings[at].any()
    wanted = np.concatenate([now.filling.text, now.attributes.encode_one({"genre": "war"})])
    assert rec.item_factors[at] == pytest.approx(rec.blend.cold_scale * now.prior(wanted[None])[0], abs=1e-6)
    assert rec.item_factors[at].any()
    assert not rec.item_factors[row(rec, "lost")].any()
    assert "latest" in rec.recommend(attributes={"genre": "war"}, k=14).ids
    assert "latest" in rec.recommend(2, k=10).ids
    # Another genre moves it, and nothing else.
    rec.update_items(pa.table({"item_id": ["latest"], "genre": ["drama"]}))
    assert "latest" not in rec.recommend(attributes={"genre": "war"}, k=13).ids
    assert "latest" in rec.recommend(attributes={"genre": "drama"}, k=14).ids
    assert np.array_equal(rec.item_factors[:at], films.item_factors)


def test_a_refit_keeps_what_attributes_mean(films: gm.Recommender) -> None:
    rec = gm.Recommender(films.now)
    rec.refit(2)
    for wanted in GENRES:
        assert {genre(id) for id in rec.recommend(attributes={"genre": wanted}, k=10).ids} == {wanted}
