"""Which settings a search varies, and between which values."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from geo_mf.builder import BuildConfig
from geo_mf.errors import InvalidInput

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["DEFAULTS", "SEARCHABLE", "Space", "Values"]

Values = tuple[float, float] | list[Any]
"""(low, high), or a list of choices."""

DEFAULTS: Mapping[str, Values] = {
    "regularization": (0.0003, 0.3),
    "unobserved_weight": (0.001, 2.0),
    "nu": (0.5, 1.2),
}
PRIOR: Mapping[str, Values] = {"prior_regularization": (0.1, 100.0)}
"""Searched besides, where there are texts."""

LOGARITHMIC = ("factors", "regularization", "unobserved_weight", "prior_regularization")
FIXED = (
    *("attributes", "user_attributes", "encoder", "cache", "learn_blend", "cold_share"),
    *("index", "recall", "text_dims", "index_rate", "index_memory", "threads", "seed"),
)
"""Settings that are matters of the machine or of the texts, or that say nothing about the factors."""
SEARCHABLE = tuple(name for name in BuildConfig.model_fields if name not in FIXED)

_KINDS = {
    bool: (bool, "True or False"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, "a string"),
}

MEASURED = 8
"""Epochs of a trial that are measured: what comes out changes ever more slowly."""


@dataclass(frozen=True)
class Space:
    """What a search varies.

    Attributes:
        values: the values of each setting; iterations aside. The given setting is always among them.
        epochs: the epochs after which a trial is measured, rising. The given number of iterations is one of them.
    """

    values: Mapping[str, Values]
    epochs: tuple[int, ...]

    @classmethod
    def of(cls, config: BuildConfig, wishes: Mapping[str, Any] | None, texts: bool) -> "Space":
        """The default space of a configuration, with the wishes of a caller in it.

        Args:
            config: the settings to start from.
            wishes: values by setting, in place of the default's or besides; one choice alone keeps a setting fixed.
            texts: whether there are texts.

        Raises:
            InvalidInput: a wish is for no setting or cannot be used, or nothing is left to vary.
        """
        unknown = [name for name in wishes or {} if name not in SEARCHABLE]
        if unknown:
            raise InvalidInput(f"space names {unknown[0]!r}; a search can vary {', '.join(SEARCHABLE)}")
        iterations = (min(2, config.iterations), 2 * config.iterations)
        wanted = {**DEFAULTS, **(PRIOR if texts else {}), "iterations": iterations, **(wishes or {})}
        values = {name: _checked(name, found, config) for name, found in wanted.items()}
        epochs = _epochs(values.pop("iterations"), config.iterations)
        varied = {name: found for name, found in values.items() if len(set(found)) > 1}
        if not varied:
            raise InvalidInput("space leaves nothing to vary: give at least one setting two values")
        return cls(varied, epochs)

    def distributions(self) -> "dict[str, BaseDistribution]":
        """The same for Optuna."""
        from optuna import distributions

        found: dict[str, BaseDistribution] = {}
        for name, values in self.values.items():
            log = name in LOGARITHMIC
            if isinstance(values, list):
                found[name] = distributions.CategoricalDistribution(values)
            elif all(isinstance(end, int) for end in values):
                found[name] = distributions.IntDistribution(int(values[0]), int(values[1]), log=log)
            else:
                found[name] = distributions.FloatDistribution(*values, log=log)
        return found


def _checked(name: str, found: Any, config: BuildConfig) -> Values:
    """The values of one setting, each of which a build accepts, with the given one among them."""
    given = getattr(config, name)
    own = [] if given is None else [given]
    if isinstance(found, list):
        if not found:
            raise InvalidInput(f"space: {name} has no choices; give at least one, such as {own or [0.5]}")
        return list(dict.fromkeys([*own, *(_accepted(name, one, config) for one in found)]))
    if isinstance(given, str | bool):
        raise InvalidInput(f"space: {name} is {found!r}; expected a list of choices, such as [{given!r}]")
    if not isinstance(found, tuple) or len(found) != 2:
        raise InvalidInput(f"space: {name} is {found!r}; expected (low, high) or a list of choices")
    low, high = (_accepted(name, one, config) for one in found)
    if low > high:
        raise InvalidInput(f"space: {name} goes from {low!r} to {high!r}; give the lower end first")
    low, high = min([low, *own]), max([high, *own])
    if name in LOGARITHMIC and low <= 0:
        raise InvalidInput(
            f"space: {name} goes from {low!r}, and it is searched on a logarithmic scale: begin above 0, start from a "
            "configuration above 0, or give a list of choices"
        )
    return low, high


def _accepted(name: str, value: Any, config: BuildConfig) -> Any:
    """The value as a configuration holds it; InvalidInput that names the setting where it is refused."""
    given = getattr(config, name)
    kind, wanted = _KINDS[float if given is None else type(given)]  # what may be left open is a number
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InvalidInput(f"space: {name} holds {value!r}; expected {wanted}")
    plain = int(value) if kind is Integral else float(value) if kind is Real else value
    return getattr(BuildConfig.of(**{**config.model_dump(), name: plain}), name)


def _epochs(values: Values, given: int) -> tuple[int, ...]:
    """The epochs to measure after."""
    if isinstance(values, list):
        return tuple(sorted({given, *values}))
    steps = np.geomspace(values[0], values[1], MEASURED).round().astype(int).tolist()
    return tuple(sorted({given, *steps}))
