"""read_vectors: vectors with their ids, from what export_vectors wrote, from other tools, or from a table in memory."""

import errno
import json
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
from pyarrow import dataset

from geo_mf.data.ids import ArrowStream, IdMap, IdValues
from geo_mf.errors import InvalidInput
from geo_mf.export import faiss_file
from geo_mf.export.vector_columns import chosen, matrix_of
from geo_mf.export.vector_rows import IDS, id_column
from geo_mf.export.vectors import Vectors

__all__ = ["read_vectors"]

_FORMATS = ".parquet (or a folder of such), .npy, .npz, .safetensors or .faiss"


def read_vectors(
    source: str | Path | ArrowStream,
    *,
    ids: IdValues | None = None,
    id_col: str | None = None,
    vector_col: str | None = None,
) -> Vectors:
    """Read vectors and the ids of their rows.

    What `export_vectors` wrote comes back as it was. From elsewhere:

    - Parquet (a file, or a folder such as Spark's) and tables of pandas, polars, pyarrow or duckdb with an id and
      either one column of lists of floats or many columns of floats, in their order. An index of pandas is an id too.
    - .npy [n, dim]; .npz and .safetensors with "vectors" and "ids", or with one matrix of floats.
    - .faiss with a flat index. The labels of an IndexIDMap are the ids.

    Nothing is unpickled, and a file's header is compared with its size before memory is taken.

    Args:
        source: the file, folder or table.
        ids: the id of each row, where the file has none.
        id_col: of a table; by default item_id, user_id, id, or the only column that can be one.
        vector_col: of a table, the column of lists; by default the only one.

    Raises:
        FileNotFoundError: there is no such file.
        InvalidInput: another format, a damaged file, columns that leave a choice, vectors of different lengths, a
            missing or repeated id, a missing number or one that is not finite.
    """
    if not isinstance(source, str | Path):
        if not isinstance(source, ArrowStream):
            raise InvalidInput(
                f"cannot read a {type(source).__name__}; expected a path to {_FORMATS}, or a table of pandas, polars, "
                "pyarrow or duckdb. For ids and a matrix at hand: Vectors(ids, matrix)"
            )
        try:
            table = pa.RecordBatchReader.from_stream(source).read_all()
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise InvalidInput(f"this {type(source).__name__} cannot be read as a table: {error}") from error
        return _from_table(table, "the table", ids, id_col, vector_col)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    suffix = ".parquet" if path.is_dir() else path.suffix.lower()
    if suffix == ".parquet":
        return _from_parquet(path, ids, id_col, vector_col)
    if suffix not in _READERS:
        raise InvalidInput(f"{path.name} has no format that can be read; expected {_FORMATS}")
    if id_col is not None or vector_col is not None:
        raise InvalidInput(f"{path.name} has no columns; id_col and vector_col go with Parquet and tables")
    matrix, found, about = _READERS[suffix](path)
    try:
        return Vectors(IdMap(_one(found, ids, path)), matrix, about)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error


_Found = tuple[np.ndarray, IdValues | None, dict[str, Any]]
"""A matrix, the ids if there are any, and what is known of all."""


def _one(found: IdValues | None, given: IdValues | None, path: Path) -> IdValues:
    if found is None and given is None:
        raise InvalidInput(f"there are no ids: neither in the file nor in {path.name}{IDS} beside it; pass ids=")
    if found is not None and given is not None:
        raise InvalidInput("the file has ids of its own; leave ids= out")
    return cast(IdValues, found if found is not None else given)


# --- tables ----------------------------------------------------------------------------------------------------------


def _from_parquet(path: Path, ids: IdValues | None, id_col: str | None, vector_col: str | None) -> Vectors:
    try:
        files = dataset.dataset(path, format="parquet", exclude_invalid_files=False)
        schema = files.schema
        id_col, vector_col = _own(schema, str(path), id_col, vector_col, ids is not None)
        needed, columns = chosen(schema, str(path), id_col, vector_col, ids is not None)
        table = files.to_table(columns=[*([] if needed is None else [needed]), *columns])
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InvalidInput(f"{path} is not Parquet that can be read: {error}") from error
    return _from_table(table.replace_schema_metadata(schema.metadata), str(path), ids, needed, vector_col)


def _from_table(
    table: pa.Table, what: str, ids: IdValues | None, id_col: str | None, vector_col: str | None
) -> Vectors:
    id_col, vector_col = _own(table.schema, what, id_col, vector_col, ids is not None)
    name, columns = chosen(table.schema, what, id_col, vector_col, ids is not None)
    about = _about((table.schema.metadata or {}).get(b"geo_mf"), what)
    try:
        made = IdMap(ids if ids is not None else table.column(cast(str, name)))
        return Vectors(made, matrix_of(table.select(columns)), about)
    except InvalidInput as error:
        raise InvalidInput(f"{what}: {error}") from error


def _own(
    schema: pa.Schema, what: str, id_col: str | None, vector_col: str | None, given: bool
) -> tuple[str | None, str | None]:
    """The columns that `export_vectors` wrote, whatever stands beside them; as they are for a table from elsewhere."""
    of = _about((schema.metadata or {}).get(b"geo_mf"), what).get("of")
    if of is None or not {id_column(of), "vector"} <= set(schema.names):
        return id_col, vector_col
    return id_col or (None if given else id_column(of)), vector_col or "vector"


