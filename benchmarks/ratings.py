"""Explicit ratings on MovieLens ml-latest-small, five seeded folds: RMSE and MAE of BiasedMF beside simple baselines.

    python benchmarks/ratings.py [--factors 50] [--seed 0] [--tune]

A random fifth of the ratings is predicted from the rest, five times. Predictions for users or items without a training
rating count like any other. The defaults were chosen on a fifth held out of the first fold's training part, which is
what --tune shows; the folds themselves were used for the final figures only. Surprise's SVD and SVD++ stand beside it
when scikit-surprise is installed.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import datasets
import numpy as np
import pyarrow.csv
from scipy import sparse

import geo_mf as gm
from geo_mf.evaluation.metrics import mae, rmse

FOLDS = 5
Triples = tuple[np.ndarray, np.ndarray, np.ndarray]


def load() -> tuple[Triples, tuple[int, int]]:
    """User rows, item rows and ratings; numbers of users and items."""
    table = pyarrow.csv.read_csv(datasets.folder("ml-latest-small") / "ratings.csv")
    users, items = (np.unique(table[name].to_numpy(), return_inverse=True) for name in ("userId", "movieId"))
    return (users[1], items[1], table["rating"].to_numpy()), (len(users[0]), len(items[0]))


def matrix(train: Triples, shape: tuple[int, int]) -> sparse.csr_array:
    return sparse.coo_array((train[2].astype(np.float32), train[:2]), shape=shape).tocsr()


def global_mean(train: Triples, test: Triples, shape: tuple[int, int]) -> np.ndarray:
    return np.full(len(test[2]), train[2].mean())


def biases(train: Triples, test: Triples, shape: tuple[int, int], regularization: float = 3.0) -> np.ndarray:
    """mu + b_u + b_i by alternating ridge regressions, clipped."""
    (users, items, values), mean = train, train[2].mean()
    by_user, by_item = np.zeros(shape[0]), np.zeros(shape[1])
    for _ in range(10):
        sums = np.bincount(items, values - mean - by_user[users], minlength=shape[1])
        by_item = sums / (np.bincount(items, minlength=shape[1]) + regularization)
        sums = np.bincount(users, values - mean - by_item[items], minlength=shape[0])
        by_user = sums / (np.bincount(users, minlength=shape[0]) + regularization)
    return np.clip(mean + by_user[test[0]] + by_item[test[1]], values.min(), values.max())


def biased_mf(train: Triples, test: Triples, shape: tuple[int, int], **settings: float) -> np.ndarray:
    return gm.BiasedMF(random_state=0, **settings).fit(matrix(train, shape)).predict(test[0], test[1])


def surprise_of(name: str) -> Callable[[Triples, Triples, tuple[int, int]], np.ndarray]:
    import surprise

    def predict(train: Triples, test: Triples, shape: tuple[int, int]) -> np.ndarray:
        reader = surprise.Reader(rating_scale=(train[2].min(), train[2].max()))
        import pandas

        data = surprise.Dataset.load_from_df(pandas.DataFrame(dict(zip("uir", train, strict=True))), reader)
        model = getattr(surprise, name)(random_state=0).fit(data.build_full_trainset())
        return np.array([model.predict(u, i).est for u, i in zip(test[0], test[1], strict=True)])

    return predict


def folds(data: Triples, seed: int) -> list[tuple[Triples, Triples]]:
    parts = np.array_split(np.random.default_rng(seed).permutation(len(data[2])), FOLDS)
    pairs = []
    for part in parts:
        rest = np.concatenate([other for other in parts if other is not part])
        pairs.append((tuple(a[rest] for a in data), tuple(a[part] for a in data)))
    return pairs


def tune(train: Triples, shape: tuple[int, int]) -> None:
    """RMSE on a fifth of a training part, around the defaults."""
    fit_on, judge_on = folds(train, 1)[0]
    tried: list[dict[str, float]] = [{}]
    tried += [{"regularization": x} for x in (2.0, 3.0, 8.0)] + [{"bias_regularization": x} for x in (1.0, 5.0)]
    tried += [{"factors": x} for x in (10, 20, 100)] + [{"iterations": x} for x in (10, 40)]
    tried += [{"variational": False, "nu": 0.5, "regularization": x, "bias_regularization": 1.0} for x in (1.0, 2.0)]
    for settings in tried:
        found = biased_mf(fit_on, judge_on, shape, **settings)
        print(f"validation RMSE {rmse(found, judge_on[2]):.4f}  {settings or 'defaults'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--factors", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tune", action="store_true")
    arguments = parser.parse_args()
    print(datasets.machine())
    data, shape = load()
    if arguments.tune:
        return tune(folds(data, arguments.seed)[0][0], shape)
    methods: dict[str, Callable[[Triples, Triples, tuple[int, int]], np.ndarray]] = {
        "global mean": global_mean,
        "biases": biases,
        "BiasedMF": partial(biased_mf, factors=arguments.factors),
    }
    try:
        methods |= {f"Surprise {name}": surprise_of(name) for name in ("SVD", "SVDpp")}
    except ImportError:
        print("scikit-surprise is not installed: its SVD and SVD++ are left out")
    print(f"{'':<14}" + "".join(f"{f'fold {k + 1}':>16}" for k in range(FOLDS)) + f"{'mean':>16}{'seconds':>10}")
    for name, method in methods.items():
        figures, began = [], time.perf_counter()
        for train, test in folds(data, arguments.seed):
            found = method(train, test, shape)
            figures.append((rmse(found, test[2]), mae(found, test[2])))
        seconds = (time.perf_counter() - began) / FOLDS
        figures.append(tuple(np.mean(figures, axis=0)))
        print(f"{name:<14}" + "".join(f"{f'{a:.4f} / {b:.4f}':>16}" for a, b in figures) + f"{seconds:>10.1f}")
    print("each cell: RMSE / MAE; seconds: one fold, compilation included")


if __name__ == "__main__":
    main()
