"""Which items get which colour: at most six groups stand out, the others are grey."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_mf.errors import InvalidInput
from geo_mf.plot.flat import Plane
from geo_mf.plot.style import COLOURS, MARKERS

MIN_MEMBERS = 3
"""A smaller group has no shape."""

CHOSEN = 5
"""Groups coloured when the caller names none: more than that, and the ellipses cover each other."""


@dataclass(frozen=True)
class Group:
    """Items drawn alike: members bool [items]."""

    name: str
    members: NDArray[np.bool_]
    colour: str
    marker: str


@dataclass(frozen=True)
class Attribute:
    """How to colour the items: by `numbers` float64 [items] on a scale, or the `groups`, out of `total` of them."""

    name: str
    numbers: NDArray[np.float64] | None
    groups: tuple[Group, ...]
    total: int


def attribute(
    labels: Sequence[object], name: str, highlight: Sequence[object] | None, planes: Sequence[Plane]
) -> Attribute:
    """Numbers become a scale, anything else groups; None is "in no group".

    Raises InvalidInput when there is not one label for each item, and when `highlight` names no group or too many.
    """
    size = len(planes[0].points)
    if len(labels) != size:
        raise InvalidInput(f"there are {len(labels)} labels for {size} items; give one for each item")
    if all(isinstance(label, Real) and not isinstance(label, bool) for label in labels):
        return Attribute(name, np.array(labels, np.float64), (), 0)
    every = list(dict.fromkeys(label for label in labels if label is not None))
    members = {label: np.array([one == label for one in labels]) for label in every}
    chosen = _told_apart(members, planes) if highlight is None else list(highlight)
    unknown = [label for label in chosen if label not in members]
    if unknown or len(chosen) > len(COLOURS):
        raise InvalidInput(
            f"highlight is {chosen!r}; expected at most {len(COLOURS)} of the labels {', '.join(map(repr, every))}"
        )
    groups = [
        Group(str(label), members[label], colour, marker)
        for label, colour, marker in zip(chosen, COLOURS, MARKERS, strict=False)
    ]
    return Attribute(name, None, tuple(groups), len(every))


def _told_apart(members: dict[Any, NDArray[np.bool_]], planes: Sequence[Plane]) -> list[Any]:
    """Up to CHOSEN groups that lie tight, and far from each other, in every plane; chosen one by one."""
    able = [
        label for label, mine in members.items() if all((mine & p.drawn).sum() >= MIN_MEMBERS for p in planes)
    ]  # fmt: skip
    if len(able) <= CHOSEN:
        return able
    centres = np.array([[np.nanmean(p.points[members[label]], axis=0) for label in able] for p in planes])
    spread = np.array([[np.nanstd(p.points[members[label]], axis=0).mean() for label in able] for p in planes])
    spread = np.maximum(spread, 1e-12)
    # The middle of the map is the crowd that the first group has to stand out from.
    distance = (np.linalg.norm(centres, axis=2) / spread).min(axis=0)
    chosen: list[int] = []
    while len(chosen) < CHOSEN:
        chosen.append(int(np.argmax(distance)))
        away = np.linalg.norm(centres - centres[:, chosen[-1:]], axis=2) / (spread + spread[:, chosen[-1:]])
        distance = np.minimum(distance, away.min(axis=0))
    return [able[at] for at in chosen]
