"""Maximal marginal relevance: the best item that is not like those before it.

Source: Carbonell and Goldstein 1998, *The use of MMR, diversity-based reranking*, SIGIR.
"""

from dataclasses import dataclass

import numpy as np

from geo_mf.errors import InvalidInput
from geo_mf.geometry.blend import unit
from geo_mf.rerank.pool import Pool, Reranked, check_pool, normalised, with_others


@dataclass(frozen=True)
class MMR:
    """Diversity within a list, by maximal marginal relevance.

    Each place goes to the candidate with the largest (1 - diversity) * relevance - diversity * similarity. Relevance
    is the score, brought to 0..1 in the pool. Similarity is the largest cosine to an item chosen before, by what the
    recommender calls alike: the mean of the cosines in both spaces, as in `similar_items`. (The scores' own vectors
    would not do: their largest part is how popular an item is.) An item that is known in one space only counts by that;
    one of which nothing is known counts as like all others, for nothing says that it is not.

    Attributes:
        diversity: 0 changes nothing; 1 takes what is least like the rest, be it relevant or not.
        pool: how many candidates to choose from; None leaves it open. The more there are, the more there is to gain in
            diversity, and the further down in relevance it may come from.

    Raises:
        InvalidInput: diversity is not from 0 to 1, or pool < 1.
    """

    diversity: float = 0.3
    pool: int | None = None

    def __post_init__(self) -> None:
        _check(self.diversity)
        check_pool(self.pool)

    def __call__(self, pool: Pool, k: int, /) -> Reranked:
        """All of the pool: k chosen ones, then the others as they were."""
        if self.diversity == 0 or len(pool) == 0:
            return Reranked(np.arange(len(pool)))
        first = mmr(pool.scores[None], pool.vectors[None], k, self.diversity)[0]
        return Reranked(with_others(first, len(pool)))


def mmr(scores: np.ndarray, vectors: np.ndarray, k: int, diversity: float) -> np.ndarray:
    """Maximal marginal relevance for q pools at once: no loop over queries or candidates, min(k, n) steps of O(q n d).

    Args:
        scores: [q, n]; -inf where a pool has no candidate any more.
        vectors: [q, n, d], of any lengths: cosines count. A zero vector, of which nothing is known, is like all others.
        k: how many to choose.
        diversity: from 0 to 1; at 0 the order is by score.

    Returns:
        int64 [q, min(k, n)], places in each pool, of equal values the first; -1 where nothing was left.

    Raises:
        InvalidInput: diversity is not from 0 to 1, or the shapes do not fit.
    """
    _check(diversity)
    if scores.ndim != 2 or vectors.ndim != 3 or vectors.shape[:2] != scores.shape:
        raise InvalidInput(
            f"scores are {list(scores.shape)} and vectors {list(vectors.shape)}; expected [q, n] and [q, n, d]"
        )
    steps, lines = min(k, scores.shape[1]), np.arange(len(scores))
    order = np.full((len(scores), steps), -1, np.int64)
    gone = np.isneginf(scores)  # and stays so at a diversity of 1, where no score counts
    relevance = np.where(gone, -np.inf, (1 - diversity) * np.where(gone, 0, normalised(scores)))
    directions = unit(vectors)
    closest = np.where(directions.any(axis=2), -np.inf, 1.0)
    for step in range(steps):
        value = relevance - diversity * closest if step and diversity else relevance
        best = np.argmax(value, axis=1)
        order[:, step] = np.where(np.isneginf(value[lines, best]), -1, best)
        relevance[lines, best] = -np.inf
        if diversity and step + 1 < steps:
            chosen = directions[lines, best][:, :, None]
            np.maximum(closest, (directions @ chosen)[:, :, 0], out=closest)
    return order


def _check(diversity: float) -> None:
    if isinstance(diversity, bool) or not isinstance(diversity, int | float | np.number) or not 0 <= diversity <= 1:
        raise InvalidInput(f"diversity is {diversity!r}; expected a number from 0 (by score) to 1, such as 0.3")
