"""The report of a comparison: one HTML file with its script and pictures inside, which asks nobody for anything."""

import base64
import html
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from string import Template

import numpy as np
from matplotlib.figure import Figure

from geo_mf import __version__, plot
from geo_mf.comparison.neighbours import Neighbours
from geo_mf.comparison.result import Comparison
from geo_mf.comparison.spaces import Space
from geo_mf.errors import InvalidInput
from geo_mf.recommender import Recommender
from geo_mf.report.maps import MOST, Colour, items_of

__all__ = ["check_colour", "index_report"]

Spaces = tuple[np.ndarray, np.ndarray]

NEAR = 10

FEWEST_COLOURS, MOST_COLOURS = 2, 60
"""Values of a column that is offered to colour the maps by."""


def check_colour(rec: Recommender, colour: str | None) -> None:
    """Raises InvalidInput for a column that the catalogue does not have."""
    names = rec.catalog.table.column_names
    if colour is not None and colour not in names:
        raise InvalidInput(f"there is no column {colour!r} to colour by; the catalogue has {', '.join(names)}")


def index_report(rec: Recommender, found: Comparison, *, colour: str | None = None, seed: int = 0) -> str:
    """The page of an index, compared.

    Args:
        rec: the index.
        found: what `compare_index` found of it.
        colour: column of the catalogue to colour the maps by. By default the first with 2 to 60 different values.
        seed: of the sample of items that is drawn, where there are more than 5,000.

    Raises:
        InvalidInput: there is no such column.
    """
    check_colour(rec, colour)
    now = rec.now
    counts = np.bincount(now.history.indices, minlength=len(now.catalog))
    every = np.flatnonzero(now.live & (counts > 0) & now.embeddings.any(axis=1))
    centred = now.item_factors[every] - now.item_factors[counts > 0].mean(axis=0)
    drawn_of = np.sort(np.random.default_rng(seed).permutation(len(every))[:MOST])
    rows, spaces = every[drawn_of], (centred[drawn_of], now.embeddings[every[drawn_of]])
    first, second = Space.of("factors", centred), Space.of("embeddings", now.embeddings[every])
    near = min(NEAR, len(every) - 1)
    shared = (Neighbours.of(first, second, drawn_of).depths <= near).sum(axis=1)
    columns = list(_columns(rec, colour, rows))
    notes = [f"{counts[row]:,} interactions" for row in rows]
    for column in columns:
        notes = [f"{note}; {column.name}: {value}" for note, value in zip(notes, column.values, strict=True)]
    notes = [f"{note}; both spaces name {both} of its {near} nearest" for note, both in zip(notes, shared, strict=True)]
    colours = [
        *columns,
        Colour("interactions", counts[rows].tolist(), logarithmic=True),
        Colour(f"neighbours shared, of {near}", shared.tolist()),
    ]
    items = items_of(spaces, [now.titles[row] for row in rows], notes, colours)
    drawn = "" if len(rows) == found.items else f" The maps show {len(rows):,} of them."
    about = (
        f"{found.items:,} items, {len(now.users):,} people, {now.history.nnz:,} interactions; "
        f"{found.names[0]} of {found.dims[0]} numbers, {found.names[1]} of {found.dims[1]}.{drawn}"
    )
    title = f"{_up(found.names[0])} and {found.names[1]}"
    return page(found, items, _pictures(found, spaces), title=title, about=about)


def page(found: Comparison, items: str, pictures: Iterable[tuple[Figure, str]], *, title: str, about: str) -> str:
    """The page.

    Args:
        found: the comparison.
        items: JSON of the maps' items, see `items_of`.
        pictures: figures, and what to say where they cannot be seen.
        title: at its head.
        about: what was compared, in a sentence.
    """
    home = resources.files("geo_mf.report")
    style, script, form = (home.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js", "html"))
    return Template(form).substitute(
        title=html.escape(title),
        about=html.escape(about),
        style=style,
        script=script,
        findings="\n".join(f"<li>{html.escape(one)}</li>" for one in found.findings),
        first=html.escape(_up(found.names[0])),
        second=html.escape(_up(found.names[1])),
        pictures="\n".join(_image(figure, words) for figure, words in pictures),
        tables=found.tables_html(),
        items=items,
        made=f"Made by geo_mf {html.escape(__version__)}. Every choice at random was made with seed {found.seed}.",
    )


def _pictures(found: Comparison, spaces: Spaces) -> Iterator[tuple[Figure, str]]:
    if found.who_is_right is not None:
        yield plot.crossover(found.who_is_right, found.names), "Pairs found by each space, by number of interactions"
    yield plot.overlap_curve(found.overlaps), "Nearest neighbours that both spaces name, against how many are asked for"
    yield plot.spectrum(*spaces), "How many directions each space uses"


def _image(figure: Figure, words: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(words)}" src="data:image/png;base64,{data}">'


def _columns(rec: Recommender, colour: str | None, rows: np.ndarray) -> Iterator[Colour]:
    """The column to colour by: the one that was named, or the first that has few values."""
    table, catalog = rec.catalog.table, rec.catalog
    if colour is not None:
        yield Colour(colour, _values(table.column(colour).take(rows).to_pylist()))
        return
    for name in table.column_names:
        if name in (catalog.id_column, catalog.title_column):
            continue
        values = _values(table.column(name).take(rows).to_pylist())
        if FEWEST_COLOURS <= len({value for value in values if value is not None}) <= MOST_COLOURS:
            yield Colour(name, values)
            return


def _values(column: Sequence[object]) -> list[object]:
    """One value an item: the first of several. NaN and infinity say no more than a missing value."""
    found: list[object] = []
    for value in column:
        if isinstance(value, list):
            value = value[0] if value else None
        elif isinstance(value, str):
            value = value.split("|")[0].strip() or None
        if isinstance(value, float) and not math.isfinite(value):
            value = None
        found.append(value if value is None or isinstance(value, int | float) else str(value))
    return found


def _up(name: str) -> str:
    return name[:1].upper() + name[1:]
