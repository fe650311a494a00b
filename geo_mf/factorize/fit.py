"""The loop of the implicit factorization: devices, threads, progress, divergence. The mathematics is in ials.py."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse
from tqdm.auto import tqdm

from geo_mf import threads as cores
from geo_mf.errors import FitDiverged
from geo_mf.factorize import ials
from geo_mf.factorize.checkpoint import Checkpoint, State
from geo_mf.factorize.histories import TILE_BYTES, Histories, prepare
from geo_mf.factorize.matrices import shape
from geo_mf.factorize.memory import on_device
from geo_mf.factorize.tables import DeviceTables, HostTables, Tables
from geo_mf.geometry.prior import RidgePrior

Callback = Callable[[int, float, float | None], object]
"""Called after each epoch with its number, its seconds and its loss (None unless the loss was asked for)."""

Watch = Callable[[int, Callable[[], tuple[np.ndarray, np.ndarray]]], object]
"""Called after each epoch with its number and a function that gives the user and item factors of that moment, float32
[users, K] and [items, K]; FitDiverged where they are not finite. They are copied only when it is called."""

ACCELERATOR_TILE_BYTES = 64 * 1024 * 1024
"""An accelerator wants a tile that fills it, not one that fits a core's cache."""

LOSS_CHUNK = 1 << 16


