"""Words broken into lines, or cut, until they fit their place."""

import re

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

LINES = 3
"""A title of more lines is not read."""


def width(figure: Figure, words: str, size: float) -> float:
    """Pixels that a line takes at a size in points."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    return renderer.get_text_width_height_descent(words, FontProperties(size=size), False)[0]


def parts(words: str) -> list[str]:
    """The words one by one. A space that must not break stays inside its word."""
    return re.findall(r"[^ \t\r\n]+", words)


def cut(figure: Figure, words: str, size: float, room: float) -> str:
    """The words in one line of at most `room` pixels, ended by an ellipsis where they are too long."""
    words = " ".join(parts(words))
    if width(figure, words, size) <= room:
        return words
    fits, too_long = 0, len(words)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        short = width(figure, words[:middle].rstrip() + "…", size) <= room
        fits, too_long = (middle, too_long) if short else (fits, middle)
    return words[:fits].rstrip() + "…"


def wrapped(figure: Figure, words: str, size: float, room: float, lines: int = LINES) -> str:
    """The words in lines of at most `room` pixels, about equally long. What does not fit into `lines` is cut."""
    broken = _broken(figure, words, size, room, lines)
    for share in (0.5, 0.6, 0.7, 0.8, 0.9):
        narrower = _broken(figure, words, size, share * room, lines)
        if len(narrower) == len(broken) and not any(line.endswith("…") for line in narrower):
            return "\n".join(narrower)
    return "\n".join(broken)


def _broken(figure: Figure, words: str, size: float, room: float, lines: int) -> list[str]:
    done: list[str] = []
    rest = parts(words)
    while rest and len(done) < lines - 1:
        taken = 1
        while taken < len(rest) and width(figure, " ".join(rest[: taken + 1]), size) <= room:
            taken += 1
        done.append(cut(figure, " ".join(rest[:taken]), size, room))
        rest = rest[taken:]
    return [*done, cut(figure, " ".join(rest), size, room)] if rest else done
