"""plan() before fit(): the layout it counts is the layout that is made, and what cannot fit is refused in time."""

import re
import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import geo_mf as gm
from geo_mf.errors import DoesNotFit, InvalidInput
from geo_mf.factorize.histories import TILE_BYTES, Layout, prepare
from geo_mf.factorize.plan import GIB, Problem


def ragged(users: int, items: int, seed: int = 0) -> sparse.csr_array:
    rng = np.random.default_rng(seed)
    chance = rng.random(users)[:, None] ** 3 * rng.random(items)[None] ** 3
    return sparse.csr_array((rng.random((users, items)) < chance).astype(np.float32))


@given(users=st.integers(1, 60), items=st.integers(1, 60), rank=st.sampled_from([1, 8, 64]), weighted=st.booleans())
def test_the_layout_is_that_of_the_padded_histories(users: int, items: int, rank: int, weighted: bool) -> None:
    matrix = ragged(users, items, seed=users)
    matrix.data *= np.where(weighted, np.arange(matrix.nnz) % 3 + 1, 1)
    layout = Layout.of(np.diff(matrix.indptr), np.diff(matrix.tocsc().indptr), rank, TILE_BYTES)
    for side, histories in zip((layout.users, layout.items), prepare(matrix, rank), strict=True):
        assert side.size == histories.size
        assert layout.capacity == histories.capacity
        shapes = [(shape.calls, shape.room, shape.per_tile, shape.width) for _, _, shape in side.edges]
        assert shapes == [bucket.columns.shape for bucket in histories.buckets]


MEASURED = """
import sys, threading, time
import numpy as np
from scipy import sparse
import geo_mf as gm

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

rng = np.random.default_rng(0)
users, items, n = int(sys.argv[2]), 20_000, int(sys.argv[3])
pairs = np.unique(rng.integers(0, users, n) * items + (items * rng.random(n) ** 3).astype(np.int64))
weights = np.ones(len(pairs), np.float32)
if "BiasedMF" in sys.argv[1]:
    weights += np.arange(len(pairs)) % 5
matrix = sparse.csr_array((weights, (pairs // items, pairs % items)), (users, items))
model = eval(sys.argv[1])
plan = model.plan(matrix, timed=False)
predicted, before, peak, done = plan.memory, resident(), 0, threading.Event()

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, resident())

watcher = threading.Thread(target=watch)
watcher.start()
model.fit(matrix)
done.set()
watcher.join()
print(predicted / (peak - before))
"""


@pytest.mark.parametrize(
    ("model", "users", "interactions"),
    [
        ("gm.IALS(16, iterations=2, popularity_discount=0.0, random_state=0)", 60_000, 1_500_000),
        ("gm.IALS(128, iterations=2, popularity_discount=0.5, random_state=0)", 60_000, 1_500_000),
        ("gm.IALS(128, iterations=2, popularity_discount=0.0, random_state=0)", 600_000, 1_500_000),
        ("gm.BiasedMF(16, iterations=2, random_state=0)", 60_000, 300_000),
        ("gm.BiasedMF(64, iterations=2, random_state=0, variational=False)", 300_000, 300_000),
        (
            "gm.GradientMF(64, 'mse', epochs=2, batch_size=32768, negatives=128, patience=0, random_state=0)",
            9000,
            10**6,
        ),
        ("gm.GradientMF(128, epochs=1, batch_size=8192, validate_every=1, random_state=0)", 120_000, 40_000),
    ],
    ids=lambda one: one.replace(", random_state=0", "") if isinstance(one, str) else None,
)
def test_the_memory_foreseen_is_within_thirty_percent_of_what_a_fit_takes(
    model: str, users: int, interactions: int
) -> None:
    command = [sys.executable, "-c", MEASURED, model, str(users), str(interactions)]
    ratio = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 1 / 1.3 < ratio < 1.3


@given(users=st.integers(1, 5000), items=st.integers(1, 5000), density=st.floats(0.0005, 1), features=st.integers(0, 9))
def test_a_typical_problem_has_the_shape_asked_for(users: int, items: int, density: float, features: int) -> None:
    wanted = max(1, int(density * users * items))
    problem = Problem.typical(users, items, wanted, features)
    assert (len(problem.user_lengths), len(problem.item_lengths), problem.features) == (users, items, features)
    for lengths, other in ((problem.user_lengths, items), (problem.item_lengths, users)):
        assert lengths.min() >= 0
        assert lengths.max() <= other
        assert lengths.sum() <= 1.01 * wanted + len(lengths)


