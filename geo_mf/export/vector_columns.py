"""Vectors in the columns of a table: which columns they are, and a matrix of them."""

from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute as _compute

from geo_mf.errors import InvalidInput

__all__ = ["chosen", "matrix_of"]

pc: Any = _compute  # pyarrow makes these functions at import, where no type checker sees them

_ID_NAMES = ("item_id", "user_id", "id", "__index_level_0__")


def chosen(
    schema: pa.Schema, what: str, id_col: str | None, vector_col: str | None, given: bool
) -> tuple[str | None, list[str]]:
    """The column of ids, and those of vectors: one of lists, or many of floats.

    Args:
        schema: of the table.
        what: the table is called in messages.
        id_col, vector_col: as the caller named them.
        given: the caller has ids of their own, so that no column is looked for unless it is named.

    Raises:
        InvalidInput: a column that is not there, or more than one choice.
    """
    twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(f"{what} has several columns called {twice!r}; rename one of them")
    for name, argument in ((id_col, "id_col"), (vector_col, "vector_col")):
        if name is not None and name not in schema.names:
            raise InvalidInput(f"{what} has no column {name!r} ({argument}); its columns are {_listed(schema.names)}")
    if given and id_col is not None:
        raise InvalidInput("ids and id_col are both given; leave one of them out")
    name = id_col if id_col is not None or given else _id_column(schema, what)
    if vector_col is not None:
        return name, [vector_col]
    others = [field for field in schema if field.name != name]
    floats = [field.name for field in others if pa.types.is_floating(field.type)]
    lists = [field.name for field in others if _is_list(field.type) and pa.types.is_floating(field.type.value_type)]
    if not lists and not floats:
        lists = [field.name for field in others if _is_list(field.type)]  # of something else, which is told there
    if len(lists) > 1:
        raise InvalidInput(f"{what} has several columns of lists, {_listed(lists)}; name one with vector_col")
    if lists:
        return name, lists
    if not floats:
        raise InvalidInput(f"{what} has the columns {_listed(schema.names)}; expected one of lists, or many of floats")
    odd = [field for field in others if pa.types.is_integer(field.type) or pa.types.is_decimal(field.type)]
    if odd:
        raise InvalidInput(
            f"{what} has a column {odd[0].name!r} of {odd[0].type} beside the floats; cast it to float if it belongs "
            "to the vectors, and drop it if not"
        )
    return name, floats


def matrix_of(table: pa.Table) -> np.ndarray:
    """Float [n, dim] from one column of lists or many of floats.

    Raises:
        InvalidInput: a missing vector or number, lists of different lengths, or of something other than floats.
    """
    if table.num_columns == 1 and _is_list(table.schema.field(0).type):
        return _from_lists(table.column(0), table.column_names[0])
    matrix = np.empty((table.num_rows, table.num_columns), np.float32)
    for place, name in enumerate(table.column_names):
        column = table.column(name)
        if not pa.types.is_floating(column.type):
            raise InvalidInput(f"column {name!r} is {column.type}; expected floats, or lists of floats")
        _refuse_null(column, f"column {name!r}")
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and that is told of
            matrix[:, place] = column.to_numpy()
    return matrix


def _from_lists(column: pa.ChunkedArray, name: str) -> np.ndarray:
    _refuse_null(column, f"column {name!r}")
    value_type = column.type.value_type
    if not pa.types.is_floating(value_type):
        raise InvalidInput(f"column {name!r} holds lists of {value_type}; expected floats: cast it")
    if pa.types.is_fixed_size_list(column.type):
        dim = column.type.list_size
    else:
        lengths = np.asarray(pc.list_value_length(column))
        dim = int(lengths[0]) if len(lengths) else 1
        ragged = np.flatnonzero(lengths != dim)
        if len(ragged):
            row = int(ragged[0])
            raise InvalidInput(
                f"column {name!r} has a list of {lengths[row]} numbers in row {row}, and of {dim} in row 0; expected "
                "vectors of one length"
            )
    values = pc.list_flatten(column)
    if values.null_count:
        row = int(pc.index(pc.is_null(values), True).as_py()) // max(1, dim)
        raise InvalidInput(f"column {name!r} has a missing number in row {row}; fill it, or drop the row")
    return values.to_numpy().reshape(len(column), dim)


def _refuse_null(column: pa.ChunkedArray, what: str) -> None:
    if column.null_count:
        row = int(pc.index(pc.is_null(column), True).as_py())
        raise InvalidInput(f"{what} has nothing in row {row}; fill it, or drop the row")


def _id_column(schema: pa.Schema, what: str) -> str:
    named = [name for name in _ID_NAMES if name in schema.names]
    possible = [field.name for field in schema if _can_be_id(field.type)]
    found = named or possible
    if len(found) != 1:
        raise InvalidInput(
            f"{what} has the columns {_listed(schema.names)}, and "
            + (f"{_listed(found)} may be ids; name one with id_col" if found else "none of ids; pass ids=")
        )
    return found[0]


def _can_be_id(t: pa.DataType) -> bool:
    text = pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t)
    return text or pa.types.is_integer(t) or pa.types.is_dictionary(t)


def _is_list(t: pa.DataType) -> bool:
    return pa.types.is_list(t) or pa.types.is_large_list(t) or pa.types.is_fixed_size_list(t)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:8])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 8 else shown or "nothing"
