"""Gradient descent on sampled losses: the mathematics of one epoch, on one logical device.

Every step takes a batch of interactions and one set of negatives that all of the batch shares, so that its scores are
one matrix product. With s the score of an interaction, t_j that of negative j, and c the interaction's weight:

- mse:      c (1 - s)^2 + g mean_j t_j^2                              pointwise
- bpr:      c mean_j log(1 + exp(t_j - s))                            Rendle et al. 2009
- softmax:  c (log(exp(s/T) + sum_j exp(t_j/T) / (N q_j)) - s/T)      sampled softmax; q_j, the chance to be drawn, is
                                                                      its logQ correction (Bengio, Senecal 2003)
- ccl:      c (1 - s) + g mean_j max(0, t_j - m)                      SimpleX, Mao et al. 2021

Scores are inner products for mse and bpr and cosines for softmax and ccl. A negative that is the interaction's own item
does not count. The ridge falls on the rows of the batch each time that they occur.

Only the rows that a step touches are read and written: they are gathered once each, the loss is differentiated by the
gathered rows, and optax updates those rows and their part of its state. That is the *lazy* form of an optimiser with
memory: a row that was not touched keeps its momentum, its second moment and its weight decay as they were. For sgd and
adagrad it is the same as a dense step. A transformation that looks across rows, such as clipping by the global norm,
sees the touched ones, all others' gradients being zero; one that scales a table by its own norm (lars, lamb) sees only
part of the table.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

Loss = Literal["mse", "bpr", "softmax", "ccl"]
Tables = dict[str, jax.Array]
"""users [users, K], items [items, K], and text [dim, K] when items have features: float32."""

COSINE = ("softmax", "ccl")
"""Losses whose scores are cosines."""


@dataclass(frozen=True)
class Objective:
    """What a step descends; hashable, a static argument of the compiled epoch.

    Attributes:
        loss: which of the four.
        negatives: N, shared by a batch.
        temperature: T of softmax.
        margin: m of ccl.
        negative_weight: g of mse and ccl.
        regularization: ridge of a row, each time that it occurs in a batch.
    """

    loss: Loss
    negatives: int
    temperature: float
    margin: float
    negative_weight: float
    regularization: float


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["users", "items", "weights", "cumulative", "log_chance", "features"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Data:
    """The training interactions.

    Attributes:
        users, items: int32 [n].
        weights: float32 [n].
        cumulative: float32 [items] or None, cumulative chances of the negatives; None draws them uniformly.
        log_chance: float32 [items], log q.
        features: float32 [items, dim] or None.
    """

    users: jax.Array
    items: jax.Array
    weights: jax.Array
    cumulative: jax.Array | None
    log_chance: jax.Array
    features: jax.Array | None


@dataclass(frozen=True)
class Touched:
    """Rows of a table that a step touches: `rows` int32 [n], each once, padded with the table's size; `place` says
    where in `rows` each of the ids stands."""

    rows: jax.Array
    place: jax.Array

    @classmethod
    def of(cls, ids: jax.Array, size: int) -> "Touched":
        rows, place = jnp.unique(ids, return_inverse=True, size=len(ids), fill_value=size)
        return cls(rows.astype(jnp.int32), place.astype(jnp.int32))


_WHOLE = np.int32(0)
"""In the place of row numbers: all of it."""


def _gather(table: jax.Array, rows: jax.Array) -> jax.Array:
    return table.at[rows].get(mode="clip") if rows.ndim else table


def _put(table: jax.Array, rows: jax.Array, changed: jax.Array) -> jax.Array:
    # Padding points behind the table's end, and is dropped there.
    return table.at[rows].set(changed, mode="drop", unique_indices=True) if rows.ndim else changed


def batch_loss(
    u: jax.Array,
    v: jax.Array,
    negative: jax.Array,
    weights: jax.Array,
    own: jax.Array,
    log_expected: jax.Array,
    objective: Objective,
) -> jax.Array:
    """The loss of a batch, summed; float32 scalar.

    Args:
        u, v: [b, K], users and items of the interactions.
        negative: [N, K].
        weights: [b].
        own: bool [b, N], the negative is the interaction's own item.
        log_expected: [N], log(N q_j).
        objective: which loss.
    """
    ridge = objective.regularization * (jnp.sum(u * u) + jnp.sum(v * v))
    if objective.loss in COSINE:
        u, v, negative = (unit(rows) for rows in (u, v, negative))
    s = jnp.sum(u * v, axis=1)
    t = u @ negative.T
    others = ~own
    count = jnp.maximum(jnp.sum(others.astype(jnp.float32), axis=1), 1)

    def mean(values: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(others, values, 0), axis=1) / count

    if objective.loss == "mse":
        total = weights * (1 - s) ** 2 + objective.negative_weight * mean(t * t)
    elif objective.loss == "bpr":
        total = weights * mean(jax.nn.softplus(t - s[:, None]))
    elif objective.loss == "softmax":
        logits = jnp.where(others, t / objective.temperature - log_expected[None], -jnp.inf)
        positive = s / objective.temperature
        total = weights * (jnp.logaddexp(jax.nn.logsumexp(logits, axis=1), positive) - positive)
    else:
        total = weights * (1 - s) + objective.negative_weight * mean(jax.nn.relu(t - objective.margin))
    return jnp.sum(total) + ridge


def unit(rows: jax.Array) -> jax.Array:
    """Rows of unit length; a zero row stays zero, and so does its gradient."""
    squared = jnp.sum(rows * rows, axis=1, keepdims=True)
    return rows * jnp.where(squared > 0, jax.lax.rsqrt(jnp.where(squared > 0, squared, 1)), 0)


def draw(key: jax.Array, data: Data, count: int) -> jax.Array:
    """Negatives, int32 [count]."""
    size = len(data.log_chance)
    if data.cumulative is None:
        return jax.random.randint(key, (count,), 0, size, jnp.int32)
    drawn = jnp.searchsorted(data.cumulative, jax.random.uniform(key, (count,)), side="right")
    return jnp.minimum(drawn, size - 1).astype(jnp.int32)


def rows_gradient(
    gathered: Tables,
    users: Touched,
    items: Touched,
    data: Data,
    weights: jax.Array,
    negatives: jax.Array,
    objective: Objective,
) -> tuple[jax.Array, Tables]:
    """Loss of a batch and its gradient by the gathered rows. `items.place` holds the batch's items, then negatives."""
    batch = len(weights)
    own = items.place[:batch, None] == items.place[None, batch:]
    log_expected = data.log_chance[negatives] + jnp.log(jnp.float32(objective.negatives))

    def loss(rows: Tables) -> jax.Array:
        u = rows["users"][users.place]
        both = rows["items"]
        if data.features is not None:
            both = both + data.features.at[items.rows].get(mode="clip") @ rows["text"]
        both = both[items.place]
        return batch_loss(u, both[:batch], both[batch:], weights, own, log_expected, objective)

    return jax.value_and_grad(loss)(gathered)


