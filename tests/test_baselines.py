"""Baselines: one contract for every Scorer, then small examples by hand."""

import numpy as np
import pytest
from scipy import sparse

from geo_mf.data.interactions import Interactions
from geo_mf.errors import InvalidInput
from geo_mf.evaluation.baselines import ContentKNN, Popularity, Random, Scorer, item_users, touched

# Item 3 is never touched, and user 3 has no history.
WEIGHTS = np.array([[1, 3, 0, 0], [1, 0, 0, 0], [0, 0, 5, 0], [0, 0, 0, 0]], np.float32)
TRAIN = Interactions.from_csr(sparse.csr_array(WEIGHTS))
# Item 2 has no text.
EMBEDDINGS = np.array([[1, 0], [0, 1], [0, 0], [0.6, -0.8]], np.float32)

SCORERS = [Popularity(TRAIN), ContentKNN(EMBEDDINGS, TRAIN), Random(4, seed=3)]
by_name = pytest.mark.parametrize("scorer", SCORERS, ids=lambda scorer: scorer.name)


@by_name
def test_contract_of_every_scorer(scorer: Scorer) -> None:
    assert isinstance(scorer, Scorer)
    users = np.array([3, 0, 2, 0], np.int32)
    scores = scorer.scores(users)
    assert scores.dtype == np.float32 and scores.shape == (4, 4)
    assert not np.isnan(scores).any() and not np.isposinf(scores).any()
    alone = np.concatenate([scorer.scores(users[j : j + 1]) for j in range(4)])
    np.testing.assert_allclose(scores, alone, rtol=1e-6)  # batch = single, in any order
    np.testing.assert_array_equal(scorer.scores(users), scores)
    assert scorer.scores(users[:0]).shape == (0, 4)


def test_popularity_counts_users_and_not_weights() -> None:
    np.testing.assert_array_equal(Popularity(TRAIN).scores(np.array([0, 3])), [[2, 1, 1, 0]] * 2)


def test_content_knn_by_hand() -> None:
    scores = ContentKNN(EMBEDDINGS, TRAIN).scores(np.arange(4))
    profile = np.array([1 / 4, 3 / 4])  # user 0: item 0 once, item 1 three times
    np.testing.assert_allclose(scores[0, [0, 1, 3]], EMBEDDINGS[[0, 1, 3]] @ profile, rtol=1e-6)
    np.testing.assert_allclose(scores[1, [0, 1, 3]], [1, 0, 0.6], rtol=1e-6)
    assert np.isneginf(scores[:, 2]).all()  # no text
    assert np.isneginf(scores[2:]).all()  # a history without text, and no history


def test_content_knn_leaves_its_inputs_as_they_were() -> None:
    embeddings = EMBEDDINGS.copy()
    ContentKNN(embeddings, TRAIN).scores(np.arange(4))
    np.testing.assert_array_equal(embeddings, EMBEDDINGS)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (EMBEDDINGS[:3], r"expected \(4, dim\)"),
        (EMBEDDINGS[0], r"expected \(4, dim\)"),
        (np.full((4, 2), np.nan, np.float32), "NaN"),
    ],
)
def test_content_knn_refuses_embeddings_that_do_not_fit(embeddings: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        ContentKNN(embeddings, TRAIN)


def test_random_depends_on_seed_and_user_and_is_uniform() -> None:
    scores = Random(5000, seed=1).scores(np.array([0, 1]))
    assert not np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores, Random(5000, seed=2).scores(np.array([0, 1])))
    assert (scores >= 0).all() and (scores < 1).all()
    np.testing.assert_allclose(scores.mean(axis=1), 0.5, atol=0.02)


def test_touched_keeps_a_pair_of_weight_0() -> None:
    met = Interactions.from_arrays(["a", "a", "b"], [1, 2, 2], [0.0, 2.0, 1.0])
    np.testing.assert_array_equal(touched(met).toarray(), [[1, 1], [0, 1]])
    np.testing.assert_array_equal(item_users(met), [1, 2])
