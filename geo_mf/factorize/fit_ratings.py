"""The loop of the explicit factorization: devices, threads, progress, divergence. The mathematics is in ratings.py."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse
from tqdm.auto import tqdm

from geo_mf import threads as cores
from geo_mf.errors import FitDiverged
from geo_mf.factorize import ratings
from geo_mf.factorize.checkpoint import Checkpoint, State
from geo_mf.factorize.histories import Histories, prepare
from geo_mf.geometry.prior import RidgePrior

Callback = Callable[[int, float, float], object]
"""Called after each epoch with its number, its seconds and the mean expected squared error of the training ratings."""

GATHERED = 3
"""A rating gathers a mean and a spread: about three factors."""

INITIAL_NOISE = 0.5
"""Share of the ratings' variance taken for noise in the first epoch; later it is learned."""


@dataclass(frozen=True)
class Settings:
    """How to fit: rank, objective, epochs (one solves all items, then all users), threads (0 for all), progress bar."""

    rank: int
    objective: ratings.Objective
    epochs: int
    threads: int = 0
    progress: bool = False


@dataclass(frozen=True)
class Fitted:
    """What was learned.

    Attributes:
        users, items: float32 [n, K + 1], factor and bias.
        item_spread: float32 [items, 2K + 1] or None, as in `ratings.Posterior`: a fold-in needs it.
        mean: mu.
        scale: standard deviation of the ratings, 1 when they are all equal.
        noise: variance of a rating around its prediction.
        coefficients: float32 [dim + 1, K + 1] or None, from item features to factor and bias.
    """

    users: np.ndarray
    items: np.ndarray
    item_spread: np.ndarray | None
    mean: float
    scale: float
    noise: float
    coefficients: np.ndarray | None


@dataclass(frozen=True)
class _Side:
    histories: Histories
    calls: list[tuple[np.int32, np.int32, jax.Array, jax.Array, jax.Array]]  # start, count, columns, targets, lengths
    ridge: jax.Array

    @classmethod
    def of(cls, histories: Histories, ridge: np.ndarray) -> "_Side":
        calls = []
        for bucket in histories.buckets:
            for number, (start, count) in enumerate(zip(bucket.starts, bucket.counts, strict=True)):
                targets = np.float32(histories.weight) if bucket.weights is None else bucket.weights[number]
                arrays = (jnp.asarray(one) for one in (bucket.columns[number], targets, bucket.lengths[number]))
                calls.append((np.int32(start), np.int32(count), *arrays))
        return cls(histories, calls, jnp.asarray(ridge))


