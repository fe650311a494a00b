"""The writer's side of an artefact: publish a version, prune old ones."""

import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from geo_mf.errors import IncompatibleIndex, InvalidInput
from geo_mf.files import about, lock, sync_folder
from geo_mf.store.layout import LAYOUT, SUFFIX, FileEntry, Kind, Manifest, Pointer
from geo_mf.store.reading import verify

__all__ = ["prune", "publish"]

WRITE_AT_ONCE = 2**24  # bytes given to one write call


def publish(
    root: str | os.PathLike[str],
    contents: Mapping[str, np.ndarray | pa.Table | bytes],
    meta: Mapping[str, Any],
    *,
    created: datetime | None = None,
) -> str:
    """Write a new version and make it the current one; return its name once it would survive a crash.

    Whatever happens in between (kill -9, a full disk, a failing fsync), a reader sees the old version or the new one,
    whole. The same contents give the same bytes in every data file; only the manifest knows when it was written.

    Args:
        root: the artefact's folder, made if it is not there; its own name must be an index name (`Layout`).
        contents: by name (a-z, 0-9, _): arrays of numbers, Arrow tables, or the bytes of a Faiss index. The metadata of
            a table's schema is not stored.
        meta: JSON values for the manifest.
        created: the time for the manifest, with a time zone; by default SOURCE_DATE_EPOCH if set, else now.

    Raises:
        InvalidInput: a bad name, contents or meta; or another process is writing here.
        OSError: a write failed (disk full...): the temporary folder is gone and CURRENT is as it was. Only when the
            very last fsync fails, after CURRENT was replaced, may the new version be the current one; it is whole.
    """
    root = LAYOUT.checked_root(root)
    files = {name + SUFFIX[file.kind]: file for name, file in zip(contents, _serialized(contents), strict=True)}
    try:
        json.dumps(meta, allow_nan=False)  # pydantic would turn NaN into null
        draft = Manifest(version="", created=created or _time_of_writing(), files={}, meta=dict(meta))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"meta or created cannot be stored: {error}") from error
    _make_folder(root)
    with _exclusive(root):
        _drop_dead_temporaries(root)  # before anything is written, for the room they take
        version = LAYOUT.version(max(LAYOUT.numbers(root), default=0) + 1)
        with _gone_on_failure(root / f"{LAYOUT.temporary}{secrets.token_hex(8)}") as staged:
            os.mkdir(staged)
            entries = {name: file.entry(_write(staged / name, file.parts)) for name, file in files.items()}
            manifest = draft.model_copy(update={"version": version, "files": entries})
            pointer = Pointer(version, _write(staged / LAYOUT.manifest, [memoryview(manifest.to_bytes())]))
            _write(staged / LAYOUT.seal, [memoryview(pointer.to_bytes())])
            sync_folder(staged)
            os.rename(staged, root / version)
        _make_current(root, pointer)
    return version


def prune(root: str | os.PathLike[str], keep: int = 2) -> tuple[str, ...]:
    """Delete all but the current version and the `keep - 1` before it; return the names that went.

    The current version is verified first: an older one may be the only whole copy. A version newer than the current one
    was never acknowledged (its writer was stopped just before the end) and goes too.

    Raises:
        InvalidInput: `keep` below 1, or another process is writing here.
        FileNotFoundError: there is no index.
        IncompatibleIndex: the current version is damaged; nothing was deleted.
    """
    root = LAYOUT.checked_root(root)
    if keep < 1:
        raise InvalidInput(f"keep is {keep}; expected at least 1 (the current version always stays).")
    if not root.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no index here", str(root))
    with _exclusive(root):
        report = verify(root)
        if report.version is None or not report.ok:
            raise IncompatibleIndex(f"nothing was pruned, for the current version is damaged. {report}")
        names = [LAYOUT.version(number) for number in LAYOUT.numbers(root)]
        place = names.index(report.version) + 1
        gone = tuple(names[: max(0, place - keep)] + names[place:])
        for name in gone:
            # Renamed first: a version that is half deleted must not bear a version's name.
            os.rename(root / name, root / f"{LAYOUT.temporary}{name}")
        _drop_dead_temporaries(root)
    return gone


def _make_current(root: Path, pointer: Pointer) -> None:
    staged = root / f"{LAYOUT.temporary}{LAYOUT.current}"
    try:
        sync_folder(root)
        _write(staged, [memoryview(pointer.to_bytes())])
        os.rename(staged, root / LAYOUT.current)
    except BaseException:
        _remove(staged)
        if not _may_be_current(root, pointer):  # an interrupt can arrive just after the rename
            _remove(root / pointer.version)
        raise
    sync_folder(root)


