"""Rows as callers name them: one or several, in range, allowed or not."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from geo_mf.errors import InvalidInput, UnknownId

Rows = int | Sequence[int] | np.ndarray
"""One row, or a flat list of rows."""


def as_rows(ids: Rows) -> tuple[np.ndarray, bool]:
    """int64 [n], and whether it was one single integer; InvalidInput for anything that is not integers."""
    array = np.asarray(ids)
    if array.ndim > 1 or not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
        raise InvalidInput(
            f"ids must be one integer or a flat list of integers, not {array.dtype} of shape {array.shape}"
        )
    return np.atleast_1d(array).astype(np.int64), array.ndim == 0


def in_range(rows: np.ndarray, size: int, kind: str) -> np.ndarray:
    """The rows themselves; UnknownId for one outside 0..size-1."""
    wrong = rows[(rows < 0) | (rows >= size)]
    if len(wrong):
        raise UnknownId(f"{kind} {wrong[0]} is not in this model: its {kind}s are 0 to {size - 1}")
    return rows


def mask(only: Any, never: Any, size: int, kind: str) -> np.ndarray | None:
    """bool [size], the rows in `only` (None: all) without those in `never`; None when both are None."""
    if only is None and never is None:
        return None
    allowed = np.full(size, only is None)
    if only is not None:
        allowed[in_range(as_rows(only)[0], size, kind)] = True
    if never is not None:
        allowed[in_range(as_rows(never)[0], size, kind)] = False
    return allowed


def to_write(rows: np.ndarray, size: int, kind: str) -> np.ndarray:
    """The rows themselves, when they can be written to a table of `size` rows, which may grow at its end.

    Raises:
        InvalidInput: a row is named twice.
        UnknownId: a row is negative, or the new rows are not size, size + 1, ... in this order.
    """
    in_range(rows[rows < 0], size, kind)
    unique, counts = np.unique(rows, return_counts=True)
    if len(unique) < len(rows):
        raise InvalidInput(
            f"{kind} {unique[counts > 1][0]} is named twice: give each {kind} once, with all its history"
        )
    new = rows[rows >= size]
    wrong = new[new != np.arange(size, size + len(new))]
    if len(wrong):
        raise UnknownId(
            f"{kind} {wrong[0]} is not in this model, whose {kind}s are 0 to {size - 1}: new {kind}s must be "
            f"{size}, {size + 1}, ... in this order, without a gap (an empty history for one that has none yet)"
        )
    return rows


def written(table: np.ndarray, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A copy of the table [n, ...] with `values` [m, ...] at `rows`, grown as far as they reach, the rest unchanged."""
    size = max(len(table), int(rows.max(initial=-1)) + 1)
    copy = np.zeros((size, *table.shape[1:]), table.dtype)
    copy[: len(table)] = table
    copy[rows] = values
    return copy
