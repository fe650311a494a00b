"""Vectors that leave an index come back as they were, and others read them; what others wrote is read, or refused."""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

import duckdb
import faiss
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SIZE, changed
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

import geo_mf as gm
from geo_mf.cli.app import app
from geo_mf.export import projector, vector_files, vector_rows
from geo_mf.likeness import SHARES

FORMATS = (".parquet", ".npy", ".npz", ".safetensors", ".faiss")
HOSTILE = [
    "tab\there",
    "new\nline",
    "\r\n",
    "",
    "  ",
    'a "quote',
    "'",
    "line\u2028and\u2029paragraph",
    "\x0b\x0c\x1c\x85",
    "ü語",
]


def renamed(rec: gm.Recommender, items: Any) -> gm.Recommender:
    """The same index, whose items have other ids."""
    return changed(rec, catalog=replace(rec.catalog, items=gm.IdMap(items)))


@pytest.fixture(scope="module")
def removed(recommender: gm.Recommender) -> gm.Recommender:
    rec = gm.Recommender(recommender.now)
    rec.remove_items(["i0", "i7"])
    return rec


@pytest.fixture
def plain() -> gm.Vectors:
    return gm.Vectors(gm.IdMap(["a", "b", "c"]), np.arange(12, dtype=np.float32).reshape(3, 4))


def same(a: gm.Vectors, b: gm.Vectors) -> None:
    assert a.ids == b.ids and a.about == b.about
    assert a.matrix.dtype == np.float32
    np.testing.assert_array_equal(a.matrix, b.matrix)


# --- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("of", ["items", "users"])
@pytest.mark.parametrize("space", ["blend", "factors", "text"])
def test_what_was_written_comes_back(
    removed: gm.Recommender, tmp_path: Path, suffix: str, of: Any, space: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_rows, "PART_BYTES", 600)  # a few rows at a time
    for ids in (removed.catalog.items.ids, np.arange(SIZE + 3) - 2**40, np.arange(SIZE + 3, dtype=np.uint64) + 2**63):
        rec = renamed(removed, ids)
        report = gm.export_vectors(rec, tmp_path / f"v{suffix}", space=space, of=of, overwrite=True)
        found = gm.read_vectors(report.out)
        same(found, gm.Vectors.of(rec, space=space, of=of))
        assert (report.rows, report.dim) == found.matrix.shape
        assert (found.space, found.about["of"], found.about["encoder"]) == (space, of, rec.fingerprint)
        assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
            Path(each).name for each in (report.out, report.beside) if each
        )
        assert report.bytes == sum(each.stat().st_size for each in tmp_path.iterdir())


def test_the_vectors_are_those_of_the_index(recommender: gm.Recommender) -> None:
    now = recommender.now
    wanted = {"blend": now.vectors, "factors": now.item_factors, "text": now.embeddings}
    assert set(wanted) == set(SHARES) == set(vector_rows.SPACES)
    for space, matrix in wanted.items():
        found = gm.Vectors.of(recommender, space=space)  # type: ignore[arg-type]
        assert found.ids == now.catalog.items
        np.testing.assert_array_equal(found.matrix, matrix)


def test_inner_products_of_the_blend_are_the_scores_of_recommend(recommender: gm.Recommender) -> None:
    items, users = gm.Vectors.of(recommender), gm.Vectors.of(recommender, of="users")
    scores = users.matrix @ items.matrix.T
    for row, user in enumerate(users.ids.ids.to_pylist()):
        full = recommender.recommend(user, k=SIZE + 3, exclude_seen=False)
        np.testing.assert_allclose(scores[row, items.ids.rows(full.ids)], full.scores, rtol=1e-4, atol=1e-5)


def test_inner_products_of_text_are_those_of_similar_items(recommender: gm.Recommender) -> None:
    items = gm.Vectors.of(recommender, space="text")
    found = recommender.similar_items("i3", k=5, space="text")
    at = items.ids.rows(found.ids)
    np.testing.assert_allclose(items.matrix[at] @ items.matrix[items.ids.row("i3")], found.scores, rtol=1e-5)


@pytest.mark.parametrize("suffix", [*FORMATS, ".tsv"])
def test_removed_items_are_absent_and_the_rest_keeps_its_order(
    removed: gm.Recommender, tmp_path: Path, suffix: str
) -> None:
    report = gm.export_vectors(removed, tmp_path / f"v{suffix}")
    assert report.rows == SIZE + 1
    if suffix != ".tsv":
        ids = gm.read_vectors(report.out).ids.ids.to_pylist()
        assert ids == [id for id in removed.catalog.items.ids.to_pylist() if id not in ("i0", "i7")]


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_item_at_all(recommender: gm.Recommender, tmp_path: Path, suffix: str) -> None:
    nobody = changed(recommender, live=np.zeros(SIZE + 3, bool))
    report = gm.export_vectors(nobody, tmp_path / f"v{suffix}", space="factors")
    found = gm.read_vectors(report.out)
    assert found.matrix.shape == (0, 8) and found.ids.type == pa.string()


