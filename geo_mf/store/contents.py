"""What the files of a version hold: arrays and bytes as maps of them, and tables, decoded when they are asked for."""

import io
import math
import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from geo_mf.errors import IncompatibleIndex
from geo_mf.store.layout import REMEDY, SUFFIX, FileEntry, Kind

if TYPE_CHECKING:
    from pyarrow import parquet as pq

__all__ = ["Contents", "StoredTable", "mapped", "mapped_array", "mapped_table"]


@dataclass(frozen=True, eq=False)
class StoredTable:
    """A table in a checked and mapped file. Its columns are known at once; `read` decodes them, each time.

    Attributes:
        path: the file, for messages.
        schema: names and types of the columns.
        rows: how many.
    """

    path: Path
    schema: pa.Schema
    rows: int
    _memory: memoryview

    @classmethod
    def of(cls, memory: memoryview, path: Path) -> "StoredTable":
        """From the bytes of a Parquet file. IncompatibleIndex if its end does not describe a table."""
        with _named(path):
            file = _parquet(memory)
            return cls(path, file.schema_arrow, file.metadata.num_rows, memory)

    def read(self) -> pa.Table:
        """The whole table. IncompatibleIndex if it cannot be decoded or a page's checksum is another."""
        with _named(self.path):
            return _parquet(self._memory).read()


@dataclass(frozen=True, eq=False)
class Contents:
    """The checked contents of one version, by name without suffix."""

    folder: Path
    arrays: Mapping[str, np.ndarray]
    tables: Mapping[str, StoredTable]
    blobs: Mapping[str, memoryview]

    def array(self, name: str) -> np.ndarray:
        """A read-only array, mapped from its file. IncompatibleIndex if there is none of that name."""
        return self._one(self.arrays, name, "array")

    def stored(self, name: str) -> StoredTable:
        """A table that is not decoded yet. IncompatibleIndex if there is none of that name."""
        return self._one(self.tables, name, "table")

    def table(self, name: str) -> pa.Table:
        """A table, decoded now. IncompatibleIndex if there is none of that name, or as in `StoredTable.read`."""
        return self.stored(name).read()

    def blob(self, name: str) -> memoryview:
        """Bytes, mapped from their file. IncompatibleIndex if there are none of that name."""
        return self._one(self.blobs, name, "bytes")

    def _one(self, held: Mapping[str, Any], name: str, kind: Kind) -> Any:
        if name not in held:
            raise IncompatibleIndex(f"{self.folder} holds no {name}{SUFFIX[kind]}. Build the index again.")
        return held[name]


def mapped_array(file: io.BufferedReader, entry: FileEntry, path: Path) -> np.ndarray:
    """As np.load(mmap_mode="r", allow_pickle=False), but from the file that was hashed.

    Raises:
        IncompatibleIndex: it is not the array that the manifest describes.
    """
    try:
        dtype, shape = np.dtype(entry.dtype), entry.shape or ()
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
        head = file.read(10)
        head += file.read(int.from_bytes(head[8:], "little"))
        # Compared as text: NumPy's own reader parses it as Python, and fails in as many ways.
        text = f"{{'descr': '{entry.dtype}', 'fortran_order': False, 'shape': {shape}, }}"
        if not head.endswith(b"\n") or b"\x93NUMPY\1\0" + head[8:10] + text.encode() != head.rstrip(b" \n"):
            raise ValueError(
                f"it does not begin as one of {entry.dtype} {shape}, which the manifest says, but {head[:99]}"
            )
        if len(head) + dtype.itemsize * math.prod(shape) != entry.size:
            raise ValueError(f"{entry.size} bytes are not those of {entry.dtype} {shape}")
        # np.asarray: the memmap subclass is slow in small steps; the map stays alive underneath, read-only.
        return np.asarray(np.memmap(file, dtype=dtype, mode="r", offset=file.tell(), shape=shape))
    except (ValueError, TypeError) as error:
        raise IncompatibleIndex(f"{path} is not the expected array: {error}. {REMEDY}") from error


def mapped_table(file: io.BufferedReader, entry: FileEntry, path: Path) -> StoredTable:
    """The table in a file. IncompatibleIndex if it is not the one that the manifest describes."""
    table = StoredTable.of(mapped(file), path)
    found = (table.rows, len(table.schema))
    if found != entry.shape:
        raise IncompatibleIndex(f"{path} has shape {found}; the manifest says {entry.shape}. {REMEDY}")
    return table


def _parquet(memory: memoryview) -> "pq.ParquetFile":
    """A reader of its own for each use: Arrow's are not made for several threads."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(pa.BufferReader(pa.py_buffer(memory)), page_checksum_verification=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Arrow does not know which file it reads."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise IncompatibleIndex(f"{path} is not the expected table: {error}. {REMEDY}") from error


def mapped(file: io.BufferedReader) -> memoryview:
    """The bytes of a file, read-only and shared."""
    size = file.seek(0, io.SEEK_END)
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b"")
