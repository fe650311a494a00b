"""A folder of Parquet parts that fills up, survives being killed, and goes on.

    _job.json            what the parts are of: the index, the settings, how many parts
    part-00000.parquet   one block of the answers; there whole or not at all
    _SUCCESS             all parts are there

Readers of such folders (pyarrow, Spark) pass over names that begin with "_" or ".".
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from geo_mf.errors import InvalidInput
from geo_mf.files import lock, replace, sync_folder

JOB, DONE, KEY = "_job.json", "_SUCCESS", b"geo_mf"


@dataclass(frozen=True)
class Part:
    """What one part says of itself.

    Attributes:
        rows: of the table.
        asked: users or items it answers for.
        silent: those of whom nothing can be said, and who have no row.
    """

    rows: int
    asked: int
    silent: int


@dataclass(frozen=True)
class Folder:
    """The parts of one job.

    Attributes:
        path: the folder.
        job: what the parts depend on, as JSON; "index" is a hash of its content.
        version: of the index, for people.
    """

    path: Path
    job: Mapping[str, Any]
    version: str | None

    @classmethod
    @contextmanager
    def opened(cls, path: Path, job: Mapping[str, Any], version: str | None) -> Iterator["Folder"]:
        """Begin the job in a new or empty folder, or go on where it was left; nobody else may meanwhile.

        Raises:
            InvalidInput: the folder holds another job or something else, or another process is writing it.
            OSError: it cannot be written.
        """
        if path.exists() and not path.is_dir():
            raise InvalidInput(f"{path} is a file; expected a folder, new, empty or of a job that was begun")
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path, json.loads(json.dumps(job)), version)
        with _alone(path):
            for dead in path.glob(".*.tmp"):
                dead.unlink(missing_ok=True)
            if not (path / JOB).exists():
                others = sorted(entry.name for entry in path.iterdir())
                if others:
                    raise InvalidInput(
                        f"{path} is not empty (it holds {others[0]}), and has no {JOB} of a job to go on with: give "
                        "another folder"
                    )
                told = {"job": job, "index_version": version}
                folder._write(JOB, json.dumps(told, indent=2, sort_keys=True).encode())
            folder._check()
            yield folder

    def _check(self) -> None:
        try:
            told = json.loads((self.path / JOB).read_bytes())
            found, version = dict(told["job"]), told["index_version"]
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidInput(f"{self.path / JOB} is damaged: give another folder, or delete this one") from error
        for name in sorted({*found, *self.job}):
            there, here = found.get(name), self.job.get(name)
            if there != here:
                if name == "index":
                    name, there, here = "state of the index", f"{version}, {there}", f"{self.version}, {here}"
                raise InvalidInput(
                    f"{self.path} was begun with another {name}: {there!r} there, {here!r} now. Give another folder, "
                    "or delete this one to begin again"
                )

    def held(self, number: int) -> Part | None:
        """What a part says of itself; None if it is not there, or is not one of this job's."""
        try:
            described = pq.read_metadata(self.path / part_name(number))
            found = json.loads((described.metadata or {}).get(KEY, b"{}"))
            if found["job"] == self._mark and found["part"] == number:
                return Part(described.num_rows, found["asked"], found["silent"])
        except (FileNotFoundError, pa.ArrowException, ValueError, KeyError, TypeError):
            pass
        return None

    def write(self, number: int, table: pa.Table, asked: int, silent: int) -> Part:
        """Write a part. The same table gives the same bytes.

        Raises:
            OSError: it cannot be written; then there is no such part.
        """
        about = {"job": self._mark, "part": number, "asked": asked, "silent": silent}
        sink = pa.BufferOutputStream()
        described = table.replace_schema_metadata({KEY: json.dumps(about, sort_keys=True)})
        pq.write_table(described.combine_chunks(), sink, compression="zstd")
        self._write(part_name(number), sink.getvalue().to_pybytes())
        return Part(table.num_rows, asked, silent)

    def finish(self) -> None:
        """Say that all parts are there."""
        if not (self.path / DONE).exists():
            self._write(DONE, b"")

    @property
    def _mark(self) -> str:
        return hashlib.sha256(json.dumps(self.job, sort_keys=True).encode()).hexdigest()[:16]

    def _write(self, name: str, content: bytes) -> None:
        try:
            replace(self.path / name, content)
            sync_folder(self.path)
        except OSError as error:
            reason = f"cannot write: {error.strerror}; what is here is whole, and the same call goes on from it"
            raise OSError(error.errno or errno.EIO, reason, str(self.path / name)) from error


def part_name(number: int) -> str:
    """The file of a part."""
    return f"part-{number:05}.parquet"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the folder's lock."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lock(
            descriptor,
            path,
            f"another process is writing {path}: wait until it has finished, or give another folder",
        )
        yield
    finally:
        os.close(descriptor)
