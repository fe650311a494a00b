"""The numbers of the objective that a fit leaves open: chosen from the shape of the data.

Both weights follow one thought each, and their constants fit validation interactions of three data sets that differ
twenty times in density (ml-latest-small, CiteULike, Gowalla; `python benchmarks/defaults.py`):

- all pairs nobody was seen to touch weigh together UNOBSERVED times what was observed, so a0 = UNOBSERVED * density,
  and less in a dense matrix;
- a typical row's ridge is a share of the weight of its interactions, and grows with the root of how much of the matrix
  the factors could hold: SHARE * sqrt(K / min(users, items)).

The discounts keep the few heaviest rows from deciding what the first factors stand for. In a dense matrix, where most
rows share columns, there is less to keep them from: see `_sparse`. The exponent nu is the same for all data. Who names
a0 or lam has an objective in mind, and gets the one of the literature: nu = 1 and no discounts, unless they are named
too.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy import sparse

from geo_mf.factorize.ials import Objective
from geo_mf.factorize.matrices import shape

UNOBSERVED = 40.0
MOST_UNOBSERVED = 0.5
"""Of the mean weight, for matrices that are nearly full."""

SHARE = 0.8
MOST_SHARE = 0.25
"""Where few items leave a factor of many numbers little to tell, more would flatten it: with half, 128 numbers for 300
items of the sample have .08 of NDCG@10, with a quarter .29."""

FEWEST_FACTORS, MOST_FACTORS = 128, 512
MOST_NUMBERS = 2**27
"""In both tables of factors together: 512 MB."""

SPARSE = 0.002
"""The density from which on a matrix is no longer sparse: that of CiteULike. ml-latest-small has six times as much."""

CHOSEN = {"nu": 0.7, "activity_discount": 0.25, "popularity_discount": 0.4}
NAMED = {"nu": 1.0, "activity_discount": 0.0, "popularity_discount": 0.0}


def factors_for(users: int, items: int) -> int:
    """K for a build that leaves it open: a tenth of the shorter side, as a power of two between FEWEST_FACTORS and
    MOST_FACTORS, halved while both tables would hold more than MOST_NUMBERS."""
    rank = 2 ** int(np.clip(np.round(np.log2(max(1, min(users, items)) / 10)), 0, 30))
    rank = int(np.clip(rank, FEWEST_FACTORS, MOST_FACTORS))
    while rank > FEWEST_FACTORS and rank * (users + items) > MOST_NUMBERS:
        rank //= 2
    return rank


@dataclass(frozen=True)
class Wanted:
    """What a caller wants of the objective, None where it is left open. The names are those of `Objective`."""

    unobserved_weight: float | None
    regularization: float | None
    nu: float | None
    activity_discount: float | None
    popularity_discount: float | None

    def exponent(self, name: str) -> float:
        """nu, activity_discount or popularity_discount, the last two for sparse data."""
        given = getattr(self, name)
        if given is not None:
            return given
        return (CHOSEN if self._open else NAMED)[name]

    def discounts(self, density: float) -> tuple[float, float]:
        """p and q of balance.py for a matrix of which this share is observed."""

        def one(name: str) -> float:
            return self.exponent(name) * (_sparse(density) if getattr(self, name) is None else 1.0)

        return one("activity_discount"), one("popularity_discount")

    @property
    def _open(self) -> bool:
        return self.unobserved_weight is None and self.regularization is None

    def over(self, chosen: Objective | None) -> Objective | None:
        """The objective with what is named in place of what an earlier fit chose; None if there is a gap."""
        if chosen is not None:
            named = {name: value for name, value in asdict(self).items() if value is not None}
            return replace(chosen, **named)
        if self.unobserved_weight is None or self.regularization is None:
            return None
        named = [self.exponent(name) for name in ("nu", "activity_discount", "popularity_discount")]
        return Objective(self.unobserved_weight, self.regularization, *named)

    def objective(self, user_items: sparse.csr_array, rank: int) -> Objective:
        """The objective for a balanced matrix [users, items] and factors of length `rank`."""
        users, items = shape(user_items)
        a0, lam, nu = self.unobserved_weight, self.regularization, self.exponent("nu")
        mean, density = float(user_items.data.mean(dtype=np.float64)), user_items.nnz / (users * items)
        if a0 is None:
            a0 = mean * min(MOST_UNOBSERVED, UNOBSERVED * density * _sparse(density))
        if lam is None:
            lengths = [np.diff(user_items.indptr), np.bincount(user_items.indices, minlength=items)]
            touched = [side[side > 0].astype(np.float64) for side in lengths]
            share = min(MOST_SHARE, SHARE * float(np.sqrt(rank / min(map(len, touched)))))
            by_side = [
                mean * side.mean() / np.mean((side + a0 * other) ** nu)
                for side, other in zip(touched, (items, users), strict=True)
            ]
            lam = share * float(np.sqrt(by_side[0] * by_side[1]))
        return Objective(a0, lam, nu, *self.discounts(density))


def _sparse(density: float) -> float:
    """What the discounts and the weight of unobserved pairs are multiplied with: 1 for sparse data, less for dense."""
    return min(1.0, float(np.sqrt(SPARSE / density)))
