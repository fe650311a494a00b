"""The planned index at 10^6 items: recall in every tenth of popularity, rate, filters, single requests, opening.

    python benchmarks/search.py [--items 1000000] [--factors 128] [--text 192] [--peers] [--plot docs/search.png]

Rows and queries are generated (benchmarks/synthetic.py), log-normal in length. The planner sees other queries than
those that are measured here. Everything runs on the same cores in one process, the sides of a comparison in turn;
rates are the best of three. `--peers` adds hnswlib and USearch, each as installed (graphs over inner products, M = 32),
and takes several minutes more.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import synthetic

import geo_mf as gm
from geo_mf.geometry.reduction import text_basis, vector_basis
from geo_mf.index.approximate import ApproximateIndex, Effort
from geo_mf.index.exact import Hits
from geo_mf.index.plan import Goal, make
from geo_mf.index.scan import faiss, scan, scan_rows
from geo_mf.living.indexing import Wanted, indexed

BLENDS = ((1.0, 0.0), (0.75, 0.25), (0.5, 0.5), (0.25, 0.75), (0.0, 1.0))
SELECTIVITIES = (0.5, 0.05, 0.005, 0.0001)
FEWEST = 100  # true rows that a tenth must have to be told


def rate(search: Callable[[np.ndarray], object], queries: np.ndarray) -> float:
    """Queries a second, the best of three."""
    spent = []
    for _ in range(3):
        start = time.perf_counter()
        search(queries)
        spent.append(time.perf_counter() - start)
    return len(queries) / min(spent)


def latencies(search: Callable[[np.ndarray], object], queries: np.ndarray) -> tuple[float, float]:
    """Milliseconds of single queries, the median and the 99th per cent."""
    spent = []
    for j in range(len(queries)):
        start = time.perf_counter()
        search(queries[j : j + 1])
        spent.append(1e3 * (time.perf_counter() - start))
    return float(np.median(spent)), float(np.quantile(spent, 0.99))


def tenths(found: np.ndarray, best: np.ndarray, tenth: np.ndarray) -> tuple[float, list[float]]:
    """Recall overall, and by tenth of popularity (nan where there are too few true rows to tell)."""
    hit = np.stack([np.isin(mine, theirs) for mine, theirs in zip(best, found, strict=True)])
    group = tenth[best]
    pairs = np.bincount(group.ravel(), minlength=10)
    hits = np.bincount(group.ravel(), hit.ravel(), 10)
    return float(hit.mean()), [float(h / p) if p >= FEWEST else float("nan") for h, p in zip(hits, pairs, strict=True)]


def table(tenths_found: list[float]) -> str:
    """The tenths in one line, the least popular first."""
    return " ".join("  -  " if np.isnan(share) else f"{share:.3f}" for share in tenths_found)


def bare(index: ApproximateIndex, queries: np.ndarray, k: int) -> Callable[[np.ndarray], object]:
    """Faiss alone at the same setting: the same probes, as many candidates, on queries that were made ready before."""
    lifted = index.lift.queries(queries)
    wanted = index.effort.candidates(k)
    inner = index.faiss_index
    inner.nprobe = min(index.effort.probes, index.cells)
    return lambda _: inner.search(lifted, wanted)


def factors(chosen: argparse.Namespace) -> list[tuple[str, float, float]]:
    """Behaviour alone: the planner's choice, Faiss alone, all rows, and peers. Returns points for the plot."""
    made = synthetic.world(chosen.items, chosen.factors, 2 * chosen.queries)
    planning, asked = np.split(made.users, [chosen.queries])
    tenth = np.argsort(np.argsort(made.popularity)) * 10 // chosen.items
    start = time.perf_counter()
    index, measured = make(made.items, {"users": planning}, Goal(chosen.recall), popularity=made.popularity)
    print(f"\n== {chosen.items:,} x {chosen.factors}, lengths log-normal ({synthetic.SPREAD}) ==")
    print(f"planned in {time.perf_counter() - start:.0f} s: {measured.to_dict()}")
    best = scan(asked, made.items, 100)[0]
    for k in (10, 100):
        overall, by_tenth = tenths(index.search(asked, k).rows, best[:, :k], tenth)
        print(f"recall@{k:<3} {overall:.4f}; by tenth of popularity, the least first: {table(by_tenth)}")
    points: list[tuple[str, float, float]] = []
    for k in (10, 100):
        exact = rate(lambda q, k=k: scan(q, made.items, k), asked[:1000])
        planned = rate(lambda q, k=k: index.search(q, k), asked)
        line = f"k={k:<3} planned {planned:,.0f} queries/s, all rows by Faiss {exact:,.0f}"
        if isinstance(index, ApproximateIndex):
            alone = rate(bare(index, asked, k), asked)
            again = rate(lambda q, k=k: index.search(q, k), asked)
            line += f", Faiss alone at the same setting {alone:,.0f}: overhead {alone / max(planned, again) - 1:+.1%}"
        print(line)
        if k == 10:
            points.append(("all rows", 1.0, exact))
    print("single: p50 {:.2f} ms, p99 {:.2f} ms".format(*latencies(lambda q: index.search(q, 10), asked[:500])))
    if isinstance(index, ApproximateIndex):
        for probes in (64, 128, 256, 512, 1024, 2048, 4096):
            looking = index.with_effort(Effort(probes, index.effort.oversample, 0.0))
            found = tenths(looking.search(asked, 10).rows, best[:, :10], tenth)[0]
            points.append(("geo_mf: IVF, norms lifted", found, rate(lambda q, i=looking: i.search(q, 10), asked)))
        filters(index, asked)
    if chosen.peers:
        points += peers(made.items, asked, best[:, :10], tenth)
    return points


