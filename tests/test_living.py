"""An index that changes while it is asked: it answers as one built anew from the same factors would."""

import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import SIZE, small_interactions
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv, parquet
from test_binding import COLUMNS, catalog_of, tiny

import geo_mf as gm
from geo_mf.errors import FitDiverged, IncompatibleIndex, InvalidInput, UnknownId
from geo_mf.evaluation.scorers import of_recommender
from geo_mf.evaluation.split import random_split
from geo_mf.factorize.fit import Priors, Settings, fit
from geo_mf.geometry import blend, trend
from geo_mf.geometry.predictor import Predictor
from geo_mf.index.approximate import ApproximateIndex, Effort
from geo_mf.index.exact import ExactIndex
from geo_mf.living.solves import solved_items, solved_users
from geo_mf.snapshot import Snapshot
from geo_mf.store import binding

WORDS = "amber birch cedar delta ember fjord grove heron islet jetty knoll larch maple night ocean pearl".split()
LINES = ("boats on rivers and lakes of water", "mountains of rock and paths of snow")
DAY = 86_400 * 10**9


def word(id: str) -> str:
    """A name of its own for each id."""
    return f"{WORDS[sum(id.encode()) % 16]} {id}"


def table(ids: list[str], topics: Sequence[int | None], **more: Any) -> pa.Table:
    titles = [None if topic is None else f"{LINES[topic]} {word(id)}" for id, topic in zip(ids, topics, strict=True)]
    year = pa.array([1980 + at for at in range(len(ids))], pa.int64())
    columns = {
        "item_id": ids,
        "title": pa.array(titles, pa.string()),
        "topic": pa.array(topics, pa.int64()),
        "year": year,
    }
    return pa.table(columns | more)


def catalog() -> gm.Catalog:
    ids = [*(f"i{at}" for at in range(SIZE)), "wet", "steep", "bare"]
    return gm.read_catalog(table(ids, [*(at % 2 for at in range(SIZE)), 0, 1, None]), text="{title} {topic}")


@pytest.fixture(scope="module", params=["exact", "cells"])
def built(request: pytest.FixtureRequest) -> gm.Recommender:
    config = gm.BuildConfig.of(factors=8, iterations=8, cache=False, learn_blend=False)
    rec = gm.build(small_interactions(), catalog(), config=config, encoder=gm.HashEncoder(dim=32))
    now = replace(rec.now, blend=replace(rec.blend, trend=0.1, cold_scale=1.5))
    cold = now.item_factors.copy()
    cold[now.cold] = np.float32(1.5) * now.prior(now.features[now.cold])
    now = replace(now, item_factors=cold)
    if request.param == "exact":
        return gm.Recommender(replace(now, index=gm.FaissIndex(now.vectors)))
    # All cells are visited and all rows scored: what differs is how the index is kept.
    index = ApproximateIndex.build(now.vectors, "IVF4,SQ8", effort=Effort(4, 100, 0.2))
    return gm.Recommender(replace(now, index=index))


@pytest.fixture
def rec(built: gm.Recommender) -> gm.Recommender:
    """One of its own for each test: snapshots do not change, so they may share the first."""
    return gm.Recommender(built.now)


def row(rec: gm.Recommender, id: object) -> int:
    return rec.catalog.items.row(id)


def rebuilt(now: Snapshot) -> Snapshot:
    """The same factors in an index made from nothing else than its contents."""
    items = gm.read_catalog(now.catalog.table, text=now.catalog.template, title_col=now.catalog.title_column)
    embeddings = now.encoder.encode(items.texts)
    factors = now.item_factors.copy()
    factors[now.cold] = np.float32(now.blend.cold_scale) * now.prior(embeddings[now.cold])
    crowd = trend.column(now.touches, embeddings, now.card["config"]["prior_regularization"])
    index = ExactIndex(blend.vectors(factors, embeddings, crowd, now.blend))
    return replace(now, catalog=items, embeddings=embeddings, item_factors=factors, trend=crowd, index=index)


# --- any sequence of writes --------------------------------------------------------------------------------------

NEW = [f"n{at}" for at in range(6)]
writes = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "update", "touch"]), st.integers(0, 2**16)), min_size=1, max_size=8
)


