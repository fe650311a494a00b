"""How firmly a build holds newcomers: learned of users who were left out."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

import geo_mf as gm
from geo_mf.builder import newcomers
from geo_mf.builder.trial import Described
from geo_mf.geometry.blend import Blend

USERS, ITEMS = 400, 60
CONFIG = gm.BuildConfig(factors=8, encoder="hash")


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


def learned(matrix: sparse.csr_array, datetimes: np.ndarray | None = None) -> Blend:
    nothing = Described(np.zeros((ITEMS, 1), np.float32), np.zeros((ITEMS, 1), np.float32))
    return newcomers.learn(matrix, datetimes, nothing, CONFIG, Blend(1.0, trend=0.3))


def test_the_less_clicks_tell_the_firmer_newcomers_are_held() -> None:
    alike, sharp = learned(world(1.0)), learned(world(300.0))
    assert alike.newcomer == max(newcomers.RIDGES), "there is no taste but everybody's"
    assert sharp.newcomer < alike.newcomer
    assert replace(alike, newcomer=1.0) == Blend(1.0, trend=0.3), "nothing else of the blend changes"


def test_the_same_again_and_with_times() -> None:
    matrix = world(300.0)
    assert learned(matrix) == learned(matrix)
    assert learned(matrix, np.arange(matrix.nnz)).newcomer in newcomers.RIDGES


@pytest.mark.parametrize("users", [0, 1, 199])
def test_too_few_users_teach_nothing(users: int) -> None:
    """A tenth of 199 is 19; of users with a single item nobody can be asked."""
    matrix = world(300.0)[:users] if users else sparse.csr_array(np.eye(USERS, ITEMS, dtype=np.float32))
    assert learned(sparse.csr_array(matrix)).newcomer == 1.0
