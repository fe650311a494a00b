"""Columns as numbers: hats for what can be measured, a place for each word, and the same block for what is asked."""

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import geo_mf as gm
from geo_mf.data.attributes import WIDTH, Attributes, Column
from geo_mf.errors import InvalidInput

HALF, THIRD = 2**-0.5, 3**-0.5


def one(values: Any, kind: pa.DataType | None = None) -> pa.Table:
    """A table with the single column "c"."""
    return pa.table({"c": pa.array(values, kind)})


def learned(values: Any, kind: pa.DataType | None = None) -> Column:
    return Attributes.of(one(values, kind), ["c"]).columns[0]


def encoded(values: Any, kind: pa.DataType | None = None) -> np.ndarray:
    """The block of a column that was learned from itself."""
    return Attributes.of(one(values, kind), ["c"]).encode(one(values, kind))


def later(knots: Any, values: Any, kind: pa.DataType | None = None) -> np.ndarray:
    """The block of other numbers than those that were learned from."""
    return Attributes.of(one(knots, kind), ["c"]).encode(one(values, kind))


# --- numbers -----------------------------------------------------------------------------------------------------

numbers = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6), st.just(float("nan"))), min_size=1, max_size=40)


@settings(max_examples=60)
@given(known=numbers, asked=numbers)
def test_hats_sum_to_one_and_give_the_number_back(known: list[float | None], asked: list[float | None]) -> None:
    attributes = Attributes.of(one(known, pa.float64()), ["c"])
    knots = np.asarray(attributes.columns[0].knots)
    assert len(knots) <= 8
    assert (np.diff(knots) > 0).all()
    hats = attributes.encode(one(asked, pa.float64()))
    assert hats.dtype == np.float32
    assert hats.shape == (len(asked), len(knots))
    for row, number in zip(hats, asked, strict=True):
        if number is None or np.isnan(number) or not len(knots):
            assert not row.any()
            continue
        assert row.min() >= 0
        assert row.sum() == pytest.approx(1, abs=1e-6)
        assert np.linalg.norm(row) <= 1 + 1e-6
        met = np.flatnonzero(row)
        assert len(met) <= 2 and met.max() - met.min() <= 1, "only the knots at both sides"
        wanted = np.clip(number, knots[0], knots[-1])
        assert row @ knots == pytest.approx(wanted, abs=1e-6 * max(1, np.abs(knots).max()))


def test_a_number_between_two_knots() -> None:
    found = later(range(8), [2.25, 0.0, 7.0, 6.5, -100.0, 100.0, None])
    wanted = np.zeros((7, 8), np.float32)
    wanted[0, 2:4] = 0.75, 0.25
    wanted[1, 0] = wanted[2, 7] = wanted[4, 0] = wanted[5, 7] = 1
    wanted[3, 6:] = 0.5
    assert found == pytest.approx(wanted, abs=1e-6)


def test_knots_are_quantiles_so_that_an_outlier_moves_only_the_last() -> None:
    plain, odd = learned([float(at) for at in range(71)]), learned([float(at) for at in range(70)] + [1e9])
    assert plain.knots == pytest.approx([0, 10, 20, 30, 40, 50, 60, 70])
    assert odd.knots[:7] == pytest.approx(plain.knots[:7])
    assert odd.knots[7] == 1e9


def test_one_knot_tells_only_that_a_number_is_there() -> None:
    assert learned([5, 5, None]).knots == (5.0,)
    assert later([5, 5], [4, 5, 6, None]).tolist() == [[1], [1], [1], [0]]


def test_repeated_quantiles_are_one_knot() -> None:
    assert learned([0] * 99 + [1]).knots == (0.0, 1.0)


@pytest.mark.parametrize("values", [[None, None], [float("nan"), None], [float("inf"), -float("inf")]])
def test_without_any_number_there_is_no_block(values: list[Any]) -> None:
    assert learned(values, pa.float64()) == Column("c", "number")
    assert encoded(values, pa.float64()).shape == (2, 0)


