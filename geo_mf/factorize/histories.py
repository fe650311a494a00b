"""Ragged histories, padded into a few static shapes.

The rows of one side (users, or items) are sorted by the length of their history and cut into *buckets*. Inside a bucket
every history is padded to the same width, and rows are grouped into *tiles* small enough for their gathered factors to
stay in a core's second-level cache. A side's table is kept in that order (`Histories.position` says where a row
went), so that what the solver writes for a bucket is a contiguous slice of the table: no scatter, no copy.
"""

from dataclasses import astuple, dataclass, replace
from functools import cached_property

import numpy as np
from scipy import sparse

from geo_mf.factorize.memory import aligned

TILE_BYTES = 1024 * 1024
"""Gathered factors of one tile: about a second-level cache, so that they survive every pass."""

TILES_PER_CALL = 32
"""Tiles solved by one call, at most: long enough to hide the call's own cost, short enough to share among cores."""

BUCKET_COST = 12_000_000
"""What one more shape costs, in padded numbers (slots x rank): a compilation of about 0.3 s, against some sixty epochs
of about 0.4 ns a number. More shapes than one short fit would pay for, because the next process finds them compiled."""

MIN_WIDTH = 8


@dataclass(frozen=True)
class Bucket:
    """Histories of similar length.

    All calls have room for the same number of tiles, so that they share their compiled code; `counts` says how many of
    them are in use.

    Attributes:
        start: first row of this bucket in the side's table.
        columns: int32 [calls, tiles, rows, width], positions in the other side's table; padding points at 0.
        weights: float32 [calls, tiles, rows, width], 0 where padded; None when every weight is `Histories.weight`.
        lengths: int32 [calls, tiles, rows], 0 for a row that only fills up the last tile.
        counts: int32 [calls], tiles in use.
    """

    start: int
    columns: np.ndarray
    weights: np.ndarray | None
    lengths: np.ndarray
    counts: np.ndarray

    @property
    def rows(self) -> int:
        """Rows of the table that this bucket spans, padding rows included."""
        return int(self.counts.sum()) * self.lengths.shape[-1]

    @property
    def width(self) -> int:
        """Padded length of each history."""
        return int(self.columns.shape[-1])

    @property
    def starts(self) -> np.ndarray:
        """int64 [calls], the first row of each call in the side's table."""
        return self.start + (np.cumsum(self.counts) - self.counts) * self.lengths.shape[-1]


@dataclass(frozen=True)
class Places:
    """Where the rows of one side of a matrix stand in its table.

    Attributes:
        position: int64 [rows], where each row of the matrix stands in the table.
        lengths: int64 [rows], number of interactions of each row of the matrix.
        size: rows of the table in use; those from there to `capacity` are never read, but for the last, which is zero.
        capacity: rows of the table as it is allocated, the same on both sides: compiled code serves them alike.
        weight: the common weight where all weights are equal.
    """

    position: np.ndarray
    lengths: np.ndarray
    size: int
    capacity: int
    weight: float

    @property
    def places(self) -> "Places":
        """The places alone, without histories that a subclass may hold."""
        return Places(self.position, self.lengths, self.size, self.capacity, self.weight)

    @cached_property
    def in_order(self) -> bool:
        """Whether the table has the matrix's order."""
        return np.array_equal(self.position, np.arange(len(self.position)))

    @cached_property
    def table_lengths(self) -> np.ndarray:
        """float32 [capacity]: history lengths in table order, 0 at rows that nothing maps to."""
        out = np.zeros(self.capacity, np.float32)
        out[self.position] = self.lengths
        return out

    def to_table(self, rows: np.ndarray) -> np.ndarray:
        """[rows, k] in the matrix's order -> [capacity, k] in the table's order."""
        out = np.zeros((self.capacity, rows.shape[1]), rows.dtype)
        out[self.position] = rows
        return out

    def from_table(self, table: np.ndarray) -> np.ndarray:
        """[capacity, k] in the table's order -> [rows, k] in the matrix's order."""
        return np.ascontiguousarray(table[self.position])


@dataclass(frozen=True)
class Histories(Places):
    """One side's histories, ready for the solver.

    Attributes:
        buckets: longest histories first. A table has more rows than a tile.
    """

    buckets: tuple[Bucket, ...]


