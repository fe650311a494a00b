"""Interactions: the rules of merging, the account, and the matrix they become."""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_mf.data.ids import IdMap
from geo_mf.data.interactions import BadRow, Duplicates, Interactions, ReadReport
from geo_mf.errors import InvalidInput

EVENTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 9), st.integers(-3, 3)), min_size=1, max_size=40
)


def columns(events: list[tuple[str, int, int, int]]) -> tuple[list[str], list[int], np.ndarray, np.ndarray]:
    users, items, weights, times = zip(*events, strict=True)
    return list(users), list(items), np.array(weights, dtype=float), np.array(times)


@given(EVENTS, st.sampled_from(["sum", "last", "max"]), st.booleans(), st.none() | st.integers(0, 12))
@settings(deadline=None)
def test_merging_follows_the_written_rule(
    events: list[tuple[str, int, int, int]], duplicates: Duplicates, dated: bool, min_weight: int | None
) -> None:
    users, items, weights, times = columns(events)
    made = Interactions.from_arrays(
        users, items, weights, times if dated else None, duplicates=duplicates, min_weight=min_weight
    )

    groups: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for user, item, weight, time in events:
        groups[user, item].append((time if dated else 0, weight))
    rule = {
        "sum": lambda rows: sum(weight for _, weight in rows),
        "max": lambda rows: max(weight for _, weight in rows),
        "last": lambda rows: sorted(rows, key=lambda row: row[0])[-1][1],  # sorted is stable: a tie keeps file order
    }[duplicates]
    expected = {pair: (rule(rows), max(time for time, _ in rows)) for pair, rows in groups.items()}
    kept = {pair: row for pair, row in expected.items() if min_weight is None or row[0] >= min_weight}

    pairs = list(zip(made.users.take(made.user_rows), made.items.take(made.item_rows), strict=True))
    assert pairs == list(kept)  # in order of first appearance
    assert made.weights.tolist() == [weight for weight, _ in kept.values()]
    if dated:
        assert made.datetimes is not None and made.datetimes.tolist() == [time for _, time in kept.values()]
    else:
        assert made.datetimes is None
    assert made.report.read == made.report.accepted == len(events)
    assert made.report.merged == len(events) - len(groups)
    assert len(made) == made.report.accepted - made.report.merged - made.report.below_min_weight
    assert len(made.users) == len(set(users)) and len(made.items) == len(set(items))  # ids outlive min_weight


@given(EVENTS)
@settings(deadline=None)
def test_the_matrix_holds_each_pair_once(events: list[tuple[str, int, int, int]]) -> None:
    users, items, weights, _ = columns(events)
    made = Interactions.from_arrays(users, items, weights)
    csr = made.to_csr()
    expected = np.zeros((len(made.users), len(made.items)))
    for user, item, weight, _ in events:
        expected[made.users.row(user), made.items.row(item)] += weight
    assert csr.dtype == np.float32 and csr.has_sorted_indices and csr.has_canonical_format
    assert csr.nnz == np.count_nonzero(expected)  # zero weights say nothing
    np.testing.assert_array_equal(csr.toarray(), expected)


@given(EVENTS)
@settings(deadline=None)
def test_csr_round_trip(events: list[tuple[str, int, int, int]]) -> None:
    users, items, weights, _ = columns(events)
    csr = Interactions.from_arrays(users, items, weights).to_csr()
    again = Interactions.from_csr(csr)
    np.testing.assert_array_equal(again.to_csr().toarray(), csr.toarray())
    assert again.users == IdMap(range(len(set(users))))


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_array, sp.coo_matrix, sp.lil_array, sp.dok_array])
def test_every_sparse_format_is_read_and_left_alone(kind: type) -> None:
    matrix = kind(np.array([[0, 2.0, 0], [1, 0, 0]]))
    before = matrix.toarray().copy()
    made = Interactions.from_csr(matrix, ["u", "v"], ["x", "y", "z"])
    assert made.to_csr().toarray().tolist() == [[0, 2, 0], [1, 0, 0]]
    assert made.items.take([2]) == ["z"]  # an item nobody touched keeps its id
    np.testing.assert_array_equal(matrix.toarray(), before)


def test_entries_stored_twice_are_added_and_counted() -> None:
    matrix = sp.coo_array((np.array([1.0, 2.0, 4.0]), ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    made = Interactions.from_csr(matrix)
    assert made.to_csr().toarray().tolist() == [[0, 3], [4, 0]]
    assert (made.report.read, made.report.merged) == (3, 1)


def test_a_transposed_matrix_is_named() -> None:
    with pytest.raises(InvalidInput, match="transposed"):
        Interactions.from_csr(sp.csr_array((2, 3)), user_ids=["a", "b", "c"])
    with pytest.raises(InvalidInput, match="expected a scipy sparse matrix"):
        Interactions.from_csr(np.eye(2))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39, -1.0])
def test_bad_weights_never_enter(bad: float) -> None:
    with pytest.raises(InvalidInput, match="position 1"):
        Interactions.from_arrays(["a", "b"], ["x", "y"], [1.0, bad])
    with pytest.raises(InvalidInput, match="weight at position"):
        Interactions.from_csr(sp.csr_array(np.array([[1.0, bad]])))


def test_a_sum_beyond_float32_is_refused() -> None:
    with pytest.raises(InvalidInput, match="inf"):
        Interactions.from_arrays(["a", "a"], ["x", "x"], [3e38, 3e38])


