"""Weights that count an interaction less, the more its user and its item have of them.

    c_ui = weight_ui * z * n_u^-p * n_i^-q

n are numbers of interactions, and z makes the mean factor over the training interactions 1, so that a0 and lam keep
their meaning. p = q = 1/2 is the normalisation of a graph's adjacency matrix that graph filters for recommendation use
(GF-CF: Shen et al., CIKM 2021). Without it the few heaviest rows decide what the first factors stand for.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from geo_mf.factorize.matrices import shape


@dataclass(frozen=True)
class Balance:
    """The discounts of an objective, and the numbers of interactions that they were made for.

    Attributes:
        activity: p, the discount of a user's number of interactions.
        popularity: q, the discount of an item's.
        user_counts: int64 [users], interactions in training.
        item_counts: int64 [items].
        scale: z.
    """

    activity: float
    popularity: float
    user_counts: np.ndarray
    item_counts: np.ndarray
    scale: float

    @classmethod
    def of(cls, user_items: sparse.csr_array, activity: float, popularity: float) -> "Balance":
        """The balance of a training matrix [users, items]."""
        users = np.diff(user_items.indptr).astype(np.int64)
        items = np.bincount(user_items.indices, minlength=shape(user_items)[1])
        if not (activity or popularity) or not user_items.nnz:
            return cls(activity, popularity, users, items, 1.0)
        discounts = np.repeat(_discount(users, activity), users)
        discounts *= _discount(items, popularity)[user_items.indices]
        return cls(activity, popularity, users, items, 1 / float(discounts.mean(dtype=np.float64)))

    @property
    def matters(self) -> bool:
        """Whether there is any discount."""
        return bool(self.activity or self.popularity)

    @cached_property
    def _mean_item(self) -> float:
        touched = self.item_counts[self.item_counts > 0]
        return float(touched.mean()) if len(touched) else 1.0

    def user_rows(self, histories: sparse.csr_array) -> sparse.csr_array:
        """Users' histories [n, items], each whole, with their weights balanced; the training matrix is one of them."""
        return self._rows(histories, self.activity, _discount(self.item_counts, self.popularity))

    def item_rows(self, histories: sparse.csr_array) -> sparse.csr_array:
        """Items' histories [n, users], each whole, with their weights balanced."""
        return self._rows(histories, self.popularity, _discount(self.user_counts, self.activity))

    def of_user(self, items: np.ndarray, amounts: np.ndarray) -> np.ndarray:
        """float32 [m]: one user's amounts [m], balanced. They are those of the whole history of n items, and m - n of
        things that are no items, which count as an average one."""
        if not self.matters:
            return amounts
        counts = self.item_counts[items].astype(np.float64)
        if len(amounts) > len(items):
            counts = np.append(counts, np.full(len(amounts) - len(items), self._mean_item))
        own = _discount(np.asarray([len(counts)]), self.activity)
        return amounts * (np.float32(self.scale) * own * _discount(counts, self.popularity))

    def _rows(self, histories: sparse.csr_array, own: float, others: np.ndarray) -> sparse.csr_array:
        if not self.matters:
            return histories
        lengths = np.diff(histories.indptr)
        data = np.repeat(np.float32(self.scale) * _discount(lengths, own), lengths)
        data *= others[histories.indices]
        data *= histories.data
        return sparse.csr_array((data, histories.indices, histories.indptr), shape=histories.shape)


def _discount(counts: np.ndarray, exponent: float) -> np.ndarray:
    """float32, counts ^ -exponent; none counts as one."""
    return (np.maximum(counts, 1).astype(np.float64) ** -exponent).astype(np.float32)
