"""One contract, run on the specification and on Faiss."""

import mmap
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_mf.errors import IncompatibleIndex, InvalidInput
from geo_mf.index.exact import ExactIndex, Hits, VectorIndex, valid_vectors
from geo_mf.index.faiss import FaissIndex
from geo_mf.index.living import changed
from geo_mf.index.scan import faiss


def living(vectors: np.ndarray) -> VectorIndex:
    """An index of half of the rows, then with one more, then with the rest and with every third row as it should be."""
    checked, _ = valid_vectors(vectors)
    half, size = len(checked) // 2, len(checked)
    wrong = checked[:half].copy()
    wrong[::3] = 7
    index: VectorIndex = FaissIndex(wrong)
    if half < size:
        index = changed(index, np.array([half]), checked[half : half + 1] + 1, half + 1)
    late = np.union1d(np.arange(0, half, 3), np.arange(half, size))
    return changed(index, late, checked[late], size)


INDEXES = [ExactIndex, FaissIndex, living]
both = pytest.mark.parametrize("make", INDEXES)


def spaced(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Small whole numbers: every inner product is exact in float32, and ties are many."""
    return rng.integers(-3, 4, (n, dim)).astype(np.float32)


@st.composite
def searches(draw: st.DrawFn) -> dict[str, Any]:
    """A small index and one call on it, with every combination of filters and sizes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size, dim, q = draw(st.integers(0, 40)), draw(st.integers(1, 9)), draw(st.integers(0, 12))
    share = draw(st.sampled_from([0.0, 0.03, 0.3, 0.7, 1.0]))
    return {
        "vectors": spaced(rng, size, dim),
        "queries": spaced(rng, q, dim),
        "k": draw(st.integers(1, 50)),
        "allowed": rng.random(size) < share if draw(st.booleans()) else None,
        "exclude": [rng.integers(0, size, rng.integers(0, 2 * size)) if size else [] for _ in range(q)]
        if draw(st.booleans())
        else None,
    }


def remaining(call: dict[str, Any], j: int) -> set[int]:
    """By sets: the rows that query `j` may return."""
    allowed = call["allowed"]
    rows = set(range(len(call["vectors"]))) if allowed is None else set(np.flatnonzero(allowed).tolist())
    return rows if call["exclude"] is None else rows - {int(row) for row in call["exclude"][j]}


@both
@given(call=searches())
def test_the_answer_obeys_its_contract(make: type[Any], call: dict[str, Any]) -> None:
    vectors, queries, k = call["vectors"], call["queries"], call["k"]
    index: VectorIndex = make(vectors)
    hits = index.search(queries, k, allowed=call["allowed"], exclude=call["exclude"])
    assert (hits.rows.dtype, hits.scores.dtype, hits.counts.dtype) == (np.int32, np.float32, np.int32)
    assert hits.rows.shape == hits.scores.shape == (len(queries), k)
    truth = queries @ vectors.T
    for j in range(len(queries)):
        may = remaining(call, j)
        count = min(k, len(may))
        rows, scores = hits.rows[j].tolist(), hits.scores[j]
        assert hits.counts[j] == count
        assert rows[count:] == [-1] * (k - count)
        assert np.isneginf(scores[count:]).all()
        assert len(set(rows[:count])) == count
        assert set(rows[:count]) <= may
        assert scores[:count].tolist() == truth[j, rows[:count]].tolist()
        assert sorted(truth[j, sorted(may)].tolist(), reverse=True)[:count] == scores[:count].tolist()
        assert [(-s, row) for s, row in zip(scores[:count], rows[:count], strict=True)] == sorted(
            (-s, row) for s, row in zip(scores[:count], rows[:count], strict=True)
        )


@given(call=searches())
def test_the_specification_gives_ties_to_the_smallest_rows(call: dict[str, Any]) -> None:
    hits = ExactIndex(call["vectors"]).search(call["queries"], call["k"], call["allowed"], call["exclude"])
    truth = call["queries"] @ call["vectors"].T
    for j in range(len(truth)):
        best = sorted(remaining(call, j), key=lambda row: (-truth[j, row], row))[: call["k"]]
        assert hits.rows[j, : len(best)].tolist() == best


@pytest.mark.parametrize("q", [1, 7, 8, 40])
@pytest.mark.parametrize("share", [None, 0.01, 0.2, 0.9])
@pytest.mark.parametrize("excluded", [None, 5, 1500])
def test_faiss_agrees_with_the_specification_on_real_numbers(q: int, share: float | None, excluded: int | None) -> None:
    """Large enough to take each route through Faiss: plain, selector, gathered copy; asking for more, or one by one."""
    rng = np.random.default_rng(q)
    vectors, queries = rng.standard_normal((3000, 24)), rng.standard_normal((q, 24))
    allowed = None if share is None else rng.random(3000) < share
    exclude = None if excluded is None else [rng.integers(0, 3000, rng.integers(0, excluded)) for _ in range(q)]
    for k in (1, 20, 200):
        want = ExactIndex(vectors).search(queries, k, allowed, exclude)
        got = FaissIndex(vectors).search(queries, k, allowed, exclude)
        assert got.counts.tolist() == want.counts.tolist()
        np.testing.assert_allclose(got.scores, want.scores, rtol=1e-4, atol=1e-5)
        assert (got.rows == want.rows).mean() > 0.99  # neighbours closer than rounding may change places


@both
def test_best_first_by_hand(make: type[Any]) -> None:
    index = make(np.array([[1, 0], [0, 2], [3, 0], [-1, 0]], np.float32))
    hits = index.search(np.array([[1, 0], [0, 1]], np.float32), 3, exclude=[[2], []])
    assert hits.rows.tolist() == [[0, 1, 3], [1, 0, 2]]
    assert hits.scores.tolist() == [[1, 0, -1], [2, 0, 0]]


@both
def test_a_batch_answers_as_single_queries_do(make: type[Any]) -> None:
    rng = np.random.default_rng(3)
    vectors, queries = spaced(rng, 500, 8) + np.arange(500)[:, None] / 512, spaced(rng, 30, 8)
    exclude = [rng.integers(0, 500, 40) for _ in queries]
    allowed = rng.random(500) < 0.4
    index = make(vectors)
    batch = index.search(queries, 12, allowed, exclude)
    for j in range(len(queries)):
        single = index.search(queries[j : j + 1], 12, allowed, exclude[j : j + 1])
        np.testing.assert_allclose(single.scores[0], batch.scores[j], rtol=1e-5, atol=1e-5)


@both
def test_masks_that_allow_nothing_give_empty_lists(make: type[Any]) -> None:
    index = make(np.eye(4, dtype=np.float32))
    for hits in (
        index.search(np.eye(4), 2, allowed=np.zeros(4, bool)),
        index.search(np.eye(4), 2, exclude=[np.arange(4)] * 4),
    ):
        assert hits.rows.tolist() == [[-1, -1]] * 4
        assert hits.counts.tolist() == [0] * 4


@both
def test_the_caller_keeps_what_is_his(make: type[Any]) -> None:
    """Neither the index nor a search changes its input, and changing the input does not change the index."""
    rng = np.random.default_rng(0)
    vectors, queries = spaced(rng, 20, 4), spaced(rng, 3, 4)
    allowed, exclude = rng.random(20) < 0.7, [np.array([3, 1, 3])] * 3
    copies = vectors.copy(), queries.copy(), allowed.copy(), exclude[0].copy()
    index = make(vectors)
    before = index.search(queries, 5, allowed, exclude)
    for value, copy in zip((vectors, queries, allowed, exclude[0]), copies, strict=True):
        assert (value == copy).all()
    vectors[:] = 0
    assert (index.search(queries, 5, allowed, exclude).scores == before.scores).all()


@both
@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros(3, np.float32), r"shape \[3\]; expected \[rows, dim\]"),
        (np.zeros((3, 0), np.float32), "shape"),
        (np.zeros((3, 2), np.int64), "int64; expected float32 or float64"),
        (np.zeros((3, 2), np.float16), "float16"),
        (np.zeros((3, 2), object), "object"),
        (np.array([[1, 2], [3, np.nan]], np.float32), "row 1 holds NaN"),
        (np.array([[1, 2], [-np.inf, 0]], np.float32), "row 1"),
        (np.array([[1e300, 2]]), "row 0"),
        (np.array([[2e38, 2]]), "Scale them down"),
    ],
)
def test_vectors_that_cannot_be_indexed_are_refused(make: type[Any], vectors: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make(vectors)


BAD_CALLS = [
    ({"queries": np.zeros(2)}, r"queries has shape \[2\]"),
    ({"queries": np.zeros((1, 3))}, "queries has 3 columns; this index has 2"),
    ({"queries": np.array([[0, np.nan]])}, "queries row 0 holds NaN"),
    ({"queries": np.array([[0, 1e39]])}, "queries row 0"),
    ({"queries": np.array([[3e37, 3e37]])}, "Scale the queries down"),
    ({"queries": np.zeros((1, 2), int)}, "queries is int64"),
    ({"k": 0}, "k is 0"),
    ({"k": -1}, "k is -1"),
    ({"k": 2.0}, "k is 2.0"),
    ({"k": True}, "k is True"),
    ({"k": "3"}, "k is '3'"),
    ({"allowed": np.ones(3, bool)}, r"allowed is bool \[3\]; expected a bool mask \[5\]"),
    ({"allowed": np.ones(5, int)}, "allowed is int64"),
    ({"allowed": np.ones((5, 1), bool)}, "allowed"),
    ({"exclude": []}, "exclude has 0 entries for 1 queries"),
    ({"exclude": [[5]]}, r"exclude\[0\] holds row 5; this index has rows 0 to 4"),
    ({"exclude": [[-1]]}, "row -1"),
    ({"exclude": [np.array([2**63], np.uint64)]}, "row 9223372036854775808"),
    ({"exclude": [[0.5]]}, r"exclude\[0\] is float64"),
    ({"exclude": [[True]]}, r"exclude\[0\] is bool"),
    ({"exclude": [3]}, r"exclude\[0\]"),
]


@both
@pytest.mark.parametrize(("bad", "message"), BAD_CALLS)
def test_calls_that_cannot_be_answered_are_refused(make: type[Any], bad: dict[str, Any], message: str) -> None:
    index = make(np.full((5, 2), 9, np.float32))
    with pytest.raises(InvalidInput, match=message):
        index.search(**({"queries": np.zeros((1, 2)), "k": 1} | bad))


def test_refusals_hold_when_asserts_are_off() -> None:
    """Faiss guards its memory with `assert`, which `python -O` removes."""
    script = """
import numpy as np
from geo_mf.errors import InvalidInput
from geo_mf.index.faiss import FaissIndex
from geo_mf.index.living import changed
from geo_mf.index.scan import faiss
index, refused = FaissIndex(np.eye(3)), 0
for queries, k, allowed in [(np.eye(4), 1, None), (np.eye(3), 0, None), (np.eye(3), 1, np.ones(2, bool))]:
    try:
        index.search(queries, k, allowed)
    except InvalidInput:
        refused += 1
raise SystemExit(refused)
"""
    assert subprocess.run([sys.executable, "-O", "-W", "ignore", "-c", script], check=False).returncode == 3


@both
@settings(max_examples=200)
@given(
    vectors=st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), min_size=1, max_size=4),
    query=st.lists(st.floats(), min_size=2, max_size=2),
)
def test_any_numbers_give_a_refusal_or_a_finite_answer(
    make: type[Any], vectors: list[list[float]], query: list[float]
) -> None:
    try:
        hits = make(np.array(vectors)).search(np.array([query]), 2)
    except InvalidInput:
        return
    count = min(2, len(vectors))
    assert hits.counts.tolist() == [count]
    assert np.isfinite(hits.scores[0, :count]).all()


