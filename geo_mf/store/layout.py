"""The names in an artefact's folder, and its manifest."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, JsonValue, NonNegativeInt

from geo_mf import __version__
from geo_mf.errors import IncompatibleIndex, InvalidInput

__all__ = ["LAYOUT", "REMEDY", "SCHEMA_VERSION", "SUFFIX", "FileEntry", "Kind", "Layout", "Manifest", "Pointer"]

SCHEMA_VERSION = 1
REMEDY = "Restore this file from a copy, or build the index again."
Kind = Literal["array", "table", "bytes"]
SUFFIX: dict[Kind, str] = {"array": ".npy", "table": ".parquet", "bytes": ".faiss"}


@dataclass(frozen=True)
class Layout:
    """File names as data, and the rules for the names that users choose."""

    current: str = "CURRENT"
    seal: str = "SEAL"
    manifest: str = "manifest.json"
    lock: str = ".lock"
    temporary: str = ".tmp-"

    def version(self, number: int) -> str:
        return f"v{number:06d}"

    def number(self, name: str) -> int | None:
        """The number in a version's name; None if `name` is not one."""
        if not re.fullmatch(r"v[0-9]{6,18}", name):
            return None
        number = int(name[1:])
        return number if self.version(number) == name else None

    def numbers(self, root: Path) -> list[int]:
        """The versions that lie in `root`, oldest first; none if there is no such folder."""
        if not root.is_dir():
            return []
        return sorted(number for name in os.listdir(root) if (number := self.number(name)) is not None)

    def checked_root(self, root: str | os.PathLike[str]) -> Path:
        """Refuse a folder whose own name (the end of its path) is no index name, and a symbolic link."""
        path = Path(root)
        self.check_name(path.name)
        if "\0" in str(path):
            raise InvalidInput(f"the path {str(path)!r} holds a NUL character; remove it.")
        if path.is_symlink():
            raise InvalidInput(f"{path} is a symbolic link; an index must be a real folder. Give the folder itself.")
        return path

    def index_root(self, home: str | os.PathLike[str], name: str) -> Path:
        """The folder of the index `name`, directly inside `home` and nowhere else: for names from outside."""
        self.check_name(name)
        return self.checked_root(Path(home) / name)

    def check_name(self, name: str) -> None:
        """Refuse what is not `[a-z0-9][a-z0-9_-]{0,63}`, and the names that Windows keeps for its devices."""
        reserved = re.fullmatch(r"con|prn|aux|nul|(com|lpt)[0-9]", name)
        if reserved or not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
            raise InvalidInput(
                f"{name[:80]!r} is not a name for an index. Use 1 to 64 of a-z, 0-9, _ and -, starting with a letter "
                "or a digit, and none of Windows's device names (con, prn, aux, nul, com1, lpt1, ...)."
            )


LAYOUT = Layout()


@dataclass(frozen=True)
class Pointer:
    """The two lines of CURRENT and of each version's SEAL: a version, and the SHA-256 of its manifest."""

    version: str
    sha256: str

    def to_bytes(self) -> bytes:
        return f"{self.version}\n{self.sha256}\n".encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes, path: Path) -> "Pointer":
        match = re.fullmatch(rb"(v[0-9]{6,18})\n([0-9a-f]{64})\n", data)
        if match is None:
            raise IncompatibleIndex(
                f"{path} is damaged: expected a version and a SHA-256 on two lines, found {data[:80]!r}. {REMEDY}"
            )
        return cls(match[1].decode("ascii"), match[2].decode("ascii"))


class FileEntry(BaseModel):
    """One file as the manifest knows it. An array has a shape and a dtype, a table [rows, columns], bytes neither."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    size: NonNegativeInt
    sha256: str
    kind: Kind
    shape: tuple[NonNegativeInt, ...] | None = None
    dtype: str | None = None


class Manifest(BaseModel):
    """What one version holds. `meta` is the caller's: counts, encoder fingerprint, blend, config, seed, recall..."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: int = SCHEMA_VERSION
    version: str
    created: AwareDatetime
    geo_mf: str = __version__
    files: dict[str, FileEntry]
    meta: dict[str, JsonValue]

    @property
    def total_size(self) -> int:
        """Bytes of all data files."""
        return sum(entry.size for entry in self.files.values())

    def to_bytes(self) -> bytes:
        """The text of manifest.json; the same manifest gives the same bytes."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, allow_nan=False)
        return f"{text}\n".encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes, path: Path) -> "Manifest":
        """Read a manifest whose hash has been checked. A newer schema is named before anything else is looked at.

        Raises:
            IncompatibleIndex: a newer schema, or not a manifest.
        """
        try:
            schema, writer = (json.loads(data)[key] for key in ("schema_version", "geo_mf"))
            if isinstance(schema, int) and schema > SCHEMA_VERSION:
                raise IncompatibleIndex(
                    f"{path} has schema version {schema}; geo_mf {__version__} reads up to {SCHEMA_VERSION}. "
                    f"It needs geo_mf >= {writer}: upgrade geo_mf, or build the index again."
                )
            return cls.model_validate_json(data)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise IncompatibleIndex(f"{path} is not a manifest of geo_mf: {error!r}. Build the index again.") from error
