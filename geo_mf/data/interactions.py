"""Interactions: who touched what, how strongly and when; validated at birth.

Rules, written once:
- A weight is a finite float32. Negative weights are refused unless `allow_negative=True`. A weight of 0 is accepted
  and says nothing: `to_csr` stores only weights that are not 0 (so only positive ones, unless negative were allowed).
- A pair (user, item) that occurs more than once is merged: "sum" adds the weights, "max" keeps the largest, "last"
  keeps the weight with the latest datetime (the later row when there is no datetime, or on a tie). The merged datetime
  is the latest of the pair. Pairs stay in order of first appearance.
- `min_weight` is applied after merging. Users and items that lose all their rows keep their ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import scipy.sparse as sp

from geo_mf.data.ids import IdMap, IdValues, arrow_column
from geo_mf.errors import InvalidInput

__all__ = ["BadRow", "Duplicates", "Interactions", "ReadReport"]

Duplicates = Literal["sum", "last", "max"]


@dataclass(frozen=True)
class BadRow:
    """One row that was not accepted: where it stands, why, and its first characters."""

    line: int
    reason: str
    text: str


@dataclass(frozen=True)
class ReadReport:
    """The account of one reading: accepted + rejected = read, checked at birth.

    `merged` counts accepted rows that were merged into an earlier row with the same ids, `below_min_weight` the rows
    dropped after that. `unit` says what `BadRow.line` counts: lines of a file from 1, or rows of a table from 0.
    """

    read: int
    accepted: int
    rejected: Mapping[str, int] = field(default_factory=dict)
    bad_rows: tuple[BadRow, ...] = ()
    merged: int = 0
    below_min_weight: int = 0
    unit: Literal["line", "row"] = "line"

    def __post_init__(self) -> None:
        if self.accepted + self.rejected_total != self.read:
            raise InvalidInput(
                f"a report must add up: {self.accepted} accepted + {self.rejected_total} rejected "
                f"is not {self.read} read"
            )

    @property
    def rejected_total(self) -> int:
        return sum(self.rejected.values())

    def summary(self) -> str:
        """One line, such as `10 rows read, 8 accepted, 2 rejected (empty user id: 2), 1 merged`."""
        parts = [f"{self.read:,} rows read", f"{self.accepted:,} accepted"]
        if self.rejected_total:
            reasons = ", ".join(f"{reason}: {count:,}" for reason, count in self.rejected.items())
            parts.append(f"{self.rejected_total:,} rejected ({reasons})")
        if self.merged:
            parts.append(f"{self.merged:,} merged as duplicates")
        if self.below_min_weight:
            parts.append(f"{self.below_min_weight:,} below the minimum weight")
        return ", ".join(parts)

    def __str__(self) -> str:
        lines = [self.summary()]
        lines += [f"  {self.unit} {bad.line}: {bad.reason}: {bad.text}" for bad in self.bad_rows]
        if self.rejected_total > len(self.bad_rows):
            lines.append(f"  ... and {self.rejected_total - len(self.bad_rows):,} more")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Interactions:
    """One row per (user, item) pair, over two id maps. The arrays are read-only.

    user_rows, item_rows: int32 [n], rows of `users` and `items`.
    weights: float32 [n], finite.
    datetimes: int64 [n], nanoseconds since 1970-01-01 UTC, or None when the source had none.
    report: the account of the reading that made them; a selection keeps its parent's report.
    """

    users: IdMap
    items: IdMap
    user_rows: np.ndarray
    item_rows: np.ndarray
    weights: np.ndarray
    datetimes: np.ndarray | None
    report: ReadReport

    def __post_init__(self) -> None:
        n = len(self.user_rows)
        columns = {"user_rows": np.int32, "item_rows": np.int32, "weights": np.float32}
        if self.datetimes is not None:
            columns["datetimes"] = np.int64
        for name, dtype in columns.items():
            values = np.asarray(getattr(self, name))
            if values.shape != (n,):
                raise InvalidInput(f"{name} has shape {values.shape}, expected ({n},): one value for each interaction")
            if values.dtype != dtype:
                raise InvalidInput(f"{name} has dtype {values.dtype}, expected {np.dtype(dtype)}")
            object.__setattr__(self, name, _read_only(values))
        _check_rows("user_rows", self.user_rows, len(self.users))
        _check_rows("item_rows", self.item_rows, len(self.items))
        _check_finite(self.weights)

    @classmethod
    def from_arrays(
        cls,
        user_ids: IdValues,
        item_ids: IdValues,
        weights: np.ndarray | Sequence[float] | None = None,
        datetimes: np.ndarray | Sequence[int] | None = None,
        *,
        duplicates: Duplicates = "sum",
        min_weight: float | None = None,
        allow_negative: bool = False,
        report: ReadReport | None = None,
    ) -> "Interactions":
        """Interactions from parallel columns of ids, weights (1 when absent) and datetimes.

        datetimes: int64 nanoseconds since 1970 UTC, or numpy datetime64. The inputs are not modified.
        Raises InvalidInput for unequal lengths, weights that are not finite or not allowed, and unknown options.
        """
        if duplicates not in get_args(Duplicates):
            raise InvalidInput(f"duplicates must be one of {', '.join(get_args(Duplicates))}, got {duplicates!r}")
        if min_weight is not None and not np.isfinite(min_weight):
            raise InvalidInput(f"min_weight must be a finite number, got {min_weight!r}; leave it out for no minimum")
        user_column, item_column = arrow_column(user_ids, "user ids"), arrow_column(item_ids, "item ids")
        n = len(user_column)
        values = np.ones(n) if weights is None else _weights(weights, allow_negative=allow_negative)
        times = None if datetimes is None else _nanoseconds(datetimes)
        for name, length in (
            ("item ids", len(item_column)),
            ("weights", len(values)),
            ("datetimes", n if times is None else len(times)),
        ):
            if length != n:
                raise InvalidInput(f"there are {n} user ids but {length} {name}; the columns must be of equal length")
        users, user_rows = IdMap.encode(user_column)
        items, item_rows = IdMap.encode(item_column)
        first, values, times = _merge(user_rows, item_rows, len(items), values, times, duplicates)
        merged = n - len(first)
        keep = np.ones(len(first), dtype=bool) if min_weight is None else values >= min_weight
        account = report or ReadReport(read=n, accepted=n, unit="row")
        return cls(
            users,
            items,
            user_rows[first][keep],
            item_rows[first][keep],
            _float32(values[keep]),
            None if times is None else times[keep],
            ReadReport(
                read=account.read,
                accepted=account.accepted,
                rejected=account.rejected,
                bad_rows=account.bad_rows,
                merged=account.merged + merged,
                below_min_weight=account.below_min_weight + int((~keep).sum()),
                unit=account.unit,
            ),
        )

    @classmethod
    def from_csr(
        cls,
        matrix: Any,
        user_ids: IdMap | IdValues | None = None,
        item_ids: IdMap | IdValues | None = None,
        *,
        allow_negative: bool = False,
    ) -> "Interactions":
        """Interactions from a scipy sparse matrix [users, items] of weights; entries stored twice are added.

        Ids default to the integers 0..n-1. Users and items without an entry keep their ids.
        Raises InvalidInput for another kind of object, ids that do not fit the shape, and weights that are not allowed.
        """
        if not sp.issparse(matrix) or matrix.ndim != 2:
            raise InvalidInput(f"expected a scipy sparse matrix [users, items], got {type(matrix).__name__}")
        entries = sp.coo_array(matrix)
        stored = len(entries.data)
        shape = (int(matrix.shape[0]), int(matrix.shape[1]))
        users = _axis_ids("user_ids", user_ids, shape, axis=0)
        items = _axis_ids("item_ids", item_ids, shape, axis=1)
        user_rows, item_rows = (axis.astype(np.int32) for axis in entries.coords)
        values = _weights(entries.data, allow_negative=allow_negative)
        first, values, _ = _merge(user_rows, item_rows, shape[1], values, None, "sum")
        return cls(
            users,
            items,
            user_rows[first],
            item_rows[first],
            _float32(values),
            None,
            ReadReport(read=stored, accepted=stored, merged=stored - len(first), unit="row"),
        )

    def __len__(self) -> int:
        return len(self.user_rows)

    def __repr__(self) -> str:
        dated = "" if self.datetimes is None else ", with datetimes"
        return f"Interactions({len(self):,} of {len(self.users):,} users and {len(self.items):,} items{dated})"

    def select(self, chosen: np.ndarray) -> "Interactions":
        """The interactions that a boolean mask [n] or an array of positions picks; the id maps stay whole."""
        chosen = np.asarray(chosen)
        if chosen.dtype == bool and chosen.shape != (len(self),):
            raise InvalidInput(f"the mask has shape {chosen.shape}, expected ({len(self)},): one value per interaction")
        if chosen.dtype != bool:
            chosen = chosen.astype(np.int64, casting="same_kind") if chosen.size else np.zeros(0, dtype=np.int64)
            _check_rows("positions", chosen, len(self))
        return Interactions(
            self.users,
            self.items,
            self.user_rows[chosen],
            self.item_rows[chosen],
            self.weights[chosen],
            None if self.datetimes is None else self.datetimes[chosen],
            self.report,
        )

    def align(self, users: IdMap | None = None, items: IdMap | None = None) -> tuple["Interactions", int]:
        """The same interactions in other id maps, and how many were dropped because an id is not in them."""
        new_users, new_items = users or self.users, items or self.items
        user_rows = new_users.rows_or_missing(self.users.ids)[self.user_rows]
        item_rows = new_items.rows_or_missing(self.items.ids)[self.item_rows]
        keep = (user_rows >= 0) & (item_rows >= 0)
        times = None if self.datetimes is None else self.datetimes[keep]
        aligned = Interactions(
            new_users, new_items, user_rows[keep], item_rows[keep], self.weights[keep], times, self.report
        )
        return aligned, int((~keep).sum())

    def to_csr(self) -> sp.csr_array:
        """The weights as float32 [users, items]: sorted indices, no duplicates (added if there are any), no zeros."""
        shape = (len(self.users), len(self.items))
        csr = sp.coo_array((self.weights, (self.user_rows, self.item_rows)), shape=shape).tocsr()
        csr.sum_duplicates()
        csr.eliminate_zeros()
        csr.sort_indices()
        return csr


def _merge(
    user_rows: np.ndarray,
    item_rows: np.ndarray,
    n_items: int,
    weights: np.ndarray,
    datetimes: np.ndarray | None,
    duplicates: Duplicates,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """One entry per pair: the position where each pair first appears, its weight (float64), its latest datetime."""
    pair = user_rows.astype(np.int64) * n_items + item_rows
    order = np.argsort(pair, kind="stable")
    in_order = pair[order]
    starts = np.flatnonzero(np.r_[True, in_order[1:] != in_order[:-1]]) if len(pair) else np.zeros(0, dtype=np.int64)
    if len(starts) == len(pair):
        return np.arange(len(pair)), weights, datetimes
    first = order[starts]
    ends = np.r_[starts[1:], len(pair)] - 1
    if duplicates == "last":
        by_time = (
            order if datetimes is None else np.lexsort((datetimes, pair))
        )  # stable: on a tie the later row is last
        merged = weights[by_time[ends]]
    else:
        add = np.add if duplicates == "sum" else np.maximum
        merged = add.reduceat(weights[order], starts)
    latest = None if datetimes is None else np.maximum.reduceat(datetimes[order], starts)
    slot = np.full(len(pair), -1)
    slot[first] = np.arange(len(first))
    appearance = slot[slot >= 0]  # the pairs in order of first appearance, without sorting again
    return first[appearance], merged[appearance], None if latest is None else latest[appearance]


def _weights(weights: np.ndarray | Sequence[float], *, allow_negative: bool) -> np.ndarray:
    values = np.asarray(weights)
    if values.dtype.kind not in "biuf" or values.ndim != 1:
        raise InvalidInput(f"weights must be one column of numbers, got {values.dtype} of shape {values.shape}")
    values = values.astype(np.float64)
    _check_finite(values)
    if not allow_negative and (values < 0).any():
        position = int(np.flatnonzero(values < 0)[0])
        raise InvalidInput(
            f"the weight at position {position} is {values[position]}, expected 0 or more; drop or clip negative "
            "weights, or pass allow_negative=True (ratings centred around 0, for example)"
        )
    return values


def _float32(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # an overflow becomes infinite, which the class refuses with a message
        return values.astype(np.float32)


def _nanoseconds(datetimes: np.ndarray | Sequence[int]) -> np.ndarray:
    times = np.asarray(datetimes)
    if times.dtype.kind == "M":
        if np.isnat(times).any():
            raise InvalidInput("a datetime is missing (NaT); drop such rows first")
        times = times.astype("datetime64[ns]").view(np.int64)
    if times.dtype.kind not in "iu" and times.size:
        raise InvalidInput(f"datetimes must be int64 nanoseconds since 1970 UTC or datetime64, got {times.dtype}")
    return times.astype(np.int64)


def _axis_ids(name: str, ids: IdMap | IdValues | None, shape: tuple[int, int], axis: int) -> IdMap:
    if ids is None:
        return IdMap(np.arange(shape[axis], dtype=np.int64))
    made = ids if isinstance(ids, IdMap) else IdMap(ids)
    if len(made) != shape[axis]:
        turned = "; is the matrix transposed? It must be [users, items]" if len(made) == shape[1 - axis] else ""
        raise InvalidInput(f"{name} has {len(made)} ids, but the matrix of shape {shape} needs {shape[axis]}{turned}")
    return made


def _check_rows(name: str, rows: np.ndarray, size: int) -> None:
    if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= size):
        raise InvalidInput(f"{name} must lie in 0..{size - 1}, found {int(rows.min())} to {int(rows.max())}")


def _check_finite(weights: np.ndarray) -> None:
    finite = np.isfinite(weights) & (np.abs(weights) <= np.finfo(np.float32).max)
    if not finite.all():
        position = int(np.flatnonzero(~finite)[0])
        raise InvalidInput(
            f"the weight at position {position} is {weights[position]}, expected a finite float32; "
            "drop or repair such rows"
        )


def _read_only(values: np.ndarray) -> np.ndarray:
    """The array itself when nobody can write to it, else a copy: the caller's own array stays writable."""
    if values.flags.writeable or values.base is not None:
        values = values.copy()
        values.flags.writeable = False
    return values
