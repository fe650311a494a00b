"""A factor for one row, from its history, against a fixed other side: the row solve of ials.py, exact, in NumPy.

Serving solves one row at a time, where compiling a shape would cost a thousand times the solve.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse

from geo_mf.errors import FitDiverged
from geo_mf.factorize.ials import Objective

_REMEDY = "raise the regularization, or scale the weights down to around 1"


@dataclass(frozen=True)
class FoldIn:
    """Exact row solves against a fixed side of `size` rows.

    Attributes:
        basis: float64 [K, K], its columns are the eigenvectors of the fixed side's Gram matrix.
        spectrum: float64 [K], a0 times the eigenvalues.
        size: rows of the fixed side.
        objective: unobserved weight, regularisation, nu.
    """

    basis: np.ndarray
    spectrum: np.ndarray
    size: int
    objective: Objective

    @classmethod
    def of(cls, factors: np.ndarray, objective: Objective, size: int | None = None) -> "FoldIn":
        """Prepare for the fixed factors [n, K]; `size` if that side has more rows, which weigh next to nothing."""
        step = 65536  # float64 copies are made of this many rows at a time
        gram = np.zeros((factors.shape[1],) * 2)
        for start in range(0, len(factors), step):
            wide = factors[start : start + step].astype(np.float64)
            gram += wide.T @ wide
        eigenvalues, basis = np.linalg.eigh(gram)
        return cls(basis, objective.unobserved_weight * np.maximum(eigenvalues, 0), size or len(factors), objective)

    def solve(
        self,
        history: np.ndarray,
        weights: np.ndarray,
        prior: np.ndarray | None = None,
        wanted: np.ndarray | None = None,
    ) -> np.ndarray:
        """The factor of one row.

        Args:
            history: [n, K], the fixed side's factors of the history.
            weights: [n], positive.
            prior: [K] or None.
            wanted: [n], the score that each should have; 1 if left out.

        Returns:
            float32 [K]; zero for an empty history without a prior.

        Raises:
            FitDiverged: the system is singular, or a factor does not fit float32.
        """
        try:
            with np.errstate(all="ignore"):  # what comes of it is named below
                y = np.ones(len(history)) if wanted is None else np.asarray(wanted, np.float64)
                solved = self._solve(history, weights, y, prior).astype(np.float32)
        except linalg.LinAlgError as error:
            raise FitDiverged(f"a row's system is singular: {_REMEDY}") from error
        if not np.isfinite(solved).all():
            raise FitDiverged(f"a row's factor is not finite: {_REMEDY}")
        return solved

    def _solve(
        self, history: np.ndarray, weights: np.ndarray, wanted: np.ndarray, prior: np.ndarray | None
    ) -> np.ndarray:
        x, c, diagonal, ridge = self._system(history, weights)
        n, rank = x.shape
        pull = np.zeros(rank) if prior is None else ridge * (prior.astype(np.float64) @ self.basis)
        if n < rank:
            y = np.sqrt(c)[:, None] * x
            start = pull / diagonal
            small = (y / diagonal) @ y.T + np.eye(n)
            left = np.sqrt(c) * wanted - y @ start
            dual = linalg.solve(small, left, assume_a="pos", check_finite=False) if n else np.zeros(0)
            rotated = start + (y.T @ dual) / diagonal
        else:
            rotated = linalg.solve(
                (x.T * c) @ x + np.diag(diagonal), x.T @ (c * wanted) + pull, assume_a="pos", check_finite=False
            )
        return rotated @ self.basis.T

    def solve_rows(
        self, factors: np.ndarray, histories: sparse.csr_array, priors: np.ndarray | None = None
    ) -> np.ndarray:
        """The factors of many rows.

        Args:
            factors: [size, K], the fixed side.
            histories: CSR [n, size] of positive weights.
            priors: [n, K] or None.

        Returns:
            float32 [n, K].
        """
        solved = np.zeros((len(histories.indptr) - 1, len(self.basis)), np.float32)
        for row, (start, stop) in enumerate(zip(histories.indptr[:-1], histories.indptr[1:], strict=True)):
            prior = None if priors is None else priors[row]
            solved[row] = self.solve(factors[histories.indices[start:stop]], histories.data[start:stop], prior)
        return solved

    def normal_matrix(self, history: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """a0 HᵀH + lam r I + Xᵀ C X, float64 [K, K], for one row's history X [n, K] and weights [n]."""
        x, c, diagonal, _ = self._system(history, weights)
        return self.basis @ ((x.T * c) @ x + np.diag(diagonal)) @ self.basis.T

    def contributions(self, history: np.ndarray, weights: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """What each item of the history adds to the scores of the targets (Hu et al. 2008, section 5).

        Args:
            history: [n, K].
            weights: [n], positive.
            targets: [m, K], the fixed side's factors of the scored items.

        Returns:
            float64 [n, m]; a column sums to <solve(history, weights), target>. A row scales with its wanted score.
        """
        x, c, diagonal, _ = self._system(history, weights)
        rotated = targets.astype(np.float64) @ self.basis
        n, rank = x.shape
        if n < rank:
            root = np.sqrt(c)[:, None]
            scaled = root * x / diagonal
            small = scaled @ (root * x).T + np.eye(n)
            return root * linalg.solve(small, scaled @ rotated.T, assume_a="pos") if n else np.zeros((0, len(targets)))
        system = (x.T * c) @ x + np.diag(diagonal)
        return (c[:, None] * x) @ linalg.solve(system, rotated.T, assume_a="pos")

    def ridge(self, n: int) -> float:
        """lam r, for a history of n."""
        return float(self.objective.ridge(np.asarray([n]), self.size)[0])

    def _system(self, history: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        x = history.astype(np.float64) @ self.basis
        ridge = self.ridge(len(x))
        return x, np.asarray(weights, np.float64), self.spectrum + ridge, ridge
