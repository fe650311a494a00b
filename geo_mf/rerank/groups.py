"""Which items share which value of a column: an item may have one value, several or none."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute as _compute

from geo_mf.data.attributes import SEPARATOR
from geo_mf.data.catalog import Catalog
from geo_mf.data.ids import plain_layout
from geo_mf.data.where import closest_first
from geo_mf.errors import InvalidInput

pc: Any = _compute  # pyarrow makes these functions at import, where no type checker sees them


@dataclass(frozen=True, eq=False)
class Groups:
    """The values of n items, item by item.

    Attributes:
        indptr: int64 [n + 1]; the values of item i are those from indptr[i] up to indptr[i + 1].
        values: int64 [pairs], rows of `names`; none twice in one item.
        names: [groups], the values of the column that occur.
    """

    indptr: np.ndarray
    values: np.ndarray
    names: pa.Array

    @classmethod
    def of(cls, catalog: Catalog, column: str, rows: np.ndarray | None = None) -> "Groups":
        """The values that items of a catalogue have in one of its columns.

        Lists have several values, and so has text with "|" between them, as in `BuildConfig.attributes`; an id has one.
        A missing value, NaN and an empty text are none.

        Args:
            catalog: the items.
            column: its name.
            rows: int [n], whose values; None for all items, in their order.

        Raises:
            InvalidInput: no such column, or its values cannot be told apart (structs, maps).
        """
        check_column(catalog, column)
        table = catalog.table.column(column)
        if pa.types.is_string_view(table.type) or pa.types.is_run_end_encoded(table.type):
            table = plain_layout(table)  # Arrow takes no rows of these
        taken = table if rows is None else table.take(pa.array(rows))
        parents, flat = _flat(plain_layout(taken).combine_chunks(), several=column != catalog.id_column)
        try:
            words = pc.dictionary_encode(flat)
        except pa.ArrowNotImplementedError as error:
            raise InvalidInput(
                f"column {column!r} holds {table.type}; expected text, numbers, dates, booleans or lists of them"
            ) from error
        names = words.dictionary
        # One number a pair: a value counts once an item, however often it stands there.
        pairs = np.unique(parents * max(1, len(names)) + np.asarray(words.indices, np.int64))
        items, values = np.divmod(pairs, max(1, len(names)))
        counts = np.bincount(items, minlength=len(taken))
        return cls(np.concatenate([[0], np.cumsum(counts)]), values, names)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def items(self) -> np.ndarray:
        """int64 [pairs], the item of each value."""
        return np.repeat(np.arange(len(self)), np.diff(self.indptr))

    def take(self, rows: np.ndarray) -> "Groups":
        """The values of these items, int [m], in this order; the names stay."""
        starts, counts = self.indptr[rows], np.diff(self.indptr)[rows]
        indptr = np.concatenate([[0], np.cumsum(counts)])
        places = np.repeat(starts - indptr[:-1], counts) + np.arange(indptr[-1])
        return Groups(indptr, self.values[places], self.names)

    def code(self, value: Any) -> int:
        """The row of `names` that is this value, -1 where no item has it. InvalidInput for a value of another type."""
        try:
            wanted = pa.scalar(value, self.names.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(f"{value!r} is no value of a column of {self.names.type}: {error}") from error
        return int(pc.index(self.names, wanted).as_py())


def check_column(catalog: Catalog, column: str) -> None:
    """InvalidInput unless the catalogue has the column."""
    if column not in catalog.columns:
        names = closest_first(str(column), list(catalog.columns))
        raise InvalidInput(f"the catalog has no column {column!r}; its columns are {', '.join(names)}")


def _flat(column: pa.Array, several: bool) -> tuple[np.ndarray, pa.Array]:
    """The items int64 [pairs] and the values [pairs] of a column; `several`: whether a text may hold more than one."""
    kind, types = column.type, pa.types
    if several and (types.is_string(kind) or types.is_large_string(kind)):
        if pc.any(pc.match_substring(column, SEPARATOR)).as_py():
            column = pc.split_pattern(column, SEPARATOR)
        else:
            column = pc.utf8_trim_whitespace(column)
    listed = types.is_list(column.type) or types.is_large_list(column.type) or types.is_fixed_size_list(column.type)
    if listed:
        parents = np.asarray(pc.list_parent_indices(column), np.int64)
        flat = plain_layout(pa.chunked_array([column.flatten()])).combine_chunks()
    else:
        parents, flat = np.arange(len(column)), column
    if types.is_string(flat.type) or types.is_large_string(flat.type):
        flat = pc.utf8_trim_whitespace(flat) if listed else flat
        present = pc.fill_null(pc.not_equal(flat, ""), False)
    elif types.is_floating(flat.type):
        present = pc.fill_null(pc.invert(pc.is_nan(flat)), False)
    else:
        present = pc.is_valid(flat)
    return parents[np.asarray(present, bool)], flat.filter(present)