@settings(max_examples=25)
@given(writes=writes)
def test_after_any_writes_an_answer_is_that_of_an_index_built_anew(
    built: gm.Recommender, writes: list[tuple[str, int]]
) -> None:
    rec = gm.Recommender(built.now)
    alive = set(rec.catalog.items.ids.to_pylist())
    for write, seed in writes:
        random = np.random.default_rng(seed)
        topic = [int(random.integers(0, 2))]
        if write == "add" and (free := sorted(({*NEW, "i3", "wet"}) - alive)):
            id = free[seed % len(free)]
            assert rec.add_items(table([id], [topic[0] if seed % 5 else None])).added == (id,)
            alive.add(id)
        elif write == "remove" and len(alive) > 20:
            gone = random.choice(sorted(alive), 2, replace=False).tolist()
            assert set(rec.remove_items(gone).removed) == set(gone)
            alive -= set(gone)
        elif write == "update":
            chosen = random.choice(sorted(alive), 2, replace=False).tolist()
            assert rec.update_items(table(chosen, topic * 2)).updated == tuple(chosen)
        elif write == "touch":
            ids = random.choice(rec.catalog.items.ids.to_pylist(), 3, replace=False).tolist()
            people = random.integers(95, 130, 3)
            assert rec.update_users(gm.Interactions.from_arrays(people, ids)).users == len(set(people.tolist()))
        now = rec.now
        again = rebuilt(now)
        asked: list[dict[str, Any]] = [
            {"user": 100 + seed % SIZE},
            {"history": ["i1", "i3"]},
            {"text": "snow and rock"},
        ]
        for question in asked:
            for k, where in ((10, None), (40, None), (6, "year < 1990 or topic == 1")):
                found = now.recommend(**question, k=k, where=where)
                assert len(set(found.ids)) == len(found.ids)
                assert set(found.ids) <= alive
                allowed = now.catalog.mask(where) & now.live
                allowed[now.query(**question).rows] = False
                assert len(found) == min(k, int(allowed.sum()))
                assert found.scores == sorted(found.scores, reverse=True)
                assert found.scores == pytest.approx(again.recommend(**question, k=k, where=where).scores, abs=1e-4)
        assert set(now.trending(k=99).ids) <= alive
        some = sorted(alive)[seed % len(alive)]
        assert set(now.similar_items(some, k=99).ids) <= alive - {some}
        assert now.card["items"] == len(now.catalog) and now.card["removed_items"] == len(now.catalog) - len(alive)


def test_lists_are_those_of_a_rebuild_with_the_same_factors(rec: gm.Recommender) -> None:
    rec.add_items(table([f"many{'x' * at}" for at in range(200)], [at % 2 for at in range(200)]))
    rec.remove_items([f"i{at}" for at in range(0, SIZE, 3)])
    now, again = rec.now, rebuilt(rec.now)
    asked = [{"user": user} for user in now.users.ids.to_pylist()]
    asked += [{"text": f"{name} {LINES[at % 2]}"} for at, name in enumerate(WORDS)]
    same = [now.recommend(**question).ids == again.recommend(**question).ids for question in asked]
    assert np.mean(same) >= 0.99


# --- items -------------------------------------------------------------------------------------------------------


def test_a_new_item_is_found_at_once_by_text_and_by_those_who_would_like_it(rec: gm.Recommender) -> None:
    before = rec.now
    changes = rec.add_items(table(["new"], [1]))
    assert repr(changes).startswith("ItemChanges(1 item added, 1 text encoded; ")
    at = row(rec, "new")
    assert rec.item_factors[at] == pytest.approx(1.5 * rec.prior(rec.embeddings[[at]])[0])
    assert rec.cold[at] and rec.touches[at] == 0 and rec.live[at]
    text = rec.catalog.texts[at]
    assert text == f"{LINES[1]} {word('new')} 1"
    assert "new" in rec.recommend(text=text, weights=(0, 1), k=3).ids
    assert "new" in rec.recommend(101, k=2).ids and "new" not in rec.recommend(100, k=2).ids
    assert rec.similar_items("new", space="text").ids
    assert "new" in rec.recommend(101, where="year == 1980", k=30).ids
    assert "new" not in before.catalog.items and before.recommend(101).ids


def test_what_a_new_row_does_not_have_is_missing(rec: gm.Recommender) -> None:
    rec.add_items(pa.table({"item_id": ["new"], "topic": [1]}))
    assert rec.catalog.table.slice(row(rec, "new"), 1).to_pylist() == [
        {"item_id": "new", "title": None, "topic": 1, "year": None}
    ]
    assert rec.catalog.texts[-1] == "1"
    assert rec.titles[-1] == "1"


def test_every_kind_of_source_gives_the_same_items(rec: gm.Recommender, tmp_path: Path) -> None:
    given = table(["a", "b", "c"], [0, 1, None])
    csv.write_csv(given, tmp_path / "items.csv")
    parquet.write_table(given, tmp_path / "items.parquet")
    sources: list[Any] = [
        tmp_path / "items.csv",
        str(tmp_path / "items.parquet"),
        given,
        given.to_pandas(),
        given.select([3, 2, 1, 0]),
    ]
    sources.append(gm.read_catalog(given, text="{title} {topic}"))
    for source in sources:
        one = gm.Recommender(rec.now)
        assert one.add_items(source).added == ("a", "b", "c")
        assert one.catalog.table.slice(SIZE + 3).equals(given)
        assert one.catalog.texts[-3:] == [f"{LINES[0]} {word('a')} 0", f"{LINES[1]} {word('b')} 1", ""]
        assert one.catalog.table.schema == rec.catalog.table.schema


