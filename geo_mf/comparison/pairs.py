"""Pairs of items that somebody touched, drawn from held-out behaviour."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from geo_mf.comparison.spaces import Items
from geo_mf.data.interactions import Interactions
from geo_mf.errors import InvalidInput
from geo_mf.factorize import matrices

PAIRS = 20_000
"""Pairs, at most, that are judged."""
PER_USER = 20
"""Pairs, at most, of one user."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of items that one user touched; the first is asked about, the second is looked for.

    Attributes:
        users: int64 [m], a number for each user, from 0.
        asked, wanted: int64 [m], rows of items.
        left_out: interactions whose item is not compared.
    """

    users: NDArray[np.int64]
    asked: NDArray[np.int64]
    wanted: NDArray[np.int64]
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.users)

    @classmethod
    def drawn(cls, interactions: Interactions, items: Items, seed: int) -> "Pairs":
        """`of` behaviour that is matched by ids. Entries with a weight of 0 say nothing.

        Raises:
            InvalidInput: the items have no ids, or no user touched two of them.
        """
        if items.ids is None:
            raise InvalidInput("interactions were given without ids; give ids=, so that their items can be found")
        found, unlisted = interactions.align(items=items.ids)
        touched = found.to_csr()
        if not touched_together(touched, items.rows):
            known = [ids.take(range(min(3, len(ids)))) for ids in (items.ids, interactions.items)]
            raise InvalidInput(
                f"no user of the {len(interactions):,} held-out interactions touched two of the compared items "
                f"({unlisted:,} are with other items; ids are such as {known[0]}, theirs are such as {known[1]}): "
                "give interactions of users with more behaviour, or ids of the same kind"
            )
        pairs = cls.of(touched, items, seed)
        return replace(pairs, left_out=pairs.left_out + unlisted)

    @classmethod
    def of(cls, touched: sparse.csr_array, items: Items, seed: int) -> "Pairs":
        """At most PER_USER different pairs of each user, and no more users than give PAIRS pairs.

        Args:
            touched: [users, all items], entries above 0 are taken; some user has two of them among `items`.
            items: those that are compared, by their rows in `touched`.
            seed: of the draw.
        """
        n_users, n_items = matrices.shape(touched)
        row_of = np.full(n_items, -1)
        row_of[items.rows] = np.arange(len(items))
        here = (row_of[touched.indices] >= 0) & (touched.data > 0)
        users = np.repeat(np.arange(n_users), np.diff(touched.indptr))[here]
        rows = row_of[touched.indices[here]]
        lengths = np.bincount(users, minlength=n_users)
        ends = np.cumsum(lengths)
        random = np.random.default_rng(seed)
        able = random.permutation(np.flatnonzero(lengths >= 2))
        of_each = np.minimum(lengths[able] * (lengths[able] - 1) // 2, PER_USER)
        able = able[: int(np.searchsorted(np.cumsum(of_each), PAIRS)) + 1]
        parts = []
        for number, user in enumerate(able):
            first, second = _some_pairs(int(lengths[user]), random)
            mine = rows[ends[user] - lengths[user] : ends[user]]
            parts.append(np.stack([np.full(len(first), number), mine[first], mine[second]]))
        drawn = np.concatenate(parts, axis=1)[:, :PAIRS]
        return cls(drawn[0], drawn[1], drawn[2], int(np.count_nonzero(row_of[touched.indices] < 0)))


def touched_together(touched: sparse.csr_array, rows: NDArray[np.integer]) -> bool:
    """Whether somebody touched two of the items in these rows: CSR [users, items], entries above 0 count."""
    n_users, n_items = matrices.shape(touched)
    among = np.zeros(n_items, bool)
    among[rows] = True
    users = np.repeat(np.arange(n_users), np.diff(touched.indptr))
    return bool((np.bincount(users[among[touched.indices] & (touched.data > 0)], minlength=1) >= 2).any())


def _some_pairs(n: int, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """At most PER_USER different pairs of n things, each the one or the other way round."""
    pairs = n * (n - 1) // 2
    chosen = random.choice(pairs, min(pairs, PER_USER), replace=False)
    # Pair number p of the triangle 0 < 1, 0 < 2, 1 < 2, 0 < 3 ...: the larger one is the largest l with l(l-1)/2 <= p.
    larger = ((1 + np.sqrt(8.0 * chosen + 1)) // 2).astype(np.int64)
    larger -= larger * (larger - 1) // 2 > chosen
    larger += larger * (larger + 1) // 2 <= chosen
    smaller = chosen - larger * (larger - 1) // 2
    turned = random.random(len(chosen)) < 0.5
    return np.where(turned, larger, smaller), np.where(turned, smaller, larger)