def test_infinity_is_missing() -> None:
    assert later([0.0, 1.0], [float("inf"), -float("inf")], pa.float64()).tolist() == [[0] * 8] * 2


def test_a_null_column_has_no_block_and_takes_nothing_later() -> None:
    assert encoded(pa.nulls(3)).shape == (3, 0)
    attributes = Attributes.of(one(pa.nulls(2)), ["c"])
    assert attributes.encode_one({"c": "drama"}).shape == (0,)


def test_nulls_of_no_type_are_missing_in_a_column_of_numbers() -> None:
    attributes = Attributes.of(one([1, 2]), ["c"])
    assert not attributes.encode(one(pa.nulls(2))).any()


@pytest.mark.parametrize(
    ("values", "kind", "middle"),
    [
        ([0, 10, 5], pa.int8(), 5),
        ([0, 10, 5], pa.uint64(), 5),
        ([0.0, 10.0, 5.0], pa.float32(), 5),
        ([Decimal("0.00"), Decimal("1.00"), Decimal("0.50")], pa.decimal128(5, 2), 0.5),
        ([date(2001, 1, 1), date(2001, 1, 3), date(2001, 1, 2)], pa.date32(), None),
        ([date(2001, 1, 1), date(2001, 1, 3), date(2001, 1, 2)], pa.date64(), None),
        ([0, 2_000_000_000, 1_000_000_000], pa.timestamp("ns"), None),
        ([0, 2, 1], pa.timestamp("s", tz="Europe/Athens"), None),
    ],
)
def test_whatever_can_be_measured_is_a_number(values: list[Any], kind: pa.DataType, middle: float | None) -> None:
    column = learned(values, kind)
    assert column.kind == ("number" if middle is not None else "date")
    if middle is not None:
        assert np.mean([column.knots[0], column.knots[-1]]) == pytest.approx(middle)
    low, high, between = encoded(values, kind)
    knots = np.asarray(column.knots)
    assert low[0] == 1 and high[-1] == 1
    assert between @ knots == pytest.approx((knots[0] + knots[-1]) / 2, rel=1e-6)


def test_a_date_and_a_number_do_not_pass_for_each_other() -> None:
    dates, years = (
        Attributes.of(one([date(1990, 1, 1), date(2000, 1, 1)]), ["c"]),
        Attributes.of(one([1990, 2000]), ["c"]),
    )
    assert dates.encode_one({"c": date(1995, 1, 1)}).any() and years.encode_one({"c": 1995}).any()
    with pytest.raises(InvalidInput, match="holds int64; expected dates"):
        dates.encode_one({"c": 1995})
    with pytest.raises(InvalidInput, match=r"holds date32.*expected numbers"):
        years.encode_one({"c": date(1995, 1, 1)})


def test_booleans_have_two_knots() -> None:
    assert learned([True, False, None]).knots[0] == 0
    assert learned([True, False, None]).knots[-1] == 1
    yes, no, missing = encoded([True, False, None])
    assert yes[-1] == 1 and yes.sum() == 1
    assert no[0] == 1 and no.sum() == 1
    assert not missing.any()


def test_units_of_time_and_zones_do_not_matter() -> None:
    days = [datetime(2000, 1, 1), datetime(2010, 1, 1)]
    attributes = Attributes.of(one(days, pa.timestamp("ms")), ["c"])
    wanted = attributes.encode(one([datetime(2004, 5, 6)], pa.timestamp("ns")))
    assert wanted.any()
    for moment in (date(2004, 5, 6), datetime(2004, 5, 6), datetime(2004, 5, 6, tzinfo=UTC)):
        assert np.array_equal(attributes.encode_one({"c": moment}), wanted[0])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([time(1), time(2)], pa.time32("s")),
        ([time(1), time(2)], pa.time64("us")),
        ([1, 2], pa.duration("s")),
        ([(1, 2, 3)], pa.month_day_nano_interval()),
        ([b"x"], pa.binary()),
    ],
)
def test_a_column_is_either_encoded_or_refused(values: list[Any], kind: pa.DataType) -> None:
    try:
        found = encoded(values, kind)
    except InvalidInput as error:
        assert "'c' holds" in str(error)
    else:
        assert np.isfinite(found).all()


