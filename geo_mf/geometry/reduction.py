"""Fewer dimensions for the text of the indexed rows: where candidates are looked for, not where they are scored."""

import numpy as np

__all__ = ["kept", "text_basis", "vector_basis"]


def text_basis(embeddings: np.ndarray, dims: int) -> np.ndarray:
    """float32 [dim, dims], orthonormal: the directions with most of the embeddings' squared length (PCA, not centred:
    it is inner products that have to stay).

    Args:
        embeddings: float32 [items, dim].
        dims: at most dim.
    """
    moments = embeddings.T @ embeddings
    _, directions = np.linalg.eigh(moments.astype(np.float64))
    return np.ascontiguousarray(directions[:, ::-1][:, :dims], np.float32)


def kept(embeddings: np.ndarray, basis: np.ndarray) -> float:
    """Share of the embeddings' squared length that is left in a basis [dim, dims]; 1 where there was none."""
    all_of_it = float(np.einsum("nd,nd->", embeddings, embeddings, dtype=np.float64))
    if all_of_it == 0:
        return 1.0
    left = sum(
        float(np.square(embeddings[start : start + 2**16] @ basis).sum(dtype=np.float64))
        for start in range(0, len(embeddings), 2**16)
    )
    return left / all_of_it


def vector_basis(rank: int, basis: np.ndarray) -> np.ndarray:
    """float32 [rank + dim + 1, rank + dims + 1]: the factors and the trend as they are, the text in `basis`."""
    dim, dims = basis.shape
    out = np.zeros((rank + dim + 1, rank + dims + 1), np.float32)
    out[:rank, :rank] = np.eye(rank, dtype=np.float32)
    out[rank : rank + dim, rank : rank + dims] = basis
    out[-1, -1] = 1
    return out
