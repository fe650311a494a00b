"""Factors for many rows at once, from their histories, against a fixed other side: fold_in.py's systems, in JAX.

Conjugate gradients from a factor that is near already, the stored one: a fit ends with some steps of these very
systems, so that a pass or two over the histories is all that most rows need. The residual r bounds the error e that is
left: with A the row's system and D its part without the history, A >= D, so |e|_A <= |r| in the norm of the inverse of
D. A tile of rows goes on until this is small for each; a row that does not come so far is solved by `FoldIn`.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from geo_mf.factorize.cores import ONE_CORE, tiles
from geo_mf.factorize.fold_in import FoldIn

TOLERANCE = 1e-5
"""The bound on a row's error, as a share of the row: both in the norm of the row's system."""

MARGIN = 0.1
"""Share of the square of that bound at which a round of steps ends."""

MOST_STEPS, MOST_ROUNDS = 32, 2
"""Steps of a round, and rounds, after which a row is solved exactly instead."""

TILE_FLOATS = 2**18
"""Numbers gathered at a time, for a core's cache."""

TILES = 16
"""Tiles in one call."""

SHORTEST = 16
"""Histories are padded to this many places, or to a power of two above it: each width is compiled."""


@partial(jax.jit, compiler_options=ONE_CORE)
def solve_tiles(
    fixed: jax.Array,
    count: jax.Array,
    columns: jax.Array,
    weights: jax.Array,
    diagonal: jax.Array,
    start: jax.Array,
    pull: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Solve the rows of a stack of tiles.

    Args:
        fixed: float32 [size, K], the fixed side in the eigenbasis of its Gram matrix.
        count: int32 scalar, tiles in use.
        columns: int32 [tiles, rows, width], rows of `fixed`.
        weights: float32 [tiles, rows, width], 0 where a history has ended.
        diagonal: float32 [tiles, rows, K], D.
        start: float32 [tiles, rows, K].
        pull: float32 [tiles, rows, K], lam r p; [] for no prior.

    Returns:
        float32 [tiles, rows, K], and bool [tiles, rows], which of them came near enough.
    """

    def tile(number: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = fixed.at[columns[number]].get(mode="promise_in_bounds")
        c, d = weights[number], diagonal[number]

        def passed(w: jax.Array) -> jax.Array:
            return d * w + jnp.einsum("bnk,bn->bk", x, c * jnp.einsum("bnk,bk->bn", x, w))

        def step(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            w, r, p, size, steps = state
            seen = passed(p)
            curvature = jnp.einsum("bk,bk->b", p, seen)
            length = jnp.where(curvature > 0, size / jnp.where(curvature > 0, curvature, 1), 0)[:, None]
            r = r - length * seen
            smaller = jnp.einsum("bk,bk->b", r, r / d)
            turned = r / d + (smaller / jnp.where(size > 0, size, 1))[:, None] * p
            return w + length * p, r, turned, smaller, steps + 1

        def measured(w: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            """The residual, the square of its norm, and what that may be, by the square of |w|_A; in one pass."""
            scores = jnp.einsum("bnk,bk->bn", x, w)
            r = jnp.einsum("bnk,bn->bk", x, c * (1 - scores)) - d * w
            if pull.ndim:
                r = r + pull[number]
            own = jnp.einsum("bk,bk->b", w, d * w) + jnp.einsum("bn,bn->b", scores, c * scores)
            return r, jnp.einsum("bk,bk->b", r, r / d), TOLERANCE**2 * own

        def round(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            w, r, square, enough, rounds = state
            steps = (w, r, r / d, square, jnp.int32(0))
            w, *_ = jax.lax.while_loop(lambda s: (s[4] < MOST_STEPS) & jnp.any(s[3] > MARGIN * enough), step, steps)
            return w, *measured(w), rounds + 1

        # Steps carry the residual along, and rounding parts it from the true one: each round begins with that.
        state = (start[number], *measured(start[number]), jnp.int32(0))
        w, _, square, enough, _ = jax.lax.while_loop(
            lambda s: (s[4] < MOST_ROUNDS) & jnp.any(s[2] > s[3]), round, state
        )
        return w, (square <= enough) & jnp.isfinite(enough)

    return tiles(count, tile, columns.shape[0])


@dataclass(frozen=True, eq=False)
class FoldInMany:
    """Row solves against a fixed side, many at a time.

    Attributes:
        one: the row solves one at a time.
        factors: float32 [size, K], the fixed side.
        rotated: float32 [size, K], the same in the eigenbasis.
    """

    one: FoldIn
    factors: np.ndarray
    rotated: jax.Array

    @classmethod
    def of(cls, one: FoldIn, factors: np.ndarray) -> "FoldInMany":
        """Many rows at a time, where `one` solves one against the fixed side [size, K]."""
        return cls(one, factors, jnp.asarray(factors @ one.basis.astype(np.float32)))

    def solve(
        self,
        histories: sparse.csr_array,
        start: np.ndarray,
        pool: ThreadPoolExecutor,
        priors: np.ndarray | None = None,
    ) -> np.ndarray:
        """The factors of many rows.

        Args:
            histories: CSR [n, size] of positive weights.
            start: float32 [n, K], where to begin.
            pool: tiles are shared among its threads, which changes no factor.
            priors: float32 [n, K] or None.

        Returns:
            float32 [n, K], those of `FoldIn.solve` up to rounding; zero for an empty history without a prior.

        Raises:
            FitDiverged: as `FoldIn.solve`.
        """
        lengths = np.diff(histories.indptr)
        widths = 1 << np.ceil(np.log2(np.maximum(lengths, SHORTEST))).astype(np.int64)
        solved, near = np.zeros_like(start), lengths == 0
        if priors is not None:
            near &= ~priors.any(axis=1)
        calls: list[tuple[int, np.ndarray]] = []
        for width in np.unique(widths[lengths > 0]).tolist():
            rows = np.flatnonzero((widths == width) & (lengths > 0))
            each = TILES * self._per_tile(width)
            calls += [(width, rows[at : at + each]) for at in range(0, len(rows), each)]
        solve = partial(self._call, histories, start, priors)
        for (_, rows), (found, reached) in zip(calls, pool.map(solve, calls), strict=True):
            solved[rows], near[rows] = found, reached & np.isfinite(found).all(axis=1)
        for row in np.flatnonzero(~near):
            span = slice(histories.indptr[row], histories.indptr[row + 1])
            prior = None if priors is None else priors[row]
            solved[row] = self.one.solve(self.factors[histories.indices[span]], histories.data[span], prior)
        return solved

    def _per_tile(self, width: int) -> int:
        return max(1, TILE_FLOATS // (width * self.factors.shape[1]))

    def _call(
        self, histories: sparse.csr_array, start: np.ndarray, priors: np.ndarray | None, call: tuple[int, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """For a width and rows [n] whose histories fit it: factors [n, K], and bool [n], which came near enough."""
        width, rows = call
        per_tile = self._per_tile(width)
        room, basis = TILES * per_tile, self.one.basis.astype(np.float32)
        lengths = np.zeros(room, np.int64)
        lengths[: len(rows)] = np.diff(histories.indptr)[rows]
        here = np.arange(width) < lengths[:, None]
        taken = histories.indptr[:-1][rows][:, None] + np.arange(width)
        taken = taken[here[: len(rows)]]
        columns, weights = np.zeros((room, width), np.int32), np.zeros((room, width), np.float32)
        columns[here], weights[here] = histories.indices[taken], histories.data[taken]
        first = np.zeros((room, len(basis)), np.float32)
        first[: len(rows)] = start[rows] @ basis
        ridge = self.one.objective.ridge(lengths, self.one.size)
        diagonal = (self.one.spectrum + ridge[:, None]).astype(np.float32)
        stacked = [a.reshape(TILES, per_tile, -1) for a in (columns, weights, diagonal, first)]
        pull = np.zeros((), np.float32)
        if priors is not None:
            pull = np.zeros((room, len(basis)), np.float32)
            pull[: len(rows)] = ridge[: len(rows), None] * (priors[rows] @ basis)
            pull = pull.reshape(TILES, per_tile, -1)
        found, near = solve_tiles(self.rotated, np.int32(-(-len(rows) // per_tile)), *stacked, pull)
        turned = np.asarray(found).reshape(room, -1)[: len(rows)] @ basis.T
        return turned, np.asarray(near).reshape(-1)[: len(rows)]
