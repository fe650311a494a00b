"""Whether cold and warm items can stand in one list: does the same score mean the same chance to be right?"""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from geo_mf.errors import InvalidInput
from geo_mf.plot.fitting import width
from geo_mf.plot.lines import Line, canvas, draw, finish, name_axes, numbers, percents
from geo_mf.plot.scales import written
from geo_mf.plot.style import SMALL

Z = 1.959963984540054
"""Standard deviations to either end of a 95 % interval."""


def calibration(
    scores: ArrayLike, right: ArrayLike, cold: ArrayLike, *, bins: int = 8, names: tuple[str, str] = ("warm", "cold"),
    title: str = "",
) -> Figure:  # fmt: skip
    """How often warm and cold items of the same score were right. Where scores are comparable, the lines coincide.

    Scores are cut into bins at the quantiles of the scores of the smaller kind, so that every bin can be judged.

    Args:
        scores: float [n], one for each item of each list.
        right: bool [n], whether the user then touched it.
        cold: bool [n], whether nobody had touched the item before.
        bins: how many; fewer where many scores are equal.
        names: of the items that are not cold, and of those that are.
        title: what the picture says.

    Raises:
        InvalidInput: sizes disagree, a score is not finite, `right` or `cold` is not boolean, or `bins` is below 1.
    """
    values = numbers(scores, "scores")
    hit, new = (_mask(mask, what, len(values)) for mask, what in ((right, "right"), (cold, "cold")))
    if bins < 1:
        raise InvalidInput(f"bins is {bins}; expected 1 or more, such as 8")
    smaller = min((values[new], values[~new]), key=lambda kind: len(kind) or np.inf)
    edges = np.unique(np.quantile(smaller, np.linspace(0, 1, bins + 1)))
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, max(len(edges) - 2, 0))
    count = max(len(edges) - 1, 1)
    judged = {
        name: np.stack([np.bincount(place[kind], minlength=count), np.bincount(place[kind & hit], minlength=count)])
        for name, kind in zip(names, (~new, new), strict=True)
    }
    lines = [_rates(name, *counts) for name, counts in judged.items() if counts[0].any()]
    figure, (axes,) = canvas()
    handles = draw(axes, lines, bars=True, first=0 if judged[names[0]][0].any() else 1)
    axes.set_xlim(-0.5, count - 0.5)
    percents(axes, *(line.high for line in lines))
    # Numbers stand at the edges of the bins.
    told = _edges(edges)
    widest = 1.2 * max(width(figure, one, SMALL) for one in told)
    step = int(np.ceil(widest * len(edges) / (6.4 * figure.dpi)))
    axes.set_xticks((np.arange(len(edges)) - 0.5)[::step], told[::step])
    name_axes(axes, "score, in bins of about equally many items", "items that were right")
    said, note = _verdict(judged, names)
    keys = {
        f"{line.name}: {int(judged[line.name][0].sum()):,} items": h for line, h in zip(lines, handles, strict=True)
    }
    finish(figure, axes, title or said, keys, f"Bars: 95 % Wilson intervals. {note}")
    return figure


def wilson(right: NDArray[np.int64], asked: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 95 % interval of shares right / asked (Wilson 1927), low and high; `asked` is above 0."""
    share = right / asked
    middle = (share + Z**2 / (2 * asked)) / (1 + Z**2 / asked)
    half = Z / (1 + Z**2 / asked) * np.sqrt(share * (1 - share) / asked + Z**2 / (4 * asked**2))
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)


def _rates(name: str, asked: NDArray[np.int64], right: NDArray[np.int64]) -> Line:
    """Shares in per cent by bin; a bin without items is a gap."""
    some = asked > 0
    share, low, high = (np.full(len(asked), np.nan) for _ in range(3))
    share[some] = 100 * right[some] / asked[some]
    low[some], high[some] = (100 * end for end in wilson(right[some], asked[some]))
    return Line(name, np.arange(len(asked), dtype=float), share, low, high)


def _edges(edges: NDArray[np.float64]) -> list[str]:
    """The edges with equally many decimals, or each with its own where that would be many."""
    if len(edges) < 2:
        return [written(float(edge)) for edge in edges]
    step = 10.0 ** np.floor(np.log10(np.diff(edges).min()))
    alike = [written(edge, step, float(np.abs(edges).max())) for edge in edges.tolist()]
    return alike if max(map(len, alike)) <= 7 else [written(edge) for edge in edges.tolist()]


def _verdict(judged: dict[str, NDArray[np.int64]], names: tuple[str, str]) -> tuple[str, str]:
    """What the picture says, and the figures behind it: warm items weighed to the scores of the cold ones."""
    (many, won), (asked, right) = judged[names[0]], judged[names[1]]
    both = (many > 0) & (asked > 0)
    if not both.any():
        if asked.any() and many.any():
            return "Nothing to compare: no score at which both kinds stand", ""
        return f"Only {names[1] if asked.any() else names[0]} items: nothing to compare", ""
    weight = asked[both] / asked[both].sum()
    theirs, ours = right[both] / asked[both], won[both] / many[both]
    here, there = float(weight @ theirs), float(weight @ ours)
    # With one success and one failure added, a bin of only one kind still has a spread.
    spread = sum(
        (hits + 1) / (all_ + 2) * (1 - (hits + 1) / (all_ + 2)) / all_
        for hits, all_ in ((right[both], asked[both]), (won[both], many[both]))
    )
    error = float(np.sqrt(weight**2 @ spread))
    note = (
        f"At the scores of the {names[1]} items, {_percent(here)} of them were right, and {_percent(there)} of the "
        f"{names[0]} ones."
    )
    if abs(here - there) <= Z * error:
        return f"Equal scores mean equal chances for {names[1]} and {names[0]} items, as far as can be told", note
    high, less = ("too high", "less") if here < there else ("too low", "more")
    who = f"{names[1][:1].upper()}{names[1][1:]}"
    return f"{who} items are scored {high}: at equal scores they are right {less} often", note


def _percent(share: float) -> str:
    return f"{100 * share:.3g}\u00a0%"


def _mask(values: ArrayLike, what: str, size: int) -> NDArray[np.bool_]:
    mask = np.asarray(values)
    if mask.dtype != bool or mask.shape != (size,):
        raise InvalidInput(
            f"{what} is {mask.dtype} of shape {mask.shape}; expected bool [{size}], one for each score"
        )  # fmt: skip
    return mask