@dataclass(frozen=True)
class Settings:
    """How to fit.

    Attributes:
        rank: length K of a factor.
        objective: the numbers of the objective.
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
class Priors:
    """The regressions of factors on features, for the sides that have any.

    Attributes:
        items: is refitted before every item half-epoch.
        users: is refitted before every user half-epoch.
    """

    items: RidgePrior | None = None
    users: RidgePrior | None = None

    @classmethod
    def of(
        cls,
        user_items: sparse.csr_array,
        objective: ials.Objective,
        alpha: float,
        item_features: np.ndarray | None,
        user_features: np.ndarray | None = None,
    ) -> "Priors":
        """For a training matrix [users, items]: a row that has interactions weighs r_x; `alpha` as in `RidgePrior`."""
        items = users = None
        if item_features is not None:
            items = RidgePrior.of(item_features, item_weights(user_items, len(item_features), objective), alpha)
        if user_features is not None:
            weights = _weights(np.diff(user_items.indptr), shape(user_items)[1], objective)
            users = RidgePrior.of(user_features, weights, alpha, "user")
        return cls(items, users)


@dataclass(frozen=True)
class Factors:
    """A fitted factorization.

    Attributes:
        users: float32 [users, K].
        items: float32 [items, K].
        coefficients: float32 [dim + 1, K] or None, the regression of the items' factors.
        losses: the objective after each epoch, if it was asked for.
        user_coefficients: float32 [dim + 1, K] or None, the regression that the users were last solved with: users come
            last, and so their factors are the row solves with this prior, as a fold-in gives them.
    """

    users: np.ndarray
    items: np.ndarray
    coefficients: np.ndarray | None = None
    losses: list[float] = field(default_factory=list)
    user_coefficients: np.ndarray | None = None


NO_PRIORS = Priors()
"""Neither side has features."""


@dataclass(frozen=True)
class _Call:
    """The arguments of one `solve_rows` call that stay the same in every epoch, on the device."""

    start: int
    count: int
    columns: jax.Array
    weights: jax.Array
    lengths: jax.Array

    @property
    def rows(self) -> int:
        """Rows of the table that it solves."""
        return self.count * self.lengths.shape[1]


@dataclass(frozen=True)
class _Side:
    histories: Histories
    calls: list[_Call]
    ridge: jax.Array

    @classmethod
    def of(cls, histories: Histories, other: Histories, objective: ials.Objective) -> "_Side":
        calls = []
        for bucket in histories.buckets:
            for number, (start, count) in enumerate(zip(bucket.starts, bucket.counts, strict=True)):
                same = jnp.float32(histories.weight)
                weights = same if bucket.weights is None else on_device(bucket.weights[number])
                columns, lengths = on_device(bucket.columns[number]), on_device(bucket.lengths[number])
                calls.append(_Call(int(start), int(count), columns, weights, lengths))
        ridge = objective.ridge(histories.table_lengths, len(other.lengths))
        return cls(histories, calls, jnp.asarray(ridge))


def item_weights(user_items: sparse.csr_array, items: int, objective: ials.Objective) -> np.ndarray:
    """float64 [items]: r_i, what each item weighs in a regression of its factor; 0 for an untouched item."""
    return _weights(np.bincount(user_items.indices, minlength=items), len(user_items.indptr) - 1, objective)


def _weights(lengths: np.ndarray, other_size: int, objective: ials.Objective) -> np.ndarray:
    """float64 [rows]: r_x of rows with so many interactions; 0 without any."""
    return objective.ridge(lengths, other_size) / objective.regularization * (lengths > 0)


def fit(
    user_items: sparse.csr_array,
    settings: Settings,
    start: Callable[[], tuple[np.ndarray, np.ndarray]],
    priors: Priors = NO_PRIORS,
    callback: Callback | None = None,
    checkpoint: Checkpoint | None = None,
    watch: Watch | None = None,
) -> Factors:
    """Factorize implicit feedback.

    Args:
        user_items: float32 CSR [users, items], positive weights, no duplicates.
        settings: rank, objective, epochs, solver.
        start: makes user factors [users, K] and item factors [items, K] to start from.
        priors: regressions of factors on features.
        callback: called after each epoch.
        checkpoint: where to keep the state after an epoch, and to go on from.
        watch: may look at the factors after each epoch; what it raises ends the fit.

    Raises:
        FitDiverged: a factor is infinite or NaN.
        InvalidInput: the checkpoint belongs to another fit, or is further than `settings.epochs`.
    """
    kept = None if checkpoint is None else checkpoint.read(settings.epochs)
    done, losses = (0, []) if kept is None else (kept.epochs, kept.losses)
    rows, columns = prepare(user_items, settings.rank, tile_bytes())
    users = _Side.of(rows, columns, settings.objective)
    items = _Side.of(columns, rows, settings.objective)
    if not all(np.isfinite(side.ridge).all() for side in (users, items)):
        raise FitDiverged(_diverged(settings))
    threads = (settings.threads or cores.count()) if _on_cpu() else 1
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=settings.epochs, desc="factorize", unit="epoch", disable=not settings.progress) as bar,
    ):
        tables = HostTables(pool) if _on_cpu() else DeviceTables()
        w, h = start() if kept is None else (kept.users, kept.items)
        # Of the users' last half-epoch: a fit that has none left to do cannot find them again.
        told = None if kept is None else kept.user_coefficients
        if told is None and priors.users is not None:
            told = priors.users.fit(w)
        w = tables.hold(rows.to_table(w), rows.size)
        h = tables.hold(columns.to_table(h), columns.size)
        bar.update(done)
        for epoch in range(done, settings.epochs):
            began = time.perf_counter()
            # Users last: their factors are then the row solves against the final items, as a fold-in gives them.
            h, w, _ = _half_epoch(items, users, h, w, priors.items, settings, tables)
            w, h, told = _half_epoch(users, items, w, h, priors.users, settings, tables)
            w.block_until_ready()
            seconds = time.perf_counter() - began
            loss = None
            if settings.loss:
                loss = _loss(user_items, users, items, w, h, priors, settings)
                losses.append(loss)
                bar.set_postfix(loss=f"{loss:.6g}")
            if callback is not None:
                callback(epoch, seconds, loss)
            if watch is not None:
                watch(epoch, partial(_finite_rows, rows, columns, w, h, settings))
            bar.update()
            if checkpoint is not None and (epoch + 1 == settings.epochs or checkpoint.due()):
                checkpoint.write(State(epoch + 1, *_finite_rows(rows, columns, w, h, settings), losses, told))
    user_rows, item_rows = _finite_rows(rows, columns, w, h, settings)
    coefficients = None if priors.items is None else priors.items.fit(item_rows)
    return Factors(user_rows, item_rows, coefficients, losses, told)


def _finite_rows(
    users: Histories, items: Histories, w: jax.Array, h: jax.Array, settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
    """Both tables in the matrix's order; FitDiverged where a number is infinite or NaN."""
    user_rows, item_rows = users.from_table(np.asarray(w)), items.from_table(np.asarray(h))
    if not (np.isfinite(user_rows).all() and np.isfinite(item_rows).all()):
        raise FitDiverged(_diverged(settings))
    return user_rows, item_rows


