"""The recommender: one index over behaviour and text, asked by any mix of a known user, clicks and a sentence."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from geo_mf.data.catalog import Catalog
from geo_mf.data.clicks import Clicks
from geo_mf.data.ids import IdValues
from geo_mf.data.interactions import Interactions
from geo_mf.data.more import read_more
from geo_mf.data.read import Source, read_interactions
from geo_mf.likeness import Space
from geo_mf.living import compacting, items, refit, users
from geo_mf.living.changes import ItemChanges, RefitReport, UserChanges
from geo_mf.living.record import Record
from geo_mf.query import Query
from geo_mf.recommendations import Recommendation, Recommendations
from geo_mf.rerank.pool import Reranker
from geo_mf.snapshot import Snapshot
from geo_mf.text.cache import CachedEncoder, EmbeddingCache
from geo_mf.view import View

__all__ = ["Recommender", "Space"]


class Recommender(View):
    """An index to ask, and to change while others ask.

    Each request, and each attribute that is read, works on the snapshot of the moment it began. Who reads several
    attributes that must fit each other takes `rec.now` once and reads them there. A write (`add_items`, `update_items`,
    `remove_items`, `update_users`, `refit`) makes a new snapshot beside the old one and puts it in its place when it is
    whole: no request waits for it, and a write that fails leaves everything as it was. Writes wait for each other. They
    are in memory until `gm.save(rec, out)` publishes them.

    Attributes:
        now: everything the index holds at the moment.
    """

    def __init__(self, now: Snapshot) -> None:
        self.now = now
        self._writing = threading.Lock()

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
        """The best items for a known user, for a few clicks, for a sentence, or for any mix of them.

        Args:
            user: a known user's id. The user's factor is folded in from the stored history and, if given, `history`.
                Also the id of somebody of whom the build's table of users (`build(users=)`) knows no more than
                attributes.
            history: ids of items, or a mapping from id to weight: 1 is one ordinary interaction, -1 a dislike, which
                says that the item ought to score nothing: it takes away from what is like it, as far as the rest
                speaks for that. It stands against clicks on the same item.
            text: a sentence. It counts as one more item of the history, and as the text to look for.
            attributes: values of the columns that the build took as features (`BuildConfig.attributes`), such as
                {"genres": ["drama"], "year": 1994}. With the text, they describe one more item of the history.
            user_attributes: what is known of the user, by the columns of the build's table of users, such as
                {"age": 34, "country": "NO"}; in the place of what that table says. A new user begins as what they let
                one expect, and not as the mean user.
            k: how many items.
            where: a condition over the catalogue's columns, such as "year >= 1990 and 'Drama' in genres"; it acts
                inside the search.
            weights: (behaviour, text); by default learned, as a function of the history's length.
            exclude_seen: leave out the items of the history.
            rerank: how to choose the k from the best max(5 k, 100), or from as many as it asks for: `MMR(0.3)`,
                `Quota("author", at_most=2)`, `Exposure("author")`, a function of yours (`rerank.pool.Reranker`), or
                several, which act in this order. By default none: the best k by score.

        Returns:
            k items, or fewer and the reason. Re-ranked ones keep their scores, which then need not fall.

        Raises:
            InvalidInput: nothing to go by, k < 1, a bad `where`, bad weights, or what a re-ranker cannot use.
            UnknownId: a user or an item that is not in the index.
            IncompatibleIndex: the encoder is not the one that built the index.
        """
        return self.now.recommend(
            user,
            history=history,
            text=text,
            attributes=attributes,
            user_attributes=user_attributes,
            k=k,
            where=where,
            weights=weights,
            exclude_seen=exclude_seen,
            rerank=rerank,
        )

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
        """What `recommend` searches with. Arguments and errors as there."""
        return self.now.query(
            user, history=history, text=text, attributes=attributes, user_attributes=user_attributes, weights=weights
        )

    def explain(
        self,
        item: Any,
        user: Any = None,
        *,
        history: Clicks | None = None,
        text: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        user_attributes: Mapping[str, Any] | None = None,
        weights: tuple[float, float] | None = None,
    ) -> Recommendation:
        """One item's score for what `recommend` takes, and all of its reasons.

        Returns:
            score = behaviour + text; and the shares in `because`, of every item of the history, of what was typed or
            named, of what is known of the user and of the crowd, strongest first, the negative ones too, sum to the
            score.

        Raises:
            UnknownId: no such item, or as in `recommend`.
            InvalidInput, IncompatibleIndex: as in `recommend`.
        """
        now = self.now
        query = now.query(
            user, history=history, text=text, attributes=attributes, user_attributes=user_attributes, weights=weights
        )
        return now.explain(item, query)

    def trending(
        self, *, k: int = 10, where: str | None = None, rerank: Reranker | Sequence[Reranker] | None = None
    ) -> Recommendations:
        """What everybody touches lately: the list for somebody of whom nothing is known.

        Args:
            k: how many items.
            where: as in `recommend`.
            rerank: as in `recommend`.

        Returns:
            k items that somebody touched, or fewer and the reason; a score is the number of touches, the old ones
            counting less (`blend.half_life`).

        Raises:
            InvalidInput: k < 1, a bad `where`, or what a re-ranker cannot use.
        """
        return self.now.trending(k=k, where=where, rerank=rerank)

    def similar_items(
        self,
        item: Any,
        *,
        k: int = 10,
        space: Space = "blend",
        where: str | None = None,
        rerank: Reranker | Sequence[Reranker] | None = None,
    ) -> Recommendations:
        """The items nearest to one, the item itself left out.

        Args:
            item: the item's id.
            k: how many.
            space: cosine of "factors" (touched by the same people), of "text" (worded alike), or their mean ("blend").
                The mean factor of touched items is taken off first: it says how popular items are, not what they are.
            where, rerank: as in `recommend`.

        Raises:
            UnknownId: no such item.
            InvalidInput: k < 1, an unknown space, a bad `where`, or what a re-ranker cannot use.
        """
        return self.now.similar_items(item, k=k, space=space, where=where, rerank=rerank)

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

    def add_items(self, source: Source | Catalog) -> ItemChanges:
        """Add items. They are searchable at once, by their text and by the factor that it predicts.

        Their texts are composed as at the build, and what they do not have of the catalogue's columns is missing. An
        item that was removed may be added again: it keeps its history, and has the new text and columns.

        Args:
            source: what `read_catalog` takes, with the same id column; or a catalogue. All of it is added, or nothing.

        Raises:
            FileNotFoundError: no such file.
            InvalidInput: an item is here already or occurs twice; a column is unknown, or of another type than here.
            IncompatibleIndex: the encoder is not the one that built the index.
        """
        with self._writing:
            edit = items.adding(self.now, read_more(source, self.now.catalog))
            return self._write(edit, "added")

    def update_items(self, source: Source | Catalog) -> ItemChanges:
        """Change the text or the columns of items; columns that are not given stay as they are.

        Where a text changed, the factor of an item that nobody touched is what the new text predicts, and that of
        another one is solved again, exactly, from its history and the new prediction.

        Args:
            source: as in `add_items`.

        Raises:
            FileNotFoundError, InvalidInput, IncompatibleIndex: as in `add_items`.
            UnknownId: an item that is not in the index, or not any more.
        """
        with self._writing:
            edit = items.updating(self.now, read_more(source, self.now.catalog))
            return self._write(edit, "updated")

    def remove_items(self, ids: IdValues) -> ItemChanges:
        """Take items out of every answer. Those who touched them keep them in their history, where they still count.

        Args:
            ids: a list or a column of ids.

        Raises:
            UnknownId: an item that is not in the index, or not any more; then none is removed.
            InvalidInput: not a list of ids.
        """
        began = time.perf_counter()
        with self._writing:
            rows = np.unique(items.known_rows(self.now, ids))
            if not len(rows):
                return ItemChanges()
            gone = tuple(self.now.catalog.items.take(rows))
            self.now = items.without(self.now, rows).ready()
        return ItemChanges(removed=gone, seconds={"rest": time.perf_counter() - began})

    def compact(self) -> tuple[Any, ...]:
        """Forget the items that were removed, with what they told of taste, and make the index anew of the rest.

        Returns:
            The ids of the items that were forgotten.

        Raises:
            InvalidInput: no item would be left.
        """
        with self._writing:
            before = self.now
            gone = tuple(before.catalog.items.take(np.flatnonzero(~before.live)))
            self.now = compacting.compacted(before).ready()
        return gone

    def update_users(self, interactions: Interactions | Source) -> UserChanges:
        """Take in interactions of known or new users, without a fit.

        They are merged into the histories, as if the build had seen them: weights of one pair add up and are scaled as
        there. Then rows are solved exactly: new users against the items, the touched items against all users, the
        touched users against the items. Each lies within 1e-4, of its length, of what an exact half-epoch of a refit
        gives from the same factors of the other side and the same prior. Rows that are not touched stay, as do the
        prior and the blend, until `refit`.

        Without a half-life the trend counts each pair once, with one each touch, which fades; a touch without a
        datetime counts as one of now. Items that were removed are taken too: they still tell taste.

        Args:
            interactions: interactions, or what `read_interactions` takes, with the column names it expects. Those whose
                item the catalogue does not list are left out and counted.

        Raises:
            FileNotFoundError: no such file.
            InvalidInput: a weight is negative, ids are of another kind than here, or the source cannot be read.
            FitDiverged: a factor is not finite.
        """
        given = interactions if isinstance(interactions, Interactions) else read_interactions(interactions)
        began = time.perf_counter()
        with self._writing:
            after, changes = users.with_interactions(self.now, given)
            if after is not self.now:
                self.now = after.ready()
        return replace(changes, seconds={"all": time.perf_counter() - began})

    def refit(self, iterations: int | None = None, *, show_progress: bool = False) -> RefitReport:
        """Factorize the whole present history, beginning at the present factors.

        The new space is turned to lie on the old one, which changes no score. The objective and the blend stay those of
        the build. Requests go on meanwhile, other writes wait.

        Args:
            iterations: epochs; None takes as many as the build.
            show_progress: a progress bar on stderr.

        Returns:
            How many of the nearest items are others than before, and how far the factors moved.

        Raises:
            InvalidInput: iterations < 1.
            FitDiverged: the factors became infinite or NaN.
        """
        refit.check_iterations(iterations)
        began = time.perf_counter()
        with self._writing:
            before, epochs = self.now, iterations or Record.of(self.now.card).iterations
            after = refit.refitted(before, epochs, show_progress)
            fitted = time.perf_counter() - began
            self.now = after.ready()
        report = refit.moved(before, after, epochs)
        return replace(report, seconds={"fit": fitted, "rest": time.perf_counter() - began - fitted})

    def _write(self, edit: items.Edit, verb: Literal["added", "updated"]) -> ItemChanges:
        """Encode and put; the caller holds the lock."""
        began, now = time.perf_counter(), self.now
        if not len(edit.rows):
            return ItemChanges()
        now.check_encoder()
        reader = CachedEncoder(now.encoder, EmbeddingCache()) if Record.of(now.card).cache else now.encoder
        found = reader.encode(edit.texts) if edit.texts else np.zeros((0, now.embeddings.shape[1]), np.float32)
        encoded = time.perf_counter()
        self.now = items.put(now, edit, found).ready()
        seconds = {"encode": encoded - began, "rest": time.perf_counter() - encoded}
        ids = tuple(edit.part.items.ids.to_pylist())
        return ItemChanges(**{verb: ids}, encoded=len(edit.texts), seconds=seconds)

    def __repr__(self) -> str:
        now = self.now
        removed = int(np.count_nonzero(~now.live))
        return (
            f"Recommender({len(now.users):,} users, {len(now.catalog):,} items, {int(now.cold.sum()):,} cold"
            f"{f', {removed:,} removed' if removed else ''}; "
            f"{now.item_factors.shape[1]} factors + {now.embeddings.shape[1]} text dimensions)"
        )