# --- values ------------------------------------------------------------------------------------------------------

TEXTS = ["drama|comedy", " comedy ", None, "", "|", "drama | war|drama|"]
LISTS = [["drama", "comedy"], ["comedy"], None, [], ["", None], ["war", " drama", "drama"]]
BLOCKS = [[HALF, HALF, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, HALF, HALF]]
"""Of comedy, drama, war, in this order."""


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (TEXTS, pa.string()),
        (TEXTS, pa.large_string()),
        (TEXTS, pa.dictionary(pa.int8(), pa.string())),
        (LISTS, pa.list_(pa.string())),
        (LISTS, pa.large_list(pa.large_string())),
        (LISTS, pa.list_(pa.dictionary(pa.int32(), pa.string()))),
    ],
)
def test_a_value_has_a_place_and_several_share_the_length(values: list[Any], kind: pa.DataType) -> None:
    assert learned(values, kind) == Column("c", "values", values=("comedy", "drama", "war"))
    assert encoded(values, kind) == pytest.approx(np.asarray(BLOCKS), abs=1e-6)


def test_lists_of_one_length() -> None:
    found = encoded([["a", "b"], ["b", "b"], None], pa.list_(pa.string(), 2))
    assert found == pytest.approx(np.asarray([[HALF, HALF], [0, 1], [0, 0]]), abs=1e-6)


def test_a_chunked_column_is_one_column() -> None:
    table = pa.concat_tables([one(["a|b"]), one([None], pa.string()), one(["c"])])
    found = Attributes.of(table, ["c"]).encode(table)
    assert found == pytest.approx(np.asarray([[HALF, HALF, 0], [0, 0, 0], [0, 0, 1]]), abs=1e-6)


def test_only_text_is_split() -> None:
    assert learned([["drama|comedy"]]).values == ("drama|comedy",)


def test_lists_of_a_polars_frame_are_lists_of_text() -> None:
    frame = pl.DataFrame({"item_id": ["a", "b"], "tags": [["p"], ["q", "p"]]})
    table = gm.read_catalog(frame).table
    found = Attributes.of(table, ["tags"]).encode(table)
    assert found == pytest.approx(np.asarray([[1, 0], [HALF, HALF]]), abs=1e-6)


words = st.lists(st.lists(st.text("ab é", max_size=4), max_size=5), min_size=1, max_size=12)


@settings(max_examples=60)
@given(rows=words)
def test_every_block_of_known_values_has_length_one_and_text_is_a_list_of_values(rows: list[list[str]]) -> None:
    lists = encoded(rows, pa.list_(pa.string()))
    said = [bool({word.strip() for word in row} - {""}) for row in rows]
    assert np.linalg.norm(lists, axis=1) == pytest.approx(np.asarray(said, float), abs=1e-6)
    assert np.array_equal(encoded(["|".join(row) for row in rows], pa.string()), lists)
    assert np.array_equal(encoded([row[::-1] + row for row in rows], pa.list_(pa.string())), lists)


def test_a_value_that_was_never_met_is_nowhere_and_takes_its_share() -> None:
    attributes = Attributes.of(one(["a", "b"]), ["c"])
    found = attributes.encode(one(["new", "a|new", "a|x|y"]))
    assert found == pytest.approx(np.asarray([[0, 0], [HALF, 0], [THIRD, 0]]), abs=1e-6)


# --- more values than places -------------------------------------------------------------------------------------

MANY = [f"value {at}" for at in range(10_000)]


@pytest.fixture(scope="module")
def many() -> Attributes:
    return Attributes.of(one(MANY), ["c"])


