"""How firmly a build holds newcomers to the mean user: learned of users who were left out of a fit altogether."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from geo_mf import threads
from geo_mf.builder.config import BuildConfig
from geo_mf.builder.trial import CHUNK_SCORES, Described, Trial, only
from geo_mf.factorize.balance import Balance
from geo_mf.factorize.cores import all_cores
from geo_mf.factorize.fit import Priors, Settings, fit
from geo_mf.factorize.fold_in_many import FoldInMany
from geo_mf.factorize.ials import Objective
from geo_mf.folding import Folding
from geo_mf.geometry import blend, trend
from geo_mf.geometry.blend import Blend
from geo_mf.geometry.predictor import Shape

RIDGES = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Times the ridge of the fit."""
CLICKS = (1, 3, 10)
BEST = 10
"""Length of the lists that are judged, by NDCG."""
SHARE, STRANGERS, FEWEST = 0.2, 150, 20
"""Share of the users that are left out, how many at most, and how few are too few to tell."""
EPOCHS = 2
"""In which a trial forgets them."""


def chosen(matrix: sparse.csr_array, seed: int) -> np.ndarray:
    """int [n], the users of a training matrix [users, items] who are left out of a trial; none where they would be too
    few to tell."""
    able = np.flatnonzero(np.diff(matrix.indptr) >= 2)
    size = min(STRANGERS, int(SHARE * len(able)))
    return np.random.default_rng(seed).choice(able, size if size >= FEWEST else 0, replace=False)


def entries(matrix: sparse.csr_array, users: np.ndarray) -> np.ndarray:
    """bool [nnz], the stored entries that are of these users."""
    return np.isin(np.repeat(np.arange(len(matrix.indptr) - 1), np.diff(matrix.indptr)), users)


