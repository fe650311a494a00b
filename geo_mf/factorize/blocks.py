"""Ragged histories as the matrix has them, cut into calls, for row solves that take one row at a time.

Nothing is padded or put in another order. A side keeps the columns of its rows: the users those of the matrix that was
given, the items those of its transpose. Its table has the matrix's order, too. A call takes rows that stand one after
the other, but for the few whose histories need more room than usual, which have calls of their own. A row is solved in
blocks of a few interactions; what the last block has too many is pointed at the last row of the other side's table,
which is zero and so adds nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from geo_mf.factorize.histories import Places, roomy

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


@dataclass(frozen=True)
class Span:
    """The rows of one call.

    Attributes:
        rows: int32 [n], of the matrix, rising.
        blocks: of all their histories together.
        room: blocks that a call of this scratch has room for.
        scratch: blocks that the longest may have.
    """

    rows: np.ndarray
    blocks: int
    room: int
    scratch: int


@dataclass(frozen=True)
class Batch:
    """The rows of one call as it takes them, in shapes that depend on the rank alone.

    Attributes:
        count: how many rows. What is behind them is not in use.
        firsts: int32 [most + 1], where each row's history begins among those of the call, and where the last one ends.
        places: int32 [most], rows of the matrix, and so of the side's table.
        runs: of the matrix's interactions, those that stand together: first and last + 1.
    """

    count: int
    firsts: np.ndarray
    places: np.ndarray
    runs: list[tuple[int, int]]

    @property
    def in_use(self) -> np.ndarray:
        """int32 [count], rows of the side's table."""
        return self.places[: self.count]


