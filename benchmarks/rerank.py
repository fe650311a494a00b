"""Re-ranking on MovieLens ml-latest-small: what a strength costs in NDCG, what it gives, and how long it takes.

    python benchmarks/rerank.py [--split last] [--encoder hash]

A random fifth of each user's ratings of at least 4 is held out, or each user's last three. Lists of 10 from the best
100 of the blend, for all test users, in one order that is drawn once. Columns: NDCG@10; the mean distance (1 - cosine
of what `similar_items` compares) and the mean Jaccard distance of genres between two items of a list; movies that
stand in any list; the Gini coefficient of how often each movie is shown; lists that a quota left short (`recommend`
takes more candidates then). Latency is of one request in process, the median over 300 users, beside the same request
without a re-ranker.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import datasets
import numpy as np

import geo_mf as gm
from geo_mf.evaluation.baselines import touched
from geo_mf.evaluation.metrics import coverage, gini, ndcg, paired_bootstrap
from geo_mf.evaluation.ranking import rank
from geo_mf.evaluation.scorers import RecommenderScorer
from geo_mf.evaluation.split import leave_last, random_split
from geo_mf.geometry.blend import unit
from geo_mf.rerank.exposure import evened
from geo_mf.rerank.groups import Groups
from geo_mf.rerank.mmr import mmr
from geo_mf.rerank.pool import select

K, POOL, TIMED = 10, 100, 300
DIVERSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0)


def pairs(ranked: np.ndarray, alike: Callable[[np.ndarray], np.ndarray]) -> float:
    """Mean over lists of the mean 1 - similarity of two different items; `alike`: rows [b, k] to [b, k, k]."""
    there = (ranked >= 0)[:, :, None] & (ranked >= 0)[:, None, :] & ~np.eye(K, dtype=bool)
    return float(np.mean(np.mean(1 - alike(ranked), axis=(1, 2), where=there)))


def latency(rec: gm.Recommender, users: Sequence[object], **request: object) -> float:
    """Median seconds of a request."""
    spent = []
    for user in users:
        began = time.perf_counter()
        rec.recommend(user, k=K, **request)  # pyright: ignore[reportArgumentType]
        spent.append(time.perf_counter() - began)
    return float(np.median(spent))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--encoder", help="as in BuildConfig; 'hash' needs no model")
    arguments.add_argument("--split", choices=("random", "last"), default="random", help="what is held out")
    chosen = arguments.parse_args()
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
    split = random_split(interactions) if chosen.split == "random" else leave_last(interactions, 3)
    print(datasets.machine())
    rec = gm.build(split.train, catalog, config=gm.BuildConfig(encoder=chosen.encoder), show_progress=True)
    now, scorer = rec.now, RecommenderScorer(rec.now, split.users, split.items)
    seen, relevant = touched(split.train), touched(split.test)

    users = np.unique(split.test.user_rows)
    users = users[np.diff(seen.indptr)[users] > 0]
    np.random.default_rng(0).shuffle(users)
    rows = rank(scorer, users, POOL, exclude=seen)
    scores = np.concatenate([scorer.scores(part) for part in np.array_split(users, 8)])
    scores = np.take_along_axis(scores, rows, axis=1)
    directions = unit(now.likeness.directions(np.arange(len(catalog))))
    genres = Groups.of(catalog, "genres")
    member = np.zeros((len(catalog), len(genres.names)), np.float32)
    member[genres.items, genres.values] = 1
    everything = np.ones(len(catalog), bool)

    def cosine(ranked: np.ndarray) -> np.ndarray:
        return directions[ranked] @ directions[ranked].transpose(0, 2, 1)

    def jaccard(ranked: np.ndarray) -> np.ndarray:
        both, sizes = member[ranked] @ member[ranked].transpose(0, 2, 1), member[ranked].sum(axis=2)
        return both / np.maximum(sizes[:, :, None] + sizes[:, None, :] - both, 1)

    print(f"{rec}; {len(users)} test users, lists of {K} from {POOL}")

    def pool(line: int) -> gm.Pool:
        return gm.Pool(rows[line], scores[line], now.catalog, now.directions)

    def each(*rerankers: gm.Reranker) -> np.ndarray:
        ranked = np.full((len(users), K), -1, rows.dtype)
        for line in range(len(users)):
            order = select(rerankers, pool(line), K).order
            ranked[line, : len(order)] = rows[line, order]
        return ranked

    def by_mmr(diversity: float) -> np.ndarray:
        blocks = np.array_split(np.arange(len(users)), 16)
        order = np.concatenate([mmr(scores[b], directions[rows[b]], K, diversity) for b in blocks])
        return np.take_along_axis(rows, order, axis=1)

    def by_exposure(strength: float, column: str) -> np.ndarray:
        account = gm.ExposureAccount.of(catalog, column)
        return np.take_along_axis(rows, evened(scores, rows, account, K, strength)[0], axis=1)

    lists: dict[str, Callable[[], np.ndarray]] = {"by score": lambda: rows[:, :K]}
    lists |= {f"MMR({d})": lambda d=d: by_mmr(d) for d in DIVERSITIES}
    lists |= {f"Quota('genres', at_most={n})": lambda n=n: each(gm.Quota("genres", at_most=n)) for n in (6, 4, 3)}
    lists |= {f"Exposure('movieId', {s}), account": lambda s=s: by_exposure(s, "movieId") for s in STRENGTHS}
    lists |= {f"Exposure('genres', {s})": lambda s=s: each(gm.Exposure("genres", s)) for s in (0.3, 1.0)}
    plain = ndcg(rows, relevant[users], K)
    print("| | NDCG@10 | change (95 % interval) | distance | genre distance | movies shown | Gini | short lists |")
    print("|---|---|---|---|---|---|---|---|")
    for name, make in lists.items():
        ranked = make()
        found = ndcg(ranked, relevant[users], K)
        change, low, high = paired_bootstrap(found, plain)
        apart, kinds = pairs(ranked, cosine), pairs(ranked, jaccard)
        shown = round(coverage(ranked, everything, K) * len(catalog))
        print(
            f"| {name} | {found.mean():.4f} | {change:+.4f} ({low:+.4f} to {high:+.4f}) | {apart:.3f} | {kinds:.3f} "
            f"| {shown:,} | {gini(ranked, everything, K):.3f} | {np.count_nonzero(ranked[:, -1] < 0)} |",
            flush=True,
        )

    asked = rec.users.take(rec.users.rows_or_missing(split.users.take(users[:TIMED])))
    account = gm.ExposureAccount.of(catalog, "movieId")
    latency(rec, asked[:50])
    print(f"\nmilliseconds that a re-ranker adds to a request, k = {K}")
    print("| | pool 100 | pool 1,000 |")
    print("|---|---|---|")
    timed: dict[str, Callable[[int], object]] = {
        "nothing but the wider search": lambda n: lambda pool, k: gm.Reranked(np.arange(len(pool))),
        "MMR(0.3)": lambda n: gm.MMR(0.3, pool=n),
        "Quota('title'), one value an item": lambda n: gm.Quota("title", at_most=2, pool=n),
        "Quota('genres'), several values": lambda n: gm.Quota("genres", at_most=4, pool=n),
        "Exposure('genres')": lambda n: gm.Exposure("genres", pool=n),
        "Exposure('movieId'), account": lambda n: gm.Exposure("movieId", account=account, pool=n),
    }
    for name, of in timed.items():
        added = []
        for n in (POOL, 10 * POOL):
            without = latency(rec, asked)
            added.append(1000 * (latency(rec, asked, rerank=of(n)) - without))
        print(f"| {name} | {added[0]:.2f} | {added[1]:.2f} |", flush=True)
    print(f"a request without a re-ranker: {1000 * latency(rec, asked):.2f} ms")


if __name__ == "__main__":
    main()
