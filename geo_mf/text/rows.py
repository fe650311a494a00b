"""What all encoders do alike: which texts differ and which are blank, rows of unit length, settings in range."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from geo_mf.errors import InvalidInput

__all__ = ["Kind", "check_kind", "distinct_texts", "spread", "unit", "well_formed", "whole"]

Kind = Literal["document", "query"]


def distinct_texts(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Each different text once, in order of first appearance, and int64 [len(texts)]: its row, -1 for a blank text.

    Raises `InvalidInput` for a lone str, and for an element that is not a str.
    """
    if isinstance(texts, str | bytes):
        raise InvalidInput(f"texts is a lone {type(texts).__name__}; expected a list of str: pass [text]")
    rows = np.empty(len(texts), np.int64)
    seen: dict[str, int] = {}
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput(
                f"text {position} is {text!r}, a {type(text).__name__}; expected a str ('' for a missing text)"
            )
        rows[position] = -1 if not text or text.isspace() else seen.setdefault(text, len(seen))
    return list(seen), rows


def whole(name: str, value: int, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise InvalidInput(f"{name} is {value!r}; expected a whole number from {low} to {high}")
    return int(value)


def check_kind(kind: str) -> None:
    if kind not in ("document", "query"):
        raise InvalidInput(f"kind is {kind!r}; expected 'document' or 'query'")


def well_formed(text: str) -> str:
    """The text with lone surrogates, which no tokenizer accepts, replaced by question marks."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def unit(vectors: np.ndarray, name: str, texts: list[str]) -> np.ndarray:
    """`vectors` float32 [n, dim], scaled in place to unit length; a zero row stays. Refuses what is not finite."""
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    bad = np.flatnonzero(~np.isfinite(norms))
    if bad.size:
        raise InvalidInput(
            f"{name} gave numbers that are not finite for {bad.size} of {len(texts)} texts, "
            f"first {texts[bad[0]][:80]!r}; its weights are damaged or do not suit this device"
        )
    vectors /= np.where(norms > 0, norms, 1.0).astype(np.float32)[:, None]
    return vectors


def spread(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[len(rows), dim]: row `rows[j]` of `vectors` for text j, zeros where that is -1."""
    if len(vectors) == len(rows):
        return vectors
    result = np.zeros((len(rows), vectors.shape[1]), np.float32)
    result[rows >= 0] = vectors[rows[rows >= 0]]
    return result