@pytest.mark.parametrize("make", [gm.IALS, gm.BiasedMF, gm.GradientMF])
def test_a_shape_alone_is_enough_and_more_of_anything_takes_more(make: Any) -> None:
    def memory(users: int = 10**5, items: int = 10**4, n: int = 10**7, factors: int = 64, features: int = 0) -> int:
        return make(factors).plan((users, items, n), features, timed=False).memory

    least = memory()
    assert memory(users=10**6) > least
    assert memory(items=10**6) > least
    assert memory(n=10**8) > least
    assert memory(factors=512) > least
    assert memory(features=384) > least


@pytest.mark.parametrize("make", [gm.BiasedMF, gm.GradientMF])
def test_a_plan_of_memory_alone(make: type[gm.BiasedMF] | type[gm.GradientMF], checkerboard: sparse.csr_array) -> None:
    plan = make(8).plan(checkerboard, timed=False)
    assert plan.fits and "time" not in str(plan)
    assert sum(plan.parts.values()) == plan.memory
    with pytest.raises(InvalidInput, match=r"expected \(users, items, interactions\)"):
        make(8).plan((5, 5))
    with pytest.raises(InvalidInput, match="features is -1"):
        make(8).plan(checkerboard, -1)
    one = sparse.csr_array(([1.0], ([0], [0])), shape=(4_000_000, 1_000_000))
    with pytest.raises(DoesNotFit, match=r"factors=65536 needs about .* GiB.* are free: factors=\d+ would fit"):
        make(65_536).fit(one)


def test_what_a_fit_keeps_is_what_it_is_told_to_keep() -> None:
    def parts(**settings: Any) -> dict[str, int]:
        return gm.GradientMF(64, **settings).plan((10**5, 10**4, 10**6), timed=False).parts

    tables, bias = 4 * 64 * 11 * 10**4, 4 * 10**4
    assert parts()["tables of factors"] == tables + bias
    assert parts()["optimizer"] == 2 * (tables + bias) + 4  # two moments, and a count of steps
    assert parts(optimizer=optax.sgd(0.1))["optimizer"] == 0
    assert parts(loss="mse")["tables of factors"] == tables
    assert parts()["the best look"] == tables
    assert parts(patience=0)["the best look"] == 0
    exact, spread = (
        gm.BiasedMF(64, variational=v).plan((10**5, 10**4, 10**6), timed=False).memory for v in (False, True)
    )
    assert spread > 1.2 * exact


def test_what_does_not_fit_is_refused_with_advice() -> None:
    plan = gm.IALS(4096).plan((10**8, 10**7, 10**9), timed=False)
    assert not plan.fits
    assert "does not fit" in str(plan)
    with pytest.raises(InvalidInput, match=r"100,000,000 users.*factors=4096 needs about .* GiB.*are free: "):
        plan.check()
    # The fit itself says so before it begins.
    one = sparse.csr_array(([1.0], ([0], [0])), shape=(4_000_000, 1_000_000))
    needed = 2 * 4_000_000 * 4 * 65_536 / GIB  # the users' table, beside the numbers drawn for it
    with pytest.raises(DoesNotFit, match=r"factors=\d+ would fit") as refused:
        gm.IALS(65_536).fit(one)
    told = re.search(r"needs about ([\d.]+) GiB", str(refused.value))
    assert told and float(told[1]) == pytest.approx(needed, rel=0.05)
    hopeless = gm.IALS(1).plan((10**9, 10**9, 10**12), timed=False)
    assert "leave out users or items" in hopeless.advice


@pytest.mark.parametrize(
    "make", [gm.IALS, gm.BiasedMF, partial(gm.GradientMF, loss="mse", epochs=2, batch_size=64, patience=0)], ids=str
)
def test_a_plan_with_time_is_readable_and_leaves_the_fit_as_it_was(make: Any, checkerboard: sparse.csr_array) -> None:
    model = make(8, random_state=0)
    plan = model.plan(checkerboard, 3)
    assert plan.fits
    assert plan.epoch_seconds is not None and 0 < plan.epoch_seconds < 60
    assert plan.compile_seconds is not None and plan.compile_seconds > 0
    assert "s an epoch" in str(plan) and f"{checkerboard.nnz:,} interactions" in str(plan)
    again = make(8, random_state=0).fit(checkerboard)
    assert np.array_equal(model.fit(checkerboard).user_factors, again.user_factors)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((0, 5, 1), "users is 0"),
        ((5, 5, 0), "interactions is 0"),
        ((5, 5, 26), "there are only 25 pairs"),
        ((5, 2.5, 3), "items is 2.5"),
        ((5, 5), "expected \\(users, items, interactions\\)"),
    ],
)
def test_a_shape_that_cannot_be(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        gm.IALS().plan(shape)
