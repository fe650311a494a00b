"""How firmly a build holds newcomers to the mean user: learned of users who were left out of a fit altogether."""

from dataclasses import replace
from functools import partial

import numpy as np
from scipy import sparse

from geo_mf.builder.config import BuildConfig
from geo_mf.builder.trial import Described, Trial, with_cold_factors
from geo_mf.folding import Folding
from geo_mf.geometry import blend, trend
from geo_mf.geometry.blend import Blend
from geo_mf.geometry.predictor import Shape

RIDGES = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Times the ridge of the fit."""
CLICKS = (1, 3, 10)
BEST = 10
"""Length of the lists that are judged, by NDCG."""
SHARE, STRANGERS, FEWEST = 0.1, 150, 20
"""Share of the users that are left out, how many at most, and how few are too few to tell."""


def learn(
    matrix: sparse.csr_array, datetimes: np.ndarray | None, items: Described, config: BuildConfig, learned: Blend
) -> Blend:
    """The blend with the firmest of RIDGES that ranks as well as the best one, within a standard error.

    Ranked is what strangers liked beside their first clicks, among all items and by all of the blend. A doubt is
    settled in favour of the mean user, by the rule of one standard error (see `learning`): few clicks mislead.

    Args:
        matrix: float32 CSR [users, items].
        datetimes: int64 [nnz], nanoseconds, of the stored entries; None when they are not known.
        items: what is known of the items otherwise.
        config: settings of the fit, and the seed.
        learned: the rest of the blend.
    """
    able = np.flatnonzero(np.diff(matrix.indptr) >= 2)
    size = min(STRANGERS, int(SHARE * len(able)))
    if size < FEWEST:
        return learned
    random = np.random.default_rng(config.seed)
    strangers = random.choice(able, size, replace=False)
    kept = ~np.isin(np.repeat(np.arange(len(matrix.indptr) - 1), np.diff(matrix.indptr)), strangers)
    # Half of the epochs and the linear map come near enough to tell how far a newcomer is to be trusted; three epochs
    # of a long factor do not (CiteULike, 1024 factors: 2 with all 12 and with 6, 3 with 3).
    shorter = config.model_copy(update={"iterations": -(-config.iterations // 2)})
    trial = Trial.of(matrix, kept, items, shorter, Shape(0.0, config.prior_regularization))
    times = None if datetimes is None else datetimes[kept]
    touched = trend.touches(trial.train.indices, times, len(items), learned.half_life)
    crowd = trend.column(touched, items.features, config.prior_regularization)
    known, model, scale = np.flatnonzero(trial.lengths), trial.model, learned.cold_scale
    factors = with_cold_factors(model.item_factors, trial.train, items.features, trial.prior, scale)
    folding = Folding(trial.train[known], model.user_factors[known], factors, model.objective, 1.0)
    judged = partial(_judged, trial, folding, learned, crowd)
    histories = (random.permutation(matrix[[user]].indices) for user in strangers.tolist())
    found = np.asarray(
        [np.mean([judged(one[:n], one[n:]) for n in CLICKS if 2 * n <= len(one)], axis=0) for one in histories]
    )
    lead = found[:, [int(np.argmax(found.mean(axis=0)))]] - found
    as_good = np.flatnonzero(lead.mean(axis=0) <= lead.std(axis=0) / np.sqrt(len(lead)))
    return replace(learned, newcomer=RIDGES[int(as_good[-1])])


def _judged(
    trial: Trial, folding: Folding, learned: Blend, crowd: np.ndarray, clicks: np.ndarray, liked: np.ndarray
) -> np.ndarray:
    """NDCG float64 [ridges] of the lists after these clicks, where `liked` is what they ought to hold."""
    lam, weights = folding.objective.regularization, learned.weights(len(clicks), typed=False)
    factors, c = folding.item_factors[clicks], folding.balance.of_user(clicks, np.ones(len(clicks), np.float32))
    solvers = (replace(folding.fold_in, objective=replace(folding.objective, regularization=r * lam)) for r in RIDGES)
    behaviour = np.stack([one.solve(factors, c, folding.mean_user) for one in solvers])
    embeddings = trial.items.embeddings
    text = trial.scale * (embeddings @ blend.unit(embeddings[clicks].sum(axis=0)))
    scores = behaviour @ folding.item_factors.T + learned.trend * folding.spread(behaviour)[:, None] * crowd
    scores = weights.behaviour * scores + weights.text * text
    scores[:, clicks] = -np.inf
    size = min(BEST, scores.shape[1])
    best = np.argpartition(-scores, size - 1, axis=1)[:, :size]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    gain = 1 / np.log2(2 + np.arange(size))
    return np.isin(np.take_along_axis(best, order, axis=1), liked) @ gain / gain[: len(liked)].sum()
