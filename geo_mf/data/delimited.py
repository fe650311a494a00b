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

Two parsers give the same answer. Where every line is plainly one whole row, of the file or else of a block of it,
pyarrow parses it; a block with any doubt in it goes through the careful parser, row by row.
"""

import csv
import re
import sys
from dataclasses import dataclass
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
_DOUBT = 1 << 16  # bytes that the careful parser takes at a time once a file is not plain as a whole
_ENDS = (b"\n", b"\r\n", b"")
_BLOCK = 1 << 24  # bytes looked at, or parsed, at a time


@dataclass(frozen=True)
class _Format:
    """How the rows of one file are written. `cell` matches one cell and what ends it, see `_format`."""

    delimiter: str
    width: int
    cell: re.Pattern[bytes]


def _format(delimiter: bytes, width: int) -> _Format:
    """A quoted cell is group 1 of the pattern, a plain one group 2, and the delimiter, line end or file end group 3.

    The possessive repeats (`*+`) keep the search linear in the length of the cell.
    """
    d = re.escape(delimiter)
    pattern = rb'(?:"([^"]*+(?:""[^"]*+)*+)"|([^"' + d + rb"\n][^" + d + rb"\n]*+|))(" + d + rb"|\r?\n|\Z)"
    return _Format(delimiter.decode(), width, re.compile(pattern))


def parse_delimited(data: bytes, delimiter: bytes, wanted: list[str] | None = None) -> Rows:
    """The rows of a CSV file, all cells as strings.

    wanted: the columns to keep, as far as they are there; None keeps all. Raises InvalidInput when the header cannot be
    read, or names a column that is kept twice.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InvalidInput("the file is UTF-16 text, expected UTF-8; save it as UTF-8")
    if b"\n" not in data and b"\r" in data:
        data = data.replace(b"\r", b"\n")
    names, body, line = _header(data, delimiter)
    keep = _columns(names, wanted)
    form = _format(delimiter, len(names))
    rejected = Rejected()
    tables: list[pa.Table] = []
    numbers: list[np.ndarray] = []
    position, block = body, len(data)  # the whole rest at first, then small blocks
    while position < len(data) or not tables:
        stop = _line_end(data, position + block)
        table = _plain(data, position, stop, form)
        if table is not None:
            lines = np.arange(line, line + table.num_rows, dtype=np.int64)
            position, line = stop, line + table.num_rows
        elif block > _DOUBT:
            block = _DOUBT
            continue
        else:
            table, lines, position, line = _careful(data, position, stop, line, form, rejected)
        tables.append(table.select(keep))
        numbers.append(lines)
    table = pa.concat_tables(tables).rename_columns([names[i] for i in keep])
    return Rows(table, names, np.concatenate(numbers), rejected, "line")


def _header(data: bytes, delimiter: bytes) -> tuple[list[str], int, int]:
    """The column names, where the rows start, and the line they start in."""
    start = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    while data[start : start + 1] in (b"\r", b"\n"):
        start += 1
    if start == len(data):
        raise InvalidInput("the file is empty, expected a first line that names the columns")
    cells, reason, body = _record(data, start, _format(delimiter, sys.maxsize))
    if reason:
        raise InvalidInput(f"the first line must name the columns, but it has: {reason}")
    try:
        return [cell.decode() for cell in cells], body, 1 + data.count(b"\n", 0, body)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the first line is not UTF-8 text: {error}; save the file as UTF-8") from error


def _line_end(data: bytes, position: int) -> int:
    return data.find(b"\n", position) + 1 or len(data)


def _columns(names: list[str], wanted: list[str] | None) -> list[int]:
    keep = [i for i, name in enumerate(names) if wanted is None or name in wanted]
    for name in {names[i] for i in keep}:
        if names.count(name) > 1:
            raise InvalidInput(
                f"the first line names the column {name!r} {names.count(name)} times; rename one of them"
            )
    return keep


def _plain(data: bytes, start: int, stop: int, form: _Format) -> pa.Table | None:
    """These lines by pyarrow, or None unless each is certainly one row of `form.width` cells."""
    keys = [str(i) for i in range(form.width)]  # the header's own names may repeat
    if start >= stop:
        return pa.table({key: pa.array([], type=pa.string()) for key in keys})
    if not _one_row_a_line(data, start, stop, form.delimiter.encode()):
        return None
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(pa.py_buffer(memoryview(data)[start:stop])),
            read_options=arrow_csv.ReadOptions(column_names=keys, block_size=_BLOCK),
            parse_options=arrow_csv.ParseOptions(delimiter=form.delimiter),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(keys, pa.string()), strings_can_be_null=False, null_values=[]
            ),
        )
    except pa.ArrowInvalid:  # invalid UTF-8, a row of another width, a row longer than a block
        return None
    lines = data.count(b"\n", start, stop) + (not data.endswith(b"\n", start, stop))
    return table if table.num_rows == lines else None  # fewer when there are empty lines