@pytest.mark.parametrize("suffix", [".parquet", ".npy", ".faiss"])
def test_ids_of_every_type_where_there_is_room(recommender: gm.Recommender, tmp_path: Path, suffix: str) -> None:
    days = [date.fromordinal(730_000 + i) for i in range(SIZE + 3)]
    for ids in (days, [b"%d\0" % i for i in range(SIZE + 3)], [f"{i}\0" for i in range(SIZE + 3)]):
        rec = renamed(recommender, ids)
        same(gm.read_vectors(gm.export_vectors(rec, tmp_path / f"v{suffix}", overwrite=True).out), gm.Vectors.of(rec))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_ids_that_a_format_has_no_room_for(recommender: gm.Recommender, tmp_path: Path, suffix: str) -> None:
    with pytest.raises(gm.InvalidInput, match=r"date32.*write \.parquet"):
        gm.export_vectors(
            renamed(recommender, [date.fromordinal(730_000 + i) for i in range(SIZE + 3)]), tmp_path / f"v{suffix}"
        )
    assert list(tmp_path.iterdir()) == []


def test_strings_that_numpy_would_change_or_blow_up(
    recommender: gm.Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = renamed(recommender, [f"{i}\0" for i in range(SIZE + 3)])
    with pytest.raises(gm.InvalidInput, match="character 0"):
        gm.export_vectors(ends, tmp_path / "v.npz")
    monkeypatch.setattr(vector_files, "MOST_NUMPY_IDS", 100)
    with pytest.raises(gm.InvalidInput, match="the longest id has 5 characters"):
        gm.export_vectors(recommender, tmp_path / "v.npz")
    monkeypatch.setattr(vector_files, "MOST_HEADER", 100)
    with pytest.raises(gm.InvalidInput, match="a header that may have 100"):
        gm.export_vectors(recommender, tmp_path / "v.safetensors")
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=25)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=SIZE + 3, max_size=SIZE + 3, unique=True))
def test_any_strings_as_ids(
    recommender: gm.Recommender, tmp_path_factory: pytest.TempPathFactory, ids: list[str]
) -> None:
    rec, folder = renamed(recommender, ids), tmp_path_factory.mktemp("ids")
    for suffix in (".parquet", ".safetensors", *((".npz",) if not any(id.endswith("\0") for id in ids) else ())):
        found = gm.read_vectors(gm.export_vectors(rec, folder / f"v{suffix}", space="factors").out)
        assert found.ids.ids.to_pylist() == ids


# --- other readers ---------------------------------------------------------------------------------------------------


def test_parquet_for_pandas_polars_and_duckdb(removed: gm.Recommender, tmp_path: Path) -> None:
    path = tmp_path / "v.parquet"
    gm.export_vectors(removed, path, space="text", columns=["year", "title"])
    wanted = gm.Vectors.of(removed, space="text")
    ids, cold = wanted.ids.ids.to_pylist(), removed.cold[removed.live].tolist()
    years = np.asarray(removed.catalog.table.column("year"))[removed.live].tolist()

    frame = pd.read_parquet(path)
    assert list(frame.columns) == ["item_id", "vector", "cold", "year", "title"]
    assert (frame["item_id"].tolist(), frame["cold"].tolist(), frame["year"].tolist()) == (ids, cold, years)
    np.testing.assert_array_equal(np.stack(frame["vector"].tolist()), wanted.matrix)

    table = pl.read_parquet(path)
    assert table.schema["vector"] == pl.Array(pl.Float32, 32)
    assert table["item_id"].to_list() == ids
    np.testing.assert_array_equal(table["vector"].to_numpy(), wanted.matrix)

    with duckdb.connect() as connection:
        name, score = f"read_parquet('{path}')", "list_inner_product(a.vector, b.vector)"
        found = connection.sql(
            f"select b.item_id, {score} from {name} a, {name} b where a.item_id = 'i3' and b.item_id != 'i3' "
            f"order by {score} desc limit 5"
        ).fetchall()
    told = removed.similar_items("i3", k=5, space="text")
    np.testing.assert_allclose([score for _, score in found], told.scores, rtol=1e-5)

    schema = pq.read_schema(path)
    assert schema.field("vector").type == pa.list_(pa.float32(), 32)
    assert json.loads(schema.metadata[b"geo_mf"]) == wanted.about
    same(gm.read_vectors(path), wanted)


def test_integers_stay_integers(recommender: gm.Recommender, tmp_path: Path) -> None:
    gm.export_vectors(recommender, tmp_path / "v.parquet", of="users")
    assert pd.read_parquet(tmp_path / "v.parquet")["user_id"].dtype == np.int64
    gm.export_vectors(recommender, tmp_path / "v.npz", of="users")
    with np.load(tmp_path / "v.npz", allow_pickle=False) as held:
        assert held["ids"].dtype == np.int64