def _half_epoch(
    side: _Side,
    other: _Side,
    solved: jax.Array,
    fixed: jax.Array,
    prior: RidgePrior | None,
    settings: Settings,
    tables: Tables,
) -> tuple[jax.Array, jax.Array, np.ndarray | None]:
    """Solve one side's table against the other. Both come back in the fixed side's eigenbasis, in which scores are the
    same, and so do the coefficients of the prior, if there is one."""
    gram = tables.gram(fixed, other.histories.size)
    if not np.isfinite(gram).all():
        raise FitDiverged(_diverged(settings))
    eigenvalues, basis = np.linalg.eigh(gram)
    axes = basis.astype(np.float32)
    fixed = tables.rotated(fixed, other.histories.size, axes)
    spectrum = (settings.objective.unobserved_weight * np.maximum(eigenvalues, 0)).astype(np.float32)
    expected = coefficients = None
    if prior is not None:
        coefficients = prior.fit(side.histories.from_table(np.asarray(solved))) @ axes
        expected = tables.hold(side.histories.to_table(prior.predict(coefficients)), side.histories.size)
    half = ials.HalfEpoch(fixed, jnp.asarray(spectrum), side.ridge, expected)

    def solve(call: _Call) -> jax.Array:
        return ials.solve_rows(
            half,
            np.int32(call.start),
            np.int32(call.count),
            call.columns,
            call.weights,
            call.lengths,
            settings.solver,
            settings.steps,
        )

    pieces = [(call.start, call.rows, partial(solve, call)) for call in side.calls]
    first = sum(bucket.rows for bucket in side.histories.buckets)
    empty = np.zeros((side.histories.size - first, settings.rank), np.float32)
    if expected is not None:
        here = slice(first, side.histories.size)
        empty = ials.empty_rows(spectrum, np.asarray(side.ridge)[here], np.asarray(expected[here]))
    return tables.joined((side.histories.capacity, settings.rank), pieces, (first, empty)), fixed, coefficients


def tile_bytes() -> int:
    """Gathered factors of one tile on this device."""
    return TILE_BYTES if _on_cpu() else ACCELERATOR_TILE_BYTES


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
    priors: Priors,
    settings: Settings,
) -> float:
    """The whole objective (see ials.py) and the priors' penalties: observed entries in float32, the rest in float64."""
    rows = np.repeat(users.histories.position, np.diff(user_items.indptr)).astype(np.int32)
    columns = items.histories.position[user_items.indices].astype(np.int32)
    padding = -len(rows) % LOSS_CHUNK
    rows, columns = np.pad(rows, (0, padding)), np.pad(columns, (0, padding))
    weights = np.pad(user_items.data, (0, padding))
    total = 0.0
    for at in range(0, len(rows), LOSS_CHUNK):
        chunk = slice(at, at + LOSS_CHUNK)
        total += float(ials.observed_loss(w, h, rows[chunk], columns[chunk], weights[chunk]))
    wide_w = np.asarray(w)[: users.histories.size].astype(np.float64)
    wide_h = np.asarray(h)[: items.histories.size].astype(np.float64)
    total += settings.objective.unobserved_weight * float(np.sum((wide_w.T @ wide_w) * (wide_h.T @ wide_h)))
    for side, table, wide, prior in ((users, w, wide_w, priors.users), (items, h, wide_h, priors.items)):
        if prior is not None:
            coefficients = prior.fit(side.histories.from_table(np.asarray(table)))
            wide = wide - side.histories.to_table(prior.predict(coefficients))[: len(wide)]
            total += settings.objective.regularization * prior.penalty(coefficients)
        total += float(np.asarray(side.ridge, np.float64)[: len(wide)] @ np.sum(wide**2, axis=1))
    return total
