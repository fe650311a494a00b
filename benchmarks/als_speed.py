"""Seconds per epoch of IALS beside implicit's ALS (CG, 3 steps), in one process, the two in turn.

    python benchmarks/als_speed.py [--data power-law|gowalla] [--factors 64 128 256] [--rounds 3] [--epochs 4]
    python benchmarks/als_speed.py --cold [--factors 128]
    python benchmarks/als_speed.py --growth FILE.png [--factors 64]

Power-law data: log-normal user activity, Zipf-like items, generated from a seed (10M interactions, 138k users, 27k
items by default). Both use the same cores; BLAS is held to one thread, as implicit asks for. The first epoch of each
fit, which compiles or warms up, is left out. Both minimise the plain weighted objective, without discounts. What
`plan` foresees is shown beside them. `--cold` times whole processes, from their start to the factors of 15 epochs,
reading the matrix and compiling included, with the memory they take at the peak. `--growth` times 1M to 30M
interactions of geo_mf alone and draws them.
Needs the [bench] extra.
"""

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import datasets
import numpy as np
from scipy import sparse

import geo_mf as gm


def power_law(interactions: int, seed: int = 0) -> sparse.csr_array:
    """Distinct (user, item) pairs; users and items grow with the number of interactions."""
    users, items = int(138_000 * interactions / 1e7), 27_000
    random = np.random.default_rng(seed)
    activity = random.lognormal(0, 1.1, users)
    counts = np.maximum(1, random.multinomial(int(interactions * 1.25), activity / activity.sum()))
    popularity = 1 / (np.arange(items) + 30) ** 0.9
    chosen = random.choice(items, size=counts.sum(), p=popularity / popularity.sum())
    pairs = np.unique(np.repeat(np.arange(users), counts) * items + random.permutation(items)[chosen])
    if len(pairs) > interactions:
        pairs = np.sort(random.choice(pairs, interactions, replace=False))
    ones, rows = np.ones(len(pairs), np.float32), (pairs // items).astype(np.int32)
    return sparse.csr_array((ones, (rows, (pairs % items).astype(np.int32))), shape=(users, items))


def gowalla() -> sparse.csr_array:
    return sparse.csr_array(sparse.load_npz(datasets.folder("gowalla") / "train.npz")).astype(np.float32)


def model_of(factors: int, epochs: int) -> gm.IALS:
    return gm.IALS(factors, 0.005, 0.01, epochs, random_state=0)


def ours(matrix: sparse.csr_array, factors: int, epochs: int) -> tuple[list[float], float]:
    seconds: list[float] = []
    began = time.perf_counter()
    model = model_of(factors, epochs)
    model.fit(matrix, callback=lambda epoch, elapsed, loss: seconds.append(elapsed))
    return seconds, time.perf_counter() - began


def theirs(matrix: sparse.csr_array, factors: int, epochs: int) -> tuple[list[float], float]:
    import implicit  # here, so that it does not weigh on the other's process

    seconds: list[float] = []
    began = time.perf_counter()
    model = implicit.als.AlternatingLeastSquares(
        factors, regularization=0.01, iterations=epochs, random_state=0, num_threads=len(os.sched_getaffinity(0))
    )
    csr = sparse.csr_matrix(matrix)
    model.fit(csr, show_progress=False, callback=lambda epoch, elapsed, *loss: seconds.append(elapsed))
    return seconds, time.perf_counter() - began


def cold(matrix: sparse.csr_array, factors: int) -> None:
    """Whole processes in turn: seconds, and memory at the peak."""
    print("process     seconds  first epoch  memory, MB")
    with tempfile.TemporaryDirectory() as place:
        file = f"{place}/matrix.npz"
        sparse.save_npz(file, matrix, compressed=False)
        for name in ("geo_mf", "implicit") * 2:
            command = [sys.executable, __file__, "--alone", name, file, "--factors", str(factors)]
            began = time.perf_counter()
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            print(f"{name:10} {time.perf_counter() - began:8.1f}  {told[0]:>11}  {told[1]:>10}", flush=True)


def alone(name: str, file: str, factors: int) -> None:
    """One fit, for `cold`; the seconds of its first epoch, and the memory it took."""
    matrix = sparse.csr_array(sparse.load_npz(file))
    seconds, _ = (ours if name == "geo_mf" else theirs)(matrix, factors, 15)
    # Not getrusage, which also counts what this process was before it became a Python of its own.
    peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    print(f"{seconds[0]:.2f} {int(peak[1]) / 1024:.0f}")


def growth(factors: int, file: str) -> None:
    """Seconds an epoch against the number of interactions, as a table and a picture."""
    from matplotlib.figure import Figure

    sizes, found = (1_000_000, 3_000_000, 10_000_000, 30_000_000), []
    print(f"factors {factors}: interactions, seconds an epoch, nanoseconds an interaction")
    for size in sizes:
        seconds = ours(power_law(size), factors, 4)[0][1:]
        found.append(float(np.median(seconds)))
        print(f"{size:11,}  {found[-1]:7.3f}  {1e9 * found[-1] / size:6.1f}", flush=True)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.loglog(sizes, found, "o-", color="#0072B2", label="measured")
    axes.loglog(sizes, [found[-1] * size / sizes[-1] for size in sizes], "--", color="#555555", label="linear")
    axes.set(xlabel="interactions", ylabel="seconds an epoch", title=f"IALS, {factors} factors, two cores")
    axes.legend()
    figure.savefig(file, dpi=120)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", choices=("power-law", "gowalla"), default="power-law")
    arguments.add_argument("--interactions", type=float, default=1e7)
    arguments.add_argument("--factors", type=int, nargs="+", default=[64, 128, 256])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--epochs", type=int, default=4)
    arguments.add_argument("--growth", metavar="FILE.png")
    arguments.add_argument("--cold", action="store_true")
    arguments.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.alone:
        alone(*chosen.alone, chosen.factors[0])
        return
    if chosen.growth:
        print(datasets.machine())
        growth(chosen.factors[0], chosen.growth)
        return
    matrix = gowalla() if chosen.data == "gowalla" else power_law(int(chosen.interactions))
    print(datasets.machine())
    print(f"{chosen.data}: {matrix.shape[0]:,} users, {matrix.shape[1]:,} items, {matrix.nnz:,} interactions")
    if chosen.cold:
        cold(matrix, chosen.factors[0])
        return
    print("factors  geo_mf  implicit  ratio  planned  (seconds an epoch, medians)   first epoch of geo_mf")
    for factors in chosen.factors:
        us: list[float] = []
        them: list[float] = []
        first = []
        for _ in range(chosen.rounds):
            seconds, _ = ours(matrix, factors, chosen.epochs)
            us += seconds[1:]
            first.append(seconds[0])
            them += theirs(matrix, factors, chosen.epochs)[0][1:]
        a, b = float(np.median(us)), float(np.median(them))
        planned = model_of(factors, chosen.epochs).plan(matrix).epoch_seconds
        print(f"{factors:7}  {a:6.3f}  {b:8.3f}  {a / b:5.2f}  {planned:7.3f}   {first[0]:.2f}", flush=True)


if __name__ == "__main__":
    main()
