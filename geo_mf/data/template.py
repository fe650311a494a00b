"""Item texts from columns: `"{title}. {genres}"` composes one text per row.

A placeholder is a column name and nothing else: no attribute, index, conversion or format. A missing value becomes
empty. When all placeholders of a row are empty, its text is "". Control characters become spaces, runs of white space
become one space, and the ends are trimmed. Lists of strings are joined with ", ". Nothing is shortened.
"""

import string
from typing import Any

import pyarrow as pa
from pyarrow import compute as _compute

from geo_mf.data.where import closest_first
from geo_mf.errors import InvalidInput

__all__ = ["compose_texts", "parse_template"]

pc: Any = _compute  # pyarrow makes these functions at import, where no type checker sees them

_BLANK = r"[\p{Cc}\p{Z}]+"  # controls (NUL, tab, line breaks) and every kind of space


def parse_template(text: str, columns: list[str]) -> list[tuple[str, str | None]]:
    """The template as pairs of literal text and the column that follows it (None at the end).

    Text without placeholders that is a column's name means that column. Raises InvalidInput for a placeholder that is
    more than a column name, for a column that is not there, and for a template without any placeholder.
    """
    if text in columns:
        return [("", text)]
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise InvalidInput(
            f"the text template {text!r} cannot be read: {error}; write a brace itself as {{{{ or }}}}"
        ) from error
    pieces: list[tuple[str, str | None]] = []
    for literal, name, spec, conversion in parts:
        if name is not None and (spec or conversion or (name not in columns and set(name) & set(".[]"))):
            shown = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise InvalidInput(
                f"the placeholder {{{shown}}} in the text template is not allowed; expected a column name alone, "
                f"such as {{{columns[0] if columns else 'title'}}}"
            )
        if name is not None and name not in columns:
            raise InvalidInput(
                f"the text template names the column {name!r}, which is not there; the columns are "
                f"{', '.join(closest_first(name, columns))}"
            )
        pieces.append((literal, name))
    if not any(name is not None for _, name in pieces):
        raise InvalidInput(
            f"the text template {text!r} names no column; write columns in braces, such as "
            f"{{{columns[0] if columns else 'title'}}}; the columns are {', '.join(columns)}"
        )
    return pieces


def compose_texts(pieces: list[tuple[str, str | None]], table: pa.Table) -> list[str]:
    """One text per row of `table`. Raises InvalidInput for a column that has no plain text form."""
    cleaned = {name: _clean(_as_text(name, table.column(name))) for _, name in pieces if name is not None}
    parts: list[Any] = []
    for literal, name in pieces:
        parts.append(pa.scalar(literal, pa.large_string()))
        if name is not None:
            parts.append(cleaned[name])
    composed = _clean(pc.binary_join_element_wise(*parts, pa.scalar("", pa.large_string())))
    lengths = [pc.binary_length(values) for values in cleaned.values()]
    total = lengths[0]
    for length in lengths[1:]:
        total = pc.add(total, length)
    return pc.if_else(pc.equal(total, 0), "", composed).to_pylist()


def _clean(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(values, pattern=_BLANK, replacement=" "))


def _as_text(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    found, types = column.type, pa.types
    is_list = types.is_list(found) or types.is_large_list(found) or types.is_fixed_size_list(found)
    kind = found.value_type if is_list else found
    if types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        raise InvalidInput(f"column {name!r} holds {found}, which has no plain text form; use one of text or numbers")
    if is_list:
        lists = column.cast(pa.list_(pa.string()))
        chunks = [pc.binary_join(_without_nulls(chunk), ", ") for chunk in lists.chunks]
        column = pa.chunked_array(chunks, type=pa.string())
    elif types.is_floating(found):
        # Whole numbers that became floats because some are missing: 1995, not 1995.0.
        column = pc.if_else(pc.is_finite(column), column, None)
        if pc.all(pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), 2**53))).as_py():
            column = column.cast(pa.int64())
    return pc.fill_null(column.cast(pa.large_string()), "")


def _without_nulls(lists: pa.ListArray) -> pa.ListArray:
    if lists.flatten().null_count == 0:
        return lists
    parts = [None if value is None else [part for part in value if part is not None] for value in lists.to_pylist()]
    return pa.array(parts, type=lists.type)
