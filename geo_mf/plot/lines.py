"""Named lines in one chart: how each looks, the key above them, and what they say together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from geo_mf.errors import InvalidInput
from geo_mf.plot.fitting import cut, wrapped
from geo_mf.plot.scales import Short
from geo_mf.plot.style import COLOURS, INK, LARGE, MARKERS, NORMAL, SMALL, blank, footnote, plain

MARKS = 24
"""More points than this on a line, and only some carry a marker."""

EDGE = 8.0
"""Pixels that words keep from the rim of the figure."""


@dataclass(frozen=True)
class Line:
    """A line of a chart: x and y float64 [n], and low and high float64 [n] where there are intervals. NaN is a gap."""

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None


def canvas(width: float = 7.6, height: float = 5.4, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure, its size in inches, with charts one under the other over the same x."""
    figure = blank(width, height)
    figure.get_layout_engine().set(h_pad=0.09, w_pad=0.08)  # type: ignore[union-attr]
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0].tolist()
    for axes in panels:
        plain(axes, grid="y")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(Short())
    return figure, panels


def few(names: Sequence[str], what: str) -> None:
    """Raise InvalidInput where there are no lines, or more than can be told apart."""
    if not 1 <= len(names) <= len(COLOURS):
        raise InvalidInput(
            f"there are {len(names)} {what}; expected 1 to {len(COLOURS)}: more cannot be told apart, draw some of them"
        )


def numbers(values: ArrayLike, what: str, *, shape: tuple[int | None, ...] = (None,)) -> NDArray[np.float64]:
    """The values as finite float64 of a shape, in which None is any size but 0.

    Raises InvalidInput where they are something else; `what` is the array's name, for messages.
    """
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{what} must be numbers; found {values!r}") from error
    fits = len(array.shape) == len(shape) and all(
        found == wanted if wanted is not None else found > 0 for found, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise InvalidInput(f"{what} have shape {array.shape}; expected [{wanted}], not empty")
    if not np.isfinite(array).all():
        at = tuple(int(place) for place in np.argwhere(~np.isfinite(array))[0])
        raise InvalidInput(f"{what} must be finite; found {array[at]} at {at}: remove or replace it")
    return array


def draw(axes: Axes, lines: Sequence[Line], *, bars: bool = False, first: int = 0) -> list[Line2D]:
    """Draw lines with their intervals, as bands or as bars that stand beside each other.

    Args:
        axes: where.
        lines: at most as many as there are colours.
        bars: bars instead of bands, for an x of groups that are 1 apart.
        first: number of the colour of the first line.

    Returns:
        A handle for each line, for the key.
    """
    handles = []
    for number, line in enumerate(lines):
        colour, marker = COLOURS[first + number], MARKERS[first + number]
        x = line.x + 0.05 * (number - (len(lines) - 1) / 2) if bars else line.x
        if line.low is not None and line.high is not None:
            if bars or len(x) == 1:
                axes.vlines(x, line.low, line.high, color=colour, linewidth=2.2, alpha=0.75, zorder=2)
            else:
                axes.fill_between(x, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
        every = max(1, -(-len(x) // MARKS))
        handles += axes.plot(
            x,
            line.y,
            color=colour,
            marker=marker,
            markersize=8.5,
            markevery=every,
            markeredgecolor="white",
            markeredgewidth=0.7,
            linewidth=2.4,
            zorder=3,
            clip_on=False,
        )
    return handles


def percents(axes: Axes, *highs: NDArray[np.float64] | None) -> None:
    """A y axis of per cents from 0 to a little above the highest of them."""
    top = max((float(np.nanmax(high, initial=0)) for high in highs if high is not None), default=0.0)
    axes.set_ylim(0, min(1.1 * top, 103.0) if top > 0 else 1.0)
    axes.yaxis.set_major_formatter(Short(" %"))


def ring(axes: Axes, x: float, y: float) -> None:
    """Mark one point of a line."""
    axes.plot([x], [y], marker="o", markersize=16, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=2.0,
              linestyle="none", zorder=4, clip_on=False)  # fmt: skip


def upright(axes: Axes, x: float) -> Line2D:
    """A dotted line at a place of the x axis."""
    return axes.axvline(x, color=INK, linewidth=1.4, linestyle=":", zorder=1)


def name_axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=NORMAL, parse_math=False)
    axes.set_ylabel(y, fontsize=NORMAL, parse_math=False)


def finish(figure: Figure, axes: Axes, title: str, keys: Mapping[str, Line2D], note: str = "") -> None:
    """Put the key and the title above the axes, where they cover nothing, and a remark under the picture.

    Words that are too long for their place are broken or cut. The data must be drawn: the layout is measured here.

    Args:
        figure, axes: the figure and its uppermost chart.
        title: what the picture says.
        keys: names and handles of the lines; one line alone needs no key.
        note: a remark, or nothing.
    """
    across, down = figure.get_size_inches() * figure.dpi
    if note:
        footnote(figure, wrapped(figure, note, SMALL, 0.98 * across - EDGE))
    for panel in figure.axes:
        share = down / len(figure.axes)
        panel.set_ylabel(wrapped(figure, panel.get_ylabel(), NORMAL, 0.66 * share, 2))
        panel.set_xlabel("\n".join(cut(figure, row, NORMAL, 0.8 * across) for row in panel.get_xlabel().split("\n")))
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    height = _key(figure, axes, keys, frame.width) if len(keys) > 1 else 0.0
    words = wrapped(figure, title, LARGE, across - frame.x0 - EDGE)
    axes.set_title(words, fontsize=LARGE, loc="left", color=INK, pad=8 + height, parse_math=False)
    # What stands above the data takes nothing from them: the figure grows instead.
    figure.set_size_inches(across / figure.dpi, (down + 24 * words.count("\n")) / figure.dpi + height / 72)
    figure.draw_without_rendering()


def _key(figure: Figure, axes: Axes, keys: Mapping[str, Line2D], room: float) -> float:
    """Write the key above the axes, in as many columns as fit; returns its height in points."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    # A handle and the gaps beside it take about 60 pixels.
    names = [cut(figure, name, SMALL, room - 60) for name in keys]
    for columns in range(len(names), 0, -1):
        legend = axes.legend(
            list(keys.values()),
            # Matplotlib leaves out names that begin with an underscore.
            ["\u200b" + name if name.startswith("_") else name for name in names],
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=columns,
            frameon=False,
            fontsize=SMALL,
            borderpad=0.1,
            borderaxespad=0.2,
            handlelength=1.6,
            columnspacing=1.2,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        box = legend.get_window_extent(renderer)
        if columns == 1 or box.width <= room:
            return (box.height + EDGE) * 72 / figure.dpi
    return 0.0
