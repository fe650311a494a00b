"""geo-mf doctor: what this machine has, and what a build would use."""

import os
import sys
from importlib import metadata
from typing import Any

from geo_mf import __version__
from geo_mf.cli.output import Output
from geo_mf.errors import InvalidInput
from geo_mf.threads import available, chosen

__all__ = ["doctor"]

_PACKAGES = (
    "jax",
    "jaxlib",
    "numpy",
    "scipy",
    "pyarrow",
    "faiss-cpu",
    "torch",
    "sentence-transformers",
    "transformers",
)


def doctor(output: Output) -> None:
    """Show what this machine has.

    Versions, cores, devices, the encoder, the cache, and whether the model hub is switched off. Contacts nobody.
    """
    found: dict[str, Any] = {
        "geo_mf": __version__,
        "python": sys.version.split()[0],
        "versions": {name: _version(name) for name in _PACKAGES},
        "cores": available(),
        "threads": _threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
        "offline": _switched_on("HF_HUB_OFFLINE") or _switched_on("TRANSFORMERS_OFFLINE"),
        "devices": _devices(),
        "encoder": _encoder(),
        "cache": _cache(),
    }
    if output.json:
        output.data(found)
    output.table(("", ""), [(name, _cell(value)) for name, value in found.items()])


def _threads() -> int | str:
    try:
        return chosen() or "all cores"
    except InvalidInput as error:
        return str(error)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _switched_on(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE")


def _devices() -> list[str]:
    import jax

    return [f"{device.platform}:{device.id} ({device.device_kind})" for device in jax.devices()]


def _encoder() -> dict[str, Any]:
    """The default encoder, with its weights' checksum compared. Looks at this machine only."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from geo_mf.errors import GeoMFError
    from geo_mf.text.encoder import SentenceEncoder

    encoder = SentenceEncoder()
    try:
        fingerprint = encoder.fingerprint
    except GeoMFError as error:
        return {"name": encoder.name, "found": False, "problem": str(error)}
    return {"name": encoder.name, "found": True, "checksum": "as published", "fingerprint": fingerprint}


def _cache() -> dict[str, Any]:
    from geo_mf.text.cache import default_folder

    folder = default_folder()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    return {"folder": str(folder), "bytes": size, "writable": nearest.is_dir() and os.access(nearest, os.W_OK)}


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not installed" if value is None else str(value)
