"""Axes with few, short numbers, no two alike."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, Formatter, NullLocator
from numpy.typing import ArrayLike, NDArray

TICKS = 8
"""At most so many numbers beside a logarithmic axis."""

MINUS = "\u2212"

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k"))
"""Up to 9,999 a number is written out. Beyond it, thousands, millions, ..."""


class Short(Formatter):
    """12 k, 3.4 M, 0.05: as many digits as tell the numbers of an axis apart, each followed by a unit."""

    def __init__(self, unit: str = "") -> None:
        self.unit = unit

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        places = np.unique(np.asarray(values, float))
        steps = np.diff(places)
        step = float(steps.min()) if len(steps) else 0.0
        largest = float(np.abs(places).max(initial=0))
        return [written(float(value), step, largest) + self.unit for value in values]

    def __call__(self, x: float, pos: int | None = None) -> str:
        return written(x) + self.unit


def written(x: float, step: float = 0.0, largest: float | None = None) -> str:
    """A number in few characters.

    Args:
        x: the number.
        step: how far the next number is; 0 for three significant digits.
        largest: of the numbers that are to be written alike, without sign; by default this one alone.
    """
    largest = abs(x) if largest is None else largest
    if x == 0 or largest == 0:
        return "0"
    if largest < 1e-3 or largest >= 1e15:
        size = 10.0 ** math.floor(math.log10(largest))
        digits, power = f"{x:.{_digits(step / size) if step else 2}e}".split("e")
        return f"{digits if step else _bare(digits)}e{int(power)}".replace("-", MINUS)
    # 9,999.9 would be written as 10,000.
    size, unit = next(((size, f" {unit}") for size, unit in _UNITS if largest >= 0.99995 * size), (1.0, ""))
    if unit == " k":
        size = 1e3
    digits = _digits(step / size) if step else 2 - math.floor(math.log10(abs(x) / size))
    text = f"{x / size:,.{max(digits, 0)}f}".replace("-", MINUS)
    return f"{text if step else _bare(text)}{unit}"


def _bare(text: str) -> str:
    """Without the zeros at the end of a fraction."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def _digits(step: float) -> int:
    """Decimals that write every multiple of a step exactly, as far as 9 will do."""
    for digits in range(9):
        if step * 10**digits >= 1 - 1e-6 and abs(step * 10**digits - round(step * 10**digits)) < 1e-4:
            return digits
    return 9


def logarithmic(axis: Axis, values: Sequence[float] | NDArray[Any]) -> None:
    """A logarithmic axis over positive values, with ticks at some of them."""
    low, high = float(min(values)), float(max(values))
    room = (high / low) ** 0.04 if high > low else 2.0
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low / room, high * room)})  # type: ignore[attr-defined]
    every = sorted(set(map(float, values)))
    # Of many values the round ones are the easiest to read.
    round_ones = [value for value in every if f"{value:e}"[0] in "125" and float(f"{value:.0e}") == value]
    shown: list[float] = []
    for value in round_ones if len(every) > TICKS and len(round_ones) > 2 else every:
        if not shown or value / shown[-1] >= (high / low) ** (1 / TICKS):
            shown.append(value)
    _ticks(axis, shown)


def decades(axis: Axis, values: ArrayLike) -> None:
    """A logarithmic axis over positive values, with ticks at 1, 2, 5, 10, 20, ..., fewer where there are too many."""
    numbers = np.asarray(values, float)
    low, high = numbers.min() / 1.3, numbers.max() * 1.3
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low, high)})  # type: ignore[attr-defined]
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1, 2, 5), (1, 3), (1,)):
        shown = [s * 10.0**power for power in range(first, last + 1) for s in steps if low <= s * 10.0**power <= high]
        if len(shown) <= TICKS:
            break
    else:
        shown = shown[:: math.ceil(len(shown) / TICKS)]
    _ticks(axis, shown if len(shown) > 1 else [low * 1.3, high / 1.3] if high > 2 * low else [high / 1.3])


def _ticks(axis: Axis, shown: Sequence[float]) -> None:
    axis.set_major_locator(FixedLocator(list(shown)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda x, _: written(x))
