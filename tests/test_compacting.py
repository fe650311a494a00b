"""An index that forgets what was removed, and one that is planned: with cells, and with less text to look in."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SIZE, changed, small_catalog, small_interactions
from typer.testing import CliRunner

import geo_mf as gm
from geo_mf.cli.app import app
from geo_mf.errors import IncompatibleIndex, InvalidInput, UnknownId
from geo_mf.index.approximate import ApproximateIndex
from geo_mf.index.living import LivingIndex
from geo_mf.index.plan import Goal
from geo_mf.index.scan import faiss
from geo_mf.living.indexing import Wanted
from geo_mf.store.binding import load, save

KINDS: list[dict[str, Any]] = [{}, {"index": "IVF2,SQ8"}, {"index": "IVF2,SQ8", "text_dims": 4}, {"index": "HNSW8"}]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())) or "planned")


def made(out: Path | None = None, **settings: Any) -> gm.Recommender:
    quick = {"factors": 8, "iterations": 3, "cache": False, "learn_blend": False}
    config = gm.BuildConfig.of(**quick | settings)
    return gm.build(small_interactions(), small_catalog(), out=out, config=config, encoder=gm.HashEncoder(dim=32))


@kinds
def test_what_was_removed_is_forgotten_and_the_rest_stays(kind: dict[str, Any], tmp_path: Path) -> None:
    rec = made(**kind)
    gone = rec.catalog.items.take([1, 4])
    kept = [id for id in rec.catalog.items.ids.to_pylist() if id not in gone]
    rec.remove_items(gone)
    factors = {id: rec.item_factors[rec.catalog.items.row(id)] for id in kept}
    assert set(rec.compact()) == set(gone)
    assert rec.catalog.items.ids.to_pylist() == kept
    assert rec.live.all()
    assert rec.history.shape == (len(rec.users), len(kept))
    for id in kept:
        assert (rec.item_factors[rec.catalog.items.row(id)] == factors[id]).all()
    with pytest.raises(UnknownId):
        rec.similar_items(gone[0])
    save(rec, tmp_path / "index")
    again = load(tmp_path / "index", encoder=rec.encoder)
    for user in rec.users.take(range(4)):
        found = rec.recommend(user, k=50)
        assert not set(found.ids) & set(gone)
        assert again.recommend(user, k=50).ids == found.ids
    rec.add_items(_row(gone[0]))
    assert not rec.now.history[:, [rec.catalog.items.row(gone[0])]].nnz, "it comes back as a new one"


def _row(id: Any) -> Any:
    import pyarrow as pa

    return pa.table({"item_id": [id], "title": ["once more"]})


def test_nothing_removed_is_nothing_forgotten() -> None:
    rec = made()
    before = rec.recommend(rec.users.take([0])[0], k=5).ids
    assert rec.compact() == ()
    assert rec.recommend(rec.users.take([0])[0], k=5).ids == before


def test_an_index_does_not_forget_everything() -> None:
    rec = made()
    rec.remove_items(rec.catalog.items.ids)
    with pytest.raises(InvalidInput, match="nothing would be left"):
        rec.compact()
    assert len(rec.catalog) == SIZE + 3


def test_the_command_publishes_a_version_without_them(tmp_path: Path) -> None:
    home = tmp_path / "index"
    rec = made(home)
    rec.remove_items(rec.catalog.items.take([0, 2]))
    save(rec, home)
    result = CliRunner().invoke(app, ["index", "compact", str(home), "--keep", "1", "--json"])
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["version"], told["items"], told["forgotten"]) == ("v000003", SIZE + 1, 2)
    assert told["pruned"] == ["v000001", "v000002"]
    assert len(load(home).catalog) == SIZE + 1


def test_the_goal_of_a_build_is_kept(tmp_path: Path) -> None:
    rec = made(tmp_path / "index", index_rate=1e12, index_memory=1, recall=0.9)
    assert Wanted.of(rec.card) == Wanted(None, Goal(0.9, 1e12, 10**6), None)
    assert Wanted.of(load(tmp_path / "index").card) == Wanted.of(rec.card)
    assert Wanted.of({}) == Wanted()


def test_a_card_that_does_not_say_how_the_index_was_made_is_planned_anew(tmp_path: Path) -> None:
    rec = made(tmp_path / "index", index="IVF2,SQ8")
    odd = changed(rec, card={**rec.card, "index": {}})
    odd.add_items(_row("late"))
    save(odd, tmp_path / "index")
    assert "late" in load(tmp_path / "index").recommend(text="once more", k=3).ids


def test_publishing_absorbs_what_was_written_into_the_cells_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = made(tmp_path / "index", index="IVF2,SQ8")
    before = load(tmp_path / "index")
    before.remove_items(rec.catalog.items.take([0]))
    before.add_items(_row("late"))
    trained = []
    monkeypatch.setattr("geo_mf.index.approximate.train", lambda *given: trained.append(given))
    save(before, tmp_path / "index")
    assert not trained
    after = load(tmp_path / "index")
    assert isinstance(after.index, ApproximateIndex)
    assert after.card["index"]["factory"] == "IVF2,SQ8"
    np.testing.assert_array_equal(after.index.vectors, before.vectors)
    assert "late" in after.recommend(text="once more", k=3).ids
    assert rec.catalog.items.take([0])[0] not in after.recommend(text="once more", k=50).ids
    assert isinstance(rec.index, ApproximateIndex)
    quantizers = [faiss.downcast_index(one.faiss_index.quantizer) for one in (rec.index, after.index)]
    centres = [quantizer.reconstruct_n(0, 2) for quantizer in quantizers]
    np.testing.assert_array_equal(*centres)


@kinds
def test_a_planned_index_answers_comes_back_and_lives(kind: dict[str, Any], tmp_path: Path) -> None:
    rec, exact = made(tmp_path / "index", **kind), made(index="Flat")
    card = rec.card["index"]
    assert card["factory"] == kind.get("index", "Flat")
    assert set(card) >= {"recall_at_10", "recall_at_100", "worst_tenth_at_10", "target_holds", "single_ms"}
    again = load(tmp_path / "index")
    for user in rec.users.take(range(6)):
        found = rec.recommend(user, k=8)
        assert len(found) == 8
        assert again.recommend(user, k=8).to_dict() == found.to_dict()
        # Whatever candidates were looked for in, a score is that of all columns.
        for item in found:
            assert item.score == pytest.approx(exact.explain(item.id, user).score, abs=1e-5)
    if kind:
        assert isinstance(again.index, ApproximateIndex)
        assert not again.index.vectors.flags.writeable
        np.testing.assert_array_equal(again.index.vectors, rec.vectors)
    if "text_dims" in kind:
        assert card["dims"] == 8 + 4 + 1
        assert 0 < card["text_kept"] < 1
    again.add_items(_row("late"))
    assert isinstance(again.index, LivingIndex)
    assert "late" in again.recommend(text="once more", k=3).ids
    save(again, tmp_path / "index")
    assert not isinstance(load(tmp_path / "index").index, LivingIndex)
    assert "late" in load(tmp_path / "index").recommend(text="once more", k=3).ids


def test_what_faiss_parses_is_hashed_even_where_the_rest_is_not(tmp_path: Path) -> None:
    made(tmp_path / "index", index="IVF2,SQ8")
    codes = next((tmp_path / "index").glob("v*/index.faiss"))
    data = bytearray(codes.read_bytes())
    data[len(data) // 2] ^= 1
    codes.write_bytes(bytes(data))
    with pytest.raises(IncompatibleIndex, match=r"index\.faiss is damaged: expected SHA-256"):
        load(tmp_path / "index", check="quick")


def test_a_kind_that_faiss_does_not_know_is_named() -> None:
    with pytest.raises(InvalidInput, match="'IVFoops'"):
        made(index="IVFoops")


def test_an_index_that_has_forgotten_all_that_anybody_touched_goes_on(
    recommender: gm.Recommender, tmp_path: Path
) -> None:
    rec = gm.Recommender(recommender.now)
    rec.remove_items(rec.catalog.items.take(np.flatnonzero(~rec.cold)))
    rec.compact()
    assert rec.cold.all() and not rec.history.nnz
    gm.save(rec, tmp_path / "cold")
    again = gm.load(tmp_path / "cold")
    one = rec.catalog.items.take([0])[0]
    for asked in (rec, again):
        assert np.isfinite(asked.similar_items(one).scores).all()
        assert asked.recommend(text="boats").ids and np.isfinite(asked.recommend(text="boats").scores).all()
    assert again.recommend(text="boats") == rec.recommend(text="boats")
