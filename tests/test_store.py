"""What goes into an artefact comes out of it; what cannot go in, or is not there, is said plainly."""

import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geo_mf import __version__, store
from geo_mf.errors import IncompatibleIndex, InvalidInput
from geo_mf.index.faiss import FaissIndex

EPOCH = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

arrays = hnp.arrays(
    st.one_of(hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes()),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)
columns = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.none(), min_size=6, max_size=6).map(
        lambda x: pa.array(x, pa.int64())
    ),
    st.lists(st.text() | st.none(), min_size=6, max_size=6).map(lambda x: pa.array(x, pa.string())),
    st.lists(st.binary(), min_size=6, max_size=6).map(lambda x: pa.array(x, pa.large_binary())),
    st.lists(st.text(max_size=3), min_size=6, max_size=6).map(lambda x: pa.array(x).dictionary_encode()),
    st.lists(st.lists(st.text(max_size=3)), min_size=6, max_size=6).map(lambda x: pa.array(x, pa.list_(pa.string()))),
    st.lists(st.datetimes(), min_size=6, max_size=6).map(lambda x: pa.array(x, pa.timestamp("us", tz="UTC"))),
)
tables = st.lists(columns, max_size=3).map(lambda x: pa.table(dict(zip("abc", x, strict=False))))
names = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def small() -> dict[str, Any]:
    return {
        "item_factors": np.arange(6, dtype=np.float32).reshape(3, 2),
        "catalog": pa.table({"item_id": ["a", "b", "c"], "year": [1990, None, 2001]}),
        "index": b"bytes",
    }


