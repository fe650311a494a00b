"""What a request came to: the parts of the query vector, and where they came from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geo_mf.factorize.balance import Balance
from geo_mf.factorize.fold_in import FoldIn
from geo_mf.geometry import blend
from geo_mf.geometry.blend import Weights
from geo_mf.recommendations import Because

DISLIKED = 0.0
"""The score that a disliked item ought to have; 1 is that of a click."""


@dataclass(frozen=True, eq=False)
class System:
    """What a user's row is solved for.

    Attributes:
        factors: float32 [m, K], of the history and, last, of what the request described, if anything.
        weights: float32 [m], balanced.
        wanted: float64 [m], the score that each should have.
    """

    factors: np.ndarray
    weights: np.ndarray
    wanted: np.ndarray

    @classmethod
    def of(
        cls,
        rows: np.ndarray,
        clicks: np.ndarray,
        factors: np.ndarray,
        described: np.ndarray | None,
        balance: Balance,
    ) -> "System":
        """The history, rows, clicks and factors [n, K], and as one ordinary click more what was described, [K]."""
        amounts, wanted = np.abs(clicks), np.where(clicks > 0, 1.0, DISLIKED)
        if described is not None:
            factors = np.concatenate([factors, described[None]])
            amounts, wanted = np.append(amounts, np.float32(1)), np.append(wanted, 1.0)
        return cls(factors, balance.of_user(rows, amounts), wanted)


@dataclass(frozen=True, eq=False)
class Found:
    """Items to be explained, m of them.

    Attributes:
        factors: float32 [m, K].
        embeddings: float32 [m, dim].
        trend: float64 [m], what the trend adds to the behaviour score.
    """

    factors: np.ndarray
    embeddings: np.ndarray
    trend: np.ndarray


@dataclass(frozen=True, eq=False)
class Query:
    """A request, ready to be searched with and explained.

    Attributes:
        rows: int [n], catalogue rows of the history.
        clicks: float32 [n], their weights; negative for what is disliked.
        typed: float32 [dim] or None, the unit embedding of the typed text.
        system: what the factor was solved for.
        behaviour: float32 [K], the user's factor.
        text: float32 [dim], the typed text's embedding, else the history's profile; zero when there is neither.
        weights: a and b.
        trend: sigma_u where what everybody touches lately counts, 0 for somebody who typed a text.
        expected: float32 [K] or None, the factor that the row solve pulls to.
        told: whether that is what is known of this user, and not the mean user.
        new: whether the row solve is a newcomer's.
    """

    rows: np.ndarray
    clicks: np.ndarray
    typed: np.ndarray | None
    system: System
    behaviour: np.ndarray
    text: np.ndarray
    weights: Weights
    trend: float
    expected: np.ndarray | None = None
    told: bool = False
    new: bool = False

    @property
    def vector(self) -> np.ndarray:
        """float32 [1, K + dim + 1], ready for the index."""
        weights = np.asarray([[self.weights.behaviour, self.weights.text]], np.float32)
        return blend.queries(self.behaviour[None], self.text[None], weights, np.full(1, self.trend, np.float32))

    @property
    def described(self) -> bool:
        """Whether there is a text or are attributes beside the history."""
        return len(self.system.factors) > len(self.rows)

    def shares(self, fold_in: FoldIn, found: Found, history: np.ndarray, scale: float) -> np.ndarray:
        """What each item of the history, the description, what is known of the user and last the crowd (the trend, and
        the mean user that a new one begins as) added to each score.

        Args:
            fold_in: the row solves.
            found: the items.
            history: float32 [n, dim], the history's embeddings.
            scale: of the text part.

        Returns:
            float64 [n + described + told + 1, m]; a column sums to the score.
        """
        targets = found.embeddings.astype(np.float64)
        parts = np.zeros((len(self.rows) + self.described, len(targets)))
        if self.typed is not None:
            parts[-1] = targets @ self.typed
        else:
            own = self.clicks.astype(np.float64)[:, None] * history
            length = float(np.linalg.norm(own.sum(axis=0)))
            parts[: len(own)] = own @ targets.T / (length if length > 1e-12 else np.inf)
        each = fold_in.contributions(self.system.factors, self.system.weights, found.factors)
        behaviour = self.system.wanted[:, None] * each
        begun = np.zeros(len(targets))
        if self.expected is not None:
            begun = found.factors @ self.behaviour - behaviour.sum(axis=0)
        others = [begun, found.trend] if self.told else [begun + found.trend]
        a, b = self.weights.behaviour, self.weights.text * scale
        return np.vstack([a * behaviour + b * parts, *(a * other for other in others)])

    def because(
        self, shares: np.ndarray, history: Sequence[tuple[Any, str]], reasons: int | None
    ) -> list[tuple[Because, ...]]:
        """For each of m items, what added most to its score; without a number, everything that is in it.

        Args:
            shares: float64 [n + described + told + 1, m], as `shares` gives them.
            history: n pairs (id, title).
            reasons: how many at most, each of them positive; None for all, the negative ones too.
        """
        names = list(history)
        names += [(None, "what you typed" if self.typed is not None else "the attributes you named")] * self.described
        names += [(None, "what is known of you")] * self.told
        names.append((None, "popular lately" if self.expected is None or self.told else "popular"))
        best = np.argsort(-shares, axis=0, kind="stable")[:reasons]
        return [
            tuple(
                Because(*names[j], share=float(shares[j, place]))
                for j in best[:, place]
                if shares[j, place] > 0 or reasons is None
            )
            for place in range(shares.shape[1])
        ]
