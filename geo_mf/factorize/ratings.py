"""Explicit ratings: the mathematics of biased matrix factorization, on one logical device.

The model is r ~ mu + b_u + b_i + <w_u, h_i> (Koren, Bell and Volinsky 2009), over observed ratings only:

    sum_{(u,i) rated} (r_ui - mu - b_u - b_i - <w_u, h_i>)^2
      + sum_u n_u^nu (lam s |w_u|^2 + lam_b b_u^2)  +  sum_i n_i^nu (lam s |h_i - p_i|^2 + lam_b (b_i - q_i)^2)

with n a row's ratings, s the ratings' standard deviation (so that a regularisation means the same on every scale) and
p_i, q_i the item's prior (zero without features). One row's factor and bias are one unknown, a = [w, b], against
x = [h, 1]; its system (Xᵀ X + D) a = Xᵀ y + D p is solved exactly.

The minimum of that objective trusts every factor of the other side alike, though one rests on a thousand ratings and
the next on one. Variational Bayes (Lim and Teh 2007) trusts each as far as its own posterior N(mean, S) goes: the
expectation over it adds sum_i S_i to a row's matrix, which is a ridge that grows where little is known. Of S a row
keeps the variances of its factor and bias, and the factor's covariances with the bias, 2K + 1 numbers instead of K^2:
on MovieLens they give nearly all of what the whole S gives. A row's S is noise (Xᵀ X + D)^-1, and the noise is the
mean of the expected squared error, so that it needs no tuning.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from geo_mf.factorize.cores import ONE_CORE, each, outer, tiles


@dataclass(frozen=True)
class Objective:
    """What the objective is made of.

    Attributes:
        regularization: lam, above 0.
        bias_regularization: lam_b, above 0.
        nu: exponent of the frequency scaling.
        variational: whether rows know how uncertain the other side is; else the objective's own minimum is sought.
    """

    regularization: float
    bias_regularization: float
    nu: float
    variational: bool

    def ridge(self, lengths: np.ndarray, rank: int, scale: float) -> np.ndarray:
        """D of rows with `lengths` ratings, float32 [n, K + 1]; `scale` is s. A row without ratings counts as one."""
        base = np.append(np.full(rank, self.regularization * scale), self.bias_regularization)
        return (np.maximum(lengths, 1.0)[:, None] ** self.nu * base).astype(np.float32)


@partial(jax.tree_util.register_dataclass, data_fields=["mean", "spread"], meta_fields=[])
@dataclass(frozen=True)
class Posterior:
    """One side's table.

    Attributes:
        mean: float32 [size, K + 1], factor and bias.
        spread: float32 [size, 2K + 1], variances of the factor, covariances of factor and bias, variance of the bias;
            None when the fit is not variational.
    """

    mean: jax.Array
    spread: jax.Array | None


@partial(jax.tree_util.register_dataclass, data_fields=["fixed", "ridge", "prior", "centre", "noise"], meta_fields=[])
@dataclass(frozen=True)
class HalfEpoch:
    """What every row solve of a half-epoch shares.

    Attributes:
        fixed: the other side.
        ridge: float32 [size, K + 1], D of each row.
        prior: float32 [size, K + 1] or None, [p, q] of each row.
        centre: float32 scalar, what to take off every target: mu, in the targets' own scale.
        noise: float32 scalar, variance of a rating around its prediction.
    """

    fixed: Posterior
    ridge: jax.Array
    prior: jax.Array | None
    centre: jax.Array
    noise: jax.Array


@partial(jax.jit, compiler_options=ONE_CORE)
def solve_rows(
    half: HalfEpoch, start: jax.Array, count: jax.Array, columns: jax.Array, targets: jax.Array, lengths: jax.Array
) -> tuple[Posterior, jax.Array]:
    """Solve the rows of a stack of tiles.

    Args:
        half: what the rows share.
        start: int32 scalar, the first row's place in the side's table.
        count: int32 scalar, tiles in use.
        columns: int32 [tiles, rows, width], positions in the fixed side's table.
        targets: float32 [tiles, rows, width], or a scalar when all ratings are equal.
        lengths: int32 [tiles, rows].

    Returns:
        The rows' posterior, and the expected squared error summed over each row's ratings, float32 [tiles * rows]; zero
        in tiles that are not in use.
    """
    room, rows, width = columns.shape
    places = half.ridge.shape[1]

    def tile(number: jax.Array) -> tuple[Posterior, jax.Array]:
        column, target = columns[number], targets[number] if targets.ndim else targets
        first = start + number * rows
        live = (jnp.arange(width, dtype=jnp.int32)[None] < lengths[number][:, None]).astype(jnp.float32)
        gathered = half.fixed.mean.at[column].get(mode="promise_in_bounds")
        y = live * (target - half.centre - gathered[:, :, -1])
        x = live[:, :, None] * jnp.concatenate([gathered[:, :, :-1], jnp.ones_like(gathered[:, :, :1])], axis=2)
        diagonal = jax.lax.dynamic_slice(half.ridge, (first, 0), (rows, places))
        right = jnp.zeros_like(diagonal)
        if half.prior is not None:
            right = diagonal * jax.lax.dynamic_slice(half.prior, (first, 0), (rows, places))
        around = None
        if half.fixed.spread is not None:
            spread = half.fixed.spread.at[column].get(mode="promise_in_bounds")
            around = jnp.einsum("bn,bnk->bk", live, spread)
            diagonal = diagonal.at[:, :-1].add(around[:, : places - 1])
            right = right.at[:, :-1].add(-around[:, places - 1 : -1])
        solved = _exact(x, y, diagonal, right, half.noise, around is not None)
        return solved, _expected_error(x, y, solved, around)

    return jax.tree.map(lambda a: a.reshape(room * rows, *a.shape[2:]), tiles(count, tile, room))


def _exact(
    x: jax.Array, y: jax.Array, diagonal: jax.Array, right: jax.Array, noise: jax.Array, spread: bool
) -> Posterior:
    """(Xᵀ X + D)^-1 (Xᵀ y + right), and what is kept of its covariance. x [b, n, K + 1], y [b, n], the rest [b, K + 1].

    One system at a time: jaxlib 0.10 spreads a batch of them over XLA's threads and waits for it on such a thread, so
    that two batches at once wait for each other for ever.
    """
    n, places = x.shape[1:]
    if n < places:
        # Woodbury: with Y = X D^-1 and L Lᵀ = I + Y Xᵀ, the inverse is D^-1 - (L^-1 Y)ᵀ (L^-1 Y). A padded place is a
        # unit row of the small system.
        scaled = x / diagonal[:, None, :]
        small = _product("bnk,bmk->bnm", scaled, x) + jnp.eye(n, dtype=x.dtype)[None]
        start = right / diagonal
        error = y - jnp.einsum("bnk,bk->bn", x, start)
        half = _lower_solve(small, jnp.concatenate([scaled, error[:, :, None]], axis=2))
        half, error = half[:, :, :-1], half[:, :, -1]
        mean = start + jnp.einsum("bnk,bn->bk", half, error)
        if not spread:
            return Posterior(mean, None)
        # What is left of 1/D is small where much is known, and rounding must not take it below zero.
        variances = jnp.maximum(1 / diagonal - jnp.sum(half * half, axis=1), 0)
        with_bias = -jnp.einsum("bnk,bn->bk", half[:, :, :-1], half[:, :, -1])
    else:
        eye = jnp.eye(places, dtype=x.dtype)[None]
        system = outer(x, x) + diagonal[:, :, None] * eye
        right = right + jnp.einsum("bnk,bn->bk", x, y)
        # With L Lᵀ the system and M = L^-1, the inverse is Mᵀ M.
        inverse = _lower_solve(system, jnp.broadcast_to(eye, system.shape))
        mean = _product("bjk,bj->bk", inverse, _product("bjk,bk->bj", inverse, right))
        if not spread:
            return Posterior(mean, None)
        variances = jnp.sum(inverse * inverse, axis=1)
        with_bias = inverse[:, -1, :-1] * inverse[:, -1, -1:]
    return Posterior(mean, noise * jnp.concatenate([variances[:, :-1], with_bias, variances[:, -1:]], axis=1))


def _expected_error(x: jax.Array, y: jax.Array, row: Posterior, around: jax.Array | None) -> jax.Array:
    """sum over the ratings of E (y - <a, x>)^2, [b]; `around` [b, 2K + 1] sums the fixed side's spread."""
    error = jnp.sum((y - jnp.einsum("bnk,bk->bn", x, row.mean)) ** 2, axis=1)
    if row.spread is None or around is None:
        return error
    rank = x.shape[2] - 1
    w, (variance, with_bias) = row.mean[:, :-1], (row.spread[:, :rank], row.spread[:, rank:-1])
    # x is zero at a padded place, its last column included.
    squares, sums = jnp.sum(x * x, axis=1), jnp.sum(x, axis=1)
    error = error + jnp.sum(variance * (squares[:, :-1] + around[:, :rank]) + around[:, :rank] * w * w, axis=1)
    error = error + 2 * jnp.sum(with_bias * sums[:, :-1] + around[:, rank:-1] * w, axis=1)
    return error + row.spread[:, -1] * sums[:, -1] + around[:, -1]


