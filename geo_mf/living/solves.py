"""Row solves of a snapshot against itself, and the counts on its card."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from scipy import sparse

from geo_mf import threads
from geo_mf.data.people import People
from geo_mf.factorize.fit import user_weights
from geo_mf.factorize.fold_in import FoldIn
from geo_mf.factorize.fold_in_many import FoldInMany
from geo_mf.folding import Folding
from geo_mf.geometry.prior import RidgePrior
from geo_mf.snapshot import Snapshot
from geo_mf.told import Told


def solved_users(now: Snapshot, rows: np.ndarray) -> np.ndarray:
    """float32 [n, K]: the factors of these users, exact against the items that somebody touched, pulled to what is
    known of them."""
    with np.errstate(over="ignore"):  # a weight beyond float32 gives no finite factor, which is refused
        histories = now.folding.balance.user_rows(now.history[rows])
    priors = None if now.told is None else now.told.of_users[rows]
    return now.folding.fold_in.solve_rows(now.item_factors, histories, priors)


def solved_items(now: Snapshot, rows: np.ndarray) -> np.ndarray:
    """float32 [n, K]: the factors of these items, exact against all users, pulled to what their features say."""
    with np.errstate(over="ignore"):  # as above
        histories = now.folding.balance.item_rows(sparse.csr_array(now.history[:, rows].T))
    fold = FoldIn.of(now.user_factors, now.objective)
    expected = now.prior(now.features[rows])
    return fold.solve_rows(now.user_factors, histories, expected)


def with_people(now: Snapshot, people: People, alpha: float) -> Snapshot:
    """The snapshot after a fit, with its users pulled to what is known of them.

    The fit itself does without. There, such a prior would leave taste that attributes tell unpunished in the users'
    factors, and the items' would shrink to match: who says nothing, or something wrong, would have to pay for it in
    every solve that follows. So a ridge regression reads the factors that behaviour gave, and no item's changes.

    Args:
        now: with the factors that the fit gave.
        people: the users and their attributes.
        alpha: shrinkage of the regression, see `RidgePrior`.
    """
    told = Told.of(people, users_prior(now.folding, people.features_of(now.users), alpha), now.users)
    return replace(now, told=told, user_factors=pulled(now.folding, np.arange(len(now.users)), told.of_users))


def users_prior(folding: Folding, features: np.ndarray, alpha: float) -> np.ndarray:
    """float32 [dim + 1, K], from users' features (and a constant) to their factors, as behaviour alone gave them.

    Args:
        folding: of the fit.
        features: float32 [users, dim]; a zero row for a user of whom nothing is known.
        alpha: shrinkage, see `RidgePrior`.
    """
    weights = user_weights(folding.history, folding.objective)
    return RidgePrior.of(features, weights, alpha, "user").fit(folding.user_factors)


def pulled(folding: Folding, rows: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """float32 [n, K]: the factors of these users of the fit, int [n], pulled to what is expected of them, float32
    [n, K]. Whom nothing is known of (a zero row) has the factor of the fit."""
    fitted = folding.user_factors[rows]
    with ThreadPoolExecutor(threads.count()) as pool:
        histories = folding.balance.user_rows(folding.history[rows])
        factors = FoldInMany.of(folding.fold_in, folding.item_factors).solve(histories, fitted, pool, expected)
    return np.where(expected.any(axis=1, keepdims=True), factors, fitted)


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
