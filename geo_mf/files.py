"""What every writer of files needs: all of a file or nothing of it, a folder that remembers, one writer at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from geo_mf.errors import InvalidInput

__all__ = ["about", "lock", "replace", "replacing", "replacing_both", "sync_folder"]


def replace(path: Path, content: bytes) -> None:
    """Write a file, the whole of it or nothing: an older one stays until the new one is safe."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """As `replace`, for content that comes piece by piece: the new file takes its name when the block has ended."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_both(path: Path, beside: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """As `replacing`, for a file that means nothing without the one beside it: an error leaves both as they were.

    A process that is killed while the names change, and one that cannot bring back what it put aside, leaves no file at
    `path`, rather than one beside what belongs to another; what was there lies in .<name>.<process>.old.
    """
    aside: dict[Path, Path | None] = {}
    try:
        with replacing(path) as first, replacing(beside) as second:  # the second one takes its name first
            yield first, second
            for file in (first, second):  # what may fail has failed before a name changes
                file.flush()
                os.fsync(file.fileno())
            for each in (path, beside):
                old = each.with_name(f".{each.name}.{os.getpid()}.old")
                try:
                    aside[each] = each.replace(old)
                except FileNotFoundError:
                    aside[each] = None
    except BaseException:
        if path in aside:
            path.unlink(missing_ok=True)
        for each in (beside, path):
            if each in aside:
                _back(aside[each], each)
        raise
    for old in filter(None, aside.values()):
        old.unlink()


def _back(old: Path | None, path: Path) -> None:
    if old is not None:
        old.replace(path)
    else:
        path.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a crash. Raises OSError, naming the folder."""
    with about(path, "cannot sync this folder"):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def lock(descriptor: int, path: Path, busy: str) -> None:
    """Lock an open file or folder; the kernel lets it go when the process ends, however it ends.

    Raises:
        InvalidInput: another process holds it; `busy` is the message.
        OSError: it cannot be locked, naming `path`.
    """
    try:
        with about(path, "cannot lock this file"):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InvalidInput(busy) from error


@contextmanager
def about(path: Path, what: str) -> Iterator[None]:
    """Calls on a descriptor do not name the file when they fail."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{what}: {error.strerror}", str(path)) from error
