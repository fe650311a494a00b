"""What a whole index promises, from build to answer: kills, damage, full disks, reloads, equal bytes, old formats,
names, no pickle, bounded memory. `test_store_faults.py` has the same for the files alone, at every system call.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import changed
from processes import BUILDER, LOADER, environment
from test_store_faults import HOSTILE
from typer.testing import CliRunner

import geo_mf as gm
from geo_mf import store
from geo_mf.cli.app import app
from geo_mf.errors import GeoMFError, IncompatibleIndex, InvalidInput
from geo_mf.folding import Sums
from geo_mf.store.binding import save
from geo_mf.store.layout import SCHEMA_VERSION

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def saved(recommender: gm.Recommender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("promises") / "small"
    save(recommender, out)
    return out


@pytest.fixture
def index(saved: Path, tmp_path: Path) -> Path:
    """A copy to hurt."""
    return Path(shutil.copytree(saved, tmp_path / "index"))


def script(code: str, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment() | env, check=False)


# --- row 1: a kill at any moment of a build --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_build_killed_at_a_random_moment_leaves_a_whole_index(tmp_path: Path, seed: int) -> None:
    root = tmp_path / "index"
    command = [sys.executable, "-c", BUILDER, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "v000001\n"  # from here on a build takes a fraction of a second
        time.sleep(random.Random(seed).uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        acknowledged = ["v000001", *process.stdout.read().split()]
    assert store.verify(root).ok
    rec = gm.load(root, check="full")
    assert rec.card["version"] >= acknowledged[-1]
    assert len(rec.recommend(103)) > 0
    assert all(store.verify(root, version).ok for version in store.versions(root))
    save(rec, root)  # the next writer clears what the dead one left
    assert not [path for path in root.iterdir() if path.name.startswith(".tmp-")]


# --- row 3: damage ---------------------------------------------------------------------------------------------------


def test_flips_and_every_kind_of_cut_in_every_file_are_refused_by_name(index: Path) -> None:
    """50 flips a file; `test_store_faults.py` makes 200, and `benchmarks/faults.py` as many as are asked for."""
    rng = random.Random(0)
    paths = sorted(path for path in index.rglob("*") if path.is_file() and path.name != store.LAYOUT.lock)
    assert len(paths) > 15
    for path in paths:
        whole = path.read_bytes()
        flips = rng.sample(range(8 * len(whole)), min(50, 8 * len(whole)))
        cuts = [0, 1, 2, len(whole) // 2, len(whole) - 8, len(whole) - 1]
        damaged = [bytearray(whole) for _ in flips]
        for copy, place in zip(damaged, flips, strict=True):
            copy[place // 8] ^= 1 << place % 8
        for data in [*damaged, *(whole[:cut] for cut in cuts), whole + b"\0"]:
            path.write_bytes(data)
            with pytest.raises(IncompatibleIndex, match=re.escape(str(path))):
                store.read_version(index)
        path.write_bytes(whole)
    assert store.verify(index).ok


def test_a_damaged_new_version_is_refused_and_the_old_one_goes_on(index: Path, recommender: gm.Recommender) -> None:
    serving = gm.load(index)
    before = serving.recommend(103)
    save(changed(recommender, item_factors=-recommender.item_factors), index)
    path = index / "v000002" / "item_factors.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(IncompatibleIndex, match=r"item_factors\.npy is damaged"):
        gm.load(index)
    assert serving.recommend(103) == before == gm.load(index, version="v000001").recommend(103)


# --- row 4: a full disk, through the command line --------------------------------------------------------------------

FILLING = """
import json, os, resource, signal, sys
from pathlib import Path
import pyarrow.csv
from conftest import small_catalog, small_interactions
from typer.testing import CliRunner
from geo_mf.cli.app import app
from geo_mf.store import LAYOUT

room, root, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
clicks = room / "clicks.csv"
pairs = [f"u{u},i{i}" for u in range(20) for i in range(20) if (u + i) % 2]
clicks.write_text("\\n".join(["user_id,item_id", *pairs]))
build = ["build", "--interactions", str(clicks), "--out", str(root), "--encoder", "hash"]
build += ["--no-learn-blend", "--no-cache"]

def built(factors):
    return CliRunner().invoke(app, [*build, "--factors", str(factors), "--iterations", "1"])