def test_numpy_without_pickle(recommender: gm.Recommender, tmp_path: Path) -> None:
    wanted = gm.Vectors.of(recommender)
    gm.export_vectors(recommender, tmp_path / "v.npy")
    mapped = np.load(tmp_path / "v.npy", allow_pickle=False, mmap_mode="r")
    assert mapped.dtype == np.float32 and mapped.flags.c_contiguous
    np.testing.assert_array_equal(mapped, wanted.matrix)
    beside = pd.read_parquet(tmp_path / "v.npy.ids.parquet")
    assert beside["item_id"].tolist() == wanted.ids.ids.to_pylist()
    gm.export_vectors(recommender, tmp_path / "v.npz")
    with np.load(tmp_path / "v.npz", allow_pickle=False) as held:
        assert sorted(held) == ["about", "ids", "vectors"]
        assert held["ids"].tolist() == wanted.ids.ids.to_pylist()
        assert json.loads(str(held["about"])) == wanted.about
        np.testing.assert_array_equal(held["vectors"], wanted.matrix)


def test_plain_safetensors(recommender: gm.Recommender, tmp_path: Path) -> None:
    from safetensors import safe_open

    path = tmp_path / "v.safetensors"
    gm.export_vectors(recommender, path)
    np.testing.assert_array_equal(load_file(path)["vectors"], recommender.vectors)
    with safe_open(path, framework="numpy") as file:
        assert json.loads(file.metadata()["ids"]) == recommender.catalog.items.ids.to_pylist()
    gm.export_vectors(recommender, path, of="users", overwrite=True)
    assert load_file(path)["ids"].tolist() == recommender.users.ids.to_pylist()


@pytest.mark.parametrize("numbered", [False, True])
def test_a_plain_faiss_index_gives_what_recommend_gives(
    removed: gm.Recommender, tmp_path: Path, numbered: bool
) -> None:
    rec = renamed(removed, range(1000, 1000 + SIZE + 3)) if numbered else removed
    gm.export_vectors(rec, tmp_path / "v.faiss")
    index: Any = faiss.read_index(str(tmp_path / "v.faiss"))
    ids = pd.read_parquet(tmp_path / "v.faiss.ids.parquet")["item_id"].to_numpy()
    assert type(index).__name__ == "IndexIDMap2" and index.metric_type == faiss.METRIC_INNER_PRODUCT
    for user in rec.users.ids.to_pylist()[:5]:
        told = rec.recommend(user, k=10, exclude_seen=False)
        scores, rows = index.search(rec.query(user).vector, 10)
        assert ids[rows[0]].tolist() == told.ids
        np.testing.assert_allclose(scores[0], told.scores, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(index.reconstruct(3), gm.Vectors.of(rec).matrix[3])


def test_a_faiss_file_is_what_faiss_would_write(recommender: gm.Recommender, tmp_path: Path) -> None:
    gm.export_vectors(recommender, tmp_path / "v.faiss", space="factors")
    flat = faiss.IndexFlatIP(8)
    mapped: Any = faiss.IndexIDMap2(flat)
    mapped.add_with_ids(recommender.item_factors, np.arange(SIZE + 3))
    assert (tmp_path / "v.faiss").read_bytes() == faiss.serialize_index(mapped).tobytes()


def test_lists_of_neighbours_need_no_reader_of_their_own(recommender: gm.Recommender, tmp_path: Path) -> None:
    report = gm.similar_items_all(recommender, tmp_path / "lists", k=3, part_size=10)
    assert len(pd.read_parquet(tmp_path / "lists")) == len(pl.read_parquet(tmp_path / "lists/*.parquet")) == report.rows


# --- the projector ---------------------------------------------------------------------------------------------------


def test_the_projector_reads_one_line_for_each_vector(recommender: gm.Recommender, tmp_path: Path) -> None:
    titles = (HOSTILE * 3)[: SIZE + 3]
    ids = [f"{title}{row}" for row, title in enumerate(titles)]
    tags = [None, ["a\tb", "c"], []] * 9
    table = pa.table({"item_id": ids, "title": titles, "tags": tags})
    catalog = replace(recommender.catalog, items=gm.IdMap(ids), table=table, texts=["\n"] * (SIZE + 3))
    rec = changed(recommender, catalog=catalog)
    report = gm.export_vectors(rec, tmp_path / "v.tsv", columns=["tags"])
    assert report.beside == str(tmp_path / "v.metadata.tsv")

    numbers = (tmp_path / "v.tsv").read_text().split("\n")
    assert numbers.pop() == ""
    read = np.asarray([line.strip().split("\t") for line in numbers], np.float64).astype(np.float32)
    np.testing.assert_array_equal(read, rec.vectors)

    text = (tmp_path / "v.metadata.tsv").read_bytes().decode()
    lines = text.split("\n")
    assert lines.pop() == "" and lines == text.splitlines() == [line.strip() for line in lines]
    cells = [line.split("\t") for line in lines]
    assert cells[0] == ["item_id", "title", "cold", "tags"]
    assert len(cells) == len(read) + 1 and {len(line) for line in cells} == {4}
    assert all(cell and cell.strip() == cell for line in cells for cell in line)
    assert [line[1] for line in cells[1:4]] == ["tab here", "new line", projector.NOTHING]
    assert [line[3] for line in cells[1:4]] == [projector.NOTHING, "a b, c", projector.NOTHING]


def test_one_column_has_no_header(recommender: gm.Recommender, tmp_path: Path) -> None:
    gm.export_vectors(recommender, tmp_path / "u.tsv", of="users")
    assert (tmp_path / "u.metadata.tsv").read_text().split() == [
        str(user) for user in recommender.users.ids.to_pylist()
    ]
    assert len((tmp_path / "u.tsv").read_text().splitlines()) == SIZE


@settings(max_examples=50)
@given(
    st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2), min_size=1)
)
def test_numbers_as_text_give_themselves_back(rows: list[list[float]]) -> None:
    file, vectors = BytesIO(), np.asarray(rows, np.float32)
    projector.write_vectors(file, vectors)
    read = [[np.float32(cell) for cell in line.split("\t")] for line in file.getvalue().decode().splitlines()]
    np.testing.assert_array_equal(np.asarray(read, np.float32), vectors)


