"""Comparison: every figure of two spaces, printed as tables and sentences or handed on as plain values."""

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from geo_mf.comparison.figures import (
    Alignment,
    Disagreement,
    Estimate,
    Hubness,
    ItemName,
    Norms,
    Overlap,
    PairGroup,
    Similarity,
    Spectrum,
    WhoIsRight,
)
from geo_mf.comparison.findings import findings
from geo_mf.evaluation.report import LEVEL

__all__ = ["Comparison"]

Table = tuple[str, list[list[str]]]
SHOWN = 3
"""Items and pairs of each kind that are printed."""


@dataclass(frozen=True)
class Comparison:
    """Two spaces of the same items. Prints as findings and tables.

    The geometry compares directions: each row is brought to unit length first, and what length tells is in `norms`.

    Attributes:
        names: of the spaces.
        dims: their dimensions.
        items: how many were compared.
        left_out: items of which one space knows nothing: a row of zeros, or in an index an item that nobody touched.
            What was removed from an index is not counted.
        asked: items whose neighbours were looked for, among all: a seeded sample where there are many.
        seed: of every random choice.
        similarity: linear CKA.
        overlaps: of the k nearest neighbours, k rising.
        hubness: of each space.
        alignment: how well one fits on, or is read from, the other.
        spectra: of each space.
        norms: of each space; empty where interactions are not known.
        disagreement: the items and pairs on which they differ most.
        who_is_right: on held-out behaviour; None where none was given, or none could be used.
    """

    names: tuple[str, str]
    dims: tuple[int, int]
    items: int
    left_out: int
    asked: int
    seed: int
    similarity: Similarity
    overlaps: tuple[Overlap, ...]
    hubness: tuple[Hubness, Hubness]
    alignment: Alignment
    spectra: tuple[Spectrum, Spectrum]
    norms: tuple[Norms, ...]
    disagreement: Disagreement
    who_is_right: WhoIsRight | None

    @property
    def findings(self) -> tuple[str, ...]:
        """What the figures say, in sentences."""
        return findings(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON as far as the ids are. An infinite penalty is None."""
        return _plain({**asdict(self), "level": LEVEL, "findings": self.findings})

    def __str__(self) -> str:
        lines = [self._title(), "", *(f"- {finding}" for finding in self.findings)]
        for title, table in self._tables():
            widths = [max(map(len, column)) for column in zip(*table, strict=True)]
            lines += ["", title]
            for first, *rest in table:
                cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
                lines.append("  ".join(["", first.ljust(widths[0]), *cells]).rstrip())
        for title, names in self._lists():
            lines += ["", title, *(f"  {name}" for name in names)]
        return "\n".join([*lines, "", *self._notes()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self._title())}</p>{_points(self.findings)}{self.tables_html()}"

    def tables_html(self) -> str:
        """The tables, lists and notes as HTML, without the findings."""

        def cells(kind: str, row: list[str]) -> str:
            return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in row) + "</tr>"

        parts = []
        for title, (header, *body) in self._tables():
            rows = "".join(cells("td", row) for row in body)
            parts.append(f"<table><caption>{html.escape(title)}</caption>{cells('th', header)}{rows}</table>")
        parts += [f"<p>{html.escape(title)}</p>{_points(names)}" for title, names in self._lists()]
        return "".join([*parts, *(f"<p>{html.escape(note)}</p>" for note in self._notes())])

    def _title(self) -> str:
        first, second = (f"{name} ({dim} dimensions)" for name, dim in zip(self.names, self.dims, strict=True))
        left = f"; {self.left_out:,} left out, of which one space knows nothing" if self.left_out else ""
        return f"{first} and {second} of {self.items:,} items{left}"

    def _tables(self) -> Iterator[Table]:
        """Titles, and headers and rows as text."""
        a, b = self.names
        forth, back = self.alignment.readings
        yield (
            "alike",
            [
                ["measure", "value", "95 %"],
                ["CKA, debiased", f"{self.similarity.cka:.3f}", ""],
                [f"Procrustes residual, {self.alignment.held_out:,} items", *_two(self.alignment.residual)],
                *([f"R² of {one.target} read from {one.source}", *_two(one.r2)] for one in (forth, back)),
            ],
        )
        yield (
            f"shared nearest neighbours of {self.asked:,} items",
            [
                ["k", *(str(one.k) for one in self.overlaps)],
                ["shared", *(f"{one.share.value:.1%}" for one in self.overlaps)],
                ["chance", *(f"{one.chance:.1%}" for one in self.overlaps)],
            ],
        )
        shape = [
            ["measure", a, b],
            ["effective rank", *(f"{one.effective_rank:.1f}" for one in self.spectra)],
            ["participation ratio", *(f"{one.participation_ratio:.1f}" for one in self.spectra)],
            [f"skew of {self.hubness[0].k}-occurrence", *(f"{one.skew:.2f}" for one in self.hubness)],
            ["nobody's neighbour", *(f"{one.antihubs:.1%}" for one in self.hubness)],
        ]
        if self.norms:
            shape.append(["length and popularity, Spearman", *(_spearman(one) for one in self.norms)])
        yield "each space", shape
        if self.who_is_right is not None:
            yield self._found(self.who_is_right)

    def _found(self, right: WhoIsRight) -> Table:
        header = ["interactions", "pairs", "users", *self.names, "both", "difference", "95 %"]
        groups: list[PairGroup] = [*right.groups, right.overall]
        rows = [
            [
                "all" if group is right.overall else group.label,
                f"{group.pairs:,}",
                f"{group.users:,}",
                *(f"{one.value:.1%}" for one in (group.first, group.second, group.both)),
                f"{100 * group.difference.value:+.1f}",
                f"{100 * group.difference.low:+.1f} to {100 * group.difference.high:+.1f}",
            ]
            for group in groups
        ]
        return f"held-out pairs found among the {right.k} nearest of {right.items:,} items", [header, *rows]

    def _lists(self) -> Iterator[tuple[str, list[str]]]:
        found, (a, b) = self.disagreement, self.names
        if found.items:
            yield (
                "items with the most different neighbours",
                [
                    f"{one.item.short}: {a} say {_some(one.nearest[0])}; {b} say {_some(one.nearest[1])}"
                    for one in found.items[:SHOWN]
                ],
            )
        for near, far, pairs in ((a, b, found.near_in_first), (b, a, found.near_in_second)):
            if pairs:
                yield (
                    f"near by {near}, far by {far}",
                    [
                        f"{one.item.short} and {one.other.short}: {_rank(a, one.ranks[0])}, {_rank(b, one.ranks[1])}"
                        for one in pairs[:SHOWN]
                    ],
                )

    def _notes(self) -> list[str]:
        notes = []
        if self.asked < self.items:
            notes.append(
                f"Neighbours are those of a sample of {self.asked:,} items (seed {self.seed}), among all; skew, hubs "
                "and who is nobody's neighbour are those of this sample among itself."
            )
        if self.disagreement.least:
            notes.append(f"Items with fewer than {self.disagreement.least} interactions are not listed.")
        right = self.who_is_right
        if right is not None:
            notes.append("Intervals: 95 %, by bootstrap over users. Interactions: those of a pair's rarer item.")
            if right.dropped:
                notes.append(f"Too few pairs to judge: {', '.join(right.dropped)} interactions.")
            if right.left_out:
                notes.append(f"{right.left_out:,} held-out interactions are with items that are not compared.")
        return notes


def _points(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def _two(figure: Estimate) -> list[str]:
    return [f"{figure.value:.3f}", f"{figure.low:.3f} to {figure.high:.3f}"]


def _spearman(one: Norms) -> str:
    return f"{one.spearman:.2f}" if one.varies else "all of one length"


def _rank(name: str, rank: float) -> str:
    return f"{rank:,.0f} by {name}"


def _some(items: tuple[ItemName, ...]) -> str:
    return ", ".join(item.short for item in items)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
