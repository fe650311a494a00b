"""What every factor model does with its factors: rank items, find neighbours, score pairs, save and load.

A model adds how the factors are learned. It calls `_set_factors` when it has them, and overrides

- `user_vectors` and `item_vectors`, when a score is more than the inner product of two factors. With biases it is
  <[w, b_u, 1], [h, 1, b_i]>: such a model keeps the vectors, and gives their first K columns as factors;
- `_fold_in`, when a history alone decides a user's vector, `_fold_in_users`, when features do as well, and
  `_fold_in_items`, when they decide an item's factor;
- `_check_history`, when histories may hold more than positive weights;
- `_settings`, `_arrays` and `_restore`, when it saves more than plain settings and two tables of factors.

Names and order of arguments are those of `implicit` 0.7.3; what differs on purpose is listed in `estimators.py`.
"""

from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from scipy import sparse

from geo_mf.errors import InvalidInput
from geo_mf.factorize import matrices, persistence
from geo_mf.factorize.parameters import Parameters, whole
from geo_mf.factorize.rows import Rows, as_rows, in_range, mask
from geo_mf.index.exact import ExactIndex

Ranked = tuple[np.ndarray, np.ndarray] | tuple[list[np.ndarray], list[np.ndarray]]
"""Ids (int32) and scores (float32). One row in: 1-D arrays. Many rows in: 2-D arrays, or lists of 1-D arrays when some
rows have fewer results than others: a missing result is never padded."""

_Table = Literal["items", "unit items", "unit users"]

_PAIRS = 1 << 16
"""Pairs whose vectors are held at once by `predict`."""


