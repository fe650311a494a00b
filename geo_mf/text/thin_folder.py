"""A compressed model as a folder: what is written, and how a model is made of it again.

The folder is that of the original without its transformer's weights, with two files more: `lowrank.json` lists the
layers that were replaced and their ranks, `lowrank.safetensors` holds all numbers. No file of a name that other loaders
look for holds weights, so that sentence-transformers alone refuses the folder instead of filling layers at random.
"""

import json
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from geo_mf.errors import InvalidInput
from geo_mf.files import replace as write_file
from geo_mf.files import sync_folder

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["LISTING", "Thin", "fill", "is_thin", "layers_in", "made_thin", "save", "skeleton", "state_of"]

LISTING = "lowrank.json"
WEIGHTS = "lowrank.safetensors"
_FORMAT = 1
_MAX_BYTES = 16 * 2**20
_MOST = 100
"""How many times as large the original's weights may be: what a damaged folder can make a reader ask for has an end."""


@dataclass(frozen=True)
class Thin:
    """One replaced layer, or several that shared one weight.

    Attributes:
        names: in the model.
        kind: of layer.
        rank: of the two thin matrices.
    """

    names: tuple[str, ...]
    kind: Literal["linear", "table"]
    rank: int


def is_thin(folder: Path) -> bool:
    """Whether a compressed model lies there."""
    return (folder / LISTING).is_file()


def layers_in(folder: Path) -> list[Thin]:
    """What `lowrank.json` lists. Raises InvalidInput, naming the file, for anything that was not written here."""
    file = folder / LISTING
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
        found = json.loads(file.read_bytes())
        if found["format"] != _FORMAT:
            raise ValueError(f"its format is {found['format']!r}, this version reads {_FORMAT}")
        return [_checked(one) for one in found["layers"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidInput(
            f"{str(file)!r} does not describe a compressed model ({error}); compress it again"
        ) from error


def _checked(one: Mapping[str, Any]) -> Thin:
    names, kind, rank = one["names"], one["kind"], one["rank"]
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise ValueError(f"names are {names!r}")
    if kind not in ("linear", "table") or isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"the layer {names[0]!r} is {kind!r} of rank {rank!r}")
    return Thin(tuple(names), kind, rank)


def made_thin(model: "nn.Module", layers: Sequence[Thin]) -> None:
    """Put thin layers of the ranks that are listed in the places that are listed; their numbers mean nothing yet."""
    import numpy as np
    from torch import nn

    from geo_mf.text.thin_layers import Group, replace, replace_table

    for layer in layers:
        kind = nn.Linear if layer.kind == "linear" else nn.Embedding
        modules = [model.get_submodule(name) for name in layer.names]
        module = modules[0]
        for name, other in zip(layer.names, modules, strict=True):
            if type(other) is not kind:
                raise InvalidInput(f"{name!r} is a {type(other).__name__}; expected a {kind.__name__}")
            if _shape(other) != _shape(module):
                raise InvalidInput(
                    f"{name!r} of {_by(other)} numbers cannot share a weight with {layer.names[0]!r} of {_by(module)}"
                )
        rows, columns = _shape(module)
        if layer.rank > min(rows, columns):
            raise InvalidInput(f"{layer.names[0]!r} of {_by(module)} numbers has no rank {layer.rank}")
        put = replace if layer.kind == "linear" else replace_table
        put(model, Group(layer.names, module), np.zeros((rows, layer.rank)), np.zeros((layer.rank, columns)))


def _shape(module: "nn.Module") -> tuple[int, int]:
    rows, columns = cast("torch.Tensor", module.weight).shape
    return rows, columns


def _by(module: "nn.Module") -> str:
    return " x ".join(map(str, _shape(module)))


def fill(model: "nn.Module", folder: Path) -> None:
    """Make a model with random weights the compressed one. Every number has to be there, and none may be left over."""
    import torch
    from safetensors.torch import load_file

    with torch.random.fork_rng(devices=[]):  # new layers draw numbers: the caller's next ones stay what they were
        made_thin(model, layers_in(folder))
    found = load_file(folder / WEIGHTS)
    state = model.state_dict()
    shared = _shared(state)
    model.load_state_dict(found | {name: found[first] for name, first in shared.items() if first in found}, strict=True)


def _shared(state: Mapping[str, Any]) -> dict[str, str]:
    """Names of tensors that lie where another one lies -> the name of that one."""
    first: dict[tuple[int, tuple[int, ...]], str] = {}
    again: dict[str, str] = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if tensor.numel() and key in first:
            again[name] = first[key]
        else:
            first[key] = name
    return again


def state_of(model: "nn.Module") -> dict[str, Any]:
    """All numbers of a model, those that are shared once: what safetensors can hold."""
    state = model.state_dict()
    again = _shared(state)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items() if name not in again}


