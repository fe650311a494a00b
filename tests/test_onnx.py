"""The same encoder through onnxruntime: equal to torch's, near it with 8 bits, and one of its own for an index."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import small_catalog, small_interactions
from test_compress import FAMILIES, TEXTS, write_model
from test_encoder import run_python

import geo_mf as gm
from geo_mf.errors import IncompatibleIndex, InvalidInput
from geo_mf.text.compress import compress
from geo_mf.text.encoder import SentenceEncoder, encoder_from_spec, encoder_named
from geo_mf.text.onnx_encoder import OnnxEncoder
from geo_mf.text.onnx_export import export_onnx

ODD = [*TEXTS, "kada " * 100, "unknown words", "", "  ", "\ud800"]

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[SentenceEncoder, Path]:
    """A compressed encoder, and its two exports beside it."""
    small = compressed(tmp_path_factory.mktemp("bert"), "bert")
    before = small.fingerprint
    folder = Path(small.spec()["model"])
    export_onnx(small, folder / "onnx")
    export_onnx(small, folder / "onnx-int8", int8=True)
    assert SentenceEncoder(folder).fingerprint == before  # what lies beside it does not change it
    return small, folder


@pytest.fixture
def folder(pair: tuple[SentenceEncoder, Path]) -> Path:
    return pair[1] / "onnx"


def compressed(place: Path, family: str) -> SentenceEncoder:
    original = SentenceEncoder(write_model(place, family), device="cpu", threads=1)
    made = compress(original, TEXTS, place / "small", ratio=0.6, distill_epochs=0)
    return SentenceEncoder(made.out, device="cpu", threads=1)


def test_torch_onnx_and_eight_bits_give_the_same_vectors(pair: tuple[SentenceEncoder, Path]) -> None:
    torch_encoder, folder = pair
    wanted = torch_encoder.encode(ODD)
    np.testing.assert_allclose(OnnxEncoder(folder / "onnx", threads=1).encode(ODD), wanted, atol=2e-6)
    rounded = OnnxEncoder(folder / "onnx-int8", threads=1).encode(ODD)
    assert (rounded * wanted).sum(1)[:62].min() > 0.99
    assert not rounded[62:64].any()


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "bert"])
def test_the_other_families_too(family: str, tmp_path: Path) -> None:
    small = compressed(tmp_path, family)
    exported = OnnxEncoder(export_onnx(small, tmp_path / "exported"), threads=1)
    np.testing.assert_allclose(exported.encode(ODD), small.encode(ODD), atol=2e-6)


def test_the_contract_of_encoders(folder: Path) -> None:
    encoder = OnnxEncoder(folder, batch_size=4, threads=1)
    vectors = encoder.encode([*TEXTS, "", *TEXTS[:2]])
    assert vectors.dtype == np.float32 and vectors.shape == (63, encoder.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors[:60], axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors[61:], vectors[:2])
    assert not vectors[60].any()
    for row in (0, 7):
        np.testing.assert_allclose(encoder.encode([TEXTS[row]])[0], vectors[row], atol=1e-5)
    assert encoder.encode([]).shape == (0, encoder.dim)
    again = encoder_from_spec(json.loads(json.dumps(encoder.spec())))
    assert (again.fingerprint, again.dim, again.name) == (encoder.fingerprint, encoder.dim, encoder.name)
    with pytest.raises(InvalidInput, match="lone str"):
        encoder.encode("kada")
    assert isinstance(encoder_named(str(folder)), OnnxEncoder) and encoder.name == "small/onnx"
    assert isinstance(encoder_named("hash"), gm.HashEncoder)


def test_it_needs_no_torch(folder: Path) -> None:
    code = """
import sys
for name in ("torch", "transformers", "sentence_transformers", "onnx", "onnxscript"): sys.modules[name] = None
from geo_mf.text.onnx_encoder import OnnxEncoder
print(OnnxEncoder(sys.argv[1]).encode(["kada lofe"]).shape)
"""
    done = run_python(code, str(folder))
    assert (done.stdout, done.stderr) == ("(1, 24)\n", "")


def test_export_says_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    code = """
import logging, sys
from pathlib import Path
from geo_mf.text.encoder import SentenceEncoder
from geo_mf.text.onnx_export import export_onnx
place = export_onnx(SentenceEncoder(sys.argv[1], device="cpu"), Path(sys.argv[1]) / "onnx-int8", int8=True)
print(sorted(path.name for path in place.iterdir()), logging.getLogger().handlers)
"""
    model = write_model(tmp_path)
    done = run_python(code, str(model))
    assert (done.stdout, done.stderr) == ("['model.onnx', 'onnx.json', 'tokenizer.json'] []\n", "")
    assert not [path for path in model.iterdir() if path.name.startswith(".")]


def cut(folder: Path) -> None:
    with (folder / "model.onnx").open("r+b") as graph:
        graph.truncate(1000)


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a graph cut short": (cut, "could not be loaded"),
    "no graph": (lambda folder: (folder / "model.onnx").unlink(), "has no model.onnx"),
    "no settings": (lambda folder: (folder / "onnx.json").write_text("[]"), "does not describe"),
    "another format": (lambda folder: (folder / "onnx.json").write_text('{"format": 9}'), "its format is 9"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "could not be loaded"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_folder_is_refused(folder: Path, tmp_path: Path, case: str) -> None:
    change, message = DAMAGED[case]
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = OnnxEncoder(folder).fingerprint
    change(copy)
    with pytest.raises(InvalidInput, match=message):
        found = OnnxEncoder(copy)
        assert found.fingerprint != before
        found.encode(["kada"])


def test_a_folder_that_is_there_stays(folder: Path, tmp_path: Path) -> None:
    encoder = SentenceEncoder(device="cpu")
    with pytest.raises(InvalidInput, match="is there already"):
        export_onnx(encoder, folder)
    with pytest.raises(InvalidInput, match="make it first"):
        export_onnx(encoder, tmp_path / "no" / "such")


def test_an_index_knows_which_of_them_built_it(pair: tuple[SentenceEncoder, Path], tmp_path: Path) -> None:
    small, folder = pair
    config = gm.BuildConfig.of(factors=8, iterations=2, cache=False, learn_blend=False, encoder=str(folder / "onnx"))
    gm.build(small_interactions(), small_catalog(), out=tmp_path / "index", config=config)
    rec = gm.load(tmp_path / "index")
    assert rec.recommend(text="kada lofe", k=3).ids
    assert rec.card["encoder_name"] == "small/onnx"
    fingerprints = {small.fingerprint, *(OnnxEncoder(folder / one).fingerprint for one in ("onnx", "onnx-int8"))}
    assert len(fingerprints) == 3
    for other in (small, OnnxEncoder(folder / "onnx-int8")):
        with pytest.raises(IncompatibleIndex):
            gm.load(tmp_path / "index", encoder=other)
