"""CiteULike, GAR's cold-start split, validation lists, titles only: cold, warm and overall items in one run.

    python benchmarks/citeulike.py [--tags] [--defaults]

A fifth of the articles is cold: nobody touched them in training. Lists as in GAR (Chen et al., SIGIR 2022): *cold*
ranks the cold articles only, *warm* the warm ones only, *overall* all; training positives are left out; metrics @20.
"""

import argparse
import time

import datasets
import pyarrow.csv

import geo_mf as gm
from geo_mf.data.interactions import Interactions
from geo_mf.evaluation.split import Split

_STRINGS = pyarrow.schema([("user_id", pyarrow.string()), ("item_id", pyarrow.string())])
CONFIG = {
    "unobserved_weight": 0.005,
    "regularization": 0.0035,
    "prior_regularization": 1.0,
    "iterations": 7,
    "cg_steps": 5,
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tags", action="store_true", help="titles and tags instead of titles")
    arguments.add_argument("--defaults", action="store_true", help="the defaults instead of settings for this data")
    chosen = arguments.parse_args()
    text = "{title}. {tags}" if chosen.tags else "{title}"
    home = datasets.folder("citeulike")
    catalog = gm.read_catalog(home / "items.csv", text=text)

    def pairs(*names: str) -> Interactions:
        tables = [pyarrow.csv.read_csv(home / name).cast(_STRINGS) for name in names]
        table = pyarrow.concat_tables(tables)
        return Interactions.from_arrays(table["user_id"], table["item_id"])

    train = pairs("train_a.csv", "train_b.csv")
    split = Split.of(train, pairs("warm_val.csv", "cold_val.csv"), items=catalog.items, name="GAR validation")
    print(datasets.machine())
    began = time.perf_counter()
    rec = gm.build(
        split.train, catalog, config=gm.BuildConfig(**({} if chosen.defaults else CONFIG)), show_progress=True
    )
    print(f"built in {time.perf_counter() - began:.1f} s: {rec.card['seconds']}")
    print(rec.blend)
    print(gm.evaluate(rec, split, k=20))


if __name__ == "__main__":
    main()
