"""Another encoder in the place of the one that built an index: to ask it, never to write to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geo_mf.errors import IncompatibleIndex
from geo_mf.text.encoder import Kind, TextEncoder

__all__ = ["StandIn", "check_same"]


@dataclass(frozen=True)
class StandIn:
    """An encoder whose vectors somebody holds to be near enough to those of the encoder that built an index, such as
    the same one with smaller weights.

    Attributes:
        encoder: which encodes.
        stands_for: fingerprint of the one that built the index.
        original: the settings of that one, see `TextEncoder.spec`.
    """

    encoder: TextEncoder
    stands_for: str
    original: Mapping[str, Any]

    @property
    def dim(self) -> int:
        return self.encoder.dim

    @property
    def fingerprint(self) -> str:
        """Its own: nothing that it encodes is taken for the original's."""
        return self.encoder.fingerprint

    @property
    def name(self) -> str:
        return self.encoder.name

    def encode(self, texts: Sequence[str], *, kind: Kind = "document", show_progress: bool = False) -> np.ndarray:
        """As `TextEncoder.encode`."""
        return self.encoder.encode(texts, kind=kind, show_progress=show_progress)

    def spec(self) -> dict[str, Any]:
        """The original's: what is saved still names the encoder that built it."""
        return dict(self.original)


def check_same(encoder: TextEncoder, fingerprint: str) -> None:
    """IncompatibleIndex unless the encoder is the one of this fingerprint, which made an index's embeddings."""
    if encoder.fingerprint != fingerprint:
        raise IncompatibleIndex(
            f"this index was built by an encoder with fingerprint {fingerprint[:12]}, but {encoder.name} has "
            f"{encoder.fingerprint[:12]}: load the index with the encoder that built it, or build it again"
        )
