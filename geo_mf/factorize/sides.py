"""Both sides of a fit, as a device takes them: histories in its memory, and the calls that solve their rows.

A CPU solves one row after the other by conjugate gradients (one_row.py), each core its own rows. An accelerator wants
tiles of many rows (ials.py), and so does the exact solver, whose factorizations come from a library.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from geo_mf.factorize import blocks, histories, ials, one_row
from geo_mf.factorize.histories import TILE_BYTES, Histories, Places
from geo_mf.factorize.memory import on_device
from geo_mf.factorize.tables import Rows

ACCELERATOR_TILE_BYTES = 64 * 1024 * 1024
"""An accelerator wants a tile that fills it, not one that fits a core's cache."""


@dataclass(frozen=True)
class Call:
    """Rows of a table that one call solves.

    Attributes:
        where: which ones.
        rows: how many.
        solve: given what a half-epoch shares, at least so many rows, [rows, K].
    """

    where: Rows
    rows: int
    solve: Callable[[ials.HalfEpoch], jax.Array]


@dataclass(frozen=True)
class Side:
    """One side of a fit.

    Attributes:
        places: where its rows stand in its table.
        calls: which solve all rows that have a history.
        rest: the other rows of the table.
        ridge: float32 [capacity], lam r of each row of the table.
    """

    places: Places
    calls: list[Call]
    rest: Rows
    ridge: jax.Array


def on_cpu() -> bool:
    """Whether JAX computes on a CPU."""
    return jax.default_backend() == "cpu"


def row_by_row(solver: ials.Solver) -> bool:
    """Whether rows are solved one at a time here."""
    return on_cpu() and solver == "cg"


def tile_bytes() -> int:
    """Gathered factors of one tile on this device."""
    return TILE_BYTES if on_cpu() else ACCELERATOR_TILE_BYTES


def layout(
    user_lengths: np.ndarray, item_lengths: np.ndarray, rank: int, solver: ials.Solver
) -> blocks.Layout | histories.Layout:
    """How `prepare` pads histories of these lengths."""
    if row_by_row(solver):
        return blocks.Layout.of(user_lengths, item_lengths, rank)
    return histories.Layout.of(user_lengths, item_lengths, rank, tile_bytes())


def prepare(
    user_items: sparse.csr_array, rank: int, objective: ials.Objective, solver: ials.Solver, steps: int
) -> tuple[Side, Side]:
    """The users' side and the items' side of a float32 CSR matrix [users, items], for factors of length `rank`."""
    if row_by_row(solver):
        users, items = blocks.prepare(user_items, rank)
        calls = [_one_at_a_time(side, steps) for side in (users, items)]
        rest = [np.flatnonzero(side.lengths == 0) for side in (users, items)]
    else:
        users, items = histories.prepare(user_items, rank, tile_bytes())
        calls = [_in_tiles(side, solver, steps) for side in (users, items)]
        solved = [sum(call.rows for call in side) for side in calls]
        rest = [slice(solved[0], users.size), slice(solved[1], items.size)]
    return (
        Side(users.places, calls[0], rest[0], jnp.asarray(objective.ridge(users.table_lengths, len(items.lengths)))),
        Side(items.places, calls[1], rest[1], jnp.asarray(objective.ridge(items.table_lengths, len(users.lengths)))),
    )


def _one_at_a_time(side: blocks.Blocks, steps: int) -> list[Call]:
    weight = jnp.float32(side.weight)

    def solve(number: int, half: ials.HalfEpoch) -> jax.Array:
        (columns, weights), batch = side.histories(number), side.batches[number]
        given = columns, weight if weights is None else weights, batch.firsts, batch.places, np.int32(batch.count)
        return one_row.solve_span(half, *given, steps, side.block, side.spans[number].scratch)

    return [Call(batch.in_use, batch.count, partial(solve, number)) for number, batch in enumerate(side.batches)]


def _in_tiles(side: Histories, solver: ials.Solver, steps: int) -> list[Call]:
    def solve(arguments: tuple[np.int32 | jax.Array, ...], half: ials.HalfEpoch) -> jax.Array:
        return ials.solve_rows(half, *arguments, solver, steps)

    calls, same = [], jnp.float32(side.weight)
    for bucket in side.buckets:
        for number, (start, count) in enumerate(zip(bucket.starts.tolist(), bucket.counts.tolist(), strict=True)):
            weights = same if bucket.weights is None else on_device(bucket.weights[number])
            columns, lengths = on_device(bucket.columns[number]), on_device(bucket.lengths[number])
            arguments = (np.int32(start), np.int32(count), columns, weights, lengths)
            rows = count * bucket.lengths.shape[-1]
            calls.append(Call(slice(start, start + rows), rows, partial(solve, arguments)))
    return calls
