"""How a fit went: its loss after each epoch, and what was measured on interactions held out."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from geo_mf.errors import InvalidInput
from geo_mf.plot.lines import Line, canvas, draw, few, finish, name_axes, ring, upright
from geo_mf.plot.scales import decades, written

Epoch = float | Sequence[float | None]
"""A loss, or what the callback of a fit was given: number, seconds, loss, and at times a figure on data held out."""

STEEP = 100
"""Losses that fall further than this are drawn on a logarithmic axis."""


def training_loss(
    runs: Sequence[Epoch] | Mapping[str, Sequence[Epoch]],
    *,
    loss: str = "training loss",
    validation: str = "NDCG@20 on interactions held out",
    smaller: bool = False,
    title: str = "",
) -> Figure:
    """The loss of one or several fits by epoch. Where figures on interactions held out came with it, they stand below,
    and the best epoch of all is marked.

        epochs = []
        gm.IALS(64, calculate_training_loss=True).fit(matrix, callback=lambda *epoch: epochs.append(epoch))
        plot.training_loss(epochs)

    Args:
        runs: the epochs of one fit, or of up to 6 by name: losses, or tuples of what `callback` was given.
        loss: what the loss is.
        validation: what was measured on interactions held out.
        smaller: whether a smaller figure on interactions held out is the better one.
        title: what the picture says.

    Raises:
        InvalidInput: there is no run, a run has no epoch, or a loss is missing or not finite.
    """
    named = runs if isinstance(runs, Mapping) else {"": runs}
    few(list(named), "runs")
    read = {name: _read(name, epochs) for name, epochs in named.items()}
    losses = [Line(name, table[:, 0], table[:, 1]) for name, table in read.items()]
    # Only some epochs are measured; the line joins those that were.
    looked = [Line(name, *table[np.isfinite(table[:, 2])][:, [0, 2]].T) for name, table in read.items()]
    measured = any(len(line.x) for line in looked)
    figure, panels = canvas(7.6, 7.4 if measured else 5.4, 2 if measured else 1)
    handles = draw(panels[0], losses)
    values = np.concatenate([line.y for line in losses])
    if values.min() > 0 and values.max() > STEEP * values.min():
        decades(panels[0].yaxis, values)
    last = max(float(line.x[-1]) for line in losses)
    first = min(float(line.x[0]) for line in losses)
    panels[-1].set_xlim(first - 0.02 * (last - first) - 0.4, last + 0.02 * (last - first) + 0.4)
    panels[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    name_axes(panels[0], "" if measured else "epoch", loss)
    said = _falling(losses, loss)
    if measured:
        draw(panels[1], looked)
        name_axes(panels[1], "epoch", validation)
        best = min((line for line in looked if len(line.x)), key=lambda line: float(_worth(line, smaller).min()))
        at = int(_worth(best, smaller).argmin())
        ring(panels[1], best.x[at], best.y[at])
        for panel in panels:
            upright(panel, best.x[at])
        who = f", {best.name}" if best.name else ""
        said = f"Best after epoch {best.x[at]:,.0f}{who}: {written(best.y[at])} {validation}"
    finish(figure, panels[0], title or said, dict(zip(named, handles, strict=True)))
    return figure


def _worth(line: Line, smaller: bool) -> np.ndarray:
    """float64 [n], smallest where the line is best."""
    return line.y if smaller else -line.y


def _falling(losses: Sequence[Line], loss: str) -> str:
    if len(losses) > 1:
        lowest = min(losses, key=lambda line: line.y[-1])
        return f"The lowest at its end: {lowest.name}, {loss} {written(lowest.y[-1])} after epoch {lowest.x[-1]:,.0f}"
    (line,) = losses
    said = f"{loss[:1].upper()}{loss[1:]} {written(line.y[-1])} after epoch {line.x[-1]:,.0f}"
    if len(line.y) < 2 or line.y[-2] <= 0:
        return said
    change = line.y[-1] / line.y[-2] - 1
    if abs(change) < 1e-4:
        return f"{said}: it no longer changes"
    return f"{said}: it {'fell' if change < 0 else 'rose'} by {100 * abs(change):.2g} % in the last epoch"


def _read(name: str, epochs: Sequence[Epoch]) -> np.ndarray:
    """float64 [epochs, 3]: number from 1, loss, and the figure on interactions held out or NaN."""
    what = f"run {name!r}" if name else "the run"
    rows: list[tuple[float, float, float]] = []
    for place, epoch in enumerate(epochs):
        if not isinstance(epoch, Sequence):
            number, found, looked = place, epoch, None
        elif len(epoch) in (3, 4):
            number, found, looked = epoch[0], epoch[2], epoch[3] if len(epoch) == 4 else None
        else:
            raise InvalidInput(
                f"epoch {place} of {what} is {epoch!r}; expected a loss, or what a fit gives its callback: number, "
                "seconds and loss"
            )
        if number is None or found is None or not np.isfinite(found):
            raise InvalidInput(
                f"the loss of epoch {place} of {what} is {found}; expected a number: IALS computes its loss with "
                "calculate_training_loss=True"
            )
        rows.append((float(number) + 1, float(found), np.nan if looked is None else float(looked)))
    if not rows:
        raise InvalidInput(f"{what} has no epochs; give at least one")
    return np.array(rows)
