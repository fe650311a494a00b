"""The nightly job: the ten best items for every user, beside implicit's `recommend`, in one process, the two in turn.

    python benchmarks/nightly.py [--users 100000] [--items 100000] [--factors 128] [--spread 0.5] [--rounds 3]

Factors as a matrix factorization has them: items of a hundred kinds, lengths log-normal (`--spread` is its sigma; with
0 all are equal, and nothing can be skipped), histories of 20 to 500 items, mostly of one kind, the popular ones more
often, and users solved exactly against them. Both use the same factors, leave out what was seen, and use the same
cores. implicit returns arrays; geo_mf folds every user in and writes Parquet ("job"), or returns arrays ("search").
BLAS is held to one thread, as implicit asks for, which shares batches among its own. A first job, which compiles, is
shown apart.
Needs the [bench] extra.
"""

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import datasets
import numpy as np
import pyarrow.dataset
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse
from threadpoolctl import threadpool_limits

import geo_mf as gm
from geo_mf.export.best import Rows
from geo_mf.factorize import matrices
from geo_mf.factorize.fold_in import FoldIn
from geo_mf.factorize.fold_in_many import FoldInMany
from geo_mf.factorize.ials import Objective
from geo_mf.geometry.blend import Blend

KINDS, SHARE, AFFINITY = 100, 0.7, 0.6
OBJECTIVE = Objective(unobserved_weight=0.1, regularization=0.02, nu=0.7)


