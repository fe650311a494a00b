"""BiasedMF, as a thin shell with the field's own method names over ratings.py and the loop of fit_ratings.py."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from geo_mf.errors import InvalidInput
from geo_mf.factorize import matrices, peak, timing_ratings
from geo_mf.factorize.checkpoint import Checkpoint
from geo_mf.factorize.cores import all_cores
from geo_mf.factorize.fit_ratings import Callback, Fitted, Settings, fit
from geo_mf.factorize.parameters import RandomState, generator, real, seed, whole
from geo_mf.factorize.plan import Plan, Problem
from geo_mf.factorize.ratings import Objective, fold_in
from geo_mf.factorize.retrieval import FactorModel
from geo_mf.factorize.rows import Rows
from geo_mf.geometry.prior import RidgePrior

FREE_TO_CHANGE = ("iterations", "num_threads", "clip")
"""Settings that may differ between the runs that share a checkpoint."""


class BiasedMF(FactorModel):
    """Biased matrix factorization of explicit ratings, r ~ mu + b_u + b_i + <w_u, h_i>, by exact alternating solves.

    The objective and its sources stand in `geo_mf.factorize.ratings`. Every *stored* entry of the matrix is a rating, a
    stored zero included; what is not stored was not rated. The defaults hold for any rating scale.

    Args:
        factors: length K of a factor; 10 to 50 suit small data, where more than the ratings can decide do harm.
        regularization: lam, above 0, of the factors.
        bias_regularization: lam_b, above 0, of the biases: a row counts as if it had that many more ratings of the
            average.
        iterations: epochs; one solves all items, then all users.
        nu: exponent of the frequency scaling of both regularisations: 0 is Bayes's, 1 that of Zhou et al. (2008).
        clip: whether `predict` stays within the lowest and the highest rating seen in training.
        random_state: seed; the same seed and versions give the same factors for any number of threads.
        variational: whether each row knows how uncertain the others are (variational Bayes). Without it the objective
            itself is minimised; regularization=1, bias_regularization=1, nu=0.5 is then a good start.
        prior_regularization: shrinkage of the map from features to factors and biases, in units of an average item.
        num_threads: cores to use, 0 for all; it never changes the result.

    Attributes:
        user_factors: float32 [users, K], after `fit`.
        item_factors: float32 [items, K], after `fit`; rows without ratings are filled from their features.
        user_bias, item_bias: float32 [users] and [items].
        global_mean: mu.
        noise: variance of a rating around its prediction, as the fit sees it.
        rating_range: lowest and highest rating seen in training.

    Raises:
        InvalidInput: a setting is out of range.
    """

    def __init__(
        self,
        factors: int = 50,
        regularization: float = 5.0,
        bias_regularization: float = 3.0,
        iterations: int = 20,
        nu: float = 0.0,
        clip: bool = True,
        random_state: RandomState = None,
        *,
        variational: bool = True,
        prior_regularization: float = 10.0,
        num_threads: int = 0,
    ) -> None:
        super().__init__()
        self.factors = whole("factors", factors, 1)
        self.regularization = real("regularization", regularization, "above 0, for example 5", lambda x: x > 0)
        self.bias_regularization = real(
            "bias_regularization", bias_regularization, "above 0, for example 3", lambda x: x > 0
        )
        self.iterations = whole("iterations", iterations, 1)
        self.nu = real("nu", nu, "between 0 and 2", lambda x: 0 <= x <= 2)
        self.clip = bool(clip)
        self.random_state = seed(random_state)
        self.variational = bool(variational)
        self.prior_regularization = real("prior_regularization", prior_regularization, "above 0", lambda x: x > 0)
        self.num_threads = whole("num_threads", num_threads, 0)
        self._learned: Fitted | None = None
        self._range = (0.0, 0.0)
        self._vectors: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def objective(self) -> Objective:
        """The settings of the objective."""
        return Objective(self.regularization, self.bias_regularization, self.nu, self.variational)

    @property
    def user_bias(self) -> np.ndarray:
        """float32 [users]. Raises InvalidInput before `fit`, as what follows does."""
        return self._fitted.users[:, -1]

    @property
    def item_bias(self) -> np.ndarray:
        """float32 [items]."""
        return self._fitted.items[:, -1]

    @property
    def global_mean(self) -> float:
        """Mean of the training ratings."""
        return self._fitted.mean

    @property
    def noise(self) -> float:
        """Mean expected squared error of the training ratings, at most their variance."""
        return self._fitted.noise

    @property
    def rating_range(self) -> tuple[float, float]:
        """Lowest and highest rating seen in training."""
        self._fitted  # noqa: B018 - refuses a model that has seen none
        return self._range

    @property
    def prior_coefficients(self) -> np.ndarray | None:
        """float32 [dim + 1, K + 1] or None, the map from features (and a constant) to factor and bias."""
        return self._fitted.coefficients

    @property
    def user_vectors(self) -> np.ndarray:
        """float32 [users, K + 2]: [w, mu + b_u, 1]."""
        return self._both_vectors[0]

    @property
    def item_vectors(self) -> np.ndarray:
        """float32 [items, K + 2]: [h, 1, b_i]."""
        return self._both_vectors[1]

    def fit(
        self,
        ratings: Any,
        item_features: np.ndarray | None = None,
        show_progress: bool = False,
        callback: Callback | None = None,
        checkpoint: str | Path | None = None,
    ) -> "BiasedMF":
        """Learn factors and biases.

        Args:
            ratings: sparse matrix [users, items]; every stored entry is a rating, zeros and negative numbers included.
            item_features: float [items, dim] or None; a zero row means that the item has no features. Items nobody
                rated get their factor and bias from it.
            show_progress: progress bar on stderr.
            callback: called after each epoch with its number, its seconds and the mean expected squared error of the
                training ratings.
            checkpoint: a file that keeps the factors and biases after an epoch. If it exists, the fit goes on from it:
                a fit that was killed, run again, ends with the same factors as one that was not. With more `iterations`
                than before, a finished fit goes on too.

        Raises:
            InvalidInput: not a sparse matrix, a rating is not finite, a pair is rated twice, nothing is rated, the
                shapes disagree, or the checkpoint belongs to another fit or has more epochs than `iterations`.
            DoesNotFit: the memory is not there.
            IncompatibleIndex: the checkpoint is damaged.
            FitDiverged: the factors became infinite or NaN.
        """
        matrix = _some(check_ratings(ratings))
        shape = matrices.shape(matrix)
        features = None if item_features is None else matrices.check_features(item_features, shape)
        self._plan(Problem.of(matrix, 0 if features is None else features.shape[1])).check()
        with all_cores():
            prior = None
            if features is not None:
                rated = np.bincount(matrix.indices, minlength=shape[1])
                # An item teaches the regression as much as its own ratings decide its factor.
                weights = rated / (rated + self.regularization)
                prior = RidgePrior.of(features, weights, self.prior_regularization)
            how = replace(self._loop, progress=show_progress)
            kept = None
            if checkpoint is not None:
                fixed = {name: value for name, value in self.get_params().items() if name not in FREE_TO_CHANGE}
                kept = Checkpoint.of(checkpoint, matrix, fixed, features)
            learned = fit(matrix, how, generator(self.random_state), prior, callback, kept)
        self._take(learned, (float(matrix.data.min()), float(matrix.data.max())))
        return self

    def plan(self, ratings: Any, features: int = 0, timed: bool = True) -> Plan:
        """What `fit` would take: its memory, and the time of an epoch on this machine as busy as it is now.

        Args:
            ratings: the matrix to be fitted; or, before there is one, (users, items, ratings), whose histories are then
                taken to be log-normal.
            features: numbers of an item's features, 0 for none.
            timed: whether to try a call of each shape for the time, on a CPU. It takes several seconds, most of it
                compiling, which a fit that follows in the same process then need not do.

        Raises:
            InvalidInput: as in `fit`; or a shape that no matrix can have.
        """
        features = whole("features", features, 0)
        if isinstance(ratings, tuple):
            problem = replace(Problem.asked(ratings, features), uniform=False)
        else:
            problem = Problem.of(_some(check_ratings(ratings)), features)
        with all_cores():
            return timing_ratings.added(self._plan(problem), problem, self._loop) if timed else self._plan(problem)

    def _plan(self, problem: Problem) -> Plan:
        return problem.foreseen(
            self.factors, self.iterations, lambda rank: peak.ratings(problem, rank, self.variational)
        )

    @property
    def _loop(self) -> Settings:
        return Settings(self.factors, self.objective, self.iterations, self.num_threads)

    def predict(self, userids: Rows, itemids: Rows) -> np.ndarray:
        """Ratings of pairs, within the range of the training ratings when `clip` is set; else as the base class."""
        ratings = super().predict(userids, itemids)
        return np.clip(ratings, *self._range, dtype=np.float32) if self.clip else ratings

    def _fold_in(self, user_items: sparse.csr_array) -> np.ndarray:
        learned = self._fitted
        rows = []
        for a, b in zip(user_items.indptr[:-1], user_items.indptr[1:], strict=True):
            rated = user_items.indices[a:b]
            spread = None if learned.item_spread is None else learned.item_spread[rated]
            ridge = self.objective.ridge(np.array([b - a]), self.factors, learned.scale)[0]
            residuals = user_items.data[a:b].astype(np.float64) - learned.mean
            rows.append(fold_in((learned.items[rated], spread), residuals, ridge))
        return _user_vectors(np.stack(rows), learned.mean)

    def _check_history(self, user_items: Any, rows: int) -> sparse.csr_array:
        # The shape is matrices.check_history's affair; which entries are ratings is decided here.
        if sparse.issparse(user_items) and user_items.ndim == 1:
            user_items = user_items.reshape(1, -1)
        matrices.check_history(abs(user_items), rows, (len(self.user_factors), len(self.item_factors)))
        return check_ratings(user_items)

    @property
    def _fitted(self) -> Fitted:
        if self._learned is None:
            raise InvalidInput("this model has no factors yet: call fit(ratings) first")
        return self._learned

    @property
    def _both_vectors(self) -> tuple[np.ndarray, np.ndarray]:
        if self._vectors is None:
            rows = self._fitted.items
            items = np.concatenate([rows[:, :-1], np.ones((len(rows), 1), np.float32), rows[:, -1:]], axis=1)
            self._vectors = _user_vectors(self._fitted.users, self._fitted.mean), items
        return self._vectors

    def _take(self, learned: Fitted, rating_range: tuple[float, float]) -> None:
        self._learned, self._range, self._vectors = learned, rating_range, None
        self._set_factors(*(np.ascontiguousarray(rows[:, :-1]) for rows in (learned.users, learned.items)))

    def _arrays(self) -> dict[str, np.ndarray]:
        learned = self._fitted
        scalars = np.array([learned.mean, learned.scale, learned.noise, *self._range], np.float64)
        arrays = {"users": learned.users, "items": learned.items, "scalars": scalars}
        optional = {"item_spread": learned.item_spread, "prior_coefficients": learned.coefficients}
        return arrays | {name: array for name, array in optional.items() if array is not None}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        mean, scale, noise, low, high = arrays["scalars"].tolist()
        spread, coefficients = arrays.get("item_spread"), arrays.get("prior_coefficients")
        self._take(Fitted(arrays["users"], arrays["items"], spread, mean, scale, noise, coefficients), (low, high))


def check_ratings(ratings: Any) -> sparse.csr_array:
    """A float32 CSR copy [users, items] in which every stored entry is a rating; indices sorted.

    Raises:
        InvalidInput: not a sparse two-dimensional matrix of real numbers, empty along an axis, a rating that is not
            finite, or a pair rated twice.
    """
    if not sparse.issparse(ratings):
        raise InvalidInput(
            f"ratings is {type(ratings).__name__}: give a scipy sparse matrix of shape [users, items], in which stored "
            "entries are ratings (a dense array cannot tell a rating of 0 from no rating)"
        )
    if ratings.dtype.kind not in "biuf":
        raise InvalidInput(f"ratings holds {ratings.dtype}: ratings must be real numbers")
    matrix = sparse.csr_array(ratings.tocsr() if ratings.ndim == 2 else ratings.reshape(1, -1))
    if 0 in matrices.shape(matrix):
        raise InvalidInput(f"ratings has shape {matrix.shape}: it needs at least one user and one item")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is named below
        data = matrix.data.astype(np.float32)
    matrix = sparse.csr_array((data, matrix.indices.copy(), matrix.indptr.copy()), shape=matrix.shape)
    matrix.sort_indices()
    user = np.repeat(np.arange(matrices.shape(matrix)[0]), np.diff(matrix.indptr))
    twice = np.flatnonzero((np.diff(user) == 0) & (np.diff(matrix.indices) == 0))
    if len(twice):
        raise InvalidInput(
            f"user {user[twice[0]]} rated item {matrix.indices[twice[0]]} more than once: keep one rating of each pair"
        )
    if not np.isfinite(matrix.data).all():
        at = np.flatnonzero(~np.isfinite(matrix.data))[0]
        raise InvalidInput(
            f"user {user[at]} gave item {matrix.indices[at]} a rating that is NaN, infinite or beyond float32: "
            "remove it, or give it a finite value"
        )
    return matrix


def _some(matrix: sparse.csr_array) -> sparse.csr_array:
    if matrix.nnz == 0:
        raise InvalidInput(f"ratings of shape {matrices.shape(matrix)} hold no rating: there is nothing to fit")
    return matrix


def _user_vectors(rows: np.ndarray, mean: float) -> np.ndarray:
    offset = (rows[:, -1:].astype(np.float64) + mean).astype(np.float32)
    return np.concatenate([rows[:, :-1], offset, np.ones_like(offset)], axis=1)
