"""What one request reads: an index in one state, all arrays of it, asked by any mix of user, clicks and sentence.

A snapshot never changes. A write makes another one, and `Recommender` holds the newest: a request ends on the snapshot
it began with. What the methods take, give and raise stands at the methods of `Recommender`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from geo_mf.data.attributes import Attributes
from geo_mf.data.catalog import Catalog
from geo_mf.data.clicks import Clicks, click_rows, merged_clicks
from geo_mf.data.ids import IdMap
from geo_mf.errors import InvalidInput, UnknownId
from geo_mf.factorize.ials import Objective
from geo_mf.folding import Folding
from geo_mf.geometry import blend
from geo_mf.geometry.blend import Blend, Weights
from geo_mf.geometry.features import Filling
from geo_mf.geometry.predictor import Predictor
from geo_mf.index.exact import Hits, VectorIndex
from geo_mf.likeness import Likeness, Space, check_space
from geo_mf.query import Found, Query, System
from geo_mf.recommendations import Because, Recommendation, Recommendations, check_k, shortage
from geo_mf.rerank.pool import Pool, Reranker, chain, choose
from geo_mf.text.encoder import TextEncoder
from geo_mf.text.stand_in import StandIn, check_same
from geo_mf.told import Told, expected_of, known_row

REASONS = 3
"""Items of the history that `because` names."""

EXPLAINED_TOGETHER = 1024
"""Items whose reasons are worked out at once: a table of history x items."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Everything an index holds, in memory or mapped from disk.

    Attributes:
        users: ids of the known users.
        catalog: the items: ids, texts, attributes.
        history: float32 CSR [users, items], the weights that the factors were fitted to.
        user_factors: float32 [users, K].
        item_factors: float32 [items, K].
        embeddings: float32 [items, dim], unit length; a zero row for an item without text.
        prior: from features (text and attributes) to factors.
        attributes: how the catalogue's columns become features.
        filling: what stands for a missing text or for missing attributes.
        objective: the factorization's objective, for folding in.
        touches: float32 [items], how often each was touched of late (`trend.touches`); 0 for an untouched item.
        trend: float32 [items], `trend.column` of the touches.
        blend: scale of the text part, default weights, weight of the trend.
        encoder: turns a typed text into an embedding.
        fingerprint: of the encoder that made `embeddings`.
        live: bool [items], False for an item that was removed. It keeps its row, as histories and factors still tell
            taste, and is in no answer.
        index: over `blend.vectors`.
        card: what was built, from what, and how good it is (JSON).
        folded: row solves that were prepared before; they serve as long as they are of these very arrays.
        told: what is known of users beside what they touched; None in an index that was built without.
    """

    users: IdMap
    catalog: Catalog
    history: sparse.csr_array
    user_factors: np.ndarray
    item_factors: np.ndarray
    embeddings: np.ndarray
    prior: Predictor
    attributes: Attributes
    filling: Filling
    objective: Objective
    touches: np.ndarray
    trend: np.ndarray
    blend: Blend
    encoder: TextEncoder
    fingerprint: str
    live: np.ndarray
    index: VectorIndex
    card: Mapping[str, Any]
    folded: Folding | None = None
    told: Told | None = None

    def recommend(
        self,
        user: Any = None,
        *,
        history: Clicks | None = None,
        text: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        user_attributes: Mapping[str, Any] | None = None,
        k: int = 10,
        where: str | None = None,
        weights: tuple[float, float] | None = None,
        exclude_seen: bool = True,
        rerank: Reranker | Sequence[Reranker] | None = None,
    ) -> Recommendations:
        """The best items for a known user, for a few clicks, for a sentence, or for any mix of them."""
        check_k(k)
        rerankers = chain(rerank)
        query = self.query(
            user, history=history, text=text, attributes=attributes, user_attributes=user_attributes, weights=weights
        )
        allowed = None if where is None and self.live.all() else self._allowed(where)
        seen = query.rows if exclude_seen else query.rows[:0]
        if not self._speaks(query):
            reason = "neither behaviour nor text is known of what was given, or its weight is 0"
            return Recommendations((), k, f"0 of {k}: {reason}")

        def best(n: int) -> Pool:
            return self._pool(self.index.search(query.vector, n, allowed, [seen]))

        listed, reason = self._listed(best, rerankers, k, where, len(seen))
        items = self._explained(query, listed.rows, listed.scores, REASONS)
        return Recommendations(tuple(items), k, reason)

    def query(
        self,
        user: Any = None,
        *,
        history: Clicks | None = None,
        text: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        user_attributes: Mapping[str, Any] | None = None,
        weights: tuple[float, float] | None = None,
    ) -> Query:
        """What `recommend` searches with."""
        at = known_row(user, self.users, self.told)
        rows, clicks = self._history(at, history)
        told = expected_of(self.told, user, at, user_attributes)
        if text is not None and not isinstance(text, str):
            raise InvalidInput(f"text is {text!r}, a {type(text).__name__}; expected a sentence")
        words = (text or "").strip()
        asked = self.attributes.encode_one({} if attributes is None else attributes)
        if not len(rows) and not words and not asked.any() and told is None:
            raise InvalidInput(
                "nothing to go by: the history is empty and there is no text; give user=, history= (ids of items), "
                "text= (a sentence), attributes= that some item has or user_attributes= that some user has, or ask "
                "for trending()"
            )
        typed = self._encode(words) if words else None
        looked_for = (
            typed
            if typed is not None
            else blend.unit(clicks.astype(np.float64) @ self.embeddings[rows]).astype(np.float32)
        )
        chosen = Weights.of(weights) if weights is not None else self.blend.weights(len(rows), typed is not None)
        system = System.of(rows, clicks, self.item_factors[rows], self._described(typed, asked), self.folding.balance)
        # Somebody new who shows what they like is like others of their kind, or like everybody else, until the clicks
        # say otherwise: with one click, the posterior mean is near the mean user. Who only describes what they look for
        # is taken at their word, and known users are as the fit had them.
        everybody = self.folding.mean_user if at is None and self.item_factors[rows].any() else None
        expected = everybody if told is None else told
        new = at is None and expected is not None
        behaviour = self.folding.solver(new).solve(system.factors, system.weights, expected, system.wanted)
        trend = float(self.folding.spread(behaviour[None])[0]) if typed is None else 0.0
        parts = (rows, clicks, typed, system, behaviour, looked_for, chosen, trend)
        return Query(*parts, expected, told is not None, new)

    def _described(self, typed: np.ndarray | None, asked: np.ndarray) -> np.ndarray | None:
        """float32 [K], the factor that an item of this text and these attributes would have; None without either."""
        if typed is None and not asked.any():
            return None
        embedding = np.zeros(self.embeddings.shape[1], np.float32) if typed is None else typed
        return self.prior(self.filling.features(embedding[None], asked[None]))[0]

    def trending(
        self, *, k: int = 10, where: str | None = None, rerank: Reranker | Sequence[Reranker] | None = None
    ) -> Recommendations:
        """What everybody touches lately: the list for somebody of whom nothing is known."""
        check_k(k)
        rerankers = chain(rerank)
        best = self._best(self.touches, self._allowed(where) & ~self.cold)
        listed, reason = self._listed(best, rerankers, k, where, 0)
        items = self._items(listed.rows, listed.scores, listed.scores, np.zeros(len(listed)))
        return Recommendations(items, k, reason)

    def similar_items(
        self,
        item: Any,
        *,
        k: int = 10,
        space: Space = "blend",
        where: str | None = None,
        rerank: Reranker | Sequence[Reranker] | None = None,
    ) -> Recommendations:
        """The items nearest to one, the item itself left out."""
        check_k(k)
        rerankers = chain(rerank)
        check_space(space)
        row = self._live_row(item)
        behaviour, text = self.likeness.to_all(row, space)
        if not (behaviour.any() or text.any()):
            return Recommendations((), k, f"0 of {k}: nothing is known of {item!r} in the space {space!r}")
        allowed = self._allowed(where)
        allowed[row] = False
        listed, reason = self._listed(self._best(behaviour + text, allowed), rerankers, k, where, 1)
        items = self._items(listed.rows, listed.scores, behaviour[listed.rows], text[listed.rows])
        return Recommendations(items, k, reason)

    def audience(self, item: Any, *, k: int = 10) -> list[tuple[Any, float]]:
        """The known users an item would reach: (user id, score) of the k best who have not touched it."""
        check_k(k)
        row = self._live_row(item)
        if not (self.item_factors[row].any() or self.embeddings[row].any()):
            return []
        weights = self._user_weights
        behaviour = self.user_factors @ self.item_factors[row]
        # <profile, embedding> without building every profile: the history's items weigh in by their similarity.
        text = self.history @ (self.embeddings @ self.embeddings[row]) * self._profile_scale
        behaviour += self.blend.trend * self.trend[row] * self.folding.spread(self.user_factors)
        score = (weights[:, 0] * behaviour + self.blend.scale * weights[:, 1] * text).astype(np.float32)
        score[self.history[:, [row]].toarray()[:, 0] > 0] = -np.inf
        hits = Hits.best(np.arange(len(score))[None], score[None], min(k, len(score)))
        found = hits.rows[0][hits.rows[0] >= 0]
        return list(zip(self.users.take(found), score[found].tolist(), strict=True))

    def queries(self, user_rows: np.ndarray, factors: np.ndarray | None = None) -> np.ndarray:
        """Query vectors float32 [n, K + dim + 1] of known users by row, from their profiles and these factors [n, K],
        by default the stored ones."""
        factors = self.user_factors[user_rows] if factors is None else factors
        profiles = blend.profiles(self.history[user_rows], self.embeddings)
        return blend.queries(factors, profiles, self._user_weights[user_rows], self.folding.spread(factors))

    @cached_property
    def features(self) -> np.ndarray:
        """float32 [items, dim + dim_a], what the prior and the trend are told of each item."""
        return self.filling.features(self.embeddings, self.attributes.encode(self.catalog.table))

    @cached_property
    def vectors(self) -> np.ndarray:
        """float32 [items, K + dim + 1], the indexed rows."""
        return blend.vectors(self.item_factors, self.embeddings, self.trend, self.blend)

    @cached_property
    def likeness(self) -> Likeness:
        """How alike items are."""
        return Likeness(self.item_factors, self.embeddings, self.folding.mean_item)

    @cached_property
    def folding(self) -> Folding:
        """The row solves."""
        sides = self.history, self.user_factors, self.item_factors
        made = Folding(*sides, self.objective, self.blend.newcomer)
        return self.folded if self.folded is not None and made.same(self.folded) else made

    @property
    def cold(self) -> np.ndarray:
        """bool [items]: nobody has touched the item."""
        return self.folding.cold

    def ready(self) -> "Snapshot":
        """This snapshot, with all worked out that a first request would have to wait for."""
        _ = self.folding.fold_in, self.folding.balance, self.folding.spread, self._any_text
        return self

    @cached_property
    def titles(self) -> list[str]:
        """What to call each item."""
        return self.catalog.titles

    def __repr__(self) -> str:
        return (
            f"Snapshot({len(self.users):,} users, {len(self.catalog):,} items, {int(self.cold.sum()):,} cold; "
            f"{self.item_factors.shape[1]} factors + {self.embeddings.shape[1]} text dimensions)"
        )

    @cached_property
    def _any_text(self) -> bool:
        first = self.embeddings[:4096]  # without a look at the others, where it tells
        return bool(first.any() or self.embeddings.any())

    @cached_property
    def _profile_scale(self) -> np.ndarray:
        """float32 [users]: 1 / length of the weighted sum of a user's embeddings; 0 where there is none."""
        lengths = np.zeros(len(self.users), np.float32)
        for start in range(0, len(lengths), 8192):
            sums = self.history[start : start + 8192] @ self.embeddings
            lengths[start : start + 8192] = np.linalg.norm(sums, axis=1)
        return np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 1e-12)

    @cached_property
    def _user_weights(self) -> np.ndarray:
        """float32 [users, 2]: the default weights of each known user."""
        chosen = [self.blend.weights(int(n), typed=False) for n in np.diff(self.history.indptr)]
        return np.asarray([(w.behaviour, w.text) for w in chosen], np.float32).reshape(-1, 2)

    def _allowed(self, where: str | None) -> np.ndarray:
        """bool [items]: not removed, and the condition holds."""
        return self.catalog.mask(where) & self.live

    def _listed(
        self, best: Callable[[int], Pool], rerankers: Sequence[Reranker], k: int, where: str | None, seen: int
    ) -> tuple[Pool, str]:
        """The list of k that re-rankers choose from the best candidates, and why it is short or not as wanted."""
        # A search sets places aside for all it is asked for: no more than there are items.
        listed, candidates, missing = choose(rerankers, k, len(self.catalog), best)
        limits = shortage(k, min(k, candidates), where, seen)
        return listed, "; ".join(filter(None, (limits, missing)))

    def _best(self, scores: np.ndarray, allowed: np.ndarray) -> Callable[[int], Pool]:
        """The best by scores, float32 [items], of those allowed, bool [items]."""
        candidates = np.flatnonzero(allowed)[None]
        return lambda n: self._pool(Hits.best(candidates, scores[candidates].astype(np.float32), n))

    def _pool(self, hits: Hits) -> Pool:
        """One query's hits as candidates."""
        found = int(hits.counts[0])
        # What likeness needs of all items is worked out for a re-ranker that asks, and for nobody else.
        return Pool(
            hits.rows[0][:found], hits.scores[0][:found], self.catalog, lambda rows: self.likeness.directions(rows)
        )

    def _live_row(self, item: Any) -> int:
        row = self.catalog.items.row(item, "item")
        if not self.live[row]:
            raise UnknownId(f"item: {item!r} was removed from this index; add_items brings it back")
        return row

    def _history(self, at: int | None, history: Clicks | None) -> tuple[np.ndarray, np.ndarray]:
        rows, clicks = np.zeros(0, np.int64), np.zeros(0, np.float32)
        if at is not None:
            span = slice(self.history.indptr[at], self.history.indptr[at + 1])
            rows, clicks = self.history.indices[span].astype(np.int64), self.history.data[span]
        if history is None:
            return rows, clicks
        given, weights = click_rows(history, self.catalog.items)
        return merged_clicks(rows, clicks, given, weights)

    def _encode(self, text: str) -> np.ndarray:
        if not (isinstance(self.encoder, StandIn) and self.encoder.stands_for == self.fingerprint):
            self.check_encoder()
        return self.encoder.encode([text], kind="query")[0]

    def check_encoder(self) -> None:
        """IncompatibleIndex unless the encoder is the one that made the embeddings."""
        check_same(self.encoder, self.fingerprint)

    def _speaks(self, query: Query) -> bool:
        """Whether the query can tell one item from another."""
        behaviour, text, _ = np.split(query.vector[0], [self.item_factors.shape[1], len(query.vector[0]) - 1])
        return bool(behaviour.any() or (text.any() and self._any_text))

    def explain(self, item: Any, query: Query) -> Recommendation:
        """One item's score for a query, with every reason."""
        row = self.catalog.items.row(item, "item")
        at = np.asarray([row])
        vector = blend.vectors(self.item_factors[at], self.embeddings[at], self.trend[at], self.blend)
        return self._explained(query, at, vector @ query.vector[0], None)[0]

    def _explained(
        self, query: Query, found: np.ndarray, scores: np.ndarray, reasons: int | None
    ) -> list[Recommendation]:
        """Items with their `reasons` strongest reasons, or with all of them."""
        a, b = query.weights.behaviour, query.weights.text * self.blend.scale
        told = list(zip(self.catalog.items.take(query.rows), self.catalog.titles_of(query.rows), strict=True))
        items: list[Recommendation] = []
        for start in range(0, len(found), EXPLAINED_TOGETHER):
            rows = found[start : start + EXPLAINED_TOGETHER]
            behaviour = a * (self.item_factors[rows] @ query.behaviour + self._crowd(query, rows))
            text = b * (self.embeddings[rows] @ query.text)
            because = query.because(self._shares(query, rows), told, reasons)
            items += self._items(rows, scores[start : start + len(rows)], behaviour, text, because)
        return items

    def _shares(self, query: Query, rows: np.ndarray) -> np.ndarray:
        """`Query.shares` of items by row."""
        found = Found(self.item_factors[rows], self.embeddings[rows], self._crowd(query, rows))
        return query.shares(self.folding.solver(query.new), found, self.embeddings[query.rows], self.blend.scale)

    def _crowd(self, query: Query, rows: np.ndarray) -> np.ndarray:
        """[rows]: what the trend adds to the behaviour score."""
        return query.trend * self.blend.trend * self.trend[rows].astype(np.float64)

    def _items(
        self,
        rows: np.ndarray,
        scores: np.ndarray,
        behaviour: np.ndarray,
        text: np.ndarray,
        because: Sequence[tuple[Because, ...]] | None = None,
    ) -> tuple[Recommendation, ...]:
        cold, names = self.cold[rows].tolist(), (self.catalog.items.take(rows), self.catalog.titles_of(rows))
        columns = (*names, cold, scores.tolist(), behaviour.tolist(), text.tolist())
        reasons = because if because is not None else [()] * len(rows)
        return tuple(
            Recommendation(id, title, score, factor, word, cold, why)
            for (id, title, cold, score, factor, word), why in zip(zip(*columns, strict=True), reasons, strict=True)
        )
