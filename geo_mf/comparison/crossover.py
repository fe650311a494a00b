"""From how many interactions on one space finds more than the other.

The share of pairs found by the first space minus that of the second, group by group, is noisy: read off as it is, it
changes sign wherever two small groups happen to differ. So it is smoothed first, by the monotone curve that is nearest
to it by weighted least squares (isotonic regression, weights the numbers of pairs), rising or falling, whichever is
nearer. A monotone curve changes sign once or never. Between the groups it runs in a straight line over log(1 +
interactions), each group standing at its mean. The same is done with each bootstrap draw, in the same direction: a draw
whose curve does not change sign says that one space leads from 0 on, or for ever.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo_mf.evaluation.report import LEVEL

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Crossing:
    """Where the curve changes sign.

    Attributes:
        sign: 1 where the second space leads below and the first above, -1 where it is the other way round.
        at: in interactions; 0 where the space that gains leads everywhere, inf where the other one does.
        low, high: 95 % interval.
    """

    sign: int
    at: float
    low: float
    high: float


def crossing(found: Floats, pairs: Floats, places: Floats) -> Crossing:
    """Of differences by group.

    Args:
        found: [draws, groups], pairs found by the first space minus pairs found by the second; the first line is what
            was seen, the others are bootstrap draws.
        pairs: [draws, groups], how many there were.
        places: [groups], log(1 + interactions), rising.
    """
    seen, weight = found[:1], pairs[:1]
    means = seen / np.maximum(weight, 1)
    off = {sign: float((weight * (isotonic(sign * seen, weight) - sign * means) ** 2).sum()) for sign in (1, -1)}
    sign = 1 if off[1] <= off[-1] else -1
    at = np.expm1(_roots(isotonic(sign * found, pairs), places))
    tail = (1 - LEVEL) / 2
    # Infinite draws cannot be interpolated, only counted.
    low = float(np.quantile(at[1:], tail, method="lower"))
    high = float(np.quantile(at[1:], 1 - tail, method="higher"))
    return Crossing(sign, float(at[0]), low, high)


def isotonic(sums: Floats, weights: Floats) -> Floats:
    """float64 [draws, groups]: the rising curve nearest to sums / weights by weighted least squares.

    By the min-max formula (Robertson, Wright and Dykstra 1988, theorem 1.4.4): the largest over j <= i of the smallest
    over k >= i of the mean of groups j to k. A group without weight takes part with a mean of 0 and next to no weight.
    """
    size = sums.shape[1]
    total = np.concatenate([np.zeros((len(sums), 1)), np.cumsum(sums, axis=1)], axis=1)
    weight = np.concatenate([np.zeros((len(sums), 1)), np.cumsum(np.maximum(weights, 1e-9), axis=1)], axis=1)
    curve = np.empty_like(sums)
    for i in range(size):
        means = [
            np.min(
                [(total[:, k + 1] - total[:, j]) / (weight[:, k + 1] - weight[:, j]) for k in range(i, size)], axis=0
            )
            for j in range(i + 1)
        ]
        curve[:, i] = np.max(means, axis=0)
    return curve


def _roots(curves: Floats, places: Floats) -> Floats:
    """[draws]: where each rising curve [draws, groups] reaches 0; 0 if it begins there, inf if it does not."""
    below = (curves < 0).sum(axis=1)
    lines = np.arange(len(curves))
    left = np.clip(below - 1, 0, len(places) - 1)
    right = np.clip(below, 0, len(places) - 1)
    rise = curves[lines, right] - curves[lines, left]
    part = np.divide(-curves[lines, left], rise, out=np.zeros(len(curves)), where=rise > 0)
    at = places[left] + part * (places[right] - places[left])
    return np.where(below == 0, 0.0, np.where(below == len(places), np.inf, at))
