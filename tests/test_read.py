"""The readers: every row accounted for, ids byte for byte, and one rule wherever the data comes from."""

import collections
import csv
import datetime
import gzip
import io
import itertools
import json
import math
import pathlib
import random
import time
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import geo_mf as gm
from geo_mf.data import delimited
from geo_mf.data.rows import Rejected
from geo_mf.errors import InvalidInput

AWKWARD_IDS = [
    *(
        "01",
        "1",
        "1.0",
        " 1",
        "1 ",
        "\t1",
        "caf\u00e9",
        "cafe\u0301",
        "\U0001f600",
        "\u200f\u05d0",
        "\u200b",
        "a,b",
        'a"b',
    ),
    *(
        '"',
        '""',
        "a\nb",
        "a\r\nb",
        "a\rb",
        "null",
        "None",
        "nan",
        "NA",
        "true",
        "CON",
        "../x",
        "x" * 10_000,
        "\ufeff",
        "a\x00b",
    ),
]
IDS = st.lists(
    st.sampled_from(AWKWARD_IDS) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("read")


def write(path: pathlib.Path, content: str | bytes) -> pathlib.Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# ---- ids keep their identity -------------------------------------------------------------------------------------


def as_csv(ids: list[str], folder: pathlib.Path) -> pathlib.Path:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerows([["user_id", "item_id"], *([one, one] for one in ids)])
    return write(folder / "ids.csv", text.getvalue())


def as_gzip(ids: list[str], folder: pathlib.Path) -> pathlib.Path:
    return write(folder / "ids.csv.gz", gzip.compress(as_csv(ids, folder).read_bytes()))


def as_parquet(ids: list[str], folder: pathlib.Path) -> pathlib.Path:
    parquet.write_table(pa.table({"user_id": ids, "item_id": ids}), folder / "ids.parquet")
    return folder / "ids.parquet"


def as_json(ids: list[str], folder: pathlib.Path) -> pathlib.Path:
    lines = [json.dumps({"user_id": one, "item_id": one}, ensure_ascii=i % 2 == 0) for i, one in enumerate(ids)]
    return write(folder / "ids.jsonl", "\n".join(lines))


SOURCES: dict[str, Callable[[list[str], pathlib.Path], Any]] = {
    "csv": as_csv,
    "csv.gz": as_gzip,
    "parquet": as_parquet,
    "jsonl": as_json,
    "pyarrow": lambda ids, _: pa.table({"user_id": ids, "item_id": pa.array(ids).dictionary_encode()}),
    "pandas": lambda ids, _: pd.DataFrame({"user_id": ids, "item_id": ids}),
    "pandas object": lambda ids, _: pd.DataFrame({"user_id": ids, "item_id": ids}, dtype=object),
    "pandas categorical": lambda ids, _: pd.DataFrame({"user_id": ids, "item_id": ids}, dtype="category"),
    "polars": lambda ids, _: pl.DataFrame({"user_id": ids, "item_id": pl.Series(ids, dtype=pl.Categorical)}),
    "duckdb": lambda ids, _: duckdb.from_arrow(pa.table({"user_id": ids, "item_id": ids})),
}


@pytest.mark.parametrize("kind", SOURCES)
@given(ids=IDS)
@settings(max_examples=30, deadline=None)
def test_ids_come_back_byte_for_byte(kind: str, folder: pathlib.Path, ids: list[str]) -> None:
    unique = list(dict.fromkeys(ids))
    read = gm.read_interactions(SOURCES[kind](ids, folder))
    assert read.users.ids.to_pylist() == unique
    assert read.items.take(read.item_rows) == unique
    assert read.report.read == len(ids) and read.report.merged == len(ids) - len(unique)
    catalog = gm.read_catalog(SOURCES[kind](unique, folder))
    assert catalog.items.ids.to_pylist() == unique
    assert catalog.table.column("item_id").to_pylist() == unique


@pytest.mark.parametrize("kind", SOURCES)
def test_all_awkward_ids_at_once(kind: str, folder: pathlib.Path) -> None:
    read = gm.read_interactions(SOURCES[kind](AWKWARD_IDS, folder))
    assert read.users.take(range(len(AWKWARD_IDS))) == AWKWARD_IDS


def test_integer_ids_stay_integers_except_in_csv(folder: pathlib.Path) -> None:
    frame = pd.DataFrame({"user_id": np.array([7, 8], dtype="int32"), "item_id": [1, 2]})
    assert gm.read_interactions(frame).users.ids.to_pylist() == [7, 8]
    lines = write(folder / "int.jsonl", '{"user_id": 7, "item_id": "01"}\n{"user_id": 8, "item_id": "1"}\n')
    read = gm.read_interactions(lines)
    assert read.users.ids.to_pylist() == [7, 8] and read.items.ids.to_pylist() == ["01", "1"]
    frame.to_csv(folder / "int.csv", index=False)
    assert gm.read_interactions(folder / "int.csv").users.ids.to_pylist() == ["7", "8"]


def test_float_ids_are_refused_with_the_remedy(folder: pathlib.Path) -> None:
    with pytest.raises(InvalidInput, match=r"user ids \(user_id\) .* double.*astype\('int64'\)"):
        gm.read_interactions(pd.DataFrame({"user_id": [1.0, None], "item_id": [1, 2]}))
    with pytest.raises(InvalidInput, match=r"item ids \(item_id\) .* got bool"):
        gm.read_catalog(pl.DataFrame({"item_id": [True, False]}))


def test_mixed_types_in_one_column_are_refused(folder: pathlib.Path) -> None:
    lines = write(folder / "mix.jsonl", '\n{"user_id": 1, "item_id": 1}\n{"user_id": "01", "item_id": 2}\n')
    with pytest.raises(InvalidInput, match="'user_id' mixes strings and integers: line 3 has '01', line 2 has 1"):
        gm.read_interactions(lines)
    with pytest.raises(InvalidInput, match="one type"):
        gm.read_interactions(pd.DataFrame({"user_id": [1, "a"], "item_id": [1, 2]}))


# ---- CSV: accepted + rejected = read ------------------------------------------------------------------------------


def test_a_file_with_every_malformation_is_accounted_for(folder: pathlib.Path) -> None:
    n = 100_000
    kinds: dict[str, bytes] = {  # the malformed rows, with the reason expected for each
        "unclosed quote": b'u%d,"i%d,1,964982703,x',
        "invalid UTF-8": b"u%d,i\xff%d,1,964982703,x",
        "text after a closing quote": b'u%d,"i"%d,1,964982703,x',
        "4 cells, expected 5": b"u%d,i%d,1,964982703",
        "more than 5 cells": b"u%d,i%d,1,964982703,x,y",
        "empty user id": b",i%d%d,1,964982703,x",
        "empty item id": b"u%d%d,,1,964982703,x",
        "empty weight": b"u%d,i%d,,964982703,x",
        "weight is NaN": b"u%d,i%d,NaN,964982703,x",
        "weight is infinite": b"u%d,i%d,1e39,964982703,x",
        "weight is not a number": b"u%d,i%d,1_0,964982703,x",
        "negative weight": b"u%d,i%d,-1,964982703,x",
        "empty datetime": b"u%d,i%d,1,,x",
        "not a datetime": b"u%d,i%d,1,yesterday,x",
        "datetime out of range": b"u%d,i%d,1,2026-02-30,x",
    }
    good = [
        b"u%d,i%d,1,964982703,x",
        b'"u%d","i%d","1","2026-11-24T18:30:00Z","x"',
        b'u%d,i%d,0.5,2026-11-24,"a note, with ""quotes"""',
        b'u%d,i%d,2,964982703,"two\r\nlines"',
        b'u%d,"i\n%d",3,964982703,5" disk',
        b"u%d,i%d,+1e0,964982703, spaces ",
    ]
    random_ = random.Random(0)
    lines, line, expected, accepted = [b"\xef\xbb\xbfuser_id,item_id,weight,datetime,note"], 2, [], []
    for i in range(n):
        reason = random_.choice(sorted(kinds)) if random_.random() < 0.1 else None
        row = (kinds[reason] if reason else good[i % len(good)]) % (i % 700, i)
        lines.append(row)
        if reason:
            expected.append((line, reason))
        else:
            accepted.append(row)
        line += 1 + row.count(b"\n")
        if i % 1_000 == 0:
            lines += [b"", lines[-1]]  # an empty line, which is no row, and a duplicate
            line += 1
            if reason:
                expected.append((line, reason))
            else:
                accepted.append(row)
            line += 1 + row.count(b"\n")
    path = write(folder / "all.csv", b"\r\n".join(lines))

    started = time.process_time()
    read = gm.read_interactions(path, max_bad_rows=-1)
    assert time.process_time() - started < 10  # seconds, about one on a common machine
    report = read.report
    assert report.read == n + n // 1_000
    assert report.accepted == len(accepted)
    assert report.rejected == collections.Counter(reason for _, reason in expected)
    assert [(bad.line, bad.reason) for bad in report.bad_rows] == expected[:20]
    assert len(read) == report.accepted - report.merged and report.merged > 0
    assert "i\n4" in read.items and "i4" not in read.items

    compressed = write(folder / "all.csv.gz", gzip.compress(path.read_bytes(), 1))
    assert gm.read_interactions(compressed, max_bad_rows=-1).report == report
    with pytest.raises(InvalidInput, match=rf"{len(expected):,} of .* rows cannot be used, and max_bad_rows is 0"):
        gm.read_interactions(path)
    assert gm.read_interactions(path, max_bad_rows=len(expected)).report == report
    with pytest.raises(InvalidInput, match="--max-bad-rows"):
        gm.read_interactions(path, max_bad_rows=len(expected) - 1)


CSV_BYTES = st.lists(
    st.sampled_from([b"a", b"b", b",", b",", b'"', b'""', b"\n", b"\n", b"\r\n", b"\r", b"\xff", b"\xc3\xa9"])
)


@given(CSV_BYTES)
@settings(deadline=None)
def test_the_fast_parser_says_what_the_careful_one_says(parts: list[bytes]) -> None:
    data = b"".join(parts)
    form = delimited._format(b",", 2)
    fast = delimited._plain(data, 0, len(data), form)
    rejected = Rejected()
    careful, lines, end, _ = delimited._careful(data, 0, len(data), 1, form, rejected)
    assert end >= len(data)
    if fast is not None:
        assert rejected.total() == 0
        assert careful.to_pylist() == fast.to_pylist()
        assert lines.tolist() == list(range(1, fast.num_rows + 1))


@given(CSV_BYTES)
@example([b"\xff", b",", b'"', b"\n", b'"'])
@settings(deadline=None)
def test_no_line_is_lost(parts: list[bytes]) -> None:
    """Each line that is not empty lies in exactly one row, accepted or rejected."""
    data = b"a,b\n" + b"".join(parts)
    rows = delimited.parse_delimited(data, b",")
    starts = sorted([*rows.numbers.tolist(), *(bad.line for bad in rows.rejected.first)])
    assert rows.rejected.total() == len(rows.rejected.first) or len(rows.rejected.first) == 20
    assert len(set(starts)) == len(starts)
    if rows.rejected.total() == len(rows.rejected.first):
        covered = set(starts)
        for number, row in zip(rows.numbers.tolist(), rows.table.to_pylist(), strict=True):
            covered |= {number + i for i in range(1 + sum(cell.count("\n") for cell in row.values()))}
        lines = data.split(b"\n")
        for bad in rows.rejected.first:
            if bad.reason == "invalid UTF-8":  # told of a whole row, which may hold line breaks in quotes
                start = sum(len(line) + 1 for line in lines[: bad.line - 1])
                _, _, end = delimited._record(data, start, delimited._format(b",", 2))
                covered |= {bad.line + i for i in range(data[start:end].rstrip(b"\n").count(b"\n") + 1)}
        assert {i for i, line in enumerate(lines, 1) if line.removesuffix(b"\r")} - {1} <= covered


@given(
    st.lists(st.tuples(*[st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=6)] * 3))
)
@settings(deadline=None)
def test_what_the_csv_module_writes_is_read(rows: list[tuple[str, str, str]]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([("a", "b", "c"), *rows])
    read = delimited.parse_delimited(text.getvalue().encode(), b",")
    assert read.rejected.total() == 0
    assert [tuple(row.values()) for row in read.table.to_pylist()] == rows


def test_an_unclosed_quote_costs_one_line(folder: pathlib.Path) -> None:
    path = write(folder / "open.csv", 'user_id,item_id\na,1\nb,"2\nc,3\nd,"4"\ne,5\nf,"6\n')
    read = gm.read_interactions(path, max_bad_rows=2)
    assert read.users.ids.to_pylist() == ["a", "c", "d", "e"]
    assert [(bad.line, bad.reason, bad.text) for bad in read.report.bad_rows] == [
        (3, "unclosed quote", 'b,"2'),
        (7, "unclosed quote", 'f,"6'),
    ]


@pytest.mark.parametrize("row", [b'a","b', b'1,"', b'"a""', b'a,"b', b'""",', b'"'])
def test_stray_quotes_do_not_make_reading_quadratic(row: bytes) -> None:
    data = b"a,b\n" + (row + b"\n") * 50_000
    started = time.process_time()
    rows = delimited.parse_delimited(data, b",")
    assert time.process_time() - started < 5
    assert rows.table.num_rows + rows.rejected.total() > 0


def test_one_bad_row_does_not_slow_the_rest(folder: pathlib.Path) -> None:
    data = b"a,b\n" + b'1,"x\n' + b"100,200\n" * 500_000
    started = time.process_time()
    rows = delimited.parse_delimited(data, b",")
    assert time.process_time() - started < 2.5  # 200,000 rows a second, with much to spare
    assert rows.table.num_rows == 500_000 and rows.numbers[-1] == 500_002


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf\r\n\r\n", "the file is empty"),
        ("user_id,item_id\n1,2\n".encode("utf-16"), "UTF-16"),
        (b'user_id,"item_id\n1,2\n', "the first line must name the columns, but it has: unclosed quote"),
        (b"user_id,item_\xff\n", "the first line is not UTF-8"),
        (b"user_id,item_id,item_id\n1,2,3\n", "column 'item_id' 2 times"),
        (b"user_id;item_id\n1;2\n", "the columns are 'user_id;item_id'"),
    ],
)
def test_a_file_that_cannot_be_a_table_is_refused(folder: pathlib.Path, content: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        gm.read_interactions(write(folder / "bad.csv", content))


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_every_kind_of_line_end(folder: pathlib.Path, ends: str, last: bool) -> None:
    path = write(folder / "ends.csv", ends.join(["user_id,item_id", "a,1", "b,2"]) + (ends if last else ""))
    read = gm.read_interactions(path)
    assert read.items.ids.to_pylist() == ["1", "2"]


def test_tsv_and_header_only(folder: pathlib.Path) -> None:
    assert gm.read_interactions(write(folder / "x.TSV", "user_id\titem_id\na,b\t1\n")).users.ids.to_pylist() == ["a,b"]
    empty = gm.read_interactions(write(folder / "x.csv", "user_id,item_id\n"))
    assert len(empty) == 0 and empty.report.read == 0


# ---- other sources -------------------------------------------------------------------------------------------------


def test_json_lines_are_accounted_for(folder: pathlib.Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"user_id": "a", "item_id": 1, "weight": 2}',
        b'{"user_id": "b", "item_id": 2',
        b"[1, 2]",
        b'{"user_id": "c", "weight": 1}',
        b'{"user_id": null, "item_id": 3, "weight": 1}',
        b'{"user_id": "d", "item_id": 4.5, "weight": 1}',
        b'{"user_id": "d", "item_id": true, "weight": 1}',
        b'{"user_id": "\\ud800", "item_id": 5, "weight": 1}',
        b'{"user_id": "e", "item_id": 99999999999999999999, "weight": 1}',
        b'{"user_id": "f\xff", "item_id": 6, "weight": 1}',
        b"",
        b'{"user_id": "g", "item_id": 7, "weight": NaN}',
        b'{"user_id": "g", "item_id": 7, "weight": "3.5"}',
        b'{"user_id": "g", "item_id": 8, "weight": [1]}',
        b"[" * 100_000,
    ]
    read = gm.read_interactions(write(folder / "bad.ndjson", b"\r\n".join(lines)), max_bad_rows=-1)
    assert read.users.take(read.user_rows) == ["a", "g"] and read.weights.tolist() == [2, 3.5]
    assert [(bad.line, bad.reason) for bad in read.report.bad_rows] == [
        (2, "invalid JSON"),
        (3, "not a JSON object"),
        (4, "empty item id"),
        (5, "empty user id"),
        (6, "item_id: the id is a float, expected a string or an integer"),
        (7, "item_id: the id is a bool, expected a string or an integer"),
        (8, "user_id: the id is not valid text (a lone surrogate)"),
        (9, "item_id: the id is beyond 64 bits, write it as a string"),
        (10, "invalid UTF-8"),
        (12, "weight is NaN"),
        (14, "weight is not a number"),
        (15, "invalid JSON"),
    ]
    assert read.report.read == 14


