"""What a build learns at moments of the past: how fast a crowd forgets, and how much it counts for one of its members.

At each moment, what came before is training, and what came in the next stretch is ranked. Interactions held out at
random would not do: they are as old as those that remain, and a trend shows only in what comes after.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from geo_mf.builder.config import BuildConfig
from geo_mf.builder.trial import CHUNK_SCORES, VALIDATION_USERS, Described, Trial, only
from geo_mf.geometry import blend, trend
from geo_mf.geometry.blend import Blend
from geo_mf.geometry.predictor import Shape

MOMENTS = (0.6, 0.8)
"""Shares of the interactions that came before."""
HORIZON = 0.2
"""Share that is ranked."""
TARGETS_EACH = 5
"""Interactions of one user that are ranked, at most: a heavy user is one user."""
FEWEST = 20
"""Users; of fewer at all moments together, nothing is learned."""


def learn(
    matrix: sparse.csr_array, datetimes: np.ndarray, items: Described, config: BuildConfig, learned: Blend
) -> Blend:
    """`learned` with a half-life and the weight of the trend.

    The half-life is the one whose trend alone ranks best for everybody, the strangers among them. The weight is the
    one that ranks best for those who have a history, beside their behaviour and text scores.

    Args:
        matrix: float32 CSR [users, items].
        datetimes: int64 [nnz], nanoseconds, of the stored entries.
        items: what is known of the items otherwise.
        config: settings of the fits, and the seed.
        learned: gives the text's weights.
    """
    moments = [moment for share in MOMENTS if (moment := _Moment.of(matrix, datetimes, share, config.seed))]
    if sum(len(np.unique(moment.users)) for moment in moments) < FEWEST:
        return learned
    size = len(items)
    found = np.zeros(len(trend.HALF_LIVES))
    for moment in moments:
        touched, times = matrix.indices[moment.before], datetimes[moment.before]
        lists = [trend.touches(touched, times, size, half_life) for half_life in trend.HALF_LIVES]
        for chunk, hidden in moment.chunks(matrix, max(1, CHUNK_SCORES // size)):
            for j, crowd in enumerate(lists):
                gains = blend.gains(np.broadcast_to(crowd, hidden.shape), moment.targets[chunk], hidden)
                found[j] += moment.weights[chunk] @ gains
    learned = replace(learned, half_life=trend.HALF_LIVES[int(np.argmax(found))])
    return replace(learned, trend=_weight(matrix, datetimes, items, config, learned, moments))


def cold_share(matrix: sparse.csr_array, datetimes: np.ndarray) -> float | None:
    """The share of the interactions after each of MOMENTS that fell to items nobody had touched before it.

    None when nothing comes after any of them.
    """
    found = []
    for share in MOMENTS:
        before, after = _divided(datetimes, share)
        if after.any():
            found.append(np.mean(~np.isin(matrix.indices[after], matrix.indices[before])))
    return float(np.mean(found)) if found else None


def _divided(datetimes: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """bool [nnz], twice: the `share` of the interactions that came first, and those of the stretch after it."""
    times = np.sort(datetimes)
    start, end = times[int(share * len(times))], times[min(int((share + HORIZON) * len(times)), len(times) - 1)]
    return datetimes <= start, (datetimes > start) & (datetimes <= end)


def _weight(
    matrix: sparse.csr_array,
    datetimes: np.ndarray,
    items: Described,
    config: BuildConfig,
    learned: Blend,
    moments: "list[_Moment]",
) -> float:
    """The one of TREND_WEIGHTS that ranks best for users with a history."""
    total, users = np.zeros(len(trend.TREND_WEIGHTS)), 0
    for moment in moments:
        met = np.flatnonzero(np.diff(only(matrix, moment.before).indptr)[moment.users])
        if not len(met):
            continue
        users += len(np.unique(moment.users[met]))
        asked, targets = moment.users[met], moment.targets[met]
        trial = Trial.of(matrix, moment.before, items, config, Shape(0.0, config.prior_regularization))
        touched = trend.touches(trial.train.indices, datetimes[moment.before], len(items), learned.half_life)
        crowd = trend.column(touched, items.features, config.prior_regularization)
        text_weights = trial.text_weights(asked, learned)[:, None]
        for chunk, behaviour, text, seen in trial.chunks(asked):
            scores = behaviour + text_weights[chunk] * text
            spread = behaviour.std(axis=1, keepdims=True)
            for j, weight in enumerate(trend.TREND_WEIGHTS):
                found = blend.gains(scores + np.float32(weight) * spread * crowd, targets[chunk], seen)
                total[j] += moment.weights[met[chunk]] @ found
    return trend.TREND_WEIGHTS[int(np.argmax(total))] if users >= FEWEST else 0.0


@dataclass(frozen=True)
class _Moment:
    """A moment of the past: what came before it, and some of what came after.

    Attributes:
        before: bool [nnz], the stored entries that came before.
        users: int [n], rows of users, each as often as it has targets.
        targets: int [n], the items they touched next.
        weights: float64 [n], 1 / the targets of the same user.
    """

    before: np.ndarray
    users: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, matrix: sparse.csr_array, datetimes: np.ndarray, share: float, seed: int) -> "_Moment | None":
        """The moment before which `share` of the interactions came; None if nothing lies on one side of it."""
        before, stretch = _divided(datetimes, share)
        after = np.flatnonzero(stretch)
        if not before.any() or not len(after):
            return None
        random = np.random.default_rng(seed)
        after = random.permutation(after)
        users = np.repeat(np.arange(len(matrix.indptr) - 1), np.diff(matrix.indptr))[after]
        order = np.argsort(users, kind="stable")
        _, first, counts = np.unique(users[order], return_index=True, return_counts=True)
        place = np.arange(len(order)) - np.repeat(first, counts)
        some = random.permutation(len(first))[:VALIDATION_USERS]
        chosen = order[(place < TARGETS_EACH) & np.isin(np.repeat(np.arange(len(first)), counts), some)]
        asked = users[chosen]
        weights = 1 / np.bincount(asked)[asked]
        return cls(before, asked, matrix.indices[after[chosen]], weights)

    def chunks(self, matrix: sparse.csr_array, step: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Some targets at a time: which, and what their users had seen before, bool [n, items]."""
        train = only(matrix, self.before)
        for start in range(0, len(self.users), step):
            chunk = slice(start, start + step)
            yield chunk, train[self.users[chunk]].toarray() > 0
