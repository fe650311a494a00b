"""How many directions a space uses: the singular values of its centred directions."""

import numpy as np

from geo_mf.comparison.figures import Spectrum
from geo_mf.comparison.spaces import ROWS, Space


def spectrum(space: Space, rows: int = ROWS) -> Spectrum:
    """The spectrum of the directions, their mean taken off.

    With singular values s_j: shares s_j^2 / sum s^2; effective rank exp(-sum p log p), p_j = s_j / sum s (Roy and
    Vetterli 2007); participation ratio (sum s^2)^2 / sum s^4.
    """
    size = space.directions.shape[1]
    mean = space.directions.mean(axis=0, dtype=np.float64)
    scatter = np.zeros((size, size))
    for start in range(0, len(space), rows):
        part = space.directions[start : start + rows] - mean
        scatter += part.T @ part
    variances = np.linalg.eigvalsh(scatter)[::-1]
    # Rounding leaves eigenvalues of about 1e-16 of the largest where there are none.
    variances = np.where(variances > 1e-12 * variances[0], variances, 0)
    shares = variances / variances.sum()
    values = np.sqrt(shares) / np.sqrt(shares).sum()
    used = values[values > 0]
    return Spectrum(
        space.name,
        tuple(shares.tolist()),
        float(np.exp(-(used * np.log(used)).sum())),
        float(1 / (shares**2).sum()),
    )
