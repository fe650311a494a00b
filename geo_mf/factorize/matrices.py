"""What estimators accept as matrices, and what they say about the rest."""

from typing import Any, Literal

import numpy as np
from scipy import sparse

from geo_mf.errors import InvalidInput

Name = Literal["user_items", "item_users"]
"""Arguments that are matrices."""

Side = Literal["item", "user"]
"""Whose features are given."""

_AXES = {"user_items": ("user", "item"), "item_users": ("item", "user")}


def shape(matrix: Any) -> tuple[int, int]:
    """(rows, columns) of a sparse matrix, whose own attribute has no precise type."""
    rows, columns = matrix.shape
    return int(rows), int(columns)


def check(matrix: Any, allow_negative: bool = False, name: Name = "user_items", copy: bool = True) -> sparse.csr_array:
    """A float32 CSR copy: duplicates summed, zeros removed, indices sorted. The input stays as it is.

    With `copy=False` the input's own memory where it is of that form already: for those who only read.

    Raises:
        InvalidInput: not a two-dimensional matrix of real numbers, empty along an axis, or a value that is negative,
            NaN, infinite, or infinite as float32.
    """
    row, column = _AXES[name]
    if not sparse.issparse(matrix):
        if not isinstance(matrix, np.ndarray) or matrix.ndim != 2:
            raise InvalidInput(
                f"{name} is {type(matrix).__name__}: give a scipy sparse matrix of shape [{row}s, {column}s] "
                "(Interactions have to_csr())"
            )
    if matrix.dtype.kind not in "biuf":
        raise InvalidInput(f"{name} holds {matrix.dtype}: weights must be real numbers")
    given = sparse.csr_array(matrix, copy=False)
    if given.ndim != 2 or 0 in shape(given):
        raise InvalidInput(f"{name} has shape {given.shape}: it needs at least one {row} and one {column}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is named below
        data = given.data.astype(np.float32, copy=False)
    if not allow_negative and data.size and data.min() < 0:
        raise InvalidInput(
            f"{name} holds a negative weight ({data.min():g}): weights say how sure an interaction is; "
            "leave dislikes out"
        )
    # Of 32 bits where they suffice, which is half of what large matrices often come with.
    narrow = np.int32 if max(given.nnz, *shape(given)) <= np.iinfo(np.int32).max else np.int64
    own = copy or not (data.all() and given.has_canonical_format)
    columns, starts = (part.astype(narrow, copy=own) for part in (given.indices, given.indptr))
    values = data.copy() if own and data is given.data else data
    checked = sparse.csr_array((values, columns, starts), shape=given.shape)
    checked.sum_duplicates()
    # NaN is the least and the greatest of what it is among.
    if checked.nnz and not np.isfinite([checked.data.min(), checked.data.max()]).all():
        raise InvalidInput(
            f"{name} holds NaN, infinity or a number beyond float32: remove those entries or give them a finite "
            "weight, around 1"
        )
    if not checked.data.all():
        checked.eliminate_zeros()
    return checked


def check_training(user_items: Any) -> sparse.csr_array:
    """`check`, for a fit, which only reads.

    Raises:
        InvalidInput: as in `check`, or there are no interactions.
    """
    matrix = check(user_items, copy=False)
    if matrix.nnz == 0:
        raise InvalidInput(f"user_items of shape {shape(matrix)} has no interactions: there is nothing to fit")
    return matrix


def check_features(features: Any, users_items: tuple[int, int], side: Side = "item") -> np.ndarray:
    """Dense float32 features [items, dim], or of users, for a fit.

    Raises:
        InvalidInput: another number of rows than items (and says when they look like users), or not two-dimensional.
    """
    if isinstance(features, bool):
        raise InvalidInput(f"{side}_features is {features}: to ask for a progress bar write show_progress={features}")
    features = _dense(features, side)
    own, other = users_items if side == "user" else users_items[::-1]
    if features.ndim != 2 or len(features) != own:
        hint = ""
        if features.ndim == 2 and len(features) == other:
            others = "item" if side == "user" else "user"
            hint = f"; it has one row per {others}, so user_items may be transposed (it must be [users, items])"
        raise InvalidInput(
            f"{side}_features has shape {features.shape}, expected ({own}, dim): one row per {side}{hint}"
        )
    return features


def check_more_features(features: Any, dim: int, rows: int | None = None, side: Side = "item") -> np.ndarray:
    """Dense float32 features [rows, dim] for a model that was fitted with `dim` of them; [dim] counts as one row.

    Raises:
        InvalidInput: another shape, or a number that is not finite.
    """
    features = np.atleast_2d(_dense(features, side))
    if features.ndim != 2 or features.shape[1] != dim or len(features) != (len(features) if rows is None else rows):
        raise InvalidInput(
            f"{side}_features has shape {features.shape}, expected ({'n' if rows is None else rows}, {dim}): "
            f"a row for each {side}, with the columns that the model was fitted with"
        )
    if not np.isfinite(features).all():
        row = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
        raise InvalidInput(f"{side}_features must be finite; row {row} is not: remove or replace its NaN or infinity")
    return features


def check_history(
    matrix: Any,
    rows: int,
    users_items: tuple[int, int],
    allow_negative: bool = False,
    name: Name = "user_items",
) -> sparse.csr_array:
    """Histories of `rows` users (or items) over all items (or users) of a model of `users_items`, checked like `check`.

    One history may also be a sparse vector: that is what a row of a sparse array is.

    Raises:
        InvalidInput: the shape differs; a transposed matrix is recognised and named.
    """
    row, column = _AXES[name]
    size, other = users_items if name == "user_items" else users_items[::-1]
    if sparse.issparse(matrix) and matrix.ndim == 1:
        matrix = matrix.reshape(1, -1)
    checked = check(matrix, allow_negative, name)
    found = shape(checked)
    if found[1] != other:
        hint = f"pass {name}[{row}id], with {other} columns, one for each {column} of the model"
        if found[0] == other or found[1] == size:
            hint = (
                f"it looks transposed: rows must be {row}s and columns {column}s, "
                "so take the rows of the transpose (.T)"
            )
        raise InvalidInput(f"{name} has shape {found}, expected ({rows}, {other}): {hint}")
    if found[0] != rows:
        raise InvalidInput(
            f"{name} has {found[0]} rows for {rows} {row}s asked for: pass {name}[{row}id], one row for each"
        )
    return checked


def _dense(features: Any, side: Side) -> np.ndarray:
    if sparse.issparse(features):
        raise InvalidInput(f"{side}_features is sparse: give a dense array [{side}s, dim] (features.toarray())")
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is named later
            return np.asarray(features, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{side}_features must be a table of numbers [{side}s, dim]: {error}") from error
