"""Implicit alternating least squares: the mathematics of one half-epoch, on one logical device.

The objective (Hu, Koren and Volinsky 2008; Rendle et al. 2021, arXiv 2110.14037), over W [users, K] and H [items, K]:

    sum_{(u,i) observed} c_ui (<w_u, h_i> - 1)^2  +  a0 sum_{u,i} <w_u, h_i>^2
      + lam [ sum_u r_u |w_u|^2 + sum_i r_i |h_i - p_i|^2 ],        r_x = (n_x + a0 m)^nu

with n_x the interactions of a row, m the size of the other side and p_i the item's prior (zero without text).

One row's system is (a0 HᵀH + lam r I + Xᵀ C X) w = Xᵀ C 1 + lam r p, X being the factors of its history. Written in the
eigenbasis of HᵀH = Q L Qᵀ (`rotate` both tables once), all that does not depend on the history is the diagonal
D = a0 L + lam r. It preconditions conjugate gradients, whose steps then cost 4 n K flop and nothing quadratic in K; and
for n < K it makes the exact answer a matter of an n x n Cholesky factor (the Woodbury identity).
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from geo_mf.factorize.cores import ONE_CORE, each, outer, tiles

Solver = Literal["cg", "cholesky"]

JITTER = 8.0
"""What a Cholesky factor adds to a diagonal of ones, in units of the rounding error."""


@dataclass(frozen=True)
class Objective:
    """The numbers of the objective: a0, lam, nu, and the discounts p and q of balance.py, which are in the weights."""

    unobserved_weight: float
    regularization: float
    nu: float
    activity_discount: float = 0.0
    popularity_discount: float = 0.0

    def ridge(self, lengths: np.ndarray, other_size: int) -> np.ndarray:
        """lam r_x for rows with `lengths` interactions against `other_size` rows of the other side; float32."""
        # Without a0 a row without history would have no ridge and no definite solution; a trace of one keeps its prior.
        with np.errstate(over="ignore"):  # beyond float32 it is infinite, which a fit refuses
            frequency = np.maximum(lengths + self.unobserved_weight * other_size, 1e-12) ** self.nu
            return (self.regularization * frequency).astype(np.float32)


@partial(jax.tree_util.register_dataclass, data_fields=["fixed", "spectrum", "ridge", "prior"], meta_fields=[])
@dataclass(frozen=True)
class HalfEpoch:
    """What every row solve of a half-epoch shares, in the eigenbasis of the fixed side.

    Attributes:
        fixed: float32 [other_size, K], the fixed side's table.
        spectrum: float32 [K], a0 times the eigenvalues of the fixed side's Gram matrix.
        ridge: float32 [size], lam r of each row.
        prior: float32 [size, K] or None, the prior p of each row.
    """

    fixed: jax.Array
    spectrum: jax.Array
    ridge: jax.Array
    prior: jax.Array | None


@jax.jit
def rotate(table: jax.Array, basis: jax.Array) -> jax.Array:
    """Express a table [n, K] in the basis [K, K] whose columns are the new axes."""
    return jnp.matmul(table, basis, precision=jax.lax.Precision.HIGHEST)


@partial(jax.jit, static_argnames=("rows",), compiler_options=ONE_CORE)
def gram_part(table: jax.Array, start: jax.Array, rows: int) -> jax.Array:
    """Gram matrix [K, K] of `rows` rows of the table."""
    part = jax.lax.dynamic_slice_in_dim(table, start, rows)
    return outer(part[None], part[None])[0]


@partial(jax.jit, static_argnames=("solver", "steps"), compiler_options=ONE_CORE)
def solve_rows(
    half: HalfEpoch,
    start: jax.Array,
    count: jax.Array,
    columns: jax.Array,
    weights: jax.Array,
    lengths: jax.Array,
    solver: Solver,
    steps: int,
) -> jax.Array:
    """Solve the rows of a stack of tiles.

    Args:
        half: what the rows share.
        start: int32 scalar, the first row's place in the side's table.
        count: int32 scalar, tiles in use.
        columns: int32 [tiles, rows, width], positions in `half.fixed`.
        weights: float32 [tiles, rows, width], or a scalar when all weights are equal.
        lengths: int32 [tiles, rows].
        solver: "cg" (from the prior) or "cholesky" (exact).
        steps: conjugate gradient steps after the first.

    Returns:
        float32 [tiles * rows, K]; zero in tiles that are not in use.
    """
    room, rows, width = columns.shape
    rank = half.spectrum.shape[0]

    def tile(number: jax.Array) -> jax.Array:
        first = start + number * rows
        x = half.fixed.at[columns[number]].get(mode="promise_in_bounds")
        live = jnp.arange(width, dtype=jnp.int32)[None] < lengths[number][:, None]
        c = jnp.where(live, weights[number] if weights.ndim else weights, jnp.float32(0))
        ridge = jax.lax.dynamic_slice_in_dim(half.ridge, first, rows)[:, None]
        diagonal = half.spectrum[None, :] + ridge
        prior = pull = None
        if half.prior is not None:
            prior = jax.lax.dynamic_slice(half.prior, (first, 0), (rows, rank))
            pull = ridge * prior
        if solver == "cholesky":
            return _exact(x, c, diagonal, pull)
        return _conjugate_gradients(x, c, diagonal, pull, prior, steps)

    return tiles(count, tile, room).reshape(room * rows, rank)


def _conjugate_gradients(
    x: jax.Array, c: jax.Array, diagonal: jax.Array, pull: jax.Array | None, start: jax.Array | None, steps: int
) -> jax.Array:
    """A preconditioned step from `start`, and `steps` more. x [b, n, K], c [b, n], the others [b, K] or None for zero.

    Start at the prior, and not at the factor of the epoch before: that one would have to be rotated and passed over
    first, which costs as much as the one step more, for an objective that is no better. And so a row is what its
    history says, whether it was fitted or is folded in.

    A step first brings the residual up to date with the step before, so that the last one ends without a pass over the
    history that nobody would read.
    """

    def step(_: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        w, residual, direction, seen, length, rz = state
        passed = diagonal * direction + jnp.einsum("bnk,bn->bk", x, c * seen)
        residual = residual - length[:, None] * passed
        z = residual / diagonal
        new_rz = jnp.einsum("bk,bk->b", residual, z)
        direction = z + (new_rz / jnp.where(rz > 0, rz, 1))[:, None] * direction
        seen = jnp.einsum("bnk,bk->bn", x, direction)
        curvature = jnp.einsum("bk,bk->b", diagonal * direction, direction) + jnp.einsum("bn,bn->b", c * seen, seen)
        # A row that only fills up a tile, or one already solved, has zero residual and zero curvature. An overflow must
        # not pass for a step of length zero.
        length = jnp.where(curvature == 0, 0, new_rz / jnp.where(curvature == 0, 1, curvature)) + 0 * curvature
        return w + length[:, None] * direction, residual, direction, seen, length, new_rz

    w = jnp.zeros_like(diagonal) if start is None else start
    seen = -jnp.ones_like(c) if start is None else jnp.einsum("bnk,bk->bn", x, start) - 1
    one = jnp.ones(len(w), w.dtype)
    # The first residual is an update like the others: that of a whole step along w.
    state = (w, jnp.zeros_like(w) if pull is None else pull, w, seen, one, jnp.full_like(one, jnp.inf))
    return jax.lax.fori_loop(0, steps + 1, step, state)[0]


def _exact(x: jax.Array, c: jax.Array, diagonal: jax.Array, pull: jax.Array | None) -> jax.Array:
    """The rows' exact solutions. x [b, n, K], c [b, n], diagonal and pull [b, K] -> [b, K]."""
    n, rank = x.shape[1:]
    if n < rank:
        # With Y = C^1/2 X: w = q + D^-1 Yᵀ (I + Y D^-1 Yᵀ)^-1 (C^1/2 1 - Y q), q = D^-1 lam r p. No cancellation, and a
        # padded place (c = 0) is a unit row of the small system.
        root = jnp.sqrt(c)
        y = root[:, :, None] * x
        scaled = y / diagonal[:, None, :]
        small = jnp.einsum("bnk,bmk->bnm", y, scaled, precision=jax.lax.Precision.HIGHEST)
        small = small + jnp.eye(n, dtype=x.dtype)[None]
        start = jnp.zeros_like(diagonal) if pull is None else pull / diagonal
        right = root - jnp.einsum("bnk,bk->bn", y, start)
        return start + jnp.einsum("bnk,bn->bk", scaled, _cholesky_solve(small, right))
    system = outer(c[:, :, None] * x, x) + diagonal[:, :, None] * jnp.eye(rank, dtype=x.dtype)[None]
    right = outer(x, c[:, :, None])[:, :, 0]
    return _cholesky_solve(system, right if pull is None else right + pull)


