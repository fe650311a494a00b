"""Models in one safetensors file: settings as JSON in its header, arrays in its body, a checksum over both."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from geo_mf.errors import IncompatibleIndex
from geo_mf.files import replace

FORMAT = "2"
KEY = "geo_mf"
"""Where the header stands among a safetensors file's metadata."""


def save(path: str | Path, kind: str, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write a model: to a temporary file first, so that an interrupted save leaves the old file whole."""
    path = Path(path)
    arrays = {name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())}
    described = _json(settings)
    header = {"format": FORMAT, "kind": kind, "settings": described, "sha256": _checksum(kind, described, arrays)}
    # One key, for safetensors writes several in any order, and the same model is to give the same bytes.
    replace(path, to_bytes(arrays, metadata={KEY: _json(header)}))


def load(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what `save` wrote.

    Raises:
        FileNotFoundError: no such file.
        IncompatibleIndex: damaged, a newer format, or another kind of model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no model at {path}: give the path that save() was given")
    try:
        with safe_open(path, framework="numpy") as file:
            header = _header((file.metadata() or {}).get(KEY, ""))
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise IncompatibleIndex(f"{path} is not a whole safetensors file ({error}): save the model again") from error
    if header.get("format") != FORMAT or header.get("kind") != kind:
        raise IncompatibleIndex(
            f"{path} holds {header.get('kind')!r}, format {header.get('format')!r}; "
            f"expected {kind!r}, format {FORMAT!r}"
        )
    settings = header.get("settings", "")
    if header.get("sha256") != _checksum(kind, settings, arrays):
        raise IncompatibleIndex(f"{path} is damaged: its checksum does not match its content; save the model again")
    return json.loads(settings), arrays


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _header(text: str) -> dict[str, str]:
    """What `save` wrote about a model; empty when it is not that."""
    try:
        header = json.loads(text)
    except ValueError:
        return {}
    return header if isinstance(header, dict) else {}


def _checksum(kind: str, settings: str, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(f"{kind}\0{settings}".encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name}\0{array.dtype}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