@partial(jax.jit, static_argnames=("optimizer", "objective", "batch", "steps"), donate_argnames=("tables", "state"))
def epoch(
    tables: Tables,
    state: Any,
    data: Data,
    key: jax.Array,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    batch: int,
    steps: int,
) -> tuple[Tables, Any, jax.Array]:
    """One pass over the shuffled interactions: tables, optimiser state and the mean loss of an interaction.

    Args:
        tables, state: given up: what comes back takes their place in memory.
        data: the interactions.
        key: of this epoch; shuffle and negatives come from it.
        optimizer: any optax transformation.
        objective: what to descend.
        batch: interactions a step.
        steps: steps of the epoch; `batch * steps` must not exceed the interactions. The few left over wait for another
            shuffle.
    """
    shuffling, drawing = jax.random.split(key)
    order = jax.random.permutation(shuffling, len(data.users))[: batch * steps].reshape(steps, batch)

    def step(carry: tuple[Tables, Any], at: tuple[jax.Array, jax.Array]) -> tuple[tuple[Tables, Any], jax.Array]:
        tables, state = carry
        chosen, own_key = at
        negatives = draw(own_key, data, objective.negatives)
        users = Touched.of(data.users[chosen], len(tables["users"]))
        items = Touched.of(jnp.concatenate([data.items[chosen], negatives]), len(tables["items"]))
        rows = {"users": users.rows, "items": items.rows}
        if "text" in tables:
            rows["text"] = jnp.arange(len(tables["text"]), dtype=jnp.int32)
        gathered = jax.tree.map(_gather, tables, rows)
        loss, slope = rows_gradient(gathered, users, items, data, data.weights[chosen], negatives, objective)
        # The state's tables are shaped like the parameters' and go by the same rows; the rest of it (a count of steps,
        # a learning rate) has no rows and is handed on whole.
        places = optax.tree_utils.tree_map_params(
            optimizer, lambda _, at: at, state, rows, transform_non_params=lambda _: _WHOLE
        )
        # optax mixes integers and floats, which a strict JAX refuses.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            change, part = optimizer.update(slope, jax.tree.map(_gather, state, places), gathered)
        tables = jax.tree.map(_put, tables, rows, optax.apply_updates(gathered, change))
        return (tables, jax.tree.map(_put, state, places, part)), loss

    keys = jax.random.split(drawing, steps)
    (tables, state), losses = jax.lax.scan(step, (tables, state), (order, keys))
    return tables, state, jnp.sum(losses) / (batch * steps)
