"""Row solves of a snapshot against itself, and the counts on its card."""

from dataclasses import replace

import numpy as np
from scipy import sparse

from geo_mf.factorize.fold_in import FoldIn
from geo_mf.snapshot import Snapshot


def solved_users(now: Snapshot, rows: np.ndarray) -> np.ndarray:
    """float32 [n, K]: the factors of these users, exact against the items that somebody touched."""
    with np.errstate(over="ignore"):  # a weight beyond float32 gives no finite factor, which is refused
        histories = now.folding.balance.user_rows(now.history[rows])
    return now.folding.fold_in.solve_rows(now.item_factors, histories)


def solved_items(now: Snapshot, rows: np.ndarray) -> np.ndarray:
    """float32 [n, K]: the factors of these items, exact against all users, pulled to what their features say."""
    with np.errstate(over="ignore"):  # as above
        histories = now.folding.balance.item_rows(sparse.csr_array(now.history[:, rows].T))
    fold = FoldIn.of(now.user_factors, now.objective)
    expected = now.prior(now.features[rows])
    return fold.solve_rows(now.user_factors, histories, expected)


def grown(array: np.ndarray, size: int) -> np.ndarray:
    """A copy with `size` rows, the new ones zero."""
    out = np.zeros((size, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out


def resized(history: sparse.csr_array, users: int, items: int) -> sparse.csr_array:
    """The same entries in a larger matrix; they are not copied."""
    starts = np.concatenate([history.indptr, np.full(users + 1 - len(history.indptr), history.indptr[-1])])
    return sparse.csr_array((history.data, history.indices, starts.astype(history.indptr.dtype)), shape=(users, items))


def counted(now: Snapshot) -> Snapshot:
    """The snapshot with its own counts on its card."""
    counts = {
        "users": len(now.users),
        "items": len(now.catalog),
        "removed_items": int(np.count_nonzero(~now.live)),
        "cold_items": int(np.count_nonzero(now.cold)),
        "items_without_text": int(np.count_nonzero(~now.embeddings.any(axis=1))),
        "interactions": int(now.history.nnz),
    }
    return replace(now, card={**now.card, **counts})
