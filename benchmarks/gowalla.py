"""IALS on Gowalla, LightGCN's split: Recall@20, NDCG@20 and time for several lengths of a factor.

    python benchmarks/gowalla.py [--factors 64 128 256 512 1024 2048] [--validation]

Settings were chosen with --validation, which judges on a tenth of the training interactions, held out; the test file is
for the final figure. All items are ranked but those of training; Recall@20 is the mean over test users of hits divided
by the user's test items. Two rows for each length: the defaults, and the settings chosen here.
"""

import argparse
import time
from typing import Any

import datasets
import gradient
import numpy as np

import geo_mf as gm

CHOSEN: dict[str, Any] = {
    "unobserved_weight": 0.05,
    "nu": 0.7,
    "activity_discount": 0.3,
    "popularity_discount": 0.3,
    "iterations": 3,
}
"""Found at K = 512 and 1024, and the same for all lengths but for the regularization."""

REGULARIZATION = {64: 0.004, 128: 0.004, 256: 0.008, 512: 0.016, 1024: 0.016, 2048: 0.016}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--factors", type=int, nargs="+", default=list(REGULARIZATION))
    parser.add_argument("--validation", action="store_true")
    arguments = parser.parse_args()
    print(datasets.machine())
    train, test = gradient.load(arguments.validation)
    print(f"judged on {'held-out training interactions' if arguments.validation else 'the test file'}")
    print("factors  settings  Recall@20  NDCG@20  epochs  seconds an epoch  seconds in all, with compilation")
    for factors in arguments.factors:
        nearest = min(REGULARIZATION, key=lambda known: abs(known - factors))
        chosen = {"regularization": REGULARIZATION[nearest], **CHOSEN}
        for name, settings in (("defaults", {}), ("chosen", chosen)):
            seconds: list[float] = []
            model = gm.IALS(factors, random_state=0, **settings)
            began = time.perf_counter()
            model.fit(train, callback=lambda _epoch, spent, _loss, told=seconds: told.append(spent))
            total = time.perf_counter() - began
            recall, ndcg = gradient.judge(model, train, test)
            found = f"{factors:7}  {name:<8}  {recall:9.4f}  {ndcg:7.4f}"
            print(f"{found}  {len(seconds):6}  {np.median(seconds[1:]):16.2f}  {total:7.1f}", flush=True)


if __name__ == "__main__":
    main()
