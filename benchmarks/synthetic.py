"""Rows, queries and whole recommenders like those of a factorization, at sizes that no public data set has.

Held against the factors of Gowalla (K=128, 40,981 items, `geo_mf.IALS`): there the logarithm of an item's length
spreads by .20 and goes with its popularity at .86, half of the true 100 best items of a user are in the most popular
tenth and 1 in 100 in the least popular one, and a user's 100th best item lies at a cosine of .57.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from scipy import sparse

import geo_mf as gm
from geo_mf.data.interactions import ReadReport
from geo_mf.geometry.features import Filling
from geo_mf.geometry.predictor import Predictor

TOPICS, NICHE = 500, 60
SPREAD = 0.3  # of the logarithm of a length


@dataclass(frozen=True)
class World:
    """Items and the people who look for them.

    Attributes:
        items: float32 [n, dim], item factors.
        popularity: float32 [n], log-normal; an item's length goes with it.
        users: float32 [q, dim], unit user factors: each of a niche or a few.
        texts: float32 [n, text], unit embeddings, which know the niche as the factors do, and something of their own.
        profiles: float32 [q, text], unit: what each user's history reads like.
    """

    items: np.ndarray
    popularity: np.ndarray
    users: np.ndarray
    texts: np.ndarray
    profiles: np.ndarray


def world(n: int, dim: int, users: int, text: int = 0, seed: int = 0) -> World:
    """Topics hold niches, niches hold items: 60 on average, by a power law."""
    rng = np.random.default_rng(seed)

    def directions(count: int, columns: int) -> np.ndarray:
        decay = (1 / (1 + 0.7 * np.arange(columns) / columns)).astype(np.float32)
        return unit(rng.standard_normal((count, columns), dtype=np.float32) * decay)

    niches = max(TOPICS, n // NICHE)
    parents = rng.choice(TOPICS, niches, p=shares(rng, TOPICS))
    weight = shares(rng, niches)
    kind = rng.choice(niches, n, p=weight)
    centres = unit(0.7 * directions(TOPICS, dim)[parents] + directions(niches, dim))
    height = rng.standard_normal(n).astype(np.float32)
    items = unit(centres[kind] + 0.8 * directions(n, dim)) * np.exp(SPREAD * height)[:, None]
    popularity = np.exp(0.86 * height + 0.5 * rng.standard_normal(n)).astype(np.float32)
    tastes = rng.choice(niches, (users, 3), p=weight)
    mixed = rng.dirichlet((2, 0.5, 0.5), users).astype(np.float32)
    people = unit(np.einsum("qt,qtd->qd", mixed, centres[tastes]) + 0.5 * directions(users, dim))
    if not text:
        return World(items, popularity, people, np.zeros((n, 0), np.float32), np.zeros((users, 0), np.float32))
    words = unit(0.9 * directions(TOPICS, text)[parents] + directions(niches, text))
    texts = unit(words[kind] + 0.9 * directions(n, text))
    profiles = unit(np.einsum("qt,qtd->qd", mixed, words[tastes]) + 0.4 * directions(users, text))
    return World(items, popularity, people, texts, profiles)


def shares(rng: np.random.Generator, n: int) -> np.ndarray:
    """Sizes by a power law, [n], summing to 1."""
    sizes = rng.pareto(1.5, n) + 0.3
    return sizes / sizes.sum()


def unit(vectors: np.ndarray) -> np.ndarray:
    """[n, dim] at length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def recommender(
    made: World, users: int, touched: int, index: gm.FaissIndex | None = None, seed: int = 0
) -> gm.Recommender:
    """A whole recommender over a world: ids, titles, three columns, `touched` items of each user."""
    rng = np.random.default_rng(seed)
    n, dim = len(made.items), made.texts.shape[1]
    rows = np.sort(rng.integers(0, n, (users, touched)).astype(np.int32), axis=1)
    history = sparse.csr_array(
        (np.ones(rows.size, np.float32), rows.ravel(), np.arange(0, rows.size + 1, touched)), shape=(users, n)
    )
    history.sum_duplicates()
    ids = [f"item-{row:08d}" for row in range(n)]
    columns = {"item_id": ids, "title": [f"Title {row}" for row in range(n)]}
    table = pa.table(columns | {"year": rng.integers(1950, 2026, n), "price": rng.random(n)})
    items = gm.IdMap(ids)
    catalog = gm.Catalog(items, columns["title"], table, "item_id", "title", ReadReport(n, n, unit="row"))
    encoder = gm.HashEncoder(dim=dim)
    quick = gm.BuildConfig(factors=2, iterations=1, cache=False, learn_blend=False)
    small = gm.build(gm.Interactions.from_arrays([0, 0, 1], [0, 1, 1]), config=quick, encoder=encoder).now
    touches = np.bincount(history.indices, minlength=n).astype(np.float32)
    now = replace(
        small,
        users=gm.IdMap([f"user-{row:08d}" for row in range(users)]),
        catalog=catalog,
        history=history,
        user_factors=made.users[rng.integers(0, len(made.users), users)],
        item_factors=made.items,
        embeddings=made.texts,
        prior=Predictor(
            np.zeros((0, dim), np.float32), 0.0, np.zeros((dim + 1, made.items.shape[1]), np.float32), small.prior.shape
        ),
        filling=Filling(np.zeros(dim, np.float32), small.filling.attributes),
        touches=touches,
        trend=(touches - touches.mean()) / touches.std(),
        encoder=encoder,
        fingerprint=encoder.fingerprint,
        live=np.ones(n, bool),
    )
    return gm.Recommender(replace(now, index=index or gm.FaissIndex(now.vectors)))
