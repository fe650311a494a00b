"""Splits: on shuffled rows, with the input left as it was, and never a pair on both sides."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_mf.data.ids import IdMap
from geo_mf.data.interactions import Interactions
from geo_mf.errors import InvalidInput
from geo_mf.evaluation.split import Split, cold_items_split, leave_last, random_split, temporal_split

SPLITS: dict[str, Callable[[Interactions], Split]] = {
    "temporal": temporal_split,
    "leave_last": leave_last,
    "random": lambda interactions: random_split(interactions, 0.3, seed=5),
    "cold_items": lambda interactions: cold_items_split(interactions, 0.3, seed=5),
}


def log(seed: int, users: int = 12, items: int = 15, n: int = 120) -> Interactions:
    """Random interactions, in no order, with several of them at each datetime."""
    rng = np.random.default_rng(seed)
    return Interactions.from_arrays(
        [f"u{row}" for row in rng.integers(users, size=n)],
        [f"i{row}" for row in rng.integers(items, size=n)],
        rng.random(n),
        rng.integers(0, 40, size=n),
    )


def pairs(interactions: Interactions) -> set[tuple[int, int]]:
    return set(zip(interactions.user_rows.tolist(), interactions.item_rows.tolist(), strict=True))


def columns(interactions: Interactions) -> list[np.ndarray]:
    times = interactions.datetimes
    assert times is not None
    return [interactions.user_rows, interactions.item_rows, interactions.weights, times]


@pytest.mark.parametrize("name", SPLITS)
@given(seed=st.integers(0, 10_000))
def test_contract_of_every_split(name: str, seed: int) -> None:
    interactions = log(seed)
    before = [column.copy() for column in columns(interactions)]
    split = SPLITS[name](interactions)

    assert pairs(split.train) | pairs(split.test) == pairs(interactions)
    assert not pairs(split.train) & pairs(split.test)
    assert len(split.train) + len(split.test) == len(interactions)
    assert split.users is interactions.users and split.items is interactions.items
    np.testing.assert_array_equal(split.cold_items, ~split.warm_items)
    assert set(np.flatnonzero(split.warm_items)) == {item for _, item in pairs(split.train)}
    for column, old in zip(columns(interactions), before, strict=True):
        np.testing.assert_array_equal(column, old)

    shuffled = interactions.select(np.random.default_rng(seed).permutation(len(interactions)))
    again = SPLITS[name](shuffled)
    assert pairs(again.test) == pairs(split.test)
    weights = dict(zip(zip(*columns(interactions)[:2], strict=True), interactions.weights, strict=True))
    for side in (again.train, again.test):
        for user, item, weight in zip(*columns(side)[:3], strict=True):
            assert weights[user, item] == weight


@given(st.integers(0, 10_000), st.floats(0.05, 0.9))
def test_temporal_split_never_looks_ahead(seed: int, fraction: float) -> None:
    interactions = log(seed)
    try:
        split = temporal_split(interactions, fraction)
    except InvalidInput as error:  # every interaction of the tail has the last datetime
        assert "same datetime" in str(error)
        return
    train, test = split.train.datetimes, split.test.datetimes
    assert train is not None and test is not None
    assert train.max() < test.min()
    assert len(split.test) <= round(fraction * len(interactions))


def test_temporal_split_by_hand_on_shuffled_rows() -> None:
    times = np.array([50, 10, 30, 40, 20, 30])
    interactions = Interactions.from_arrays(list("aabbcc"), [1, 2, 3, 4, 5, 6], datetimes=times)
    split = temporal_split(interactions, 0.5)
    # Half would be three; the third datetime is 30, and both rows at 30 stay in train.
    assert split.test.items.take(split.test.item_rows) == [1, 4]
    assert split.train.items.take(split.train.item_rows) == [2, 3, 5, 6]
    assert split.items.take(np.flatnonzero(split.cold_items)) == [1, 4]


def test_leave_last_by_hand_on_shuffled_rows() -> None:
    interactions = Interactions.from_arrays(
        ["a", "b", "a", "c", "a", "b"], [1, 2, 3, 4, 5, 6], datetimes=np.array([3, 9, 7, 1, 5, 2])
    )
    one = leave_last(interactions)
    assert one.test.items.take(one.test.item_rows) == [2, 3]  # c has only one and keeps it
    two = leave_last(interactions, 2)
    assert two.test.items.take(two.test.item_rows) == [3, 5]  # b has only two and keeps them


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_leave_last_takes_the_latest_n_of_each_user(seed: int, n: int) -> None:
    interactions = log(seed, n=60)
    times = interactions.datetimes
    assert times is not None
    split = leave_last(interactions, n)
    for user in range(len(interactions.users)):
        mine = np.sort(times[interactions.user_rows == user])
        assert split.test.datetimes is not None
        taken = np.sort(split.test.datetimes[split.test.user_rows == user])
        np.testing.assert_array_equal(taken, mine[-n:] if mine.size > n else [])


@given(st.integers(0, 10_000), st.floats(0.1, 0.9))
def test_random_split_takes_its_share_of_each_user_and_leaves_one(seed: int, fraction: float) -> None:
    interactions = log(seed)
    split = random_split(interactions, fraction, seed)
    total = np.bincount(interactions.user_rows, minlength=len(interactions.users))
    taken = np.bincount(split.test.user_rows, minlength=len(interactions.users))
    assert (np.abs(taken - fraction * total) <= 0.5 + 1e-9)[taken < total - 1].all()
    assert (taken < total).all()


@given(st.integers(0, 10_000), st.floats(0.05, 0.9))
def test_cold_items_have_all_their_interactions_in_the_test(seed: int, fraction: float) -> None:
    interactions = log(seed)
    split = cold_items_split(interactions, fraction, seed)
    cold = {item for _, item in pairs(split.test)}
    assert not cold & {item for _, item in pairs(split.train)}
    assert abs(len(cold) - fraction * len(np.unique(interactions.item_rows))) <= 1


@pytest.mark.parametrize("splitter", [random_split, cold_items_split])
def test_the_seed_decides(splitter: Callable[..., Split]) -> None:
    interactions = log(0)
    assert pairs(splitter(interactions, seed=1).test) == pairs(splitter(interactions, seed=1).test)
    assert pairs(splitter(interactions, seed=1).test) != pairs(splitter(interactions, seed=2).test)


@pytest.mark.parametrize("splitter", [temporal_split, leave_last])
def test_splits_by_time_need_datetimes(splitter: Callable[[Interactions], Split]) -> None:
    with pytest.raises(InvalidInput, match="datetime"):
        splitter(Interactions.from_arrays(["a", "b"], [1, 2]))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 20.0, float("nan")])
@pytest.mark.parametrize("splitter", [temporal_split, random_split, cold_items_split])
def test_fractions_outside_0_and_1_are_refused(splitter: Callable[..., Split], fraction: float) -> None:
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        splitter(log(0), fraction)


def test_splits_with_an_empty_side_are_refused() -> None:
    lonely = Interactions.from_arrays(["a", "b"], [1, 2], datetimes=np.array([5, 5]))
    with pytest.raises(InvalidInput, match="same datetime"):
        temporal_split(lonely)
    with pytest.raises(InvalidInput, match="test side .* is empty"):
        leave_last(lonely)
    with pytest.raises(InvalidInput, match="test side .* is empty"):
        random_split(lonely)
    with pytest.raises(InvalidInput, match="n is 0"):
        leave_last(lonely, 0)
    with pytest.raises(InvalidInput, match="nothing to split"):
        cold_items_split(lonely.select(np.array([0])))


def test_overlap_is_refused_with_an_example() -> None:
    both = Interactions.from_arrays(["ann", "bob"], ["x", "y"])
    with pytest.raises(InvalidInput, match="1 .* in both train and test.*'bob' with item 'y'"):
        Split(both, both.select(np.array([1])), "leaky")
    with pytest.raises(InvalidInput, match="'ann' with item 'x'"):
        Split.of(both, Interactions.from_arrays(["new", "ann"], ["y", "x"]))


def test_different_id_maps_are_refused_and_aligned_by_of() -> None:
    train = Interactions.from_arrays(["ann", "bob"], ["x", "y"], [1.0, 2.0])
    test = Interactions.from_arrays(["cem", "bob"], ["z", "x"], [3.0, 4.0])
    with pytest.raises(InvalidInput, match="user id maps"):
        Split(train, test, "raw")
    split = Split.of(train, test, items=IdMap(["w", "x"]), name="journal")
    assert split.name == "journal"
    assert split.users.ids.to_pylist() == ["ann", "bob", "cem"]
    assert split.items.ids.to_pylist() == ["x", "y", "z", "w"]
    assert pairs(split.train) == {(0, 0), (1, 1)} and pairs(split.test) == {(2, 2), (1, 0)}
    np.testing.assert_array_equal(split.test.weights, [3.0, 4.0])
    np.testing.assert_array_equal(split.cold_items, [False, False, True, True])
    assert "2 to learn from" in repr(split) and "2 of them cold" in repr(split)


def test_ids_of_two_types_cannot_be_aligned() -> None:
    with pytest.raises(InvalidInput, match="item ids are int64 on one side and string on the other"):
        Split.of(Interactions.from_arrays(["a"], [1]), Interactions.from_arrays(["a"], ["1"]))
