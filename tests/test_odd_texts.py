"""Texts and attributes as they come: empty, all alike, in any script, very long, or as many values as items."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import SIZE, small_interactions

import geo_mf as gm

IDS = [*(f"i{at}" for at in range(SIZE)), "new", "newer"]
SCRIPTS = {
    "Greek": ("βάρκες σε ποτάμια και λίμνες", "βουνά με βράχια και χιόνι"),
    "Chinese": ("河流 和 湖泊 上的 船", "岩石 与 雪 的 山"),
    "Arabic": ("قوارب في الأنهار والبحيرات", "جبال من الصخور والثلج"),
    "of letters with marks": ("e\u0301te\u0301 lac a\u0300 l\u2019eau", "mont\u0303ana ne\u0301ve\u0301 roc"),
}


def built(texts: list[str | None], attributes: dict[str, Any] | None = None, learned: bool = False) -> gm.Recommender:
    """Even readers touch even items; the last two items nobody has touched."""
    given = attributes or {}
    table = pa.table({"item_id": IDS, "words": pa.array(texts, pa.string())} | given)
    config = gm.BuildConfig.of(
        factors=8, iterations=4, cache=False, learn_blend=learned, attributes=tuple(given), encoder="hash"
    )
    return gm.build(small_interactions(), gm.read_catalog(table, text="{words}"), config=config)


def row(rec: gm.Recommender, id: str) -> int:
    return rec.catalog.items.row(id)


def holds(rec: gm.Recommender, *requests: dict[str, Any]) -> None:
    """Everything is finite, and everybody gets a full list that is sorted and new to them."""
    for table in (rec.vectors, rec.user_factors, rec.prior.coefficients, rec.now.features):
        assert np.isfinite(table).all()
    usual: list[dict[str, Any]] = [{"user": 100}, {"history": ["i2"]}, {"history": {"i2": 1, "i3": -1}}]
    for request in [*usual, *requests]:
        found = rec.recommend(**request, k=5)
        assert len(found) == 5
        assert np.isfinite(found.scores).all()
        assert found.scores == sorted(found.scores, reverse=True)
        assert not set(request.get("history", ())) & set(found.ids)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("text", [None, "", "  \n\t "])
def test_without_any_text_only_behaviour_speaks(text: str | None, learned: bool) -> None:
    rec = built([text] * len(IDS), learned=learned)
    holds(rec)
    assert not rec.embeddings.any()
    assert not rec.item_factors[SIZE:].any(), "nothing is known of the new items"
    assert {int(id[1:]) % 2 for id in rec.recommend(100, k=1).ids} == {0}


def test_some_without_text_stand_at_zero_until_attributes_tell() -> None:
    texts = [SCRIPTS["Greek"][at % 2] for at in range(SIZE)]
    plain = built([*texts, "", ""])
    holds(plain, {"text": "βουνά"})
    assert not plain.now.features[SIZE:].any()
    assert not plain.item_factors[SIZE:].any()
    kinds = pa.array([*(["wet", "steep"][at % 2] for at in range(SIZE)), "wet", None])
    rec = built([*texts, "", ""], {"kind": kinds})
    holds(rec, {"text": "βουνά"}, {"attributes": {"kind": "wet"}})
    assert rec.item_factors[row(rec, "new")].any()
    assert not rec.item_factors[row(rec, "newer")].any()
    even, odd = (rec.item_factors[:SIZE][start::2].mean(axis=0) for start in (0, 1))
    assert rec.item_factors[row(rec, "new")] @ (even - odd) > 0


@pytest.mark.parametrize("learned", [False, True])
def test_texts_that_are_all_the_same_tell_items_not_apart(learned: bool) -> None:
    rec = built(["the same words"] * len(IDS), learned=learned)
    holds(rec, {"text": "the same words"}, {"text": "others"})
    assert np.ptp(rec.embeddings, axis=0).max() == 0
    assert np.array_equal(rec.item_factors[SIZE], rec.item_factors[SIZE + 1])
    assert {int(id[1:]) % 2 for id in rec.recommend(100, k=1).ids} == {0}, "behaviour does"


@pytest.mark.parametrize("script", SCRIPTS)
def test_any_script_is_text(script: str) -> None:
    wet, steep = SCRIPTS[script]
    rec = built([f"{(wet, steep)[at % 2]} {at}" for at in range(len(IDS))])
    holds(rec, {"text": wet}, {"text": steep})
    assert rec.card["items_without_text"] == 0
    for text, parity in ((wet, 0), (steep, 1)):
        found = rec.recommend(text=text, k=6, weights=(0, 1)).ids
        assert {IDS.index(id) % 2 for id in found} == {parity}
        found = rec.recommend(text=text, k=6, weights=(1, 0)).ids
        assert {IDS.index(id) % 2 for id in found} == {parity}, "and it predicts what those like who read such items"


def test_a_text_of_a_megabyte_is_one_text() -> None:
    texts = [f"{SCRIPTS['Greek'][at % 2]} {at}" for at in range(len(IDS))]
    long = "river lake boat " * 65_536
    rec = built([*texts[:-2], long, "x" * 2**20])
    holds(rec, {"text": "river"}, {"text": long})
    assert np.linalg.norm(rec.embeddings, axis=1) == pytest.approx(np.ones(len(IDS)), abs=1e-6)
    assert rec.recommend(text="a boat on the river", weights=(0, 1), k=1).ids == ["new"]
    assert len(rec.titles[row(rec, "new")]) <= 80


def test_characters_that_are_no_letters() -> None:
    texts = ["\x00", "🏔 ❄", "\u200b", "\u202e", "\ufeff", "...", "a\x00b"]
    rec = built([texts[at % len(texts)] for at in range(len(IDS))])
    holds(rec, {"text": "\x00"}, {"text": "\u202eword"})


@pytest.mark.parametrize("learned", [False, True])
def test_ten_thousand_values(learned: bool) -> None:
    people = [[f"person {at * 400 + n}" for n in range(400)] for at in range(25)]
    cast = pa.array([*people, ["person 3", "nobody else"]], pa.list_(pa.string()))
    assert len({name for names in people for name in names}) == 10_000
    rec = built([""] * len(IDS), {"cast": cast}, learned=learned)
    assert rec.now.attributes.dim == 512
    holds(rec, {"attributes": {"cast": ["person 3", "person 12"]}}, {"attributes": {"cast": "never met"}})
    assert rec.item_factors[SIZE:].any(axis=1).all()


def test_a_value_of_its_own_for_each_item_and_one_for_all() -> None:
    rec = built([""] * len(IDS), {"own": IDS, "all": ["same"] * len(IDS), "none": pa.nulls(len(IDS))})
    assert rec.now.attributes.dim == len(IDS) + 1
    holds(rec, {"attributes": {"own": "i3"}}, {"attributes": {"all": "same"}})


def test_numbers_of_any_size() -> None:
    big = pa.array([*(10.0**at for at in range(-12, 12)), float("inf"), None])
    rec = built([""] * len(IDS), {"big": big, "stamp": pa.array(range(len(IDS)), pa.timestamp("ns"))})
    holds(rec, {"attributes": {"big": 1e300}}, {"attributes": {"big": -1}})
