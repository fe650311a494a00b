"""The loop of the implicit factorization: devices, threads, progress, divergence. The mathematics is in ials.py."""

import time
from collections.abc import Callable, Iterable
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
from geo_mf.factorize.histories import Places
from geo_mf.factorize.matrices import shape
from geo_mf.factorize.sides import Side, on_cpu, prepare
from geo_mf.factorize.tables import DeviceTables, HostTables, Table, Tables
from geo_mf.geometry.prior import RidgePrior

Callback = Callable[[int, float, float | None], object]
"""Called after each epoch with its number, its seconds and its loss (None unless the loss was asked for)."""

Watch = Callable[[int, Callable[[], tuple[np.ndarray, np.ndarray]]], object]
"""Called after each epoch with its number and a function that gives the user and item factors of that moment, float32
[users, K] and [items, K]; FitDiverged where they are not finite. They are copied only when it is called, which has to
be before the next epoch."""

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
            users = RidgePrior.of(user_features, user_weights(user_items, objective), alpha, "user")
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


def item_weights(user_items: sparse.csr_array, items: int, objective: ials.Objective) -> np.ndarray:
    """float64 [items]: r_i, what each item weighs in a regression of its factor; 0 for an untouched item."""
    return _weights(np.bincount(user_items.indices, minlength=items), len(user_items.indptr) - 1, objective)


def user_weights(user_items: sparse.csr_array, objective: ials.Objective) -> np.ndarray:
    """float64 [users]: the same of each user."""
    return _weights(np.diff(user_items.indptr), shape(user_items)[1], objective)


def _weights(lengths: np.ndarray, other_size: int, objective: ials.Objective) -> np.ndarray:
    """float64 [rows]: r_x of rows with so many interactions; 0 without any."""
    return objective.ridge(lengths, other_size) / objective.regularization * (lengths > 0)


def fit(
    user_items: sparse.csr_array,
    settings: Settings,
    start: Callable[[], Iterable[np.ndarray]],
    priors: Priors = NO_PRIORS,
    callback: Callback | None = None,
    checkpoint: Checkpoint | None = None,
    watch: Watch | None = None,
) -> Factors:
    """Factorize implicit feedback.

    Args:
        user_items: float32 CSR [users, items], positive weights, no duplicates.
        settings: rank, objective, epochs, solver.
        start: makes user factors [users, K], then item factors [items, K] to start from, float32.
        priors: regressions of factors on features.
        callback: called after each epoch.
        checkpoint: where to keep the state after an epoch, and to go on from.
        watch: may look at the factors after each epoch; what it raises ends the fit.

    Raises:
        FitDiverged: a factor is infinite or NaN.
        InvalidInput: the checkpoint belongs to another fit, or is further than `settings.epochs`.
    """
    kept = None if checkpoint is None else checkpoint.read(settings.epochs)
    done, losses = (0, []) if kept is None else (kept.epochs, list(kept.told["losses"]))
    users, items = prepare(user_items, settings.rank, settings.objective, settings.solver, settings.steps)
    rows, columns = users.places, items.places

    def both(w: Table, h: Table) -> tuple[np.ndarray, np.ndarray]:
        return _finite_rows(rows, w, settings), _finite_rows(columns, h, settings)

    if not all(np.isfinite(side.ridge).all() for side in (users, items)):
        raise FitDiverged(_diverged(settings))
    threads = (settings.threads or cores.count()) if on_cpu() else 1
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=settings.epochs, desc="factorize", unit="epoch", disable=not settings.progress) as bar,
    ):
        tables = HostTables(pool) if on_cpu() else DeviceTables()
        given = iter(start() if kept is None else (kept.arrays["users"], kept.arrays["items"]))
        # Of the users' last half-epoch: a fit that has none left to do cannot find them again.
        told = None if kept is None else kept.arrays.get("user_coefficients")
        w = tables.hold(rows, next(given))
        if told is None and priors.users is not None:
            told = priors.users.fit(rows.from_table(np.asarray(w)))
        h = tables.hold(columns, next(given))
        bar.update(done)
        for epoch in range(done, settings.epochs):
            began = time.perf_counter()
            # Users last: their factors are then the row solves against the final items, as a fold-in gives them.
            h, w, _ = _half_epoch(items, users, h, w, priors.items, settings, tables)
            w, h, told = _half_epoch(users, items, w, h, priors.users, settings, tables)
            tables.read(w).block_until_ready()
            seconds = time.perf_counter() - began
            loss = None
            if settings.loss:
                loss = _loss(user_items, users, items, tables.read(w), tables.read(h), priors, settings)
                losses.append(loss)
                bar.set_postfix(loss=f"{loss:.6g}")
            if callback is not None:
                callback(epoch, seconds, loss)
            if watch is not None:
                watch(epoch, partial(both, w, h))
            bar.update()
            if checkpoint is not None and (epoch + 1 == settings.epochs or checkpoint.due()):
                found = both(w, h)
                arrays = {"users": found[0], "items": found[1]}
                arrays |= {} if told is None else {"user_coefficients": told}
                checkpoint.write(State(epoch + 1, arrays, {"losses": losses}))
    del users, items  # and with them the histories: a table and its rows in order need the memory
    user_rows = _finite_rows(rows, w, settings, last=True)
    del w
    item_rows = _finite_rows(columns, h, settings, last=True)
    coefficients = None if priors.items is None else priors.items.fit(item_rows)
    return Factors(user_rows, item_rows, coefficients, losses, told)


