"""A smaller text encoder: how near it is to the original, how fast, and what recommendations lose.

    python benchmarks/compress.py make FOLDER [--ratio 0.5] [--epochs 8] [--plain]
    python benchmarks/compress.py report FOLDER... [--plot FILE] [--json FILE] [--only near index time]

`make` compresses all-MiniLM-L6-v2 on CiteULike titles; 2,000 are kept aside and not seen by it. With --plain every
layer is cut to the same share by an ordinary singular value decomposition, which sees no texts.

`report` compares encoders with the original, side by side: cosine and overlap of the ten nearest among those 2,000
titles, cosine on 2,000 titles of ml-latest-small, NDCG@20 of an index built with each (CiteULike in GAR's split,
validation lists, cold and warm), and texts a second, all in one process, in turns. "original" as a folder is the
original; a folder that `export_onnx` has written is run by onnxruntime. GEO_MF_THREADS says with how many threads. A
JSON file that is there is added to. In the picture, folders named alike but for a share (thin.5, thin.25) are
one line.
"""

import argparse
import json
import os
import re
import time
from pathlib import Path

import cold_start
import datasets
import numpy as np
import pyarrow.csv

import geo_mf as gm
from geo_mf.evaluation.scorers import RecommenderScorer
from geo_mf.text.compress import compress
from geo_mf.text.encoder import TextEncoder, encoder_named

ASIDE = 2000
ROUNDS = 5


def titles() -> tuple[list[str], list[str]]:
    """Different CiteULike titles, shuffled: those to learn from, and those kept aside."""
    read = pyarrow.csv.read_csv(datasets.folder("citeulike") / "items.csv")["title"].to_pylist()
    distinct = sorted({title for title in read if title and not title.isspace()})
    order = np.random.default_rng(0).permutation(len(distinct))
    return [distinct[row] for row in order[ASIDE:]], [distinct[row] for row in order[:ASIDE]]


def foreign() -> list[str]:
    """2,000 titles of ml-latest-small, which no compression here has seen."""
    read = pyarrow.csv.read_csv(datasets.folder("ml-latest-small") / "movies.csv")["title"].to_pylist()
    return [read[row] for row in np.random.default_rng(0).permutation(len(read))[:2000]]


def make(folder: Path, ratio: float, epochs: int) -> None:
    print(datasets.machine(), flush=True)
    began = time.perf_counter(), time.process_time()
    made = compress(gm.SentenceEncoder(device="cpu"), titles()[0], folder, ratio=ratio, distill_epochs=epochs)
    print(made)
    print("cosine, before and after each epoch:", [round(value, 4) for value in made.cosine])
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    print(f"{wall:.0f} s, {cpu:.0f} s of processors, {made.seconds}")
    print(json.dumps(made.plan.layers))


def plain(folder: Path, ratio: float) -> None:
    """What a decomposition of the weights alone gives, at one share for all layers."""
    from geo_mf.text import lowrank, thin_folder, thin_layers

    source, model = gm.SentenceEncoder(device="cpu").opened()
    layers = []
    for group in thin_layers.groups(model):
        shape = lowrank.Shape(*group.weight.shape)
        rank = int(ratio * shape.dense / shape.each)
        found = lowrank.directions(group.weight, np.eye(shape.columns))
        thin_layers.replace(model, group, *found.factors(rank))
        layers.append(thin_folder.Thin(group.names, "linear", rank))
    kept = [file for file in source.files if file.name != "model.safetensors"]
    thin_folder.save(model, kept, source.path, folder, layers, {"plain": ratio})


def nearest(vectors: np.ndarray) -> np.ndarray:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, :10]


def nearness(encoder: TextEncoder, original: dict[str, np.ndarray], texts: dict[str, list[str]]) -> dict[str, float]:
    """Cosines to the original, and the share of its ten nearest that are the encoder's too."""
    found = {}
    for name, some in texts.items():
        vectors = encoder.encode(some)
        found[f"cosine {name}"] = float(np.einsum("ij,ij->i", vectors, original[name]).mean())
        if name == "aside":
            pairs = zip(nearest(vectors), nearest(original[name]), strict=True)
            found["overlap@10"] = float(np.mean([len(set(a) & set(b)) / 10 for a, b in pairs]))
    return found


def ranked(encoder: TextEncoder) -> dict[str, float]:
    """NDCG@20 of an index built with the encoder."""
    catalog, split, settings = cold_start.citeulike(tags=False)
    config = gm.BuildConfig.of(**settings, **cold_start.CITEULIKE, cache=False)
    rec = gm.build(split.train, catalog, config=config, encoder=encoder)
    report = gm.evaluate([RecommenderScorer(rec, split.users, split.items, "blend")], split, k=20)
    return {f"NDCG@20 {which}": report.row("blend", "ndcg", which).value for which in ("cold", "warm")}


