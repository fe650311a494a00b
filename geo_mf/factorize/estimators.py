"""IALS, as a thin shell with the field's own method names over the mathematics of ials.py and the loop of fit.py."""

import math
import threading
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from geo_mf.errors import InvalidInput, UnknownId
from geo_mf.factorize import matrices, persistence
from geo_mf.factorize.fit import Callback, Settings, fit
from geo_mf.factorize.fold_in import FoldIn
from geo_mf.factorize.ials import Objective, Solver
from geo_mf.geometry.prior import RidgePrior
from geo_mf.geometry.prior import apply as apply_prior
from geo_mf.index.exact import ExactIndex

Ranked = tuple[np.ndarray, np.ndarray] | tuple[list[np.ndarray], list[np.ndarray]]
"""Ids (int32) and scores (float32). One row in: 1-D arrays. Many rows in: 2-D arrays, or lists of 1-D arrays when some
rows have fewer results than others: a missing result is never padded."""

_ONE_FIT = threading.RLock()
"""Fits of one process take turns: each uses all cores, and the number of BLAS's threads belongs to the process."""

RandomState = int | np.random.Generator | np.random.RandomState | None


class IALS:
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
        self.factors = _whole("factors", factors, 1)
        self.regularization = _real("regularization", regularization, "above 0, for example 0.01", lambda x: x > 0)
        self.unobserved_weight = _real("unobserved_weight", unobserved_weight, "at least 0", lambda x: x >= 0)
        self.iterations = _whole("iterations", iterations, 0)
        self.nu = _real("nu", nu, "between 0 and 2; 1 is usual", lambda x: 0 <= x <= 2)
        self.solver: Solver = solver
        self.cg_steps = _whole("cg_steps", cg_steps, 1)
        self.prior_regularization = _real("prior_regularization", prior_regularization, "above 0", lambda x: x > 0)
        self.num_threads = _whole("num_threads", num_threads, 0)
        self.calculate_training_loss = bool(calculate_training_loss)
        self.random_state = _random_state(random_state)
        self._users: np.ndarray | None = None
        self._items: np.ndarray | None = None
        self._fold_in: FoldIn | None = None
        self.prior_coefficients: np.ndarray | None = None

    @property
    def objective(self) -> Objective:
        """The three numbers of the objective."""
        return Objective(self.unobserved_weight, self.regularization, self.nu)

    @property
    def user_factors(self) -> np.ndarray:
        """float32 [users, K]. Raises InvalidInput before `fit`."""
        return _fitted(self._users)

    @property
    def item_factors(self) -> np.ndarray:
        """float32 [items, K]. Raises InvalidInput before `fit`."""
        return _fitted(self._items)

    @property
    def _shape(self) -> tuple[int, int]:
        return len(self.user_factors), len(self.item_factors)

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
        random = _generator(self.random_state)
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
        self._set(fitted.users, fitted.items, fitted.coefficients)
        return self

    def recommend(
        self,
        userid: int | Sequence[int] | np.ndarray,
        user_items: Any = None,
        N: int = 10,
        filter_already_liked_items: bool = True,
        filter_items: Sequence[int] | np.ndarray | None = None,
        recalculate_user: bool = False,
        items: Sequence[int] | np.ndarray | None = None,
    ) -> Ranked:
        """The best items for one user or many.

        Args:
            userid: a row, or several.
            user_items: sparse matrix with one row of history for each user asked for; needed to leave out liked items
                and for `recalculate_user`.
            N: how many items at most; fewer come back when fewer are left.
            filter_already_liked_items: leave out the items of the history.
            filter_items: items never to return.
            recalculate_user: fold the history in instead of using the stored factor; `userid` may then be any number.
            items: rank these items only. It composes with both filters.

        Returns:
            ids int32 and scores float32, best first; see `Ranked`.

        Raises:
            InvalidInput: shapes disagree, N < 1, or a history is missing.
            UnknownId: a user or an item is negative or out of range.
        """
        userids, single = _ids(userid)
        history = None
        if user_items is not None:
            history = matrices.check_history(user_items, len(userids), self._shape)
        elif filter_already_liked_items or recalculate_user:
            raise InvalidInput(
                "user_items is needed to leave out liked items or to recalculate the user: pass user_items[userid], "
                "or filter_already_liked_items=False"
            )
        if recalculate_user and history is not None:
            queries = self._recalculate(history)
        else:
            queries = self.user_factors[_in_range(userids, len(self.user_factors), "user")]
        seen = None
        if filter_already_liked_items and history is not None:
            seen = [history.indices[history.indptr[j] : history.indptr[j + 1]] for j in range(len(userids))]
        return self._search(self.item_factors, queries, N, self._allowed(items, filter_items), seen, single)

    def similar_items(
        self,
        itemid: int | Sequence[int] | np.ndarray,
        N: int = 10,
        filter_items: Sequence[int] | np.ndarray | None = None,
        items: Sequence[int] | np.ndarray | None = None,
    ) -> Ranked:
        """The items nearest by cosine of factors, the item itself included; arguments and errors as in `recommend`."""
        itemids, single = _ids(itemid)
        unit = _unit(self.item_factors)
        queries = unit[_in_range(itemids, len(unit), "item")]
        return self._search(unit, queries, N, self._allowed(items, filter_items), None, single)

    def similar_users(
        self,
        userid: int | Sequence[int] | np.ndarray,
        N: int = 10,
        filter_users: Sequence[int] | np.ndarray | None = None,
        users: Sequence[int] | np.ndarray | None = None,
    ) -> Ranked:
        """The users nearest by cosine of factors, the user itself included; arguments and errors as in `recommend`."""
        userids, single = _ids(userid)
        unit = _unit(self.user_factors)
        queries = unit[_in_range(userids, len(unit), "user")]
        allowed = _mask(users, filter_users, len(unit), "user")
        return self._search(unit, queries, N, allowed, None, single)

    def recalculate_user(self, userid: int | Sequence[int] | np.ndarray, user_items: Any) -> np.ndarray:
        """Factors from histories alone, by the exact row solve: [K] for one row of user_items, [n, K] for n."""
        userids, single = _ids(userid)
        folded = self._recalculate(matrices.check_history(user_items, len(userids), self._shape))
        return folded[0] if single else folded

    def item_prior(self, item_features: np.ndarray) -> np.ndarray:
        """What features [n, dim] say about factors, float32 [n, K]; InvalidInput when fitted without features."""
        if self.prior_coefficients is None:
            raise InvalidInput("this model was fitted without item_features: fit(user_items, item_features=...)")
        return apply_prior(self.prior_coefficients, np.atleast_2d(np.asarray(item_features, np.float32)))

    def save(self, path: str | Path) -> None:
        """Write settings and factors to one safetensors file. A random_state that is no integer is not kept."""
        persistence.save(path, type(self).__name__, self._settings(), self._arrays())

    @classmethod
    def load(cls, path: str | Path) -> "IALS":
        """Read a model that `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            IncompatibleIndex: the file is damaged or holds another kind of model.
        """
        settings, arrays = persistence.load(path, cls.__name__)
        model = cls(**settings)
        model._set(arrays["user_factors"], arrays["item_factors"], arrays.get("prior_coefficients"))
        return model

    def _settings(self) -> dict[str, Any]:
        return {
            "factors": self.factors,
            "regularization": self.regularization,
            "unobserved_weight": self.unobserved_weight,
            "iterations": self.iterations,
            "nu": self.nu,
            "solver": self.solver,
            "cg_steps": self.cg_steps,
            "prior_regularization": self.prior_regularization,
            "num_threads": self.num_threads,
            "calculate_training_loss": self.calculate_training_loss,
            "random_state": int(self.random_state) if isinstance(self.random_state, Integral) else None,
        }

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"user_factors": self.user_factors, "item_factors": self.item_factors}
        if self.prior_coefficients is not None:
            arrays["prior_coefficients"] = self.prior_coefficients
        return arrays

    def _set(self, users: np.ndarray, items: np.ndarray, coefficients: np.ndarray | None) -> None:
        self._users, self._items, self.prior_coefficients = users, items, coefficients
        self._fold_in = None

    def _recalculate(self, history: sparse.csr_array) -> np.ndarray:
        if self._fold_in is None:
            self._fold_in = FoldIn.of(self.item_factors, self.objective)
        spans = zip(history.indptr[:-1], history.indptr[1:], strict=True)
        factors, solver = self.item_factors, self._fold_in
        return np.stack([solver.solve(factors[history.indices[a:b]], history.data[a:b]) for a, b in spans])

    def _allowed(self, items: Any, filter_items: Any) -> np.ndarray | None:
        return _mask(items, filter_items, len(self.item_factors), "item")

    def _search(
        self,
        vectors: np.ndarray,
        queries: np.ndarray,
        N: int,
        allowed: np.ndarray | None,
        seen: list[np.ndarray] | None,
        single: bool,
    ) -> Ranked:
        # No list is longer than the rows there are, whatever N is: the search sets N places aside for each query.
        hits = ExactIndex(vectors).search(queries, min(_whole("N", N, 1), len(vectors)), allowed, seen)
        ids = [rows[:n] for rows, n in zip(hits.rows, hits.counts, strict=True)]
        scores = [row[:n] for row, n in zip(hits.scores, hits.counts, strict=True)]
        if single:
            return ids[0], scores[0]
        if len({len(row) for row in ids}) == 1:
            return np.stack(ids), np.stack(scores)
        return ids, scores


