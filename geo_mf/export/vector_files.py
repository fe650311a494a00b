"""export_vectors: the vectors of an index in the formats that others read, piece by piece, whole or not at all.

    .parquet      item_id (or user_id), vector (fixed-size list of float32), cold, columns asked for
    .npy          float32 [n, dim]; the other columns of .parquet lie beside it, in <name>.npy.ids.parquet
    .npz          vectors, ids, and about: a string of JSON. Nothing in it is pickled
    .safetensors  the tensor vectors; integer ids are the tensor ids, strings a list in JSON, "ids" in the metadata
    .faiss        an IndexIDMap2 over an IndexFlatIP, whose labels are row numbers of <name>.faiss.ids.parquet
    .tsv          for the TensorBoard projector, with <stem>.metadata.tsv beside it

What is known of all vectors (their space, the index's version, ...) is JSON, "geo_mf" in the metadata of .parquet and
.safetensors, "about" in .npz.
"""

import errno
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from geo_mf.errors import InvalidInput
from geo_mf.export import faiss_file, projector
from geo_mf.export.vector_rows import IDS, Of, VectorRows, vector_column
from geo_mf.files import replacing, replacing_both, sync_folder
from geo_mf.likeness import Space
from geo_mf.recommender import Recommender

__all__ = ["VectorFile", "export_vectors"]

MOST_HEADER = 100_000_000
"""Bytes that a header of safetensors may have."""

MOST_NUMPY_IDS = 2**30
"""Bytes of string ids in NumPy, where every string takes as much room as the longest."""


@dataclass(frozen=True)
class VectorFile:
    """What was written. Prints as one line.

    Attributes:
        out: the file.
        beside: the file with the ids, where they are not in `out`.
        space: of the vectors.
        of: "items" or "users".
        rows: how many vectors.
        dim: numbers of each.
        bytes: of both files.
        seconds: it took.
    """

    out: str
    beside: str | None
    space: str
    of: str
    rows: int
    dim: int
    bytes: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        beside = "" if self.beside is None else f", ids in {self.beside}"
        return (
            f"{self.rows:,} {self.of} x {self.dim} numbers ({self.space}), {self.bytes / 1e6:,.1f} MB, "
            f"{self.seconds:.1f} s: {self.out}{beside}"
        )


def export_vectors(
    rec: Recommender,
    out: str | Path,
    *,
    space: Space = "blend",
    of: Of = "items",
    columns: Sequence[str] = (),
    overwrite: bool = False,
    show_progress: bool = False,
) -> VectorFile:
    """Write the vectors of items or users to a file; its suffix says in which format.

    In each space the inner product of a user's and an item's vector is what counts there: for "blend" the score that
    `rec.recommend` gives, for "factors" the fit's <w, h>, for "text" the cosine of the item's text and the mean of what
    the user touched. Users of the blend are folded in from their history, as in `recommend`. Items that were removed
    are left out; one that nobody touched has the factor that its text predicts, and is `cold`.

    Args:
        rec: the recommender.
        out: a .parquet, .npy, .npz, .safetensors, .faiss or .tsv file (for the TensorBoard projector). .npy and .faiss
            have no room for ids, and .tsv none for words: these lie beside it.
        space: float32 [K + dim + 1] ("blend"), [K] ("factors") or [dim] ("text").
        of: "items" or "users".
        columns: of the catalogue, to stand beside the ids; not in .npz and .safetensors.
        overwrite: replace a file that is there.
        show_progress: a progress bar on stderr.

    Raises:
        InvalidInput: another suffix, an unknown space or column, a file that is there, or ids that the format cannot
            hold.
        OSError: it could not be written. What was there before is there still; or all of the new, if only the folder
            could not be synced or tidied.

    A process that is killed while it puts new files in place of old ones may leave no .npy, .faiss or .tsv, and ids
    alone: vectors never lie beside the ids of others.
    """
    began, path = time.perf_counter(), Path(out)
    writer, beside = _checked(path, overwrite, columns)
    rows = VectorRows.of(rec.now, space, of, columns)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            if beside is None:
                files = (stack.enter_context(replacing(path)),)
            else:
                files = stack.enter_context(replacing_both(path, beside))
            bar = stack.enter_context(tqdm(total=len(rows), desc=space, unit="rows", disable=not show_progress))
            writer.write(files[0], rows, _told(rows, bar.update))
            if writer.write_beside is not None:
                writer.write_beside(files[-1], rows)
        sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, f"cannot write: {error.strerror or error}", str(path)) from error
    written = sum(each.stat().st_size for each in (path, beside) if each is not None)
    told = None if beside is None else str(beside)
    return VectorFile(str(path), told, space, of, len(rows), rows.dim, written, time.perf_counter() - began)


_Parts = Iterator[tuple[int, np.ndarray]]


@dataclass(frozen=True)
class _Writer:
    write: Callable[[BinaryIO, VectorRows, _Parts], None]
    write_beside: Callable[[BinaryIO, VectorRows], None] | None = None
    beside: Callable[[Path], Path] | None = None
    columns: bool = True


def _checked(path: Path, overwrite: bool, columns: Sequence[str]) -> tuple[_Writer, Path | None]:
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise InvalidInput(f"{path.name} has no format that can be written; expected one of {', '.join(_WRITERS)}")
    if columns and not writer.columns:
        raise InvalidInput(f"{path.suffix} has no room for columns; leave them out, or write .parquet")
    beside = None if writer.beside is None else writer.beside(path)
    for each in filter(None, (path, beside)):
        if each.is_dir():
            raise InvalidInput(f"{each} is a folder; expected the name of a file")
        if each.exists() and not overwrite:
            raise InvalidInput(f"{each} is there already; give another name, or overwrite=True (--overwrite)")
    return writer, beside


