"""How long an epoch takes on this machine, as busy as it is now: a few of its own calls, tried on made-up numbers."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np

from geo_mf import threads as cores
from geo_mf.factorize import ials
from geo_mf.factorize.fit import Settings
from geo_mf.factorize.histories import Layout, Shape, Side
from geo_mf.factorize.memory import aligned, on_device
from geo_mf.factorize.tables import ROTATION_ROWS

TRIED_TABLE_BYTES = 2**28
"""The largest table that the calls read from: beyond it every cache has long been missed."""

ROUNDS = 3
TRIED_SECONDS = 0.05
"""Work of a round, at least."""


def epoch(layout: Layout, settings: Settings, features: tuple[int, int], uniform: bool) -> tuple[float, float, float]:
    """Seconds of an epoch that grow with the rows, its other seconds, and those of compiling.

    Two shapes of each side are tried, and the dense products. `features` is how many numbers the features of an
    item and of a user have, `uniform` whether all weights are equal.
    """
    threads = settings.threads or cores.count()
    with ThreadPoolExecutor(threads) as pool:
        sides = (layout.users, layout.items), (layout.items, layout.users)
        solving = [_solving(side, other, settings, (layout.capacity, uniform), pool, threads) for side, other in sides]
        products, eigenvectors = _dense(layout, settings.rank, pool, threads)
    rows = sum(of_side[0] for of_side in solving) + products
    for side, width in zip((layout.items, layout.users), features, strict=True):
        if width:
            rows += 2 * _product(side.size, width + 1, settings.rank)
    tried = [one for of_side in solving for one in of_side[1]]
    compiling = float(np.mean(tried)) * len(layout.shapes) / min(threads, 2) if tried else 0.0
    return rows, eigenvectors, compiling


def _solving(
    side: Side, other: Side, settings: Settings, like: tuple[int, bool], pool: ThreadPoolExecutor, threads: int
) -> tuple[float, list[float]]:
    """Seconds of one side's row solves, and those that compiling a shape took.

    A call costs so much for each gathered number and so much for each row: both are found from the shape with the most
    slots and the one with the most rows. `like`: capacity of the table, and whether all weights are equal.
    """
    if not side.edges:
        return 0.0, []
    shapes = [shape for _, _, shape in side.edges]
    chosen = {max(shapes, key=_in_use), max(shapes, key=lambda shape: shape.used * shape.per_tile)}
    half = _half(other, settings, like[0])
    spread = np.cumsum(other.lengths[other.order], dtype=np.float64)
    costs, compiling = {}, []
    for shape in chosen:
        costs[shape], first = _call(shape, half, spread / spread[-1], settings, pool, threads, like[1])
        compiling.append(first)
    per_slot, per_row = _fitted(costs)
    total = sum(_in_use(shape) * per_slot + shape.used * shape.per_tile * per_row for shape in shapes)
    return total, compiling


def _in_use(shape: Shape) -> int:
    return shape.used * shape.per_tile * shape.width


def _fitted(costs: dict[Shape, float]) -> tuple[float, float]:
    """Seconds for each slot and each row from those of one tile of each shape; neither is negative."""
    counts = np.array([[shape.per_tile * shape.width, shape.per_tile] for shape in costs], np.float64)
    seconds = np.array(list(costs.values()))
    if len(costs) == 2 and np.linalg.matrix_rank(counts) == 2:
        slot, row = np.linalg.solve(counts, seconds)
        if slot >= 0 and row >= 0:
            return float(slot), float(row)
    return float(seconds.sum() / counts[:, 0].sum()), 0.0


def _half(other: Side, settings: Settings, capacity: int) -> ials.HalfEpoch:
    """Something to solve against, of the real size as far as that matters."""
    rows = min(other.size, max(1, TRIED_TABLE_BYTES // (4 * settings.rank)))
    table = aligned((capacity, settings.rank))
    table[:rows] = np.random.default_rng(0).standard_normal((rows, settings.rank), np.float32) * 0.1
    return ials.HalfEpoch(on_device(table), jnp.ones(settings.rank, jnp.float32), jnp.ones(capacity, jnp.float32), None)


def _call(
    shape: Shape,
    half: ials.HalfEpoch,
    cumulative: np.ndarray,
    settings: Settings,
    pool: ThreadPoolExecutor,
    threads: int,
    uniform: bool,
) -> tuple[float, float]:
    """Seconds of one tile with all threads busy, and of the first call, which compiles."""
    random = np.random.default_rng(0)
    rows = max(1, TRIED_TABLE_BYTES // (4 * settings.rank))
    tiles = (shape.room, shape.per_tile, shape.width)
    columns = np.minimum(np.searchsorted(cumulative, random.random(tiles)), min(rows, len(cumulative)) - 1)
    lengths = np.full(tiles[:2], shape.width, np.int32)
    weights = jnp.float32(1) if uniform else on_device(np.ones(tiles, np.float32))
    arguments = (on_device(columns.astype(np.int32)), weights, on_device(lengths))
    used = max(1, min(shape.room, shape.used // max(1, shape.calls)))

    def solve() -> float:
        began = time.perf_counter()
        ials.solve_rows(
            half, np.int32(0), np.int32(used), *arguments, settings.solver, settings.steps
        ).block_until_ready()
        return time.perf_counter() - began

    first, once = solve(), solve()
    several = max(2, int(TRIED_SECONDS / once))
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        list(pool.map(lambda _: solve(), range(several * threads)))
        found.append((time.perf_counter() - began) / (several * threads * used))
    return min(found), first


def _dense(layout: Layout, rank: int, pool: ThreadPoolExecutor, threads: int) -> tuple[float, float]:
    """Seconds of the Gram matrices and rotations of one epoch, and of their eigenvectors."""
    rows = layout.users.size + layout.items.size
    part = np.random.default_rng(0).standard_normal((min(rows, ROTATION_ROWS), rank), np.float32)
    axes = np.eye(rank, dtype=np.float32)
    gram = _fastest(lambda: list(pool.map(lambda _: part.T @ part, range(threads)))) / threads
    turn = _fastest(lambda: list(pool.map(lambda _: part @ axes, range(threads)))) / threads
    eigen = _fastest(lambda: np.linalg.eigh((part.T @ part).astype(np.float64)))
    return (gram + turn) * rows / len(part), 2 * eigen


def _product(rows: int, width: int, rank: int) -> float:
    """Seconds of [rows, width] times [width, rank]."""
    part, other = np.ones((min(rows, 4096), width), np.float32), np.ones((width, rank), np.float32)
    return _fastest(lambda: part @ other) * rows / len(part)


def _fastest(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