# --- all or nothing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [*FORMATS, ".tsv"])
def test_a_write_that_fails_leaves_what_was_there(
    recommender: gm.Recommender, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, parts = tmp_path / f"v{suffix}", vector_rows.VectorRows.parts

    def broken(self: Any) -> Any:
        yield next(parts(self))
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(vector_rows.VectorRows, "parts", broken)
        with pytest.raises(OSError, match="cannot write: No space left") as failed:
            gm.export_vectors(recommender, path)
        assert failed.value.filename == str(path) and list(tmp_path.iterdir()) == []
    gm.export_vectors(recommender, path)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(vector_rows.VectorRows, "parts", broken)
        with pytest.raises(OSError, match="cannot write: No space left"):
            gm.export_vectors(recommender, path, overwrite=True)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


LIMITED = """
import resource, sys, signal
import geo_mf as gm
rec = gm.load(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
for suffix in sys.argv[3:]:
    try:
        gm.export_vectors(rec, sys.argv[2] + suffix)
    except OSError as error:
        print(error.errno, error.filename)
"""


def test_files_that_may_not_grow(recommender: gm.Recommender, tmp_path: Path) -> None:
    gm.save(recommender, tmp_path / "index")
    (tmp_path / "out").mkdir()
    arguments = [str(tmp_path / "index"), str(tmp_path / "out" / "v"), *FORMATS, ".tsv"]
    run = subprocess.run([sys.executable, "-c", LIMITED, *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [f"27 {tmp_path / 'out' / 'v'}{suffix}" for suffix in (*FORMATS, ".tsv")]
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(recommender: gm.Recommender, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OSError, match=r"cannot write: .*v\.npy"):
            gm.export_vectors(recommender, tmp_path / "v.npy")
    finally:
        tmp_path.chmod(0o700)


def test_vectors_are_never_beside_the_ids_of_others(
    recommender: gm.Recommender, removed: gm.Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed anywhere while names change: old vectors and ids, or new ones, or no vectors."""
    moved, gone = Path.replace, Path.unlink
    for step in range(7):
        folder, left = tmp_path / str(step), iter(range(step))
        folder.mkdir()
        gm.export_vectors(recommender, folder / "v.npy")

        def alive(left: Any = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt  # here and at every later step: nothing is brought back

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", lambda *given, alive=alive: (alive(), moved(*given))[1])
            patch.setattr(Path, "unlink", lambda *given, alive=alive, **more: (alive(), gone(*given, **more))[1])
            try:
                gm.export_vectors(removed, folder / "v.npy", overwrite=True)
            except KeyboardInterrupt:
                assert step < 6
            else:
                assert step == 6
        if (folder / "v.npy").exists():
            same(gm.read_vectors(folder / "v.npy"), gm.Vectors.of(recommender if step == 0 else removed))
        else:
            assert step in (1, 2, 3)


@pytest.mark.parametrize("suffix", [".npy", ".faiss", ".tsv"])
@pytest.mark.parametrize("there", [True, False])
def test_a_name_that_cannot_be_changed_leaves_what_was_there(
    recommender: gm.Recommender,
    removed: gm.Recommender,
    tmp_path: Path,
    suffix: str,
    there: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk that is full when either file takes its name, or is put aside: both are as they were."""
    path, moved = tmp_path / f"v{suffix}", Path.replace
    if there:
        gm.export_vectors(recommender, path)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    for step in range(4):
        names = iter(range(4 + 2))  # what is brought back changes names too

        def full(self: Path, target: Any, names: Any = names, step: int = step) -> Any:
            if next(names) == step:
                raise OSError(28, "No space left on device")
            return moved(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", full)
            with pytest.raises(OSError, match="cannot write: No space left"):
                gm.export_vectors(removed, path, overwrite=True)
        assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_a_file_that_is_there_stays(recommender: gm.Recommender, tmp_path: Path) -> None:
    (tmp_path / "v.npy.ids.parquet").write_text("mine")
    (tmp_path / "v.parquet").write_text("mine")
    for name in ("v.npy", "v.parquet"):
        with pytest.raises(gm.InvalidInput, match="is there already; give another name, or overwrite=True"):
            gm.export_vectors(recommender, tmp_path / name)
    assert (tmp_path / "v.parquet").read_text() == "mine" and not (tmp_path / "v.npy").exists()
    gm.export_vectors(recommender, tmp_path / "v.parquet", overwrite=True)
    gm.export_vectors(recommender, tmp_path / "new" / "folder" / "v.parquet")
    (tmp_path / "x.npy").mkdir()
    with pytest.raises(gm.InvalidInput, match="is a folder"):
        gm.export_vectors(recommender, tmp_path / "x.npy", overwrite=True)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("v.csv", {}, r"v\.csv has no format that can be written; expected one of \.parquet, \.npy, \.npz"),
        ("v.parquet", {"space": "neural"}, "space is 'neural'; expected one of blend, factors, text"),
        ("v.parquet", {"of": "readers"}, "of is 'readers'; expected items or users"),
        ("v.parquet", {"columns": ["colour"]}, "no column 'colour'; its columns are item_id, title, year, topic"),
        ("v.parquet", {"columns": ["item_id"]}, "the column 'item_id' is in the file already"),
        ("v.parquet", {"columns": ["year", "year"]}, "named twice"),
        ("v.parquet", {"columns": ["year"], "of": "users"}, "nothing is known of users"),
        ("v.npz", {"columns": ["year"]}, r"\.npz has no room for columns"),
    ],
)
def test_what_cannot_be_exported(
    recommender: gm.Recommender, tmp_path: Path, name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(gm.InvalidInput, match=message):
        gm.export_vectors(recommender, tmp_path / name, **settings)
    assert list(tmp_path.iterdir()) == []


# --- vectors in memory -----------------------------------------------------------------------------------------------


def test_vectors_of_two_states_meet_in_their_ids(recommender: gm.Recommender, removed: gm.Recommender) -> None:
    last, now = gm.Vectors.of(recommender, space="factors"), gm.Vectors.of(removed, space="factors")
    shuffled = gm.Vectors(gm.IdMap(now.ids.take(range(len(now)))[::-1]), now.matrix[::-1].copy())
    a, b = last.aligned(shuffled)
    assert a.ids == b.ids == now.ids
    np.testing.assert_array_equal(a.matrix, b.matrix)
    assert a.about == last.about
    with pytest.raises(gm.InvalidInput, match="no id is in both IdMap.*strings.*integers"):
        last.aligned(gm.Vectors(gm.IdMap([1, 2]), np.ones((2, 8), np.float32)))


def test_a_data_frame_and_back(plain: gm.Vectors) -> None:
    frame = plain.to_pandas()
    assert list(frame.index) == ["a", "b", "c"] and frame.shape == (3, 4) and set(frame.dtypes) == {np.dtype("float32")}
    same(gm.read_vectors(frame), plain)
    same(gm.read_vectors(plain.to_arrow()), plain)
    assert [id for id, _ in plain] == ["a", "b", "c"] and len(plain) == 3
    assert repr(plain) == "Vectors(3 x 4; IdMap(3 strings: 'a', 'b', 'c'))"


@pytest.mark.parametrize(
    ("ids", "matrix", "message"),
    [
        (["a", "a"], np.ones((2, 2)), "ids must be unique"),
        (["a"], np.ones((2, 2)), "there are 1 ids for 2 vectors"),
        (["a", None], np.ones((2, 2)), "must not be missing"),
        ([1.5, 2.5], np.ones((2, 2)), "must be strings, integers"),
        (["a", "b"], np.asarray([[1, np.nan], [1, 1]]), "NaN, infinity"),
        (["a", "b"], np.ones(2), "two-dimensional|dimension|shape"),
        (["a", "b"], np.ones((2, 2), int), "int64"),
    ],
)
def test_what_are_no_vectors(ids: Any, matrix: np.ndarray, message: str) -> None:
    with pytest.raises(gm.InvalidInput, match=message):
        gm.Vectors(ids, matrix)


# --- from elsewhere --------------------------------------------------------------------------------------------------


def test_tables_of_others(plain: gm.Vectors, tmp_path: Path) -> None:
    ids, rows = ["a", "b", "c"], plain.matrix.tolist()
    lists = pa.table({"name": ids, "embedding": rows})  # list<double>
    wide = pd.DataFrame(plain.matrix.astype(np.float64), columns=["x", "y", "z", "w"]).assign(user_id=ids)
    spark = pa.table({"id": pa.array(ids), "features": pa.array(rows, pa.list_(pa.float32()))})
    frames = [
        lists,
        lists.to_pandas(),
        pl.DataFrame({"id": ids, "v": rows}),
        pl.DataFrame({"id": ids}).with_columns(v=pl.Series(rows, dtype=pl.Array(pl.Float32, 4))),
        wide,
        wide.set_index("user_id"),
        pd.DataFrame(plain.matrix, index=pd.Index(ids)),
        pa.table({"id": pa.array(ids).dictionary_encode(), "half": pa.array(rows, pa.list_(pa.float16(), 4))}),
        pa.concat_tables([spark.slice(0, 1), spark.slice(1)]),
        spark.slice(1).take([1, 0]).take([1, 0]).append_column("note", pa.array(["x", "y"])),
    ]
    for frame in frames[:-1]:
        same(gm.read_vectors(frame), plain)
    np.testing.assert_array_equal(gm.read_vectors(frames[-1]).matrix, plain.matrix[1:])
    for name, table in {"lists": lists, "wide": pa.Table.from_pandas(wide.set_index("user_id"))}.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
        same(gm.read_vectors(tmp_path / f"{name}.parquet"), plain)
    (tmp_path / "spark").mkdir()
    for number in range(3):
        pq.write_table(spark.slice(number, 1), tmp_path / "spark" / f"part-{number}.parquet")
    (tmp_path / "spark" / "_SUCCESS").touch()
    same(gm.read_vectors(tmp_path / "spark"), plain)
    two = lists.append_column("other", pa.array([[1.0]] * 3))
    same(gm.read_vectors(two, vector_col="embedding", id_col="name"), plain)
    same(gm.read_vectors(two.drop(["name"]), vector_col="embedding", ids=ids), plain)


def test_columns_beside_do_not_confuse_what_was_written(recommender: gm.Recommender, tmp_path: Path) -> None:
    more = recommender.catalog.table.append_column("id", pa.array(range(SIZE + 3)))
    more = more.append_column("other", pa.array([[1.0, 2.0]] * (SIZE + 3)))
    rec = changed(recommender, catalog=replace(recommender.catalog, table=more))
    gm.export_vectors(rec, tmp_path / "v.parquet", columns=["id", "other", "year"])
    same(gm.read_vectors(tmp_path / "v.parquet"), gm.Vectors.of(rec))


def test_arrays_of_others(plain: gm.Vectors, tmp_path: Path) -> None:
    ids = ["a", "b", "c"]
    np.save(tmp_path / "m.npy", np.asfortranarray(plain.matrix.astype(">f8")))
    same(gm.read_vectors(tmp_path / "m.npy", ids=ids), plain)
    np.savez_compressed(tmp_path / "m.npz", vectors=plain.matrix, ids=np.asarray(ids), other=np.ones((2, 2)))
    same(gm.read_vectors(tmp_path / "m.npz"), plain)
    np.savez(tmp_path / "one.npz", anything=plain.matrix, more=np.arange(9))
    same(gm.read_vectors(tmp_path / "one.npz", ids=ids), plain)
    save_file({"embedding.weight": plain.matrix}, tmp_path / "m.safetensors")
    same(gm.read_vectors(tmp_path / "m.safetensors", ids=ids), plain)
    with pytest.raises(gm.InvalidInput, match=r"there are no ids: .* m\.npy\.ids\.parquet beside it; pass ids="):
        gm.read_vectors(tmp_path / "m.npy")
    with pytest.raises(gm.InvalidInput, match="has ids of its own; leave ids= out"):
        gm.read_vectors(tmp_path / "m.npz", ids=ids)


def test_faiss_files_of_others(plain: gm.Vectors, tmp_path: Path) -> None:
    path = tmp_path / "other.faiss"
    for flat in (faiss.IndexFlatIP(4), faiss.IndexFlatL2(4)):
        flat.add(plain.matrix)  # type: ignore[call-arg]
        faiss.write_index(flat, str(path))
        same(gm.read_vectors(path, ids=["a", "b", "c"]), plain)
    for kind in (faiss.IndexIDMap, faiss.IndexIDMap2):
        mapped: Any = kind(faiss.IndexFlatIP(4))
        mapped.add_with_ids(plain.matrix, np.asarray([7, -1, 2**40]))
        faiss.write_index(mapped, str(path))
        assert gm.read_vectors(path).ids.ids.to_pylist() == [7, -1, 2**40]
    for factory in ("HNSW8", "IVF1,Flat", "SQ8", "IDMap,SQ8"):
        index: Any = faiss.index_factory(4, factory, faiss.METRIC_INNER_PRODUCT)
        index.train(plain.matrix)
        faiss.write_index(index, str(path))
        with pytest.raises(gm.InvalidInput, match="holds a Faiss index of kind .*; expected a flat one"):
            gm.read_vectors(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_cut_anywhere_is_refused(recommender: gm.Recommender, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"v{suffix}"
    gm.export_vectors(recommender, path, space="factors")
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(gm.InvalidInput, match="v\\" + suffix):
            gm.read_vectors(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".faiss"])
def test_a_damaged_header_is_refused_or_harmless(recommender: gm.Recommender, tmp_path: Path, suffix: str) -> None:
    """Any byte of its ends changed: InvalidInput, or vectors; no other error, and no memory that is not there."""
    path, random = tmp_path / f"v{suffix}", np.random.default_rng(0)
    gm.export_vectors(recommender, path, space="factors")
    whole = path.read_bytes()
    ends = [*range(200), *range(max(200, len(whole) - 100), len(whole))]  # of a .npz, the list of members is at its end
    for position, value in zip(ends * 3, random.integers(256, size=3 * len(ends)).tolist(), strict=True):
        broken = bytearray(whole)
        broken[position] = value
        path.write_bytes(broken)
        try:
            gm.read_vectors(path)
        except gm.InvalidInput:
            pass


def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    file = BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**10)})  # type: ignore[arg-type]
    (tmp_path / "v.npy").write_bytes(file.getvalue())
    with pytest.raises(gm.InvalidInput, match="is damaged: 128 bytes, where float32"):
        gm.read_vectors(tmp_path / "v.npy")
    np.savez(tmp_path / "v.npz", vectors=np.ones((2, 2)), ids=np.asarray(["a", object()], dtype=object))
    with pytest.raises(gm.InvalidInput, match="nothing is unpickled"):
        gm.read_vectors(tmp_path / "v.npz")


DEEP = "[" * 200_000


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (DEEP, "nested too deeply"),
        ('{"of": ["x"]}', "'of' is \\['x'\\]; expected a string"),
        ('{"of": {}}', "'of' is {}"),
        ('{"of": 3}', "'of' is 3"),
        ('{"of": "items", "space": ["a"]}', "'space' is \\['a'\\]"),
    ],
)
def test_what_is_said_of_vectors_is_checked(plain: gm.Vectors, tmp_path: Path, known: str, message: str) -> None:
    table = plain.to_arrow().rename_columns({"id": "item_id"}).replace_schema_metadata({"geo_mf": known})
    pq.write_table(table, tmp_path / "v.parquet")
    pq.write_table(table.select(["item_id"]), tmp_path / "v.npy.ids.parquet")
    np.save(tmp_path / "v.npy", plain.matrix)
    np.savez(tmp_path / "v.npz", vectors=plain.matrix, ids=["a", "b", "c"], about=known)
    told = {"ids": '["a", "b", "c"]', "geo_mf": known}
    save_file({"vectors": plain.matrix}, tmp_path / "v.safetensors", metadata=told)
    for suffix in (".parquet", ".npy", ".npz", ".safetensors"):
        with pytest.raises(gm.InvalidInput, match=rf"v\{suffix}.*{message}"):
            gm.read_vectors(tmp_path / f"v{suffix}")
    with pytest.raises(gm.InvalidInput, match=message):
        gm.read_vectors(table)


