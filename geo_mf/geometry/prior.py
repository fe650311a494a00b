"""Text to factor: the ridge regression that gives an item its factor before anybody has touched it.

    B = argmin sum_i r_i |h_i - B [g_i; 1]|^2 + alpha rbar |B|^2

over the items that have both features g_i and interactions; the constant is not shrunk. With users in the place of
items it tells a user's factor by what is known of the user. The first sum is the part of
the factorization's objective (factorize/ials.py) that depends on B. Alternating this regression with the half-epochs
therefore descends that objective plus the shrinkage, as long as every item with features has interactions.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import linalg

from geo_mf.errors import InvalidInput


@dataclass(frozen=True)
class RidgePrior:
    """A ridge regression whose features and weights are fixed, so that a refit is one triangular solve.

    Attributes:
        known: bool [items], items that have features.
        design: float32 [items, dim + 1], features and the constant; zero rows where not known.
        weighted: float32 [items, dim + 1], the design times the items' weights.
        shrinkage: float64 [dim + 1], alpha rbar, and next to nothing for the constant.
        factor: Cholesky factor of the normal matrix, float64 [dim + 1, dim + 1].
    """

    known: np.ndarray
    design: np.ndarray
    weighted: np.ndarray
    shrinkage: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(
        cls, features: np.ndarray, weights: np.ndarray, alpha: float, side: Literal["item", "user"] = "item"
    ) -> "RidgePrior":
        """Prepare a regression.

        Args:
            features: [items, dim] float; a zero row means "no features".
            weights: [items] float, r_i; 0 leaves the item out of the regression.
            alpha: strength of the shrinkage, in units of one average item.
            side: whose features these are, for messages.

        Raises:
            InvalidInput: shapes disagree, a value is not finite, or alpha is not positive or too small.
        """
        features = np.asarray(features, np.float32)
        weights = np.asarray(weights, np.float64)
        if features.ndim != 2 or weights.shape != features.shape[:1]:
            raise InvalidInput(
                f"{side} features of shape {features.shape} do not fit {weights.shape[0]} {side}s: "
                f"give a dense array of shape ({weights.shape[0]}, dim), one row per {side}"
            )
        if not np.isfinite(features).all():
            row = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
            raise InvalidInput(
                f"{side} features must be finite; row {row} is not: remove or replace its NaN or infinity"
            )
        if not alpha > 0:
            raise InvalidInput(f"prior regularization must be positive, not {alpha}: try 1.0")
        known = np.any(features != 0, axis=1)
        design = np.concatenate([features, np.ones((len(features), 1), np.float32)], axis=1)
        design[~known] = 0
        weights = weights * known
        weighted = (design * weights[:, None]).astype(np.float32)
        normal = _normal(design, weights)
        mean_weight = weights.sum() / max(1, np.count_nonzero(weights))
        shrink = np.full(len(normal), alpha * max(mean_weight, 1e-12))
        # The constant is not shrunk; a trace of it keeps the system definite when no item can be learned from.
        shrink[-1] *= 1e-6
        try:
            factor = linalg.cholesky(normal + np.diag(shrink), lower=True)
        except linalg.LinAlgError as error:
            raise InvalidInput(
                f"prior regularization {alpha} is too small for these {side} features, which depend on each other or "
                "are of very different sizes: raise it, or bring each feature to unit variance"
            ) from error
        return cls(known, design, weighted, shrink, factor)

    def fit(self, factors: np.ndarray) -> np.ndarray:
        """Coefficients float32 [dim + 1, K] for item factors [items, K]."""
        right = (self.weighted.T @ factors).astype(np.float64)
        # In C order, as it comes back from disk: sums over the other order would round differently.
        return linalg.cho_solve((self.factor, True), right).astype(np.float32, order="C")

    def penalty(self, coefficients: np.ndarray) -> float:
        """alpha rbar |B|^2, for coefficients [dim + 1, K]."""
        return float(self.shrinkage @ np.sum(coefficients.astype(np.float64) ** 2, axis=1))

    def predict(self, coefficients: np.ndarray) -> np.ndarray:
        """The prior of every item, float32 [items, K]; zero for an item without features."""
        return self.design @ coefficients


def _normal(design: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """sum_i r_i g_i g_iᵀ in float64: in float32 a large feature would drown the shrinkage of the others."""
    step = 65536  # float64 copies are made of this many rows at a time
    total = np.zeros((design.shape[1],) * 2)
    for start in range(0, len(design), step):
        wide = design[start : start + step].astype(np.float64)
        total += (wide * weights[start : start + step, None]).T @ wide
    return total


def apply(coefficients: np.ndarray, features: np.ndarray) -> np.ndarray:
    """The prior of new items or texts: coefficients [dim + 1, K], features [n, dim] -> float32 [n, K]."""
    known = np.any(features != 0, axis=1)
    out = features.astype(np.float32) @ coefficients[:-1] + coefficients[-1]
    out[~known] = 0
    return out
