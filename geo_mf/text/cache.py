"""Vectors that were computed once, kept on disk by content, so that a second build encodes only new texts.

A vector's key is the encoder's fingerprint, the kind and the SHA-256 of the text: nothing has to be invalidated, and
every encoder may share one file. The cache is a convenience and never a reason to fail: a damaged row is encoded
again, a damaged file is moved aside, and without a writable folder everything works, only slower.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from geo_mf.errors import InvalidInput
from geo_mf.text.encoder import Kind, TextEncoder, distinct_texts

__all__ = ["CachedEncoder", "EmbeddingCache", "default_folder"]

_log = logging.getLogger("geo_mf")
_Result = TypeVar("_Result")

_FILE = "embeddings.sqlite3"
# Another layout gets another table name, so that versions of this package can share the file.
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS embeddings_v1 (key BLOB PRIMARY KEY, vector BLOB NOT NULL, checksum BLOB NOT NULL)"
)
_BUSY_SECONDS = 30.0
_KEYS_PER_QUERY = 500  # below every build's limit of variables in one statement


def default_folder() -> Path:
    """`$GEO_MF_CACHE`, else `geo_mf` in `$XDG_CACHE_HOME`, else `~/.cache/geo_mf`."""
    own = os.environ.get("GEO_MF_CACHE")
    if own:
        return Path(os.path.expanduser(own))
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):  # the XDG specification says that a relative path there is to be ignored
        return Path(shared) / "geo_mf"
    home = os.path.expanduser("~")
    # An account without a home keeps nothing: this path cannot be created, which switches the cache off.
    return Path(os.devnull if home == "~" else home) / ".cache" / "geo_mf"


class EmbeddingCache:
    """An SQLite file of vectors. Safe for many threads and processes at once; a failure costs time, never an answer.

    Reading or writing that fails (no permission, disk full, locked for long) is switched off for this object after one
    warning in the log `geo_mf`. A file that SQLite calls damaged is renamed to `*.damaged-<time>` and begun anew.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """`path`: the folder to keep the file in; None is `default_folder()`. Nothing is touched before first use."""
        self.path = (default_folder() if path is None else Path(os.path.expanduser(path))) / _FILE
        self._off: set[str] = set()
        self._lock = threading.Lock()

    def lookup(self, texts: Sequence[str], *, fingerprint: str, kind: Kind, dim: int) -> tuple[np.ndarray, np.ndarray]:
        """float32 [n, dim] and bool [n]: the vectors that are kept, zero rows and False for those that are not."""
        vectors = np.zeros((len(texts), dim), np.float32)
        found = np.zeros(len(texts), bool)
        if _inode(self.path) is None:
            return vectors, found
        positions = {_key(text, fingerprint, kind): position for position, text in enumerate(texts)}
        for key, blob, checksum in self._try("reading", lambda db: _select(db, list(positions))) or ():
            # A damaged row fails one of these; it is encoded again and replaced.
            if isinstance(blob, bytes) and len(blob) == 4 * dim and checksum == _checksum(key, blob):
                vectors[positions[key]] = np.frombuffer(blob, "<f4")
                found[positions[key]] = True
        return vectors, found

    def store(self, texts: Sequence[str], vectors: np.ndarray, *, fingerprint: str, kind: Kind) -> None:
        """Keep `vectors` float32 [n, dim] of `texts`, all or none; an older vector of the same text is replaced."""
        blobs = [row.tobytes() for row in np.ascontiguousarray(vectors, dtype="<f4")]
        keys = [_key(text, fingerprint, kind) for text in texts]
        rows = [(key, blob, _checksum(key, blob)) for key, blob in zip(keys, blobs, strict=True)]
        self._try("writing", lambda db: _insert(db, rows))

    def _try(self, action: str, work: Callable[[sqlite3.Connection], _Result]) -> _Result | None:
        """`work` on an open file, None when that is not possible now; a damaged file is replaced once."""
        for attempt in (1, 2):
            if action in self._off:
                return None
            inode = _inode(self.path)
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                # A connection for each piece of work: nothing to share between threads or to leak into a fork.
                with closing(sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)) as db:
                    _prepare(db)
                    return work(db)
            except (sqlite3.Error, OSError) as error:
                if attempt == 1 and _is_damage(error):
                    self._set_aside(inode, error)
                    continue
                self._switch_off(action, error)
        return None

    def _switch_off(self, action: str, error: Exception) -> None:
        with self._lock:
            if not self._off:
                _log.warning("embedding cache %s: %s failed (%s); going on without it", self.path, action, error)
            self._off.add(action)

    def _set_aside(self, inode: int | None, error: Exception) -> None:
        with self._lock:
            # Another process may have replaced the file already; then the new one is not to be moved.
            if _inode(self.path) != inode:
                return
            suffix = f".damaged-{time.strftime('%Y%m%dT%H%M%S')}"
            _log.warning("embedding cache %s is damaged (%s); moved to %s%s", self.path, error, self.path.name, suffix)
            for ending in ("", "-wal", "-shm"):
                file = self.path.with_name(_FILE + ending)
                with suppress(OSError):  # not there, or not ours to move: the second attempt decides
                    file.replace(file.with_name(file.name + suffix))


