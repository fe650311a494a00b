"""Ranking metrics over arrays. Nothing here knows a model, an id or a file.

Shapes, used throughout:

    ranked    int [users, width]        item rows, best first; -1 fills the end of a short list
    relevant  sparse [users, n_items]   every stored entry is relevant, whatever its weight
    k         int >= 1                  the cut: only the first k columns of ``ranked`` count

A metric per user returns float64 [users] without NaN. A user with no relevant item gets 0 everywhere. Such a user says
nothing about the ranking, so leave those rows out before taking a mean. A list shorter than k is judged as if the
missing places held wrong answers: precision always divides by k. An item may appear once in a list; a repeat raises
``InvalidInput``.

Notation: ``g_j`` is 1 when place j of the list (j = 1..k) holds a relevant item, else 0; ``R`` is the number of
relevant items of the user. The definitions are those of trec_eval (``P``, ``recall``, ``map_cut``, ``ndcg_cut``,
``recip_rank``, ``success``).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from geo_mf.errors import InvalidInput

Hits = NDArray[np.bool_]
PerUser = NDArray[np.float64]
Metric = Callable[[NDArray[np.integer], sparse.csr_array, int], PerUser]

_DRAWS_AT_ONCE = 8_000_000  # bootstrap draws in memory at a time: 64 MB of int64


def recall(ranked: NDArray[np.integer], relevant: sparse.csr_array, k: int) -> PerUser:
    """``sum_j g_j / R``: the share of the user's relevant items that the list holds. float64 [users]."""
    return _recall(*_judge(ranked, relevant, k), k)


def precision(ranked: NDArray[np.integer], relevant: sparse.csr_array, k: int) -> PerUser:
    """``sum_j g_j / k``: the share of the k places that are relevant. float64 [users]."""
    return _precision(*_judge(ranked, relevant, k), k)


def ndcg(ranked: NDArray[np.integer], relevant: sparse.csr_array, k: int) -> PerUser:
    """``sum_j g_j / log2(j + 1)`` over the same sum for the ideal list, which has min(k, R) hits. float64 [users].

    Source: Järvelin and Kekäläinen 2002, binary gains.
    """
    return _ndcg(*_judge(ranked, relevant, k), k)


def map(ranked: NDArray[np.integer], relevant: sparse.csr_array, k: int) -> PerUser:
    """``sum_j g_j * precision@j / R``: average precision of the first k places. float64 [users].

    It divides by R, as trec_eval's ``map_cut`` does, and not by min(k, R).
    """
    return _map(*_judge(ranked, relevant, k), k)


def mrr(ranked: NDArray[np.integer], relevant: sparse.csr_array, k: int) -> PerUser:
    """``1 / j`` of the first relevant place j <= k, or 0. float64 [users]."""
    return _mrr(*_judge(ranked, relevant, k), k)


def hit(ranked: NDArray[np.integer], relevant: sparse.csr_array, k: int) -> PerUser:
    """1 when any of the k places is relevant, else 0. float64 [users]."""
    return _hit(*_judge(ranked, relevant, k), k)


def per_user(ranked: NDArray[np.integer], relevant: sparse.csr_array, k: int) -> dict[str, PerUser]:
    """Every metric of `PER_USER` at one cut, looking the hits up once: name -> float64 [users]."""
    hits, n_relevant = _judge(ranked, relevant, k)
    return {name: formula(hits, n_relevant, k) for name, formula in _FORMULAS.items()}


def coverage(ranked: NDArray[np.integer], rankable: NDArray[np.bool_], k: int) -> float:
    """The share of the rankable items (bool [n_items]) that appear in at least one list."""
    shown = exposure(ranked, rankable.size, k) > 0
    return _ratio(np.count_nonzero(shown & rankable), np.count_nonzero(rankable))


def novelty(ranked: NDArray[np.integer], item_users: NDArray[np.integer], n_users: int, k: int) -> float:
    """Mean of ``-log2(item_users[i] / n_users)`` over all places of all lists, in bits; 0.0 when all lists are empty.

    ``item_users`` int [n_items] counts the users who touched each item in training, ``n_users`` is the number of users.
    An item nobody touched counts as touched by one user, so that the figure stays finite: at most log2(n_users).
    Source: Zhou et al. 2010, mean self-information.
    """
    times = exposure(ranked, item_users.size, k)
    bits = math.log2(max(n_users, 1)) - np.log2(np.maximum(item_users, 1))
    return _ratio(times @ bits, times.sum())


