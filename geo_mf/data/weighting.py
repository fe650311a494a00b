"""What an interaction's weight means: the weight that a fit sees, and the way back to what was given."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["Meaning", "Weighting"]

Meaning = Literal["log", "linear", "uniform"]
"""log(1 + weight), the weight itself, or nothing."""


@dataclass(frozen=True)
class Weighting:
    """The scale of the weights of one fit. Weights that come later are brought to the same scale.

    Attributes:
        meaning: what a weight means.
        mean: of log(1 + weight), or of the weights, by which the fit's were divided; 1 for "uniform".
    """

    meaning: Meaning
    mean: float

    @classmethod
    def of(cls, given: np.ndarray, meaning: Meaning) -> "Weighting":
        """The scale that brings positive weights float32 [n] to a mean of 1."""
        if meaning == "uniform":
            return cls(meaning, 1.0)
        return cls(meaning, float((np.log1p(given) if meaning == "log" else given).mean(dtype=np.float64)))

    def scaled(self, given: np.ndarray) -> np.ndarray:
        """float32 [n], what a fit sees of the weights that were given."""
        if self.meaning == "uniform":
            return np.ones(len(given), np.float32)
        weights = np.log1p(given) if self.meaning == "log" else given
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, which a solve refuses
            return (weights / np.float64(self.mean)).astype(np.float32)

    def given(self, scaled: np.ndarray) -> np.ndarray:
        """float64 [n], what was given, from what a fit saw; of "uniform" weights, ones."""
        if self.meaning == "uniform":
            return np.ones(len(scaled))
        weights = scaled.astype(np.float64) * self.mean
        return np.expm1(weights) if self.meaning == "log" else weights