def generated(
    users: int, items: int, factors: int, spread: float, seed: int = 0
) -> tuple[np.ndarray, sparse.csr_array]:
    """Item factors float32 [items, factors], and histories [users, items]."""
    random = np.random.default_rng(seed)
    kind = random.integers(0, KINDS, items)
    centres, noise = (random.standard_normal((n, factors)) / np.sqrt(factors) for n in (KINDS, items))
    directions = AFFINITY * centres[kind] + np.sqrt(1 - AFFINITY**2) * noise
    lengths = random.lognormal(-1, spread, items)
    popular = lengths**2 * random.lognormal(0, 0.5, items)
    taste = random.integers(0, KINDS, users)
    counts = np.exp(random.uniform(np.log(20), np.log(500), users)).astype(np.int64)
    people = np.repeat(np.arange(users), counts)
    things = random.choice(items, len(people), p=popular / popular.sum())
    own = random.random(len(people)) < SHARE
    for number in range(KINDS):
        here, there = np.flatnonzero(own & (taste[people] == number)), np.flatnonzero(kind == number)
        things[here] = random.choice(there, len(here), p=popular[there] / popular[there].sum())
    pairs = np.unique(people * items + things)
    ones = np.ones(len(pairs), np.float32)
    return (directions * lengths[:, None]).astype(np.float32), sparse.csr_array(
        (ones, (pairs // items, pairs % items)), shape=(users, items)
    )


def recommender(item_factors: np.ndarray, history: sparse.csr_array, pool: ThreadPoolExecutor) -> gm.Recommender:
    """An index of behaviour alone, with users solved exactly."""
    users, items = matrices.shape(history)
    touched = np.bincount(history.indices, minlength=items) > 0
    some = gm.build(gm.Interactions.from_arrays([0, 1], [0, 1]), config=gm.BuildConfig(factors=2, iterations=1))
    fold = FoldInMany.of(FoldIn.of(item_factors[touched], OBJECTIVE, items), item_factors)
    solved = fold.solve(history, np.zeros((users, item_factors.shape[1]), np.float32), pool)
    return gm.Recommender(
        replace(
            some.now,
            users=gm.IdMap(np.arange(users)),
            catalog=gm.Catalog.from_ids(gm.IdMap(np.arange(items))),
            history=history,
            user_factors=solved,
            item_factors=item_factors,
            embeddings=np.zeros((items, 1), np.float32),
            objective=OBJECTIVE,
            touches=np.zeros(items, np.float32),
            trend=np.zeros(items, np.float32),
            blend=Blend(1.0),
            live=np.ones(items, bool),
            index=gm.FaissIndex(np.pad(item_factors, ((0, 0), (0, 2)))),  # no text, no trend
        )
    )


def theirs(
    rec: gm.Recommender, k: int, batch: int, cores: int
) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]:
    """implicit's lists for all users, and for all items, `batch` at a time."""
    history = sparse.csr_matrix(rec.history)
    with threadpool_limits(1, "blas"):  # the environment does not reach the copy that comes with Faiss
        model = AlternatingLeastSquares(factors=rec.user_factors.shape[1], num_threads=cores)
    model.user_factors, model.item_factors = rec.user_factors, rec.item_factors

    def all_of(answer: Callable[[np.ndarray], np.ndarray], n: int) -> np.ndarray:
        with threadpool_limits(1, "blas"):
            return np.concatenate([answer(np.arange(at, min(at + batch, n))) for at in range(0, n, batch)])

    def users() -> np.ndarray:
        return all_of(lambda rows: model.recommend(rows, history[rows], N=k)[0], len(rec.users))

    def items() -> np.ndarray:
        return all_of(lambda rows: model.similar_items(rows, N=k + 1)[0], len(rec.catalog))  # the item itself is one

    return users, items


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("users", 100_000), ("items", 100_000), ("factors", 128), ("rounds", 3), ("k", 10)):
        arguments.add_argument(f"--{name}", type=int, default=default)
    arguments.add_argument("--spread", type=float, default=0.5)
    arguments.add_argument("--batch", type=int, default=1000, help="users in one call of implicit, as in its tutorial")
    chosen = arguments.parse_args()
    k, users, cores = chosen.k, chosen.users, len(os.sched_getaffinity(0))
    others = ", ".join(f"{name} {version(name)}" for name in ("implicit", "pyarrow"))
    print(f"{datasets.machine()}, {others}; load {os.getloadavg()[0]:.1f}")
    item_factors, history = generated(users, chosen.items, chosen.factors, chosen.spread)
    with ThreadPoolExecutor(cores) as pool, tempfile.TemporaryDirectory() as scratch:
        rec = recommender(item_factors, history, pool)
        lengths = np.diff(history.indptr)
        print(
            f"{users:,} users, {chosen.items:,} items, {chosen.factors} factors, lengths' sigma {chosen.spread}; "
            f"histories of {lengths.min()} to {lengths.max()}, mean {lengths.mean():.0f}"
        )
        out = Path(scratch) / "lists"

        def job() -> np.ndarray:
            shutil.rmtree(out, ignore_errors=True)
            print(f"  {gm.recommend_all(rec, out, k=k)}")
            return np.zeros(0)

        def search() -> np.ndarray:
            candidates, queries = Rows.of(rec.item_factors, rec.live), rec.user_factors
            parts = range(0, users, 16_384)
            found = [candidates.best(queries[at : at + 16_384], k, history[at : at + 16_384], pool) for at in parts]
            return np.concatenate([each.rows for each in found])

        for_users, for_items = theirs(rec, k, chosen.batch, cores)
        ways = {"implicit": for_users, "geo_mf job": job, "geo_mf search": search}
        began = time.perf_counter()
        job()
        print(f"first job, with compilation: {time.perf_counter() - began:.2f} s")
        spent: dict[str, list[float]] = {name: [] for name in ways}
        answers: dict[str, np.ndarray] = {}
        for _ in range(chosen.rounds):
            for name, way in ways.items():
                began = time.perf_counter()
                answers[name] = way()
                spent[name].append(time.perf_counter() - began)
        table = pyarrow.dataset.dataset(out).to_table()
        assert table.num_rows == users * k
        answers["geo_mf job"] = table.column("item_id").to_numpy().reshape(users, k)
        slowest = float(np.median(spent["implicit"]))
        for name, seconds in spent.items():
            median = float(np.median(seconds))
            same = np.mean(answers[name] == answers["implicit"])
            runs = ", ".join(f"{one:.2f}" for one in seconds)
            told = f"{name:14} {median:7.2f} s (of {runs}) {users / median:9,.0f} users/s"
            print(f"{told}  {slowest / median:5.2f} x implicit  {same:.4%} of places hold the same item")
        some = np.random.default_rng(0).choice(users, min(users, 200), replace=False)
        alike = [rec.recommend(int(user), k=k).ids == answers["geo_mf job"][user].tolist() for user in some]
        print(f"rec.recommend gives the same list as the job for {sum(alike)} of {len(alike)} users")
        began = time.perf_counter()
        for_items()
        print(f"similar items of all: implicit {time.perf_counter() - began:.2f} s", end=", geo_mf job ")
        print(gm.similar_items_all(rec, Path(scratch) / "similar", k=k, space="factors"))


if __name__ == "__main__":
    main()