def _about(text: bytes | str | None, what: str) -> dict[str, Any]:
    """What is known of all vectors; empty for a file from elsewhere."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    except RecursionError as error:
        raise InvalidInput(
            f"{what}: what it says of its vectors (geo_mf) is nested too deeply; write it again"
        ) from error
    return found if isinstance(found, dict) else {}


# --- files of arrays -------------------------------------------------------------------------------------------------


def _beside(path: Path) -> tuple[IdValues | None, dict[str, Any]]:
    """The ids and what is known of all, from the file beside one of vectors; None and nothing if it is not there."""
    other = path.with_name(path.name + IDS)
    if not other.exists():
        return None, {}
    try:
        files = dataset.dataset(other, format="parquet", exclude_invalid_files=False)
        name = next((name for name in ("item_id", "user_id", "id") if name in files.schema.names), None)
        if name is None:
            raise InvalidInput(f"{other} has the columns {', '.join(files.schema.names)}; expected item_id or user_id")
        return files.to_table(columns=[name]).column(name), _about(
            (files.schema.metadata or {}).get(b"geo_mf"), str(other)
        )
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InvalidInput(f"{other} is not Parquet that can be read: {error}") from error


def _npy(path: Path) -> _Found:
    size = path.stat().st_size
    with path.open("rb") as file:
        matrix = _array(file, size, str(path))
    return matrix, *_beside(path)


def _array(file: BinaryIO, size: int, what: str) -> np.ndarray:
    """An array of `size` bytes, header and all: the header is read twice, so that none promises more than there is."""
    try:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0}.get(version, np.lib.format.read_array_header_2_0)
        shape, _, dtype = header(file)
        expected = file.tell() + dtype.itemsize * int(np.prod(shape, dtype=object))
        if dtype.hasobject or not dtype.itemsize:
            raise InvalidInput(f"{what} holds Python objects, or nothing; expected numbers (nothing is unpickled)")
        if expected != size:
            raise InvalidInput(f"{what} is damaged: {size:,} bytes, where {dtype} {list(shape)} takes {expected:,}")
        file.seek(0)
        array = np.lib.format.read_array(file, allow_pickle=False)
    except _DAMAGED as error:
        _raise_others(error)
        raise InvalidInput(f"{what} is not an array of NumPy, or is damaged: {error}") from error
    return array.astype(array.dtype.newbyteorder("="), copy=False)


# A header of NumPy is Python, which it parses, and zipfile goes wherever it is told: damage comes up in many ways.
_DAMAGED = (ValueError, TypeError, EOFError, SyntaxError, tokenize.TokenError, MemoryError, RuntimeError, OSError)
_DAMAGED += (OverflowError, struct.error, zlib.error, zipfile.BadZipFile)
with suppress(ImportError):  # a Python that was built without it: zipfile says so when it meets such a member
    import lzma

    _DAMAGED += (lzma.LZMAError,)


def _raise_others(error: Exception) -> None:
    """Raise again what is no damage: what was told already, and a disk that fails (not a place that does not exist)."""
    if isinstance(error, InvalidInput) or (isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)):
        raise error


def _npz(path: Path) -> _Found:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}

            def read(name: str) -> np.ndarray:
                with archive.open(members[name]) as member:
                    return _array(cast(BinaryIO, member), members[name].file_size, f"{path}: {name}")

            name = "vectors" if "vectors" in members else None
            arrays = {each: read(each) for each in members if name is None or each in ("vectors", "ids", "about")}
    except _DAMAGED as error:
        _raise_others(error)
        raise InvalidInput(f"{path} is not a whole .npz file: {error}") from error
    about = arrays.pop("about", None)
    known = _about(str(about), str(path)) if about is not None and about.dtype.kind == "U" else {}
    ids = arrays.get("ids")
    words = ids is not None and ids.dtype.kind == "U"  # one by one, for pyarrow cuts a string of NumPy at a character 0
    return arrays[_matrix_name(arrays, path)], ids.tolist() if ids is not None and words else ids, known


def _safetensors(path: Path) -> _Found:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            # Types that NumPy does not have, such as bfloat16, are KeyError or TypeError; a length beyond what it can
            # count is ValueError.
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise InvalidInput(f"{path} is not a safetensors file that NumPy can hold: {error}") from error
    ids: IdValues | None = arrays.get("ids")
    if ids is None and "ids" in metadata:
        try:
            ids = json.loads(metadata["ids"])
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{path}: the ids in its metadata are not JSON: {error}") from error
        if not isinstance(ids, list):
            raise InvalidInput(f"{path}: the ids in its metadata are a {type(ids).__name__}; expected a list")
    return arrays[_matrix_name(arrays, path)], ids, _about(metadata.get("geo_mf"), str(path))


def _matrix_name(arrays: Mapping[str, np.ndarray], path: Path) -> str:
    if "vectors" in arrays:
        return "vectors"
    names = [name for name, array in arrays.items() if array.ndim == 2 and array.dtype.kind == "f"]
    if len(names) != 1:
        told = ", ".join(f"{name} ({array.dtype} {list(array.shape)})" for name, array in arrays.items()) or "nothing"
        raise InvalidInput(f"{path} holds {told}; expected an array called vectors, or one matrix of floats")
    return names[0]


def _faiss(path: Path) -> _Found:
    matrix, labels = faiss_file.read(path)
    ids, about = _beside(path)
    if ids is None:
        return matrix, labels, {}
    if labels is not None and not np.array_equal(labels, np.arange(len(matrix))):
        raise InvalidInput(f"{path} has labels of its own, which are no rows of {path.name}{IDS}; take that file away")
    return matrix, ids, about


_READERS: dict[str, Callable[[Path], _Found]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".faiss": _faiss,
}
