"""Interactions that arrive: histories grow, and the rows they touch are solved again, without a fit.

New users are solved against the items, then the touched items against the users, then the touched users against the
items. Each is the exact row solve of the objective that the build chose.
"""

from dataclasses import replace

import numpy as np
from scipy import sparse

from geo_mf.data.ids import IdMap
from geo_mf.data.interactions import Interactions
from geo_mf.errors import InvalidInput
from geo_mf.geometry import trend
from geo_mf.living.changes import UserChanges
from geo_mf.living.indexing import with_changes
from geo_mf.living.record import Record
from geo_mf.living.solves import counted, grown, resized, solved_items, solved_users
from geo_mf.snapshot import Snapshot


def with_interactions(now: Snapshot, given: Interactions) -> tuple[Snapshot, UserChanges]:
    """The snapshot after these interactions; the same one when none of them says anything.

    Raises:
        InvalidInput: a weight is negative, or user ids are of another kind than those here.
        FitDiverged: a factor is not finite.
        IncompatibleIndex: the index's card does not say how it was built.
    """
    record = Record.of(now.card)
    listed, unlisted = given.align(items=now.catalog.items)
    listed = listed.select(listed.weights != 0)
    if len(listed) and listed.weights.min() < 0:
        raise InvalidInput(
            f"the interactions hold a negative weight ({listed.weights.min():g}): weights say how sure an interaction "
            "is; leave dislikes out, for example with min_weight"
        )
    if not len(listed):
        return now, UserChanges((), 0, 0, 0, unlisted, given.report)
    users, fresh = _with_users(now.users, listed)
    before = resized(now.history, len(users), len(now.catalog))
    people, things = fresh.nonzero()
    held = np.asarray(before[people, things]).ravel()
    again = held > 0
    amounts = fresh.data.astype(np.float64)
    amounts[again] += record.weighting.given(held[again])
    change = record.weighting.scaled(amounts) - held
    history = sparse.csr_array(before + sparse.csr_array((change, (people, things)), shape=before.shape))
    # Without a half-life a build counts pairs, with one it lets each touch fade.
    touched = listed.item_rows if now.blend.half_life is not None else things[~again]
    times = listed.datetimes if now.blend.half_life is not None else None
    touches, newest = trend.more_touches(now.touches, record.newest, touched, times, now.blend.half_life)
    after = replace(
        now,
        users=users,
        history=history,
        user_factors=grown(now.user_factors, len(users)),
        told=None if now.told is None else now.told.with_users(users),
        touches=touches,
        trend=trend.column(touches, now.features, record.prior_regularization),
        card={
            **now.card,
            "newest": newest,
            "unlisted_interactions": now.card.get("unlisted_interactions", 0) + unlisted,
        },
    )
    asked, moved = np.unique(people), np.unique(things)
    new = np.arange(len(now.users), len(users))
    if len(new):
        after.user_factors[new] = solved_users(after, new)
    factors = now.item_factors.copy()
    factors[moved] = solved_items(after, moved)
    after = replace(after, item_factors=factors)
    after.user_factors[asked] = solved_users(after, asked)
    changes = UserChanges(tuple(users.take(new)), len(asked), len(moved), int(fresh.nnz), unlisted, given.report)
    return with_changes(now, counted(after), moved), changes


def _with_users(known: IdMap, listed: Interactions) -> tuple[IdMap, sparse.csr_array]:
    """The users with the new ones behind them, and the weights that were given, float32 CSR [users, items]."""
    active = np.zeros(len(listed.users), bool)
    active[listed.user_rows] = True
    ids = listed.users.ids
    new = active & (known.rows_or_missing(ids) < 0)
    users = known.joined(IdMap(ids.take(np.flatnonzero(new)))) if new.any() else known
    rows = users.rows_or_missing(ids)[listed.user_rows]
    shape = (len(users), len(listed.items))
    fresh = sparse.coo_array((listed.weights, (rows, listed.item_rows)), shape=shape).tocsr()
    fresh.sum_duplicates()
    return users, sparse.csr_array(fresh)
