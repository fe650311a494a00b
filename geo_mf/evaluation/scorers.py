"""Recommenders as scorers: the same numbers that serving gives, for every item at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from geo_mf.builder import BuildConfig, build
from geo_mf.data.catalog import Catalog
from geo_mf.data.ids import IdMap
from geo_mf.data.people import People
from geo_mf.errors import InvalidInput
from geo_mf.evaluation.split import Split
from geo_mf.geometry import blend
from geo_mf.geometry.prior import apply as apply_prior
from geo_mf.recommender import Recommender
from geo_mf.snapshot import Snapshot

Part = Literal["blend", "factors", "text"]


@dataclass(frozen=True, eq=False)
class RecommenderScorer:
    """One part of a recommender, in the rows of a split.

    A user who has touched nothing that the recommender knows of, but whose attributes are known, is asked for by them:
    by those in `people`, else by those that the index holds. Without any, such a user gets what is popular lately, as
    `Recommender.trending` would give it. An item that the recommender does not hold, or holds no more, scores -inf.
    """

    rec: Snapshot
    users: IdMap
    items: IdMap
    part: Part = "blend"
    people: People | None = None

    @property
    def name(self) -> str:
        """What the table calls it."""
        return self.part

    def scores(self, user_rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """float32 [b, n_items]."""
        rows = self._user_rows[user_rows]
        known = rows >= 0
        rank = self.rec.item_factors.shape[1]
        columns = {"blend": slice(None), "factors": slice(0, rank), "text": slice(rank, -1)}[self.part]
        queries = np.empty((len(rows), self.rec.vectors.shape[1]), np.float32)
        queries[known] = self.rec.queries(rows[known])
        queries[~known] = self._by_attributes(user_rows[~known])
        scores = queries[:, columns] @ self.rec.vectors[:, columns].T
        scores[~known & ~queries[:, columns].any(axis=1)] = self.rec.touches
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

    def _by_attributes(self, user_rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Queries float32 [n, K + dim + 1] of users without history, rows of the split, as `Snapshot.query` makes them;
        a zero row where nothing is known."""
        now, told = self.rec, self.rec.told
        out = np.zeros((len(user_rows), now.vectors.shape[1]), np.float32)
        if told is None or not len(user_rows):
            return out
        users = IdMap(self.users.ids.take(pa.array(user_rows)))
        features = told.people.features_of(users)
        if self.people is not None:
            given = People(self.people.ids, told.people.attributes, self.people.read).features_of(users)
            features = np.where(given.any(axis=1, keepdims=True), given, features)
        expected = apply_prior(told.coefficients, features)
        asked = np.flatnonzero(expected.any(axis=1))
        nothing = sparse.csr_array((len(asked), len(now.catalog)), dtype=np.float32)
        factors = now.folding.newcomers.solve_rows(now.item_factors, nothing, expected[asked])
        weights = now.blend.weights(0, typed=False)
        both = np.tile(np.asarray([[weights.behaviour, weights.text]], np.float32), (len(asked), 1))
        text = np.zeros((len(asked), now.embeddings.shape[1]), np.float32)
        out[asked] = blend.queries(factors, text, both, now.folding.spread(factors))
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


def of_recommender(rec: Recommender, split: Split, people: People | None = None) -> tuple[RecommenderScorer, ...]:
    """The blend, and the factors alone: what text adds is their difference.

    people: what is known of users whom the recommender does not know.
    Raises InvalidInput for people, where the recommender was built without users' attributes or with others.
    """
    if people is not None:
        if rec.told is None:
            raise InvalidInput(
                "this index knows nothing of users beside what they touched: build(..., users=...), or leave users= out"
            )
        people = people.only(rec.told.people.attributes.names)
    parts: Sequence[Part] = ("blend", "factors")
    return tuple(RecommenderScorer(rec.now, split.users, split.items, part, people) for part in parts)


def of_config(
    config: BuildConfig, split: Split, catalog: Catalog | None, people: People | None = None
) -> tuple[RecommenderScorer, ...]:
    """Build on the split's training part, in memory, and score with that. Raises InvalidInput without a catalogue.

    people: what is known of the users of both parts: it was known before they touched anything.
    """
    if catalog is None:
        raise InvalidInput("a BuildConfig is evaluated by building an index first: give catalog= (the items' texts)")
    return of_recommender(build(split.train, catalog, users=people, config=config), split)
