"""Which space finds what people touch together: each as item-to-item recommender on held-out behaviour."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geo_mf.comparison.bootstrap import estimate, resampled_sums
from geo_mf.comparison.crossover import crossing
from geo_mf.comparison.figures import FEWEST_USERS, Crossover, Estimate, PairGroup, WhoIsRight, span
from geo_mf.comparison.pairs import Pairs
from geo_mf.comparison.ranks import SCORES, ranks
from geo_mf.comparison.spaces import Space

EDGES = (0, 1, 3, 6, 11, 21, 51, 101)
"""The fewest interactions of each group."""
FEWEST_PAIRS = 50
"""Of a group that is judged, beside FEWEST_USERS."""


@dataclass(frozen=True, eq=False)
class Group:
    """Pairs by number of interactions, from `low` to `high` (None: no end), bool [m]."""

    low: int
    high: int | None
    members: NDArray[np.bool_]


def who_is_right(
    a: Space, b: Space, pairs: Pairs, counts: NDArray[np.int64] | None, k: int, seed: int, scores: int = SCORES
) -> WhoIsRight:
    """How many pairs each space finds: how often the wanted item is among the k nearest of the item asked about.

    Every pair counts the same; the intervals come from drawing users again, with all their pairs.

    Args:
        a, b: the spaces.
        pairs: from behaviour that neither space has learned from.
        counts: [n], interactions of each item when the spaces were learned, for the groups and the crossover.
        k: how near.
        seed: of the bootstrap.
        scores: cosines held at once.
    """
    hits = ranks(a, b, pairs.asked, pairs.wanted, scores) <= k
    rarer = None if counts is None else np.minimum(counts[pairs.asked], counts[pairs.wanted])
    groups, dropped = ([], []) if rarer is None else grouped(rarer, pairs.users)
    everything = Group(0, None, np.ones(len(pairs), bool))
    judged = [*groups, everything]
    users = int(pairs.users.max()) + 1
    values = np.concatenate([np.ones((len(pairs), 1)), hits], axis=1)
    columns = [
        np.bincount(pairs.users, values[:, column] * group.members, minlength=users)
        for group in judged
        for column in range(4)
    ]
    sums = resampled_sums(np.stack(columns, axis=1), seed).reshape(-1, len(judged), 4)
    *found, overall = (_judged(group, sums[:, place], pairs.users, rarer) for place, group in enumerate(judged))
    crossover, leader = _crossover(found, sums[:, :-1], (a.name, b.name))
    if rarer is None and overall.difference.value:
        leader = a.name if overall.difference.value > 0 else b.name
    return WhoIsRight(
        k,
        len(a),
        overall,
        tuple(found),
        tuple(span(one.low, one.high) for one in dropped),
        crossover,
        leader,
        pairs.left_out,
    )


def grouped(rarer: NDArray[np.int64], users: NDArray[np.int64]) -> tuple[list[Group], list[Group]]:
    """The groups that can be judged, and those that cannot.

    Items without any interaction stay by themselves. Other groups that are too small are joined with the next ones, and
    at the end with the one before.
    """

    def enough(members: NDArray[np.bool_]) -> bool:
        return members.sum() >= FEWEST_PAIRS and len(np.unique(users[members])) >= FEWEST_USERS

    at = np.searchsorted(EDGES, rarer, side="right") - 1
    highs: list[int | None] = [*(edge - 1 for edge in EDGES[1:]), None]
    runs: list[list[int]] = [[]]
    for edge in range(1, len(EDGES)):
        runs[-1].append(edge)
        if enough(np.isin(at, runs[-1])):
            runs.append([])
    rest = runs.pop()
    if runs:
        runs[-1] += rest
    else:
        runs = [rest]
    groups = [Group(EDGES[run[0]], highs[run[-1]], np.isin(at, run)) for run in [[0], *runs]]
    judged = [group for group in groups if enough(group.members)]
    return judged, [group for group in groups if group.members.any() and not enough(group.members)]


def _judged(
    group: Group, sums: NDArray[np.float64], users: NDArray[np.int64], rarer: NDArray[np.int64] | None
) -> PairGroup:
    """From sums [draws, 4]: pairs, and those found by the first space, the second and both."""
    shares = np.divide(sums[:, 1:], sums[:, :1], out=np.full((len(sums), 3), np.nan), where=sums[:, :1] > 0)
    crowd = len(np.unique(users[group.members]))
    first, second, both = (_share(shares[:, column], crowd) for column in range(3))
    better = 0 if first.value >= second.value else 1
    difference, gain = (estimate(shares[:, column] - shares[:, other]) for column, other in ((0, 1), (2, better)))
    if crowd < FEWEST_USERS:  # drawing them again would give the same ones again, as if nobody else could have come
        difference, gain = (replace(one, low=-1.0, high=1.0) for one in (difference, gain))
    return PairGroup(
        low=group.low,
        high=group.high,
        typical=None if rarer is None else float(np.expm1(np.log1p(rarer[group.members]).mean())),
        pairs=int(sums[0, 0]),
        users=crowd,
        first=first,
        second=second,
        both=both,
        difference=difference,
        gain=gain,
    )


def _share(drawn: NDArray[np.float64], users: int) -> Estimate:
    """A share with its interval; where none or all were found, which no draw can change, that of Wilson (1927); of too
    few users, from 0 to 1."""
    found = estimate(drawn)
    if users < FEWEST_USERS:
        return replace(found, low=0.0, high=1.0)
    margin = 1.96**2 / (users + 1.96**2)
    if found.value in (0, 1):
        return Estimate(found.value, *((0.0, margin) if found.value == 0 else (1 - margin, 1.0)))
    return found


def _crossover(
    groups: list[PairGroup], sums: NDArray[np.float64], names: tuple[str, str]
) -> tuple[Crossover | None, str | None]:
    """The crossover, or the space that leads in every group, by the monotone curve."""
    if not groups:
        return None, None
    places = np.log1p([group.typical or 0.0 for group in groups])
    found = crossing(sums[:, :, 1] - sums[:, :, 2], sums[:, :, 0], places)
    after, before = names if found.sign > 0 else names[::-1]
    if found.at == 0 or math.isinf(found.at):
        even = all(group.difference.value == 0 for group in groups)
        return None, None if even else (after if found.at == 0 else before)
    below = [group.difference.sign for group in groups if (group.typical or 0.0) < found.at]
    above = [group.difference.sign for group in groups if (group.typical or 0.0) >= found.at]
    # The curve may have pooled a group that is certain of the other direction.
    refuted = found.sign in below or -found.sign in above
    clear = -found.sign in below and found.sign in above and not refuted
    high = None if math.isinf(found.high) else found.high
    return Crossover(before, after, found.at, found.low, high, clear), None
