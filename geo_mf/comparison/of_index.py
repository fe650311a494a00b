"""compare_index: what the factors of an index know that its embeddings do not, and the other way round."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from geo_mf.builder.config import BuildConfig
from geo_mf.builder.trial import ials, only, predictor, with_cold_factors
from geo_mf.comparison.figures import WhoIsRight
from geo_mf.comparison.pairs import Pairs, touched_together
from geo_mf.comparison.result import Comparison
from geo_mf.comparison.run import check_choices, check_reach, compared
from geo_mf.comparison.spaces import Items, Space, comparable
from geo_mf.comparison.who_is_right import who_is_right
from geo_mf.errors import IncompatibleIndex, InvalidInput
from geo_mf.factorize import matrices
from geo_mf.factorize.ials import Objective
from geo_mf.recommender import Recommender
from geo_mf.snapshot import Snapshot

HELD_OUT = 0.2
ABLE = 5
"""Entries of a history from which on some are held out."""


def compare_index(
    rec: Recommender, *, names: tuple[str, str] = ("factors", "embeddings"), k: int = 20, seed: int = 0
) -> Comparison:
    """Compare the factors of an index with its embeddings, as `compare` does.

    The geometry is that of the index as it stands, over the items that have both behaviour and text. As in
    `similar_items`, the mean factor of touched items is taken off the factors before their directions are taken.

    Who is right is asked of factors that have not seen the answers: of each history of 5 entries or more a fifth, but
    at least two, is held out at random (an index keeps no times), and the factors are fitted again to the rest, with
    the settings of the index. Embeddings stay, and the numbers of interactions are those that remain. An item left with
    none
    has the factor that its text predicts, as it would in the index: at 0 interactions this prediction is compared with
    the text itself. And the fit draws every factor towards that prediction, the more so the fewer interactions there
    are: the factors of an index are not free of text.

    Args:
        rec: the index. It is only read. One fit as long as its build is made.
        names: of the spaces, in the plural.
        k: a pair is found when one is among the k nearest of the other; not all of the others may be.
        seed: of every random choice.

    Returns:
        The comparison. Its `who_is_right` is None where no two held-out items of one user could be judged.

    Raises:
        InvalidInput: no item has a text, fewer than 10 have both behaviour and text, or all are among the k nearest.
        IncompatibleIndex: the index's card does not say how it was built.
        FitDiverged: the factors became infinite or NaN.
    """
    check_choices(names, k, seed)
    now = rec.now
    if not now.embeddings.any():
        raise InvalidInput("this index has no text to compare with; build it with a catalogue whose items have texts")
    counts = np.bincount(now.history.indices, minlength=len(now.catalog))
    everything = Items(now.catalog.items, now.titles, counts, np.arange(len(now.catalog)))
    own = np.flatnonzero(now.live & ~now.cold & now.embeddings.any(axis=1))
    a, b, items = _spaces(now, names, now.item_factors, counts, everything.take(own))
    right = _right(now, names, everything, k, seed)
    return compared(a, b, items, int(now.live.sum()) - len(items), seed, right)


def _right(now: Snapshot, names: tuple[str, str], everything: Items, k: int, seed: int) -> WhoIsRight | None:
    held = held_out(now.history, seed)
    train = only(now.history, ~held)
    test = only(now.history, held)
    counts = np.bincount(train.indices, minlength=len(now.catalog))
    known = np.flatnonzero(now.live & now.embeddings.any(axis=1))
    if not touched_together(test, known):
        return None
    check_reach(k, len(known))
    items = Items(everything.ids, everything.titles, counts, everything.rows).take(known)
    a, b, kept = _spaces(now, names, refitted(now, train), counts, items)
    if not touched_together(test, kept.rows):
        return None
    return who_is_right(a, b, Pairs.of(test, kept, seed), kept.counts, k, seed)


def _spaces(
    now: Snapshot, names: tuple[str, str], factors: NDArray[np.float32], counts: NDArray[np.int64], items: Items
) -> tuple[Space, Space, Items]:
    """Of some items of the index, by these factors of all items."""
    centre = factors[counts > 0].mean(axis=0, dtype=np.float64)
    rows = items.rows
    return comparable(Space.of(names[0], factors[rows], centre), Space.of(names[1], now.embeddings[rows]), items)


def held_out(history: sparse.csr_array, seed: int) -> NDArray[np.bool_]:
    """bool [nnz]: a fifth of each history of ABLE entries or more, at least two."""
    lengths = np.diff(history.indptr)
    users = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((np.random.default_rng(seed).random(history.nnz), users))
    given = np.where(lengths >= ABLE, np.maximum(np.round(HELD_OUT * lengths), 2), 0)
    held = np.empty(history.nnz, bool)
    held[order] = np.arange(history.nnz) - history.indptr[users] < given[users]
    return held


def refitted(now: Snapshot, train: sparse.csr_array) -> NDArray[np.float32]:
    """float32 [items, K]: factors fitted anew to a part of the history, with the settings of the index; untouched items
    have what their features predict."""
    config = settings(now.card, now.objective, now.item_factors.shape[1])
    model = ials(config, matrices.shape(train)).fit(train, now.features)
    expected = predictor(model, train, now.features, now.prior.shape, config.seed)
    return with_cold_factors(model.item_factors, train, now.features, expected, now.blend.cold_scale)


def settings(card: Mapping[str, Any], objective: Objective, factors: int) -> BuildConfig:
    """The settings of a build, with the numbers that it left open as they were chosen."""
    try:
        given = card["config"]
    except KeyError as error:
        raise IncompatibleIndex(
            f"this index's card does not hold {error}: it was built before indexes could change; build it again"
        ) from error
    return BuildConfig.of(**{**given, **asdict(objective), "factors": factors})
