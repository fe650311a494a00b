"""Row solves on a CPU, one row at a time: conjugate gradients whose every step passes once over the history.

The same system and the same steps as `ials.solve_rows`, which solves tiles of many rows. Here a history is gathered
once, into a scratch memory that fits a second-level cache, and a step takes it block by block: what the block sees of
the direction, and what that adds to the product, while the block is in the first-level cache. Loops have as many turns
as a row has blocks, so that one compiled program serves histories of every length.
"""

from functools import partial

import jax
import jax.numpy as jnp

from geo_mf.factorize.cores import ONE_CORE, in_one_piece
from geo_mf.factorize.ials import HalfEpoch

LANES = 16
"""Sums that run side by side in a sum over a vector: a register of 512 bits."""


@partial(jax.jit, static_argnames=("steps", "block", "scratch"), compiler_options=ONE_CORE)
def solve_span(
    half: HalfEpoch,
    columns: jax.Array,
    weights: jax.Array,
    firsts: jax.Array,
    rows: jax.Array,
    count: jax.Array,
    steps: int,
    block: int,
    scratch: int,
) -> jax.Array:
    """Solve rows whose histories stand one after the other.

    Args:
        half: what the rows share. The last row of `fixed` is zero.
        columns: int32 [slots], places in `half.fixed`. At least a block of slots is not in use, at the end.
        weights: float32 [slots], all finite that a block may reach, or a scalar when all weights are equal.
        firsts: int32 [most + 1], where each row's history begins, and where the last one ends.
        rows: int32 [most], places in the side's table.
        count: int32 scalar, how many rows.
        steps: conjugate gradient steps after the first.
        block: interactions taken at once.
        scratch: blocks that a history may have, at least 2.

    Returns:
        float32 [most, K], the first `count` of them solved.
    """
    last, rank = half.fixed.shape[0] - 1, half.fixed.shape[1]

    def row(number: jax.Array, kept: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        place, first = rows[number], firsts[number]
        interactions = firsts[number + 1] - first
        blocks = (interactions + block - 1) // block
        ridge = half.ridge[place]
        diagonal = half.spectrum + ridge
        inverse = 1 / diagonal

        def part(gathered: jax.Array, at: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(gathered, at * block, block)

        def of(given: jax.Array, at: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(given, first + at * block, block)

        def weighted(at: jax.Array, values: jax.Array) -> jax.Array:
            return of(weights, at) * values if weights.ndim else values

        def gather(at: jax.Array, kept: tuple[jax.Array, jax.Array], whole: bool) -> tuple[jax.Array, jax.Array]:
            """Take in a block, and add it to Xᵀ C 1 while it is near."""
            which = of(columns, at)
            if not whole:
                which = jnp.where(jnp.arange(block, dtype=jnp.int32) < interactions - at * block, which, last)
            x = half.fixed.at[which].get(mode="promise_in_bounds")
            gathered = jax.lax.dynamic_update_slice_in_dim(kept[0], x, at * block, axis=0)
            x = part(gathered, at)
            return gathered, kept[1] + (of(weights, at) @ x if weights.ndim else jnp.sum(x, axis=0))

        zero = jnp.zeros(rank, jnp.float32)
        # All blocks but the last are whole: to look at every place of them takes 6 % of an epoch.
        state = jax.lax.fori_loop(0, interactions // block, partial(gather, whole=True), (kept[0], zero))
        gathered, residual = jax.lax.fori_loop(interactions // block, blocks, partial(gather, whole=False), state)
        residual = _scaled(weights, residual)

        def passed(direction: jax.Array) -> jax.Array:
            """Xᵀ C X direction."""

            def add(at: jax.Array, total: jax.Array) -> jax.Array:
                x = part(gathered, at)
                return total + weighted(at, x @ direction) @ x

            return _scaled(weights, jax.lax.fori_loop(0, blocks, add, zero))

        def curvature(direction: jax.Array) -> jax.Array:
            """<direction, Xᵀ C X direction>."""

            def add(at: jax.Array, total: jax.Array) -> jax.Array:
                seen = part(gathered, at) @ direction
                return total + weighted(at, seen) @ seen

            return _scaled(weights, jax.lax.fori_loop(0, blocks, add, jnp.float32(0)))

        w = zero
        if half.prior is not None:
            w = _row(half.prior, place)
            residual = residual + ridge * w - diagonal * w - passed(w)
        z = inverse * residual

        def step(_: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            w, residual, direction, square = state
            product = passed(direction) + diagonal * direction
            length = _length(square, _dot(product, direction))
            w, residual = w + length * direction, residual - length * product
            z = inverse * residual
            smaller = _dot(residual, z)
            return w, residual, z + smaller / jnp.where(square > 0, square, 1) * direction, smaller

        state = (w, residual, z, _dot(residual, z))
        w, _, direction, square = jax.lax.fori_loop(0, steps, step, state)
        # The last step needs no new residual, and so only half of a pass.
        length = _length(square, _dot(diagonal * direction, direction) + curvature(direction))
        solved = jax.lax.dynamic_update_index_in_dim(kept[1], w + length * direction, number, axis=0)
        return gathered, solved

    def every(count: jax.Array) -> jax.Array:
        kept = jnp.zeros((scratch * block, rank), jnp.float32), jnp.zeros((len(rows), rank), jnp.float32)
        return jax.lax.fori_loop(0, count, row, kept)[1]

    return in_one_piece(every, count)


def _row(table: jax.Array, number: jax.Array) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(table, number, axis=0, keepdims=False)


def _scaled(weights: jax.Array, total: jax.Array) -> jax.Array:
    """A sum over the history, which is still without its weight where all weights are equal."""
    return total if weights.ndim else weights * total


def _dot(left: jax.Array, right: jax.Array) -> jax.Array:
    """<left, right> of vectors [K]: XLA's own would add one number at a time."""
    product = left * right
    whole = len(product) // LANES * LANES
    return jnp.sum(jnp.sum(product[:whole].reshape(-1, LANES), axis=0)) + jnp.sum(product[whole:])


def _length(square: jax.Array, curvature: jax.Array) -> jax.Array:
    """How far to go. A row that is solved has no residual and no curvature; an overflow must not pass for no step."""
    return jnp.where(curvature == 0, 0, square / jnp.where(curvature == 0, 1, curvature)) + 0 * curvature