def test_an_update_changes_what_is_given_and_keeps_the_rest(rec: gm.Recommender) -> None:
    at, before = row(rec, "i4"), rec.now
    assert rec.update_items(pd.DataFrame({"item_id": ["i4"], "year": [1901]})).encoded == 0
    kept = before.catalog.table.slice(at, 1).to_pylist()[0]
    assert rec.catalog.table.slice(at, 1).to_pylist() == [kept | {"year": 1901}]
    assert rec.catalog.texts == before.catalog.texts
    assert np.array_equal(rec.item_factors, before.item_factors)
    assert rec.recommend(user=100, where="year < 1950", exclude_seen=False).ids == ["i4"]
    changes = rec.update_items(pa.table({"item_id": ["steep", "i4"], "title": ["lakes", "snow"]}))
    assert (changes.updated, changes.encoded) == (("steep", "i4"), 2)
    assert rec.catalog.texts[at] == "snow 0"
    assert rec.embeddings[at] == pytest.approx(rec.encoder.encode(["snow 0"])[0])
    steep = row(rec, "steep")
    assert rec.item_factors[steep] == pytest.approx(1.5 * rec.prior(rec.embeddings[[steep]])[0])
    assert rec.item_factors[at] == pytest.approx(dense_item(rec.now, at), abs=1e-4)
    assert not np.allclose(rec.item_factors[at], before.item_factors[at], atol=1e-3)
    others = np.delete(np.arange(SIZE), at)
    assert np.array_equal(rec.item_factors[others], before.item_factors[others])


def test_a_removed_item_is_in_no_answer_and_still_tells_taste(rec: gm.Recommender) -> None:
    taste = rec.query(history=["i2"]).behaviour
    assert repr(rec.remove_items(["i2", "wet", "i2"])).startswith("ItemChanges(2 items removed; ")
    assert repr(rec).startswith("Recommender(24 users, 27 items, 3 cold, 2 removed;")
    everything = [rec.recommend(100, k=99, exclude_seen=False), rec.recommend(text="boats", k=99), rec.trending(k=99)]
    assert not {"i2", "wet"} & {id for found in everything for id in found.ids}
    assert len(everything[0]) == SIZE + 1
    for call in (rec.similar_items, rec.audience):
        with pytest.raises(UnknownId, match="item: 'i2' was removed from this index; add_items brings it back"):
            call("i2")
    assert np.array_equal(rec.query(history=["i2"]).behaviour, taste)
    assert any(because.id == "i2" for because in rec.recommend(history=["i2"], k=1)[0].because)
    back = rec.add_items(table(["i2"], [1]))
    assert back.added == ("i2",)
    at = row(rec, "i2")
    assert rec.live[at] and not rec.cold[at]
    assert rec.catalog.texts[at] == f"{LINES[1]} {word('i2')} 1"
    assert rec.item_factors[at] == pytest.approx(dense_item(rec.now, at), abs=1e-4)
    assert len(rec.catalog) == SIZE + 3


def test_removed_items_score_nothing_in_an_evaluation(rec: gm.Recommender) -> None:
    split = random_split(small_interactions(), 0.2, seed=0)
    rec.remove_items(["i2"])
    for scorer in of_recommender(rec, split):
        scores = scorer.scores(np.arange(3))
        assert np.isneginf(scores[:, split.train.items.row("i2")]).all()
        assert np.isfinite(scores[:, split.train.items.row("i3")]).all()


def test_all_items_may_go_and_come_back(rec: gm.Recommender) -> None:
    rec.remove_items(rec.catalog.items.ids)
    for found in (rec.recommend(100), rec.recommend(text="snow"), rec.trending()):
        assert found.ids == [] and found.reason.startswith("0 of 10: no other item is allowed")
    rec.add_items(catalog())
    assert len(rec.recommend(100)) == 10


TEXTS = [
    "",
    "  \x00\n ",
    LINES[0],
    LINES[0],
    "гора и снег над озером",
    "雪の山と湖",
    "ريف \u202eأزرق",
    "snow " * 200_000,
]


def test_odd_texts(rec: gm.Recommender) -> None:
    ids = [f"t{at}" for at in range(len(TEXTS))]
    rec.add_items(pa.table({"item_id": ids, "title": TEXTS}))
    at = [row(rec, id) for id in ids]
    lengths = np.linalg.norm(rec.embeddings[at], axis=1)
    assert lengths[:2].tolist() == [0, 0] and lengths[2:] == pytest.approx(np.ones(len(ids) - 2), abs=1e-5)
    assert np.isfinite(rec.vectors).all()
    assert np.array_equal(rec.vectors[at[2]], rec.vectors[at[3]])
    assert not rec.item_factors[at[:2]].any()
    assert set(ids) <= set(rec.recommend(100, k=99).ids)
    assert rec.recommend(text=TEXTS[4], weights=(0, 1), k=1).ids == ["t4"]
    assert rec.recommend(text=TEXTS[5], weights=(0, 1), k=1).ids == ["t5"]


