"""The reader's side of an artefact: from CURRENT to the manifest to the files, each checked by the one before it."""

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from geo_mf.errors import IncompatibleIndex, InvalidInput
from geo_mf.store.contents import Contents, StoredTable, mapped, mapped_array, mapped_table
from geo_mf.store.layout import LAYOUT, REMEDY, SUFFIX, FileEntry, Manifest, Pointer

__all__ = [
    "Check",
    "VerifyReport",
    "current_version",
    "read_manifest",
    "read_version",
    "verify",
    "versions",
]

Check = Literal["auto", "full", "quick"]
HASHED_BELOW = 10**9  # bytes; "auto" hashes every file of a smaller artefact


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found: every problem, each naming its file."""

    root: Path
    version: str | None
    files: int
    size: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        where = self.root / self.version if self.version else self.root
        head = f"{where}: {_counted(self.files, 'file')}, {_counted(self.size, 'byte')}"
        if self.ok:
            return f"{head}, all as written"
        return "\n".join(
            [f"{head}, {_counted(len(self.problems), 'problem')}", *(f"- {text}" for text in self.problems)]
        )


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def read_version(
    root: str | os.PathLike[str], version: str | None = None, check: Check = "auto"
) -> tuple[Manifest, Contents]:
    """Check a version, then map its files. Tables are decoded when they are asked for.

    What was checked is what is read: each file is opened once, and stays mapped. All stays valid when the version is
    pruned later. Maps are read-only and shared: processes that read the same version hold its pages once.

    Args:
        root: the artefact's folder.
        version: such as "v000007"; by default the current one.
        check: "full" hashes every file, "quick" compares names, sizes and headers only, "auto" hashes below 1 GB in
            total. CURRENT, SEAL and the manifest are always hashed.

    Raises:
        FileNotFoundError: there is no index here, or no such version.
        IncompatibleIndex: a file is damaged, missing or too many, each by name; or a newer geo_mf wrote it.
        InvalidInput: a bad name, a symbolic link, or an unknown `check`.
    """
    root = LAYOUT.checked_root(root)
    if check not in get_args(Check):
        raise InvalidInput(f"check is {check!r}; expected one of {', '.join(get_args(Check))}.")
    if version is not None:
        return _read(root, _sealed(root, version), check)
    while True:
        pointer = _current(root)
        try:
            _check_seal(root, pointer)
            return _read(root, pointer, check)
        except IncompatibleIndex:
            # A writer may have published and pruned while we read; that is no damage.
            if _current(root) == pointer:
                raise


def verify(root: str | os.PathLike[str], version: str | None = None) -> VerifyReport:
    """Hash every file of a version (by default the current one) and list all problems, not only the first.

    Raises:
        FileNotFoundError: there is no index here, or no such version.
        InvalidInput: a bad name, or a symbolic link.
    """
    root = LAYOUT.checked_root(root)
    try:
        pointer = _current(root) if version is None else _sealed(root, version)
    except IncompatibleIndex as error:
        return VerifyReport(root, version, 0, 0, (str(error),))
    try:
        _check_seal(root, pointer)
        manifest = _manifest(root, pointer)
    except IncompatibleIndex as error:
        return VerifyReport(root, pointer.version, 0, 0, (str(error),))
    folder = root / pointer.version
    problems = list(_name_problems(folder, manifest))
    for name, entry in manifest.files.items():
        if not os.path.lexists(folder / name):
            continue  # named already
        try:
            _open_checked(folder / name, entry, hashed=True).close()
        except (IncompatibleIndex, OSError) as error:
            problems.append(str(error))
    return VerifyReport(root, pointer.version, len(manifest.files), manifest.total_size, tuple(problems))


def versions(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names of the versions that lie in `root`, oldest first; the current one need not be the last."""
    return tuple(LAYOUT.version(number) for number in LAYOUT.numbers(LAYOUT.checked_root(root)))


def current_version(root: str | os.PathLike[str]) -> str:
    """The name of the version in use.

    Raises:
        FileNotFoundError: there is no index here.
        IncompatibleIndex: CURRENT is damaged.
        InvalidInput: a bad name, or a symbolic link.
    """
    return _current(LAYOUT.checked_root(root)).version


def read_manifest(root: str | os.PathLike[str], version: str) -> Manifest:
    """The manifest of a version, its hash checked; no other file of it is looked at.

    Raises:
        FileNotFoundError: there is no such version.
        IncompatibleIndex: the manifest or its seal is damaged, or a newer geo_mf wrote it.
        InvalidInput: a bad name, or a symbolic link.
    """
    root = LAYOUT.checked_root(root)
    return _manifest(root, _sealed(root, version))


# --- from CURRENT to the manifest --------------------------------------------------------------------------------


