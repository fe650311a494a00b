r"""CSV and TSV files: every cell as text, every row accounted for.

The first line names the columns. Text is UTF-8, with or without a byte order mark; lines end in LF or CRLF (or CR, in
a file that has no LF). A quoted cell may hold the delimiter, line breaks, and quotes written twice. What is not so:

| the file has                                  | what happens                                                      |
|-----------------------------------------------|-------------------------------------------------------------------|
| an empty line                                 | skipped: it is not a row                                          |
| too few or too many cells                     | the row is rejected: "N cells, expected M", "more than M cells"   |
| bytes that are not UTF-8                      | the row is rejected: "invalid UTF-8"                              |
| text after a closing quote ("ab"c)            | the row is rejected: "text after a closing quote"                 |
| a quote that opens a cell and does not close  | that one line is rejected: "unclosed quote"; the next line is     |
|                                               | read as a new row                                                 |
| a quote that closes some lines further down   | one row, if it then has the right number of cells; else as above  |
| a quote inside a cell that starts without one | kept as it is                                                     |
| spaces around a cell                          | kept as they are                                                  |
| UTF-16, no header, a header that is not text  | InvalidInput                                                      |

Two paths give the same answer. A file whose every line is plainly one whole row is parsed by pyarrow; any doubt sends
the file to the careful parser below.
"""

import re
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute as _compute
from pyarrow import csv as arrow_csv

from geo_mf.data.rows import Rejected, Rows
from geo_mf.errors import InvalidInput

__all__ = ["parse_delimited", "typed_columns"]

pc: Any = _compute  # pyarrow makes these functions at import, where no type checker sees them

_INTEGER = r"^(0|-?[1-9][0-9]*)$"
_DECIMAL = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"

_CLOSED_CELL = re.compile(rb'"[^"\n]*+(?:""[^"\n]*+)*+"')
_BATCH = 50_000  # rows turned into Arrow at a time by the careful path
_ENDS = (b"\n", b"\r\n", b"")
_BLOCK = 1 << 24  # bytes looked at, or parsed, at a time


