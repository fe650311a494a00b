"""What the artefact survives: kill -9 at every system call, full disks, failing fsync, flipped bits, rival writers.

`publisher.py` is the process that is hurt; this side looks at what is left.
"""

import ast
import errno
import itertools
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from publisher import Publisher, contents, mark_of, temporaries

import geo_mf
from geo_mf import store
from geo_mf.errors import IncompatibleIndex, InvalidInput

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed (apt install strace)")


@pytest.fixture(scope="module")
def publisher() -> Iterator[Publisher]:
    with Publisher() as process:
        yield process


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An artefact with two versions, and the rubbish of a writer that died."""
    root = tmp_path / "movies"
    for mark in (1, 2):
        store.publish(root, contents(mark), {"mark": mark})
    leave_rubbish(root)
    return root


def leave_rubbish(root: Path) -> None:
    (root / ".tmp-dead").mkdir()
    (root / ".tmp-dead" / "factors.npy").write_bytes(b"half")
    (root / ".tmp-CURRENT").write_bytes(b"v0")


def traced(publisher: Publisher, *options: str, **command: Any) -> tuple[dict[str, Any], str]:
    """Run a command under strace; return the child's report and strace's log."""
    pid = publisher.start(**command)
    with subprocess.Popen(["strace", "-p", str(pid), *options], stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        attached = strace.stderr.readline()
        publisher.go()
        report = publisher.result()
        log = strace.stderr.read()
    assert "attached" in attached, f"strace could not attach: {attached}"
    return report, log


# --- rows 1 and 2: a kill, a crash ---------------------------------------------------------------------------------


@needs_strace
@pytest.mark.parametrize("first", [True, False], ids=["first version", "next version"])
def test_a_kill_at_any_system_call_leaves_the_old_or_the_new_version(
    publisher: Publisher, tmp_path: Path, first: bool
) -> None:
    root, marks, kills, seen = tmp_path / "movies", itertools.count(1), 0, set()
    if not first:
        store.publish(root, contents(0), {"mark": 0})
        leave_rubbish(root)
    _, log = traced(publisher, do="publish", root=str(root), mark=next(marks))
    calls = set(re.findall(r"^(\w+)\(", log, re.MULTILINE)) - {"read", "exit_group"}  # read: waiting for "go"
    assert {"openat", "write", "fsync", "flock", "close"} <= calls
    assert first or {"unlinkat", "rmdir"} & calls
    for call in sorted(calls):
        for n in itertools.count(1):
            if first:
                root = tmp_path / f"{call}-{n}" / "movies"
            elif not temporaries(root):
                leave_rubbish(root)
            old, mark = mark_of(root), next(marks)
            kill = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={n}")
            report, _ = traced(publisher, *kill, do="publish", root=str(root), mark=mark)
            found = mark_of(root)  # raises if anything is torn
            assert found in (old, mark)
            if "version" in report:
                assert found == mark  # acknowledged
            if report["status"] == 0:
                break
            assert report["status"] == -signal.SIGKILL
            seen.add(found == mark)
            kills += 1
    assert kills > 50
    assert seen == {True, False}
    assert store.publish(root, contents(7), {"mark": 7}) == store.read_version(root)[0].version
    assert temporaries(root) == []


@needs_strace
@pytest.mark.parametrize("call", ["/^rename", "unlinkat", "/^(rmdir|unlink)$", "openat", "close"])
def test_a_kill_while_pruning_leaves_whole_versions(publisher: Publisher, root: Path, call: str) -> None:
    for n in itertools.count(1):
        kill = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={n}")
        report, _ = traced(publisher, *kill, do="prune", root=str(root))
        assert mark_of(root) == 2
        assert all(store.verify(root, version).ok for version in store.versions(root))
        if report["status"] == 0:
            break
        if len(store.versions(root)) == 1:
            store.publish(root, contents(1), {"mark": 1})
            store.publish(root, contents(2), {"mark": 2})
            leave_rubbish(root)
    assert len(store.versions(root)) == 1
    assert temporaries(root) == []


def test_an_interrupt_just_after_the_switch_keeps_the_new_version(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def interrupted(source: Path, target: Path) -> None:
        rename(source, target)
        if target.name == "CURRENT":
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.publish(root, contents(3), {"mark": 3})
    assert mark_of(root) == 3


@needs_strace
def test_everything_is_synced_before_it_is_named_and_before_it_is_acknowledged(
    publisher: Publisher, root: Path
) -> None:
    """A kill loses nothing that a power cut would; the order of the calls is what counts then."""
    _, log = traced(publisher, "-y", "-e", "trace=fsync,/^rename,write", do="publish", root=str(root), mark=3)
    log = re.sub(r"\.tmp-[0-9a-f]{16}", "staged", log).replace(f"{root}/", "").replace(str(root), "root")
    calls = re.findall(
        r"(?m)^fsync\(\d+<(.+)>\) += 0|^rename\w*\(.*?\"(.+?)\".*?\"(.+?)\".*\) += 0|^write\(1<(\w+)", log
    )
    assert [" -> ".join(filter(None, call)) for call in calls] == [
        *(f"staged/{name}" for name in ("factors.npy", "catalog.parquet", "index.faiss", "manifest.json", "SEAL")),
        "staged",
        "staged -> v000003",
        "root",
        ".tmp-CURRENT",
        ".tmp-CURRENT -> CURRENT",
        "root",
        "pipe",
    ]


@needs_strace
@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("fsync", "EIO"),
        ("write", "ENOSPC"),
        ("openat", "EMFILE"),
        ("/^rename", "EIO"),
        ("/^mkdir", "EDQUOT"),
        ("flock", "EIO"),
        ("close", "EIO"),
    ],
)
def test_a_failing_system_call_is_reported_and_nothing_half_written_stays(
    publisher: Publisher, root: Path, call: str, error: str
) -> None:
    late = n = 0
    for n in itertools.count(1):
        old, there = mark_of(root), store.versions(root)
        fail = ("-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={n}")
        report, log = traced(publisher, *fail, do="publish", root=str(root), mark=10 + n)
        if "INJECTED" not in log:
            assert mark_of(root) == 10 + n
            break
        found = mark_of(root)
        if "version" in report or report["status"] != 0:
            # Acknowledged, so the failed call did not matter; or it was the report's own write.
            assert found == 10 + n
            assert report["status"] == 0 or call == "write"
            continue
        assert report["errno"] == getattr(errno, error)
        if found == old:
            assert store.versions(root) == there
            assert [name for name in temporaries(root) if name not in (".tmp-dead", ".tmp-CURRENT")] == []
        else:
            late += found == 10 + n
    assert n > 1
    # After CURRENT was replaced there comes only the last sync of the folder (open, fsync, close) and the lock's close.
    assert late == {"openat": 1, "fsync": 1, "close": 2}.get(call, 0)


def test_a_kill_at_a_random_moment_leaves_the_old_or_the_new_version(publisher: Publisher, root: Path) -> None:
    size, rng, outcomes = 2_000_000, random.Random(0), set()
    began = time.perf_counter()
    assert publisher.run(do="publish", root=str(root), mark=3, blob_size=size)["status"] == 0
    usual = time.perf_counter() - began
    for mark in range(4, 54):
        old = mark_of(root)
        moment = rng.uniform(0, 1.2 * usual)
        report = publisher.run(do="publish", root=str(root), mark=mark, blob_size=size, kill_after=moment)
        found = mark_of(root)
        assert found in (old, mark)
        assert found == mark or "version" not in report
        outcomes.add(report["status"])
        if mark % 10 == 0:
            store.prune(root, keep=1)
    assert -signal.SIGKILL in outcomes


# --- row 4: a full disk --------------------------------------------------------------------------------------------


def test_a_file_that_cannot_grow_leaves_no_trace(publisher: Publisher, root: Path) -> None:
    """A limit on file size is a full disk for everyone: no mount, no root."""
    blob = 120_000
    for limit in range(0, 4096 * 32, 4096):
        report = publisher.run(do="publish", root=str(root), mark=9, blob_size=blob, file_limit=limit)
        if limit >= blob:
            break
        assert report["error"] == "OSError"
        assert report["errno"] == errno.EFBIG
        name, needed = re.findall(r"this file of (\d+) bytes.*?'(.*)'", report["message"])[0][::-1]
        assert str(root) in name
        assert int(needed) > limit
        assert mark_of(root) == 2
        assert temporaries(root) == []
        assert store.versions(root) == ("v000001", "v000002")
    assert mark_of(root) == 9


def test_a_full_disk_leaves_no_trace(tmp_path: Path) -> None:
    """A real one: a tmpfs of 1 MiB in a mount namespace of its own, which is gone with the process."""
    root_id = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    mount = [*root_id, "sh", "-c", 'mount -t tmpfs -o size=1m none "$0" && exec "$@"', str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run([*mount, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a tmpfs; the test with limited files covers the same code")
    root, blob, failed = str(tmp_path / "movies"), 120_000, 0
    with Publisher(mount) as publisher:
        assert publisher.run(do="publish", root=root, mark=1, blob_size=blob)["status"] == 0
        for free in range(0, 4096 * 50, 4096):
            assert publisher.run(do="fill", path=str(tmp_path / "ballast"), free=free)["status"] == 0
            report = publisher.run(do="publish", root=root, mark=2, blob_size=blob)
            state = publisher.run(do="state", root=root)
            if "version" in report:
                assert state["mark"] == 2
                break
            failed += 1
            assert report["errno"] == errno.ENOSPC
            assert root in report["message"]
            assert state["mark"] == 1
            assert state["temporaries"] == []
        else:
            pytest.fail("there was never enough room")
    assert failed > 20


# --- row 6: two at once --------------------------------------------------------------------------------------------


def test_of_two_writers_one_wins_and_the_other_is_told(publisher: Publisher, tmp_path: Path) -> None:
    root, refused = tmp_path / "movies", 0
    with Publisher() as rival:
        for round_ in range(50):
            before = len(store.versions(root))
            marks = (2 * round_ + 1, 2 * round_ + 2)
            for process, mark in zip((publisher, rival), marks, strict=True):
                process.start(do="publish", root=str(root), mark=mark)
            publisher.go()
            rival.go()
            reports = {mark: process.result() for process, mark in zip((publisher, rival), marks, strict=True)}
            winners = {mark for mark, report in reports.items() if "version" in report}
            assert mark_of(root) in winners
            assert len(store.versions(root)) == before + len(winners)
            for report in (reports[mark] for mark in marks if mark not in winners):
                assert report["error"] == "InvalidInput"
                assert f"it holds {root / '.lock'}" in report["message"]
                refused += 1
    assert refused > 0
    assert temporaries(root) == []


def test_readers_see_whole_versions_while_a_writer_publishes_and_prunes(publisher: Publisher, tmp_path: Path) -> None:
    root, seen = tmp_path / "movies", [0]
    store.publish(root, contents(0), {"mark": 0})
    publisher.start(do="publish", root=str(root), mark=1, rounds=60)
    publisher.go()
    assert publisher._process.stdout is not None
    while not select.select([publisher._process.stdout], [], [], 0)[0]:
        mark = mark_of(root)
        assert mark is not None
        seen.append(mark)
    assert publisher.result()["status"] == 0
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
    assert mark_of(root) == 60


def test_what_was_read_stays_valid_when_its_version_is_pruned(root: Path) -> None:
    held = store.read_version(root)[1]
    store.publish(root, contents(3), {"mark": 3})
    assert store.prune(root, keep=1) == ("v000001", "v000002")
    assert (held.array("factors") == 2).all()
    assert bytes(held.blob("index")) == contents(2)["index"]


# --- row 3: damage -------------------------------------------------------------------------------------------------


def files_of(root: Path) -> list[Path]:
    return [root / "CURRENT", *sorted(path for path in (root / "v000002").iterdir())]


def assert_refused(root: Path, path: Path) -> None:
    """Reading refuses, by the file's name; `verify` says the same; the older version can still be read."""
    with pytest.raises(IncompatibleIndex) as caught:
        store.read_version(root)
    assert str(path) in str(caught.value)
    report = store.verify(root)
    assert not report.ok
    assert str(path) in str(report)
    if path.parent.name != "v000001":
        assert (store.read_version(root, "v000001")[1].array("factors") == 1).all()


