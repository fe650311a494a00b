"""Forgetting what was removed: rows, texts, factors and touches, and an index made anew of the rest."""

from dataclasses import replace

import numpy as np
from scipy import sparse

from geo_mf.errors import InvalidInput
from geo_mf.living.indexing import Wanted, indexed
from geo_mf.living.solves import counted
from geo_mf.snapshot import Snapshot

__all__ = ["compacted"]


def compacted(now: Snapshot) -> Snapshot:
    """The snapshot without the items that were removed.

    The factors of all others, the prior and the blend stay as they are. Users keep their factors, but a request folds
    in the history that is left.

    Raises:
        InvalidInput: no item would be left.
    """
    kept = np.flatnonzero(now.live)
    if not len(kept):
        raise InvalidInput("every item of this index was removed, and nothing would be left: add items first")
    if len(kept) < len(now.live):
        now = replace(
            now,
            catalog=now.catalog.take(kept),
            history=sparse.csr_array(now.history[:, kept]),
            item_factors=now.item_factors[kept],
            embeddings=now.embeddings[kept],
            touches=now.touches[kept],
            trend=now.trend[kept],
            live=np.ones(len(kept), bool),
        )
    return indexed(counted(now), Wanted.of(now.card))
