"""The memory of fits of ratings and by gradient descent at their peak, foreseen for `plan` from their shapes alone.

What XLA and its compiler keep was measured with jaxlib 0.10 on a CPU; the rest counts arrays.
"""

from math import prod

import jax
import jax.numpy as jnp

from geo_mf.factorize import fit_gradient, fit_ratings, histories
from geo_mf.factorize.plan import Problem
from geo_mf.index.exact import BLOCK_SCORES

RATINGS_COMPILER_BYTES, RATINGS_SHAPE_BYTES = 110_000_000, 22_000_000
"""What XLA keeps of a fit of ratings, and of each compiled shape more."""

GRADIENT_COMPILER_BYTES = 270_000_000
"""What it keeps of an epoch of gradient descent, a program of many operations."""

INTERACTION_BYTES = 30
"""Of an interaction: it, its place in the shuffled order, and what sorting leaves of both."""


def ratings(problem: Problem, rank: int, variational: bool) -> tuple[int, dict[str, int]]:
    """Bytes that a fit of ratings adds at its peak, and what they are for.

    The peak is the end of a half-epoch: both tables, the solved parts of the one that is to be replaced, and the one
    that they are joined to.
    """
    lengths = problem.user_lengths, problem.item_lengths
    layout = histories.Layout.of(*lengths, fit_ratings.GATHERED * rank, histories.TILE_BYTES)
    row = 4 * (rank + 1 + (2 * rank + 1 if variational else 0))
    table = problem.part * layout.capacity * row
    solved = problem.part * max(layout.users.size, layout.items.size) * row
    parts = {
        "padded ratings": problem.part * (layout.users.slots + layout.items.slots) * (4 if problem.uniform else 8),
        "ratings in order": INTERACTION_BYTES * problem.shape[2],
        "tables of factors": 2 * table,
        "the next table": solved + table,
        "ridges": 2 * problem.part * layout.capacity * 4 * (rank + 1),
        "prior": 4 * problem.shape[1] * 3 * (problem.features + rank) if problem.features else 0,
        "compiler": RATINGS_COMPILER_BYTES + RATINGS_SHAPE_BYTES * layout.programs,
    }
    return sum(parts.values()), parts


def gradient(problem: Problem, settings: fit_gradient.Settings) -> tuple[int, dict[str, int]]:
    """Bytes that a fit by gradient descent adds at its peak, and what they are for.

    The peak is a look, when the tables of the best one are kept: beside all that an epoch needs stand the finished rows
    of now, and either what the users' histories add to them, or their vectors and a block of scores.
    """
    users, items, interactions = problem.shape
    shapes = fit_gradient.table_shapes((users, items), settings, problem.features)
    batch, rank = min(settings.batch, interactions), settings.rank
    objective = settings.objective
    of_users, of_items = 4 * users * rank, 4 * items * rank
    rows = of_users + of_items
    touched = min(items, batch * (1 + objective.history) + objective.negatives)
    step = 4 * batch * (4 * objective.negatives + 3 * objective.history * rank) + 8 * touched * problem.features
    finished = rows + (2 if objective.history else 1) * of_users
    if settings.patience:
        scores = 4 * min(BLOCK_SCORES, fit_gradient.VALIDATION_USERS * items)
        finished = max(finished, 2 * rows + 2 * scores)
    parts = {
        "interactions": INTERACTION_BYTES * interactions,
        "features": 8 * items * problem.features,
        "tables of factors": 4 * sum(map(prod, shapes.values())),
        "optimizer": _state_bytes(settings, shapes),
        "a step": step,
        "the best look": rows if settings.patience and settings.epochs > settings.every else 0,
        "a look, or the end": finished,
        "compiler": GRADIENT_COMPILER_BYTES,
    }
    return sum(parts.values()), parts


def _state_bytes(settings: fit_gradient.Settings, shapes: dict[str, tuple[int, ...]]) -> int:
    """Of the optimizer's own tables."""
    tables = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    leaves = jax.tree.leaves(jax.eval_shape(settings.optimizer.init, tables))
    return sum(prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