assert built(2).exit_code == 0
before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
ballast = root.parent / "ballast"
step = 512 if kind == "limit" else 4096
for free in range(0, 400 * step, step):
    if kind == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (free, resource.RLIM_INFINITY))
    else:
        ballast.unlink(missing_ok=True)
        disk = os.statvfs(root)
        ballast.write_bytes(bytes(max(0, disk.f_bavail * disk.f_frsize - free)))
    result = built(3)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    after = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    print(json.dumps([result.exit_code, result.stderr, after == before, LAYOUT.numbers(root)]), flush=True)
    if result.exit_code == 0:
        break
"""


@pytest.mark.parametrize("kind", ["limit", "tmpfs"])
def test_a_build_on_a_full_disk_exits_74_and_says_what_it_needs(tmp_path: Path, kind: str) -> None:
    """The room grows from nothing until a build succeeds; a limit on file sizes is a full disk for everyone."""
    home = tmp_path / "disk"
    home.mkdir()
    command = [sys.executable, "-c", FILLING, str(tmp_path), str(home / "index"), kind]
    if kind == "tmpfs":
        root_id = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
        mount = [*root_id, "sh", "-c", 'mount -t tmpfs -o size=512k none "$0" && exec "$@"', str(home)]
        if shutil.which("unshare") is None or subprocess.run([*mount, "true"], capture_output=True).returncode:
            pytest.skip("this user may not mount a tmpfs; the limit on file sizes covers the same code")
        command = [*mount, *command]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    *failed, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert last[0] == 0 and last[3] == [1, 2]
    assert len(failed) >= 5
    for code, told, untouched, versions in failed:
        assert (code, untouched, versions) == (74, True, [1]), told
        assert len(told.splitlines()) == 1
        assert str(home / "index") in told
        assert ("raise the limit" if kind == "limit" else "free some space") in told
    assert sum(bool(re.search(r"this file of \d+ bytes", told)) for _, told, _, _ in failed) >= len(failed) - 2


# --- row 5: reloads --------------------------------------------------------------------------------------------------


def test_reloads_drop_no_request_and_mix_no_versions(recommender: gm.Recommender, tmp_path: Path) -> None:
    """Versions are published, pruned and loaded while others ask: each answer is all of the version that it names."""
    root, rng = tmp_path / "index", np.random.default_rng(0)
    made: list[gm.Recommender] = []
    for _ in range(4):
        order = rng.permutation(len(recommender.catalog))
        catalog = replace(recommender.catalog, texts=[f"text {i}" for i in order])
        parts = {"item_factors": recommender.item_factors[order], "embeddings": recommender.embeddings[order]}
        one = changed(recommender, catalog=catalog, **parts)
        made.append(changed(one, index=gm.FaissIndex(one.vectors)))
    expected = [one.recommend(103, k=8) for one in made]
    assert len({str(one) for one in expected}) == len(made)
    save(made[0], root)
    holder, stop = [gm.load(root)], threading.Event()
    asked: list[int] = []
    wrong: list[object] = []

    def ask() -> None:
        while not stop.is_set():
            rec = holder[0]
            try:
                number = int(rec.card["version"][1:])
                if rec.recommend(103, k=8) != expected[(number - 1) % len(made)]:
                    wrong.append(number)
                asked.append(number)
            except Exception as error:
                wrong.append(error)

    def write() -> None:
        for at in range(1, 40):
            save(made[at % len(made)], root)
            store.prune(root, keep=1)
        stop.set()

    threads = [threading.Thread(target=ask), threading.Thread(target=ask), threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    while not stop.is_set():
        holder[0] = gm.load(root)
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(set(asked)) > 5 and len(asked) > 100


# --- row 14: the same bytes ------------------------------------------------------------------------------------------

TWICE = """
import sys
from conftest import small_catalog, small_interactions
import geo_mf as gm

