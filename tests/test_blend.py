"""The blend: one inner product is behaviour plus text, and the default weights are those that rank best."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from geo_mf.errors import InvalidInput
from geo_mf.geometry import blend
from geo_mf.geometry.blend import HISTORY_EDGES, TEXT_WEIGHTS, Blend, Weights


def test_one_inner_product_is_behaviour_plus_text_plus_trend() -> None:
    rng = np.random.default_rng(0)
    factors, embeddings, crowd = rng.standard_normal((7, 3)), rng.standard_normal((7, 5)), rng.standard_normal(7)
    users, texts = rng.standard_normal((4, 3)), rng.standard_normal((4, 5))
    weights, asked = np.asarray([[2, 0.5], [1, 0], [0, 1], [3, 2]]), np.asarray([1, 1, 1, 0])
    vectors = blend.vectors(factors, embeddings, crowd, Blend(0.4, trend=0.3))
    queries = blend.queries(users, texts, weights, asked)
    assert vectors.dtype == queries.dtype == np.float32
    a, b = weights[:, :1], weights[:, 1:]
    behaviour = users @ factors.T + asked[:, None] * 0.3 * crowd
    assert queries @ vectors.T == pytest.approx(a * behaviour + b * 0.4 * texts @ embeddings.T, abs=1e-5)


@pytest.mark.parametrize("bad", [(0, 0), (-1, 1), (1, -0.1), (np.nan, 1), (1, np.inf), (1e7, 0)])
def test_weights_that_weigh_nothing_or_too_much(bad: tuple[float, float]) -> None:
    with pytest.raises(InvalidInput, match=r"expected \(behaviour, text\), two numbers from 0 to 1e6, not both 0"):
        Weights.of(bad)


@pytest.mark.parametrize("bad", [1, "12", (1,), (1, 2, 3), (1, None), {"a": 1, "b": 2}, (1, "2")])
def test_weights_that_are_no_pair(bad: Any) -> None:
    with pytest.raises(InvalidInput, match=r"expected two numbers \(behaviour, text\)"):
        Weights.of(bad)


def test_the_weights_follow_the_length_of_the_history() -> None:
    short, long, typed = Weights(1, 2), Weights(1, 0), Weights(3, 4)
    learned = Blend(1.0, ((2, short), (10, long)), typed)
    assert [learned.weights(n, typed=False) for n in (0, 2, 3, 10, 11, 10**6)] == [short, short, long, long, long, long]
    assert learned.weights(0, typed=True) == typed
    # Beside n clicks a sentence says the n + 1st part of what it says alone, and no less than text does without it.
    assert learned.weights(1, typed=True) == short
    assert learned.weights(3, typed=True).text == pytest.approx(4 / 3 / 4)
    assert Blend(1.0, ((10, long),), Weights(0, 1)).weights(5, typed=True) == Weights(0, 1)


def test_a_profile_is_the_unit_weighted_mean_or_nothing() -> None:
    embeddings = np.asarray([[1, 0], [0, 1], [-1, 0], [0, 0]], np.float32)
    histories = sparse.csr_array(np.asarray([[3, 4, 0, 0], [1, 0, 1, 0], [0, 0, 0, 5], [0, 0, 0, 0]], np.float32))
    assert blend.profiles(histories, embeddings) == pytest.approx(np.asarray([[0.6, 0.8], [0, 0], [0, 0], [0, 0]]))


# --- scale -------------------------------------------------------------------------------------------------------


def test_the_scale_makes_text_spread_like_behaviour() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.standard_normal((50, 4)), rng.standard_normal((30, 4))
    texts, embeddings = rng.standard_normal((50, 6)), rng.standard_normal((30, 6))
    scale = blend.text_scale(users, items, texts, embeddings)
    assert np.std(users @ items.T, axis=1).mean() == pytest.approx(np.std(scale * texts @ embeddings.T, axis=1).mean())
    assert blend.text_scale(3 * users, items, texts, embeddings) == pytest.approx(3 * scale)
    assert blend.text_scale(users, items, texts, 2 * embeddings) == pytest.approx(scale / 2)


def test_users_without_text_or_behaviour_do_not_count() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.standard_normal((6, 4)), rng.standard_normal((9, 4))
    texts, embeddings = rng.standard_normal((6, 5)), rng.standard_normal((9, 5))
    users[1], texts[4] = 0, 0
    both = [0, 2, 3, 5]
    wanted = blend.text_scale(users[both], items, texts[both], embeddings)
    assert blend.text_scale(users, items, texts, embeddings) == pytest.approx(wanted)


def test_a_side_that_never_varies_has_scale_one() -> None:
    some, none = np.ones((2, 2)), np.zeros((2, 2))
    varied = np.eye(2)
    assert blend.text_scale(none, varied, some, varied) == 1
    assert blend.text_scale(some, varied, none, varied) == 1
    assert blend.text_scale(some, some, some, varied) == 1
    assert blend.text_scale(some, varied, some, none) == 1
    # The same text everywhere: what differs is rounding, and rounding is not to be blown up.
    same = np.full((40, 64), 1 / 8) + np.random.default_rng(0).uniform(-1e-8, 1e-8, (40, 64))
    assert blend.text_scale(np.eye(40, 4), np.eye(40, 4), same, same) == 1


# --- learning ----------------------------------------------------------------------------------------------------


def test_gains_by_hand() -> None:
    scores = np.asarray([[3, 2, 1, 0], [3, 2, 1, 0], [5, 5, 5, 5], [1, 1, 0, 9]], np.float32)
    hidden = np.zeros((4, 4), bool)
    hidden[1, 0] = hidden[3, 3] = True
    found = blend.gains(scores, np.asarray([1, 1, 0, 0]), hidden)
    # ranks: second; first, for the better one is hidden; the middle of 1..4; the middle of 1..2
    assert found == pytest.approx([1 / np.log2(3), 1, 1 / np.log2(3.5), 1 / np.log2(2.5)])


@given(seed=st.integers(0, 2**32 - 1))
def test_gains_are_those_of_the_mean_rank(seed: int) -> None:
    rng = np.random.default_rng(seed)
    users, items = rng.integers(1, 6), rng.integers(1, 12)
    scores = rng.integers(0, 4, (users, items)).astype(np.float32)
    held_out = rng.integers(0, items, users)
    hidden = rng.random((users, items)) < 0.3
    found = blend.gains(scores, held_out, hidden)
    for user in range(users):
        rivals = [scores[user, i] for i in range(items) if i != held_out[user] and not hidden[user, i]]
        own = scores[user, held_out[user]]
        rank = 1 + sum(rival > own for rival in rivals) + 0.5 * sum(rival == own for rival in rivals)
        assert found[user] == pytest.approx(1 / np.log2(1 + rank))


def planted(best: np.ndarray) -> np.ndarray:
    """Gains [weights, users] of users of whom each is served best by one of TEXT_WEIGHTS."""
    return 1.0 * (np.arange(len(TEXT_WEIGHTS))[:, None] == best)


def test_each_length_of_history_gets_the_weight_that_serves_it_best() -> None:
    lengths = np.repeat([1, 4, 8, 15, 40, 1000], 5000)
    best = np.repeat([6, 5, 4, 3, 2, 0], 5000)
    learned = blend.choose(planted(best), lengths)
    assert [edge for edge, _ in learned] == list(HISTORY_EDGES)
    assert [weights.text for _, weights in learned] == [TEXT_WEIGHTS[j] for j in (6, 5, 4, 3, 2, 0)]
    assert {weights.behaviour for _, weights in learned} == {1.0}


def test_a_few_users_do_not_outvote_all_the_others() -> None:
    lengths = np.r_[np.full(10, 1), np.full(20_000, 30)]
    best = np.r_[np.full(10, 6), np.full(20_000, 1)]
    learned = Blend(1.0, blend.choose(planted(best), lengths))
    assert learned.weights(1, typed=False).text == TEXT_WEIGHTS[1]


def test_lengths_that_nobody_has_take_what_serves_all() -> None:
    lengths = np.full(50, 30)
    learned = Blend(1.0, blend.choose(planted(np.full(50, 2)), lengths))
    assert {learned.weights(n, typed=False).text for n in (0, 3, 30, 10**6)} == {TEXT_WEIGHTS[2]}


def test_the_spread_is_that_of_the_scores() -> None:
    rng = np.random.default_rng(0)
    items, users = (
        (rng.standard_normal((300, 5)) + 2).astype(np.float32),
        rng.standard_normal((7, 5)).astype(np.float32),
    )
    users[3] = 0
    found = blend.Spread.of(items)(users)
    assert found == pytest.approx((users @ items.T).std(axis=1), rel=1e-3, abs=1e-6)
    assert found[3] == 0
