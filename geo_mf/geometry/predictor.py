"""Features to factors after the fit: what gives an item its factor before anybody has touched it.

The fit alternates with a linear map (`prior.py`), which has to be cheap. Once the factors stand, one more regression of
them on the features can afford a curved map: kernel ridge regression on m landmarks, some of the touched items
(Williams and Seeger 2001, "Using the Nyström method"; Smola and Schölkopf 2000),

    argmin over C, c   sum_i r_i |h_i - Cᵀ k(g_i) - c|^2 + alpha rbar tr(Cᵀ k(L) C)

with k(g)_j = exp(-gamma |g - l_j|^2 / (2 s)) for landmark l_j, and s the mean of |g|^2. Without landmarks it is the
ridge regression of `prior.py`. Which map predicts best is for the caller to find out, on items held out.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg

from geo_mf.errors import InvalidInput
from geo_mf.geometry.prior import RidgePrior

LANDMARKS = 2048
"""At most: the system to solve is of this size."""
LEARNED_FROM = 65_536
"""Items, at most, of a regression; a larger catalogue is sampled."""
JITTER = 1e-5
"""On the diagonal of the landmarks' kernel, which is 1."""
ROWS = 8_192
"""Items at a time: a table of ROWS x landmarks is held."""


@dataclass(frozen=True)
class Shape:
    """One way to regress.

    Attributes:
        gamma: how curved the map is, in units of 1 / mean squared length of the features; 0 is linear.
        alpha: strength of the shrinkage, in units of one average item.
    """

    gamma: float
    alpha: float


@dataclass(frozen=True, eq=False)
class Predictor:
    """A map from features to factors.

    Attributes:
        landmarks: float32 [m, dim]; m = 0 for a linear map.
        bandwidth: gamma / s; 0 for a linear map.
        coefficients: float32 [m + 1, K], the constant last; [dim + 1, K] for a linear map.
        shape: with which it was fitted.
    """

    landmarks: np.ndarray
    bandwidth: float
    coefficients: np.ndarray
    shape: Shape

    @classmethod
    def linear(cls, coefficients: np.ndarray, alpha: float = 1.0) -> "Predictor":
        """The map of `prior.RidgePrior`: coefficients float32 [dim + 1, K], fitted with this alpha."""
        return cls(np.zeros((0, len(coefficients) - 1), np.float32), 0.0, coefficients, Shape(0.0, alpha))

    @classmethod
    def fit(
        cls, features: np.ndarray, factors: np.ndarray, weights: np.ndarray, shape: Shape, seed: int
    ) -> "Predictor":
        """Regress factors on features.

        Args:
            features: float32 [items, dim]; an item with a zero row is left out.
            factors: float32 [items, K].
            weights: [items], r_i; an item with weight 0 is left out.
            shape: of the map.
            seed: of the landmarks and, beyond LEARNED_FROM items, of the sample.

        Raises:
            InvalidInput: there is nothing to learn from.
        """
        return cls.fits(features, factors, weights, shape.gamma, (shape.alpha,), seed)[0]

    @classmethod
    def fits(
        cls,
        features: np.ndarray,
        factors: np.ndarray,
        weights: np.ndarray,
        gamma: float,
        alphas: tuple[float, ...],
        seed: int,
    ) -> list["Predictor"]:
        """`fit` for several strengths of the shrinkage; most of the work is shared."""
        random = np.random.default_rng(seed)
        usable = np.flatnonzero((weights > 0) & features.any(axis=1))
        if not len(usable):
            raise InvalidInput("no item has both features and interactions: there is nothing to predict factors from")
        usable = np.sort(random.permutation(usable)[:LEARNED_FROM])
        x, h, r = features[usable], factors[usable], weights[usable].astype(np.float64)
        if gamma == 0:
            return [cls.linear(RidgePrior.of(x, r, alpha).fit(h), alpha) for alpha in alphas]
        landmarks = np.ascontiguousarray(x[np.sort(random.permutation(len(x))[:LANDMARKS])])
        bandwidth = gamma / float(np.mean(np.einsum("ij,ij->i", x, x, dtype=np.float64)))
        # In the coordinates where the penalty is the unit matrix, the landmarks' likeness to each other does no harm.
        wide = landmarks.astype(np.float64)  # rounded to float32, near landmarks would make it indefinite
        lower = linalg.cholesky(_kernel(wide, wide, bandwidth) + JITTER * np.eye(len(wide)), lower=True)
        normal, right = _whitened(lower, *_sums(x, h, r, landmarks, bandwidth))
        shrink = np.full(len(normal), r.mean())
        shrink[-1] *= 1e-6  # the constant is not shrunk
        found = []
        for alpha in alphas:
            solved = linalg.solve(normal + np.diag(alpha * shrink), right, assume_a="pos", check_finite=False)
            solved[:-1] = linalg.solve_triangular(lower, solved[:-1], lower=True, trans=1)
            found.append(cls(landmarks, bandwidth, solved.astype(np.float32, order="C"), Shape(gamma, alpha)))
        return found

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Factors float32 [n, K] for features float32 [n, dim]; zero where a row of features is zero."""
        out = np.zeros((len(features), self.coefficients.shape[1]), np.float32)
        known = np.flatnonzero(np.any(features != 0, axis=1))
        for start in range(0, len(known), ROWS):
            rows = known[start : start + ROWS]
            design = features[rows].astype(np.float32, copy=False)
            if len(self.landmarks):
                design = _kernel(design, self.landmarks, self.bandwidth)
            out[rows] = design @ self.coefficients[:-1] + self.coefficients[-1]
        return out

    def rotated(self, rotation: np.ndarray) -> "Predictor":
        """The same map into factors that were multiplied by `rotation`, [K, K]."""
        turned = np.ascontiguousarray(self.coefficients @ rotation.astype(np.float32))
        return replace(self, coefficients=turned)


def _kernel(x: np.ndarray, landmarks: np.ndarray, bandwidth: float) -> np.ndarray:
    """[n, m], in the precision of the rows."""
    squared = np.einsum("ij,ij->i", x, x)[:, None] + np.einsum("ij,ij->i", landmarks, landmarks)
    squared -= 2 * (x @ landmarks.T)
    return np.exp(squared.dtype.type(-bandwidth / 2) * np.maximum(squared, 0))


def _sums(
    x: np.ndarray, h: np.ndarray, r: np.ndarray, landmarks: np.ndarray, bandwidth: float
) -> tuple[np.ndarray, np.ndarray]:
    """sum_i r_i k_i k_iᵀ [m + 1, m + 1] and sum_i r_i k_i h_iᵀ [m + 1, K], added up in float64."""
    size = len(landmarks) + 1
    normal, right = np.zeros((size, size)), np.zeros((size, h.shape[1]))
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        design = np.ones((len(x[rows]), size))
        design[:, :-1] = _kernel(x[rows], landmarks, bandwidth)
        root = np.sqrt(r[rows])[:, None]
        design *= root
        normal += design.T @ design
        right += design.T @ (h[rows] * root)
    return normal, right


def _whitened(lower: np.ndarray, normal: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sums in coordinates L⁻¹ k, for the Cholesky factor L; the constant, last, stays as it is."""
    right[:-1] = linalg.solve_triangular(lower, right[:-1], lower=True)
    normal[:-1] = linalg.solve_triangular(lower, normal[:-1], lower=True)
    normal[:, :-1] = linalg.solve_triangular(lower, normal[:, :-1].T, lower=True).T
    return normal, right
