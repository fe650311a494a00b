"""Opening costs little: arrays are maps that processes share, and tables are decoded, and checked, at their first use.

What waits is as safe as what does not: it is read from the file that was opened, and damage in it is named.
"""

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from publisher import contents

import geo_mf as gm
from geo_mf import store
from geo_mf.data.catalog import Catalog
from geo_mf.data.ids import IdMap
from geo_mf.data.interactions import ReadReport
from geo_mf.errors import IncompatibleIndex
from geo_mf.folding import Sums
from geo_mf.store.binding import save
from geo_mf.store.contents import StoredTable

TABLES: dict[str, Callable[[gm.Recommender], Any]] = {
    "user_ids": lambda rec: rec.users.row(103),
    "item_ids": lambda rec: rec.catalog.items.ids,
    "texts": lambda rec: rec.catalog.texts,
    "catalog": lambda rec: rec.catalog.table,
}
"""Every table of an index, and a use that reads it."""


@pytest.fixture(scope="module")
def saved(recommender: gm.Recommender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("opening") / "small"
    save(recommender, out)
    return out


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tables that were decoded, in order."""
    names: list[str] = []
    read = StoredTable.read

    def noted(self: StoredTable) -> pa.Table:
        names.append(self.path.stem)
        return read(self)

    monkeypatch.setattr(StoredTable, "read", noted)
    return names


# --- what opening does not do ------------------------------------------------------------------------------------


def test_opening_decodes_no_table_and_a_request_only_what_it_needs(saved: Path, reads: list[str]) -> None:
    rec = gm.load(saved)
    assert len(rec.users) == 24 and len(rec.catalog) == 27 and rec.catalog.items.type == pa.string()
    assert reads == []
    rec.recommend(103)
    assert sorted(reads) == ["catalog", "item_ids", "user_ids"]  # the catalogue, for titles
    rec.recommend(104, where="year > 1990")
    _ = rec.catalog.texts, rec.catalog.texts, rec.titles, rec.catalog.columns
    assert sorted(reads) == ["catalog", "item_ids", "texts", "user_ids"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_arrays_are_shared_read_only_maps_of_their_files(saved: Path) -> None:
    rec = gm.load(saved)
    now, folder = rec.now, saved / "v000001"
    held = {
        "user_factors": now.user_factors,
        "item_factors": now.item_factors,
        "embeddings": now.embeddings,
        "touches": now.touches,
        "trend": now.trend,
        "live": now.live,
        "prior": now.prior.coefficients,
        "history_items": now.history.indices,
        "history_weights": now.history.data,
    }
    maps = re.findall(r"(?m)^(\w+)-(\w+) (\S+) \S+ \S+ \S+ +(/.*)$", Path("/proc/self/maps").read_text())
    places = [(int(low, 16), int(high, 16), rights, file) for low, high, rights, file in maps]
    for name, array in held.items():
        address = array.ctypes.data
        (place,) = [(rights, file) for low, high, rights, file in places if low <= address < high]
        assert place == ("r--s", str(folder / f"{name}.npy"))
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


SHARER = """
import re, sys
from pathlib import Path
from geo_mf import store

held = store.read_version(sys.argv[1], check="quick")[1].array("numbers")
total = int(held.sum())
print("touched", flush=True)
sys.stdin.readline()
part = Path("/proc/self/smaps").read_text().split("numbers.npy\\n")[1]
print({name: int(kib) for name, kib in re.findall(r"(Rss|Pss|Private_Dirty): +(\\d+) kB", part)[:3]}, flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells what is shared")
def test_two_processes_hold_the_pages_of_an_array_once(tmp_path: Path) -> None:
    kib = 4096
    store.publish(tmp_path / "movies", {"numbers": np.ones(kib * 128, np.int64)}, {})
    command = [sys.executable, "-c", SHARER, str(tmp_path / "movies")]
    two = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in two:
        assert process.stdout is not None and process.stdout.readline() == "touched\n"
    for process in two:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        memory = dict(re.findall(r"'(\w+)': (\d+)", process.stdout.readline()))
        assert int(memory["Rss"]) >= kib
        assert int(memory["Pss"]) <= 0.6 * int(memory["Rss"])
        assert memory["Private_Dirty"] == "0"
    for process in two:
        process.communicate("\n")


def assert_same_sums(one: Sums, other: Sums) -> None:
    for name, array in one.arrays().items():
        assert other.arrays()[name].dtype == array.dtype
        assert np.array_equal(other.arrays()[name], array), name


def test_what_row_solves_need_is_read_and_is_that_of_the_arrays(saved: Path, recommender: gm.Recommender) -> None:
    now = gm.load(saved).now
    assert now.folding.known is not None
    assert isinstance(now.folding.fold_in.basis.base, np.memmap)
    assert_same_sums(now.folding.sums, replace(now.folding, known=None).sums)
    assert_same_sums(now.folding.sums, recommender.now.folding.sums)
    balance = recommender.now.folding.balance
    for name in ("user_counts", "item_counts"):
        assert np.array_equal(getattr(now.folding.balance, name), getattr(balance, name))
    assert now.folding.balance.scale == balance.scale


def test_an_index_without_them_works_them_out_and_answers_alike(saved: Path, tmp_path: Path) -> None:
    manifest, held = store.read_version(saved)
    whole: dict[str, Any] = {**held.arrays, **{name: held.table(name) for name in held.tables}}
    whole |= {name: bytes(blob) for name, blob in held.blobs.items()}
    for name in (part.name for part in fields(Sums)):
        del whole[name]
    store.publish(tmp_path / "old", whole, manifest.meta)
    old, new = gm.load(tmp_path / "old"), gm.load(saved)
    assert old.now.folding.known is None
    asked: list[dict[str, Any]] = [{"user": 103}, {"history": ["i1", "i2", "wet"]}, {"text": "boats", "user": 104}]
    for ask in asked:
        assert old.recommend(**ask) == new.recommend(**ask)


def test_what_was_read_serves_no_longer_than_its_arrays(saved: Path) -> None:
    rec = gm.load(saved)
    rec.remove_items(["i0"])
    assert rec.now.folding.known is not None, "no factor has changed"
    rec.update_users(gm.Interactions.from_arrays([103, 999], ["i1", "i2"]))
    assert rec.now.folding.known is None
    assert_same_sums(rec.now.folding.sums, replace(rec.now.folding).sums)
    before = rec.recommend(999)
    save(rec, saved.parent / "written")
    assert gm.load(saved.parent / "written").recommend(999) == before
    objective = replace(rec.objective, regularization=2 * rec.objective.regularization)
    loaded = gm.load(saved).now
    assert replace(loaded, objective=objective).folding.known is None
    assert replace(loaded, blend=replace(loaded.blend, newcomer=3.0)).folding.newcomers.objective == replace(
        loaded.objective, regularization=3 * loaded.objective.regularization
    )


# --- what waits is what was opened -------------------------------------------------------------------------------


def test_what_waits_is_read_from_the_file_that_was_opened(
    saved: Path, recommender: gm.Recommender, tmp_path: Path
) -> None:
    root = tmp_path / "index"
    shutil.copytree(saved, root)
    rec, other = gm.load(root), gm.load(root)
    for name in TABLES:
        (tmp_path / "new").write_bytes(b"another file under the same name")
        os.rename(tmp_path / "new", root / "v000001" / f"{name}.parquet")
    assert rec.recommend(103) == recommender.recommend(103)
    shutil.rmtree(root)
    assert other.catalog.table.equals(recommender.catalog.table)
    assert other.catalog.texts == recommender.catalog.texts
    assert other.titles == recommender.titles


@pytest.mark.parametrize("name", TABLES)
def test_damage_that_the_quick_check_cannot_see_is_refused_by_name_when_it_is_read(
    name: str, saved: Path, tmp_path: Path
) -> None:
    root = tmp_path / "index"
    shutil.copytree(saved, root)
    path = root / "v000001" / f"{name}.parquet"
    damaged = bytearray(path.read_bytes())
    damaged[60] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(IncompatibleIndex, match=f"{name}.parquet is damaged"):
        gm.load(root)
    rec = gm.load(root, check="quick")
    for _ in range(2):  # it stays refused
        with pytest.raises(IncompatibleIndex, match=f"{name}.parquet.*Restore this file"):
            TABLES[name](rec)
    for other, use in TABLES.items():
        if other != name:
            use(rec)


def test_a_flipped_bit_in_a_page_is_found_without_any_hash(tmp_path: Path) -> None:
    """Pages have checksums: under check="quick" too, a table is refused or it is the one that was written."""
    root, rng, refused = tmp_path / "movies", random.Random(0), 0
    words = [f"word {rng.random()}" for _ in range(2000)]
    table = pa.table({"text": words, "number": [rng.random() for _ in words]})
    store.publish(root, contents(1) | {"catalog": table}, {})
    path = root / "v000001" / "catalog.parquet"
    whole = path.read_bytes()
    pages = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")  # in front of the description at the file's end
    for place in rng.sample(range(8 * pages), 300):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = store.read_version(root, check="quick")[1].table("catalog")
        except IncompatibleIndex as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert found.equals(table)
    assert refused > 280


def test_a_flipped_bit_in_the_head_of_an_array_is_found_without_any_hash(tmp_path: Path) -> None:
    """The head is compared with the manifest, and never run as Python."""
    root = tmp_path / "movies"
    store.publish(root, contents(1), {})
    path = root / "v000001" / "factors.npy"
    whole = path.read_bytes()
    for place in range(8 * 128):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(IncompatibleIndex, match=re.escape(str(path))):
            store.read_version(root, check="quick")


# --- what waits is like what does not ----------------------------------------------------------------------------


def test_deferred_ids_are_read_once_and_only_for_an_id() -> None:
    calls: list[int] = []

    def read() -> IdMap:
        calls.append(1)
        return IdMap(["b", "a"])

    waiting = IdMap.deferred(2, pa.string(), read)
    assert (len(waiting), waiting.type, calls) == (2, pa.string(), [])
    assert waiting == IdMap(["b", "a"]) and hash(waiting) == hash(IdMap(["b", "a"]))
    assert waiting.row("a") == 1 and waiting.take([0]) == ["b"] and "c" not in waiting
    assert waiting.joined(IdMap(["c"])).ids.to_pylist() == ["b", "a", "c"]
    assert calls == [1]


def test_a_deferred_catalog_is_an_ordinary_one_from_its_first_use() -> None:
    table = pa.table({"id": ["a", "b"], "title": ["A", None]})
    whole = Catalog(IdMap(["a", "b"]), ["x", "y"], table, "id", "title", ReadReport(2, 2))
    calls: list[str] = []

    def waiting() -> Catalog:
        calls.clear()
        return Catalog.deferred(
            texts=lambda: calls.append("texts") or ["x", "y"],
            table=lambda: calls.append("table") or table,
            items=whole.items,
            id_column="id",
            title_column="title",
            report=whole.report,
        )

    one = waiting()
    assert (len(one), one.id_column, one.template, calls) == (2, "id", None, [])
    assert one.titles_of(np.array([0])) == ["A"] and calls == ["table"]
    assert one.titles_of(np.array([1, 0])) == ["y", "A"] and calls == ["table", "texts"]
    for use in (
        lambda c: c.titles,
        lambda c: c.columns,
        lambda c: c.has_text.tolist(),
        lambda c: c.mask("title == 'A'").tolist(),
        lambda c: c.take([1]).texts,
        lambda c: c.take([1, 0]).titles,
        lambda c: repr(c),
    ):
        assert use(waiting()) == use(whole)
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        _ = waiting().colour  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("column", ["title", None])
def test_titles_of_rows_are_those_of_all_titles(column: str | None) -> None:
    views = pa.array(["Alpha", None, "  ", ""], pa.string_view())
    table = pa.table({"id": ["a", "b", "c", "d"], "title": views})
    one = Catalog(IdMap(["a", "b", "c", "d"]), ["Alpha text", "b" * 100, "", ""], table, "id", column, ReadReport(4, 4))
    for rows in ([], [3], [2, 0, 1], [0, 0]):
        assert one.titles_of(np.array(rows, np.int64)) == [one.titles[row] for row in rows]
