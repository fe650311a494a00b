"""An optax optimiser in a checkpoint: its state as named arrays, and what it does as a few numbers.

The state is a tree of arrays whose shape the optimiser itself knows, so that its leaves in their order are enough. The
optimiser is made of functions, which no file holds and no checksum sees: two of them are told apart by what they do.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from geo_mf.factorize import optimizer_rows

STEPS = 3
MOMENTS = (0, 100, 10_000)
"""Steps at which an optimiser is tried: a schedule may change its learning rate late."""

_PLAIN = "biuf"
"""Kinds of numbers that NumPy knows itself; bfloat16 and its like are kept as bytes."""


def to_arrays(state: Any) -> dict[str, np.ndarray]:
    """The leaves of an optimiser's state by name."""
    return {_name(number): _plain(leaf) for number, leaf in enumerate(jax.tree.leaves(state))}


def from_arrays(like: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The state that `to_arrays` was given; `like` is any state of the same optimiser for the same tables."""
    leaves, tree = jax.tree.flatten(like)
    return jax.tree.unflatten(tree, [_as(leaf, arrays[_name(number)]) for number, leaf in enumerate(leaves)])


def behaviour(optimizer: optax.GradientTransformation, shapes: dict[str, tuple[int, ...]]) -> str:
    """What an optimiser does with made-up gradients of tables of these shapes, at some moments of a fit.

    Optimisers that do the same to four digits are taken for the same, so that another processor's rounding does not
    make another of them. One whose learning rate parts from the other's between the moments is not told apart.
    """
    rows = {name: (min(2, shape[0]), *shape[1:]) for name, shape in shapes.items()}
    tables = {name: jnp.full(shape, 0.1, jnp.float32) for name, shape in rows.items()}
    found: list[str] = []
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for moment in MOMENTS:
            state: Any = jax.tree.map(partial(_counted, moment), optimizer.init(tables))
            found.extend(f"{jnp.shape(leaf)}{jnp.result_type(leaf)}" for leaf in jax.tree.leaves(state))
            for step in range(STEPS):
                slopes = {
                    name: jnp.asarray(np.linspace(-0.5, 1, np.prod(shape)).reshape(shape) / (1 + step), jnp.float32)
                    for name, shape in rows.items()
                }
                loss = jnp.float32(1 / (1 + step))
                change, state = optimizer_rows.updated(optimizer, slopes, state, tables, loss)
                found.extend(f"{number:.4g}" for name in sorted(change) for number in np.ravel(change[name]).tolist())
    return " ".join(found)


def _name(number: int) -> str:
    return f"optimizer/{number:04d}"


def _plain(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    return array if array.dtype.kind in _PLAIN else np.frombuffer(array.tobytes(), np.uint8)


def _as(like: Any, array: np.ndarray) -> jax.Array:
    if isinstance(like, jax.Array) and jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
    wanted = np.dtype(jnp.result_type(like))
    if wanted.kind not in _PLAIN:
        array = np.frombuffer(array.tobytes(), wanted)
    return jnp.asarray(array.reshape(jnp.shape(like)))


def _counted(moment: int, leaf: Any) -> Any:
    """A counter of steps as it stands at that moment; what is no counter as it is."""
    whole = jnp.issubdtype(jnp.result_type(leaf), jnp.signedinteger)
    return jnp.full_like(leaf, moment) if whole else leaf
