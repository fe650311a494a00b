"""A model that has not seen some interactions, and how it scores them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from geo_mf.builder.config import BuildConfig
from geo_mf.factorize import matrices
from geo_mf.factorize.defaults import factors_for
from geo_mf.factorize.estimators import IALS
from geo_mf.factorize.fit import item_weights
from geo_mf.geometry import blend
from geo_mf.geometry.blend import Blend
from geo_mf.geometry.predictor import Predictor, Shape

VALIDATION_USERS = 10_000
PLAYED_COLD = 0.1
"""Share of the items that are played cold: all their interactions are held out."""
CHUNK_SCORES = 2**23
"""Scores held at once."""


@dataclass(frozen=True, eq=False)
class Described:
    """What is known of the items before anybody has touched them.

    Attributes:
        embeddings: float32 [items, dim], unit length; a zero row for an item without text.
        features: float32 [items, dim + dim_a], see `geo_mf.geometry.features`; a zero row for an item with neither.
    """

    embeddings: np.ndarray
    features: np.ndarray

    def __len__(self) -> int:
        return len(self.embeddings)


def ials(config: BuildConfig, shape: tuple[int, int]) -> IALS:
    """The estimator that a configuration describes, for so many users and items."""
    return IALS(
        factors=config.factors or factors_for(*shape),
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
    users, items = matrices.shape(matrix)
    model = ials(config, (users, items))
    # Six digits: a search kept on disk is recognised by them, and the last bits differ from machine to machine.
    chosen = {name: float(f"{value:.6g}") for name, value in asdict(model.objective_for(matrix)).items()}
    return BuildConfig.of(**{**config.model_dump(), **chosen, "factors": model.factors})


def predictors(
    model: IALS, matrix: sparse.csr_array, features: np.ndarray, gamma: float, alphas: tuple[float, ...], seed: int
) -> list[Predictor]:
    """Maps from features to the factors of a fitted model, one for each strength of the shrinkage; none if there is
    nothing to learn from."""
    weights = item_weights(matrix, len(features), model.objective)
    if not (features.any(axis=1) & (weights > 0)).any():
        return []
    return Predictor.fits(features, model.item_factors, weights, gamma, alphas, seed)


def predictor(model: IALS, matrix: sparse.csr_array, features: np.ndarray, shape: Shape, seed: int) -> Predictor:
    """One of `predictors`; the map to zero if there is nothing to learn from."""
    found = predictors(model, matrix, features, shape.gamma, (shape.alpha,), seed)
    return found[0] if found else Predictor.linear(np.zeros((features.shape[1] + 1, model.factors), np.float32))


def with_cold_factors(
    item_factors: np.ndarray, matrix: sparse.csr_array, features: np.ndarray, prior: Predictor, scale: float
) -> np.ndarray:
    """float32 [items, K]: the item factors; where nobody touched the item, its prior times `scale`."""
    cold = np.bincount(matrix.indices, minlength=len(features)) == 0
    factors = item_factors.copy()
    factors[cold] = np.float32(scale) * prior(features[cold])
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
    def of(cls, matrix: sparse.csr_array, features: np.ndarray, seed: int) -> "HeldOut | None":
        """A tenth of the items with all their interactions, and one more of each user; None if no history is left."""
        random = np.random.default_rng(seed)
        touched = np.bincount(matrix.indices, minlength=len(features)) > 0
        playable = np.flatnonzero(touched & features.any(axis=1))
        cold = np.zeros(len(features), bool)
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
        items: what is known of the items otherwise.
        scale: of the text scores.
        prior: gives untouched items their factors.
    """

    model: IALS
    train: sparse.csr_array
    items: Described
    scale: np.float32
    prior: Predictor

    @classmethod
    def of(
        cls, matrix: sparse.csr_array, kept: np.ndarray, items: Described, config: BuildConfig, shape: Shape
    ) -> "Trial":
        """Fit to the stored entries where bool [nnz] holds, and regress the factors on the features in this shape."""
        train = only(matrix, kept)
        model = ials(config, matrices.shape(matrix)).fit(train, items.features)
        scale = np.float32(text_scale(model, train, items.embeddings, config.seed))
        prior = predictor(model, train, items.features, shape, config.seed)
        return cls(model, train, items, scale, prior)

    @cached_property
    def untouched(self) -> np.ndarray:
        """bool [items], what the model saw nobody touch."""
        return np.bincount(self.train.indices, minlength=len(self.items)) == 0

    @cached_property
    def lengths(self) -> np.ndarray:
        """int [users], lengths of the histories it saw."""
        return np.diff(self.train.indptr)

    def chunks(self, users: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
        """Some users at a time: which, and their behaviour scores, text scores and what they saw, [users, items]."""
        factors = with_cold_factors(self.model.item_factors, self.train, self.items.features, self.prior, 1.0)
        step = max(1, CHUNK_SCORES // len(factors))
        for start in range(0, len(users), step):
            chunk = slice(start, start + step)
            histories = self.train[users[chunk]]
            text = self.scale * (blend.profiles(histories, self.items.embeddings) @ self.items.embeddings.T)
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
