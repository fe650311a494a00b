"""What a build learns on interactions held out of training: how much text counts, and how high a cold item stands."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import sparse

from geo_mf.builder.config import BuildConfig
from geo_mf.factorize.estimators import IALS
from geo_mf.geometry import blend
from geo_mf.geometry.blend import Blend

VALIDATION_USERS = 10_000
PLAYED_COLD = 0.1
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
    trial = _Trial.of(matrix, embeddings, config)
    if trial is None:
        return Blend(1.0)
    learned = Blend(1.0, _text_weights(trial))
    if not (trial.cold_target >= 0).any():
        return learned
    return replace(learned, cold_scale=_cold_scale(trial, learned, config.cold_share))


@dataclass(frozen=True)
class _Trial:
    """A model that has not seen some interactions, and which they are.

    Attributes:
        model: fitted to `train`.
        train: CSR [users, items], what it saw.
        embeddings: float32 [items, dim].
        scale: of the text scores.
        users: int [n], rows of the users who are asked about.
        warm_target: int [n], an item held out of each history that others touched in training.
        cold_target: int [n], an item held out of everybody's history, -1 where this user has none.
    """

    model: IALS
    train: sparse.csr_array
    embeddings: np.ndarray
    scale: np.float32
    users: np.ndarray
    warm_target: np.ndarray
    cold_target: np.ndarray

    @classmethod
    def of(cls, matrix: sparse.csr_array, embeddings: np.ndarray, config: BuildConfig) -> "_Trial | None":
        """Hold out and fit; None when nobody's history is long enough."""
        random = np.random.default_rng(config.seed)
        touched = np.bincount(matrix.indices, minlength=len(embeddings)) > 0
        playable = np.flatnonzero(touched & embeddings.any(axis=1))
        cold = np.zeros(len(embeddings), bool)
        cold[random.choice(playable, int(PLAYED_COLD * len(playable)), replace=False)] = True
        train = _without(matrix, cold[matrix.indices])
        lengths = np.diff(train.indptr)
        able = np.flatnonzero(lengths >= 2)
        if not len(able):
            return None
        users = np.sort(random.choice(able, min(VALIDATION_USERS, len(able)), replace=False))
        entry = train.indptr[users] + random.integers(0, lengths[users])
        warm_target = train.indices[entry]
        train = _without(train, np.isin(np.arange(train.nnz), entry))
        model = ials(config).fit(train, embeddings)
        scale = np.float32(text_scale(model, train, embeddings, config.seed))
        return cls(model, train, embeddings, scale, users, warm_target, _one_of_each(matrix[users], cold, random))

    @cached_property
    def untouched(self) -> np.ndarray:
        """bool [items], what the model saw nobody touch."""
        return np.bincount(self.train.indices, minlength=len(self.embeddings)) == 0

    @cached_property
    def lengths(self) -> np.ndarray:
        """int [n], lengths of the histories that remained."""
        return np.diff(self.train.indptr)[self.users]

    def chunks(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
        """Some users at a time: which, and their behaviour scores, text scores and what they saw, [users, items]."""
        factors = with_cold_factors(self.model, self.train, self.embeddings, 1.0)
        step = max(1, CHUNK_SCORES // len(factors))
        for start in range(0, len(self.users), step):
            chunk = slice(start, start + step)
            histories = self.train[self.users[chunk]]
            text = self.scale * (blend.profiles(histories, self.embeddings) @ self.embeddings.T)
            yield chunk, self.model.user_factors[self.users[chunk]] @ factors.T, text, histories.toarray() > 0


def _text_weights(trial: _Trial) -> tuple[tuple[int, blend.Weights], ...]:
    """`Blend.by_history`: the weights that rank the warm targets best among warm items."""
    found = np.zeros((len(blend.TEXT_WEIGHTS), len(trial.users)))
    for chunk, behaviour, text, seen in trial.chunks():
        hidden = seen | trial.untouched
        for j, b in enumerate(blend.TEXT_WEIGHTS):
            found[j, chunk] = blend.gains(behaviour + np.float32(b) * text, trial.warm_target[chunk], hidden)
    return blend.choose(found, trial.lengths)


def _cold_scale(trial: _Trial, learned: Blend, share: float) -> float:
    """The one of COLD_SCALES that ranks warm and cold targets best in one list, the cold ones weighing `share`."""
    weights = np.asarray([learned.weights(int(n), typed=False).text for n in trial.lengths], np.float32)
    met = trial.cold_target >= 0
    total = np.zeros(len(blend.COLD_SCALES))
    for chunk, behaviour, text, seen in trial.chunks():
        for j, scale in enumerate(blend.COLD_SCALES):
            scores = behaviour * np.where(trial.untouched, np.float32(scale), np.float32(1))
            scores += weights[chunk, None] * text
            warm = blend.gains(scores, trial.warm_target[chunk], seen).sum() / len(met)
            cold = blend.gains(scores, trial.cold_target[chunk], seen)[met[chunk]].sum() / np.count_nonzero(met)
            total[j] += (1 - share) * warm + share * cold
    return blend.COLD_SCALES[int(np.argmax(total))]


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
