"""Ragged histories, padded into a few static shapes.

The rows of one side (users, or items) are sorted by the length of their history and cut into *buckets*. Inside a bucket
every history is padded to the same width, and rows are grouped into *tiles* small enough for their gathered factors to
stay in a core's second-level cache. A side's table is kept in that order (`Histories.position` says where a row
went), so that what the solver writes for a bucket is a contiguous slice of the table: no scatter, no copy.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

TILE_BYTES = 512 * 1024
"""Gathered factors of one tile: half of a common 1 MiB second-level cache, so that they survive every pass."""

TILES_PER_CALL = 64
"""Tiles solved by one call: long enough to hide the call's own cost, short enough to share among cores."""

BUCKET_COST = 12_000_000
"""What one more shape costs, in padded numbers (slots x rank): a compilation of about 0.3 s, against ten epochs of
about 2.5 ns a number."""

MIN_WIDTH = 8
SPARE = 1.1
"""Tiles may be a tenth more than the rows need."""


@dataclass(frozen=True)
class Bucket:
    """Histories of similar length.

    Attributes:
        start: first row of this bucket in the side's table.
        columns: int32 [calls, tiles, rows, width], positions in the other side's table; padding points at 0.
        weights: float32 [calls, tiles, rows, width], 0 where padded; None when every weight is `Histories.weight`.
        lengths: int32 [calls, tiles, rows], 0 for a row that only fills up the last tile.
    """

    start: int
    columns: np.ndarray
    weights: np.ndarray | None
    lengths: np.ndarray

    @property
    def rows(self) -> int:
        """Rows of the table that this bucket spans, padding rows included."""
        return int(self.lengths.size)

    @property
    def width(self) -> int:
        """Padded length of each history."""
        return int(self.columns.shape[-1])


@dataclass(frozen=True)
class Histories:
    """One side's histories, ready for the solver.

    Attributes:
        buckets: longest histories first.
        position: int64 [rows], where each row of the matrix stands in the table. Rows without a history stand last.
        lengths: int64 [rows], number of interactions of each row of the matrix.
        size: rows of the table; the rows that nothing maps to stay zero.
        weight: the common weight when `Bucket.weights` is None.
    """

    buckets: tuple[Bucket, ...]
    position: np.ndarray
    lengths: np.ndarray
    size: int
    weight: float

    @cached_property
    def table_lengths(self) -> np.ndarray:
        """float32 [size]: history lengths in table order, 0 at rows that nothing maps to."""
        out = np.zeros(self.size, np.float32)
        out[self.position] = self.lengths
        return out

    def to_table(self, rows: np.ndarray) -> np.ndarray:
        """[rows, k] in the matrix's order -> [size, k] in the table's order."""
        out = np.zeros((self.size, rows.shape[1]), rows.dtype)
        out[self.position] = rows
        return out

    def from_table(self, table: np.ndarray) -> np.ndarray:
        """[size, k] in the table's order -> [rows, k] in the matrix's order."""
        return np.ascontiguousarray(table[self.position])


@dataclass(frozen=True)
class _Plan:
    """Where the rows of one side go, before the other side's order is known."""

    order: np.ndarray
    lengths: np.ndarray
    edges: list[tuple[int, int, int]]  # first and last+1 row in `order`, width


