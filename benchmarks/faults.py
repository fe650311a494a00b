"""What an index survives: kills, failing calls, flipped bits, cuts, full disks, rival writers, reloads. One table.

    python benchmarks/faults.py [--flips 200] [--build-kills 30] [--rounds 50] [--loads 2000] [--queries 100000]

Everything is done to processes and files of its own, in a temporary folder. After each fault the index is read with
every hash. "Torn" is a version that is neither the old nor the new one; "served wrong" an answer or a content that is
not what was published; "not named" an error that does not tell the file, or a failure that is not one of geo_mf's. The
exit code is 1 if one of these three is not 0. `tests/publisher.py` is the process that is hurt.
"""

import argparse
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from conftest import small_catalog, small_interactions  # noqa: E402  # pyright: ignore[reportMissingImports]
from processes import BUILDER, LOADER, environment  # noqa: E402  # pyright: ignore[reportMissingImports]
from publisher import Publisher, contents, mark_of, temporaries  # noqa: E402  # pyright: ignore[reportMissingImports]

import geo_mf as gm  # noqa: E402
from geo_mf import store  # noqa: E402
from geo_mf.errors import IncompatibleIndex, InvalidInput  # noqa: E402
from geo_mf.store.binding import save  # noqa: E402

COLUMNS = ("tried", "old stayed", "new whole", "refused by name", "torn", "served wrong", "not named")
STRACE = shutil.which("strace")
CALLS = {"fsync": "EIO", "write": "ENOSPC", "openat": "EMFILE", "/^rename": "EIO", "/^mkdir": "EDQUOT", "close": "EIO"}
CALLS |= {"flock": "EIO", "fstat": "EIO"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=200, help="bits flipped in each file")
    parser.add_argument("--build-kills", type=int, default=30, help="kills of a build at a random moment")
    parser.add_argument("--rounds", type=int, default=50, help="rounds of two writers at once")
    parser.add_argument("--loads", type=int, default=2000, help="loads whose memory is watched")
    parser.add_argument("--queries", type=int, default=100_000, help="requests beside them")
    parser.add_argument(
        "--index", help='kind of index that is hurt, such as "IVF2,SQ8"; by default planned: all scored'
    )
    chosen = parser.parse_args()
    print(datasets.machine())
    bad = 0
    print(f"| fault | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    with tempfile.TemporaryDirectory() as folder, Publisher(quiet=True) as publisher, Publisher() as rival:
        home = Path(folder)
        rec = small(home / "index", chosen.index)
        rows: list[tuple[str, Iterator[str]]] = [
            ("publish, killed at every system call", killed_at_calls(publisher, home / "kills")),
            ("publish, every system call failing once", failing_calls(publisher, home / "errors")),
            (
                f"build, {chosen.build_kills} kills at random moments",
                killed_builds(home / "builds", chosen.build_kills),
            ),
            (f"{chosen.flips} bits flipped in each file", flipped(home / "index", chosen.flips)),
            ("each file cut or made longer", cut(home / "index")),
            ("files swapped, missing, too many", moved(home / "index")),
            ("file size limited, 4 kB steps", limited(publisher, home / "limits")),
            ("disk full (tmpfs), 4 kB steps", filled(home / "disk")),
            ("two processes publish at once", rivals(publisher, rival, home / "rivals", chosen.rounds)),
            ("requests while versions are published, pruned, loaded", reloaded(rec, home / "reloads")),
        ]
        for name, outcomes in rows:
            count = Counter(outcomes)
            if not count:
                print(f"| {name} | not possible here |{' |' * (len(COLUMNS) - 1)}", flush=True)
                continue
            cells = [sum(count.values()), *(count[column] for column in COLUMNS[1:])]
            print(f"| {name} | {' | '.join(f'{cell:,}' for cell in cells)} |", flush=True)
            bad += sum(cells[-3:])
        quick(home / "index", chosen.flips)
        bad += watched(home / "index", chosen.loads, chosen.queries)
    sys.exit(bad > 0)


def small(root: Path, index: str | None) -> gm.Recommender:
    config = gm.BuildConfig.of(factors=8, iterations=4, cache=False, learn_blend=False, index=index)
    return gm.build(small_interactions(), small_catalog(), out=root, config=config, encoder=gm.HashEncoder(dim=32))


# --- writers that are hurt: each yields what was found after it -------------------------------------------------------


def after(root: Path, old: int | None, new: int, acknowledged: bool) -> str:
    """Which version a reader finds."""
    try:
        found = mark_of(root)
    except Exception:
        return "torn"
    if found == new:
        return "new whole"
    return "served wrong" if acknowledged or found != old else "old stayed"


def traced(publisher: Publisher, *options: str, **command: Any) -> tuple[dict[str, Any], str]:
    pid = publisher.start(**command)
    with subprocess.Popen(["strace", "-p", str(pid), *options], stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        strace.stderr.readline()
        publisher.go()
        return publisher.result(), strace.stderr.read()


def killed_at_calls(publisher: Publisher, root: Path) -> Iterator[str]:
    if STRACE is None:
        return
    store.publish(root, contents(0), {"mark": 0})
    _, log = traced(publisher, do="publish", root=str(root), mark=1)
    marks = itertools.count(2)
    for call in sorted(set(re.findall(r"^(\w+)\(", log, re.MULTILINE)) - {"read", "exit_group"}):
        for n in itertools.count(1):
            old, new = mark_of(root), next(marks)
            kill = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={n}")
            report, _ = traced(publisher, *kill, do="publish", root=str(root), mark=new)
            if report["status"] == 0:
                break
            yield after(root, old, new, "version" in report)
        store.prune(root, keep=1)


def failing_calls(publisher: Publisher, root: Path) -> Iterator[str]:
    if STRACE is None:
        return
    store.publish(root, contents(0), {"mark": 0})
    marks = itertools.count(1)
    for call, error in CALLS.items():
        for n in itertools.count(1):
            old, new = mark_of(root), next(marks)
            fail = ("-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={n}")
            report, log = traced(publisher, *fail, do="publish", root=str(root), mark=new)
            if "INJECTED" not in log:
                break
            found = after(root, old, new, "version" in report)
            yield found if "error" not in report or str(root) in report["message"] else "not named"
        store.prune(root, keep=1)


def killed_builds(root: Path, kills: int) -> Iterator[str]:
    rng, command = random.Random(0), [sys.executable, "-c", BUILDER, str(root)]
    for _ in range(kills):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
            assert process.stdout is not None
            first = process.stdout.readline().strip()
            time.sleep(rng.uniform(0, 0.8))
            process.send_signal(signal.SIGKILL)
            last = [first, *process.stdout.read().split()][-1]
        try:
            rec = gm.load(root, check="full")
            whole = store.verify(root).ok and len(rec.recommend(103)) > 0
            if not whole or rec.card["version"] < last:
                yield "torn"
            else:
                yield "old stayed" if rec.card["version"] == last else "new whole"
        except Exception:
            yield "torn"
        store.prune(root, keep=1)


def limited(publisher: Publisher, root: Path) -> Iterator[str]:
    blob = 120_000
    store.publish(root, contents(1), {"mark": 1})
    for limit in itertools.count(0, 4096):
        report = publisher.run(do="publish", root=str(root), mark=2, blob_size=blob, file_limit=limit)
        if "version" in report:
            return
        yield told(report, root, after(root, 1, 2, False), temporaries(root))


def filled(home: Path) -> Iterator[str]:
    home.mkdir()
    root_id = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    mount = [*root_id, "sh", "-c", 'mount -t tmpfs -o size=1m none "$0" && exec "$@"', str(home)]
    if shutil.which("unshare") is None or subprocess.run([*mount, "true"], capture_output=True).returncode:
        return
    root, blob = home / "index", 120_000
    with Publisher(mount) as inside:  # only processes in there see that disk
        inside.run(do="publish", root=str(root), mark=1, blob_size=blob)
        for free in itertools.count(0, 4096):
            inside.run(do="fill", path=str(home / "ballast"), free=free)
            report = inside.run(do="publish", root=str(root), mark=2, blob_size=blob)
            state = inside.run(do="state", root=str(root))
            if "version" in report:
                return
            found = {1: "old stayed", 2: "new whole"}.get(state.get("mark", 0), "torn")
            yield told(report, root, found, state.get("temporaries", []))


def told(report: dict[str, Any], root: Path, found: str, left: list[str]) -> str:
    """A publish that failed has to say where, and to leave nothing."""
    return found if str(root) in report.get("message", "") and not left else "not named"


def rivals(one: Publisher, other: Publisher, root: Path, rounds: int) -> Iterator[str]:
    for round_ in range(rounds):
        marks = {one: 2 * round_ + 1, other: 2 * round_ + 2}
        for process, mark in marks.items():
            process.start(do="publish", root=str(root), mark=mark)
        for process in marks:
            process.go()
        reports = {mark: process.result() for process, mark in marks.items()}
        winners = {mark for mark, report in reports.items() if "version" in report}
        for mark, report in reports.items():
            if mark not in winners:
                yield "refused by name" if str(root / ".lock") in report.get("message", "") else "not named"
                continue
            try:
                yield "new whole" if mark_of(root) in winners else "served wrong"
            except Exception:
                yield "torn"


# --- files that are hurt ---------------------------------------------------------------------------------------------


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and path.name != store.LAYOUT.lock)


def reading(root: Path, *hurt: Path) -> str:
    """What a reader says who hashes every file; one of `hurt` has to be in it."""
    try:
        store.read_version(root, check="full")
    except IncompatibleIndex as error:
        return "refused by name" if any(str(path) in str(error) for path in hurt) else "not named"
    except Exception:
        return "not named"
    return "served wrong"


def flips(whole: bytes, count: int, rng: random.Random) -> Iterator[bytes]:
    for place in rng.sample(range(8 * len(whole)), min(count, 8 * len(whole))):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        yield bytes(damaged)


def flipped(root: Path, count: int) -> Iterator[str]:
    rng = random.Random(0)
    for path in files_of(root):
        whole = path.read_bytes()
        for damaged in flips(whole, count, rng):
            path.write_bytes(damaged)
            yield reading(root, path)
        path.write_bytes(whole)


def cut(root: Path) -> Iterator[str]:
    for path in files_of(root):
        whole = path.read_bytes()
        sizes = {0, 1, 2, len(whole) // 2, max(0, len(whole) - 8), len(whole) - 1}
        for damaged in [*(whole[:size] for size in sizes), whole + b"\0", whole + whole]:
            path.write_bytes(damaged)
            yield reading(root, path)
        path.write_bytes(whole)


def moved(root: Path) -> Iterator[str]:
    for one, other in itertools.combinations(files_of(root), 2):
        first, second = one.read_bytes(), other.read_bytes()
        if first != second:
            one.write_bytes(second)
            other.write_bytes(first)
            yield reading(root, one, other)
            one.write_bytes(first)
            other.write_bytes(second)
    for path in files_of(root):
        if path.parent != root:  # without CURRENT there is no index
            path.rename(root / "away")
            yield reading(root, path)
            (root / "away").rename(path)
    for path in (root / "v000001" / name for name in ("other.npy", ".hidden", "manifest.json.bak")):
        path.write_bytes(b"")
        yield reading(root, path)
        path.unlink()


def quick(root: Path, count: int) -> None:
    """What check="quick" finds, which hashes nothing but the manifest; it is the default only from 1 GB on."""
    rng, found = random.Random(1), {"array": Counter(), "table": Counter(), "index": Counter()}
    manifest, _ = store.read_version(root)
    for name, entry in manifest.files.items():
        path = root / "v000001" / name
        whole, kind = path.read_bytes(), "index" if entry.kind == "bytes" else entry.kind
        original = content(root)
        for damaged in flips(whole, count, rng):
            path.write_bytes(damaged)
            try:
                found[kind]["same" if content(root) == original else "other"] += 1
            except IncompatibleIndex as error:
                found[kind]["refused" if str(path) in str(error) else "not named"] += 1
        path.write_bytes(whole)
    print("\nWith check='quick', bits flipped: ", end="")
    lines = [f"{kind}: {', '.join(f'{n:,} {word}' for word, n in words.items())}" for kind, words in found.items()]
    print("; ".join(lines) + " (same, other: read with the values that were written, or with others)")


def content(root: Path) -> list[Any]:
    _, held = store.read_version(root, check="quick")
    tables = [held.table(name).to_pydict() for name in held.tables]
    return [
        *(array.tobytes() for array in held.arrays.values()),
        *tables,
        *(bytes(blob) for blob in held.blobs.values()),
    ]


# --- readers that go on ----------------------------------------------------------------------------------------------


def reloaded(rec: gm.Recommender, root: Path, versions: int = 150) -> Iterator[str]:
    """Each answer of two threads against that of the version it names, while a third publishes and a fourth loads."""
    rng, made = np.random.default_rng(0), []
    for _ in range(5):
        order = rng.permutation(len(rec.catalog))
        parts = {"item_factors": rec.item_factors[order], "embeddings": rec.embeddings[order]}
        one = replace(rec.now, **parts)
        made.append(gm.Recommender(replace(one, index=gm.FaissIndex(one.vectors))))
    expected = [one.recommend(103, k=8) for one in made]
    save(made[0], root)
    holder, stop, outcomes = [gm.load(root)], threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            now = holder[0]
            try:
                right = expected[(int(now.card["version"][1:]) - 1) % len(made)]
                outcomes.append("new whole" if now.recommend(103, k=8) == right else "served wrong")
            except Exception:
                outcomes.append("not named")

    def write() -> None:
        for at in range(1, versions):
            save(made[at % len(made)], root)
            try:
                store.prune(root, keep=1)
            except InvalidInput:
                outcomes.append("not named")
        stop.set()

    threads = [threading.Thread(target=target) for target in (ask, ask, write)]
    for thread in threads:
        thread.start()
    while not stop.is_set():
        try:
            holder[0] = gm.load(root)
        except Exception:
            outcomes.append("not named")
    for thread in threads:
        thread.join()
    yield from outcomes


def watched(root: Path, loads: int, queries: int) -> bool:
    """Memory, files and threads of a process that loads and asks for long. True if they grow."""
    rounds = 10
    command = [sys.executable, "-c", LOADER, *map(str, (root, rounds, loads // rounds, queries // loads))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment(), check=True)
    points = [json.loads(line) for line in done.stdout.splitlines()]
    held = {name: np.asarray([point[name] for point in points], np.float64) for name in points[0]}
    slope = np.polyfit(np.linspace(0, loads, len(points)), held["rss"], 1)[0]
    steady = {name: f"{held[name][0]:.0f} to {held[name][-1]:.0f} {name}" for name in ("files", "threads", "maps")}
    seconds, first, last = np.ptp(held["seconds"]), held["rss"][0] / 1e6, held["rss"][-1] / 1e6
    print(
        f"\n{loads:,} loads and {queries:,} requests in {seconds:.0f} s: {slope:,.0f} bytes more a load "
        f"({first:.0f} MB at first, {last:.0f} MB at last), {', '.join(steady.values())}"
    )
    return bool(slope > 4096 or any(np.ptp(held[name]) > 8 for name in steady))


if __name__ == "__main__":
    main()