def test_headers_beyond_what_can_be_counted(plain: gm.Vectors, tmp_path: Path) -> None:
    save_file({"vectors": plain.matrix}, tmp_path / "ids.safetensors", metadata={"ids": DEEP})
    header = json.dumps({"vectors": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]}}).encode()
    (tmp_path / "long.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    file = BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (0, 10**49)})  # type: ignore[arg-type]
    (tmp_path / "long.npy").write_bytes(file.getvalue())
    for name in ("ids.safetensors", "long.safetensors", "long.npy"):
        with pytest.raises(gm.InvalidInput, match=name):
            gm.read_vectors(tmp_path / name, ids=None if name.startswith("ids") else [])


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_of_every_compression_is_refused(plain: gm.Vectors, tmp_path: Path, method: int) -> None:
    file, path = BytesIO(), tmp_path / "v.npz"
    np.save(file, np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32))
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("vectors.npy", file.getvalue())
    whole = path.read_bytes()
    assert gm.read_vectors(path, ids=range(50)).matrix.shape == (50, 10)
    for position in range(45, len(whole) - 100, 7):
        broken = bytearray(whole)
        broken[position] ^= 0xFF
        path.write_bytes(broken)
        with pytest.raises(gm.InvalidInput, match=r"v\.npz"):
            gm.read_vectors(path, ids=range(50))


