"""How alike two items are: touched by the same people, worded alike, or both."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from geo_mf.errors import InvalidInput
from geo_mf.geometry import blend

Space = Literal["blend", "factors", "text"]

SHARES: dict[Space, tuple[float, float]] = {"blend": (0.5, 0.5), "factors": (1.0, 0.0), "text": (0.0, 1.0)}
"""How much the cosines of factors and of text count in a space."""


def check_space(space: Any) -> None:
    """InvalidInput unless it is the name of a space."""
    if space not in SHARES:
        raise InvalidInput(f"space is {space!r}; expected one of {', '.join(SHARES)}")


@dataclass(frozen=True, eq=False)
class Likeness:
    """Cosines between items, in each space.

    Attributes:
        item_factors: float32 [items, K].
        embeddings: float32 [items, dim], unit length or zero.
        mean: float32 [K], taken off first: it says how popular items are, not what they are.
    """

    item_factors: np.ndarray
    embeddings: np.ndarray
    mean: np.ndarray

    def to_all(self, row: int, space: Space) -> tuple[np.ndarray, np.ndarray]:
        """Both parts of every item's likeness to one, float32 [items] each; 0 where a part is not known."""
        a, b = SHARES[space]
        direction = self.item_factors[row] - self.mean
        along = self.item_factors @ direction - self.mean @ direction
        lengths = self._lengths * self._lengths[row]
        behaviour = a * np.divide(along, lengths, out=np.zeros_like(along), where=lengths > 1e-12)
        return behaviour, b * (self.embeddings @ self.embeddings[row])

    def directions(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, K + dim], whose cosine is the mean of both spaces' cosines."""
        factors = self.item_factors[rows]
        factors = np.where(factors.any(axis=1, keepdims=True), factors - self.mean, 0)
        return np.concatenate([blend.unit(factors), self.embeddings[rows]], axis=1)

    @cached_property
    def _lengths(self) -> np.ndarray:
        """float32 [items], of the item factors without their mean; 0 for an item without a factor."""
        return np.linalg.norm(self.item_factors - self.mean, axis=1) * self.item_factors.any(axis=1)