def test_negative_weights_enter_when_allowed() -> None:
    made = Interactions.from_arrays(["a", "b"], ["x", "x"], [-2.0, 0.0], allow_negative=True)
    assert made.to_csr().toarray().tolist() == [[-2], [0]] and made.to_csr().nnz == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"item_ids": ["x"]}, "2 user ids but 1 item ids"),
        ({"weights": [1.0]}, "2 user ids but 1 weights"),
        ({"weights": ["1", "2"]}, "numbers"),
        ({"datetimes": [1]}, "2 user ids but 1 datetimes"),
        ({"datetimes": [1.5, 2.5]}, "int64 nanoseconds"),
        ({"datetimes": np.array(["2026-01-01", "NaT"], dtype="datetime64[s]")}, "NaT"),
        ({"duplicates": "mean"}, "one of sum, last, max"),
        ({"min_weight": np.nan}, "min_weight must be a finite number"),
        ({"user_ids": [1.5, 2.5]}, "got double"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"user_ids": ["a", "b"], "item_ids": ["x", "y"]}
    with pytest.raises(InvalidInput, match=message):
        Interactions.from_arrays(**(good | arguments))


def made() -> Interactions:
    return Interactions.from_arrays(["a", "b", "a"], [1, 2, 3], [1, 2, 3], [10, 20, 30])


def test_numpy_datetimes_become_nanoseconds() -> None:
    times = np.array(["1970-01-01T00:00:01", "1970-01-02"], dtype="datetime64[s]")
    stored = Interactions.from_arrays(["a", "b"], ["x", "x"], datetimes=times).datetimes
    assert stored is not None and stored.tolist() == [10**9, 86_400 * 10**9]


def test_arrays_are_read_only_and_inputs_stay_writable() -> None:
    weights, times = np.array([1.0, 2.0]), np.array([1, 2])
    stored = Interactions.from_arrays(["a", "b"], ["x", "x"], weights, times)
    assert stored.datetimes is not None
    for array in (stored.user_rows, stored.item_rows, stored.weights, stored.datetimes):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    weights[0], times[0] = 9, 9
    assert stored.weights[0] == 1 and stored.datetimes[0] == 1


@given(st.lists(st.booleans(), min_size=3, max_size=3))
@settings(deadline=None)
def test_select_keeps_the_maps(mask: list[bool]) -> None:
    chosen = made().select(np.array(mask))
    assert chosen.users == made().users and chosen.items == made().items
    assert chosen.weights.tolist() == [weight for weight, keep in zip([1, 2, 3], mask, strict=True) if keep]
    positions = made().select(np.flatnonzero(mask))
    assert positions.weights.tolist() == chosen.weights.tolist()


def test_select_refuses_a_mask_of_another_length_and_positions_outside() -> None:
    with pytest.raises(InvalidInput, match=r"shape \(2,\), expected \(3,\)"):
        made().select(np.array([True, False]))
    with pytest.raises(InvalidInput, match=r"0\.\.2"):
        made().select(np.array([-1]))


def test_align_drops_and_counts_what_the_other_map_lacks() -> None:
    aligned, dropped = made().align(users=IdMap(["z", "a"]), items=IdMap([3, 1, 9]))
    assert dropped == 1
    assert aligned.user_rows.tolist() == [1, 1] and aligned.item_rows.tolist() == [1, 0]
    assert aligned.datetimes is not None and aligned.datetimes.tolist() == [10, 30]
    assert made().align(items=IdMap(["1", "2", "3"]))[1] == 3  # "1" is not 1
    same, none = made().align()
    assert none == 0 and same.weights.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_rows": np.array([0, 5], dtype=np.int32)}, "user_rows must lie in 0..0, found 0 to 5"),
        ({"item_rows": np.array([0, -1], dtype=np.int32)}, "item_rows must lie in"),
        ({"item_rows": np.array([0], dtype=np.int32)}, r"item_rows has shape \(1,\), expected \(2,\)"),
        ({"weights": np.array([1.0, 2.0])}, "dtype float64, expected float32"),
        ({"weights": np.array([1, np.nan], dtype=np.float32)}, "position 1 is nan"),
        ({"datetimes": np.array([1, 2], dtype=np.int32)}, "dtype int32, expected int64"),
    ],
)
def test_the_class_validates_at_birth(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "users": IdMap(["a"]),
        "items": IdMap(["x"]),
        "user_rows": np.zeros(2, dtype=np.int32),
        "item_rows": np.zeros(2, dtype=np.int32),
        "weights": np.ones(2, dtype=np.float32),
        "datetimes": None,
        "report": ReadReport(2, 2),
    }
    with pytest.raises(InvalidInput, match=message):
        Interactions(**(good | change))


def test_no_interactions_at_all() -> None:
    empty = Interactions.from_arrays([], [])
    assert len(empty) == 0 and empty.to_csr().shape == (0, 0)


def test_a_report_adds_up_or_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"8 accepted \+ 1 rejected is not 10 read"):
        ReadReport(read=10, accepted=8, rejected={"empty user id": 1})
    report = ReadReport(
        10, 7, {"empty user id": 2, "negative weight": 1}, (BadRow(3, "empty user id", ",x"),), merged=1
    )
    assert report.summary() == (
        "10 rows read, 7 accepted, 3 rejected (empty user id: 2, negative weight: 1), 1 merged as duplicates"
    )
    assert str(report).splitlines()[1:] == ["  line 3: empty user id: ,x", "  ... and 2 more"]
