"""A fit that survives being killed: its state after an epoch, in one file, and a fingerprint of what was fitted."""

import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from geo_mf.errors import InvalidInput
from geo_mf.factorize import persistence
from geo_mf.factorize.matrices import shape

KIND = "checkpoint"
TIME_SHARE = 0.05
"""A checkpoint is left out when those before it took more than this share of the fit's time."""


@dataclass(frozen=True)
class State:
    """A fit after an epoch.

    Attributes:
        epochs: how many are done.
        arrays: by name, all that the next epoch begins with; numbers, no objects.
        told: the little that is no array, as JSON keeps it: a float comes back as it was.
    """

    epochs: int
    arrays: dict[str, np.ndarray]
    told: dict[str, Any] = field(default_factory=dict)


@dataclass
class Checkpoint:
    """Where a fit keeps its state.

    Attributes:
        path: the file; it is replaced as a whole or not at all.
        fingerprint: of the data and of all settings that the factors depend on, the number of epochs aside.
    """

    path: Path
    fingerprint: str
    _began: float = field(default_factory=time.perf_counter)
    _spent: float = 0.0

    @classmethod
    def of(
        cls,
        path: str | Path,
        matrix: sparse.csr_array,
        settings: dict[str, Any],
        item_features: np.ndarray | None = None,
        user_features: np.ndarray | None = None,
    ) -> "Checkpoint":
        """The checkpoint of a fit of this matrix with these settings, those left out that may change between runs."""
        described = {name: _described(value) for name, value in settings.items()}
        # Columns that nobody touched are in the shape alone.
        described["shape"] = shape(matrix)
        return cls(Path(path), fingerprint(matrix, item_features, described, user_features))

    def read(self, epochs: int) -> State | None:
        """The state that was kept; None when there is no checkpoint yet.

        Raises:
            InvalidInput: the file belongs to another fit, or is further than `epochs`.
            IncompatibleIndex: the file is damaged, or is something else.
        """
        if not self.path.exists():
            return None
        state, arrays = persistence.load(self.path, KIND)
        if state["fingerprint"] != self.fingerprint:
            raise InvalidInput(
                f"the checkpoint {self.path} is of another fit (other interactions, features or settings): give "
                "another path, or delete it to begin again"
            )
        if state["epochs"] > epochs:
            raise InvalidInput(
                f"the checkpoint {self.path} is of {state['epochs']} epochs, and only {epochs} are asked for: ask "
                "for as many, or give another path"
            )
        return State(int(state["epochs"]), arrays, state["told"])

    def due(self) -> bool:
        """Whether to write now: not when the writes so far took more than TIME_SHARE of the fit's time."""
        return self._spent <= TIME_SHARE * (time.perf_counter() - self._began)

    def write(self, now: State) -> None:
        """Keep the state after an epoch."""
        began = time.perf_counter()
        state = {"fingerprint": self.fingerprint, "epochs": now.epochs, "told": now.told}
        persistence.save(self.path, KIND, state, now.arrays)
        self._spent += time.perf_counter() - began


def fingerprint(
    matrix: sparse.csr_array,
    item_features: np.ndarray | None,
    settings: dict[str, Any],
    user_features: np.ndarray | None = None,
) -> str:
    """SHA-256 of what a fit depends on."""
    digest = hashlib.sha256(repr(sorted(settings.items())).encode())
    arrays = {"starts": matrix.indptr.astype(np.int64), "columns": matrix.indices.astype(np.int64)}
    given = {"weights": matrix.data, "items": item_features, "users": user_features}
    for name, array in (arrays | given).items():
        if array is None:
            continue
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _described(setting: Any) -> Any:
    """A generator is the numbers that it will give, wherever it lies in memory; all else says what it is itself."""
    if isinstance(setting, np.random.Generator):
        setting = setting.bit_generator.state
    elif isinstance(setting, np.random.RandomState):
        setting = setting.get_state(legacy=False)
    else:
        return setting
    return json.dumps(setting, sort_keys=True, default=np.ndarray.tolist)