class FactorModel(Parameters):
    """User and item factors, and the questions they answer.

    Factors are read-only: what is prepared from them once, such as an index of the items, must stay true.
    """

    def __init__(self) -> None:
        self._users: np.ndarray | None = None
        self._items: np.ndarray | None = None
        self._indexes: dict[_Table, ExactIndex] = {}

    @property
    def user_factors(self) -> np.ndarray:
        """float32 [users, K], read-only. Raises InvalidInput before `fit`."""
        return _fitted(self._users)

    @property
    def item_factors(self) -> np.ndarray:
        """float32 [items, K], read-only. Raises InvalidInput before `fit`."""
        return _fitted(self._items)

    @property
    def user_vectors(self) -> np.ndarray:
        """float32 [users, dim]; its inner products with `item_vectors` are the scores."""
        return self.user_factors

    @property
    def item_vectors(self) -> np.ndarray:
        """float32 [items, dim]: what an index of this model's items holds."""
        return self.item_factors

    def recommend(
        self,
        userid: Rows,
        user_items: Any = None,
        N: int = 10,
        filter_already_liked_items: bool = True,
        filter_items: Rows | None = None,
        recalculate_user: bool = False,
        items: Rows | None = None,
        user_features: np.ndarray | None = None,
    ) -> Ranked:
        """The best items for one user or many.

        Args:
            userid: a row, or several.
            user_items: sparse matrix with one row of history for each user asked for; needed to leave out liked items
                and for `recalculate_user`.
            N: how many items at most; fewer come back when fewer are left.
            filter_already_liked_items: leave out the items of the history.
            filter_items: items never to return.
            recalculate_user: fold the history in instead of using what `fit` learned; `userid` may then be any number.
            items: rank these items only. It composes with both filters.
            user_features: see `recalculate_user`, the method; only for `recalculate_user`, the argument.

        Returns:
            ids int32 and scores float32, best first; see `Ranked`.

        Raises:
            InvalidInput: shapes disagree, N < 1, a history is missing, or this model cannot recalculate users.
            UnknownId: a user or an item is negative or out of range.
        """
        userids, single = as_rows(userid)
        history = None
        if user_items is not None:
            history = self._check_history(user_items, len(userids))
        elif filter_already_liked_items or recalculate_user:
            raise InvalidInput(
                "user_items is needed to leave out liked items or to recalculate the user: pass user_items[userid], "
                "or filter_already_liked_items=False"
            )
        if recalculate_user and history is not None:
            queries = self._fold_in_users(userids, history, user_features)
        else:
            queries = self.user_vectors[in_range(userids, len(self.user_vectors), "user")]
        seen = None
        if filter_already_liked_items and history is not None:
            seen = np.split(history.indices, history.indptr[1:-1])
        index = self._index("items")
        return _search(index, queries, N, mask(items, filter_items, index.size, "item"), seen, single)

    def similar_items(
        self,
        itemid: Rows,
        N: int = 10,
        recalculate_item: bool = False,
        item_users: Any = None,
        filter_items: Rows | None = None,
        items: Rows | None = None,
        item_features: np.ndarray | None = None,
    ) -> Ranked:
        """The items nearest by cosine of factors, the item itself included.

        Args:
            itemid: a row, or several.
            N: how many items at most.
            recalculate_item: fold the histories in instead of using the stored factors; `itemid` may then be any
                number.
            item_users: sparse matrix with the whole history of each item asked for, one row for each; only for
                `recalculate_item`.
            filter_items: items never to return.
            items: rank these items only. It composes with `filter_items`.
            item_features: see `recalculate_item`, the method; only for `recalculate_item`, the argument.

        Raises:
            InvalidInput, UnknownId: as in `recommend` and `recalculate_item`.
        """
        itemids, single = as_rows(itemid)
        index = self._index("unit items")
        if recalculate_item:
            queries = _unit(self._fold_in_items(self._check_item_history(item_users, len(itemids)), item_features))
        else:
            queries = _unit(self.item_factors[in_range(itemids, index.size, "item")])
        return _search(index, queries, N, mask(items, filter_items, index.size, "item"), None, single)

    def similar_users(
        self,
        userid: Rows,
        N: int = 10,
        filter_users: Rows | None = None,
        users: Rows | None = None,
    ) -> Ranked:
        """The users nearest by cosine of factors, the user itself included; arguments and errors as in `recommend`."""
        userids, single = as_rows(userid)
        index = self._index("unit users")
        queries = _unit(self.user_factors[in_range(userids, index.size, "user")])
        return _search(index, queries, N, mask(users, filter_users, index.size, "user"), None, single)

    def recalculate_user(self, userid: Rows, user_items: Any, user_features: np.ndarray | None = None) -> np.ndarray:
        """Users' vectors from histories, float32; the model stays as it is.

        Args:
            userid: a row, or several; any numbers. A model that was fitted with features of users takes those that it
                knows of these rows, and of others none; else only how many there are counts.
            user_items: sparse matrix, the whole history of each.
            user_features: float [n, dim], in the place of the known ones; a zero row for a user without.

        Returns:
            [dim] for one user, [n, dim] for several. The inner products with `item_vectors` are the scores.

        Raises:
            InvalidInput: shapes disagree, features are unasked for, or this model cannot recalculate users.
        """
        userids, single = as_rows(userid)
        folded = self._fold_in_users(userids, self._check_history(user_items, len(userids)), user_features)
        return folded[0] if single else folded

    def recalculate_item(self, itemid: Rows, item_users: Any, item_features: np.ndarray | None = None) -> np.ndarray:
        """Items' factors from histories alone, float32; the model stays as it is.

        Args:
            itemid: a row, or several; any numbers, for only how many there are counts.
            item_users: sparse matrix, the whole history of each.
            item_features: float [n, dim], when the model was fitted with features; a zero row for an item without.

        Returns:
            [K] for one item, [n, K] for several.

        Raises:
            InvalidInput: shapes disagree, features are missing or unasked for, or this model cannot recalculate items.
        """
        itemids, single = as_rows(itemid)
        folded = self._fold_in_items(self._check_item_history(item_users, len(itemids)), item_features)
        return folded[0] if single else folded

    def predict(self, userids: Rows, itemids: Rows) -> np.ndarray:
        """Scores of pairs.

        Args:
            userids: a row, or n rows.
            itemids: a row, or n rows; one row on either side goes with every row of the other.

        Returns:
            float32 [n], or [] (a single number) for one user and one item.

        Raises:
            InvalidInput: another number of items than users.
            UnknownId: a user or an item is negative or out of range.
        """
        (users, one_user), (items, one_item) = as_rows(userids), as_rows(itemids)
        if len(users) != len(items) and not (one_user or one_item):
            raise InvalidInput(
                f"{len(users)} users and {len(items)} items: give as many of one as of the other, or one"
            )
        user_vectors, item_vectors = self.user_vectors, self.item_vectors
        users, items = np.broadcast_arrays(
            in_range(users, len(user_vectors), "user"), in_range(items, len(item_vectors), "item")
        )
        scores = np.empty(len(users), np.float32)
        for start in range(0, len(users), _PAIRS):
            pairs = slice(start, start + _PAIRS)
            scores[pairs] = np.einsum("nk,nk->n", user_vectors[users[pairs]], item_vectors[items[pairs]])
        return scores[0] if one_user and one_item else scores

    def save(self, path: str | Path) -> None:
        """Write settings and factors to one safetensors file. A random_state that is no integer is not kept."""
        persistence.save(path, type(self).__name__, self._settings(), self._arrays())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model that `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            IncompatibleIndex: the file is damaged or holds another kind of model.
        """
        settings, arrays = persistence.load(path, cls.__name__)
        model = cls(**settings)
        model._restore(arrays)
        return model

    # --- what a model may override -----------------------------------------------------------------------------------

    def _fold_in(self, user_items: sparse.csr_array) -> np.ndarray:
        """Checked histories [n, items] -> users' vectors float32 [n, dim]."""
        raise InvalidInput(
            f"{type(self).__name__} cannot recalculate a user from a history: use the stored user, or fit again"
        )

    def _fold_in_users(
        self, userids: np.ndarray, user_items: sparse.csr_array, user_features: np.ndarray | None
    ) -> np.ndarray:
        """As `_fold_in`, for rows int64 [n] and, perhaps, their features."""
        if user_features is not None:
            raise InvalidInput(f"{type(self).__name__} takes no features of users: leave user_features out")
        return self._fold_in(user_items)

    def _fold_in_items(self, item_users: sparse.csr_array, item_features: np.ndarray | None) -> np.ndarray:
        """Checked histories [n, users] -> items' factors float32 [n, K]."""
        raise InvalidInput(
            f"{type(self).__name__} cannot recalculate an item from a history: use the stored item, or fit again"
        )

    def _check_history(self, user_items: Any, rows: int) -> sparse.csr_array:
        """`rows` histories over this model's items, as `_fold_in` takes them."""
        return matrices.check_history(user_items, rows, self._shape)

    def _settings(self) -> dict[str, Any]:
        """Settings as JSON can hold them; the constructor takes them back."""
        settings = self.get_params()
        if not isinstance(settings.get("random_state"), int):
            settings["random_state"] = None
        return settings

    def _arrays(self) -> dict[str, np.ndarray]:
        """What `fit` learned, by name."""
        return {"user_factors": self.user_factors, "item_factors": self.item_factors}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what `_arrays` gave."""
        self._set_factors(arrays["user_factors"], arrays["item_factors"])

    # --- what a model calls ------------------------------------------------------------------------------------------

    @property
    def _shape(self) -> tuple[int, int]:
        return len(self.user_factors), len(self.item_factors)

    def _set_factors(self, users: np.ndarray, items: np.ndarray) -> None:
        """Factors float32 [users, K] and [items, K], in place of any before."""
        self._set_users(users)
        self._set_items(items)

    def _set_users(self, factors: np.ndarray) -> None:
        self._users = _read_only(factors)
        self._indexes.pop("unit users", None)

    def _set_items(self, factors: np.ndarray) -> None:
        self._items = _read_only(factors)
        self._indexes.pop("items", None)
        self._indexes.pop("unit items", None)

    def _check_item_history(self, item_users: Any, rows: int) -> sparse.csr_array:
        """`rows` histories over this model's users, as `_fold_in_items` takes them."""
        if item_users is None:
            raise InvalidInput("item_users is needed to recalculate items: pass item_users[itemid]")
        return matrices.check_history(item_users, rows, self._shape, name="item_users")

    def _index(self, table: _Table) -> ExactIndex:
        """The index of a table. It holds a copy, which takes longer to make than a search of it."""
        if table not in self._indexes:
            if table == "items":
                vectors = self.item_vectors
            else:
                vectors = _unit(self.item_factors if table == "unit items" else self.user_factors)
            self._indexes[table] = ExactIndex(vectors)
        return self._indexes[table]


def _fitted(factors: np.ndarray | None) -> np.ndarray:
    if factors is None:
        raise InvalidInput("this model has no factors yet: call fit(user_items) first")
    return factors


def _unit(factors: np.ndarray) -> np.ndarray:
    """A normalised copy; zero rows stay zero."""
    norms = np.linalg.norm(factors, axis=1, keepdims=True)
    return factors / np.where(norms > 0, norms, 1)


def _read_only(factors: np.ndarray) -> np.ndarray:
    """A view that cannot be written to."""
    view = factors.view()
    view.flags.writeable = False
    return view


def _search(
    index: ExactIndex,
    queries: np.ndarray,
    N: int,
    allowed: np.ndarray | None,
    seen: list[np.ndarray] | None,
    single: bool,
) -> Ranked:
    # No list is longer than the rows there are, whatever N is: the search sets N places aside for each query.
    hits = index.search(queries, min(whole("N", N, 1), index.size), allowed, seen)
    counts = hits.counts
    if single:
        return hits.rows[0, : counts[0]], hits.scores[0, : counts[0]]
    if np.all(counts == counts[:1]):
        width = int(counts.max(initial=0))
        return hits.rows[:, :width], hits.scores[:, :width]
    return (
        [rows[:n] for rows, n in zip(hits.rows, counts, strict=True)],
        [scores[:n] for scores, n in zip(hits.scores, counts, strict=True)],
    )
