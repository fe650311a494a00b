"""The loop of the gradient factorization: what is held out, when to stop, progress, divergence.

The mathematics is in gradient.py.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import sparse
from tqdm.auto import tqdm

from geo_mf.errors import FitDiverged
from geo_mf.factorize import gradient, optimizer_state
from geo_mf.factorize.checkpoint import Checkpoint, State
from geo_mf.factorize.matrices import shape
from geo_mf.index.exact import ExactIndex

Callback = Callable[[int, float, float, float | None], object]
"""Called after each epoch with its number, its seconds, the mean training loss, and NDCG when it was measured."""

CUT = 20
START = np.float32(0.1)
"""Standard deviation of the first factors."""
VALIDATION_USERS = 5000
SHORTEST_HISTORY = 3

_Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""users [users, K], items [items, K], bias [items]."""

_BEST = ("best/users", "best/items", "best/bias")
_SIDES = ("users", "items")


@dataclass(frozen=True)
class Settings:
    """How to fit.

    Attributes:
        rank: length K of a factor.
        objective: the loss and its numbers.
        optimizer: any optax transformation.
        epochs: passes over the interactions, at most.
        batch: interactions a step.
        popularity: exponent of an item's count in its chance to be a negative; 0 draws uniformly.
        every: epochs between two looks at the validation interactions.
        patience: looks without a better NDCG before the fit stops; 0 holds nothing out and runs all epochs.
        progress: whether to show a progress bar on stderr.
    """

    rank: int
    objective: gradient.Objective
    optimizer: optax.GradientTransformation
    epochs: int
    batch: int
    popularity: float
    every: int
    patience: int
    progress: bool = False


@dataclass(frozen=True)
class Fitted:
    """users [users, K], items [items, K], bias [items] (in a score as it stands, zero when the loss has none) and text
    [dim, K] or None, float32; NDCG of each look, by epoch."""

    users: np.ndarray
    items: np.ndarray
    bias: np.ndarray
    text: np.ndarray | None
    history: dict[int, float]


@dataclass(frozen=True)
class _Looks:
    """What the validation interactions said so far.

    Attributes:
        history: NDCG of each look, by the number of epochs done.
        best: the tables of the best look.
    """

    history: dict[int, float] = field(default_factory=dict)
    best: _Rows | None = None

    def after(self, epochs: int, rows: _Rows, found: float) -> "_Looks":
        """With one look more."""
        better = found > max(self.history.values(), default=-1.0)
        return _Looks(self.history | {epochs: found}, rows if better else self.best)

    def enough(self, patience: int) -> bool:
        """Whether the last `patience` looks were no better than one before them."""
        values = list(self.history.values())
        return bool(values) and len(values) - 1 - values.index(max(values)) >= patience


@dataclass
class _Descent:
    """Where a fit stands: all that the next epoch begins with.

    Attributes:
        tables, state: of the epochs done, and the optimiser's.
        key: of the fit; an epoch's own is made of it and the epoch's number.
        held: interactions held out, as places in the matrix's data.
        looks: those that a fit of any number of epochs takes. One that is taken only because the epochs are over is not
            among them: a longer fit would not have seen it.
        epochs: how many are done.
    """

    tables: gradient.Tables
    state: Any
    key: jax.Array
    held: np.ndarray
    looks: _Looks
    epochs: int = 0

    def kept(self) -> State:
        """All of it as named arrays."""
        arrays = {f"table/{name}": np.asarray(table) for name, table in self.tables.items()}
        arrays |= optimizer_state.to_arrays(self.state)
        arrays |= {"key": np.asarray(jax.random.key_data(self.key)), "held": self.held}
        if self.looks.best is not None:
            arrays |= dict(zip(_BEST, self.looks.best, strict=True))
        return State(self.epochs, arrays, {"history": list(self.looks.history.items())})

    @classmethod
    def of(cls, kept: State, names: Iterable[str], optimizer: optax.GradientTransformation) -> "_Descent":
        """What `kept` kept of a fit with tables of these names."""
        arrays = kept.arrays
        tables = {name: jnp.asarray(arrays[f"table/{name}"]) for name in names}
        state = optimizer_state.from_arrays(optimizer.init(tables), arrays)
        users, items, bias = (arrays.get(name) for name in _BEST)
        best = None if users is None or items is None or bias is None else (users, items, bias)
        looks = _Looks({int(epochs): float(found) for epochs, found in kept.told["history"]}, best)
        key = jax.random.wrap_key_data(jnp.asarray(arrays["key"]))
        return cls(tables, state, key, arrays["held"], looks, kept.epochs)


