"""IALS, as a thin shell with the field's own method names over the mathematics of ials.py and the loop of fit.py.

Names and order of arguments are those of `implicit` 0.7.3 (AlternatingLeastSquares), and so are the (ids, scores) that
come back. docs/coming_from.md converts the settings and says where it differs on purpose.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from scipy import sparse

from geo_mf.errors import InvalidInput
from geo_mf.factorize import matrices
from geo_mf.factorize.balance import Balance
from geo_mf.factorize.checkpoint import Checkpoint
from geo_mf.factorize.cores import all_cores
from geo_mf.factorize.fit import Callback, Priors, Settings, Watch, fit
from geo_mf.factorize.ials import Objective, Solver
from geo_mf.factorize.parameters import RandomState, generator, real, seed, whole
from geo_mf.factorize.plan import Plan, Problem
from geo_mf.factorize.retrieval import Ranked
from geo_mf.factorize.row_solves import RowSolves
from geo_mf.geometry.prior import apply as apply_prior

__all__ = ["IALS", "Ranked"]

_SIDES: tuple[matrices.Side, matrices.Side] = ("item", "user")

FREE_TO_CHANGE = ("iterations", "num_threads", "calculate_training_loss")
"""Settings that may differ between the runs that share a checkpoint."""


class IALS(RowSolves):
    """Implicit alternating least squares with frequency-scaled regularisation and an optional prior from features.

    The objective and its sources stand in `geo_mf.factorize.ials`.

    Args:
        factors: length K of a factor.
        regularization: lam, above 0; None chooses it from the data (`geo_mf.factorize.defaults`).
        unobserved_weight: a0, the weight of every pair nobody was seen to touch, against 1 for an interaction; None
            chooses it from the data.
        iterations: epochs; one solves all items, then all users.
        nu: exponent of the frequency scaling; 1 scales a row's regularisation with its interactions, 0 not at all. None
            is 1 where `regularization` or `unobserved_weight` is named, else what suits most data.
        solver: "cg" (preconditioned conjugate gradients from the prior, or zero) or "cholesky" (exact).
        cg_steps: steps of "cg" for each row, after the first, which stands in for a warm start.
        activity_discount: p of `geo_mf.factorize.balance`: an interaction of a user who has n
            counts n^-p. None as for `nu`: 0 where one of the weights is named.
        popularity_discount: q, the same for its item.
        prior_regularization: shrinkage of the map from features to factors, in units of an average item, or user.
        num_threads: cores to use, 0 for all; it never changes the result.
        calculate_training_loss: whether the callback and the progress bar get the objective after every epoch.
        random_state: seed; the same seed and versions give the same factors for any number of threads.

    Attributes:
        user_factors: float32 [users, K], after `fit`; rows without interactions are filled from their features.
        item_factors: float32 [items, K], after `fit`; rows without interactions are filled from their features.
        prior_coefficients: float32 [dim + 1, K] or None, the map from features (and a constant) to factors.
        user_prior_coefficients: the same for users; the users' factors are solved with it.

    Raises:
        InvalidInput: a setting is out of range.
    """

    def __init__(
        self,
        factors: int = 64,
        regularization: float | None = None,
        unobserved_weight: float | None = None,
        iterations: int = 8,
        nu: float | None = None,
        solver: Solver = "cg",
        cg_steps: int = 3,
        *,
        activity_discount: float | None = None,
        popularity_discount: float | None = None,
        prior_regularization: float = 10.0,
        num_threads: int = 0,
        calculate_training_loss: bool = False,
        random_state: RandomState = None,
    ) -> None:
        super().__init__()
        if solver not in ("cg", "cholesky"):
            raise InvalidInput(f"solver is {solver!r}; it must be 'cg' or 'cholesky'")
        self.factors = whole("factors", factors, 1)
        self.regularization = _open("regularization", regularization, "above 0, for example 0.01", lambda x: x > 0)
        self.unobserved_weight = _open("unobserved_weight", unobserved_weight, "at least 0", lambda x: x >= 0)
        self.iterations = whole("iterations", iterations, 0)
        self.nu = _open("nu", nu, "between 0 and 2; 1 is usual", lambda x: 0 <= x <= 2)
        self.solver: Solver = solver
        self.cg_steps = whole("cg_steps", cg_steps, 1)
        self.activity_discount = _open("activity_discount", activity_discount, "between 0 and 1", _share)
        self.popularity_discount = _open("popularity_discount", popularity_discount, "between 0 and 1", _share)
        self.prior_regularization = real("prior_regularization", prior_regularization, "above 0", lambda x: x > 0)
        self.num_threads = whole("num_threads", num_threads, 0)
        self.calculate_training_loss = bool(calculate_training_loss)
        self.random_state = seed(random_state)

    def fit(
        self,
        user_items: Any,
        item_features: np.ndarray | None = None,
        show_progress: bool = False,
        callback: Callback | None = None,
        checkpoint: str | Path | None = None,
        watch: Watch | None = None,
        user_features: np.ndarray | None = None,
    ) -> Self:
        """Learn user and item factors.

        Args:
            user_items: sparse matrix [users, items] of weights, 0 meaning "not seen". Duplicates are summed. What is
                left open suits weights around 1.
            item_features: float [items, dim] or None; a zero row means that the item has no features. Items nobody
                touched get their factor from it.
            show_progress: progress bar on stderr.
            callback: called after each epoch with its number, its seconds, and the loss when
                `calculate_training_loss` is set, else None.
            checkpoint: a file that keeps the factors after an epoch. If it exists, the fit goes on from it: a fit that
                was killed, run again, ends with the same factors as one that was not. With more `iterations` than
                before, a finished fit goes on too.
            watch: called after each epoch with its number and a function that gives the user and item factors as they
                stand, for figures on held-out data. What it raises ends the fit, and the model stays as it was.
            user_features: float [users, dim] or None; a zero row means that the user has no features. A user's factor
                is pulled to what they predict, not to zero; users without interactions get their factor from it. What
                features explain then costs the users' factors nothing, and the items' shrink to match: who has no
                features is told less well from a few clicks than by a fit without.

        Raises:
            InvalidInput: a weight is negative or not finite, the matrix has no interactions, the shapes disagree, or
                the checkpoint belongs to another fit or has more epochs than `iterations`.
            IncompatibleIndex: the checkpoint is damaged.
            FitDiverged: the factors became infinite or NaN.
        """
        with all_cores():
            return self._fit(user_items, (item_features, user_features), show_progress, callback, checkpoint, watch)

    def _fit(
        self,
        user_items: Any,
        given: tuple[np.ndarray | None, np.ndarray | None],
        show_progress: bool,
        callback: Callback | None,
        checkpoint: str | Path | None,
        watch: Watch | None,
    ) -> Self:
        matrix = matrices.check_training(user_items)
        shape = matrices.shape(matrix)
        balance = self._balance_for(matrix)
        balanced = balance.user_rows(matrix)
        objective = self._wanted.objective(balanced, self.factors)
        of_items, of_users = (
            None if features is None else matrices.check_features(features, shape, side)
            for features, side in zip(given, _SIDES, strict=True)
        )
        priors = Priors.of(matrix, objective, self.prior_regularization, of_items, of_users)
        random = generator(self.random_state)

        def start() -> Iterator[np.ndarray]:
            for rows in shape:
                yield _drawn(random, (rows, self.factors))

        settings = replace(self._loop(objective), progress=show_progress)
        widths = (0 if features is None else features.shape[1] for features in (of_items, of_users))
        held = 0 if balanced is matrix else 4 * matrix.nnz
        Problem.of(balanced, *widths).plan(settings, timed=False).check(held=held)
        kept = None
        if checkpoint is not None:
            fixed = {name: value for name, value in self.get_params().items() if name not in FREE_TO_CHANGE}
            kept = Checkpoint.of(checkpoint, matrix, fixed, *given)
        fitted = fit(balanced, settings, start, priors, callback, kept, watch)
        self._balance, self._chosen = balance, objective
        self._set_factors(fitted.users, fitted.items)
        self.prior_coefficients, self.user_prior_coefficients = fitted.coefficients, fitted.user_coefficients
        self._user_priors = None
        if of_users is not None and fitted.user_coefficients is not None:
            self._user_priors = apply_prior(fitted.user_coefficients, of_users)
        return self

    def objective_for(self, user_items: Any) -> Objective:
        """The numbers of the objective with which `fit` would fit this matrix.

        Raises:
            InvalidInput: as in `fit`.
        """
        matrix = matrices.check_training(user_items)
        return self._wanted.objective(self._balance_for(matrix).user_rows(matrix), self.factors)

    def _balance_for(self, matrix: sparse.csr_array) -> Balance:
        users, items = matrices.shape(matrix)
        return Balance.of(matrix, *self._wanted.discounts(matrix.nnz / (users * items)))

    def plan(self, user_items: Any, features: int = 0, timed: bool = True, user_features: int = 0) -> Plan:
        """What `fit` would take: its memory, and the time of an epoch on this machine as busy as it is now.

        Args:
            user_items: the matrix to be fitted; or, before there is one, (users, items, interactions), whose histories
                are then taken to be log-normal.
            features: numbers of an item's features, 0 for none.
            timed: whether to try a few calls for the time, on a CPU. It takes a few seconds, most of it compiling.
            user_features: numbers of a user's features, 0 for none.

        Raises:
            InvalidInput: as in `fit`; or a shape that no matrix can have.
        """
        widths = whole("features", features, 0), whole("user_features", user_features, 0)
        with all_cores():
            if isinstance(user_items, tuple):
                problem = Problem.asked(user_items, widths[0])
                users, items, interactions = problem.shape
                discounted = any(self._wanted.discounts(interactions / (users * items)))
                problem = replace(problem, uniform=not discounted, user_features=widths[1])
            else:
                matrix = matrices.check_training(user_items)
                balance = self._balance_for(matrix)
                problem = Problem.of(balance.user_rows(matrix), *widths)
            # What the numbers of the objective are makes no difference to time and memory.
            return problem.plan(self._loop(Objective(1.0, 1.0, 1.0)), timed)

    def _loop(self, objective: Objective) -> Settings:
        return Settings(
            rank=self.factors,
            objective=objective,
            epochs=self.iterations,
            solver=self.solver,
            steps=self.cg_steps,
            threads=self.num_threads,
            loss=self.calculate_training_loss,
        )


def _drawn(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Factors to start from, N(0, (0.1 / sqrt K)^2)."""
    drawn = random.standard_normal(shape, np.float32)
    drawn *= np.float32(0.1 / np.sqrt(shape[1]))
    return drawn


def _open(name: str, found: float | None, expected: str, holds: Callable[[float], bool]) -> float | None:
    """`found` as a float, or None for what is left open."""
    return None if found is None else real(name, found, expected, holds)


def _share(number: float) -> bool:
    return 0 <= number <= 1
