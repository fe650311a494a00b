"""Items and users nobody has met yet: lists of cold, warm and all items, by number of interactions, and by clicks.

    python benchmarks/cold_start.py [--data citeulike ml-latest-small] [--tags] [--defaults] [--plot FILE]
        [--irspack PYTHON] [--newcomers]

CiteULike in GAR's split (Chen et al., SIGIR 2022), its validation lists: a fifth of the articles is cold, nobody
touched them in training. *cold* ranks the cold articles only, *warm* the warm ones only, *overall* all; training
positives are left out; metrics @20. MovieLens ml-latest-small, positives >= 4: a fifth of the movies cold, a tenth of
the other interactions held out, the same lists; and a fifth of the users left out of training, who then come with a
sentence or with a few clicks. There, settings are the defaults.

Beside geo_mf: popularity, content kNN, the same factorization without text, the same with an unshrunk regression for
cold items, and GradientMF with a text tower. Embeddings are cached; the seconds are those of the rest. --irspack names
an interpreter that has irspack 0.5.2, whose feature-aware iALS is then run on CiteULike as well (irspack_ials.py), with
the same settings, and minutes of time. --newcomers asks users of MovieLens's training part, a fifth in each of four
further builds without them, how firmly newcomers are best held to the mean user.
"""

import argparse
import json
import os
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import numpy as np
import optax
import pyarrow as pa
import pyarrow.csv
from scipy import sparse

import geo_mf as gm
from geo_mf.data.interactions import Interactions
from geo_mf.evaluation.baselines import touched
from geo_mf.evaluation.metrics import ndcg
from geo_mf.evaluation.scorers import RecommenderScorer
from geo_mf.evaluation.split import Split
from geo_mf.geometry.predictor import Predictor, Shape

CITEULIKE = {
    "factors": 1024,
    "unobserved_weight": 0.005,
    "regularization": 0.0035,
    "prior_regularization": 1.0,
    "iterations": 12,
    "cg_steps": 5,
}
"""Chosen on the validation lists, as is usual with this split."""
GROUPS = ((0, 0), (1, 2), (3, 5), (6, 10), (11, 50), (51, 10**9))
CLICKS = (1, 2, 3, 5, 10)
HELD_TO_MEAN = (0.5, 1.0, 1.5, 2.0, 3.0)
IRSPACK = {
    "n_components": CITEULIKE["factors"],
    "alpha0": CITEULIKE["unobserved_weight"],
    "reg": CITEULIKE["regularization"],
    "train_epochs": CITEULIKE["iterations"],
    "max_cg_steps": CITEULIKE["cg_steps"],
    "nu": 1.0,
    "lambda_item_feature": 0.1,
}
"""The same numbers; the shrinkage of the features' map is the better one of .1 and 1 with 128 factors."""
_STRINGS = pa.schema([("user_id", pa.string()), ("item_id", pa.string())])


@dataclass(frozen=True)
class Factors:
    """A scorer by inner products, with rows in the split's order."""

    name: str
    users: np.ndarray
    items: np.ndarray

    def scores(self, user_rows: np.ndarray) -> np.ndarray:
        return self.users[user_rows] @ self.items.T


def citeulike(tags: bool) -> tuple[gm.Catalog, Split, dict[str, Any]]:
    home = datasets.folder("citeulike")
    catalog = gm.read_catalog(home / "items.csv", text="{title}")

    def pairs(*names: str) -> Interactions:
        table = pa.concat_tables([pyarrow.csv.read_csv(home / name).cast(_STRINGS) for name in names])
        return Interactions.from_arrays(table["user_id"], table["item_id"])

    train, test = pairs("train_a.csv", "train_b.csv"), pairs("warm_val.csv", "cold_val.csv")
    split = Split.of(train, test, items=catalog.items, name="CiteULike, GAR validation")
    return catalog, split, {"attributes": "tags"} if tags else {}


