"""Text -> unit vectors through onnxruntime: a folder written by `export_onnx`, without torch."""

import json
import os
import threading
from collections.abc import Sequence
from functools import cached_property
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np

from geo_mf.errors import InvalidInput, MissingExtra
from geo_mf.text.rows import Kind, check_kind, distinct_texts, spread, unit, well_formed, whole
from geo_mf.threads import count

__all__ = ["GRAPH", "LISTING", "TOKENIZER", "OnnxEncoder", "is_onnx"]

GRAPH, TOKENIZER, LISTING = "model.onnx", "tokenizer.json", "onnx.json"
_FILES = (GRAPH, TOKENIZER, LISTING)
_FORMAT = 1
_MAX_JSON_BYTES = 64 * 2**20
# As SentenceEncoder: what lies beyond so many characters for each token that counts is cut unread.
_CHARACTERS_PER_TOKEN = 20
# Fused operators whose loops are not vectorised: what they are made of takes a fifth of their time.
_SLOWER = ["SkipLayerNormFusion", "BiasGeluFusion"]


def is_onnx(folder: Path) -> bool:
    """Whether a folder written by `export_onnx` lies there."""
    return (folder / LISTING).is_file()


class OnnxEncoder:
    """An encoder in one ONNX graph, run by onnxruntime on the CPU. See `export_onnx`.

    Construction is cheap; the graph is loaded by the first `encode`. One encoder may be shared by threads: they take
    turns. It needs the extra `onnx`, and no torch.
    """

    def __init__(self, folder: str | os.PathLike[str], *, batch_size: int = 32, threads: int | None = None) -> None:
        """`folder`: written by `export_onnx`. `threads`: of this encoder; None takes what `set_threads` chose.

        Raises `InvalidInput` for an unfit folder or a setting out of range.
        """
        self._name = os.fspath(folder)
        self._folder = Path(os.path.expanduser(self._name))
        self._batch_size = whole("batch_size", batch_size, 1, 2**20)
        self._threads = None if threads is None else whole("threads", threads, 1, 4096)
        self._lock = threading.RLock()
        self._loaded: tuple[Any, Any] | None = None
        if not self._folder.is_dir():
            raise InvalidInput(f"no model folder at {str(self._folder)!r}; expected one that export_onnx has written")
        missing = [name for name in _FILES if not (self._folder / name).is_file()]
        if missing:
            raise InvalidInput(
                f"{str(self._folder)!r} has no {missing[0]}; expected a folder that export_onnx has written"
            )
        self._settings = self._read_settings()

    @property
    def name(self) -> str:
        place = self._folder.resolve()
        # Beside a compressed model the folder is only called "onnx": the name of both says more.
        return f"{place.parent.name}/{place.name}" if place.name.startswith("onnx") else place.name

    @property
    def dim(self) -> int:
        return self._settings["dim"]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over its files: another one than that of the encoder it was made of."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        lines = ["geo_mf OnnxEncoder 1"]
        for name in _FILES:
            with (self._folder / name).open("rb") as file:
                lines.append(f"{file_digest(file, 'sha256').hexdigest()} {name}")
        return sha256("\n".join(lines).encode()).hexdigest()

    def spec(self) -> dict[str, Any]:
        return {"kind": "onnx", "folder": self._name}

    def encode(self, texts: Sequence[str], *, kind: Kind = "document", show_progress: bool = False) -> np.ndarray:
        """As `TextEncoder.encode`. Texts are sorted by their number of tokens, so that a batch holds little padding."""
        check_kind(kind)
        distinct, rows = distinct_texts(texts)
        vectors = np.zeros((len(distinct), self.dim), np.float32)
        if distinct:
            from tqdm.auto import tqdm

            with (
                self._lock,
                tqdm(total=len(distinct), desc="Encoding", unit=" texts", disable=not show_progress) as bar,
            ):
                for some, found in self._batches(distinct, self._settings["prompts"][kind]):
                    vectors[some] = found
                    bar.update(len(some))
        return spread(unit(vectors, self.name, distinct), rows)

    def _batches(self, texts: list[str], prompt: str) -> Any:
        session, tokenizer = self._load()
        pad = self._settings["pad_id"]
        limit = self._settings["max_tokens"] * _CHARACTERS_PER_TOKEN
        held = 64 * self._batch_size  # tokens of so many texts are held at once, and sorted
        for start in range(0, len(texts), held):
            stretch = [
                well_formed(prompt + (text if len(text) <= limit else text.lstrip()[:limit]))
                for text in texts[start : start + held]
            ]
            tokens = [one.ids for one in tokenizer.encode_batch(stretch)]
            order = np.argsort([len(one) for one in tokens], kind="stable")
            for at in range(0, len(order), self._batch_size):
                some = order[at : at + self._batch_size]
                width = max(len(tokens[row]) for row in some)
                ids = np.full((len(some), width), pad, np.int64)
                mask = np.zeros((len(some), width), np.int64)
                for place, row in enumerate(some):
                    ids[place, : len(tokens[row])] = tokens[row]
                    mask[place, : len(tokens[row])] = 1
                yield start + some, self._vectors(session, ids, mask)

    def _vectors(self, session: Any, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """float32 [texts, dim]."""
        try:
            found = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        # The runtime has its own errors, such as for a token that the graph's table has no row for.
        except Exception as error:
            raise self._unfit(error) from error
        if found.shape != (len(ids), self.dim):
            raise self._unfit(f"it gives {found.shape} for {len(ids)} texts of {self.dim} numbers")
        return found

    def _unfit(self, reason: object) -> InvalidInput:
        words = f"{type(reason).__name__}: {reason}" if isinstance(reason, Exception) else reason
        return InvalidInput(
            f"graph, tokenizer and settings in {str(self._folder)!r} do not fit together ({words}); export it again"
        )

    def _load(self) -> tuple[Any, Any]:
        """Session and tokenizer."""
        if self._loaded is None:
            try:
                import onnxruntime
                from tokenizers import Tokenizer
            except ImportError as error:
                raise MissingExtra(f"{error}; running ONNX needs: pip install 'geo_mf[onnx]'") from error
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self._threads or count()
            options.log_severity_level = 3
            graph = self._folder / GRAPH
            try:
                session = onnxruntime.InferenceSession(
                    str(graph), options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOWER
                )
                tokenizer = Tokenizer.from_file(str(self._folder / TOKENIZER))
            # A damaged file: each library has its own error for it.
            except Exception as error:
                raise InvalidInput(
                    f"the model in {str(self._folder)!r} could not be loaded ({type(error).__name__}: {error}); "
                    "export it again"
                ) from error
            tokenizer.enable_truncation(self._settings["max_tokens"], direction=self._settings.get("cut", "right"))
            self._loaded = session, tokenizer
        return self._loaded

    def _read_settings(self) -> dict[str, Any]:
        file = self._folder / LISTING
        try:
            if file.stat().st_size > _MAX_JSON_BYTES:
                raise ValueError(f"it is larger than {_MAX_JSON_BYTES} bytes")
            found = json.loads(file.read_bytes())
            if found["format"] != _FORMAT:
                raise ValueError(f"its format is {found['format']!r}, this version reads {_FORMAT}")
            whole("dim", found["dim"], 1, 2**20)
            whole("max_tokens", found["max_tokens"], 3, 2**20)
            whole("pad_id", found["pad_id"], 0, 2**31)
            if found.get("cut", "right") not in ("left", "right"):
                raise ValueError(f"texts are cut at the {found['cut']!r}")
            if not all(isinstance(found["prompts"][kind], str) for kind in ("document", "query")):
                raise ValueError("its prompts are no texts")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InvalidInput(f"{str(file)!r} does not describe an encoder ({error}); export it again") from error
        return found
