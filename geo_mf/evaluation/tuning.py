"""Tuning: what a search for settings found, printed as a table or handed on as plain values or as a settings file."""

import html
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from geo_mf.builder import BuildConfig

__all__ = ["WARNING", "TrialRecord", "Tuning"]

State = Literal["complete", "pruned", "diverged"]

WARNING = "A validation figure: the best of many is too good to be true. Judge the settings on other interactions."

SHOWN = 5
"""Trials of the table."""


@dataclass(frozen=True)
class TrialRecord:
    """One finished trial.

    Attributes:
        settings: what was varied, and `iterations`: the epochs after which it was best.
        value: the metric after these; 0 when the fit diverged.
        curve: (epochs, metric) as it was measured, epochs rising.
        state: "complete"; "pruned", ended early because others did better; or "diverged".
        seconds: how long it took.
    """

    settings: Mapping[str, Any]
    value: float
    curve: tuple[tuple[int, float], ...]
    state: State
    seconds: float

    @property
    def epochs(self) -> int:
        """Epochs until the last measurement."""
        return self.curve[-1][0] if self.curve else 0


@dataclass(frozen=True, repr=False)
class Tuning:
    """The best settings of a search, beside those it started from. Prints as a table.

    Attributes:
        config: the given configuration with the best settings in it.
        given: the configuration it started from.
        value: the metric of these settings, on the validation interactions.
        baseline: the metric of the given configuration; 0 when its fit diverged.
        trials: every finished trial, in order; the first is of the given settings.
        metric: such as "ndcg@20".
        validation: how the validation interactions were held out.
        n_users: how many users were judged.
    """

    config: BuildConfig
    given: BuildConfig
    value: float
    baseline: float
    trials: tuple[TrialRecord, ...]
    metric: str
    validation: str
    n_users: int

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        trials = [
            {
                "settings": dict(one.settings),
                "value": one.value,
                "epochs": one.epochs,
                "state": one.state,
                "seconds": one.seconds,
                "curve": [list(point) for point in one.curve],
            }
            for one in self.trials
        ]
        return {
            "metric": self.metric,
            "validation": self.validation,
            "n_users": self.n_users,
            "value": self.value,
            "baseline": self.baseline,
            "config": self.config.model_dump(mode="json"),
            "given": self.given.model_dump(mode="json"),
            "trials": trials,
        }

    def to_toml(self) -> str:
        """The settings as a file that `geo-mf build --config` takes. There, the two switches are spelled `no_...`."""
        lines = [
            f"# {self.metric} {self.value:.4f} on validation interactions ({self.validation}); "
            f"{self.baseline:.4f} with the settings it was searched from. Trials: {len(self.trials)}."
        ]
        for name, value in self.config.model_dump().items():
            if isinstance(value, bool):
                lines.append(f"no_{name} = {'false' if value else 'true'}")
            elif isinstance(value, tuple):
                lines.append(f"{name} = {json.dumps(','.join(value), ensure_ascii=False)}")
            elif value is not None:
                # JSON's strings and numbers are TOML's too, but for one character.
                lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f"))
        return "\n".join([*lines, ""])

    def __str__(self) -> str:
        table = self._table()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = []
        for first, *rest in table:
            cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
            lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
        return "\n".join([self._title(), "", *lines, "", *self._notes()])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        header, *body = self._table()
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>" for cells in body)
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self._notes())
        return f"<table><caption>{html.escape(self._title())}</caption><tr>{head}</tr>{rows}</table>{notes}"

    def _title(self) -> str:
        return f"{self.metric} of the factors alone, {self.n_users:,} users; validation: {self.validation}"

    def _table(self) -> list[list[str]]:
        """Header and rows as text: the settings it started from, then the best trials."""
        best = sorted(self.trials, key=lambda one: (one.state != "complete", -one.value))[:SHOWN]
        names = list(self.trials[0].settings)
        rows = [["given", f"{self.baseline:.4f}", *(_cell(getattr(self.given, name)) for name in names)]]
        for place, one in enumerate(best, 1):
            rows.append([f"{place}.", f"{one.value:.4f}", *(_cell(one.settings[name]) for name in names)])
        return [["", self.metric, *names], *rows]

    def _notes(self) -> list[str]:
        states = Counter(one.state for one in self.trials)
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        return [
            f"{len(self.trials)} trials ({counts}), {sum(one.seconds for one in self.trials):,.0f} s.",
            WARNING,
        ]


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
