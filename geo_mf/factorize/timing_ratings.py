"""How long an epoch of a fit of ratings takes on this machine, as busy as it is now: a call of each of its shapes,
tried on made-up ratings.

Rows of different lengths are solved in different ways, so that no shape tells of another: each is compiled, a second
or so, several at once. A fit of the same shapes that follows in the same process finds them compiled.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geo_mf import threads as cores
from geo_mf.factorize import fit_ratings, histories, ratings, timing
from geo_mf.factorize.memory import aligned
from geo_mf.factorize.plan import Plan, Problem


def added(plan: Plan, problem: Problem, settings: fit_ratings.Settings) -> Plan:
    """The plan with its time: as it is where the memory is not there, and on accelerators."""
    if not plan.fits or jax.default_backend() != "cpu":
        return plan
    lengths = problem.user_lengths, problem.item_lengths
    layout = histories.Layout.of(*lengths, fit_ratings.GATHERED * settings.rank, histories.TILE_BYTES)
    seconds, compiling = epoch(layout, settings, problem.features, problem.uniform)
    return replace(plan, epoch_seconds=problem.part * seconds, compile_seconds=compiling)


def epoch(
    layout: histories.Layout, settings: fit_ratings.Settings, features: int, uniform: bool
) -> tuple[float, float]:
    """Seconds of an epoch, and those of compiling.

    Args:
        layout: of the ratings of both sides.
        settings: of the fit.
        features: numbers of an item's features, 0 for none.
        uniform: whether all ratings are equal.
    """
    threads = settings.threads or cores.count()
    total, calls = 0.0, list[tuple[histories.Shape, Callable[[], object]]]()
    with ThreadPoolExecutor(threads) as pool:
        for side, other in ((layout.items, layout.users), (layout.users, layout.items)):
            most = max((shape.room * shape.per_tile for _, _, shape in side.edges), default=0)
            half = _half(layout.capacity, most, other, settings, bool(features) and side is layout.items)
            spread = _spread(other)[: _rows(other, settings)]
            calls += [
                (shape, partial(ratings.solve_rows, half, *_tiles(shape, spread, uniform)))
                for _, _, shape in side.edges
            ]
        began = time.perf_counter()
        list(pool.map(lambda call: jax.block_until_ready(call[1]()), calls))
        first = time.perf_counter() - began
        for shape, call in calls:
            total += timing.busy(call, pool, threads)[0] * shape.used / _in_use(shape)
    width = settings.rank + 1 + (2 * settings.rank + 1 if settings.objective.variational else 0)
    total += timing.copying((layout.users.size + layout.items.size) * width)
    if features:
        total += 2 * timing.product(layout.items.size, features + 1, settings.rank + 1)
    return total, first


def _half(
    capacity: int, solved: int, fixed: histories.Side, settings: fit_ratings.Settings, prior: bool
) -> ratings.HalfEpoch:
    """What a half-epoch would share. Only rows that a call reads hold numbers: those of the fixed side, and the first
    `solved` of the other."""
    rank, rows = settings.rank, _rows(fixed, settings)

    def table(width: int, value: float) -> jax.Array:
        numbers = aligned((capacity, width))
        numbers[: max(rows, solved)] = value
        return jnp.asarray(numbers)

    mean = aligned((capacity, rank + 1))
    mean[:rows] = np.random.default_rng(0).standard_normal((rows, rank + 1), np.float32) * 0.1
    spread = table(2 * rank + 1, 0.01) if settings.objective.variational else None
    ridge = table(rank + 1, settings.objective.regularization)
    fixed_side = ratings.Posterior(jnp.asarray(mean), spread)
    return ratings.HalfEpoch(fixed_side, ridge, table(rank + 1, 0.0) if prior else None, jnp.float32(1), jnp.float32(1))


def _rows(side: histories.Side, settings: fit_ratings.Settings) -> int:
    """Rows of a table that are read from: all, or as many as no cache holds."""
    return min(side.size, max(1, timing.TRIED_TABLE_BYTES // (4 * fit_ratings.GATHERED * settings.rank)))


def _spread(side: histories.Side) -> np.ndarray:
    """float64 [size], how likely each row of a table is read, added up."""
    ordered = np.zeros(side.size)
    ordered[side.position] = side.lengths
    return np.cumsum(ordered)


def _in_use(shape: histories.Shape) -> int:
    """Tiles in use in a call."""
    return max(1, shape.used // shape.calls)


def _tiles(shape: histories.Shape, spread: np.ndarray, uniform: bool) -> tuple[np.int32, np.int32, Any, Any, Any]:
    """What a call is given: full histories, in as many tiles as it uses."""
    tiles = shape.room, shape.per_tile, shape.width
    drawn = np.random.default_rng(0).random(tiles) * spread[-1]
    columns = np.minimum(np.searchsorted(spread, drawn), len(spread) - 1).astype(np.int32)
    targets = jnp.float32(2) if uniform else jnp.full(tiles, 2, jnp.float32)
    lengths = jnp.full(tiles[:2], shape.width, jnp.int32)
    return np.int32(0), np.int32(_in_use(shape)), jnp.asarray(columns), targets, lengths
