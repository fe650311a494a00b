"""A plain Faiss file: an IndexIDMap2 over an IndexFlatIP, written piece by piece, and read without Faiss's own reader.

    "IxM2", header, the inner index, number of labels, int64 labels
    "IxFI", header, number of floats, float32 [n, dim]           the inner index

Faiss's reader trusts what it reads. This one knows these kinds and two more ("IxMp", an IndexIDMap; "IxF2", an
IndexFlatL2), and refuses a file whose length is not what its header says.
"""

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from geo_mf.errors import InvalidInput

__all__ = ["begin", "end", "read"]

_HEADER = struct.Struct("<4siqqqBi")  # kind, dim, rows, two unused, trained, metric; a float more for metrics above 1
_COUNT = struct.Struct("<Q")
_INNER_PRODUCT, _UNUSED = 0, 2**20
_MAPPED, _FLAT = (b"IxM2", b"IxMp"), (b"IxFI", b"IxF2")


def begin(file: BinaryIO, rows: int, dim: int) -> None:
    """Write what stands before the vectors."""
    for kind in (_MAPPED[0], _FLAT[0]):
        file.write(_HEADER.pack(kind, dim, rows, _UNUSED, _UNUSED, True, _INNER_PRODUCT))
    file.write(_COUNT.pack(rows * dim))


def end(file: BinaryIO, rows: int) -> None:
    """Write what stands behind the vectors: the labels, which are row numbers."""
    file.write(_COUNT.pack(rows))
    file.write(np.arange(rows, dtype="<i8").tobytes())


def read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The vectors of a flat index, float32 [n, dim], and its labels, int64 [n], None where it has none.

    Raises:
        InvalidInput: another kind of index, or a file that is not whole.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        kind, dim, rows = _header(file, path)
        mapped = kind in _MAPPED
        if mapped:
            kind, dim, rows = _header(file, path)
        if kind not in _FLAT:
            raise InvalidInput(
                f"{path} holds a Faiss index of kind {kind!r}; expected a flat one ({', '.join(map(repr, _FLAT))}), "
                f"alone or under {' or '.join(map(repr, _MAPPED))}: others do not keep their vectors as they were"
            )
        floats = _count(file, path)
        expected = file.tell() + 4 * floats + (_COUNT.size + 8 * rows if mapped else 0)
        if dim < 1 or rows < 0 or floats != rows * dim or size != expected:
            raise InvalidInput(
                f"{path} is damaged: it has {size:,} bytes and says {rows:,} rows of {dim}; export it again"
            )
        vectors = np.fromfile(file, "<f4", floats).reshape(rows, dim)
        if not mapped:
            return vectors, None
        labels = _count(file, path)
        if labels != rows:
            raise InvalidInput(f"{path} is damaged: {labels:,} labels for {rows:,} rows; export it again")
        return vectors, np.fromfile(file, "<i8", rows)


def _header(file: BinaryIO, path: Path) -> tuple[bytes, int, int]:
    kind, dim, rows, _, _, _, metric = _HEADER.unpack(_exactly(file, _HEADER.size, path))
    if metric not in (0, 1) and kind in _MAPPED + _FLAT:
        raise InvalidInput(f"{path} has a Faiss index with metric {metric}; expected inner product (0) or L2 (1)")
    return kind, dim, rows


def _count(file: BinaryIO, path: Path) -> int:
    return _COUNT.unpack(_exactly(file, _COUNT.size, path))[0]


def _exactly(file: BinaryIO, size: int, path: Path) -> bytes:
    found = file.read(size)
    if len(found) != size:
        raise InvalidInput(f"{path} is not a Faiss file, or its end is missing; expected one with a flat index")
    return found