IDS3 = pa.array(["a", "b", "c"])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"id": IDS3, "v": [[1.0], [1.0, 2.0], [1.0]]},
            "column 'v' has a list of 2 numbers in row 1, and of 1 in row 0",
        ),
        ({"id": IDS3, "v": [[1.0], None, [1.0]]}, "column 'v' has nothing in row 1"),
        ({"id": IDS3, "v": [[1.0, 2.0], [1.0, 2.0], [1.0, None]]}, "column 'v' has a missing number in row 2"),
        ({"id": IDS3, "v": [[1.0], [float("nan")], [1.0]]}, "NaN, infinity"),
        ({"id": IDS3, "v": [[1.0], [1e300], [1.0]]}, "NaN, infinity"),
        ({"id": IDS3, "v": [[1], [2], [3]]}, "holds lists of int64; expected floats"),
        ({"id": IDS3, "v": [[], [], []]}, "holds lists of null"),
        ({"id": IDS3, "v": [[1.0], [2.0], [3.0]], "w": [[1.0], [2.0], [3.0]]}, "several columns of lists, v, w"),
        ({"id": IDS3, "x": [1.0, None, 2.0]}, "column 'x' has nothing in row 1"),
        ({"id": IDS3, "x": [1.0, 2.0, 3.0], "y": [1, 2, 3]}, "column 'y' of int64 beside the floats"),
        ({"id": IDS3}, "has the columns id; expected one of lists, or many of floats"),
        ({"id": pa.array(["a", "b", "a"]), "x": [1.0, 2.0, 3.0]}, "ids must be unique, but 'a'"),
        ({"id": pa.array(["a", None, "c"]), "x": [1.0, 2.0, 3.0]}, "must not be missing, but position 1"),
        ({"x": [1.0, 2.0, 3.0]}, "none of ids; pass ids="),
        ({"user_id": IDS3, "item_id": IDS3, "x": [1.0, 2.0, 3.0]}, "item_id, user_id may be ids; name one with id_col"),
        ({"one": IDS3, "two": IDS3, "x": [1.0, 2.0, 3.0]}, "one, two may be ids"),
    ],
)
def test_tables_that_are_refused(table: dict[str, Any], message: str, tmp_path: Path) -> None:
    made = pa.table(table)
    with pytest.raises(gm.InvalidInput, match=message):
        gm.read_vectors(made)
    pq.write_table(made, tmp_path / "foreign.parquet")
    with pytest.raises(gm.InvalidInput, match=rf"foreign\.parquet.*({message})"):
        gm.read_vectors(tmp_path / "foreign.parquet")


