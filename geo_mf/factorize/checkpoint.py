"""A fit that survives being killed: its factors after an epoch, in one file, and a fingerprint of what was fitted."""

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from geo_mf.errors import InvalidInput
from geo_mf.factorize import persistence

KIND = "checkpoint"
TIME_SHARE = 0.05
"""A checkpoint is left out when those before it took more than this share of the fit's time."""


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

    def read(self, epochs: int) -> tuple[int, np.ndarray, np.ndarray, list[float]] | None:
        """Epochs done, user factors, item factors and losses; None when there is no checkpoint yet.

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
        return int(state["epochs"]), arrays["users"], arrays["items"], list(state["losses"])

    def due(self) -> bool:
        """Whether to write now: not when the writes so far took more than TIME_SHARE of the fit's time."""
        return self._spent <= TIME_SHARE * (time.perf_counter() - self._began)

    def write(self, epochs: int, users: np.ndarray, items: np.ndarray, losses: list[float]) -> None:
        """Keep the state after an epoch."""
        began = time.perf_counter()
        state: dict[str, Any] = {"fingerprint": self.fingerprint, "epochs": epochs, "losses": losses}
        persistence.save(self.path, KIND, state, {"users": users, "items": items})
        self._spent += time.perf_counter() - began


def fingerprint(matrix: sparse.csr_array, features: np.ndarray | None, settings: dict[str, Any]) -> str:
    """SHA-256 of what a fit depends on."""
    digest = hashlib.sha256(repr(sorted(settings.items())).encode())
    arrays = [matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data]
    for array in [*arrays, *([] if features is None else [np.ascontiguousarray(features)])]:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
