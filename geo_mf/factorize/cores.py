"""Who may use the cores: fits take turns; small systems and long sums go in a fixed order."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
from threadpoolctl import threadpool_limits

_TURN = threading.RLock()

ONE_CORE = {"xla_cpu_multi_thread_eigen": False}
"""For `jax.jit(compiler_options=)`: calls are shared among the cores by the loop, so each should keep to one. jaxlib
0.10 does not quite obey; what must not depend on the number of cores goes through `outer` besides."""

SUMMED = 64
"""Rows of a sum of products taken at once: XLA splits a longer one among its threads, at places that depend on how many
there are."""


@contextmanager
def all_cores() -> Iterator[None]:
    """Fits of one process take turns, with BLAS on one thread.

    Each of them shares the cores among its own row solves: BLAS with threads of its own would only be in their way, and
    it rounds differently for another number of them. That number belongs to the whole process, hence the turns.
    """
    with _TURN, threadpool_limits(1, "blas"):
        yield


def each(solve: Callable[..., jax.Array], *batch: jax.Array) -> jax.Array:
    """`solve` for every system of a batch (the first axis of each array).

    On a CPU one at a time: jaxlib 0.10 spreads a batch of small factorizations over XLA's threads and waits for it on
    such a thread, so that two batches at once wait for each other for ever.
    """

    def in_turn(*batch: jax.Array) -> jax.Array:
        return jax.lax.map(lambda system: solve(*system), batch)

    return jax.lax.platform_dependent(*batch, cpu=in_turn, default=jax.vmap(solve))


def outer(a: jax.Array, b: jax.Array) -> jax.Array:
    """aᵀ b over the second axis, SUMMED rows at a time and in their order. [m, n, K], [m, n, K] -> [m, K, K]."""
    m, n, rank = a.shape
    tail = -n % SUMMED
    parts = [jnp.pad(x, ((0, 0), (0, tail), (0, 0))).reshape(m, -1, SUMMED, rank).swapaxes(0, 1) for x in (a, b)]

    def add(total: jax.Array, part: list[jax.Array]) -> tuple[jax.Array, None]:
        return total + jnp.einsum("mnk,mnj->mkj", *part, precision=jax.lax.Precision.HIGHEST), None

    return jax.lax.scan(add, jnp.zeros((m, rank, rank), a.dtype), parts)[0]