# --- refusals leave everything as it was --------------------------------------------------------------------------

BAD: list[tuple[str, Any, type[Exception], str]] = [
    (
        "add_items",
        {"item_id": ["x", "i1"]},
        InvalidInput,
        "1 of 2 items are in the index already: 'i1'; change them with update",
    ),
    ("add_items", {"item_id": ["x", "x"]}, InvalidInput, "item 'x' occurs in row 0 and again in row 1"),
    ("add_items", {"item_id": ["x", None]}, InvalidInput, "1 of 2 rows cannot be used"),
    ("add_items", {"item_id": ["x"], "yaer": [1]}, InvalidInput, "no column 'yaer'; its columns are year"),
    ("add_items", {"item_id": ["x"], "text": ["y"]}, InvalidInput, "no column 'text'"),
    ("add_items", {"item_id": ["x"], "year": ["soon"]}, InvalidInput, "column 'year' holds string, but int64"),
    ("add_items", {"item_id": ["x"], "year": [1.5]}, InvalidInput, "column 'year' holds int64 .* does not fit"),
    ("add_items", {"item_id": ["x"], "title": [5]}, InvalidInput, "column 'title' holds int64, but string"),
    ("add_items", {"item_id": [5]}, InvalidInput, "column 'item_id' holds int64, but string"),
    ("add_items", {"id": ["x"]}, InvalidInput, "there is no column 'item_id'"),
    ("update_items", {"item_id": ["i1", "x"]}, UnknownId, "1 of 2 ids are unknown: 'x'"),
    ("update_items", {"item_id": ["i1", "i1"]}, InvalidInput, "item 'i1' occurs in row 0 and again in row 1"),
    ("update_items", {"item_id": ["i1"], "yaer": [1]}, InvalidInput, "no column 'yaer'"),
    ("update_users", {"user_id": [1], "item_id": ["i1"], "weight": [-1.0]}, InvalidInput, "negative"),
    (
        "update_users",
        {"user_id": ["a"], "item_id": ["i1"]},
        InvalidInput,
        "the new ids are strings.*ids here are integers",
    ),
    ("update_users", {"user": [1], "item_id": ["i1"]}, InvalidInput, "no column 'user_id'"),
]


@pytest.mark.parametrize(("verb", "columns", "error", "message"), BAD)
def test_bad_tables_change_nothing(
    rec: gm.Recommender, verb: str, columns: dict[str, list[Any]], error: type[Exception], message: str
) -> None:
    before = rec.now
    with pytest.raises(error, match=message):
        getattr(rec, verb)(pa.table(columns))
    assert rec.now is before


def test_other_bad_calls_change_nothing(rec: gm.Recommender, tmp_path: Path) -> None:
    rec.remove_items(["i5"])
    before = rec.now
    calls: list[tuple[Any, type[Exception], str]] = [
        (lambda: rec.remove_items(["i1", "x"]), UnknownId, "1 of 2 ids are unknown: 'x'"),
        (lambda: rec.remove_items(["i5"]), UnknownId, "1 of these items were removed from this index: 'i5'; add_items"),
        (lambda: rec.remove_items("i1"), InvalidInput, "must be a list or an array"),
        (lambda: rec.remove_items([1]), UnknownId, "unknown"),
        (lambda: rec.update_items(pa.table({"item_id": ["i5"]})), UnknownId, "were removed from this index: 'i5'"),
        (lambda: rec.add_items(tmp_path / "none.csv"), FileNotFoundError, "none.csv"),
        (lambda: rec.add_items(5), InvalidInput, "cannot read a int"),  # pyright: ignore[reportArgumentType]
        (lambda: rec.refit(0), InvalidInput, "iterations is 0; expected a whole number"),
        (lambda: rec.refit(True), InvalidInput, "iterations is True"),
    ]
    for call, error, message in calls:
        with pytest.raises(error, match=message):
            call()
        assert rec.now is before


