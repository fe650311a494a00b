"""Linear layers of a torch model: found by their type, measured on texts, and replaced by two thinner ones.

This module imports torch; it is itself imported late.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from geo_mf.text.rows import Kind

__all__ = [
    "Group",
    "LowRankEmbedding",
    "LowRankLinear",
    "Moments",
    "batches",
    "features",
    "groups",
    "moments",
    "prompt_of",
    "replace",
    "replace_table",
    "unit_rows",
    "vectors",
]


class LowRankLinear(nn.Module):
    """`y = up(down(x))`: a linear layer of `rank` directions, with the bias of the one that it replaces."""

    def __init__(self, in_features: int, out_features: int, rank: int, bias: bool) -> None:
        super().__init__()
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, out_features, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(self.down(x))


class LowRankEmbedding(nn.Module):
    """A table of `rank` numbers a row, and a linear layer that makes rows of the old length of them."""

    def __init__(self, num_embeddings: int, embedding_dim: int, rank: int, padding_idx: int | None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.rank = num_embeddings, embedding_dim, rank
        self.padding_idx = padding_idx
        self.down = nn.Embedding(num_embeddings, rank, padding_idx=padding_idx)
        self.up = nn.Linear(rank, embedding_dim, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.up(self.down(ids))


@dataclass(frozen=True)
class Group:
    """Layers that share one weight: almost always a single one.

    Attributes:
        names: of the layers in the model, the first one is the group's name.
        module: the first one.
    """

    names: tuple[str, ...]
    module: nn.Module

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def weight(self) -> np.ndarray:
        """float64 [out, in], or [rows, dim] of a table."""
        return cast(torch.Tensor, self.module.weight).detach().cpu().double().numpy()


def groups(model: nn.Module, kind: type[nn.Module] = nn.Linear) -> list[Group]:
    """The layers of exactly this type, in the order of the model; those with one weight between them in one group.

    A weight that a layer of another type holds as well is left out: a factor would not serve both. So are subclasses,
    whose weight is often read by the module around them.
    """
    sharing: dict[int, list[tuple[str, nn.Module]]] = {}
    # Every name counts, also where one module stands in several places.
    for name, module in model.named_modules(remove_duplicate=False):
        weight = module._parameters.get("weight")
        if weight is not None:
            sharing.setdefault(id(weight), []).append((name, module))
    return [
        Group(tuple(name for name, _ in found), found[0][1])
        for found in sharing.values()
        if all(type(module) is kind for _, module in found)
    ]


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the module of that name."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def replace(model: nn.Module, group: Group, left: np.ndarray, right: np.ndarray) -> None:
    """Put two thin layers with the weights `left` [out, rank] and `right` [rank, in] in the place of a group's.

    Each layer keeps its own bias; the two thin weights are shared as the one was.
    """
    shared: LowRankLinear | None = None
    made: dict[int, LowRankLinear] = {}
    for name in group.names:
        old = cast(nn.Linear, model.get_submodule(name))
        if id(old) not in made:
            new = LowRankLinear(old.in_features, old.out_features, left.shape[1], old.bias is not None)
            new = new.to(device=old.weight.device, dtype=old.weight.dtype)
            if shared is None:
                with torch.no_grad():
                    new.up.weight.copy_(torch.from_numpy(left))
                    new.down.weight.copy_(torch.from_numpy(right))
                shared = new
            else:
                new.up.weight, new.down.weight = shared.up.weight, shared.down.weight
            if old.bias is not None:
                new.up.bias = old.bias
            new.train(old.training)
            made[id(old)] = new
        _put(model, name, made[id(old)])


def replace_table(model: nn.Module, group: Group, left: np.ndarray, right: np.ndarray) -> None:
    """Put a thin table `left` [rows, rank] and a layer with `right` [rank, dim] in the place of an embedding table."""
    old = cast(nn.Embedding, group.module)
    new = LowRankEmbedding(old.num_embeddings, old.embedding_dim, left.shape[1], old.padding_idx)
    with torch.no_grad():
        new.down.weight.copy_(torch.from_numpy(left))
        new.up.weight.copy_(torch.from_numpy(right.T))
    new = new.to(device=old.weight.device, dtype=old.weight.dtype)
    for name in group.names:
        _put(model, name, new)


def batches(model: Any, texts: Sequence[str], size: int) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Positions and features of the texts, those of like length together: little padding."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        yield rows, features(model, [texts[int(row)] for row in rows])


def prompt_of(model: Any, kind: Kind) -> str:
    """What the library puts before a text of this kind."""
    names = ("query",) if kind == "query" else ("document", "passage", "corpus")
    name = next((name for name in names if model.prompts.get(name) is not None), model.default_prompt_name)
    return (model.prompts.get(name) if name else "") or ""


def features(model: Any, texts: Sequence[str]) -> dict[str, Any]:
    """What the model is given for documents, on its device."""
    prepared = model.preprocess(list(texts), prompt=prompt_of(model, "document") or None)
    return {
        key: value.to(model.device) if isinstance(value, torch.Tensor) else value for key, value in prepared.items()
    }


def vectors(model: Any, prepared: dict[str, Any]) -> torch.Tensor:
    """float32 [texts, dim] of unit length."""
    return unit_rows(model, model(prepared))


def unit_rows(model: Any, result: dict[str, Any]) -> torch.Tensor:
    """float32 [texts, dim] of unit length, of what a model gave: as many numbers of it as its settings keep."""
    return nn.functional.normalize(result["sentence_embedding"][:, : model.truncate_dim].float(), dim=-1)


@dataclass
class Moments:
    """What a layer was given and what its outputs did, over some texts.

    Attributes:
        inputs: float64 [in, in], the mean of `x x^T`.
        outputs: float64 [out, out], the sum of `g g^T` over a text, in the mean of the texts.
        samples: how many inputs.
    """

    inputs: np.ndarray
    outputs: np.ndarray
    samples: int = 0


def moments(
    model: Any,
    found: Sequence[Group],
    texts: Sequence[str],
    seed: int,
    tick: Callable[[int], object] = lambda _: None,
) -> Mapping[str, Moments]:
    """Measure the layers of some groups on texts. A layer that is never used keeps moments of zeros.

    `g` is the gradient of the vectors' product with random signs, one draw a text: its second moment is that of the
    whole Jacobian in expectation (Hutchinson 1989). `tick` is told how many texts were read.
    """
    sums: dict[str, Moments] = {}
    for group in found:
        rows, columns = cast(torch.Tensor, group.module.weight).shape
        sums[group.name] = Moments(np.zeros((columns, columns)), np.zeros((rows, rows)))
    random = torch.Generator().manual_seed(seed)
    mask: list[torch.Tensor | None] = [None]
    with _watched(model, found, sums, mask):
        for rows, prepared in batches(model, texts, 32):
            mask[0] = prepared.get("attention_mask")
            given = vectors(model, prepared)
            signs = torch.randint(0, 2, given.shape, generator=random).to(given) * 2 - 1
            (given * signs).sum().backward()
            tick(len(rows))
    for one in sums.values():
        one.inputs /= max(one.samples, 1)
        one.outputs /= len(texts)
    return sums


@contextmanager
def _watched(
    model: nn.Module, found: Sequence[Group], sums: Mapping[str, Moments], mask: list[torch.Tensor | None]
) -> Iterator[None]:
    """Add up what the layers see while the model runs forward and backward; its weights get no gradients."""
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    handles = []
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        # Something has to need a gradient, or nothing of the graph is kept.
        for group in found:
            seen: set[int] = set()
            for name in group.names:
                module = model.get_submodule(name)
                if id(module) not in seen:
                    seen.add(id(module))
                    handles.append(module.register_forward_hook(_hook(sums[group.name], mask)))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter in frozen:
            parameter.requires_grad_(True)


def _hook(into: Moments, mask: list[torch.Tensor | None]) -> Callable[..., Any]:
    def hook(module: nn.Module, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> torch.Tensor:
        x = given[0].detach()
        # Padding is no input: the rows that the mask names are left out where the layer sees tokens.
        real = mask[0]
        rows = x[real.bool()] if real is not None and x.shape[:-1] == real.shape else x.reshape(-1, x.shape[-1])
        into.inputs += (rows.T @ rows).double().cpu().numpy()
        into.samples += len(rows)
        if not result.requires_grad:
            result.requires_grad_(True)
        result.register_hook(_adding(into))
        return result

    return hook


def _adding(into: Moments) -> Callable[[torch.Tensor], None]:
    def add(gradient: torch.Tensor) -> None:
        g = gradient.reshape(-1, gradient.shape[-1])
        into.outputs += (g.T @ g).double().cpu().numpy()

    return add
