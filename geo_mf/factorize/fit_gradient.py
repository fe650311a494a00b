"""The loop of the gradient factorization: what is held out, when to stop, progress, divergence.

The mathematics is in gradient.py.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import sparse
from tqdm.auto import tqdm

from geo_mf.errors import FitDiverged
from geo_mf.factorize import gradient
from geo_mf.factorize.matrices import shape
from geo_mf.index.exact import ExactIndex

Callback = Callable[[int, float, float, float | None], object]
"""Called after each epoch with its number, its seconds, the mean training loss, and NDCG when it was measured."""

CUT = 20
START = np.float32(0.1)
"""Standard deviation of the first factors."""
VALIDATION_USERS = 5000
SHORTEST_HISTORY = 3

_Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""users [users, K], items [items, K], bias [items]."""


@dataclass(frozen=True)
class Settings:
    """How to fit.

    Attributes:
        rank: length K of a factor.
        objective: the loss and its numbers.
        optimizer: any optax transformation.
        epochs: passes over the interactions, at most.
        batch: interactions a step.
        popularity: exponent of an item's count in its chance to be a negative; 0 draws uniformly.
        every: epochs between two looks at the validation interactions.
        patience: looks without a better NDCG before the fit stops; 0 holds nothing out and runs all epochs.
        progress: whether to show a progress bar on stderr.
    """

    rank: int
    objective: gradient.Objective
    optimizer: optax.GradientTransformation
    epochs: int
    batch: int
    popularity: float
    every: int
    patience: int
    progress: bool = False


@dataclass(frozen=True)
class Fitted:
    """users [users, K], items [items, K], bias [items] (in a score as it stands, zero when the loss has none) and text
    [dim, K] or None, float32; NDCG of each look, by epoch."""

    users: np.ndarray
    items: np.ndarray
    bias: np.ndarray
    text: np.ndarray | None
    history: dict[int, float]


def fit(
    matrix: sparse.csr_array,
    settings: Settings,
    random: np.random.Generator,
    features: np.ndarray | None = None,
    callback: Callback | None = None,
) -> Fitted:
    """Factorize by gradient descent.

    Args:
        matrix: float32 CSR [users, items], positive weights, no duplicates, at least one.
        settings: loss, optimiser, epochs.
        random: where the first factors, the held-out interactions and all draws come from.
        features: float32 [items, dim] or None.
        callback: called after each epoch.

    Returns:
        The tables of the best look when there were any, else the last. For losses of cosines the rows have unit length.

    Raises:
        FitDiverged: the loss is infinite or NaN.
    """
    size = shape(matrix)
    users = np.repeat(np.arange(size[0], dtype=np.int32), np.diff(matrix.indptr))
    held = np.zeros(0, np.int64) if not settings.patience else hold_out(matrix, random)
    kept = np.setdiff1d(np.arange(matrix.nnz), held)
    data = _data(users[kept], matrix.indices[kept], matrix.data[kept], size, settings.popularity, features)
    tables = _start(size, settings, features, random)
    state = settings.optimizer.init(tables)
    key = jax.random.key(int(random.integers(2**63)))
    batch = min(settings.batch, len(kept))
    best, found, history = None, -1.0, {}
    with tqdm(total=settings.epochs, desc="factorize", unit="epoch", disable=not settings.progress) as bar:
        for number in range(settings.epochs):
            began = time.perf_counter()
            tables, state, loss = gradient.epoch(
                tables,
                state,
                data,
                jax.random.fold_in(key, number),
                settings.optimizer,
                settings.objective,
                batch,
                len(kept) // batch,
            )
            loss = float(loss)
            seconds = time.perf_counter() - began
            if not np.isfinite(loss):
                raise FitDiverged(
                    f"the loss is {loss} after {number + 1} epochs: lower the optimizer's learning rate, or scale the "
                    "weights down to around 1"
                )
            looked = None
            if len(held) and ((number + 1) % settings.every == 0 or number + 1 == settings.epochs):
                now = _finished(tables, data, settings)
                looked = history[number + 1] = ndcg(vectors(*now), users[held], matrix.indices[held], matrix)
                if looked > found:
                    best, found = now, looked
            bar.set_postfix({"loss": f"{loss:.5g}"} | ({} if looked is None else {"ndcg": f"{looked:.4f}"}))
            bar.update()
            if callback is not None:
                callback(number, seconds, loss, looked)
            if looked is not None and len(history) - 1 - list(history.values()).index(found) >= settings.patience:
                break
    last = best if best is not None else _finished(tables, data, settings)
    return Fitted(*last, np.asarray(tables["text"]) if "text" in tables else None, history)