def movielens() -> tuple[gm.Catalog, Split, Interactions]:
    """The catalogue, the split, and the interactions of the users who were left out."""
    home = datasets.folder("ml-latest-small")
    catalog = gm.read_catalog(home / "movies.csv", item_col="movieId", text="{title}. {genres}")
    read = gm.read_interactions(
        home / "ratings.csv", user_col="userId", item_col="movieId", weight_col="rating", min_weight=4.0
    )
    # Weights are left out: a rating of 5 is no more of a click than one of 4. Datetimes too: the split is at random.
    liked = Interactions.from_arrays(
        pa.array(read.users.take(read.user_rows)), pa.array(read.items.take(read.item_rows))
    )
    random = np.random.default_rng(0)
    stranger = random.random(len(liked.users)) < 0.2
    cold = random.random(len(liked.items)) < 0.2
    known = ~stranger[liked.user_rows]
    held = cold[liked.item_rows] | (random.random(len(liked)) < 0.1)
    split = Split.of(liked.select(known & ~held), liked.select(known & held), items=catalog.items, name="ml, 20 % cold")
    return catalog, split, liked.select(~known)


def rivals(rec: gm.Recommender, split: Split, without: gm.Recommender) -> list[Any]:
    """The other factorizations, on the same embeddings."""
    scorers = [RecommenderScorer(rec.now, split.users, split.items, part) for part in ("blend", "factors")]
    order = without.users.rows_or_missing(split.users.ids)
    users = np.where(order[:, None] >= 0, without.user_factors[order], 0)
    warm, embeddings = split.warm_items, scorers[0].embeddings
    at = without.catalog.items.rows_or_missing(split.items.ids)
    regressed = Predictor.fit(embeddings, without.item_factors[at], warm * 1.0, Shape(0.0, 1e-6), 0)
    items = np.where(warm[:, None], without.item_factors[at], regressed(embeddings))
    matrix = touched(split.train)
    epochs = 30
    adam = optax.adam(optax.cosine_decay_schedule(0.01, epochs * matrix.nnz // 2048))
    tower = gm.GradientMF(128, "softmax", adam, epochs, popularity=0.5, patience=0, random_state=0)
    tower.fit(matrix, embeddings)
    return [
        *scorers,
        Factors("IALS without text", users, without.item_factors[at]),
        Factors("unshrunk regression", users, items),
        Factors("GradientMF, text tower", tower.user_vectors, tower.item_vectors),
    ]


def irspack(python: Path, rec: gm.Recommender, split: Split) -> Factors:
    """irspack's feature-aware iALS on the same embeddings: cold items have what their features predict."""
    matrix, embeddings = touched(split.train), RecommenderScorer(rec.now, split.users, split.items, "blend").embeddings
    settings = json.dumps(IRSPACK | {"n_threads": len(os.sched_getaffinity(0))})
    with TemporaryDirectory() as home:
        given, found = Path(home) / "given.npz", Path(home) / "found.npz"
        parts = {"shape": np.asarray(matrix.shape), "starts": matrix.indptr, "columns": matrix.indices}
        np.savez(given, features=embeddings, settings=np.asarray(settings), **parts)
        subprocess.run([python, Path(__file__).with_name("irspack_ials.py"), given, found], check=True)
        with np.load(found) as made:
            items = np.where(split.warm_items[:, None], made["items"], made["predicted"])
            print(f"\nirspack: {float(made['seconds']):.0f} s", flush=True)
            return Factors("irspack iALS, features", made["users"], items)


def lists(scorers: list[Any], split: Split) -> dict[str, dict[tuple[int, int], float]]:
    """Print the table of lists; return NDCG@20 among the items of each group, by scorer."""
    report = gm.evaluate(scorers, split, k=20)
    names = [*(one.name for one in scorers), "content kNN", "popularity"]
    print(f"{split.name}: NDCG@20, precision@20\n{'':<24}{'cold':>16}{'warm':>16}{'overall':>16}")
    for name in names:
        figures = [
            f"{report.row(name, 'ndcg', which).value:.4f} {report.row(name, 'precision', which).value:.4f}"
            for which in ("cold", "warm", "overall")
        ]
        print(f"{name:<24}" + "".join(f"{one:>16}" for one in figures), flush=True)
    counts = np.bincount(touched(split.train).indices, minlength=len(split.items))
    found: dict[str, dict[tuple[int, int], float]] = {name: {} for name in names}
    print("NDCG@20 among the items with so many interactions")
    print(f"{'':<24}" + "".join(f"{_span(group):>10}" for group in GROUPS))
    for group in GROUPS:
        mask = (counts >= group[0]) & (counts <= group[1])
        if not np.isin(split.test.item_rows, np.flatnonzero(mask)).any():
            continue
        part = gm.evaluate(scorers, split, k=20, lists=("overall",), candidates=mask)
        for name in names:
            found[name][group] = part.row(name, "ndcg").value
    for name in names:
        print(f"{name:<24}" + "".join(f"{found[name].get(group, float('nan')):>10.4f}" for group in GROUPS))
    return found


def _span(group: tuple[int, int]) -> str:
    low, high = group
    return str(low) if low == high else f"{low}+" if high > 10**8 else f"{low}-{high}"


def strangers(rec: gm.Recommender, new: Interactions, random: np.random.Generator) -> dict[str, float]:
    """NDCG@10 over all items for users who were not in training, by what they bring; the rest of their list counts."""
    rows = rec.catalog.items.rows_or_missing(new.items.ids)
    judged: dict[str, list[float]] = {}
    for user in np.unique(new.user_rows):
        liked = random.permutation(rows[new.item_rows[new.user_rows == user]])
        if len(liked) < 2 * max(CLICKS):
            continue
        clicks, targets = liked[: max(CLICKS)], liked[max(CLICKS) :]
        ids = rec.catalog.items.take(clicks)
        sentence = f"something like {rec.catalog.texts[clicks[0]]}"
        popular = rec.touches.astype(np.float32)
        brought: dict[str, np.ndarray] = {
            "popularity": popular,
            "a sentence": _scores(rec, text=sentence),
            **{f"{n} clicks": _scores(rec, history=ids[:n]) for n in CLICKS},
            "3 clicks and a sentence": _scores(rec, history=ids[1:4], text=sentence),
        }
        for name, scores in brought.items():
            ranked = scores.copy()
            ranked[clicks] = -np.inf
            best = np.argsort(-ranked, kind="stable")[:10].astype(np.int32)
            relevant = np.zeros((1, len(ranked)), np.float32)
            relevant[0, targets] = 1
            judged.setdefault(name, []).append(float(ndcg(best[None], sparse.csr_array(relevant), 10)[0]))
    print(f"new users: NDCG@10 over all items, {len(judged['popularity'])} users left out of training")
    means = {name: float(np.mean(values)) for name, values in judged.items()}
    for name, values in judged.items():
        lead = np.asarray(values) - judged["popularity"]
        half = 1.96 * lead.std() / len(lead) ** 0.5
        print(f"{name:<24}{means[name]:>8.4f}   over popularity {lead.mean():+.4f} ± {half:.4f}")
    return means


def newcomers(catalog: gm.Catalog, split: Split) -> None:
    """NDCG@10 of a fifth of the training users, asked as newcomers of a build without them, by the ridge they get."""
    order = 1 / np.log2(np.arange(2, 12))
    for seed in range(1000, 1004):
        random = np.random.default_rng(seed)
        out = (random.random(len(split.train.users)) < 0.2)[split.train.user_rows]
        rec, people = gm.build(split.train.select(~out), catalog), split.train.select(out)
        held = [gm.Recommender(replace(rec.now, blend=replace(rec.blend, newcomer=one))) for one in HELD_TO_MEAN]
        rows = rec.catalog.items.rows_or_missing(people.items.ids)
        found = []
        for user in np.unique(people.user_rows):
            liked = random.permutation(rows[people.item_rows[people.user_rows == user]])
            each = []
            for n in (n for n in CLICKS if 2 * n <= len(liked)):
                clicks, targets = liked[:n], liked[n:]
                scores = [_scores(one, history=rec.catalog.items.take(clicks)) for one in held]
                for one in scores:
                    one[clicks] = -np.inf
                best = [np.argsort(-one, kind="stable")[:10] for one in scores]
                each.append([order @ np.isin(ten, targets) / order[: len(targets)].sum() for ten in best])
            if each:
                found.append(np.mean(each, axis=0))
        lead = np.asarray(found) - np.asarray(found)[:, [HELD_TO_MEAN.index(1.0)]]
        print(f"chosen by the build: {rec.blend.newcomer:g}")
        print(
            f"newcomers: {len(found)} users left out; times the ridge, NDCG@10, lead over once and its standard error"
        )
        for one, mean, ahead, error in zip(
            HELD_TO_MEAN, np.mean(found, axis=0), lead.mean(axis=0), lead.std(axis=0) / len(lead) ** 0.5, strict=True
        ):
            print(f"  {one:<4g}{mean:>8.4f}{ahead:>+9.4f} ± {error:.4f}", flush=True)


def _scores(rec: gm.Recommender, **asked: Any) -> np.ndarray:
    return rec.vectors @ rec.query(**asked).vector[0]


def draw(curves: dict[str, dict[tuple[int, int], float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4))
    for name, mark in (("blend", "o-"), ("IALS without text", "s--"), ("content kNN", "^:")):
        groups = list(curves[name])
        axes.plot(range(len(groups)), [curves[name][group] for group in groups], mark, label=name)
        axes.set_xticks(range(len(groups)), [_span(group) for group in groups])
    axes.set(xlabel="interactions an article has in training", ylabel="NDCG@20 among such articles")
    axes.set_title("CiteULike: text before behaviour, and both together")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["citeulike", "ml-latest-small"])
    parser.add_argument("--tags", action="store_true", help="tags as attributes beside the titles")
    parser.add_argument("--defaults", action="store_true", help="the defaults instead of settings for CiteULike")
    parser.add_argument("--plot", type=Path, help="draw the curve of CiteULike here")
    parser.add_argument("--irspack", type=Path, metavar="PYTHON", help="an interpreter that has irspack")
    parser.add_argument("--newcomers", action="store_true", help="nothing but newcomers' ridge, on MovieLens")
    chosen = parser.parse_args()
    print(datasets.machine())
    if chosen.newcomers:
        newcomers(*movielens()[:2])
        return
    for data in chosen.data:
        new = None
        if data == "citeulike":
            catalog, split, settings = citeulike(chosen.tags)
            settings |= {} if chosen.defaults else CITEULIKE
        else:
            catalog, split, new = movielens()
            settings = {}
        config = gm.BuildConfig.of(**settings)
        began = time.perf_counter()
        rec = gm.build(split.train, catalog, config=config)
        spent = time.perf_counter() - began - rec.card["seconds"]["encode"]
        print(
            f"built in {spent:.1f} s beside encoding: {rec.card['seconds']}\n{rec.prior.shape}, {rec.blend}", flush=True
        )
        bare = gm.BuildConfig.of(**{**settings, "attributes": (), "learn_blend": False})
        without = gm.build(split.train, gm.Catalog.from_ids(catalog.items), config=bare)
        scorers = rivals(rec, split, without)
        if data == "citeulike" and chosen.irspack:
            scorers.append(irspack(chosen.irspack, rec, split))
        curves = lists(scorers, split)
        if data == "citeulike" and chosen.plot:
            draw(curves, chosen.plot)
        if new is not None:
            strangers(rec, new, np.random.default_rng(0))


if __name__ == "__main__":
    main()