def parse_delimited(data: bytes, delimiter: bytes, wanted: list[str] | None = None) -> Rows:
    """The rows of a CSV file, all cells as strings.

    wanted: the columns to keep, as far as they are there; None keeps all. Raises InvalidInput when the header cannot be
    read, or names a column that is kept twice.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InvalidInput("the file is UTF-16 text, expected UTF-8; save it as UTF-8")
    if b"\n" not in data and b"\r" in data:
        data = data.replace(b"\r", b"\n")
    start = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    while data[start : start + 1] in (b"\r", b"\n"):
        start += 1
    header_line = 1 + data.count(b"\n", 0, start)
    header, reason, body = _record(data, start, _field_pattern(delimiter), None)
    if start == len(data):
        raise InvalidInput("the file is empty, expected a first line that names the columns")
    try:
        names = [cell.decode() for cell in header]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the first line is not UTF-8 text: {error}; save the file as UTF-8") from error
    if reason:
        raise InvalidInput(f"the first line must name the columns, but it has: {reason}")
    keep = _columns(names, wanted)
    first_line = header_line + data.count(b"\n", start, body)
    table = _plain(data, body, delimiter, len(names)) if _is_plain(data, body, delimiter) else None
    if table is not None:
        table = table.select(keep).rename_columns([names[i] for i in keep])
        numbers = np.arange(first_line, first_line + table.num_rows, dtype=np.int64)
        return Rows(table, names, numbers, Rejected(), "line")
    return _careful(data, body, first_line, delimiter, names, keep)


def _columns(names: list[str], wanted: list[str] | None) -> list[int]:
    keep = [i for i, name in enumerate(names) if wanted is None or name in wanted]
    for name in {names[i] for i in keep}:
        if names.count(name) > 1:
            raise InvalidInput(
                f"the first line names the column {name!r} {names.count(name)} times; rename one of them"
            )
    return keep


def _is_plain(data: bytes, body: int, delimiter: bytes) -> bool:
    """Whether every line is certainly one row: no lone CR, and quotes only as `"...""..."` around whole cells.

    Quotes are counted from the start of the body. If each opening quote (the 1st, 3rd, ...) follows a delimiter, a line
    break or a quote, each closing quote is followed by one, and no line break lies between the two, then every line has
    whole cells only, and any parser reads the same.
    """
    if data.count(b"\r", body) != data.count(b"\r\n", body):
        return False
    if data.find(b'"', body) < 0:
        return True
    bytes_ = np.frombuffer(data, dtype=np.uint8)[body:]
    blocks = range(0, len(bytes_), _BLOCK)
    quotes = np.concatenate([np.flatnonzero(bytes_[i : i + _BLOCK] == ord('"')) + i for i in blocks])
    if len(quotes) % 2:
        return False
    opening, closing = quotes[0::2], quotes[1::2]
    before = bytes_[np.maximum(opening - 1, 0)]
    after = bytes_[np.minimum(closing + 1, len(bytes_) - 1)]
    edges = np.frombuffer(delimiter + b'\n"', dtype=np.uint8)
    if not (np.isin(before, edges) | (opening == 0)).all():
        return False
    if not (np.isin(after, np.append(edges, ord("\r"))) | (closing == len(bytes_) - 1)).all():
        return False
    breaks = np.concatenate([np.flatnonzero(bytes_[i : i + _BLOCK] == ord("\n")) + i for i in blocks])
    return bool((np.searchsorted(breaks, opening) == np.searchsorted(breaks, closing)).all())


def _plain(data: bytes, body: int, delimiter: bytes, width: int) -> pa.Table | None:
    """The body by pyarrow, or None unless it is strictly one row of `width` cells per line."""
    keys = [str(i) for i in range(width)]  # the header's own names may repeat
    if body >= len(data):
        return pa.table({key: pa.array([], type=pa.string()) for key in keys})
    lines = data.count(b"\n", body) + (not data.endswith(b"\n"))
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(pa.py_buffer(memoryview(data)[body:])),
            read_options=arrow_csv.ReadOptions(column_names=keys, block_size=_BLOCK),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter.decode()),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(keys, pa.string()), strings_can_be_null=False, null_values=[]
            ),
        )
    except pa.ArrowInvalid:  # invalid UTF-8, a ragged row, a row longer than a block
        return None
    return table if table.num_rows == lines else None  # fewer when there are empty lines


def _careful(data: bytes, position: int, line: int, delimiter: bytes, names: list[str], keep: list[int]) -> Rows:
    field = _field_pattern(delimiter)
    width, end = len(names), len(data)
    separator = delimiter.decode()
    rejected = Rejected()
    batches: list[pa.RecordBatch] = []
    rows: list[list[str]] = []
    numbers: list[int] = []
    schema = pa.schema([(str(i), pa.large_string()) for i in keep])

    def flush() -> None:
        columns = list(zip(*rows, strict=True)) or [()] * width
        batches.append(pa.record_batch([pa.array(columns[i], type=pa.large_string()) for i in keep], schema=schema))
        rows.clear()

    while position < end:
        line_end = data.find(b"\n", position)
        line_end = end if line_end < 0 else line_end
        raw = data[position:line_end]
        raw = raw[:-1] if raw.endswith(b"\r") else raw
        next_position, next_line = line_end + 1, line + 1
        cells: list[str] = []
        reason = ""
        try:
            if b'"' not in raw:
                cells = raw.decode().split(separator)
            else:
                parts, reason, stop = _record(data, position, field, width)
                if stop > next_position and (reason or len(parts) != width):
                    reason = "unclosed quote"  # whatever it met further down: those lines are read again, as their own
                if not reason:
                    next_position, next_line = stop, line + data.count(b"\n", position, stop)
                    cells = [part.decode() for part in parts]
        except UnicodeDecodeError:
            reason = "invalid UTF-8"
        if not reason and len(cells) != width:
            reason = f"{len(cells)} cells, expected {width}" if len(cells) < width else f"more than {width} cells"
        if raw:
            if reason:
                rejected.add(line, reason, raw)
            else:
                rows.append(cells)
                numbers.append(line)
                if len(rows) == _BATCH:
                    flush()
        position, line = next_position, next_line
    flush()
    table = pa.Table.from_batches(batches).rename_columns([names[i] for i in keep])
    return Rows(table, names, np.array(numbers, dtype=np.int64), rejected, "line")


def _field_pattern(delimiter: bytes) -> re.Pattern[bytes]:
    """One cell and what ends it: a quoted cell (group 1) or a plain one (2), then delimiter, line end or file end (3).

    The possessive repeats (`*+`) keep the search linear in the length of the cell.
    """
    d = re.escape(delimiter)
    return re.compile(rb'(?:"([^"]*+(?:""[^"]*+)*+)"|([^"' + d + rb"\n][^" + d + rb"\n]*+|))(" + d + rb"|\r?\n|\Z)")


def _record(data: bytes, position: int, field: re.Pattern[bytes], width: int | None) -> tuple[list[bytes], str, int]:
    """The cells of the record at `position`, the reason why it is malformed or "", and where the next one starts.

    Stops when there are more than `width` cells: in a file full of stray quotes this bounds the work for each line.
    """
    cells: list[bytes] = []
    while width is None or len(cells) <= width:
        match = field.match(data, position)
        if match is None:
            closes = _CLOSED_CELL.match(data, position)
            return cells, "text after a closing quote" if closes else "unclosed quote", position
        quoted, plain, ended = match.groups()
        position = match.end()
        if quoted is None:
            cells.append(plain[:-1] if ended in _ENDS and plain.endswith(b"\r") else plain)
        else:
            cells.append(quoted.replace(b'""', b'"'))
        if ended in _ENDS:
            return cells, "", position
    return cells, "", position


def typed_columns(table: pa.Table, as_text: list[str]) -> pa.Table:
    """The table with a type for each text column, except those of `as_text`; an empty cell becomes null.

    Integer when every value is canonical and fits int64, else float when every value is a finite decimal number, else
    string. A column with a whole number beyond int64 stays text: it is more likely a code than a quantity.
    """
    columns = [_typed(table.column(i), name in as_text) for i, name in enumerate(table.column_names)]
    return pa.Table.from_arrays(columns, names=table.column_names)


def _typed(column: pa.ChunkedArray, as_text: bool) -> pa.ChunkedArray:
    values = pc.if_else(pc.equal(column, ""), None, column)
    if as_text or values.null_count == len(values):
        return values
    try:
        if _every(values, _INTEGER):
            return values.cast(pa.int64())
        if _every(values, _DECIMAL):
            whole = pc.if_else(pc.match_substring_regex(values, pattern=_INTEGER), values, None)
            whole.cast(pa.int64())  # raises when one is beyond int64
            numbers = values.cast(pa.float64())
            return numbers if pc.all(pc.is_finite(numbers)).as_py() else values
    except pa.ArrowInvalid:
        pass  # beyond int64: it stays text, as promised above
    return values


def _every(values: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(values, pattern=pattern)).as_py())