def filters(index: ApproximateIndex, asked: np.ndarray) -> None:
    """Random rows, and rows that lie together, at each selectivity."""
    rng = np.random.default_rng(1)
    along = index.vectors @ rng.standard_normal(index.dim).astype(np.float32)
    print("filter: selectivity, kind, lists of k, recall@10, p50 and p99 in ms, batched queries/s")
    for share in SELECTIVITIES:
        masks = {"random": rng.random(index.size) < share, "one side": along >= np.quantile(along, 1 - share)}
        for name, allowed in masks.items():
            chosen = np.flatnonzero(allowed)
            some = asked[:200]
            best = Hits.best(*scan_rows(some, index.vectors, chosen, 10), 10).rows
            hits = index.search(some, 10, allowed)
            k = min(10, len(chosen))
            full = float(np.mean(hits.counts == k))
            outside = int(np.count_nonzero(~allowed[hits.rows[hits.rows >= 0]]))
            found = np.mean([np.isin(b[:k], h).mean() for b, h in zip(best, hits.rows, strict=True)])
            p50, p99 = latencies(lambda q, a=allowed: index.search(q, 10, a), some)
            batched = rate(lambda q, a=allowed: index.search(q, 10, a), some)
            print(
                f"{share:>8.2%} {name:<9} full {full:.0%}, outside {outside}, recall {found:.3f}, "
                f"{p50:.2f} {p99:.2f}, {batched:,.0f}"
            )