def _told(rows: VectorRows, tell: Callable[[int], object]) -> _Parts:
    for start, part in rows.parts():
        yield start, part
        tell(len(part))


def _json(rows: VectorRows) -> str:
    return json.dumps(dict(rows.about), sort_keys=True)


def _parquet(file: BinaryIO, rows: VectorRows, parts: _Parts) -> None:
    labels = rows.labels(0, 0).schema
    schema = labels.insert(1, pa.field("vector", pa.list_(pa.float32(), rows.dim)))
    names = [field.name for field in labels]
    # Numbers of vectors neither repeat nor compress.
    settings: Any = {"compression": {name: "zstd" for name in names}, "use_dictionary": names}
    with pq.ParquetWriter(cast(Any, file), schema.with_metadata({"geo_mf": _json(rows)}), **settings) as writer:
        for start, part in parts:
            table = rows.labels(start, len(part)).add_column(1, "vector", vector_column(part))
            writer.write_table(table.cast(writer.schema), row_group_size=max(1, len(part)))


def _ids(file: BinaryIO, rows: VectorRows) -> None:
    table = rows.labels(0, len(rows)).replace_schema_metadata({"geo_mf": _json(rows)})
    pq.write_table(table, cast(Any, file), compression="zstd")


def _npy(file: BinaryIO, rows: VectorRows, parts: _Parts) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(rows), rows.dim)}
    np.lib.format.write_array_header_1_0(file, cast(Any, header))
    _floats(file, parts)


def _floats(file: BinaryIO, parts: _Parts) -> None:
    for _, part in parts:
        file.write(part.astype("<f4", copy=False).data)


def _npz(file: BinaryIO, rows: VectorRows, parts: _Parts) -> None:
    others = {"ids": _numpy_ids(rows.ids), "about": np.asarray(_json(rows))}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("vectors.npy", "w", force_zip64=True) as member:
            _npy(cast(BinaryIO, member), rows, parts)
        for name, array in others.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(cast(BinaryIO, member), array, allow_pickle=False)


def _numpy_ids(ids: pa.Array) -> np.ndarray:
    if pa.types.is_integer(ids.type):
        return ids.to_numpy()
    if not _is_text(ids):
        raise InvalidInput(f"ids are {ids.type}; .npz holds strings and integers: write .parquet or .npy")
    words = ids.to_pylist()
    if any(word.endswith("\0") for word in words):
        raise InvalidInput("an id ends with the character 0, which NumPy drops; write .parquet or .npy")
    if 4 * len(words) * max(map(len, words), default=0) > MOST_NUMPY_IDS:
        raise InvalidInput(
            f"the longest id has {max(map(len, words)):,} characters, and in NumPy all {len(words):,} take as much "
            "room; write .parquet or .npy"
        )
    return np.asarray(words, dtype=np.str_)


def _safetensors(file: BinaryIO, rows: VectorRows, parts: _Parts) -> None:
    """The header's length, the header, ids if they are integers (the widest numbers go first), and the vectors."""
    about, numbers = {"geo_mf": _json(rows)}, b""
    header: dict[str, Any] = {}
    if pa.types.is_integer(rows.ids.type):
        array = rows.ids.to_numpy()
        numbers, kind = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(), array.dtype.kind
        header["ids"] = {"dtype": "I64" if kind == "i" else "U64", "shape": [len(rows)]}
        header["ids"]["data_offsets"] = [0, len(numbers)]
    elif _is_text(rows.ids):
        about["ids"] = json.dumps(rows.ids.to_pylist(), ensure_ascii=False)
    else:
        raise InvalidInput(f"ids are {rows.ids.type}; .safetensors holds strings and integers: write .parquet")
    span = [len(numbers), len(numbers) + 4 * len(rows) * rows.dim]
    header |= {"vectors": {"dtype": "F32", "shape": [len(rows), rows.dim], "data_offsets": span}}
    head = json.dumps({"__metadata__": about, **header}, ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    if len(head) > MOST_HEADER:
        raise InvalidInput(
            f"the ids take {len(head):,} bytes of a header that may have {MOST_HEADER:,}; write .parquet or .npy"
        )
    file.write(len(head).to_bytes(8, "little") + head + numbers)
    _floats(file, parts)


def _is_text(ids: pa.Array) -> bool:
    return pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)


def _faiss(file: BinaryIO, rows: VectorRows, parts: _Parts) -> None:
    faiss_file.begin(file, len(rows), rows.dim)
    _floats(file, parts)
    faiss_file.end(file, len(rows))


def _tsv(file: BinaryIO, rows: VectorRows, parts: _Parts) -> None:
    for _, part in parts:
        projector.write_vectors(file, part)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + IDS)


_WRITERS = {
    ".parquet": _Writer(_parquet),
    ".npy": _Writer(_npy, _ids, _beside),
    ".npz": _Writer(_npz, columns=False),
    ".safetensors": _Writer(_safetensors, columns=False),
    ".faiss": _Writer(_faiss, _ids, _beside),
    ".tsv": _Writer(_tsv, projector.write_metadata, projector.metadata_path),
}