def _prepare(db: sqlite3.Connection) -> None:
    # Write-ahead logging lets readers and one writer work at once. Where the file system cannot, SQLite keeps another
    # journal; while another process makes the same change, SQLite says "locked" at once. Any journal is right.
    db.text_factory = bytes  # no text is kept here: a damaged row may look like text, and must not fail to decode
    with suppress(sqlite3.OperationalError):
        db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute(_SCHEMA)


def _select(db: sqlite3.Connection, keys: list[bytes]) -> list[tuple[bytes, bytes, bytes]]:
    rows: list[tuple[bytes, bytes, bytes]] = []
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        some = keys[start : start + _KEYS_PER_QUERY]
        marks = ",".join("?" * len(some))
        rows += db.execute(f"SELECT key, vector, checksum FROM embeddings_v1 WHERE key IN ({marks})", some)
    return rows


def _insert(db: sqlite3.Connection, rows: list[tuple[bytes, bytes, bytes]]) -> None:
    db.execute("BEGIN IMMEDIATE")
    with db:
        db.executemany("INSERT OR REPLACE INTO embeddings_v1 VALUES (?, ?, ?)", rows)


def _key(text: str, fingerprint: str, kind: str) -> bytes:
    content = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return sha256(f"{fingerprint}\n{kind}\n{content}".encode()).digest()


def _checksum(key: bytes, blob: bytes) -> bytes:
    return blake2b(blob, digest_size=8, key=key).digest()


def _is_damage(error: Exception) -> bool:
    # The low byte is SQLite's error, what is above it the detail; errors of the Python layer carry none. The statements
    # here are fixed and right, so a plain "SQL error" means that the tables in the file are not as they were made.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


class CachedEncoder:
    """A `TextEncoder` that asks the cache first and gives only new texts to `encoder`.

    New vectors are kept after every `chunk_size` texts, so an interrupted encoding goes on where it stopped. `hits`
    and `misses` count the different texts of each call that were found, and that were encoded.
    """

    def __init__(self, encoder: TextEncoder, cache: EmbeddingCache, *, chunk_size: int = 2000) -> None:
        if chunk_size < 1:
            raise InvalidInput(f"chunk_size is {chunk_size}; expected at least 1")
        self.encoder = encoder
        self.cache = cache
        self.hits = 0
        self.misses = 0
        self._chunk_size = chunk_size

    @property
    def dim(self) -> int:
        return self.encoder.dim

    @property
    def fingerprint(self) -> str:
        return self.encoder.fingerprint

    @property
    def name(self) -> str:
        return self.encoder.name

    def spec(self) -> dict[str, Any]:
        return self.encoder.spec()

    def encode(self, texts: Sequence[str], *, kind: Kind = "document", show_progress: bool = False) -> np.ndarray:
        """As `TextEncoder.encode`."""
        distinct, rows = distinct_texts(texts)
        fingerprint = self.encoder.fingerprint
        vectors, found = self.cache.lookup(distinct, fingerprint=fingerprint, kind=kind, dim=self.encoder.dim)
        self.hits += int(found.sum())
        for chunk in self._chunks(distinct, np.flatnonzero(~found), show_progress):
            new = [distinct[row] for row in chunk]
            encoded = self.encoder.encode(new, kind=kind)
            if encoded.shape != (len(new), vectors.shape[1]) or not np.isfinite(encoded).all():
                raise InvalidInput(
                    f"{self.name} gave an array of shape {encoded.shape} for {len(new)} texts; "
                    f"expected finite numbers of shape {(len(new), vectors.shape[1])}"
                )
            vectors[chunk] = encoded
            self.cache.store(new, encoded, fingerprint=fingerprint, kind=kind)
            self.misses += len(new)
        result = np.zeros((len(rows), vectors.shape[1]), np.float32)
        result[rows >= 0] = vectors[rows[rows >= 0]]
        return result

    def _chunks(self, texts: list[str], missing: np.ndarray, show_progress: bool) -> Iterator[np.ndarray]:
        """Rows of the missing texts, a chunk at a time, the longest texts first: little padding within a chunk."""
        from tqdm.auto import tqdm

        order = missing[np.argsort([-len(texts[row]) for row in missing], kind="stable")]
        with tqdm(total=len(order), desc="Encoding", unit=" texts", disable=not show_progress) as bar:
            for start in range(0, len(order), self._chunk_size):
                chunk = order[start : start + self._chunk_size]
                yield chunk
                bar.update(len(chunk))
