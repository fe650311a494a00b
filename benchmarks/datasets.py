"""Where benchmarks find real data: the folder named by GEO_MF_DATA, else shared/data beside the checkout.

Nothing is downloaded: a data set that is missing is named, with its publisher.
"""

import os
from pathlib import Path

PUBLISHERS = {
    "ml-latest-small": "GroupLens, MovieLens ml-latest-small (2018): ratings.csv, movies.csv",
    "citeulike": "citeulike-a (Wang, Chen, Li 2013) in GAR's cold-start split (Chen et al. 2022): items.csv, "
    "train_a.csv, train_b.csv, warm_val.csv, cold_val.csv",
    "gowalla": "SNAP Gowalla check-ins in LightGCN's split: train.npz (scipy CSR), test.txt",
}


def folder(name: str) -> Path:
    """The folder of a data set; exits with what is missing and where it comes from."""
    home = Path(os.environ.get("GEO_MF_DATA", Path(__file__).parents[2] / "shared" / "data"))
    path = home / name
    if not path.is_dir():
        raise SystemExit(
            f"no {name} in {home}. Get it from: {PUBLISHERS[name]}; or set GEO_MF_DATA to its parent folder"
        )
    return path


def machine() -> str:
    """What a figure was measured on: threads and versions, never a host or a path."""
    from importlib.metadata import version

    names = ("jax", "faiss-cpu", "sentence-transformers", "torch", "numpy")
    return f"{len(os.sched_getaffinity(0))} cores; " + ", ".join(f"{name} {version(name)}" for name in names)
