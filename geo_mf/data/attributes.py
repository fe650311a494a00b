"""Attributes as numbers: columns of a catalogue become features beside the text.

Each column has a block of its own in a row of features, and no block is longer than 1:

- numbers, dates, times and booleans: hat functions on at most KNOTS quantiles, so that a curve can be learned and an
  outlier does no harm;
- text and lists of text: one place for each value. Text is split where it holds "|", as in "drama|comedy"; n values
  weigh 1 / sqrt(n) each. Beyond WIDTH different values they share WIDTH places with signs (Weinberger et al. 2009,
  "Feature hashing"), and values met later have a place too.

A missing value, and a value that a short column never held, is a block of zeros.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pyarrow import compute as _compute

from geo_mf.data.where import closest_first
from geo_mf.errors import InvalidInput

__all__ = ["Attributes", "Column"]

pc: Any = _compute  # pyarrow makes these functions at import, where no type checker sees them

KNOTS = 8
WIDTH = 512
SEPARATOR = "|"
EXPECTED = {"number": "numbers, times or booleans", "date": "dates"}


@dataclass(frozen=True)
class Column:
    """How one column becomes numbers.

    Attributes:
        name: of the column.
        kind: "number", "date", "values" (a place each) or "hashed".
        knots: of a number or a date (microseconds since 1970), rising.
        values: of "values", in order of their places.
    """

    name: str
    kind: Literal["number", "date", "values", "hashed"]
    knots: tuple[float, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Numbers in its block."""
        return {"number": len(self.knots), "date": len(self.knots), "values": len(self.values), "hashed": WIDTH}[
            self.kind
        ]

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each value."""
        return {value: place for place, value in enumerate(self.values)}


@dataclass(frozen=True)
class Attributes:
    """The columns that count, and how each becomes numbers. What `of` learned holds for every later row."""

    columns: tuple[Column, ...] = ()

    @classmethod
    def of(cls, table: pa.Table, names: Sequence[str]) -> "Attributes":
        """Learn from the catalogue how these columns become numbers.

        Raises:
            InvalidInput: a column is named twice or is not there, or holds something else than numbers, dates,
                booleans, text or lists of text.
        """
        for place, name in enumerate(names):
            if name in names[:place]:
                raise InvalidInput(f"attributes name the column {name!r} twice; name it once")
            if name not in table.column_names:
                raise InvalidInput(
                    f"attributes name the column {name!r}, which is not there; the columns are "
                    f"{', '.join(closest_first(name, table.column_names))}"
                )
        return cls(tuple(_learned(name, table.column(name)) for name in names))

    @classmethod
    def from_spec(cls, spec: Sequence[Mapping[str, Any]]) -> "Attributes":
        """From what `spec` gave."""
        return cls(tuple(Column(c["name"], c["kind"], tuple(c["knots"]), tuple(c["values"])) for c in spec))

    def spec(self) -> list[dict[str, Any]]:
        """For JSON."""
        return [{**asdict(one), "knots": list(one.knots), "values": list(one.values)} for one in self.columns]

    @property
    def dim(self) -> int:
        """Numbers in a row of features."""
        return sum(column.width for column in self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(column.name for column in self.columns)

    def encode(self, table: pa.Table) -> np.ndarray:
        """Features float32 [rows, dim]. A column that the table lacks is missing everywhere.

        Raises:
            InvalidInput: a column is of another kind than the one that was learned.
        """
        blocks = [
            _encoded(column, table.column(column.name))
            if column.name in table.column_names
            else np.zeros((table.num_rows, column.width), np.float32)
            for column in self.columns
        ]
        return np.concatenate(blocks, axis=1) if blocks else np.zeros((table.num_rows, 0), np.float32)

    def encode_one(self, given: Mapping[str, Any], of: Literal["item", "user"] = "item") -> np.ndarray:
        """Features float32 [dim] of what somebody asks for, such as {"genre": ["drama", "comedy"], "year": 1994}, or of
        what is known of a user.

        Raises:
            InvalidInput: no mapping, an unknown column, or a value of another kind than the column's.
        """
        if not isinstance(given, Mapping):
            name = "attributes" if of == "item" else "user_attributes"
            raise InvalidInput(
                f"{name} is {given!r}, a {type(given).__name__}; expected a mapping from columns to values"
            )
        unknown = [name for name in given if name not in self.names]
        if unknown:
            without = "it was built without any: BuildConfig(attributes=...)"
            known = f"they are {', '.join(self.names)}" if self.names else without
            raise InvalidInput(
                f"the index has no attribute {unknown[0]!r}{' of users' if of == 'user' else ''}; {known}"
            )
        columns: dict[str, Any] = {}
        for name, value in given.items():
            several = isinstance(value, list | tuple | set | frozenset)
            try:
                columns[name] = pa.array([sorted(value, key=str) if several else value])
            except (pa.ArrowException, OverflowError, UnicodeError) as error:
                raise InvalidInput(
                    f"the attribute {name!r} is {value!r}, which mixes types or is no value of a column: {error}; "
                    "expected text, a number, a date, or a list of text"
                ) from error
        return self.encode(pa.table(columns))[0] if columns else np.zeros(self.dim, np.float32)


def _learned(name: str, values: pa.ChunkedArray) -> Column:
    if _is_number(values.type):
        numbers = _numbers(values)
        known = numbers[np.isfinite(numbers)]
        knots = np.unique(np.quantile(known, np.linspace(0, 1, KNOTS))) if len(known) else np.zeros(0)
        return Column(name, "date" if _is_date(values.type) else "number", tuple(knots.tolist()))
    words, _ = _words(name, values)
    different = sorted(set(words))
    return Column(name, "hashed") if len(different) > WIDTH else Column(name, "values", values=tuple(different))


def _encoded(column: Column, values: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_null(values.type):
        return np.zeros((len(values), column.width), np.float32)
    kind = "date" if _is_date(values.type) else "number" if _is_number(values.type) else "words"
    if kind != (column.kind if column.kind in EXPECTED else "words"):
        raise InvalidInput(
            f"the attribute {column.name!r} holds {values.type}; expected "
            f"{EXPECTED.get(column.kind, 'text or lists of text')}, as in the build"
        )
    if column.kind in EXPECTED:
        return _hats(_numbers(values), np.asarray(column.knots))
    words, rows = _words(column.name, values)
    signs = np.ones(len(words), np.float32)
    if column.kind == "values":
        places = np.fromiter((column.places.get(word, -1) for word in words), np.int64, len(words))
    else:
        places, signs = _hashed(words)
    counts = np.bincount(rows, minlength=len(values))
    met = places >= 0
    out = np.zeros((len(values), column.width), np.float32)
    np.add.at(out, (rows[met], places[met]), (signs / np.sqrt(counts[rows]))[met].astype(np.float32))
    # Values that share a place and a sign add up.
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1)


def _is_number(kind: pa.DataType) -> bool:
    types: Any = pa.types
    return any(
        is_kind(kind)
        for is_kind in (
            types.is_integer,
            types.is_floating,
            types.is_decimal,
            types.is_boolean,
            types.is_date,
            types.is_timestamp,
            types.is_time,
            types.is_duration,
        )
    )


def _is_date(kind: pa.DataType) -> bool:
    return pa.types.is_date(kind) or pa.types.is_timestamp(kind)


def _numbers(values: pa.ChunkedArray) -> np.ndarray:
    """float64 [n]; NaN where missing or infinite."""
    kind = values.type
    if _is_date(kind):
        values = pc.cast(values, pa.timestamp("us"), safe=False)
    elif pa.types.is_time32(kind):
        values = pc.cast(values, pa.int32())
    if pa.types.is_temporal(values.type):
        values = pc.cast(values, pa.int64(), safe=False)
    numbers = np.asarray(pc.fill_null(pc.cast(values, pa.float64(), safe=False), np.nan), np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _hats(numbers: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """float32 [n, knots]: a number between two knots counts for both, by its distance; beyond the ends for the last."""
    out = np.zeros((len(numbers), len(knots)), np.float32)
    rows = np.flatnonzero(~np.isnan(numbers))
    if not len(knots) or not len(rows):
        return out
    inside = np.clip(numbers[rows], knots[0], knots[-1])
    left = np.clip(np.searchsorted(knots, inside, side="right") - 1, 0, max(0, len(knots) - 2))
    if len(knots) == 1:
        out[rows, 0] = 1
        return out
    share = (inside - knots[left]) / (knots[left + 1] - knots[left])
    out[rows, left] = 1 - share
    out[rows, left + 1] += share
    return out


def _words(name: str, values: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """Every value of every row, without blanks around it and without repetition in a row, and its row int64."""
    kind, types = values.type, pa.types
    several = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    inner = kind.value_type if several else kind
    if types.is_dictionary(inner):
        inner = inner.value_type
    if not any(
        is_kind(inner) for is_kind in (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    ):
        raise InvalidInput(
            f"the attribute {name!r} holds {kind}; expected numbers, dates, booleans, text or lists of text: convert "
            "it, or leave it out"
        )
    words: list[str] = []
    rows: list[int] = []
    for row, value in enumerate(values.to_pylist()):
        parts = (value or []) if several else (value or "").split(SEPARATOR)
        found = dict.fromkeys(part.strip() for part in parts if part is not None and part.strip())
        words += found
        rows += [row] * len(found)
    return words, np.asarray(rows, np.int64)


def _hashed(words: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """A place int64 and a sign float32 for each value, the same on every machine."""
    codes = {word: int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest()) for word in set(words)}
    numbers = np.fromiter((codes[word] for word in words), np.uint64, len(words))
    places = (numbers % np.uint64(WIDTH)).astype(np.int64)
    return places, np.where(numbers >> np.uint64(63), np.float32(-1), np.float32(1))
