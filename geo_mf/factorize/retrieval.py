"""What every factor model does with its factors: rank items, find neighbours, score pairs, save and load.

A model adds how the factors are learned. It calls `_set_factors` when it has them, and overrides

- `user_vectors` and `item_vectors`, when a score is more than the inner product of two factors: with biases it is
  <[w, 1, b_u], [h, b_i, 1]>;
- `_fold_in`, when a history alone decides a user's vector, and `_fold_in_items` likewise;
- `_settings`, `_arrays` and `_restore`, when it has more to save than its settings and factors.

Names and order of arguments are those of `implicit` 0.7.3; what differs on purpose is listed in `estimators.py`.
"""

from pathlib import Path
from typing import Any, Self

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


class FactorModel(Parameters):
    """User and item factors, and the questions they answer."""

    _users: np.ndarray | None = None
    _items: np.ndarray | None = None

    @property
    def user_factors(self) -> np.ndarray:
        """float32 [users, K]. Raises InvalidInput before `fit`."""
        return _fitted(self._users)

    @property
    def item_factors(self) -> np.ndarray:
        """float32 [items, K]. Raises InvalidInput before `fit`."""
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
            queries = self._fold_in(history)
        else:
            queries = self.user_vectors[in_range(userids, len(self.user_vectors), "user")]
        seen = None
        if filter_already_liked_items and history is not None:
            seen = np.split(history.indices, history.indptr[1:-1])
        vectors = self.item_vectors
        return _search(vectors, queries, N, mask(items, filter_items, len(vectors), "item"), seen, single)

    def similar_items(
        self,
        itemid: Rows,
        N: int = 10,
        filter_items: Rows | None = None,
        items: Rows | None = None,
    ) -> Ranked:
        """The items nearest by cosine of factors, the item itself included; arguments and errors as in `recommend`."""
        itemids, single = as_rows(itemid)
        unit = _unit(self.item_factors)
        queries = unit[in_range(itemids, len(unit), "item")]
        return _search(unit, queries, N, mask(items, filter_items, len(unit), "item"), None, single)

    def similar_users(
        self,
        userid: Rows,
        N: int = 10,
        filter_users: Rows | None = None,
        users: Rows | None = None,
    ) -> Ranked:
        """The users nearest by cosine of factors, the user itself included; arguments and errors as in `recommend`."""
        userids, single = as_rows(userid)
        unit = _unit(self.user_factors)
        queries = unit[in_range(userids, len(unit), "user")]
        return _search(unit, queries, N, mask(users, filter_users, len(unit), "user"), None, single)

    def recalculate_user(self, userid: Rows, user_items: Any) -> np.ndarray:
        """Users' vectors from histories alone, by the exact row solve: [dim] for one row of user_items, [n, dim] for n.

        Raises:
            InvalidInput: shapes disagree, or this model cannot recalculate users.
        """
        userids, single = as_rows(userid)
        folded = self._fold_in(self._check_history(user_items, len(userids)))
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
        left = user_vectors[in_range(users, len(user_vectors), "user")]
        right = item_vectors[in_range(items, len(item_vectors), "item")]
        scores = np.einsum("nk,nk->n", *np.broadcast_arrays(left, right))
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

    def _check_history(self, user_items: Any, rows: int) -> sparse.csr_array:
        """`rows` histories over this model's items, as `_fold_in` takes them."""
        return matrices.check_history(user_items, rows, (len(self.user_factors), len(self.item_factors)))

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

    def _set_factors(self, users: np.ndarray, items: np.ndarray) -> None:
        """Factors float32 [users, K] and [items, K], in place of any before."""
        self._users, self._items = users, items


def _fitted(factors: np.ndarray | None) -> np.ndarray:
    if factors is None:
        raise InvalidInput("this model has no factors yet: call fit(user_items) first")
    return factors


def _unit(factors: np.ndarray) -> np.ndarray:
    """A normalised copy; zero rows stay zero."""
    norms = np.linalg.norm(factors, axis=1, keepdims=True)
    return factors / np.where(norms > 0, norms, 1)


def _search(
    vectors: np.ndarray,
    queries: np.ndarray,
    N: int,
    allowed: np.ndarray | None,
    seen: list[np.ndarray] | None,
    single: bool,
) -> Ranked:
    # No list is longer than the rows there are, whatever N is: the search sets N places aside for each query.
    hits = ExactIndex(vectors).search(queries, min(whole("N", N, 1), len(vectors)), allowed, seen)
    ids = [rows[:n] for rows, n in zip(hits.rows, hits.counts, strict=True)]
    scores = [row[:n] for row, n in zip(hits.scores, hits.counts, strict=True)]
    if single:
        return ids[0], scores[0]
    if len({len(row) for row in ids}) == 1:
        return np.stack(ids), np.stack(scores)
    return ids, scores
