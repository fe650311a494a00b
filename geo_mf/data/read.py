"""read_interactions, read_catalog and read_users: the only readers of the user's files and tables.

Sources: a path to .csv, .tsv, .jsonl or .ndjson (each also with .gz) or .parquet; any object with the Arrow PyCapsule
interface (pandas, polars, pyarrow, duckdb); for interactions also a scipy sparse matrix [users, items]. A source is
never changed. A row that cannot be used is counted with its line and reason: accepted + rejected = read.
"""

import errno
import gzip
import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from pyarrow import compute as _compute
from pyarrow import parquet

from geo_mf.data.catalog import Catalog
from geo_mf.data.delimited import parse_delimited, typed_columns
from geo_mf.data.ids import ArrowStream, IdMap, canonical_ids, plain_layout
from geo_mf.data.interactions import Duplicates, Interactions, ReadReport
from geo_mf.data.jsonlines import parse_json_lines
from geo_mf.data.parse import parse_datetimes, parse_weights
from geo_mf.data.people import People
from geo_mf.data.rows import Checks, Rejected, Rows, missing_column
from geo_mf.data.template import compose_texts, parse_template
from geo_mf.errors import InvalidInput

__all__ = [
    "CatalogDuplicates",
    "Source",
    "is_delimited",
    "read_catalog",
    "read_interactions",
    "read_rows",
    "read_users",
]

pc: Any = _compute  # pyarrow makes these functions at import, where no type checker sees them

Source = str | Path | ArrowStream
CatalogDuplicates = Literal["error", "last", "first"]

_TITLES = ("title", "name", "headline")
_FORMATS = ".csv, .tsv, .jsonl, .ndjson (each also with .gz) or .parquet"


def read_interactions(
    source: Source | sp.sparray | sp.spmatrix,
    *,
    user_col: str = "user_id",
    item_col: str = "item_id",
    weight_col: str | None = None,
    datetime_col: str | None = None,
    duplicates: Duplicates = "sum",
    min_weight: float | None = None,
    allow_negative: bool = False,
    max_bad_rows: int = 0,
) -> Interactions:
    """Read who touched what, one row per event or rating.

    weight_col, datetime_col: None takes the columns "weight" and "datetime" where they exist; without a weight column
    every weight is 1. See `geo_mf.data.parse` for what a weight and a datetime may be, `geo_mf.data.interactions` for
    duplicates, zero weights and min_weight. Ids of CSV files are strings, byte for byte; other sources keep their type.
    max_bad_rows: how many rows may be rejected before it is an error; -1 for any number.

    Raises FileNotFoundError, and InvalidInput for a missing column, an unknown format, ids that cannot be ids, and too
    many bad rows.
    """
    _check_limit(max_bad_rows)
    if sp.issparse(source):
        return _from_matrix(source, min_weight, allow_negative)
    if user_col == item_col:
        raise InvalidInput(f"user_col and item_col are both {user_col!r}; they must be two columns")
    cells = [weight_col or "weight", datetime_col or "datetime"]
    checks = _open(source, ids=[user_col, item_col], cells=cells)
    users = _id_column(checks, user_col, "user_col", "user id")
    items = _id_column(checks, item_col, "item_col", "item id")
    weights = _optional(checks.rows, weight_col, "weight", "weight_col")
    times = _optional(checks.rows, datetime_col, "datetime", "datetime_col")
    if min_weight is not None and weights is None:
        raise InvalidInput(
            "min_weight needs a weight column, but there is no column 'weight'; name it with weight_col= (--weight-col)"
        )
    weight_values = None if weights is None else parse_weights(weights, checks, allow_negative)
    time_values = None if times is None else parse_datetimes(times, checks)
    report = checks.report(_name(source), max_bad_rows)
    keep = checks.passed
    return Interactions.from_arrays(
        users.filter(pa.array(keep)),
        items.filter(pa.array(keep)),
        None if weight_values is None else weight_values[keep],
        None if time_values is None else time_values[keep],
        duplicates=duplicates,
        min_weight=min_weight,
        allow_negative=allow_negative,
        report=report,
    )


