"""How far the defaults are from tuned settings: `gm.tune` on three data sets, the defaults being its first trial.

    python benchmarks/defaults.py [--data ml-latest-small citeulike gowalla] [--factors 64 128] [--trials 40]

NDCG@20 of the factors alone, without texts, on a fifth of the training interactions, drawn at random and held out. The
search varies both weights, nu and both discounts, and its best value is the best of many on the same validation
interactions: a little too good to be true. MovieLens: ratings of at least 4. CiteULike: train_a and train_b.
"""

import argparse

import datasets
import gradient
import numpy as np
import pyarrow
import pyarrow.csv

import geo_mf as gm
from geo_mf.data.interactions import Interactions
from geo_mf.evaluation.split import random_split

SPACE = {"activity_discount": (0.0, 0.7), "popularity_discount": (0.0, 0.7), "iterations": [3, 5, 8, 12, 16]}


def movielens() -> Interactions:
    table = pyarrow.csv.read_csv(datasets.folder("ml-latest-small") / "ratings.csv")
    table = table.filter(pyarrow.compute.greater_equal(table["rating"], 4))
    return Interactions.from_arrays(*(table[name].cast(pyarrow.string()) for name in ("userId", "movieId")))


def citeulike() -> Interactions:
    home = datasets.folder("citeulike")
    table = pyarrow.concat_tables([pyarrow.csv.read_csv(home / f"train_{part}.csv") for part in "ab"])
    return Interactions.from_arrays(*(table[name].cast(pyarrow.string()) for name in ("user_id", "item_id")))


def gowalla() -> Interactions:
    train, _ = gradient.load(validation=False)
    users = np.repeat(np.arange(train.shape[0]), np.diff(train.indptr))
    return Interactions.from_arrays(*(pyarrow.array(rows).cast(pyarrow.string()) for rows in (users, train.indices)))


VARIED = ("regularization", "unobserved_weight", "nu", "activity_discount", "popularity_discount", "iterations")
DATA = {"ml-latest-small": movielens, "citeulike": citeulike, "gowalla": gowalla}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--factors", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--trials", type=int, default=40)
    chosen = parser.parse_args()
    print(datasets.machine())
    print("data             factors  defaults  tuned   share  tuned settings")
    for name in chosen.data:
        split = random_split(DATA[name](), seed=5)
        for factors in chosen.factors:
            config = gm.BuildConfig(factors=factors, cache=False, learn_blend=False)
            tuned = gm.tune(split, config=config, trials=chosen.trials, space=SPACE)
            settings = ", ".join(f"{name} {getattr(tuned.config, name):.3g}" for name in VARIED)
            share = tuned.baseline / tuned.value
            values = f"{tuned.baseline:8.4f}  {tuned.value:.4f}  {share:5.3f}"
            print(f"{name:<15}  {factors:7}  {values}  {settings}", flush=True)


if __name__ == "__main__":
    main()
