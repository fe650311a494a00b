"""The `where` language: one small expression over the columns of a table becomes a boolean mask over its rows.

    year >= 1990 and genre in ("drama", "comedy")        comparisons: == != < <= > >=, chains too (1990 <= year < 2000)
    "jazz" in tags                                       membership in a list column; substring in a string column
    title is not None and not sold_out                   missing or not; a boolean column stands for itself
    col("name with spaces") == "x"                       columns whose name is not an identifier

Any comparison with a missing value (null or NaN) is False, also != and `not in`; `not` turns a False into a True.
A date or timestamp column is compared with ISO text ("2026-11-24"). The text is parsed with `ast` and never evaluated:
a node that is not listed here is refused by name. Length and nesting are bounded.
"""

import ast
import datetime
import difflib
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute as _compute

from geo_mf.data.ids import plain_layout
from geo_mf.errors import InvalidInput

__all__ = ["MAX_LENGTH", "MAX_NESTING", "closest_first", "row_mask"]

pc: Any = _compute  # pyarrow makes these functions at import, where no type checker sees them

MAX_LENGTH = 4096
MAX_NESTING = 50

_ALLOWED = (
    "allowed are comparisons (== != < <= > >=), in, not in, is None, is not None, and, or, not, parentheses, "
    'column names, col("a name"), strings, numbers, True, False and lists of them'
)
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
_MIRRORED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}
_SCALAR_KINDS = ("number", "string", "boolean", "date")
_INT64 = range(-(2**63), 2**63)


