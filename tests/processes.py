"""Scripts that tests and `benchmarks/faults.py` run as processes: one builds for ever, one loads for long."""

import os
from pathlib import Path

__all__ = ["BUILDER", "LOADER", "environment"]

BUILDER = """
import sys
from conftest import small_catalog, small_interactions
import geo_mf as gm

while True:
    config = gm.BuildConfig.of(factors=8, iterations=2, cache=False, learn_blend=False)
    gm.build(small_interactions(), small_catalog(), out=sys.argv[1], config=config, encoder=gm.HashEncoder(dim=32))
    print(gm.load(sys.argv[1]).card["version"], flush=True)
"""
"""Arguments: a folder. Builds there until it is killed, and prints each version when it is acknowledged."""

LOADER = """
import gc, json, os, sys, time
import geo_mf as gm

root, rounds, loads, queries = sys.argv[1], *map(int, sys.argv[2:])

def used():
    gc.collect()
    return {
        "rss": int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "maps": len(open("/proc/self/maps").readlines()),
        "seconds": time.perf_counter(),
    }

def some():
    for _ in range(loads):
        rec = gm.load(root)
        for at in range(queries):
            rec.recommend(100 + at % 24, where="year > 1985" if at % 4 == 1 else None)
        rec.recommend(text="snow and boats")

some()
print(json.dumps(used()), flush=True)
for _ in range(rounds):
    some()
    print(json.dumps(used()), flush=True)
"""
"""Arguments: an index of the tests' small recommender, rounds, loads a round, requests a load. Prints what the process
holds, after a first round and after each other one."""


def environment() -> dict[str, str]:
    """For such a process: it finds what stands beside this file, and the package that runs now. A folder for compiled
    programs, which a command chose in this process, is not its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
    here = Path(__file__).parent
    known = (str(here), str(here.parent), os.environ.get("PYTHONPATH", ""))
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in known if path)}
