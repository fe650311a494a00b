"""Two spaces, one inner-product space, weights chosen at query time.

An item's vector is v_i = [h_i ; s t_i], its factor and its unit text embedding; a query is [a w ; b q]. One inner
product is then a <w, h_i> + b s <q, t_i>: behaviour and text, weighed by the query and not by the index. `s` makes the
two parts comparable: with a = b, both spread a user's items equally far apart. One more column is the trend: it adds
a c sigma_u z_i, what everybody touches lately, where c is learned and sigma_u is the spread of the user's own behaviour
scores: the little that two clicks say is not drowned by the crowd.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from scipy import sparse

from geo_mf.errors import InvalidInput

SAMPLED_USERS = 256
TEXT_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2)
HISTORY_EDGES = (2, 5, 10, 20, 50, 2**31 - 1)
POOLED_USERS = 1000
COLD_SCALES = (0.5, 0.7, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)


@dataclass(frozen=True)
class Weights:
    """How much behaviour and text count in a query.

    Attributes:
        behaviour: a, from 0 to 1e6.
        text: b, from 0 to 1e6; not both are 0.
    """

    behaviour: float
    text: float

    def __post_init__(self) -> None:
        found = (self.behaviour, self.text)
        if not all(0 <= weight <= 1e6 for weight in found) or max(found) == 0:
            raise InvalidInput(
                f"weights are {found}; expected (behaviour, text), two numbers from 0 to 1e6, not both 0: "
                "for example (1, 0.3)"
            )

    @classmethod
    def of(cls, given: Any) -> "Weights":
        """Weights from a pair (behaviour, text) of a caller; InvalidInput for anything else."""
        pair = list(given) if isinstance(given, Iterable) else []
        if len(pair) != 2 or not all(isinstance(weight, Real) for weight in pair):
            raise InvalidInput(f"weights is {given!r}; expected two numbers (behaviour, text), for example (1, 0.3)")
        return cls(float(pair[0]), float(pair[1]))


@dataclass(frozen=True)
class Blend:
    """The learned defaults.

    Attributes:
        scale: s, the factor on every text embedding in the index.
        by_history: pairs (longest history, weights), in rising order; the last one holds for all longer histories.
        with_text: weights when the caller typed a text and nothing else is known.
        cold_scale: factor on the prior of an item that nobody has touched. A regression shrinks what it predicts, so
            unscaled priors would stand below every factor that behaviour gave.
        trend: c, the weight of `trend.column` for somebody who typed no text.
        half_life: days after which an interaction counts half in the trend; None counts all alike.
        newcomer: times the ridge of the fit, where somebody is solved for who was not in it.
    """

    scale: float
    by_history: tuple[tuple[int, Weights], ...] = ((2**31 - 1, Weights(1.0, 0.5)),)
    with_text: Weights = Weights(0.5, 1.0)
    cold_scale: float = 1.0
    trend: float = 0.0
    half_life: float | None = None
    newcomer: float = 1.0

    def weights(self, history: int, typed: bool) -> Weights:
        """The default weights for a query with `history` items and, perhaps, a typed text.

        A text alone weighs as in `with_text`. Beside a history it is one thing among `history` + 1 that are known, and
        its weight against behaviour falls accordingly, down to what text weighs without it.
        """
        own = next((weights for longest, weights in self.by_history if history <= longest), self.by_history[-1][1])
        if not typed:
            return own
        if not history or not self.with_text.behaviour:
            return self.with_text
        alone = self.with_text.text / self.with_text.behaviour
        return Weights(own.behaviour, max(own.text, own.behaviour * alone / (1 + history)))


def text_scale(
    user_factors: np.ndarray, item_factors: np.ndarray, profiles: np.ndarray, embeddings: np.ndarray, seed: int = 0
) -> float:
    """s: the spread of behaviour scores over items, relative to that of text scores, for a sample of users.

    Args:
        user_factors: [users, K].
        item_factors: [items, K].
        profiles: [users, dim], each user's text query; zero rows are left out.
        embeddings: [items, dim].
        seed: of the sample.

    Returns:
        The ratio of the mean standard deviations; 1.0 when either side never varies.
    """
    useful = np.flatnonzero(np.any(profiles != 0, axis=1) & np.any(user_factors != 0, axis=1))
    if not len(useful):
        return 1.0
    chosen = np.random.default_rng(seed).choice(useful, min(SAMPLED_USERS, len(useful)), replace=False)
    behaviour = _spread(user_factors[chosen] @ item_factors.T)
    text = _spread(profiles[chosen] @ embeddings.T)
    return behaviour / text if behaviour > 0 and text > 0 else 1.0


def fitted_scale(
    user_factors: np.ndarray, item_factors: np.ndarray, matrix: sparse.csr_array, embeddings: np.ndarray, seed: int
) -> float:
    """`text_scale` of factors that were fitted to CSR [users, items], from a sample of the users."""
    users = np.sort(np.random.default_rng(seed).permutation(len(user_factors))[: 4 * SAMPLED_USERS])
    sampled = profiles(matrix[users], embeddings)
    return text_scale(user_factors[users], item_factors, sampled, embeddings, seed)


def _spread(scores: np.ndarray) -> float:
    """Mean standard deviation of the rows; 0 when they vary by no more than rounding."""
    deviation = float(np.std(scores, axis=1).mean())
    return deviation if deviation > 1e-5 * float(np.abs(scores).max()) else 0.0


@dataclass(frozen=True, eq=False)
class Spread:
    """sigma_u, the standard deviation of a user's behaviour scores over all items, without the scores.

    Attributes:
        covariance: float32 [K, K], of the item factors.
    """

    covariance: np.ndarray

    @classmethod
    def of(cls, item_factors: np.ndarray) -> "Spread":
        """Of item factors [items, K]."""
        mean = item_factors.mean(axis=0, dtype=np.float64)
        second = (item_factors.T @ item_factors).astype(np.float64) / max(1, len(item_factors))
        return cls((second - np.outer(mean, mean)).astype(np.float32))

    def __call__(self, user_factors: np.ndarray) -> np.ndarray:
        """float32 [n], for factors [n, K]."""
        variance = np.einsum("nk,nk->n", user_factors @ self.covariance, user_factors)
        return np.sqrt(np.maximum(variance, 0)).astype(np.float32)


def profiles(matrix: sparse.csr_array, embeddings: np.ndarray) -> np.ndarray:
    """Histories (CSR [users, items]) as text queries: the unit weighted mean of their embeddings, or zero."""
    return unit(matrix @ embeddings)


def unit(vectors: np.ndarray) -> np.ndarray:
    """[..., dim] at length 1; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-12)


