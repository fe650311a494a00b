"""How somebody's factor is solved for: the row solves of a request, for those who were in the fit and for newcomers."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import sparse

from geo_mf.factorize.balance import Balance
from geo_mf.factorize.fold_in import FoldIn
from geo_mf.factorize.ials import Objective


@dataclass(frozen=True, eq=False)
class Folding:
    """Row solves against the items of an index in one state.

    Attributes:
        history: float32 CSR [users, items], the weights that the factors were fitted to.
        user_factors: float32 [users, K].
        item_factors: float32 [items, K].
        cold: bool [items]: nobody has touched the item.
        objective: of the fit.
        newcomer: times the ridge of the fit, where somebody is solved for who was not in it.
    """

    history: sparse.csr_array
    user_factors: np.ndarray
    item_factors: np.ndarray
    cold: np.ndarray
    objective: Objective
    newcomer: float

    @cached_property
    def fold_in(self) -> FoldIn:
        """Row solves as in the fit: there, an item that nobody touched is next to nothing."""
        return FoldIn.of(self.item_factors[~self.cold], self.objective, len(self.item_factors))

    @cached_property
    def newcomers(self) -> FoldIn:
        """Row solves for those who were not in the fit: they are held closer to the mean user."""
        firmer = replace(self.objective, regularization=self.newcomer * self.objective.regularization)
        return replace(self.fold_in, objective=firmer)

    def solver(self, expected: np.ndarray | None) -> FoldIn:
        """For a row that is pulled to `expected`, None for a known user's."""
        return self.fold_in if expected is None else self.newcomers

    @cached_property
    def mean_user(self) -> np.ndarray:
        """float32 [K], whom somebody is expected to be of whom nothing is known: the users' mean factor."""
        return self.user_factors.mean(axis=0, dtype=np.float64).astype(np.float32)

    @cached_property
    def balance(self) -> Balance:
        """The discounts of the history's weights, as in the fit."""
        return Balance.of(self.history, self.objective.activity_discount, self.objective.popularity_discount)