def _cholesky_solve(matrices: jax.Array, rights: jax.Array) -> jax.Array:
    """[b, n, n], [b, n] -> [b, n]."""

    # Weights a million times the ridge leave a system that rounding makes indefinite. Brought to a diagonal of ones,
    # with as much more on it as rounding may have taken away, it can be solved to the precision that it has.
    size = matrices.shape[-1]
    scale = jax.lax.rsqrt(jnp.diagonal(matrices, axis1=1, axis2=2))
    lost = JITTER * jnp.finfo(matrices.dtype).eps * jnp.eye(size, dtype=matrices.dtype)[None]
    matrices = scale[:, :, None] * matrices * scale[:, None, :] + lost

    def solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
        lower = jax.lax.linalg.cholesky(matrix)
        half = jax.lax.linalg.triangular_solve(lower, right[:, None], left_side=True, lower=True)
        return jax.lax.linalg.triangular_solve(lower, half, left_side=True, lower=True, transpose_a=True)[:, 0]

    return scale * each(solve, matrices, scale * rights)


def empty_rows(spectrum: np.ndarray, ridge: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Rows without a history: D^-1 lam r p, the prior shrunk. spectrum [K], ridge [n], prior [n, K] -> [n, K]."""
    return ridge[:, None] * prior / (spectrum[None, :] + ridge[:, None])


@partial(jax.jit, compiler_options=ONE_CORE)
def observed_loss(
    users: jax.Array, items: jax.Array, rows: jax.Array, columns: jax.Array, weights: jax.Array
) -> jax.Array:
    """sum c (<w_u, h_i> - 1)^2 over the entries (rows, columns, weights), all [n]; float32 scalar."""
    w = users.at[rows].get(mode="promise_in_bounds")
    h = items.at[columns].get(mode="promise_in_bounds")
    return jnp.sum(weights * (jnp.sum(w * h, axis=1) - 1) ** 2)
