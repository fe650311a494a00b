"""IdMap: the caller's own ids outside, rows 0..n-1 inside.

An id keeps its identity. Strings are compared byte for byte (no trimming, no Unicode normalisation), and a string is
never equal to a number: "01", "1" and 1 are three different ids. Allowed types are strings, integers, binary and
dates. Floats are refused because 7.0 and "7" would be guesses; booleans and nested values because they name nothing.
"""

import datetime
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from pyarrow import compute as _compute

from geo_mf.errors import InvalidInput, UnknownId

__all__ = ["ArrowStream", "IdMap", "IdValues", "arrow_column", "canonical_ids", "plain_layout"]

pc: Any = _compute  # pyarrow makes these functions at import, where no type checker sees them

_SMALL_LOOKUP = 1_000  # up to here a cached dict is faster than Arrow, which hashes the whole map again on every call
_INT64_MAX = 2**63 - 1


@runtime_checkable
class ArrowStream(Protocol):
    """Anything that hands out its data through the Arrow PyCapsule interface (pandas, polars, pyarrow, duckdb)."""

    def __arrow_c_stream__(self, requested_schema: object | None = None, /) -> object: ...


IdValues = pa.Array | pa.ChunkedArray | np.ndarray | Iterable[object] | ArrowStream


class IdMap:
    """Immutable one-to-one map between n unique external ids and the rows 0..n-1.

    `values` may be a pyarrow array, a numpy array, a list, or a pandas or polars series. Integer columns become int64
    (uint64 only where a value needs it), strings of any Arrow layout become string (large_string above 2 GiB).

    Raises InvalidInput when an id is missing, occurs twice, or is of a type that cannot name anything.
    """

    __slots__ = ("_held", "_read", "_row_of", "_size", "_type")

    def __init__(self, values: IdValues) -> None:
        chunked = canonical_ids(values)
        codes, unique = _dictionary(chunked)
        if len(unique) < len(chunked):
            second = int(np.flatnonzero(codes != np.arange(len(codes)))[0])  # the first id that repeats an earlier one
            first = int(codes[second])  # up to there, code and position are the same
            raise InvalidInput(
                f"ids must be unique, but {_short(unique[first].as_py())} stands at position {first} and again at "
                f"position {second}; remove one of them, or use IdMap.encode to number repeated ids"
            )
        self._hold(unique)

    def _hold(self, ids: pa.Array) -> None:
        self._held: pa.Array | None = ids
        self._size, self._type = len(ids), ids.type
        self._row_of: dict[object, int] | None = None

    @classmethod
    def _from_unique(cls, ids: pa.Array) -> "IdMap":
        made = cls.__new__(cls)
        made._hold(ids)
        return made

    @classmethod
    def deferred(cls, size: int, type: pa.DataType, read: Callable[[], "IdMap"]) -> "IdMap":
        """A map of `size` ids of one type, which `read` gives at the first use of an id; its errors come up there."""
        made = cls.__new__(cls)
        made._held, made._row_of = None, None
        made._size, made._type, made._read = size, type, read
        return made

    @property
    def _ids(self) -> pa.Array:
        if self._held is None:
            read = self._read().ids
            self._type, self._held = read.type, read  # of two threads that come first, both read the same
        return self._held

    @classmethod
    def encode(cls, values: IdValues) -> tuple["IdMap", np.ndarray]:
        """Number repeated ids: the map of unique ids in order of first appearance, and each value's row, int32 [n]."""
        codes, unique = _dictionary(canonical_ids(values))
        return cls._from_unique(unique), codes

    @property
    def ids(self) -> pa.Array:
        """The ids in row order, one pyarrow array."""
        return self._ids

    @property
    def type(self) -> pa.DataType:
        """The Arrow type of the ids: string, large_string, int64, uint64, binary, large_binary or date32."""
        return self._type

    def __len__(self) -> int:
        return self._size

    def __contains__(self, id: object) -> bool:
        key = self._key(id)
        return key is not None and key in self._dict()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IdMap):
            return NotImplemented
        return self.type == other.type and bool(self._ids.equals(other._ids))

    def __hash__(self) -> int:
        return hash((str(self.type), len(self)))

    def __repr__(self) -> str:
        shown = ", ".join(repr(value) for value in self._ids[:3].to_pylist())
        return f"IdMap({len(self)} {_noun(self.type)}: {shown}{', ...' if len(self) > 3 else ''})"

    def row(self, id: object, kind: str = "") -> int:
        """The row of one id.

        Raises:
            UnknownId: it begins with `kind` ("user", "item"), and says so when the id is known under another type.
        """
        key = self._key(id)
        row = None if key is None else self._dict().get(key)
        if row is None:
            raise UnknownId(f"{kind and f'{kind}: '}unknown id {_short(id)}{self._hint(id)}")
        return row

    def rows(self, ids: IdValues) -> np.ndarray:
        """The rows of many ids, int32 [n]. Raises UnknownId, naming up to five that are not in the map."""
        asked = canonical_ids(ids)
        found = self._lookup(asked)
        missing = np.flatnonzero(found < 0)
        if len(missing):
            names = [asked[int(i)].as_py() for i in missing[:5]]
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise UnknownId(
                f"{len(missing)} of {len(asked)} ids are unknown: {', '.join(map(_short, names))}{more}"
                f"{self._hint(names[0])}"
            )
        return found

    def rows_or_missing(self, ids: IdValues) -> np.ndarray:
        """The rows of many ids, int32 [n], -1 for each id that is not in the map (an id of another type never is)."""
        return self._lookup(canonical_ids(ids))

    def joined(self, more: "IdMap") -> "IdMap":
        """This map with more ids behind it. Raises InvalidInput for ids of another kind, and for one that is here."""
        if len(more) and len(self) and not _same_kind(more.type, self.type):
            raise InvalidInput(
                f"the new ids are {_noun(more.type)}{more._example()}, but ids here are {_noun(self.type)}"
                f"{self._example()}; convert the new ones (ids of CSV files are always strings)"
            )
        if more.type == self.type or not len(self):
            return IdMap(pa.chunked_array([self._ids, more._ids]) if len(self) else more._ids)
        wide = _wider(more.type, self.type)
        try:
            return IdMap(pa.chunked_array([self._ids.cast(wide), more._ids.cast(wide)]))
        except pa.ArrowInvalid as error:
            raise InvalidInput(f"the new ids do not go with those here: {error}; convert them to strings") from error

    def id(self, row: int) -> object:
        """The id of one row, as a Python object. Raises InvalidInput for a row outside 0..n-1."""
        return self.take(np.array([row]))[0]

    def take(self, rows: np.ndarray | Sequence[int]) -> list[Any]:
        """The ids of many rows, as Python objects. Raises InvalidInput for a row outside 0..n-1."""
        wanted = np.asarray(rows)
        if wanted.size == 0:
            return []
        if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
            raise InvalidInput(f"rows must be a list of integers, got {wanted.dtype} of shape {wanted.shape}")
        outside = wanted[(wanted < 0) | (wanted >= len(self))]
        if outside.size:
            raise InvalidInput(f"row {int(outside[0])} does not exist; this map has the rows 0 to {len(self) - 1}")
        return self._ids.take(pa.array(wanted)).to_pylist()

    def parse(self, text: str) -> object:
        """The id that a command-line word means in this map. Raises UnknownId when it cannot be one of these ids.

        Integers must be written as Python writes them: in a map of integers "01" is not an id, because it is not 1.
        """
        if _is_string(self.type):
            return text
        if pa.types.is_integer(self.type) and re.fullmatch(r"0|-?[1-9][0-9]*", text):
            return int(text)
        if _is_binary(self.type):
            return text.encode()
        if pa.types.is_date(self.type) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            try:
                return datetime.date.fromisoformat(text)
            except ValueError:
                pass  # such as February 30: no id either, told below
        raise UnknownId(f"{_short(text)} is not one of these ids; they are {_noun(self.type)}{self._example()}")

    def _dict(self) -> dict[object, int]:
        if self._row_of is None:
            self._row_of = dict(zip(self._ids.to_pylist(), range(len(self._ids)), strict=True))
        return self._row_of

    def _key(self, id: object) -> object | None:
        """The id as the dict holds it, or None when its type is not this map's (True must not find 1)."""
        if isinstance(id, np.generic):
            id = id.item()
        if _is_string(self.type):
            return id if isinstance(id, str) else None
        if pa.types.is_integer(self.type):
            return id if isinstance(id, int) and not isinstance(id, bool) else None
        if _is_binary(self.type):
            return id if isinstance(id, bytes) else None
        return id if isinstance(id, datetime.date) and not isinstance(id, datetime.datetime) else None

    def _lookup(self, asked: pa.ChunkedArray) -> np.ndarray:
        if len(asked) <= _SMALL_LOOKUP:
            row_of = self._dict()
            keys = asked.to_pylist() if _same_kind(asked.type, self.type) else [None] * len(asked)
            return np.array([row_of.get(key, -1) for key in keys], dtype=np.int32)
        if not _same_kind(asked.type, self.type):
            return np.full(len(asked), -1, dtype=np.int32)
        values, value_set = asked, self._ids
        if values.type != value_set.type:
            wide = _wider(values.type, value_set.type)
            values, value_set = _fit(values, wide), _fit(value_set, wide)
        # A value that the wider type cannot hold became null, and no id is null: it is found nowhere.
        found = pc.index_in(values, value_set=value_set, skip_nulls=True)
        return pc.fill_null(found, -1).to_numpy().astype(np.int32, copy=False)

    def _hint(self, id: object) -> str:
        """What to say about an unknown id: that it is known under another type, or what the ids here look like."""
        if pa.types.is_integer(self.type) and isinstance(id, str):
            try:
                if self.parse(id) in self:
                    return f"; ids here are integers: pass {id}, not {id!r}"
            except UnknownId:
                pass  # not a number at all: the general hint below says what the ids look like
        if _is_string(self.type) and isinstance(id, int) and str(id) in self:
            return f"; ids here are strings: pass {str(id)!r}, not {id}"
        return f"; ids here are {_noun(self.type)}{self._example()}"

    def _example(self) -> str:
        return f", such as {_short(self._ids[0].as_py())}" if len(self) else ", and there are none yet"


