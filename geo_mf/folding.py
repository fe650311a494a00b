"""How somebody's factor is solved for: the row solves of a request, for those who were in the fit and for newcomers."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from scipy import sparse

from geo_mf.factorize.balance import Balance
from geo_mf.factorize.fold_in import FoldIn
from geo_mf.factorize.ials import Objective
from geo_mf.geometry.blend import Spread

__all__ = ["Folding", "Sums"]


@dataclass(frozen=True, eq=False)
class Sums:
    """What row solves need of whole arrays. To work it out is to read every factor, so an index keeps it.

    Attributes:
        solve_basis: float64 [K, K], `FoldIn.basis` for the items that somebody touched.
        solve_spectrum: float64 [K], `FoldIn.spectrum`.
        score_covariance: float32 [K, K], `Spread.covariance`.
        mean_user: float32 [K].
        mean_item: float32 [K].
        item_counts: int64 [items], interactions.
        balance_scale: float64 [1], `Balance.scale`.
    """

    solve_basis: np.ndarray
    solve_spectrum: np.ndarray
    score_covariance: np.ndarray
    mean_user: np.ndarray
    mean_item: np.ndarray
    item_counts: np.ndarray
    balance_scale: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """By name, for a file each."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    @classmethod
    def held(cls, arrays: Mapping[str, np.ndarray], items: int, rank: int) -> "Sums | None":
        """What `arrays` gave; None where one is missing, as in an older index, or of another shape."""
        shapes = ((rank, rank), (rank,), (rank, rank), (rank,), (rank,), (items,), (1,))
        found = [arrays.get(part.name) for part in fields(cls)]
        there = [one for one, shape in zip(found, shapes, strict=True) if one is not None and one.shape == shape]
        return cls(*there) if len(there) == len(shapes) else None


@dataclass(frozen=True, eq=False)
class Folding:
    """Row solves against the items of an index in one state.

    Attributes:
        history: float32 CSR [users, items], the weights that the factors were fitted to.
        user_factors: float32 [users, K].
        item_factors: float32 [items, K].
        objective: of the fit.
        newcomer: times the ridge of the fit, where somebody is solved for who was not in it.
        known: what was worked out before, of these arrays.
    """

    history: sparse.csr_array
    user_factors: np.ndarray
    item_factors: np.ndarray
    objective: Objective
    newcomer: float
    known: Sums | None = None

    def same(self, other: "Folding") -> bool:
        """Whether both are of the very same arrays and settings, so that one may stand for the other."""
        mine, theirs = ((one.history, one.user_factors, one.item_factors) for one in (self, other))
        settings = (self.objective, self.newcomer) == (other.objective, other.newcomer)
        return settings and all(a is b for a, b in zip(mine, theirs, strict=True))

    @property
    def sums(self) -> Sums:
        """All that can be known before somebody asks."""
        return Sums(
            solve_basis=self.fold_in.basis,
            solve_spectrum=self.fold_in.spectrum,
            score_covariance=self.spread.covariance,
            mean_user=self.mean_user,
            mean_item=self.mean_item,
            item_counts=self.item_counts,
            balance_scale=np.asarray([self.balance.scale]),
        )

    @cached_property
    def fold_in(self) -> FoldIn:
        """Row solves as in the fit: there, an item that nobody touched is next to nothing."""
        size = len(self.item_factors)
        if self.known is not None:
            return FoldIn(self.known.solve_basis, self.known.solve_spectrum, size, self.objective)
        return FoldIn.of(self.item_factors[~self.cold], self.objective, size)

    @cached_property
    def newcomers(self) -> FoldIn:
        """Row solves for those who were not in the fit: they are held closer to what is expected of them."""
        firmer = replace(self.objective, regularization=self.newcomer * self.objective.regularization)
        return replace(self.fold_in, objective=firmer)

    def solver(self, new: bool) -> FoldIn:
        """For somebody who was not in the fit, or for a known user."""
        return self.newcomers if new else self.fold_in

    @cached_property
    def mean_user(self) -> np.ndarray:
        """float32 [K], whom somebody is expected to be of whom nothing is known: the users' mean factor."""
        if self.known is not None:
            return self.known.mean_user
        return self.user_factors.mean(axis=0, dtype=np.float64).astype(np.float32)

    @cached_property
    def mean_item(self) -> np.ndarray:
        """float32 [K], the mean factor of the items that somebody touched; zero without any."""
        if self.known is not None:
            return self.known.mean_item
        touched = self.item_factors[~self.cold]
        return touched.mean(axis=0) if len(touched) else np.zeros(touched.shape[1], np.float32)

    @cached_property
    def balance(self) -> Balance:
        """The discounts of the history's weights, as in the fit."""
        discounts = self.objective.activity_discount, self.objective.popularity_discount
        if self.known is None:
            return Balance.of(self.history, *discounts)
        users = np.diff(self.history.indptr).astype(np.int64)
        return Balance(*discounts, users, self.item_counts, float(self.known.balance_scale[0]))

    @cached_property
    def spread(self) -> Spread:
        """Standard deviations of behaviour scores over all items."""
        return Spread.of(self.item_factors) if self.known is None else Spread(self.known.score_covariance)

    @cached_property
    def item_counts(self) -> np.ndarray:
        """int64 [items], interactions."""
        if self.known is not None:
            return self.known.item_counts
        return np.bincount(self.history.indices, minlength=len(self.item_factors))

    @cached_property
    def cold(self) -> np.ndarray:
        """bool [items]: nobody has touched the item."""
        return self.item_counts == 0
