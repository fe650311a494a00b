"""Build an index: encode the texts, factorize the interactions, blend, index, publish."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy import sparse

from geo_mf.data.catalog import Catalog
from geo_mf.data.ids import IdMap
from geo_mf.data.interactions import Interactions
from geo_mf.errors import InvalidInput
from geo_mf.factorize.estimators import IALS
from geo_mf.geometry import blend
from geo_mf.geometry.blend import Blend
from geo_mf.index.exact import ExactIndex
from geo_mf.index.faiss import FaissIndex
from geo_mf.recommender import Recommender
from geo_mf.store.binding import save
from geo_mf.text.cache import CachedEncoder, EmbeddingCache
from geo_mf.text.encoder import HashEncoder, SentenceEncoder, TextEncoder

VALIDATION_USERS = 10_000
VALIDATION_SCORES = 2**23
RECALL_QUERIES = 200


class BuildConfig(BaseModel):
    """Every setting of a build. A bad value raises InvalidInput when made with `BuildConfig.of`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    factors: Annotated[int, Field(ge=1, le=4096)] = 128
    """Length of a factor."""
    regularization: Annotated[float, Field(gt=0)] = 0.005
    """lam: how strongly factors are pulled to zero, or to what the text says."""
    unobserved_weight: Annotated[float, Field(ge=0)] = 0.005
    """a0: the weight of a pair nobody was seen to touch, against about 1 for an interaction."""
    iterations: Annotated[int, Field(ge=1)] = 10
    """Epochs of the factorization."""
    nu: Annotated[float, Field(ge=0, le=2)] = 1.0
    """Exponent of the frequency-scaled regularisation."""
    solver: Literal["cg", "cholesky"] = "cg"
    """How a row is solved: a few conjugate gradient steps, or exactly."""
    cg_steps: Annotated[int, Field(ge=1)] = 3
    """Conjugate gradient steps."""
    prior_regularization: Annotated[float, Field(gt=0)] = 3.0
    """Shrinkage of the map from text to factors."""
    weighting: Literal["log", "linear", "uniform"] = "log"
    """What an interaction's weight means: log(1 + weight), the weight itself, or nothing. Scaled to a mean of 1."""
    encoder: str | None = None
    """Model that reads the texts: a local folder, a hub name, "hash" (for tests); None is all-MiniLM-L6-v2."""
    cache: bool = True
    """Keep embeddings on disk, so that the next build encodes only new texts."""
    learn_blend: bool = True
    """Hold one interaction of each user out, to learn how much text should count; costs a second fit."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Cores of the factorization, 0 for all."""
    seed: int = 0
    """Seed of every random choice."""

    @classmethod
    def of(cls, **settings: Any) -> "BuildConfig":
        """A configuration, or InvalidInput that names the setting, the value found and what is allowed."""
        try:
            return cls(**settings)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, e['loc']))} is {e['input']!r}: {e['msg'][:1].lower()}{e['msg'][1:]}"
                for e in error.errors()
            )
            raise InvalidInput(f"{problems}. Settings are: {', '.join(cls.model_fields)}") from error


