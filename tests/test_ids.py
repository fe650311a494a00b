"""IdMap: ids keep their identity, and rows are what was asked for."""

import datetime
import decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_mf.data.ids import IdMap
from geo_mf.errors import InvalidInput, UnknownId

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
BINARY = st.binary(max_size=8)
DATES = st.dates()
COLUMNS = st.one_of(*(st.lists(kind, min_size=1, max_size=40) for kind in (TEXT, INTEGERS, BINARY, DATES)))

NFC, NFD = "caf\u00e9", "cafe\u0301"


@given(COLUMNS)
@settings(deadline=None)
def test_encode_then_take_gives_the_values_back(values: list[object]) -> None:
    ids, rows = IdMap.encode(values)
    assert rows.dtype == np.int32
    assert ids.take(rows) == values
    assert ids.ids.to_pylist() == list(dict.fromkeys(values))  # order of first appearance


@given(COLUMNS)
@settings(deadline=None)
def test_each_id_finds_its_own_row_alone_and_in_bulk(values: list[object]) -> None:
    unique = list(dict.fromkeys(values))
    ids = IdMap(unique)
    expected = list(range(len(unique)))
    assert [ids.row(value) for value in unique] == expected
    assert ids.rows(unique).tolist() == expected
    assert [ids.id(row) for row in expected] == unique
    assert all(value in ids for value in unique)
    many = unique * 1_100  # above the size where Arrow looks up, not the dict
    assert ids.rows(many).tolist() == expected * 1_100


@given(st.lists(st.one_of(TEXT, INTEGERS.map(str)), max_size=20), st.lists(TEXT, max_size=20))
@settings(deadline=None)
def test_small_and_bulk_lookups_agree(known: list[str], asked: list[str]) -> None:
    ids = IdMap(list(dict.fromkeys(known)))
    position = {value: row for row, value in enumerate(ids.ids.to_pylist())}
    expected = [position.get(value, -1) for value in asked]
    assert ids.rows_or_missing(asked).tolist() == expected
    assert ids.rows_or_missing(asked * 1_100).tolist() == expected * 1_100


def test_strings_are_compared_byte_for_byte() -> None:
    look_alikes = [
        "01",
        "1",
        " 1",
        "1 ",
        "",
        NFC,
        NFD,
        "\U0001f600",
        "null",
        "None",
        "nan",
        "a\x00b",
        "a",
        "x" * 10_000,
    ]
    ids = IdMap(look_alikes)
    assert len(ids) == len(look_alikes)
    assert [ids.row(value) for value in look_alikes] == list(range(len(look_alikes)))


@pytest.mark.parametrize("asked", [1, True, 1.0, b"1", None, datetime.date(2026, 1, 1)])
def test_a_string_map_holds_no_value_of_another_type(asked: object) -> None:
    ids = IdMap(["1", "True", "1.0", "None", "2026-01-01"])
    assert asked not in ids
    with pytest.raises(UnknownId):
        ids.row(asked)


@pytest.mark.parametrize("asked", ["1", True, 1.0, b"1", None, 2**70])
def test_an_integer_map_holds_no_value_of_another_type(asked: object) -> None:
    ids = IdMap([1, 2])
    assert asked not in ids
    with pytest.raises(UnknownId):
        ids.row(asked)


def test_unknown_ids_are_explained() -> None:
    with pytest.raises(UnknownId, match=r"ids here are integers: pass 42, not '42'"):
        IdMap([41, 42]).row("42")
    with pytest.raises(UnknownId, match=r"ids here are strings: pass '42', not 42"):
        IdMap(["42"]).row(42)
    with pytest.raises(UnknownId, match=r"unknown id 'b'; ids here are strings, such as 'a'"):
        IdMap(["a"]).row("b")
    with pytest.raises(UnknownId, match=r"7 of 8 ids are unknown: '0', '1', '2', '3', '4' and 2 more"):
        IdMap(["a"]).rows(["a", *"0123456"])
    with pytest.raises(UnknownId, match=r"pass 2, not '2'"):
        IdMap([1, 2]).rows(["2"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], "got double.*astype"),
        ([True, False], "got bool; convert them to strings"),
        ([[1], [2]], "got list"),
        ([None, None], "got null"),
        (["a", None], "position 1"),
        (["a", 1], "one type"),
        ([1, "a"], "one type"),
        ("abc", "single value 'abc'"),
        (["a", "b", "c", "b"], "'b' stands at position 1 and again at position 3"),
        (pd.Series([1, None, 2]), "integers with missing values become floats in pandas"),
        ([datetime.datetime(2026, 1, 1)], "got timestamp"),
        (np.eye(2), "one column"),
        ([decimal.Decimal(10**30), decimal.Decimal(-1)], "fit into 64 bits"),
        ([decimal.Decimal("1.5")], r"got decimal128\(2, 1\)"),
        (["\ud800"], "surrogates"),
        (pa.array(["a"]).view(pa.binary()).view(pa.string()).slice(0, 1), None),
    ],
)
def test_what_cannot_be_an_id_is_refused_with_a_remedy(values: object, message: str | None) -> None:
    if message is None:
        assert len(IdMap(values)) == 1  # pyright: ignore[reportArgumentType]
        return
    with pytest.raises(InvalidInput, match=message):
        IdMap(values)  # pyright: ignore[reportArgumentType]


