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
