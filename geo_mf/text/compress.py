"""compress: a smaller, faster text encoder in the place of a large one.

Every linear layer becomes two thinner ones (lowrank.py), with ranks spread over the layers under one budget by what
each direction costs the text's vector; then the whole is distilled against the original (distill.py).
"""

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geo_mf import files
from geo_mf.errors import InvalidInput
from geo_mf.text import lowrank
from geo_mf.text.compression import Compression, Plan
from geo_mf.text.encoder import SentenceEncoder
from geo_mf.text.folder import ModelFolder
from geo_mf.text.rows import distinct_texts, well_formed, whole
from geo_mf.text.thin_folder import Thin, is_thin, made_thin, save, state_of

if TYPE_CHECKING:
    from geo_mf.text.distill import Course
    from geo_mf.text.thin_layers import Group, Moments

__all__ = ["compress", "plan_compression"]

_PLAN, _START = "plan.json", "start.safetensors"
_CALIBRATION = 1024
"""Texts that layers are measured on: a thousand titles hold 14,000 tokens."""
_HELD = 1000
"""Texts held out at most, to tell when a distillation has learned enough."""
_WHITE = 0.05
"""How much of the identity is mixed into the second moment of gradients, which holds near the original only."""


def compress(
    encoder: SentenceEncoder,
    texts: Sequence[str],
    out: str | os.PathLike[str],
    ratio: float = 0.5,
    distill_epochs: int = 8,
    seed: int = 0,
    *,
    tables: float | None = None,
    show_progress: bool = False,
) -> Compression:
    """Write a smaller encoder to the folder `out`; `SentenceEncoder(out)` loads it, and a build uses it.

    The folder appears whole or not at all. Beside it, a hidden folder keeps what a killed run goes on from: run again
    with the same arguments, it ends with the same weights.

    Args:
        encoder: any sentence-transformers model that is not compressed yet.
        texts: of the kind that it will encode, without labels. A thousand are measured, all of them are learned from,
            but for a tenth (at most 1,000) that tell when to stop; with fewer than 20, none is held out.
        out: a new folder.
        ratio: numbers that the linear layers may keep, as a share of what they have: more than 0, less than 1.
        distill_epochs: passes over the texts at most; 0 leaves the layers as they were calculated.
        seed: of the choice of texts, their order and their variants.
        tables: also keep only this share of the numbers of the largest word table. None leaves it alone.
        show_progress: progress on stderr.

    Raises:
        InvalidInput: a setting is out of range, there are no texts, `out` is there, the ratio is too small for one
            direction a layer, the model has no linear layer, or it is compressed already.
        FitDiverged: the distillation's loss is not finite.
        OSError: a file could not be written.
    """
    whole("distill_epochs", distill_epochs, 0, 10_000)
    shares = _checked(ratio, tables)
    place = Path(os.path.expanduser(out))
    if place.exists() or place.is_symlink():
        more = "" if not is_thin(place) else f" (to export it: geo-mf compress {place} --ratio 1 --int8 --out NEW)"
        raise InvalidInput(f"{str(place)!r} is there already; give a folder that is not, or delete it first{more}")
    if not place.parent.is_dir():
        raise InvalidInput(f"there is no folder {str(place.parent)!r} to put {place.name!r} in; make it first")
    known = _Texts.of(texts, seed)
    folder, model = _opened(encoder)
    clock: dict[str, float] = {}
    with _workplace(place, _identity(encoder, known, (*shares, distill_epochs, seed))) as work:
        with _timed(clock, "measure"):
            plan, layers = _started(encoder, model, known, shares, work, show_progress)
        with _timed(clock, "distill"):
            from geo_mf.text.distill import Course

            cosine = _distilled(encoder, model, known, Course(distill_epochs, seed), work, show_progress)
        ready = work / "ready"
        shutil.rmtree(ready, ignore_errors=True)
        about = {"encoder": encoder.name, "fingerprint": encoder.fingerprint, "ratio": ratio, "tables": tables}
        save(model, _kept(folder), folder.path, ready, layers, about)
        _check(ready, model, known)
        ready.rename(place)
        files.sync_folder(place.parent)
    return Compression(place, plan, tuple(cosine), clock)


def plan_compression(
    encoder: SentenceEncoder,
    texts: Sequence[str],
    ratio: float = 0.5,
    seed: int = 0,
    *,
    tables: float | None = None,
    show_progress: bool = False,
) -> Plan:
    """What `compress` would come to: the same ranks and parameters. Nothing is written.

    Arguments and errors as those of `compress`.
    """
    shares = _checked(ratio, tables)
    known = _Texts.of(texts, seed)
    return _planned(encoder, _opened(encoder)[1], known, shares, show_progress)[0]


def _checked(ratio: float, tables: float | None) -> tuple[float, float | None]:
    for name, value in (("ratio", ratio), *([("tables", tables)] if tables is not None else [])):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise InvalidInput(f"{name} is {value!r}; expected a number between 0 and 1, such as 0.5")
    return ratio, tables


