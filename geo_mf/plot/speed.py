"""How much an index finds, against how fast it answers."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from geo_mf.errors import InvalidInput
from geo_mf.plot.lines import Line, canvas, draw, few, finish, name_axes, numbers, upright
from geo_mf.plot.scales import decades, written


def recall_speed(
    measured: Mapping[str, ArrayLike], *, k: int = 10, target: float | None = None, note: str = "", title: str = ""
) -> Figure:
    """Recall against queries a second, one line for each index. Further right finds more, further up is faster.

    Args:
        measured: by name of an index, float [settings, 2]: recall, and queries a second. At most 6 indexes.
        k: of how many best rows the recall speaks.
        target: the recall that is wanted, drawn as a line; None for none.
        note: under what conditions it was measured.
        title: what the picture says.

    Raises:
        InvalidInput: sizes are wrong, a recall is not between 0 and 1, or a rate is not above 0.
    """
    few(list(measured), "indexes")
    lines = []
    for name, points in measured.items():
        table = numbers(points, f"points of {name!r}", shape=(None, 2))
        if table[:, 0].min() < 0 or table[:, 0].max() > 1 or table[:, 1].min() <= 0:
            raise InvalidInput(
                f"points of {name!r} are {table.tolist()}; expected a recall from 0 to 1 and queries a second above 0"
            )
        lines.append(Line(name, *table[np.lexsort((-table[:, 1], table[:, 0]))].T))
    figure, (axes,) = canvas()
    handles = draw(axes, lines)
    recalls = np.concatenate([line.x for line in lines] + ([] if target is None else [np.array([target])]))
    room = 0.04 * max(float(np.ptp(recalls)), 0.05)
    low, high = float(recalls.min()) - room, float(recalls.max()) + room
    ticks = np.asarray(MaxNLocator(7, steps=[1, 2, 5, 10]).tick_values(low, high))
    axes.set_xticks(ticks[(ticks >= low) & (ticks <= min(high, 1))])
    axes.set_xlim(low, high)
    decades(axes.yaxis, np.concatenate([line.y for line in lines]))
    keys = {line.name: handle for line, handle in zip(lines, handles, strict=True)}
    said = f"The fastest: {_fastest(lines, 0)}"
    if target is not None:
        keys[f"wanted: {target:g}"] = upright(axes, target)
        enough = [line for line in lines if line.x.max() >= target]
        said = f"At recall {target:g} or more, the fastest is {_fastest(enough, target)}"
        if not enough:
            said = f"Nothing reaches recall {target:g}; the most is {max(line.x.max() for line in lines):.3f}"
    name_axes(axes, f"recall@{k}", "queries a second (logarithmic)")
    finish(figure, axes, title or said, keys, f"{note} Further right finds more, further up is faster.".strip())
    return figure


def _fastest(lines: list[Line], target: float) -> str:
    rates = [(_rate(line, target), line.name) for line in lines]
    rate, name = max(rates, default=(0.0, ""))
    return f"{name} ({written(float(f'{rate:.2g}'))} queries a second)"


def _rate(line: Line, target: float) -> float:
    """The highest rate of a line at this recall or more, also between two settings."""
    crossing = np.exp(np.interp(target, line.x, np.log(line.y))) if line.x.min() < target else 0.0
    return max(float(crossing), float(line.y[line.x >= target].max()))