def test_other_layouts_and_precisions_are_converted() -> None:
    rng = np.random.default_rng(1)
    vectors = spaced(rng, 30, 6)
    want = FaissIndex(vectors).search(vectors, 5)
    for same in (vectors.astype(np.float64), np.asfortranarray(vectors), np.repeat(vectors, 2, axis=0)[::2]):
        got = FaissIndex(same).search(same, 5)
        assert (got.scores == want.scores).all()


def test_threads_change_the_time_not_the_answer() -> None:
    rng = np.random.default_rng(2)
    vectors, queries = rng.standard_normal((2000, 16)), rng.standard_normal((50, 16))
    before = faiss.omp_get_max_threads()
    one, two = (FaissIndex(vectors, threads=t).search(queries, 10) for t in (1, 2))
    assert (one.rows == two.rows).all()
    np.testing.assert_allclose(one.scores, two.scores, rtol=1e-5, atol=1e-5)
    assert faiss.omp_get_max_threads() == before
    with pytest.raises(InvalidInput, match="threads is 0"):
        FaissIndex(vectors, threads=0)


def test_the_specification_keeps_its_memory_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geo_mf.index.exact.BLOCK_SCORES", 2**16)
    index, queries = ExactIndex(np.ones((2000, 4))), np.ones((4000, 4), np.float32)
    tracemalloc.start()
    index.search(queries, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000  # all scores at once would be 32 MB


def test_hits_order_their_candidates() -> None:
    hits = Hits.best(np.array([[7, 3, 5]]), np.array([[1.0, 1.0, -np.inf]], np.float32), 3)
    assert hits.rows.tolist() == [[3, 7, -1]]
    assert hits.counts.tolist() == [2]


class TestBytes:
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)

    def test_round_trip(self) -> None:
        data = FaissIndex(self.vectors).to_bytes()
        assert data == FaissIndex(self.vectors.copy()).to_bytes()
        for same in (data, memoryview(data)):
            index = FaissIndex.from_bytes(same, size=4, dim=3)
            assert index.to_bytes() == data
            assert index.search(np.ones((1, 3)), 4).rows.tolist() == [[3, 2, 1, 0]]
        empty = FaissIndex(np.empty((0, 3)))
        assert FaissIndex.from_bytes(empty.to_bytes(), size=0, dim=3).search(np.ones((1, 3)), 1).counts.tolist() == [0]

    def test_plain_faiss_reads_it(self) -> None:
        index = faiss.deserialize_index(np.frombuffer(FaissIndex(self.vectors).to_bytes(), np.uint8))
        assert faiss.rev_swig_ptr(index.get_xb(), 12).tolist() == self.vectors.ravel().tolist()

    @pytest.mark.parametrize(("size", "dim"), [(5, 3), (4, 2), (3, 4), (0, 3), (12, 1)])
    def test_another_size_is_refused(self, size: int, dim: int) -> None:
        with pytest.raises(IncompatibleIndex, match="Build it again"):
            FaissIndex.from_bytes(FaissIndex(self.vectors).to_bytes(), size=size, dim=dim)

    @pytest.mark.parametrize("kind", ["IndexFlatL2", "HNSW8", "IVF2,Flat", "SQ8"])
    def test_other_kinds_are_refused(self, kind: str) -> None:
        metric = faiss.METRIC_INNER_PRODUCT
        index = faiss.IndexFlatL2(3) if kind == "IndexFlatL2" else faiss.index_factory(3, kind, metric)
        index.train(self.vectors)
        index.add(self.vectors)
        data = faiss.serialize_index(index).tobytes()
        with pytest.raises(IncompatibleIndex, match="kind"):
            length = len(FaissIndex(self.vectors).to_bytes())  # the length alone must not be what saves us
            FaissIndex.from_bytes(data[:length].ljust(length, b"\0"), size=4, dim=3)

    def test_a_changed_header_or_length_is_refused(self) -> None:
        data = FaissIndex(self.vectors).to_bytes()
        for bad in (b"", data[:10], data[:-1], data + b"\0"):
            with pytest.raises(IncompatibleIndex, match="bytes"):
                FaissIndex.from_bytes(bad, size=4, dim=3)
        for place in (0, 4, 8, 33, 37):  # kind, dim, rows, metric, length
            bad = bytearray(data)
            bad[place] ^= 1
            with pytest.raises(IncompatibleIndex, match="Build it again"):
                FaissIndex.from_bytes(bytes(bad), size=4, dim=3)

    def test_numbers_that_are_not_finite_are_refused(self) -> None:
        data = bytearray(FaissIndex(self.vectors).to_bytes())
        data[-4:] = np.float32(np.nan).tobytes()
        with pytest.raises(IncompatibleIndex, match="row 3 holds NaN"):
            FaissIndex.from_bytes(bytes(data), size=4, dim=3)

    def test_a_mapped_file_is_searched_where_it_lies(self, tmp_path: Path) -> None:
        file = tmp_path / "index.faiss"
        vectors = np.random.default_rng(0).standard_normal((200, 5)).astype(np.float32)
        file.write_bytes(FaissIndex(vectors).to_bytes())
        with file.open("rb") as opened:
            mapped = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        index = FaissIndex.from_bytes(mapped, size=200, dim=5, norm=10.0)
        assert np.may_share_memory(index.vectors, np.frombuffer(mapped, np.uint8))
        for allowed in (None, np.arange(200) % 3 == 0):
            found, want = index.search(vectors, 7, allowed), ExactIndex(vectors).search(vectors, 7, allowed)
            assert (found.rows == want.rows).all()


def test_nothing_hands_out_raw_memory() -> None:
    """Faiss's `reconstruct(-1)` returns memory outside the index."""
    assert {name for name in vars(FaissIndex) if not name.startswith("_")} == {
        "dim",
        "from_bytes",
        "norm",
        "search",
        "size",
        "to_bytes",
    }