def test_a_csv_cell_that_does_not_fit_its_column(rec: gm.Recommender, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("item_id,title,year\nx,snow,soon\n", encoding="utf-8")
    before = rec.now
    with pytest.raises(
        InvalidInput, match="column 'year' holds int64 in the catalogue, and this does not fit: .*'soon'"
    ):
        rec.add_items(tmp_path / "more.csv")
    assert rec.now is before


def test_another_encoder_and_a_card_without_its_record_are_refused(rec: gm.Recommender) -> None:
    other = gm.Recommender(replace(rec.now, encoder=gm.HashEncoder(dim=32, seed=1)))
    before = other.now
    with pytest.raises(IncompatibleIndex, match="built by an encoder with fingerprint"):
        other.add_items(table(["x"], [0]))
    assert other.now is before
    older = gm.Recommender(replace(rec.now, card={k: v for k, v in rec.card.items() if k != "weight_mean"}))
    with pytest.raises(IncompatibleIndex, match="does not hold 'weight_mean'"):
        older.update_users(gm.Interactions.from_arrays([100], ["i2"]))


def test_nothing_to_do_changes_nothing(rec: gm.Recommender) -> None:
    before = rec.now
    assert repr(rec.add_items(table([], []))) == "ItemChanges(nothing changed)"
    assert repr(rec.remove_items([])) == "ItemChanges(nothing changed)"
    changes = rec.update_users(gm.Interactions.from_arrays([100, 100], ["who", "i1"], [1.0, 0.0]))
    assert (changes.unlisted, changes.interactions, changes.users) == (1, 0, 0)
    assert rec.now is before


def test_columns_of_every_kind_grow_and_change(tmp_path: Path) -> None:
    rec = tiny([1, 1, 2], ["a", "b", "b"], catalog_of(COLUMNS))
    rec.add_items(pa.table({"item_id": ["e", "f", "g", "h"], **COLUMNS}))
    assert rec.catalog.table.slice(4).select(list(COLUMNS)).equals(pa.table(COLUMNS))
    rec.add_items(pa.table({"item_id": ["x"], "nothing": ["a first value"]}))
    assert rec.catalog.table.column("nothing").to_pylist() == [*[None] * 8, "a first value"]
    (tmp_path / "more.csv").write_text("item_id,string,half,flag,dictionary,large\ny,,1.5,true,b,7\n", encoding="utf-8")
    rec.add_items(tmp_path / "more.csv")
    told = {
        name: rec.catalog.table.column(name)[-1].as_py() for name in ("string", "half", "flag", "dictionary", "large")
    }
    assert told == {"string": None, "half": 1.5, "flag": True, "dictionary": "b", "large": 7}
    changed = pa.table({"item_id": ["a"], "list": [["q"]], "dictionary": ["new"], "decimal": [3.0]})
    before = rec.catalog.table.slice(0, 1).to_pylist()[0]
    rec.update_items(changed)
    found = rec.catalog.table.slice(0, 1).to_pylist()[0]
    assert found == before | {"list": ["q"], "dictionary": "new", "decimal": Decimal(3)}
    assert rec.catalog.mask("'q' in list").tolist() == [True] + [False] * 9
    gm.save(rec, tmp_path / "index")
    assert gm.load(tmp_path / "index").catalog.table.num_rows == 10


# --- users -------------------------------------------------------------------------------------------------------


def dense_item(now: Snapshot, at: int) -> np.ndarray:
    """One item's row solve against all users, in float64, written out."""
    history = now.history.toarray().astype(float)
    people = np.flatnonzero(history[:, at])
    c = history[people, at] * discounts(now)[people, at]
    w, o = now.user_factors.astype(float), now.objective
    ridge = o.regularization * (len(people) + o.unobserved_weight * len(w)) ** o.nu
    expected = now.prior(now.embeddings[[at]])[0].astype(float)
    x = w[people]
    system = o.unobserved_weight * w.T @ w + ridge * np.eye(w.shape[1]) + (x.T * c) @ x
    return np.linalg.solve(system, x.T @ c + ridge * expected)


def dense_user(now: Snapshot, at: int) -> np.ndarray:
    history = now.history.toarray().astype(float)
    things = np.flatnonzero(history[at])
    c = history[at, things] * discounts(now)[at, things]
    h, o = now.item_factors[~now.cold].astype(float), now.objective
    ridge = o.regularization * (len(things) + o.unobserved_weight * len(now.catalog)) ** o.nu
    x = now.item_factors[things].astype(float)
    return np.linalg.solve(o.unobserved_weight * h.T @ h + ridge * np.eye(h.shape[1]) + (x.T * c) @ x, x.T @ c)


def discounts(now: Snapshot) -> np.ndarray:
    seen = now.history.toarray() > 0
    p, q = now.objective.activity_discount, now.objective.popularity_discount
    raw = np.maximum(seen.sum(1), 1.0)[:, None] ** -p * np.maximum(seen.sum(0), 1.0)[None] ** -q
    return raw / raw[seen].mean()


def test_touched_rows_are_the_exact_row_solves(rec: gm.Recommender) -> None:
    before = rec.now
    changes = rec.update_users(
        pd.DataFrame({"user_id": [100, 100, 555, 555, 555, 777], "item_id": ["i1", "i2", "i4", "wet", "i1", "who"]})
    )
    assert (changes.new_users, changes.users, changes.items, changes.interactions) == ((555,), 2, 4, 5)
    assert repr(changes).startswith(
        "UserChanges(5 interactions of 2 users, 1 of them new, with 4 items; 1 with items that the catalogue does not "
    )
    now = rec.now
    known, new = now.users.row(100), now.users.row(555)
    # What the items were solved against: the users as they were, and the new one against the items as they were.
    start = replace(
        now,
        item_factors=before.item_factors,
        user_factors=np.vstack([before.user_factors, np.zeros((1, 8), np.float32)]),
    )
    first = start.user_factors.copy()
    first[new] = dense_user(start, new)
    start = replace(start, user_factors=first)
    moved = [row(rec, id) for id in ("i1", "i2", "i4", "wet")]
    for at in moved:
        wanted = dense_item(start, at)
        assert np.linalg.norm(now.item_factors[at] - wanted) <= 1e-4 * np.linalg.norm(wanted)
    for at in (known, new):
        wanted = dense_user(now, at)
        assert np.linalg.norm(now.user_factors[at] - wanted) <= 1e-4 * np.linalg.norm(wanted)
    still = np.setdiff1d(np.arange(len(now.catalog)), moved)
    assert np.array_equal(now.item_factors[still], before.item_factors[still])
    others = np.setdiff1d(np.arange(SIZE), known)
    assert np.array_equal(now.user_factors[others], before.user_factors[others])
    assert rec.recommend(555, k=1).ids
    assert now.query(555).behaviour == pytest.approx(now.user_factors[new], abs=1e-5)


def test_a_row_solve_is_that_of_a_refit_s_half_epoch(rec: gm.Recommender) -> None:
    rec.update_users(gm.Interactions.from_arrays([100, 555, 555], ["i1", "i4", "i6"]))
    now, warm = rec.now, np.flatnonzero(~rec.cold)
    priors = Priors.of(now.history, now.objective, now.card["config"]["prior_regularization"], now.features)
    assert priors.items is not None
    now = replace(now, prior=Predictor.linear(priors.items.fit(now.item_factors)))
    how = Settings(8, now.objective, 1, "cholesky")
    fitted = fit(now.folding.balance.user_rows(now.history), how, lambda: (now.user_factors, now.item_factors), priors)
    items = solved_items(now, warm)
    # A fit turns its factors into an eigenbasis; inner products stay.
    assert items @ items.T == pytest.approx(fitted.items[warm] @ fitted.items[warm].T, abs=1e-4)
    factors = now.item_factors.copy()
    factors[warm] = items
    users = solved_users(replace(now, item_factors=factors), np.arange(len(now.users)))
    assert users @ items.T == pytest.approx(fitted.users @ fitted.items[warm].T, abs=2e-2), "cold items weigh a little"


def test_a_cold_item_moves_from_what_its_text_says_to_who_touches_it(rec: gm.Recommender) -> None:
    at = row(rec, "wet")
    expected = rec.prior(rec.embeddings[[at]])[0]
    climbers = np.arange(101, 100 + SIZE, 2)
    rows = rec.users.rows(climbers.tolist())
    liked = [float((rec.user_factors[rows] @ expected).mean())]
    apart = [0.0]
    for count in (1, 4, 12):
        one = gm.Recommender(rec.now)
        one.update_users(gm.Interactions.from_arrays(climbers[:count], ["wet"] * count))
        assert not one.cold[at]
        liked.append(float((rec.user_factors[rows] @ one.item_factors[at]).mean()))
        apart.append(float(np.linalg.norm(one.item_factors[at] - expected)))
    assert liked == sorted(liked) and liked[-1] > liked[0] + 0.1
    assert apart == sorted(apart)


@pytest.mark.parametrize("weighting", ["log", "linear", "uniform"])
def test_histories_are_those_of_a_build_that_saw_everything(weighting: str) -> None:
    users, items, weights = [1, 1, 2, 2, 3], ["a", "b", "b", "c", "a"], [1.0, 2.0, 3.0, 1.0, 5.0]
    later = [1, 4, 2, 4], ["a", "c", "a", "c"], [2.0, 1.0, 4.0, 3.0]
    config = gm.BuildConfig.of(factors=2, iterations=1, cache=False, learn_blend=False, weighting=weighting)
    rec = gm.build(gm.Interactions.from_arrays(users, items, weights), config=config)
    mean = rec.card["weight_mean"]
    rec.update_users(gm.Interactions.from_arrays(*later))
    both = gm.Interactions.from_arrays([*users, *later[0]], [*items, *later[1]], [*weights, *later[2]])
    whole = gm.build(both, config=config)
    assert rec.users == whole.users and rec.catalog.items == whole.catalog.items
    assert rec.history.toarray() * mean == pytest.approx(whole.history.toarray() * whole.card["weight_mean"], rel=1e-5)
    assert np.array_equal(rec.touches, whole.touches)
    assert np.allclose(rec.trend, whole.trend)
    assert rec.card["interactions"] == whole.card["interactions"] == 7


def test_touches_fade_as_in_a_build() -> None:
    times = np.asarray([0, 10, 20, 30]) * DAY
    config = gm.BuildConfig.of(factors=2, iterations=1, cache=False, learn_blend=False)
    first = gm.Interactions.from_arrays([1, 2, 3, 1], ["a", "a", "b", "c"], None, times)
    rec = gm.build(first, config=config)
    assert rec.card["newest"] == 30 * DAY
    faded = trend.touches(rec.catalog.items.rows(["a", "a", "b", "c"]), times, 3, 7.0)
    rec.now = replace(rec.now, blend=replace(rec.blend, half_life=7.0), touches=faded)
    rec.update_users(gm.Interactions.from_arrays([1, 4], ["b", "a"], None, np.asarray([40, 25]) * DAY))
    rows = rec.catalog.items.rows(["a", "a", "b", "c", "b", "a"])
    assert rec.touches == pytest.approx(trend.touches(rows, np.append(times, np.asarray([40, 25]) * DAY), 3, 7.0))
    assert rec.card["newest"] == 40 * DAY
    before = rec.touches[rec.catalog.items.row("c")]
    rec.update_users(gm.Interactions.from_arrays([2], ["c"]))
    assert rec.touches[rec.catalog.items.row("c")] == pytest.approx(before + 1), "without a datetime it counts one"


# --- refit -------------------------------------------------------------------------------------------------------


def test_a_refit_begins_where_the_factors_are_and_stays_in_its_place(rec: gm.Recommender) -> None:
    rec.refit(20)
    rec.update_users(gm.Interactions.from_arrays([100, 555], ["i1", "i4"]))
    rec.remove_items(["i7"])
    before = rec.now
    report = rec.refit(2)
    now = rec.now
    assert (
        report.iterations == 2 and report.sampled == SIZE + 1
    )  # not the removed one, and not the one without a factor
    assert 0 <= report.churn <= 0.5 and 0 < report.residual < 0.2
    assert repr(report).startswith("RefitReport(2 epochs; of the 10 nearest items ")
    assert now.item_factors == pytest.approx(before.item_factors, abs=0.2)
    moved = now.item_factors - before.item_factors
    turned = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0]
    assert np.linalg.norm(moved) < np.linalg.norm(now.item_factors @ turned - before.item_factors)
    assert now.item_factors[now.cold] == pytest.approx(1.5 * now.prior(now.features[now.cold]), abs=1e-5)
    assert "i7" not in rec.recommend(101, k=99).ids
    assert now.catalog is before.catalog and now.history is before.history
    assert (now.index.size, now.index.dim) == now.vectors.shape
    first = rec.refit()
    assert first.iterations == 8 and set(first.seconds) == {"fit", "rest"}


