"""How much of the length of a row is popularity."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from geo_mf.comparison.figures import Norms
from geo_mf.comparison.spaces import Space

EVEN = 1e-3
"""Lengths that differ by less than this part of them are equal: unit rows are so up to rounding, also as float16."""


def norms(space: Space, counts: NDArray[np.int64]) -> Norms:
    """Spearman's correlation of length and interactions [n], and R^2 of log length on log(1 + interactions).

    Where all lengths, or all counts, are equal there is nothing to explain, and both are 0.
    """
    # Rounded, so that the last digits do not order equal lengths.
    lengths, popularity = np.log(space.lengths).round(6), np.log1p(counts)
    varies = bool(np.ptp(lengths) > EVEN)
    if not varies or np.ptp(popularity) == 0:
        return Norms(space.name, 0.0, 0.0, varies)
    ranked = stats.rankdata(lengths), stats.rankdata(popularity)
    return Norms(space.name, _correlation(*ranked), _correlation(lengths, popularity) ** 2, True)


def _correlation(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    return float(np.corrcoef(x, y)[0, 1])