def bucket_widths(lengths: np.ndarray, rank: int) -> list[int]:
    """Choose padded widths that make the whole fit shortest: padded slots plus a compilation for every width.

    Dynamic programming, exact on a grid of four widths to the octave. The grid is the same for all data, so that the
    two sides, another fit and the next process find many of their shapes compiled.
    """
    longest = int(lengths.max(initial=0))
    if longest == 0:
        return []
    octaves = MIN_WIDTH * 2 ** np.arange(max(1, int(np.ceil(np.log2(longest / MIN_WIDTH))) + 1))
    widths = (octaves[:, None] * np.asarray([4, 5, 6, 7]) // 4).ravel()
    count = np.bincount(np.searchsorted(widths, lengths[lengths > 0]), minlength=len(widths))
    filled = np.flatnonzero(count)
    widths, total = widths[filled], np.concatenate([[0], np.cumsum(count[filled])])
    best, choice = np.zeros(len(total)), np.zeros(len(total), np.int64)
    for end in range(1, len(total)):
        cost = best[:end] + widths[end - 1] * (total[end] - total[:end]) + BUCKET_COST / rank
        choice[end] = np.argmin(cost)
        best[end] = cost[choice[end]]
    end, chosen = len(total) - 1, []
    while end:
        chosen.append(int(widths[end - 1]))
        end = int(choice[end])
    return chosen[::-1]


def prepare(user_items: sparse.csr_array, rank: int, tile_bytes: int = TILE_BYTES) -> tuple[Histories, Histories]:
    """Pad both sides of a matrix.

    Args:
        user_items: float32 CSR [users, items], no explicit zeros, no duplicates.
        rank: length of a factor; with `tile_bytes` it decides how many rows share a tile.
        tile_bytes: bytes of gathered factors in one tile.

    Returns:
        The users' histories (columns are positions in the item table) and the items' histories (the reverse).
    """
    item_users = user_items.tocsc()
    slots = max(MIN_WIDTH, tile_bytes // (4 * rank))
    by_user, by_item = _plan(user_items.indptr, rank), _plan(item_users.indptr, rank)
    user_position, user_size = _positions(by_user, slots)
    item_position, item_size = _positions(by_item, slots)
    users = _fill(by_user, user_items, user_position, user_size, item_position, slots)
    items = _fill(by_item, item_users, item_position, item_size, user_position, slots)
    return users, items


def _plan(indptr: np.ndarray, rank: int) -> _Plan:
    lengths = np.diff(indptr).astype(np.int64)
    order = np.argsort(-lengths, kind="stable")
    widths = bucket_widths(lengths, rank)
    ends = np.searchsorted(-lengths[order], [-(w - 1) for w in ([1] + [w + 1 for w in widths])], side="left")
    # ends[j] = number of rows longer than widths[j-1]; ends[0] = number of rows with any history.
    edges = [(int(ends[j + 1]), int(ends[j]), widths[j]) for j in range(len(widths))][::-1]
    return _Plan(order, lengths, edges)


def _shape(rows: int, width: int, slots: int) -> tuple[int, int, int]:
    """(calls, tiles, rows per tile) that hold `rows` histories: powers of two, for few shapes, and little left over."""
    per_tile = max(1, min(_power_of_two(rows), slots // width))
    needed = -(-rows // per_tile)
    tiles = min(TILES_PER_CALL, _power_of_two(needed))
    while tiles > 1 and -(-needed // tiles) * tiles > SPARE * needed:
        tiles //= 2
    return -(-needed // tiles), tiles, per_tile


def _power_of_two(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << (n - 1).bit_length()


def _positions(plan: _Plan, slots: int) -> tuple[np.ndarray, int]:
    position = np.empty(len(plan.order), np.int64)
    size = 0
    for first, last, width in plan.edges:
        position[plan.order[first:last]] = size + np.arange(last - first)
        size += int(np.prod(_shape(last - first, width, slots)))
    first = plan.edges[-1][1] if plan.edges else 0
    position[plan.order[first:]] = size + np.arange(len(plan.order) - first)
    return position, size + len(plan.order) - first


def _fill(
    plan: _Plan,
    matrix: sparse.csr_array | sparse.csc_array,
    position: np.ndarray,
    size: int,
    other_position: np.ndarray,
    slots: int,
) -> Histories:
    uniform = matrix.nnz == 0 or bool(np.all(matrix.data == matrix.data[0]))
    columns = other_position[matrix.indices].astype(np.int32)
    buckets, start = [], 0
    for first, last, width in plan.edges:
        calls, tiles, per_tile = _shape(last - first, width, slots)
        rows = plan.order[first:last]
        lengths = np.zeros(calls * tiles * per_tile, np.int32)
        lengths[: len(rows)] = plan.lengths[rows]
        slot = np.arange(width)
        live = slot < lengths[:, None]
        source = matrix.indptr[rows].astype(np.int64)[:, None] + slot
        padded = np.zeros((len(lengths), width), np.int32)
        padded[live] = columns[source[live[: len(rows)]]]
        weights = None
        if not uniform:
            weights = np.zeros((len(lengths), width), np.float32)
            weights[live] = matrix.data[source[live[: len(rows)]]]
        shape = (calls, tiles, per_tile)
        buckets.append(
            Bucket(
                start=start,
                columns=padded.reshape(*shape, width),
                weights=None if weights is None else weights.reshape(*shape, width),
                lengths=lengths.reshape(shape),
            )
        )
        start += len(lengths)
    weight = float(matrix.data[0]) if uniform and matrix.nnz else 1.0
    return Histories(tuple(buckets), position, plan.lengths, size, weight)
