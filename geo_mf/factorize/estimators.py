"""IALS, as a thin shell with the field's own method names over the mathematics of ials.py and the loop of fit.py.

Names and order of arguments are those of `implicit` 0.7.3 (AlternatingLeastSquares), and so are the (ids, scores) that
come back. On purpose it differs in this (docs/coming_from.md converts the settings):

- matrices may be of any sparse kind and number type; a transposed one is recognised; negative weights are refused;
- ids that are negative or out of range raise, as does N < 1;
- fewer than N results give a shorter list, never a liked item or a filler; `items` and `filter_items` compose;
- `fit` takes `item_features` second and shows no progress unless asked; its epochs solve the items first, so that a
  stored user is what folding in the user's history gives;
- `recommend` needs `user_items` only for what it is asked to do, and with `recalculate_user` takes any `userid`;
- `similar_items`, `recalculate_item` and `partial_fit_items` take `item_features`, which a model fitted with features
  needs: without them the row solve would be another one;
- `partial_fit_*` raise for a row named twice and for new rows that leave a gap (`implicit` fills it with zeros), and
  return the model;
- `explain` also takes the one row of `user_items` that `recommend` takes;
- factors are read-only, `save` takes a path and never writes a pickle;
- `alpha`, `dtype`, `use_native`, `use_cg`, `to_gpu` and the deprecated `rank_items` and `recommend_all` are not there;
  `predict`, `get_params` and `set_params` are new.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from scipy import linalg, sparse

from geo_mf.errors import InvalidInput, UnknownId
from geo_mf.factorize import matrices
from geo_mf.factorize.balance import Balance
from geo_mf.factorize.checkpoint import Checkpoint, fingerprint
from geo_mf.factorize.cores import all_cores
from geo_mf.factorize.fit import Callback, Settings, Watch, fit
from geo_mf.factorize.fold_in import FoldIn
from geo_mf.factorize.ials import Objective, Solver
from geo_mf.factorize.parameters import RandomState, generator, real, seed, whole
from geo_mf.factorize.plan import Plan, Problem
from geo_mf.factorize.retrieval import FactorModel, Ranked
from geo_mf.factorize.rows import Rows, as_rows, in_range, to_write, written
from geo_mf.geometry.prior import RidgePrior
from geo_mf.geometry.prior import apply as apply_prior

__all__ = ["IALS", "Ranked"]

FREE_TO_CHANGE = ("iterations", "num_threads", "calculate_training_loss")
"""Settings that may differ between the runs that share a checkpoint."""

UserWeights = tuple[np.ndarray, bool]
"""What `scipy.linalg.cho_factor` returns."""


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
        cg_steps: steps of "cg" for each row, after the first, which stands in for a warm start.
        activity_discount: p of `geo_mf.factorize.balance`: an interaction of a user who has n
            counts n^-p.
        popularity_discount: q, the same for its item. 0 and 0 take the weights as they are.
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
        activity_discount: float = 0.0,
        popularity_discount: float = 0.0,
        prior_regularization: float = 10.0,
        num_threads: int = 0,
        calculate_training_loss: bool = False,
        random_state: RandomState = None,
    ) -> None:
        super().__init__()
        if solver not in ("cg", "cholesky"):
            raise InvalidInput(f"solver is {solver!r}; it must be 'cg' or 'cholesky'")
        self.factors = whole("factors", factors, 1)
        self.regularization = real("regularization", regularization, "above 0, for example 0.01", lambda x: x > 0)
        self.unobserved_weight = real("unobserved_weight", unobserved_weight, "at least 0", lambda x: x >= 0)
        self.iterations = whole("iterations", iterations, 0)
        self.nu = real("nu", nu, "between 0 and 2; 1 is usual", lambda x: 0 <= x <= 2)
        self.solver: Solver = solver
        self.cg_steps = whole("cg_steps", cg_steps, 1)
        self.activity_discount = real("activity_discount", activity_discount, "between 0 and 1", _share)
        self.popularity_discount = real("popularity_discount", popularity_discount, "between 0 and 1", _share)
        self.prior_regularization = real("prior_regularization", prior_regularization, "above 0", lambda x: x > 0)
        self.num_threads = whole("num_threads", num_threads, 0)
        self.calculate_training_loss = bool(calculate_training_loss)
        self.random_state = seed(random_state)
        self._solvers: dict[Literal["users", "items"], FoldIn] = {}
        self.prior_coefficients: np.ndarray | None = None
        self._balance: Balance | None = None

    @property
    def objective(self) -> Objective:
        """The numbers of the objective."""
        return Objective(
            self.unobserved_weight, self.regularization, self.nu, self.activity_discount, self.popularity_discount
        )

    def fit(
        self,
        user_items: Any,
        item_features: np.ndarray | None = None,
        show_progress: bool = False,
        callback: Callback | None = None,
        checkpoint: str | Path | None = None,
        watch: Watch | None = None,
    ) -> Self:
        """Learn user and item factors.

        Args:
            user_items: sparse matrix [users, items] of weights, 0 meaning "not seen". Duplicates are summed.
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

        Raises:
            InvalidInput: a weight is negative or not finite, the matrix has no interactions, the shapes disagree, or
                the checkpoint belongs to another fit or has more epochs than `iterations`.
            IncompatibleIndex: the checkpoint is damaged.
            FitDiverged: the factors became infinite or NaN.
        """
        with all_cores():
            return self._fit(user_items, item_features, show_progress, callback, checkpoint, watch)

    def _fit(
        self,
        user_items: Any,
        item_features: np.ndarray | None,
        show_progress: bool,
        callback: Callback | None,
        checkpoint: str | Path | None,
        watch: Watch | None,
    ) -> Self:
        matrix = matrices.check_training(user_items)
        shape = matrices.shape(matrix)
        prior = None
        if item_features is not None:
            popularity = np.bincount(matrix.indices, minlength=shape[1])
            weights = self.objective.ridge(popularity, shape[0]) / self.regularization * (popularity > 0)
            prior = RidgePrior.of(matrices.check_features(item_features, shape), weights, self.prior_regularization)
        random = generator(self.random_state)
        balance = Balance.of(matrix, self.activity_discount, self.popularity_discount)

        def start() -> tuple[np.ndarray, np.ndarray]:
            scale = np.float32(0.1 / np.sqrt(self.factors))
            users, items = (random.standard_normal((n, self.factors), np.float32) * scale for n in shape)
            return users, items

        settings = replace(self._loop, progress=show_progress)
        balanced = balance.user_rows(matrix)
        Problem.of(balanced, 0 if prior is None else prior.design.shape[1] - 1).plan(settings, timed=False).check()
        kept = None
        if checkpoint is not None:
            given = {name: value for name, value in self.get_params().items() if name not in FREE_TO_CHANGE}
            kept = Checkpoint(Path(checkpoint), fingerprint(matrix, item_features, given))
        fitted = fit(balanced, settings, start, prior, callback, kept, watch)
        self._balance = balance
        self._set_factors(fitted.users, fitted.items)
        self.prior_coefficients = fitted.coefficients
        return self

    def plan(self, user_items: Any, features: int = 0, timed: bool = True) -> Plan:
        """What `fit` would take: its memory, and the time of an epoch on this machine as busy as it is now.

        Args:
            user_items: the matrix to be fitted; or, before there is one, (users, items, interactions), whose histories
                are then taken to be log-normal.
            features: numbers of an item's features, 0 for none.
            timed: whether to try a few calls for the time. It takes a few seconds, most of them for compiling, which
                `fit` then need not do again.

        Raises:
            InvalidInput: as in `fit`; or a shape that no matrix can have.
        """
        with all_cores():
            if isinstance(user_items, tuple):
                if len(user_items) != 3:
                    raise InvalidInput(f"a shape is {user_items!r}; expected (users, items, interactions)")
                users, items, interactions = user_items
                problem = Problem.typical(users, items, interactions, whole("features", features, 0))
                problem = replace(problem, uniform=not (self.activity_discount or self.popularity_discount))
            else:
                matrix = matrices.check_training(user_items)
                balance = Balance.of(matrix, self.activity_discount, self.popularity_discount)
                problem = Problem.of(balance.user_rows(matrix), whole("features", features, 0))
            return problem.plan(self._loop, timed)

    @property
    def _loop(self) -> Settings:
        return Settings(
            rank=self.factors,
            objective=self.objective,
            epochs=self.iterations,
            solver=self.solver,
            steps=self.cg_steps,
            threads=self.num_threads,
            loss=self.calculate_training_loss,
        )

    def partial_fit_users(self, userids: Rows, user_items: Any) -> Self:
        """Solve some users again, exactly, against the items as they are; every other factor stays as it was.

        Args:
            userids: rows. New users are len(user_factors), len(user_factors) + 1, ... in this order.
            user_items: sparse matrix, one row for each of `userids`. A row is the *whole* history: what it leaves out
                counts as never seen, also when an earlier fit saw it.

        Raises:
            InvalidInput: shapes disagree, a user is named twice, or the model has no factors yet.
            UnknownId: a row is negative, or new rows leave a gap or are out of order.
            FitDiverged: a row has no finite solution; nothing is stored then.
        """
        with all_cores():
            rows = to_write(as_rows(userids)[0], len(self.user_factors), "user")
            if len(rows):
                histories = self._check_history(user_items, len(rows))
                solved = self._fold_in(histories)
                counts = written(self._balanced.user_counts, rows, np.diff(histories.indptr).astype(np.int64))
                self._balance = replace(self._balanced, user_counts=counts)
                self._set_users(written(self.user_factors, rows, solved))
        return self

    def partial_fit_items(self, itemids: Rows, item_users: Any, item_features: np.ndarray | None = None) -> Self:
        """Solve some items again, exactly, against the users as they are; every other factor stays as it was.

        The map from features to factors stays, too. An item with features and no history gets what they predict, shrunk
        as `fit` shrinks it.

        Args:
            itemids: rows. New items are len(item_factors), len(item_factors) + 1, ... in this order.
            item_users: sparse matrix [len(itemids), users], the *whole* history of each.
            item_features: float [len(itemids), dim], when the model was fitted with features; a zero row for an item
                without.

        Raises:
            InvalidInput: shapes disagree, an item is named twice, features are missing or unasked for, or the model has
                no factors yet.
            UnknownId: a row is negative, or new rows leave a gap or are out of order.
            FitDiverged: a row has no finite solution; nothing is stored then.
        """
        with all_cores():
            rows = to_write(as_rows(itemids)[0], len(self.item_factors), "item")
            if len(rows):
                histories = self._check_item_history(item_users, len(rows))
                solved = self._fold_in_items(histories, item_features)
                counts = written(self._balanced.item_counts, rows, np.diff(histories.indptr).astype(np.int64))
                self._balance = replace(self._balanced, item_counts=counts)
                self._set_items(written(self.item_factors, rows, solved))
        return self

    def explain(
        self, userid: int, user_items: Any, itemid: int, user_weights: UserWeights | None = None, N: int = 10
    ) -> tuple[float, list[tuple[int, float]], UserWeights]:
        """Why this user would like this item: what each item of the history adds to the score.

        A score is linear in the history (Hu, Koren and Volinsky 2008, section 5), so the shares of all its items sum to
        it. It is the score of the history folded in: the stored factor's, as far as the solver was exact.

        Args:
            userid: a row of `user_items`.
            user_items: sparse matrix [users, items] or the user's row of it; `userid` is then any number.
            itemid: the item to explain.
            user_weights: what an earlier call for the same user and history returned; it saves most of the work.
            N: how many shares at most.

        Returns:
            The score; the largest shares as (itemid, share), falling; the user's system, for further calls.

        Raises:
            InvalidInput: shapes disagree, N < 1, or weights so large that the system is singular.
            UnknownId: the item, or the user where user_items has a row for each, is negative or out of range.
        """
        history = self._balanced.user_rows(self._history_of(userid, user_items))
        target = self.item_factors[in_range(_one(itemid, "itemid"), len(self.item_factors), "item")[0]]
        count = whole("N", N, 1)
        factors, weights = self.item_factors[history.indices].astype(np.float64), history.data.astype(np.float64)
        if user_weights is None:
            try:
                user_weights = linalg.cho_factor(self._solver("users").normal_matrix(factors, weights))
            except linalg.LinAlgError as error:
                raise InvalidInput(
                    f"weights of up to {weights.max(initial=0):g} are beyond what can be explained exactly: scale them "
                    "down to around 1"
                ) from error
        elif np.shape(user_weights[0]) != (len(target), len(target)):
            raise InvalidInput(
                f"user_weights is of shape {np.shape(user_weights[0])}, expected {(len(target), len(target))}: pass "
                "what explain returned last for this user"
            )
        shares = weights * (factors @ linalg.cho_solve(user_weights, target.astype(np.float64)))
        best = np.argsort(-shares, kind="stable")[:count]
        return float(shares.sum()), [(int(history.indices[at]), float(shares[at])) for at in best], user_weights

    def item_prior(self, item_features: np.ndarray) -> np.ndarray:
        """What features [n, dim] say about factors, float32 [n, K].

        Raises:
            InvalidInput: the model was fitted without features, or with another number of them.
        """
        return self._prior(item_features, None)

    def _prior(self, item_features: np.ndarray, rows: int | None) -> np.ndarray:
        if self.prior_coefficients is None:
            raise InvalidInput("this model was fitted without item_features: fit(user_items, item_features=...)")
        dim = len(self.prior_coefficients) - 1
        return apply_prior(self.prior_coefficients, matrices.check_more_features(item_features, dim, rows))

    def _history_of(self, userid: int, user_items: Any) -> sparse.csr_array:
        """[1, items], from the matrix of all users or from one row of it."""
        row = _one(userid, "userid")
        if (sparse.issparse(user_items) or isinstance(user_items, np.ndarray)) and user_items.ndim == 2:
            users = int(user_items.shape[0])
            if users > 1:
                if not 0 <= row[0] < users:
                    raise UnknownId(f"user {row[0]} has no row in user_items, which has {users} rows")
                user_items = (user_items if isinstance(user_items, np.ndarray) else sparse.csr_array(user_items))[row]
        return self._check_history(user_items, 1)

    @property
    def _balanced(self) -> Balance:
        """The balance of the last fit: like the factors, it stays until the next."""
        if self._balance is None:
            raise InvalidInput("this model has no factors yet: call fit(user_items) first")
        return self._balance

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = super()._arrays() | {
            "user_counts": self._balanced.user_counts,
            "item_counts": self._balanced.item_counts,
            "balance_scale": np.asarray([self._balanced.scale]),
        }
        return arrays | ({} if self.prior_coefficients is None else {"prior_coefficients": self.prior_coefficients})

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        super()._restore(arrays)
        self._balance = Balance(
            self.activity_discount,
            self.popularity_discount,
            arrays["user_counts"],
            arrays["item_counts"],
            float(arrays["balance_scale"][0]),
        )
        self.prior_coefficients = arrays.get("prior_coefficients")

    def _set_users(self, factors: np.ndarray) -> None:
        super()._set_users(factors)
        self._solvers.pop("items", None)

    def _set_items(self, factors: np.ndarray) -> None:
        super()._set_items(factors)
        self._solvers.pop("users", None)

    def _solver(self, side: Literal["users", "items"]) -> FoldIn:
        """Row solves of one side, against the factors that the other side has now."""
        kept = self._solvers.get(side)
        if kept is None or kept.objective != self.objective:
            kept = FoldIn.of(self.item_factors if side == "users" else self.user_factors, self.objective)
            self._solvers[side] = kept
        return kept

    def _fold_in(self, user_items: sparse.csr_array) -> np.ndarray:
        return self._solver("users").solve_rows(self.item_factors, self._balanced.user_rows(user_items))

    def _fold_in_items(self, item_users: sparse.csr_array, item_features: np.ndarray | None) -> np.ndarray:
        prior = None
        if item_features is not None:
            prior = self._prior(item_features, matrices.shape(item_users)[0])
        elif self.prior_coefficients is not None:
            raise InvalidInput(
                "this model was fitted with item_features, which are a part of every item's row solve: pass those of "
                "these items as item_features, a zero row for an item without"
            )
        return self._solver("items").solve_rows(self.user_factors, self._balanced.item_rows(item_users), prior)


def _one(row: int, name: str) -> np.ndarray:
    """int64 [1] for one integer."""
    rows, single = as_rows(row)
    if not single:
        raise InvalidInput(f"{name} is {row!r}: explain takes one integer")
    return rows


def _share(number: float) -> bool:
    return 0 <= number <= 1