def test_sources_that_are_refused(tmp_path: Path, plain: gm.Vectors) -> None:
    with pytest.raises(FileNotFoundError):
        gm.read_vectors(tmp_path / "none.parquet")
    (tmp_path / "v.tsv").touch()
    with pytest.raises(gm.InvalidInput, match=r"v\.tsv has no format that can be read; expected \.parquet"):
        gm.read_vectors(tmp_path / "v.tsv")
    (tmp_path / "v.parquet").write_text("item_id,vector\n")
    with pytest.raises(gm.InvalidInput, match=r"v\.parquet is not Parquet that can be read"):
        gm.read_vectors(tmp_path / "v.parquet")
    with pytest.raises(gm.InvalidInput, match=r"cannot read a ndarray; .*Vectors\(ids, matrix\)"):
        gm.read_vectors(plain.matrix)  # type: ignore[arg-type]
    with pytest.raises(gm.InvalidInput, match="no column 'no'"):
        gm.read_vectors(plain.to_arrow(), id_col="no")
    np.save(tmp_path / "v.npy", plain.matrix)
    with pytest.raises(gm.InvalidInput, match="has no columns; id_col and vector_col go with Parquet"):
        gm.read_vectors(tmp_path / "v.npy", id_col="id")
    for text in ("not Parquet", ""):
        (tmp_path / "v.npy.ids.parquet").write_text(text)
        with pytest.raises(gm.InvalidInput, match=r"v\.npy\.ids\.parquet is not Parquet"):
            gm.read_vectors(tmp_path / "v.npy")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "v.npy.ids.parquet")
    with pytest.raises(gm.InvalidInput, match=r"v\.npy: there are 1 ids for 3 vectors"):
        gm.read_vectors(tmp_path / "v.npy")


