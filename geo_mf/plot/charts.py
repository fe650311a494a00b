"""Curves and bars: how many directions a space uses, how well each scorer did."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, StrMethodFormatter
from numpy.typing import ArrayLike, NDArray

from geo_mf.errors import InvalidInput
from geo_mf.plot.flat import flatten
from geo_mf.plot.style import COLOURS, GREY, INK, LARGE, MARKERS, NORMAL, SMALL, blank, footnote, headline, plain

_METRICS = {
    "ndcg": "NDCG",
    "recall": "Recall",
    "precision": "Precision",
    "map": "MAP",
    "mrr": "MRR",
    "hit": "Hit rate",
    "coverage": "Coverage",
    "novelty": "Novelty",
    "gini": "Gini",
}
_UNITS = {"hit": ", share of users", "coverage": ", share of items", "novelty": ", bits"}
_LISTS = {"overall": "all items", "warm": "items seen in training", "cold": "items that nobody had touched"}
_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class MetricRow(Protocol):
    """One figure of a report, such as `geo_mf.evaluation.report.ReportRow`."""

    @property
    def scorer(self) -> str: ...
    @property
    def list(self) -> str: ...
    @property
    def k(self) -> int: ...
    @property
    def metric(self) -> str: ...
    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...
    @property
    def n_users(self) -> int: ...


class MetricTable(Protocol):
    """A report: anything with rows."""

    @property
    def rows(self) -> Sequence[MetricRow]: ...


def spectrum(factors: ArrayLike, embeddings: ArrayLike, *, share: float = 0.8, title: str = "") -> Figure:
    """How many directions each space uses: the cumulative variance of its principal directions (see flat.py).

    Args:
        factors: [items, rank] float.
        embeddings: [items, dim] float.
        share: the share of the variance to read off, between 0 and 1.
        title: what the picture says.

    Raises:
        InvalidInput: an array cannot be used, or `share` is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise InvalidInput(f"share is {share}; expected a number between 0 and 1, such as 0.8")
    curves = {
        name: np.minimum(np.cumsum(_shares(vectors, name)), 1.0)
        for name, vectors in (("factors", factors), ("text embeddings", embeddings))
    }
    longest = max(map(len, curves.values()))
    figure = blank(7.6, 5.4)
    axes = figure.add_subplot()
    axes.axhline(100 * share, color=INK, linewidth=1.0, linestyle="--", zorder=1)
    axes.text(1.05, 100 * share + 1.5, f"{100 * share:.0f} % of the variance", color=INK, fontsize=SMALL)
    for (name, curve), colour, marker in zip(curves.items(), COLOURS, MARKERS, strict=False):
        needed = int(np.searchsorted(curve, share - 1e-9)) + 1
        label = f"{name}: {needed} of {len(curve)} directions"
        style: dict[str, Any] = {"color": colour, "label": label, "marker": marker, "markersize": 10, "linewidth": 2.6}
        axes.plot(np.arange(1, len(curve) + 1), 100 * curve, markevery=[needed - 1], **style)
        axes.plot([needed, needed], [0, 100 * curve[needed - 1]], color=colour, linewidth=1.4, linestyle=":")
    axes.set(xscale="log", xlim=(1, 1.05 * longest), ylim=(0, 102))
    plain(axes, grid="y")
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in _TICKS if tick <= longest]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_formatter(PercentFormatter())
    axes.set_xlabel("number of directions, strongest first (logarithmic)", fontsize=NORMAL)
    axes.set_ylabel("variance explained together", fontsize=NORMAL)
    # Above the axes the legend can cover nothing, whatever the curves do.
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        frameon=False,
        fontsize=SMALL,
        borderpad=0.1,
        handlelength=1.4,
        columnspacing=1.0,
    )
    axes.set_title(title or "How many directions each space uses", fontsize=LARGE, loc="left", color=INK, pad=32)
    return figure


def bar_metrics(
    report: MetricTable, metric: str = "ndcg", list_name: str = "overall", *, k: int | None = None, title: str = ""
) -> Figure:
    """One metric of every scorer of an evaluation, the best on top, with 95 % bootstrap intervals where there are any.

    Args:
        report: what `gm.evaluate` returned.
        metric: such as "ndcg", "recall" or "coverage".
        list_name: "overall", "warm" or "cold".
        k: where the lists were cut; may be left out when the report has one k.
        title: what the picture says.

    Raises:
        InvalidInput: the report has no such figure, or several k.
    """
    rows = _rows(report, metric, list_name, k)
    smaller = metric == "gini"
    rows = sorted(rows, key=lambda row: -row.value if smaller else row.value)
    places = range(len(rows))
    figure = blank(7.6, 2.0 + 0.6 * len(rows))
    axes = figure.add_subplot()
    colours = [GREY] * (len(rows) - 1) + [COLOURS[1]]
    axes.barh(places, [row.value for row in rows], color=colours, height=0.68)
    for place, row in zip(places, rows, strict=True):
        end = row.value
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place, place], color=INK, linewidth=1.8, solid_capstyle="butt")
            end = row.high
        axes.annotate(f"{row.value:.3f}", (end, place), xytext=(8, 0), textcoords="offset points", va="center",
                      fontsize=NORMAL, color=INK)  # fmt: skip
    longest = max(row.value if row.high is None else row.high for row in rows)
    axes.set_xlim(0, 1.17 * longest if longest > 0 else 1.0)
    axes.set_yticks(places, [row.scorer for row in rows], parse_math=False)
    plain(axes, grid="x")
    axes.tick_params(axis="y", labelsize=NORMAL, length=0)
    name = f"{_METRICS.get(metric, metric)}@{rows[0].k}"
    better = "smaller is better" if smaller else "bigger is better"
    axes.set_xlabel(f"{name}{_UNITS.get(metric, '')} ({better})", fontsize=NORMAL)
    headline(axes, title or f"{name}, {_LISTS.get(list_name, list_name)}")
    if any(row.low is not None for row in rows):
        footnote(figure, f"Lines: 95 % bootstrap intervals over {rows[0].n_users:,} users.")
    return figure


def _rows(report: MetricTable, metric: str, list_name: str, k: int | None) -> list[MetricRow]:
    rows = [row for row in report.rows if (row.metric, row.list) == (metric, list_name) and k in (None, row.k)]
    if not rows:
        raise InvalidInput(
            f"no figure for {metric!r} in the list {list_name!r} at k = {k}; this report has the metrics "
            f"{', '.join(sorted({row.metric for row in report.rows}))} in the lists "
            f"{', '.join(sorted({row.list for row in report.rows}))} at k = "
            f"{', '.join(map(str, sorted({row.k for row in report.rows})))}"
        )
    cuts = sorted({row.k for row in rows})
    if len(cuts) > 1:
        raise InvalidInput(f"this report has k = {', '.join(map(str, cuts))}; say which with k=")
    return rows


def _shares(vectors: ArrayLike, name: str) -> NDArray[np.float64]:
    """Each direction's share of the variance; all of it where there is but one."""
    rows = np.asarray(vectors)
    if rows.ndim == 2 and rows.shape[1] == 1:
        return flatten(np.pad(rows, ((0, 0), (0, 1))), name).shares[:1]
    return flatten(vectors, name).shares