def peers(items: np.ndarray, asked: np.ndarray, best: np.ndarray, tenth: np.ndarray) -> list[tuple[str, float, float]]:
    """hnswlib and USearch over inner products."""
    import hnswlib
    from usearch.index import Index

    points = []
    start = time.perf_counter()
    graph = hnswlib.Index("ip", items.shape[1])
    graph.init_index(len(items), M=32, ef_construction=100)
    graph.set_num_threads(len(os.sched_getaffinity(0)))
    graph.add_items(items)
    print(f"hnswlib: built in {time.perf_counter() - start:.0f} s")
    for ef in (50, 100, 200, 400, 800):
        graph.set_ef(ef)
        found = tenths(graph.knn_query(asked, 10)[0], best, tenth)
        points.append(("hnswlib", found[0], rate(lambda q: graph.knn_query(q, 10), asked)))
        print(f"  ef {ef}: recall@10 {found[0]:.3f} ({table(found[1])}), {points[-1][2]:,.0f} queries/s")
    start = time.perf_counter()
    theirs = Index(ndim=items.shape[1], metric="ip", connectivity=32, expansion_add=100)
    theirs.add(np.arange(len(items)), items, threads=len(os.sched_getaffinity(0)))
    print(f"USearch: built in {time.perf_counter() - start:.0f} s")
    for ef in (50, 100, 200, 400, 800):
        theirs.expansion_search = ef
        keys = np.asarray(theirs.search(asked, 10).keys)
        found = tenths(keys, best, tenth)
        points.append(("USearch", found[0], rate(lambda q: theirs.search(q, 10), asked)))
        print(f"  ef {ef}: recall@10 {found[0]:.3f} ({table(found[1])}), {points[-1][2]:,.0f} queries/s")
    return points


def blended(chosen: argparse.Namespace) -> None:
    """Factors and text in one index, asked with five blends."""
    made = synthetic.world(chosen.items, chosen.factors, 2 * chosen.queries, chosen.text, seed=1)
    tenth = np.argsort(np.argsort(made.popularity)) * 10 // chosen.items
    rows = np.concatenate([made.items, made.texts], axis=1)
    rows = np.pad(rows, ((0, 0), (0, 1)))  # the trend's column

    def queries(users: slice, a: float, b: float) -> np.ndarray:
        parts = [a * made.users[users], b * made.profiles[users]]
        return np.pad(np.concatenate(parts, axis=1), ((0, 0), (0, 1))).astype(np.float32)

    planning = {f"{a:g}, {b:g}": queries(slice(0, 300), a, b) for a, b in BLENDS}
    dims = 2 * chosen.text // 3
    basis = text_basis(made.texts, dims)
    print(f"\n== {chosen.items:,} x ({chosen.factors} factors + {chosen.text} text, looked for in {dims}) ==")
    start = time.perf_counter()
    index, measured = make(
        rows, planning, Goal(chosen.recall), basis=vector_basis(chosen.factors, basis), popularity=made.popularity
    )
    print(f"planned in {time.perf_counter() - start:.0f} s: {measured.to_dict()}")
    for a, b in BLENDS:
        asked = queries(slice(chosen.queries, chosen.queries + 2000), a, b)
        best = scan(asked, rows, 100)[0]
        told = [tenths(index.search(asked, k).rows, best[:, :k], tenth) for k in (10, 100)]
        batched = rate(lambda q: index.search(q, 10), asked)
        print(
            f"(a, b) = ({a:g}, {b:g}): recall@10 {told[0][0]:.3f} ({table(told[0][1])}), "
            f"@100 {told[1][0]:.3f} ({table(told[1][1])}), {batched:,.0f} queries/s"
        )


def requests(items: int, factors: int, text: int) -> None:
    """Whole requests of known users, in process."""
    made = synthetic.world(items, factors, 2000, text, seed=2)
    rec = synthetic.recommender(made, 20_000, 50)
    print(f"\n== single requests, {items:,} items, {factors} factors + {text} text ==")
    for name, index in (("all rows", rec.now.index), ("planned", None)):
        now = rec.now
        if index is None:
            asked = {"known users": now.queries(np.arange(1000))}
            basis = vector_basis(factors, text_basis(made.texts, min(128, text)))
            index, measured = make(now.vectors, asked, Goal(), basis=basis if text > 128 else None)
            print(f"planned: {measured.factory}, recall@10 {measured.recall['known users'][0].overall:.3f}")
        one = gm.Recommender(replace(now, index=index).ready())
        one.recommend("user-00000000")
        spent = []
        for user in range(1000):
            start = time.perf_counter()
            one.recommend(f"user-{user:08d}")
            spent.append(1e3 * (time.perf_counter() - start))
        alone = latencies(lambda q, i=index: i.search(q, 10), now.queries(np.arange(500)))
        print(
            f"{name}: request p50 {np.median(spent):.2f} ms, p99 {np.quantile(spent, 0.99):.2f} ms; "
            f"the search alone {alone[0]:.2f}, {alone[1]:.2f}"
        )


