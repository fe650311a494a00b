"""Names on a map, moved until none covers another."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from numpy.typing import NDArray

ROUNDS = 300
GAP, EDGE, RING = 3.0, 6.0, 12.0  # pixels: between names, to the frame, and from the middle of a mark to its rim


def word(
    axes: Axes, name: str, at: NDArray[np.float64], offset: tuple[float, float], colour: str, size: float
) -> Annotation:
    """Write a name `offset` points away from a place in the data, with a white rim. Names are never read as TeX."""
    text = axes.annotate(
        name,
        (float(at[0]), float(at[1])),
        xytext=offset,
        textcoords="offset points",
        color=_darker(colour),
        fontsize=size,
        fontweight="bold",
        ha="center",
        va="center",
        zorder=6,
        parse_math=False,
        path_effects=[withStroke(linewidth=3.5, foreground="white")],
    )
    text.set_in_layout(False)
    return text


def settle(figure: Figure, drawn: Sequence[tuple[Axes, Sequence[Annotation], NDArray[np.float64]]]) -> None:
    """Move the names of each axes off each other and off its marks, float64 [marks, 2] in the data.

    The layout must be final, so this comes last.
    """
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    for axes, words, marks in drawn:
        if not words:
            continue
        frame = axes.get_window_extent()
        boxes = np.array([text.get_window_extent(canvas.get_renderer()).extents for text in words])
        centres = axes.transData.transform(marks[np.isfinite(marks).all(axis=1)].reshape(-1, 2))
        rings = np.concatenate([centres - RING, centres + RING], axis=1)
        moved = apart(boxes, rings, (frame.x0, frame.y0, frame.x1, frame.y1))
        for text, shift in zip(words, (moved - boxes)[:, :2] * 72 / figure.dpi, strict=True):
            x, y = text.xyann
            text.xyann = (x + float(shift[0]), y + float(shift[1]))


def apart(
    boxes: NDArray[np.float64], fixed: NDArray[np.float64], frame: tuple[float, float, float, float]
) -> NDArray[np.float64]:
    """Boxes [n, 4] (x0, y0, x1, y1), moved inside the frame, then up or down off each other and off the fixed ones.

    Where the frame has no room for all of them, some still overlap at the end.
    """
    low, high = np.array(frame[:2]) + EDGE, np.array(frame[2:]) - EDGE
    shift = np.maximum(low - boxes[:, :2], 0) + np.minimum(high - boxes[:, 2:], 0)
    every = np.concatenate([boxes + np.concatenate([shift, shift], axis=1), fixed.reshape(-1, 4)])
    weight = np.repeat([1.0, 0.0], [len(boxes), len(every) - len(boxes)])
    for _ in range(ROUNDS):
        pairs = [(a, b) for a in range(len(boxes)) for b in range(len(every)) if a > b or b >= len(boxes)]
        covering = [(a, b) for a, b in pairs if _covers(every[a], every[b])]
        if not covering:
            break
        for a, b in covering:
            upper, lower = (a, b) if every[[a, b]][:, [1, 3]].sum(axis=1).argmax() == 0 else (b, a)
            needed = every[lower, 3] + GAP - every[upper, 1]
            up = needed * weight[upper] / (weight[upper] + weight[lower])
            up = min(up, max(high[1] - every[upper, 3], 0))
            down = min((needed - up) * weight[lower], max(every[lower, 1] - low[1], 0))
            every[upper, [1, 3]] += up
            every[lower, [1, 3]] -= down
    return every[: len(boxes)]


def _covers(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return bool(np.all(np.minimum(a[2:], b[2:]) > np.maximum(a[:2], b[:2])))


def _darker(colour: str) -> tuple[float, float, float]:
    """Letters are thinner than dots and need more contrast with white."""
    red, green, blue = to_rgb(colour)
    return 0.78 * red, 0.78 * green, 0.78 * blue
