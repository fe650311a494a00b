"""The contract of `VectorIndex`, on every kind of approximate index and on what changed since each was made."""

import gc
import subprocess
import sys
import threading
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_mf.errors import IncompatibleIndex, InvalidInput
from geo_mf.index import approximate, filters
from geo_mf.index.approximate import ApproximateIndex, Effort
from geo_mf.index.exact import ExactIndex, Hits, VectorIndex
from geo_mf.index.lift import Lift
from geo_mf.index.living import changed
from geo_mf.index.scan import faiss

DIM = 9
FEWEST = {  # rows that a kind can be trained on
    "IVF16,SQ8": 16,
    "IVF16,Flat": 16,
    "HNSW16": 1,
    "IVF8,PQ4x4fs": 16,
    "IVF8,RaBitQfs": 8,
    "IVF8,RaBitQ": 8,
    "IVF4_HNSW4,SQ8": 4,
    "IVF4,SQ8,RFlat": 4,
    "PCA4,IVF4,Flat": 8,
    "Flat": 1,
}
SLOW = {"OPQ4_8,IVF8,SQ8": 256}  # trains 256 centroids
KINDS = [*FEWEST, *SLOW]
every_kind = pytest.mark.parametrize("kind", KINDS)


def numbers(shape: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [n, DIM] of one shape or another."""
    normal = rng.standard_normal((n, DIM))
    made = {
        "normal": normal,
        "whole": rng.integers(-2, 3, (n, DIM)),  # ties and duplicates
        "few": normal[rng.integers(0, 1 + n // 8, n)] if n else normal,  # each many times
        "decades": normal * 10.0 ** rng.uniform(-12, 12, (n, 1)),
        "long": normal * 1e30,
        "short": normal * 1e-30,
        "zeros": np.zeros((n, DIM)),
        "half": normal * (rng.random((n, 1)) < 0.5),
        "ones": np.ones((n, DIM)),
    }
    return made[shape].astype(np.float32)


SHAPES = ("normal", "whole", "few", "decades", "long", "short", "zeros", "half", "ones")


def basis_of(reduced: bool) -> np.ndarray | None:
    return np.linalg.qr(np.random.default_rng(5).standard_normal((DIM, 5)))[0].astype(np.float32) if reduced else None


@lru_cache(maxsize=64)
def built(kind: str, shape: str, n: int, reduced: bool) -> ApproximateIndex:
    vectors = numbers(shape, n, np.random.default_rng(n))
    return ApproximateIndex.build(vectors, kind, basis=basis_of(reduced), threads=1)


def small(kind: str = "IVF16,SQ8", n: int = 200) -> ApproximateIndex:
    return built(kind, "normal", n, False)


def lived(index: ApproximateIndex, rng: np.random.Generator) -> tuple[VectorIndex, np.ndarray]:
    """Some rows change, some come, and some change again; the index, and all vectors as they are now."""
    vectors = index.vectors.copy()
    now: VectorIndex = index
    for more in (0, 3, 2):
        size = len(vectors)
        rows = np.union1d(rng.permutation(size)[: rng.integers(0, 6)], np.arange(size, size + more))
        vectors = np.concatenate([vectors, np.zeros((more, DIM), np.float32)])
        vectors[rows] = numbers("normal", len(rows), rng) * np.float32(max(index.norm, 1e-30))
        now = changed(now, rows, vectors[rows], len(vectors))
    return now, vectors


@st.composite
def searches(draw: st.DrawFn, size: int, norm: float) -> dict[str, Any]:
    """A call, with every combination of filters."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    q = draw(st.sampled_from([0, 1, 2, 9, 40]))
    queries = numbers(draw(st.sampled_from(["normal", "whole", "zeros", "decades"])), q, rng)
    if norm > 1e20:
        queries /= np.float32(1e12)
    share = draw(st.sampled_from([None, 0.0, 0.01, 0.06, 0.3, 0.7, 0.97, 1.0]))
    most = draw(st.sampled_from([None, 1, 10, 2 * size]))
    return {
        "queries": queries,
        "k": draw(st.sampled_from([1, 2, 10, max(1, size - 1), size, size + 7])),
        "allowed": None if share is None else rng.random(size) < share,
        "exclude": None if most is None else [rng.integers(0, size, rng.integers(0, most + 1)) for _ in range(q)],
    }


def check(hits: Hits, vectors: np.ndarray, call: dict[str, Any]) -> None:
    """The contract, but for which rows are best."""
    queries, k, allowed, exclude = call["queries"], call["k"], call["allowed"], call["exclude"]
    truth = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    bound = np.linalg.norm(queries.astype(np.float64), axis=1)[:, None] * np.linalg.norm(
        vectors.astype(np.float64), axis=1
    )
    assert (hits.rows.dtype, hits.scores.dtype) == (np.int32, np.float32)
    assert hits.rows.shape == hits.scores.shape == (len(queries), k)
    for j in range(len(queries)):
        may = np.ones(len(vectors), bool) if allowed is None else allowed.copy()
        if exclude is not None:
            may[exclude[j]] = False
        count = min(k, int(may.sum()))
        rows, scores = hits.rows[j], hits.scores[j]
        assert (rows[:count] >= 0).all()
        assert (rows[count:] == -1).all()
        assert np.isneginf(scores[count:]).all()
        rows, scores = rows[:count], scores[:count]
        assert len(np.unique(rows)) == count
        assert may[rows].all()
        assert (np.abs(scores - truth[j, rows]) <= 1e-5 * bound[j, rows] + 1e-37).all()
        assert (np.lexsort((rows, -scores)) == np.arange(count)).all()


@every_kind
@pytest.mark.parametrize("reduced", [False, True])
@settings(max_examples=30)
@given(data=st.data())
def test_every_kind_obeys_the_contract(kind: str, reduced: bool, data: st.DataObject) -> None:
    fewest = (FEWEST | SLOW)[kind]
    shapes = st.sampled_from(SHAPES if kind in FEWEST else ("normal",))
    sizes = st.sampled_from([fewest, fewest + 1, 40, 400] if kind in FEWEST else [300])
    index = built(kind, data.draw(shapes), max(fewest, data.draw(sizes)), reduced)
    effort = Effort(
        data.draw(st.sampled_from([1, 4, 1000])),
        data.draw(st.sampled_from([1.0, 1.5, 4.0])),
        data.draw(st.sampled_from([0.0, 0.05, 1.0])),
    )
    index = index.with_effort(effort)
    call = data.draw(searches(index.size, index.norm))
    check(index.search(**call), index.vectors, call)
    living, vectors = lived(index, np.random.default_rng(data.draw(st.integers(0, 99))))
    call = data.draw(searches(len(vectors), index.norm))
    check(living.search(**call), vectors, call)


@pytest.mark.parametrize("kind", ["IVF16,SQ8", "HNSW16", "IVF8,PQ4x4fs", "IVF8,RaBitQfs"])
def test_exclusions_longer_than_are_asked_for_together(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short lists go in a batch that asks for more; long ones go one by one, through a mask; all in small blocks."""
    index = small(kind, 400).with_effort(Effort(2, 1.0, 0.0))
    rng = np.random.default_rng(0)
    lists = [rng.integers(0, 400, n) for n in (0, 3, 9, 10, 11, 40, 200, 3000)] + [np.arange(400), np.arange(399)]
    call = {"queries": numbers("normal", len(lists), rng), "k": 20, "allowed": rng.random(400) < 0.8, "exclude": lists}
    monkeypatch.setattr(filters, "OVERFETCH", 10)
    monkeypatch.setattr(filters, "BLOCK_CANDIDATES", 64)
    check(index.search(**call), index.vectors, call)


@pytest.mark.parametrize("kind", ["IVF16,Flat", "IVF16,SQ8", "Flat"])
@settings(max_examples=60)
@given(data=st.data())
def test_all_cells_and_enough_candidates_are_exact(kind: str, data: st.DataObject) -> None:
    index = built(kind, data.draw(st.sampled_from(SHAPES)), data.draw(st.sampled_from([16, 60, 400])), False)
    oversample = 400.0 if kind == "IVF16,SQ8" else 4.0
    call = data.draw(searches(index.size, index.norm))
    got = index.with_effort(Effort(16, oversample, 0.0)).search(**call)
    want = ExactIndex(index.vectors).search(**call)
    assert (got.counts == want.counts).all()
    slack = 1e-5 * index.norm * np.linalg.norm(call["queries"].astype(np.float64), axis=1)[:, None] + 1e-37
    got_scores, want_scores = (np.where(hits.rows < 0, 0, hits.scores) for hits in (got, want))
    assert (np.abs(got_scores - want_scores) <= slack).all()


@every_kind
def test_a_useful_share_of_the_best_is_found(kind: str) -> None:
    """And about as many, however long the rows and the queries are."""
    rng = np.random.default_rng(1)
    vectors, queries = numbers("normal", 400, rng), numbers("normal", 40, rng)
    want = ExactIndex(vectors).search(queries, 10).rows
    for scale, asked in [(1, 1), (1e-25, 1), (1e-25, 1e25), (1e25, 1), (1, 1e-25), (1, 1e25)]:
        if kind in SLOW and scale != 1:
            continue
        rows = (vectors * scale).astype(np.float32)
        index = ApproximateIndex.build(rows, kind, effort=Effort(16, 4.0, 0.0), threads=1)
        got = index.search((queries * asked).astype(np.float32), 10).rows
        recall = np.mean([len(np.intersect1d(g, w)) / 10 for g, w in zip(got, want, strict=True)])
        assert recall > (0.5 if "PCA4" in kind or "OPQ" in kind else 0.8), (scale, asked)


@pytest.mark.parametrize(
    "effort",
    [
        (0, 4.0, 0.05),
        (-3, 4.0, 0.05),
        (8, 0.9, 0.05),
        (8, np.nan, 0.0),
        (8, np.inf, 0.0),
        (8, 1.0, -0.1),
        (8, 1.0, 2.0),
    ],
)
def test_efforts_that_mean_nothing_are_refused(effort: tuple[int, float, float]) -> None:
    with pytest.raises(InvalidInput, match="at least one probe"):
        Effort(*effort)


def test_where_a_filter_allows_few_rows_all_are_scored() -> None:
    index = small(n=400).with_effort(Effort(1, 1.0, 0.25))
    rng = np.random.default_rng(3)
    queries, allowed = numbers("normal", 30, rng), rng.permutation(400) < 100
    got, want = index.search(queries, 40, allowed), ExactIndex(index.vectors).search(queries, 40, allowed)
    assert (got.rows == want.rows).mean() > 0.99
    allowed[np.flatnonzero(~allowed)[0]] = True  # one more than the share
    assert (index.search(queries, 40, allowed).rows != want.rows).any()


def test_cells_are_told_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A query that visits so many cells finds exactly the rows that are told to lie in them."""
    monkeypatch.setattr(ApproximateIndex, "_completed", lambda self, hits, ask: hits)
    index = small("IVF16,Flat", 400)
    queries = numbers("normal", 20, np.random.default_rng(8))
    best = ExactIndex(index.vectors).search(queries, 10).rows
    places = index.cell_places(queries, best)
    assert places is not None
    for probes in (1, 3, 16):
        found = index.with_effort(Effort(probes, 1000.0, 0.0)).search(queries, 10).rows
        want = [np.isin(b, f) for b, f in zip(best, found, strict=True)]
        assert ((places < probes) == want).all()
    assert small("HNSW16").cell_places(queries, best[:, :3]) is None
    assert small("HNSW16").cells == 0


@pytest.mark.parametrize("scale", [1, 1e-30, 1e30])
def test_an_index_follows_rows_that_move_a_little(scale: float) -> None:
    """Scores are those of the rows as they are now; rows that went far are told, at any scale."""
    rng = np.random.default_rng(4)
    old = (numbers("normal", 300, rng) * scale).astype(np.float32)
    old[7] = 0
    index = ApproximateIndex.build(old, "IVF16,SQ8", effort=Effort(16, 4.0, 0.0), threads=1)
    new = (old * 1.005).astype(np.float32)
    new[[3, 7, 299]] = (numbers("normal", 3, rng) * scale).astype(np.float32)
    following, far = index.following(new)
    assert far.tolist() == [3, 7, 299]
    call = {"queries": numbers("normal", 9, rng), "k": 10, "allowed": None, "exclude": None}
    check(following.search(**call), new, call)
    check(index.search(**call), old, call)
    same, none = index.following(old)
    assert (none.size, same.size) == (0, 300)
    with pytest.raises(InvalidInput):
        index.following(np.full((300, DIM), np.nan, np.float32))


@every_kind
@pytest.mark.parametrize("reduced", [False, True])
@settings(max_examples=20)
@given(data=st.data())
def test_cells_absorb_rows_that_were_written(kind: str, reduced: bool, data: st.DataObject) -> None:
    """The contract holds with no segment beside, each row stands in its cell once, and what was there before stays."""
    shape = data.draw(st.sampled_from(["normal", "whole", "few", "half", "short"]))
    before = built(kind, shape, max(60, (FEWEST | SLOW)[kind]), reduced)
    index = opened(before) if data.draw(st.booleans()) else before
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    bytes_before, size = before.to_bytes(), before.size
    more = int(rng.integers(0, 9))
    rows = np.union1d(rng.permutation(size)[: rng.integers(0, size + 1)], np.arange(size, size + more))
    vectors = np.concatenate([index.vectors, np.zeros((more, DIM), np.float32)])
    vectors[rows] = numbers("normal", len(rows), rng) * np.float32(max(index.norm, 1e-30))
    now = index.absorbing(vectors, rows)
    assert index.to_bytes() == bytes_before
    if now is None:
        assert index.cells == 0 or kind.endswith("RFlat")
        return
    ids = faiss.try_extract_index_ivf(now.faiss_index).invlists
    held = [faiss.rev_swig_ptr(ids.get_ids(at), ids.list_size(at)) for at in range(ids.nlist) if ids.list_size(at)]
    assert sorted(np.concatenate(held).tolist()) == list(range(size + more))
    call = data.draw(searches(now.size, now.norm))
    check(now.search(**call), vectors, call)
    if kind == "IVF16,Flat":
        want = ExactIndex(vectors).search(**call)
        got = now.with_effort(Effort(16, 40.0, 0.0)).search(**call)
        assert (got.counts == want.counts).all()
        bound = 1e-5 * now.norm * np.linalg.norm(call["queries"].astype(np.float64), axis=1)[:, None] + 1e-37
        got_scores, want_scores = (np.where(hits.rows < 0, 0, hits.scores) for hits in (got, want))
        assert (np.abs(got_scores - want_scores) <= bound).all()


def opened(index: ApproximateIndex) -> ApproximateIndex:
    """As it comes from a file: nothing of it may be written to."""
    data = index.to_bytes()
    return ApproximateIndex.from_bytes(data, index.vectors, index.lift, index.effort, norm=index.norm, threads=1)


class TestBuilding:
    @pytest.mark.parametrize(
        "factory",
        ["nonsense", "", "IVF16", "IVF16,", "IVF-1,Flat", "IVF99999999999,Flat", "SQ3", "LSH", "PQ4x4fs", "PQ4x4"]
        + ["NSG16", "IVF8,PQ5x4fs", "IVF8,LSQ2x4", "IDMap,Flat", "PCA100,Flat", "IVF8,PQ4x12", "IVF401,Flat"],
    )
    def test_what_cannot_be_made_is_refused(self, factory: str, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(InvalidInput, match=r"of 400 rows .*or name another factory string") as caught:
            ApproximateIndex.build(small(n=400).vectors, factory)
        assert "/project/" not in str(caught.value)
        assert capfd.readouterr() == ("", "")

    def test_what_would_end_the_process_is_refused(self) -> None:
        """In a process of its own, for these were seen to abort it, to divide by zero, and never to end."""
        factories = [
            "HNSW0",
            "HNSW1",
            "IVF0,SQ8",
            "IVF4_HNSW0,SQ8",
            "IVF4_HNSW1,Flat",
            "IVF4(IVF0,SQ8),Flat",
            "PCA0,Flat",
        ]
        factories += [
            "RR0,Flat",
            "IVF4,PQ4x0",
            "IVF4,PQ4x4fs_0",
            "IVF4,FlatPanorama0",
            "NSG0",
            "IVF4,SQ8,Refine(IVF2,Flat)",
        ]
        script = f"""
import numpy as np
from geo_mf.errors import InvalidInput
from geo_mf.index.approximate import ApproximateIndex
vectors, refused = np.random.default_rng(0).standard_normal((300, 9)), 0
for factory in {factories}:
    try:
        ApproximateIndex.build(vectors, factory)
    except InvalidInput:
        refused += 1
raise SystemExit(refused)
"""
        ended = subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=False, timeout=60)
        assert ended.returncode == len(factories)

    @every_kind
    def test_few_rows_make_an_index_or_a_refusal(self, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
        fewest = (FEWEST | SLOW)[kind]
        for n in (0, 1, 2, 3, fewest - 1, fewest):
            vectors = numbers("normal", n, np.random.default_rng(n))
            try:
                index = ApproximateIndex.build(vectors, kind, threads=1)
            except InvalidInput as error:
                assert n < fewest, error
                continue
            assert index.search(numbers("normal", 2, np.random.default_rng(0)), 5).counts.tolist() == [min(5, n)] * 2
        told = capfd.readouterr()
        assert told.err == "" or "OPQ" in kind or "PCA" in kind  # these train within themselves, and say so

    @every_kind
    def test_the_same_seed_gives_the_same_bytes(self, kind: str) -> None:
        vectors = small(n=400).vectors[:300]
        first, same = (ApproximateIndex.build(vectors, kind, seed=3, threads=1).to_bytes() for _ in range(2))
        assert first == same
        if kind.startswith("IVF16"):
            assert first != ApproximateIndex.build(vectors, kind, seed=4, threads=1).to_bytes()

    def test_vectors_that_cannot_be_indexed_are_refused(self) -> None:
        for bad in (np.zeros(3), np.array([[np.nan, 1.0]]), np.zeros((3, 2), int), np.array([[2e38, 0]])):
            with pytest.raises(InvalidInput):
                ApproximateIndex.build(bad, "Flat")
        with pytest.raises(InvalidInput, match="threads is 0"):
            ApproximateIndex.build(np.eye(3), "Flat", threads=0)

    def test_calls_that_cannot_be_answered_are_refused(self) -> None:
        index = small()
        good: dict[str, Any] = {"queries": np.zeros((1, DIM), np.float32), "k": 1}
        calls: list[dict[str, Any]] = [
            {"k": 0},
            {"queries": np.zeros((1, 3))},
            {"queries": np.full((1, DIM), np.nan)},
            {"allowed": np.ones(3, bool)},
            {"exclude": [[200]]},
            {"exclude": [[-1]]},
            {"exclude": []},
        ]
        for bad in calls:
            with pytest.raises(InvalidInput):
                index.search(**(good | bad))


class TestBytes:
    @every_kind
    @pytest.mark.parametrize("reduced", [False, True])
    def test_what_was_read_answers_as_what_was_written(self, kind: str, reduced: bool) -> None:
        index = built(kind, "normal", 300, reduced)
        data = index.to_bytes()
        limits = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
        rng = np.random.default_rng(0)
        queries, allowed = numbers("normal", 20, rng), rng.random(300) < 0.5
        want = index.search(queries, 10), index.search(queries, 10, allowed, [[3, 4]] * 20)
        for same in (data, memoryview(bytearray(data))):
            read = ApproximateIndex.from_bytes(
                same, index.vectors, index.lift, index.effort, norm=index.norm, threads=1
            )
            del same
            gc.collect()
            junk = [bytes(len(data)) for _ in range(20)]  # falls where freed memory was
            got = read.search(queries, 10), read.search(queries, 10, allowed, [[3, 4]] * 20)
            for g, w in zip(got, want, strict=True):
                assert (g.rows == w.rows).all()
                assert (g.scores == w.scores).all()
            assert read.to_bytes() == data
            assert (read.cells, len(junk)) == (index.cells, 20)
        assert limits == (faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit())

    def test_the_codes_are_not_copied(self) -> None:
        """A byte changed behind its back changes what is found: they are read where they lie."""
        index = small("IVF16,Flat", 400).with_effort(Effort(16, 1.0, 0.0))
        data = bytearray(index.to_bytes())
        read = ApproximateIndex.from_bytes(memoryview(data), index.vectors, index.lift, index.effort, norm=index.norm)
        queries = numbers("normal", 9, np.random.default_rng(0))
        before = read.search(queries, 40).rows
        data[1000:] = bytes(len(data) - 1000)
        assert (read.search(queries, 40).rows != before).any()

    def test_the_tables_of_codes_may_be_larger_than_the_file(self) -> None:
        """Faiss computes them while it reads, and refuses what it wrote itself where they exceed its limit."""
        index = small("IVF40,PQ1", 300)
        assert len(index.to_bytes()) < 4 * 256 * 40
        read = ApproximateIndex.from_bytes(index.to_bytes(), index.vectors, index.lift, index.effort, norm=index.norm)
        queries = numbers("normal", 20, np.random.default_rng(0))
        assert (read.search(queries, 10).rows == index.search(queries, 10).rows).all()

    def test_another_index_is_refused(self) -> None:
        index = small("IVF16,Flat", 200)
        data = index.to_bytes()

        def read(data: bytes, vectors: np.ndarray = index.vectors, lift: Lift = index.lift) -> ApproximateIndex:
            return ApproximateIndex.from_bytes(data, vectors, lift, index.effort, norm=index.norm)

        limits = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
        with pytest.raises(IncompatibleIndex, match="200 rows with 16 columns.*expected 199 rows"):
            read(data, index.vectors[:199])
        with pytest.raises(IncompatibleIndex, match="with 16 columns.*expected 200 rows with 8 columns"):
            read(data, lift=Lift(basis_of(True), 1.0))
        inner = faiss.index_factory(16, "IVF16,Flat", faiss.METRIC_INNER_PRODUCT)
        inner.train(index.lift.rows(index.vectors))
        inner.add(index.lift.rows(index.vectors))
        with pytest.raises(IncompatibleIndex, match="metric 0.*metric 1"):
            read(faiss.serialize_index(inner).tobytes())
        binary = faiss.IndexBinaryFlat(16)
        for bad in (b"", b"IxF2", bytes(1000), b"\xff" * 1000, faiss.serialize_index_binary(binary).tobytes()):
            with pytest.raises(IncompatibleIndex, match="cannot read"):
                read(bad)
        assert limits == (faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit())

    def test_damage_is_refused_or_survived(self) -> None:
        """In a process of its own: cut short, bits turned, eight bytes at once. Rows are never outside the vectors.

        Kinds of "fast scan" are only cut short: one flip in a thousand was seen to crash their search. So what is read
        has to be checked by its hash first, as `from_bytes` says.
        """
        script = f"""
import numpy as np
from geo_mf.errors import IncompatibleIndex
from geo_mf.index.approximate import ApproximateIndex, Effort
rng = np.random.default_rng(0)
vectors, queries = (rng.standard_normal((n, 12)).astype(np.float32) for n in (300, 4))
allowed = rng.random(300) < 0.5
for kind in {[*KINDS]}:
    index = ApproximateIndex.build(vectors, kind, effort=Effort(4, 4.0, 0.0), threads=1)
    data, refused = index.to_bytes(), 0
    for turn in range(60):
        bad = bytearray(data)
        at = int(rng.integers(0, min(200, len(bad)) if turn % 4 == 1 else len(bad) - 8))
        if turn % 4 == 0 or kind.endswith("fs"):
            del bad[at:]
        elif turn % 4 == 3:
            bad[at : at + 8] = rng.bytes(8)
        else:
            bad[at] ^= 1 << int(rng.integers(0, 8))
        try:
            read = ApproximateIndex.from_bytes(bad, vectors, index.lift, index.effort, norm=index.norm, threads=1)
            for mask in (None, allowed):
                hits = read.search(queries, 10, mask)
                assert hits.counts.tolist() == [10] * 4, (kind, turn)
                assert hits.rows.max() < 300
                assert mask is None or mask[hits.rows].all()
        except IncompatibleIndex:
            refused += 1
    assert refused >= 15, kind
print("survived")
"""
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script], check=False, capture_output=True, text=True, timeout=120
        )
        assert ended.stdout.strip() == "survived", (ended.returncode, ended.stderr[-2000:])


@pytest.mark.parametrize("kind", ["IVF16,SQ8", "HNSW16", "IVF8,PQ4x4fs", "IVF8,RaBitQfs", "IVF4_HNSW4,SQ8"])
@pytest.mark.parametrize("threads", [None, 1])
def test_threads_that_search_at_once_do_not_disturb_each_other(kind: str, threads: int | None) -> None:
    vectors = numbers("normal", 400, np.random.default_rng(2))
    index = ApproximateIndex.build(vectors, kind, effort=Effort(4, 2.0, 0.0), threads=threads)
    calls: list[tuple[np.ndarray, int, np.ndarray, list[np.ndarray]]] = []
    for number in range(4):
        rng = np.random.default_rng(number)
        exclude = [rng.integers(0, 400, 20) for _ in range(12)]
        calls.append((numbers("normal", 12, rng), 5 + number, rng.random(400) < 0.2 + 0.2 * number, exclude))
    alone = [index.search(*call) for call in calls]
    before = faiss.omp_get_max_threads()
    seen: list[list[Hits]] = [[] for _ in calls]
    start = threading.Barrier(len(calls))

    def ask(number: int) -> None:
        start.wait()
        seen[number] = [index.search(*calls[number]) for _ in range(15)]

    workers = [threading.Thread(target=ask, args=(number,)) for number in range(len(calls))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for want, answers in zip(alone, seen, strict=True):
        assert len(answers) == 15
        for got in answers:
            assert (got.rows == want.rows).all()
            assert (got.scores == want.scores).all()
    assert faiss.omp_get_max_threads() == before


def test_a_thread_count_is_of_its_own_thread() -> None:
    """OpenMP keeps it for each thread that asks, so that setting it during a search is seen by no other."""
    faiss.omp_set_num_threads(before := faiss.omp_get_max_threads())
    other = threading.Thread(target=faiss.omp_set_num_threads, args=(before + 3,))
    other.start()
    other.join()
    assert faiss.omp_get_max_threads() == before


def test_absorbing_waits_for_a_reader_and_refuses_fewer_rows() -> None:
    """While another thread reads a file, Faiss's limits are those of that file."""
    index = small()
    done: list[Any] = []
    with approximate._deserialization, approximate._limited(1):
        other = threading.Thread(target=lambda: done.append(index.absorbing(index.vectors, np.zeros(0, np.int64))))
        other.start()
        other.join(0.2)
        assert not done
    other.join(10)
    assert done[0].size == index.size
    with pytest.raises(InvalidInput, match="there are 100 vectors for an index of 200 rows"):
        index.absorbing(index.vectors[:100], np.zeros(0, np.int64))


def test_lapack_is_not_asked_for_a_matrix_of_nothing() -> None:
    """It would complain to standard output, past Python, when the process ends."""
    source = (
        "import numpy as np\nfrom geo_mf.errors import InvalidInput\n"
        "from geo_mf.index.approximate import ApproximateIndex\n"
        "try: ApproximateIndex.build(np.zeros((0, 9), np.float32), 'PCA4,Flat')\n"
        "except InvalidInput as error: print(str(error)[:20])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", source], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("Faiss cannot make a \n", "")