@dataclass
class _Clock:
    """Seconds of each step of a build."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 3)


def build(
    interactions: Interactions,
    catalog: Catalog | None = None,
    *,
    out: str | Path | None = None,
    config: BuildConfig | None = None,
    encoder: TextEncoder | None = None,
    show_progress: bool = False,
) -> Recommender:
    """Build a recommender and, with `out`, publish it.

    Args:
        interactions: who touched what. Rows whose item the catalogue does not list are left out and counted.
        catalog: the items, with their texts. None: the items of the interactions, without text.
        out: the index's folder; its last part is the index's name.
        config: settings; by default BuildConfig().
        encoder: overrides `config.encoder`.
        show_progress: progress bars on stderr.

    Raises:
        InvalidInput: nothing is left to learn from, or an input cannot be used.
        FitDiverged: the factors became infinite or NaN.
        OSError: the index could not be written; an older version of it is untouched.
    """
    config = config or BuildConfig()
    clock = _Clock()
    catalog = catalog if catalog is not None else Catalog.from_ids(interactions.items)
    listed, matrix, unlisted = _training(interactions, catalog, config)
    source = encoder or _encoder(config)
    with clock.step("encode"):
        reader = CachedEncoder(source, EmbeddingCache()) if config.cache else source
        embeddings = reader.encode(catalog.texts, show_progress=show_progress)
    learned = ((2**31 - 1, blend.Weights(1.0, 0.0)),)
    with clock.step("learn the blend"):
        if config.learn_blend and embeddings.any():
            learned = _learn_blend(matrix, embeddings, config)
    with clock.step("factorize"):
        model = _model(config).fit(matrix, embeddings, show_progress=show_progress)
    with clock.step("index"):
        scale = _scale(model, matrix, embeddings, config)
        vectors = blend.vectors(model.item_factors, embeddings, scale)
        index = FaissIndex(vectors)
    coefficients = model.prior_coefficients
    card: dict[str, Any] = {
        "users": len(listed),
        "items": len(catalog),
        "cold_items": int(np.count_nonzero(np.bincount(matrix.indices, minlength=len(catalog)) == 0)),
        "items_without_text": int(np.count_nonzero(~embeddings.any(axis=1))),
        "interactions": int(matrix.nnz),
        "unlisted_interactions": unlisted,
        "encoded_texts": reader.misses if isinstance(reader, CachedEncoder) else len(catalog),
        "read": interactions.report.summary(),
        "encoder_name": source.name,
    }
    rec = Recommender(
        users=listed,
        catalog=catalog,
        history=matrix,
        user_factors=model.user_factors,
        item_factors=model.item_factors,
        embeddings=embeddings,
        coefficients=coefficients if coefficients is not None else np.zeros((0, config.factors), np.float32),
        objective=model.objective,
        blend=Blend(scale=scale, by_history=learned),
        encoder=source,
        fingerprint=source.fingerprint,
        index=index,
        card=card,
    )
    with clock.step("measure recall"):
        card["recall_at_10"] = _recall(rec, vectors)
    card["config"] = config.model_dump()
    card["seconds"] = clock.seconds
    if out is not None:
        with clock.step("publish"):
            save(rec, out)
    return rec


def _training(interactions: Interactions, catalog: Catalog, config: BuildConfig) -> tuple[IdMap, sparse.csr_array, int]:
    """Users with something to learn from, their weights as CSR, and how many rows the catalogue does not list."""
    listed, unlisted = interactions.align(items=catalog.items)
    rows = listed.to_csr()
    if rows.nnz == 0:
        hint = f"the catalogue has ids such as {catalog.items.take(range(min(3, len(catalog))))}"
        theirs = interactions.items.take(range(min(3, len(interactions.items))))
        raise InvalidInput(
            f"no interaction is left to learn from: {len(interactions)} were given, {unlisted} of them with items that "
            f"the catalogue does not list ({hint}, the interactions {theirs})"
        )
    known = np.flatnonzero(np.diff(rows.indptr))
    matrix = sparse.csr_array(rows[known], dtype=np.float32)
    if config.weighting == "uniform":
        matrix.data = np.ones_like(matrix.data)
    else:
        weights = np.log1p(matrix.data) if config.weighting == "log" else matrix.data
        matrix.data = (weights / weights.mean(dtype=np.float64)).astype(np.float32)
    return IdMap(listed.users.ids.take(known)), matrix, unlisted


def _encoder(config: BuildConfig) -> TextEncoder:
    return HashEncoder() if config.encoder == "hash" else SentenceEncoder(config.encoder)


def _model(config: BuildConfig) -> IALS:
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


def _profiles(matrix: sparse.csr_array, embeddings: np.ndarray) -> np.ndarray:
    """float32 [users, dim]: the unit weighted mean of each history's embeddings; zero where there are none."""
    sums = matrix @ embeddings
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 1e-12)


def _scale(model: IALS, matrix: sparse.csr_array, embeddings: np.ndarray, config: BuildConfig) -> float:
    users = np.random.default_rng(config.seed).permutation(len(model.user_factors))[: 4 * blend.SAMPLED_USERS]
    profiles = _profiles(matrix[np.sort(users)], embeddings)
    return blend.text_scale(model.user_factors[np.sort(users)], model.item_factors, profiles, embeddings, config.seed)


def _learn_blend(
    matrix: sparse.csr_array, embeddings: np.ndarray, config: BuildConfig
) -> tuple[tuple[int, blend.Weights], ...]:
    """Hold one interaction of a sample of users out, fit without it, and see which weights rank it best."""
    random = np.random.default_rng(config.seed)
    lengths = np.diff(matrix.indptr)
    able = np.flatnonzero(lengths >= 2)
    if not len(able):
        return Blend(1.0).by_history
    users = np.sort(random.choice(able, min(VALIDATION_USERS, len(able)), replace=False))
    entry = matrix.indptr[users] + random.integers(0, lengths[users])
    held_out = matrix.indices[entry]
    train = matrix.copy()
    train.data[entry] = 0
    train.eliminate_zeros()
    model = _model(config).fit(train, embeddings)
    scale = np.float32(_scale(model, train, embeddings, config))
    found = []
    step = max(1, VALIDATION_SCORES // len(embeddings))
    for start in range(0, len(users), step):
        chunk = users[start : start + step]
        behaviour = model.user_factors[chunk] @ model.item_factors.T
        text = scale * (_profiles(train[chunk], embeddings) @ embeddings.T)
        found.append(blend.gains(behaviour, text, held_out[start : start + step], train[chunk].toarray() > 0))
    return blend.choose(np.concatenate(found, axis=1), lengths[users] - 1)


def _recall(rec: Recommender, vectors: np.ndarray) -> float:
    """Share of the true ten best items that the index finds, over queries of known users."""
    users = np.random.default_rng(0).permutation(len(rec.users))[:RECALL_QUERIES]
    queries = rec.queries(np.sort(users))
    k = min(10, len(vectors))
    found, best = rec.index.search(queries, k), ExactIndex(vectors).search(queries, k)
    # A tie at the last place may fall either way, so scores are compared and not rows.
    floor = best.scores[:, -1:] - 1e-4 * np.abs(best.scores[:, -1:])
    return float(np.mean(found.scores >= floor))