def _may_be_current(root: Path, pointer: Pointer) -> bool:
    try:
        return (root / LAYOUT.current).read_bytes() == pointer.to_bytes()
    except FileNotFoundError:
        return False
    except OSError:
        return True


# --- contents to bytes -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Serialized:
    kind: Kind
    parts: Sequence[memoryview]
    shape: tuple[int, ...] | None = None
    dtype: str | None = None

    def entry(self, sha256: str) -> FileEntry:
        size = sum(part.nbytes for part in self.parts)
        return FileEntry(size=size, sha256=sha256, kind=self.kind, shape=self.shape, dtype=self.dtype)


def _serialized(contents: Mapping[str, np.ndarray | pa.Table | bytes]) -> Iterator[_Serialized]:
    for name, value in contents.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name):
            raise InvalidInput(f"{name[:80]!r} cannot name a file; use up to 64 of a-z, 0-9 and _, a letter first.")
        match value:
            case np.ndarray():
                yield _array(name, value)
            case pa.Table():
                yield _Serialized("table", [_parquet(value)], (value.num_rows, value.num_columns))
            case bytes():
                yield _Serialized("bytes", [memoryview(value)])
            case _:
                raise InvalidInput(f"{name} is a {type(value).__name__}; expected a NumPy array, Arrow table or bytes.")


def _array(name: str, array: np.ndarray) -> _Serialized:
    """The .npy format, without a copy of the numbers."""
    if array.dtype.kind not in "biuf":
        raise InvalidInput(f"{name} has dtype {array.dtype}; an array holds numbers. Put text and dates into a table.")
    array = np.asarray(array, order="C")
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
    numbers = memoryview(array.reshape(-1).view(np.uint8))  # pyright: ignore[reportArgumentType]
    return _Serialized("array", [memoryview(head.getvalue()), numbers], array.shape, array.dtype.str)


def _parquet(table: pa.Table) -> memoryview:
    """One chunk per column and no schema metadata (pandas leaves its own there): the bytes depend on the data alone."""
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    plain = table.replace_schema_metadata(None).combine_chunks()
    # Checksums, because the quick check of a large artefact hashes nothing: a damaged page is refused when it is read.
    pq.write_table(plain, sink, compression="zstd", write_page_checksum=True)
    return memoryview(sink.getvalue())


def _time_of_writing() -> datetime:
    """SOURCE_DATE_EPOCH, the convention of reproducible builds, or now."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return datetime.now(UTC).replace(microsecond=0)
    try:
        return datetime.fromtimestamp(int(epoch), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidInput(f"SOURCE_DATE_EPOCH is {epoch!r}; expected seconds since 1970 as an integer.") from error


# --- bytes to the disk -------------------------------------------------------------------------------------------


def _write(path: Path, parts: Sequence[memoryview]) -> str:
    """Write a new file, sync it and check its size; return its SHA-256.

    A loop of our own, for Faiss's writer cuts a file short without a word when the disk is full.
    """
    needed = sum(part.nbytes for part in parts)
    digest = hashlib.sha256()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            for part in parts:
                digest.update(part)
                done = 0
                while done < part.nbytes:
                    done += os.write(descriptor, part[done : done + WRITE_AT_ONCE])
            os.fsync(descriptor)
            written = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
    except OSError as error:
        reason = f"cannot write this file of {needed} bytes: {error.strerror}; the version in use is unchanged"
        raise OSError(error.errno, reason, str(path)) from error
    if written != needed:
        raise OSError(errno.EIO, f"the file has {written} bytes after {needed} were written", str(path))
    return digest.hexdigest()


def _make_folder(path: Path) -> None:
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


@contextmanager
def _gone_on_failure(path: Path) -> Iterator[Path]:
    try:
        yield path
    except BaseException:
        _remove(path)
        raise


def _remove(path: Path) -> None:
    """Remove a file or folder as far as possible; what stays is dead, and the next writer tries again."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            pass


def _drop_dead_temporaries(root: Path) -> None:
    """Under the lock nobody else is writing them."""
    for path in root.glob(f"{LAYOUT.temporary}*"):
        _remove(path)


@contextmanager
def _exclusive(root: Path) -> Iterator[None]:
    """Hold the writers' lock."""
    path = root / LAYOUT.lock
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        lock(
            descriptor,
            path,
            f"another process is writing {root}: it holds {path}. Wait until it has finished and try again.",
        )
        yield
    finally:
        with about(path, "cannot close this file"):
            os.close(descriptor)