@contextmanager
def skeleton(folder: Path, files: Sequence[Path], transformers: Sequence[str]) -> Iterator[Path]:
    """A copy of the folder, with zeros where its transformers' weights were: what the library can load.

    Args:
        folder: of a compressed model.
        files: of it, that a loader reads.
        transformers: sub-folders of its transformer modules.

    Raises:
        InvalidInput: its settings describe a model that its numbers cannot be one of.
    """
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / "model"
        for file in files:
            if file != folder / WEIGHTS:
                target = place / file.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        for inner in transformers:
            _write_zeros(place / inner / "model.safetensors", _described(folder, folder / inner))
        yield place


def _described(folder: Path, inner: Path) -> "dict[str, torch.Tensor]":
    """Names, shapes and kinds of a transformer's numbers as its settings have them, without any memory for them."""
    import torch
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModel

    with safe_open(folder / WEIGHTS, framework="pt") as file:
        held = len(file.keys())
    config = AutoConfig.from_pretrained(inner, local_files_only=True, trust_remote_code=False)
    for name, value in _settings(config.to_dict()):
        if "layers" in name and isinstance(value, int) and value > max(held, 100):
            raise InvalidInput(f"{name} is {value}, and there are {held} arrays; the folder is damaged: compress again")
    with torch.device("meta"):
        state = AutoModel.from_config(config, dtype=torch.float32).state_dict()
    size, found = 4 * sum(one.numel() for one in state.values()), (folder / WEIGHTS).stat().st_size
    if size > _MOST * found:
        raise InvalidInput(
            f"its settings describe {size:,} bytes of weights, and {WEIGHTS} has {found:,}; expected at most {_MOST} "
            "times as many: the folder is damaged, compress again"
        )
    return state


def _settings(found: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values, also of settings within settings."""
    for name, value in found.items():
        if isinstance(value, dict):
            yield from _settings(value)
        else:
            yield str(name), value  # such as the numbers of labels


def _write_zeros(file: Path, state: "Mapping[str, torch.Tensor]") -> None:
    """A safetensors file of zeros, which are a hole in it: neither memory nor disk is used for them."""
    import torch

    kinds = {torch.float32: "F32", torch.int64: "I64", torch.bool: "BOOL"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in state.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": kinds[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    words = json.dumps(header).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(words)) + words)
        stream.truncate(stream.tell() + end)


def save(
    model: "nn.Module", source: Sequence[Path], root: Path, place: Path, layers: Sequence[Thin], about: Any
) -> None:
    """Write a compressed model.

    Args:
        model: with thin layers.
        source: files of the original's folder, without its transformers' weights.
        root: of that folder.
        place: a new folder; its parent is there.
        layers: which were replaced.
        about: JSON: where it comes from.

    Raises:
        OSError: a file could not be written.
    """
    from safetensors.torch import save as to_bytes

    place.mkdir()
    for file in source:
        target = place / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(target, file.read_bytes())
    listing = {"format": _FORMAT, "from": about, "layers": [asdict(layer) for layer in layers]}
    write_file(place / WEIGHTS, to_bytes(state_of(model), metadata={"format": "pt"}))
    write_file(place / LISTING, json.dumps(listing, indent=1).encode())
    for folder in {target.parent for target in place.rglob("*")} | {place}:
        sync_folder(folder)
