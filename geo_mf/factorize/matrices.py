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
        InvalidInput: not a two-dimensional matrix of real numbers, empty along an axis, or a value that is negative,
            NaN, infinite, or infinite as float32.
    """
    if not sparse.issparse(user_items):
        if not isinstance(user_items, np.ndarray) or user_items.ndim != 2:
            raise InvalidInput(
                f"user_items is {type(user_items).__name__}: give a scipy sparse matrix of shape [users, items] "
                "(Interactions have to_csr())"
            )
    if user_items.dtype.kind not in "biuf":
        raise InvalidInput(f"user_items holds {user_items.dtype}: weights must be real numbers")
    matrix = sparse.csr_array(user_items, copy=False)
    if matrix.ndim != 2 or 0 in shape(matrix):
        raise InvalidInput(f"user_items has shape {matrix.shape}: it needs at least one user and one item")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is named below
        data = matrix.data.astype(np.float32)
    if not allow_negative and data.size and data.min() < 0:
        raise InvalidInput(
            f"user_items holds a negative weight ({data.min():g}): weights say how sure an interaction is; "
            "leave dislikes out"
        )
    matrix = sparse.csr_array((data, matrix.indices.copy(), matrix.indptr.copy()), shape=matrix.shape)
    matrix.sum_duplicates()
    if not np.isfinite(matrix.data).all():
        raise InvalidInput(
            "user_items holds NaN, infinity or a number beyond float32: remove those entries or give them a finite "
            "weight, around 1"
        )
    matrix.eliminate_zeros()
    return matrix


def check_features(features: Any, users_items: tuple[int, int]) -> np.ndarray:
    """Dense float32 features [items, dim].

    Raises:
        InvalidInput: another number of rows than items (and says when they look like users), or not two-dimensional.
    """
    if sparse.issparse(features):
        raise InvalidInput("item_features is sparse: give a dense array [items, dim] (features.toarray())")
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which RidgePrior names
            features = np.asarray(features, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"item_features must be a table of numbers [items, dim]: {error}") from error
    users, items = users_items
    if features.ndim != 2 or len(features) != items:
        hint = ""
        if features.ndim == 2 and len(features) == users:
            hint = "; it has one row per user, so user_items may be transposed (it must be [users, items])"
        raise InvalidInput(f"item_features has shape {features.shape}, expected ({items}, dim): one row per item{hint}")
    return features


def check_history(user_items: Any, rows: int, users_items: tuple[int, int]) -> sparse.csr_array:
    """Histories for `rows` users over the items of a model of `users_items`, checked like `check`.

    One user's history may also be a sparse vector: that is what a row of a sparse array is.

    Raises:
        InvalidInput: the shape differs; a transposed matrix is recognised and named.
    """
    if sparse.issparse(user_items) and user_items.ndim == 1:
        user_items = user_items.reshape(1, -1)
    matrix = check(user_items)
    found = shape(matrix)
    users, items = users_items
    if found[1] != items:
        hint = f"pass user_items[userid], with {items} columns, one for each item of the model"
        if found[0] == items or found[1] == users:
            hint = "it looks transposed: rows must be users and columns items, so take the rows of the transpose (.T)"
        raise InvalidInput(f"user_items has shape {found}, expected ({rows}, {items}): {hint}")
    if found[0] != rows:
        raise InvalidInput(
            f"user_items has {found[0]} rows for {rows} users asked for: pass user_items[userid], one row for each"
        )
    return matrix
