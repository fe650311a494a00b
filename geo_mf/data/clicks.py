"""Clicks: a history as a caller writes it, brought to rows and weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geo_mf.data.ids import IdMap
from geo_mf.errors import InvalidInput, UnknownId

__all__ = ["Clicks", "click_rows", "merged_clicks"]

MIN_WEIGHT, MAX_WEIGHT = 1e-6, 1e6
"""Within these bounds a row solve keeps enough digits, whatever the mix."""

Clicks = Sequence[Any] | Mapping[Any, float]
"""Ids of items, or a mapping from id to weight; 1 is one ordinary interaction, and -1 says that it is disliked."""


def click_rows(clicks: Clicks, items: IdMap) -> tuple[np.ndarray, np.ndarray]:
    """Each click's row, int64 [n], and weight, float32 [n], negative for a dislike; an item named twice is there twice.

    Raises:
        InvalidInput: not a list or mapping of ids, or the size of a weight outside MIN_WEIGHT..MAX_WEIGHT.
        UnknownId: an item that is not in `items`.
    """
    if isinstance(clicks, str | bytes):
        raise InvalidInput(f"history is the single value {clicks!r}; expected a list of item ids: pass [{clicks!r}]")
    try:
        ids = list(clicks)
        given = np.asarray(list(clicks.values())) if isinstance(clicks, Mapping) else np.ones(len(ids))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"history must be a list of item ids, or a mapping from id to weight: {error}") from error
    if not ids:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    if given.dtype.kind not in "iuf":
        raise InvalidInput(f"weights of the history must be numbers, not {given.tolist()}")
    wrong = ~((np.abs(given) >= MIN_WEIGHT) & (np.abs(given) <= MAX_WEIGHT))  # NaN is wrong too
    if wrong.any():
        raise InvalidInput(
            f"a weight of the history is {given[wrong][0]}; expected a number from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}, "
            "around 1 for a click and, for a dislike, the same below zero, around -1"
        )
    try:
        return items.rows(ids).astype(np.int64), given.astype(np.float32)
    except UnknownId as error:
        raise UnknownId(f"history: {error}") from error


def merged_clicks(
    rows: np.ndarray, clicks: np.ndarray, given: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A stored history and what a caller gives, as rising rows int64 [n] and weights float32 [n].

    The weights of an item add up, but a dislike stands, whatever was clicked before.
    """
    disliked = given[weights < 0]
    kept, counted = ~np.isin(rows, disliked), (weights < 0) | ~np.isin(given, disliked)
    merged, place = np.unique(np.concatenate([rows[kept], given[counted]]), return_inverse=True)
    summed = np.bincount(place, np.concatenate([clicks[kept], weights[counted]]), len(merged))
    return merged, summed.astype(np.float32)
