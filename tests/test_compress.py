"""Compression of text encoders: any family, found by type, saved without pickles, loaded as it was in memory."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import small_catalog, small_interactions
from test_encoder import run_python
from typer.testing import CliRunner

import geo_mf as gm
from geo_mf.cli.app import app
from geo_mf.errors import InvalidInput
from geo_mf.text import distill as distilling
from geo_mf.text import thin_folder
from geo_mf.text.compress import Plan, compress, plan_compression
from geo_mf.text.distill import variants
from geo_mf.text.encoder import SentenceEncoder, encoder_named

FAMILIES = ("bert", "mpnet", "xlm-roberta", "distilbert")
WORDS = [a + b for a in ("ka", "lo", "mi", "ru") for b in ("da", "fe", "no", "ti")]
TEXTS = [" ".join(np.random.default_rng(n).choice(WORDS, 2 + n % 7)) for n in range(60)]


def tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: at for at, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *WORDS])}
    inner = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    inner.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])  # type: ignore[assignment]
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    more = {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names, **more, model_max_length=20)


def transformer(family: str) -> Any:
    """A tiny model of random weights; the families call their layers by different names."""
    from transformers import AutoModel, BertConfig, DistilBertConfig, MPNetConfig, XLMRobertaConfig

    size = {"vocab_size": 24, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    size |= {"intermediate_size": 48, "max_position_embeddings": 22, "pad_token_id": 1}
    if family == "distilbert":
        small = DistilBertConfig(
            vocab_size=24, dim=24, hidden_dim=48, n_layers=2, n_heads=2, pad_token_id=1, max_position_embeddings=22
        )
        return AutoModel.from_config(small)
    config = {"bert": BertConfig, "mpnet": MPNetConfig, "xlm-roberta": XLMRobertaConfig}[family]
    return AutoModel.from_config(config(**size))


def write_model(place: Path, family: str = "bert", change: Callable[[Any], None] | None = None) -> Path:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    torch.manual_seed(0)
    inner = transformer(family)
    with torch.no_grad():  # larger than at a start of training, so that the layers matter
        for parameter in inner.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6)
    inner.save_pretrained(place / "inner")
    tokenizer().save_pretrained(place / "inner")
    loaded = Transformer(str(place / "inner"))
    model = SentenceTransformer(modules=[loaded, Pooling(24)], device="cpu")
    model.save_pretrained(str(place / "model"), create_model_card=False)
    return place / "model"


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: write_model(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.fixture(scope="session")
def bert(folders: dict[str, Path]) -> SentenceEncoder:
    return SentenceEncoder(folders["bert"], device="cpu", threads=1)


@pytest.fixture(scope="session")
def half(bert: SentenceEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compress(bert, TEXTS, tmp_path_factory.mktemp("half") / "half", distill_epochs=0).out


def close(encoder: SentenceEncoder, other: SentenceEncoder) -> float:
    return float((encoder.encode(TEXTS) * other.encode(TEXTS)).sum(1).mean())


# --- what is written is what was in memory ---


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_found_by_type_and_loads_as_it_was(
    folders: dict[str, Path], family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    encoder = SentenceEncoder(folders[family], device="cpu", threads=1)
    linear = [name for name, module in encoder.opened()[1].named_modules() if type(module) is torch.nn.Linear]
    kept: list[np.ndarray] = []

    def keeping(model: Any, *others: Any) -> None:
        kept.append(distilling.encoded(model, TEXTS))
        thin_folder.save(model, *others)

    monkeypatch.setattr("geo_mf.text.compress.save", keeping)
    made = compress(encoder, TEXTS, tmp_path / "small", ratio=0.6, distill_epochs=1)
    assert list(made.plan.layers) == linear and len(linear) >= 12
    assert made.plan.linear[1] <= 0.6 * made.plan.linear[0]
    assert made.plan.parameters[0] - made.plan.parameters[1] == made.plan.linear[0] - made.plan.linear[1]
    small = SentenceEncoder(tmp_path / "small", device="cpu")
    np.testing.assert_allclose(small.encode(TEXTS), kept[0], atol=1e-6)
    assert small.dim == encoder.dim and small.fingerprint != encoder.fingerprint
    assert max(made.cosine) > 0.5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small"]
    numbers = sum(parameter.numel() for parameter in small.opened()[1].parameters())
    assert numbers == made.plan.parameters[1]


def test_more_numbers_come_nearer_and_almost_all_are_almost_exact(bert: SentenceEncoder, tmp_path: Path) -> None:
    found = []
    for ratio in (0.3, 0.6, 0.95):
        made = compress(bert, TEXTS, tmp_path / f"{ratio}", ratio=ratio, distill_epochs=0)
        found.append(close(bert, SentenceEncoder(made.out, device="cpu")))
    assert found[0] < found[1] < found[2]
    assert found[2] > 0.999


def test_a_dry_run_says_what_comes_out(bert: SentenceEncoder, tmp_path: Path) -> None:
    plan = plan_compression(bert, TEXTS, ratio=0.4)
    made = compress(bert, TEXTS, tmp_path / "small", ratio=0.4, distill_epochs=0)
    assert (
        plan
        == made.plan
        == Plan(**json.loads(json.dumps(plan.to_dict())) | {"parameters": plan.parameters, "linear": plan.linear})
    )
    assert made.to_dict()["layers"] == plan.layers
    assert "layers thinned" in str(made)


def test_a_word_table_can_be_thinned_too(bert: SentenceEncoder, tmp_path: Path) -> None:
    made = compress(bert, TEXTS, tmp_path / "small", ratio=0.9, distill_epochs=0, tables=0.8)
    assert list(made.plan.tables.values()) == [9]  # .8 of 24 x 24 numbers, at 48 each
    assert made.plan.parameters[1] < made.plan.parameters[0] - 100
    small = SentenceEncoder(made.out, device="cpu")
    assert 0.5 < close(bert, small) < 1 - 1e-6


# --- odd layers ---


def test_layers_without_bias_and_layers_with_one_weight() -> None:
    import torch
    from torch import nn

    from geo_mf.text.thin_layers import LowRankLinear, groups, replace

    torch.manual_seed(0)
    one, two, three, four = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 9, bias=False), nn.Linear(9, 6)
    two.weight = one.weight
    table = nn.Embedding(9, 6)
    four.weight = nn.Parameter(torch.randn(6, 9))
    tied = nn.Linear(6, 9)
    tied.weight = table.weight  # a head on a word table: no factor serves both
    model = nn.ModuleDict({"a": one, "b": two, "c": three, "d": four, "again": one, "table": table, "head": tied})
    found = groups(model)
    assert [group.names for group in found] == [("a", "b", "again"), ("c",), ("d",)]
    x = torch.randn(4, 6)
    before = [one(x), two(x), three(x)]
    for group in found:
        u, s, vt = np.linalg.svd(group.weight, full_matrices=False)
        replace(model, group, u * s, vt)
    first, second = model["a"], model["b"]
    assert isinstance(first, LowRankLinear) and isinstance(second, LowRankLinear)
    assert model["again"] is first and second.up.weight is first.up.weight and second.up.bias is not first.up.bias
    for layer, wanted in zip(("a", "b", "c"), before, strict=True):
        torch.testing.assert_close(model[layer](x), wanted, atol=1e-5, rtol=1e-5)
    assert "c.up.bias" not in model.state_dict()
    assert type(model["head"]) is nn.Linear
    state = thin_folder.state_of(model)
    assert "a.up.weight" in state and "b.up.weight" not in state and "b.up.bias" in state


def test_padding_is_no_input_and_gradients_are_those_of_the_vector(bert: SentenceEncoder) -> None:
    from geo_mf.text.thin_layers import groups, moments

    model = bert.opened()[1].eval()
    found = groups(model)
    uneven = ["kada", "kada lofe mino ruti kada lofe mino ruti"]
    together = moments(model, found, uneven, 0)
    apart = [moments(model, found, [text], 0) for text in uneven]
    name = found[0].name
    assert together[name].samples == 3 + 10 == sum(one[name].samples for one in apart)
    sums = sum(one[name].inputs * one[name].samples for one in apart) / 13
    np.testing.assert_allclose(together[name].inputs, sums, rtol=1e-4, atol=1e-6)
    pooler = next(group.name for group in found if "pooler" in group.name)
    assert not together[pooler].outputs.any() and together[name].outputs.any()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_layer_that_no_vector_depends_on_gets_the_least(bert: SentenceEncoder) -> None:
    plan = plan_compression(bert, TEXTS, ratio=0.5)
    assert next(rank for name, rank in plan.layers.items() if "pooler" in name) == 1


@pytest.mark.parametrize("texts", [["kada"], ["kada lofe", "", "  ", "kada lofe"], TEXTS[:3]])
def test_fewer_texts_than_dimensions_and_empty_texts(bert: SentenceEncoder, texts: list[str], tmp_path: Path) -> None:
    made = compress(bert, texts, tmp_path / "small", ratio=0.7, distill_epochs=1)
    small = SentenceEncoder(made.out, device="cpu")
    known = [text for text in texts if text.strip()]
    assert float((small.encode(known) * bert.encode(known)).sum(1).mean()) > 0.8
    assert np.isfinite(small.encode(TEXTS)).all()


# --- refusals ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 0}, "ratio is 0"),
        ({"ratio": 1.0}, "ratio is 1.0"),
        ({"ratio": "half"}, "ratio is 'half'"),
        ({"ratio": 0.01}, "too few for 13 layers"),
        ({"tables": 2}, "tables is 2"),
        ({"tables": 0.01}, "the smallest for 24 words"),
        ({"distill_epochs": -1}, "distill_epochs is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"texts": ["", " "]}, "none of 2 texts"),
        ({"texts": "kada"}, "lone str"),
        ({"encoder": gm.HashEncoder()}, "encoder is a HashEncoder"),
    ],
)
def test_what_cannot_be_done_is_named(
    bert: SentenceEncoder, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    asked: dict[str, Any] = {"encoder": bert, "texts": TEXTS, "out": tmp_path / "small"} | settings
    with pytest.raises(InvalidInput, match=message):
        compress(**asked)
    assert not list(tmp_path.iterdir())


def test_a_model_that_reads_the_weights_of_its_layers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import T5Config, T5EncoderModel

    small = T5Config(vocab_size=24, d_model=24, d_kv=12, d_ff=48, num_layers=1, num_heads=2, pad_token_id=1)
    monkeypatch.setattr("test_compress.transformer", lambda family: T5EncoderModel(small))
    encoder = SentenceEncoder(write_model(tmp_path / "t5", "t5"), device="cpu", threads=1)
    with pytest.raises(InvalidInput, match="as T5 does"):
        compress(encoder, TEXTS, tmp_path / "small")
    assert [path.name for path in tmp_path.iterdir()] == ["t5"]


def test_a_folder_that_is_there_stays(bert: SentenceEncoder, half: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(InvalidInput, match="is there already"):
        compress(bert, TEXTS, tmp_path / "mine")
    with pytest.raises(InvalidInput, match="make it first"):
        compress(bert, TEXTS, tmp_path / "no" / "such")
    with pytest.raises(InvalidInput, match="compressed already"):
        compress(SentenceEncoder(half, device="cpu"), TEXTS, tmp_path / "twice")


def test_another_loader_refuses_the_folder_and_nothing_is_filled_at_random(half: Path) -> None:
    from sentence_transformers import SentenceTransformer

    with pytest.raises(OSError, match="no file named model.safetensors"):
        SentenceTransformer(str(half), device="cpu", local_files_only=True)
    modules = json.loads((half / "modules.json").read_text())
    assert all(module["type"].startswith("sentence_transformers.") for module in modules)


def broken(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        listing = json.loads((folder / "lowrank.json").read_text())
        change(listing)
        (folder / "lowrank.json").write_text(json.dumps(listing))

    return apply


def cut(folder: Path) -> None:
    with (folder / "lowrank.safetensors").open("r+b") as weights:
        weights.truncate(1000)


def described(**changes: int) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return apply


def shared_with(place: int) -> Callable[[Path], None]:
    def change(listing: dict[str, Any]) -> None:
        listing["layers"][0]["names"].append(listing["layers"][place]["names"][0])

    return broken(change)


DAMAGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "another format": (broken(lambda listing: listing.update(format=2)), "its format is 2"),
    "no layers": (broken(lambda listing: listing.pop("layers")), "does not describe"),
    "a rank of nothing": (broken(lambda listing: listing["layers"][0].update(rank=0)), "of rank 0"),
    "a rank too high": (broken(lambda listing: listing["layers"][0].update(rank=10**9)), "has no rank"),
    "another rank": (
        broken(lambda listing: listing["layers"][0].update(rank=listing["layers"][0]["rank"] + 1)),
        "could not be loaded",
    ),
    "no such layer": (broken(lambda listing: listing["layers"][0].update(names=["a.b"])), "could not be loaded"),
    "a layer left out": (broken(lambda listing: listing["layers"].pop()), "could not be loaded"),
    "a layer within a layer": (
        broken(lambda listing: listing["layers"][0].update(names=["", "0"])),
        "expected a Linear",
    ),
    "a whole model as a layer": (
        broken(lambda listing: listing["layers"][0]["names"].append("0")),
        "is a Transformer; expected a Linear",
    ),
    "a weight shared by layers of two shapes": (shared_with(4), "cannot share a weight"),
    # None of these may ask for the memory that it names.
    "a model of a terabyte": (described(vocab_size=10**10), "expected at most 100 times"),
    "a billion layers": (described(num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    "a width beyond all numbers": (described(hidden_size=10**30), "could not be loaded"),
    "weights cut short": (cut, "could not be loaded"),
    "weights gone": (lambda folder: (folder / "lowrank.safetensors").unlink(), "no .safetensors weights"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_folder_is_refused(half: Path, tmp_path: Path, case: str) -> None:
    change, message = DAMAGED[case]
    copy = shutil.copytree(half, tmp_path / "copy")
    change(copy)
    with pytest.raises(InvalidInput, match=message):
        SentenceEncoder(copy, device="cpu").encode(["kada"])


def test_only_files_that_are_read_are_copied_when_it_is_loaded(half: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(half, tmp_path / "copy")
    (copy / "endless").symlink_to("/dev/zero")
    (copy / "round").symlink_to(copy)
    (copy / "weights.bin").write_bytes(b"\0" * 9)
    wanted = SentenceEncoder(half, device="cpu", threads=1).encode(TEXTS)
    np.testing.assert_array_equal(SentenceEncoder(copy, device="cpu", threads=1).encode(TEXTS), wanted)


def test_loading_leaves_the_random_numbers_of_torch_alone(half: Path) -> None:
    import torch

    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    SentenceEncoder(half, device="cpu").encode(["kada"])
    assert torch.equal(torch.rand(3), wanted)


def test_loading_unpickles_nothing_and_runs_no_code(half: Path) -> None:
    code = """