def hold_out(matrix: sparse.csr_array, random: np.random.Generator) -> np.ndarray:
    """One interaction of each of some users, as sorted places in the matrix's data; short histories stay whole."""
    lengths = np.diff(matrix.indptr)
    able = np.flatnonzero(lengths >= SHORTEST_HISTORY)
    chosen = np.sort(random.choice(able, min(VALIDATION_USERS, len(able)), replace=False))
    return matrix.indptr[chosen] + random.integers(lengths[chosen])


def vectors(users: np.ndarray, items: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[users, K], [items, K], [items] -> [users, K + 1], [items, K + 1], whose inner products are the scores."""
    return np.concatenate([users, np.ones((len(users), 1), np.float32)], axis=1), np.c_[items, bias]


def ndcg(
    factors: tuple[np.ndarray, np.ndarray], users: np.ndarray, items: np.ndarray, matrix: sparse.csr_array
) -> float:
    """Mean NDCG@CUT of one item for each user, all the user's other items being left out of the ranking."""
    spans = [matrix.indices[matrix.indptr[u] : matrix.indptr[u + 1]] for u in users]
    seen = [span[span != item] for span, item in zip(spans, items, strict=True)]
    hits = ExactIndex(factors[1]).search(factors[0][users], min(CUT, len(factors[1])), None, seen)
    user, place = np.nonzero(hits.rows == items[:, None])
    return float(np.sum(1 / np.log2(place + 2.0)) / len(users)) if len(user) else 0.0


def _data(
    users: np.ndarray,
    items: np.ndarray,
    weights: np.ndarray,
    size: tuple[int, int],
    power: float,
    features: np.ndarray | None,
) -> gradient.Data:
    lengths = np.bincount(users, minlength=size[0])
    counts = np.bincount(items, minlength=size[1]).astype(np.float64)
    chances = np.where(counts > 0, counts, 0.0) ** power if power else np.ones(size[1])
    chances = chances / chances.sum()
    with np.errstate(divide="ignore"):  # an item that is never drawn
        log_chance = np.log(chances)
    return gradient.Data(
        jnp.asarray(users),
        jnp.asarray(items, jnp.int32),
        jnp.asarray(weights),
        jnp.asarray(np.cumsum(lengths) - lengths, jnp.int32),
        jnp.asarray(lengths, jnp.int32),
        jnp.asarray(np.cumsum(chances), jnp.float32) if power else None,
        jnp.asarray(log_chance, jnp.float32),
        None if features is None else jnp.asarray(features),
    )


def _start(
    size: tuple[int, int], settings: Settings, features: np.ndarray | None, random: np.random.Generator
) -> gradient.Tables:
    names = {"users": size[0], "items": size[1]}
    tables = {name: random.standard_normal((n, settings.rank), np.float32) * START for name, n in names.items()}
    if settings.objective.history:  # what a user's items say of it comes first
        tables["users"] = np.zeros_like(tables["users"])
    if settings.objective.loss in gradient.COSINE:
        tables["bias"] = np.zeros(size[1], np.float32)
    if features is not None:
        tables["text"] = np.zeros((features.shape[1], settings.rank), np.float32)
    return {name: jnp.asarray(table) for name, table in tables.items()}


def _finished(tables: gradient.Tables, data: gradient.Data, settings: Settings) -> _Rows:
    """Users, items and bias as the index takes them: text and history added, rows nobody taught left to their features,
    unit length."""
    users, items = np.array(tables["users"]), np.array(tables["items"])
    bias = gradient.BIAS * np.array(tables["bias"]) if "bias" in tables else np.zeros(len(items), np.float32)
    taught = np.bincount(np.asarray(data.items), minlength=len(items)) > 0
    items[~taught] = 0
    bias[~taught] = bias[taught].min()
    users[np.asarray(data.lengths) == 0] = 0
    if data.features is not None:
        items += np.asarray(data.features) @ np.asarray(tables["text"])
    if settings.objective.history:
        indptr = np.append(np.asarray(data.starts), len(data.items))
        seen = np.ones(len(data.items), np.float32), np.asarray(data.items), indptr
        users += means(sparse.csr_array(seen, (len(users), len(items))), items)
    if settings.objective.loss in gradient.COSINE:
        users, items = (np.asarray(gradient.unit(jnp.asarray(rows))) for rows in (users, items))
    return users, items, bias


def means(histories: sparse.csr_array, items: np.ndarray) -> np.ndarray:
    """float32 [n, K]: the mean of the items' rows in each history [n, items], whatever its weights; zero for none."""
    ones = sparse.csr_array((np.ones(histories.nnz, np.float32), histories.indices, histories.indptr), histories.shape)
    return (ones @ items) / np.maximum(np.diff(histories.indptr), 1).astype(np.float32)[:, None]
