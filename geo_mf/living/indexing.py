"""The index of a snapshot: planned anew, or with what a write changed beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from geo_mf.geometry import blend, reduction
from geo_mf.index import plan
from geo_mf.index.approximate import ApproximateIndex
from geo_mf.index.faiss import FaissIndex
from geo_mf.index.living import LivingIndex, changed
from geo_mf.index.plan import EXACT, Goal
from geo_mf.snapshot import Snapshot

__all__ = ["Wanted", "absorbed", "indexed", "with_changes"]

BLENDS = ((1.0, 0.0), (0.75, 0.25), (0.5, 0.5), (0.25, 0.75), (0.0, 1.0))
PLANNED_QUERIES = 250  # of each kind
CLICKS = 3
TEXT_DIMS = 128
LARGEST_SEGMENT = 0.2
"""Share of the rows that may lie beside an index; a write that changes more makes another one."""
MOVED = 1e-6
MEGABYTE = 10**6


@dataclass(frozen=True)
class Wanted:
    """What a build asks of its index.

    Attributes:
        factory: a Faiss factory string; None leaves the choice to the planner.
        goal: what it has to do.
        text_dims: dimensions of the text in which candidates are looked for; None keeps up to TEXT_DIMS of them, and
            all where every row is scored. Scores are always those of the whole text.
    """

    factory: str | None = None
    goal: Goal = Goal()
    text_dims: int | None = None

    @classmethod
    def of(cls, card: Mapping[str, object]) -> "Wanted":
        """As the card of an index says; the defaults where it does not."""
        config = card.get("config")
        found = config if isinstance(config, Mapping) else {}
        goal = Goal(
            recall=float(found.get("recall") or Goal.recall),
            rate=float(found.get("index_rate") or Goal.rate),
            memory=None if found.get("index_memory") is None else int(found["index_memory"]) * MEGABYTE,
        )
        return cls(found.get("index"), goal, found.get("text_dims"))


def indexed(now: Snapshot, wanted: Wanted, seed: int = 0) -> Snapshot:
    """The snapshot with a planned index over its vectors, and what was measured of it on its card.

    Raises:
        InvalidInput: Faiss cannot make the index that was named.
    """
    vectors = blend.vectors(now.item_factors, now.embeddings, now.trend, now.blend)
    goal, dim = wanted.goal, now.embeddings.shape[1]
    factory = wanted.factory or plan.choose(len(vectors), vectors.shape[1], goal)
    dims = min(dim, TEXT_DIMS if wanted.text_dims is None else wanted.text_dims)
    basis = None
    if dims < dim and (factory != EXACT or wanted.text_dims is not None):
        basis = reduction.text_basis(now.embeddings, dims)
    whole = None if basis is None else reduction.vector_basis(now.item_factors.shape[1], basis)
    index, measured = plan.make(
        vectors, _queries(now), goal, factory=wanted.factory, basis=whole, popularity=_popularity(now), seed=seed
    )
    kept = None
    if basis is not None and measured.effort is not None:
        kept = round(reduction.kept(now.embeddings, basis), 4)
    return _told(replace(now, index=index), measured, kept)


def absorbed(now: Snapshot, wanted: Wanted) -> Snapshot:
    """The snapshot with what was written since its index was made inside of it: in the cells that it has, where they
    still suit the number of rows and find enough, else planned anew."""
    if not isinstance(now.index, LivingIndex):
        return now
    return _in_cells(now, now.index, wanted) or indexed(now, wanted)


def _in_cells(now: Snapshot, index: LivingIndex, wanted: Wanted) -> Snapshot | None:
    """`absorbed`, by the cells that there are; None where they do not serve any more."""
    told = now.card.get("index")
    made_by = told.get("factory") if isinstance(told, Mapping) else None
    if not isinstance(index.main, ApproximateIndex) or not isinstance(told, Mapping) or not isinstance(made_by, str):
        return None
    suits = wanted.factory or plan.choose(index.size, index.dim, wanted.goal)
    if suits.split(",")[0] != made_by.split(",")[0]:
        return None
    taken = index.main.absorbing(_vectors(now, np.arange(index.size)), index.rows)
    if taken is None:
        return None
    asked, named = (_queries(now), wanted.goal, _popularity(now)), wanted.factory is not None
    kept = plan.again(taken, made_by, *asked, named)
    return None if kept is None else _told(replace(now, index=kept[0]), kept[1], told.get("text_kept"))


def _told(now: Snapshot, measured: plan.Measured, kept: object) -> Snapshot:
    """With what was measured of its index on its card."""
    told = measured.to_dict() | ({} if kept is None else {"text_kept": kept})
    return replace(now, card={**now.card, "index": told, "recall_at_10": told["recall_at_10"]})


def _popularity(now: Snapshot) -> np.ndarray:
    return np.bincount(now.history.indices, minlength=len(now.catalog))


def with_changes(before: Snapshot, after: Snapshot, rows: np.ndarray) -> Snapshot:
    """`after` with an index that knows of the rows that were written, int [n], and of all whose trend moved.

    The index of `before` stays as it is, for requests that hold it, and serves the rows that did not change.
    """
    old, size = len(before.catalog), len(after.catalog)
    index = before.index
    moved = np.abs(after.trend[:old] - before.trend) * abs(after.blend.trend) > MOVED
    written = np.union1d(np.union1d(rows, np.flatnonzero(moved)), np.arange(old, size))
    beside = np.union1d(written, index.rows) if isinstance(index, LivingIndex) else written
    if len(beside) <= LARGEST_SEGMENT * old:
        vectors = _vectors(after, written)
    else:
        vectors = _vectors(after, np.arange(size))
        main = index.main if isinstance(index, LivingIndex) else index
        if not isinstance(main, ApproximateIndex):
            return replace(after, index=FaissIndex(vectors))
        # Candidates can be looked for where the rows were, as long as they did not go far; scores are the present ones.
        index, far = main.following(vectors[: main.size])
        written = np.union1d(far, np.arange(main.size, size))
        vectors = vectors[written]
    found = replace(after, index=changed(index, written, vectors, size))
    return found if len(written) <= LARGEST_SEGMENT * old else absorbed(found, Wanted.of(after.card))


def _vectors(now: Snapshot, rows: np.ndarray) -> np.ndarray:
    return blend.vectors(now.item_factors[rows], now.embeddings[rows], now.trend[rows], now.blend)


def _queries(now: Snapshot) -> dict[str, np.ndarray]:
    """What will be asked: known users by several blends, people with a few clicks, and sentences."""
    rng = np.random.default_rng(0)
    users = np.sort(rng.permutation(len(now.users))[:PLANNED_QUERIES])
    factors = now.user_factors[users]
    profiles = blend.profiles(now.history[users], now.embeddings)
    spread = now.folding.spread(factors)
    kinds = {"known users": now.queries(users)}
    has_text = bool(profiles.any())
    for a, b in BLENDS if has_text else BLENDS[:1]:
        weights = np.tile(np.asarray([[a, b]], np.float32), (len(users), 1))
        kinds[f"behaviour {a:g}, text {b:g}"] = blend.queries(factors, profiles, weights, spread)
    clicked = _first_clicks(now.history[users])
    solved = now.folding.fold_in.solve_rows(now.item_factors, now.folding.balance.user_rows(clicked))
    few = now.blend.weights(CLICKS, typed=False)
    weights = np.tile(np.asarray([[few.behaviour, few.text]], np.float32), (len(users), 1))
    seen = blend.profiles(clicked, now.embeddings)
    kinds[f"{CLICKS} clicks"] = blend.queries(solved, seen, weights, now.folding.spread(solved))
    if has_text:
        items = np.flatnonzero(now.embeddings.any(axis=1))
        items = np.sort(items[rng.permutation(len(items))[:PLANNED_QUERIES]])
        expected, typed = now.prior(now.features[items]), now.blend.with_text
        weights = np.tile(np.asarray([[typed.behaviour, typed.text]], np.float32), (len(items), 1))
        kinds["sentences"] = blend.queries(expected, now.embeddings[items], weights, np.zeros(len(items), np.float32))
    return {name: asked[asked.any(axis=1)] for name, asked in kinds.items()}


def _first_clicks(history: sparse.csr_array) -> sparse.csr_array:
    """CSR [n, items]: the first CLICKS entries of each row."""
    place = np.arange(history.nnz) - np.repeat(history.indptr[:-1], np.diff(history.indptr))
    kept = place < CLICKS
    starts = np.concatenate([[0], np.cumsum(np.minimum(np.diff(history.indptr), CLICKS))])
    return sparse.csr_array((history.data[kept], history.indices[kept], starts), shape=history.shape)
