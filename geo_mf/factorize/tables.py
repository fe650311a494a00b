"""Where the tables of factors lie: in host memory that JAX reads without a copy, or on an accelerator.

On a CPU the dense products (Gram matrix, rotation) go to NumPy's BLAS: it computes half of a symmetric product, and for
the other it is faster than XLA. Every sum runs in an order that does not depend on the number of cores.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from geo_mf.factorize import ials
from geo_mf.factorize.memory import aligned, shared

GRAM_PARTS = 8
"""Slices of a Gram matrix, summed in this order whatever the number of cores: floating-point sums depend on order."""

ROTATION_ROWS = 4096
Piece = tuple[int, int, Callable[[], jax.Array]]
"""First row, number of rows, and what computes at least so many."""


class Tables(Protocol):
    """What the loop asks of a device. `used` rows of a table mean something, the rest is never read."""

    def hold(self, rows: np.ndarray, used: int) -> jax.Array:
        """A table of the shape of `rows`, float32 [capacity, K], with the first `used` of them."""
        ...

    def gram(self, table: jax.Array, used: int) -> np.ndarray:
        """HᵀH [K, K] in float64."""
        ...

    def rotated(self, table: jax.Array, used: int, axes: np.ndarray) -> jax.Array:
        """The table in the basis [K, K], float32, whose columns are the new axes."""
        ...

    def joined(self, shape: tuple[int, int], pieces: Sequence[Piece], rest: tuple[int, np.ndarray]) -> jax.Array:
        """A table of this shape from pieces, computed here, and from one more piece that stands at a row."""
        ...


class HostTables:
    """Tables in host memory, worked on by the threads of a pool."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def hold(self, rows: np.ndarray, used: int) -> jax.Array:
        """See Tables."""
        table = aligned(rows.shape)
        table[:used] = rows[:used]
        return shared(table)

    def gram(self, table: jax.Array, used: int) -> np.ndarray:
        """See Tables."""
        rows, step = np.asarray(table)[:used], -(-used // GRAM_PARTS)
        slices = [rows[at : at + step] for at in range(0, used, step)]
        parts = self._pool.map(lambda part: part.T @ part, slices)
        return np.sum([part.astype(np.float64) for part in parts], axis=0)

    def rotated(self, table: jax.Array, used: int, axes: np.ndarray) -> jax.Array:
        """See Tables."""
        rows, out = np.asarray(table)[:used], aligned(table.shape)

        def work(at: int) -> None:
            here = slice(at, min(at + ROTATION_ROWS, used))
            np.matmul(rows[here], axes, out=out[here])

        list(self._pool.map(work, range(0, used, ROTATION_ROWS)))
        return shared(out)

    def joined(self, shape: tuple[int, int], pieces: Sequence[Piece], rest: tuple[int, np.ndarray]) -> jax.Array:
        """See Tables."""
        out = aligned(shape)

        def work(piece: Piece) -> None:
            start, count, compute = piece
            out[start : start + count] = np.asarray(compute())[:count]

        list(self._pool.map(work, pieces))
        start, rows = rest
        out[start : start + len(rows)] = rows
        return shared(out)


class DeviceTables:
    """Tables on an accelerator, which is busy with one call at a time."""

    def hold(self, rows: np.ndarray, used: int) -> jax.Array:
        """See Tables."""
        return jnp.asarray(rows.copy())  # JAX may share the memory it is given, or read it later

    def gram(self, table: jax.Array, used: int) -> np.ndarray:
        """See Tables."""
        step = -(-used // GRAM_PARTS)
        parts = [ials.gram_part(table, np.int32(at), min(step, used - at)) for at in range(0, used, step)]
        return np.sum([np.asarray(part, np.float64) for part in parts], axis=0)

    def rotated(self, table: jax.Array, used: int, axes: np.ndarray) -> jax.Array:
        """See Tables."""
        return ials.rotate(table, jnp.asarray(axes))

    def joined(self, shape: tuple[int, int], pieces: Sequence[Piece], rest: tuple[int, np.ndarray]) -> jax.Array:
        """See Tables."""
        start, rows = rest
        parts = [*(compute()[:count] for _, count, compute in pieces), jnp.asarray(rows)]
        return jnp.concatenate([*parts, jnp.zeros((shape[0] - start - len(rows), shape[1]), jnp.float32)])
