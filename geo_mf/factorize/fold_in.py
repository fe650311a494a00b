"""A factor for one row, from its history, against a fixed other side: the row solve of ials.py, exact, in NumPy.

Serving solves one row at a time, where compiling a shape would cost a thousand times the solve.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from geo_mf.factorize.ials import Objective


@dataclass(frozen=True)
class FoldIn:
    """Exact row solves against fixed factors.

    Attributes:
        rotated: float64 [n, K], the fixed factors in their Gram matrix's eigenbasis.
        basis: float64 [K, K], its columns are the eigenvectors.
        spectrum: float64 [K], a0 times the eigenvalues.
        objective: unobserved weight, regularisation, nu.
    """

    rotated: np.ndarray
    basis: np.ndarray
    spectrum: np.ndarray
    objective: Objective

    @classmethod
    def of(cls, factors: np.ndarray, objective: Objective) -> "FoldIn":
        """Prepare for the fixed factors [n, K]."""
        wide = factors.astype(np.float64)
        eigenvalues, basis = np.linalg.eigh(wide.T @ wide)
        return cls(wide @ basis, basis, objective.unobserved_weight * np.maximum(eigenvalues, 0), objective)

    def solve(self, rows: np.ndarray, weights: np.ndarray, prior: np.ndarray | None = None) -> np.ndarray:
        """The factor of one row.

        Args:
            rows: int [n], rows of the fixed factors: the history.
            weights: float [n], positive.
            prior: [K] or None.

        Returns:
            float32 [K]; zero for an empty history without a prior.
        """
        n, rank = len(rows), len(self.spectrum)
        x, c = self.rotated[rows], np.asarray(weights, np.float64)
        ridge = float(self.objective.ridge(np.asarray([n]), len(self.rotated))[0])
        diagonal = self.spectrum + ridge
        pull = np.zeros(rank) if prior is None else ridge * (prior.astype(np.float64) @ self.basis)
        if n < rank:
            y = np.sqrt(c)[:, None] * x
            start = pull / diagonal
            small = (y / diagonal) @ y.T + np.eye(n)
            dual = linalg.solve(small, np.sqrt(c) - y @ start, assume_a="pos") if n else np.zeros(0)
            rotated = start + (y.T @ dual) / diagonal
        else:
            rotated = linalg.solve((x.T * c) @ x + np.diag(diagonal), x.T @ c + pull, assume_a="pos")
        return (rotated @ self.basis.T).astype(np.float32)
