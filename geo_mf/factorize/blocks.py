"""Ragged histories in blocks of a few interactions, for row solves that take one row at a time.

The rows of one side (users, or items) are sorted by the length of their history, and every history is padded to a whole
number of blocks: a few percent of places, and no shape to compile for each length. A side's table is kept in that
order. What pads a history points at the first row behind the other side's table, which is zero and so adds nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from geo_mf.factorize.histories import Places, roomy
from geo_mf.factorize.memory import aligned

BLOCK = 8
"""Interactions of a block at most: as many rows as XLA's product of a matrix and a vector takes at once."""

BLOCK_BYTES = 16 * 1024
"""Factors of a block at most: two passes over them, and the row's own vectors, share a first-level cache."""

SCRATCH_BYTES = 1024 * 1024
"""Gathered factors of a history that most calls have room for: about a second-level cache."""

SCRATCH_STEP = 16
"""Longer histories find this many times as much room, or that again, but no more than the longest needs: each is
compiled."""

CALL_BYTES = 32 * 1024 * 1024
"""Factors gathered by one call: long enough to hide the call's own cost, short enough to share among cores."""

OUT_BYTES = 1024 * 1024
"""Factors solved by one call."""

FILLED_AT_ONCE = 1 << 17
"""Interactions put in place at a time: what is needed on the way stays small."""


@dataclass(frozen=True)
class Span:
    """The rows of one call.

    Attributes:
        start: the first row's place in the side's table.
        rows: how many.
        blocks: of all their histories together.
        scratch: blocks that the longest may have.
    """

    start: int
    rows: int
    blocks: int
    scratch: int


