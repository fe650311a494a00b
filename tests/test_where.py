"""where: equal to Python's own answer on small tables, and closed to everything else."""

import datetime
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_mf.data.where import MAX_LENGTH, row_mask
from geo_mf.errors import InvalidInput

Row = dict[str, Any]
Expression = tuple[str, Callable[[Row], bool]]

NUMBERS = st.integers(-3, 3)
WORDS = st.sampled_from(["", "a", "ab", "'", '"', "é", "1"])
SCHEMA = pa.schema(
    {"year": pa.int64(), "word": pa.string(), "price": pa.float64(), "ok": pa.bool_(), "tags": pa.list_(pa.string())}
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "year": st.none() | NUMBERS,
            "word": st.none() | WORDS,
            "price": st.none() | st.sampled_from([-1.5, 0.0, 2.0, math.nan]),
            "ok": st.none() | st.booleans(),
            "tags": st.none() | st.lists(st.none() | WORDS, max_size=3),
        }
    ),
    max_size=12,
)
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def present(value: Any) -> bool:
    return value is not None and value == value


def bytes_of(value: Any) -> Any:
    """Strings are ordered by their UTF-8 bytes."""
    return value.encode() if isinstance(value, str) else value


@st.composite
def atoms(draw: st.DrawFn) -> Expression:
    column = draw(st.sampled_from(["year", "word", "price"]))
    constants = {"year": NUMBERS, "word": WORDS, "price": st.sampled_from([-1.5, 0.0, 2])}[column]
    constant, other = draw(constants), draw(constants)
    symbol, second = draw(st.sampled_from(sorted(COMPARE))), draw(st.sampled_from(sorted(COMPARE)))
    test, again = COMPARE[symbol], COMPARE[second]
    word = draw(WORDS)

    def holds(row: Row, check: Callable[[Any, Any], bool], *, mirrored: bool = False) -> bool:
        if not present(row[column]):
            return False
        a, b = bytes_of(row[column]), bytes_of(constant)
        return check(b, a) if mirrored else check(a, b)

    choices: list[Expression] = [
        (f"{column} {symbol} {constant!r}", lambda row: holds(row, test)),
        (f"{constant!r} {symbol} {column}", lambda row: holds(row, test, mirrored=True)),
        (
            f"{constant!r} {symbol} {column} {second} {other!r}",
            lambda row: holds(row, test, mirrored=True) and again(bytes_of(row[column]), bytes_of(other)),
        ),
        (f"{column} is None", lambda row: not present(row[column])),
        (f"{column} is not None", lambda row: present(row[column])),
        (f"{column} in ({constant!r}, {other!r})", lambda row: row[column] in (constant, other)),
        (f"{column} not in [{constant!r}]", lambda row: present(row[column]) and row[column] != constant),
        (f"{column} in ()", lambda row: False),
        (f"{word!r} in word", lambda row: row["word"] is not None and word in row["word"]),
        (f"{word!r} not in word", lambda row: row["word"] is not None and word not in row["word"]),
        (f"{word!r} in tags", lambda row: row["tags"] is not None and word in row["tags"]),
        (f"{word!r} not in tags", lambda row: row["tags"] is not None and word not in row["tags"]),
        ("ok", lambda row: row["ok"] is True),
        ("ok == False", lambda row: row["ok"] is False),
        (
            f"year {symbol} price",
            lambda row: present(row["year"]) and present(row["price"]) and test(row["year"], row["price"]),
        ),
    ]
    return draw(st.sampled_from(choices))


def compound(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    def both(a: Expression, b: Expression) -> Expression:
        return f"({a[0]} and {b[0]})", lambda row: a[1](row) and b[1](row)

    def either(a: Expression, b: Expression) -> Expression:
        return f"({a[0]} or {b[0]})", lambda row: a[1](row) or b[1](row)

    def negated(a: Expression) -> Expression:
        return f"(not {a[0]})", lambda row: not a[1](row)

    return st.one_of(st.builds(both, inner, inner), st.builds(either, inner, inner), st.builds(negated, inner))


@given(ROWS, st.recursive(atoms(), compound, max_leaves=5), st.integers(0, 3))
@settings(deadline=None)
def test_the_mask_is_what_python_would_say(rows: list[Row], expression: Expression, cut: int) -> None:
    where, holds = expression
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    expected = [holds(row) for row in rows]
    mask = row_mask(where, table)
    assert mask.dtype == bool and mask.tolist() == expected
    pieces = pa.concat_tables([table.slice(0, cut), table.slice(cut)])  # several chunks, with offsets
    assert row_mask(where, pieces).tolist() == expected


MOVIES = pa.table(
    {
        "year": pa.array([1990, None, 2000], pa.int16()),
        "genre": pa.array(["drama", None, "comedy"]).dictionary_encode(),
        "day": pa.array([datetime.date(2020, 1, 1), None, datetime.date(2021, 1, 1)]),
        "seen": pa.array(
            [datetime.datetime(2020, 1, 1), None, datetime.datetime(2021, 1, 1)], pa.timestamp("ms", "UTC")
        ),
        "local": pa.array([datetime.datetime(2020, 1, 1), None, datetime.datetime(2021, 1, 1)], pa.timestamp("s")),
        "scores": pa.array([[1, 2], None, [3]], pa.list_(pa.int32())),
        "pair": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2)),
        "nothing": pa.nulls(3),
        "a name, with spaces": ["x", "y", "z"],
        "cafe\u0301": [1, 2, 3],
        "place": [{"x": 1}, {"x": 2}, {"x": 3}],
    }
)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("1990 <= year < 2000", [1, 0, 0]),
        ("genre == 'drama'", [1, 0, 0]),
        ("'ram' in genre", [1, 0, 0]),
        ("day >= '2020-06-01'", [0, 0, 1]),
        ("day in ('2020-01-01', '2022-01-01')", [1, 0, 0]),
        ("seen == '2020-01-01T01:00:00+01:00'", [1, 0, 0]),
        ("seen > '2020-01-01'", [0, 0, 1]),
        ("local <= '2020-01-01T00:00:00'", [1, 0, 0]),
        ("2 in scores", [1, 0, 0]),
        ("2 not in scores", [0, 0, 1]),
        ("4 in pair", [0, 0, 1]),
        ("nothing is None", [1, 1, 1]),
        ("nothing == 1 or nothing in ('a',) or 2 in nothing or year == nothing", [0, 0, 0]),
        ("col('a name, with spaces') == 'y'", [0, 1, 0]),
        ("cafe\u0301 == 2", [0, 1, 0]),
        ("caf\u00e9 == 2", [0, 1, 0]),
        ("  year == 1990\n", [1, 0, 0]),
        ("year == -1990", [0, 0, 0]),
        ("year not in ()", [1, 0, 1]),
        ("place is not None", [1, 1, 1]),
    ],
)
def test_examples(where: str, expected: list[int]) -> None:
    assert row_mask(where, MOVIES).astype(int).tolist() == expected


