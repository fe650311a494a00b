"""Two spaces of the same items: how many neighbours they share, and which of them finds more."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from geo_mf.errors import InvalidInput
from geo_mf.plot.fitting import width
from geo_mf.plot.lines import Line, canvas, draw, finish, name_axes, percents
from geo_mf.plot.scales import logarithmic, written
from geo_mf.plot.style import INK, SMALL

NEAR = 10
"""The number of neighbours that the title speaks of, where it was measured."""

NAMES = ("factors", "embeddings")


class Interval(Protocol):
    """A figure and its 95 % interval, such as `geo_mf.comparison.figures.Estimate`."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


class OverlapRow(Protocol):
    """The share of the k nearest neighbours that both spaces name, and what chance would share."""

    @property
    def k(self) -> int: ...
    @property
    def share(self) -> Interval: ...
    @property
    def chance(self) -> float: ...


class PairRow(Protocol):
    """Pairs of items with `low` to `high` interactions (None: no upper end), and the share that each space finds."""

    @property
    def label(self) -> str: ...
    @property
    def low(self) -> int: ...
    @property
    def high(self) -> int | None: ...
    @property
    def typical(self) -> float | None: ...
    @property
    def pairs(self) -> int: ...
    @property
    def first(self) -> Interval: ...
    @property
    def second(self) -> Interval: ...
    @property
    def both(self) -> Interval: ...
    @property
    def difference(self) -> Interval: ...