def fit(
    matrix: sparse.csr_array,
    settings: Settings,
    random: np.random.Generator,
    features: np.ndarray | None = None,
    callback: Callback | None = None,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Factorize by gradient descent.

    Args:
        matrix: float32 CSR [users, items], positive weights, no duplicates, at least one.
        settings: loss, optimiser, epochs.
        random: where the first factors, the held-out interactions and all draws come from.
        features: float32 [items, dim] or None.
        callback: called after each epoch.
        checkpoint: where to keep the state after an epoch, and to go on from.

    Returns:
        The tables of the best look when there were any, else the last. For losses of cosines the rows have unit length.

    Raises:
        FitDiverged: the loss is infinite or NaN.
        InvalidInput: the checkpoint belongs to another fit, or is further than `settings.epochs`.
    """
    kept = None if checkpoint is None else checkpoint.read(settings.epochs)
    shapes = table_shapes(shape(matrix), settings, 0 if features is None else features.shape[1])
    if kept is None:
        held = np.zeros(0, np.int64) if not settings.patience else hold_out(matrix, random)
        tables = start(shapes, settings, random)
        key = jax.random.key(int(random.integers(2**63)))
        # Copies: an epoch is given its arrays to change, and what the optimizer begins with may be its own, or a table.
        state = jax.tree.map(jnp.array, settings.optimizer.init(tables))
        at = _Descent(tables, state, key, held, _Looks())
    else:
        at = _Descent.of(kept, shapes, settings.optimizer)
    del kept  # the tables are held once
    data = training(matrix, at.held, settings.popularity, features)
    users = np.searchsorted(matrix.indptr, at.held, side="right") - 1
    batch = min(settings.batch, len(data.users))

    def looked() -> _Looks:
        """With a look at the validation interactions, if one is due now and was not taken."""
        due = at.epochs % settings.every == 0 or at.epochs == settings.epochs
        if not len(at.held) or not due or at.epochs in at.looks.history:
            return at.looks
        now = _finished(at.tables, data, settings)
        return at.looks.after(at.epochs, now, ndcg(vectors(*now), users, matrix.indices[at.held], matrix))

    looks = at.looks
    if at.epochs == settings.epochs:
        looks = looked()
    with tqdm(total=settings.epochs, desc="factorize", unit="epoch", disable=not settings.progress) as bar:
        bar.update(at.epochs)
        while at.epochs < settings.epochs and not looks.enough(settings.patience):
            began = time.perf_counter()
            at.tables, at.state, loss = gradient.epoch(
                at.tables,
                at.state,
                data,
                jax.random.fold_in(at.key, at.epochs),
                settings.optimizer,
                settings.objective,
                batch,
                len(data.users) // batch,
            )
            loss = float(loss)
            seconds = time.perf_counter() - began
            at.epochs += 1
            if not np.isfinite(loss):
                raise FitDiverged(
                    f"the loss is {loss} after {at.epochs} epochs: lower the optimizer's learning rate, or scale the "
                    "weights down to around 1"
                )
            looks = looked()
            if at.epochs % settings.every == 0:
                at.looks = looks
            found = looks.history.get(at.epochs)
            bar.set_postfix({"loss": f"{loss:.5g}"} | ({} if found is None else {"ndcg": f"{found:.4f}"}))
            bar.update()
            if callback is not None:
                callback(at.epochs - 1, seconds, loss, found)
            over = at.epochs == settings.epochs or looks.enough(settings.patience)
            if checkpoint is not None and (over or checkpoint.due()):
                checkpoint.write(at.kept())
    last = looks.best if looks.best is not None else _finished(at.tables, data, settings)
    return Fitted(*last, np.asarray(at.tables["text"]) if "text" in at.tables else None, looks.history)


def hold_out(matrix: sparse.csr_array, random: np.random.Generator) -> np.ndarray:
    """One interaction of each of some users, as sorted places in the matrix's data; short histories stay whole."""
    lengths = np.diff(matrix.indptr)
    able = np.flatnonzero(lengths >= SHORTEST_HISTORY)
    chosen = np.sort(random.choice(able, min(VALIDATION_USERS, len(able)), replace=False))
    return matrix.indptr[chosen] + random.integers(lengths[chosen])


def vectors(users: np.ndarray, items: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[users, K], [items, K], [items] -> [users, K + 1], [items, K + 1], whose inner products are the scores."""
    return np.concatenate([users, np.ones((len(users), 1), np.float32)], axis=1), np.c_[items, bias]


def ndcg(
    factors: tuple[np.ndarray, np.ndarray], users: np.ndarray, items: np.ndarray, matrix: sparse.csr_array
) -> float:
    """Mean NDCG@CUT of one item for each user, all the user's other items being left out of the ranking."""
    spans = [matrix.indices[matrix.indptr[u] : matrix.indptr[u + 1]] for u in users]
    seen = [span[span != item] for span, item in zip(spans, items, strict=True)]
    hits = ExactIndex(factors[1]).search(factors[0][users], min(CUT, len(factors[1])), None, seen)
    user, place = np.nonzero(hits.rows == items[:, None])
    return float(np.sum(1 / np.log2(place + 2.0)) / len(users)) if len(user) else 0.0


def training(matrix: sparse.csr_array, held: np.ndarray, power: float, features: np.ndarray | None) -> gradient.Data:
    """The interactions [users, items] that are not `held` out, as places in the matrix's data; the chance of an item to
    be a negative goes with its count to the given power."""
    size = shape(matrix)
    kept = np.setdiff1d(np.arange(matrix.nnz), held)
    users = np.repeat(np.arange(size[0], dtype=np.int32), np.diff(matrix.indptr))[kept]
    items, weights = matrix.indices[kept], matrix.data[kept]
    lengths = np.bincount(users, minlength=size[0])
    counts = np.bincount(items, minlength=size[1]).astype(np.float64)
    chances = np.where(counts > 0, counts, 0.0) ** power if power else np.ones(size[1])
    chances = chances / chances.sum()
    with np.errstate(divide="ignore"):  # an item that is never drawn
        log_chance = np.log(chances)
    return gradient.Data(
        jnp.asarray(users),
        jnp.asarray(items, jnp.int32),
        jnp.asarray(weights),
        jnp.asarray(np.cumsum(lengths) - lengths, jnp.int32),
        jnp.asarray(lengths, jnp.int32),
        jnp.asarray(np.cumsum(chances), jnp.float32) if power else None,
        jnp.asarray(log_chance, jnp.float32),
        None if features is None else jnp.asarray(features),
    )


def table_shapes(size: tuple[int, int], settings: Settings, features: int) -> dict[str, tuple[int, ...]]:
    """Tables of a fit of so many users and items, with so many features of an item."""
    shapes: dict[str, tuple[int, ...]] = {name: (n, settings.rank) for name, n in zip(_SIDES, size, strict=True)}
    if settings.objective.loss in gradient.COSINE:
        shapes["bias"] = (size[1],)
    if features:
        shapes["text"] = (features, settings.rank)
    return shapes


def start(shapes: dict[str, tuple[int, ...]], settings: Settings, random: np.random.Generator) -> gradient.Tables:
    """Tables of these shapes as a fit begins with them."""
    tables = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for name in _SIDES:
        drawn = random.standard_normal(shapes[name], np.float32) * START
        if name == "items" or not settings.objective.history:  # else what a user's items say of it comes first
            tables[name] = drawn
    return {name: jnp.asarray(table) for name, table in tables.items()}


def _finished(tables: gradient.Tables, data: gradient.Data, settings: Settings) -> _Rows:
    """Users, items and bias as the index takes them: text and history added, rows nobody taught left to their features,
    unit length."""
    users, items = np.array(tables["users"]), np.array(tables["items"])
    bias = gradient.BIAS * np.array(tables["bias"]) if "bias" in tables else np.zeros(len(items), np.float32)
    taught = np.bincount(np.asarray(data.items), minlength=len(items)) > 0
    items[~taught] = 0
    bias[~taught] = bias[taught].min()
    users[np.asarray(data.lengths) == 0] = 0
    if data.features is not None:
        items += np.asarray(data.features) @ np.asarray(tables["text"])
    if settings.objective.history:
        indptr = np.append(np.asarray(data.starts), len(data.items))
        seen = np.ones(len(data.items), np.float32), np.asarray(data.items), indptr
        users += means(sparse.csr_array(seen, (len(users), len(items))), items)
    if settings.objective.loss in gradient.COSINE:
        users, items = (np.asarray(gradient.unit(jnp.asarray(rows))) for rows in (users, items))
    return users, items, bias


def means(histories: sparse.csr_array, items: np.ndarray) -> np.ndarray:
    """float32 [n, K]: the mean of the items' rows in each history [n, items], whatever its weights; zero for none."""
    ones = sparse.csr_array((np.ones(histories.nnz, np.float32), histories.indices, histories.indptr), histories.shape)
    return (ones @ items) / np.maximum(np.diff(histories.indptr), 1).astype(np.float32)[:, None]