def arrow_column(values: IdValues, what: str = "values") -> pa.ChunkedArray:
    """Any one-dimensional column as a pyarrow ChunkedArray, types as they come, missing values as nulls.

    Raises InvalidInput when the values are not one column of one type.
    """
    if isinstance(values, pa.ChunkedArray):
        return values
    if isinstance(values, pa.Array):
        return pa.chunked_array([values])
    if isinstance(values, str | bytes):
        raise InvalidInput(
            f"{what} must be a list or an array, got the single value {_short(values)}; write [{values!r}]"
        )
    try:
        if isinstance(values, ArrowStream):
            return pa.chunked_array(values)
        plain = values if isinstance(values, np.ndarray) else list(values)
        if isinstance(plain, np.ndarray) and plain.dtype.kind == "U":
            plain = plain.tolist()  # Arrow cuts NumPy's strings at a NUL
        if isinstance(plain, np.ndarray):
            plain = plain.astype(plain.dtype.newbyteorder("="), copy=False)
        try:
            return pa.chunked_array([pa.array(plain, from_pandas=True)])
        except OverflowError:  # Arrow does not try uint64 by itself
            return pa.chunked_array([pa.array(plain, type=pa.uint64(), from_pandas=True)])
    except (pa.ArrowException, OverflowError, TypeError, UnicodeEncodeError) as error:
        raise InvalidInput(
            f"{what} must be one column of one type: {error}; convert them all to strings, for example"
        ) from error


