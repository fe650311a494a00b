"""EvaluationReport: every figure of one evaluation, printed as tables or handed on as plain values."""

import html
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from geo_mf.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LEVEL", "EvaluationReport", "ReportRow"]

LEVEL = 0.95
"""How much of the bootstrap distribution an interval holds."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class ReportRow:
    """One figure: `metric`@`k` of one scorer on one list, its mean over `n_users` users and its 95 % interval.

    low, high: bootstrap over users; None for a metric of all lists together (coverage, novelty, gini).
    """

    scorer: str
    list: str
    k: int
    metric: str
    value: float
    low: float | None
    high: float | None
    n_users: int


@dataclass(frozen=True)
class EvaluationReport:
    """Every figure of one evaluation. Prints as tables, one for each list and k.

    skipped: the lists in which no test user had a relevant item, and which therefore hold no figures.
    """

    split: str
    seed: int
    rows: tuple[ReportRow, ...]
    skipped: tuple[str, ...] = ()

    def row(self, scorer: str, metric: str, list_name: str = "overall", k: int | None = None) -> ReportRow:
        """One figure. k may be left out when only one was evaluated. Raises InvalidInput when there is no such row."""
        for row in self._of(metric, list_name, k):
            if row.scorer == scorer:
                return row
        known = sorted({row.scorer for row in self.rows})
        raise InvalidInput(f"no scorer is called {scorer!r}; this report has {', '.join(known)}")

    def best(self, metric: str, list_name: str = "overall", k: int | None = None) -> ReportRow:
        """The row of the scorer with the best value (the smallest for gini); the first in the table on a tie."""
        sign = -1 if metric == "gini" else 1
        return max(self._of(metric, list_name, k), key=lambda row: sign * row.value)

    def _of(self, metric: str, list_name: str, k: int | None) -> list[ReportRow]:
        cuts = {row.k for row in self.rows}
        if k is None and len(cuts) > 1:
            raise InvalidInput(f"this report has k = {', '.join(map(str, sorted(cuts)))}; say which")
        found = [r for r in self.rows if (r.metric, r.list) == (metric, list_name) and k in (None, r.k)]
        if not found:
            raise InvalidInput(
                f"no figure for {metric!r} in the list {list_name!r} at k = {k}; this report has the metrics "
                f"{', '.join(_unique(r.metric for r in self.rows))} in the lists "
                f"{', '.join(_unique(r.list for r in self.rows))} at k = {', '.join(map(str, sorted(cuts)))}"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {
            "split": self.split,
            "seed": self.seed,
            "level": LEVEL,
            "skipped": list(self.skipped),
            "rows": [asdict(row) for row in self.rows],
        }

    def to_pandas(self) -> "pd.DataFrame":
        """One row per figure, the columns of `ReportRow`. Raises MissingExtra without pandas."""
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtra("to_pandas needs pandas, which is not installed: pip install pandas") from error
        return pd.DataFrame([asdict(row) for row in self.rows], columns=list(ReportRow.__dataclass_fields__))

    def __str__(self) -> str:
        lines = [f"split: {self.split}"]
        for title, table in self._tables():
            widths = [max(map(len, column)) for column in zip(*table, strict=True)]
            lines += ["", title]
            for first, *rest in table:
                cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
                lines.append("  ".join(["", first.ljust(widths[0]), *cells]).rstrip())
        lines += ["", *self._notes()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = [f"<p>split: {html.escape(self.split)}</p>"]
        for title, (header, *body) in self._tables():
            head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
            rows = "".join(
                "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>" for cells in body
            )
            parts.append(f"<table><caption>{html.escape(title)}</caption><tr>{head}</tr>{rows}</table>")
        return "".join([*parts, *(f"<p>{html.escape(note)}</p>" for note in self._notes())])

    def _tables(self) -> Iterator[tuple[str, list[list[str]]]]:
        """(title, header and rows as text) for each list and k."""
        for list_name, k in _unique((row.list, row.k) for row in self.rows):
            rows = [row for row in self.rows if (row.list, row.k) == (list_name, k)]
            cell = {(row.scorer, row.metric): _cell(row) for row in rows}
            names = _unique(row.metric for row in rows)
            table = [["scorer", *names]]
            table += [[s, *(cell[s, name] for name in names)] for s in _unique(row.scorer for row in rows)]
            yield f"{list_name}, k = {k}, {rows[0].n_users:,} users", table

    def _notes(self) -> list[str]:
        notes = ["± is half the width of the 95 % bootstrap interval over users."]
        return notes + [f"{name}: skipped, no test user has a relevant item in this list." for name in self.skipped]


def _cell(row: ReportRow) -> str:
    if row.low is None or row.high is None:
        return f"{row.value:.3f}"
    return f"{row.value:.4f} ±{(row.high - row.low) / 2:.4f}"


def _unique(values: Iterable[_T]) -> list[_T]:
    return list(dict.fromkeys(values))
