"""JSON Lines files: one object per line, every line accounted for.

Rejected lines: "invalid UTF-8", "invalid JSON", "not a JSON object". An empty line is skipped. A key that a line lacks
is a missing value, as null is. An id is a string or an integer of at most 64 bits; one column holds either strings or
integers, because "1" and 1 are two different ids.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from geo_mf.data.rows import Checks, Rejected, Rows
from geo_mf.errors import InvalidInput

__all__ = ["parse_json_lines"]

_INT64 = range(-(2**63), 2**63)


def parse_json_lines(data: bytes, ids: list[str], cells: list[str] | None = None) -> Checks:
    """The rows of a JSON Lines file, with the types of their ids checked.

    ids: keys that hold ids; they become strings or int64. cells: keys to keep as text for strict parsing; None keeps
    every other key, with a type of its own. A key that no line has makes no column.

    Raises InvalidInput when an id column mixes strings and integers.
    """
    rejected = Rejected()
    wanted = None if cells is None else [*ids, *cells]
    columns: dict[str, list[Any]] = {}
    seen: dict[str, None] = {}
    numbers: list[int] = []
    for line, record in _objects(data, rejected):
        seen.update(dict.fromkeys(record))
        for key in record if wanted is None else wanted:
            if key in record:
                column = columns.setdefault(key, [])
                column.extend([None] * (len(numbers) - len(column)))
                column.append(record[key])
        numbers.append(line)
    for column in columns.values():
        column.extend([None] * (len(numbers) - len(column)))
    found = {key: column for key, column in columns.items() if key in ids}
    bad = {key: _bad_ids(key, column, numbers) for key, column in found.items()}
    arrays = {
        key: _ids(column, bad[key])
        if key in found
        else pa.array([_cell(value) for value in column], type=pa.large_string())
        if cells is not None
        else _attribute(column)
        for key, column in columns.items()
    }
    rows = Rows(pa.table(arrays), list(seen), np.array(numbers, dtype=np.int64), rejected, "line")
    checks = Checks(rows)
    for key, reasons in bad.items():
        for reason in dict.fromkeys(reasons.values()):
            mask = np.zeros(len(numbers), dtype=bool)
            mask[[row for row, why in reasons.items() if why == reason]] = True
            checks.reject(mask, f"{key}: {reason}")
    return checks


def _objects(data: bytes, rejected: Rejected) -> Iterator[tuple[int, dict[str, Any]]]:
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    position, line = 0, 0
    while position < len(data):
        end = data.find(b"\n", position)
        end = len(data) if end < 0 else end
        raw, position, line = data[position:end].strip(), end + 1, line + 1
        if not raw:
            continue
        try:
            record = json.loads(raw.decode())
        except UnicodeDecodeError:
            rejected.add(line, "invalid UTF-8", raw)
        except (ValueError, RecursionError):
            rejected.add(line, "invalid JSON", raw)
        else:
            if isinstance(record, dict):
                yield line, record
            else:
                rejected.add(line, "not a JSON object", raw)


def _bad_ids(key: str, values: list[Any], numbers: list[int]) -> dict[int, str]:
    """Rows whose id cannot be one, with the reason. Missing ids are left to the caller."""
    bad: dict[int, str] = {}
    first: dict[type, int] = {}
    for row, value in enumerate(values):
        kind = type(value)
        if kind is str:
            first.setdefault(kind, row)
            if not value.isascii() and not _is_text(value):
                bad[row] = "the id is not valid text (a lone surrogate)"
        elif kind is int:
            first.setdefault(kind, row)
            if value not in _INT64:
                bad[row] = "the id is beyond 64 bits, write it as a string"
        elif value is not None:
            bad[row] = f"the id is a {kind.__name__}, expected a string or an integer"
    if len(first) == 2:
        text, number = first[str], first[int]
        raise InvalidInput(
            f"{key!r} mixes strings and integers: line {numbers[text]} has {values[text]!r}, "
            f"line {numbers[number]} has {values[number]}; these are "
            "different ids, so write all of them as strings or all as integers"
        )
    return bad


def _ids(values: list[Any], bad: dict[int, str]) -> pa.Array:
    good = [None if row in bad else value for row, value in enumerate(values)]
    array = pa.array(good)
    return array.cast(pa.string()) if pa.types.is_null(array.type) else array


def _cell(value: Any) -> str | None:
    """The value as a CSV file would hold it, so that numbers and datetimes are parsed by one rule everywhere."""
    if value is None:
        return None
    if isinstance(value, str):
        return _valid_text(value)
    return repr(value) if isinstance(value, int | float) else json.dumps(value)


def _attribute(values: list[Any]) -> pa.Array:
    """A column of one Arrow type: bool, int64, double, string, list of strings, or JSON text for anything else."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {str}:
        return pa.array([None if value is None else _valid_text(value) for value in values], type=pa.large_string())
    if kinds == {int} and all(value is None or value in _INT64 for value in values):
        return pa.array(values, type=pa.int64())
    if kinds == {bool}:
        return pa.array(values, type=pa.bool_())
    if kinds <= {int, float} and all(value is None or abs(value) < 2**53 for value in values if value == value):
        return pa.array(values, type=pa.float64(), from_pandas=True)
    if kinds == {list} and all(isinstance(part, str) for value in values if value for part in value):
        lists = [None if value is None else [_valid_text(part) for part in value] for value in values]
        return pa.array(lists, type=pa.list_(pa.string()))
    as_text = [None if v is None else _valid_text(v) if isinstance(v, str) else json.dumps(v) for v in values]
    return pa.array(as_text, type=pa.large_string())


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _valid_text(value: str) -> str:
    """The text with each lone surrogate, which UTF-8 cannot hold, as the replacement character."""
    return (
        value
        if value.isascii() or _is_text(value)
        else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )
