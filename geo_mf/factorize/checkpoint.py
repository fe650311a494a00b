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


@dataclass(frozen=True)
class State:
    """A fit after an epoch.

    Attributes:
        epochs: how many are done.
        users, items: factors float32 [users, K] and [items, K].
        losses: after each epoch, if they were asked for.
        user_coefficients: float32 [dim + 1, K] or None, the regression that the users were last solved with.
    """

    epochs: int
    users: np.ndarray
    items: np.ndarray
    losses: list[float]
    user_coefficients: np.ndarray | None = None


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
        factors, told = (arrays["users"], arrays["items"]), arrays.get("user_coefficients")
        return State(int(state["epochs"]), *factors, list(state["losses"]), told)

    def due(self) -> bool:
        """Whether to write now: not when the writes so far took more than TIME_SHARE of the fit's time."""
        return self._spent <= TIME_SHARE * (time.perf_counter() - self._began)

    def write(self, now: State) -> None:
        """Keep the state after an epoch."""
        began = time.perf_counter()
        state: dict[str, Any] = {"fingerprint": self.fingerprint, "epochs": now.epochs, "losses": now.losses}
        arrays = {"users": now.users, "items": now.items}
        if now.user_coefficients is not None:
            arrays["user_coefficients"] = now.user_coefficients
        persistence.save(self.path, KIND, state, arrays)
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
        # Only users are named: the others' hashes are those of checkpoints that know of no users' features.
        digest.update(f"{name if name == 'users' else ''}{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