config = gm.BuildConfig.of(factors=8, iterations=3, cache=False, threads=1)
gm.build(small_interactions(), small_catalog(), out=sys.argv[1], config=config, encoder=gm.HashEncoder(dim=32))
"""


def test_two_processes_build_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", "1"), ("two", "2")):
        done = script(TWICE, tmp_path / name, PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (store.read_version(tmp_path / name)[0] for name in ("one", "two"))
    assert len(one.files) > 15
    assert one.files == two.files
    assert {**one.meta, "card": None} == {**two.meta, "card": None}


# --- row 15: formats -------------------------------------------------------------------------------------------------


def test_there_is_a_golden_index_of_the_present_format() -> None:
    assert (GOLDEN / str(SCHEMA_VERSION) / "CURRENT").is_file()
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 100_000


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.json")))
def test_an_old_index_opens_and_answers_as_it_did(name: str, tmp_path: Path) -> None:
    rec = gm.load(GOLDEN / name, check="full")
    for question in json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8")):
        found = rec.recommend(**question["ask"])
        assert [[one.id, one.title, one.cold] for one in found] == [[a, b, d] for a, b, _, d in question["list"]]
        assert [one.score for one in found] == pytest.approx([score for _, _, score, _ in question["list"]], abs=1e-5)
    save(rec, tmp_path / "again")
    assert gm.load(tmp_path / "again").recommend("u0") == rec.recommend("u0")


def test_a_newer_format_is_refused_with_the_version_it_needs(index: Path) -> None:
    path = index / "v000001" / "manifest.json"
    text = json.dumps(json.loads(path.read_text()) | {"schema_version": SCHEMA_VERSION + 1, "geo_mf": "7.2.0"})
    path.write_text(text)
    for seal in (index / "CURRENT", path.parent / "SEAL"):
        seal.write_text(f"v000001\n{sha256(text.encode()).hexdigest()}\n")
    with pytest.raises(IncompatibleIndex, match=r"needs geo_mf >= 7\.2\.0: upgrade geo_mf"):
        gm.load(index)
    result = CliRunner().invoke(app, ["recommend", str(index), "--user", "103"])
    assert result.exit_code == 65 and "needs geo_mf >= 7.2.0" in result.stderr


def test_an_index_of_a_layout_without_a_file_is_refused_by_its_name_or_does_without(
    saved: Path, recommender: gm.Recommender, tmp_path: Path
) -> None:
    manifest, held = store.read_version(saved)
    whole: dict[str, Any] = {**held.arrays, **{name: held.table(name) for name in held.tables}}
    whole |= {name: bytes(blob) for name, blob in held.blobs.items()}
    suffixes = {Path(name).stem: Path(name).suffix for name in manifest.files}
    optional = set()
    for name in whole:
        root = tmp_path / name
        store.publish(root, {other: value for other, value in whole.items() if other != name}, manifest.meta)
        try:
            assert gm.load(root).recommend(103) == recommender.recommend(103)
            optional.add(name)
        except IncompatibleIndex as error:
            assert f"holds no {name}{suffixes[name]}. Build the index again." in str(error)
    assert optional == {"live", *(part.name for part in fields(Sums))}


# --- row 16: the encoder ---------------------------------------------------------------------------------------------


def test_an_encoder_that_changed_since_the_build_is_refused_and_behaviour_still_answers(
    saved: Path, recommender: gm.Recommender, tmp_path: Path
) -> None:
    manifest, held = store.read_version(saved)
    meta: dict[str, Any] = dict(manifest.meta)
    meta["encoder"] = meta["encoder"] | {"spec": gm.HashEncoder(dim=32, seed=5).spec()}
    whole: dict[str, Any] = {**held.arrays, **{name: held.table(name) for name in held.tables}}
    store.publish(tmp_path / "other", whole | {name: bytes(blob) for name, blob in held.blobs.items()}, meta)
    rec = gm.load(tmp_path / "other")
    with pytest.raises(IncompatibleIndex, match=r"built by an encoder with fingerprint .* but hash-32 has"):
        rec.recommend(text="snow")
    assert rec.recommend(103) == recommender.recommend(103)
    with pytest.raises(IncompatibleIndex, match="is another encoder"):
        gm.load(saved, encoder=gm.HashEncoder(dim=16))


def test_an_encoder_that_somebody_vouches_for_asks_and_does_not_write(
    saved: Path, recommender: gm.Recommender, tmp_path: Path
) -> None:
    other = gm.HashEncoder(dim=32, seed=5)
    rec = gm.load(saved, encoder=other, other_encoder=True)
    assert rec.recommend(text="snow") != recommender.recommend(text="snow")
    near = rec.embeddings @ other.encode(["snow"], kind="query")[0]
    found = rec.recommend(text="snow", weights=(0, 1), k=5)
    assert near[[rec.catalog.items.row(id) for id in found.ids]].tolist() == sorted(near, reverse=True)[:5]
    assert rec.recommend(103) == recommender.recommend(103)
    with pytest.raises(IncompatibleIndex, match=r"built by an encoder with fingerprint .* but hash-32 has"):
        rec.add_items(pa.table({"item_id": ["new"], "title": ["a title"]}))
    gm.save(rec, tmp_path / "again")
    assert gm.load(tmp_path / "again").recommend(text="snow") == recommender.recommend(text="snow")
    with pytest.raises(IncompatibleIndex, match=r"gives 16 numbers for a text, and .* holds 32"):
        gm.load(saved, encoder=gm.HashEncoder(dim=16), other_encoder=True)
    same = gm.load(saved, encoder=gm.HashEncoder(dim=32), other_encoder=True)
    assert same.recommend(text="snow") == recommender.recommend(text="snow")


# --- row 17: names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in HOSTILE if name and Path(name).name == name])
def test_a_name_that_is_none_is_refused_by_load_and_by_every_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="is not a name for an index"):
        gm.load(name)
    clicks = tmp_path / "clicks.csv"
    clicks.write_text("user_id,item_id\n1,2\n")
    for arguments in (["verify", "--", name], ["recommend", "--user=1", "--", name], ["similar", "--", name, "1"]):
        assert refusal(arguments) in (2, 65)  # 2: the command line itself refuses a NUL
    assert refusal(["build", "--interactions", str(clicks), f"--out={name}"]) in (2, 65)
    assert [path.name for path in tmp_path.iterdir()] == ["clicks.csv"]


@pytest.mark.parametrize("name", ["../movies", "a/../../movies", "/nowhere/movies", "./movies", "..\\movies/movies"])
def test_a_path_that_holds_no_index_is_read_only_and_found_nowhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(FileNotFoundError):
        gm.load(name)
    assert refusal(["verify", "--", name]) == 66
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


@pytest.mark.parametrize("version", ["../v000001", "v000001/../../x", "", "v1", "V000001", "v000001\0", "v" * 300])
def test_a_version_cannot_lead_elsewhere(saved: Path, version: str) -> None:
    with pytest.raises((GeoMFError, FileNotFoundError)):
        gm.load(saved, version=version)
    assert refusal(["verify", str(saved), f"--version={version}"]) in (65, 66)


def refusal(arguments: Sequence[str]) -> int:
    """The exit code of a command that must be refused in one line."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.stdout == "" and len(result.stderr.splitlines()) == 1, result.output
    return result.exit_code