def test_a_flipped_bit_is_refused_by_file_name(root: Path) -> None:
    rng = random.Random(0)
    for path in files_of(root):
        whole = path.read_bytes()
        places = range(8 * len(whole)) if len(whole) < 100 else rng.sample(range(8 * len(whole)), 200)
        for place in places:
            flipped = bytearray(whole)
            flipped[place // 8] ^= 1 << place % 8
            path.write_bytes(flipped)
            assert_refused(root, path)
        path.write_bytes(whole)
        assert mark_of(root) == 2


def test_a_cut_or_longer_file_is_refused_by_file_name(root: Path) -> None:
    for path in files_of(root):
        whole = path.read_bytes()
        for damaged in (b"", whole[:1], whole[: len(whole) // 2], whole[:-1], whole + b"\0", whole + whole):
            path.write_bytes(damaged)
            assert_refused(root, path)
        path.write_bytes(whole)
    assert mark_of(root) == 2


def test_sizes_and_names_are_checked_even_when_hashes_are_not(root: Path) -> None:
    """The quick check of large artefacts finds what a size or a parser can tell, and always by file name."""
    path = root / "v000002" / "factors.npy"
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole + b"\0", b"\0" * len(whole), whole.replace(b"<f4", b"<i4"), whole[::-1]):
        path.write_bytes(damaged)
        with pytest.raises(IncompatibleIndex, match=re.escape(str(path))):
            store.read_version(root, check="quick")
    path.write_bytes(whole)
    path = root / "v000002" / "catalog.parquet"
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(IncompatibleIndex, match=re.escape(str(path))):
        store.read_version(root, check="quick")


def test_a_large_artefact_is_hashed_on_demand_only(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root / "v000002" / "factors.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x41")
    monkeypatch.setattr("geo_mf.store.reading.HASHED_BELOW", 100)
    store.read_version(root)
    store.read_version(root, check="quick")
    with pytest.raises(IncompatibleIndex, match=re.escape(str(path))):
        store.read_version(root, check="full")
    assert not store.verify(root).ok


def test_swapped_missing_and_extra_files_are_refused_by_name(root: Path) -> None:
    folder = root / "v000002"
    for one, other in itertools.combinations(files_of(root), 2):
        first, second = one.read_bytes(), other.read_bytes()
        if first == second:  # CURRENT and SEAL
            continue
        one.write_bytes(second)
        other.write_bytes(first)
        with pytest.raises(IncompatibleIndex) as caught:
            store.read_version(root)
        assert str(one) in str(caught.value) or str(other) in str(caught.value)
        one.write_bytes(first)
        other.write_bytes(second)
    for path in files_of(root)[1:]:
        path.rename(root / "away")
        assert_refused(root, path)
        path.mkdir()
        assert_refused(root, path)
        path.rmdir()
        os.mkfifo(path)
        assert_refused(root, path)
        path.unlink()
        path.symlink_to(root / "away")
        assert_refused(root, path)
        path.unlink()
        (root / "away").rename(path)
    for name in ("other.npy", "manifest.json.bak", ".hidden"):
        (folder / name).write_bytes(b"")
        assert_refused(root, folder / name)
        (folder / name).unlink()
    for path in folder.iterdir():  # files of another version, whole as they are
        whole = path.read_bytes()
        path.write_bytes((root / "v000001" / path.name).read_bytes())
        assert_refused(root, path)
        path.write_bytes(whole)
    assert mark_of(root) == 2


def test_a_version_that_is_not_there_or_is_a_link_is_refused(root: Path) -> None:
    (root / "v000002").rename(root / "elsewhere")
    assert_refused(root, root / "CURRENT")
    (root / "v000002").symlink_to(root / "elsewhere")
    assert_refused(root, root / "v000002")


def test_verify_lists_every_problem(root: Path) -> None:
    folder = root / "v000002"
    (folder / "factors.npy").unlink()
    (folder / "catalog.parquet").write_bytes(b"short")
    (folder / "extra").write_bytes(b"")
    report = store.verify(root)
    assert [Path(text.split()[0]).name for text in report.problems] == ["factors.npy", "extra", "catalog.parquet"]
    assert "3 problems" in str(report)
    assert store.verify(root, "v000001").ok


def test_nothing_is_pruned_while_the_current_version_is_damaged(root: Path) -> None:
    (root / "v000002" / "factors.npy").write_bytes(b"")
    with pytest.raises(IncompatibleIndex, match=r"nothing was pruned[\s\S]*factors.npy"):
        store.prune(root, keep=1)
    assert store.versions(root) == ("v000001", "v000002")


# --- rows 17 and 18: names, pickles --------------------------------------------------------------------------------

HOSTILE = [
    "../movies", "..", ".", "", "/etc/passwd", "/", "~", "a/b", "a\\b", "..\\movies", "%2e%2e", "movies/..", "movies\n",
    "movies\0", "\0", "con", "nul", "com1", "lpt9", "aux", "prn", "CON", "Movies", "-movies", "_movies", ".movies",
    "a.b", "x" * 65, "x" * 300, "．．", "‥", "movies\u200b", "mövies", "a b", "*", "$HOME", "C:", "movies:stream",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_cannot_leave_its_home(tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with pytest.raises(InvalidInput, match="is not a name for an index"):
        store.LAYOUT.index_root(home, name)
    if name and Path(name).name == name:  # as the end of a path, too; a path's beginning is the caller's own choice
        for use in (store.read_version, store.verify, store.versions, store.prune):
            with pytest.raises(InvalidInput, match="is not a name for an index"):
                use(home / name)
        with pytest.raises(InvalidInput, match="is not a name for an index"):
            store.publish(home / name, contents(1), {"mark": 1})
    assert list(tmp_path.rglob("*")) == [home]


def test_a_good_name_stays_in_its_home(tmp_path: Path) -> None:
    for name in ("movies", "0", "ml-latest_small", "x" * 64, "console"):
        assert store.LAYOUT.index_root(tmp_path, name) == tmp_path / name
    with pytest.raises(InvalidInput, match="NUL"):
        store.publish(f"{tmp_path}/a\0b/movies", contents(1), {"mark": 1})


@pytest.mark.parametrize("version", ["v1", "v0000001", "v-00001", "../v000001", "v000001/", "v00000x", "", "v000001\n"])
def test_a_version_has_a_version_s_name(root: Path, version: str) -> None:
    with pytest.raises(InvalidInput, match="is not a version"):
        store.read_version(root, version)


def test_a_linked_root_is_refused(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    for use in (store.read_version, store.verify, store.versions, store.prune):
        with pytest.raises(InvalidInput, match="symbolic link"):
            use(link)
    with pytest.raises(InvalidInput, match="symbolic link"):
        store.publish(link, contents(1), {})


HOOKED = """
import hashlib, os, sys
from pathlib import Path
from publisher import contents, mark_of
from geo_mf import store
from geo_mf.errors import IncompatibleIndex

def hook(event, arguments):
    if event == "pickle.find_class":
        print("caught", event, file=sys.stderr)
        os._exit(3)

root = Path(sys.argv[1])
mark_of(root)  # what is imported lazily is imported now
sys.addaudithook(hook)
assert mark_of(root) == 2
store.publish(root, contents(3), {"mark": 3})
assert mark_of(root) == 3
try:
    store.read_version(sys.argv[2])
except IncompatibleIndex as error:
    assert "Python objects" in str(error), error
else:
    sys.exit("an array of objects was accepted")
try:
    import pickle
    pickle.loads(pickle.dumps(IncompatibleIndex))
finally:
    sys.exit("the hook does not see pickles")
"""


def test_nothing_is_unpickled_even_from_a_forged_artefact(root: Path, tmp_path: Path) -> None:
    """Under an audit hook that ends the process at any pickle: what ends it must be the test's own, at the end."""
    forged = tmp_path / "forged"
    store.publish(forged, contents(1), {"mark": 1})
    path = forged / "v000001" / "factors.npy"
    np.save(path, np.array([IncompatibleIndex], object), allow_pickle=True)
    data = path.read_bytes()
    manifest = store.Manifest.from_bytes((path.parent / "manifest.json").read_bytes(), path)
    entry = store.FileEntry(size=len(data), sha256=sha256(data).hexdigest(), kind="array", shape=(1,), dtype="|O")
    text = manifest.model_copy(update={"files": manifest.files | {"factors.npy": entry}}).to_bytes()
    (path.parent / "manifest.json").write_bytes(text)
    for seal in (path.parent / "SEAL", forged / "CURRENT"):
        seal.write_text(f"v000001\n{sha256(text).hexdigest()}\n")
    command = [sys.executable, "-c", HOOKED, str(root), str(forged)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr.strip()) == (3, "caught pickle.find_class")


FORBIDDEN_IMPORTS = {"pickle", "cPickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec"}


def test_the_package_neither_pickles_nor_trusts_remote_code() -> None:
    for path in Path(geo_mf.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN_IMPORTS, where
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in FORBIDDEN_IMPORTS, where
            elif isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "trust_remote_code"):
                assert isinstance(node.value, ast.Constant), where
                assert node.value.value is False, where
            elif isinstance(node, ast.Call):
                if isinstance(node.func, ast.Name):
                    assert node.func.id not in FORBIDDEN_CALLS, where
                elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                    assert (node.func.value.id, node.func.attr) != ("torch", "load"), where
                    if (node.func.value.id, node.func.attr) == ("faiss", "read_index"):
                        # From a path it opens whatever file is there; from memory, only what was checked.
                        assert ast.unparse(node.args[0]).startswith("faiss.ZeroCopyIOReader("), where
