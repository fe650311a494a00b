"""What one query costs under a filter, counted and not timed, so that equal builds decide alike.

The unit is a nanosecond of the machine where the constants were measured: one core, Faiss 1.15 with AVX-512, single
queries over 50,000 and 200,000 rows of 128 and 320, IVF with half a byte for two numbers or for four and with a byte a
number, filters from .5 to .005, the fastest fifth of 30 each. Another machine is faster or slower; what counts is
where two costs meet.
"""

from dataclasses import dataclass

from geo_mf.index.approximate import ApproximateIndex, Effort

__all__ = ["Cost"]

CHOSEN = 0.25
"""A number of an allowed row, read where it lies: 33 ns a row of 128 and 70 of 320, once they do not fit the cache."""

CENTRE = 0.4
"""A number of a cell's centre."""

VISITED, CODE = 15.0, 0.06
"""A row of a cell that is visited, and each byte of its code: 19 ns with 34 bytes, 28 with 82."""

ASKED = 60_000.0
"""A query, whatever it looks at."""

LINKS = 64
"""Rows that a graph looks at for each one it keeps in sight."""


@dataclass(frozen=True)
class Cost:
    """What there is to be looked at in an index.

    Attributes:
        rows: how many there are.
        dim: numbers of a row.
        width: numbers of a lifted row, and of a cell's centre.
        cells: 0 for an index without.
        code: bytes that a row takes in the index.
        effort: how hard it looks.
        graph: an index without cells that walks along links, and does not look at all of its codes.
    """

    rows: int
    dim: int
    width: int
    cells: int
    code: float
    effort: Effort
    graph: bool = False

    @classmethod
    def of(cls, index: ApproximateIndex, graph: bool = False) -> "Cost":
        """Of an index that has a row."""
        code, width = index.bytes_in_memory / index.size, index.lift.width(index.dim)
        return cls(index.size, index.dim, width, index.cells, code, index.effort, graph and not index.cells)

    def exact(self, share: float) -> float:
        """Nanoseconds to score the rows that a filter allows, a `share` of all."""
        return share * self.rows * self.dim * CHOSEN

    def search(self, share: float) -> float:
        """Nanoseconds of a search that leaves out all others: it looks further, the fewer rows are allowed."""
        probes = self.effort.probes / share
        scored = self.effort.candidates(10) * self.dim * CHOSEN
        if self.graph:
            return ASKED + min(self.rows, LINKS * probes) * self.width * CHOSEN + scored
        part = min(1.0, probes / self.cells) if self.cells else 1.0
        visited = part * self.rows * (VISITED + CODE * self.code)
        return ASKED + self.cells * self.width * CENTRE + visited + scored
