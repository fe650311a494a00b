"""The items of a report's maps, as the page's script reads them."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_mf.plot.flat import flatten
from geo_mf.plot.groups import attribute
from geo_mf.plot.style import COLOURS

__all__ = ["MOST", "Colour", "items_of"]

MOST = 5000
"""Items that are drawn: more would make the page heavy, and cover each other."""
TITLE = 120
PLACES = 10_000


@dataclass(frozen=True, eq=False)
class Colour:
    """A way to colour the items.

    Attributes:
        name: such as "genres" or "interactions".
        values: one for each item: numbers, all finite, become a scale, anything else groups; None is grey.
        logarithmic: whether the scale of numbers is.
    """

    name: str
    values: Sequence[object]
    logarithmic: bool = False


def items_of(
    spaces: tuple[np.ndarray, np.ndarray], titles: Sequence[str], notes: Sequence[str], colours: Sequence[Colour]
) -> str:
    """JSON without a "<", so that no title can end the script it stands in.

    Args:
        spaces: float [n, da] and [n, db], the same items; no row is zero. The second is laid over the first.
        titles: [n].
        notes: [n], what else to tell of an item.
        colours: ways to colour them.
    """
    first = flatten(_in_two(spaces[0]), "the first space")
    second = flatten(_in_two(spaces[1]), "the second space").laid_over(first)
    planes = (first, second)
    data: dict[str, Any] = {
        "titles": [_short(title) for title in titles],
        "notes": list(notes),
        "x": [_places(plane.points[:, 0]) for plane in planes],
        "y": [_places(plane.points[:, 1]) for plane in planes],
        "colours": [_colour(one, planes) for one in colours],
    }
    return json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _colour(one: Colour, planes: Any) -> dict[str, Any]:
    known = [value for value in one.values if value is not None]
    numbers = [float(value) for value in known if isinstance(value, Real) and not isinstance(value, bool)]
    if known and len(numbers) == len(known):
        return {"name": one.name, **_scale(one, np.array(numbers))}
    groups = Counter(value for value in known if not isinstance(value, int | float))
    found = attribute(one.values, one.name, [name for name, _ in groups.most_common(len(COLOURS))] or None, planes)
    of = np.full(len(one.values), -1)
    for at, group in enumerate(found.groups):
        of[group.members] = at
    palette = [group.colour for group in found.groups]
    return {"name": one.name, "groups": [g.name for g in found.groups], "palette": palette, "of": of.tolist()}


def _scale(one: Colour, known: NDArray[np.float64]) -> dict[str, Any]:
    """Where each item stands on the scale of the numbers that are known; None where there is none."""
    numbers = np.log1p(known) if one.logarithmic else known
    low, high = float(numbers.min()), float(numbers.max())
    # Halved, so that no difference of two finite numbers is infinite.
    shares = iter(np.round((numbers / 2 - low / 2) / (high / 2 - low / 2 if high > low else 1.0), 3).tolist())
    return {
        "shares": [None if value is None else next(shares) for value in one.values],
        "ends": [f"{float(end):,.10g}" for end in (known.min(), known.max())],
    }


def _in_two(vectors: NDArray[Any]) -> NDArray[Any]:
    """A space of one dimension, in two: it lies on a line."""
    return np.pad(vectors, ((0, 0), (0, 1))) if vectors.shape[1] == 1 else vectors


def _places(points: np.ndarray) -> list[int]:
    """Whole numbers from 0 to PLACES. Each direction fills its side: a map is looked at for who is near whom."""
    low, high = float(points.min()), float(points.max())
    return np.rint((points - low) / (high - low if high > low else 1.0) * PLACES).astype(int).tolist()


def _short(title: str) -> str:
    words = " ".join(title.split())
    return words if len(words) <= TITLE else words[: TITLE - 1].rstrip() + "…"
