"""The versions that lie in an index's folder, at a glance: no data file is opened."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from geo_mf.errors import IncompatibleIndex
from geo_mf.store.layout import LAYOUT
from geo_mf.store.reading import current_version, read_manifest

__all__ = ["VersionOnDisk", "overview"]


@dataclass(frozen=True)
class VersionOnDisk:
    """One version.

    Attributes:
        name: such as "v000007".
        size: bytes of all its files, the manifest included.
        current: whether it is the one in use.
        created: when it was written; None if its manifest cannot tell.
        problem: why its manifest cannot be read, else None.
    """

    name: str
    size: int
    current: bool
    created: datetime | None = None
    problem: str | None = None


def overview(root: str | os.PathLike[str]) -> tuple[VersionOnDisk, ...]:
    """All versions in the folder, oldest first. One whose manifest is damaged is listed with the reason.

    Raises:
        FileNotFoundError: there is no index here.
        IncompatibleIndex: CURRENT is damaged.
        InvalidInput: a bad name, or a symbolic link.
    """
    folder = LAYOUT.checked_root(root)
    current = current_version(folder)
    found = []
    for number in LAYOUT.numbers(folder):
        name = LAYOUT.version(number)
        try:
            size = _size(folder / name)
        except FileNotFoundError:
            continue  # pruned while we look
        try:
            created, problem = read_manifest(folder, name).created, None
        except (IncompatibleIndex, FileNotFoundError) as error:
            created, problem = None, str(error)
        found.append(VersionOnDisk(name, size, name == current, created, problem))
    return tuple(found)


def _size(folder: Path) -> int:
    return sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(folder))
