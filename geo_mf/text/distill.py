"""Distillation: a compressed encoder learns to give the vectors of the original again, on texts without labels.

The loss of a batch is one minus the cosine to the original's vectors, plus the squared error of the cosines between the
batch's texts, plus the relative squared error of the token vectors before pooling. Word tables stay as they are. A run
that is killed goes on from its last epoch, and ends with the same numbers.
"""

import json
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Transformer
from torch import nn
from transformers import PreTrainedTokenizerBase

from geo_mf.errors import FitDiverged
from geo_mf.files import replace
from geo_mf.text.thin_folder import state_of
from geo_mf.text.thin_layers import batches, features, unit_rows, vectors

__all__ = ["Course", "distill", "encoded", "variants"]

_log = logging.getLogger("geo_mf")
_STATE, _BEST = "latest.safetensors", "best.safetensors"


@dataclass(frozen=True)
class Course:
    """How long and how fast a student learns.

    Attributes:
        epochs: passes over the texts at most.
        seed: of the order of the texts, and of their variants.
        patience: epochs without a better mean cosine on texts held out, after which it ends.
        rate: of AdamW, at its highest; it rises over a twentieth of the steps and falls as a cosine.
        batch: texts of one step.
        tokens: weight of the token vectors in the loss.
    """

    epochs: int
    seed: int = 0
    patience: int = 4
    rate: float = 5e-4
    batch: int = 32
    tokens: float = 1.0


def encoded(model: Any, texts: Sequence[str], size: int = 64) -> np.ndarray:
    """float32 [texts, dim] of unit length."""
    result = np.zeros((len(texts), model.get_embedding_dimension()), np.float32)
    with torch.inference_mode():
        for rows, prepared in batches(model, texts, size):
            result[rows] = vectors(model, prepared).cpu().numpy()
    return result


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    """Mean cosine of rows of unit length."""
    return float(np.einsum("ij,ij->i", left, right).mean())


def variants(texts: Sequence[str], random: np.random.Generator, vocabulary: Sequence[str] = ()) -> list[str]:
    """Another text for each: a part of it, it without some words, parts of two, its beginning with a few words of the
    vocabulary after it, or the same again.

    Words of the vocabulary are those that other texts may hold: without them, a student knows no others.
    """
    made = []
    for text, kind in zip(texts, random.integers(0, 5 if vocabulary else 4, len(texts)), strict=True):
        words = text.split()
        if kind == 4:
            strange = [vocabulary[int(at)] for at in random.integers(0, len(vocabulary), int(random.integers(1, 7)))]
            made.append(" ".join(words[: int(random.integers(0, len(words) + 1))] + strange))
        elif len(words) < 2 or kind == 3:
            made.append(text)
        elif kind == 0:
            made.append(" ".join(_part(words, random)))
        elif kind == 1:
            kept = [word for word in words if random.random() > 0.2]
            made.append(" ".join(kept or words))
        else:
            other = texts[int(random.integers(len(texts)))].split()
            made.append(" ".join(_part(words, random) + _part(other or words, random)))
    return made


def _vocabulary(model: SentenceTransformer) -> list[str]:
    """The whole words that a model's tokenizer has a token for."""
    first = model[0]
    if not isinstance(first, Transformer) or not isinstance(first.tokenizer, PreTrainedTokenizerBase):
        return []
    return _words(first.tokenizer.get_vocab())


def _words(tokens: Iterable[str]) -> list[str]:
    known = list(tokens)
    # Where words begin with a mark, tokens without one are parts of words.
    marked = [token[1:] for token in known if token[:1] in ("\u2581", "\u0120")]
    return sorted({word for word in marked or known if word.isalpha() and len(word) > 2})


def _part(words: list[str], random: np.random.Generator) -> list[str]:
    length = int(random.integers(1, len(words) + 1))
    start = int(random.integers(0, len(words) - length + 1))
    return words[start : start + length]


