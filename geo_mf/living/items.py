"""Items that come, change and go, without a fit.

A new item stands where the build puts one that nobody has touched: at the factor that its features predict. One that
somebody touched is solved again, exactly, when its features changed. A removed item keeps its row.
"""

from dataclasses import dataclass, replace

import numpy as np

from geo_mf.data.catalog import Catalog
from geo_mf.data.ids import IdValues
from geo_mf.data.more import MoreItems
from geo_mf.errors import InvalidInput, UnknownId
from geo_mf.geometry import trend
from geo_mf.living.indexing import with_changes
from geo_mf.living.record import Record
from geo_mf.living.solves import counted, grown, resized, solved_items
from geo_mf.snapshot import Snapshot


@dataclass(frozen=True, eq=False)
class Edit:
    """Items to be written.

    Attributes:
        rows: int64 [n], of items that are there, or, from len(catalog) on and in this order, of new ones.
        part: their contents, n items.
        unread: bool [n], those whose text has to be encoded.
    """

    rows: np.ndarray
    part: Catalog
    unread: np.ndarray

    @property
    def texts(self) -> list[str]:
        """The texts that have to be encoded."""
        return [self.part.texts[at] for at in np.flatnonzero(self.unread)]


def adding(now: Snapshot, more: MoreItems) -> Edit:
    """Rows for new items, and for removed ones that come back as new.

    Raises:
        InvalidInput: an item is here already, or ids are of another kind than those here.
    """
    found = now.catalog.items.rows_or_missing(more.items.ids).astype(np.int64)
    here = np.flatnonzero((found >= 0) & now.live[found])
    if len(here):
        names = ", ".join(repr(id) for id in more.items.take(here[:5]))
        raise InvalidInput(
            f"{len(here)} of {len(more)} items are in the index already: {names}{', ...' if len(here) > 5 else ''}; "
            "change them with update_items, and add the others"
        )
    new = found < 0
    found[new] = len(now.catalog) + np.arange(np.count_nonzero(new))
    return _edit(now, found, more.as_new())


def updating(now: Snapshot, more: MoreItems) -> Edit:
    """Rows of known items. Raises UnknownId for an item that is not in the index, or not any more."""
    rows = known_rows(now, more.items.ids)
    return _edit(now, rows, more.over(rows))


def known_rows(now: Snapshot, ids: IdValues) -> np.ndarray:
    """int64 [n]: the rows of items that are in the index. Raises UnknownId, naming those that are not."""
    rows = now.catalog.items.rows(ids).astype(np.int64)
    gone = np.unique(rows[~now.live[rows]])
    if len(gone):
        names = ", ".join(repr(id) for id in now.catalog.items.take(gone[:5]))
        raise UnknownId(f"{len(gone)} of these items were removed from this index: {names}; add_items brings them back")
    return rows


def put(now: Snapshot, edit: Edit, embeddings: np.ndarray) -> Snapshot:
    """Write items. `embeddings`, float32 [m, dim], are those of `edit.texts`.

    Raises:
        InvalidInput: ids are of another kind than those here.
        FitDiverged: an item's factor is not finite.
        IncompatibleIndex: the index's card does not say how it was built.
    """
    rows, size, record = edit.rows, len(now.catalog), Record.of(now.card)
    new = rows >= size
    catalog = now.catalog.joined(edit.part.take(np.flatnonzero(new))) if new.any() else now.catalog
    if not new.all():
        catalog = catalog.replaced(rows[~new], edit.part.take(np.flatnonzero(~new)))
    total = len(catalog)
    texts = grown(now.embeddings, total)
    texts[rows[edit.unread]] = embeddings
    live = grown(now.live, total)
    live[rows] = True
    after = replace(
        now,
        catalog=catalog,
        history=resized(now.history, len(now.users), total),
        item_factors=grown(now.item_factors, total),
        embeddings=texts,
        touches=grown(now.touches, total),
        trend=grown(now.trend, total),
        live=live,
    )
    moved = rows[new | np.any(after.features[rows] != grown(now.features, total)[rows], axis=1)]
    cold, warm = moved[after.cold[moved]], moved[~after.cold[moved]]
    after.item_factors[cold] = np.float32(now.blend.cold_scale) * now.prior(after.features[cold])
    if len(warm):
        after.item_factors[warm] = solved_items(after, warm)
    crowd = trend.column(after.touches, after.features, record.prior_regularization)
    return with_changes(now, counted(replace(after, trend=crowd)), rows)


def without(now: Snapshot, rows: np.ndarray) -> Snapshot:
    """Items in no answer any more, int [n]. The index stays, and the search passes them over."""
    live = now.live.copy()
    live[rows] = False
    card = {**now.card, "removed_items": int(np.count_nonzero(~live))}
    return replace(now, live=live, card=card)


def _edit(now: Snapshot, rows: np.ndarray, part: Catalog) -> Edit:
    if now.embeddings.shape[1] == 1 and part.has_text.any() and not now.catalog.has_text.any():
        raise InvalidInput(
            "this index was built without texts, and there is no encoder for new ones: leave the texts out, or build "
            "the index again with a catalogue that has texts"
        )
    texts = now.catalog.texts
    same = [row < len(texts) and texts[row] == text for row, text in zip(rows.tolist(), part.texts, strict=True)]
    return Edit(rows, part, ~np.asarray(same, bool))