def gini(ranked: NDArray[np.integer], rankable: NDArray[np.bool_], k: int) -> float:
    """Gini coefficient of how often each rankable item is shown: 0 when all equally, (n - 1) / n when always the same.

    ``sum_i (2 i - n - 1) x_i / (n sum_i x_i)`` over the n exposures in ascending order; 0.0 when nothing is shown.
    """
    x = np.sort(exposure(ranked, rankable.size, k)[rankable])
    n = x.size
    return _ratio((2 * np.arange(1, n + 1) - n - 1) @ x, n * x.sum())


def exposure(ranked: NDArray[np.integer], n_items: int, k: int) -> NDArray[np.int64]:
    """How often each item stands in the first k places of a list. int64 [n_items]."""
    top = _cut(ranked, n_items, k)
    return np.bincount(top[top >= 0], minlength=n_items)


def rmse(predicted: NDArray[np.floating], observed: NDArray[np.floating]) -> float:
    """``sqrt(mean (predicted - observed)^2)`` over n >= 1 ratings, summed in float64. Both arrays are [n]."""
    return math.sqrt(np.mean(_errors(predicted, observed) ** 2))


def mae(predicted: NDArray[np.floating], observed: NDArray[np.floating]) -> float:
    """``mean |predicted - observed|`` over n >= 1 ratings, summed in float64. Both arrays are [n]."""
    return float(np.mean(np.abs(_errors(predicted, observed))))


