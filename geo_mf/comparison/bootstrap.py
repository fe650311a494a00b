"""The bootstrap: how far sums would lie from each other if other users, or other items, had come (Efron 1979)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_mf.comparison.figures import Estimate
from geo_mf.evaluation.report import LEVEL

DRAWS = 1000


def resampled_sums(values: NDArray[Any], seed: int, draws: int = DRAWS) -> NDArray[np.float64]:
    """float64 [1 + draws, m]: sums over the rows of [n, m], then over n rows drawn with replacement, `draws` times."""
    n = len(values)
    random = np.random.default_rng(seed)
    counts = (np.bincount(random.integers(0, n, n), minlength=n) for _ in range(draws))
    return np.stack([values.sum(axis=0, dtype=np.float64), *(drawn.astype(np.float64) @ values for drawn in counts)])


def estimate(drawn: NDArray[np.floating]) -> Estimate:
    """The first value, with the interval that the others give; NaN among them are left out."""
    tail = (1 - LEVEL) / 2
    known = drawn[1:][np.isfinite(drawn[1:])]
    low, high = np.quantile(known, (tail, 1 - tail)).tolist() if len(known) else (drawn[0], drawn[0])
    return Estimate(float(drawn[0]), float(low), float(high))
