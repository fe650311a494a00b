"""What every writer of files needs: all of a file or nothing of it, a folder that remembers, one writer at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from geo_mf.errors import InvalidInput

__all__ = ["about", "lock", "replace", "replacing", "sync_folder"]


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
