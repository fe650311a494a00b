"""Lists for everybody, in Parquet: the job that runs at night.

A job is cut into parts, each of which depends on the index and the settings alone. So a job that was killed goes on
with the parts that are missing, and ends with the bytes that it would have ended with.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse
from tqdm.auto import tqdm

from geo_mf import __version__
from geo_mf.data.ids import IdMap, IdValues
from geo_mf.errors import InvalidInput
from geo_mf.export.best import Rows, threads
from geo_mf.export.folder import Folder, Part
from geo_mf.factorize.fold_in_many import FoldInMany
from geo_mf.geometry import blend
from geo_mf.index.exact import Hits
from geo_mf.likeness import SHARES, Space, check_space
from geo_mf.recommendations import check_k
from geo_mf.recommender import Recommender
from geo_mf.snapshot import Snapshot

PART = 16_384
"""Users, or items, of one part."""


@dataclass(frozen=True)
class Export:
    """What a job wrote. Prints as one line.

    Attributes:
        kind: "recommend" or "similar".
        out: the folder.
        rows: of all parts.
        asked: users, or items, that were to have a list.
        silent: those of whom nothing can be said, and who have none.
        written: parts written by this call.
        kept: parts that were there already.
        seconds: this call took.
    """

    kind: str
    out: str
    rows: int
    asked: int
    silent: int
    written: int
    kept: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        noun = "users" if self.kind == "recommend" else "items"
        held = f"{self.kept} of them kept, " if self.kept else ""
        silent = f" ({self.silent:,} have none)" if self.silent else ""
        return (
            f"{self.rows:,} rows for {self.asked:,} {noun}{silent} in {self.written + self.kept} parts, {held}"
            f"{self.seconds:.1f} s: {self.out}"
        )


def recommend_all(
    rec: Recommender,
    out: str | Path,
    *,
    k: int = 10,
    where: str | None = None,
    exclude_seen: bool = True,
    users: IdValues | None = None,
    part_size: int = PART,
    show_progress: bool = False,
) -> Export:
    """Write what `rec.recommend(user, k=k, ...)` gives for every known user to a folder of Parquet files.

    The columns are user_id, rank (int32, from 1), item_id and score (float32), in the order of users and ranks. The
    lists are exact, whatever index `rec` has. As there, a user's factor is folded in from the history. The stored one,
    which `rec.queries` takes, is what a fit came to in a few steps (5e-5 from it with the default settings, 5e-2 where
    they are weak), and is only where the fold-in begins. Scores agree with those of `recommend` within 1e-4 of their
    size, so items whose scores differ by less may change places.

    A call that was killed, or ran out of disk, goes on when it is made again; the folder ends with the same bytes. All
    of it is from the state that `rec` has when the call begins. Memory holds the item vectors once more, and one part.

    Args:
        rec: the recommender.
        out: the folder: new, empty, or of the same job. `_SUCCESS` is in it when all parts are.
        k: how many items, for each user; fewer rows if fewer are allowed.
        where: as in `Recommender.recommend`.
        exclude_seen: leave out the items of each user's history.
        users: ids of known users, each once; None takes all.
        part_size: users in one file.
        show_progress: a progress bar on stderr.

    Raises:
        InvalidInput: k or part_size < 1, a bad `where`, a user given twice; or the folder holds another job (another
            state of the index, other settings) or something else.
        UnknownId: a user that is not in the index.
        FitDiverged: a factor is not finite.
        OSError: a part could not be written; those that are there are whole.
    """
    now = rec.now
    k = min(_checked(k, part_size), len(now.catalog))
    rows = np.arange(len(now.users)) if users is None else now.users.rows(IdMap(users).ids)
    allowed = now.catalog.mask(where) & now.live
    settings = {"k": k, "where": where, "exclude_seen": exclude_seen}
    ids = "all" if users is None else _digest([rows])

    def prepared(pool: ThreadPoolExecutor) -> "_Answer":
        vectors = blend.vectors(now.item_factors, now.embeddings, now.trend, now.blend)
        candidates, fold = Rows.of(vectors, allowed), FoldInMany.of(now.folding.fold_in, now.item_factors)
        return partial(_recommended, now, candidates, fold, k, exclude_seen, pool)

    job = _Job("recommend", now, rows, now.users, ("user_id", "item_id"), settings | {"users": ids}, part_size)
    return _run(job, Path(out), prepared, show_progress)


def similar_items_all(
    rec: Recommender,
    out: str | Path,
    *,
    k: int = 10,
    space: Space = "blend",
    where: str | None = None,
    part_size: int = PART,
    show_progress: bool = False,
) -> Export:
    """Write what `rec.similar_items(item, k=k, ...)` gives for every item to a folder of Parquet files.

    The columns are item_id, rank (int32, from 1), similar_id and score (float32). Items that were removed neither have
    a list nor are in one. Otherwise as `recommend_all`.

    Args:
        rec: the recommender.
        out, k, part_size, show_progress: as in `recommend_all`.
        space: as in `Recommender.similar_items`.
        where: a condition on the items in the lists; every item has one.

    Raises:
        InvalidInput: an unknown space, or as in `recommend_all`.
        OSError: as in `recommend_all`.
    """
    now = rec.now
    k = min(_checked(k, part_size), len(now.catalog))
    check_space(space)
    rows, allowed = np.flatnonzero(now.live), now.catalog.mask(where) & now.live
    settings = {"k": k, "where": where, "space": space}

    def prepared(pool: ThreadPoolExecutor) -> "_Answer":
        directions = _directions(now, space)
        return partial(_similar, directions, Rows.of(directions, allowed), k, pool)

    job = _Job("similar", now, rows, now.catalog.items, ("item_id", "similar_id"), settings, part_size)
    return _run(job, Path(out), prepared, show_progress)


_Answer = Callable[[np.ndarray], tuple[Hits, np.ndarray]]
"""From rows [n] to their lists, and bool [n], of whom nothing can be said."""


@dataclass(frozen=True, eq=False)
class _Job:
    kind: str
    now: Snapshot
    rows: np.ndarray
    ids: IdMap
    columns: tuple[str, str]
    settings: Mapping[str, Any]
    part_size: int

    @property
    def parts(self) -> int:
        """How many there are: an empty job has one, so that its columns are known."""
        return max(1, -(-len(self.rows) // self.part_size))

    def description(self) -> dict[str, Any]:
        """What every byte of the parts depends on, and how many parts there are."""
        own = {"format": 1, "kind": self.kind, "geo_mf": __version__, "index": _content(self.now), "parts": self.parts}
        return own | {"part_size": self.part_size} | dict(self.settings)

    def of_part(self, number: int) -> np.ndarray:
        """The rows of a part."""
        return self.rows[number * self.part_size : (number + 1) * self.part_size]

    def table(self, rows: np.ndarray, hits: Hits, silent: np.ndarray) -> pa.Table:
        """The long table of some lists."""
        line, place = np.nonzero((hits.rows >= 0) & ~silent[:, None])
        first, second = self.columns
        return pa.table(
            {
                first: self.ids.ids.take(pa.array(rows[line])),
                "rank": pa.array((place + 1).astype(np.int32)),
                second: self.now.catalog.items.ids.take(pa.array(hits.rows[line, place])),
                "score": pa.array(hits.scores[line, place]),
            }
        )


def _run(job: _Job, out: Path, prepared: Callable[[ThreadPoolExecutor], _Answer], show_progress: bool) -> Export:
    """Write the parts that are missing."""
    began = time.perf_counter()
    with (
        Folder.opened(out, job.description(), job.now.card.get("version")) as folder,
        ThreadPoolExecutor(threads()) as pool,
        ThreadPoolExecutor(1) as writer,
        tqdm(total=len(job.rows), desc=job.kind, unit=job.columns[0][:4], disable=not show_progress) as bar,
    ):
        held = [folder.held(number) for number in range(job.parts)]
        kept = [part for part in held if part is not None]
        bar.update(sum(part.asked for part in kept))
        missing = [number for number, part in enumerate(held) if part is None]
        made: list[Future[Part]] = []
        answer = prepared(pool) if missing else _nobody
        for number in missing:
            rows = job.of_part(number)
            hits, silent = answer(rows)
            if made:
                made[-1].result()  # one part at most waits for the disk
            made.append(writer.submit(_write, folder, number, job, rows, hits, silent))
            bar.update(len(rows))
        parts = kept + [each.result() for each in made]
        folder.finish()
    rows, asked, silent = (sum(getattr(part, name) for part in parts) for name in ("rows", "asked", "silent"))
    spent = time.perf_counter() - began
    return Export(job.kind, str(out), rows, asked, silent, len(made), len(kept), spent)


def _nobody(rows: np.ndarray) -> tuple[Hits, np.ndarray]:
    """No list for anybody."""
    return Hits(np.zeros((len(rows), 0), np.int32), np.zeros((len(rows), 0), np.float32)), np.ones(len(rows), bool)


def _write(folder: Folder, number: int, job: _Job, rows: np.ndarray, hits: Hits, silent: np.ndarray) -> Part:
    return folder.write(number, job.table(rows, hits, silent), len(rows), int(silent.sum()))


def _recommended(
    now: Snapshot,
    candidates: Rows,
    fold: FoldInMany,
    k: int,
    exclude_seen: bool,
    pool: ThreadPoolExecutor,
    rows: np.ndarray,
) -> tuple[Hits, np.ndarray]:
    history = now.history[rows]
    priors = None if now.told is None else now.told.of_users[rows]
    factors = fold.solve(now.folding.balance.user_rows(history), now.user_factors[rows], pool, priors)
    queries = now.queries(rows, factors)
    rank = factors.shape[1]
    speaks = np.any(queries[:, :rank] != 0, axis=1)
    if now.embeddings.any():
        speaks |= np.any(queries[:, rank:-1] != 0, axis=1)
    hidden = history if exclude_seen else sparse.csr_array(history.shape, dtype=np.float32)
    return candidates.best(queries, k, hidden, pool), np.logical_not(speaks)


def _directions(now: Snapshot, space: Space) -> np.ndarray:
    """float32 [items, K + dim], one or both parts: rows whose inner products are the scores of `similar_items`."""
    a, b = np.sqrt(np.asarray(SHARES[space], np.float32))
    known = np.any(now.item_factors != 0, axis=1, keepdims=True)
    behaviour = a * blend.unit((now.item_factors - now.folding.mean_item) * known)
    return np.concatenate([part for part, share in ((behaviour, a), (b * now.embeddings, b)) if share], axis=1)


def _similar(
    directions: np.ndarray, candidates: Rows, k: int, pool: ThreadPoolExecutor, rows: np.ndarray
) -> tuple[Hits, np.ndarray]:
    queries = directions[rows]
    itself = (np.ones(len(rows), np.float32), rows, np.arange(len(rows) + 1))
    hits = candidates.best(queries, k, sparse.csr_array(itself, shape=(len(rows), len(directions))), pool)
    return hits, np.all(queries == 0, axis=1)


def _checked(k: int, part_size: int) -> int:
    check_k(k)
    if isinstance(part_size, bool) or not isinstance(part_size, int) or part_size < 1:
        raise InvalidInput(f"part_size is {part_size!r}; expected a whole number of at least 1")
    return int(k)


def _content(now: Snapshot) -> str:
    """SHA-256 of all that the answers depend on."""
    arrays = [now.user_factors, now.item_factors, now.embeddings, now.trend, now.live]
    arrays += [now.history.indptr.astype(np.int64), now.history.indices.astype(np.int32), now.history.data]
    arrays += [] if now.told is None else [now.told.of_users]
    settings = repr((now.objective, now.blend))
    ids = [hashlib.sha256(_ipc(ids.ids)).digest() for ids in (now.users, now.catalog.items)]
    table = hashlib.sha256(_ipc(now.catalog.table)).digest()
    return hashlib.sha256(b"".join([settings.encode(), *ids, table, _digest(arrays).encode()])).hexdigest()


def _digest(arrays: list[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _ipc(values: pa.Array | pa.Table) -> memoryview:
    """The bytes of a column or a table, whatever its chunks."""
    table = values if isinstance(values, pa.Table) else pa.table({"id": values})
    table = table.replace_schema_metadata(None).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return memoryview(sink.getvalue())
