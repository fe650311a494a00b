"""The embedding cache: never a wrong vector, never a reason to fail, and only new texts are encoded."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_mf.errors import InvalidInput
from geo_mf.text.cache import CachedEncoder, EmbeddingCache, default_folder
from geo_mf.text.encoder import HashEncoder, Kind

TEXTS = [f"text number {n}" for n in range(25)]


class Recorder(HashEncoder):
    """A real encoder that keeps what it was asked for, tells kinds apart, and can be made to stop."""

    def __init__(self, dim: int = 8, seed: int = 0, stop_after: int | None = None) -> None:
        super().__init__(dim, seed)
        self.asked: list[str] = []
        self.stop_after = stop_after

    def encode(self, texts: Sequence[str], *, kind: Kind = "document", show_progress: bool = False) -> np.ndarray:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += texts
        return super().encode([f"{kind} {text}" for text in texts])


def change_rows(cache: EmbeddingCache, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(cache.path)) as db, db:
        assert db.execute(statement, values).rowcount > 0


def test_a_second_run_encodes_only_new_texts(tmp_path: Path) -> None:
    first, second = Recorder(), Recorder()
    before = CachedEncoder(first, EmbeddingCache(tmp_path)).encode(TEXTS[:20])
    cached = CachedEncoder(second, EmbeddingCache(tmp_path))
    after = cached.encode(TEXTS)
    assert sorted(second.asked) == sorted(TEXTS[20:])
    assert (cached.hits, cached.misses) == (20, 5)
    np.testing.assert_array_equal(after[:20], before)
    np.testing.assert_array_equal(after, Recorder().encode(TEXTS))


def test_duplicates_are_asked_for_once_and_blank_texts_never(tmp_path: Path) -> None:
    recorder = Recorder()
    cached = CachedEncoder(recorder, EmbeddingCache(tmp_path))
    vectors = cached.encode(["b", "", "a", "b", " "])
    assert sorted(recorder.asked) == ["a", "b"]
    assert (cached.hits, cached.misses) == (0, 2)
    np.testing.assert_array_equal(vectors[0], vectors[3])
    assert not vectors[[1, 4]].any()


@pytest.mark.parametrize("other", [Recorder(seed=1), Recorder(dim=4)])
def test_encoders_and_kinds_are_kept_apart(tmp_path: Path, other: Recorder) -> None:
    cache = EmbeddingCache(tmp_path)
    encoder = Recorder()
    documents = CachedEncoder(encoder, cache).encode(TEXTS)
    queries = CachedEncoder(encoder, cache).encode(TEXTS, kind="query")
    others = CachedEncoder(other, cache).encode(TEXTS)
    assert encoder.asked == other.asked * 2
    assert not np.array_equal(documents, queries)
    np.testing.assert_array_equal(others, Recorder(other.dim, other.spec()["seed"]).encode(TEXTS))


@settings(max_examples=40)
@given(st.lists(st.text(max_size=8), max_size=12), st.lists(st.text(max_size=8), max_size=12), st.integers(1, 5))
def test_a_cached_encoder_is_its_encoder(
    tmp_path_factory: pytest.TempPathFactory, first: list[str], second: list[str], chunk_size: int
) -> None:
    cached = CachedEncoder(HashEncoder(8), EmbeddingCache(tmp_path_factory.mktemp("cache")), chunk_size=chunk_size)
    for texts in (first, second):
        np.testing.assert_array_equal(cached.encode(texts), HashEncoder(8).encode(texts))
    distinct = {text for text in first + second if text.strip()}
    assert cached.misses == len(distinct)


def test_an_interrupted_encoding_keeps_what_it_has(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        CachedEncoder(Recorder(stop_after=20), cache, chunk_size=10).encode(TEXTS)
    rest = Recorder()
    CachedEncoder(rest, cache).encode(TEXTS)
    assert len(rest.asked) == 5


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE embeddings_v1 SET vector = zeroblob(32)",
        "UPDATE embeddings_v1 SET vector = substr(vector, 1, 28)",
        "UPDATE embeddings_v1 SET vector = '32 characters of text, as a blob'",
        "UPDATE embeddings_v1 SET vector = CAST(x'ff' || zeroblob(31) AS TEXT)",
        "UPDATE embeddings_v1 SET vector = 7",
        "UPDATE embeddings_v1 SET checksum = zeroblob(8)",
        "UPDATE embeddings_v1 SET (vector, checksum) = (SELECT vector, checksum FROM embeddings_v1 LIMIT 1)",
    ],
)
def test_a_damaged_row_is_encoded_again_and_repaired(tmp_path: Path, damage: str) -> None:
    cache = EmbeddingCache(tmp_path)
    expected = CachedEncoder(Recorder(), cache).encode(TEXTS)
    change_rows(cache, damage)
    repairer = CachedEncoder(Recorder(), cache)
    np.testing.assert_array_equal(repairer.encode(TEXTS), expected)
    assert repairer.misses >= len(TEXTS) - 1  # the swapped rows leave one row where it belongs
    np.testing.assert_array_equal(repairer.encode(TEXTS), expected)
    assert repairer.misses <= len(TEXTS)


def no_database(file: Path) -> None:
    file.write_bytes(b"not a database, but longer than the header of one" * 100)


def other_columns(file: Path) -> None:
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("CREATE TABLE embeddings_v1 (name TEXT)")


@pytest.mark.parametrize("damage", [no_database, other_columns])
def test_a_damaged_file_is_moved_aside_once_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    cache = EmbeddingCache(tmp_path)
    damage(cache.path)
    cached = CachedEncoder(Recorder(), cache)
    with caplog.at_level("WARNING", "geo_mf"):
        expected = cached.encode(TEXTS)
        np.testing.assert_array_equal(cached.encode(TEXTS), expected)
    assert (cached.hits, cached.misses) == (25, 25)
    assert len(caplog.records) == 1
    assert "damaged" in caplog.text
    assert len(list(tmp_path.glob("embeddings.sqlite3.damaged-*"))) == 1


@pytest.mark.parametrize("place", range(0, 40, 3))
def test_flipped_bytes_anywhere_in_the_file_never_change_an_answer(tmp_path: Path, place: int) -> None:
    cache = EmbeddingCache(tmp_path)
    texts = [f"{text} {n}" for text in TEXTS for n in range(8)]
    expected = CachedEncoder(HashEncoder(64), cache).encode(texts)
    data = bytearray(cache.path.read_bytes())
    start = place * len(data) // 40
    data[start : start + 64] = bytes(byte ^ 0xFF for byte in data[start : start + 64])
    cache.path.write_bytes(data)
    for _ in range(2):
        np.testing.assert_array_equal(CachedEncoder(HashEncoder(64), cache).encode(texts), expected)


@pytest.mark.parametrize("blocked", ["folder", "file"])
def test_where_nothing_can_be_written_everything_works_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, blocked: str
) -> None:
    # A plain file where the folder should be, or a folder where the file should be; also refused to the superuser.
    if blocked == "folder":
        (tmp_path / "cache").write_text("")
    else:
        (tmp_path / "cache" / "embeddings.sqlite3").mkdir(parents=True)
    cached = CachedEncoder(Recorder(), EmbeddingCache(tmp_path / "cache"), chunk_size=5)
    with caplog.at_level("WARNING", "geo_mf"):
        for _ in range(3):
            np.testing.assert_array_equal(cached.encode(TEXTS), Recorder().encode(TEXTS))
    assert (cached.hits, cached.misses) == (0, 75)
    assert len(caplog.records) == 1


def test_a_full_disk_stops_the_writing_but_neither_the_work_nor_the_reading(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    code = """
import resource, signal, sys
import numpy as np
from geo_mf.text.cache import CachedEncoder, EmbeddingCache
from geo_mf.text.encoder import HashEncoder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
texts = [f"text {n}" for n in range(400)]
cached = CachedEncoder(HashEncoder(), EmbeddingCache(sys.argv[1]), chunk_size=50)
cached.encode(texts[:100])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
for _ in range(2):
    assert np.array_equal(cached.encode(texts), HashEncoder().encode(texts))
