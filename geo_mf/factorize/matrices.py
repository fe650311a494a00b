"""What estimators accept as matrices, and what they say about the rest."""

from typing import Any

import numpy as np
from scipy import sparse

from geo_mf.errors import InvalidInput


def shape(matrix: Any) -> tuple[int, int]:
    """(rows, columns) of a sparse matrix, whose own attribute has no precise type."""
    rows, columns = matrix.shape
    return int(rows), int(columns)


def check(user_items: Any, allow_negative: bool = False) -> sparse.csr_array:
    """A float32 CSR copy [users, items]: duplicates summed, zeros removed, indices sorted. The input stays as it is.

    Raises:
        InvalidInput: not a two-dimensional matrix, empty along an axis, or a value that is negative, NaN or infinite.
    """
    if not sparse.issparse(user_items):
        if not isinstance(user_items, np.ndarray) or user_items.ndim != 2:
            raise InvalidInput(
                f"user_items is {type(user_items).__name__}: give a scipy sparse matrix of shape [users, items] "
                "(Interactions have to_csr())"
            )
    matrix = sparse.csr_array(user_items, copy=False)
    if matrix.ndim != 2 or 0 in shape(matrix):
        raise InvalidInput(f"user_items has shape {matrix.shape}: it needs at least one user and one item")
    data = matrix.data.astype(np.float32)
    if not np.isfinite(data).all():
        raise InvalidInput("user_items holds NaN or infinity: remove those entries or give them a finite weight")
    if not allow_negative and data.size and data.min() < 0:
        raise InvalidInput(
            f"user_items holds a negative weight ({data.min():g}): weights say how sure an interaction is; "
            "leave dislikes out"
        )
    matrix = sparse.csr_array((data, matrix.indices.copy(), matrix.indptr.copy()), shape=matrix.shape)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def check_features(features: Any, users_items: tuple[int, int]) -> np.ndarray:
    """Dense float32 features [items, dim].

    Raises:
        InvalidInput: another number of rows than items (and says when they look like users), or not two-dimensional.
    """
    if sparse.issparse(features):
        raise InvalidInput("item_features is sparse: give a dense array [items, dim] (features.toarray())")
    features = np.asarray(features, np.float32)
    users, items = users_items
    if features.ndim != 2 or len(features) != items:
        hint = ""
        if features.ndim == 2 and len(features) == users:
            hint = "; it has one row per user, so user_items may be transposed (it must be [users, items])"
        raise InvalidInput(f"item_features has shape {features.shape}, expected ({items}, dim): one row per item{hint}")
    return features


def check_history(user_items: Any, rows: int, items: int) -> sparse.csr_array:
    """Histories for `rows` users over `items` items, checked like `check`.

    Raises:
        InvalidInput: the shape differs; a transposed matrix is recognised and named.
    """
    matrix = check(user_items)
    found = shape(matrix)
    if found[1] != items:
        hint = f"pass user_items[userid], with {items} columns, one for each item of the model"
        if found[0] == items:
            hint = "it looks transposed: rows must be users and columns items, so pass the transpose (.T)"
        raise InvalidInput(f"user_items has shape {found}, expected ({rows}, {items}): {hint}")
    if found[0] != rows:
        raise InvalidInput(
            f"user_items has {found[0]} rows for {rows} users asked for: pass user_items[userid], one row for each"
        )
    return matrix
