"""What is known of users beside what they touched: in the index, in a request, on disk."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from groups import ITEMS, NEW, USERS, group, liked
from pyarrow import parquet

import geo_mf as gm
from geo_mf.data.people import People
from geo_mf.errors import IncompatibleIndex, InvalidInput, UnknownId


@pytest.fixture(scope="module")
def likes() -> list[np.ndarray]:
    return liked()


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """Attributes of all users but one, those without interactions too; ages say nothing, and are not all known."""
    users = [user for user in range(USERS) if user != 7]
    return pa.table(
        {
            "user_id": [f"u{user}" for user in users],
            "group": [f"g{group(user)}" for user in users],
            "age": [None if user % 5 == 0 else 20 + user % 50 for user in users],
            "likes": [[f"a{group(user)}", "b"] for user in users],
        }
    )


@pytest.fixture(scope="module")
def interactions(likes: list[np.ndarray]) -> gm.Interactions:
    pairs = [(f"u{user}", f"i{item}") for user in range(NEW) for item in likes[user][: 2 if user < 20 else 6]]
    return gm.Interactions.from_arrays(*zip(*pairs, strict=True))


CONFIG = gm.BuildConfig(factors=8, learn_blend=False, solver="cholesky")


def built(interactions: gm.Interactions, users: Any = None, **how: Any) -> gm.Recommender:
    catalog = gm.Catalog.from_ids(gm.IdMap([f"i{item}" for item in range(ITEMS)]))
    return gm.build(interactions, catalog, users=users, config=CONFIG, **how)


@pytest.fixture(scope="module")
def rec(interactions: gm.Interactions, table: pa.Table) -> gm.Recommender:
    return built(interactions, table)


@pytest.fixture(scope="module")
def bare(interactions: gm.Interactions) -> gm.Recommender:
    return built(interactions)


def quality(scores: dict[int, np.ndarray], likes: list[np.ndarray], seen: int) -> float:
    """Mean reciprocal rank of the items liked beyond the first `seen` of each user."""
    found = []
    for user, given in scores.items():
        ranked = given.copy()
        ranked[likes[user][:seen]] = -np.inf
        place = np.argsort(np.argsort(-ranked, kind="stable"), kind="stable")
        found.append(np.mean(1 / (1 + place[likes[user][seen:]])))
    return float(np.mean(found))


def scored(rec: gm.Recommender, **asked: Any) -> np.ndarray:
    return rec.vectors @ rec.query(**asked).vector[0]


# --- what it is good for -------------------------------------------------------------------------------------------


def test_attributes_tell_the_taste_of_somebody_new(
    rec: gm.Recommender, bare: gm.Recommender, likes: list[np.ndarray]
) -> None:
    new = range(NEW, USERS)
    popular = quality(dict.fromkeys(new, bare.touches), likes, 0)
    said = {user: scored(rec, user_attributes={"group": f"g{group(user)}"}) for user in new}
    listed = {user: scored(rec, user=f"u{user}") for user in new}
    assert quality(said, likes, 0) > 1.2 * popular
    assert quality(listed, likes, 0) > 1.2 * popular, "the table knows them by their id"
    clicked = {user: [f"i{likes[user][0]}"] for user in new}
    mean = {user: scored(bare, history=clicks) for user, clicks in clicked.items()}
    both = {user: scored(rec, history=clicks, user=f"u{user}") for user, clicks in clicked.items()}
    assert quality(both, likes, 1) > 1.05 * quality(mean, likes, 1)


def test_attributes_help_users_with_few_clicks(
    rec: gm.Recommender, bare: gm.Recommender, likes: list[np.ndarray]
) -> None:
    few = [user for user in range(20) if user != 7]
    with_them, without = ({user: scored(one, user=f"u{user}") for user in few} for one in (rec, bare))
    assert quality(with_them, likes, 2) > quality(without, likes, 2)


def test_wrong_attributes_do_not_hurt_long_histories(
    interactions: gm.Interactions, bare: gm.Recommender, table: pa.Table, likes: list[np.ndarray]
) -> None:
    random = np.random.default_rng(1)
    mixed = table["group"].take(pa.array(random.permutation(table.num_rows)))
    lies = pa.table({"user_id": table["user_id"], "group": mixed})
    lied = built(interactions, lies)
    long = range(20, NEW)
    wrong, without = ({user: scored(one, user=f"u{user}") for user in long} for one in (lied, bare))
    assert quality(wrong, likes, 6) > 0.95 * quality(without, likes, 6)


def test_no_item_and_nobody_else_changes(rec: gm.Recommender, bare: gm.Recommender) -> None:
    assert np.array_equal(rec.item_factors, bare.item_factors)
    row = rec.users.row("u7")
    assert np.array_equal(rec.user_factors[row], bare.user_factors[row]), "nothing is said of u7"
    assert rec.query("u7").behaviour == pytest.approx(bare.query("u7").behaviour, abs=1e-6)


# --- a request -----------------------------------------------------------------------------------------------------


def test_a_known_user_is_pulled_to_what_is_known(rec: gm.Recommender) -> None:
    assert rec.told is not None
    for user in ("u3", "u60"):
        at = rec.users.row(user)
        query = rec.query(user)
        assert query.expected == pytest.approx(rec.told.of_users[at])
        assert query.behaviour == pytest.approx(rec.user_factors[at], abs=1e-4), "as the index holds it"
        features = rec.told.people.features(user)
        assert rec.told.of_users[at] == pytest.approx(rec.told.of_features(features), abs=1e-5)


def test_what_is_given_stands_before_the_table(rec: gm.Recommender) -> None:
    other = rec.query("u60", user_attributes={"group": "g1"})
    assert not np.allclose(other.behaviour, rec.query("u60").behaviour)
    assert np.array_equal(other.rows, rec.query("u60").rows)
    known = {"group": "g0", "likes": ["a0", "b"]}
    assert rec.query("u60", user_attributes=known).behaviour == pytest.approx(rec.query("u60").behaviour, abs=1e-6)
    nothing = rec.query("u60", user_attributes={})
    assert nothing.expected is None and not nothing.told
    assert rec.query(history=["i1"], user_attributes={}).expected == pytest.approx(rec.now.folding.mean_user)


@pytest.mark.parametrize(
    "asked",
    [
        {"user": "u60"},
        {"user": "u130"},
        {"user": "u7"},
        {"user_attributes": {"group": "g2", "age": 33}},
        {"history": {"i1": 1, "i5": -1}, "user_attributes": {"group": "g2"}},
        {"user": "u60", "history": ["i9"], "user_attributes": {"likes": "a1|b"}},
        {"history": ["i1"]},
    ],
)
def test_shares_sum_to_the_score(rec: gm.Recommender, asked: dict[str, Any]) -> None:
    for item in ("i0", "i42"):
        told = rec.explain(item, **asked)
        assert sum(why.share for why in told.because) == pytest.approx(told.score, abs=1e-5)
        said = [why.title for why in told.because]
        knows = asked != {"user": "u7"} and asked != {"history": ["i1"]}
        assert said.count("what is known of you") == knows


def test_somebody_of_whom_only_attributes_are_known(rec: gm.Recommender) -> None:
    found = rec.recommend("u130", k=5)
    assert len(found.ids) == 5 and "what is known of you" in {why.title for why in found[0].because}
    assert "u130" not in rec.users
    with pytest.raises(UnknownId, match="user: unknown id 'u999'"):
        rec.recommend("u999")
    with pytest.raises(InvalidInput, match="nothing to go by"):
        rec.recommend(user_attributes={})
    with pytest.raises(InvalidInput, match="nothing to go by"):
        rec.recommend(user_attributes={"group": "never met"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"grop": "g1"}, "no attribute 'grop' of users; they are group, age, likes"),
        ({"age": "old"}, "the attribute 'age' holds string; expected numbers"),
        ("g1", "user_attributes is 'g1', a str; expected a mapping"),
    ],
)
def test_attributes_that_cannot_be_used(rec: gm.Recommender, given: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        rec.recommend(user_attributes=given)


def test_an_index_without_people_says_so(bare: gm.Recommender) -> None:
    assert bare.told is None
    with pytest.raises(InvalidInput, match=r"knows nothing of users beside what they touched: build\(\.\.\., users="):
        bare.recommend(history=["i1"], user_attributes={"group": "g1"})


# --- a build, a table ----------------------------------------------------------------------------------------------


def test_a_file_of_users(interactions: gm.Interactions, rec: gm.Recommender, table: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    rows = zip(*(table[name].to_pylist() for name in ("user_id", "group", "age")), strict=True)
    lines = [f"{id},{kind},{'' if age is None else age}" for id, kind, age in rows]
    path.write_text("\n".join(["person,group,age", *lines]))
    people = gm.read_users(path, user_col="person")
    assert [(one.name, one.kind) for one in people.attributes.columns] == [("group", "values"), ("age", "number")]
    assert repr(people) == "People(159 users; attributes: group, age)"
    from_file = built(interactions, people)
    again = built(interactions, table.select(["user_id", "group", "age"]))
    assert np.array_equal(from_file.user_factors, again.user_factors)
    config = CONFIG.model_copy(update={"user_attributes": ("age", "group")})
    told = gm.build(interactions, rec.catalog, users=table, config=config).told
    assert told is not None and told.people.attributes.names == ("age", "group")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (pa.table({"user_id": ["u1", "u1"], "a": [1, 2]}), "user 'u1' occurs in row 0 and again in row 1"),
        (pa.table({"user_id": ["u1"]}), "no column beside their ids"),
        (pa.table({"id": ["u1"], "a": [1]}), "user_col"),
        (pa.table({"user_id": ["u1"], "a": [{"b": 1}]}), "the attribute 'a' holds struct"),
        (
            pa.table({"user_id": [1, 2], "a": [1, 2]}),
            "says nothing of the 120 users .* bring the ids to the same",
        ),
        (pa.table({"user_id": ["u1", None], "a": [1, 2]}), "empty user id"),
    ],
)
def test_tables_that_cannot_be_used(interactions: gm.Interactions, bad: pa.Table, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        built(interactions, bad)


def test_a_column_that_is_not_there(interactions: gm.Interactions, table: pa.Table) -> None:
    config = CONFIG.model_copy(update={"user_attributes": ("grup",)})
    with pytest.raises(InvalidInput, match="'grup', which is not there; the columns are group"):
        gm.build(interactions, users=table, config=config)


# --- an index that lives, and lies on disk -------------------------------------------------------------------------


def test_people_are_kept_on_disk(rec: gm.Recommender, tmp_path: Path) -> None:
    gm.save(rec, tmp_path / "index")
    loaded = gm.load(tmp_path / "index")
    asked: list[dict[str, Any]] = [
        {"user": "u60"},
        {"user": "u130"},
        {"user_attributes": {"group": "g1"}},
        {"user": "u7"},
        {"history": ["i3"]},
    ]
    for one in asked:
        assert loaded.recommend(**one).to_dict() == rec.recommend(**one).to_dict()
    gm.save(loaded, tmp_path / "again")
    again = gm.load(tmp_path / "again")
    assert again.told is not None and rec.told is not None
    assert np.array_equal(again.told.of_users, rec.told.of_users)
    assert again.told.people.table.to_pylist() == rec.told.people.table.to_pylist()


def test_people_of_another_shape_are_refused(rec: gm.Recommender, bare: gm.Recommender, tmp_path: Path) -> None:
    assert rec.told is not None
    told = replace(rec.told, of_users=rec.told.of_users[1:])
    gm.save(gm.Recommender(replace(rec.now, told=told)), tmp_path / "index")
    with pytest.raises(IncompatibleIndex, match=r"people.parquet and what goes with it are .* expected"):
        gm.load(tmp_path / "index")
    gm.save(bare, tmp_path / "bare")
    assert gm.load(tmp_path / "bare").told is None
    assert not any("people" in path.name for path in (tmp_path / "bare").rglob("*"))


def test_writes_know_what_is_known(interactions: gm.Interactions, table: pa.Table, likes: list[np.ndarray]) -> None:
    rec = built(interactions, table)
    before = rec.query("u130")
    rec.update_users(gm.Interactions.from_arrays(["u130", "u60", "nobody"], ["i1", "i2", "i2"]))
    assert rec.told is not None and len(rec.told.of_users) == len(rec.users) == NEW + 2
    at = rec.users.row("u130")
    assert rec.told.of_users[at] == pytest.approx(before.expected, abs=1e-5)
    assert not rec.told.of_users[rec.users.row("nobody")].any()
    for user in ("u130", "u60", "nobody"):
        assert rec.query(user).behaviour == pytest.approx(rec.user_factors[rec.users.row(user)], abs=1e-4)
    rec.update_users(gm.Interactions.from_arrays(["u61"], ["i3"]))
    assert rec.query("u61").behaviour == pytest.approx(rec.user_factors[rec.users.row("u61")], abs=1e-4)
    rec.remove_items(["i1"])
    rec.compact()
    assert rec.recommend("u130").ids, "the history is empty again, and the attributes are not"


def test_a_refit_learns_them_anew(interactions: gm.Interactions, table: pa.Table) -> None:
    rec = built(interactions, table)
    liked = rec.recommend(user_attributes={"group": "g1"}, k=10).ids
    rec.refit(iterations=2)
    assert len(set(liked) & set(rec.recommend(user_attributes={"group": "g1"}, k=10).ids)) >= 7
    for user in ("u3", "u60", "u7"):
        assert rec.query(user).behaviour == pytest.approx(rec.user_factors[rec.users.row(user)], abs=1e-4)


def test_the_lists_of_a_night_are_those_of_requests(rec: gm.Recommender, tmp_path: Path) -> None:
    gm.recommend_all(rec, tmp_path / "lists", k=5)
    lists = parquet.read_table(tmp_path / "lists").to_pydict()
    for user in ("u0", "u7", "u60"):
        night = [item for one, item in zip(lists["user_id"], lists["item_id"], strict=True) if one == user]
        assert night == list(rec.recommend(user, k=5).ids)


def test_people_by_id(table: pa.Table) -> None:
    people = gm.read_users(table)
    found = people.features_of(gm.IdMap(["u9", "nobody", "u7", "u1"]))
    assert found.shape == (4, people.attributes.dim)
    assert not found[[1, 2]].any() and np.array_equal(found[3], people.features("u1"))
    with pytest.raises(UnknownId):
        people.features("u7")
    with pytest.raises(InvalidInput, match="twice"):
        people.only(["group", "group"])
    assert isinstance(people.only(["age"]), People)
