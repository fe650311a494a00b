"""What is being touched lately: interactions that lose half their weight every half-life, as one more column.

Taste drifts, and a factorization knows no time. The column is z_i, the standard score of log(1 + touches): it moves
with the crowd, and says nothing of the user. The same decayed counts, ranked as they are, are the list for somebody of
whom nothing is known.
"""

import numpy as np

from geo_mf.geometry.prior import RidgePrior

DAY = 86_400 * 10**9
"""Nanoseconds."""
HALF_LIVES = (7.0, 30.0, 91.0, 182.0, 365.0, 730.0, 1461.0, None)
"""Days; None never forgets: plain popularity."""
TREND_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""At 1 the crowd counts as much as what is known of the user, and never more."""


def touches(items: np.ndarray, datetimes: np.ndarray | None, size: int, half_life: float | None) -> np.ndarray:
    """How often each item was touched, the older the less.

    Args:
        items: int [n], the item of each interaction.
        datetimes: int64 [n], nanoseconds, or None.
        size: how many items there are.
        half_life: days after which an interaction counts half; None counts all alike.

    Returns:
        float32 [size]; what happened at the newest datetime counts 1. An item that nobody touched has 0, and no other.
    """
    if datetimes is None or half_life is None or not len(items):
        return np.bincount(items, minlength=size).astype(np.float32)
    age = (datetimes.max() - datetimes) / (half_life * DAY)
    counts = np.bincount(items, weights=np.exp2(-age), minlength=size).astype(np.float32)
    counts[items] = np.maximum(counts[items], np.finfo(np.float32).tiny)  # touched, however long ago
    return counts


def more_touches(
    touched: np.ndarray,
    newest: int | None,
    items: np.ndarray,
    datetimes: np.ndarray | None,
    half_life: float | None,
) -> tuple[np.ndarray, int | None]:
    """What `touches` gave, and interactions that came since.

    Args:
        touched: float32 [items].
        newest: nanoseconds, the datetime at which an interaction counted 1; None if it is not known.
        items: int [n], the item of each new interaction.
        datetimes: int64 [n], nanoseconds, or None: then each counts 1.
        half_life: as in `touches`.

    Returns:
        float32 [items] as of the newest datetime of all, and that datetime.
    """
    latest = newest if datetimes is None or not len(datetimes) else max(int(datetimes.max()), newest or 0)
    out = touched.astype(np.float64)
    weights = np.ones(len(items))
    if half_life is not None and datetimes is not None and latest is not None and newest is not None:
        out *= np.exp2(-(latest - newest) / (half_life * DAY))
        weights = np.exp2(-(latest - datetimes) / (half_life * DAY))
    out += np.bincount(items, weights, len(out))
    met = touched > 0
    met[items] = True
    out[met] = np.maximum(out[met], np.finfo(np.float32).tiny)
    return out.astype(np.float32), latest


def column(touched: np.ndarray, embeddings: np.ndarray, alpha: float) -> np.ndarray:
    """z, float32 [items]: log(1 + touches) with mean 0 and deviation 1 over touched items.

    An item without touches gets what its text says, as with factors: a new item's age is not held against it. Without
    text it stands at the mean.

    Args:
        touched: [items], what `touches` gave.
        embeddings: float32 [items, dim]; a zero row has no text.
        alpha: shrinkage of what the text says, see `RidgePrior`.
    """
    met = touched > 0
    out = np.zeros(len(touched), np.float32)
    if not met.any():
        return out
    logs = np.log1p(touched[met].astype(np.float64))
    spread = logs.std()
    if spread > 1e-9 * logs.max():
        out[met] = (logs - logs.mean()) / spread
    if not met.all() and embeddings.any():
        prior = RidgePrior.of(embeddings, met, alpha)
        out[~met] = prior.predict(prior.fit(out[:, None]))[~met, 0]
    return out