def bucket_widths(lengths: np.ndarray, rank: int) -> list[int]:
    """Choose padded widths that make the whole fit shortest: padded slots plus a compilation for every width.

    Dynamic programming, exact on a grid of four widths to the octave. `lengths` are those of both sides: they share
    their widths, and so their compiled code. The grid is the same for all data, so that another fit and the next
    process find many of their shapes compiled.
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


@dataclass(frozen=True)
class Layout:
    """How both sides of a matrix are padded, known from the lengths of its rows and columns alone.

    Attributes:
        users: where the users go.
        items: where the items go.
        capacity: rows of a table, for both sides.
    """

    users: "Side"
    items: "Side"
    capacity: int

    @classmethod
    def of(cls, user_lengths: np.ndarray, item_lengths: np.ndarray, rank: int, tile_bytes: int) -> "Layout":
        """The layout for histories of these lengths, factors of length `rank` and tiles of so many gathered bytes."""
        slots = max(MIN_WIDTH, tile_bytes // (4 * rank))
        widths = bucket_widths(np.concatenate([user_lengths, item_lengths]), rank)
        users, items = (Side.of(lengths, widths, slots) for lengths in (user_lengths, item_lengths))
        tallest = max((shape.per_tile for _, _, shape in users.edges + items.edges), default=0)
        return cls(users, items, roomy(max(users.size, items.size, tallest + 1)))

    @property
    def programs(self) -> int:
        """What has to be compiled: a call of each shape, without regard to how many there are of it."""
        return len({replace(shape, calls=1, used=1) for _, _, shape in self.users.edges + self.items.edges})


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
    layout = Layout.of(np.diff(user_items.indptr), np.diff(item_users.indptr), rank, tile_bytes)
    users = _fill(layout.users, user_items, layout.capacity, layout.items.position)
    items = _fill(layout.items, item_users, layout.capacity, layout.users.position)
    return users, items


@dataclass(frozen=True)
class Shape:
    """How the rows of a bucket are laid out.

    Attributes:
        calls: calls that the bucket takes.
        room: tiles that a call has room for.
        per_tile: rows in a tile.
        width: padded length of each history.
        used: tiles in use, in all calls.
    """

    calls: int
    room: int
    per_tile: int
    width: int
    used: int

    @property
    def slots(self) -> int:
        """Interactions that there is room for, in all calls."""
        return self.calls * self.room * self.per_tile * self.width

    @classmethod
    def of(cls, rows: int, width: int, slots: int) -> "Shape":
        """The shape for so many rows, where a tile holds `slots` interactions."""
        per_tile = max(1, min(_power_of_two(rows), slots // width))
        room = max(1, TILES_PER_CALL * min(slots, per_tile * width) // (per_tile * width))
        used = -(-rows // per_tile)
        room = min(room, _power_of_two(used))
        return cls(-(-used // room), room, per_tile, width, used)


@dataclass(frozen=True)
class Side:
    """Where the rows of one side go.

    Attributes:
        order: int64 [rows], longest history first.
        lengths: int64 [rows].
        edges: of each bucket, first and last + 1 row in `order`, and its shape.
        position: int64 [rows], a row's place in the table.
        size: rows of the table in use.
    """

    order: np.ndarray
    lengths: np.ndarray
    edges: list[tuple[int, int, Shape]]
    position: np.ndarray
    size: int

    @property
    def slots(self) -> int:
        """Interactions that there is room for."""
        return sum(shape.slots for _, _, shape in self.edges)

    @classmethod
    def of(cls, lengths: np.ndarray, widths: list[int], slots: int) -> "Side":
        """The places of histories of these lengths, for buckets of these widths."""
        lengths = lengths.astype(np.int64)
        order = np.argsort(-lengths, kind="stable")
        ends = np.searchsorted(-lengths[order], [-(w - 1) for w in ([1] + [w + 1 for w in widths])], side="left")
        # ends[j] = number of rows longer than widths[j-1]; ends[0] = number of rows with any history.
        steps = [j for j in range(len(widths)) if ends[j + 1] < ends[j]][::-1]
        rows = [(int(ends[j + 1]), int(ends[j]), widths[j]) for j in steps]
        edges = [(first, last, Shape.of(last - first, width, slots)) for first, last, width in rows]
        position, size = np.empty(len(order), np.int64), 0
        for first, last, shape in edges:
            position[order[first:last]] = size + np.arange(last - first)
            size += shape.used * shape.per_tile
        first = edges[-1][1] if edges else 0
        position[order[first:]] = size + np.arange(len(order) - first)
        return cls(order, lengths, edges, position, size + len(order) - first)


def roomy(rows: int) -> int:
    """At least `rows`, on a grid of eight steps to the octave: somewhat more data find the same compiled code."""
    step = max(64, _power_of_two(rows) // 16)
    return -(-rows // step) * step


def _power_of_two(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << (n - 1).bit_length()


def _fill(side: Side, matrix: sparse.csr_array | sparse.csc_array, capacity: int, others: np.ndarray) -> Histories:
    uniform = matrix.nnz == 0 or bool(np.all(matrix.data == matrix.data[0]))
    columns = others.astype(np.int32)[matrix.indices]
    buckets, start = [], 0
    for first, last, shape in side.edges:
        calls, room, per_tile, width, used = astuple(shape)
        counts = np.diff(np.arange(calls + 1) * used // calls).astype(np.int32)
        rows = side.order[first:last]
        lengths = np.zeros(used * per_tile, np.int32)
        lengths[: len(rows)] = side.lengths[rows]
        slot = np.arange(width)
        live = slot < lengths[:, None]
        source = (matrix.indptr[rows].astype(np.int64)[:, None] + slot)[live[: len(rows)]]
        in_use = np.arange(room) < counts[:, None]

        buckets.append(
            Bucket(
                start=start,
                columns=_in_tiles(columns[source], live, in_use, per_tile),
                weights=None if uniform else _in_tiles(matrix.data[source], live, in_use, per_tile),
                lengths=_in_tiles(lengths, np.ones(len(lengths), bool), in_use, per_tile),
                counts=counts,
            )
        )
        start += len(lengths)
    weight = float(matrix.data[0]) if uniform and matrix.nnz else 1.0
    return Histories(side.position, side.lengths, side.size, capacity, weight, tuple(buckets))


def _in_tiles(values: np.ndarray, places: np.ndarray, in_use: np.ndarray, per_tile: int) -> np.ndarray:
    """`values` where bool `places` [rows, ...] holds, zero elsewhere, in the tiles in use of [calls, tiles]."""
    rows = np.zeros(places.shape, values.dtype)
    rows[places] = values
    out = aligned((*in_use.shape, per_tile, *places.shape[1:]), values.dtype.type)  # which JAX reads without a copy
    out[~in_use] = 0
    out[in_use] = rows.reshape(-1, per_tile, *places.shape[1:])
    return out