@dataclass(frozen=True)
class Blocks(Places):
    """One side's histories, ready for the solver.

    Attributes:
        columns: int [interactions], row after row: rows of the other side's table.
        weights: float32 [interactions]; None when every weight is `weight`.
        block: interactions of a block.
        spans: the calls.
        batches: what each of them takes.
    """

    columns: np.ndarray
    weights: np.ndarray | None
    block: int
    spans: tuple[Span, ...]
    batches: tuple[Batch, ...]

    def histories(self, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        """What the call of a span reads, one history after the other: int32 [slots], rows of the other side's table,
        and float32 [slots], their weights, or None where all are equal. There are more slots than are used, by a block
        at least, and as many for all spans with the same scratch. What the others hold is finite."""
        slots, runs = self.block * (self.spans[number].room + 1), self.batches[number].runs

        def taken(values: np.ndarray) -> np.ndarray:
            first = runs[0][0]
            if len(runs) == 1 and first + slots <= len(values):
                return values[first : first + slots]
            parts = [values[begin:end] for begin, end in runs]
            return np.concatenate([*parts, np.zeros(slots - sum(map(len, parts)), values.dtype)])

        return taken(self.columns).astype(np.int32, copy=False), None if self.weights is None else taken(self.weights)


@dataclass(frozen=True)
class Side:
    """How the rows of one side are solved.

    Attributes:
        lengths: int64 [rows], interactions of each row.
        block: interactions of a block.
        spans: the calls.
    """

    lengths: np.ndarray
    block: int
    spans: tuple[Span, ...]

    @classmethod
    def of(cls, lengths: np.ndarray, rank: int) -> "Side":
        """The calls for histories of these lengths and factors of length `rank`."""
        lengths = lengths.astype(np.int64)
        block = max(2, min(BLOCK, BLOCK_BYTES // (4 * rank)))
        return cls(lengths, block, tuple(_spans(-(-lengths // block), 4 * rank * block, rank)))

    @property
    def position(self) -> np.ndarray:
        """int64 [rows], a row's place in the table: its own number."""
        return np.arange(self.size)

    @property
    def size(self) -> int:
        """Rows of the table."""
        return len(self.lengths)

    @property
    def scratch(self) -> int:
        """Interactions that the scratch memory of the longest has room for."""
        return self.block * max((span.scratch for span in self.spans), default=0)


@dataclass(frozen=True)
class Layout:
    """How both sides of a matrix are solved, known from the lengths of its rows and columns alone.

    Attributes:
        users, items: the calls.
        capacity: rows of a table, for both sides.
    """

    users: Side
    items: Side
    capacity: int

    @classmethod
    def of(cls, user_lengths: np.ndarray, item_lengths: np.ndarray, rank: int) -> "Layout":
        """The layout for histories of these lengths and factors of length `rank`."""
        users, items = Side.of(user_lengths, rank), Side.of(item_lengths, rank)
        return cls(users, items, roomy(max(users.size, items.size) + 1))

    @property
    def programs(self) -> int:
        """What has to be compiled."""
        return len({span.scratch for span in self.users.spans + self.items.spans})


def most_rows(rank: int) -> int:
    """Rows that one call solves at most."""
    return max(2, OUT_BYTES // (4 * rank))


def prepare(user_items: sparse.csr_array, rank: int) -> tuple[Blocks, Blocks]:
    """Both sides of a matrix. The users' shares its memory.

    Args:
        user_items: float32 CSR [users, items], no explicit zeros, no duplicates.
        rank: length of a factor.

    Returns:
        The users' histories (columns are items) and the items' histories (the reverse).
    """
    data = user_items.data
    uniform = len(data) == 0 or bool(data.min() == data.max())
    weight = float(data[0]) if uniform and len(data) else 1.0
    if uniform:  # then the transpose needs no weights, and SciPy gets the least it takes
        data = np.ones(len(data), np.bool_)
    item_users = sparse.csr_array((data, user_items.indices, user_items.indptr), user_items.shape).tocsc()
    layout = Layout.of(np.diff(user_items.indptr), np.diff(item_users.indptr), rank)

    def blocks(side: Side, matrix: sparse.csr_array | sparse.csc_array) -> Blocks:
        return Blocks(
            position=side.position,
            lengths=side.lengths,
            size=side.size,
            capacity=layout.capacity,
            weight=weight,
            columns=matrix.indices,
            weights=None if uniform else matrix.data,
            block=side.block,
            spans=side.spans,
            batches=tuple(batches(side, rank, matrix.indptr)),
        )

    return blocks(layout.users, user_items), blocks(layout.items, item_users)


def batches(side: Side, rank: int, starts: np.ndarray) -> Iterator[Batch]:
    """What the calls of a side take, `starts` being where the matrix's rows begin, and where the last one ends."""
    most, total = most_rows(rank), sum(len(span.rows) + 1 for span in side.spans)
    firsts, places = np.zeros(total + most, np.int32), np.zeros(total + most, np.int32)
    at = 0
    for span in side.spans:
        count, begins, ends = len(span.rows), starts[span.rows], starts[span.rows + 1]
        np.cumsum(ends - begins, out=firsts[at + 1 : at + count + 1])
        places[at : at + count] = span.rows
        breaks = np.flatnonzero(begins[1:] != ends[:-1])
        runs = zip(begins[np.r_[0, breaks + 1]].tolist(), ends[np.r_[breaks, -1]].tolist(), strict=True)
        yield Batch(count, firsts[at : at + most + 1], places[at : at + most], list(runs))
        at += count + 1  # what stands behind belongs to the next call, so that all share one memory


def _spans(blocks: np.ndarray, size: int, rank: int) -> Iterator[Span]:
    """Rows in turn, as many as a call takes. `blocks` of each row; `size` bytes of factors to a block."""
    scratches = [max(2, SCRATCH_BYTES // size)]
    longest = int(blocks.max(initial=0))
    while scratches[-1] < longest:
        scratches.append(min(SCRATCH_STEP * scratches[-1], roomy(longest)))
    for shorter, scratch in reversed(list(zip([0, *scratches[:-1]], scratches, strict=True))):
        rows = np.flatnonzero((blocks > shorter) & (blocks <= scratch)).astype(np.int32)
        # A call first clears its scratch: with four times as much to gather, that is a small part of its work.
        room = max(CALL_BYTES // size, 4 * scratch if scratch > scratches[0] else scratch)
        ends = np.cumsum(blocks[rows])
        start = 0
        while start < len(rows):
            before = int(ends[start] - blocks[rows[start]])
            stop = min(int(np.searchsorted(ends, before + room, side="right")), start + most_rows(rank))
            yield Span(rows[start:stop], int(ends[stop - 1]) - before, room, scratch)
            start = stop
