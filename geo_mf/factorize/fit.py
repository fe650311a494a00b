"""The loop of the implicit factorization: devices, threads, progress, divergence. The mathematics is in ials.py."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse
from tqdm.auto import tqdm

from geo_mf.errors import FitDiverged
from geo_mf.factorize import ials
from geo_mf.factorize.histories import TILE_BYTES, Histories, prepare
from geo_mf.geometry.prior import RidgePrior

Callback = Callable[[int, float, float | None], object]
"""Called after each epoch with its number, its seconds and its loss (None unless the loss was asked for)."""

ACCELERATOR_TILE_BYTES = 64 * 1024 * 1024
"""An accelerator wants a tile that fills it, not one that fits a core's cache."""

GRAM_PARTS = 8
"""Slices of a Gram matrix, summed in this order whatever the number of cores: floating-point sums depend on order."""

ROTATION_PARTS = 16
LOSS_CHUNK = 1 << 16


@dataclass(frozen=True)
class Settings:
    """How to fit.

    Attributes:
        rank: length K of a factor.
        objective: unobserved weight, regularisation, nu.
        epochs: number of epochs; one solves all items, then all users.
        solver: "cg" or "cholesky".
        steps: conjugate gradient steps of a row solve.
        threads: cores to use, 0 for all that this process may use. It never changes the result.
        loss: whether to compute the objective after every epoch.
        progress: whether to show a progress bar on stderr.
    """

    rank: int
    objective: ials.Objective
    epochs: int
    solver: ials.Solver = "cg"
    steps: int = 3
    threads: int = 0
    loss: bool = False
    progress: bool = False


@dataclass(frozen=True)
class Factors:
    """A fitted factorization: users float32 [users, K], items float32 [items, K], the prior's coefficients or None."""

    users: np.ndarray
    items: np.ndarray
    coefficients: np.ndarray | None = None
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Call:
    """The arguments of one `solve_rows` call that stay the same in every epoch, on the device."""

    start: np.int32
    columns: jax.Array
    weights: jax.Array
    lengths: jax.Array


@dataclass(frozen=True)
class _Side:
    histories: Histories
    calls: list[_Call]
    ridge: jax.Array
    first_empty: int

    @classmethod
    def of(cls, histories: Histories, other: Histories, objective: ials.Objective) -> "_Side":
        calls = []
        for bucket in histories.buckets:
            step = bucket.lengths[0].size
            for number, (columns, lengths) in enumerate(zip(bucket.columns, bucket.lengths, strict=True)):
                weights = np.float32(histories.weight) if bucket.weights is None else bucket.weights[number]
                start = np.int32(bucket.start + number * step)
                calls.append(_Call(start, jnp.asarray(columns), jnp.asarray(weights), jnp.asarray(lengths)))
        ridge = objective.ridge(histories.table_lengths, len(other.lengths))
        return cls(histories, calls, jnp.asarray(ridge), sum(b.rows for b in histories.buckets))


def fit(
    user_items: sparse.csr_array,
    settings: Settings,
    start: tuple[np.ndarray, np.ndarray],
    prior: RidgePrior | None = None,
    callback: Callback | None = None,
) -> Factors:
    """Factorize implicit feedback.

    Args:
        user_items: float32 CSR [users, items], positive weights, no duplicates.
        settings: rank, objective, epochs, solver.
        start: user factors [users, K] and item factors [items, K] to start from.
        prior: regression of item factors on item features; it is refitted before every item half-epoch.
        callback: called after each epoch.

    Raises:
        FitDiverged: a factor is infinite or NaN.
    """
    rows, columns = prepare(user_items, settings.rank, TILE_BYTES if _on_cpu() else ACCELERATOR_TILE_BYTES)
    users = _Side.of(rows, columns, settings.objective)
    items = _Side.of(columns, rows, settings.objective)
    w, h = jnp.asarray(rows.to_table(start[0])), jnp.asarray(columns.to_table(start[1]))
    losses: list[float] = []
    threads = (settings.threads or len(os.sched_getaffinity(0))) if _on_cpu() else 1
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=settings.epochs, desc="factorize", unit="epoch", disable=not settings.progress) as bar,
    ):
        for epoch in range(settings.epochs):
            began = time.perf_counter()
            # Users last: their factors are then the row solves against the final items, as a fold-in gives them.
            h, w = _half_epoch(items, h, w, prior, settings, pool)
            w, h = _half_epoch(users, w, h, None, settings, pool)
            w.block_until_ready()
            seconds = time.perf_counter() - began
            loss = None
            if settings.loss:
                loss = _loss(user_items, users, items, w, h, prior, settings)
                losses.append(loss)
                bar.set_postfix(loss=f"{loss:.6g}")
            if callback is not None:
                callback(epoch, seconds, loss)
            bar.update()
    user_rows, item_rows = rows.from_table(np.asarray(w)), columns.from_table(np.asarray(h))
    if not (np.isfinite(user_rows).all() and np.isfinite(item_rows).all()):
        raise FitDiverged(_diverged(settings))
    coefficients = None if prior is None else prior.fit(item_rows)
    return Factors(user_rows, item_rows, coefficients, losses)