def _whole(name: str, found: Any, least: int) -> int:
    if not isinstance(found, Integral) or isinstance(found, bool) or found < least:
        raise InvalidInput(f"{name} is {found!r}; it must be a whole number of at least {least}")
    return int(found)


def _real(name: str, found: Any, expected: str, holds: Callable[[float], bool]) -> float:
    number = float(found) if isinstance(found, Real) and not isinstance(found, bool) else math.nan
    if not math.isfinite(number) or not holds(number):
        raise InvalidInput(f"{name} is {found!r}; it must be a finite number {expected}")
    return number


def _random_state(found: Any) -> RandomState:
    if found is None or isinstance(found, (np.random.Generator, np.random.RandomState)):
        return found
    if not isinstance(found, Integral) or isinstance(found, bool) or found < 0:
        raise InvalidInput(
            f"random_state is {found!r}; it must be an integer of at least 0, a numpy Generator or RandomState, or None"
        )
    return int(found)


def _fitted(factors: np.ndarray | None) -> np.ndarray:
    if factors is None:
        raise InvalidInput("this model has no factors yet: call fit(user_items) first")
    return factors


def _generator(random_state: RandomState) -> np.random.Generator:
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(0, 2**31 - 1, size=4))
    return np.random.default_rng(random_state)


def _ids(ids: int | Sequence[int] | np.ndarray) -> tuple[np.ndarray, bool]:
    array = np.asarray(ids)
    if array.ndim > 1 or not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
        raise InvalidInput(
            f"ids must be one integer or a flat list of integers, not {array.dtype} of shape {array.shape}"
        )
    return np.atleast_1d(array).astype(np.int64), array.ndim == 0


def _in_range(ids: np.ndarray, size: int, kind: str) -> np.ndarray:
    wrong = ids[(ids < 0) | (ids >= size)]
    if len(wrong):
        raise UnknownId(f"{kind} {wrong[0]} is not in this model: its {kind}s are 0 to {size - 1}")
    return ids


def _mask(only: Any, never: Any, size: int, kind: str) -> np.ndarray | None:
    if only is None and never is None:
        return None
    mask = np.full(size, only is None)
    if only is not None:
        mask[_in_range(_ids(only)[0], size, kind)] = True
    if never is not None:
        mask[_in_range(_ids(never)[0], size, kind)] = False
    return mask


def _unit(factors: np.ndarray) -> np.ndarray:
    """A normalised copy; zero rows stay zero."""
    norms = np.linalg.norm(factors, axis=1, keepdims=True)
    return factors / np.where(norms > 0, norms, 1)