# --- readers and writers -----------------------------------------------------------------------------------------


def test_readers_never_wait_and_never_see_half_a_change(rec: gm.Recommender) -> None:
    pair, failures, answers = ("p1", "p22"), [], 0
    ended = threading.Event()

    def read(seed: int) -> None:
        nonlocal answers
        while not ended.is_set():
            try:
                found = rec.recommend(100 + seed, k=40, exclude_seen=False)
                assert len(set(found.ids)) == len(found.ids) in (SIZE + 3, SIZE + 5)
                assert len({id in found.ids for id in pair}) == 1, "both, or neither"
                now = rec.now
                assert len(now.catalog) == len(now.live) == len(now.item_factors) == now.index.size
                assert len(now.users) == len(now.user_factors) == len(now.history.indptr) - 1
                now.similar_items("i1", k=40)
                now.recommend(text="snow", k=3)
                answers += 1
            except Exception as error:
                failures.append(error)
                return

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(50):
        rec.add_items(table(list(pair), [0, 1]))
        if turn % 10 == 0:
            rec.update_users(gm.Interactions.from_arrays([100, 1000 + turn], ["i1", "p1"]))
        rec.remove_items(list(pair))
    ended.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert answers > 0


class Held(gm.HashEncoder):
    """An encoder that waits until it is let go, and may fail then."""

    def __init__(self) -> None:
        super().__init__(dim=32)
        self.asked, self.go, self.fails = threading.Event(), threading.Event(), False

    def encode(self, texts: Sequence[str], **options: Any) -> np.ndarray:
        if options.get("kind") != "query":
            self.asked.set()
            assert self.go.wait(60)
            if self.fails:
                raise OSError("the model is gone")
        return super().encode(texts, **options)