def opening(items: int, factors: int, text: int) -> None:
    """Seconds until a published index, planned, is open, the files in the page cache; and until it is published again
    with a thousand items more."""
    made = synthetic.world(items, factors, 1000, text, seed=3)
    rec = synthetic.recommender(made, items // 10, 20)
    start = time.perf_counter()
    rec = gm.Recommender(indexed(rec.now, Wanted()))
    told = rec.card["index"]
    print(f"\n== opening {items:,} items, {factors} factors + {text} text, {told['factory']} ==")
    print(f"planned in {time.perf_counter() - start:.0f} s, recall@10 {told['recall_at_10']}")
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "index"
        gm.save(rec, home)
        size = sum(file.stat().st_size for file in home.rglob("*") if file.is_file())
        print(f"{size / 1e9:.1f} GB")
        for _ in range(3):
            start = time.perf_counter()
            opened = gm.load(home, check="quick", encoder=rec.encoder)
            spent = time.perf_counter() - start
            start = time.perf_counter()
            opened.recommend("user-00000000")
            known = time.perf_counter() - start
            opened = gm.load(home, check="quick", encoder=rec.encoder)
            start = time.perf_counter()
            opened.recommend(history=["item-00000001", "item-00000007", "item-00000100"])
            clicks = time.perf_counter() - start
            print(f"open {spent:.3f} s; the first request: a known user {known:.2f} s, 3 clicks {clicks:.2f} s")
        more = {"item_id": [f"new-{at}" for at in range(1000)], "title": [f"New {at}" for at in range(1000)]}
        start = time.perf_counter()
        opened.add_items(pa.table(more))
        spent = time.perf_counter() - start
        start = time.perf_counter()
        gm.save(opened, home)
        print(f"1,000 items added in {spent:.2f} s, published in {time.perf_counter() - start:.1f} s")
        print(gm.load(home, check="quick", encoder=rec.encoder).card["index"])


def draw(points: list[tuple[str, float, float]], path: Path, items: int, target: float) -> None:
    """Recall against rate."""
    from geo_mf import plot

    measured = {name: [point[1:] for point in points if point[0] == name] for name, _, _ in points}
    note = f"{items:,} items like a factorization's; queries in batches, on all cores."
    plot.recall_speed(measured, target=target, note=note).savefig(path)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = (("items", 1_000_000), ("factors", 128), ("text", 192), ("queries", 5000))
    for name, default in sizes:
        arguments.add_argument(f"--{name}", type=int, default=default)
    arguments.add_argument("--recall", type=float, default=0.95)
    arguments.add_argument("--peers", action="store_true")
    arguments.add_argument("--plot", type=Path)
    parts = ("factors", "blended", "requests", "opening")
    arguments.add_argument("--only", choices=parts, nargs="*", default=parts)
    chosen = arguments.parse_args()
    faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
    print(f"{datasets.machine()}; load {os.getloadavg()[0]:.1f}")
    if "factors" in chosen.only:
        points = factors(chosen)
        if chosen.plot:
            draw(points, chosen.plot, chosen.items, chosen.recall)
    if "blended" in chosen.only:
        blended(chosen)
    if "requests" in chosen.only:
        requests(chosen.items // 10, chosen.factors, 0 + chosen.text)
    if "opening" in chosen.only:
        opening(chosen.items, chosen.factors, 64)


if __name__ == "__main__":
    main()
