"""Two spaces compared: time and memory, and from how many interactions on behaviour finds more than text.

    python benchmarks/compare.py --items 100000
    python benchmarks/compare.py --data ml-latest-small citeulike [--bare] [--index] [--full]

`--items` compares made-up spaces of 128 and 384 dimensions that share a part, with 20,000 held-out pairs, and prints
seconds and the peak memory of the process. `--data` holds out a fifth of each user's interactions at random, fits the
factors to the rest, and compares them with MiniLM's embeddings of the texts. `--bare` fits them without text, so that
an item without interactions has no factor and is left out. `--index` asks `compare_index` of an index of everything.
"""

import argparse
import resource
import sys
import time

import cold_start
import datasets
import numpy as np

import geo_mf as gm
from geo_mf.data.interactions import Interactions
from geo_mf.evaluation.split import random_split


def made_up(n: int) -> None:
    """Compare n items of two spaces that share 64 directions, with the behaviour of 20,000 users."""
    random = np.random.default_rng(0)
    shared = random.standard_normal((n, 64), np.float32)
    spaces = [
        np.concatenate([shared, random.standard_normal((n, own), np.float32)], axis=1)
        @ random.standard_normal((64 + own, dim), np.float32)
        for own, dim in ((64, 128), (320, 384))
    ]
    centres = random.integers(0, n, 20_000)
    users = np.repeat(np.arange(20_000), 10)
    items = (centres[:, None] * 10 + random.integers(0, 10, (20_000, 10))).ravel() % n
    held = Interactions.from_arrays(users, items)
    counts = random.geometric(0.05, n) - 1
    before = peak()
    began, worked = time.perf_counter(), time.process_time()
    found = gm.compare(*spaces, ids=np.arange(n), interactions=held, counts=counts)
    spent, busy = time.perf_counter() - began, time.process_time() - worked
    right = found.who_is_right
    print(
        f"{n:,} items, {found.asked:,} of them asked for neighbours, {right.overall.pairs if right else 0:,} pairs: "
        f"{spent:.1f} s, {busy:.1f} s of cores; peak memory {peak():.2f} GB, {before:.2f} GB of it before"
    )


def peak() -> float:
    """GB, the most that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def everything(data: str) -> tuple[gm.Catalog, Interactions, dict]:
    """The catalogue, all interactions, and settings of the factorization."""
    if data == "citeulike":
        catalog, split, _ = cold_start.citeulike(False)
        parts = (split.train, split.test)
        settings = dict(cold_start.CITEULIKE)
    else:
        catalog, split, new = cold_start.movielens()
        parts, settings = (split.train, split.test, new), {}
    users = [user for part in parts for user in part.users.take(part.user_rows)]
    items = [item for part in parts for item in part.items.take(part.item_rows)]
    return catalog, Interactions.from_arrays(users, items), settings


def real(data: str, chosen: argparse.Namespace) -> None:
    catalog, interactions, settings = everything(data)
    config = gm.BuildConfig.of(**settings)
    if chosen.index:
        rec = gm.build(interactions, catalog, config=config)
        began = time.perf_counter()
        found = gm.compare_index(rec)
        print(f"{data}, an index of {rec}")
    else:
        split = random_split(interactions, 0.2, seed=0)
        rec = gm.build(split.train, catalog, config=config)
        embeddings, ids = rec.embeddings, catalog.items
        if chosen.bare:
            alone = gm.BuildConfig.of(**{**settings, "learn_blend": False})
            rec = gm.build(split.train, gm.Catalog.from_ids(ids), config=alone)
        counts = np.bincount(rec.history.indices, minlength=len(ids))
        began = time.perf_counter()
        found = gm.compare(
            rec.item_factors,
            embeddings,
            ids=ids,
            titles=catalog.titles,
            interactions=split.test,
            counts=counts,
            names=("factors", "texts"),
        )
        print(f"{data}, factors {'without' if chosen.bare else 'with'} a prior from text")
    print(f"compared in {time.perf_counter() - began:.1f} s")
    print(found if chosen.full else "\n".join(lines(found)), flush=True)
    if chosen.plot and found.who_is_right is not None:
        from geo_mf import plot

        plot.crossover(found.who_is_right, found.names).savefig(chosen.plot, dpi=110)


def lines(found: gm.Comparison) -> list[str]:
    """The findings, and the table of held-out pairs."""
    printed = str(found).split("\n\n")
    return [*printed[:2], *(part for part in printed if part.startswith("held-out pairs"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, help="compare made-up spaces of so many items")
    parser.add_argument("--data", nargs="+", default=[], choices=["ml-latest-small", "citeulike"])
    parser.add_argument("--bare", action="store_true", help="factors without a prior from text")
    parser.add_argument("--index", action="store_true", help="compare_index of an index of everything")
    parser.add_argument("--full", action="store_true", help="print the whole comparison")
    parser.add_argument("--plot", help="draw who finds more, into this file")
    chosen = parser.parse_args()
    print(datasets.machine())
    if chosen.items:
        made_up(chosen.items)
    for data in chosen.data:
        real(data, chosen)


if __name__ == "__main__":
    main()
