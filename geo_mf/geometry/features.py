"""What is known of an item before anybody has touched it, as one row of numbers: its embedding, then its attributes.

An item without text stands at the mean embedding, and one without attributes at their mean: what is not said neither
helps nor harms. An item with neither is a zero row, which has no features.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Filling:
    """What stands for a part that is missing.

    Attributes:
        text: float32 [dim], the mean of the embeddings.
        attributes: float32 [dim_a], the mean of the attributes; empty when there are none.
    """

    text: np.ndarray
    attributes: np.ndarray

    @classmethod
    def of(cls, embeddings: np.ndarray, attributes: np.ndarray) -> "Filling":
        """From embeddings [items, dim] and attributes [items, dim_a]; a zero row is missing."""
        return cls(_mean(embeddings), _mean(attributes))

    def features(self, embeddings: np.ndarray, attributes: np.ndarray) -> np.ndarray:
        """Features float32 [n, dim + dim_a]; without attributes, the embeddings themselves."""
        if not attributes.shape[1]:
            return embeddings
        worded, described = embeddings.any(axis=1), attributes.any(axis=1)
        out = np.concatenate([embeddings, attributes], axis=1).astype(np.float32, copy=False)
        dim = embeddings.shape[1]
        out[described & ~worded, :dim] = self.text
        out[worded & ~described, dim:] = self.attributes
        return out


def _mean(rows: np.ndarray) -> np.ndarray:
    known = rows.any(axis=1)
    if not known.any():
        return np.zeros(rows.shape[1], np.float32)
    return rows[known].mean(axis=0, dtype=np.float64).astype(np.float32)