@dataclass(frozen=True)
class _Texts:
    """The different texts of a caller, shuffled: some to learn from, some held out."""

    learn: list[str] = field(repr=False)
    held: list[str] = field(repr=False)

    @classmethod
    def of(cls, texts: Sequence[str], seed: int) -> "_Texts":
        whole("seed", seed, 0, 2**63 - 1)
        distinct = [well_formed(text) for text in distinct_texts(texts)[0]]
        if not distinct:
            raise InvalidInput(f"none of {len(texts)} texts has a word in it; expected texts like those to be encoded")
        order = np.random.default_rng(seed).permutation(len(distinct))
        shuffled = [distinct[row] for row in order]
        held = 0 if len(shuffled) < 20 else min(_HELD, max(1, len(shuffled) // 10))
        return cls(shuffled[held:], shuffled[:held])

    @property
    def digest(self) -> str:
        found = sha256()
        for text in (*self.learn, "", *self.held):
            found.update(sha256(text.encode()).digest())
        return found.hexdigest()


def _opened(encoder: SentenceEncoder) -> tuple[ModelFolder, Any]:
    if not isinstance(encoder, SentenceEncoder):
        raise InvalidInput(f"encoder is a {type(encoder).__name__}; only a SentenceEncoder has layers to compress")
    folder, model = encoder.opened()
    if is_thin(folder.path):
        raise InvalidInput(
            f"{encoder.name} is compressed already; compress the original with a smaller ratio instead: "
            "a second loss on top of the first is larger than one of the same size"
        )
    return folder, model.eval()


def _identity(encoder: SentenceEncoder, texts: _Texts, settings: Sequence[object]) -> str:
    return sha256(json.dumps([1, encoder.fingerprint, texts.digest, *settings]).encode()).hexdigest()


def _started(
    encoder: SentenceEncoder,
    model: Any,
    texts: _Texts,
    shares: tuple[float, float | None],
    work: Path,
    show_progress: bool,
) -> tuple[Plan, list[Thin]]:
    """The plan, with `model` changed to it: as an interrupted run left it, or made now and kept."""
    from safetensors.torch import load_file
    from safetensors.torch import save as to_bytes

    begun = _begun(work)
    if begun is not None:
        made_thin(model, begun[1])
        model.load_state_dict(load_file(work / _START), strict=False)  # shared tensors are there once
        return begun
    plan, layers = _planned(encoder, model, texts, shares, show_progress)
    files.replace(work / _START, to_bytes(state_of(model)))
    content = {"plan": plan.to_dict(), "layers": [asdict(layer) for layer in layers]}
    files.replace(work / _PLAN, json.dumps(content).encode())
    return plan, layers


def _planned(
    encoder: SentenceEncoder, model: Any, texts: _Texts, shares: tuple[float, float | None], show_progress: bool
) -> tuple[Plan, list[Thin]]:
    """The plan; `model` is changed to it, with the best factors as weights."""
    from geo_mf.text import thin_layers

    ratio, share = shares
    found = thin_layers.groups(model)
    if not found:
        raise InvalidInput(f"{encoder.name} has no linear layer: there is nothing to compress")
    before = sum(parameter.numel() for parameter in model.parameters())
    shapes = [lowrank.Shape(*group.weight.shape) for group in found]
    budget = int(ratio * sum(shape.dense for shape in shapes))
    # Ranks that are multiples of 8 fill the registers of a processor; small layers are cut finer.
    step = 8 if min(ratio * shape.dense / shape.each for shape in shapes) >= 32 else 1
    # Told before the work: the least that a budget has to allow does not depend on what is measured.
    lowrank.allocate([np.zeros(min(shape.rows, shape.columns)) for shape in shapes], shapes, budget, step)
    calibration = (texts.learn + texts.held)[:_CALIBRATION]
    with _bar("Measuring", len(calibration), show_progress) as bar:
        measured = thin_layers.moments(model, found, calibration, seed=0, tick=bar.update)
    taken = [_taken_apart(group, shape, measured[group.name]) for group, shape in zip(found, shapes, strict=True)]
    ranks = lowrank.allocate([one.losses for one in taken], shapes, budget, step)
    layers: list[Thin] = []
    for group, one, rank in zip(found, taken, ranks, strict=True):
        if rank is not None:
            thin_layers.replace(model, group, *one.factors(rank))
            layers.append(Thin(group.names, "linear", rank))
    if share is not None:
        layers.append(_thin_table(encoder, model, share))
    _check_call(encoder, model, texts)
    kept = sum(shape.dense if rank is None else rank * shape.each for shape, rank in zip(shapes, ranks, strict=True))
    plan = Plan(
        encoder=encoder.name,
        ratio=ratio,
        parameters=(before, sum(parameter.numel() for parameter in model.parameters())),
        linear=(sum(shape.dense for shape in shapes), kept),
        layers={group.name: rank for group, rank in zip(found, ranks, strict=True)},
        tables={layer.names[0]: layer.rank for layer in layers if layer.kind == "table"},
        texts=len(texts.learn) + len(texts.held),
    )
    return plan, layers


def _check_call(encoder: SentenceEncoder, model: Any, texts: _Texts) -> None:
    """Whether the model still runs with thin layers in it."""
    from geo_mf.text.distill import encoded

    try:
        encoded(model, (texts.learn + texts.held)[:1])
    except AttributeError as error:
        raise InvalidInput(
            f"{encoder.name} does more with its linear layers than to call them ({error}), as T5 does; such a model "
            "cannot be compressed"
        ) from error


def _taken_apart(group: "Group", shape: lowrank.Shape, seen: "Moments") -> lowrank.Directions:
    inputs = lowrank.conditioned(seen.inputs, seen.samples)
    if not np.trace(seen.outputs) > 0:
        # Nothing that this layer gives reaches a text's vector: it is worth the least there is.
        found = lowrank.directions(group.weight, inputs)
        found = lowrank.Directions(0 * found.losses, found.left, found.right)
    else:
        found = lowrank.directions(group.weight, inputs, lowrank.conditioned(seen.outputs, 0, share=_WHITE))
    # What is beyond the highest useful rank is never used, and of a large model it is a lot of memory.
    most = max(shape.most, 1)
    return lowrank.Directions(found.losses, found.left[:, :most].astype("f4"), found.right[:most].astype("f4"))


def _thin_table(encoder: SentenceEncoder, model: Any, share: float) -> Thin:
    """Replace the largest word table by a thin one and a layer: the best of that rank, all words alike."""
    from torch import nn

    from geo_mf.text import thin_layers

    found = sorted(thin_layers.groups(model, nn.Embedding), key=lambda group: -group.weight.size)
    if not found:
        raise InvalidInput(f"{encoder.name} has no word table; leave out tables")
    shape = lowrank.Shape(*found[0].weight.shape)
    rank = min(int(share * shape.dense) // shape.each, shape.columns)
    if rank < 1:
        raise InvalidInput(f"tables is {share}; the smallest for {shape.rows} words is {shape.each / shape.dense:.4f}")
    one = lowrank.directions(found[0].weight, np.eye(shape.columns))
    thin_layers.replace_table(model, found[0], *one.factors(rank))
    return Thin(found[0].names, "table", rank)


def _distilled(
    encoder: SentenceEncoder, model: Any, texts: _Texts, course: "Course", work: Path, show_progress: bool
) -> list[float]:
    """Teach `model`, in place."""
    from geo_mf.text.distill import distill

    teacher = encoder.opened()[1].eval()
    with _bar("Distilling", course.epochs * len(texts.learn), show_progress) as bar:
        return distill(model, teacher, texts.learn, texts.held, course, work, bar)


def _check(ready: Path, model: Any, texts: _Texts) -> None:
    """Whether what was written is what was in memory, before anybody sees it."""
    from geo_mf.text.distill import encoded

    some = (texts.learn + texts.held)[:8]
    read, wanted = encoded(ModelFolder(ready).open("cpu").eval(), some), encoded(model, some)
    apart = float(np.abs(read - wanted).max())
    if not apart < 1e-3:
        raise InvalidInput(
            f"the model that was written differs from that in memory by {apart:.1e}; it was not published"
        )


def _begun(work: Path) -> tuple[Plan, list[Thin]] | None:
    """The plan that an interrupted run made, None where there is none."""
    file = work / _PLAN
    if not file.exists():
        return None
    found = json.loads(file.read_bytes())
    pairs = {name: tuple(found["plan"][name]) for name in ("parameters", "linear")}
    layers = [Thin(tuple(one["names"]), one["kind"], one["rank"]) for one in found["layers"]]
    return Plan(**found["plan"] | pairs), layers


def _kept(folder: ModelFolder) -> list[Path]:
    """The files of a model beside the weights of its transformers."""
    weights = {folder.path / inner for inner in folder.transformers}
    return [
        file
        for file in folder.files
        if not (file.parent in weights and file.name.endswith((".safetensors", ".safetensors.index.json")))
    ]


@contextmanager
def _workplace(out: Path, identity: str) -> Iterator[Path]:
    """The folder beside `out` in which a run keeps what it has; gone when it ends well."""
    work = out.parent / f".{out.name}.compressing"
    work.mkdir(exist_ok=True)
    descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        files.lock(descriptor, work, f"another process is writing {str(out)!r}; wait for it, or give another folder")
        known = work / "identity"
        if not (known.exists() and known.read_text() == identity):
            # Left by a run with other texts or settings: nothing of it is of use.
            for file in work.iterdir():
                shutil.rmtree(file) if file.is_dir() else file.unlink()
            files.replace(known, identity.encode())
        try:
            yield work
        except InvalidInput:
            # Refused before anything was kept, and so it would be again: nobody is coming back for the folder.
            if not (work / _PLAN).exists():
                shutil.rmtree(work)
            raise
        shutil.rmtree(work)
    finally:
        os.close(descriptor)


@contextmanager
def _timed(clock: dict[str, float], step: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    clock[step] = round(time.perf_counter() - began, 1)


def _bar(what: str, total: int, show: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=what, unit=" texts", disable=not show)