def read_catalog(
    source: Source,
    *,
    item_col: str = "item_id",
    text: str | None = None,
    title_col: str | None = None,
    duplicates: CatalogDuplicates = "error",
    max_bad_rows: int = 0,
) -> Catalog:
    """Read the items: one row each, with any columns.

    text: a template such as "{title}. {genres}" or the name of one column (see `geo_mf.data.template`); None takes the
    column "text", else the title, else there is no text. title_col: None takes "title", "name" or "headline".
    duplicates: what to do when an item id occurs twice: "error", or keep the "last" or the "first" row.

    Columns of CSV files get a type: integer when every value is a plain integer of 64 bits (no leading zero, no plus),
    else float when every value is a finite decimal number, else string; an empty cell is a missing value. The id and
    the title stay strings, and texts are composed from the cells as they are written.

    Raises FileNotFoundError, and InvalidInput for a missing column, an unknown format, a template that is more than
    column names, ids that cannot be ids, an item that occurs twice, and too many bad rows.
    """
    _check_limit(max_bad_rows)
    if duplicates not in get_args(CatalogDuplicates):
        raise InvalidInput(f"duplicates must be one of {', '.join(get_args(CatalogDuplicates))}, got {duplicates!r}")
    checks = _open(source, ids=[item_col], cells=None)
    rows = checks.rows
    ids = _id_column(checks, item_col, "item_col", "item id")
    names = rows.table.column_names
    _check_names(names)
    if title_col is not None and title_col not in names:
        raise missing_column(title_col, names, "title_col")
    title = title_col or next((name for name in _TITLES if name in names), None)
    template = text if text is not None else "text" if "text" in names else title
    pieces = None if template is None else parse_template(template, names)
    report = checks.report(_name(source), max_bad_rows)
    kept = np.flatnonzero(checks.passed)
    items, item_rows = IdMap.encode(ids.take(pa.array(kept)))
    if len(items) < len(kept):
        chosen = _without_duplicates(items, item_rows, rows.numbers[kept], rows.unit, duplicates)
        report = replace(report, merged=len(kept) - len(chosen))
        kept = kept[chosen]
        items = IdMap(ids.take(pa.array(kept)))
    table = rows.table if len(kept) == rows.table.num_rows else rows.table.take(pa.array(kept))
    texts = [""] * len(kept) if pieces is None else compose_texts(pieces, table)
    if is_delimited(source):
        table = typed_columns(table, as_text=[item_col] if title is None else [item_col, title])
    return Catalog(items, texts, table, item_col, title, report, template)


def read_users(source: Source, *, user_col: str = "user_id") -> People:
    """Read what is known of users: one row each, whose other columns are their attributes (numbers, dates, categories,
    lists: `geo_mf.data.attributes`). Columns of CSV files get a type as in `read_catalog`.

    Raises FileNotFoundError, and InvalidInput for a missing column, an unknown format, ids that cannot be ids, a user
    that occurs twice, a row without an id, and a column that cannot be an attribute.
    """
    users, table, _ = _distinct_rows(source, user_col, "user")
    if is_delimited(source):
        table = typed_columns(table, as_text=[user_col])
    return People.of(users, table.drop_columns([user_col]))


def read_rows(source: Source, item_col: str) -> tuple[IdMap, pa.Table, ReadReport]:
    """The rows of a catalogue as they are written: ids, every column, and the account of the reading.

    Raises as `read_catalog`, for any row that cannot be used and any item that occurs twice.
    """
    return _distinct_rows(source, item_col, "item")


def _distinct_rows(source: Source, column: str, kind: Literal["item", "user"]) -> tuple[IdMap, pa.Table, ReadReport]:
    checks = _open(source, ids=[column], cells=None)
    ids = _id_column(checks, column, f"{kind}_col", f"{kind} id")
    _check_names(checks.rows.table.column_names)
    report = checks.report(_name(source), 0)
    found, rows = IdMap.encode(ids)
    if len(found) < len(ids):
        _without_duplicates(found, rows, checks.rows.numbers, checks.rows.unit, "error", kind)
    return found, checks.rows.table, report


def is_delimited(source: object) -> bool:
    """Whether a source's cells are text that has no types."""
    return _suffix(source) in (".csv", ".tsv")


def _check_names(names: list[str]) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"the table has {names.count(twice)} columns called {twice!r}; rename one of them")


def _open(source: Any, ids: list[str], cells: list[str] | None) -> Checks:
    """The rows of any source; cells: the other columns that are needed, None for all."""
    wanted = None if cells is None else [*ids, *cells]
    if isinstance(source, str | Path):
        suffix = _suffix(source)
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        if path.is_dir():
            raise InvalidInput(f"{path} is a folder, expected a file: {_FORMATS}")
        if suffix in (".csv", ".tsv"):
            return Checks(parse_delimited(_bytes(path), b"," if suffix == ".csv" else b"\t", wanted))
        if suffix in (".jsonl", ".ndjson"):
            return parse_json_lines(_bytes(path), ids, cells)
        if suffix == ".parquet":
            return Checks(_parquet_rows(path, wanted))
        raise InvalidInput(f"{path.name} has no format that can be read, expected {_FORMATS}")
    if isinstance(source, ArrowStream):
        try:
            table = pa.RecordBatchReader.from_stream(source).read_all()
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise InvalidInput(
                f"this {type(source).__name__} cannot be read as a table: {error}; every column must hold one type"
            ) from error
        return Checks(_table_rows(table, table.column_names, wanted))
    raise InvalidInput(
        f"cannot read a {type(source).__name__}; expected a path to {_FORMATS}, or a table of pandas, "
        "polars (collected), pyarrow or duckdb"
    )


