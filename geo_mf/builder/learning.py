"""What a build learns on interactions held out: how text predicts factors, how much text and the trend count, how high
cold items stand, how firmly newcomers are held."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from geo_mf.builder import newcomers, trending
from geo_mf.builder.config import BuildConfig
from geo_mf.builder.trial import CHUNK_SCORES, Described, HeldOut, Trial, predictors
from geo_mf.geometry import blend, trend
from geo_mf.geometry.blend import Blend
from geo_mf.geometry.predictor import Predictor, Shape

CURVED = 0.5
"""gamma of the maps that are not linear."""
ALPHAS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
LEAST_COLD, MOST_COLD, UNKNOWN_SHARE = 0.05, 0.5, 0.5
"""Of the interactions to come, what cold items are thought to get: bounds of what the past says, and without a past."""


@dataclass(frozen=True)
class Learned:
    """What a build takes from the interactions held out.

    Attributes:
        blend: the query weights and scales.
        shape: of the map from features to the factors of cold items.
    """

    blend: Blend
    shape: Shape


def learn(
    matrix: sparse.csr_array, items: Described, config: BuildConfig, datetimes: np.ndarray | None = None
) -> Learned:
    """Learn the blend's defaults from fits without some of the interactions.

    A tenth of the items is played cold: all their interactions are held out. Of each user of a sample, one more
    interaction with a warm item is held out. The map from features to factors is the one that ranks the cold items best
    among cold items. The text's weight, by length of history, is the one that ranks the warm items best among warm
    items. The scale of cold items is the one that ranks both best in one list of all items, the cold ones counting as
    much as `expected_cold_share`. What the trend counts is learned at moments of the past, see `trending`. Some users
    are left out altogether, and asked as newcomers, see `newcomers`.

    Args:
        matrix: float32 CSR [users, items], the training weights.
        items: what is known of the items otherwise.
        config: settings of the fit, and the seed.
        datetimes: int64 [nnz], nanoseconds, of the stored entries; None when they are not known.

    Returns:
        The blend, with a scale of 1: it depends on the final fit. And the shape of the map.
    """
    shape = Shape(0.0, config.prior_regularization)
    out = HeldOut.of(matrix, items.features, config.seed) if items.features.any() else None
    trial = None if out is None else Trial.of(matrix, out.kept, items, config, shape)
    learned = Blend(1.0)
    if out is not None and trial is not None:
        shape, prior = _shape(trial, out, config)
        trial = replace(trial, prior=prior)
        learned = replace(learned, by_history=_text_weights(trial, out))
    if datetimes is not None:
        learned = trending.learn(matrix, datetimes, items, config, learned)
    if out is not None and trial is not None and (out.cold >= 0).any():
        times = None if datetimes is None else datetimes[out.kept]
        touched = trend.touches(trial.train.indices, times, len(items), learned.half_life)
        crowd = trend.column(touched, items.features, config.prior_regularization)
        share = expected_cold_share(matrix, config, datetimes)
        learned = replace(learned, cold_scale=_cold_scale(trial, out, learned, crowd, share))
    strangers = newcomers.chosen(matrix, config.seed)
    if len(strangers):
        met = None if trial is None or out is None else (trial, out.kept)
        learned = newcomers.learn(matrix, datetimes, strangers, items, config, learned, met)
    return Learned(learned, shape)


def expected_cold_share(matrix: sparse.csr_array, config: BuildConfig, datetimes: np.ndarray | None) -> float:
    """The share of the interactions to come that is expected to fall to items nobody has touched yet.

    `config.cold_share`, if it is given. With datetimes, what fell to new items after moments of the past, within
    bounds. Without, nothing is known of it, and both kinds of items count alike.
    """
    if config.cold_share is not None:
        return config.cold_share
    share = None if datetimes is None else trending.cold_share(matrix, datetimes)
    return UNKNOWN_SHARE if share is None else float(np.clip(share, LEAST_COLD, MOST_COLD))


def _shape(trial: Trial, out: HeldOut, config: BuildConfig) -> tuple[Shape, Predictor]:
    """The map that ranks held-out cold items best among cold items; the linear one unless another is clearly better.

    Clearly: by more than a standard error of the difference.
    """
    linear = Shape(0.0, config.prior_regularization), trial.prior
    met = np.flatnonzero(out.cold >= 0)
    if not len(met):
        return linear
    features = trial.items.features
    pool = np.flatnonzero(trial.untouched & features.any(axis=1))
    maps = predictors(trial.model, trial.train, features, CURVED, ALPHAS, config.seed)
    if not maps:
        return linear
    tried = [linear, *((Shape(CURVED, alpha), prior) for alpha, prior in zip(ALPHAS, maps, strict=True))]
    users, targets = trial.model.user_factors[out.users[met]], np.searchsorted(pool, out.cold[met])
    step = max(1, CHUNK_SCORES // len(pool))
    found = np.zeros((len(tried), len(met)))
    for j, (_, prior) in enumerate(tried):
        factors = prior(features[pool])
        for start in range(0, len(met), step):
            chunk = slice(start, start + step)
            scores = users[chunk] @ factors.T
            found[j, chunk] = blend.gains(scores, targets[chunk], np.zeros(scores.shape, bool))
    lead = found - found[0]
    best = int(np.argmax(lead.mean(axis=1)))
    return tried[best] if lead[best].mean() > lead[best].std() / np.sqrt(len(met)) else linear


def _text_weights(trial: Trial, out: HeldOut) -> tuple[tuple[int, blend.Weights], ...]:
    """`Blend.by_history`: the weights that rank the warm targets best among warm items."""
    found = np.zeros((len(blend.TEXT_WEIGHTS), len(out.users)))
    for chunk, behaviour, text, seen in trial.chunks(out.users):
        hidden, scores = seen | trial.untouched, np.empty_like(text)
        for j, b in enumerate(blend.TEXT_WEIGHTS):
            np.multiply(text, np.float32(b), out=scores)
            scores += behaviour
            found[j, chunk] = blend.gains(scores, out.warm[chunk], hidden)
    return blend.choose(found, trial.lengths[out.users])


def _cold_scale(trial: Trial, out: HeldOut, learned: Blend, column: np.ndarray, share: float) -> float:
    """The largest of COLD_SCALES that ranks as well as the best one, within a standard error.

    Warm and cold targets are ranked in one list, the cold ones weighing `share`. A doubt is settled in favour of new
    items: what is never shown is never learned (the one-standard-error rule of Breiman et al., Classification and
    Regression Trees, 1984, section 3.4.3).
    """
    weights = trial.text_weights(out.users, learned)
    met = out.cold >= 0
    found = np.zeros((len(met), len(blend.COLD_SCALES)))
    for chunk, behaviour, text, seen in trial.chunks(out.users):
        crowd = np.float32(learned.trend) * behaviour.std(axis=1, keepdims=True) * column
        rest, scores = weights[chunk, None] * text + crowd, np.empty_like(behaviour)
        for j, scale in enumerate(blend.COLD_SCALES):
            np.multiply(behaviour, np.where(trial.untouched, np.float32(scale), np.float32(1)), out=scores)
            scores += rest
            cold = met[chunk] / met.mean() * blend.gains(scores, out.cold[chunk], seen)
            found[chunk, j] = (1 - share) * blend.gains(scores, out.warm[chunk], seen) + share * cold
    lead = found[:, [int(np.argmax(found.mean(axis=0)))]] - found
    as_good = np.flatnonzero(lead.mean(axis=0) <= lead.std(axis=0) / np.sqrt(len(met)))
    return blend.COLD_SCALES[int(as_good[-1])]
