"""One space laid on another: the rotation that brings two sets of the same rows as near as they come (Schönemann 1966).

A rotation of users and items together changes no score. It keeps the meaning of a direction from one fit to the next,
so that vectors kept outside, and pictures, still fit.
"""

import numpy as np

from geo_mf.errors import InvalidInput


def rotation(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Q float32 [K, K], orthogonal, with the least |source Q - target|, for rows [n, K] of both.

    Raises:
        InvalidInput: the shapes differ.
    """
    if source.shape != target.shape or source.ndim != 2:
        raise InvalidInput(
            f"rows of shape {source.shape} cannot be laid on rows of shape {target.shape}: give equal ones"
        )
    left, _, right = np.linalg.svd(source.astype(np.float64).T @ target.astype(np.float64))
    return (left @ right).astype(np.float32)


def residual(source: np.ndarray, target: np.ndarray) -> float:
    """|source - target| / |target|, 0 where both are zero."""
    size = float(np.linalg.norm(target))
    apart = float(np.linalg.norm(source.astype(np.float64) - target))
    return apart / size if size > 0 else float(apart > 0)