def vectors(item_factors: np.ndarray, embeddings: np.ndarray, trend: np.ndarray, blend: Blend) -> np.ndarray:
    """The indexed rows, float32 [items, K + dim + 1]; `trend` is float32 [items], `trend.column`."""
    columns = [item_factors, np.float32(blend.scale) * embeddings, np.float32(blend.trend) * trend[:, None]]
    return np.concatenate(columns, axis=1).astype(np.float32, copy=False)


def queries(behaviour: np.ndarray, text: np.ndarray, weights: np.ndarray, trend: np.ndarray) -> np.ndarray:
    """Query rows, float32 [n, K + dim + 1].

    Args:
        behaviour: [n, K], factors; an absent part is zero.
        text: [n, dim], unit text queries; an absent part is zero.
        weights: [n, 2], (a, b) of each.
        trend: [n], sigma_u where the trend counts, else 0.
    """
    a, b = weights[:, :1], weights[:, 1:]
    return np.concatenate([a * behaviour, b * text, a * trend[:, None]], axis=1).astype(np.float32, copy=False)


def gains(scores: np.ndarray, held_out: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """How well scores rank an item that was held out of each user's history.

    Args:
        scores: float32 [users, items], by a model that has not seen the held-out items.
        held_out: int [users], the item held out.
        hidden: bool [users, items], what is not ranked: the rest of the history. The held-out item always is.

    Returns:
        float64 [users], 1 / log2(1 + rank): the NDCG of a whole list with one right answer.
    """
    target, shown = scores[np.arange(len(held_out)), held_out][:, None], ~hidden
    above, tied = _counts((scores > target) & shown), _counts((scores == target) & shown)
    tied -= shown[np.arange(len(held_out)), held_out]
    return 1 / np.log2(2 + above + 0.5 * tied)  # a tie counts half: a constant is worth the middle of the list


def _counts(marked: np.ndarray) -> np.ndarray:
    """int64 [n], how many are marked in each row of bool [n, m]; with axis=1 NumPy counts several times slower."""
    return np.fromiter(map(np.count_nonzero, marked), np.int64, len(marked))


def choose(found: np.ndarray, lengths: np.ndarray) -> tuple[tuple[int, Weights], ...]:
    """`Blend.by_history` from the gains of TEXT_WEIGHTS [weights, users] and the lengths [users] of the histories.

    Each group of lengths is pooled with POOLED_USERS users like the average one: few users are noise.
    """
    overall = found.mean(axis=1)
    learned, shortest = [], 0
    for longest in HISTORY_EDGES:
        group = (lengths >= shortest) & (lengths <= longest)
        pooled = found[:, group].sum(axis=1) + POOLED_USERS * overall
        learned.append((longest, Weights(1.0, TEXT_WEIGHTS[int(np.argmax(pooled))])))
        shortest = longest + 1
    return tuple(learned)
