"""What a compression would come to, and what it came to."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Compression", "Plan"]


@dataclass(frozen=True)
class Plan:
    """What a compression would come to.

    Attributes:
        encoder: name of the original.
        ratio: numbers that its linear layers may keep.
        parameters: numbers of the whole model, before and after.
        linear: numbers of its linear layers, before and after.
        layers: rank of each linear layer, None where it stays whole.
        tables: rank of each word table that is thinned.
        texts: different texts that it was measured on.
    """

    encoder: str
    ratio: float
    parameters: tuple[int, int]
    linear: tuple[int, int]
    layers: dict[str, int | None]
    tables: dict[str, int]
    texts: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        before, after = self.parameters
        thin = sum(rank is not None for rank in self.layers.values())
        return (
            f"{self.encoder}: {before:,} -> {after:,} parameters ({4 * before / 1e6:.0f} -> {4 * after / 1e6:.0f} MB), "
            f"in linear layers {self.linear[0]:,} -> {self.linear[1]:,} ({self.linear[1] / self.linear[0]:.3f}); "
            f"{thin} of {len(self.layers)} layers thinned"
        )


@dataclass(frozen=True)
class Compression:
    """What a compression came to.

    Attributes:
        out: the folder that was written.
        plan: its parameters and ranks.
        cosine: mean cosine to the original on texts held out, before distillation and after each epoch of it.
        seconds: of each step; those of a run that was interrupted are not counted.
    """

    out: Path
    plan: Plan
    cosine: tuple[float, ...]
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"out": str(self.out), **self.plan.to_dict(), "cosine": list(self.cosine), "seconds": self.seconds}

    def __str__(self) -> str:
        return (
            f"{self.plan}\ncosine to the original on texts held out: {self.cosine[0]:.4f} before distillation, "
            f"{max(self.cosine):.4f} after {len(self.cosine) - 1} epochs\nwrote {self.out}"
        )
