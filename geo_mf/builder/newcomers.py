"""How firmly a build holds newcomers to the mean user: learned of users who were left out of a fit altogether."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from scipy import sparse

from geo_mf import threads
from geo_mf.builder.config import BuildConfig
from geo_mf.builder.trial import CHUNK_SCORES, Described, Trial
from geo_mf.factorize.fold_in_many import FoldInMany
from geo_mf.folding import Folding
from geo_mf.geometry import blend
from geo_mf.geometry.blend import Blend
from geo_mf.geometry.predictor import Shape

RIDGES = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Times the ridge of the fit."""
CLICKS = (1, 3, 10)
BEST = 10
"""Length of the lists that are judged, by NDCG."""
SHARE, STRANGERS, FEWEST = 0.1, 150, 20
"""Share of the users that are left out, how many at most, and how few are too few to tell."""


def chosen(matrix: sparse.csr_array, seed: int) -> np.ndarray:
    """int [n], the users of a training matrix [users, items] who are left out of a trial; none where they would be too
    few to tell."""
    able = np.flatnonzero(np.diff(matrix.indptr) >= 2)
    size = min(STRANGERS, int(SHARE * len(able)))
    return np.random.default_rng(seed).choice(able, size if size >= FEWEST else 0, replace=False)


def entries(matrix: sparse.csr_array, users: np.ndarray) -> np.ndarray:
    """bool [nnz], the stored entries that are of these users."""
    return np.isin(np.repeat(np.arange(len(matrix.indptr) - 1), np.diff(matrix.indptr)), users)


def trial_of(matrix: sparse.csr_array, strangers: np.ndarray, items: Described, config: BuildConfig) -> Trial:
    """A trial for `learn` alone, where nothing else is to be learned of one."""
    # Half of the epochs come near enough to tell how far a newcomer is to be trusted; three epochs of a long factor do
    # not (CiteULike, 1024 factors: 2 with all 12 and with 6, 3 with 3).
    shorter = config.model_copy(update={"iterations": -(-config.iterations // 2)})
    return Trial.of(matrix, ~entries(matrix, strangers), items, shorter, Shape(0.0, config.prior_regularization))


def learn(
    matrix: sparse.csr_array, strangers: np.ndarray, trial: Trial, crowd: np.ndarray, learned: Blend, seed: int
) -> Blend:
    """The blend with the firmest of RIDGES that ranks as well as the best one, within a standard error.

    Ranked is what strangers liked beside their first clicks, among the items that others touched and by all of the
    blend. A doubt is settled in favour of the mean user, by the rule of one standard error (see `learning`): few clicks
    mislead.

    Args:
        matrix: float32 CSR [users, items].
        strangers: int [n], `chosen` of the matrix.
        trial: has not seen the strangers; it may have not seen other things too.
        crowd: float32 [items], `trend.column` of what the trial has seen.
        learned: the rest of the blend.
        seed: of the order in which strangers click.
    """
    random = np.random.default_rng(seed)
    who, clicked, liked = [], [], []
    for place, user in enumerate(strangers.tolist()):
        history = matrix[[user]].indices
        known = random.permutation(history[~trial.untouched[history]])
        for n in (n for n in CLICKS if 2 * n <= len(known)):
            who.append(place)
            clicked.append(known[:n])
            liked.append(known[n:])
    if not who:
        return learned
    size = len(trial.items)
    gains = np.concatenate(list(judged(trial, learned, crowd, _rows(clicked, size), _rows(liked, size))))
    found = np.stack([np.bincount(who, one) for one in gains.T], axis=1)
    asked = np.bincount(who)
    found = found[asked > 0] / asked[asked > 0, None]
    lead = found[:, [int(np.argmax(found.mean(axis=0)))]] - found
    as_good = np.flatnonzero(lead.mean(axis=0) <= lead.std(axis=0) / np.sqrt(len(lead)))
    return replace(learned, newcomer=RIDGES[int(as_good[-1])])


def judged(
    trial: Trial, learned: Blend, crowd: np.ndarray, clicked: sparse.csr_array, liked: sparse.csr_array
) -> Iterator[np.ndarray]:
    """NDCG float64 [n, len(RIDGES)] of the lists after these clicks, CSR [n, items], some of them at a time; `liked` is
    what they ought to hold."""
    known, model, embeddings = np.flatnonzero(trial.lengths), trial.model, trial.items.embeddings
    folding = Folding(trial.train[known], model.user_factors[known], model.item_factors, model.objective, 1.0)
    solved = _solved(folding, clicked)
    items, ridges, rank = len(embeddings), len(RIDGES), solved.shape[2]
    weights = [learned.weights(int(n), typed=False) for n in np.diff(clicked.indptr)]
    by_text = np.asarray([trial.scale * one.text for one in weights], np.float32)
    by_behaviour = np.asarray([one.behaviour for one in weights], np.float32)
    size = min(BEST, items)
    gain = 1 / np.log2(2 + np.arange(size))
    step = max(1, CHUNK_SCORES // (items * ridges))
    for start in range(0, len(solved), step):
        some = slice(start, start + step)
        behaviour = solved[some].reshape(-1, rank)
        trend = np.float32(learned.trend) * folding.spread(behaviour)[:, None] * crowd
        scores = (behaviour @ model.item_factors.T + trend).reshape(-1, ridges, items)
        text = blend.profiles(clicked[some], embeddings) @ embeddings.T
        scores = by_behaviour[some, None, None] * scores + (by_text[some, None] * text)[:, None]
        scores[:, :, trial.untouched] = -np.inf
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


def _rows(lists: list[np.ndarray], items: int) -> sparse.csr_array:
    """Lists of items as ones, float32 CSR [lists, items]."""
    starts = np.concatenate([[0], np.cumsum([len(one) for one in lists])])
    indices = np.concatenate(lists)
    return sparse.csr_array((np.ones(len(indices), np.float32), indices, starts), shape=(len(lists), items))