def test_arrow_rows_are_accounted_for() -> None:
    table = pa.table(
        {
            "user_id": ["a", "", None, "d", "e", "f"],
            "item_id": [1, 2, 3, None, 5, 6],
            "weight": [1.0, 1.0, 1.0, 1.0, math.nan, None],
        }
    )
    report = gm.read_interactions(table, max_bad_rows=5).report
    assert [(bad.line, bad.reason) for bad in report.bad_rows] == [
        (1, "empty user id"),
        (2, "empty user id"),
        (3, "empty item id"),
        (4, "weight is NaN"),
        (5, "empty weight"),
    ]
    assert "row 1: empty user id" in str(report)


def test_a_sparse_matrix_is_read_with_rows_as_ids() -> None:
    read = gm.read_interactions(sp.csr_matrix(np.array([[0, 3.0], [5, 0], [0, 0]])), min_weight=4)
    assert read.users.ids.to_pylist() == [0, 1, 2]
    assert read.to_csr().toarray().tolist() == [[0, 0], [5, 0], [0, 0]]
    assert read.report.below_min_weight == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (5, "cannot read a int; expected a path to .csv"),
        (pl.LazyFrame({"user_id": ["a"]}), "cannot read a LazyFrame"),
        ([("a", "b")], "cannot read a list"),
        (pd.Series([1, 2]), "cannot be read as a table"),
        (pa.table({"user_id": ["a"], "x": [1]}), "no column 'item_id'; the columns are 'user_id', 'x'; .*item_col="),
        (pa.table([["a"], ["b"], ["c"]], names=["user_id", "user_id", "item_id"]), "several columns called 'user_id'"),
    ],
)
def test_other_objects_are_refused(source: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        gm.read_interactions(source)


def test_files_that_are_not_there_or_not_what_they_say(folder: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.csv"):
        gm.read_interactions(folder / "nowhere.csv")
    with pytest.raises(InvalidInput, match="is a folder"):
        gm.read_catalog(folder)
    with pytest.raises(InvalidInput, match="x.xlsx has no format that can be read"):
        gm.read_catalog(write(folder / "x.xlsx", b"PK"))
    with pytest.raises(InvalidInput, match="not a Parquet file"):
        gm.read_catalog(write(folder / "x.parquet", b"PAR1 no PAR1"))
    with pytest.raises(InvalidInput, match="not a whole gzip file"):
        gm.read_catalog(write(folder / "x.csv.gz", gzip.compress(b"item_id\n" + b"a\n" * 9_000)[:40]))


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_missing_column_is_named_with_its_remedy(folder: pathlib.Path, suffix: str) -> None:
    frame = pd.DataFrame({"userId": ["a"], "movieId": ["b"], "rating": [3], "item": ["c"]})
    path = folder / f"missing.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    elif suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)
    with pytest.raises(InvalidInput, match=r"no column 'user_id'; the columns are 'userId', .*--user-col userId"):
        gm.read_interactions(path)
    with pytest.raises(
        InvalidInput, match=r"no column 'stars'; .* name the right one with weight_col= \(--weight-col\)"
    ):
        gm.read_interactions(path, user_col="userId", item_col="movieId", weight_col="stars")
    read = gm.read_interactions(path, user_col="userId", item_col="movieId", weight_col="rating")
    assert read.weights.tolist() == [3] and read.datetimes is None
    with pytest.raises(InvalidInput, match="both 'userId'"):
        gm.read_interactions(path, user_col="userId", item_col="userId")
    with pytest.raises(InvalidInput, match="min_weight needs a weight column"):
        gm.read_interactions(path, user_col="userId", item_col="movieId", min_weight=4)


@pytest.mark.parametrize("limit", [-2, 1.5, True, "3", None])
def test_max_bad_rows_is_checked(limit: Any) -> None:
    with pytest.raises(InvalidInput, match="max_bad_rows must be"):
        gm.read_interactions(pa.table({"user_id": ["a"], "item_id": ["b"]}), max_bad_rows=limit)


# ---- weights and datetimes ------------------------------------------------------------------------------------------


def cells(folder: pathlib.Path, name: str, values: list[str], **options: Any) -> Any:
    rows = [f"u{i},i,{value}\n" for i, value in enumerate(values)]
    return gm.read_interactions(write(folder / "cells.csv", f"user_id,item_id,{name}\n" + "".join(rows)), **options)


def test_weights_are_parsed_strictly(folder: pathlib.Path) -> None:
    good = ["1", "+1", "1.5", ".5", "5.", "1e3", "1E-3", "0", "-0", "007"]
    assert cells(folder, "weight", good).weights.tolist() == pytest.approx([float(value) for value in good])
    for bad in ["one", " 1", "1 ", "1_0", "0x10", "1,5".replace(",", ";"), "--1", "1e", "e1", ".", "\u0661", "1.5.2"]:
        assert cells(folder, "weight", ["1", bad], max_bad_rows=1).report.rejected == {"weight is not a number": 1}
    for bad in ["inf", "-Infinity", "1e999", "3.5e38"]:
        assert cells(folder, "weight", ["x", bad], max_bad_rows=2).report.rejected["weight is infinite"] == 1
    assert cells(folder, "weight", ["-1"], allow_negative=True).weights.tolist() == [-1]


@given(st.lists(st.floats(0, 2.0**127, width=32), min_size=1, max_size=20))
@settings(deadline=None)
def test_weights_survive_text(folder: pathlib.Path, values: list[float]) -> None:
    assert cells(folder, "weight", [repr(value) for value in values]).weights.tolist() == values


SECOND = 10**9


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["964982703", "0"], [964982703 * SECOND, 0]),
        (["1600000000000"], [1600000000 * SECOND]),
        (["1600000000000000"], [1600000000 * SECOND]),
        (["1600000000000000123"], [1600000000 * SECOND + 123]),
        (["-86400"], [-86_400 * SECOND]),
        (["1970-01-02", "1970-01-01 00:01", "1970-01-01T00:00:01.5"], [86_400 * SECOND, 60 * SECOND, 3 * SECOND // 2]),
        (
            ["1970-01-01T01:00:00Z", "1970-01-01T01:00+01:00", "1970-01-01T00:00-0130"],
            [3600 * SECOND, 0, 5400 * SECOND],
        ),
        (["1970-01-01T00:00:00.000000001"], [1]),
        (["10", "1970-01-01"], [10 * SECOND, 0]),
    ],
)
def test_datetimes_become_nanoseconds(folder: pathlib.Path, values: list[str], expected: list[int]) -> None:
    assert cells(folder, "datetime", values).datetimes.tolist() == expected


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("", "empty datetime"),
        ("24/11/2026", "not a datetime"),
        ("2026-11", "not a datetime"),
        ("1.5", "not a datetime"),
        ("0x10", "not a datetime"),
        ("2026-02-30", "datetime out of range"),
        ("2026-01-01T25:00", "datetime out of range"),
        ("1500-01-01", "datetime out of range"),
        ("9999999999999999999", "datetime out of range"),
        ("99999999999999", "datetime out of range"),
    ],
)
def test_bad_datetimes_are_rejected(folder: pathlib.Path, bad: str, reason: str) -> None:
    read = cells(folder, "datetime", ["964982703", "964982704", bad, "2026-11-24"], max_bad_rows=1)
    assert read.report.rejected == {reason: 1}
    assert len(read) == 3


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(pd.to_datetime(["1970-01-01 00:00:10", "1970-01-02 00:00:00"])),
        pa.array(
            [datetime.datetime(1970, 1, 1, 0, 0, 10), datetime.datetime(1970, 1, 2)], pa.timestamp("ms", "Europe/Rome")
        ),
        pa.array([10, 86_400]),
        pa.array([10.0, 86_400.0]),
        pa.array([10, 86_400], pa.uint64()),
        pa.array(["1970-01-01T00:00:10", "86400"]),
    ],
)
def test_arrow_datetimes(column: Any) -> None:
    read = gm.read_interactions(pa.table({"user_id": ["a", "b"], "item_id": [1, 2], "datetime": pa.array(column)}))
    assert read.datetimes is not None and read.datetimes.tolist() == [10 * SECOND, 86_400 * SECOND]


