"""The recommender: one index over behaviour and text, asked by any mix of a known user, clicks and a sentence."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from geo_mf.data.catalog import Catalog
from geo_mf.data.clicks import Clicks
from geo_mf.data.ids import IdMap
from geo_mf.factorize.fold_in import FoldIn
from geo_mf.factorize.ials import Objective
from geo_mf.geometry.blend import Blend
from geo_mf.geometry.predictor import Predictor
from geo_mf.index.exact import VectorIndex
from geo_mf.query import Query
from geo_mf.recommendations import Recommendations
from geo_mf.snapshot import Snapshot, Space
from geo_mf.text.encoder import TextEncoder

__all__ = ["Recommender", "Space"]


class Recommender:
    """An index to ask.

    Each request, and each attribute that is read, works on the snapshot of the moment it began. Who reads several
    attributes that must fit each other takes `rec.now` once and reads them there.

    Attributes:
        now: everything the index holds at the moment.
    """

    def __init__(self, now: Snapshot) -> None:
        self.now = now

    def recommend(
        self,
        user: Any = None,
        *,
        history: Clicks | None = None,
        text: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        k: int = 10,
        where: str | None = None,
        weights: tuple[float, float] | None = None,
        exclude_seen: bool = True,
    ) -> Recommendations:
        """The best items for a known user, for a few clicks, for a sentence, or for any mix of them.

        Args:
            user: a known user's id. The user's factor is folded in from the stored history and, if given, `history`.
            history: ids of items, or a mapping from id to weight: 1 is one ordinary interaction, -1 a dislike, which
                takes away from what is like it and stands against clicks on the same item.
            text: a sentence. It counts as one more item of the history, and as the text to look for.
            attributes: values of the columns that the build took as features (`BuildConfig.attributes`), such as
                {"genres": ["drama"], "year": 1994}. With the text, they describe one more item of the history.
            k: how many items.
            where: a condition over the catalogue's columns, such as "year >= 1990 and 'Drama' in genres"; it acts
                inside the search.
            weights: (behaviour, text); by default learned, as a function of the history's length.
            exclude_seen: leave out the items of the history.

        Returns:
            k items, or fewer and the reason.

        Raises:
            InvalidInput: nothing to go by, k < 1, a bad `where` or bad weights.
            UnknownId: a user or an item that is not in the index.
            IncompatibleIndex: the encoder is not the one that built the index.
        """
        return self.now.recommend(
            user,
            history=history,
            text=text,
            attributes=attributes,
            k=k,
            where=where,
            weights=weights,
            exclude_seen=exclude_seen,
        )

    def query(
        self,
        user: Any = None,
        *,
        history: Clicks | None = None,
        text: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        weights: tuple[float, float] | None = None,
    ) -> Query:
        """What `recommend` searches with. Arguments and errors as there."""
        return self.now.query(user, history=history, text=text, attributes=attributes, weights=weights)

    def trending(self, *, k: int = 10, where: str | None = None) -> Recommendations:
        """What everybody touches lately: the list for somebody of whom nothing is known.

        Args:
            k: how many items.
            where: as in `recommend`.

        Returns:
            k items that somebody touched, or fewer and the reason; a score is the number of touches, the old ones
            counting less (`blend.half_life`).

        Raises:
            InvalidInput: k < 1, or a bad `where`.
        """
        return self.now.trending(k=k, where=where)

    def similar_items(
        self, item: Any, *, k: int = 10, space: Space = "blend", where: str | None = None
    ) -> Recommendations:
        """The items nearest to one, the item itself left out.

        Args:
            item: the item's id.
            k: how many.
            space: cosine of "factors" (touched by the same people), of "text" (worded alike), or their mean ("blend").
                The mean factor of touched items is taken off first: it says how popular items are, not what they are.
            where: as in `recommend`.

        Raises:
            UnknownId: no such item.
            InvalidInput: k < 1, an unknown space, a bad `where`.
        """
        return self.now.similar_items(item, k=k, space=space, where=where)

    def audience(self, item: Any, *, k: int = 10) -> list[tuple[Any, float]]:
        """The known users an item would reach: (user id, score) of the k best who have not touched it.

        Nobody, when nothing is known of the item.

        Raises:
            UnknownId: no such item.
            InvalidInput: k < 1.
        """
        return self.now.audience(item, k=k)

    def queries(self, user_rows: np.ndarray) -> np.ndarray:
        """Query vectors float32 [n, K + dim + 1] of known users by row, from their stored factors and profiles."""
        return self.now.queries(user_rows)

    def __repr__(self) -> str:
        now = self.now
        return (
            f"Recommender({len(now.users):,} users, {len(now.catalog):,} items, {int(now.cold.sum()):,} cold; "
            f"{now.item_factors.shape[1]} factors + {now.embeddings.shape[1]} text dimensions)"
        )

    @property
    def users(self) -> IdMap:
        """Ids of the known users."""
        return self.now.users

    @property
    def catalog(self) -> Catalog:
        """The items: ids, texts, attributes."""
        return self.now.catalog

    @property
    def history(self) -> sparse.csr_array:
        """float32 CSR [users, items], the weights that the factors were fitted to."""
        return self.now.history

    @property
    def user_factors(self) -> np.ndarray:
        """float32 [users, K]."""
        return self.now.user_factors

    @property
    def item_factors(self) -> np.ndarray:
        """float32 [items, K]."""
        return self.now.item_factors

    @property
    def embeddings(self) -> np.ndarray:
        """float32 [items, dim], unit length; a zero row for an item without text."""
        return self.now.embeddings

    @property
    def prior(self) -> Predictor:
        """From features (text and attributes) to factors."""
        return self.now.prior

    @property
    def objective(self) -> Objective:
        """The factorization's objective."""
        return self.now.objective

    @property
    def touches(self) -> np.ndarray:
        """float32 [items], how often each was touched of late."""
        return self.now.touches

    @property
    def trend(self) -> np.ndarray:
        """float32 [items], the standard score of the touches."""
        return self.now.trend

    @property
    def blend(self) -> Blend:
        """Scale of the text part, default weights, weight of the trend."""
        return self.now.blend

    @property
    def encoder(self) -> TextEncoder:
        """What turns a typed text into an embedding."""
        return self.now.encoder

    @property
    def fingerprint(self) -> str:
        """Of the encoder that made `embeddings`."""
        return self.now.fingerprint

    @property
    def index(self) -> VectorIndex:
        """Over `vectors`."""
        return self.now.index

    @property
    def card(self) -> Mapping[str, Any]:
        """What was built, from what, and how good it is (JSON)."""
        return self.now.card

    @property
    def vectors(self) -> np.ndarray:
        """float32 [items, K + dim + 1], the indexed rows."""
        return self.now.vectors

    @property
    def fold_in(self) -> FoldIn:
        """Row solves against the item factors."""
        return self.now.fold_in

    @property
    def cold(self) -> np.ndarray:
        """bool [items]: nobody has touched the item."""
        return self.now.cold

    @property
    def titles(self) -> list[str]:
        """What to call each item."""
        return self.now.titles
