"""Settings of a model: checked at birth, read and changed by scikit-learn's convention, printed as the call that makes
the model."""

import difflib
import inspect
import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Self

import numpy as np

from geo_mf.errors import InvalidInput

RandomState = int | np.random.Generator | np.random.RandomState | None


class Parameters:
    """A model whose constructor's arguments are its settings, each kept under its own name."""

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return list(inspect.signature(cls).parameters)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name. `deep` changes nothing: no setting holds settings of its own."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Change settings, all of them or none; the factors stay until the next `fit`.

        Raises:
            InvalidInput: a name is unknown (the message says which one is nearest), or a value is out of range.
        """
        names = self._parameter_names()
        for name in params:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1, 0)[0]
                raise InvalidInput(
                    f"{type(self).__name__} has no setting {name!r}; the nearest is {near!r}, and all are "
                    f"{', '.join(names)}"
                )
        checked = type(self)(**{**self.get_params(), **params})
        for name in params:
            setattr(self, name, getattr(checked, name))
        return self

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({settings})"


def whole(name: str, found: Any, least: int) -> int:
    """`found` as an int of at least `least`; InvalidInput for anything else, a bool included."""
    if not isinstance(found, Integral) or isinstance(found, bool) or found < least:
        raise InvalidInput(f"{name} is {found!r}; it must be a whole number of at least {least}")
    return int(found)


def real(name: str, found: Any, expected: str, holds: Callable[[float], bool]) -> float:
    """`found` as a finite float for which `holds`; InvalidInput, which tells what is `expected`, for anything else."""
    number = float(found) if isinstance(found, Real) and not isinstance(found, bool) else math.nan
    if not math.isfinite(number) or not holds(number):
        raise InvalidInput(f"{name} is {found!r}; it must be a finite number {expected}")
    return number


def seed(found: Any) -> RandomState:
    """What `random_state` may be: an integer of at least 0, a numpy Generator or RandomState, or None."""
    if found is None or isinstance(found, (np.random.Generator, np.random.RandomState)):
        return found
    if not isinstance(found, Integral) or isinstance(found, bool) or found < 0:
        raise InvalidInput(
            f"random_state is {found!r}; it must be an integer of at least 0, a numpy Generator or RandomState, or None"
        )
    return int(found)


def generator(state: RandomState) -> np.random.Generator:
    """The generator that a `random_state` stands for: the same seed gives the same numbers."""
    if isinstance(state, np.random.RandomState):
        return np.random.default_rng(state.randint(0, 2**31 - 1, size=4))
    return np.random.default_rng(state)
