"""An optax optimiser that sees only the rows a step touches: which parts of its state have those rows, and which
optimisers cannot be given a part of a table at all.

A part of the state belongs to a table when it grows by a row as the table does. That is found by giving `init` a table
with one row more: what the state is made of (masks, labels, chains, counters) need not be known.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from geo_mf.errors import InvalidInput

WHOLE = ""
"""In the place of a table's name: a part of the state that has no rows, as a count of steps."""

_SEVERAL_STEPS = {
    optax.MultiStepsState: "gathers gradients over several steps: raise batch_size as many times instead",
    optax.ApplyEvery: "gathers gradients over several steps: raise batch_size as many times instead",
    contrib.SAMState: "needs a second gradient of the same batch: use the optimizer inside it by itself",
}
"""What one step does to a row these finish in another, which need not touch the row."""

_Shapes = Mapping[str, tuple[int, ...]]


def owners(optimizer: optax.GradientTransformation, shapes: _Shapes) -> Any:
    """The state's tree with a table's name in the place of each part that has its rows, else WHOLE.

    Args:
        optimizer: any optax transformation.
        shapes: of the tables by name; rows come first.

    Raises:
        InvalidInput: a part has the rows of several tables, or has them elsewhere than along its first axis.
    """

    def state(more: str) -> Any:
        grown = {name: (shape[0] + (name == more), *shape[1:]) for name, shape in shapes.items()}
        return jax.eval_shape(optimizer.init, _described(grown))

    leaves, tree = jax.tree.flatten(state(WHOLE))
    found = [WHOLE] * len(leaves)
    for name in shapes:
        for number, (leaf, grown) in enumerate(zip(leaves, jax.tree.leaves(state(name)), strict=True)):
            if grown.shape == leaf.shape:
                continue
            if found[number] or leaf.shape[:1] != shapes[name][:1] or grown.shape[1:] != leaf.shape[1:]:
                raise InvalidInput(
                    f"the optimizer keeps rows of {name} in an array of shape {leaf.shape}, from which the rows of a "
                    "step cannot be taken: use one that keeps each table's rows along a first axis, as optax.adam does"
                )
            found[number] = name
    return jax.tree.unflatten(tree, found)


def updated(
    optimizer: optax.GradientTransformation, slope: Any, state: Any, rows: Any, loss: jax.Array
) -> tuple[Any, Any]:
    """What the optimiser makes of the gradient of some rows: the change of those rows, and their part of its state.

    The loss of the batch goes along as `value`, for transformations that ask for it.
    """
    # optax mixes integers and floats, which a strict JAX refuses.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return optax.with_extra_args_support(optimizer).update(slope, state, rows, value=loss)


def check(optimizer: optax.GradientTransformation, shapes: _Shapes, touched: Mapping[str, int]) -> None:
    """Try a step without computing anything.

    Args:
        optimizer: any optax transformation.
        shapes: of the tables by name; rows come first.
        touched: rows of each table that a step touches.

    Raises:
        InvalidInput: the optimiser cannot do with these rows, their gradients and the loss of a batch; or what it does
            in one step it means to finish in another.
    """
    rows = _described({name: (touched[name], *shape[1:]) for name, shape in shapes.items()})
    try:
        state = jax.eval_shape(optimizer.init, _described(shapes))
        _refuse_several_steps(state)
        part = jax.tree.map(lambda leaf, name: _with_rows(leaf, touched.get(name)), state, owners(optimizer, shapes))
        loss = jax.ShapeDtypeStruct((), jnp.float32)
        change, after = jax.eval_shape(partial(updated, optimizer), rows, part, rows, loss)
    except InvalidInput:
        raise
    except Exception as why:  # whatever optax, or who wrote the transformation, raises
        raise InvalidInput(
            f"the optimizer cannot be used here: {type(why).__name__}: {why}. A step gives it the gradients of the "
            f"rows it touches of the tables {', '.join(shapes)}, those rows, and the loss of its batch as `value`; no "
            "function to evaluate, as a line search needs, no gradient of single interactions and no wrapped "
            "parameters: leave out the transformation that asks for more, or use optax.adam(0.01)"
        ) from why
    for name, given, found in (("a change of rows", rows, change), ("a state", part, after)):
        if _plain(given) != _plain(found):
            raise InvalidInput(
                f"the optimizer makes {name} of other shapes or types than it was given when a step touches "
                f"{dict(touched)} rows of the tables {dict(shapes)}: use one that keeps them, as optax.adam does"
            )


def _refuse_several_steps(state: Any) -> None:
    for kind, reason in _SEVERAL_STEPS.items():
        nodes = jax.tree.leaves(state, is_leaf=lambda node, kind=kind: isinstance(node, kind))
        if any(isinstance(node, kind) for node in nodes):
            raise InvalidInput(
                f"the optimizer has a {kind.__name__}, which {reason}. A step here updates only the rows it touches, "
                "and the next one touches others"
            )


def _described(shapes: _Shapes) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}


def _with_rows(leaf: jax.ShapeDtypeStruct, rows: int | None) -> jax.ShapeDtypeStruct:
    return leaf if rows is None else jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype)


def _plain(tree: Any) -> list[tuple[tuple[int, ...], Any]]:
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]
