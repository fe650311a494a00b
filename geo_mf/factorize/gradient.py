"""Gradient descent on sampled losses: the mathematics of one epoch, on one logical device.

Every step takes a batch of interactions and one set of negatives that all of the batch shares, so that its scores are
one matrix product. With s the score of an interaction, t_j that of negative j, and c the interaction's weight:

- mse:      c (1 - s)^2 + g mean_j t_j^2                              pointwise
- bpr:      c mean_j log(1 + exp((t_j - s)/T))                        Rendle et al. 2009; j is the best scored of each
                                                                      h negatives (dynamic sampling, Zhang et al. 2013)
- softmax:  c (log(exp(s/T) + sum_j exp(t_j/T) / (N q_j)) - s/T)      sampled softmax; q_j, the chance to be drawn, is
                                                                      its logQ correction (Bengio, Senecal 2003)
- ccl:      c (1 - s) + g mean_j max(0, t_j - m)                      SimpleX, Mao et al. 2021

Scores are inner products for mse, and cosines plus 0.1 times an item's bias for the others: cosines alone have no place
for popularity. A negative that is the interaction's own item does not count. The ridge falls on the rows of the batch
each time that they occur.

With a history a user is its own row plus the mean of its items' rows (FISM, Kabbur et al. 2013; SimpleX, Mao et al.
2021). In a step a few of them, drawn anew for each interaction, stand for all. The interaction's own item is never one
of them: it would give itself away.

Only the rows that a step touches are read and written: they are gathered once each, the loss is differentiated by the
gathered rows, and optax updates those rows and their part of its state. That is the *lazy* form of an optimiser with
memory: a row that was not touched keeps its momentum, its second moment and its weight decay as they were. For sgd and
adagrad it is the same as a dense step. A transformation that looks across rows, such as clipping by the global norm,
sees the touched ones, all others' gradients being zero; one that scales a table by its own norm (lars, lamb) sees only
part of the table. Which parts of a state have a table's rows, and what cannot be done so, is said in optimizer_rows.py.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from geo_mf.factorize import optimizer_rows

Loss = Literal["mse", "bpr", "softmax", "ccl"]
Tables = dict[str, jax.Array]
"""users [users, K], items [items, K], bias [items] when scores are cosines, text [dim, K] when items have features:
float32."""

COSINE = ("bpr", "softmax", "ccl")
"""Losses whose scores are cosines, and a bias."""

BIAS = 0.1
"""What an item's bias counts in a score: it keeps the bias at a scale at which one learning rate suits all tables."""


