"""A saved sentence-transformers model as data: checked, measured and hashed before anything is loaded.

The folder holds `modules.json` (which modules, in which sub-folders), their JSON settings, tokenizer files and
safetensors weights; a compressed model has `lowrank.json` besides. Only `ModelFolder.open` imports torch.
"""

import hashlib
import json
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from geo_mf.errors import InvalidInput, MissingExtra
from geo_mf.text import thin_folder
from geo_mf.threads import chosen

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["ModelFolder", "download"]

_READ_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".safetensors")
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_CLASS_NAME = re.compile(r"sentence_transformers(\.[A-Za-z_][A-Za-z0-9_]*)+")
_SETTINGS = "config_sentence_transformers.json"
_MAX_JSON_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ModelFolder:
    """One local model folder. Construction checks it and raises `InvalidInput` naming the file at fault.

    Refused: no `modules.json` or `config.json`; a module class outside sentence_transformers (it would run code that
    the folder chooses); a module path that leaves the folder; weights that exist only as pickles; adapters and
    tokenizers whose other half lives elsewhere (a fingerprint could not cover them).
    """

    path: Path

    def __post_init__(self) -> None:
        if not self.path.is_dir():
            raise InvalidInput(
                f"no model folder at {str(self.path)!r}; expected a folder saved by sentence-transformers"
            )
        for name, folder in self.modules:
            _check_module(self.path, name, folder)
        for folder in self._module_folders:
            _check_weights(folder)
            for inner in sorted(folder.rglob("*/")) if folder != self.path else ():
                _check_weights(inner)
        if not any(file.suffix == ".safetensors" for file in self.files):
            raise InvalidInput(f"{str(self.path)!r} holds no .safetensors weights; save the model with safetensors")
        if thin_folder.is_thin(self.path):
            thin_folder.layers_in(self.path)
        elsewhere = self._transformer_settings.get("tokenizer_name_or_path")
        if elsewhere is not None:
            raise InvalidInput(
                f"{str(self.path)!r} takes its tokenizer from {elsewhere!r}, outside the folder; "
                "save the model again with its tokenizer inside"
            )

    @cached_property
    def modules(self) -> tuple[tuple[str, str], ...]:
        """(class name, sub-folder) in the order of application; a bare transformer gets mean pooling."""
        listing = self.path / "modules.json"
        if listing.exists():
            entries = _read_json(listing)
            try:
                return tuple((str(entry["type"]), str(entry["path"])) for entry in entries)
            except (TypeError, KeyError) as error:
                raise InvalidInput(
                    f"{str(listing)!r} is not a list of modules with a type and a path; save the model again"
                ) from error
        if (self.path / "config.json").exists():
            return (("sentence_transformers.models.Transformer", ""),)
        raise InvalidInput(
            f"{str(self.path)!r} has neither modules.json nor config.json; "
            "expected a folder saved by sentence-transformers or transformers"
        )

    @property
    def transformers(self) -> tuple[str, ...]:
        """Sub-folders of the modules that are transformers."""
        return tuple(folder for name, folder in self.modules if name.rsplit(".", 1)[-1] == "Transformer")

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Every file below the folder that the loader may read, sorted by its relative path."""
        found = {file for folder in self._module_folders for file in _readable_files(folder, deep=folder != self.path)}
        found.update(_readable_files(self.path, deep=False))
        return tuple(sorted(found, key=self._relative))

    @cached_property
    def dim(self) -> int | None:
        """Length of one vector as the settings declare it, or None where only loading can tell."""
        truncated = self._settings.get("truncate_dim")
        for name, folder in reversed(self.modules):
            full = _module_dim(name.rsplit(".", 1)[-1], self.path / folder)
            if full is not None:
                return min(full, truncated) if isinstance(truncated, int) else full
        return None

    @cached_property
    def max_tokens(self) -> int | None:
        """Tokens of one text that the model reads unless told otherwise; None = no declared limit."""
        declared = self._transformer_settings.get("max_seq_length")
        return declared if isinstance(declared, int) else self.max_positions

    @cached_property
    def max_positions(self) -> int | None:
        """Tokens that the position table allows at most; None = no declared limit."""
        config = self.path / "config.json"
        value = _read_settings(config).get("max_position_embeddings") if config.exists() else None
        return value if isinstance(value, int) and value > 0 else None

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of every readable file, by its relative path with forward slashes."""
        hashes = {}
        for file in self.files:
            with file.open("rb") as stream:
                hashes[self._relative(file)] = hashlib.file_digest(stream, "sha256").hexdigest()
        # Only what changes vectors counts here: the same model saved by two library versions is the same model.
        if _SETTINGS in hashes:
            kept = {key: value for key, value in self._settings.items() if key != "__version__"}
            hashes[_SETTINGS] = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
        return hashes

    def open(self, device: str | None = None, threads: int | None = None) -> "SentenceTransformer":
        """The model, in float32, loaded from this folder alone and without running code that came with it.

        `threads` sets torch's threads for the whole process; None takes what `set_threads` chose, or leaves them.
        Raises `InvalidInput` when the weights or the device cannot be used, `MissingExtra` without
        sentence-transformers.
        """
        try:
            with _quiet():
                import torch
                from sentence_transformers import SentenceTransformer

                if wanted := threads or chosen():
                    torch.set_num_threads(wanted)
                thin = thin_folder.is_thin(self.path)
                made = (
                    thin_folder.skeleton(self.path, self.files, self.transformers) if thin else nullcontext(self.path)
                )
                with made as place:
                    model = SentenceTransformer(
                        str(place),
                        device=device,
                        local_files_only=True,
                        trust_remote_code=False,
                        # Half precision is a hundred times slower on a CPU, and vectors would depend on the device.
                        model_kwargs={"dtype": "float32", "use_safetensors": True},
                    )
                if thin:
                    thin_folder.fill(model, self.path)
                return model
        except ModuleNotFoundError as error:
            raise MissingExtra(f"{error}; encoding text needs: pip install sentence-transformers") from error
        # A damaged file, an unknown architecture, a device that is not there: each library has its own error for it.
        except Exception as error:
            raise InvalidInput(
                f"the model in {str(self.path)!r} could not be loaded on device {device or 'default'!r} "
                f"({type(error).__name__}: {error}); check the folder and the device"
            ) from error

    def _relative(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix()

    @property
    def _module_folders(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(self.path / folder for _, folder in self.modules))

    @cached_property
    def _settings(self) -> dict[str, Any]:
        file = self.path / _SETTINGS
        return _read_settings(file) if file.exists() else {}

    @cached_property
    def _transformer_settings(self) -> dict[str, Any]:
        files = sorted(self.path.glob("sentence_*_config.json"))
        return _read_settings(files[0]) if files else {}


def download(repository: str) -> ModelFolder:
    """A hub model's folder in the hub's own cache: settings, vocabularies and safetensors weights, nothing else.

    Raises `InvalidInput` holding the hub's reason when the model cannot be had.
    """
    try:
        with _quiet():
            from huggingface_hub import snapshot_download

            patterns = [f"*{suffix}" for suffix in _READ_SUFFIXES]
            folder = snapshot_download(repository, allow_patterns=patterns, ignore_patterns=["onnx/*", "openvino/*"])
    # The hub's client raises OSError, ValueError and its transport's own errors; each means "not to be had now".
    except Exception as error:
        raise InvalidInput(
            f"model {repository!r} is not on this machine and could not be fetched from the hub "
            f"({type(error).__name__}: {error}); give a local model folder"
        ) from error
    return ModelFolder(Path(folder))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bar for each weight and the hub's remarks; warnings about the weights themselves stay.

    The libraries' settings are put back afterwards.
    """
    import huggingface_hub.utils
    import transformers.utils.logging

    bars = transformers.utils.logging.is_progress_bar_enabled()
    verbosity = huggingface_hub.utils.logging.get_verbosity()
    transformers.utils.logging.disable_progress_bar()
    huggingface_hub.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        huggingface_hub.utils.logging.set_verbosity(verbosity)
        if bars:
            transformers.utils.logging.enable_progress_bar()


def _read_json(file: Path) -> Any:
    if file.stat().st_size > _MAX_JSON_BYTES:
        raise InvalidInput(f"{str(file)!r} is larger than {_MAX_JSON_BYTES} bytes; expected a settings file")
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{str(file)!r} is not valid JSON ({error}); save the model again") from error


def _read_settings(file: Path) -> dict[str, Any]:
    settings = _read_json(file)
    if not isinstance(settings, dict):
        raise InvalidInput(f"{str(file)!r} holds a {type(settings).__name__}; expected an object of settings")
    return settings


def _check_module(root: Path, name: str, folder: str) -> None:
    if not _CLASS_NAME.fullmatch(name):
        raise InvalidInput(
            f"modules.json in {str(root)!r} names the class {name!r}; only classes of sentence_transformers are "
            "loaded, because any other class would run code that came with the model"
        )
    # Both spellings, so that a folder is refused alike on every system.
    windows = PureWindowsPath(folder)
    if windows.anchor or ".." in windows.parts or "\0" in folder or PurePosixPath(folder).is_absolute():
        raise InvalidInput(f"modules.json in {str(root)!r} names the path {folder!r}; expected one inside the folder")


def _check_weights(folder: Path) -> None:
    if not folder.is_dir():
        # A module without settings (Normalize) is often listed with a folder that was never written.
        return
    names = sorted(file.name for file in folder.iterdir())
    if "adapter_config.json" in names:
        raise InvalidInput(
            f"{str(folder)!r} holds an adapter, whose base model lies elsewhere; merge both and save the merged model"
        )
    pickles = [name for name in names if name.endswith(_PICKLE_SUFFIXES) and name != "training_args.bin"]
    if pickles and not any(name.endswith(".safetensors") for name in names):
        raise InvalidInput(
            f"{str(folder)!r} has its weights only in {pickles[0]!r}, a format that can run code when it is read; "
            "convert them to model.safetensors (save_pretrained does so)"
        )


def _readable_files(folder: Path, *, deep: bool) -> Iterator[Path]:
    for file in folder.rglob("*") if deep else folder.glob("*"):
        if file.suffix in _READ_SUFFIXES and file.is_file():
            yield file


def _module_dim(kind: str, folder: Path) -> int | None:
    """Length of the vectors that leave one module; None when it only passes them on, or cannot say."""
    if kind == "StaticEmbedding":
        return _table_width(folder / "model.safetensors")
    config = folder / "config.json"
    if not config.exists():
        return None
    settings = _read_settings(config)
    if kind == "Dense":
        return settings.get("out_features")
    if kind == "Transformer":
        return settings.get("hidden_size")
    if kind == "Pooling":
        width = settings.get("embedding_dimension", settings.get("word_embedding_dimension"))
        modes = settings.get("pooling_mode")
        if modes is None:
            count = sum(value is True for key, value in settings.items() if key.startswith("pooling_mode_"))
        else:
            count = 1 if isinstance(modes, str) else len(modes)
        return None if width is None else width * max(count, 1)
    return None


def _table_width(weights: Path) -> int | None:
    """Second axis of an embedding table, from the header of its safetensors file (u64 length, then JSON)."""
    try:
        with weights.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, _MAX_JSON_BYTES)))
        table = header.get("embedding.weight", header.get("embeddings"))
        return int(table["shape"][1])
    except (OSError, ValueError, struct.error, KeyError, TypeError, IndexError):
        return None  # the loader will say what is wrong with the file, in its own words
