"""The best rows of many queries at once, exactly: what a night's lists are made of.

A block of queries meets the rows a tile at a time. What a query may not have is struck out of its scores, and of every
GROUP of scores only the largest is kept. A group outside the k best groups cannot hold one of the k best rows, so those
few groups alone are scored again and ordered. Scores of queries x rows are never held.

Rows stand by falling length. No row of a tile can score more than |query| times the longest of them (Cauchy-Schwarz),
so a query that has found k scores above that is done with all further tiles (LEMP: Teflioudi, Gemulla and Mykytiuk
2015). How much this saves depends on how much the lengths differ; the answer does not.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from geo_mf.index.exact import Hits
from geo_mf.threads import count

BLOCK = 256
"""Queries that meet a tile together."""

TILE = 2048
"""Rows of a tile: with the block's scores against it, it lies in a core's cache."""

GROUP = 16
"""Scores of which one is kept."""

CHUNK = 1024
"""Scores struck out at a time."""

SLACK = 1e-5
"""How much a score may exceed its bound by rounding, as a share of it."""

# Blocks are shared among the cores. Unlike factorize.cores.ONE_CORE this leaves XLA its library for matrix products,
# which the products here are large enough for: 31 ms a block of 256 queries against 100,000 rows, instead of 39.
_ONE_CORE = {"xla_cpu_multi_thread_eigen": False}
_PRECISE = jax.lax.Precision.HIGHEST


def top(values: jax.Array, k: int) -> jax.Array:
    """int32 [b, k]: where the k largest of each line [b, n] stand, k <= n, largest first."""
    groups = values.shape[1] // GROUP
    if groups <= 2 * k:
        return jax.lax.top_k(values, k)[1].astype(jnp.int32)
    head = groups * GROUP  # the rest is too little for a group: it is always looked at
    chosen = top(values[:, :head].reshape(-1, GROUP, groups).max(axis=1), k)
    places = (chosen[:, :, None] + groups * _members()).reshape(len(chosen), -1)
    rest = jnp.broadcast_to(jnp.arange(head, values.shape[1], dtype=jnp.int32), (len(chosen), values.shape[1] - head))
    places = jnp.concatenate([places, rest], axis=1)
    best = jax.lax.top_k(jnp.take_along_axis(values, places, axis=1), k)[1]
    return jnp.take_along_axis(places, best, axis=1)


def _members() -> jax.Array:
    return jnp.arange(GROUP, dtype=jnp.int32)[None, None]


@partial(jax.jit, static_argnames=("room",), compiler_options=_ONE_CORE)
def group_maxima(
    queries: jax.Array,
    tiles: jax.Array,
    size: jax.Array,
    hidden: jax.Array,
    chunks: jax.Array,
    span: jax.Array,
    room: int,
) -> jax.Array:
    """The largest score of every group.

    Args:
        queries: float32 [b, dim].
        tiles: float32 [t, rows, dim].
        size: int32 scalar, rows in use.
        hidden: int32 [m], (tile, query, row in the tile) of what is struck out as one rising number; m is a multiple of
            CHUNK.
        chunks: int32 [t, 2], which chunks of `hidden` hold those of a tile.
        span: int32 [2], the first tile and the one behind the last.
        room: tiles that there is place for.

    Returns:
        float32 [b, room * rows / GROUP]; -inf for tiles that were not visited.
    """
    b, width = len(queries), tiles.shape[1]
    column = jnp.arange(width, dtype=jnp.int32)

    def visit(tile: jax.Array, out: jax.Array, whole: bool) -> jax.Array:
        scores = jnp.matmul(queries, tiles[tile].T, precision=_PRECISE).reshape(-1)

        def strike(number: jax.Array, scores: jax.Array) -> jax.Array:
            at = jax.lax.dynamic_slice(hidden, (number * CHUNK,), (CHUNK,)) - tile * (b * width)
            # A chunk also holds those of the tiles beside this one; a negative place would count from the end.
            return scores.at[jnp.where(at < 0, b * width, at)].set(-jnp.inf, mode="drop")

        scores = jax.lax.fori_loop(chunks[tile, 0], chunks[tile, 1], strike, scores).reshape(b, width)
        if not whole:
            scores = jnp.where(column[None] < size - tile * width, scores, -jnp.inf)
        best = scores.reshape(b, GROUP, -1).max(axis=1)
        return jax.lax.dynamic_update_slice_in_dim(out, best, (tile - span[0]) * best.shape[1], axis=1)

    out, full = jnp.full((b, room * (width // GROUP)), -jnp.inf, jnp.float32), size // width
    out = jax.lax.fori_loop(span[0], jnp.minimum(span[1], full), partial(visit, whole=True), out)
    return jax.lax.fori_loop(jnp.maximum(span[0], full), span[1], partial(visit, whole=False), out)


@partial(jax.jit, static_argnames=("k",), compiler_options=_ONE_CORE)
def kth_largest(values: jax.Array, k: int) -> jax.Array:
    """float32 [b]: the k-th largest of each line [b, n], k <= n."""
    return jnp.take_along_axis(values, top(values, k)[:, -1:], axis=1)[:, 0]


@partial(jax.jit, static_argnames=("k",), compiler_options=_ONE_CORE)
def best_of_groups(
    queries: jax.Array, tiles: jax.Array, size: jax.Array, hidden: jax.Array, maxima: jax.Array, k: int
) -> tuple[jax.Array, jax.Array]:
    """Score the best groups again, row by row.

    Args:
        queries, tiles, size, hidden: as in `group_maxima`.
        maxima: float32 [b, groups], of all tiles.
        k: rows wanted.

    Returns:
        Places int32 and scores float32 [b, min(k, GROUP * groups)], best first; -inf where no row is left.
    """
    b, (_, width, dim) = len(queries), tiles.shape
    stride = width // GROUP
    groups = top(maxima, min(k, maxima.shape[1]))
    first = groups // stride * width + groups % stride
    places = (first[:, :, None] + stride * _members()).reshape(b, -1)
    keys = places // width * (b * width) + jnp.arange(b, dtype=jnp.int32)[:, None] * width + places % width
    at = jnp.searchsorted(hidden, keys.reshape(-1)).reshape(keys.shape)
    struck = hidden.at[at].get(mode="clip") == keys
    rows = tiles.reshape(-1, dim)

    def scores_of(one: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.matmul(rows[one[1]], one[0], precision=_PRECISE)

    scores = jax.lax.map(scores_of, (queries, places))
    scores = jnp.where(struck | (places >= size), -jnp.inf, scores)
    values, best = jax.lax.top_k(scores, min(k, scores.shape[1]))
    return jnp.take_along_axis(places, best, axis=1), values


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows that answers come from, by falling length.

    Attributes:
        tiles: float32 [t, rows, dim], zero behind the last row.
        lengths: float64 [t], of each tile's longest row.
        order: int64 [size], the row at each place.
        place: int64 [all rows], the place of each row, -1 for one that is in no answer.
        columns: int64 [dim], those of the vectors that are not zero everywhere.
    """

    tiles: jax.Array
    lengths: np.ndarray
    order: np.ndarray
    place: np.ndarray
    columns: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, allowed: np.ndarray) -> "Rows":
        """Rows float32 [n, dim], finite, of which `allowed`, bool [n], may be in answers."""
        chosen = np.flatnonzero(allowed)
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))[chosen]
        order = chosen[np.argsort(-lengths, kind="stable")]
        width = min(TILE, -(-max(1, len(order)) // GROUP) * GROUP)
        count = -(-max(1, len(order)) // width)
        columns = np.flatnonzero(np.any(vectors != 0, axis=0))
        table = np.zeros((count * width, len(columns)), np.float32)
        table[: len(order)] = vectors[order] if len(columns) == vectors.shape[1] else vectors[np.ix_(order, columns)]
        place = np.full(len(vectors), -1)
        place[order] = np.arange(len(order))
        longest = -np.sort(-lengths)[::width] if len(order) else np.zeros(1)
        return cls(jnp.asarray(table.reshape(count, width, -1)), longest, order, place, columns)

    def best(self, queries: np.ndarray, k: int, exclude: sparse.csr_array, pool: ThreadPoolExecutor) -> Hits:
        """The k rows with the largest inner product, for each query, and never an excluded one.

        Args:
            queries: float32 [q, dim], finite.
            k: how many, at least 1.
            exclude: sparse [q, all rows]; stored entries are withheld from their query.
            pool: blocks are shared among its threads, which changes no answer.
        """
        queries = np.ascontiguousarray(queries[:, self.columns], np.float32)
        count, width, _ = self.tiles.shape
        stride = width // GROUP
        head = min(count, max(1, count // 16, -(-4 * k // stride)))
        block = min(BLOCK, max(1, (2**31 - 1) // (count * width)))
        starts = range(0, len(queries), block)
        size = np.int32(len(self.order))

        def begun(start: int, lines: np.ndarray, withheld: sparse.csr_array, slots: int) -> tuple[np.ndarray, ...]:
            part = np.zeros((block, lines.shape[1]), np.float32)
            part[: len(lines) - start] = lines[start : start + block]
            return part, *self._struck(withheld, start, block, slots)

        def first_tiles(start: int) -> tuple[np.ndarray, np.ndarray]:
            part, hidden, chunks = begun(start, queries, exclude, slots)
            found = group_maxima(part, self.tiles, size, hidden, chunks, np.array([0, head], np.int32), head)
            enough = np.asarray(kth_largest(found, k)) if k <= found.shape[1] else np.full(block, -np.inf)
            return np.asarray(found)[: len(queries) - start], enough[: len(queries) - start]

        slots = _slots(exclude, block)
        begun_with = list(pool.map(first_tiles, starts))
        maxima = np.concatenate([np.zeros((0, head * stride), np.float32), *(found for found, _ in begun_with)])
        enough = np.concatenate([np.zeros(0), *(least for _, least in begun_with)])
        # Queries that need equally many tiles go together: a block goes on until the last of them is done.
        needs = self._needs(queries, enough)
        together = np.argsort(-needs, kind="stable")
        lines, withheld, needs, maxima = queries[together], exclude[together], needs[together], maxima[together]
        slots = _slots(withheld, block)

        def other_tiles(start: int) -> tuple[np.ndarray, np.ndarray]:
            part, hidden, chunks = begun(start, lines, withheld, slots)
            known = np.full((block, maxima.shape[1]), -np.inf, np.float32)
            known[: len(lines) - start] = maxima[start : start + block]
            if count > head:
                span = np.array([head, max(head, needs[start])], np.int32)
                more = group_maxima(part, self.tiles, size, hidden, chunks, span, count - head)
                known = jnp.concatenate([jnp.asarray(known), more], axis=1)
            places, scores = best_of_groups(part, self.tiles, size, hidden, known, k)
            used = slice(0, len(lines) - start)
            return np.asarray(places)[used], np.asarray(scores)[used]

        found = list(pool.map(other_tiles, starts))
        wide = min(k, GROUP * count * stride)
        places = np.concatenate([np.zeros((0, wide), np.int32), *(places for places, _ in found)])
        scores = np.concatenate([np.zeros((0, wide), np.float32), *(scores for _, scores in found)])
        rows = np.append(self.order, -1)[np.minimum(places, len(self.order))]
        hits = Hits.best(rows, scores, k)
        back = np.argsort(together)
        return Hits(hits.rows[back], hits.scores[back])

    def _needs(self, queries: np.ndarray, enough: np.ndarray) -> np.ndarray:
        """int [q]: how many tiles can hold a score of at least `enough`."""
        lengths = np.sqrt(np.einsum("qd,qd->q", queries, queries, dtype=np.float64))
        reach = lengths * (1 + SLACK)
        nothing = np.where(enough > -np.inf, np.inf, -np.inf)  # to a zero query every row is worth the same
        least = np.divide(enough, reach, out=nothing, where=reach > 0)
        return np.searchsorted(-self.lengths, -least, side="right")

    def _struck(self, exclude: sparse.csr_array, start: int, block: int, slots: int) -> tuple[np.ndarray, np.ndarray]:
        """`hidden` and `chunks` of `group_maxima`, for a block of lines of `exclude`."""
        count, width, _ = self.tiles.shape
        ends = exclude.indptr[start : start + block + 1]
        places = self.place[exclude.indices[ends[0] : ends[-1]]]
        lines = np.repeat(np.arange(len(ends) - 1), np.diff(ends))[places >= 0]
        places = places[places >= 0]
        hidden = np.full(slots, 2**31 - 1, np.int32)
        hidden[: len(places)] = places // width * (block * width) + lines * width + places % width
        hidden.sort()
        edges = np.searchsorted(hidden[: len(places)], np.arange(count + 1) * (block * width))
        return hidden, np.stack([edges[:-1] // CHUNK, -(-edges[1:] // CHUNK)], axis=1).astype(np.int32)


def _slots(exclude: sparse.csr_array, block: int) -> int:
    """Room for the entries of any block of lines: a power of two, for each size is compiled anew."""
    ends = exclude.indptr[np.minimum(np.arange(0, exclude.shape[0] + block, block), exclude.shape[0])]  # pyright: ignore
    most = int(np.diff(ends).max(initial=0))
    return max(CHUNK, 1 << (most - 1).bit_length() if most else 0)


def threads() -> int:
    """Cores that this process may use; one where JAX computes elsewhere."""
    return count() if jax.default_backend() == "cpu" else 1