def distill(
    student: Any, teacher: Any, texts: Sequence[str], held: Sequence[str], course: Course, place: Path, bar: Any
) -> list[float]:
    """Teach `student`, in place; it ends as it was after its best epoch.

    Args:
        student, teacher: SentenceTransformer models with vectors of one length.
        texts: to learn from.
        held: texts that tell when to stop; without any, all epochs are done.
        place: a folder for what a killed run goes on from.
        bar: a tqdm bar, told each text.

    Returns:
        Mean cosine on `held` (or on as many of `texts`) before, and after each epoch.

    Raises:
        FitDiverged: the loss is not finite.
    """
    judged = held or texts[:500]
    targets = encoded(teacher, judged)
    learning = [parameter for parameter in student.parameters() if parameter.is_floating_point()]
    for module in student.modules():
        if isinstance(module, nn.Embedding):
            module.weight.requires_grad_(False)
    learning = [parameter for parameter in learning if parameter.requires_grad]
    # No decay: the student is to stay where the original is, and not to come nearer to zero.
    adam = torch.optim.AdamW(learning, lr=course.rate, weight_decay=0.0, betas=(0.9, 0.98), fused=True)
    student.eval()  # no dropout: the original has none either when it is used
    steps = course.epochs * math.ceil(len(texts) / course.batch)
    history = _resume(student, adam, place)
    if not history:
        history = [cosine(encoded(student, judged), targets)]
        _keep(student, adam, place, history)
    bar.update((len(history) - 1) * len(texts))
    while len(history) <= course.epochs and not _finished(history, course, bool(held)):
        _epoch(student, teacher, texts, course, adam, (len(history) - 1, steps), bar)
        history.append(cosine(encoded(student, judged), targets))
        _log.info("distillation epoch %d: cosine %.4f on texts held out", len(history) - 1, history[-1])
        _keep(student, adam, place, history)
    from safetensors.torch import load_file

    student.load_state_dict(load_file(place / _BEST), strict=False)  # shared tensors are there once
    return history


def _finished(history: list[float], course: Course, held: bool) -> bool:
    return held and len(history) - 1 - int(np.argmax(history)) >= course.patience


def _epoch(
    student: Any,
    teacher: Any,
    texts: Sequence[str],
    course: Course,
    adam: torch.optim.Optimizer,
    at: tuple[int, int],
    bar: Any,
) -> None:
    """One pass. `at`: the epoch's number, and the steps of all epochs."""
    epoch, steps = at
    random = np.random.default_rng([course.seed, epoch])
    # The first epoch sees the texts themselves, every later one sees most of them changed.
    seen = list(texts) if epoch == 0 else variants(texts, random, _vocabulary(teacher))
    order = np.argsort([len(text) for text in seen], kind="stable")
    parts = [order[start : start + course.batch] for start in range(0, len(order), course.batch)]
    step = epoch * len(parts)
    for place in random.permutation(len(parts)):
        some = [seen[row] for row in parts[place]]
        loss = _loss(student, teacher, some, course.tokens)
        if not bool(torch.isfinite(loss)):
            raise FitDiverged(
                f"the loss of epoch {epoch + 1} is {float(loss)}; expected a finite number: "
                "compress less, or check the texts"
            )
        rate = (
            course.rate * min(1.0, (step + 1) / max(1.0, 0.05 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
        )
        for group in adam.param_groups:
            group["lr"] = rate
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(adam.param_groups[0]["params"], 1.0)
        adam.step()
        step += 1
        bar.update(len(some))


def _loss(student: Any, teacher: Any, texts: Sequence[str], tokens: float) -> torch.Tensor:
    prepared = features(student, texts)
    with torch.no_grad():
        wanted = teacher(dict(prepared))
        target = unit_rows(teacher, wanted)
    found = student(dict(prepared))
    given = unit_rows(student, found)
    loss = (1 - (given * target).sum(-1)).mean() + (given @ given.T - target @ target.T).square().mean()
    if tokens and "token_embeddings" in wanted and "attention_mask" in wanted:
        real = wanted["attention_mask"].bool()
        before, after = wanted["token_embeddings"][real], found["token_embeddings"][real]
        loss = loss + tokens * (after - before).square().sum() / before.square().sum()
    return loss


def _keep(student: Any, adam: torch.optim.Optimizer, place: Path, history: list[float]) -> None:
    """Write what a killed run goes on from: in one file, so that it is of one moment."""
    from safetensors.torch import save

    state = state_of(student)
    if history[-1] >= max(history):
        replace(place / _BEST, save(state))
    learned = {
        f"adam.{at}.{name}": value.contiguous()
        for at, one in adam.state_dict()["state"].items()
        for name, value in one.items()
    }
    learned |= {f"model.{name}": value for name, value in state.items()}
    replace(place / _STATE, save(learned, metadata={"history": json.dumps(history)}))


def _resume(student: Any, adam: torch.optim.Optimizer, place: Path) -> list[float]:
    """Put the last state that was kept in place; its history, empty where there is none."""
    if not (place / _STATE).exists():
        return []
    from safetensors import safe_open

    state: dict[int, dict[str, torch.Tensor]] = {}
    weights: dict[str, torch.Tensor] = {}
    with safe_open(place / _STATE, framework="pt") as file:
        history = json.loads(file.metadata()["history"])
        for name in file.keys():
            whose, _, rest = name.partition(".")
            if whose == "model":
                weights[rest] = file.get_tensor(name)
            else:
                at, _, what = rest.partition(".")
                state.setdefault(int(at), {})[what] = file.get_tensor(name)
    student.load_state_dict(weights, strict=False)  # shared tensors are there once
    if state:
        adam.load_state_dict({"state": state, "param_groups": adam.state_dict()["param_groups"]})
    return list(history)
