"""IALS, as a thin shell with the field's own method names over the mathematics of ials.py and the loop of fit.py."""

import threading
from typing import Any

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from geo_mf.errors import InvalidInput
from geo_mf.factorize import matrices
from geo_mf.factorize.fit import Callback, Settings, fit
from geo_mf.factorize.fold_in import FoldIn
from geo_mf.factorize.ials import Objective, Solver
from geo_mf.factorize.parameters import RandomState, generator, real, seed, whole
from geo_mf.factorize.retrieval import FactorModel, Ranked
from geo_mf.geometry.prior import RidgePrior
from geo_mf.geometry.prior import apply as apply_prior

__all__ = ["IALS", "Ranked"]

_ONE_FIT = threading.RLock()
"""Fits of one process take turns: each uses all cores, and the number of BLAS's threads belongs to the process."""


class IALS(FactorModel):
    """Implicit alternating least squares with frequency-scaled regularisation and an optional prior from features.

    The objective and its sources stand in `geo_mf.factorize.ials`.

    Args:
        factors: length K of a factor.
        regularization: lam, above 0.
        unobserved_weight: a0, the weight of every pair nobody was seen to touch, against 1 for an interaction.
        iterations: epochs; one solves all items, then all users.
        nu: exponent of the frequency scaling; 1 scales a row's regularisation with its interactions, 0 not at all.
        solver: "cg" (preconditioned conjugate gradients from the last factors) or "cholesky" (exact).
        cg_steps: steps of "cg" for each row.
        prior_regularization: shrinkage of the map from features to factors, in units of an average item.
        num_threads: cores to use, 0 for all; it never changes the result.
        calculate_training_loss: whether the callback and the progress bar get the objective after every epoch.
        random_state: seed; the same seed and versions give the same factors for any number of threads.

    Attributes:
        user_factors: float32 [users, K], after `fit`.
        item_factors: float32 [items, K], after `fit`; rows without interactions are filled from their features.
        prior_coefficients: float32 [dim + 1, K] or None, the map from features (and a constant) to factors.

    Raises:
        InvalidInput: a setting is out of range.
    """

    def __init__(
        self,
        factors: int = 64,
        regularization: float = 0.01,
        unobserved_weight: float = 0.01,
        iterations: int = 15,
        nu: float = 1.0,
        solver: Solver = "cg",
        cg_steps: int = 3,
        *,
        prior_regularization: float = 10.0,
        num_threads: int = 0,
        calculate_training_loss: bool = False,
        random_state: RandomState = None,
    ) -> None:
        if solver not in ("cg", "cholesky"):
            raise InvalidInput(f"solver is {solver!r}; it must be 'cg' or 'cholesky'")
        self.factors = whole("factors", factors, 1)
        self.regularization = real("regularization", regularization, "above 0, for example 0.01", lambda x: x > 0)
        self.unobserved_weight = real("unobserved_weight", unobserved_weight, "at least 0", lambda x: x >= 0)
        self.iterations = whole("iterations", iterations, 0)
        self.nu = real("nu", nu, "between 0 and 2; 1 is usual", lambda x: 0 <= x <= 2)
        self.solver: Solver = solver
        self.cg_steps = whole("cg_steps", cg_steps, 1)
        self.prior_regularization = real("prior_regularization", prior_regularization, "above 0", lambda x: x > 0)
        self.num_threads = whole("num_threads", num_threads, 0)
        self.calculate_training_loss = bool(calculate_training_loss)
        self.random_state = seed(random_state)
        self._row_solver: FoldIn | None = None
        self.prior_coefficients: np.ndarray | None = None

    @property
    def objective(self) -> Objective:
        """The three numbers of the objective."""
        return Objective(self.unobserved_weight, self.regularization, self.nu)

    def fit(
        self,
        user_items: Any,
        item_features: np.ndarray | None = None,
        show_progress: bool = False,
        callback: Callback | None = None,
    ) -> "IALS":
        """Learn user and item factors.

        Args:
            user_items: sparse matrix [users, items] of weights, 0 meaning "not seen". Duplicates are summed.
            item_features: float [items, dim] or None; a zero row means that the item has no features. Items nobody
                touched get their factor from it.
            show_progress: progress bar on stderr.
            callback: called after each epoch with its number, its seconds, and the loss when
                `calculate_training_loss` is set, else None.

        Raises:
            InvalidInput: a weight is negative or not finite, the matrix has no interactions, or the shapes disagree.
            FitDiverged: the factors became infinite or NaN.
        """
        # Row solves share the cores among themselves (fit.py). BLAS with threads of its own would only be in their way,
        # and it rounds differently for another number of them.
        with _ONE_FIT, threadpool_limits(1, "blas"):
            return self._fit(user_items, item_features, show_progress, callback)

    def _fit(
        self, user_items: Any, item_features: np.ndarray | None, show_progress: bool, callback: Callback | None
    ) -> "IALS":
        matrix = matrices.check(user_items)
        shape = matrices.shape(matrix)
        if matrix.nnz == 0:
            raise InvalidInput(f"user_items of shape {shape} has no interactions: there is nothing to fit")
        prior = None
        if item_features is not None:
            popularity = np.bincount(matrix.indices, minlength=shape[1])
            weights = self.objective.ridge(popularity, shape[0]) / self.regularization * (popularity > 0)
            prior = RidgePrior.of(matrices.check_features(item_features, shape), weights, self.prior_regularization)
        random = generator(self.random_state)
        scale = np.float32(0.1 / np.sqrt(self.factors))
        users, items = (random.standard_normal((n, self.factors), np.float32) * scale for n in shape)
        settings = Settings(
            rank=self.factors,
            objective=self.objective,
            epochs=self.iterations,
            solver=self.solver,
            steps=self.cg_steps,
            threads=self.num_threads,
            loss=self.calculate_training_loss,
            progress=show_progress,
        )
        fitted = fit(matrix, settings, (users, items), prior, callback)
        self._set_factors(fitted.users, fitted.items)
        self.prior_coefficients = fitted.coefficients
        return self

    def item_prior(self, item_features: np.ndarray) -> np.ndarray:
        """What features [n, dim] say about factors, float32 [n, K]; InvalidInput when fitted without features."""
        if self.prior_coefficients is None:
            raise InvalidInput("this model was fitted without item_features: fit(user_items, item_features=...)")
        return apply_prior(self.prior_coefficients, np.atleast_2d(np.asarray(item_features, np.float32)))

    def _arrays(self) -> dict[str, np.ndarray]:
        if self.prior_coefficients is None:
            return super()._arrays()
        return {**super()._arrays(), "prior_coefficients": self.prior_coefficients}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        super()._restore(arrays)
        self.prior_coefficients = arrays.get("prior_coefficients")

    def _set_factors(self, users: np.ndarray, items: np.ndarray) -> None:
        super()._set_factors(users, items)
        self._row_solver = None

    def _fold_in(self, user_items: sparse.csr_array) -> np.ndarray:
        if self._row_solver is None:
            self._row_solver = FoldIn.of(self.item_factors, self.objective)
        spans = zip(user_items.indptr[:-1], user_items.indptr[1:], strict=True)
        factors, solver = self.item_factors, self._row_solver
        return np.stack([solver.solve(factors[user_items.indices[a:b]], user_items.data[a:b]) for a, b in spans])