import sys
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "pickle.find_class"):
        raise SystemExit(f"{event} {args}")
sys.addaudithook(watch)
from geo_mf.text.encoder import SentenceEncoder
print(SentenceEncoder(sys.argv[1], device="cpu").encode(["kada lofe"]).shape)
"""
    done = run_python(code, str(half))
    assert (done.stdout, done.stderr) == ("(1, 24)\n", "")


# --- distillation ---


class Killed(Exception):
    pass


def test_an_interrupted_distillation_ends_with_the_same_weights(
    bert: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compress(bert, TEXTS, tmp_path / "whole", ratio=0.3, distill_epochs=4)
    epoch = distilling._epoch

    def dying(*given: Any) -> None:
        if given[5][0] == 2:
            raise Killed
        epoch(*given)

    with monkeypatch.context() as patch:
        patch.setattr(distilling, "_epoch", dying)
        with pytest.raises(Killed):
            compress(bert, TEXTS, tmp_path / "killed", ratio=0.3, distill_epochs=4)
        assert [path.name for path in tmp_path.iterdir() if path.name != "whole"] == [".killed.compressing"]
    seen: list[int] = []

    def counting(*given: Any) -> None:
        seen.append(given[5][0])
        epoch(*given)

    monkeypatch.setattr(distilling, "_epoch", counting)
    monkeypatch.setattr("geo_mf.text.compress._planned", None)  # what was planned is not planned again
    again = compress(bert, TEXTS, tmp_path / "killed", ratio=0.3, distill_epochs=4)
    assert seen == [2, 3]
    assert again.cosine == whole.cosine and again.plan == whole.plan
    for name in ("lowrank.safetensors", "lowrank.json"):
        assert (again.out / name).read_bytes() == (whole.out / name).read_bytes()
    assert SentenceEncoder(again.out).fingerprint == SentenceEncoder(whole.out).fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


def test_what_another_run_left_is_not_used(bert: SentenceEncoder, tmp_path: Path) -> None:
    work = tmp_path / ".small.compressing"
    work.mkdir()
    (work / "identity").write_text("another")
    (work / "plan.json").write_text("{")
    assert compress(bert, TEXTS, tmp_path / "small", distill_epochs=0).out.is_dir()
    assert not work.exists()


def test_distillation_comes_nearer_and_stops_when_it_does_not(
    bert: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = compress(bert, TEXTS, tmp_path / "small", ratio=0.12, distill_epochs=12)
    assert max(made.cosine) > made.cosine[0] + 0.003
    monkeypatch.setattr(distilling, "_epoch", lambda *given: None)
    stopped = compress(bert, TEXTS, tmp_path / "stopped", ratio=0.3, distill_epochs=50)
    assert len(stopped.cosine) == 1 + distilling.Course(1).patience


def test_variants_are_made_of_the_words_there_are() -> None:
    random = np.random.default_rng(0)
    made = variants([*TEXTS, "kada"], random)
    assert len(made) == len(TEXTS) + 1 and made[-1] == "kada"
    assert all(text and set(text.split()) <= set(WORDS) for text in made)
    assert 10 < sum(text in TEXTS for text in made) < 50
    strange = variants(TEXTS, random, ["wolf"])
    assert 3 < sum("wolf" in text for text in strange) < 30
    assert all(set(text.split()) <= {*WORDS, "wolf"} for text in strange)


def test_parts_of_words_are_no_words(folders: dict[str, Path]) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folders["bert"]), device="cpu")
    assert distilling._vocabulary(model) == sorted(WORDS)
    assert distilling._words(["\u2581kada", "\u2581lo", "ing", "\u2581", "</s>", "\u2581n3xt"]) == ["kada"]
    assert distilling._words(["\u0120kada", "ing", "!"]) == ["kada"]
    assert distilling._words(["kada", "##ing", "lofe", "[PAD]"]) == ["kada", "lofe"]


# --- the real one ---


def test_half_of_the_default_model_is_near_it_without_any_distillation(tmp_path: Path) -> None:
    from geo_mf.data import sample

    encoder = SentenceEncoder(device="cpu")
    titles = [str(title) for title in gm.read_catalog(sample.articles_path(), text="{title}").texts]
    made = compress(encoder, titles[:150], tmp_path / "half", distill_epochs=0)
    assert made.plan.linear[1] / made.plan.linear[0] == pytest.approx(0.5, abs=0.001)
    unseen = titles[150:]
    small = SentenceEncoder(made.out, device="cpu")
    assert float((small.encode(unseen) * encoder.encode(unseen)).sum(1).mean()) > 0.7


# --- the command ---


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    file = tmp_path / "items.csv"
    file.write_text("item_id,title\n" + "".join(f"i{at},{text}\n" for at, text in enumerate([*TEXTS, ""])))
    return file


def command(*arguments: object, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["compress", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


def test_the_command_compresses_and_a_build_uses_it(folders: dict[str, Path], lines: Path, tmp_path: Path) -> None:
    asked = (folders["bert"], "--texts", lines, "--text", "{title}", "--ratio", 0.4, "--epochs", 1)
    planned = json.loads(command(*asked, "--dry-run", "--json").stdout)
    assert planned["dry_run"] and "nothing was written" in command(*asked, "--dry-run").stdout
    made = json.loads(command(*asked, "--out", tmp_path / "small", "--json").stdout)
    assert made["layers"] == planned["layers"] and len(made["cosine"]) == 2 and made["texts"] == len(set(TEXTS))
    rec = gm.build(
        small_interactions(),
        small_catalog(),
        out=tmp_path / "index",
        config=gm.BuildConfig.of(factors=8, iterations=2, learn_blend=False, encoder=str(tmp_path / "small")),
    )
    assert rec.card["encoder_name"] == "small"
    assert gm.load(tmp_path / "index").encoder.fingerprint == SentenceEncoder(tmp_path / "small").fingerprint
    told = command(*asked, "--out", tmp_path / "small", code=65).stderr
    assert "is there already" in told and "to export it: geo-mf compress" in told  # a run may end before its exports


def test_the_command_exports(folders: dict[str, Path], lines: Path, tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="the extra onnx is not installed")
    asked = ("--texts", lines, "--text", "title", "--epochs", 0, "--onnx", "--out", tmp_path / "small")
    told = command(folders["bert"], *asked).stdout
    assert str(tmp_path / "small" / "onnx") in told
    assert encoder_named(str(tmp_path / "small" / "onnx")).encode(["kada"]).shape == (1, 24)
    command(folders["bert"], "--ratio", 1, "--int8", "--out", tmp_path / "whole")
    whole = encoder_named(str(tmp_path / "whole")).encode(TEXTS)
    assert (whole * SentenceEncoder(folders["bert"], device="cpu").encode(TEXTS)).sum(1).min() > 0.98


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--texts", "no.csv", "--out", "x"), 66),
        (("--out", "x"), 2),
        (("--texts", "no.csv"), 2),
        (("--ratio", "1", "--out", "x"), 2),
        (("--ratio", "1", "--onnx", "--int8", "--out", "x"), 2),
    ],
)
def test_the_command_says_what_is_missing(folders: dict[str, Path], arguments: tuple[str, ...], code: int) -> None:
    assert command(folders["bert"], *arguments, code=code).stderr.startswith(("error: ", "Usage"))