def row_mask(where: str, table: pa.Table) -> np.ndarray:
    """The rows of `table` for which `where` holds, bool [table.num_rows].

    Raises InvalidInput naming the part that is not allowed, the column that does not exist, or the two types that
    cannot be compared.
    """
    if not isinstance(where, str):
        raise InvalidInput(f"where must be a string such as 'year >= 1990', got {type(where).__name__}")
    if not where.strip():
        raise InvalidInput("where is empty; leave it out to allow every item, or write something like 'year >= 1990'")
    if len(where) > MAX_LENGTH:
        raise InvalidInput(f"where has {len(where)} characters, at most {MAX_LENGTH} are allowed; shorten it")
    try:
        tree = ast.parse(where.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        detail = error.msg if isinstance(error, SyntaxError) else error
        hint = "; equality is written ==" if re.search(r"(?<![=!<>])=(?!=)", where) else ""
        raise InvalidInput(f"where cannot be read: {detail} in {_short(where)}{hint}; {_ALLOWED}") from error
    except (RecursionError, MemoryError) as error:
        raise InvalidInput(f"where is nested too deeply, at most {MAX_NESTING} levels are allowed") from error
    return _Evaluation(where.strip(), table).mask(tree.body, 0)


def closest_first(name: str, names: list[str]) -> list[str]:
    """The names, those that look most like `name` first."""
    return sorted(names, key=lambda other: -difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio())


@dataclass(frozen=True)
class _Column:
    name: str
    values: pa.ChunkedArray
    kind: str


@dataclass(frozen=True)
class _Constant:
    value: Any
    kind: str


@dataclass(frozen=True)
class _Evaluation:
    source: str
    table: pa.Table

    def mask(self, node: ast.expr, depth: int) -> np.ndarray:
        if depth > MAX_NESTING:
            raise InvalidInput(f"where is nested too deeply, at most {MAX_NESTING} levels are allowed")
        if isinstance(node, ast.BoolOp):
            combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return combine.reduce([self.mask(part, depth + 1) for part in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.mask(node.operand, depth + 1)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = [self._compare(op, sides[i], sides[i + 1]) for i, op in enumerate(node.ops)]
            return np.logical_and.reduce(pairs)
        column = self._column(node)
        if column is None:
            raise self._refuse(node)
        if column.kind != "boolean":
            raise InvalidInput(
                f"column {column.name!r} holds {column.values.type}, not true or false; compare it with something, "
                f"such as `{column.name} is not None`"
            )
        return _truth(column.values)

    def _compare(self, op: ast.cmpop, left: ast.expr, right: ast.expr) -> np.ndarray:
        part = _short(f"{self._text(left)} {_symbol(op)} {self._text(right)}")
        if isinstance(op, ast.Is | ast.IsNot):
            column = self._column(left)
            if column is None or not (isinstance(right, ast.Constant) and right.value is None):
                raise InvalidInput(f"`{part}` is not allowed: `is` compares a column with None; use == for values")
            missing = np.asarray(pc.is_null(column.values))
            return missing if isinstance(op, ast.Is) else ~missing
        if isinstance(op, ast.In | ast.NotIn):
            return self._membership(part, isinstance(op, ast.NotIn), left, right)
        a, b = self._operand(left, part), self._operand(right, part)
        if isinstance(a, _Constant):
            if isinstance(b, _Constant):
                raise InvalidInput(f"`{part}` compares two constants; one side must be a column: {self._columns()}")
            return self._ordered(part, _MIRRORED.get(type(op), type(op)), b, a)
        return self._ordered(part, type(op), a, b)

    def _ordered(self, part: str, op: type[ast.cmpop], column: _Column, other: _Column | _Constant) -> np.ndarray:
        if "missing" in (column.kind, other.kind):
            return np.zeros(self.table.num_rows, dtype=bool)
        if column.kind not in _SCALAR_KINDS:
            remedy = "use a value `in` it" if column.kind == "list" else "only `is None` works on it"
            raise InvalidInput(f"`{part}`: column {column.name!r} holds {column.values.type}; {remedy}")
        if isinstance(other, _Column):
            self._same_kind(part, column, other)
            values = other.values
        else:
            values = self._scalar(part, column, other)
        try:
            return _truth(_COMPARE[op](column.values, values))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InvalidInput(f"`{part}` cannot be compared: {error}") from error

    def _membership(self, part: str, negated: bool, left: ast.expr, right: ast.expr) -> np.ndarray:
        if isinstance(right, ast.Tuple | ast.List | ast.Set):
            column = self._column(left)
            if column is None:
                raise InvalidInput(f"`{part}`: the left side of `in` must be a column here: {self._columns()}")
            if column.kind == "missing":
                return np.zeros(self.table.num_rows, dtype=bool)
            if column.kind not in _SCALAR_KINDS:
                raise InvalidInput(
                    f"`{part}`: column {column.name!r} holds {column.values.type}; write `value in column`"
                )
            inside = np.zeros(self.table.num_rows, dtype=bool)
            for element in right.elts:
                constant = self._constant(element)
                if constant is None:
                    raise self._refuse(element)
                inside |= _truth(pc.equal(column.values, self._scalar(part, column, constant)))
        else:
            needle, column = self._constant(left), self._column(right)
            if needle is None or column is None:
                raise InvalidInput(f"`{part}`: write `column in (values)` or `value in column`")
            if column.kind == "string" and needle.kind == "string":
                inside = _truth(pc.match_substring(column.values, pattern=needle.value))
            elif column.kind == "missing":
                inside = np.zeros(self.table.num_rows, dtype=bool)
            elif column.kind == "list":
                inside = self._in_list(part, column, needle)
            else:
                raise InvalidInput(
                    f"`{part}` looks for a {needle.kind} in column {column.name!r}, which holds {column.values.type}; "
                    "`value in column` needs a list column, or a string in a string column"
                )
        present = np.asarray(pc.is_valid(column.values))
        return present & ~inside if negated else inside

    def _in_list(self, part: str, column: _Column, needle: _Constant) -> np.ndarray:
        inside = np.zeros(self.table.num_rows, dtype=bool)
        start = 0
        for chunk in column.values.chunks:
            elements = chunk.flatten()
            member = _Column(column.name, *_typed(pa.chunked_array([elements])))
            hits = _truth(pc.equal(member.values, self._scalar(part, member, needle)))
            inside[start + np.asarray(pc.list_parent_indices(chunk))[hits]] = True
            start += len(chunk)
        return inside

    def _operand(self, node: ast.expr, part: str) -> _Column | _Constant:
        operand = self._column(node) or self._constant(node)
        if operand is None:
            if isinstance(node, ast.Constant) and node.value is None:
                raise InvalidInput(f"`{part}`: a missing value is tested with `is None` or `is not None`")
            raise self._refuse(node)
        return operand

    def _column(self, node: ast.expr) -> _Column | None:
        if isinstance(node, ast.Name):
            name = node.id
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "col"
            and len(node.args) == 1
            and not node.keywords
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, str)
        ):
            name = node.args[0].value
        else:
            return None
        names = self.table.column_names
        if name not in names:
            # Python normalises identifiers (NFKC); the column may be written otherwise.
            same = [other for other in names if unicodedata.normalize("NFKC", other) == name]
            if len(same) != 1:
                raise InvalidInput(
                    f"where names the column {name!r}, which is not there; the columns are {self._columns(name)}"
                )
            name = same[0]
        return _Column(name, *_typed(self.table.column(name)))

    def _constant(self, node: ast.expr) -> _Constant | None:
        sign = 1
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            node, sign = node.operand, -1
            if not isinstance(node, ast.Constant) or isinstance(node.value, bool | str):
                return None
        if not isinstance(node, ast.Constant):
            return None
        value = node.value
        if isinstance(value, bool):
            return _Constant(value, "boolean")
        if isinstance(value, int | float):
            if isinstance(value, int) and sign * value not in _INT64:
                raise InvalidInput(f"the number {_short(self._text(node))} is too large; numbers must fit into 64 bits")
            return _Constant(sign * value, "number")
        return _Constant(value, "string") if isinstance(value, str) else None

    def _scalar(self, part: str, column: _Column, constant: _Constant) -> pa.Scalar:
        """The constant as a scalar that the column can be compared with."""
        try:
            if column.kind == "date" and constant.kind == "string":
                return _moment(constant.value, column.values.type)
            self._same_kind(part, column, constant)
            return pa.scalar(constant.value)
        except UnicodeEncodeError as error:
            raise InvalidInput(f"`{part}`: the string is not valid text: {error}") from error
        except (ValueError, pa.ArrowInvalid) as error:
            if isinstance(error, InvalidInput):
                raise
            raise InvalidInput(
                f"`{part}`: {error}; dates are written as '2026-11-24' or '2026-11-24T18:30:00'"
            ) from error

    def _same_kind(self, part: str, column: _Column, other: _Column | _Constant) -> None:
        if column.kind != other.kind:
            found = other.values.type if isinstance(other, _Column) else f"the {other.kind} {_short(repr(other.value))}"
            raise InvalidInput(
                f"`{part}` compares column {column.name!r} of type {column.values.type} (a {column.kind}) "
                f"with {found}; compare it with a {column.kind}"
            )

    def _refuse(self, node: ast.expr) -> InvalidInput:
        return InvalidInput(f"`{_short(self._text(node))}` ({type(node).__name__}) is not allowed in where; {_ALLOWED}")

    def _text(self, node: ast.expr) -> str:
        return ast.get_source_segment(self.source, node) or type(node).__name__

    def _columns(self, name: str = "") -> str:
        names = closest_first(name, self.table.column_names) if name else self.table.column_names
        return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def _typed(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, str]:
    """The values with every missing one as null, and their kind."""
    values = plain_layout(values)
    found, types = values.type, pa.types
    if types.is_string(found) or types.is_large_string(found):
        return values, "string"
    if types.is_boolean(found):
        return values, "boolean"
    if types.is_floating(found):
        return pc.if_else(pc.is_nan(values), None, values), "number"
    if types.is_integer(found) or types.is_decimal(found):
        return values, "number"
    if types.is_date(found) or types.is_timestamp(found):
        return values, "date"
    if types.is_list(found) or types.is_large_list(found) or types.is_fixed_size_list(found):
        return values, "list"
    return values, "missing" if types.is_null(found) else "other"


def _moment(text: str, target: pa.DataType) -> pa.Scalar:
    moment = datetime.datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC)
    elif pa.types.is_timestamp(target) and target.tz is not None:
        moment = moment.replace(tzinfo=datetime.UTC)
    if pa.types.is_date(target):
        return pa.scalar(moment.date(), pa.date32())
    return pa.scalar(moment if target.tz is not None else moment.replace(tzinfo=None))


def _truth(values: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.fill_null(values, False), dtype=bool)


def _symbol(op: ast.cmpop) -> str:
    symbols: dict[type[ast.cmpop], str] = {
        ast.Eq: "==",
        ast.NotEq: "!=",
        ast.Lt: "<",
        ast.LtE: "<=",
        ast.Gt: ">",
        ast.GtE: ">=",
        ast.Is: "is",
        ast.IsNot: "is not",
        ast.In: "in",
        ast.NotIn: "not in",
    }
    return symbols[type(op)]


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:80] + "..."
