"""A process that publishes artefacts on demand, so that tests can kill it, starve it and run it beside another.

It forks one child for each command (one JSON line on stdin), and the child waits for "go": a test can attach strace,
or start two publishers at the same moment. With `kill_after` (seconds) the child is killed that long after "go". The
parent imports no library that starts threads, so forking is safe.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from geo_mf import errors, store
from geo_mf.store import writing

WRITE_AT_ONCE = 512  # several write calls for each file, so that a kill can fall between them


def contents(mark: int, blob_size: int = 900) -> dict[str, Any]:
    """Three files that all tell the same mark."""
    return {
        "factors": np.full((16, 8), mark, np.float32),
        "catalog": pa.table({"mark": [mark] * 5, "title": [f"title {mark}"] * 5}),
        "index": mark.to_bytes(4, "little") * (blob_size // 4),
    }


def mark_of(root: Path) -> int | None:
    """The mark of the current version, each file hashed; None if there is no index. Mixed marks raise."""
    try:
        manifest, held = store.read_version(root, check="full")
    except FileNotFoundError:
        return None
    marks = {
        int(manifest.meta["mark"]),  # pyright: ignore[reportArgumentType]
        *held.array("factors").astype(int).ravel().tolist(),
        *held.table("catalog")["mark"].to_pylist(),
        int.from_bytes(held.blob("index")[-4:], "little"),
    }
    (mark,) = marks
    return mark


def temporaries(root: Path) -> list[str]:
    return sorted(name for name in os.listdir(root) if name.startswith(".tmp-")) if root.is_dir() else []


class Publisher:
    """The test's side: `start` a command, `go`, then `result`. `prefix` goes before the command line of the process."""

    def __init__(self, prefix: Sequence[str] = (), quiet: bool = False) -> None:
        command, errors = [*prefix, sys.executable, __file__], subprocess.DEVNULL if quiet else None
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )

    def __enter__(self) -> "Publisher":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def start(self, **command: Any) -> int:
        """Fork a child for this command; return its process id. It waits for `go`."""
        self._send(json.dumps(command))
        return self._receive()["pid"]

    def go(self) -> None:
        self._send("go")

    def result(self) -> dict[str, Any]:
        """What the child reported ({} if it was killed before), and its exit status as "status"."""
        report = {}
        while "status" not in report:
            report |= self._receive()
        return report

    def run(self, **command: Any) -> dict[str, Any]:
        self.start(**command)
        self.go()
        return self.result()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the publisher has ended")
        return json.loads(line)


# --- the process's side ------------------------------------------------------------------------------------------


def _say(**values: Any) -> None:
    os.write(1, (json.dumps(values) + "\n").encode())


def _publish(
    root: str, mark: int, rounds: int = 1, blob_size: int = 900, file_limit: int | None = None
) -> dict[str, Any]:
    """Publish `rounds` versions with rising marks, pruning in between; with a limit on the size of a file."""
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))  # Python ignores SIGXFSZ
    held = [contents(mark + i, blob_size) for i in range(rounds)]
    version = ""
    for i, value in enumerate(held):
        version = store.publish(Path(root), value, {"mark": mark + i})
        if rounds > 1:
            store.prune(Path(root), keep=1)
    return {"version": version}


def _fill(path: str, free: int) -> dict[str, Any]:
    """Fill the disk with one file until `free` bytes are left."""
    Path(path).unlink(missing_ok=True)
    disk = os.statvfs(Path(path).parent)
    with open(path, "wb") as file:
        file.write(bytes(disk.f_bavail * disk.f_frsize - free))
    return {}


def _state(root: str) -> dict[str, Any]:
    return {"mark": mark_of(Path(root)), "temporaries": temporaries(Path(root))}


def _prune(root: str) -> dict[str, Any]:
    return {"pruned": store.prune(root, keep=1)}


COMMANDS = {"publish": _publish, "prune": _prune, "fill": _fill, "state": _state}


def _child(gate: int, do: str, **arguments: Any) -> None:
    _say(pid=os.getpid())
    os.read(gate, 1)
    try:
        report = COMMANDS[do](**arguments)
    except (OSError, errors.GeoMFError) as error:
        report = {"error": type(error).__name__, "errno": getattr(error, "errno", None), "message": str(error)}
    _say(**report)


def _fork(gate: int, command: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        # Let strace attach where the kernel's Yama module allows only ancestors to trace (PR_SET_PTRACER, any).
        ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(2**64 - 1), 0, 0, 0)
        _child(gate, **command)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _serve() -> None:
    writing.WRITE_AT_ONCE = WRITE_AT_ONCE
    with tempfile.TemporaryDirectory() as folder:
        store.publish(Path(folder) / "warm", contents(0), {"mark": 0})  # imports what a child would import
        mark_of(Path(folder) / "warm")
    for line in sys.stdin:
        command = json.loads(line)
        moment = command.pop("kill_after", None)
        gate, opener = os.pipe()
        pid = _fork(gate, command)
        if sys.stdin.readline() != "go\n":  # a test that failed halfway: end, rather than let the next one wait
            os.kill(pid, signal.SIGKILL)
            return
        os.write(opener, b"!")
        if moment is not None:
            time.sleep(moment)
            os.kill(pid, signal.SIGKILL)  # not yet waited for, so the id is still the child's
        _say(status=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os.close(gate)
        os.close(opener)


if __name__ == "__main__":
    _serve()