@dataclass(frozen=True)
class Blocks(Places):
    """One side's histories, ready for the solver.

    Attributes:
        columns: int32 [blocks, b], places in the other side's table, b to a block. Both sides have as many blocks, and
            more than are used: compiled code serves them alike.
        weights: float32 [blocks, b], 0 where padded; None when every weight is `weight`.
        firsts: int32 [capacity + 1], each row's first block, and behind it where the last one ends.
        spans: longest histories first.
    """

    columns: np.ndarray
    weights: np.ndarray | None
    firsts: np.ndarray
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Side:
    """Where the rows of one side go.

    Attributes:
        position: int64 [rows], a row's place in the table: longest history first.
        lengths: int64 [rows], interactions of each row.
        block: interactions of a block.
        blocks: int64 [rows], blocks of each place.
        spans: the calls.
    """

    position: np.ndarray
    lengths: np.ndarray
    block: int
    blocks: np.ndarray
    spans: tuple[Span, ...]

    @classmethod
    def of(cls, lengths: np.ndarray, rank: int) -> "Side":
        """The places of histories of these lengths, for factors of length `rank`."""
        lengths = lengths.astype(np.int64)
        order = np.argsort(-lengths, kind="stable")
        position = np.empty(len(order), np.int64)
        position[order] = np.arange(len(order))
        block = max(2, min(BLOCK, BLOCK_BYTES // (4 * rank)))
        blocks = -(-lengths[order] // block)
        return cls(position, lengths, block, blocks, tuple(_spans(blocks, 4 * rank * block, rank)))

    @property
    def size(self) -> int:
        """Rows of the table."""
        return len(self.position)

    @property
    def scratch(self) -> int:
        """Interactions that the scratch memory of the longest has room for."""
        return self.block * max((span.scratch for span in self.spans), default=0)

    @property
    def slots(self) -> int:
        """Interactions that there is room for."""
        return self.block * int(self.blocks.sum())


@dataclass(frozen=True)
class Layout:
    """How both sides of a matrix are padded, known from the lengths of its rows and columns alone.

    Attributes:
        users, items: where they go.
        capacity: rows of a table, for both sides.
        room: blocks that the histories of a side have room for.
    """

    users: Side
    items: Side
    capacity: int
    room: int

    @classmethod
    def of(cls, user_lengths: np.ndarray, item_lengths: np.ndarray, rank: int) -> "Layout":
        """The layout for histories of these lengths and factors of length `rank`."""
        users, items = Side.of(user_lengths, rank), Side.of(item_lengths, rank)
        room = roomy(max(int(users.blocks.sum()), int(items.blocks.sum())))
        return cls(users, items, roomy(max(users.size, items.size) + 1), room)

    @property
    def programs(self) -> int:
        """What has to be compiled."""
        return len({span.scratch for span in self.users.spans + self.items.spans})


def most_rows(rank: int) -> int:
    """Rows that one call solves at most."""
    return max(2, OUT_BYTES // (4 * rank))


def prepare(user_items: sparse.csr_array, rank: int) -> tuple[Blocks, Blocks]:
    """Pad both sides of a matrix.

    Args:
        user_items: float32 CSR [users, items], no explicit zeros, no duplicates.
        rank: length of a factor.

    Returns:
        The users' histories (columns are places in the item table) and the items' histories (the reverse).
    """
    item_users = user_items.tocsc()
    layout = Layout.of(np.diff(user_items.indptr), np.diff(item_users.indptr), rank)
    return _fill(layout, layout.users, user_items, layout.items), _fill(layout, layout.items, item_users, layout.users)


def _spans(blocks: np.ndarray, size: int, rank: int) -> Iterator[Span]:
    """Rows in turn, as many as a call takes. `blocks` of each row, falling; `size` bytes of factors to a block."""
    scratches = [max(2, SCRATCH_BYTES // size)]
    longest = int(blocks.max(initial=0))
    while scratches[-1] < longest:
        scratches.append(min(SCRATCH_STEP * scratches[-1], roomy(longest)))
    ends, with_history = np.cumsum(blocks), int(np.count_nonzero(blocks))
    start = 0
    while start < with_history:
        scratch = next(size for size in scratches if size >= blocks[start])
        # A call first clears its scratch: with four times as much to gather, that is a small part of its work.
        most = max(CALL_BYTES // size, 4 * scratch if scratch > scratches[0] else 0)
        before = int(ends[start] - blocks[start])
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        stop = min(stop, start + most_rows(rank), with_history)
        yield Span(start, stop - start, int(ends[stop - 1]) - before, scratch)
        start = stop


def _fill(layout: Layout, side: Side, matrix: sparse.csr_array | sparse.csc_array, other: Side) -> Blocks:
    uniform = matrix.nnz == 0 or bool(matrix.data.min() == matrix.data.max())
    firsts = np.zeros(layout.capacity + 1, np.int32)
    np.cumsum(side.blocks, out=firsts[1 : len(side.blocks) + 1])
    firsts[len(side.blocks) + 1 :] = firsts[len(side.blocks)]
    used = side.block * int(firsts[-1])
    columns = aligned((layout.room, side.block), np.int32)
    columns.reshape(-1)[:used] = other.size
    weights = None if uniform else aligned((layout.room, side.block))
    if weights is not None:
        weights.reshape(-1)[:used] = 0
    places = other.position.astype(np.int32)
    # An interaction goes as far behind its row's first place as it stands behind the first of its row in the matrix.
    shift = side.block * firsts[side.position].astype(np.int64) - matrix.indptr[:-1]
    for at in range(0, matrix.nnz, FILLED_AT_ONCE):
        here = np.arange(at, min(at + FILLED_AT_ONCE, matrix.nnz))
        to = here + shift[np.searchsorted(matrix.indptr, here, side="right") - 1]
        columns.reshape(-1)[to] = places[matrix.indices[here]]
        if weights is not None:
            weights.reshape(-1)[to] = matrix.data[here]
    weight = float(matrix.data[0]) if uniform and matrix.nnz else 1.0
    return Blocks(side.position, side.lengths, side.size, layout.capacity, weight, columns, weights, firsts, side.spans)
