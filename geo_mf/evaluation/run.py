"""evaluate: rank every test user's items, judge the lists, and put the baselines beside the model.

Three lists answer three questions. *overall* ranks all items. *warm* ranks only items with training interactions,
*cold* only items without. In each, a user's training items are withheld, and the users judged are those with at least
one relevant test item in that list. A test user without training history is judged like any other: a scorer that has
nothing to say about them (-inf everywhere) gives an empty list, and an empty list scores 0.

Equal scores are put in a random order, drawn once from the seed and shared by all scorers. The order of item rows would
not be neutral: it follows the order of the user's file, which often follows popularity, also in the test period.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from geo_mf.builder.config import BuildConfig
from geo_mf.data.catalog import Catalog
from geo_mf.data.interactions import Interactions
from geo_mf.data.people import People
from geo_mf.data.read import Source, read_users
from geo_mf.errors import InvalidInput
from geo_mf.evaluation import metrics
from geo_mf.evaluation.baselines import ContentKNN, Popularity, Scorer, item_users, touched
from geo_mf.evaluation.ranking import rank
from geo_mf.evaluation.report import LEVEL, EvaluationReport, ReportRow
from geo_mf.evaluation.scorers import RecommenderScorer, of_config, of_recommender
from geo_mf.evaluation.split import Split
from geo_mf.recommender import Recommender

__all__ = ["LISTS", "EvaluationReport", "ReportRow", "evaluate", "rank", "scorers_of"]

LISTS = ("overall", "warm", "cold")


def evaluate(
    subject: object,
    split: Split,
    *,
    k: int | Sequence[int] = (10, 20),
    lists: Sequence[str] = LISTS,
    candidates: NDArray[np.bool_] | None = None,
    exclude: Interactions | sparse.csr_array | None = None,
    embeddings: NDArray[np.float32] | None = None,
    catalog: Catalog | None = None,
    users: People | Source | None = None,
    seed: int = 0,
) -> EvaluationReport:
    """Judge a model on a split, always beside popularity, and beside content kNN when there are embeddings.

    subject: a Recommender, a BuildConfig, a Scorer or a sequence of them (an empty one: the baselines alone); see
        `scorers_of`.
    k: where to cut the lists. lists: some of "overall", "warm", "cold".
    candidates: bool [n_items], the items that may be ranked at all; an item that may not is not relevant either.
    exclude: more items to withhold from each user, for example positives that belong to another test set; as
        interactions (ids that the split does not know are ignored) or as a sparse array [users, items] in its rows.
    embeddings: float32 [n_items, dim], unit rows in the split's item rows, for the content baseline; by default those
        of the first Recommender.
    catalog: the items' texts, for a subject that must first be built on `split.train`.
    users: what is known of users, as `build` takes it. A subject that must first be built is built with it; a
        Recommender is asked with it about users it does not know. See `RecommenderScorer`.
    seed: of the order of equal scores and of the bootstrap.

    Raises InvalidInput for settings that cannot be used, for `exclude` that holds a test pair, and when no test user
    has a relevant item in any of the lists.
    """
    cuts = sorted({metrics.check_k(cut) for cut in (k if isinstance(k, Sequence) else (k,))})
    masks = _masks(split, cuts, lists, candidates)
    people = users if users is None or isinstance(users, People) else read_users(users)
    subjects = scorers_of(subject, split, catalog, people)
    if embeddings is None:
        embeddings = next((one.embeddings for one in subjects if isinstance(one, RecommenderScorer)), None)
    scorers = _with_baselines(subjects, split, embeddings)
    withheld = _withheld(split, exclude)
    ties = np.random.default_rng(seed).permutation(len(split.items))
    rows: list[ReportRow] = []
    skipped: list[str] = []
    for list_name, mask in masks.items():
        relevant = touched(split.test.select(mask[split.test.item_rows]))
        judged = np.flatnonzero(np.diff(relevant.indptr))
        if judged.size == 0:
            skipped.append(list_name)
            continue
        ranked = [rank(s, judged, cuts[-1], candidates=mask, exclude=withheld, ties=ties) for s in scorers]
        names = [scorer.name for scorer in scorers]
        rows += _figures(list_name, cuts, dict(zip(names, ranked, strict=True)), relevant[judged], mask, split, seed)
    if not rows:
        raise InvalidInput(f"no test user has a relevant item in {', '.join(lists)}; check candidates and the split")
    return EvaluationReport(split.name, seed, tuple(rows), tuple(skipped))


def scorers_of(
    subject: object, split: Split, catalog: Catalog | None = None, people: People | None = None
) -> tuple[Scorer, ...]:
    """The scorers that a subject of `evaluate` stands for, in the rows of the split.

    A Recommender, and a BuildConfig (built on `split.train` first, with `catalog` and `people`), stand for two: the
    blend and the factors alone. Raises InvalidInput for anything that is neither these, a Scorer, nor a sequence of
    them.
    """
    found: list[Scorer] = []
    for one in subject if isinstance(subject, Sequence) else (subject,):
        if isinstance(one, Recommender):
            found += of_recommender(one, split, people)
        elif isinstance(one, BuildConfig):
            found += of_config(one, split, catalog, people)
        elif isinstance(one, Scorer):
            found.append(one)
        else:
            raise InvalidInput(
                f"cannot evaluate a {type(one).__name__}; give a Recommender, a BuildConfig, a Scorer (name, "
                "scores(user_rows)) or a list of them"
            )
    return tuple(found)


def _masks(
    split: Split, cuts: Sequence[int], lists: Sequence[str], candidates: NDArray[np.bool_] | None
) -> dict[str, NDArray[np.bool_]]:
    """The items that each list ranks, bool [n_items]."""
    if not cuts:
        raise InvalidInput("k is empty; give at least one length of list, such as 10")
    every = {"overall": np.ones(len(split.items), bool), "warm": split.warm_items, "cold": split.cold_items}
    unknown = [name for name in lists if name not in every]
    if unknown or isinstance(lists, str) or not lists:
        raise InvalidInput(f"lists is {lists!r}; give a sequence of some of {', '.join(map(repr, every))}")
    if candidates is None:
        return {name: every[name] for name in lists}
    if candidates.dtype != bool or candidates.shape != (len(split.items),):
        raise InvalidInput(
            f"candidates are {candidates.dtype}{list(candidates.shape)}, expected bool[{len(split.items)}]: items"
        )
    return {name: every[name] & candidates for name in lists}


def _with_baselines(
    scorers: Sequence[Scorer], split: Split, embeddings: NDArray[np.float32] | None
) -> tuple[Scorer, ...]:
    found = list(scorers)
    if not any(isinstance(one, Popularity) for one in scorers):
        found.append(Popularity(split.train))
    if embeddings is not None and not any(isinstance(one, ContentKNN) for one in scorers):
        found.append(ContentKNN(embeddings, split.train))
    names = [one.name for one in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(f"two scorers are called {twice[0]!r}; give each its own name")
    return tuple(found)


def _withheld(split: Split, exclude: Interactions | sparse.csr_array | None) -> sparse.csr_array:
    """Training pairs and `exclude` together, sparse [users, items]."""
    train = touched(split.train)
    if exclude is None:
        return train
    if isinstance(exclude, Interactions):
        more = touched(exclude.align(split.users, split.items)[0])
    else:
        more = sparse.csr_array(exclude, dtype=np.float32, copy=True)
        more.sum_duplicates()
        more.data[:] = 1
    if more.shape != train.shape:
        raise InvalidInput(f"exclude has shape {more.shape}, expected {train.shape}: the split's users and items")
    in_test = int(more.multiply(touched(split.test)).nnz)
    if in_test:
        raise InvalidInput(
            f"exclude holds {in_test} pairs of the test, which could then never be found; leave them out"
        )
    return train + more


def _figures(
    list_name: str,
    cuts: Sequence[int],
    ranked: dict[str, NDArray[np.int32]],
    relevant: sparse.csr_array,
    mask: NDArray[np.bool_],
    split: Split,
    seed: int,
) -> Iterator[ReportRow]:
    """All rows of one list, ordered by k, then scorer, then metric. One bootstrap serves them all."""
    users = len(next(iter(ranked.values())))
    keys = [(k, name) for k in cuts for name in ranked]
    judged = [metrics.per_user(ranked[name], relevant, k) for k, name in keys]
    values = np.stack([one[metric] for one in judged for metric in metrics.PER_USER], axis=1)
    low, high = metrics.interval_of_means(metrics.bootstrap_means(values, seed), LEVEL)
    interval = iter(zip(values.mean(axis=0).tolist(), low.tolist(), high.tolist(), strict=True))
    popularity, n_users = item_users(split.train), int(np.unique(split.train.user_rows).size)
    for k, name in keys:
        for metric in metrics.PER_USER:
            yield ReportRow(name, list_name, k, metric, *next(interval), users)
        together = (
            metrics.coverage(ranked[name], mask, k),
            metrics.novelty(ranked[name], popularity, n_users, k),
            metrics.gini(ranked[name], mask, k),
        )
        for metric, value in zip(metrics.PER_LIST, together, strict=True):
            yield ReportRow(name, list_name, k, metric, value, None, None, users)
