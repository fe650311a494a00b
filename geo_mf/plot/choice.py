"""A setting and what it is worth: which value to choose."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from geo_mf.errors import InvalidInput
from geo_mf.plot.lines import Line, canvas, draw, few, finish, name_axes, numbers, ring, upright
from geo_mf.plot.scales import logarithmic, written

WIDE = 16
"""A setting whose values reach further than this, all above 0, is drawn on a logarithmic axis."""


def validation_curve(
    settings: ArrayLike,
    curves: ArrayLike | Mapping[str, ArrayLike],
    *,
    setting: str = "setting",
    metric: str = "metric",
    smaller: bool = False,
    title: str = "",
) -> Figure:
    """A metric against the values of a setting, such as the rank or the share of text, the best value marked.

    Args:
        settings: float [n], the values that were tried, each once. Logarithmic where all are above 0 and the largest is
            over 16 times the smallest.
        curves: the metric at each of them, float [n], or [n, 3] with the ends of an interval: value, low, high. Up to 6
            of them by name.
        setting: what is varied.
        metric: what is measured.
        smaller: whether a smaller value of the metric is the better one.
        title: what the picture says.

    Raises:
        InvalidInput: sizes disagree, a value is not finite, or a setting stands twice.
    """
    x = numbers(settings, "settings")
    if len(np.unique(x)) < len(x):
        raise InvalidInput(f"settings are {x.tolist()}; expected each value once")
    named = curves if isinstance(curves, Mapping) else {"": curves}
    few(list(named), "curves")
    lines = [_line(name, x, values) for name, values in named.items()]
    figure, (axes,) = canvas()
    if x.min() > 0 and x.max() > WIDE * x.min():
        logarithmic(axes.xaxis, x)
        setting_name = f"{setting} (logarithmic)"
    else:
        setting_name = setting
    handles = draw(axes, lines)
    signed = [(line.y if smaller else -line.y, line) for line in lines]
    values, best = min(signed, key=lambda pair: float(pair[0].min()))
    at = int(values.argmin())
    upright(axes, float(best.x[at]))
    ring(axes, best.x[at], best.y[at])
    name_axes(axes, setting_name, f"{metric} ({'smaller' if smaller else 'bigger'} is better)")
    who = f" ({best.name})" if len(lines) > 1 else ""
    said = f"{metric[:1].upper()}{metric[1:]} is best at {setting} {written(best.x[at])}{who}: {written(best.y[at])}"
    keys = {f"{line.name}: best at {written(line.x[int(v.argmin())])}": h
            for (v, line), h in zip(signed, handles, strict=True)}  # fmt: skip
    finish(figure, axes, title or said, keys, _close(best, at))
    return figure


def _line(name: str, x: np.ndarray, values: ArrayLike) -> Line:
    what = f"curve {name!r}" if name else "the curve"
    wide = np.ndim(values) == 2  # pyright: ignore[reportArgumentType]
    table = numbers(values, what, shape=(len(x), 3) if wide else (len(x),)).reshape(len(x), -1)[np.argsort(x)]
    if wide and not ((table[:, 1] <= table[:, 0]) & (table[:, 0] <= table[:, 2])).all():
        raise InvalidInput(f"{what} has values outside their intervals; expected the columns value, low, high")
    return Line(name, np.sort(x), *table.T)


def _close(best: Line, at: int) -> str:
    """Which other values may be as good, where there are intervals."""
    if best.low is None or best.high is None:
        return ""
    if len(best.x) == 1:
        return "Bar: 95 % interval."
    alike = best.x[(best.low <= best.high[at]) & (best.high >= best.low[at])]
    if len(alike) == 1:
        return "Band: 95 % interval. It lies apart from those of all other values."
    ends = f"{written(float(alike[0]))} and {written(float(alike[-1]))}"
    return f"Band: 95 % interval. Between {ends} it overlaps with that of the best."