@settings(max_examples=60, deadline=None)
@given(
    contents=st.dictionaries(names, st.one_of(arrays, tables, st.binary(max_size=50)), max_size=4),
    meta=st.dictionaries(st.text(max_size=5), json_values, max_size=3),
)
def test_what_goes_in_comes_out(contents: dict[str, Any], meta: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "movies"
        store.publish(root, contents, meta)
        manifest, held = store.read_version(root, check="full")
        assert store.verify(root).ok
        assert manifest.meta == meta
        assert {*held.arrays, *held.tables, *held.blobs} == set(contents)
        for name, value in contents.items():
            match value:
                case np.ndarray():
                    array = held.array(name)
                    assert type(array) is np.ndarray
                    assert (array.dtype, array.shape, array.tobytes()) == (value.dtype, value.shape, value.tobytes())
                    assert not array.flags.writeable
                case pa.Table():
                    assert held.table(name).schema.equals(value.schema)
                    assert held.table(name).equals(value)
                case bytes():
                    assert bytes(held.blob(name)) == value


def test_the_manifest_tells_what_the_files_are(tmp_path: Path) -> None:
    root = tmp_path / "new" / "movies"
    assert store.publish(root, small(), {"seed": 0}, created=EPOCH) == "v000001"
    folder = root / "v000001"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["schema_version"] == 1
    assert (manifest["version"], manifest["geo_mf"], manifest["meta"]) == ("v000001", __version__, {"seed": 0})
    assert manifest["created"] == "2026-01-02T03:04:05Z"
    assert set(manifest["files"]) == {"item_factors.npy", "catalog.parquet", "index.faiss"}
    for name, entry in manifest["files"].items():
        data = (folder / name).read_bytes()
        assert (entry["size"], entry["sha256"]) == (len(data), sha256(data).hexdigest())
    rest = {name: (entry["kind"], entry["shape"], entry["dtype"]) for name, entry in manifest["files"].items()}
    assert rest == {
        "item_factors.npy": ("array", [3, 2], "<f4"),
        "catalog.parquet": ("table", [3, 2], None),
        "index.faiss": ("bytes", None, None),
    }
    digest = sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert (root / "CURRENT").read_text() == (folder / "SEAL").read_text() == f"v000001\n{digest}\n"


def test_the_files_are_those_of_numpy_and_parquet(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    store.publish(tmp_path / "movies", small(), {})
    folder = tmp_path / "movies" / "v000001"
    np.save(tmp_path / "same.npy", small()["item_factors"])
    assert (folder / "item_factors.npy").read_bytes() == (tmp_path / "same.npy").read_bytes()
    assert pq.read_table(folder / "catalog.parquet").equals(small()["catalog"])


def test_the_same_contents_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 14: also for other memory layouts and chunks; with the time fixed, the manifest too."""
    same = small()
    table = same["catalog"]
    same["item_factors"] = np.asfortranarray(same["item_factors"])
    same["catalog"] = pa.concat_tables([table.slice(0, 1), table.slice(1)]).replace_schema_metadata({"pandas": "{}"})
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(EPOCH.timestamp())))
    for root, contents, created in (("one", small(), None), ("two", same, EPOCH)):
        store.publish(tmp_path / root, contents, {"b": 1, "a": [0.1, "é"]}, created=created)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / root / "v000001").iterdir()} for root in ("one", "two")
    )
    assert one == two
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(InvalidInput, match="SOURCE_DATE_EPOCH is 'yesterday'"):
        store.publish(tmp_path / "one", small(), {})


def test_the_manifest_alone_knows_the_time(tmp_path: Path) -> None:
    for year in (2020, 2021):
        store.publish(tmp_path / "movies", small(), {}, created=datetime(year, 1, 1, tzinfo=UTC))
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / "movies" / v).iterdir()} for v in ("v000001", "v000002")
    )
    assert {name for name in one if one[name] != two[name]} == {"manifest.json", "SEAL"}


def test_versions_grow_stay_and_are_pruned(tmp_path: Path) -> None:
    root = tmp_path / "movies"
    assert store.versions(root) == ()
    for i in range(1, 6):
        assert store.publish(root, {"n": np.array([i])}, {}) == f"v{i:06d}"
    assert len(store.versions(root)) == 5
    assert store.read_version(root)[1].array("n").tolist() == [5]
    assert store.read_version(root, "v000002")[1].array("n").tolist() == [2]
    assert store.prune(root, keep=2) == ("v000001", "v000002", "v000003")
    assert store.versions(root) == ("v000004", "v000005")
    assert store.prune(root) == ()
    assert store.publish(root, {"n": np.array([6])}, {}) == "v000006"
    (root / "v000006").rename(root / "v000009")  # as if its writer had been stopped before CURRENT was written
    (root / "CURRENT").write_bytes((root / "v000005" / "SEAL").read_bytes())
    assert store.publish(root, {"n": np.array([10])}, {}) == "v000010"
    (root / "CURRENT").write_bytes((root / "v000005" / "SEAL").read_bytes())
    assert store.prune(root, keep=1) == ("v000004", "v000009", "v000010")
    assert store.read_version(root)[0].version == "v000005"
    with pytest.raises(InvalidInput, match="keep is 0"):
        store.prune(root, keep=0)


def test_no_index_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "nothing", tmp_path / "empty"):
        for use in (store.read_version, store.verify, store.prune):
            with pytest.raises(FileNotFoundError, match="there is no index here"):
                use(root)
    assert not (tmp_path / "nothing").exists()
    store.publish(tmp_path / "movies", small(), {})
    with pytest.raises(FileNotFoundError, match="no such version; there: v000001"):
        store.read_version(tmp_path / "movies", "v000007")


def test_a_newer_format_names_the_version_it_needs(tmp_path: Path) -> None:
    root = tmp_path / "movies"
    store.publish(root, small(), {})
    reseal(root, {"schema_version": 2, "geo_mf": "3.1.0", "something": "new"})
    with pytest.raises(IncompatibleIndex, match=r"schema version 2.*reads up to 1.*needs geo_mf >= 3.1.0"):
        store.read_version(root)
    assert "needs geo_mf >= 3.1.0" in str(store.verify(root))


@pytest.mark.parametrize(
    "manifest",
    [{}, [], 1, None, {"schema_version": 1, "geo_mf": "0.1.0"}, {"schema_version": "1", "geo_mf": "0.1.0"}],
    ids=str,
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, manifest: object) -> None:
    root = tmp_path / "movies"
    store.publish(root, small(), {})
    reseal(root, manifest)
    with pytest.raises(IncompatibleIndex, match="manifest.json is not a manifest"):
        store.read_version(root)


def reseal(root: Path, manifest: object) -> None:
    """Put another manifest in place, with all hashes right."""
    data = json.dumps(manifest).encode()
    (root / "v000001" / "manifest.json").write_bytes(data)
    for path in (root / "v000001" / "SEAL", root / "CURRENT"):
        path.write_text(f"v000001\n{sha256(data).hexdigest()}\n")


@pytest.mark.parametrize(
    ("contents", "meta", "message"),
    [
        ({"x": np.array([None])}, {}, "x has dtype object"),
        ({"x": np.array(["text"])}, {}, "x has dtype <U4"),
        ({"x": np.array([1], "M8[s]")}, {}, "x has dtype datetime64"),
        ({"x": [1, 2]}, {}, "x is a list; expected"),
        ({"x": "text"}, {}, "x is a str"),
        ({"../x": b""}, {}, "cannot name a file"),
        ({"": b""}, {}, "cannot name a file"),
        ({"X": b""}, {}, "cannot name a file"),
        ({"x.npy": b""}, {}, "cannot name a file"),
        ({"x" * 65: b""}, {}, "cannot name a file"),
        ({}, {"a": float("nan")}, "meta or created cannot be stored"),
        ({}, {"a": object()}, "meta or created cannot be stored"),
        ({}, {"a": np.float32(1)}, "meta or created cannot be stored"),
        ({}, {1: 2}, "meta or created cannot be stored"),
    ],
)
def test_contents_that_cannot_be_stored_leave_nothing(
    tmp_path: Path, contents: dict[str, Any], meta: dict[Any, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        store.publish(tmp_path / "movies", contents, meta)
    assert list(tmp_path.iterdir()) == []


def test_a_time_without_a_zone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="created"):
        store.publish(tmp_path / "movies", {}, {}, created=datetime(2026, 1, 1))


def test_an_unknown_check_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="check is 'none'; expected one of auto, full, quick"):
        store.read_version(tmp_path / "movies", check="none")  # pyright: ignore[reportArgumentType]


def test_a_missing_piece_is_named(tmp_path: Path) -> None:
    store.publish(tmp_path / "movies", small(), {})
    held = store.read_version(tmp_path / "movies")[1]
    for ask, name in ((held.array, "prior.npy"), (held.table, "prior.parquet"), (held.blob, "prior.faiss")):
        with pytest.raises(IncompatibleIndex, match=f"v000001 holds no {name}"):
            ask("prior")


def test_a_faiss_index_passes_through(tmp_path: Path) -> None:
    vectors = np.eye(3, dtype=np.float32)
    store.publish(tmp_path / "movies", {"index": FaissIndex(vectors).to_bytes()}, {"size": 3, "dim": 3})
    index = FaissIndex.from_bytes(store.read_version(tmp_path / "movies")[1].blob("index"), size=3, dim=3)
    assert index.search(vectors, 1).rows.tolist() == [[0], [1], [2]]


def test_reports_read_well(tmp_path: Path) -> None:
    store.publish(tmp_path / "movies", {"x": b"12"}, {})
    assert str(store.verify(tmp_path / "movies")) == f"{tmp_path}/movies/v000001: 1 file, 2 bytes, all as written"
    (tmp_path / "movies" / "v000001" / "x.faiss").write_bytes(b"1")
    report = str(store.verify(tmp_path / "movies"))
    assert report.splitlines()[0].endswith("1 file, 2 bytes, 1 problem")
    assert "x.faiss is damaged: expected 2 bytes, found 1" in report


def test_publishing_needs_no_heavy_library() -> None:
    heavy = "{'jax', 'torch', 'faiss', 'sentence_transformers', 'pandas', 'scipy'}"
    script = f"import sys, geo_mf.store.writing; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
