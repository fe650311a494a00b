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
from geo_mf.factorize.histories import Places
from geo_mf.factorize.memory import aligned, shared

GRAM_PARTS = 8
"""Slices of a Gram matrix, summed in this order whatever the number of cores: floating-point sums depend on order."""

ROTATION_ROWS = 1024
"""Rows rotated at a time: what comes of them is first put elsewhere."""

Rows = slice | np.ndarray
"""Rows of a table: in host memory any, int [n]; on an accelerator from one to another, and in turn."""

Piece = tuple[Rows, int, Callable[[], jax.Array]]
"""Rows, how many they are, and what computes at least so many."""

Table = np.ndarray | jax.Array
"""float32 [capacity, K], in host memory or on an accelerator."""


class Tables(Protocol):
    """What the loop asks of a device. `used` rows of a table mean something, the last one is zero where there are more,
    the rest is never read. A table that is given to be changed is gone: what comes back has its memory."""

    def hold(self, places: Places, rows: np.ndarray) -> Table:
        """A table of rows that come in the matrix's order, float32 [rows, K]."""
        ...

    def gram(self, table: Table, used: int) -> np.ndarray:
        """HᵀH [K, K] in float64."""
        ...

    def rotated(self, table: Table, used: int, axes: np.ndarray) -> Table:
        """The table, changed to the basis [K, K], float32, whose columns are the new axes."""
        ...

    def read(self, table: Table) -> jax.Array:
        """The table for JAX, until it is changed."""
        ...

    def joined(self, table: Table, pieces: Sequence[Piece], rest: tuple[Rows, np.ndarray]) -> Table:
        """The table, changed to pieces that are computed here, and to the rest: its rows, and what they become."""
        ...


class HostTables:
    """Tables in host memory, worked on in place by the threads of a pool."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def hold(self, places: Places, rows: np.ndarray) -> Table:
        """See Tables."""
        table = aligned((places.capacity, rows.shape[1]))
        table[: places.size] = 0  # places that no row has
        table[-1] = 0  # what does not belong to a history points at it
        table[places.position] = rows
        return table

    def gram(self, table: Table, used: int) -> np.ndarray:
        """See Tables."""
        rows, step = np.asarray(table)[:used], -(-used // GRAM_PARTS)
        slices = [rows[at : at + step] for at in range(0, used, step)]
        parts = self._pool.map(lambda part: part.T @ part, slices)
        return np.sum([part.astype(np.float64) for part in parts], axis=0)

    def rotated(self, table: Table, used: int, axes: np.ndarray) -> Table:
        """See Tables."""
        rows = np.asarray(table)[:used]

        def work(at: int) -> None:
            here = slice(at, min(at + ROTATION_ROWS, used))
            rows[here] = rows[here] @ axes

        list(self._pool.map(work, range(0, used, ROTATION_ROWS)))
        return table

    def read(self, table: Table) -> jax.Array:
        """See Tables."""
        return shared(np.asarray(table))

    def joined(self, table: Table, pieces: Sequence[Piece], rest: tuple[Rows, np.ndarray]) -> Table:
        """See Tables."""
        out = np.asarray(table)

        def work(piece: Piece) -> None:
            where, count, compute = piece
            out[where] = np.asarray(compute())[:count]

        list(self._pool.map(work, pieces))
        out[rest[0]] = rest[1]
        return table


class DeviceTables:
    """Tables on an accelerator, which is busy with one call at a time."""

    def hold(self, places: Places, rows: np.ndarray) -> Table:
        """See Tables."""
        return jnp.asarray(places.to_table(rows))

    def gram(self, table: Table, used: int) -> np.ndarray:
        """See Tables."""
        step = -(-used // GRAM_PARTS)
        parts = [ials.gram_part(self.read(table), np.int32(at), min(step, used - at)) for at in range(0, used, step)]
        return np.sum([np.asarray(part, np.float64) for part in parts], axis=0)

    def rotated(self, table: Table, used: int, axes: np.ndarray) -> Table:
        """See Tables."""
        return ials.rotate(self.read(table), jnp.asarray(axes))

    def read(self, table: Table) -> jax.Array:
        """See Tables."""
        return jnp.asarray(table)

    def joined(self, table: Table, pieces: Sequence[Piece], rest: tuple[Rows, np.ndarray]) -> Table:
        """See Tables."""
        parts = [*(compute()[:count] for _, count, compute in pieces), jnp.asarray(rest[1])]
        left = len(table) - sum(map(len, parts))
        return jnp.concatenate([*parts, jnp.zeros((left, table.shape[1]), jnp.float32)])