def _product(form: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(form, a, b, precision=jax.lax.Precision.HIGHEST)


def _lower_solve(matrices: jax.Array, right: jax.Array) -> jax.Array:
    """L^-1 right, with L Lᵀ the matrix. [b, n, n], [b, n, m] -> [b, n, m]."""

    def solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
        lower = jax.lax.linalg.cholesky(matrix)
        return jax.lax.linalg.triangular_solve(lower, right, left_side=True, lower=True)

    return each(solve, matrices, right)


@partial(jax.jit, static_argnames=("start", "counts"))
def joined(half: HalfEpoch, parts: list[Posterior], start: int, counts: tuple[int, ...]) -> Posterior:
    """The table: the first `counts[j]` rows of each part, and from `start` on rows that have no ratings.

    Those have the prior, zero without one, and its own spread.
    """
    ridge = half.ridge[start:]
    mean = jnp.zeros_like(ridge) if half.prior is None else half.prior[start:]
    spread = None
    if half.fixed.spread is not None:
        variances = half.noise / ridge
        spread = jnp.concatenate([variances[:, :-1], jnp.zeros_like(ridge[:, :-1]), variances[:, -1:]], axis=1)
    used = [jax.tree.map(lambda a, n=count: a[:n], part) for part, count in zip(parts, counts, strict=True)]
    return jax.tree.map(lambda *slices: jnp.concatenate(slices), *used, Posterior(mean, spread))


def fold_in(
    fixed: tuple[np.ndarray, np.ndarray | None],
    residuals: np.ndarray,
    ridge: np.ndarray,
    prior: np.ndarray | None = None,
) -> np.ndarray:
    """One row's factor and bias, in float64 on NumPy: serving solves one row, where compiling would cost far more.

    Args:
        fixed: of the rated rows of the fixed side, mean [n, K + 1] and spread [n, 2K + 1] or None.
        residuals: [n], ratings minus mu.
        ridge: [K + 1], the row's D.
        prior: [K + 1] or None.

    Returns:
        float32 [K + 1]; the prior, or zero, for no ratings.
    """
    mean = fixed[0].astype(np.float64)
    x = np.append(mean[:, :-1], np.ones((len(mean), 1)), axis=1)
    rank = x.shape[1] - 1
    diagonal = ridge.astype(np.float64)
    right = np.zeros(rank + 1) if prior is None else diagonal * prior
    if fixed[1] is not None:
        around = fixed[1].astype(np.float64).sum(axis=0)
        diagonal = diagonal + np.append(around[:rank], 0)
        right = right - np.append(around[rank:-1], 0)
    system = x.T @ x + np.diag(diagonal)
    return np.linalg.solve(system, right + x.T @ (residuals - mean[:, -1])).astype(np.float32)
