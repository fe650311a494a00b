"""Items laid flat: one space, or two side by side."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike, NDArray

from geo_mf.errors import InvalidInput
from geo_mf.plot.fitting import wrapped
from geo_mf.plot.flat import Plane, flatten
from geo_mf.plot.groups import MIN_MEMBERS, Attribute, Group, attribute
from geo_mf.plot.movers import arrow, badge, moving
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
    movers: int | Sequence[int] = 0,
    method: Literal["pca", "umap"] = "pca",
) -> Figure:
    """The same items in both spaces, side by side, coloured and marked alike.

    The right map is rotated, mirrored if need be, and brought to the size of the left one, to lie over it as well as it
    can: where the spaces agree, a place means the same on both sides.

    Args:
        factors: [items, rank] float.
        embeddings: [items, dim] float, the same items in the same order.
        labels, titles, mark, highlight, label_name: as in `space_map`.
        movers: arrows in the right map, from where an item stands in the left one: for these rows, or for so many of
            the items that move farthest, at most 8. Of items that move alike only one is taken: there may be fewer.
        method: "pca" draws directions that hold most of the variance. "umap" draws neighbourhoods: who is near is to be
            trusted, what is far is not, nor how long an arrow is. It needs the extra `umap`, and takes some seconds.

    Raises:
        InvalidInput: as in `space_map`, the two spaces differ in their number of items, or `movers` or `method` cannot
            be used.
        MissingExtra: umap-learn is not installed.
    """
    flat = _method(method)
    left, right = flat(factors, "factors"), flat(embeddings, "embeddings")
    if len(left.points) != len(right.points):
        raise InvalidInput(
            f"factors have {len(left.points)} rows and embeddings {len(right.points)}; give the same items to both"
        )
    right = right.laid_over(left)
    colours = None if labels is None else attribute(labels, label_name, highlight, [left, right])
    marked = _marked(mark, titles, len(left.points))
    moved = moving(movers, left, right)
    figure = blank(12.4, 6.6)
    drawn: list[tuple[Axes, list[Annotation], NDArray[np.float64]]] = []
    for place, (plane, name) in enumerate(((left, "Factors: who touches what"), (right, "Text: what is written")), 1):
        axes = figure.add_subplot(1, 2, place)
        words = _draw(figure, axes, plane, colours, marked)
        drawn.append((axes, words, plane.points[[*marked, *moved]]))
        headline(axes, name)
        for number, row in enumerate(moved, 1):
            badge(axes, number, plane.points[row])
    _same_window([axes for axes, _, _ in drawn])
    notes = ["UMAP: near is to be trusted, far is not."] if method == "umap" else []
    if moved:
        named = [f"row {row}" if titles is None else _short(titles[row]) for row in moved]
        numbered = (f"{number}\u00a0{name}" for number, name in enumerate(named, 1))
        notes.append(f"Arrows come from the place in the left map. {';  '.join(numbered)}.")
    _explain(figure, colours, *notes)
    figure.draw_without_rendering()  # The arrows need the final layout.
    axes, words, marks = drawn[1]
    heads = [arrow(axes, left.points[row], right.points[row]) for row in moved]
    settle(figure, [drawn[0], (axes, words, np.concatenate([marks, *heads]))])
    return figure


def _method(method: str) -> Callable[[ArrayLike, str], Plane]:
    if method == "umap":
        from geo_mf.plot.unfold import unfolded

        return unfolded
    if method != "pca":
        raise InvalidInput(f"method is {method!r}; expected 'pca' or 'umap'")
    return flatten


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
    if len(plane.shares):
        shares = 100 * plane.shares[:2]
        axes.set_xlabel(f"direction 1: {shares[0]:.0f} % of the variance", fontsize=SMALL)
        axes.set_ylabel(f"direction 2: {shares[1]:.0f} % of the variance", fontsize=SMALL)
    return words


def _same_window(panels: Sequence[Axes]) -> None:
    """Let all maps show the same part of the plane, so that a place in one is the same place in the other."""
    window = Bbox.union([axes.dataLim for axes in panels])
    for axes in panels:
        axes.update_datalim(window.get_points())
        axes.autoscale_view()


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
    return word(axes, group.name, rim, (0, 8 if away[1] >= 0 else -8), group.colour, NORMAL)


def _explain(figure: Figure, colours: Attribute | None, *notes: str) -> None:
    words = list(notes)
    if colours is not None and colours.groups:
        shown, total = len(colours.groups), colours.total
        which = f"{shown} of {total} {colours.name} in colour. " if shown < total else ""
        words.insert(0, f"{which}An ellipse holds about half of its group.")
    if words:
        width, height = figure.get_size_inches()
        note = wrapped(figure, " ".join(words), SMALL, 0.97 * width * figure.dpi, 5)
        figure.set_size_inches(width, height + 0.2 * note.count("\n"))
        footnote(figure, note)
