"""What a build learns on interactions held out: how much text and the trend count, how high cold items stand."""

from dataclasses import replace

import numpy as np
from scipy import sparse

from geo_mf.builder import trending
from geo_mf.builder.config import BuildConfig
from geo_mf.builder.trial import HeldOut, Trial
from geo_mf.geometry import blend, trend
from geo_mf.geometry.blend import Blend


def learn_blend(
    matrix: sparse.csr_array, embeddings: np.ndarray, config: BuildConfig, datetimes: np.ndarray | None = None
) -> Blend:
    """Learn the blend's defaults from fits without some of the interactions.

    A tenth of the items is played cold: all their interactions are held out. Of each user of a sample, one more
    interaction with a warm item is held out. The text's weight, by length of history, is the one that ranks the warm
    items best among warm items. The scale of cold items is the one that ranks both best in one list of all items, the
    cold ones counting as much as `config.cold_share` expects of them. What the trend counts is learned at moments of
    the past, see `trending`.

    Args:
        matrix: float32 CSR [users, items], the training weights.
        embeddings: float32 [items, dim].
        config: settings of the fit, and the seed.
        datetimes: int64 [nnz], nanoseconds, of the stored entries; None when they are not known.

    Returns:
        The blend, with a scale of 1: it depends on the final fit.
    """
    out = HeldOut.of(matrix, embeddings, config.seed) if embeddings.any() else None
    trial = None if out is None else Trial.of(matrix, out.kept, embeddings, config)
    learned = Blend(1.0) if out is None or trial is None else Blend(1.0, _text_weights(trial, out))
    if datetimes is not None:
        learned = trending.learn(matrix, datetimes, embeddings, config, learned)
    if out is None or trial is None or not (out.cold >= 0).any():
        return learned
    times = None if datetimes is None else datetimes[out.kept]
    touched = trend.touches(trial.train.indices, times, len(embeddings), learned.half_life)
    crowd = trend.column(touched, embeddings, config.prior_regularization)
    return replace(learned, cold_scale=_cold_scale(trial, out, learned, crowd, config.cold_share))


def _text_weights(trial: Trial, out: HeldOut) -> tuple[tuple[int, blend.Weights], ...]:
    """`Blend.by_history`: the weights that rank the warm targets best among warm items."""
    found = np.zeros((len(blend.TEXT_WEIGHTS), len(out.users)))
    for chunk, behaviour, text, seen in trial.chunks(out.users):
        hidden = seen | trial.untouched
        for j, b in enumerate(blend.TEXT_WEIGHTS):
            found[j, chunk] = blend.gains(behaviour + np.float32(b) * text, out.warm[chunk], hidden)
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
        for j, scale in enumerate(blend.COLD_SCALES):
            scores = behaviour * np.where(trial.untouched, np.float32(scale), np.float32(1))
            scores += weights[chunk, None] * text + crowd
            cold = met[chunk] / met.mean() * blend.gains(scores, out.cold[chunk], seen)
            found[chunk, j] = (1 - share) * blend.gains(scores, out.warm[chunk], seen) + share * cold
    lead = found[:, [int(np.argmax(found.mean(axis=0)))]] - found
    as_good = np.flatnonzero(lead.mean(axis=0) <= lead.std(axis=0) / np.sqrt(len(met)))
    return blend.COLD_SCALES[int(as_good[-1])]
