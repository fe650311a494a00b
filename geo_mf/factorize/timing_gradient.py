"""How long an epoch of gradient descent takes on this machine, as busy as it is now: a few of its steps, tried on
made-up interactions.

An epoch is one program however many steps it has, so that trying a few compiles as much as the fit will: a few seconds.
"""

import time
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from geo_mf.factorize import fit_gradient, gradient, matrices, timing
from geo_mf.factorize.plan import Plan, Problem

TRIED_INTERACTIONS = 2**14
"""Of a trial, in steps of a batch; of two steps at least."""

TRIED_TABLE_BYTES = 2**26
"""The largest table of a trial: its rows are read from all over it, and caches have long been missed."""

SHUFFLED = 2**19
"""The most interactions that are shuffled for a trial."""


def added(plan: Plan, problem: Problem, settings: fit_gradient.Settings) -> Plan:
    """The plan with its time: as it is where the memory is not there, and on accelerators."""
    if not plan.fits or jax.default_backend() != "cpu":
        return plan
    seconds, compiling = epoch(problem, settings)
    return replace(plan, epoch_seconds=seconds, compile_seconds=compiling)


def epoch(problem: Problem, settings: fit_gradient.Settings) -> tuple[float, float]:
    """Seconds of an epoch, without the looks at what is held out, and those of compiling it."""
    interactions = problem.shape[2]
    batch = min(settings.batch, interactions)
    steps = interactions // batch
    tried = min(steps, max(2, TRIED_INTERACTIONS // batch))
    random = np.random.default_rng(0)
    matrix = _made_up(problem, settings, tried * batch, random)
    shape, features = matrices.shape(matrix), None
    if problem.features:
        features = random.standard_normal((shape[1], problem.features), np.float32)
    data = fit_gradient.training(matrix, np.zeros(0, np.int64), settings.popularity, features)
    tables = fit_gradient.start(fit_gradient.table_shapes(shape, settings, problem.features), settings, random)
    state = jax.tree.map(jnp.array, settings.optimizer.init(tables))
    found = []
    for number in range(1 + timing.ROUNDS):
        began = time.perf_counter()
        tables, state, loss = gradient.epoch(
            tables, state, data, jax.random.key(number), settings.optimizer, settings.objective, batch, tried
        )
        loss.block_until_ready()
        found.append(time.perf_counter() - began)
    first, best = found[0], min(found[1:])
    return best * steps / tried + _shuffling(interactions), first - best


def _made_up(
    problem: Problem, settings: fit_gradient.Settings, count: int, random: np.random.Generator
) -> sparse.csr_array:
    """So many interactions, of users and items who are as active and as popular as those of the problem; a pair may
    come twice. Where tables would be large they have fewer rows, but as many as a step touches."""
    batch = min(settings.batch, problem.shape[2])
    shapes = fit_gradient.table_shapes(problem.shape[:2], settings, problem.features)
    touched = gradient.touched(shapes, settings.objective, batch)
    sides = []
    for name, lengths in (("users", problem.user_lengths), ("items", problem.item_lengths)):
        rows = min(shapes[name][0], max(touched[name], TRIED_TABLE_BYTES // (4 * settings.rank)))
        share = lengths[np.linspace(0, len(lengths) - 1, rows).astype(np.int64)] + 1e-9  # some rows, if none has any
        spread = np.cumsum(share)
        sides.append((rows, np.minimum(np.searchsorted(spread / spread[-1], random.random(count)), rows - 1)))
    (users, user), (items, item) = sides
    indptr = np.append(0, np.cumsum(np.bincount(user, minlength=users)))
    return sparse.csr_array((np.ones(count, np.float32), item.astype(np.int32), indptr), (users, items))


def _shuffling(interactions: int) -> float:
    """Seconds that the order of an epoch takes."""
    tried = min(interactions, SHUFFLED)
    shuffle = partial(jax.jit(jax.random.permutation, static_argnums=1), jax.random.key(0), tried)
    shuffle().block_until_ready()
    return timing.fastest(lambda: shuffle().block_until_ready()) * interactions / tried
