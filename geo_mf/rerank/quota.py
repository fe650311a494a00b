"""Quotas: how often a value of a column may stand in a list, and how often it has to."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from geo_mf.errors import InvalidInput
from geo_mf.rerank.groups import Groups
from geo_mf.rerank.pool import Pool, Reranked, check_pool

Limit = int | float


@dataclass(frozen=True)
class Quota:
    """At most, or at least, so many items with one value of a column; among lists that obey, the best one.

    The order within the list stays. A maximum always holds, also after a later re-ranker: the list is rather too short,
    and says so. A minimum is filled as far as there are such candidates and maxima allow, and the reason says what is
    missing; put a quota with a minimum last, for a later re-ranker does not know of it.

    Where an item has one value (or none) and the minima fit into the list, it is optimal: no longer list obeys, and
    none of this length that obeys and lacks no more of a minimum has a larger sum of scores. Without a minimum this is
    the greedy algorithm on a partition matroid (Edmonds 1971); with one, the best items of each named value are in some
    optimal list, and what is left to choose is a partition matroid again. Where items have several values they count
    for each; the choice is greedy too, and no optimum is promised.

    Attributes:
        column: of the catalogue. Lists, and text with "|" between its parts, have several values.
        at_most: for each value of the column, or for those named in a mapping ({"ad": 1}). A whole number is a number
            of items, a number with a point between 0 and 1 is a share of the list, rounded down, but no less than 1.
        at_least: for named values, such as {"local": 1}; shares are rounded up.
        pool: how many candidates to choose from; None leaves it open.

    Raises:
        InvalidInput: a limit that is none, no limit at all, or pool < 1. In use: no such column, or a named value of
            another type.
    """

    column: str
    at_most: Limit | Mapping[Any, Limit] | None = None
    at_least: Mapping[Any, Limit] | None = None
    pool: int | None = None

    def __post_init__(self) -> None:
        check_pool(self.pool)
        if self.at_most is None and not self.at_least:
            raise InvalidInput(f"a quota for {self.column!r} needs a limit: at_most=2, or at_least={{'local': 1}}")
        if isinstance(self.at_most, Mapping):
            for value, limit in self.at_most.items():
                _check(limit, f"at_most for {value!r}", least=0)
        elif self.at_most is not None:
            _check(self.at_most, "at_most", least=1)
        if self.at_least is not None and not isinstance(self.at_least, Mapping):
            raise InvalidInput(f"at_least is {self.at_least!r}; expected named values, such as {{'local': 1}}")
        for value, limit in (self.at_least or {}).items():
            _check(limit, f"at_least for {value!r}", least=0)

    def __call__(self, pool: Pool, k: int, /) -> Reranked:
        """The list, and behind it what could still follow without more of a value than at most."""
        n, groups = len(pool), pool.groups(self.column)
        caps = np.full(len(groups.names), n, np.int64)
        if isinstance(self.at_most, Mapping):
            for value, limit in self.at_most.items():
                code = groups.code(value)
                caps[code if code >= 0 else slice(0, 0)] = _at_most(limit, k)
        elif self.at_most is not None:
            caps[:] = _at_most(self.at_most, k)
        wanted = {value: _at_least(limit, k) for value, limit in (self.at_least or {}).items()}
        reserved = _reserved(groups, {groups.code(value): number for value, number in wanted.items()}, caps, k)
        others = np.ones(n, bool)
        others[reserved] = False
        turn = np.concatenate([reserved, np.flatnonzero(others)])
        kept = turn[within(groups.take(turn), caps)]
        first = np.sort(kept[:k])
        return Reranked(np.concatenate([first, kept[k:]]), self._reason(groups, first, wanted, n, k))

    def _reason(self, groups: Groups, first: np.ndarray, wanted: dict[Any, int], n: int, k: int) -> str:
        told = []
        if len(first) < min(k, n):
            most = self.at_most
            limit = f"{dict(most)} of" if isinstance(most, Mapping) else f"{_at_most(most or 0, k)} per value of"
            told.append(f"at most {limit} {self.column!r}, among {n} candidates")
        counts = np.bincount(groups.take(first).values, minlength=len(groups.names) + 1)  # the last: no such value
        for value, number in wanted.items():
            found = int(counts[groups.code(value)])
            if found < number:
                told.append(
                    f"{found} instead of at least {number} with {value!r} in {self.column!r}, among {n} candidates"
                )
        return "; ".join(told)


def within(groups: Groups, caps: np.ndarray) -> np.ndarray:
    """Which items are taken when each in turn is, unless one of its values has been taken often enough.

    In rounds over all items at once, instead of one by one: an item is taken for certain when no value of it would be
    too often even if everybody before it were taken, and left for certain when one is too often by those who surely
    are. The first open item is decided in each round, and most of the others with it (cf. Blelloch et al. 2012, *Greedy
    sequential maximal independent set and matching are parallel on average*).

    Args:
        groups: the values of n items.
        caps: int64 [groups], how many items may have each.

    Returns:
        bool [n].
    """
    items, values = groups.items, groups.values
    by_value = np.argsort(values, kind="stable")
    items, values = items[by_value], values[by_value]
    starts = np.searchsorted(values, np.arange(len(groups.names)))[values]
    limits = caps[values]
    taken, open_ = np.zeros(len(groups), bool), np.ones(len(groups), bool)

    def touching(bad: np.ndarray) -> np.ndarray:
        found = np.zeros(len(groups), bool)
        found[items[bad]] = True
        return found

    def before(some: np.ndarray) -> np.ndarray:
        total = np.concatenate([[0], np.cumsum(some[items])])
        return total[:-1] - total[starts]

    while open_.any():
        taken |= open_ & ~touching(before(taken | open_) >= limits)
        open_ &= ~taken & ~touching(before(taken) >= limits)
    return taken


def _reserved(groups: Groups, wanted: dict[int, int], caps: np.ndarray, k: int) -> np.ndarray:
    """Places of items that fill minima (value -> number), the best ones, within the caps: int64 [m], m <= k."""
    left = np.ones(len(groups), bool)
    counts = np.zeros(len(groups.names), np.int64)
    items, chosen = groups.items, []
    for code, number in wanted.items():
        if code < 0:
            continue
        has = np.zeros(len(groups), bool)
        has[items[groups.values == code]] = True
        while counts[code] < number and len(chosen) < k:
            free = left & has
            free[items[counts[groups.values] >= caps[groups.values]]] = False
            if not free.any():
                break
            chosen.append(int(np.argmax(free)))
            left[chosen[-1]] = False
            counts[groups.take(np.asarray(chosen[-1:])).values] += 1
    return np.asarray(chosen, np.int64)


def _at_most(limit: Limit, k: int) -> int:
    return int(limit) if _whole(limit) else max(1, math.floor(limit * k + 1e-9))


def _at_least(limit: Limit, k: int) -> int:
    return int(limit) if _whole(limit) else math.ceil(limit * k - 1e-9)


def _whole(limit: Any) -> bool:
    return isinstance(limit, int | np.integer)


def _check(limit: Any, what: str, least: int) -> None:
    number = isinstance(limit, int | float | np.number) and not isinstance(limit, bool)
    if not number or not (limit >= least if _whole(limit) else 0 < limit <= 1):
        raise InvalidInput(
            f"{what} is {limit!r}; expected a number of items, {least} or more, or a share of the list such as 0.3"
        )
