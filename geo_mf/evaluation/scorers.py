"""Recommenders as scorers: the same numbers that serving gives, for every item at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from geo_mf.builder import BuildConfig, build
from geo_mf.data.catalog import Catalog
from geo_mf.data.ids import IdMap
from geo_mf.errors import InvalidInput
from geo_mf.evaluation.split import Split
from geo_mf.recommender import Recommender
from geo_mf.snapshot import Snapshot

Part = Literal["blend", "factors", "text"]


@dataclass(frozen=True, eq=False)
class RecommenderScorer:
    """One part of a recommender, in the rows of a split.

    A user whom the recommender does not know gets what is popular lately, as `Recommender.trending` would give it; an
    item it does not hold, or holds no more, scores -inf.
    """

    rec: Snapshot
    users: IdMap
    items: IdMap
    part: Part = "blend"

    @property
    def name(self) -> str:
        """What the table calls it."""
        return self.part

    def scores(self, user_rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """float32 [b, n_items]."""
        rows = self._user_rows[user_rows]
        known = rows >= 0
        scores = np.empty((len(rows), len(self.rec.catalog)), np.float32)
        scores[~known] = self.rec.touches
        rank = self.rec.item_factors.shape[1]
        columns = {"blend": slice(None), "factors": slice(0, rank), "text": slice(rank, -1)}[self.part]
        queries = self.rec.queries(rows[known])[:, columns]
        scores[known] = queries @ self.rec.vectors[:, columns].T
        scores[:, ~self.rec.live] = -np.inf
        if self._in_order:
            return scores
        out = np.full((len(rows), len(self.items)), -np.inf, np.float32)
        held = self._item_rows >= 0
        out[:, held] = scores[:, self._item_rows[held]]
        return out

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """float32 [n_items, dim], the items' embeddings in the split's rows; zero where there is none."""
        out = np.zeros((len(self.items), self.rec.embeddings.shape[1]), np.float32)
        held = self._item_rows >= 0
        out[held] = self.rec.embeddings[self._item_rows[held]]
        return out

    @cached_property
    def _user_rows(self) -> NDArray[np.int32]:
        return self.rec.users.rows_or_missing(self.users.ids)

    @cached_property
    def _item_rows(self) -> NDArray[np.int32]:
        return self.rec.catalog.items.rows_or_missing(self.items.ids)

    @cached_property
    def _in_order(self) -> bool:
        return self.rec.catalog.items == self.items


def of_recommender(rec: Recommender, split: Split) -> tuple[RecommenderScorer, ...]:
    """The blend, and the factors alone: what text adds is their difference."""
    parts: Sequence[Part] = ("blend", "factors")
    return tuple(RecommenderScorer(rec.now, split.users, split.items, part) for part in parts)


def of_config(config: BuildConfig, split: Split, catalog: Catalog | None) -> tuple[RecommenderScorer, ...]:
    """Build on the split's training part, in memory, and score with that. Raises InvalidInput without a catalogue."""
    if catalog is None:
        raise InvalidInput("a BuildConfig is evaluated by building an index first: give catalog= (the items' texts)")
    return of_recommender(build(split.train, catalog, config=config), split)
