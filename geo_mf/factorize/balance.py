"""Weights that count an interaction less, the more its user and its item have of them.

    c_ui = weight_ui * z * n_u^-p * n_i^-q

n are numbers of interactions, and z makes the mean factor over the training interactions 1, so that a0 and lam keep
their meaning. p = q = 1/2 is the normalisation of a graph's adjacency matrix that graph filters for recommendation use
(GF-CF: Shen et al., CIKM 2021). Without it the few heaviest rows decide what the first factors stand for.
"""

from dataclasses import dataclass

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
        """The balance of a training matrix [users, items], which has an interaction."""
        users = np.diff(user_items.indptr).astype(np.int64)
        items = np.bincount(user_items.indices, minlength=shape(user_items)[1])
        if not (activity or popularity):
            return cls(activity, popularity, users, items, 1.0)
        discounts = np.repeat(_discount(users, activity), users)
        discounts *= _discount(items, popularity)[user_items.indices]
        return cls(activity, popularity, users, items, 1 / float(discounts.mean(dtype=np.float64)))

    @property
    def matters(self) -> bool:
        """Whether there is any discount."""
        return bool(self.activity or self.popularity)

    def user_rows(self, histories: sparse.csr_array) -> sparse.csr_array:
        """Users' histories [n, items], each whole, with their weights balanced; the training matrix is one of them."""
        return self._rows(histories, self.activity, _discount(self.item_counts, self.popularity))

    def item_rows(self, histories: sparse.csr_array) -> sparse.csr_array:
        """Items' histories [n, users], each whole, with their weights balanced."""
        return self._rows(histories, self.popularity, _discount(self.user_counts, self.activity))

    def of_user(self, items: np.ndarray, others: int) -> np.ndarray:
        """float32 [n + others]: the factors of one user's whole history of n items, and of things that are none of
        them, which count as an average item's."""
        if not self.matters:
            return np.ones(len(items) + others, np.float32)
        touched = self.item_counts[self.item_counts > 0]
        counts = np.append(self.item_counts[items], np.full(others, touched.mean(), np.int64))
        own = _discount(np.asarray([len(counts)]), self.activity)
        return np.float32(self.scale) * own * _discount(counts, self.popularity)

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