def _current(root: Path) -> Pointer:
    path = root / LAYOUT.current
    if not os.path.lexists(path):
        raise FileNotFoundError(
            errno.ENOENT,
            f"there is no index here ({LAYOUT.current} is missing); build one with geo-mf build",
            str(root),
        )
    return Pointer.from_bytes(_read_small(path), path)


def _check_seal(root: Path, pointer: Pointer) -> None:
    """The current version is sealed with what CURRENT says; else one of the two was damaged."""
    path, seal = root / LAYOUT.current, root / pointer.version / LAYOUT.seal
    if not os.path.lexists(root / pointer.version):
        raise IncompatibleIndex(f"{path} names {pointer.version}, which is not there. {REMEDY}")
    if _read_small(seal) != pointer.to_bytes():
        raise IncompatibleIndex(f"{path} and {seal} differ: one of them is damaged. {REMEDY}")


def _sealed(root: Path, version: str) -> Pointer:
    if LAYOUT.number(version) is None:
        raise InvalidInput(f"{version[:80]!r} is not a version; expected a name such as {LAYOUT.version(7)}.")
    if not os.path.lexists(root / version):
        there = ", ".join(versions(root)) or "none"
        raise FileNotFoundError(errno.ENOENT, f"there is no such version; there: {there}", str(root / version))
    path = root / version / LAYOUT.seal
    pointer = Pointer.from_bytes(_read_small(path), path)
    if pointer.version != version:
        raise IncompatibleIndex(f"{path} is the seal of {pointer.version}. {REMEDY}")
    return pointer


def _manifest(root: Path, pointer: Pointer) -> Manifest:
    folder = root / pointer.version
    if folder.is_symlink() or not folder.is_dir():
        raise IncompatibleIndex(f"{folder} is not a real folder. {REMEDY}")
    path = folder / LAYOUT.manifest
    with _open_regular(path) as file:
        data = file.read()
    found = hashlib.sha256(data).hexdigest()
    if found != pointer.sha256:
        raise IncompatibleIndex(f"{path} is damaged: expected SHA-256 {pointer.sha256}, found {found}. {REMEDY}")
    manifest = Manifest.from_bytes(data, path)
    if manifest.version != pointer.version:
        raise IncompatibleIndex(f"{path} is the manifest of {manifest.version}. {REMEDY}")
    return manifest


def _read_small(path: Path) -> bytes:
    with _open_regular(path) as file:
        return file.read(1024)


# --- from the manifest to the files ------------------------------------------------------------------------------


def _read(root: Path, pointer: Pointer, check: Check) -> tuple[Manifest, Contents]:
    manifest = _manifest(root, pointer)
    folder = root / pointer.version
    for problem in _name_problems(folder, manifest):
        raise IncompatibleIndex(problem)
    hashed = check == "full" or (check == "auto" and manifest.total_size < HASHED_BELOW)
    arrays: dict[str, np.ndarray] = {}
    tables: dict[str, StoredTable] = {}
    blobs: dict[str, memoryview] = {}
    with ExitStack() as opened:
        # Every file is checked before the first is parsed.
        files = {
            name: opened.enter_context(_open_checked(folder / name, entry, hashed))
            for name, entry in manifest.files.items()
        }
        for name, file in files.items():
            entry, path = manifest.files[name], folder / name
            stem = name.removesuffix(SUFFIX[entry.kind])
            match entry.kind:
                case "array":
                    arrays[stem] = mapped_array(file, entry, path)
                case "table":
                    tables[stem] = mapped_table(file, entry, path)
                case "bytes":
                    blobs[stem] = mapped(file)
    return manifest, Contents(folder, arrays, tables, blobs)


def _name_problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    expected = {LAYOUT.manifest, LAYOUT.seal, *manifest.files}
    try:
        found = set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):  # pruned a moment ago, perhaps: then all of it is missing
        found = set()
    for name in sorted(expected - found):
        yield f"{folder / name} is missing. {REMEDY}"
    for name in sorted(found - expected):
        yield f"{folder / name} does not belong to this version: the manifest does not name it. Remove it."


def _open_checked(path: Path, entry: FileEntry, hashed: bool) -> io.BufferedReader:
    file = _open_regular(path)
    try:
        size = os.fstat(file.fileno()).st_size
        if size != entry.size:
            raise IncompatibleIndex(f"{path} is damaged: expected {entry.size} bytes, found {size}. {REMEDY}")
        if hashed:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != entry.sha256:
                raise IncompatibleIndex(f"{path} is damaged: expected SHA-256 {entry.sha256}, found {found}. {REMEDY}")
            file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file: no symbolic link is followed, and a pipe in its place cannot make us wait."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise IncompatibleIndex(f"{path} is missing. {REMEDY}") from error
        if error.errno == errno.ELOOP:
            raise IncompatibleIndex(f"{path} is a symbolic link, not a file. {REMEDY}") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IncompatibleIndex(f"{path} is not a regular file. {REMEDY}")
    return open(descriptor, "rb")
