"""The same encoder through onnxruntime: equal to torch's, near it with 8 bits, and one of its own for an index."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from geo_mf.text.onnx_rounding import rounded

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


def test_with_8_bits_too_a_vector_depends_on_nothing_but_its_text(pair: tuple[SentenceEncoder, Path]) -> None:
    encoder = OnnxEncoder(pair[1] / "onnx-int8", threads=1)
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS[:20]])
    np.testing.assert_allclose(alone, together[:20], atol=1e-6)


def rounding_graph(random: np.random.Generator) -> Any:
    """A table, two thin matrices on it, one of them read a second time, and the second product used as it is."""
    from onnx import TensorProto, helper, numpy_helper

    arrays = {
        "table": random.normal(size=(1500, 32)) * random.exponential(size=(1500, 1)),
        "down": random.normal(size=(32, 8)),
        "up": random.normal(size=(8, 40)) * random.exponential(size=40),
        "small": random.normal(size=(9, 32)),
    }
    arrays["table"][7] = 0  # a row that no scale can be found for
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"]),
        helper.make_node("Gather", ["small", "kinds"], ["other"]),
        helper.make_node("MatMul", ["words", "down"], ["thin"]),
        helper.make_node("MatMul", ["thin", "up"], ["whole"]),
        helper.make_node("MatMul", ["other", "down"], ["seen"]),
        helper.make_node("MatMul", ["seen", "up"], ["again"]),
        helper.make_node("Neg", ["seen"], ["negative"]),
    ]
    given = [helper.make_tensor_value_info(name, TensorProto.INT64, [f"n {name}"]) for name in ("ids", "kinds")]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("whole", "again", "negative")]
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", given, results, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("seed", range(3))
def test_rounding_keeps_products_and_tables_near(seed: int) -> None:
    import onnxruntime
    from onnx import TensorProto, numpy_helper

    random = np.random.default_rng(seed)
    model = rounding_graph(random)
    given = {"ids": np.array([7, *random.integers(0, 1500, 30)]), "kinds": random.integers(0, 9, 5)}

    def run() -> list[Any]:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return list(session.run(None, given))

    before = run()
    rounded(model)
    for wanted, found in zip(before, run(), strict=True):
        error, size = np.linalg.norm(found - wanted, axis=1), np.linalg.norm(wanted, axis=1)
        assert (error <= 0.08 * size).all()  # row by row: a small row keeps its digits beside a large one
        assert error.max() > 0
    held = {one.name: one for one in model.graph.initializer}
    assert "table" not in held and "down" not in held and "small" in held
    whole = [numpy_helper.to_array(one) for one in held.values() if one.data_type == TensorProto.INT8]
    assert sorted(one.shape for one in whole) == [(8, 40), (32, 8), (1500, 32)]
    # 255 times 64, twice, stays below 2**15: what processors without 8-bit instructions add up in 16 bits is exact.
    assert all(np.abs(one.astype(int)).max() <= (127 if len(one) == 1500 else 64) for one in whole)


def test_a_model_that_keeps_only_some_of_its_numbers(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    settings = folder / "config_sentence_transformers.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"truncate_dim": 16}))
    original = SentenceEncoder(folder, device="cpu", threads=1)
    made = compress(original, TEXTS, tmp_path / "small", ratio=0.6, distill_epochs=1)
    small = SentenceEncoder(made.out, device="cpu", threads=1)
    wanted = small.encode(TEXTS)
    assert wanted.shape == (60, 16) == original.encode(TEXTS).shape
    exported = OnnxEncoder(export_onnx(small, tmp_path / "exported"), threads=1)
    np.testing.assert_allclose(exported.encode(TEXTS), wanted, atol=2e-6)


def test_white_space_and_cuts_are_read_as_torch_reads_them(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = write_model(tmp_path)
    # Letters of bytes, in which a space (\u0120) and a new line (\u010a) are tokens of their own.
    letters = ["<unk>", "<pad>", *"adefiklmnortu", "\u0120", "\u010a"]
    inner = Tokenizer(models.BPE({letter: at for at, letter in enumerate(letters)}, [], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    more: dict[str, Any] = {
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "model_max_length": 20,
        "truncation_side": "left",
    }
    PreTrainedTokenizerFast(tokenizer_object=inner, **more).save_pretrained(folder)
    encoder = SentenceEncoder(folder, device="cpu", threads=1)
    texts = ["kada", " kada", "\n kada lofe ", "kada lofe mino ruti kada lofe mino ruti"]
    wanted = encoder.encode(texts)
    assert (wanted[0] * wanted[1]).sum() < 0.999
    exported = OnnxEncoder(export_onnx(encoder, tmp_path / "exported"), threads=1)
    np.testing.assert_allclose(exported.encode(texts), wanted, atol=2e-6)


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
from geo_mf.text.onnx_rounding import rounded
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


def listed(**changes: object) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        file = folder / "onnx.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return apply


def more_words(folder: Path) -> None:
    file = folder / "tokenizer.json"
    file.write_text(file.read_text().replace('"kada":5', '"kada":500').replace('"kada": 5', '"kada": 500'))


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a graph cut short": (cut, "could not be loaded"),
    "no graph": (lambda folder: (folder / "model.onnx").unlink(), "has no model.onnx"),
    "no settings": (lambda folder: (folder / "onnx.json").write_text("[]"), "does not describe"),
    "another format": (lambda folder: (folder / "onnx.json").write_text('{"format": 9}'), "its format is 9"),
    "another width": (listed(dim=1), "do not fit together"),
    "a cut in the middle": (listed(cut="middle"), "are cut at the 'middle'"),
    "another's tokenizer": (more_words, "do not fit together"),
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


def test_an_index_says_where_its_encoder_is_missing(folder: Path, tmp_path: Path) -> None:
    place = shutil.copytree(folder, tmp_path / "onnx")
    config = gm.BuildConfig.of(factors=8, iterations=2, cache=False, learn_blend=False, encoder=str(place))
    wanted = gm.build(small_interactions(), small_catalog(), out=tmp_path / "index", config=config)
    moved = place.rename(tmp_path / "moved")
    with pytest.raises(
        InvalidInput, match=r"the encoder that built .*no model folder at .*--encoder on the command line"
    ):
        gm.load(tmp_path / "index")
    rec = gm.load(tmp_path / "index", encoder=OnnxEncoder(moved))
    assert rec.recommend(text="kada lofe", k=3).ids == wanted.recommend(text="kada lofe", k=3).ids