def _finite_rows(places: Places, table: Table, settings: Settings, last: bool = False) -> np.ndarray:
    """A table in the matrix's order; FitDiverged where a number is infinite or NaN. The `last` state of a table needs
    no copy where it has that order already, unless most of its memory is room for the other side's rows."""
    count = len(places.position)
    if last and isinstance(table, np.ndarray) and places.in_order and 2 * count > places.capacity:
        rows = table[:count]
    else:
        rows = places.from_table(np.asarray(table))
    if not np.isfinite([rows.min(), rows.max()]).all():  # a NaN is both
        raise FitDiverged(_diverged(settings))
    return rows


def _half_epoch(
    side: Side,
    other: Side,
    solved: Table,
    fixed: Table,
    prior: RidgePrior | None,
    settings: Settings,
    tables: Tables,
) -> tuple[Table, Table, np.ndarray | None]:
    """Solve one side's table against the other. Both come back in the fixed side's eigenbasis, in which scores are the
    same, and so do the coefficients of the prior, if there is one."""
    gram = tables.gram(fixed, other.places.size)
    if not np.isfinite(gram).all():
        raise FitDiverged(_diverged(settings))
    eigenvalues, basis = np.linalg.eigh(gram)
    axes = basis.astype(np.float32)
    fixed = tables.rotated(fixed, other.places.size, axes)
    spectrum = (settings.objective.unobserved_weight * np.maximum(eigenvalues, 0)).astype(np.float32)
    expected = coefficients = None
    if prior is not None:
        coefficients = prior.fit(side.places.from_table(np.asarray(solved))) @ axes
        expected = tables.hold(side.places, prior.predict(coefficients))
    pull = None if expected is None else tables.read(expected)
    half = ials.HalfEpoch(tables.read(fixed), jnp.asarray(spectrum), side.ridge, pull)

    pieces = [(call.where, call.rows, partial(call.solve, half)) for call in side.calls]
    ridge = np.asarray(side.ridge)[side.rest]
    empty = np.zeros((len(ridge), settings.rank), np.float32)
    if expected is not None:
        empty = ials.empty_rows(spectrum, ridge, np.asarray(expected[side.rest]))
    return tables.joined(solved, pieces, (side.rest, empty)), fixed, coefficients


def _diverged(settings: Settings) -> str:
    return (
        f"the factors are not finite (regularization={settings.objective.regularization}, "
        f"unobserved_weight={settings.objective.unobserved_weight}, largest weights may be too large): "
        "raise the regularization, or scale the weights down to around 1"
    )


def _loss(
    user_items: sparse.csr_array,
    users: Side,
    items: Side,
    w: jax.Array,
    h: jax.Array,
    priors: Priors,
    settings: Settings,
) -> float:
    """The whole objective (see ials.py) and the priors' penalties: observed entries in float32, the rest in float64."""
    rows = np.repeat(users.places.position, np.diff(user_items.indptr)).astype(np.int32)
    columns = items.places.position[user_items.indices].astype(np.int32)
    padding = -len(rows) % LOSS_CHUNK
    rows, columns = np.pad(rows, (0, padding)), np.pad(columns, (0, padding))
    weights = np.pad(user_items.data, (0, padding))
    total = 0.0
    for at in range(0, len(rows), LOSS_CHUNK):
        chunk = slice(at, at + LOSS_CHUNK)
        total += float(ials.observed_loss(w, h, rows[chunk], columns[chunk], weights[chunk]))
    wide_w = np.asarray(w)[: users.places.size].astype(np.float64)
    wide_h = np.asarray(h)[: items.places.size].astype(np.float64)
    total += settings.objective.unobserved_weight * float(np.sum((wide_w.T @ wide_w) * (wide_h.T @ wide_h)))
    for side, table, wide, prior in ((users, w, wide_w, priors.users), (items, h, wide_h, priors.items)):
        if prior is not None:
            coefficients = prior.fit(side.places.from_table(np.asarray(table)))
            wide = wide - side.places.to_table(prior.predict(coefficients))[: len(wide)]
            total += settings.objective.regularization * prior.penalty(coefficients)
        total += float(np.asarray(side.ridge, np.float64)[: len(wide)] @ np.sum(wide**2, axis=1))
    return total