def test_invalid_utf8_is_refused() -> None:
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array(["ab"]).buffers()[:2] + [pa.py_buffer(b"\xff\xfe")])
    with pytest.raises(InvalidInput, match="valid UTF-8"):
        IdMap(broken)


@pytest.mark.parametrize(
    "column",
    [
        ["a", "b"],
        np.array(["a", "b"]),
        np.array(["a", "b"], dtype=object),
        pa.array(["a", "b"], type=pa.large_string()),
        pa.array(["a", "b"], type=pa.string_view()),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.chunked_array([["a"], ["b"]]),
        pd.Series(["a", "b"]),
        pd.Series(["a", "b"], dtype=object),
        pd.Series(["a", "b"], dtype="category"),
        pl.Series(["a", "b"]),
        pl.Series(["a", "b"], dtype=pl.Categorical),
    ],
)
def test_every_layout_of_strings_is_one_type(column: object) -> None:
    assert IdMap(column) == IdMap(["a", "b"])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", ">i4"])
def test_every_width_of_integers_is_one_type(dtype: str) -> None:
    assert IdMap(np.array([3, 1, 2], dtype=dtype)) == IdMap([3, 1, 2])


def test_uint64_stays_only_where_it_must() -> None:
    big = IdMap([2**63, 1])
    assert big.type == pa.uint64()
    assert big.row(2**63) == 0
    assert big.rows_or_missing([1, -1]).tolist() == [1, -1]
    assert big.rows_or_missing([1, -1] * 1_000).tolist() == [1, -1] * 1_000
    assert IdMap([1, -1]).rows_or_missing(np.array([2**63 + 1, 1] * 1_000, dtype=np.uint64)).tolist() == [-1, 0] * 1_000


def test_whole_decimals_are_integers() -> None:
    assert IdMap([decimal.Decimal(7), decimal.Decimal(42)]) == IdMap([7, 42])  # duckdb sums are decimals


def test_maps_are_equal_by_type_and_content() -> None:
    assert IdMap(["1"]) != IdMap([1])
    assert IdMap(["a", "b"]) != IdMap(["b", "a"])
    assert hash(IdMap(["a"])) == hash(IdMap(["a"]))


def test_an_empty_map_works() -> None:
    empty, rows = IdMap.encode([])
    assert len(empty) == 0 and rows.tolist() == []
    assert empty.rows([]).tolist() == []
    assert empty.take([]) == []
    with pytest.raises(UnknownId, match="none yet"):
        empty.row("a")


@pytest.mark.parametrize("row", [-1, 2])
def test_a_row_that_does_not_exist_is_refused(row: int) -> None:
    ids = IdMap(["a", "b"])
    with pytest.raises(InvalidInput, match=rf"row {row} does not exist; .* 0 to 1"):
        ids.take([0, row])
    with pytest.raises(InvalidInput, match="does not exist"):
        ids.id(row)


def test_parse_turns_a_word_into_an_id_of_this_map() -> None:
    assert IdMap(["01"]).parse("01") == "01"
    assert IdMap([1]).parse("-7") == -7
    assert IdMap([b"a"]).parse("a") == b"a"
    assert IdMap([datetime.date(2026, 1, 1)]).parse("2026-11-24") == datetime.date(2026, 11, 24)


@pytest.mark.parametrize("word", ["01", "1.0", " 1", "1_000", "one", "", "-0", "\u0661"])
def test_parse_refuses_what_is_not_an_integer(word: str) -> None:
    with pytest.raises(UnknownId, match="they are integers, such as 1"):
        IdMap([1]).parse(word)


def test_parse_refuses_what_is_not_a_date() -> None:
    with pytest.raises(UnknownId, match="they are dates"):
        IdMap([datetime.date(2026, 1, 1)]).parse("2026-02-30")


def test_inputs_are_not_mutated() -> None:
    values = np.array([3, 1, 3])
    IdMap.encode(values)
    assert values.tolist() == [3, 1, 3] and values.flags.writeable


def test_joined_maps_keep_their_rows_and_their_kind() -> None:
    assert IdMap(["a"]).joined(IdMap(["b", "c"])) == IdMap(["a", "b", "c"])
    assert IdMap([]).joined(IdMap([1])) == IdMap([1])
    wide = IdMap([1, 2]).joined(IdMap(pa.array([2**63], pa.uint64())))
    assert wide.row(2**63) == 2 and wide.row(1) == 0
    with pytest.raises(
        InvalidInput, match="the new ids are integers, such as 1, but ids here are strings, such as 'a'"
    ):
        IdMap(["a"]).joined(IdMap([1]))
    with pytest.raises(InvalidInput, match="the new ids do not go with those here"):
        IdMap([-1]).joined(IdMap(pa.array([2**63], pa.uint64())))
    with pytest.raises(InvalidInput, match="ids must be unique, but 'a'"):
        IdMap(["a"]).joined(IdMap(["a"]))


def test_an_id_is_not_cut_at_a_nul() -> None:
    ids = IdMap(np.array(["a\0b", "c", "a"]))
    assert ids.ids.to_pylist() == ["a\0b", "c", "a"]
    assert ids.row("a\0b") == 0
