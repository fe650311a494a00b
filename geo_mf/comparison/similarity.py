"""Debiased linear CKA: how alike two spaces are, whatever their rotation, scale and width.

Centred kernel alignment (Kornblith et al. 2019) is HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = X Xᵀ, L = Y Yᵀ.
The plain estimate of HSIC, |XᵀY|^2 for centred X and Y, is above 0 for independent spaces, the more so the wider they
are. Here HSIC is the unbiased estimate (Song et al. 2012, equation 5; for CKA, Nguyen et al. 2021), with K', L' for K,
L with zeros on the diagonal:

    HSIC_1 = [ tr K'L' + (1ᵀK'1)(1ᵀL'1) / ((n-1)(n-2)) - 2/(n-2) 1ᵀK'L'1 ] / (n (n-3))

It stays the same when one row is taken off all rows. With the means taken off, 1ᵀX = 0 and 1ᵀY = 0, no n x n matrix is
needed: with p_i = |x_i|^2, q_i = |y_i|^2,

    tr K'L' = |XᵀY|^2 - sum_i p_i q_i        1ᵀK'1 = -sum_i p_i        1ᵀK'L'1 = sum_i p_i q_i
"""

import numpy as np
from numpy.typing import NDArray

from geo_mf.comparison.figures import Similarity
from geo_mf.comparison.spaces import ROWS


def similarity(x: NDArray[np.floating], y: NDArray[np.floating], rows: int = ROWS) -> Similarity:
    """Linear CKA of rows [n, dx] and [n, dy] of the same items, n > 3, in float64, `rows` at a time.

    Costs n (dx + dy)^2 multiplications and (dx + dy)^2 numbers of memory.
    """
    n = len(x)
    means = [side.mean(axis=0, dtype=np.float64) for side in (x, y)]
    both = np.zeros((x.shape[1] + y.shape[1],) * 2)
    squares = np.empty((2, n))
    for start in range(0, n, rows):
        part = [side[start : start + rows] - mean for side, mean in zip((x, y), means, strict=True)]
        squares[:, start : start + rows] = [(side**2).sum(axis=1) for side in part]
        joined = np.concatenate(part, axis=1)
        both += joined.T @ joined
    ends = (slice(None, x.shape[1]), slice(x.shape[1], None))
    plain, unbiased = {}, {}
    for i, j in ((0, 0), (1, 1), (0, 1)):
        plain[i, j] = float((both[ends[i], ends[j]] ** 2).sum())
        products, sums = float(squares[i] @ squares[j]), float(squares[i].sum() * squares[j].sum())
        trace = plain[i, j] - products
        unbiased[i, j] = (trace + sums / ((n - 1) * (n - 2)) - 2 / (n - 2) * products) / (n * (n - 3))
    return Similarity(_aligned(unbiased), _aligned(plain))


def _aligned(hsic: dict[tuple[int, int], float]) -> float:
    own, other = hsic[0, 0], hsic[1, 1]
    # Neither is below 0 but by rounding; 0 is a space without any variation.
    return hsic[0, 1] / (own * other) ** 0.5 if own > 0 and other > 0 else 0.0
