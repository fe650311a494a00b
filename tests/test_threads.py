"""One number of cores for every library that takes some."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import geo_mf as gm
from geo_mf import threads
from geo_mf.index.scan import faiss, openmp_threads

REPORT = """
import os
import geo_mf as gm
{before}
import numpy, torch
import jax, jax.numpy as jnp
from threadpoolctl import threadpool_info
from geo_mf.index.scan import faiss, openmp_threads
{after}
x = jnp.ones((1500, 1500))
(x @ x).block_until_ready()
names = [open(f"/proc/self/task/{{task}}/comm").read().strip() for task in os.listdir("/proc/self/task")]
with openmp_threads(None, 100):
    searching = faiss.omp_get_max_threads()
blas = {{pool["num_threads"] for pool in threadpool_info() if "numpy" in pool["filepath"]}}
encoder = gm.SentenceEncoder()
encoder.encode(["a"])
print(names.count("tf_XLAEigen"), searching, torch.get_num_threads(), *blas)
"""


@pytest.fixture(autouse=True)
def undo():
    yield
    gm.set_threads(None)


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
@pytest.mark.parametrize(
    "before, after, variables",
    [
        pytest.param("", "", {"GEO_MF_THREADS": "1"}, id="variable"),
        pytest.param("gm.set_threads(1)", "gm.set_threads(1)", {}, id="call"),
    ],
)
def test_every_library_keeps_to_the_number(before: str, after: str, variables: dict[str, str]) -> None:
    ours = {name: value for name, value in os.environ.items() if not name.endswith("NUM_THREADS") and name != "NPROC"}
    source = REPORT.format(before=before, after=after)
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", source],
        env=ours | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.split() == ["1", "1", "1", "1"]


def test_the_front_door_loads_no_library_to_tell() -> None:
    source = "import sys, geo_mf as gm; gm.set_threads(1); print({'jax', 'torch', 'faiss', 'numpy'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert told.stdout.strip() == "set()", told.stderr


def test_a_while_ends() -> None:
    gm.set_threads(3)
    with threads.limited(1):
        assert threads.count() == 1
        with openmp_threads(None, 100):
            assert faiss.omp_get_max_threads() == 1
    assert threads.count() == 3
    with threads.limited(0):
        assert threads.count() == 3
    gm.set_threads(None)
    assert threads.count() == threads.available()


def test_a_build_keeps_to_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int | None] = []

    class Listening(gm.HashEncoder):
        def encode(self, texts, *, kind="document", show_progress=False):
            seen.append(threads.chosen())
            return super().encode(texts, kind=kind, show_progress=show_progress)

    interactions = gm.Interactions.from_arrays(["a", "a", "b"], ["x", "y", "y"])
    gm.build(interactions, config=gm.BuildConfig(threads=1, factors=2, cache=False), encoder=Listening(dim=4))
    assert seen[0] == 1 and threads.chosen() != 1 or threads.available() == 1


@pytest.mark.parametrize(
    "quota, cores", [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 3), ("broken", 3), (None, 3)]
)
def test_a_container_s_quota_counts(
    quota: str | None, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(threads, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(threads, "_affinity", lambda: 3)
    monkeypatch.delenv("GEO_MF_THREADS", raising=False)
    assert threads.count() == cores
    assert threads.chosen() == (None if cores == 3 else cores)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "2"])
def test_what_is_not_a_number_of_cores_is_refused(wrong: object) -> None:
    with pytest.raises(gm.InvalidInput, match="expected a whole number of at least 1"):
        gm.set_threads(wrong)  # pyright: ignore[reportArgumentType]


def test_what_was_set_before_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("NPROC", raising=False)
    own = torch.get_num_threads()
    torch.set_num_threads(1)
    with threads.limited(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1
    torch.set_num_threads(own)
    gm.set_threads(3)
    gm.set_threads(None)
    assert "NPROC" not in os.environ
    first, second = threads.limited(1), threads.limited(2)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert threads.count() == 2
    second.__exit__(None, None, None)
    assert threads.count() == threads.available()


def test_a_library_that_was_imported_before_is_told_as_well() -> None:
    source = (
        "import numpy, torch, geo_mf\nfrom threadpoolctl import threadpool_info\n"
        'print(torch.get_num_threads(), *{p["num_threads"] for p in threadpool_info() if "numpy" in p["filepath"]})'
    )
    ours = {name: value for name, value in os.environ.items() if not name.endswith("NUM_THREADS") and name != "NPROC"}
    told = subprocess.run(
        [sys.executable, "-c", source], env=ours | {"GEO_MF_THREADS": "1"}, capture_output=True, text=True, timeout=99
    )
    assert told.stdout.split() == ["1", "1"], told.stderr


@pytest.mark.parametrize("odd", ["0", ""])
def test_nothing_is_no_limit(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEO_MF_THREADS", odd)
    assert threads.count() == threads.available()


@pytest.mark.parametrize("wrong", ["two", "1.5", "-3", "٣"])
def test_a_variable_that_is_not_a_number_of_cores_is_named(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEO_MF_THREADS", wrong)
    with pytest.raises(gm.InvalidInput, match="GEO_MF_THREADS"):
        threads.count()
