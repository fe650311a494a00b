"""How long an epoch takes on this machine, as busy as it is now: a few of its own calls, tried on made-up numbers."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from geo_mf import threads as cores
from geo_mf.factorize import blocks, histories, ials, one_row
from geo_mf.factorize.fit import Settings
from geo_mf.factorize.memory import aligned, on_device
from geo_mf.factorize.tables import ROTATION_ROWS

TRIED_TABLE_BYTES = 2**28
"""The largest table that the calls read from: beyond it every cache has long been missed."""

ROUNDS = 3
TRIED_SECONDS = 0.05
"""Work of a round, at least."""

TRIED_SPANS = 4
"""Calls tried of a side whose rows are solved one at a time, from its longest histories to its shortest."""


@dataclass(frozen=True)
class _Trial:
    """What is tried against one side.

    Attributes:
        half: something to solve against, of the real size as far as that matters.
        spread: float64, how likely each row of its table is read, added up.
        settings: of the fit.
        uniform: whether all weights are equal.
        pool: as many threads as the fit will have.
        threads: how many.
    """

    half: ials.HalfEpoch
    spread: np.ndarray
    settings: Settings
    uniform: bool
    pool: ThreadPoolExecutor
    threads: int

    @classmethod
    def of(
        cls, lengths: np.ndarray, capacity: int, settings: Settings, uniform: bool, pool: ThreadPoolExecutor
    ) -> "_Trial":
        """Against rows with so many interactions, in the order of their table."""
        rows = min(len(lengths), max(1, TRIED_TABLE_BYTES // (4 * settings.rank)))
        table = aligned((capacity, settings.rank))
        table[:rows] = np.random.default_rng(0).standard_normal((rows, settings.rank), np.float32) * 0.1
        table[-1] = 0
        ones = jnp.ones(settings.rank, jnp.float32), jnp.ones(capacity, jnp.float32)
        spread = np.cumsum(lengths[:rows], dtype=np.float64)
        threads = settings.threads or cores.count()
        return cls(ials.HalfEpoch(on_device(table), *ones, None), spread / spread[-1], settings, uniform, pool, threads)

    def columns(self, count: int) -> np.ndarray:
        """int32 [count], places in the table, as often as they would be read."""
        found = np.searchsorted(self.spread, np.random.default_rng(0).random(count))
        return np.minimum(found, len(self.spread) - 1).astype(np.int32)

    def seconds(self, call: Callable[[], object]) -> tuple[float, float]:
        """Of `busy`, with the threads of the fit."""
        return busy(call, self.pool, self.threads)


def busy(call: Callable[[], object], pool: ThreadPoolExecutor, threads: int) -> tuple[float, float]:
    """Seconds of a call with all threads busy, and of its first time, which compiles."""

    def once() -> float:
        began = time.perf_counter()
        jax.block_until_ready(call())
        return time.perf_counter() - began

    first, again = once(), once()
    several = max(2, int(TRIED_SECONDS / again)) * threads
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        list(pool.map(lambda _: once(), range(several)))
        found.append((time.perf_counter() - began) / several)
    return min(found), first


def epoch(
    layout: blocks.Layout | histories.Layout, settings: Settings, features: tuple[int, int], uniform: bool
) -> tuple[float, float, float]:
    """Seconds of an epoch that grow with the rows, its other seconds, and those of compiling.

    A few calls of each side are tried, and the dense products. `features` is how many numbers the features of an
    item and of a user have, `uniform` whether all weights are equal.
    """
    threads = settings.threads or cores.count()
    with ThreadPoolExecutor(threads) as pool:
        rows, compiling = 0.0, list[float]()
        for side, other in ((layout.users, layout.items), (layout.items, layout.users)):
            if side.lengths.any():
                ordered = np.zeros(other.size)
                ordered[other.position] = other.lengths
                trial = _Trial.of(ordered, layout.capacity, settings, uniform, pool)
                spent, first = _one_at_a_time(side, trial) if isinstance(side, blocks.Side) else _in_tiles(side, trial)
                rows, compiling = rows + spent, compiling + first
        products, eigenvectors = _dense(layout.users.size + layout.items.size, settings.rank, pool, threads)
    rows += products
    for side, width in zip((layout.items, layout.users), features, strict=True):
        if width:
            rows += 2 * product(side.size, width + 1, settings.rank)
    compiled = max(compiling) * layout.programs / min(threads, 2) if compiling else 0.0
    return rows, eigenvectors, compiled


def _one_at_a_time(side: blocks.Side, trial: _Trial) -> tuple[float, list[float]]:
    """Seconds of one side's row solves, and those that compiling took: each part of its work costs what a call in its
    middle does."""
    work = np.cumsum([span.blocks for span in side.spans])
    middles = (np.arange(TRIED_SPANS) + 0.5) / TRIED_SPANS * work[-1]
    total, compiling, rank = 0.0, [], trial.settings.rank
    batches = list(blocks.batches(side, rank, np.r_[0, np.cumsum(side.lengths)]))
    for number in np.searchsorted(work, middles).tolist():
        span, taken = side.spans[number], batches[number]
        columns = trial.columns(side.block * (span.room + 1))
        weights = jnp.float32(1) if trial.uniform else np.ones(len(columns), np.float32)
        arguments = columns, weights, taken.firsts, taken.places, np.int32(taken.count)
        sizes = (trial.settings.steps, side.block, span.scratch)
        spent, first = trial.seconds(partial(one_row.solve_span, trial.half, *arguments, *sizes))
        total += spent * work[-1] / TRIED_SPANS / span.blocks
        compiling.append(first)
    return total, compiling


def _in_tiles(side: histories.Side, trial: _Trial) -> tuple[float, list[float]]:
    """The same where tiles of rows are solved. A call costs so much for each gathered number and so much for each row:
    both are found from the shape with the most slots and the one with the most rows."""
    shapes = [shape for _, _, shape in side.edges]
    chosen = {max(shapes, key=_in_use), max(shapes, key=lambda shape: shape.used * shape.per_tile)}
    costs, compiling = {}, []
    for shape in chosen:
        costs[shape], first = _tile(shape, trial)
        compiling.append(first)
    per_slot, per_row = _fitted(costs)
    return sum(_in_use(shape) * per_slot + shape.used * shape.per_tile * per_row for shape in shapes), compiling


def _in_use(shape: histories.Shape) -> int:
    return shape.used * shape.per_tile * shape.width


def _fitted(costs: dict[histories.Shape, float]) -> tuple[float, float]:
    """Seconds for each slot and each row from those of one tile of each shape; neither is negative."""
    counts = np.array([[shape.per_tile * shape.width, shape.per_tile] for shape in costs], np.float64)
    seconds = np.array(list(costs.values()))
    if len(costs) == 2 and np.linalg.matrix_rank(counts) == 2:
        slot, row = np.linalg.solve(counts, seconds)
        if slot >= 0 and row >= 0:
            return float(slot), float(row)
    return float(seconds.sum() / counts[:, 0].sum()), 0.0


def _tile(shape: histories.Shape, trial: _Trial) -> tuple[float, float]:
    """Seconds of one tile with all threads busy, and of the first call, which compiles."""
    tiles = (shape.room, shape.per_tile, shape.width)
    columns = trial.columns(shape.room * shape.per_tile * shape.width).reshape(tiles)
    lengths = np.full(tiles[:2], shape.width, np.int32)
    weights = jnp.float32(1) if trial.uniform else on_device(np.ones(tiles, np.float32))
    used = max(1, min(shape.room, shape.used // max(1, shape.calls)))
    arguments = (np.int32(0), np.int32(used), on_device(columns), weights, on_device(lengths))
    how = (trial.settings.solver, trial.settings.steps)
    spent, first = trial.seconds(partial(ials.solve_rows, trial.half, *arguments, *how))
    return spent / used, first


def _dense(rows: int, rank: int, pool: ThreadPoolExecutor, threads: int) -> tuple[float, float]:
    """Seconds of the Gram matrices and rotations of one epoch, and of their eigenvectors."""
    part = np.random.default_rng(0).standard_normal((min(rows, ROTATION_ROWS), rank), np.float32)
    axes = np.eye(rank, dtype=np.float32)
    gram = fastest(lambda: list(pool.map(lambda _: part.T @ part, range(threads)))) / threads
    turn = fastest(lambda: list(pool.map(lambda _: part @ axes, range(threads)))) / threads
    eigen = fastest(lambda: np.linalg.eigh((part.T @ part).astype(np.float64)))
    return (gram + turn) * rows / len(part), 2 * eigen


def product(rows: int, width: int, rank: int) -> float:
    """Seconds of [rows, width] times [width, rank]."""
    part, other = np.ones((min(rows, 4096), width), np.float32), np.ones((width, rank), np.float32)
    return fastest(lambda: part @ other) * rows / len(part)


def copying(numbers: int) -> float:
    """Seconds of a copy of so many float32."""
    part = np.ones(max(1, min(numbers, 2**22)), np.float32)
    return fastest(part.copy) * numbers / len(part)


def fastest(work: Callable[[], object]) -> float:
    """Seconds of some work, the best of a few times."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
