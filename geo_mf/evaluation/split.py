"""Splits: which interactions a model may learn from, and which it is judged by.

Every function leaves its input as it is and returns a `Split` whose two sides keep the input's id maps. A split depends
on the interactions and the seed alone, never on the order of the rows.

Which one: `temporal_split` asks the question that matters in service (what comes next, for everyone at once).
`leave_last` asks it per user, but lets a model learn from other users' future. `random_split` ignores time.
`cold_items_split` asks about items that nobody has touched.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geo_mf.data.ids import IdMap
from geo_mf.data.interactions import Interactions
from geo_mf.errors import InvalidInput

__all__ = ["Split", "cold_items_split", "leave_last", "random_split", "temporal_split"]

_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Split:
    """What to learn from and what to be judged by, over the same id maps; no (user, item) pair on both sides.

    Raises InvalidInput at birth when a side is empty, when the id maps differ (`Split.of` aligns them), or when a pair
    stands on both sides: a model would be judged by what it was told.
    """

    train: Interactions
    test: Interactions
    name: str

    def __post_init__(self) -> None:
        for side, interactions in (("train", self.train), ("test", self.test)):
            if len(interactions) == 0:
                raise InvalidInput(f"the {side} side of the split {self.name!r} is empty; it needs interactions")
        for what, first, second in (
            ("user", self.train.users, self.test.users),
            ("item", self.train.items, self.test.items),
        ):
            if first is not second and first != second:
                raise InvalidInput(
                    f"train and test have different {what} id maps, of {len(first)} and {len(second)} ids; "
                    "Split.of(train, test) aligns them"
                )
        shared = np.intersect1d(_pairs(self.train), _pairs(self.test))
        if shared.size:
            user, item = divmod(int(shared[0]), len(self.items))
            raise InvalidInput(
                f"{shared.size} (user, item) pairs are in both train and test, for example user "
                f"{self.users.id(user)!r} with item {self.items.id(item)!r}; remove them from one side"
            )

    @classmethod
    def of(cls, train: Interactions, test: Interactions, *, items: IdMap | None = None, name: str = "given") -> "Split":
        """A ready-made split, its two sides aligned onto the union of their ids: train's rows stay, new ids follow.

        items: more items that can be ranked although neither side touches them, such as `catalog.items`.
        Raises InvalidInput when ids of one kind have different types on the two sides.
        """
        users = _union("user", train.users, test.users)
        every_item = _union("item", train.items, test.items, *(() if items is None else (items,)))
        return cls(train.align(users, every_item)[0], test.align(users, every_item)[0], name)

    @property
    def users(self) -> IdMap:
        return self.train.users

    @property
    def items(self) -> IdMap:
        return self.train.items

    @cached_property
    def warm_items(self) -> NDArray[np.bool_]:
        """Items with at least one training interaction. bool [n_items], read-only."""
        warm = np.zeros(len(self.items), dtype=bool)
        warm[self.train.item_rows] = True
        warm.flags.writeable = False
        return warm

    @cached_property
    def cold_items(self) -> NDArray[np.bool_]:
        """Items without any training interaction. bool [n_items], read-only."""
        cold = ~self.warm_items
        cold.flags.writeable = False
        return cold

    def __repr__(self) -> str:
        return (
            f"Split({self.name!r}: {len(self.train):,} to learn from, {len(self.test):,} to be judged by; "
            f"{len(self.users):,} users, {len(self.items):,} items, {int(self.cold_items.sum()):,} of them cold)"
        )


def temporal_split(interactions: Interactions, test_fraction: float = 0.2) -> Split:
    """One cut in time for everyone: what lies after it is the test.

    The cut is the datetime below which 1 - test_fraction of the interactions lie. Interactions at the cut itself go to
    train, so the test may be smaller than asked, and every test datetime is later than every training datetime.
    Raises InvalidInput without datetimes, for a fraction outside (0, 1), or when nothing lies after the cut.
    """
    times = _datetimes(interactions, "a temporal split")
    n_train = len(times) - _share("test_fraction", test_fraction, len(times))
    cut = np.partition(times, n_train - 1)[n_train - 1]
    later = times > cut
    if not later.any():
        raise InvalidInput(
            f"the latest {len(times) - n_train + 1} of {len(times)} interactions have the same datetime, so nothing "
            "lies after the cut; use a larger test_fraction or another split"
        )
    return _divide(interactions, later, f"temporal, last {test_fraction:g}")


def leave_last(interactions: Interactions, n: int = 1) -> Split:
    """Each user's last n interactions are the test; a user with n or fewer stays in train whole.

    Among equal datetimes, the greater item row counts as the later one.
    Raises InvalidInput without datetimes, for n < 1, or when no user has more than n interactions.
    """
    times = _datetimes(interactions, "leave_last")
    if n < 1:
        raise InvalidInput(f"n is {n}; at least 1 interaction of each user must go to the test")
    users = interactions.user_rows
    order = np.lexsort((interactions.item_rows, times, users))
    place, length = _place_in_user(users[order])
    return _divide(interactions, _where(order, (place >= length - n) & (length > n)), f"leave last {n}")


def random_split(interactions: Interactions, test_fraction: float = 0.2, seed: int = 0) -> Split:
    """A random share of each user's interactions is the test.

    The share is taken user by user, so that the test holds heavy and light users alike: a user with m interactions
    gives round(test_fraction * m), but always keeps one. Raises InvalidInput for a fraction outside (0, 1), or when
    nobody has enough interactions to give one.
    """
    _share("test_fraction", test_fraction, 2)
    users = interactions.user_rows
    # Draw in the order of (user, item), so that the order of the rows does not matter.
    canonical = np.lexsort((interactions.item_rows, users))
    draws = _where(canonical, np.random.default_rng(seed).random(len(users)))
    order = np.lexsort((draws, users))
    place, length = _place_in_user(users[order])
    given = np.minimum(np.floor(test_fraction * length + 0.5), length - 1)
    return _divide(interactions, _where(order, place < given), f"random {test_fraction:g}, seed {seed}")


def cold_items_split(interactions: Interactions, item_fraction: float = 0.2, seed: int = 0) -> Split:
    """All interactions of a random share of the items are the test: in train these items are cold.

    The share is of the items that have interactions. Raises InvalidInput for a fraction outside (0, 1), or when there
    are fewer than two such items.
    """
    touched = np.unique(interactions.item_rows)
    n_cold = _share("item_fraction", item_fraction, touched.size)
    cold = np.random.default_rng(seed).permutation(touched)[:n_cold]
    return _divide(interactions, np.isin(interactions.item_rows, cold), f"cold items {item_fraction:g}, seed {seed}")


def _divide(interactions: Interactions, in_test: NDArray[np.bool_], name: str) -> Split:
    return Split(interactions.select(~in_test), interactions.select(in_test), name)


def _datetimes(interactions: Interactions, what: str) -> NDArray[np.int64]:
    if interactions.datetimes is None:
        raise InvalidInput(
            f"{what} needs datetimes and these interactions have none; name a datetime column on reading"
        )
    return interactions.datetimes


def _share(name: str, fraction: float, n: int) -> int:
    """round(fraction * n), at least 1 and at most n - 1."""
    if not 0 < fraction < 1:
        raise InvalidInput(f"{name} is {fraction}; it must lie between 0 and 1, for example 0.2")
    if n < 2:
        raise InvalidInput(f"there is nothing to split: {n} found, at least 2 needed")
    return min(max(round(fraction * n), 1), n - 1)


def _place_in_user(sorted_users: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For rows sorted by user: the place of each row within its user, from 0, and how many rows that user has."""
    _, start, index, count = np.unique(sorted_users, return_index=True, return_inverse=True, return_counts=True)
    return np.arange(sorted_users.size) - start[index], count[index]


def _where(order: NDArray[np.int64], values: NDArray[_T]) -> NDArray[_T]:
    """Undo a sort: values[j] belongs to the row that stands at order[j]."""
    placed = np.empty_like(values)
    placed[order] = values
    return placed


def _pairs(interactions: Interactions) -> NDArray[np.int64]:
    return interactions.user_rows.astype(np.int64) * len(interactions.items) + interactions.item_rows


def _union(what: str, first: IdMap, *others: IdMap) -> IdMap:
    """The ids of the first map in their rows, then the new ids of the others in order."""
    for other in others:
        if other.type != first.type:
            raise InvalidInput(
                f"{what} ids are {first.type} on one side and {other.type} on the other; read both as the same type"
            )
    if all(other == first for other in others):
        return first
    return IdMap.encode(pa.chunked_array([first.ids, *(other.ids for other in others)]))[0]
