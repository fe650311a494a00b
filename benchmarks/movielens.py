"""MovieLens ml-latest-small, positives >= 4, global temporal split: the blend beside implicit's ALS and the baselines.

    python benchmarks/movielens.py

Both sides choose from a small grid on the training part alone, in the way they will be tested: at five moments inside
it, fit on what came before, rank what came in the next sixth for the users met before. The test part, the last fifth
of all interactions, is ranked once. A user without training history gets what is trending from geo_mf, and the popular
items from implicit, which has nothing for such users. Needs the [bench] extra.
"""

import itertools
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import datasets
import implicit
import numpy as np
from scipy import sparse

import geo_mf as gm
from geo_mf.data.interactions import Interactions
from geo_mf.evaluation.baselines import ContentKNN, Popularity, touched
from geo_mf.evaluation.metrics import ndcg, paired_bootstrap
from geo_mf.evaluation.ranking import rank
from geo_mf.evaluation.scorers import RecommenderScorer
from geo_mf.evaluation.split import Split, temporal_split

K = 10
ORIGINS = (0.4, 0.5, 0.6, 0.7, 0.8)
HORIZON = 0.16
OURS = {"factors": (32, 64), "iterations": (10,), "unobserved_weight": (0.3, 1.0), "regularization": (0.003, 0.01)}
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


def met(split: Split) -> np.ndarray:
    """Test users with training history."""
    return np.intersect1d(split.train.user_rows, split.test.user_rows)


def rolling(train: Interactions) -> list[Split]:
    """Splits at several moments of the training part: everything before, and the next stretch after."""
    times = np.sort(train.datetimes)
    splits = []
    for origin in ORIGINS:
        start = times[int(origin * len(times))]
        end = times[min(int((origin + HORIZON) * len(times)), len(times) - 1)]
        before, after = train.datetimes <= start, (train.datetimes > start) & (train.datetimes <= end)
        splits.append(Split(train.select(before), train.select(after), f"before {origin}"))
    return splits


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
    folds = rolling(split.train)

    def ours(config: gm.BuildConfig, on: Split) -> RecommenderScorer:
        return RecommenderScorer(gm.build(on.train, catalog, config=config), on.users, on.items)

    def validated(name: str, make, settings: dict[str, float]) -> float:
        values = np.concatenate([per_user(make(fold, settings), fold, met(fold)) for fold in folds])
        print(f"validation  {name:9} {values.mean():.4f}  {settings}", flush=True)
        return float(values.mean())

    print(datasets.machine())
    print(f"validation on {sum(len(met(fold)) for fold in folds)} users at {len(folds)} moments")
    best = max(grid(OURS), key=lambda s: validated("blend", lambda on, s: ours(gm.BuildConfig(**s), on), s))
    theirs = max(grid(THEIRS), key=lambda s: validated("implicit", lambda on, s: Implicit(on, **s), s))

    print(f"\nblend: {best}\nimplicit: {theirs}\n")
    compare(split, folds, lambda on: ours(gm.BuildConfig(**best), on), lambda on: Implicit(on, **theirs))


def compare(split: Split, folds: list[Split], blend_on, implicit_on) -> None:
    """Three tables: the test part for everybody, for users met before, and all moments together."""
    by_moment = {}
    for moment in (*folds, split):
        blend = blend_on(moment)
        systems = (
            blend,
            RecommenderScorer(blend.rec, moment.users, moment.items, "factors"),
            implicit_on(moment),
            Popularity(moment.train),
            ContentKNN(blend.embeddings, moment.train),
        )
        by_moment[moment.name] = {one.name: per_user(one, moment, met(moment)) for one in systems}
        if moment is split:
            users = np.unique(split.test.user_rows)
            everybody = {one.name: per_user(one, split, users) for one in systems}
    last = by_moment[split.name]
    pooled = {name: np.concatenate([values[name] for values in by_moment.values()]) for name in last}
    for title, values in (
        ("the test part, all users", everybody),
        ("the test part, users met before", last),
        ("all six moments, users met before (five of them chose the settings, of both sides)", pooled),
    ):
        print(f"NDCG@{K}, {title} ({len(values['blend'])})")
        for name, found in values.items():
            delta, low, high = paired_bootstrap(values["blend"], found)
            print(f"  {name:14} {found.mean():.4f}   blend minus it {delta:+.4f} [{low:+.4f}, {high:+.4f}]")


if __name__ == "__main__":
    main()