class Crossing(Protocol):
    """From `at` interactions on, `after` finds more than `before`; `high` is None where there may be no such number."""

    @property
    def before(self) -> str: ...
    @property
    def after(self) -> str: ...
    @property
    def at(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float | None: ...
    @property
    def clear(self) -> bool: ...


class PairTable(Protocol):
    """Which space finds more, such as `geo_mf.comparison.figures.WhoIsRight`. `k`: among how many nearest."""

    @property
    def k(self) -> int: ...
    @property
    def overall(self) -> PairRow: ...
    @property
    def groups(self) -> Sequence[PairRow]: ...
    @property
    def crossover(self) -> Crossing | None: ...
    @property
    def leader(self) -> str | None: ...
    @property
    def dropped(self) -> Sequence[str]: ...


def overlap_curve(overlap: Sequence[OverlapRow], *, title: str = "") -> Figure:
    """How many of an item's k nearest neighbours two spaces share, against k, beside what chance would give.

    Args:
        overlap: one row for each k.
        title: what the picture says.

    Raises:
        InvalidInput: there is no row, or a k twice.
    """
    rows = sorted(overlap, key=lambda row: row.k)
    ks = np.array([row.k for row in rows], float)
    if not rows or rows[0].k < 1 or len(np.unique(ks)) < len(rows):
        raise InvalidInput(f"the rows have k = {[row.k for row in rows]}; expected one or more rows, each of another k")
    shared = _percent("shared by both spaces", ks, [row.share for row in rows])
    chance = 100 * np.array([row.chance for row in rows])
    figure, (axes,) = canvas()
    logarithmic(axes.xaxis, ks)
    (line,) = draw(axes, [shared])
    (level,) = axes.plot(ks, chance, color=INK, linewidth=1.6, linestyle="--", zorder=1)
    if len(ks) == 1:
        level.set(marker="_", markersize=26, markeredgewidth=2.2)
    percents(axes, shared.high, chance)
    name_axes(axes, "k, the number of nearest neighbours (logarithmic)", "neighbours that both spaces name")
    told = min(rows, key=lambda row: abs(np.log(row.k / NEAR)))
    said = (
        f"Of an item's {told.k:,} nearest, the two spaces share {_share(told.share.value)}; chance would give "
        f"{_share(told.chance)}"
    )
    note = "95 % intervals." if len(rows) == 1 else "Band: 95 % interval."
    finish(figure, axes, title or said, {"shared by both spaces": line, "by chance": level}, note)
    return figure


def crossover(right: PairTable, names: tuple[str, str] = NAMES, *, title: str = "") -> Figure:
    """Which space finds the pairs that people touched together, by how often their items had been touched.

    Args:
        right: groups of pairs, and the number of interactions from which on one space finds more than the other. Where
            there are no groups, all pairs stand as one.
        names: of the first and the second space.
        title: what the picture says.
    """
    groups = list(right.groups) or [right.overall]
    x = np.arange(len(groups), dtype=float)
    lines = [
        _percent(names[0], x, [group.first for group in groups]),
        _percent(names[1], x, [group.second for group in groups]),
        _percent("both together", x, [group.both for group in groups]),
    ]
    figure, (axes,) = canvas(8.2, 5.8)
    handles = draw(axes, lines, bars=True)
    handles[2].set(linewidth=1.4, linestyle="--")
    axes.set_xlim(-0.5, len(groups) - 0.5)
    percents(axes, *(line.high for line in lines))
    point = right.crossover
    if point is not None and right.groups:
        low, at, high = (_place(groups, value) for value in (point.low, point.at, point.high))
        axes.axvspan(low, high, color=INK, alpha=0.08, linewidth=0, zorder=0)
        axes.axvline(at, color=INK, linewidth=1.6, linestyle=":", zorder=1)
    labels = [f"{group.label}\n{written(group.pairs)}" for group in groups]
    widest = max(width(figure, row, SMALL) for label in labels for row in label.split("\n"))
    step = int(np.ceil(1.1 * widest * len(groups) / (6.8 * figure.dpi)))
    axes.set_xticks(x[::step], labels[::step], parse_math=False)
    known = groups[0].typical is not None
    below = "interactions of the less touched item in training" if known else "interactions are not known"
    name_axes(axes, f"{below}\n(second row: pairs)", f"pairs found in the top {right.k:,}")
    note = "Bars: 95 % intervals."
    if point is not None and right.groups:
        note += " Dotted: where the lines cross; grey: its 95 % interval."
    keys = dict(zip([line.name for line in lines], handles, strict=True))
    finish(figure, axes, title or _who(right, names), keys, note)
    return figure


def _who(right: PairTable, names: tuple[str, str]) -> str:
    point = right.crossover
    if point is not None:
        reach = f"{_whole(point.low)} or more" if point.high is None else f"{_whole(point.low)} to {_whole(point.high)}"
        more = f"From about {_whole(point.at)} interactions on ({reach}), more is found by {point.after} than by "
        return f"{more}{point.before}" if point.clear else f"Not certain: {more[0].lower()}{more[1:]}{point.before}"
    difference = right.overall.difference
    if difference.low <= 0 <= difference.high:
        return f"No clear difference: {names[0]} and {names[1]} find about as much"
    # Of all pairs, also those of no group: whoever leads in the groups may be behind altogether.
    first, other, sign = (*names, 1) if difference.low > 0 else (*names[::-1], -1)
    certain = [min(sign * group.difference.low, sign * group.difference.high) > 0 for group in right.groups]
    every = "At every number of interactions" + (" that could be judged" if right.dropped else "")
    where = every if len(certain) > 1 and all(certain) else "Altogether"
    return f"{where}, more is found by {first} than by {other}"


def _whole(count: float) -> str:
    return written(float(round(count)) if count >= 2 else count)


def _place(groups: Sequence[PairRow], count: float | None) -> float:
    """Where a number of interactions stands among the groups: linear in its logarithm, as the lines between them."""
    if count is None:
        return len(groups) - 0.5
    middles = [
        (group.low + (group.low if group.high is None else group.high)) / 2 if group.typical is None else group.typical
        for group in groups
    ]
    if count <= middles[0]:
        return -0.5
    if count > middles[-1]:
        return len(groups) - 0.5
    return float(np.interp(np.log1p(count), np.log1p(middles), np.arange(len(groups))))


def _percent(name: str, x: NDArray[np.float64], shares: Sequence[Interval]) -> Line:
    ends = 100 * np.array([(one.value, one.low, one.high) for one in shares], float)
    return Line(name, x, *ends.T)


def _share(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f}\u00a0%" if percent >= 9.95 or percent == 0 else f"{percent:.2g}\u00a0%"