def _half_epoch(
    side: _Side,
    solved: jax.Array,
    fixed: jax.Array,
    prior: RidgePrior | None,
    settings: Settings,
    pool: ThreadPoolExecutor,
) -> tuple[jax.Array, jax.Array]:
    """Solve one side's table against the other. Both come back in the fixed side's eigenbasis: scores do not change."""
    eigenvalues, basis = np.linalg.eigh(_gram(fixed, pool, settings))
    axes = basis.astype(np.float32)
    fixed, solved = _rotated(fixed, axes, pool), _rotated(solved, axes, pool)
    spectrum = settings.objective.unobserved_weight * np.maximum(eigenvalues, 0)
    expected = None
    if prior is not None:
        rows = side.histories.from_table(np.asarray(solved))
        expected = jnp.asarray(side.histories.to_table(prior.predict(prior.fit(rows))))
    half = ials.HalfEpoch(fixed, jnp.asarray(spectrum, jnp.float32), solved, side.ridge, expected)

    def solve(call: _Call) -> jax.Array:
        rows = ials.solve_rows(
            half, call.start, call.columns, call.weights, call.lengths, settings.solver, settings.steps
        )
        return rows.block_until_ready()

    parts = list(pool.map(solve, side.calls))
    return ials.stack([*parts, ials.solve_empty(half, side.first_empty)]), fixed


def _gram(table: jax.Array, pool: ThreadPoolExecutor, settings: Settings) -> np.ndarray:
    """HᵀH [K, K] in float64, in an order of summation that does not depend on the number of cores."""
    size = table.shape[0]
    step = -(-size // GRAM_PARTS)
    starts = range(0, size, step)
    if _on_cpu():
        # BLAS computes half of a symmetric product, and on a CPU faster than XLA does the whole.
        rows = np.asarray(table)
        parts = pool.map(lambda at: rows[at : at + step].T @ rows[at : at + step], starts)
    else:
        parts = pool.map(lambda at: np.asarray(ials.gram_part(table, np.int32(at), min(step, size - at))), starts)
    gram = np.sum([part.astype(np.float64) for part in parts], axis=0)
    if not np.isfinite(gram).all():
        raise FitDiverged(_diverged(settings))
    return gram


def _rotated(table: jax.Array, basis: np.ndarray, pool: ThreadPoolExecutor) -> jax.Array:
    """The table [n, K] in the basis [K, K], float32, whose columns are the new axes."""
    if not _on_cpu():
        return ials.rotate(table, jnp.asarray(basis))
    rows = np.asarray(table)
    out = np.empty_like(rows)
    step = -(-len(rows) // ROTATION_PARTS)
    starts = range(0, len(rows), step)
    list(pool.map(lambda at: np.matmul(rows[at : at + step], basis, out=out[at : at + step]), starts))
    return jnp.asarray(out)


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _diverged(settings: Settings) -> str:
    return (
        f"the factors are not finite (regularization={settings.objective.regularization}, "
        f"unobserved_weight={settings.objective.unobserved_weight}, largest weights may be too large): "
        "raise the regularization, or scale the weights down to around 1"
    )


def _loss(
    user_items: sparse.csr_array,
    users: _Side,
    items: _Side,
    w: jax.Array,
    h: jax.Array,
    prior: RidgePrior | None,
    settings: Settings,
) -> float:
    """The whole objective (see ials.py) and the prior's penalty: observed entries in float32, the rest in float64."""
    rows = np.repeat(users.histories.position, np.diff(user_items.indptr)).astype(np.int32)
    columns = items.histories.position[user_items.indices].astype(np.int32)
    padding = -len(rows) % LOSS_CHUNK
    rows, columns = np.pad(rows, (0, padding)), np.pad(columns, (0, padding))
    weights = np.pad(user_items.data, (0, padding))
    total = 0.0
    for at in range(0, len(rows), LOSS_CHUNK):
        chunk = slice(at, at + LOSS_CHUNK)
        total += float(ials.observed_loss(w, h, rows[chunk], columns[chunk], weights[chunk]))
    wide_w, wide_h = np.asarray(w, np.float64), np.asarray(h, np.float64)
    total += settings.objective.unobserved_weight * float(np.sum((wide_w.T @ wide_w) * (wide_h.T @ wide_h)))
    total += float(np.asarray(users.ridge, np.float64) @ np.sum(wide_w**2, axis=1))
    if prior is not None:
        item_rows = items.histories.from_table(np.asarray(h))
        coefficients = prior.fit(item_rows)
        wide_h = wide_h - items.histories.to_table(prior.predict(coefficients))
        total += settings.objective.regularization * prior.penalty(coefficients)
    return total + float(np.asarray(items.ridge, np.float64) @ np.sum(wide_h**2, axis=1))
