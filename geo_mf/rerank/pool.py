"""The candidates of one request, and what a re-ranker is: from a pool to an order of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from geo_mf.data.catalog import Catalog
from geo_mf.errors import InvalidInput
from geo_mf.rerank.groups import Groups, check_column

LEAST = 100
"""Candidates of a request, where no re-ranker says how many it wants."""
TIMES_K = 5
"""Or so many for each place of the list, where that is more."""
WIDER, WIDEST = 10, 10_000
"""A list that comes out short, or without what it should hold, is chosen again from so many times the candidates, up to
so many."""


@dataclass(frozen=True, eq=False)
class Pool:
    """n candidates.

    Attributes:
        rows: int [n], their rows in the catalogue.
        scores: float32 [n]. They fall, unless a re-ranker has been here before.
        catalog: all items, with their ids, texts and columns.
        vectors_of: rows int [m] to vectors float32 [m, d], whose cosine says how alike two items are.
    """

    rows: np.ndarray
    scores: np.ndarray
    catalog: Catalog
    vectors_of: Callable[[np.ndarray], np.ndarray]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def vectors(self) -> np.ndarray:
        """float32 [n, d], made when they are first asked for."""
        return self.vectors_of(self.rows)

    def column(self, name: str) -> list[Any]:
        """The candidates' values in a column of the catalogue. InvalidInput when there is no such column."""
        check_column(self.catalog, name)
        column = self.catalog.table.column(name)
        return [column[int(row)].as_py() for row in self.rows]

    def groups(self, name: str) -> Groups:
        """Which candidates share which values of a column. Raises as `Groups.of`."""
        return Groups.of(self.catalog, name, self.rows)

    def take(self, order: np.ndarray) -> "Pool":
        """The candidates at these places, int [m], in this order."""
        return replace(self, rows=self.rows[order], scores=self.scores[order])


@dataclass(frozen=True, eq=False)
class Reranked:
    """What a re-ranker made of a pool.

    Attributes:
        order: int [m], places in the pool, none twice. The first k are the list. The others are what the next re-ranker
            may choose from as well; a candidate that is not here is out.
        reason: what could not be had, or "".
    """

    order: np.ndarray
    reason: str = ""


class Reranker(Protocol):
    """Orders a pool anew, for a list of k items. A plain function will do."""

    def __call__(self, pool: Pool, k: int, /) -> Reranked: ...


@runtime_checkable
class Wide(Protocol):
    """A re-ranker that says how many candidates it wants; None leaves it open."""

    @property
    def pool(self) -> int | None: ...


def chain(rerank: Reranker | Sequence[Reranker] | None) -> tuple[Reranker, ...]:
    """The re-rankers that a caller means. InvalidInput for what is none."""
    if rerank is None:
        return ()
    found = (rerank,) if callable(rerank) else tuple(rerank) if isinstance(rerank, Sequence) else (rerank,)
    for one in found:
        if not callable(one) or isinstance(one, type):
            raise InvalidInput(
                f"rerank holds {one!r}; expected a re-ranker such as MMR(0.3) or Quota('author', at_most=2), a list of "
                "them, or a function of a Pool and k that returns Reranked"
            )
    return found


def choose(rerankers: Sequence[Reranker], k: int, items: int, pool_of: Callable[[int], Pool]) -> tuple[Pool, int, str]:
    """The list that re-rankers choose, one after the other, from as many candidates as it takes.

    Without a re-ranker, the best k are the list. Where re-rankers name numbers of candidates, the largest is taken, and
    no fewer than k. Where none does, it is max(5 k, 100), and ten times as many, up to 10,000, as long as the list is
    short or a reason is given.

    Args:
        rerankers: any number of them.
        k: length of the list.
        items: how many items there are.
        pool_of: the best candidates, as many as it is asked for or all there are.

    Returns:
        The list, how many candidates it was chosen from, and what could not be had or "".

    Raises:
        InvalidInput: as the re-rankers; or one of the caller's own returned no order of its pool.
    """
    if not rerankers:
        best = pool_of(min(k, items))
        return best, len(best), ""
    named = [one.pool for one in rerankers if isinstance(one, Wide) and one.pool is not None]
    size = min(max(k, *named) if named else max(TIMES_K * k, LEAST), items)
    while True:
        pool = pool_of(size)
        chosen = select(rerankers, pool, k)
        wider = min(WIDER * size, WIDEST, items)
        if named or not chosen.reason or len(pool) < size or wider <= size:
            return pool.take(chosen.order), len(pool), chosen.reason
        size = wider


def select(rerankers: Sequence[Reranker], pool: Pool, k: int) -> Reranked:
    """At most k places of a pool, by re-rankers one after the other. Raises as `choose`."""
    order, reasons, left = np.arange(len(pool)), [], pool
    for place, reranker in enumerate(rerankers, 1):
        found = reranker(left, k)
        picked = _checked(found, len(left), reranker)
        order = order[picked]
        left = left.take(picked) if place < len(rerankers) else left
        reasons += [found.reason] if found.reason else []
    order = order[:k]
    told = "; ".join(reasons)
    if len(order) < min(k, len(pool)):
        told = f"{len(order)} of {k}: {told or f'the re-ranking leaves out the others of {len(pool)} candidates'}"
    return Reranked(order, told)


def _checked(found: Any, n: int, reranker: Reranker) -> np.ndarray:
    """The order int [m] that a re-ranker found; InvalidInput when it is none."""
    name = getattr(reranker, "__name__", type(reranker).__name__)
    if not isinstance(found, Reranked):
        raise InvalidInput(f"the re-ranker {name} returned {type(found).__name__}; expected Reranked(order)")
    order = np.asarray(found.order)
    if order.ndim != 1 or (order.size and order.dtype.kind not in "iu"):
        raise InvalidInput(
            f"the re-ranker {name} returned an order of {order.dtype}{list(order.shape)}; expected places in the pool, "
            "integers [m]"
        )
    order = order.astype(np.int64)
    if order.size and (order.min() < 0 or order.max() >= n or np.bincount(order).max() > 1):
        raise InvalidInput(
            f"the re-ranker {name} returned an order that is none: expected different places from 0 to {n - 1}, each "
            "at most once"
        )
    return order


def check_pool(pool: Any) -> None:
    """InvalidInput unless it is a number of candidates, or None."""
    if pool is not None and (isinstance(pool, bool) or not isinstance(pool, int | np.integer) or pool < 1):
        raise InvalidInput(f"pool is {pool!r}; expected a whole number of candidates, at least 1, or None")


def normalised(scores: np.ndarray) -> np.ndarray:
    """Scores [..., n] brought to 0..1 in each pool: the worst candidate has 0, the best 1; all 0 where they are equal.

    So that a weight of a re-ranker means the same for each query. -inf (no candidate) stays.
    """
    there = np.isfinite(scores)
    wide = scores.astype(np.float64)
    low = np.min(wide, axis=-1, keepdims=True, initial=np.inf, where=there)
    high = np.max(wide, axis=-1, keepdims=True, initial=-np.inf, where=there)
    span = high - low
    out = np.full(wide.shape, -np.inf)
    return np.divide(wide - low, np.where(span > 0, span, 1.0), out=out, where=there)


def with_others(first: np.ndarray, n: int) -> np.ndarray:
    """The places `first`, int [m], then the others of n in their order: int64 [n]."""
    left = np.ones(n, bool)
    left[first] = False
    return np.concatenate([first, np.flatnonzero(left)])
