"""Host memory that NumPy fills and JAX reads in place."""

import jax
import jax.numpy as jnp
import numpy as np

PAGE = 2 * 1024 * 1024
"""A huge page, which NumPy asks the system for where the memory is large: random rows then miss fewer translations."""

CACHE_LINE = 64
"""JAX reads memory in place that begins at one."""


def aligned(shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> np.ndarray:
    """An uninitialised array whose memory begins at a page, or if it is small at a cache line."""
    size = np.dtype(dtype).itemsize * int(np.prod(shape))
    boundary = PAGE if size >= 4 * PAGE else CACHE_LINE
    memory = np.empty(size + boundary, np.uint8)
    first = -memory.ctypes.data % boundary
    return memory[first : first + size].view(dtype).reshape(shape)


def shared(array: np.ndarray) -> jax.Array:
    """The same memory as a JAX array. Nobody may write to it any more."""
    return jax.dlpack.from_dlpack(array)


def on_device(array: np.ndarray) -> jax.Array:
    """The array where JAX computes: on a CPU the same memory, which nobody may write to any more."""
    return shared(array) if jax.default_backend() == "cpu" else jnp.asarray(array)