# --- the command line ------------------------------------------------------------------------------------------------


def test_the_command(recommender: gm.Recommender, tmp_path: Path) -> None:
    gm.save(recommender, tmp_path / "index")
    out = tmp_path / "v.parquet"
    words = ["export", str(tmp_path / "index"), "--out", str(out), "--space", "text", "--columns", "year, topic"]
    first = CliRunner().invoke(app, words)
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("27 items x 32 numbers (text), ") and first.stdout.endswith(f"s: {out}\n")
    assert pq.read_schema(out).names == ["item_id", "vector", "cold", "year", "topic"]
    assert gm.read_vectors(out).about["index_version"] == "v000001"
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 65 and again.stderr.startswith("error: ") and "--overwrite" in again.stderr
    users = CliRunner().invoke(app, [*words[:4], "--of", "users", "--overwrite", "--json"])
    told = json.loads(users.stdout)
    assert (told["rows"], told["dim"], told["of"], told["space"]) == (SIZE, 41, "users", "blend")
    assert told["bytes"] == out.stat().st_size
    assert CliRunner().invoke(app, [*words[:2], "--out", str(tmp_path / "v.txt")]).exit_code == 65
    assert CliRunner().invoke(app, ["export", str(tmp_path / "none"), "--out", str(tmp_path / "x.npy")]).exit_code == 66
    (tmp_path / "file").touch()
    assert CliRunner().invoke(app, [*words[:2], "--out", str(tmp_path / "file" / "v.npy")]).exit_code == 74


def test_reading_vectors_brings_neither_torch_nor_jax() -> None:
    code = "import sys, geo_mf as gm; gm.read_vectors; print([n for n in ('jax', 'torch') if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
