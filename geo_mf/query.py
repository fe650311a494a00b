"""What a request came to: the parts of the query vector, and where they came from."""

from dataclasses import dataclass

import numpy as np

from geo_mf.geometry import blend
from geo_mf.geometry.blend import Weights


@dataclass(frozen=True, eq=False)
class Query:
    """A request, ready to be searched with and explained.

    Attributes:
        rows: int [n], catalogue rows of the history.
        clicks: float32 [n], their weights; negative for what is disliked.
        typed: float32 [dim] or None, the unit embedding of the typed text.
        described: float32 [K] or None, the factor that text and attributes of the request predict.
        behaviour: float32 [K], the user's factor.
        text: float32 [dim], the typed text's embedding, else the history's profile; zero when there is neither.
        weights: a and b.
        trend: sigma_u where what everybody touches lately counts, 0 for somebody who typed a text.
        expected: float32 [K] or None, the factor that the row solve pulls a new user's to.
    """

    rows: np.ndarray
    clicks: np.ndarray
    typed: np.ndarray | None
    described: np.ndarray | None
    behaviour: np.ndarray
    text: np.ndarray
    weights: Weights
    trend: float
    expected: np.ndarray | None = None

    @property
    def vector(self) -> np.ndarray:
        """float32 [1, K + dim + 1], ready for the index."""
        weights = np.asarray([[self.weights.behaviour, self.weights.text]], np.float32)
        return blend.queries(self.behaviour[None], self.text[None], weights, np.full(1, self.trend, np.float32))
