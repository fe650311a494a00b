"""The Scorer contract, and the three rankings that every table must beat.

A baseline learns from the training side only, and its rows are the rows of the split.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from geo_mf.data.interactions import Interactions
from geo_mf.errors import InvalidInput

__all__ = ["ContentKNN", "Popularity", "Random", "Scorer", "item_users", "touched"]


@runtime_checkable
class Scorer(Protocol):
    """Anything that scores every item for a user; bigger is better."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        ...

    def scores(self, user_rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """float32 [b, n_items] for user rows int [b]. Never NaN.

        -inf means "not to be ranked": give it to items about which nothing is known, rather than one constant. A
        user's scores must not depend on who else is in the batch.
        """
        ...


@dataclass(frozen=True, eq=False)
class Popularity:
    """The same list for everyone: items by how many training users touched them. An untouched item scores 0."""

    train: Interactions
    name: str = "popularity"

    def scores(self, user_rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """float32 [b, n_items], one row seen b times (read-only)."""
        return np.broadcast_to(self._counts, (len(user_rows), self._counts.size))

    @cached_property
    def _counts(self) -> NDArray[np.float32]:
        return item_users(self.train).astype(np.float32)


@dataclass(frozen=True, eq=False)
class ContentKNN:
    """Items whose text is nearest to the user's history: the dot product with the mean embedding of that history.

    embeddings: float32 [n_items, dim], unit rows in the split's item rows; a zero row has no text.
    The mean is weighted by the training weights. It scores -inf for items without text, and everywhere for a user whose
    history holds no text: such a user gets an empty list.
    Raises InvalidInput for embeddings of another length, or that are not finite.
    """

    embeddings: NDArray[np.float32]
    train: Interactions
    name: str = "content kNN"
    _history: sparse.csr_array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found, n_items = self.embeddings.shape, len(self.train.items)
        if len(found) != 2 or found[0] != n_items:
            raise InvalidInput(f"embeddings have shape {found}, expected ({n_items}, dim): one row for each item row")
        if not np.isfinite(self.embeddings).all():
            raise InvalidInput("embeddings hold NaN or infinity; give an item without text a row of zeros")
        object.__setattr__(self, "_history", self.train.to_csr())

    def scores(self, user_rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """float32 [b, n_items]."""
        history = self._history[user_rows]
        total = np.abs(history).sum(axis=1)
        profile = (history @ self.embeddings) / np.where(total > 0, total, 1)[:, None]
        scores = np.asarray(profile @ self.embeddings.T, np.float32)
        scores[:, self._silent] = -np.inf
        scores[~profile.any(axis=1)] = -np.inf
        return scores

    @cached_property
    def _silent(self) -> NDArray[np.bool_]:
        return np.linalg.norm(self.embeddings, axis=1) == 0


@dataclass(frozen=True)
class Random:
    """A random order for each user, drawn from (seed, user row) alone: the floor of every metric."""

    n_items: int
    seed: int = 0
    name: str = "random"

    def scores(self, user_rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """float32 [b, n_items], uniform in [0, 1)."""
        scores = np.empty((len(user_rows), self.n_items), np.float32)
        for row, user in zip(scores, user_rows, strict=True):
            np.random.default_rng([self.seed, int(user)]).random(dtype=np.float32, out=row)
        return scores


def touched(interactions: Interactions) -> sparse.csr_array:
    """Which user touched which item: ones, float32 [users, items], sorted and without duplicates.

    Unlike `Interactions.to_csr`, a pair with weight 0 is kept: the user has met the item all the same.
    """
    shape = (len(interactions.users), len(interactions.items))
    ones = np.ones(len(interactions), np.float32)
    matrix = sparse.csr_array((ones, (interactions.user_rows, interactions.item_rows)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def item_users(interactions: Interactions) -> NDArray[np.int64]:
    """How many users touched each item. int64 [n_items]."""
    return np.bincount(touched(interactions).indices, minlength=len(interactions.items))
