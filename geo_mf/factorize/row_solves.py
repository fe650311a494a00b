"""What IALS does with its factors beside ranking them: exact row solves against the other side as it is.

Folding in, fitting in part, explaining. How the factors are learned is in estimators.py.
"""

from dataclasses import astuple, replace
from typing import Any, Literal, Self

import numpy as np
from scipy import linalg, sparse

from geo_mf.errors import InvalidInput, UnknownId
from geo_mf.factorize import matrices
from geo_mf.factorize.balance import Balance
from geo_mf.factorize.cores import all_cores
from geo_mf.factorize.defaults import Wanted
from geo_mf.factorize.fold_in import FoldIn
from geo_mf.factorize.ials import Objective
from geo_mf.factorize.parameters import whole
from geo_mf.factorize.retrieval import FactorModel
from geo_mf.factorize.rows import Rows, as_rows, in_range, to_write, written
from geo_mf.geometry.prior import apply as apply_prior

UserWeights = tuple[np.ndarray, bool]
"""What `scipy.linalg.cho_factor` returns."""


class RowSolves(FactorModel):
    """A factor model in which one side's factors and a history decide a factor of the other, exactly.

    Attributes:
        prior_coefficients: float32 [dim + 1, K] or None, the map from features (and a constant) to factors.
        user_prior_coefficients: the same for users.
    """

    unobserved_weight: float | None
    regularization: float | None
    nu: float | None
    activity_discount: float | None
    popularity_discount: float | None

    def __init__(self) -> None:
        super().__init__()
        self.prior_coefficients: np.ndarray | None = None
        self.user_prior_coefficients: np.ndarray | None = None
        self._user_priors: np.ndarray | None = None  # float32 [users, K]; a zero row for a user without features
        self._solvers: dict[Literal["users", "items"], FoldIn] = {}
        self._balance: Balance | None = None
        self._chosen: Objective | None = None

    @property
    def _wanted(self) -> Wanted:
        """What the settings say about the objective."""
        return Wanted(
            self.unobserved_weight, self.regularization, self.nu, self.activity_discount, self.popularity_discount
        )

    @property
    def objective(self) -> Objective:
        """The numbers of the objective; those that the settings leave open are the ones that the last fit chose.

        Raises:
            InvalidInput: some are left open, and there was no fit.
        """
        found = self._wanted.over(self._chosen)
        if found is None:
            raise InvalidInput("regularization or unobserved_weight is None, to be chosen by fit: call it first")
        return found

    def partial_fit_users(self, userids: Rows, user_items: Any, user_features: np.ndarray | None = None) -> Self:
        """Solve some users again, exactly, against the items as they are; every other factor stays as it was.

        Args:
            userids: rows. New users are len(user_factors), len(user_factors) + 1, ... in this order.
            user_items: sparse matrix, one row for each of `userids`. A row is the *whole* history: what it leaves out
                counts as never seen, also when an earlier fit saw it.
            user_features: float [len(userids), dim], when the model was fitted with features of users; a zero row for a
                user without. None leaves known users those that they have.

        Raises:
            InvalidInput: shapes disagree, a user is named twice, features of a new user are missing, features are
                unasked for, or the model has no factors yet.
            UnknownId: a row is negative, or new rows leave a gap or are out of order.
            FitDiverged: a row has no finite solution; nothing is stored then.
        """
        with all_cores():
            rows = to_write(as_rows(userids)[0], len(self.user_factors), "user")
            if len(rows):
                histories = self._check_history(user_items, len(rows))
                new = rows[rows >= len(self.user_factors)]
                if len(new) and user_features is None and self._user_priors is not None:
                    raise InvalidInput(
                        f"user {new[0]} is new, and this model was fitted with user_features: pass those of these "
                        "users, a zero row for a user without"
                    )
                priors = self._priors_of(rows, user_features)
                solved = self._solved_users(histories, priors)
                counts = written(self._balanced.user_counts, rows, np.diff(histories.indptr).astype(np.int64))
                factors = written(self.user_factors, rows, solved)
                self._balance = replace(self._balanced, user_counts=counts)
                if priors is not None and self._user_priors is not None:
                    self._user_priors = written(self._user_priors, rows, priors)
                self._set_users(factors)
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
                factors = written(self.item_factors, rows, solved)
                self._balance = replace(self._balanced, item_counts=counts)
                self._set_items(factors)
        return self

    def explain(
        self, userid: int, user_items: Any, itemid: int, user_weights: UserWeights | None = None, N: int = 10
    ) -> tuple[float, list[tuple[int, float]], UserWeights]:
        """Why this user would like this item: what each item of the history adds to the score.

        A score is linear in the history (Hu, Koren and Volinsky 2008, section 5), so the shares of all its items sum to
        it; in a model with user_features, what is left of it is the share of the user's own. It is the score of the
        history folded in: the stored factor's, as far as the solver was exact.

        Args:
            userid: a row of `user_items`.
            user_items: sparse matrix [users, items] or the user's row of it; `userid` is then any number. The features
                are those that the model knows of that number, if any.
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
        direction = linalg.cho_solve(user_weights, target.astype(np.float64))
        shares = weights * (factors @ direction)
        own = 0.0
        priors = self._priors_of(_one(userid, "userid"), None)
        if priors is not None:
            own = self._solver("users").ridge(len(weights)) * float(priors[0].astype(np.float64) @ direction)
        best = np.argsort(-shares, kind="stable")[:count]
        return float(shares.sum()) + own, [(int(history.indices[at]), float(shares[at])) for at in best], user_weights

    def item_prior(self, item_features: np.ndarray) -> np.ndarray:
        """What features [n, dim] say about factors, float32 [n, K].

        Raises:
            InvalidInput: the model was fitted without features, or with another number of them.
        """
        return self._prior(item_features, None)

    def user_prior(self, user_features: np.ndarray) -> np.ndarray:
        """What features [n, dim] of users say about their factors, float32 [n, K].

        Raises:
            InvalidInput: the model was fitted without features of users, or with another number of them.
        """
        return self._prior(user_features, None, "user")

    def _prior(self, features: np.ndarray, rows: int | None, side: matrices.Side = "item") -> np.ndarray:
        coefficients = self.prior_coefficients if side == "item" else self.user_prior_coefficients
        if coefficients is None:
            raise InvalidInput(f"this model was fitted without {side}_features: fit(user_items, {side}_features=...)")
        return apply_prior(coefficients, matrices.check_more_features(features, len(coefficients) - 1, rows, side))

    def _priors_of(self, rows: np.ndarray, user_features: np.ndarray | None) -> np.ndarray | None:
        """float32 [n, K]: what these users' features say, by default those that the model knows of them."""
        if user_features is not None:
            return self._prior(user_features, len(rows), "user")
        if self._user_priors is None:
            return None
        known = (rows >= 0) & (rows < len(self._user_priors))
        priors = np.zeros((len(rows), self._user_priors.shape[1]), np.float32)
        priors[known] = self._user_priors[rows[known]]
        return priors

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
            "balance_exponents": np.asarray([self._balanced.activity, self._balanced.popularity]),
            "objective": np.asarray(astuple(self._chosen or self.objective)),
        }
        optional = {
            "prior_coefficients": self.prior_coefficients,
            "user_prior_coefficients": self.user_prior_coefficients,
            "user_priors": self._user_priors,
        }
        return arrays | {name: array for name, array in optional.items() if array is not None}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        super()._restore(arrays)
        activity, popularity = arrays["balance_exponents"].tolist()
        self._balance = Balance(
            activity,
            popularity,
            arrays["user_counts"],
            arrays["item_counts"],
            float(arrays["balance_scale"][0]),
        )
        self._chosen = Objective(*arrays["objective"].tolist())
        self.prior_coefficients = arrays.get("prior_coefficients")
        self.user_prior_coefficients, self._user_priors = (
            arrays.get(name) for name in ("user_prior_coefficients", "user_priors")
        )

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

    def _fold_in_users(
        self, userids: np.ndarray, user_items: sparse.csr_array, user_features: np.ndarray | None
    ) -> np.ndarray:
        return self._solved_users(user_items, self._priors_of(userids, user_features))

    def _solved_users(self, user_items: sparse.csr_array, priors: np.ndarray | None) -> np.ndarray:
        return self._solver("users").solve_rows(self.item_factors, self._balanced.user_rows(user_items), priors)

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
