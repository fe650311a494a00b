"""MovieLens ml-latest-small, positives >= 4, global temporal split: the blend beside implicit's ALS and the baselines.

    python benchmarks/movielens.py

Both sides choose from a small grid on the training part alone (each user's last five interactions held out); the test
part, the last fifth of all interactions, is ranked once. A user without training history gets the popular items from
every system. Needs the [bench] extra.
"""

import itertools
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import datasets
import implicit
import numpy as np
from scipy import sparse

import geo_mf as gm
from geo_mf.evaluation.baselines import ContentKNN, Popularity, touched
from geo_mf.evaluation.metrics import ndcg, paired_bootstrap
from geo_mf.evaluation.ranking import rank
from geo_mf.evaluation.scorers import RecommenderScorer
from geo_mf.evaluation.split import Split, leave_last, temporal_split

K = 10
OURS = {
    "factors": (32, 64),
    "unobserved_weight": (0.1, 1.0),
    "regularization": (0.001, 0.003, 0.01),
    "iterations": (10,),
}
THEIRS = {"factors": (16, 32, 64, 128), "regularization": (0.01, 1.0, 10.0), "alpha": (1.0, 5.0, 20.0)}


class Implicit:
    """implicit's ALS, with the popular items for users it has not seen."""

    name = "implicit ALS"

    def __init__(self, split: Split, **settings: float) -> None:
        train = touched(split.train)
        model = implicit.als.AlternatingLeastSquares(iterations=15, random_state=0, num_threads=2, **settings)
        model.fit(sparse.csr_matrix(train), show_progress=False)
        self.users, self.items = model.user_factors, model.item_factors
        self.known = np.diff(train.indptr) > 0
        self.popularity = Popularity(split.train)

    def scores(self, user_rows: np.ndarray) -> np.ndarray:
        scores = np.array(self.users[user_rows] @ self.items.T)
        strangers = ~self.known[user_rows]
        scores[strangers] = self.popularity.scores(user_rows[strangers])
        return scores


def per_user(scorer, split: Split, users: np.ndarray) -> np.ndarray:
    ranked = rank(scorer, users, K, exclude=touched(split.train))
    return ndcg(ranked, touched(split.test)[users], K)


def grid(settings: dict[str, tuple]):
    return [dict(zip(settings, values, strict=True)) for values in itertools.product(*settings.values())]


def main() -> None:
    home = datasets.folder("ml-latest-small")
    interactions = gm.read_interactions(
        home / "ratings.csv",
        user_col="userId",
        item_col="movieId",
        weight_col="rating",
        datetime_col="timestamp",
        min_weight=4,
    )
    catalog = gm.read_catalog(home / "movies.csv", item_col="movieId", text="{title}. {genres}")
    interactions, _ = interactions.align(items=catalog.items)
    split = temporal_split(interactions)
    inner = leave_last(split.train, 5)
    known = np.intersect1d(inner.train.user_rows, inner.test.user_rows)

    def ours(config: gm.BuildConfig, on: Split) -> RecommenderScorer:
        return RecommenderScorer(gm.build(on.train, catalog, config=config), on.users, on.items)

    print(datasets.machine())
    tried = []
    for settings in grid(OURS):
        value = per_user(ours(gm.BuildConfig(**settings), inner), inner, known).mean()
        tried.append((value, settings))
        print(f"validation  blend     {value:.4f}  {settings}", flush=True)
    best = max(tried, key=lambda pair: pair[0])[1]
    theirs_tried = []
    for settings in grid(THEIRS):
        value = per_user(Implicit(inner, **settings), inner, known).mean()
        theirs_tried.append((value, settings))
        print(f"validation  implicit  {value:.4f}  {settings}", flush=True)
    theirs = max(theirs_tried, key=lambda pair: pair[0])[1]

    blend = ours(gm.BuildConfig(**best), split)
    systems = [
        blend,
        RecommenderScorer(blend.rec, split.users, split.items, "factors"),
        Implicit(split, **theirs),
        Popularity(split.train),
        ContentKNN(blend.embeddings, split.train),
    ]
    users = np.unique(split.test.user_rows)
    met = users[np.isin(users, split.train.user_rows)]
    print(f"\nblend: {best}\nimplicit: {theirs}\n")
    for title, chosen in (("all test users", users), ("test users with training history", met)):
        print(f"NDCG@{K}, global temporal split, {title} ({len(chosen)})")
        ours_values = per_user(blend, split, chosen)
        for system in systems:
            values = per_user(system, split, chosen)
            delta, low, high = paired_bootstrap(ours_values, values)
            print(f"  {system.name:14} {values.mean():.4f}   blend minus it {delta:+.4f} [{low:+.4f}, {high:+.4f}]")
    print()
    inner_blend = ours(gm.BuildConfig(**best), inner)
    print(f"NDCG@{K}, validation (each user's last five, {len(known)} users): the lists that the grids were chosen on")
    reference = per_user(inner_blend, inner, known)
    for system in (
        inner_blend,
        RecommenderScorer(inner_blend.rec, inner.users, inner.items, "factors"),
        Implicit(inner, **theirs),
        Popularity(inner.train),
        ContentKNN(inner_blend.embeddings, inner.train),
    ):
        values = per_user(system, inner, known)
        delta, low, high = paired_bootstrap(reference, values)
        print(f"  {system.name:14} {values.mean():.4f}   blend minus it {delta:+.4f} [{low:+.4f}, {high:+.4f}]")


if __name__ == "__main__":
    main()