def test_so_many_values_have_a_place_each_and_no_more() -> None:
    assert learned(MANY[:WIDTH]).kind == "values"
    assert learned(MANY[:WIDTH]).width == WIDTH
    assert learned(MANY[: WIDTH + 1]) == Column("c", "hashed")
    assert learned(MANY[: WIDTH + 1]).width == WIDTH


def test_hashed_values_spread_over_places_and_signs(many: Attributes) -> None:
    found = many.encode(one(MANY))
    assert found.shape == (10_000, WIDTH)
    assert (np.count_nonzero(found, axis=1) == 1).all()
    assert set(found.ravel().tolist()) == {-1.0, 0.0, 1.0}
    counts = np.abs(found).sum(axis=0)
    assert counts.min() > 0
    # Balls into bins: a mean of 19.5 and nearly its root as deviation.
    assert counts.std() == pytest.approx(np.sqrt(10_000 / WIDTH), rel=0.2)
    assert abs(found.sum()) < 4 * np.sqrt(10_000)


def test_a_hash_is_the_same_on_every_machine(many: Attributes) -> None:
    # blake2b, 8 bytes: "drama" is 3564c53a747d80b7 and "δράμα" is bf1c92a30eff760f. The first bit is the sign, the
    # last nine are the place: 0x0b7 = 183 and 0x00f = 15.
    found = many.encode(one(["drama", "δράμα", "drama|δράμα"]))
    wanted = np.zeros((3, WIDTH))
    wanted[0, 183], wanted[1, 15] = 1, -1
    wanted[2, [183, 15]] = HALF, -HALF
    assert found == pytest.approx(wanted, abs=1e-6)


def test_a_value_met_later_has_a_hash_too(many: Attributes) -> None:
    assert np.linalg.norm(many.encode_one({"c": "never met"})) == pytest.approx(1)


def test_no_hashed_block_is_longer_than_one(many: Attributes) -> None:
    # "w14" and "w23" have the same place and the same sign.
    assert np.array_equal(many.encode_one({"c": "w14"}), many.encode_one({"c": "w23"}))
    assert 0 < np.linalg.norm(many.encode_one({"c": ["w14", "w23"]})) <= 1 + 1e-6


# --- several columns, and what is asked --------------------------------------------------------------------------

TABLE = pa.table({"year": [1990, 2000], "genre": ["drama|comedy", "war"], "tags": [["x"], ["y", "x"]], "seen": [1, 2]})


@pytest.fixture(scope="module")
def several() -> Attributes:
    return Attributes.of(TABLE, ["genre", "year", "tags"])


def test_blocks_stand_side_by_side_in_the_order_of_the_names(several: Attributes) -> None:
    assert several.names == ("genre", "year", "tags")
    assert several.dim == 3 + 8 + 2
    rows = several.encode(TABLE)
    assert rows.dtype == np.float32
    assert rows[0, :3] == pytest.approx([HALF, HALF, 0])
    assert rows[0, 3:11].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert rows[1, 11:] == pytest.approx([HALF, HALF])


def test_what_is_asked_is_encoded_as_a_row(several: Attributes) -> None:
    row = several.encode(TABLE)[0]
    asked: dict[str, Any] = {"genre": ["comedy", "drama"], "year": 1990, "tags": "x"}
    for genre in ("drama|comedy", ("drama", "comedy"), {"drama", "comedy"}, np.asarray(["comedy", "drama"])):
        assert several.encode_one(asked | {"genre": genre}) == pytest.approx(row)
    for year in (1990.0, Decimal(1990), np.int32(1990)):
        assert several.encode_one(asked | {"year": year}) == pytest.approx(row)


