"""From memory to disk and back: a loaded recommender answers as the built one did, byte for byte, or not at all."""

import datetime
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import SIZE, changed, small_catalog

import geo_mf as gm
from geo_mf import store
from geo_mf.data.interactions import ReadReport
from geo_mf.errors import IncompatibleIndex, InvalidInput
from geo_mf.geometry.blend import Blend, Weights
from geo_mf.store.binding import save


@pytest.fixture(scope="module")
def saved(recommender: gm.Recommender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("binding") / "small"
    assert save(recommender, out) == "v000001"
    return out


@pytest.fixture(scope="module")
def loaded(saved: Path) -> gm.Recommender:
    return gm.load(saved)


ARRAYS = ("user_factors", "item_factors", "embeddings")


def test_everything_comes_back(recommender: gm.Recommender, loaded: gm.Recommender) -> None:
    for name in ARRAYS:
        assert getattr(loaded, name).dtype == np.float32
        assert np.array_equal(getattr(loaded, name), getattr(recommender, name))
    assert np.array_equal(loaded.vectors, recommender.vectors)
    for name in ("data", "indices", "indptr"):
        assert np.array_equal(getattr(loaded.history, name), getattr(recommender.history, name))
    assert loaded.history.shape == recommender.history.shape
    assert loaded.users == recommender.users
    assert loaded.catalog.items == recommender.catalog.items
    assert loaded.catalog.texts == recommender.catalog.texts
    assert loaded.catalog.table.equals(recommender.catalog.table)
    assert (loaded.catalog.id_column, loaded.catalog.title_column) == ("item_id", "title")
    assert loaded.objective == recommender.objective
    assert loaded.blend == recommender.blend
    assert loaded.fingerprint == recommender.fingerprint == loaded.encoder.fingerprint
    assert loaded.card.items() >= dict(recommender.card).items()
    assert loaded.card["version"] == "v000001"
    assert datetime.datetime.fromisoformat(loaded.card["created"]).tzinfo is not None


def test_a_learned_blend_comes_back(recommender: gm.Recommender, tmp_path: Path) -> None:
    blend = Blend(0.3, ((2, Weights(1, 0.8)), (2**31 - 1, Weights(1, 0))), Weights(0.25, 3), 1.75, 0.125, 30.0)
    save(changed(recommender, blend=blend), tmp_path / "blend")
    assert gm.load(tmp_path / "blend").blend == blend


def test_answers_are_the_same_to_the_last_bit(recommender: gm.Recommender, loaded: gm.Recommender) -> None:
    ask: list[Any] = [
        lambda rec: rec.recommend(103, k=10**9),
        lambda rec: [rec.recommend(text=text) for text in ("snow", "boats", "water and rock")],
        lambda rec: rec.recommend(history={"i2": 2, "wet": 0.5}, text="boats", where="year > 1985"),
        lambda rec: rec.recommend(text="paths of snow", weights=(0.1, 3)),
        lambda rec: rec.similar_items("i7", space="text"),
        lambda rec: rec.similar_items("wet"),
        lambda rec: rec.audience("steep", k=SIZE),
        lambda rec: rec.queries(np.arange(SIZE)).tobytes(),
    ]
    for question in ask:
        assert question(loaded) == question(recommender)


def test_arrays_are_mapped_from_disk_and_cannot_be_written(loaded: gm.Recommender) -> None:
    for name in ARRAYS:
        array = getattr(loaded, name)
        assert isinstance(array.base, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1


def test_a_loaded_recommender_is_saved_as_the_same_bytes(loaded: gm.Recommender, saved: Path, tmp_path: Path) -> None:
    assert save(loaded, tmp_path / "copy") == "v000001"
    names = {path.name for path in (saved / "v000001").iterdir()}
    for name in names - {"SEAL", "manifest.json"}:
        assert (tmp_path / "copy/v000001" / name).read_bytes() == (saved / "v000001" / name).read_bytes()
    assert gm.load(tmp_path / "copy").recommend(103) == loaded.recommend(103)


def test_an_older_version_can_be_asked_for(recommender: gm.Recommender, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "index")
    small = gm.build(
        gm.Interactions.from_arrays([1, 2], ["a", "b"]),
        out=tmp_path / "index",
        config=gm.BuildConfig.of(factors=8, iterations=1, cache=False),
    )
    assert gm.load(tmp_path / "index").recommend(1, exclude_seen=False) == small.recommend(1, exclude_seen=False)
    assert gm.load(tmp_path / "index", version="v000001").recommend(103) == recommender.recommend(103)


# --- damage ------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_in_any_file_is_refused_by_its_name(saved: Path, tmp_path: Path) -> None:
    names = [str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file() and path.name != ".lock"]
    assert len(names) > 12
    rng = np.random.default_rng(0)
    for name in names:
        root = tmp_path / "index"
        shutil.copytree(saved, root)
        whole = (root / name).read_bytes()
        for place in [0, len(whole) - 1, *rng.integers(0, len(whole), 3)]:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << rng.integers(0, 8)
            (root / name).write_bytes(damaged)
            with pytest.raises(IncompatibleIndex, match=Path(name).name):
                gm.load(root)
        shutil.rmtree(root)


def test_no_index_here(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no index here"):
        gm.load(tmp_path / "nothing")


def test_an_artefact_of_another_kind(tmp_path: Path) -> None:
    store.publish(tmp_path / "other", {"numbers": np.ones(3)}, {"kind": "encoder"})
    with pytest.raises(IncompatibleIndex, match="holds 'encoder', not a recommender"):
        gm.load(tmp_path / "other")


# --- encoders ----------------------------------------------------------------------------------------------------


class Own:
    """An encoder of the caller's own, which settings cannot describe."""

    dim, fingerprint, name = 32, "f" * 64, "own"

    def encode(self, texts: Sequence[str], *, kind: str = "document", show_progress: bool = False) -> np.ndarray:
        return gm.HashEncoder(dim=32).encode(texts)

    def spec(self) -> dict[str, Any]:
        return {"kind": "own"}


def test_another_encoder_is_refused(saved: Path, recommender: gm.Recommender) -> None:
    with pytest.raises(IncompatibleIndex, match=r"built by hash-32 \(.*\), and hash-32 is another encoder"):
        gm.load(saved, encoder=gm.HashEncoder(dim=32, seed=1))
    given = gm.HashEncoder(dim=32)
    again = gm.load(saved, encoder=given)
    assert again.encoder is given
    assert again.recommend(text="snow") == recommender.recommend(text="snow")


def test_an_encoder_of_ones_own_is_asked_for(tmp_path: Path) -> None:
    interactions = gm.Interactions.from_arrays([1, 2, 2], ["i0", "i1", "i2"])
    config = gm.BuildConfig.of(factors=8, iterations=1, cache=False, learn_blend=False)
    rec = gm.build(interactions, small_catalog(), out=tmp_path / "own", config=config, encoder=Own())
    with pytest.raises(InvalidInput, match="pass it yourself"):
        gm.load(tmp_path / "own")
    assert gm.load(tmp_path / "own", encoder=Own()).recommend(text="snow") == rec.recommend(text="snow")


# --- ids and columns of every kind -------------------------------------------------------------------------------


def tiny(users: Any, items: Any, catalog: gm.Catalog | None = None, out: Path | None = None) -> gm.Recommender:
    interactions = gm.Interactions.from_arrays(users, items)
    config = gm.BuildConfig.of(factors=2, iterations=1, cache=False, learn_blend=False)
    return gm.build(interactions, catalog, out=out, config=config, encoder=gm.HashEncoder(dim=4))


@pytest.mark.parametrize(
    "ids",
    [
        [1, -5, 2**62],
        [2**63, 2**64 - 1, 1],
        ["1", "01", " 1"],
        ["é", "e\u0301", "🙂"],
        [b"\x00", b"\xff\xfe", b"a"],
        [datetime.date(1970, 1, 1), datetime.date(2026, 2, 28), datetime.date(1, 1, 1)],
    ],
    ids=["int", "uint64", "string", "unicode", "binary", "date"],
)
def test_ids_keep_their_identity(ids: list[Any], tmp_path: Path) -> None:
    a, b, c = ids
    rec = tiny([a, a, b, b, c, c], [a, b, b, c, c, a], out=tmp_path / "ids")
    loaded = gm.load(tmp_path / "ids")
    assert loaded.users == rec.users
    assert loaded.catalog.items == rec.catalog.items
    for user, unseen in ((a, c), (b, a), (c, b)):
        found = loaded.recommend(user)
        assert found == rec.recommend(user)
        assert found.ids == [unseen]
        assert type(found.ids[0]) is type(unseen)
        assert found.to_arrow().column("item_id").to_pylist() == [unseen]
    assert {user for user, _ in loaded.audience(a, k=9)} == {b}


COLUMNS = {
    "string": pa.array(["a", "b", None, ""]),
    "view": pa.array(["a", "b", None, ""], pa.string_view()),
    "dictionary": pa.array(["a", "b", "a", None]).dictionary_encode(),
    "nothing": pa.nulls(4),
    "list": pa.array([["x"], [], None, ["y", "z"]]),
    "struct": pa.array([{"a": 1}, None, {"a": 2}, {"a": None}]),
    "time": pa.array([0, 1, None, -1], pa.timestamp("ns", "UTC")),
    "decimal": pa.array([1, 2, None, 3], pa.decimal128(10, 2)),
    "duration": pa.array([1, 2, None, 3], pa.duration("us")),
    "large": pa.array([1, 2**64 - 1, None, 0], pa.uint64()),
    "half": pa.array(np.asarray([1, 2, 3, 4], np.float16)),
    "flag": pa.array([True, False, None, True]),
}


def catalog_of(columns: dict[str, pa.Array]) -> gm.Catalog:
    ids = ["a", "b", "c", "d"]
    table = pa.table({"item_id": ids, **columns})
    return gm.Catalog(gm.IdMap(ids), ["x", "", "y", "x"], table, "item_id", None, ReadReport(4, 4, unit="row"))


def test_columns_of_every_kind_come_back(tmp_path: Path) -> None:
    rec = tiny([1, 1, 2], ["a", "b", "b"], catalog_of(COLUMNS), tmp_path / "columns")
    loaded = gm.load(tmp_path / "columns")
    assert loaded.catalog.table.equals(rec.catalog.table)
    for where in ("string == 'a'", "dictionary == 'a'", "'x' in list", "flag == True", "nothing is None"):
        assert np.array_equal(loaded.catalog.mask(where), rec.catalog.mask(where))
    assert loaded.titles == rec.titles == ["x", "b", "y", "x"]


def test_a_column_that_parquet_does_not_know_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    odd = {"odd": pa.array([(1, 2, 3)] * 4, pa.month_day_nano_interval())}
    with pytest.raises(InvalidInput, match="a column of the catalogue cannot be stored: .*; drop it or convert it"):
        tiny([1, 1, 2], ["a", "b", "b"], catalog_of(odd), tmp_path / "odd")
    assert list(tmp_path.iterdir()) == []


def test_only_an_index_of_faiss_is_published(recommender: gm.Recommender, tmp_path: Path) -> None:
    exact = changed(recommender, index=gm.ExactIndex(recommender.vectors))
    assert exact.recommend(103).ids == recommender.recommend(103).ids
    with pytest.raises(InvalidInput, match=r"is ExactIndex; only a FaissIndex or an ApproximateIndex"):
        save(exact, tmp_path / "exact")
    assert list(tmp_path.iterdir()) == []