def rates(encoders: dict[str, TextEncoder], texts: list[str]) -> dict[str, dict[str, float]]:
    """Texts a second on titles and milliseconds for one text alone, in turns; the middle of some rounds."""
    some = texts[:1000]
    long = [" ".join(texts[at : at + 12])[:1200] for at in range(0, 240, 12)]
    spent: dict[str, dict[str, list[float]]] = {
        name: {"titles/s": [], "titles/cpu s": [], "ms one title": [], "ms one long": []} for name in encoders
    }
    for encoder in encoders.values():
        encoder.encode(some[:100])
        encoder.encode(long[:2])
    for _ in range(ROUNDS):
        for name, encoder in encoders.items():
            began, busy = time.perf_counter(), time.process_time()
            encoder.encode(some)
            spent[name]["titles/s"].append(len(some) / (time.perf_counter() - began))
            # Processor time too: it says more than the clock on a machine that others use.
            spent[name]["titles/cpu s"].append(len(some) / (time.process_time() - busy))
            for what, ones in (("ms one title", some[:30]), ("ms one long", long[:10])):
                began = time.perf_counter()
                for text in ones:
                    encoder.encode([text])
                spent[name][what].append(1000 * (time.perf_counter() - began) / len(ones))
    return {name: {what: float(np.median(values)) for what, values in one.items()} for name, one in spent.items()}


def size(folder: str) -> float:
    """MB of the files that an encoder reads."""
    from geo_mf.text.folder import ModelFolder

    if folder == "original":
        place = gm.SentenceEncoder().opened()[0]
    elif (Path(folder) / "onnx.json").is_file():
        return sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
    else:
        place = ModelFolder(Path(folder))
    return sum(file.stat().st_size for file in place.files) / 1e6


def report(folders: list[str], parts: list[str]) -> dict[str, dict[str, float]]:
    encoders = {"original": encoder_named(None, device="cpu")}
    encoders |= {folder: encoder_named(folder, device="cpu") for folder in folders if folder != "original"}
    learned, aside = titles()
    texts = {"aside": aside, "ml titles": foreign()}
    table: dict[str, dict[str, float]] = {name: {"MB": size(name)} for name in encoders}
    if "near" in parts:
        original = {name: encoders["original"].encode(some) for name, some in texts.items()}
        for name, encoder in encoders.items():
            table[name] |= nearness(encoder, original, texts)
            print(name, {what: round(value, 4) for what, value in table[name].items()}, flush=True)
    if "index" in parts:
        for name in folders:
            table[name] |= ranked(encoders[name])
            print(name, {what: round(value, 4) for what, value in table[name].items()}, flush=True)
    if "time" in parts:
        for name, one in rates(encoders, learned).items():
            table[name] |= one
    return table


def show(table: dict[str, dict[str, float]]) -> None:
    columns = list(dict.fromkeys(what for one in table.values() for what in one))
    width = max(map(len, table)) + 2
    print(f"{'':<{width}}" + "".join(f"{column:>16}" for column in columns))
    for name, one in table.items():
        print(f"{name:<{width}}" + "".join(f"{one.get(column, float('nan')):>16.4g}" for column in columns))


def draw(table: dict[str, dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    speed, original = "titles/s", table["original"]
    for axes, what in zip(panels, ("overlap@10", "NDCG@20 cold"), strict=True):
        families: dict[str, list[tuple[float, float, str]]] = {}
        for name, one in table.items():
            if speed in one and what in one:
                label = name if name == "original" else "/".join(Path(name).parts[-2 if "/onnx" in name else -1 :])
                share = re.search(r"\.\d+(?=$|/)", label)
                family = label.replace(share[0], "") if share else label
                place = one[speed] / original[speed], one[what] / original[what]
                families.setdefault(family, []).append((*place, share[0] if share else ""))
        for family, points in sorted(families.items()):
            x, y, shares = zip(*sorted(points), strict=True)
            axes.plot(x, y, "o-", label=family, markersize=4, linewidth=1)
            for at in zip(shares, zip(x, y, strict=True), strict=True):
                axes.annotate(*at, textcoords="offset points", xytext=(3, 4), fontsize=7)
        ticks = [1, 2, 3, 4, 6, 8]
        axes.set(
            xscale="log", xlabel="titles a second, of the original's with torch", ylabel=f"{what}, of the original's"
        )
        axes.set_xticks(ticks, labels=map(str, ticks), minor=False)
        axes.minorticks_off()
    panels[0].legend(fontsize=8)
    figure.suptitle("all-MiniLM-L6-v2, smaller: CiteULike titles, by share of the linear layers' numbers kept")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("--ratio", type=float, default=0.5)
    making.add_argument("--epochs", type=int, default=8)
    making.add_argument("--plain", action="store_true")
    reporting = commands.add_parser("report")
    reporting.add_argument("folders", nargs="*")
    reporting.add_argument("--plot", type=Path)
    reporting.add_argument("--json", type=Path)
    reporting.add_argument("--only", nargs="+", choices=("near", "index", "time"), default=["near", "index", "time"])
    chosen = parser.parse_args()
    if chosen.command == "make" and chosen.plain:
        plain(chosen.folder, chosen.ratio)
        return
    if chosen.command == "make":
        make(chosen.folder, chosen.ratio, chosen.epochs)
        return
    print(f"{datasets.machine()}; {gm.threads.count()} threads, {os.getloadavg()[0]:.1f} processes waiting")
    table = report(chosen.folders, chosen.only)
    if chosen.json and chosen.json.exists():
        before = json.loads(chosen.json.read_text())
        table = {name: before.get(name, {}) | table.get(name, {}) for name in {**before, **table}}
    show(table)
    if chosen.json:
        chosen.json.write_text(json.dumps(table, indent=1))
    if chosen.plot:
        draw(table, chosen.plot)


if __name__ == "__main__":
    main()