def test_arrow_datetimes_that_are_none() -> None:
    frame = {"user_id": ["a", "b", "c"], "item_id": [1, 2, 3]}
    dates = [datetime.date(1970, 1, 2), None, datetime.date(3000, 1, 1)]
    read = gm.read_interactions(pl.DataFrame(frame | {"datetime": dates}), max_bad_rows=2)
    assert read.report.rejected == {"empty datetime": 1, "datetime out of range": 1}
    with pytest.raises(InvalidInput, match="datetime column holds bool"):
        gm.read_interactions(pl.DataFrame(frame | {"datetime": [True, False, True]}))
    with pytest.raises(InvalidInput, match="weight column holds large_list"):
        gm.read_interactions(pl.DataFrame(frame | {"weight": [[1], [2], [3]]}))


def test_duplicates_follow_the_option(folder: pathlib.Path) -> None:
    path = write(folder / "twice.csv", "user_id,item_id,weight,datetime\na,x,1,20\na,x,5,10\na,x,2,20\n")
    weights = {rule: gm.read_interactions(path, duplicates=rule).weights.tolist() for rule in ("sum", "last", "max")}
    assert weights == {"sum": [8], "last": [2], "max": [5]}
    assert gm.read_interactions(path, min_weight=9).report.below_min_weight == 1


