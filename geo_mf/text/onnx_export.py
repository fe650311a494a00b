"""An encoder as one ONNX graph, from tokens to unit vectors, with weights of 32 or of 8 bits.

The folder that is written holds `model.onnx`, the tokenizer and `onnx.json`, and needs neither torch nor transformers
to be used (onnx_encoder.py).
"""

import importlib.util
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geo_mf import files
from geo_mf.errors import InvalidInput, MissingExtra
from geo_mf.text.encoder import SentenceEncoder
from geo_mf.text.onnx_encoder import GRAPH, LISTING, TOKENIZER
from geo_mf.text.onnx_rounding import rounded
from geo_mf.text.rows import Kind

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedTokenizerFast

__all__ = ["check_packages", "export_onnx"]

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def export_onnx(encoder: SentenceEncoder, out: str | os.PathLike[str], *, int8: bool = False) -> Path:
    """Write `encoder` to the new folder `out` as an ONNX graph; `OnnxEncoder(out)` runs it.

    Args:
        encoder: a transformer that reads tokens and a mask, compressed or not.
        out: a new folder; it appears whole or not at all.
        int8: round the weights of every matrix product and the word tables to 8 bits, and what is multiplied when it
            comes, each token on its own scale. A quarter of the memory, faster where the processor has instructions
            for it, and a little less exact. See onnx_rounding.py.

    Raises:
        InvalidInput: `out` is there, or the model is not of that kind.
        MissingExtra: the packages for it are not installed.
        OSError: a file could not be written.
    """
    place = Path(os.path.expanduser(out))
    if place.exists() or place.is_symlink():
        raise InvalidInput(f"{str(place)!r} is there already; give a folder that is not, or delete it first")
    if not place.parent.is_dir():
        raise InvalidInput(f"there is no folder {str(place.parent)!r} to put {place.name!r} in; make it first")
    check_packages()
    model = encoder.opened()[1]
    tokenizer = _tokenizer(encoder, model)
    prompts = _prompts(encoder, model)
    about = {
        "format": 1,
        "dim": encoder.dim,
        "max_tokens": model.max_seq_length or 512,
        "pad_id": tokenizer.pad_token_id or 0,
        "cut": tokenizer.truncation_side,
        "int8": int8,
        "prompts": prompts,
        "from": {"encoder": encoder.name, "fingerprint": encoder.fingerprint},
    }
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        _write_graph(encoder, model.cpu().eval(), made / GRAPH)
        if int8:
            _round(made / GRAPH)
        files.replace(made / TOKENIZER, _as_json(tokenizer).encode())
        files.replace(made / LISTING, json.dumps(about, indent=1).encode())
        files.sync_folder(made)
        made.rename(place)
    files.sync_folder(place.parent)
    return place


def check_packages() -> None:
    """Raise `MissingExtra` unless what `export_onnx` needs is installed."""
    absent = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise MissingExtra(f"{absent[0]} is not installed; writing ONNX needs: pip install 'geo_mf[onnx]'")


def _prompts(encoder: SentenceEncoder, model: Any) -> dict[str, str]:
    """What is put before documents and queries, which the graph reads as part of the text."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    from geo_mf.text.thin_layers import prompt_of

    kinds: tuple[Kind, ...] = ("document", "query")
    prompts = {kind: prompt_of(model, kind) for kind in kinds}
    if any(prompts.values()) and any(isinstance(one, Pooling) and not one.include_prompt for one in model):
        raise InvalidInput(
            f"{encoder.name} leaves its prompt out of the mean, which the graph cannot; use it with torch"
        )
    return prompts


def _tokenizer(encoder: SentenceEncoder, model: "SentenceTransformer") -> "PreTrainedTokenizerFast":
    """The tokenizer. Only one that the graph can be fed with is accepted."""
    from sentence_transformers.sentence_transformer.modules import Transformer
    from transformers import PreTrainedTokenizerFast

    first = model[0]
    tokenizer = first.tokenizer if isinstance(first, Transformer) else None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InvalidInput(f"{encoder.name} has no fast tokenizer; save its tokenizer as tokenizer.json")
    if tokenizer.padding_side != "right":
        raise InvalidInput(
            f"{encoder.name} pads on the {tokenizer.padding_side}; only models that pad on the right are run"
        )
    return tokenizer


def _as_json(tokenizer: "PreTrainedTokenizerFast") -> str:
    inner = tokenizer.backend_tokenizer
    inner.no_truncation()
    inner.no_padding()
    return inner.to_str()


def _write_graph(encoder: SentenceEncoder, model: Any, file: Path) -> None:
    import torch

    prepared = model.preprocess(["a text", "b"])
    if "input_ids" not in prepared or "attention_mask" not in prepared:
        raise InvalidInput(f"{encoder.name} reads {sorted(prepared)}; expected a transformer over tokens")
    longest = model.max_seq_length or 512
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=1, max=longest)
    with _quiet():
        try:
            program = torch.onnx.export(
                _whole(model),
                (prepared["input_ids"], prepared["attention_mask"]),
                dynamo=True,
                dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: length}),
                input_names=["input_ids", "attention_mask"],
                output_names=["sentence_embedding"],
                verbose=False,
            )
        # The exporter has its own error for each of its steps; what they say is for its makers.
        except Exception as error:
            raise InvalidInput(
                f"{encoder.name} could not be written as ONNX ({type(error).__name__}: {error}); use it with torch"
            ) from error
    if program is None:
        raise InvalidInput(f"{encoder.name} could not be written as ONNX; use it with torch")
    program.save(str(file), external_data=False)


def _whole(model: Any) -> "torch.nn.Module":
    """From tokens and mask to unit vectors."""
    import torch

    from geo_mf.text.thin_layers import unit_rows

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            found = self.model({"input_ids": input_ids, "attention_mask": attention_mask})
            return unit_rows(self.model, found)

    return Whole().eval()


def _round(file: Path) -> None:
    """Round the numbers of a graph to 8 bits, in place."""
    import onnx

    model = onnx.load(file)
    rounded(model)
    onnx.save(model, file)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks about themselves."""
    root, nowhere = logging.getLogger(), logging.NullHandler()
    before = logging.root.manager.disable
    root.addHandler(nowhere)  # or the first remark would set up the root's own handler, for good
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        root.removeHandler(nowhere)