def test_a_request_does_not_wait_for_a_write_and_a_write_that_fails_leaves_no_trace(rec: gm.Recommender) -> None:
    encoder = Held()
    one = gm.Recommender(replace(rec.now, encoder=encoder))
    before = one.now
    writer = threading.Thread(target=one.add_items, args=(table(["new"], [0]),))
    writer.start()
    assert encoder.asked.wait(60)
    assert one.recommend(100) == rec.recommend(100), "the encoder still has not answered"
    assert one.now is before
    encoder.go.set()
    writer.join()
    assert "new" in one.catalog.items
    encoder.fails, before = True, one.now
    with pytest.raises(OSError, match="the model is gone"):
        one.update_items(table(["new"], [1]))
    assert one.now is before
    assert one.remove_items(["new"]).removed == ("new",), "the next write is not locked out"


def test_factors_that_are_not_finite_are_refused(rec: gm.Recommender) -> None:
    card = {**rec.card, "config": {**rec.card["config"], "weighting": "linear"}, "weight_mean": 1.0}
    rec.now = replace(rec.now, card=card)
    huge = gm.Interactions.from_arrays([100, 555], ["i1", "i2"], [3e38, 3e38])
    before = rec.now
    with warnings.catch_warnings(), pytest.raises(FitDiverged, match="raise the regularization, or scale the weights"):
        warnings.simplefilter("error")
        rec.update_users(huge)
    assert rec.now is before


