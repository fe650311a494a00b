"""What a build learns on interactions held out of training: how much text counts, and how high a cold item stands."""

from dataclasses import replace

import numpy as np
from scipy import sparse

from geo_mf.builder.config import BuildConfig
from geo_mf.factorize.estimators import IALS
from geo_mf.geometry import blend
from geo_mf.geometry.blend import Blend

VALIDATION_USERS = 10_000
COLD_SHARE = 0.1
"""Share of the items that are played cold: all their interactions are held out."""
CHUNK_SCORES = 2**23
"""Scores held at once."""


def ials(config: BuildConfig) -> IALS:
    """The estimator that a configuration describes."""
    return IALS(
        factors=config.factors,
        regularization=config.regularization,
        unobserved_weight=config.unobserved_weight,
        iterations=config.iterations,
        nu=config.nu,
        solver=config.solver,
        cg_steps=config.cg_steps,
        prior_regularization=config.prior_regularization,
        num_threads=config.threads,
        random_state=config.seed,
    )


def with_cold_factors(model: IALS, matrix: sparse.csr_array, embeddings: np.ndarray, scale: float) -> np.ndarray:
    """float32 [items, K]: the model's item factors; where nobody touched the item, its prior times `scale`."""
    cold = np.bincount(matrix.indices, minlength=len(embeddings)) == 0
    factors = model.item_factors.copy()
    if model.prior_coefficients is not None and cold.any():
        factors[cold] = np.float32(scale) * model.item_prior(embeddings[cold])
    return factors


def text_scale(model: IALS, matrix: sparse.csr_array, embeddings: np.ndarray, seed: int) -> float:
    """`Blend.scale` of a fitted model, from a sample of its users."""
    users = np.sort(np.random.default_rng(seed).permutation(len(model.user_factors))[: 4 * blend.SAMPLED_USERS])
    sampled = blend.profiles(matrix[users], embeddings)
    return blend.text_scale(model.user_factors[users], model.item_factors, sampled, embeddings, seed)


def learn_blend(matrix: sparse.csr_array, embeddings: np.ndarray, config: BuildConfig) -> Blend:
    """Learn the blend's defaults from one fit without some of the interactions.

    A tenth of the items is played cold: all their interactions are held out. Of each user of a sample, one more
    interaction with a warm item is held out. The text's weight, by length of history, is the one that ranks the warm
    items best among warm items. The scale of cold items is the one that ranks both best in one list of all items, the
    cold ones counting as much as `config.cold_share` expects of them.

    Args:
        matrix: float32 CSR [users, items], the training weights.
        embeddings: float32 [items, dim].
        config: settings of the fit, and the seed.

    Returns:
        The blend, with a scale of 1 (it depends on the final fit).
    """
    random = np.random.default_rng(config.seed)
    popularity = np.bincount(matrix.indices, minlength=len(embeddings))
    playable = np.flatnonzero((popularity > 0) & embeddings.any(axis=1))
    cold = np.zeros(len(embeddings), bool)
    cold[random.choice(playable, int(COLD_SHARE * len(playable)), replace=False)] = True
    train = _without(matrix, cold[matrix.indices])
    lengths = np.diff(train.indptr)
    able = np.flatnonzero(lengths >= 2)
    if not len(able):
        return Blend(1.0)
    users = np.sort(random.choice(able, min(VALIDATION_USERS, len(able)), replace=False))
    entry = train.indptr[users] + random.integers(0, lengths[users])
    warm_target = train.indices[entry]
    train = _without(train, np.isin(np.arange(train.nnz), entry))
    model = ials(config).fit(train, embeddings)
    factors = with_cold_factors(model, train, embeddings, 1.0)
    scale = np.float32(text_scale(model, train, embeddings, config.seed))
    untouched = np.bincount(train.indices, minlength=len(embeddings)) == 0
    cold_target = _one_of_each(matrix[users], cold, random)

    met = cold_target >= 0
    step = max(1, CHUNK_SCORES // len(embeddings))
    chunks = [slice(start, start + step) for start in range(0, len(users), step)]

    def scores(chunk: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Behaviour scores, text scores and what was seen, each [users, items]."""
        histories = train[users[chunk]]
        text = scale * (blend.profiles(histories, embeddings) @ embeddings.T)
        return model.user_factors[users[chunk]] @ factors.T, text, histories.toarray() > 0

    found = np.zeros((len(blend.TEXT_WEIGHTS), len(users)))
    for chunk in chunks:
        behaviour, text, seen = scores(chunk)
        for j, b in enumerate(blend.TEXT_WEIGHTS):
            found[j, chunk] = blend.gains(behaviour + np.float32(b) * text, warm_target[chunk], seen | untouched)
    by_history = blend.choose(found, lengths[users] - 1)
    if not met.any():
        return Blend(1.0, by_history)

    learned = Blend(1.0, by_history)
    text_weights = np.asarray([learned.weights(int(n), typed=False).text for n in lengths[users] - 1], np.float32)
    share = config.cold_share
    if share is None:
        readable = embeddings.any(axis=1)
        share = max(COLD_SHARE, float(np.mean(popularity[readable] == 0)))
    both = np.zeros(len(blend.COLD_SCALES))
    for chunk in chunks:
        behaviour, text, seen = scores(chunk)
        for j, cold_scale in enumerate(blend.COLD_SCALES):
            mixed = behaviour * np.where(untouched, np.float32(cold_scale), np.float32(1))
            mixed += text_weights[chunk, None] * text
            warm = blend.gains(mixed, warm_target[chunk], seen).sum() / len(users)
            cold_gain = blend.gains(mixed, cold_target[chunk], seen)[met[chunk]].sum() / np.count_nonzero(met)
            both[j] += (1 - share) * warm + share * cold_gain
    return replace(learned, cold_scale=blend.COLD_SCALES[int(np.argmax(both))])


def _without(matrix: sparse.csr_array, entries: np.ndarray) -> sparse.csr_array:
    """The matrix without the stored entries where bool [nnz] holds."""
    kept = matrix.copy()
    kept.data[entries] = 0
    kept.eliminate_zeros()
    return kept


def _one_of_each(histories: sparse.csr_array, cold: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """int [users]: one cold item of each history, -1 where there is none."""
    users = np.repeat(np.arange(len(histories.indptr) - 1), np.diff(histories.indptr))
    order = random.permutation(np.flatnonzero(cold[histories.indices]))
    target = np.full(len(histories.indptr) - 1, -1)
    target[users[order]] = histories.indices[order]
    return target