def bootstrap_means(values: NDArray[np.floating], seed: int = 0, n: int = 1000) -> NDArray[np.float64]:
    """Means over users, drawn again with replacement. float64 [users, m] in, float64 [n, m] out.

    The m columns share their draws, and the same seed with the same number of users gives the same draws: differences
    between columns are paired.
    """
    users = values.shape[0]
    if values.ndim != 2 or users == 0:
        raise InvalidInput(f"values have shape {values.shape}; a bootstrap needs [users, m] with at least one user")
    if n < 1:
        raise InvalidInput(f"n is {n}; the number of bootstrap draws must be at least 1")
    if not np.isfinite(values).all():
        raise InvalidInput("values hold NaN or infinity; leave out the users for whom the metric is not defined")
    rng = np.random.default_rng(seed)
    block = max(1, _DRAWS_AT_ONCE // users)
    means = np.empty((n, values.shape[1]))
    for start in range(0, n, block):
        size = min(block, n - start)
        drawn = rng.integers(users, size=(size, users))
        drawn += users * np.arange(size)[:, None]
        # How often each user was drawn: a small matrix product then replaces a gather of every draw.
        times = np.bincount(drawn.ravel(), minlength=size * users).reshape(size, users)
        means[start : start + size] = times @ values / users
    return means


def bootstrap_interval(
    values: NDArray[np.floating], seed: int = 0, n: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of the mean over users. ``values``: float64 [users].

    Source: Efron and Tibshirani 1993, chapter 13.
    """
    if values.ndim != 1:
        raise InvalidInput(f"values have shape {values.shape}; give one value per user, [users]")
    low, high = interval_of_means(bootstrap_means(values[:, None], seed, n), level)
    return float(low[0]), float(high[0])


def interval_of_means(means: NDArray[np.float64], level: float = 0.95) -> tuple[PerUser, PerUser]:
    """The middle ``level`` of bootstrap means [n, m]: (low, high), each float64 [m]."""
    if not 0 < level < 1:
        raise InvalidInput(f"level is {level}; it must lie between 0 and 1, for example 0.95")
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def paired_bootstrap(
    first: NDArray[np.floating], second: NDArray[np.floating], seed: int = 0, n: int = 1000, level: float = 0.95
) -> tuple[float, float, float]:
    """Two systems on the same users: (mean of first - second, low, high). Both are float64 [users].

    Place j of both arrays is the same user. An interval that leaves out 0 says that the systems differ on such users.
    """
    if first.shape != second.shape:
        raise InvalidInput(
            f"the systems have values of shapes {first.shape} and {second.shape}; "
            "a paired comparison needs the same users in the same order"
        )
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    low, high = bootstrap_interval(difference, seed, n, level)
    return float(difference.mean()), low, high


def check_k(k: int) -> int:
    """k, or InvalidInput when it is not a whole number of at least 1."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise InvalidInput(f"k is {k!r}; the length of a list must be a whole number of at least 1")
    return int(k)


def _recall(hits: Hits, n_relevant: NDArray[np.int64], k: int) -> PerUser:
    return hits.sum(axis=1) / np.maximum(n_relevant, 1)


def _precision(hits: Hits, n_relevant: NDArray[np.int64], k: int) -> PerUser:
    return hits.sum(axis=1) / k


def _ndcg(hits: Hits, n_relevant: NDArray[np.int64], k: int) -> PerUser:
    # At most k places, and no more than some user can fill: k may be far larger than any list.
    places = max(hits.shape[1], min(k, int(n_relevant.max(initial=0))), 1)
    gains = 1 / np.log2(np.arange(places) + 2)
    ideal = np.cumsum(gains)[np.clip(n_relevant, 1, places) - 1]
    return hits @ gains[: hits.shape[1]] / ideal


def _map(hits: Hits, n_relevant: NDArray[np.int64], k: int) -> PerUser:
    precision_at = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return (hits * precision_at).sum(axis=1) / np.maximum(n_relevant, 1)


def _mrr(hits: Hits, n_relevant: NDArray[np.int64], k: int) -> PerUser:
    return hits.any(axis=1) / (hits.argmax(axis=1) + 1)


def _hit(hits: Hits, n_relevant: NDArray[np.int64], k: int) -> PerUser:
    return (hits.sum(axis=1) > 0).astype(np.float64)


_FORMULAS: dict[str, Callable[[Hits, NDArray[np.int64], int], PerUser]] = {
    "recall": _recall,
    "precision": _precision,
    "ndcg": _ndcg,
    "map": _map,
    "mrr": _mrr,
    "hit": _hit,
}
PER_USER = tuple(_FORMULAS)
"""Names of the metrics that have one value per user, and so an interval."""

PER_LIST = ("coverage", "novelty", "gini")
"""Names of the metrics of all lists together."""


def _judge(ranked: NDArray[np.integer], relevant: sparse.csr_array, k: int) -> tuple[Hits, NDArray[np.int64]]:
    """hits bool [users, min(k, width)] and n_relevant int64 [users]."""
    if not sparse.issparse(relevant) or relevant.ndim != 2:
        raise InvalidInput(f"relevant is a {type(relevant).__name__}; give a scipy sparse array [users, n_items]")
    matrix: Any = sparse.csr_array(relevant)  # no copy of a csr_array
    if ranked.ndim != 2 or ranked.shape[0] != matrix.shape[0]:
        raise InvalidInput(
            f"ranked has shape {ranked.shape} and relevant {relevant.shape}; both need one row per user, in one order"
        )
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    users, n_items = matrix.shape
    top = _cut(ranked, n_items, k)
    n_relevant = np.diff(matrix.indptr).astype(np.int64)
    # One sorted key per relevant pair; a place is a hit when its own key is among them.
    first_key = np.arange(users, dtype=np.int64) * n_items
    keys = np.append(np.repeat(first_key, n_relevant) + matrix.indices, -1)
    wanted = first_key[:, None] + top
    found = keys[np.searchsorted(keys[:-1], wanted)]
    return (found == wanted) & (top >= 0), n_relevant


def _cut(ranked: NDArray[np.integer], n_items: int, k: int) -> NDArray[np.integer]:
    """The first k columns, after checking that they hold rows of items, each once per list."""
    check_k(k)
    if ranked.ndim != 2 or ranked.shape[1] == 0 or not np.issubdtype(ranked.dtype, np.integer):
        raise InvalidInput(f"ranked is {ranked.dtype}{list(ranked.shape)}; give item rows as integers, [users, width]")
    top = ranked[:, :k]
    if top.size and (top.min() < -1 or top.max() >= n_items):
        raise InvalidInput(
            f"ranked holds rows from {top.min()} to {top.max()}; rows go from 0 to {n_items - 1}, or -1."
        )
    ordered = np.sort(top, axis=1)
    repeats = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
    if repeats.any():
        raise InvalidInput(f"the list in row {int(repeats.argmax())} holds an item twice; an item may be ranked once")
    return top


def _errors(predicted: NDArray[np.floating], observed: NDArray[np.floating]) -> PerUser:
    found, wanted = np.asarray(predicted, np.float64), np.asarray(observed, np.float64)
    if found.shape != wanted.shape or found.ndim != 1 or found.size == 0:
        raise InvalidInput(
            f"predicted has shape {found.shape} and observed {wanted.shape}; give one of each per rating, at least one"
        )
    if not (np.isfinite(found).all() and np.isfinite(wanted).all()):
        raise InvalidInput("ratings hold NaN or infinity; leave those pairs out")
    return found - wanted


def _ratio(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else 0.0