def test_what_is_not_asked_is_a_block_of_zeros(several: Attributes) -> None:
    found = several.encode_one({"year": 1995})
    assert found.shape == (13,)
    assert found[3:11].sum() == pytest.approx(1)
    assert np.count_nonzero(found) == np.count_nonzero(found[3:11])
    for nothing in ({}, {"genre": []}, {"genre": None, "year": None}, {"genre": "opera"}, {"year": float("nan")}):
        assert not several.encode_one(nothing).any()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"gnere": "war"}, "no attribute 'gnere'; they are genre, year, tags"),
        ({"seen": 1}, "no attribute 'seen'"),
        ({1: 2}, "no attribute 1"),
        ({"year": "1990"}, "'year' holds string; expected numbers, times or booleans, as in the build"),
        ({"year": [1990]}, "'year' holds list.*expected numbers"),
        ({"year": {"from": 1990}}, "'year' holds struct"),
        ({"year": object()}, "'year' is <object"),
        ({"year": 2**70}, "'year'"),
        ({"genre": 7}, "'genre' holds int64; expected text or lists of text, as in the build"),
        ({"genre": True}, "'genre' holds bool; expected text"),
        ({"genre": [1, 2]}, "'genre' holds list<item: int64>"),
        ({"genre": ["war", 1]}, "'genre' is"),
        ({"genre": b"war"}, "'genre' holds binary"),
        ({"genre": "\ud800"}, "'genre'"),
        ([("genre", "war")], "attributes is .*a list; expected a mapping from columns to values"),
        ("genre", "attributes is 'genre', a str; expected a mapping"),
        (7, "attributes is 7, a int; expected a mapping"),
    ],
)
def test_what_cannot_be_asked(several: Attributes, asked: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        several.encode_one(asked)


def test_without_attributes_there_is_nothing_to_ask() -> None:
    none = Attributes()
    assert none.dim == 0
    assert none.encode(TABLE).shape == (2, 0)
    assert none.encode_one({}).shape == (0,)
    with pytest.raises(InvalidInput, match=r"no attribute 'genre'; it was built without any: BuildConfig\(attributes="):
        none.encode_one({"genre": "war"})


def test_a_table_that_lacks_a_column_has_it_nowhere(several: Attributes) -> None:
    found = several.encode(TABLE.drop_columns(["year", "tags"]))
    assert np.array_equal(found[:, :3], several.encode(TABLE)[:, :3])
    assert found.shape == (2, 13)
    assert not found[:, 3:].any()


def test_a_table_whose_column_is_of_another_kind_is_refused(several: Attributes) -> None:
    with pytest.raises(InvalidInput, match="'year' holds string; expected numbers"):
        several.encode(pa.table({"year": ["1990"]}))
    with pytest.raises(InvalidInput, match="'genre' holds int64; expected text"):
        several.encode(pa.table({"genre": [1]}))


def test_the_spec_goes_through_json(several: Attributes, many: Attributes) -> None:
    for attributes in (several, many, Attributes()):
        again = Attributes.from_spec(json.loads(json.dumps(attributes.spec(), allow_nan=False)))
        assert again == attributes
        assert again.dim == attributes.dim
        table = TABLE if attributes is several else one(["value 3|value 4", "new"])
        assert np.array_equal(again.encode(table), attributes.encode(table))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["genre", "year", "genre"], "name the column 'genre' twice"),
        (["yaer"], "name the column 'yaer', which is not there; the columns are year"),
        (["tag"], "name the column 'tag', which is not there; the columns are tags"),
    ],
)
def test_columns_that_cannot_be_named(names: list[str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Attributes.of(TABLE, names)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([b"x"], pa.binary()),
        ([{"a": 1}], pa.struct({"a": pa.int64()})),
        ([[1, 2]], pa.list_(pa.int64())),
        ([[["a"]]], pa.list_(pa.list_(pa.string()))),
        ([1], pa.dictionary(pa.int8(), pa.int64())),
    ],
)
def test_a_type_that_is_no_attribute(values: list[Any], kind: pa.DataType) -> None:
    with pytest.raises(InvalidInput, match="'c' holds .*expected numbers, dates, booleans, text or lists of text"):
        learned(values, kind)
