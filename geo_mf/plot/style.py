"""One look for every figure, set figure by figure: matplotlib's global settings are never touched."""

import io
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito (2008): people with any common colour blindness can tell them apart."""

MARKERS = ("o", "s", "^", "D", "v", "P")
"""A marker for each colour, so that no figure depends on colour alone."""

SCALE = "cividis"
"""Colours of a numeric attribute: even steps of lightness, the same to colour-blind eyes (Nuñez et al. 2018)."""

GREY, INK, SOFT = "#C9C9C9", "#222222", "#555555"
SMALL, NORMAL, LARGE = 12.0, 13.5, 15.5
"""Points. At DPI they stay readable when the picture is shown at half its size."""

DPI = 110


class Picture(Figure):
    """A matplotlib figure that a notebook shows as PNG, whatever its plotting settings."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        # Without the version of matplotlib inside, the same picture is the same bytes.
        self.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()


def blank(width: float, height: float) -> Picture:
    """An empty figure, its size in inches."""
    return Picture(figsize=(width, height), dpi=DPI, layout="constrained")


def headline(axes: Axes, words: str) -> None:
    """What the picture says, above it and from its left edge."""
    axes.set_title(words, fontsize=LARGE, loc="left", color=INK, pad=8, parse_math=False)


def footnote(figure: Figure, words: str) -> None:
    """A remark under the picture."""
    figure.supxlabel(words, fontsize=SMALL, color=SOFT, x=0.01, ha="left", parse_math=False)


def plain(axes: Axes, grid: Literal["x", "y", "both"]) -> None:
    """Two spines, a light grid behind the data."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color="#E6E6E6", linewidth=0.8)
    axes.tick_params(labelsize=SMALL)
