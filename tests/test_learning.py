"""What a build decides from its data: the map to factors, the share of new items, the number of factors."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import geo_mf as gm
from geo_mf.builder import trending
from geo_mf.builder.learning import CURVED, expected_cold_share, learn
from geo_mf.builder.trial import Described
from geo_mf.errors import InvalidInput
from geo_mf.factorize.defaults import FEWEST_FACTORS, MOST_FACTORS, MOST_NUMBERS, factors_for
from geo_mf.geometry.predictor import Shape

QUICK = gm.BuildConfig.of(factors=4, iterations=4)


def tastes(kind: str, seed: int = 0) -> tuple[sparse.csr_array, Described]:
    """300 readers of 300 items with four features of either sign, of which the first two count: a reader likes the
    items of one sign of their product, or of the first of them alone."""
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], (300, 4))
    group = signs[:, 0] * signs[:, 1] if kind == "product" else signs[:, 0]
    rows, columns = [], []
    for user in range(300):
        liked = np.flatnonzero(group == (1 if user % 2 else -1))
        rows += [user] * 12
        columns += rng.choice(liked, 12, replace=False).tolist()
    features = (signs + 0.1 * rng.standard_normal(signs.shape)) / 2
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    matrix = sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(300, 300))
    return matrix, Described(features, features)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_map_is_curved_where_a_product_of_features_decides(seed: int) -> None:
    found = learn(*tastes("product", seed), QUICK)
    assert found.shape.gamma == CURVED
    assert found.shape.alpha > 0


def test_the_map_is_mostly_linear_where_nothing_speaks_for_another() -> None:
    # One standard error is passed by chance at times: in three of eight such worlds.
    found = [learn(*tastes("linear", seed), QUICK).shape for seed in range(4)]
    assert found.count(Shape(0.0, QUICK.prior_regularization)) >= 3


def test_the_map_is_linear_where_features_are_noise_or_missing() -> None:
    matrix, items = tastes("product")
    noise = items.features[np.random.default_rng(5).permutation(300)]
    none = np.zeros_like(noise)
    for features in (noise, none):
        assert learn(matrix, Described(features, features), QUICK).shape == Shape(0.0, QUICK.prior_regularization)


def test_attributes_alone_choose_a_map_too() -> None:
    matrix, items = tastes("product")
    found = learn(matrix, Described(np.zeros((300, 8), np.float32), items.features), QUICK)
    assert found.shape.gamma == CURVED


def test_no_item_with_features_may_remain_after_holding_out() -> None:
    # Ten items with features, each touched by one reader beside a popular item without; with this seed the item of
    # the first reader is played cold, and the other nine are what is held out of their readers.
    matrix = np.zeros((10, 13), np.float32)
    matrix[np.arange(10), np.arange(10)] = matrix[np.arange(10), 10 + np.arange(10) % 2] = matrix[0, 12] = 1
    features = np.eye(13, 10, dtype=np.float32)
    config = gm.BuildConfig.of(factors=2, iterations=1, seed=9064)
    found = learn(sparse.csr_array(matrix), Described(features, features), config)
    assert found.shape == Shape(0.0, config.prior_regularization)


# --- the share of cold items -------------------------------------------------------------------------------------


def history(*items: int) -> sparse.csr_array:
    """One reader for each interaction, in this order."""
    return sparse.csr_array((np.ones(len(items), np.float32), (np.arange(len(items)), np.asarray(items))))


# Moments lie at the seventh and the ninth of ten interactions, at times 6 and 8; the horizons end at 8 and 9.
TEN = np.arange(10)


@pytest.mark.parametrize(
    ("items", "wanted"),
    [
        ([0, 1, 2, 3, 0, 1, 2, 3, 0, 1], 0.0),
        ([0, 1, 2, 3, 0, 1, 2, 4, 5, 6], 1.0),
        ([0, 1, 2, 3, 0, 1, 2, 4, 0, 1], 0.25),  # one of two, then none of one
        ([0, 1, 2, 3, 0, 1, 2, 4, 4, 4], 0.5),  # both of two are new at the first moment, not at the second
        ([0, 1, 2, 3, 0, 1, 2, 3, 0, 4], 0.5),
    ],
)
def test_the_share_of_new_items_by_hand(items: list[int], wanted: float) -> None:
    matrix = history(*items)
    assert trending.cold_share(matrix, TEN) == pytest.approx(wanted)
    # The order in which interactions are stored does not matter, nor does when the clock began.
    turn = np.random.default_rng(0).permutation(10)
    assert trending.cold_share(history(*np.asarray(items)[turn]), 7 + 1000 * TEN[turn]) == pytest.approx(wanted)
    bounded = min(max(wanted, 0.05), 0.5)
    assert expected_cold_share(matrix, gm.BuildConfig(), TEN) == pytest.approx(bounded)


def test_without_a_past_nothing_is_known_of_the_share() -> None:
    matrix = history(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
    assert expected_cold_share(matrix, gm.BuildConfig(), None) == 0.5
    at_once = np.zeros(10, np.int64)
    assert trending.cold_share(matrix, at_once) is None
    assert expected_cold_share(matrix, gm.BuildConfig(), at_once) == 0.5


@given(share=st.floats(0, 1), dated=st.booleans())
def test_a_share_that_is_given_is_taken(share: float, dated: bool) -> None:
    config = gm.BuildConfig.of(cold_share=share)
    assert expected_cold_share(history(*range(10)), config, TEN if dated else None) == share


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "many"])
def test_a_share_is_a_share(share: Any) -> None:
    with pytest.raises(InvalidInput, match="cold_share is"):
        gm.BuildConfig.of(cold_share=share)


# --- the number of factors ---------------------------------------------------------------------------------------

sizes = st.integers(1, 10**8)


@given(users=sizes, items=sizes)
def test_the_number_of_factors_is_a_power_of_two_within_bounds_and_memory(users: int, items: int) -> None:
    found = factors_for(users, items)
    assert FEWEST_FACTORS <= found <= MOST_FACTORS
    assert found & (found - 1) == 0
    assert found == factors_for(items, users)
    assert found == FEWEST_FACTORS or found * (users + items) <= MOST_NUMBERS
    # Not one step less than it could be, and never more than about a tenth of the shorter side.
    tenth = min(users, items) / 10
    assert found == FEWEST_FACTORS or found <= tenth * 2**0.5 * (1 + 1e-9)
    if found < MOST_FACTORS and 2 * found * (users + items) <= MOST_NUMBERS:
        assert 2 * found >= tenth * 2**0.5 * (1 - 1e-9)


@given(users=st.integers(1, 30_000), items=st.integers(1, 30_000), more=st.integers(0, 30_000))
def test_more_data_have_no_fewer_factors_while_memory_allows(users: int, items: int, more: int) -> None:
    # 512 * (90,000 + 30,000) < 2^27: at these sizes memory never decides.
    assert factors_for(users, items) <= factors_for(users + more, items + more) <= MOST_FACTORS


@pytest.mark.parametrize(
    ("users", "items", "wanted"),
    [
        (1, 1, 128),
        (100, 10**9, 128),
        (1810, 10**4, 128),  # 181 is just below the geometric mean of 128 and 256
        (1811, 10**4, 256),
        (10**4, 3620, 256),
        (10**4, 3621, 512),
        (10**5, 10**5, 512),
        (131_072, 131_072, 512),  # 512 * 262,144 is 2^27: just what is allowed
        (131_073, 131_072, 256),
        (10**6, 10**4, 128),
        (10**9, 10**9, 128),
    ],
)
def test_the_number_of_factors_by_hand(users: int, items: int, wanted: int) -> None:
    assert factors_for(users, items) == wanted


# --- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", ["genres, year", "genres,year", " genres ,, year,", ("genres", "year"), ["genres", "year"]]
)
def test_columns_may_be_named_in_a_string(given: Any) -> None:
    assert gm.BuildConfig.of(attributes=given) == gm.BuildConfig(attributes=("genres", "year"))


def test_no_columns() -> None:
    for none in ("", " , ", (), []):
        assert gm.BuildConfig.of(attributes=none) == gm.BuildConfig()
    with pytest.raises(InvalidInput, match=r"attributes\.0 is 3"):
        gm.BuildConfig.of(attributes=[3])
    with pytest.raises(InvalidInput, match="attributes is 3"):
        gm.BuildConfig.of(attributes=3)