# --- row 18: no pickle -----------------------------------------------------------------------------------------------

HOOKED = """
import os, sys
import geo_mf as gm

def ask(rec):
    for question in ({"user": 103}, {"text": "snow"}, {"history": ["i1"], "where": "year > 1985"}):
        rec.recommend(**question)
    return rec.similar_items("i1"), rec.audience("i2"), rec.trending(), rec.explain("i1", 103)

def hook(event, arguments):
    if event in ("pickle.find_class", "marshal.loads") and armed:
        print("caught", event, file=sys.stderr)
        os._exit(3)

armed = False
ask(gm.load(sys.argv[1]))  # what is imported lazily is imported now
sys.addaudithook(hook)
armed = True
ask(gm.load(sys.argv[1], check="full"))
ask(gm.load(sys.argv[1], check="quick"))
import pickle
pickle.loads(pickle.dumps(gm.HashEncoder))
sys.exit("the hook does not see pickles")
"""


def test_nothing_is_unpickled_by_a_load_or_an_answer(saved: Path) -> None:
    """The hook ends the process at any pickle; what ends it must be the test's own, at the end."""
    done = script(HOOKED, saved)
    assert (done.returncode, done.stderr.strip()) == (3, "caught pickle.find_class")


# --- row 24: memory and threads --------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux tells what a process holds")
def test_many_loads_and_requests_hold_no_more_than_a_few(saved: Path) -> None:
    done = script(LOADER, saved, 3, 60, 10)
    assert done.returncode == 0, done.stderr[-2000:]
    first, *rounds = [json.loads(line) for line in done.stdout.splitlines()]
    for later in rounds:
        assert later["files"] == first["files"]
        assert later["threads"] == first["threads"]
        assert abs(later["maps"] - first["maps"]) <= 8
    # One file of each load that stayed mapped would have shown above; this is for what Python holds.
    assert rounds[-1]["rss"] - rounds[0]["rss"] < 4 * 2**20
