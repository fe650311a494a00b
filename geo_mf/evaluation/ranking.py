"""rank: exact lists of the best items, from dense scores, in bounded memory."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from geo_mf.errors import InvalidInput
from geo_mf.evaluation import metrics
from geo_mf.evaluation.baselines import Scorer

__all__ = ["rank", "top_k"]

_BLOCK_BYTES = 64 * 2**20  # of float32 scores at a time


def rank(
    scorer: Scorer,
    user_rows: NDArray[np.integer],
    k: int,
    *,
    candidates: NDArray[np.bool_] | None = None,
    exclude: sparse.csr_array | None = None,
    batch: int | None = None,
    ties: NDArray[np.integer] | None = None,
) -> NDArray[np.int32]:
    """Each user's k best items: rows int32 [users, k], score descending, -1 at the end of a short list.

    candidates: bool [n_items], the only items that may appear. exclude: sparse [all users, n_items], whose stored
    entries are withheld from their user. batch: users scored at a time; by default as many as fit 64 MB of scores.
    ties: int [n_items]; of equal scores the lower `ties` comes first, by default the lower row. An item that scores
    -inf is never returned, so a list may be shorter than k, or empty; k may exceed the number of items.

    Raises InvalidInput for k < 1, user rows that are not rows, and scores that are NaN or of the wrong shape.
    """
    metrics.check_k(k)
    users = np.asarray(user_rows)
    if users.ndim != 1 or users.dtype.kind not in "iu" or (users.size and users.min() < 0):
        raise InvalidInput(f"user_rows are {users.dtype}{list(users.shape)}; give rows of users as integers >= 0")
    ranked = np.full((users.size, k), -1, np.int32)
    if users.size == 0:
        return ranked
    n_items = _n_items(scorer, users, candidates, exclude, ties)
    columns = np.arange(n_items) if candidates is None else np.flatnonzero(candidates)
    column_ties = None if ties is None else ties[columns]
    place = np.full(n_items, -1)
    place[columns] = np.arange(columns.size)
    size = max(1, _BLOCK_BYTES // (4 * max(n_items, 1))) if batch is None else metrics.check_k(batch)
    for start in range(0, users.size, size):
        block_users = users[start : start + size]
        scores = _scores(scorer, block_users, n_items)
        block = scores.copy() if columns.size == n_items else scores.take(columns, axis=1)  # written to below
        if exclude is not None:
            seen = exclude[block_users]
            at = place[seen.indices]
            user_of = np.repeat(np.arange(block_users.size), np.diff(seen.indptr))
            block[user_of[at >= 0], at[at >= 0]] = -np.inf
        top = top_k(block, k, column_ties)
        ranked[start : start + size, : top.shape[1]] = np.where(top >= 0, columns[top], -1)
    return ranked


def top_k(scores: NDArray[np.float32], k: int, ties: NDArray[np.integer] | None = None) -> NDArray[np.int64]:
    """The columns of the k largest scores of each row: int64 [b, min(k, n)], best first, -1 where only -inf is left.

    scores: float32 [b, n] without NaN. ties: int [n], all different; of equal scores the column with the lower `ties`
    comes first, by default the lower column.
    """
    chosen = _largest(scores, min(k, scores.shape[1]))
    values = np.take_along_axis(scores, chosen, axis=1)
    if ties is None:
        order = np.argsort(-values, axis=1, kind="stable")
    else:
        # Only where equals compete for the last places does `ties` decide who is chosen: look again at those rows.
        least = values.min(axis=1, initial=np.inf, keepdims=True)
        rivals = np.count_nonzero(scores >= least, axis=1) > chosen.shape[1]
        crowded = np.flatnonzero(rivals & (least[:, 0] > -np.inf))
        if crowded.size:
            by_ties = np.argsort(ties)
            chosen[crowded] = by_ties[_largest(scores[crowded].take(by_ties, axis=1), chosen.shape[1])]
            values[crowded] = np.take_along_axis(scores[crowded], chosen[crowded], axis=1)
        order = np.lexsort((ties[chosen], -values), axis=1)
    best = np.take_along_axis(chosen, order, axis=1)
    return np.where(np.take_along_axis(values, order, axis=1) > -np.inf, best, -1)


def _largest(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The columns of the k <= n largest scores, lower columns first among equals; in ascending order, int64 [b, k].

    Wide rows are cut into runs of neighbouring columns. A run outside the best k runs (by its largest score, then by
    its place) cannot hold one of the k best: k others, one in each of those runs, come before it. So a large partition
    becomes two small ones, which is about five times faster at 40,000 columns.
    """
    b, n = scores.shape
    width = math.isqrt(n // k) if k else 0
    if width < 8:
        return _largest_by_partition(scores, k)
    head = n - n % width
    runs = _largest(scores[:, :head].reshape(b, -1, width).max(axis=2), k)
    columns = (runs[:, :, None] * width + np.arange(width)).reshape(b, k * width)
    tail = np.broadcast_to(np.arange(head, n), (b, n - head))  # too few for a run: always looked at
    columns = np.concatenate([columns, tail], axis=1)
    kept = _largest_by_partition(np.take_along_axis(scores, columns, axis=1), k)
    return np.take_along_axis(columns, kept, axis=1)


def _largest_by_partition(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    b, n = scores.shape
    if k == n:
        return np.tile(np.arange(n), (b, 1))
    least = np.partition(scores, n - k, axis=1)[:, n - k, None]  # the k-th largest
    chosen = scores >= least
    crowded = np.flatnonzero(np.count_nonzero(chosen, axis=1) > k)
    if crowded.size:  # more equals of the k-th than there are places: the lower columns get them
        above = scores[crowded] > least[crowded]
        equal = chosen[crowded] & ~above
        places = k - np.count_nonzero(above, axis=1)[:, None]
        chosen[crowded] = above | (equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= places))
    return np.nonzero(chosen)[1].reshape(b, k)


def _scores(scorer: Scorer, users: NDArray[np.integer], n_items: int) -> NDArray[np.float32]:
    scores = np.asarray(scorer.scores(users), np.float32)
    if scores.shape != (users.size, n_items):
        raise InvalidInput(
            f"{scorer.name}: scores have shape {scores.shape}, expected ({users.size}, {n_items}): users and items"
        )
    if np.isnan(scores).any():
        row = int(np.isnan(scores).any(axis=1).argmax())
        raise InvalidInput(f"{scorer.name}: NaN scores for user row {int(users[row])}; use -inf for 'not to be ranked'")
    return scores


def _n_items(scorer: Scorer, users: NDArray[np.integer], *sized: Any) -> int:
    """The number of items: the size of candidates, exclude and ties, which must agree, else what the scorer gives."""
    sizes = {int(one.shape[-1]) for one in sized if one is not None}
    if len(sizes) > 1:
        raise InvalidInput(f"candidates, exclude and ties speak of {sorted(sizes)} items; they must agree")
    return sizes.pop() if sizes else int(np.shape(scorer.scores(users[:1]))[-1])
