"""A model that has not seen some interactions, and how it scores them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from geo_mf.builder.config import BuildConfig
from geo_mf.factorize.estimators import IALS
from geo_mf.geometry import blend
from geo_mf.geometry.blend import Blend
from geo_mf.geometry.prior import cold_factors

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
        activity_discount=config.activity_discount,
        popularity_discount=config.popularity_discount,
        prior_regularization=config.prior_regularization,
        num_threads=config.threads,
        random_state=config.seed,
    )


def settled(config: BuildConfig, matrix: sparse.csr_array) -> BuildConfig:
    """The configuration with numbers in place of what is left to be chosen from this matrix, float32 [users, items]."""
    model = ials(config)
    # Six digits: a search kept on disk is recognised by them, and the last bits differ from machine to machine.
    chosen = {name: float(f"{value:.6g}") for name, value in asdict(model.objective_for(matrix)).items()}
    return BuildConfig.of(**{**config.model_dump(), **chosen})


def with_cold_factors(model: IALS, matrix: sparse.csr_array, embeddings: np.ndarray, scale: float) -> np.ndarray:
    """float32 [items, K]: the model's item factors; where nobody touched the item, its prior times `scale`."""
    cold = np.bincount(matrix.indices, minlength=len(embeddings)) == 0
    factors = model.item_factors.copy()
    if model.prior_coefficients is not None and cold.any():
        factors[cold] = cold_factors(model.prior_coefficients, embeddings[cold], scale)
    return factors


def text_scale(model: IALS, matrix: sparse.csr_array, embeddings: np.ndarray, seed: int) -> float:
    """`Blend.scale` of a fitted model, from a sample of its users."""
    return blend.fitted_scale(model.user_factors, model.item_factors, matrix, embeddings, seed)


@dataclass(frozen=True)
class HeldOut:
    """What a trial is asked about.

    Attributes:
        users: int [n], rows of users.
        warm: int [n], an item held out of each history that others touched in training.
        cold: int [n], an item held out of everybody's history, -1 where this user has none.
        kept: bool [nnz], the stored entries that remain for training.
    """

    users: np.ndarray
    warm: np.ndarray
    cold: np.ndarray
    kept: np.ndarray

    @classmethod
    def of(cls, matrix: sparse.csr_array, embeddings: np.ndarray, seed: int) -> "HeldOut | None":
        """A tenth of the items with all their interactions, and one more of each user; None if no history is left."""
        random = np.random.default_rng(seed)
        touched = np.bincount(matrix.indices, minlength=len(embeddings)) > 0
        playable = np.flatnonzero(touched & embeddings.any(axis=1))
        cold = np.zeros(len(embeddings), bool)
        cold[random.choice(playable, int(PLAYED_COLD * len(playable)), replace=False)] = True
        kept = ~cold[matrix.indices]
        train = only(matrix, kept)
        lengths = np.diff(train.indptr)
        able = np.flatnonzero(lengths >= 2)
        if not len(able):
            return None
        users = np.sort(random.choice(able, min(VALIDATION_USERS, len(able)), replace=False))
        entry = train.indptr[users] + random.integers(0, lengths[users])
        kept[np.flatnonzero(kept)[entry]] = False
        return cls(users, train.indices[entry], _one_of_each(matrix[users], cold, random), kept)


@dataclass(frozen=True)
class Trial:
    """A model that has not seen some interactions.

    Attributes:
        model: fitted to `train`.
        train: CSR [users, items], what it saw.
        embeddings: float32 [items, dim].
        scale: of the text scores.
    """

    model: IALS
    train: sparse.csr_array
    embeddings: np.ndarray
    scale: np.float32

    @classmethod
    def of(cls, matrix: sparse.csr_array, kept: np.ndarray, embeddings: np.ndarray, config: BuildConfig) -> "Trial":
        """Fit to the stored entries where bool [nnz] holds."""
        train = only(matrix, kept)
        model = ials(config).fit(train, embeddings)
        scale = np.float32(text_scale(model, train, embeddings, config.seed))
        return cls(model, train, embeddings, scale)

    @cached_property
    def untouched(self) -> np.ndarray:
        """bool [items], what the model saw nobody touch."""
        return np.bincount(self.train.indices, minlength=len(self.embeddings)) == 0

    @cached_property
    def lengths(self) -> np.ndarray:
        """int [users], lengths of the histories it saw."""
        return np.diff(self.train.indptr)

    def chunks(self, users: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
        """Some users at a time: which, and their behaviour scores, text scores and what they saw, [users, items]."""
        factors = with_cold_factors(self.model, self.train, self.embeddings, 1.0)
        step = max(1, CHUNK_SCORES // len(factors))
        for start in range(0, len(users), step):
            chunk = slice(start, start + step)
            histories = self.train[users[chunk]]
            text = self.scale * (blend.profiles(histories, self.embeddings) @ self.embeddings.T)
            yield chunk, self.model.user_factors[users[chunk]] @ factors.T, text, histories.toarray() > 0

    def text_weights(self, users: np.ndarray, learned: Blend) -> np.ndarray:
        """float32 [n]: the text's weight of each user, by the length of the history it saw."""
        return np.asarray([learned.weights(int(n), typed=False).text for n in self.lengths[users]], np.float32)


def only(matrix: sparse.csr_array, kept: np.ndarray) -> sparse.csr_array:
    """The matrix with the stored entries where bool [nnz] holds, and no others."""
    starts = np.concatenate([[0], np.cumsum(kept)])[matrix.indptr]
    return sparse.csr_array((matrix.data[kept], matrix.indices[kept], starts), shape=matrix.shape)


def _one_of_each(histories: sparse.csr_array, cold: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """int [users]: one cold item of each history, -1 where there is none."""
    users = np.repeat(np.arange(len(histories.indptr) - 1), np.diff(histories.indptr))
    order = random.permutation(np.flatnonzero(cold[histories.indices]))
    target = np.full(len(histories.indptr) - 1, -1)
    target[users[order]] = histories.indices[order]
    return target