def _suffix(source: object) -> str:
    """The lower-case suffix of a path, without .gz; "" for anything else."""
    if not isinstance(source, str | Path):
        return ""
    path = Path(source)
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def _bytes(path: Path) -> bytes:
    data = path.read_bytes()
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidInput(f"{path} is not a whole gzip file: {error}; copy or download it again") from error


def _parquet_rows(path: Path, wanted: list[str] | None) -> Rows:
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            table = file.read(columns=None if wanted is None else [name for name in wanted if name in names])
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InvalidInput(f"{path} is not a Parquet file that can be read: {error}") from error
    return _table_rows(table, names, wanted)


def _table_rows(table: pa.Table, names: list[str], wanted: list[str] | None) -> Rows:
    """A table as rows: dictionaries decoded and text in one of two layouts, so that the checks see few types."""
    chosen = [i for i, name in enumerate(table.column_names) if wanted is None or name in wanted]
    table = table.select(chosen)
    columns = [plain_layout(table.column(i)) for i in range(table.num_columns)]
    for name, column in zip(table.column_names, columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise InvalidInput(f"column {name!r} is damaged: {error}") from error
    simple = pa.Table.from_arrays(columns, names=table.column_names)
    return Rows(simple, names, np.arange(table.num_rows, dtype=np.int64), Rejected(), "row")


def _id_column(checks: Checks, name: str, argument: str, what: str) -> pa.ChunkedArray:
    """The id column, with its empty ids rejected and any other value that stands in a rejected row left in place."""
    column = _column(checks.rows, name, argument)
    missing = np.asarray(pc.is_null(column))
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        missing = missing | np.asarray(pc.fill_null(pc.equal(column, ""), False))
    checks.reject(missing, f"empty {what}")
    canonical_ids(column.drop_null(), f"{what}s ({name})")  # raises for a type that cannot be an id
    return column


def _column(rows: Rows, name: str, argument: str) -> pa.ChunkedArray:
    if name not in rows.columns:
        raise missing_column(name, rows.columns, argument)
    if rows.table.column_names.count(name) > 1:
        raise InvalidInput(f"the table has several columns called {name!r}; rename one of them")
    return rows.table.column(name)


def _optional(rows: Rows, name: str | None, default: str, argument: str) -> pa.ChunkedArray | None:
    if name is None and default not in rows.columns:
        return None
    return _column(rows, name or default, argument)


def _without_duplicates(
    items: IdMap,
    item_rows: np.ndarray,
    numbers: np.ndarray,
    unit: str,
    duplicates: CatalogDuplicates,
    kind: Literal["item", "user"] = "item",
) -> np.ndarray:
    """The positions to keep, in order: the first or the last of each item. Raises InvalidInput for "error"."""
    if duplicates == "error":
        order = np.argsort(item_rows, kind="stable")
        again = order[1:][item_rows[order][1:] == item_rows[order][:-1]]
        second = int(again.min())
        first = int(np.flatnonzero(item_rows == item_rows[second])[0])
        remedy = "remove one" + (", or read with duplicates='last' or 'first'" if kind == "item" else "")
        raise InvalidInput(
            f"{kind} {items.id(int(item_rows[second]))!r} occurs in {unit} {numbers[first]} and again in {unit} "
            f"{numbers[second]} ({len(again)} such rows); {remedy}"
        )
    positions = np.arange(len(item_rows))
    keeper = np.zeros(len(items), dtype=np.int64)
    ordered = positions if duplicates == "last" else positions[::-1]
    keeper[item_rows[ordered]] = ordered  # the last assignment to each item stays
    return np.sort(keeper)


def _from_matrix(matrix: Any, min_weight: float | None, allow_negative: bool) -> Interactions:
    interactions = Interactions.from_csr(matrix, allow_negative=allow_negative)
    if min_weight is None:
        return interactions
    keep = interactions.weights >= min_weight
    report = replace(interactions.report, below_min_weight=int((~keep).sum()))
    return replace(interactions.select(keep), report=report)


def _check_limit(max_bad_rows: int) -> None:
    if isinstance(max_bad_rows, bool) or not isinstance(max_bad_rows, int) or max_bad_rows < -1:
        raise InvalidInput(f"max_bad_rows must be 0, more, or -1 for no limit; got {max_bad_rows!r}")


def _name(source: object) -> str:
    return str(source) if isinstance(source, str | Path) else f"the {type(source).__name__}"