@dataclass(frozen=True, eq=False)
class Unmet:
    """A fit that has not met the strangers.

    Attributes:
        kept: bool [nnz], the stored entries that it saw.
        folding: its row solves, without a user it did not meet.
        scale: of the text scores.
    """

    kept: np.ndarray
    folding: Folding
    scale: np.float32

    @classmethod
    def of(cls, matrix: sparse.csr_array, strangers: np.ndarray, items: Described, config: BuildConfig) -> "Unmet":
        """A fit of its own."""
        kept = ~entries(matrix, strangers)
        # Half of the epochs come near enough to tell how far a newcomer is to be trusted; three epochs of a long factor
        # do not (CiteULike, 1024 factors: 2 with all 12 and with 6, 3 with 3).
        shorter = config.model_copy(update={"iterations": -(-config.iterations // 2)})
        trial = Trial.of(matrix, kept, items, shorter, Shape(0.0, config.prior_regularization))
        model = trial.model
        return cls(kept, _folding(trial.train, model.user_factors, model.item_factors, model.objective), trial.scale)

    @classmethod
    def after(
        cls, trial: Trial, kept: np.ndarray, matrix: sparse.csr_array, strangers: np.ndarray, config: BuildConfig
    ) -> "Unmet":
        """A trial that saw the entries `kept` of the matrix, and has forgotten the strangers: a few more epochs without
        them, from its factors. What is left of them then stands in how others were fitted to items as they were with
        them."""
        model, kept = trial.model, kept & ~entries(matrix, strangers)
        train, users = only(matrix, kept), model.user_factors.copy()
        users[strangers] = 0
        settings = Settings(
            rank=model.factors,
            objective=model.objective,
            epochs=EPOCHS,
            solver=config.solver,
            steps=config.cg_steps,
            threads=config.threads,
        )
        with all_cores():
            discounts = model.objective.activity_discount, model.objective.popularity_discount
            balanced = Balance.of(train, *discounts).user_rows(train)
            priors = Priors.of(train, model.objective, config.prior_regularization, trial.items.features)
            fitted = fit(balanced, settings, lambda: (users, model.item_factors), priors)
        return cls(kept, _folding(train, fitted.users, fitted.items, model.objective), trial.scale)


def learn(
    matrix: sparse.csr_array,
    datetimes: np.ndarray | None,
    strangers: np.ndarray,
    items: Described,
    config: BuildConfig,
    learned: Blend,
    met: tuple[Trial, np.ndarray] | None = None,
) -> Blend:
    """The blend with the firmest of RIDGES that ranks as well as the best one, within a standard error.

    Ranked is what strangers liked beside their first clicks, among the items that others touched and by all of the
    blend. A doubt is settled in favour of the mean user, by the rule of one standard error (see `learning`): few clicks
    mislead.

    Args:
        matrix: float32 CSR [users, items].
        datetimes: int64 [nnz], nanoseconds, of the stored entries; None when they are not known.
        strangers: int [n], `chosen` of the matrix.
        items: what is known of the items otherwise.
        config: settings of the fit, and the seed.
        learned: the rest of the blend.
        met: a trial and bool [nnz], the entries that it saw: it saves most of a fit.
    """
    unmet = Unmet.of(matrix, strangers, items, config) if met is None else Unmet.after(*met, matrix, strangers, config)
    times = None if datetimes is None else datetimes[unmet.kept]
    touched = trend.touches(matrix.indices[unmet.kept], times, len(items), learned.half_life)
    crowd = trend.column(touched, items.features, config.prior_regularization)
    random = np.random.default_rng(config.seed)
    who, clicked, liked = [], [], []
    for place, user in enumerate(strangers.tolist()):
        history = matrix[[user]].indices
        known = random.permutation(history[~unmet.folding.cold[history]])
        for n in (n for n in CLICKS if 2 * n <= len(known)):
            who.append(place)
            clicked.append(known[:n])
            liked.append(known[n:])
    if not who:
        return learned
    asked = _rows(clicked, len(items)), _rows(liked, len(items))
    gains = np.concatenate(list(judged(unmet, items.embeddings, learned, crowd, *asked)))
    found = np.stack([np.bincount(who, one) for one in gains.T], axis=1)
    times_asked = np.bincount(who)
    found = found[times_asked > 0] / times_asked[times_asked > 0, None]
    lead = found[:, [int(np.argmax(found.mean(axis=0)))]] - found
    as_good = np.flatnonzero(lead.mean(axis=0) <= lead.std(axis=0) / np.sqrt(len(lead)))
    return replace(learned, newcomer=RIDGES[int(as_good[-1])])


def judged(
    unmet: Unmet,
    embeddings: np.ndarray,
    learned: Blend,
    crowd: np.ndarray,
    clicked: sparse.csr_array,
    liked: sparse.csr_array,
) -> Iterator[np.ndarray]:
    """NDCG float64 [n, len(RIDGES)] of the lists after these clicks, CSR [n, items], some of them at a time; `liked` is
    what they ought to hold."""
    folding = unmet.folding
    solved = _solved(folding, clicked)
    items, ridges, rank = len(embeddings), len(RIDGES), solved.shape[2]
    weights = [learned.weights(int(n), typed=False) for n in np.diff(clicked.indptr)]
    by_text = np.asarray([unmet.scale * one.text for one in weights], np.float32)
    by_behaviour = np.asarray([one.behaviour for one in weights], np.float32)
    size = min(BEST, items)
    gain = 1 / np.log2(2 + np.arange(size))
    step = max(1, CHUNK_SCORES // (items * ridges))
    for start in range(0, len(solved), step):
        some = slice(start, start + step)
        behaviour = solved[some].reshape(-1, rank)
        trend = np.float32(learned.trend) * folding.spread(behaviour)[:, None] * crowd
        scores = (behaviour @ folding.item_factors.T + trend).reshape(-1, ridges, items)
        text = blend.profiles(clicked[some], embeddings) @ embeddings.T
        scores = by_behaviour[some, None, None] * scores + (by_text[some, None] * text)[:, None]
        scores[:, :, folding.cold] = -np.inf
        scores[np.broadcast_to((clicked[some].toarray() > 0)[:, None], scores.shape)] = -np.inf
        best = np.argpartition(-scores, size - 1, axis=2)[:, :, :size]
        order = np.argsort(-np.take_along_axis(scores, best, axis=2), axis=2, kind="stable")
        best = np.take_along_axis(best, order, axis=2).reshape(-1, ridges * size)
        right = np.take_along_axis(liked[some].toarray() > 0, best, axis=1).reshape(-1, ridges, size)
        ideal = np.cumsum(gain)[np.minimum(np.diff(liked.indptr)[some], size) - 1]
        yield right @ gain / ideal[:, None]


def _solved(folding: Folding, clicked: sparse.csr_array) -> np.ndarray:
    """float32 [n, ridges, K], the factors of newcomers with these clicks, held to the mean user by each of RIDGES."""
    histories, lam = folding.balance.user_rows(clicked), folding.objective.regularization
    mean = np.broadcast_to(folding.mean_user, (len(clicked.indptr) - 1, len(folding.mean_user)))
    many = FoldInMany.of(folding.fold_in, folding.item_factors)
    found = []
    with ThreadPoolExecutor(threads.count()) as pool:
        for ridge in RIDGES:
            held = replace(folding.fold_in, objective=replace(folding.objective, regularization=ridge * lam))
            found.append(replace(many, one=held).solve(histories, mean, pool, mean))
    return np.stack(found, axis=1)


def _folding(train: sparse.csr_array, users: np.ndarray, items: np.ndarray, objective: Objective) -> Folding:
    """Row solves against factors [users, K] and [items, K], of the users who have a history."""
    known = np.flatnonzero(np.diff(train.indptr))
    return Folding(train[known], users[known], items, objective, 1.0)


def _rows(lists: list[np.ndarray], items: int) -> sparse.csr_array:
    """Lists of items as ones, float32 CSR [lists, items]."""
    starts = np.concatenate([[0], np.cumsum([len(one) for one in lists])])
    indices = np.concatenate(lists)
    return sparse.csr_array((np.ones(len(indices), np.float32), indices, starts), shape=(len(lists), items))
