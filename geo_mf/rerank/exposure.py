"""Exposure: providers who were seen less stand higher, at a loss of relevance that has a bound.

The place r of a list is worth 1 / log2(1 + r) of somebody's attention (Singh and Joachims 2018, *Fairness of Exposure
in Rankings*, KDD). A provider g (a value of a column: an author, a site, an item) that has had exposure x_g is worth
f(x_g), where f is concave: the same place is worth more to those who had little (Do et al. 2021, *Two-sided fairness in
rankings via Lorenz dominance*, NeurIPS). A list wants

    sum over places r of  e_r * relevance  +  strength * sum over g of  f(x_g after the list),

and each place goes to the candidate that adds most: maximum marginal exposure. Over many lists this is the online
scheme of Usunier, Do and Dohmatob 2022 (*Fast online ranking with fairness of exposure*, FAccT), with the gain of a
whole place where they take the derivative.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from geo_mf.data.catalog import Catalog
from geo_mf.data.ids import IdMap
from geo_mf.errors import InvalidInput
from geo_mf.rerank.groups import Groups
from geo_mf.rerank.pool import Pool, Reranked, check_pool, normalised, with_others

Curve = Literal["log", "sqrt"]

_CURVES = {"log": np.log1p, "sqrt": np.sqrt}


def attention(k: int) -> np.ndarray:
    """float64 [k]: what the places 1..k are worth, 1 / log2(1 + r)."""
    return 1 / np.log2(np.arange(2, k + 2))


def worth(exposure: np.ndarray, curve: Curve) -> np.ndarray:
    """f, for exposures of any shape: log2(1 + x) or sqrt(x). Both rise, are concave, go through (0, 0) and (1, 1)."""
    return _CURVES[curve](exposure) / _CURVES[curve](1.0)


@dataclass(frozen=True, eq=False)
class ExposureAccount:
    """How much exposure each value of a column has had so far. It does not change: `after` gives the next one.

    Attributes:
        column: of the catalogue; its id column makes each item its own provider.
        items: the ids of the catalogue it was made for.
        groups: which items have which value.
        given: float64 [groups], the exposure that each value has had.
    """

    column: str
    items: IdMap
    groups: Groups
    given: np.ndarray

    @classmethod
    def of(cls, catalog: Catalog, column: str, given: Mapping[Any, float] | None = None) -> "ExposureAccount":
        """An account of a catalogue's column, empty or with what is known already.

        Args:
            catalog: `rec.catalog`.
            column: its name.
            given: exposures by value, such as `to_dict` gives; values that no item has are left out.

        Raises:
            InvalidInput: no such column, or an exposure that is negative or no number.
        """
        groups = Groups.of(catalog, column)
        account = np.zeros(len(groups.names))
        places = {name: place for place, name in enumerate(groups.names.to_pylist())}
        for value, exposure in (given or {}).items():
            if not isinstance(exposure, int | float | np.number) or not 0 <= exposure < np.inf:
                raise InvalidInput(f"the exposure of {value!r} is {exposure!r}; expected a number of at least 0")
            if value in places:
                account[places[value]] = exposure
        return cls(column, catalog.items, groups, account)

    def after(self, ids: Sequence[Any]) -> "ExposureAccount":
        """The account after one more list has been shown, its ids best first. UnknownId for an id it does not know."""
        given = charged(self.groups.take(self.items.rows(list(ids))), self.given, attention(len(ids)))
        return replace(self, given=given)

    def to_dict(self) -> dict[Any, float]:
        """Value of the column -> exposure."""
        return dict(zip(self.groups.names.to_pylist(), self.given.tolist(), strict=True))

    def __repr__(self) -> str:
        return f"ExposureAccount({self.column!r}, {len(self.given):,} values, {self.given.sum():,.1f} exposure given)"


@dataclass(frozen=True, eq=False)
class Exposure:
    """Evens out the exposure of providers, within a list and, with an account, over many lists.

    Each place r goes to the candidate with the largest e_r * relevance + strength * (f(x + e_r) - f(x)). Relevance is
    the score, brought to 0..1 in the pool. x is what the candidate's provider has had: in this list, and in the
    account, there in units of the mean over all providers as soon as that exceeds 1. An item with several values in the
    column gives each an equal part of its place; one without a value gains nothing.

    The loss has a bound: with one value an item, a list's DCG (the sum of e_r * relevance) is at most
    strength * sum_r f(e_r) below that of the list by score. For each place is taken from a better candidate only for a
    gain, and no gain exceeds f(e_r).

    Attributes:
        column: whose values are the providers; the id column makes each item one.
        strength: what the first place for somebody who had none is worth, beside the span of relevance in the pool, 1.
            0 changes nothing.
        curve: f, "log" (log2(1 + x)) or "sqrt", which helps more those who had least.
        account: what was given so far; None looks at this list alone.
        pool: how many candidates to choose from; None leaves it open.

    Raises:
        InvalidInput: a strength that is negative or no number, an unknown curve, an account of another column, or pool
            < 1. In use: no such column, or an account of another catalogue than the index has.
    """

    column: str
    strength: float = 0.3
    curve: Curve = "log"
    account: ExposureAccount | None = None
    pool: int | None = None

    def __post_init__(self) -> None:
        number = isinstance(self.strength, int | float | np.number) and not isinstance(self.strength, bool)
        if not number or not 0 <= self.strength < np.inf:
            raise InvalidInput(f"strength is {self.strength!r}; expected a number of at least 0, such as 0.3")
        if self.curve not in _CURVES:
            raise InvalidInput(f"curve is {self.curve!r}; expected one of {', '.join(_CURVES)}")
        if self.account is not None and self.account.column != self.column:
            raise InvalidInput(
                f"the account is of column {self.account.column!r}, not of {self.column!r}: make one with "
                f"ExposureAccount.of(rec.catalog, {self.column!r})"
            )
        check_pool(self.pool)

    def __call__(self, pool: Pool, k: int, /) -> Reranked:
        """All of the pool: k chosen ones, then the others as they were."""
        if self.account is None:
            groups = pool.groups(self.column)
            given = np.zeros(len(groups.names))
        else:
            if pool.rows.size and pool.rows.max() >= len(self.account.items):
                raise InvalidInput(
                    f"the account knows {len(self.account.items)} items, the index has {len(pool.catalog)}: take "
                    "ExposureAccount.of(rec.catalog, account.column, account.to_dict())"
                )
            groups, given = self.account.groups.take(pool.rows), self.account.given
        if self.strength == 0:
            return Reranked(np.arange(len(pool)))
        relevance = normalised(pool.scores)
        return Reranked(with_others(_evened(relevance, groups, given, k, self.strength, self.curve), len(pool)))


def evened(
    scores: np.ndarray, rows: np.ndarray, account: ExposureAccount, k: int, strength: float, curve: Curve = "log"
) -> tuple[np.ndarray, ExposureAccount]:
    """Lists for q requests one after the other, each seeing what those before it gave.

    Args:
        scores: [q, n]; -inf where a pool has no candidate any more.
        rows: int [q, n], their rows in the account's catalogue.
        account: what was given before.
        k: length of a list.
        strength, curve: as in `Exposure`.

    Returns:
        Places int64 [q, min(k, n)] in each pool, -1 where nothing was left, and the account after all lists.
    """
    Exposure(account.column, strength, curve, account)  # checks them
    given = account.given
    order = np.full((len(scores), min(k, scores.shape[1])), -1, np.int64)
    relevance = normalised(scores)
    for line, here in enumerate(np.isfinite(scores)):
        there = np.flatnonzero(here)
        groups = account.groups.take(rows[line, there])
        chosen = _evened(relevance[line, there], groups, given, k, strength, curve)
        order[line, : len(chosen)] = there[chosen]
        given = charged(groups.take(chosen), given, attention(len(chosen)))
    return order, replace(account, given=given)


def charged(groups: Groups, given: np.ndarray, exposures: np.ndarray) -> np.ndarray:
    """What providers have had, float64 [groups], after m more items, of these values, with these exposures [m]."""
    parts = (exposures / np.maximum(np.diff(groups.indptr), 1))[groups.items]
    return given + np.bincount(groups.values, parts, minlength=len(given))


def _evened(
    relevance: np.ndarray, groups: Groups, given: np.ndarray, k: int, strength: float, curve: Curve
) -> np.ndarray:
    """Places int64 [min(k, n)] of n candidates; relevance float64 [n] of 0..1, given float64 [groups]."""
    n = len(relevance)
    items, (names, values) = groups.items, np.unique(groups.values, return_inverse=True)
    had = given[names] / max(1.0, float(given.mean()) if len(given) else 0.0)
    part = 1 / np.maximum(np.diff(groups.indptr), 1)
    taken = np.zeros(n)
    chosen = np.empty(min(k, n), np.int64)
    for place, e in enumerate(attention(len(chosen))):
        now = had[values]
        gains = worth(now + e * part[items], curve) - worth(now, curve)
        best = int(np.argmax(e * relevance + strength * np.bincount(items, gains, minlength=n) + taken))
        chosen[place], taken[best] = best, -np.inf
        mine = values[groups.indptr[best] : groups.indptr[best + 1]]
        had[mine] += e * part[best]
    return chosen