# ---- the catalog ---------------------------------------------------------------------------------------------------


def catalog(folder: pathlib.Path, content: str, **options: Any) -> gm.Catalog:
    return gm.read_catalog(write(folder / "items.csv", content), **options)


def test_texts_are_composed(folder: pathlib.Path) -> None:
    read = catalog(
        folder,
        'item_id,title,genres\na,Alien, horror \nb,,\nc,"Two\n\n lines\t",\nd,,drama\ne,\u00a0,"\u2028"\n',
        text="{title}. {genres}",
    )
    assert read.texts == ["Alien. horror", "", "Two lines.", ". drama", ""]
    assert read.titles[:2] == ["Alien", "b"] and read.has_text.tolist() == [True, False, True, True, False]
    assert read.table.column("genres").to_pylist()[:2] == [" horror ", None]


def test_the_default_text(folder: pathlib.Path) -> None:
    assert catalog(folder, "item_id,text,title\na,T,t\n").texts == ["T"]
    assert catalog(folder, "item_id,title\na,t\n").texts == ["t"]
    assert catalog(folder, "item_id,name\na,n\n").titles == ["n"]
    assert catalog(folder, "item_id,x\na,1\n").texts == [""]
    assert catalog(folder, "item_id,x\na,1\n", text="x").texts == ["1"]
    assert catalog(folder, "item_id,x\na,1\n", text="{{{x}}}").texts == ["{1}"]
    assert catalog(folder, "item_id,x y,a.b\na,1,2\n", text="{x y} {a.b}").texts == ["1 2"]
    assert catalog(folder, "item_id,x\na,1\n", title_col="x").titles == ["1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{title.__class__}", r"\{title.__class__\} .* not allowed; expected a column name alone"),
        ("{title[0]}", "not allowed"),
        ("{title!r}", r"\{title!r\} .* not allowed"),
        ("{title:>10}", r"\{title:>10\} .* not allowed"),
        ("{title:{year}}", "not allowed"),
        ("{tittle}", "names the column 'tittle', which is not there; the columns are title, "),
        ("{}", "names the column ''"),
        ("{0}", "names the column '0'"),
        ("{title", "cannot be read"),
        ("title}", "cannot be read"),
        ("plain words", "names no column"),
        ("", "names no column"),
    ],
)
def test_a_template_is_column_names_and_nothing_else(folder: pathlib.Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        catalog(folder, "item_id,title,year\na,t,1\n", text=text)


def test_csv_columns_get_a_type(folder: pathlib.Path) -> None:
    columns = {
        "year": (["1990", "-5", ""], pa.int64(), [1990, -5, None]),
        "price": (["1", "2.50", "1e3"], pa.float64(), [1.0, 2.5, 1000.0]),
        "code": (["01", "2", "3"], pa.string(), ["01", "2", "3"]),
        "plus": (["+1", "2", "3"], pa.string(), ["+1", "2", "3"]),
        "isbn": (["9" * 20, "1", "2"], pa.string(), ["9" * 20, "1", "2"]),
        "big": (["9223372036854775807", "0", "-1"], pa.int64(), [2**63 - 1, 0, -1]),
        "nan": (["nan", "1", "2"], pa.string(), ["nan", "1", "2"]),
        "huge": (["1e999", "1", "2"], pa.string(), ["1e999", "1", "2"]),
        "empty": (["", "", ""], pa.string(), [None, None, None]),
        "word": (["a", "", " "], pa.string(), ["a", None, " "]),
        "title": (["1984", "2001", "300"], pa.string(), ["1984", "2001", "300"]),
    }
    rows = zip(*([name, *cells] for name, (cells, _, _) in columns.items()), strict=True)
    content = "\n".join(",".join([first, *row]) for first, row in zip(["item_id", "1", "2", "3"], rows, strict=True))
    read = catalog(folder, content, text="{title} {year} {price} {code}")
    assert read.items.ids.to_pylist() == ["1", "2", "3"]
    for name, (_, kind, values) in columns.items():
        assert read.table.column(name).type == kind, name
        assert read.table.column(name).to_pylist() == values
    assert read.texts == ["1984 1990 1 01", "2001 -5 2.50 2", "300 1e3 3"]  # as they are written
    assert read.mask("year >= 0").tolist() == [True, False, False]


@given(
    st.lists(
        st.sampled_from(["0", "-0", "1", "01", "-7", "1.5", "1.", ".5", "1e5", "9" * 19, "9" * 18, "", "x", "inf"])
    )
)
@settings(deadline=None)
def test_a_typed_column_says_what_the_file_says(folder: pathlib.Path, values: list[str]) -> None:
    content = "item_id,x\n" + "".join(f"i{i},{value}\n" for i, value in enumerate(values))
    column = catalog(folder, content).table.column("x")
    for written, read in zip(values, column.to_pylist(), strict=True):
        if written == "":
            assert read is None
        elif column.type == pa.int64():
            assert str(read) == written
        elif column.type == pa.float64():
            assert read == float(written) and math.isfinite(read)
        else:
            assert read == written


@pytest.mark.parametrize("kind", ["pandas", "polars", "parquet", "jsonl"])
def test_typed_sources_keep_their_types(folder: pathlib.Path, kind: str) -> None:
    data: dict[str, Any] = {
        "item_id": [1, 2, 3],
        "title": ["A", None, "C\x00D"],
        "tags": [["x", "y"], None, []],
        "year": [1990, None, 2000],
    }
    if kind == "jsonl":
        records = [dict(zip(data, row, strict=True)) for row in zip(*data.values(), strict=True)]
        source: Any = write(folder / "typed.jsonl", "\n".join(map(json.dumps, records)))
    elif kind == "parquet":
        source = folder / "typed.parquet"
        parquet.write_table(pa.table(data), source)
    else:
        source = pd.DataFrame(data) if kind == "pandas" else pl.DataFrame(data)
    read = gm.read_catalog(source, text="{title} ({year}): {tags}")
    assert read.texts == ["A (1990): x, y", "", "C D (2000):"]
    assert read.items.ids.to_pylist() == [1, 2, 3]
    assert read.mask("'x' in tags or year == 2000").tolist() == [True, False, True]


def test_json_attributes_of_mixed_types_become_text(folder: pathlib.Path) -> None:
    records = [
        {"item_id": "a", "x": 1, "y": 1, "z": True, "t": "\ud800ok"},
        {"item_id": "b", "x": "1", "y": 1.5, "w": {"k": 1}, "z": None},
    ]
    read = gm.read_catalog(write(folder / "mixed.jsonl", "\n".join(map(json.dumps, records))), text="{t}")
    assert read.table.column("x").to_pylist() == ["1", "1"]
    assert read.table.column("y").to_pylist() == [1.0, 1.5]
    assert read.table.column("w").to_pylist() == [None, '{"k": 1}']
    assert read.table.column("z").to_pylist() == [True, None]
    assert read.texts == ["\ufffdok", ""]


def test_columns_without_a_text_form_are_refused() -> None:
    table = pa.table({"item_id": ["a"], "place": [{"x": 1}], "raw": [b"x"]})
    for name in ("place", "raw"):
        with pytest.raises(InvalidInput, match=f"column '{name}' holds .* no plain text form"):
            gm.read_catalog(table, text=name)


def test_lists_with_missing_parts_and_whole_floats_read_well() -> None:
    table = pa.table(
        {"item_id": ["a", "b"], "tags": [["x", None, "z"], None], "year": [1995.0, None], "price": [1.5, 2.0]}
    )
    assert gm.read_catalog(table, text="{tags} {year} {price}").texts == ["x, z 1995 1.5", "2"]


def test_a_text_of_a_million_characters_is_kept(folder: pathlib.Path) -> None:
    long = "word " * 200_000
    read = catalog(folder, f'item_id,text\na,"{long}"\nb,short\n')
    assert read.texts == [long.strip(), "short"]


def test_duplicate_items_follow_the_option(folder: pathlib.Path) -> None:
    content = "item_id,title\na,1\nb,2\na,3\nb,4\nc,5\n"
    with pytest.raises(InvalidInput, match=r"item 'a' occurs in line 2 and again in line 4 \(2 such rows\)"):
        catalog(folder, content)
    last, first = catalog(folder, content, duplicates="last"), catalog(folder, content, duplicates="first")
    assert dict(zip(last.items.ids.to_pylist(), last.titles, strict=True)) == {"a": "3", "b": "4", "c": "5"}
    assert dict(zip(first.items.ids.to_pylist(), first.titles, strict=True)) == {"a": "1", "b": "2", "c": "5"}
    assert last.report.merged == first.report.merged == 2
    with pytest.raises(InvalidInput, match="one of error, last, first"):
        catalog(folder, content, duplicates="sum")


def test_catalog_rows_are_accounted_for(folder: pathlib.Path) -> None:
    content = 'item_id,title\na,1\n,2\nb,"3\nc\nd,4\n'
    with pytest.raises(InvalidInput, match="3 of 5 rows cannot be used"):
        catalog(folder, content)
    read = catalog(folder, content, max_bad_rows=3)
    assert read.items.ids.to_pylist() == ["a", "d"] and read.texts == ["1", "4"]
    assert [bad.line for bad in read.report.bad_rows] == [3, 4, 5]


def test_two_columns_of_one_name_are_refused(folder: pathlib.Path) -> None:
    with pytest.raises(InvalidInput, match="'x' 2 times"):
        catalog(folder, "item_id,x,x\na,1,2\n")
    with pytest.raises(InvalidInput, match="2 columns called 'x'"):
        gm.read_catalog(pa.table([["a"], [1], [2]], names=["item_id", "x", "x"]))


@given(st.lists(st.tuples(st.text(max_size=8), st.none() | st.text(max_size=8)), max_size=8))
@settings(deadline=None)
def test_texts_equal_a_plain_python_composition(pairs: list[tuple[str, str | None]]) -> None:
    def clean(text: str) -> str:
        import unicodedata

        blank = "".join(" " if unicodedata.category(c) in ("Cc", "Zs", "Zl", "Zp") else c for c in text)
        return " ".join(part for part in blank.split(" ") if part)

    pairs = [(a.encode("utf-8", "ignore").decode(), b and b.encode("utf-8", "ignore").decode()) for a, b in pairs]
    table = pa.table(
        {
            "item_id": pa.array([str(i) for i in range(len(pairs))], pa.string()),
            "a": pa.array([a for a, _ in pairs], pa.string()),
            "b": pa.array([b for _, b in pairs], pa.string()),
        }
    )
    expected = [clean(f"{clean(a)}: {clean(b or '')}!") if clean(a) or clean(b or "") else "" for a, b in pairs]
    assert gm.read_catalog(table, text="{a}: {b}!").texts == expected


def test_inputs_are_not_mutated() -> None:
    frame = pd.DataFrame({"user_id": ["a", "b", "a"], "item_id": [1, 2, 1], "weight": [1.0, 0.0, 2.0], "title": "x"})
    before = frame.copy(deep=True)
    read = gm.read_interactions(frame)
    gm.read_catalog(frame, duplicates="last", text="{title} {weight}")
    pd.testing.assert_frame_equal(frame, before)
    assert list(itertools.chain(read.to_csr().data)) == [3.0]  # a weight of 0 is accepted and says nothing
    assert len(read) == 2