def plain_layout(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same values without dictionaries, run lengths and string views, which many Arrow functions do not take."""
    if pa.types.is_dictionary(column.type):
        columns = [plain_layout(pa.chunked_array([chunk.dictionary])) for chunk in column.chunks]
        chunks = [words.take(chunk.indices) for words, chunk in zip(columns, column.chunks, strict=True)]
        empty = pa.chunked_array([], type=column.type.value_type)
        return pa.chunked_array([part for each in chunks for part in each.chunks]) if chunks else plain_layout(empty)
    if pa.types.is_run_end_encoded(column.type):
        column = pa.chunked_array([pc.run_end_decode(chunk) for chunk in column.chunks], type=column.type.value_type)
    return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column


def canonical_ids(values: IdValues, what: str = "ids") -> pa.ChunkedArray:
    """Id values brought to one of the types that IdMap keeps; no nulls. `what` names them in error messages.

    Raises InvalidInput for missing ids and for types that cannot name anything, with the remedy.
    """
    column = arrow_column(values, what)
    if len(column) == 0 and pa.types.is_null(column.type):
        return pa.chunked_array([], type=pa.string())
    column = plain_layout(column)
    target = _canonical_type(column.type, what)
    if column.null_count:
        position = int(pc.index(pc.is_null(column), True).as_py())
        raise InvalidInput(f"{what} must not be missing, but position {position} is; drop such rows first")
    try:
        column = column.cast(target)
    except pa.ArrowInvalid:  # integers beyond int64, or text beyond 2 GiB
        try:
            column = column.cast(pa.uint64() if pa.types.is_integer(target) else pa.large_string())
        except pa.ArrowInvalid as error:
            raise InvalidInput(f"{what} must fit into 64 bits: {error}; convert them to strings") from error
    if _is_string(column.type):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise InvalidInput(
                f"{what} must be valid UTF-8 text: {error}; pass them as binary or repair them"
            ) from error
    return column


def _canonical_type(found: pa.DataType, what: str) -> pa.DataType:
    types = pa.types
    if types.is_large_string(found) or types.is_string(found) or types.is_string_view(found):
        return pa.string()
    if types.is_integer(found) or (types.is_decimal(found) and found.scale == 0):
        return pa.int64()
    if types.is_large_binary(found):
        return pa.large_binary()
    if types.is_binary(found) or types.is_fixed_size_binary(found) or types.is_binary_view(found):
        return pa.binary()
    if types.is_date(found):
        return pa.date32()
    if types.is_floating(found) or types.is_decimal(found):
        remedy = "integers with missing values become floats in pandas: drop those rows, then cast with astype('int64')"
    elif types.is_null(found):
        remedy = "every value is missing"
    else:
        remedy = "convert them to strings"
    raise InvalidInput(f"{what} must be strings, integers, binary or dates, got {found}; {remedy}")


def _dictionary(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Each value's code, int32 [n], and the unique values in order of first appearance."""
    # Few large chunks first (a table may split again at 2 GiB): Arrow copies the whole dictionary for every chunk.
    encoded = pa.table([column], names=["ids"]).combine_chunks().column(0).dictionary_encode()
    if encoded.num_chunks == 0:
        return np.zeros(0, dtype=np.int32), pa.array([], type=column.type)
    encoded = encoded.unify_dictionaries()
    codes = np.concatenate([chunk.indices.to_numpy(zero_copy_only=False) for chunk in encoded.chunks])
    return codes.astype(np.int32, copy=False), encoded.chunk(encoded.num_chunks - 1).dictionary


def _fit(values: pa.Array | pa.ChunkedArray, target: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """Cast, with null for what the target cannot hold."""
    if pa.types.is_signed_integer(values.type) and pa.types.is_unsigned_integer(target):
        values = pc.if_else(pc.greater_equal(values, 0), values, None)
    return values.cast(target)


def _wider(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    return next(t for t in (pa.uint64(), pa.large_string(), pa.large_binary()) if t in (a, b))


def _same_kind(a: pa.DataType, b: pa.DataType) -> bool:
    kinds = (_is_string, pa.types.is_integer, _is_binary, pa.types.is_date)
    return any(kind(a) and kind(b) for kind in kinds)


def _is_string(t: pa.DataType) -> bool:
    return pa.types.is_string(t) or pa.types.is_large_string(t)


def _is_binary(t: pa.DataType) -> bool:
    return pa.types.is_binary(t) or pa.types.is_large_binary(t)


def _noun(t: pa.DataType) -> str:
    if _is_string(t):
        return "strings"
    return "integers" if pa.types.is_integer(t) else "dates" if pa.types.is_date(t) else "binary"


def _short(value: object, width: int = 60) -> str:
    """A repr that fits into a message."""
    text = repr(value)
    return text if len(text) <= width else f"{text[: width - 20]}... ({len(text)} characters)"
