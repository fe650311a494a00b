"""What every reader hands on: the rows it could read, where each one stood, and an account of those it could not."""

import difflib
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from geo_mf.data.interactions import BadRow, ReadReport
from geo_mf.data.where import closest_first
from geo_mf.errors import InvalidInput

__all__ = ["Checks", "Rejected", "Rows", "missing_column"]

_SHOWN = 20  # bad rows kept with their text
_SNIPPET = 100  # characters of each


@dataclass
class Rejected:
    """Rejected rows: how many for each reason, and the first few in full. Rows are added in file order."""

    counts: Counter[str] = field(default_factory=Counter)
    first: list[BadRow] = field(default_factory=list)

    def add(self, line: int, reason: str, text: str | bytes) -> None:
        self.counts[reason] += 1
        if len(self.first) < _SHOWN:
            self.first.append(BadRow(line, reason, _snippet(text)))

    def total(self) -> int:
        return self.counts.total()


@dataclass(frozen=True)
class Rows:
    """The rows a reader could read, before their values are checked.

    table: n rows of the columns that were asked for; columns: the names of all that the source has.
    numbers: int64 [n], the line (from 1) or the row (from 0) where each row starts.
    rejected: the rows that could not be read at all. unit: what `numbers` counts.
    """

    table: pa.Table
    columns: list[str]
    numbers: np.ndarray
    rejected: Rejected
    unit: Literal["line", "row"]


class Checks:
    """Vectorised checks of the values of `rows`: each row is rejected for the first reason that it meets."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._reasons: list[str] = []
        self._failed = np.zeros(len(rows.numbers), dtype=np.int16)  # 0, or 1 + the position of its reason

    def reject(self, bad: np.ndarray, reason: str) -> None:
        """Reject the rows where `bad`, bool [n], holds and no earlier check has."""
        if bad.any():
            self._reasons.append(reason)
            self._failed[bad & (self._failed == 0)] = len(self._reasons)

    @property
    def passed(self) -> np.ndarray:
        """The rows that met no reason so far, bool [n]."""
        return self._failed == 0

    def report(self, source: str, max_bad_rows: int) -> ReadReport:
        """The account of the reading. Raises InvalidInput when more than `max_bad_rows` rows were rejected."""
        bad = np.flatnonzero(self._failed)
        counts = Counter(self.rows.rejected.counts)
        for code, count in zip(*np.unique(self._failed[bad], return_counts=True), strict=True):
            counts[self._reasons[int(code) - 1]] += int(count)
        shown = [
            BadRow(int(self.rows.numbers[row]), self._reasons[int(self._failed[row]) - 1], self._text(int(row)))
            for row in bad[:_SHOWN]
        ]
        shown = sorted([*self.rows.rejected.first, *shown], key=lambda row: row.line)[:_SHOWN]
        accepted = len(self._failed) - len(bad)
        total = counts.total()
        report = ReadReport(accepted + total, accepted, dict(counts.most_common()), tuple(shown), unit=self.rows.unit)
        if 0 <= max_bad_rows < total:
            raise InvalidInput(
                f"{source}: {total:,} of {report.read:,} rows cannot be used, and max_bad_rows is {max_bad_rows}\n"
                f"{report}\nRepair them, or accept the loss: max_bad_rows={total} (--max-bad-rows {total}); "
                "-1 means no limit"
            )
        return report

    def _text(self, row: int) -> str:
        cells = self.rows.table.slice(row, 1).to_pylist()[0].values()
        return _snippet(",".join("" if cell is None else str(cell) for cell in cells))


def missing_column(name: str, found: list[str], argument: str) -> InvalidInput:
    """The error for a column that is not there; `argument` is the keyword that maps it, such as "user_col"."""
    names = closest_first(name, found)
    shown = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
    option = f"--{argument.replace('_', '-')}"
    close = difflib.get_close_matches(name, found, n=1, cutoff=0.5)
    remedy = f"{argument}={close[0]!r} ({option} {close[0]})" if close else f"{argument}= ({option})"
    return InvalidInput(
        f"there is no column {name!r}; the columns are {shown or 'none'}; name the right one with {remedy}"
    )


def _snippet(text: str | bytes) -> str:
    if isinstance(text, bytes):
        text = text[: 4 * _SNIPPET].decode("utf-8", "backslashreplace")
    shown = (
        text[:_SNIPPET].encode("unicode_escape").decode("ascii")
        if not text[:_SNIPPET].isprintable()
        else text[:_SNIPPET]
    )
    return shown + ("..." if len(text) > _SNIPPET else "")