@dataclass(frozen=True)
class Objective:
    """What a step descends; hashable, a static argument of the compiled epoch.

    Attributes:
        loss: which of the four.
        negatives: N, shared by a batch.
        temperature: T of softmax and bpr.
        margin: m of ccl.
        negative_weight: g of mse and ccl.
        regularization: ridge of a row, each time that it occurs in a batch.
        hardest: h of bpr.
        history: other items of the user that stand for all of them in a step; 0 leaves them out.
    """

    loss: Loss
    negatives: int
    temperature: float
    margin: float
    negative_weight: float
    regularization: float
    hardest: int = 1
    history: int = 0


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["users", "items", "weights", "starts", "lengths", "cumulative", "log_chance", "features"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Data:
    """The training interactions.

    Attributes:
        users, items: int32 [n], by user.
        weights: float32 [n].
        starts, lengths: int32 [users], where a user's interactions begin, and how many there are.
        cumulative: float32 [items] or None, cumulative chances of the negatives; None draws them uniformly.
        log_chance: float32 [items], log q.
        features: float32 [items, dim] or None.
    """

    users: jax.Array
    items: jax.Array
    weights: jax.Array
    starts: jax.Array
    lengths: jax.Array
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
        rows, place = jnp.unique(ids, return_inverse=True, size=min(len(ids), size), fill_value=size)
        return cls(rows.astype(jnp.int32), place.astype(jnp.int32))


_WHOLE = np.int32(0)
"""In the place of row numbers: all of it."""


def _gather(table: jax.Array, rows: jax.Array) -> jax.Array:
    return table.at[rows].get(mode="clip") if rows.ndim else table


def _put(table: jax.Array, rows: jax.Array, changed: jax.Array) -> jax.Array:
    # Padding points behind the table's end, and is dropped there.
    return table.at[rows].set(changed, mode="drop", unique_indices=True) if rows.ndim else changed


def touched(shapes: dict[str, tuple[int, ...]], objective: Objective, batch: int) -> dict[str, int]:
    """How many rows of each table a step updates."""
    drawn = batch + objective.negatives + batch * objective.history
    ids = {"users": batch, "items": drawn, "bias": drawn}
    return {name: min(ids.get(name, shape[0]), shape[0]) for name, shape in shapes.items()}


def batch_loss(
    s: jax.Array, t: jax.Array, weights: jax.Array, own: jax.Array, log_expected: jax.Array, objective: Objective
) -> jax.Array:
    """The loss of a batch, summed, without the ridge; float32 scalar.

    Args:
        s: [b], scores of the interactions.
        t: [b, N], scores of the negatives.
        weights: [b].
        own: bool [b, N], the negative is the interaction's own item.
        log_expected: [N], log(N q_j).
        objective: which loss.
    """
    others = ~own

    def mean(values: jax.Array, counted: jax.Array = others) -> jax.Array:
        count = jnp.maximum(jnp.sum(counted.astype(jnp.float32), axis=1), 1)
        return jnp.sum(jnp.where(counted, values, 0), axis=1) / count

    if objective.loss == "mse":
        total = weights * (1 - s) ** 2 + objective.negative_weight * mean(t * t)
    elif objective.loss == "bpr":
        if objective.hardest > 1:
            t = jnp.max(_groups(jnp.where(others, t, -jnp.inf), objective.hardest), axis=2)
            others = t > -jnp.inf
        apart = jnp.where(others, (t - s[:, None]) / objective.temperature, 0)
        total = weights * mean(jax.nn.softplus(apart), others)
    elif objective.loss == "softmax":
        logits = jnp.where(others, t / objective.temperature - log_expected[None], -jnp.inf)
        positive = s / objective.temperature
        total = weights * (jnp.logaddexp(jax.nn.logsumexp(logits, axis=1), positive) - positive)
    else:
        total = weights * (1 - s) + objective.negative_weight * mean(jax.nn.relu(t - objective.margin))
    return jnp.sum(total)


def _groups(t: jax.Array, size: int) -> jax.Array:
    """[b, N] -> [b, groups, size]; the last group may be filled up with -inf."""
    padded = jnp.pad(t, ((0, 0), (0, -t.shape[1] % size)), constant_values=-jnp.inf)
    return padded.reshape(len(t), -1, size)


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


def draw_history(key: jax.Array, data: Data, chosen: jax.Array, count: int) -> jax.Array:
    """Items that the users of the chosen interactions [b] have besides them, int32 [b, count], drawn with replacement;
    any item for a user who has no other."""
    users = data.users[chosen]
    first = data.starts[users]
    others = jnp.maximum(data.lengths[users] - 1, 1)
    place = jax.random.randint(key, (len(chosen), count), 0, others[:, None], jnp.int32)
    place = jnp.where(place < (chosen - first)[:, None], place, place + 1)
    return data.items.at[first[:, None] + place].get(mode="clip")


def rows_gradient(
    gathered: Tables,
    users: Touched,
    items: Touched,
    data: Data,
    chosen: jax.Array,
    negatives: jax.Array,
    objective: Objective,
) -> tuple[jax.Array, Tables]:
    """Loss of the chosen interactions [b] and its gradient by the gathered rows. `items.place` holds their items, then
    the negatives, then [b * history] what `draw_history` gave."""
    batch, ends = len(chosen), len(chosen) + len(negatives)
    mine, drawn, past = jnp.split(items.place, [batch, ends])
    own = mine[:, None] == drawn[None]
    log_expected = data.log_chance[negatives] + jnp.log(jnp.float32(objective.negatives))
    several = (data.lengths[data.users[chosen]] > 1)[:, None]

    def loss(rows: Tables) -> jax.Array:
        u, both = rows["users"][users.place], rows["items"]
        if data.features is not None:
            both = both + data.features.at[items.rows].get(mode="clip") @ rows["text"]
        v, negative = both[mine], both[drawn]
        ridge = objective.regularization * (jnp.sum(u * u) + jnp.sum(v * v))
        if objective.history:
            mean = jnp.mean(both[past].reshape(batch, objective.history, -1), axis=1)
            u = u + jnp.where(several, mean, 0.0)
        if objective.loss in COSINE:
            u, v, negative = (unit(rows) for rows in (u, v, negative))
        s, t = jnp.sum(u * v, axis=1), u @ negative.T
        if "bias" in rows:
            s, t = s + BIAS * rows["bias"][mine], t + BIAS * rows["bias"][drawn][None]
        return batch_loss(s, t, data.weights[chosen], own, log_expected, objective) + ridge

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
    owned = optimizer_rows.owners(optimizer, {name: table.shape for name, table in tables.items()})

    def step(carry: tuple[Tables, Any], at: tuple[jax.Array, jax.Array]) -> tuple[tuple[Tables, Any], jax.Array]:
        tables, state = carry
        chosen, own_key = at
        negatives = draw(own_key, data, objective.negatives)
        past = draw_history(jax.random.fold_in(own_key, 1), data, chosen, objective.history)
        users = Touched.of(data.users[chosen], len(tables["users"]))
        items = Touched.of(jnp.concatenate([data.items[chosen], negatives, past.ravel()]), len(tables["items"]))
        rows = {"users": users.rows, "items": items.rows}
        if "bias" in tables:
            rows["bias"] = items.rows
        if "text" in tables:
            rows["text"] = jnp.arange(len(tables["text"]), dtype=jnp.int32)
        gathered = jax.tree.map(_gather, tables, rows)
        loss, slope = rows_gradient(gathered, users, items, data, chosen, negatives, objective)
        places = jax.tree.map(lambda name: rows.get(name, _WHOLE), owned)
        part = jax.tree.map(_gather, state, places)
        change, part = optimizer_rows.updated(optimizer, slope, part, gathered, loss)
        tables = jax.tree.map(_put, tables, rows, optax.apply_updates(gathered, change))
        return (tables, jax.tree.map(_put, state, places, part)), loss

    keys = jax.random.split(drawing, steps)
    (tables, state), losses = jax.lax.scan(step, (tables, state), (order, keys))
    return tables, state, jnp.sum(losses) / (batch * steps)
