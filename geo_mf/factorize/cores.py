"""Who may use the cores: fits take turns; small systems and long sums go in a fixed order."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata
from threadpoolctl import threadpool_limits

_TURN = threading.RLock()

ONE_CORE = {
    "xla_cpu_multi_thread_eigen": False,
    "xla_cpu_experimental_ynn_fusion_type": "",
    "xla_backend_optimization_level": 1,
    "xla_cpu_prefer_vector_width": 512,
}
"""For `jax.jit(compiler_options=)`: calls are shared among the cores by the loop, so each should keep to one. jaxlib
0.10 does not quite obey; what must not depend on the number of cores goes through `outer` besides. Library kernels
inside fusions cannot be part of one piece (see `in_one_piece`). And at its usual level of optimization jaxlib 0.10
unrolls the copy of a gathered row of up to 64 numbers into single loads: 147 ns a row of 64 from main memory, against
37 ns at level 1."""

TESTED_JAX = (0, 10)
"""Release for which `in_one_piece` was tested."""

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


def in_one_piece(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`, inside a jitted function, compiled for a CPU as one loop on the calling thread.

    jaxlib 0.10 would otherwise run every operation as a task of its own and split it among its threads, which would
    wait for each other on cores that share calls already. The attributes are
    jaxlib's own, for loops it deems small, so they are set only for the release they were tested with. It aborts where
    an argument turns out to be of no use: no slice in `function` may be the whole of its array. Nor may a library's
    kernel be part of it, or an operation on more than about 50,000 numbers.
    """
    if jax.default_backend() != "cpu" or jax.__version_info__[:2] != TESTED_JAX:
        return function(*arguments)
    with set_xla_metadata(xla_cpu_small_call="true", inlineable="false"):
        return jax.jit(function, inline=False)(*arguments)


def tiles(count: jax.Array, tile: Callable[[jax.Array], Any], room: int) -> Any:
    """`tile(number)` for number = 0 .. count - 1, at most `room`; what it returns, stacked along a new first axis.

    `count` is not static: calls that differ in it share their compiled code. The rest of the room is zero.
    """
    out = jax.tree.map(lambda part: jnp.zeros((room, *part.shape), part.dtype), jax.eval_shape(tile, jnp.int32(0)))

    def body(number: jax.Array, out: Any) -> Any:
        put = partial(jax.lax.dynamic_update_index_in_dim, index=number, axis=0)
        return jax.tree.map(put, out, tile(number))

    return jax.lax.fori_loop(0, count, body, out)


def outer(a: jax.Array, b: jax.Array) -> jax.Array:
    """aᵀ b over the second axis, SUMMED rows at a time and in their order. [m, n, k], [m, n, j] -> [m, k, j]."""
    m, n = a.shape[:2]
    tail = -n % SUMMED
    parts = [jnp.pad(x, ((0, 0), (0, tail), (0, 0))).reshape(m, -1, SUMMED, x.shape[2]).swapaxes(0, 1) for x in (a, b)]

    def add(total: jax.Array, part: list[jax.Array]) -> tuple[jax.Array, None]:
        return total + jnp.einsum("mnk,mnj->mkj", *part, precision=jax.lax.Precision.HIGHEST), None

    return jax.lax.scan(add, jnp.zeros((m, a.shape[2], b.shape[2]), a.dtype), parts)[0]