print(cached.hits)
"""
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 200
    assert done.stderr.count("going on without it") == 1
    after = CachedEncoder(HashEncoder(), EmbeddingCache(tmp_path))
    np.testing.assert_array_equal(after.encode(TEXTS), HashEncoder().encode(TEXTS))


def test_many_processes_and_threads_share_one_file(tmp_path: Path) -> None:
    code = """
import sys
from geo_mf.text.cache import CachedEncoder, EmbeddingCache
from geo_mf.text.encoder import HashEncoder
mine = [f"text {n}" for n in range(int(sys.argv[2]), 300, 2)]
for _ in range(2):
    CachedEncoder(HashEncoder(8), EmbeddingCache(sys.argv[1]), chunk_size=10).encode(mine)
"""
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    processes = [
        subprocess.Popen([*command, str(part)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for part in (0, 1, 0, 1)
    ]
    texts = [f"text {n}" for n in range(300)]
    with ThreadPoolExecutor(4) as pool:
        own = CachedEncoder(HashEncoder(8), EmbeddingCache(tmp_path), chunk_size=10)
        for vectors in pool.map(own.encode, [texts] * 4):
            np.testing.assert_array_equal(vectors, HashEncoder(8).encode(texts))
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert (process.returncode, output) == (0, "")
    last = CachedEncoder(HashEncoder(8), EmbeddingCache(tmp_path))
    np.testing.assert_array_equal(last.encode(texts), HashEncoder(8).encode(texts))
    assert last.misses == 0


def test_the_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GEO_MF_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_folder() == tmp_path / ".cache" / "geo_mf"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder() == tmp_path / ".cache" / "geo_mf"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "geo_mf"
    monkeypatch.setenv("GEO_MF_CACHE", "~/own")
    assert default_folder() == tmp_path / "own"
    assert EmbeddingCache().path == tmp_path / "own" / "embeddings.sqlite3"
    assert not os.listdir(tmp_path)  # nothing is touched before first use


class Wrong(HashEncoder):
    """An encoder that breaks its contract in the way it is told."""

    def __init__(self, answer: np.ndarray) -> None:
        super().__init__(4)
        self.answer = answer

    def encode(self, texts: Sequence[str], *, kind: Kind = "document", show_progress: bool = False) -> np.ndarray:
        return self.answer


@pytest.mark.parametrize("answer", [np.ones(4), np.ones((1, 4)), np.ones((2, 3)), np.full((2, 4), np.nan)])
def test_what_an_encoder_may_not_give_is_neither_served_nor_kept(tmp_path: Path, answer: np.ndarray) -> None:
    cache = EmbeddingCache(tmp_path)
    with pytest.raises(InvalidInput, match=r"expected finite numbers of shape \(2, 4\)"):
        CachedEncoder(Wrong(answer), cache).encode(["a", "b"])
    assert not cache.path.exists()


def test_settings_and_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidInput, match="chunk_size is 0"):
        CachedEncoder(HashEncoder(), EmbeddingCache(tmp_path), chunk_size=0)
    cached = CachedEncoder(HashEncoder(), EmbeddingCache(tmp_path))
    cached.encode(TEXTS, show_progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "25/25" in err
    inner = cached.encoder
    assert (cached.name, cached.dim, cached.fingerprint) == (inner.name, inner.dim, inner.fingerprint)
    assert cached.spec() == inner.spec()