def test_writers_take_turns(rec: gm.Recommender) -> None:
    threads = [threading.Thread(target=rec.add_items, args=(table([f"w{at}"], [0]),)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"w{at}" for at in range(8)} <= set(rec.catalog.items.ids.to_pylist())
    assert len(rec.catalog) == rec.index.size == SIZE + 11


# --- disk --------------------------------------------------------------------------------------------------------


def test_a_changed_index_is_saved_and_goes_on(rec: gm.Recommender, tmp_path: Path) -> None:
    rec.add_items(table(["new", "newer"], [0, 1]))
    rec.remove_items(["i2", "new"])
    rec.update_users(gm.Interactions.from_arrays([100, 555], ["newer", "i4"]))
    gm.save(rec, tmp_path / "index")
    loaded = gm.load(tmp_path / "index")
    assert np.array_equal(loaded.live, rec.live)
    assert loaded.catalog.template == "{title} {topic}"
    asked: list[dict[str, Any]] = [{"user": 555}, {"user": 100, "k": 99}, {"text": "snow"}, {"history": ["i2"]}]
    for question in asked:
        assert loaded.recommend(**question) == rec.recommend(**question)
    for one in (loaded, rec):
        one.add_items(table(["i2", "last"], [0, 1]))
        one.update_items(pa.table({"item_id": ["i6"], "title": ["snow"]}))
        one.update_users(gm.Interactions.from_arrays([556, 100], ["last", "i3"]))
    for question in asked:
        assert loaded.recommend(**question).scores == pytest.approx(rec.recommend(**question).scores, abs=1e-5)
    loaded.refit(1)
    assert gm.save(loaded, tmp_path / "index") == "v000002"


def test_an_older_index_has_all_items_alive_and_no_template(
    rec: gm.Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = binding.publish

    def older(out: Any, contents: dict[str, Any], meta: dict[str, Any]) -> str:
        contents.pop("live")
        meta["catalog"].pop("template")
        return whole(out, contents, meta)

    monkeypatch.setattr(binding, "publish", older)
    gm.save(rec, tmp_path / "old")
    loaded = gm.load(tmp_path / "old")
    assert loaded.live.all() and loaded.catalog.template is None
    loaded.add_items(pa.table({"item_id": ["x", "y"], "text": ["snow", None], "year": [1, 2]}))
    assert loaded.catalog.texts[-2:] == ["snow", ""]
    assert loaded.catalog.columns == rec.catalog.columns
    loaded.add_items(pa.table({"item_id": ["z"], "title": ["lakes"]}))
    loaded.update_items(pa.table({"item_id": ["i1"], "title": ["other"]}))
    assert loaded.catalog.texts[-1] == "lakes" and loaded.titles[1] == "other"
    assert loaded.catalog.texts[1] == rec.catalog.texts[1], "no template says that it follows the title"


def test_an_index_without_texts(tmp_path: Path) -> None:
    config = gm.BuildConfig.of(factors=2, iterations=1, cache=False)
    rec = gm.build(gm.Interactions.from_arrays([1, 1, 2, 2], ["a", "b", "b", "c"]), config=config)
    with pytest.raises(InvalidInput, match="built without texts"):
        rec.add_items(pa.table({"item_id": ["d"], "text": ["snow"]}))
    rec.add_items(pa.table({"item_id": ["d"]}))
    assert "d" in rec.recommend(1, k=9).ids
    rec.update_users(gm.Interactions.from_arrays([2], ["d"]))
    assert rec.item_factors[3].any()
