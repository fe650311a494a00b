"""What a write has to know of the build that made an index, from the index's card."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geo_mf.data.weighting import Weighting
from geo_mf.errors import IncompatibleIndex
from geo_mf.factorize.ials import Solver


@dataclass(frozen=True)
class Record:
    """Settings of the build, by their names there, and what it measured.

    Attributes:
        weighting: how weights were scaled.
        newest: nanoseconds, the datetime at which a touch counts 1; None if datetimes were not known.
    """

    weighting: Weighting
    newest: int | None
    prior_regularization: float
    iterations: int
    solver: Solver
    cg_steps: int
    threads: int
    seed: int
    cache: bool

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> "Record":
        """The record in a card. Raises IncompatibleIndex when the card does not hold it."""
        try:
            config = card["config"]
            settings = {
                name: config[name]
                for name in ("prior_regularization", "iterations", "solver", "cg_steps", "threads", "seed", "cache")
            }
            return cls(Weighting(config["weighting"], card["weight_mean"]), card["newest"], **settings)
        except KeyError as error:
            raise IncompatibleIndex(
                f"this index's card does not hold {error}: it was built before indexes could change; build it again"
            ) from error
