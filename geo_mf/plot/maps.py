"""Items laid flat: one space, or two side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.text import Annotation
from numpy.typing import ArrayLike, NDArray

from geo_mf.errors import InvalidInput
from geo_mf.plot.flat import Plane, flatten
from geo_mf.plot.groups import MIN_MEMBERS, Attribute, Group, attribute
from geo_mf.plot.style import COLOURS, GREY, INK, NORMAL, SCALE, SMALL, blank, footnote, headline
from geo_mf.plot.words import settle, word

REACH = 1.18
"""Standard deviations to the rim of an ellipse: half of a normally spread group lies inside (1 - exp(-REACH²/2))."""

TITLE_WIDTH = 34


def space_map(
    vectors: ArrayLike,
    labels: Sequence[object] | None = None,
    titles: Sequence[str] | None = None,
    *,
    mark: Sequence[int] = (),
    highlight: Sequence[object] | None = None,
    label_name: str = "groups",
    title: str = "",
) -> Figure:
    """The items of one space, laid flat by principal component analysis of their directions (see flat.py).

    Args:
        vectors: [items, dim] float, at least 3 items and 2 dimensions.
        labels: [items], an attribute: numbers become a colour scale, anything else groups. None is "in no group".
        titles: [items], what to call an item that is marked.
        mark: rows to ring and name.
        highlight: groups to colour, at most 6. By default the 5 most easily told apart; the others are grey.
        label_name: what the labels are, such as "topics" or "year".
        title: what the picture says.

    Raises:
        InvalidInput: sizes disagree, a value is not finite, or `highlight` or `mark` names what is not there.
    """
    plane = flatten(vectors, "vectors")
    colours = None if labels is None else attribute(labels, label_name, highlight, [plane])
    marked = _marked(mark, titles, len(plane.points))
    figure = blank(7.6, 6.4)
    axes = figure.add_subplot()
    words = _draw(figure, axes, plane, colours, marked)
    headline(axes, title or f"{int(plane.drawn.sum()):,} items")
    _explain(figure, colours)
    settle(figure, [(axes, words, plane.points[list(marked)])])
    return figure


def two_maps(
    factors: ArrayLike,
    embeddings: ArrayLike,
    labels: Sequence[object] | None = None,
    titles: Sequence[str] | None = None,
    *,
    mark: Sequence[int] = (),
    highlight: Sequence[object] | None = None,
    label_name: str = "groups",
) -> Figure:
    """The same items in both spaces, side by side, coloured and marked alike.

    The right map is rotated, and mirrored if need be, to lie over the left one as well as it can: where the spaces
    agree, a place means the same on both sides.

    Args:
        factors: [items, rank] float.
        embeddings: [items, dim] float, the same items in the same order.
        labels, titles, mark, highlight, label_name: as in `space_map`.

    Raises:
        InvalidInput: as in `space_map`, or the two spaces differ in their number of items.
    """
    left, right = flatten(factors, "factors"), flatten(embeddings, "embeddings")
    if len(left.points) != len(right.points):
        raise InvalidInput(
            f"factors have {len(left.points)} rows and embeddings {len(right.points)}; give the same items to both"
        )
    right = right.turned_towards(left)
    colours = None if labels is None else attribute(labels, label_name, highlight, [left, right])
    marked = _marked(mark, titles, len(left.points))
    figure = blank(12.4, 6.6)
    drawn = []
    for place, (plane, name) in enumerate(((left, "Factors: who touches what"), (right, "Text: what is written")), 1):
        axes = figure.add_subplot(1, 2, place)
        drawn.append((axes, _draw(figure, axes, plane, colours, marked), plane.points[list(marked)]))
        headline(axes, name)
    _explain(figure, colours)
    settle(figure, drawn)
    return figure


def _marked(mark: Sequence[int], titles: Sequence[str] | None, size: int) -> dict[int, str]:
    """Rows to ring, and what to call them."""
    if titles is not None and len(titles) != size:
        raise InvalidInput(f"there are {len(titles)} titles for {size} items; give one for each item")
    outside = [row for row in mark if not 0 <= row < size]
    if outside:
        raise InvalidInput(f"mark names row {outside[0]}, but there are {size} items: rows go from 0 to {size - 1}")
    return {int(row): "" if titles is None else _short(titles[row]) for row in mark}


def _short(title: str) -> str:
    words = " ".join(title.split())
    return words if len(words) <= TITLE_WIDTH else words[: TITLE_WIDTH - 1].rstrip() + "…"


def _draw(
    figure: Figure, axes: Axes, plane: Plane, colours: Attribute | None, marked: Mapping[int, str]
) -> list[Annotation]:
    """Draw the items; returns the names, which `settle` then moves apart."""
    points = plane.points
    size = float(np.clip(12_000 / len(points), 4, 46))
    # Among thousands of grey dots a few coloured ones must not drown, nor their colour in a white rim.
    strong, rim = max(size, 14.0), 0.6 if size > 20 else 0.2
    groups = colours.groups if colours is not None else ()
    words: list[Annotation] = []
    if colours is not None and colours.numbers is not None:
        dots = axes.scatter(*points[plane.drawn].T, s=size, c=colours.numbers[plane.drawn], cmap=SCALE, linewidths=0)
        bar = figure.colorbar(dots, ax=axes, shrink=0.8, pad=0.02)
        bar.set_label(colours.name, fontsize=NORMAL, parse_math=False)
        bar.ax.tick_params(labelsize=SMALL)
    else:
        rest = plane.drawn & ~np.any([g.members for g in groups], axis=0) if groups else plane.drawn
        axes.scatter(*points[rest].T, s=0.5 * size, c=GREY if colours is not None else COLOURS[1], linewidths=0)
    middle = np.nanmedian(points, axis=0)
    for group in groups:
        mine = points[group.members & plane.drawn]
        style = {"c": group.colour, "marker": group.marker, "edgecolors": "white", "linewidths": rim}
        axes.scatter(*mine.T, s=strong, zorder=3, **style)
        if len(mine) >= MIN_MEMBERS:
            words.append(_ellipse(axes, group, mine, middle))
        elif len(mine):
            words.append(word(axes, group.name, mine.mean(axis=0), (0, 12), group.colour, NORMAL))
    for row, name in marked.items():
        if plane.drawn[row]:
            axes.scatter(*points[row], s=170, facecolors="none", edgecolors=INK, linewidths=2.2, zorder=5)
            if name:
                words.append(word(axes, name, points[row], (0, 16), INK, SMALL))
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color(GREY)
    shares = 100 * plane.shares[:2]
    axes.set_xlabel(f"direction 1: {shares[0]:.0f} % of the variance", fontsize=SMALL)
    axes.set_ylabel(f"direction 2: {shares[1]:.0f} % of the variance", fontsize=SMALL)
    return words


def _ellipse(axes: Axes, group: Group, points: NDArray[np.float64], middle: NDArray[np.float64]) -> Annotation:
    """A group's ellipse, and its name at the rim that faces away from the middle of the map."""
    centre, covariance = points.mean(axis=0), np.cov(points.T)
    values, directions = np.linalg.eigh(covariance)
    angle = float(np.degrees(np.arctan2(directions[1, 1], directions[0, 1])))
    across, along = 2 * REACH * np.sqrt(np.maximum(values, 0))
    shape = Ellipse((centre[0], centre[1]), along, across, angle=angle, color=group.colour, alpha=0.13, linewidth=0)
    axes.add_patch(shape)
    away = centre - middle
    away = away / np.linalg.norm(away) if np.linalg.norm(away) > 0 else np.array([0.0, 1.0])
    # The ellipse's own reach in a direction d is the length of REACH * covariance^(1/2) d.
    rim = centre + away * REACH * np.sqrt(max(float(away @ covariance @ away), 0.0))
    return word(axes, group.name, rim, (0, 0), group.colour, NORMAL)


def _explain(figure: Figure, colours: Attribute | None) -> None:
    if colours is None or not colours.groups:
        return
    shown, total = len(colours.groups), colours.total
    which = f"{shown} of {total} {colours.name} in colour. " if shown < total else ""
    footnote(figure, f"{which}An ellipse holds about half of its group.")
