"""Lists for everybody: the same as one at a time, whole parts or none, and the same bytes after any number of kills."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from conftest import SIZE, changed
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from typer.testing import CliRunner

import geo_mf as gm
from geo_mf.cli.app import app
from geo_mf.export import best
from geo_mf.export.best import Rows
from geo_mf.factorize.fold_in import FoldIn
from geo_mf.factorize.fold_in_many import FoldInMany
from geo_mf.factorize.ials import Objective


@pytest.fixture(scope="module")
def pool() -> Any:
    with ThreadPoolExecutor(2) as made:
        yield made


@pytest.fixture(scope="module")
def published(recommender: gm.Recommender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("indexes") / "small"
    gm.save(recommender, out)
    return out


def lists(folder: Path) -> dict[Any, list[tuple[Any, float]]]:
    """The lists of a folder; ranks count from 1 and every list stands in one piece."""
    table = pyarrow.dataset.dataset(folder).to_table()
    found: dict[Any, list[tuple[Any, float]]] = {}
    for asked, rank, id, score in zip(*(column.to_pylist() for column in table.columns), strict=True):
        found.setdefault(asked, []).append((id, score))
        assert rank == len(found[asked])
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def assert_same(got: list[tuple[Any, float]], full: gm.Recommendations, k: int) -> None:
    """A list is the beginning of the full one, up to the order of scores that differ by rounding."""
    scores = dict(zip(full.ids, full.scores, strict=True))
    size = 1e-4 * max([1e-3, *map(abs, full.scores)])
    assert len(got) == len({id for id, _ in got}) == min(k, len(full))
    np.testing.assert_allclose([score for _, score in got], full.scores[: len(got)], rtol=1e-4, atol=size)
    np.testing.assert_allclose([score for _, score in got], [scores[id] for id, _ in got], rtol=1e-4, atol=size)


def random_recommender(base: gm.Recommender, seed: int) -> gm.Recommender:
    """Other histories, factors that nobody solved, mute and removed items, and texts that say nothing of behaviour."""
    random, now = np.random.default_rng(seed), base.now
    history = sparse.random_array((SIZE, SIZE + 3), density=0.3, rng=random, format="csr", dtype=np.float32)
    history.data += 0.5
    items = (random.standard_normal(now.item_factors.shape) * random.lognormal(0, 1, (SIZE + 3, 1))).astype(np.float32)
    embeddings = now.embeddings[random.permutation(SIZE + 3)]
    items[random.random(len(items)) < 0.1] = 0
    parts = dict(history=history, item_factors=items, embeddings=embeddings, live=random.random(len(items)) < 0.9)
    made = changed(base, **parts, user_factors=random.standard_normal(now.user_factors.shape).astype(np.float32))
    return changed(made, index=gm.FaissIndex(made.vectors))


# --- the same lists as one at a time ---------------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**31),
    k=st.sampled_from([1, 4, 40]),
    where=st.sampled_from([None, "topic == 1"]),
    exclude_seen=st.booleans(),
)
def test_every_list_is_the_one_that_recommend_gives(
    recommender: gm.Recommender,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    k: int,
    where: str | None,
    exclude_seen: bool,
) -> None:
    rec, out = random_recommender(recommender, seed), tmp_path_factory.mktemp("lists")
    report = gm.recommend_all(rec, out, k=k, where=where, exclude_seen=exclude_seen, part_size=10)
    found, silent = lists(out), 0
    for row, user in enumerate(rec.users.ids.to_pylist()):
        if rec.history.indptr[row] == rec.history.indptr[row + 1]:
            silent += 1  # with no history there is nothing to go by, which `recommend` refuses
            continue
        full = rec.recommend(user, k=40, where=where, exclude_seen=exclude_seen)
        silent += full.reason.startswith("0 of 40: neither")
        assert_same(found.get(user, []), full, k)
    assert (report.asked, report.silent, report.rows) == (SIZE, silent, sum(map(len, found.values())))


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), space=st.sampled_from(["blend", "factors", "text"]), k=st.sampled_from([1, 4, 40]))
def test_every_list_is_the_one_that_similar_items_gives(
    recommender: gm.Recommender, tmp_path_factory: pytest.TempPathFactory, seed: int, space: Any, k: int
) -> None:
    rec, out = random_recommender(recommender, seed), tmp_path_factory.mktemp("lists")
    report = gm.similar_items_all(rec, out, k=k, space=space, where="topic == 0")
    found, alive = lists(out), np.flatnonzero(rec.live)
    full = {
        item: rec.similar_items(item, k=40, space=space, where="topic == 0") for item in rec.catalog.items.take(alive)
    }
    for item, whole in full.items():
        assert_same(found.get(item, []), whole, k)
    silent = sum(whole.reason.startswith("0 of 40: nothing") for whole in full.values())
    assert (report.asked, report.silent, report.rows) == (len(alive), silent, sum(map(len, found.values())))
    assert set(found) <= set(full)


def test_the_fitted_factors_are_not_taken_at_their_word(recommender: gm.Recommender, tmp_path: Path) -> None:
    """What counts is the history, as in `recommend`: with any stored factors the lists are the same."""
    other = changed(recommender, user_factors=recommender.user_factors[::-1] * 3)
    gm.recommend_all(other, tmp_path)
    for user, got in lists(tmp_path).items():
        assert_same(got, recommender.recommend(user, k=40), 10)


def test_removed_items_and_items_seen_are_in_no_list(recommender: gm.Recommender, tmp_path: Path) -> None:
    rec = gm.Recommender(recommender.now)
    rec.remove_items(["i0", "i1", "wet"])
    gm.recommend_all(rec, tmp_path / "users", k=99)
    gm.similar_items_all(rec, tmp_path / "items", k=99)
    users, items = lists(tmp_path / "users"), lists(tmp_path / "items")
    shown = {id for part in (users, items) for each in part.values() for id, _ in each}
    assert len(shown) == SIZE and not shown & {"i0", "i1", "wet"}
    assert not set(items) & {"i0", "i1", "wet"}
    for row, user in enumerate(rec.users.ids.to_pylist()):
        seen = rec.catalog.items.take(rec.history[[row]].indices)
        assert not {id for id, _ in users[user]} & set(seen)
        assert len(users[user]) == SIZE - len(set(seen) - {"i0", "i1", "wet"})


@pytest.mark.parametrize(
    "ids",
    [
        [f"ü {i}" for i in range(SIZE)],
        list(range(2**40, 2**40 + SIZE)),
        [b"\xff" + bytes([i]) for i in range(SIZE)],
        [date(2020, 1, 1 + i) for i in range(SIZE)],
    ],
    ids=["strings", "integers", "binary", "dates"],
)
def test_ids_keep_their_kind(recommender: gm.Recommender, tmp_path: Path, ids: list[Any]) -> None:
    rec = changed(recommender, users=gm.IdMap(ids))
    gm.recommend_all(rec, tmp_path, part_size=7)
    table = pyarrow.dataset.dataset(tmp_path).to_table()
    assert table.schema.names == ["user_id", "rank", "item_id", "score"]
    assert table.schema.types == [rec.users.type, pa.int32(), pa.string(), pa.float32()]
    assert list(dict.fromkeys(table["user_id"].to_pylist())) == ids


def test_some_users_in_the_order_given(recommender: gm.Recommender, tmp_path: Path) -> None:
    report = gm.recommend_all(recommender, tmp_path, users=[110, 101], k=3)
    assert list(lists(tmp_path)) == [110, 101]
    assert (report.rows, report.asked) == (6, 2)


def test_nobody_and_nothing_allowed_give_empty_tables_with_their_columns(
    recommender: gm.Recommender, tmp_path: Path
) -> None:
    nobody = gm.recommend_all(recommender, tmp_path / "a", users=pa.array([], pa.int64()))
    nothing = gm.recommend_all(recommender, tmp_path / "b", where="year > 3000")
    assert (nobody.rows, nobody.asked, nobody.written, nothing.rows, nothing.asked) == (0, 0, 1, 0, SIZE)
    for folder in ("a", "b"):
        table = pyarrow.dataset.dataset(tmp_path / folder).to_table()
        assert table.num_rows == 0 and table.schema.names[0] == "user_id"


def test_other_programs_read_the_folder(recommender: gm.Recommender, tmp_path: Path) -> None:
    duckdb, polars = pytest.importorskip("duckdb"), pytest.importorskip("polars")
    report = gm.recommend_all(recommender, tmp_path / "lists", part_size=9)
    every = str(tmp_path / "lists" / "*.parquet")
    assert polars.read_parquet(every).height == report.rows
    assert duckdb.sql(f"select count(*), max(rank) from '{every}'").fetchall() == [(report.rows, 10)]
    assert pq.read_table(tmp_path / "lists").num_rows == report.rows


# --- killed, refused, out of disk ------------------------------------------------------------------------------------

JOB = """
import sys
import geo_mf as gm
rec = gm.load(sys.argv[1])
rec.vectors
print("begun", flush=True)
print(repr(gm.recommend_all(rec, sys.argv[2], part_size=1)))
"""


def killed_at(index: Path, out: Path, parts: int, delay: float) -> bool:
    """Run the job in a process of its own, and kill it when so many parts are there; whether it was still running."""
    with subprocess.Popen([sys.executable, "-c", JOB, str(index), str(out)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        while process.poll() is None and len(list(out.glob("part-*"))) < parts:
            time.sleep(0.0005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL


def test_a_job_that_is_killed_again_and_again_ends_with_the_same_bytes(published: Path, tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    expected = gm.recommend_all(gm.load(published), whole, part_size=1)
    moments = [(0, 0.0), (1, 0.001), (4, 0.002), (9, 0.0)]
    assert any([killed_at(published, torn, *moment) for moment in moments])
    for file in torn.glob("part-*"):
        assert file.read_bytes() == (whole / file.name).read_bytes()  # whole at any moment
    (torn / ".part-00020.parquet.1.tmp").write_bytes(b"half")
    report = gm.recommend_all(gm.load(published), torn, part_size=1)
    assert content(torn) == content(whole)
    assert (report.rows, report.asked, report.silent) == (expected.rows, expected.asked, expected.silent)
    assert report.written + report.kept == SIZE


def test_a_finished_job_is_left_as_it_is(recommender: gm.Recommender, tmp_path: Path) -> None:
    first = gm.recommend_all(recommender, tmp_path, part_size=10)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    again = gm.recommend_all(recommender, tmp_path, part_size=10)
    assert (again.kept, again.written, again.rows) == (first.written, 0, first.rows) == (3, 0, 10 * SIZE)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before
    assert "3 of them kept" in repr(again) and "\n" not in repr(again)


def test_parts_that_are_lost_damaged_or_of_another_job_are_made_again(
    recommender: gm.Recommender, tmp_path: Path
) -> None:
    out, other = tmp_path / "a", tmp_path / "b"
    gm.recommend_all(recommender, out, part_size=5)
    gm.recommend_all(recommender, other, part_size=5, k=3)
    before = content(out)
    (out / "part-00000.parquet").unlink()
    (out / "part-00001.parquet").write_bytes(before["part-00001.parquet"][:-20])
    (out / "part-00002.parquet").write_bytes((other / "part-00002.parquet").read_bytes())
    (out / "part-00003.parquet").write_bytes(before["part-00004.parquet"])
    assert gm.recommend_all(recommender, out, part_size=5).written == 4
    assert content(out) == before


def test_the_published_index_goes_on_with_a_job_of_the_index_in_memory(
    recommender: gm.Recommender, published: Path, tmp_path: Path
) -> None:
    gm.recommend_all(recommender, tmp_path, part_size=5)
    (tmp_path / "part-00002.parquet").unlink()
    assert gm.recommend_all(gm.load(published), tmp_path, part_size=5).kept == 4


def test_a_folder_of_another_job_is_refused(recommender: gm.Recommender, tmp_path: Path) -> None:
    out = tmp_path / "lists"
    gm.recommend_all(recommender, out, k=5)
    before = content(out)
    living = gm.Recommender(recommender.now)
    living.remove_items(["i3"])
    for call, told in (
        (lambda: gm.recommend_all(recommender, out, k=6), "another k: 5 there, 6 now"),
        (lambda: gm.recommend_all(recommender, out, k=5, where="topic == 1"), "another where: None there, 'topic"),
        (lambda: gm.recommend_all(recommender, out, k=5, exclude_seen=False), "exclude_seen: True there, False now"),
        (lambda: gm.recommend_all(recommender, out, k=5, users=[100]), "another users: 'all' there"),
        (lambda: gm.recommend_all(living, out, k=5), "another state of the index: "),
        (lambda: gm.similar_items_all(recommender, out, k=5), "another exclude_seen|another kind"),
    ):
        with pytest.raises(gm.InvalidInput, match=told) as refused:
            call()
        assert "Give another folder" in str(refused.value)
    assert content(out) == before


def test_folders_that_hold_something_else_are_refused(recommender: gm.Recommender, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(gm.InvalidInput, match="is not empty .it holds mine.txt."):
        gm.recommend_all(recommender, tmp_path)
    with pytest.raises(gm.InvalidInput, match="is a file"):
        gm.recommend_all(recommender, tmp_path / "mine.txt")
    assert content(tmp_path) == {"mine.txt": b"keep me"}
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "_job.json").write_text("[1, 2")
    with pytest.raises(gm.InvalidInput, match="is damaged"):
        gm.recommend_all(recommender, tmp_path / "b")


def test_a_folder_that_another_process_is_writing_is_refused(recommender: gm.Recommender, tmp_path: Path) -> None:
    code = (
        "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDONLY); fcntl.flock(fd, fcntl.LOCK_EX); "
        "print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        with pytest.raises(gm.InvalidInput, match="another process is writing"):
            gm.recommend_all(recommender, tmp_path)
        other.communicate()
    assert gm.recommend_all(recommender, tmp_path).written == 1


def test_a_disk_that_is_full_leaves_whole_parts_and_a_job_to_go_on_with(published: Path, tmp_path: Path) -> None:
    """The limit on the size of a file lets the small first part pass, and stops a later one halfway."""
    rec = gm.load(published)
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    few = [*range(100, 104), *range(104, 124)]
    gm.recommend_all(rec, whole, users=few, part_size=8)
    sizes = [(whole / f"part-{number:05}.parquet").stat().st_size for number in range(3)]
    code = (
        "import resource, sys; import geo_mf as gm; rec = gm.load(sys.argv[1]); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({min(sizes) - 1}, resource.RLIM_INFINITY)); "
        f"gm.recommend_all(rec, sys.argv[2], users={few}, part_size=8)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(published), str(torn)], capture_output=True, text=True)
    assert "File too large" in run.stderr and "part-0000" in run.stderr and "goes on from it" in run.stderr
    assert sorted(content(torn)) == ["_job.json"]
    gm.recommend_all(rec, torn, users=few, part_size=8)
    assert content(torn) == content(whole)


def test_a_folder_that_cannot_be_made_is_an_error_of_the_system(recommender: gm.Recommender, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        gm.recommend_all(recommender, tmp_path / "file" / "lists")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"k": 0}, gm.InvalidInput),
        ({"part_size": 0}, gm.InvalidInput),
        ({"where": "nothing =="}, gm.InvalidInput),
        ({"users": [100, 100]}, gm.InvalidInput),
        ({"users": [5]}, gm.UnknownId),
    ],
)
def test_bad_arguments_write_nothing(
    recommender: gm.Recommender, tmp_path: Path, given: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        gm.recommend_all(recommender, tmp_path / "lists", **given)
    with pytest.raises(gm.InvalidInput, match="space is 'sound'"):
        gm.similar_items_all(recommender, tmp_path / "lists", space="sound")  # pyright: ignore[reportArgumentType]
    assert list(tmp_path.iterdir()) == []


def test_the_number_of_threads_changes_no_byte(published: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import geo_mf as gm; "
        "gm.recommend_all(gm.load(sys.argv[1]), sys.argv[2], part_size=9)"
    )
    subprocess.run([sys.executable, "-c", code, str(published), str(tmp_path / "one")], check=True)
    gm.recommend_all(gm.load(published), tmp_path / "all", part_size=9)
    assert content(tmp_path / "one") == content(tmp_path / "all")


# --- the search ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("k", [1, 7, 60, 2000])
def test_the_best_rows_are_those_of_the_specification(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, spread: float, k: int
) -> None:
    monkeypatch.setattr(best, "TILE", 64)
    monkeypatch.setattr(best, "BLOCK", 16)
    random = np.random.default_rng(k)
    vectors = random.standard_normal((1500, 12)) * random.lognormal(0, spread, (1500, 1))
    vectors[random.random(1500) < 0.05] = 0
    vectors, queries = vectors.astype(np.float32), random.standard_normal((50, 12)).astype(np.float32)
    vectors[:, 5] = 0
    queries[3] = 0
    allowed = random.random(1500) < 0.8
    exact = gm.ExactIndex(vectors)
    liked = exact.search(queries, 100).rows  # what is struck out is what would be found
    lengths = random.integers(0, 101, 50)
    exclude = [np.sort(rows[:n]) for rows, n in zip(liked, lengths, strict=True)]
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    hidden = sparse.csr_array((np.ones(indptr[-1], np.float32), np.concatenate(exclude), indptr), shape=(50, 1500))
    found = Rows.of(vectors, allowed).best(queries, k, hidden, pool)
    expected = exact.search(queries, k, allowed, exclude)
    assert np.array_equal(found.counts, expected.counts)
    assert np.all(found.scores[:, 1:] <= found.scores[:, :-1])
    real = expected.rows >= 0
    norms = np.linalg.norm(vectors, axis=1)
    size = np.linalg.norm(queries, axis=1)[:, None] * np.maximum(norms[found.rows], norms[expected.rows])
    assert np.all(np.abs(found.scores[real] - expected.scores[real]) <= 1e-6 * size[real])
    for rows, line, seen in zip(found.rows, range(50), exclude, strict=True):
        rows = rows[rows >= 0]
        assert len(set(rows)) == len(rows) and allowed[rows].all() and not set(rows) & set(seen)
        again = vectors[rows] @ queries[line]
        assert np.all(np.abs(again - found.scores[line][: len(rows)]) <= 1e-6 * size[line][: len(rows)])


def test_no_tile_that_is_left_out_holds_a_better_row() -> None:
    random = np.random.default_rng(0)
    vectors = (random.standard_normal((9000, 16)) * random.lognormal(0, 1, (9000, 1))).astype(np.float32)
    queries = random.standard_normal((40, 16)).astype(np.float32)
    rows = Rows.of(vectors, np.ones(9000, bool))
    scores = queries @ vectors[rows.order].T
    enough = np.sort(scores, axis=1)[:, -10]
    needs = rows._needs(queries, enough)
    assert needs.min() < len(rows.lengths)  # otherwise nothing would be gained
    for line, need in enumerate(needs):
        assert np.all(scores[line, need * best.TILE :] < enough[line])
    assert np.all(rows._needs(queries, np.full(40, -np.inf)) == len(rows.lengths))


# --- many factors at once --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [1.0, 1e4])
def test_factors_of_many_are_those_of_one_at_a_time(pool: ThreadPoolExecutor, weight: float) -> None:
    random = np.random.default_rng(0)
    items = (random.standard_normal((400, 8)) * random.lognormal(0, 1, (400, 1))).astype(np.float32)
    histories = sparse.random_array((70, 400), density=0.1, rng=random, format="csr", dtype=np.float32)
    histories.data = (weight * (histories.data + 0.5)).astype(np.float32)
    histories = sparse.csr_array(sparse.vstack([histories, sparse.csr_array((2, 400), dtype=np.float32)]))
    one = FoldIn.of(items, Objective(0.01, 0.05, 0.7))
    expected = one.solve_rows(items, histories)
    for start in (np.zeros_like(expected), expected, 100 * random.standard_normal(expected.shape).astype(np.float32)):
        found = FoldInMany.of(one, items).solve(histories, start, pool)
        lengths = np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(found / (lengths + 1e-9), expected / (lengths + 1e-9), atol=3e-5)
        assert not found[-2:].any()


def test_a_factor_that_is_not_finite_is_refused(pool: ThreadPoolExecutor) -> None:
    items, histories = np.zeros((4, 2), np.float32), sparse.csr_array(np.ones((1, 4), np.float32))
    many = FoldInMany.of(FoldIn.of(items, Objective(0.0, 0.0, 0.0)), items)
    with pytest.raises(gm.FitDiverged):
        many.solve(histories, np.zeros((1, 2), np.float32), pool)


# --- the commands ----------------------------------------------------------------------------------------------------


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_commands_write_the_same_folders(published: Path, tmp_path: Path) -> None:
    rec = gm.load(published)
    result = run("recommend", published, "--all", "--out", tmp_path / "a", "-k", 4, "--where", "topic == 1")
    assert result.exit_code == 0 and result.stderr == "" and f"for {SIZE} users" in result.stdout
    gm.recommend_all(rec, tmp_path / "b", k=4, where="topic == 1")
    assert content(tmp_path / "a") == content(tmp_path / "b")
    result = run("similar", published, "--all", "--out", tmp_path / "c", "--space", "text", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0 and (report["kind"], report["asked"]) == ("similar", SIZE + 3)
    gm.similar_items_all(rec, tmp_path / "d", space="text")
    assert content(tmp_path / "c") == content(tmp_path / "d")
    result = run("recommend", published, "--all", "--out", tmp_path / "a", "-k", 5)
    assert result.exit_code == 65 and "another k: 4 there, 5 now" in result.stderr


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("recommend {index} --all", "--out"),
        ("recommend {index} --out x --user 100", "--all"),
        ("recommend {index} --all --out x --user 100", "--all"),
        ("recommend {index} --all --out x --history i1", "--all"),
        ("recommend {index} --all --out x --text boats", "--all"),
        ("recommend {index} --all --out x --trending", "--all"),
        ("recommend {index} --all --out x --weights 1,0", "--all"),
        ("similar {index}", "ITEM"),
        ("similar {index} i1 --all --out x", "--all"),
        ("similar {index} i1 --out x", "--out"),
        ("similar {index} --all", "--out"),
    ],
)
def test_options_that_do_not_go_together(published: Path, line: str, told: str) -> None:
    result = run(*(word.format(index=published) for word in line.split()))
    assert result.exit_code == 2 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 and told in result.stderr
    assert not os.path.exists("x")