def fit(
    matrix: sparse.csr_array,
    settings: Settings,
    random: np.random.Generator,
    prior: RidgePrior | None = None,
    callback: Callback | None = None,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Factorize ratings.

    Args:
        matrix: float32 CSR [users, items], every stored entry a rating, no duplicates, at least one.
        settings: rank, objective, epochs.
        random: where the users' first factors come from.
        prior: regression of items' factors and biases on features; it is refitted before every item half-epoch.
        callback: called after each epoch.
        checkpoint: where to keep the state after an epoch, and to go on from.

    Raises:
        FitDiverged: a factor is infinite or NaN.
        InvalidInput: the checkpoint belongs to another fit, or is further than `settings.epochs`.
    """
    kept = None if checkpoint is None else checkpoint.read(settings.epochs)
    values = matrix.data.astype(np.float64)
    mean, scale = float(values.mean()), float(values.std()) or 1.0
    # Every target is at least 1: what pads a history with zeros then never meets a rating of zero.
    lowest = float(values.min())
    shifted = sparse.csr_array(
        ((values - lowest + 1).astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape
    )
    rows, columns = prepare(shifted, GATHERED * settings.rank)
    objective = settings.objective
    users, items = (
        _Side.of(side, objective.ridge(side.table_lengths, settings.rank, scale)) for side in (rows, columns)
    )
    centre = jnp.float32(mean - lowest + 1)
    if kept is None:
        done, noise = 0, INITIAL_NOISE * scale**2
        w = _start(rows, settings.rank, scale * 0.01, random, objective.variational)
        h = _start(columns, settings.rank, 0.0, random, objective.variational)
    else:
        done, noise = kept.epochs, float(kept.told["noise"])
        w, h = (_from_arrays(side, name, kept.arrays) for side, name in ((rows, "users"), (columns, "items")))
    del kept  # the tables are held once
    on_cpu = jax.default_backend() == "cpu"
    threads = (settings.threads or cores.count()) if on_cpu else 1
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=settings.epochs, desc="factorize", unit="epoch", disable=not settings.progress) as bar,
    ):
        bar.update(done)
        for epoch in range(done, settings.epochs):
            began = time.perf_counter()
            expected = None if prior is None else _expected(prior, columns, h)
            h, _ = _half_epoch(items, w, expected, centre, noise, pool)
            # Users last: they are then the row solves against the final items, as a fold-in gives them.
            w, error = _half_epoch(users, h, None, centre, noise, pool)
            expected_error = error / len(values)
            # With far more factors than the data bear, their doubt adds up beyond the ratings' own variance and would
            # feed on itself.
            noise = min(expected_error, scale**2)
            if not np.isfinite(expected_error):
                raise FitDiverged(
                    f"the factors are not finite after {epoch + 1} epochs (regularization={objective.regularization}, "
                    f"bias_regularization={objective.bias_regularization}): raise them"
                )
            if callback is not None:
                callback(epoch, time.perf_counter() - began, expected_error)
            bar.set_postfix(rmse=f"{expected_error**0.5:.4f}")
            bar.update()
            if checkpoint is not None and (epoch + 1 == settings.epochs or checkpoint.due()):
                arrays = _to_arrays(rows, "users", w) | _to_arrays(columns, "items", h)
                checkpoint.write(State(epoch + 1, arrays, {"noise": noise}))
    item_rows = columns.from_table(np.asarray(h.mean))
    return Fitted(
        users=rows.from_table(np.asarray(w.mean)),
        items=item_rows,
        item_spread=None if h.spread is None else columns.from_table(np.asarray(h.spread)),
        mean=mean,
        scale=scale,
        noise=noise,
        coefficients=None if prior is None else prior.fit(item_rows),
    )


def _start(
    side: Histories, rank: int, variance: float, random: np.random.Generator, variational: bool
) -> ratings.Posterior:
    """Random factors, no biases, no doubt."""
    factors = random.standard_normal((len(side.lengths), rank), np.float32) * np.float32(variance**0.5)
    mean = side.to_table(np.append(factors, np.zeros((len(factors), 1), np.float32), axis=1))
    return ratings.Posterior(jnp.asarray(mean), jnp.zeros((side.capacity, 2 * rank + 1)) if variational else None)


def _to_arrays(side: Histories, name: str, table: ratings.Posterior) -> dict[str, np.ndarray]:
    """A table in the matrix's order, for a checkpoint."""
    parts = {name: table.mean} | ({} if table.spread is None else {f"{name}/spread": table.spread})
    return {part: side.from_table(np.asarray(values)) for part, values in parts.items()}


def _from_arrays(side: Histories, name: str, arrays: dict[str, np.ndarray]) -> ratings.Posterior:
    """The table that `_to_arrays` was given, as far as anybody reads it."""
    spread = arrays.get(f"{name}/spread")
    mean = jnp.asarray(side.to_table(arrays[name]))
    return ratings.Posterior(mean, None if spread is None else jnp.asarray(side.to_table(spread)))


def _expected(prior: RidgePrior, side: Histories, table: ratings.Posterior) -> jax.Array:
    """What features say about each item's factor and bias, in table order."""
    rows = side.from_table(np.asarray(table.mean))
    return jnp.asarray(side.to_table(prior.predict(prior.fit(rows))))


def _half_epoch(
    side: _Side,
    fixed: ratings.Posterior,
    prior: jax.Array | None,
    centre: jax.Array,
    noise: float,
    pool: ThreadPoolExecutor,
) -> tuple[ratings.Posterior, float]:
    """Solve one side against the other. Returns its table and the expected squared error, summed in float64."""
    half = ratings.HalfEpoch(fixed, side.ridge, prior, centre, jnp.float32(noise))

    def solve(
        call: tuple[np.int32, np.int32, jax.Array, jax.Array, jax.Array],
    ) -> tuple[ratings.Posterior, jax.Array]:
        return jax.block_until_ready(ratings.solve_rows(half, *call))

    solved = list(pool.map(solve, side.calls))
    error = sum(float(np.sum(np.asarray(errors), dtype=np.float64)) for _, errors in solved)
    counts = tuple(int(count) * lengths.shape[1] for _, count, _, _, lengths in side.calls)
    first = sum(bucket.rows for bucket in side.histories.buckets)
    return ratings.joined(half, [rows for rows, _ in solved], first, counts), error
