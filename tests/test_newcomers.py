"""How firmly a build holds newcomers: learned of users who were left out."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

import geo_mf as gm
from geo_mf.builder import newcomers
from geo_mf.builder.learning import learn
from geo_mf.builder.trial import Described, Trial
from geo_mf.geometry import blend, trend
from geo_mf.geometry.blend import Blend, Weights
from geo_mf.geometry.predictor import Shape

USERS, ITEMS = 400, 60
CONFIG = gm.BuildConfig(factors=8, encoder="hash")
NOTHING = Described(np.zeros((ITEMS, 1), np.float32), np.zeros((ITEMS, 1), np.float32))


def world(sharp: float) -> sparse.csr_array:
    """Each user likes the items of one of four kinds, the more of them the sharper taste is, and popular ones."""
    random = np.random.default_rng(0)
    popular = random.lognormal(0, 1, ITEMS)
    rows = []
    for user in range(USERS):
        weights = popular * np.where(np.arange(ITEMS) % 4 == user % 4, sharp, 1)
        rows.append(random.choice(ITEMS, 12, replace=False, p=weights / weights.sum()))
    ones = np.ones(USERS * 12, np.float32)
    return sparse.csr_array((ones, (np.repeat(np.arange(USERS), 12), np.concatenate(rows))), shape=(USERS, ITEMS))


def described() -> Described:
    """Texts that tell nothing of an item's kind: clicks have to."""
    features = blend.unit(np.random.default_rng(1).standard_normal((ITEMS, 8))).astype(np.float32)
    return Described(features, features)


def learned(matrix: sparse.csr_array, datetimes: np.ndarray | None = None) -> Blend:
    strangers = newcomers.chosen(matrix, 0)
    return newcomers.learn(matrix, datetimes, strangers, NOTHING, CONFIG, Blend(1.0, trend=0.3))


def test_the_less_clicks_tell_the_firmer_newcomers_are_held() -> None:
    alike, sharp = learned(world(1.0)), learned(world(300.0))
    assert sharp.newcomer < alike.newcomer, "there is no taste but everybody's"
    assert replace(alike, newcomer=1.0) == Blend(1.0, trend=0.3), "nothing else of the blend changes"


def test_the_same_by_the_trial_that_leaves_items_out() -> None:
    alike, sharp = (learn(world(taste), described(), CONFIG).blend.newcomer for taste in (1.0, 20.0))
    assert sharp < alike == max(newcomers.RIDGES)


def test_the_same_again_and_with_times() -> None:
    matrix = world(300.0)
    assert learned(matrix) == learned(matrix)
    times = np.arange(matrix.nnz) * trend.DAY // 100
    assert learned(matrix, times).newcomer in newcomers.RIDGES
    for items in (NOTHING, described()):
        assert learn(matrix, items, CONFIG, times).blend.newcomer in newcomers.RIDGES


def test_what_strangers_did_does_not_count() -> None:
    """Other strangers with other tastes: the fit without them is the same, but for what a trial keeps of them."""
    matrix, items = world(300.0), described()
    strangers = newcomers.chosen(matrix, 3)
    assert len(np.unique(strangers)) == len(strangers) == USERS // 5
    theirs = newcomers.entries(matrix, strangers)
    assert theirs.sum() == 12 * len(strangers)
    other = sparse.csr_array((matrix.data, matrix.indices.copy(), matrix.indptr), shape=matrix.shape)
    other.indices[theirs] = (other.indices[theirs] + 1) % ITEMS
    own = [newcomers.Unmet.of(one, strangers, items, CONFIG).folding for one in (matrix, other)]
    assert np.array_equal(own[0].item_factors, own[1].item_factors)
    kept = np.ones(matrix.nnz, bool)
    trials = [Trial.of(one, kept, items, CONFIG, Shape(0.0, 3.0)) for one in (matrix, other)]
    after = [
        newcomers.Unmet.after(trial, kept, one, strangers, CONFIG)
        for trial, one in zip(trials, (matrix, other), strict=True)
    ]
    for unmet in after:
        assert not (unmet.kept & theirs).any() and len(unmet.folding.user_factors) == USERS - len(strangers)

    def apart(first: np.ndarray, second: np.ndarray) -> float:
        """Of the lists of all items for all items: factors as such turn freely."""
        return float(np.linalg.norm(first @ first.T - second @ second.T) / np.linalg.norm(first @ first.T))

    with_them = apart(*(trial.model.item_factors for trial in trials))
    assert apart(*(unmet.folding.item_factors for unmet in after)) < 0.5 * with_them


def test_lists_are_judged_as_they_would_be_served() -> None:
    """One stranger, one ridge and one item at a time, by the row solves of requests."""
    matrix, items = world(20.0), described()
    strangers = newcomers.chosen(matrix, 0)
    kept = ~np.isin(matrix.indices, [1, 7])
    trial = Trial.of(matrix, kept, items, CONFIG, Shape(0.0, 3.0))
    unmet = newcomers.Unmet.after(trial, kept, matrix, strangers, CONFIG)
    by_history = ((1, Weights(1.0, 0.4)), (2**31 - 1, Weights(0.7, 0.2)))
    crowd = trend.column(unmet.folding.item_counts, items.features, 3.0)
    learned = Blend(1.0, by_history, trend=0.2)
    liked = [matrix[[user]].indices for user in strangers.tolist()]
    liked = [one[~np.isin(one, [1, 7])] for one in liked]
    clicks = [one[: 1 + place % 4] for place, one in enumerate(liked)]
    rest = [one[1 + place % 4 :] for place, one in enumerate(liked)]

    def rows(lists: list[np.ndarray]) -> sparse.csr_array:
        pairs = np.repeat(np.arange(len(lists)), [len(one) for one in lists]), np.concatenate(lists)
        return sparse.csr_array((np.ones(len(pairs[0]), np.float32), pairs), shape=(len(lists), ITEMS))

    found = np.concatenate(list(newcomers.judged(unmet, items.embeddings, learned, crowd, rows(clicks), rows(rest))))
    assert found.shape == (len(strangers), len(newcomers.RIDGES)) and len(np.unique(found)) > 50
    for j, ridge in enumerate(newcomers.RIDGES):
        folding = replace(unmet.folding, newcomer=ridge)
        for place, (mine, others) in enumerate(zip(clicks, rest, strict=True)):
            amounts = folding.balance.of_user(mine, np.ones(len(mine), np.float32))
            factor = folding.solver(True).solve(folding.item_factors[mine], amounts, folding.mean_user)
            text = unmet.scale * items.embeddings @ blend.unit(items.embeddings[mine].sum(axis=0))
            behaviour = folding.item_factors @ factor + learned.trend * folding.spread(factor[None])[0] * crowd
            weights = learned.weights(len(mine), typed=False)
            scores = weights.behaviour * behaviour + weights.text * text
            scores[[1, 7, *mine]] = -np.inf
            hits = np.isin(np.argsort(-scores)[:10], others)
            gain = 1 / np.log2(2 + np.arange(10))
            assert found[place, j] == pytest.approx(hits @ gain / gain[: len(others)].sum(), abs=0.02)


@pytest.mark.parametrize("users", [0, 1, 99])
def test_too_few_users_teach_nothing(users: int) -> None:
    """A fifth of 99 is 19; of users with a single item nobody can be asked."""
    matrix = sparse.csr_array(world(300.0)[:users] if users else np.eye(USERS, ITEMS, dtype=np.float32))
    assert not len(newcomers.chosen(matrix, 0))
    if users != 1:
        assert learn(matrix, NOTHING, CONFIG).blend.newcomer == 1.0
