"""CiteULike: 1,000 articles added to an index of 10,000, beside a full rebuild with the same factors.

    python benchmarks/living.py [--encoder hash]

The rebuild encodes every title anew, in one go and without the cache, gives cold articles their factors and makes the
index; the factors of the others are those of the build. Lists of 10 are compared for known users, for histories that
hold new articles, and for sentences. Then come what was withheld: the interactions with the new articles, and a refit.
"""

import argparse
import time
from dataclasses import replace

import datasets
import numpy as np
import pyarrow.csv

import geo_mf as gm
from geo_mf.data.interactions import Interactions
from geo_mf.geometry import blend, trend
from geo_mf.snapshot import Snapshot

ITEMS, NEW, LISTS = 10_000, 1_000, 500
_STRINGS = pyarrow.schema([("user_id", pyarrow.string()), ("item_id", pyarrow.string())])


def rebuilt(now: Snapshot) -> Snapshot:
    """An index of the same items and factors, made from nothing else."""
    items = gm.read_catalog(now.catalog.table, text=now.catalog.template)
    embeddings = now.encoder.encode(items.texts, show_progress=True)
    factors = now.item_factors.copy()
    factors[now.cold] = np.float32(now.blend.cold_scale) * now.prior(embeddings[now.cold])
    crowd = trend.column(now.touches, embeddings, now.card["config"]["prior_regularization"])
    index = gm.FaissIndex(blend.vectors(factors, embeddings, crowd, now.blend))
    return replace(now, catalog=items, embeddings=embeddings, item_factors=factors, trend=crowd, index=index)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--encoder", help="as in BuildConfig; 'hash' needs no model")
    chosen = arguments.parse_args()
    home = datasets.folder("citeulike")
    table = gm.read_catalog(home / "items.csv", text="{title}").table
    tables = [pyarrow.csv.read_csv(home / name).cast(_STRINGS) for name in ("train_a.csv", "train_b.csv")]
    both = pyarrow.concat_tables(tables)
    interactions = Interactions.from_arrays(both["user_id"], both["item_id"])
    touched = interactions.items.rows_or_missing(table.column("item_id")) >= 0
    order = np.r_[np.flatnonzero(touched), np.flatnonzero(~touched)]
    random = np.random.default_rng(0)
    order[: touched.sum()] = random.permutation(order[: touched.sum()])
    catalog = gm.read_catalog(table.take(order[:ITEMS]), text="{title}")
    more = table.take(order[ITEMS : ITEMS + NEW])
    print(datasets.machine())
    began = time.perf_counter()
    rec = gm.build(interactions, catalog, config=gm.BuildConfig(encoder=chosen.encoder), show_progress=True)
    print(f"built in {time.perf_counter() - began:.1f} s: {rec}; encoder {rec.card['encoder_name']}")

    changes = rec.add_items(more)
    rest, encode = changes.seconds["rest"], changes.seconds["encode"]
    print(f"add {NEW:,} to {ITEMS:,}: {rest:.3f} s beside {encode:.2f} s of encoding")
    ids, titles = more.column("item_id").to_pylist(), more.column("title").to_pylist()
    found = [id in rec.recommend(text=title, weights=(0, 1)).ids for id, title in zip(ids[:100], titles, strict=False)]
    print(f"found at once by their own title: {np.mean(found):.0%} of 100")

    now, again = rec.now, rebuilt(rec.now)
    users = random.choice(np.asarray(now.users.ids.to_pylist(), object), LISTS, replace=False)
    words = random.choice(np.asarray(now.catalog.texts, object), LISTS, replace=False)
    every = now.catalog.items.ids.to_pylist()
    asked = {
        "known users": [{"user": user} for user in users],
        "histories": [{"history": [*random.choice(every, 4, replace=False), *random.choice(ids, 1)]} for _ in users],
        "sentences": [{"text": text} for text in words],
    }
    for name, questions in asked.items():
        pairs = [(now.recommend(**question), again.recommend(**question)) for question in questions]
        same = np.mean([a.ids == b.ids for a, b in pairs])
        new = np.mean([id in set(ids) for a, _ in pairs for id in a.ids])
        print(
            f"{name}: {same:.1%} of {len(pairs)} lists of 10 equal a full rebuild's; {new:.1%} of their items are new"
        )

    later, _ = interactions.align(items=gm.IdMap(ids))
    print(f"touches: {rec.update_users(later)}")
    print(f"changed: {rec.update_items(pyarrow.table({'item_id': ids, 'title': [f'{title}.' for title in titles]}))}")
    print(f"removed: {rec.remove_items(ids[:100])}")
    began = time.perf_counter()
    rec.recommend(users[0])
    print(f"the first answer after it: {1000 * (time.perf_counter() - began):.1f} ms")
    print(rec.refit())


if __name__ == "__main__":
    main()