REFUSED = {
    "__import__('os')": r"`__import__\('os'\)` \(Call\) is not allowed",
    "open('x')": "is not allowed",
    "col('year', 1) == 1": "is not allowed",
    "col(year) == 1": "is not allowed",
    "year.real == 1": r"`year.real` \(Attribute\)",
    "year[0] == 1": "Subscript",
    "year + 1 == 2": "BinOp",
    "+1 == year": "UnaryOp",
    "~year": "UnaryOp",
    "lambda: 1": "Lambda",
    "[x for x in genre]": "ListComp",
    "(x := 3) == 3": "NamedExpr",
    "f'{genre}' == 'x'": "JoinedStr",
    "year if True else genre": "IfExp",
    "b'x' == genre": r"`b'x'` \(Constant\)",
    "year == 1j": r"`1j` \(Constant\)",
    "year == ...": "Constant",
    "year in (None,)": r"`None` \(Constant\)",
    "True": r"`True` \(Constant\)",
    "1 < 2": "compares two constants; one side must be a column: year, genre",
    "year = 1990": "equality is written ==",
    "year === 1990": "cannot be read",
    "year; year": "cannot be read",
    "import os": "cannot be read",
    "year == 1\0": "cannot be read",
    "": "where is empty",
    "   ": "where is empty",
    "yeer == 1990": "column 'yeer', which is not there; the columns are year, ",
    "col('Genre') == 'x'": "column 'Genre', which is not there; the columns are genre, ",
    "year == '1990'": r"'year' of type int16 \(a number\) with the string '1990'",
    "genre == 1": r"'genre' of type string \(a string\) with the number 1",
    "year == True": "with the boolean True",
    "year == genre": r"\(a number\) with string",
    "year": "'year' holds int16, not true or false",
    "year == None": "tested with `is None`",
    "year is 1990": "`is` compares a column with None",
    "year is genre": "`is` compares a column with None",
    "scores == 1": "use a value `in` it",
    "scores in (1, 2)": "write `value in column`",
    "place == 1": "only `is None` works on it",
    "'x' in scores": "with the string 'x'",
    "1 in genre": "looks for a number",
    "year in genre": "write `column in",
    "1 in (1, 2)": "must be a column here",
    "day == 'yesterday'": "dates are written as",
    "year == 99999999999999999999": "too large",
    "genre == '\\ud800'": "not valid text",
    "genre == 1 and yeer == 2": "'genre' of type string",
    "not " * 60 + "year == 1": "nested too deeply",
    "not " * 1000 + "ok": "nested too deeply",
    "-" * 4000 + "1 == year": "nested too deeply|UnaryOp",
    "(" * 1000 + "year" + ")" * 1000: "cannot be read|nested too deeply",
    "year == 1" + " " * MAX_LENGTH: "at most 4096",
}


@pytest.mark.parametrize("where", REFUSED, ids=lambda where: where[:30])
def test_everything_else_is_refused_by_name(where: str) -> None:
    with pytest.raises(InvalidInput, match=REFUSED[where]) as caught:
        row_mask(where, MOVIES)
    assert len(str(caught.value)) < 700
    with pytest.raises(InvalidInput):
        row_mask(where, MOVIES.slice(0, 0))  # also when there are no rows


@given(st.text(max_size=30) | st.text(alphabet="yeargn()'<=>!andoti 0123,.[]", max_size=40))
@settings(deadline=None)
def test_any_text_gives_a_mask_or_invalid_input(where: str) -> None:
    try:
        mask = row_mask(where, MOVIES)
    except InvalidInput:
        return
    assert mask.shape == (3,) and mask.dtype == bool


def test_where_must_be_text() -> None:
    with pytest.raises(InvalidInput, match="must be a string .* got ndarray"):
        row_mask(np.ones(3), MOVIES)  # pyright: ignore[reportArgumentType]


def test_fifty_levels_are_allowed() -> None:
    assert row_mask("not " * 50 + "year == 1990", MOVIES).tolist() == [True, False, False]
