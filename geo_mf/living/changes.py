"""What a write did, printed as one line."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from geo_mf.data.interactions import ReadReport


@dataclass(frozen=True, repr=False)
class ItemChanges:
    """What became of a catalogue.

    Attributes:
        added: ids of items that were not in any answer before; they may be from now on.
        updated: ids of items with other columns or another text.
        removed: ids of items that are in no answer any more.
        encoded: how many texts were read by the encoder.
        seconds: of "encode" and of all the "rest".
    """

    added: tuple[Any, ...] = ()
    updated: tuple[Any, ...] = ()
    removed: tuple[Any, ...] = ()
    encoded: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        found = {"added": self.added, "updated": self.updated, "removed": self.removed}
        parts = [f"{_counted(len(ids), 'item')} {verb}" for verb, ids in found.items() if ids]
        parts += [f"{_counted(self.encoded, 'text')} encoded"] if self.encoded else []
        return f"ItemChanges({', '.join(parts) or 'nothing changed'}{_spent(self.seconds)})"


@dataclass(frozen=True, repr=False)
class UserChanges:
    """What became of histories and factors.

    Attributes:
        new_users: ids of users who were not known before.
        users: how many users' factors were solved again, the new ones among them.
        items: how many items' factors were solved again.
        interactions: how many pairs of a user and an item were given and taken.
        unlisted: how many were left out because the catalogue does not list their item.
        read: the account of the reading.
        seconds: of "all".
    """

    new_users: tuple[Any, ...]
    users: int
    items: int
    interactions: int
    unlisted: int
    read: ReadReport
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        parts = [
            f"{_counted(self.interactions, 'interaction')} of {_counted(self.users, 'user')}, {len(self.new_users):,} "
            f"of them new, with {_counted(self.items, 'item')}"
        ]
        parts += [f"{self.unlisted:,} with items that the catalogue does not list left out"] if self.unlisted else []
        parts += [self.read.summary()] if self.read.rejected_total else []
        return f"UserChanges({'; '.join(parts)}{_spent(self.seconds)})"


@dataclass(frozen=True, repr=False)
class RefitReport:
    """How far a refit moved the space.

    Attributes:
        iterations: epochs.
        churn: mean share of an item's 10 nearest items by factors that are others now.
        quantiles: that share at the 10th, 50th and 90th per cent of the sampled items.
        sampled: how many items were looked at.
        residual: |H' - H| / |H|, old and new item factors, after the new ones were turned to lie on the old ones.
        seconds: of "fit" and of all the "rest".
    """

    iterations: int
    churn: float
    quantiles: tuple[float, float, float]
    sampled: int
    residual: float
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        low, middle, high = self.quantiles
        return (
            f"RefitReport({_counted(self.iterations, 'epoch')}; of the 10 nearest items {self.churn:.1%} are others "
            f"(10th, 50th, 90th per cent of {_counted(self.sampled, 'item')}: {low:.0%}, {middle:.0%}, {high:.0%}); "
            f"factors moved by {self.residual:.1%}{_spent(self.seconds)})"
        )


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _spent(seconds: Mapping[str, float]) -> str:
    if not seconds:
        return ""
    parts = ", ".join(f"{name} {spent:.2f} s" for name, spent in seconds.items() if name not in ("all", "rest"))
    return f"; {sum(seconds.values()):.2f} s" + (f", of that {parts}" if parts else "")