def _one_row_a_line(data: bytes, start: int, stop: int, delimiter: bytes) -> bool:
    """Whether no line break can lie inside a row: no lone CR, and quotes only as `"...""..."` around whole cells.

    `start` must be where a row starts. If each opening quote (the 1st, 3rd, ...) follows a delimiter, a line break or a
    quote, each closing quote is followed by one, and no line break lies between the two, then every line has whole
    cells only, and any parser reads the same.
    """
    if data.count(b"\r", start, stop) != data.count(b"\r\n", start, stop):
        return False
    if data.find(b'"', start, stop) < 0:
        return True
    window = np.frombuffer(data, dtype=np.uint8)[start:stop]
    quotes = _positions(window, b'"')
    if len(quotes) % 2:
        return False
    opening, closing = quotes[0::2], quotes[1::2]
    edges = np.frombuffer(delimiter + b'\n"\r', dtype=np.uint8)
    before = np.isin(window[np.maximum(opening - 1, 0)], edges[:-1]) | (opening == 0)
    after = np.isin(window[np.minimum(closing + 1, len(window) - 1)], edges) | (closing == len(window) - 1)
    if not (before.all() and after.all()):
        return False
    breaks = _positions(window, b"\n")
    return bool((np.searchsorted(breaks, opening) == np.searchsorted(breaks, closing)).all())


def _positions(window: np.ndarray, byte: bytes) -> np.ndarray:
    """Where `byte` stands, found block by block so that the masks stay small."""
    return np.concatenate(
        [np.flatnonzero(window[i : i + _BLOCK] == ord(byte)) + i for i in range(0, len(window), _BLOCK)]
    )


def _careful(
    data: bytes, position: int, stop: int, line: int, form: _Format, rejected: Rejected
) -> tuple[pa.Table, np.ndarray, int, int]:
    """The rows that start before `stop`, one by one: a table, their lines, and the position and line of the rest."""
    rows: list[list[str]] = []
    numbers: list[int] = []
    while position < stop:
        line_end = _line_end(data, position)
        raw = data[position:line_end].removesuffix(b"\n").removesuffix(b"\r")
        cells, reason, end = _row(data, position, line_end, raw, form)
        if raw and reason:
            rejected.add(line, reason, raw)
        elif raw:
            rows.append(cells)
            numbers.append(line)
        line += 1 if end == line_end else data.count(b"\n", position, end)
        position = end
    columns = list(zip(*rows, strict=True)) or [()] * form.width
    table = pa.table({str(i): pa.array(column, type=pa.string()) for i, column in enumerate(columns)})
    return table, np.array(numbers, dtype=np.int64), position, line


def _row(data: bytes, position: int, line_end: int, raw: bytes, form: _Format) -> tuple[list[str], str, int]:
    """The cells of the row at `position`, the reason why it is rejected or "", and where the next one starts.

    `raw` is its first line without the line break. Most rows are that one line; what the csv module (strict) does not
    take as such is an open quote, text after a quote, a lone CR or a very long cell, and goes to `_record`.
    """
    try:
        text = raw.decode()
        if '"' in text:
            cells = next(csv.reader((text,), delimiter=form.delimiter, strict=True))
        else:
            cells = text.split(form.delimiter)
        return cells, _misfit(len(cells), form.width), line_end
    except UnicodeDecodeError:
        if b'"' not in raw:
            return [], "invalid UTF-8", line_end
    except csv.Error:
        pass  # what it is, `_record` finds out
    parts, reason, end = _record(data, position, form)
    reason = reason or _misfit(len(parts), form.width)
    if reason:
        # A quote that stays open beyond this line costs this line alone; those below are read as rows of their own.
        return [], "unclosed quote" if end > line_end else reason, line_end
    try:
        return [part.decode() for part in parts], "", end
    except UnicodeDecodeError:
        return [], "invalid UTF-8", end


def _misfit(cells: int, width: int) -> str:
    if cells == width:
        return ""
    return f"{cells} cells, expected {width}" if cells < width else f"more than {width} cells"


def _record(data: bytes, position: int, form: _Format) -> tuple[list[bytes], str, int]:
    """The cells of the record at `position`, the reason why it is malformed or "", and where the next one starts.

    Stops when there are more than `form.width` cells: this bounds the work per line in a file full of stray quotes.
    """
    cells: list[bytes] = []
    while len(cells) <= form.width:
        match = form.cell.match(data, position)
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
