"""More rows for a catalogue: read by its id column, fitted to its columns, composed by its template.

What is not given is missing in a new row, and stays as it was in a changed one. A column that the catalogue does not
have is refused: it is a slip of the pen more often than an attribute that only new items should have. Where no template
is known, a column "text" holds the texts, and is not kept.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute as _compute

from geo_mf.data.catalog import Catalog
from geo_mf.data.ids import IdMap, plain_layout
from geo_mf.data.interactions import ReadReport
from geo_mf.data.read import Source, is_delimited, read_rows
from geo_mf.data.template import compose_texts, parse_template
from geo_mf.data.where import closest_first
from geo_mf.errors import InvalidInput

__all__ = ["MoreItems", "read_more"]

pc: Any = _compute  # pyarrow makes these functions at import, where no type checker sees them

_TEXT = "text"


@dataclass(frozen=True, eq=False)
class MoreItems:
    """Rows that were given for a catalogue, each of another item.

    Attributes:
        like: the catalogue.
        items: the ids.
        columns: those of the catalogue's columns that were given, in its types.
        written: the given columns as they were written; texts are composed from these.
        texts: the texts, where a catalogue was given, which has them.
        report: the account of the reading.
    """

    like: Catalog
    items: IdMap
    columns: dict[str, pa.ChunkedArray]
    written: dict[str, pa.ChunkedArray]
    texts: list[str] | None
    report: ReadReport

    def __len__(self) -> int:
        return len(self.items)

    def as_new(self) -> Catalog:
        """The rows as items of their own; what was not given is missing."""
        schema = self.like.table.schema
        columns = [self.columns.get(f.name, _missing(len(self), f.type)) for f in schema]
        return self._catalog(columns, self._texts({}, None))

    def over(self, rows: np.ndarray) -> Catalog:
        """The rows in place of those of the catalogue, int [n]; what was not given stays."""
        kept = self.like.take(rows)
        columns = [self.columns.get(name, kept.table.column(name)) for name in self.like.columns]
        return self._catalog(columns, self._texts(dict(zip(self.like.columns, columns, strict=True)), kept.texts))

    def _catalog(self, columns: list[pa.ChunkedArray], texts: list[str]) -> Catalog:
        table = pa.Table.from_arrays(columns, names=list(self.like.columns))
        table = table.replace_schema_metadata(self.like.table.schema.metadata)
        like = self.like
        return Catalog(self.items, texts, table, like.id_column, like.title_column, self.report, like.template)

    def _texts(self, kept: dict[str, pa.ChunkedArray], before: list[str] | None) -> list[str]:
        if self.texts is not None:
            return self.texts
        template = self.like.template or (_TEXT if _TEXT in self.written else None)
        if template is None and before is None and self.like.title_column in self.written:
            template = self.like.title_column
        if template is None:
            return before if before is not None else [""] * len(self)
        pieces = parse_template(template, [*self.like.columns, *self.written])
        named = [name for _, name in pieces if name is not None]
        if before is not None and not set(named) & set(self.written):
            return before
        empty = _missing(len(self), pa.string())
        columns = {name: self.written.get(name, kept.get(name, empty)) for name in named}
        return compose_texts(pieces, pa.table({name: plain_layout(column) for name, column in columns.items()}))


def read_more(source: "Source | Catalog", like: Catalog) -> MoreItems:
    """Read rows for a catalogue.

    Args:
        source: what `read_catalog` takes, with the id column of `like`; or a catalogue, whose texts stay as they are.
        like: the catalogue.

    Raises:
        FileNotFoundError: no such file.
        InvalidInput: a column is missing, unknown or of another type, an id is missing or occurs twice, or the source
            cannot be read.
    """
    if isinstance(source, Catalog):
        table, items, texts, report, text_cells = source.table, source.items, source.texts, source.report, False
        names = [like.id_column if name == source.id_column else name for name in table.column_names]
        if len(set(names)) < len(names):
            raise InvalidInput(f"the given catalogue has a column {like.id_column!r} beside its ids: rename it")
        table = table.rename_columns(names)
    else:
        items, table, report = read_rows(source, like.id_column)
        texts, text_cells = None, is_delimited(source)
    known = set(like.columns) | ({_TEXT} if like.template is None and texts is None else set())
    unknown = [name for name in table.column_names if name not in known]
    if unknown:
        close = ", ".join(closest_first(unknown[0], list(like.columns)))
        raise InvalidInput(
            f"the catalogue has no column {unknown[0]!r}; its columns are {close}: rename it or leave it out, or build "
            "the index again with it"
        )
    columns = {
        name: _fitted(name, table.column(name), like.table.schema.field(name).type, text_cells)
        for name in table.column_names
        if name in like.columns
    }
    written = {name: table.column(name) for name in table.column_names}
    return MoreItems(like, items, columns, written, texts, report)


def _fitted(name: str, column: pa.ChunkedArray, wanted: pa.DataType, text_cells: bool) -> pa.ChunkedArray:
    """A column in the type of the catalogue's; cells of a delimited file are read as that type."""
    if text_cells:
        column = pc.if_else(pc.equal(column, ""), None, column)
    found = column.type
    if pa.types.is_null(wanted):
        return column  # nothing was known of this column before: it has the type of its first values
    if not (text_cells or pa.types.is_null(found) or _kind(found) == _kind(wanted)):
        raise InvalidInput(f"column {name!r} holds {found}, but {wanted} in the catalogue: convert it")
    try:
        return column if found == wanted else column.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidInput(
            f"column {name!r} holds {wanted} in the catalogue, and this does not fit: {error}"
        ) from error


def _kind(kind: pa.DataType) -> str:
    """Types of one kind can be converted into each other without a guess."""
    types = pa.types
    if types.is_dictionary(kind):
        return _kind(kind.value_type)
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    if types.is_date(kind) or types.is_timestamp(kind):
        return "time"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return f"list of {_kind(kind.value_type)}"
    return "nothing" if types.is_null(kind) else str(kind)


def _missing(n: int, kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([pa.nulls(n, kind)])
