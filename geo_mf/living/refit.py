"""A fit that begins where the factors are, and a space that stays where it was.

The whole present history is factorized, with the objective that the build chose. What was learned about the blend
stays, apart from the scale of the text part, which follows from the factors.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from geo_mf.errors import InvalidInput
from geo_mf.factorize.cores import all_cores
from geo_mf.factorize.fit import Priors, Settings, fit, item_weights
from geo_mf.factorize.plan import Problem
from geo_mf.geometry import blend
from geo_mf.geometry.align import residual, rotation
from geo_mf.geometry.predictor import Predictor
from geo_mf.index.exact import ExactIndex
from geo_mf.living.changes import RefitReport
from geo_mf.living.indexing import Wanted, indexed
from geo_mf.living.record import Record
from geo_mf.living.solves import counted, with_people
from geo_mf.snapshot import Snapshot

NEAREST = 10
SAMPLED_ITEMS = 1000


def check_iterations(iterations: Any) -> None:
    """InvalidInput unless it is a number of epochs, or None."""
    if iterations is not None and (isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1):
        raise InvalidInput(f"iterations is {iterations!r}; expected a whole number of at least 1, or None")


def refitted(now: Snapshot, iterations: int | None = None, show_progress: bool = False) -> Snapshot:
    """The snapshot with factors of `iterations` more epochs, by default as many as the build took.

    Raises:
        DoesNotFit: the fit would need more memory than there is.
        FitDiverged: the factors became infinite or NaN.
        IncompatibleIndex: the index's card does not say how it was built.
    """
    record = Record.of(now.card)
    settings = Settings(
        rank=now.item_factors.shape[1],
        objective=now.objective,
        epochs=record.iterations if iterations is None else iterations,
        solver=record.solver,
        steps=record.cg_steps,
        threads=record.threads,
        progress=show_progress,
    )
    with all_cores():
        balanced = now.folding.balance.user_rows(now.history)
        Problem.of(balanced, now.features.shape[1]).plan(settings, timed=False).check(held=12 * now.history.nnz)
        priors = Priors.of(now.history, now.objective, record.prior_regularization, now.features)
        fitted = fit(balanced, settings, lambda: (now.user_factors, now.item_factors), priors)
    weights = item_weights(now.history, len(now.catalog), now.objective)
    expected = now.prior
    if (now.features.any(axis=1) & (weights > 0)).any():
        expected = Predictor.fit(now.features, fitted.items, weights, now.prior.shape, record.seed)
    items = fitted.items.copy()
    items[now.cold] = np.float32(now.blend.cold_scale) * expected(now.features[now.cold])
    turn = rotation(items[now.live], now.item_factors[now.live])
    scale = blend.fitted_scale(fitted.users, fitted.items, now.history, now.embeddings, record.seed)
    after = replace(
        now,
        user_factors=fitted.users @ turn,
        item_factors=items @ turn,
        prior=expected.rotated(turn),
        blend=replace(now.blend, scale=scale),
    )
    if now.told is not None:
        after = with_people(after, now.told.people, record.prior_regularization)
    return indexed(counted(after), Wanted.of(after.card))


def moved(before: Snapshot, after: Snapshot, iterations: int) -> RefitReport:
    """How far a refit of the same items moved the space, over a sample of at most SAMPLED_ITEMS live items."""
    able = np.flatnonzero(before.live & before.item_factors.any(axis=1) & after.item_factors.any(axis=1))
    k = min(NEAREST, len(able) - 1)
    if k < 1:
        return RefitReport(iterations, 0.0, (0.0, 0.0, 0.0), 0, 0.0)
    chosen = np.sort(np.random.default_rng(0).permutation(len(able))[:SAMPLED_ITEMS])
    old, new = _nearest(before, able, chosen, k), _nearest(after, able, chosen, k)
    shares = np.asarray([1 - len(np.intersect1d(a, b)) / k for a, b in zip(old, new, strict=True)])
    low, middle, high = np.quantile(shares, (0.1, 0.5, 0.9)).tolist()
    apart = residual(after.item_factors[able], before.item_factors[able])
    return RefitReport(iterations, float(shares.mean()), (low, middle, high), len(chosen), apart)


def _nearest(now: Snapshot, able: np.ndarray, chosen: np.ndarray, k: int) -> np.ndarray:
    """int32 [n, k]: the nearest items by factors of some of the `able` ones, as `similar_items` has it."""
    directions = blend.unit(now.item_factors[able] - now.folding.mean_item)
    return ExactIndex(directions).search(directions[chosen], k, exclude=[[at] for at in chosen.tolist()]).rows
