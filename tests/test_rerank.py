"""Re-ranking: what holds for every list, then each re-ranker beside a plain reference, then the recommender's door."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import changed, small_catalog
from hypothesis import given, settings
from hypothesis import strategies as st

import geo_mf as gm
from geo_mf.data.interactions import ReadReport
from geo_mf.errors import InvalidInput, UnknownId
from geo_mf.rerank.exposure import attention, evened, worth
from geo_mf.rerank.groups import Groups
from geo_mf.rerank.mmr import mmr
from geo_mf.rerank.pool import choose, normalised, select
from geo_mf.rerank.quota import within

TAGS = "abcd"


def pool_of(scores: Any, columns: dict[str, list[Any]] | None = None, vectors: np.ndarray | None = None) -> gm.Pool:
    """A pool over a catalogue that is twice as long and turned round, so that a place is not a row."""
    n = len(scores)
    rows = np.arange(2 * n - 1, n - 1, -1)

    ids = [f"i{row}" for row in range(2 * n)]
    spread = {}
    for name, values in (columns or {}).items():
        kind = pa.list_(pa.string()) if name == "tags" else pa.string()
        spread[name] = pa.array([None] * n + values[::-1], kind)
    table = pa.table({"item_id": pa.array(ids, pa.string())} | spread)
    catalog = gm.Catalog(
        gm.IdMap(pa.array(ids, pa.string())),
        [""] * (2 * n),
        table,
        "item_id",
        None,
        ReadReport(2 * n, 2 * n, unit="row"),
    )
    directions = np.ones((n, 1), np.float32) if vectors is None else vectors
    return gm.Pool(rows, np.asarray(scores, np.float32), catalog, lambda asked: directions[2 * n - 1 - asked])


@st.composite
def pools(draw: st.DrawFn, smallest: int = 0, largest: int = 12) -> gm.Pool:
    """Falling scores with ties, a tag or none for each, several tags for each, and vectors, some of them zero."""
    n = draw(st.integers(smallest, largest))
    scores = sorted(draw(st.lists(st.integers(-4, 4), min_size=n, max_size=n)), reverse=True)
    tag = draw(st.lists(st.sampled_from([*TAGS, None]), min_size=n, max_size=n))
    tags = draw(st.lists(st.lists(st.sampled_from(TAGS), max_size=3), min_size=n, max_size=n))
    vectors = draw(st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=n, max_size=n))
    columns = {"tag": tag, "tags": tags}
    return pool_of(np.asarray(scores) / 2, columns, np.asarray(vectors, np.float32).reshape(n, 3))


columns = st.sampled_from(["tag", "tags"])
rerankers = st.one_of(
    st.builds(gm.MMR, st.floats(0, 1)),
    st.builds(gm.Quota, columns, at_most=st.one_of(st.integers(1, 4), st.floats(0.05, 1))),
    st.builds(gm.Quota, columns, at_least=st.dictionaries(st.sampled_from(TAGS), st.integers(0, 3), min_size=1)),
    st.builds(gm.Exposure, columns, strength=st.floats(0, 3), curve=st.sampled_from(["log", "sqrt"])),
)


# --- what holds for every list ---------------------------------------------------------------------------------------


@given(pool=pools(), chain=st.lists(rerankers, min_size=1, max_size=3), k=st.integers(1, 14))
def test_a_list_is_of_different_candidates_and_full_unless_it_says_why(
    pool: gm.Pool, chain: list[gm.Reranker], k: int
) -> None:
    found = select(chain, pool, k)
    assert len(set(found.order.tolist())) == len(found.order) <= min(k, len(pool))
    assert all(0 <= place < len(pool) for place in found.order)
    if len(found.order) < min(k, len(pool)):
        assert found.reason.startswith(f"{len(found.order)} of {k}: ")
        assert "at most " in found.reason
    for one in chain:
        assert len(one(pool, k).order) == len(pool) or isinstance(one, gm.Quota)


@given(pool=pools(), k=st.integers(1, 14), column=columns)
def test_at_strength_0_and_without_a_binding_limit_nothing_changes(pool: gm.Pool, k: int, column: str) -> None:
    same = list(range(len(pool)))
    for one in (gm.MMR(0), gm.Exposure(column, 0), gm.Quota(column, at_most=12), gm.Quota(column, at_least={"a": 0})):
        assert one(pool, k).order.tolist() == same
        assert one(pool, k).reason == ""
    twice = [gm.MMR(0), gm.Quota(column, at_most=12)]
    assert select(twice, pool, k).order.tolist() == same[:k]


@given(
    pool=pools(), chain=st.lists(rerankers, max_size=2), k=st.integers(1, 14), most=st.integers(1, 3), column=columns
)
def test_a_maximum_holds_wherever_it_stands_in_a_chain(
    pool: gm.Pool, chain: list[gm.Reranker], k: int, most: int, column: str
) -> None:
    for place in range(len(chain) + 1):
        found = select([*chain[:place], gm.Quota(column, at_most=most), *chain[place:]], pool, k).order
        assert max(counts(pool, column, found).values(), default=0) <= most


def counts(pool: gm.Pool, column: str, order: Any) -> dict[str, int]:
    held: dict[str, int] = {}
    values = pool.column(column)
    for place in order:
        for value in set(listed(values[place])):
            held[value] = held.get(value, 0) + 1
    return held


def listed(value: Any) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


@given(scores=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=9), shift=st.floats(-50, 50))
def test_scores_are_brought_to_one_scale(scores: list[float], shift: float) -> None:
    line = np.asarray(scores)
    found = normalised(line)
    assert found.min() == 0
    assert found.max() == (1 if line.max() > line.min() else 0)
    assert normalised(np.append(line, -np.inf)).tolist() == [*found.tolist(), -np.inf]
    if line.max() - line.min() > 0.1:
        assert normalised(3 * line + shift) == pytest.approx(found, abs=1e-9)


# --- maximal marginal relevance --------------------------------------------------------------------------------------


def plain_mmr(scores: list[float], vectors: np.ndarray, k: int, diversity: float) -> list[int]:
    """One by one, as the paper has it."""
    low, high = min(scores), max(scores)

    def alike(i: int, j: int) -> float:
        lengths = np.linalg.norm(vectors[i]) * np.linalg.norm(vectors[j])
        return 1.0 if not vectors[i].any() else float(vectors[i] @ vectors[j] / lengths) if lengths else 0.0

    chosen: list[int] = []
    while len(chosen) < min(k, len(scores)):
        values = {}
        for i in range(len(scores)):
            if i not in chosen:
                relevance = (scores[i] - low) / (high - low) if high > low else 0.0
                closest = max((alike(i, j) for j in chosen), default=0.0)
                values[i] = (1 - diversity) * relevance - diversity * closest
        best = max(values.values())
        chosen.append(min(i for i, value in values.items() if value >= best - 1e-6))
    return chosen


@given(pool=pools(smallest=1), k=st.integers(1, 14), diversity=st.floats(0, 1))
def test_mmr_is_that_of_the_paper(pool: gm.Pool, k: int, diversity: float) -> None:
    found = gm.MMR(diversity)(pool, k).order[:k]
    expected = plain_mmr(pool.scores.tolist(), pool.vectors.astype(float), k, diversity)
    if found.tolist() == expected:
        return
    # Where two values are equal but for rounding, either may stand first: compare the values.
    place = int(np.argmax(found != np.asarray(expected)))
    assert value_at(pool, found[: place + 1], diversity) == pytest.approx(
        value_at(pool, expected[: place + 1], diversity), abs=1e-5
    )


def value_at(pool: gm.Pool, order: Any, diversity: float) -> float:
    """What the last item of a list was worth."""
    *before, last = [int(place) for place in order]
    v = pool.vectors.astype(float)
    lengths = np.linalg.norm(v, axis=1)
    closest = [v[last] @ v[i] / (lengths[last] * lengths[i]) if lengths[i] and lengths[last] else 0.0 for i in before]
    if not lengths[last]:
        closest = [1.0]
    return (1 - diversity) * float(normalised(pool.scores)[last]) - diversity * max(closest, default=0.0)


@given(lines=st.lists(pools(smallest=5, largest=5), min_size=1, max_size=4), k=st.integers(1, 6), d=st.floats(0, 1))
def test_mmr_of_many_queries_is_that_of_each(lines: list[gm.Pool], k: int, d: float) -> None:
    scores, vectors = np.stack([one.scores for one in lines]), np.stack([one.vectors for one in lines])
    together = mmr(scores, vectors, k, d)
    assert together.shape == (len(lines), min(k, 5))
    for line, found in zip(lines, together, strict=True):
        assert found.tolist() == mmr(line.scores[None], line.vectors[None], k, d)[0].tolist()
    # A pool that is shorter than the others.
    padded = mmr(np.where(np.arange(5) < 3, scores, -np.inf), vectors, 5, d)
    for line, found in zip(lines, padded, strict=True):
        alone = mmr(line.scores[None, :3], line.vectors[None, :3], 5, d)[0].tolist()
        assert found.tolist() == [*alone, -1, -1]


def test_mmr_by_hand() -> None:
    # 0 and 1 are the same, 2 is at a right angle to them, 3 lies between.
    pool = pool_of([1.0, 0.9, 0.5, 0.0], vectors=np.asarray([[2, 0], [1, 0], [0, 3], [1, 1]], np.float32))
    assert gm.MMR(0.3)(pool, 3).order.tolist() == [0, 2, 1, 3]  # 2 has .35, 1 has .63 - .3, then .63 - .3 beats -.21
    assert gm.MMR(0.2)(pool, 3).order.tolist() == [0, 1, 2, 3]  # 1 has .72 - .2, 2 has .4
    assert gm.MMR(1)(pool, 4).order.tolist() == [0, 2, 3, 1]  # what is least like those before it
    longer = pool_of(10 * pool.scores - 7, vectors=5 * pool.vectors)
    assert gm.MMR(0.3)(longer, 3).order.tolist() == [0, 2, 1, 3], "neither scale nor length counts"


def test_what_is_not_known_is_not_diverse() -> None:
    pool = pool_of([3.0, 2.0, 1.0], vectors=np.asarray([[1, 0], [0, 0], [1, 1]], np.float32))
    assert gm.MMR(0.9)(pool, 3).order.tolist() == [0, 2, 1]


# --- quotas ----------------------------------------------------------------------------------------------------------


def lists_that_obey(pool: gm.Pool, k: int, most: int, least: dict[str, int]) -> dict[tuple[int, int], float]:
    """(length, what is missing of the minima) -> the largest sum of scores, over all sets of candidates."""
    tags = pool.column("tag")
    best: dict[tuple[int, int], float] = {}
    for size in range(min(k, len(pool)) + 1):
        for some in itertools.combinations(range(len(pool)), size):
            held = counts(pool, "tag", some)
            if max(held.values(), default=0) <= most:
                missing = sum(max(0, number - held.get(tag, 0)) for tag, number in least.items())
                total = float(pool.scores[list(some)].sum())
                best[size, missing] = max(best.get((size, missing), -np.inf), total)
    assert len(tags) == len(pool)
    return best


@settings(max_examples=60)
@given(
    pool=pools(largest=8),
    k=st.integers(1, 8),
    most=st.integers(1, 8),
    least=st.dictionaries(st.sampled_from(TAGS), st.integers(0, 3), max_size=2),
)
def test_with_one_value_an_item_no_list_that_obeys_is_better(
    pool: gm.Pool, k: int, most: int, least: dict[str, int]
) -> None:
    least = {tag: min(number, most) for tag, number in least.items()}
    if sum(least.values()) > k:
        return
    found = gm.Quota("tag", at_most=most, at_least=least or None)(pool, k).order[:k]
    held = counts(pool, "tag", found)
    missing = sum(max(0, number - held.get(tag, 0)) for tag, number in least.items())
    best = lists_that_obey(pool, k, most, least)
    fewest = min(lack for _, lack in best)
    longest = max(size for size, lack in best if lack == fewest)
    assert (len(found), missing) == (longest, fewest)
    assert longest == max(size for size, _ in best), "a minimum never makes a list shorter"
    assert float(pool.scores[found].sum()) == pytest.approx(best[longest, fewest])
    assert found.tolist() == sorted(found.tolist()), "the order stays"


@given(pool=pools(), caps=st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_taking_all_at_once_is_taking_one_by_one(pool: gm.Pool, caps: list[int]) -> None:
    groups = pool.groups("tags")
    limits = dict(zip(groups.names.to_pylist(), caps, strict=False))
    held, expected = dict.fromkeys(limits, 0), []
    for values in pool.column("tags"):
        mine = set(listed(values))
        fits = all(held[value] < limits[value] for value in mine)
        for value in mine if fits else ():
            held[value] += 1
        expected.append(fits)
    assert within(groups, np.asarray(caps[: len(limits)], np.int64)).tolist() == expected


@given(pool=pools(), k=st.integers(1, 8), least=st.dictionaries(st.sampled_from("abx"), st.integers(1, 3), min_size=1))
def test_a_minimum_is_met_or_the_reason_says_what_is_missing(pool: gm.Pool, k: int, least: dict[str, int]) -> None:
    found = gm.Quota("tags", at_least=least)(pool, k)
    held, there = counts(pool, "tags", found.order[:k]), counts(pool, "tags", range(len(pool)))
    assert sorted(found.order.tolist()) == list(range(len(pool))), "a minimum leaves nobody out"
    for tag, number in least.items():
        told = f"{held.get(tag, 0)} instead of at least {number} with {tag!r} in 'tags'"
        assert (told in found.reason) == (held.get(tag, 0) < number)
        if sum(least.values()) <= k:
            assert held.get(tag, 0) >= min(number, there.get(tag, 0))


def test_quotas_by_hand() -> None:
    authors = ["ann", "ann", "ann", "bob", None, None, None, "cyd"]
    pool = pool_of(
        [8, 7, 6, 5, 4, 3, 2, 1], {"author": authors, "genres": ["x|y", "x", "y", "z", "", " ", None, " x "]}
    )

    def first(quota: gm.Quota, k: int) -> list[int]:
        return quota(pool, k).order[:k].tolist()

    assert first(gm.Quota("author", at_most=2), 5) == [0, 1, 3, 4, 5]  # without an author, nothing counts
    assert first(gm.Quota("author", at_most=0.5), 4) == [0, 1, 3, 4]
    assert first(gm.Quota("author", at_most=0.1), 4) == [0, 3, 4, 5], "a share is never less than one item"
    assert first(gm.Quota("author", at_most={"bob": 0, "ann": 1}), 3) == [0, 4, 5]
    assert first(gm.Quota("author", at_least={"cyd": 1}), 3) == [0, 1, 7]
    assert first(gm.Quota("author", at_least={"cyd": 0.4}), 3) == [0, 1, 7], (
        "two fifths of three are two, if there were"
    )
    assert first(gm.Quota("author", at_most=1, at_least={"cyd": 1, "bob": 1}), 3) == [0, 3, 7]
    assert first(gm.Quota("genres", at_most=1), 8) == [0, 3, 4, 5, 6], "an item counts for each of its values"
    assert gm.Quota("author", at_least={"cyd": 0.4})(pool, 3).reason == (
        "1 instead of at least 2 with 'cyd' in 'author', among 8 candidates"
    )
    assert gm.Quota("genres", at_most=0.2)(pool, 8).reason == "at most 1 per value of 'genres', among 8 candidates"
    assert first(gm.Quota("item_id", at_most=1), 8) == list(range(8))
    mixed = pool_of([4, 3, 2, 1], {"tags": [["drama", "war"], ["comedy", "war"], ["x"], ["comedy"]]})
    both = gm.Quota("tags", at_most=1, at_least={"drama": 1, "comedy": 1})(mixed, 2)
    assert (both.order[:2].tolist(), both.reason) == ([0, 3], ""), "what fills a minimum breaks no maximum"


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, 1, None, 2]), [[1], [1], [], [2]]),
        (pa.array([1.5, float("nan"), None, 1.5]), [[1.5], [], [], [1.5]]),
        (pa.array([True, False, None, True]), [[True], [False], [], [True]]),
        (pa.array(["a", " a ", "", None]), [["a"], ["a"], [], []]),
        (pa.array(["a|b", "b|b|", "|", "c"], pa.string_view()), [["a", "b"], ["b"], [], ["c"]]),
        (pa.array(["a", "b", None, "a"], pa.large_string()), [["a"], ["b"], [], ["a"]]),
        (pa.array(["a|b", "b", None, "a|b"]).dictionary_encode(), [["a", "b"], ["b"], [], ["a", "b"]]),
        (pa.array([["a", "a", None], [], None, ["b", "a"]]), [["a"], [], [], ["a", "b"]]),
        (pa.array([[1, 2], [2, 2], [3, 3], [1, 3]], pa.list_(pa.int64(), 2)), [[1, 2], [2], [3], [1, 3]]),
        (pa.nulls(4), [[], [], [], []]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_values_of_every_kind_of_column(column: pa.Array, expected: list[list[Any]]) -> None:
    ids = ["p", "q|q", "r", "s"]
    table = pa.table({"item_id": ids, "x": pa.chunked_array([column.slice(0, 1), column.slice(1)])})
    catalog = gm.Catalog(gm.IdMap(ids), [""] * 4, table, "item_id", None, ReadReport(4, 4, unit="row"))

    def told(groups: Groups) -> list[list[Any]]:
        names = groups.names.to_pylist()
        return [sorted(names[code] for code in one) for one in np.split(groups.values, groups.indptr[1:-1])]

    assert told(Groups.of(catalog, "x")) == expected
    order = np.asarray([3, 0, 1])
    assert told(Groups.of(catalog, "x", order)) == [expected[row] for row in order]
    assert told(Groups.of(catalog, "x").take(order)) == [expected[row] for row in order]
    assert told(Groups.of(catalog, "item_id")) == [[id] for id in ids], "an id is one value"


# --- exposure --------------------------------------------------------------------------------------------------------

curves = st.sampled_from(["log", "sqrt"])


@given(curve=curves, had=st.floats(0, 100), more=st.floats(0, 100), e=st.floats(0.01, 1))
def test_exposure_is_worth_less_to_those_who_had_more(curve: Any, had: float, more: float, e: float) -> None:
    def gain(x: float) -> float:
        return float(worth(np.asarray(x + e), curve) - worth(np.asarray(x), curve))

    assert gain(had) >= gain(had + more) - 1e-12
    assert 0 < gain(had) <= float(worth(np.asarray(e), curve)) + 1e-12
    assert [float(worth(np.asarray(x), curve)) for x in (0.0, 1.0)] == [0.0, 1.0]


@given(pool=pools(smallest=1), k=st.integers(1, 12), strength=st.floats(0, 4), curve=curves, data=st.data())
def test_the_loss_of_relevance_has_a_bound(
    pool: gm.Pool, k: int, strength: float, curve: Any, data: st.DataObject
) -> None:
    had = data.draw(st.dictionaries(st.sampled_from(TAGS), st.floats(0, 50)))
    account = data.draw(st.sampled_from([None, gm.ExposureAccount.of(pool.catalog, "tag", had)]))
    found = gm.Exposure("tag", strength, curve, account)(pool, k).order[:k]
    e = attention(len(found))
    relevance = normalised(pool.scores)
    loss = e @ relevance[: len(found)] - e @ relevance[found]
    assert -1e-9 <= loss <= strength * worth(e, curve).sum() + 1e-9


def plain_exposure(
    relevance: np.ndarray, tags: list[list[str]], had: dict[str, float], k: int, strength: float
) -> list:
    """One by one: what the whole list is worth with each candidate in turn at its end."""
    every, chosen = set(had) | {tag for line in tags for tag in line}, []
    unit = max(1.0, np.mean([had.get(tag, 0.0) for tag in sorted(every)])) if every else 1.0

    def total(order: list[int]) -> float:
        x = {tag: had.get(tag, 0.0) / unit for tag in every}
        for e, i in zip(attention(len(order)), order, strict=True):
            for tag in tags[i]:
                x[tag] += e / len(tags[i])
        dcg = sum(e * relevance[i] for e, i in zip(attention(len(order)), order, strict=True))
        return dcg + strength * sum(np.log2(1 + value) for value in x.values())

    while len(chosen) < min(k, len(tags)):
        values = {i: total([*chosen, i]) for i in range(len(tags)) if i not in chosen}
        best = max(values.values())
        chosen.append(min(i for i, value in values.items() if value >= best - 1e-9))
    return chosen


@settings(max_examples=60)
@given(
    pool=pools(smallest=1, largest=8), k=st.integers(1, 8), strength=st.floats(0.01, 3), column=columns, data=st.data()
)
def test_each_place_goes_to_what_adds_most(
    pool: gm.Pool, k: int, strength: float, column: str, data: st.DataObject
) -> None:
    values = [sorted(set(listed(value))) for value in pool.column(column)]
    known = sorted({tag for line in values for tag in line})
    had = {tag: data.draw(st.floats(0, 20)) for tag in known}
    account = gm.ExposureAccount.of(pool.catalog, column, had)
    assert account.to_dict() == had
    found = gm.Exposure(column, strength, account=account)(pool, k).order[:k]
    assert found.tolist() == plain_exposure(normalised(pool.scores), values, had, k, strength)


@given(lines=st.lists(st.permutations(range(6)), min_size=1, max_size=5), strength=st.floats(0, 2), k=st.integers(1, 7))
def test_many_lists_are_one_after_the_other(lines: list[list[int]], strength: float, k: int) -> None:
    rows = np.asarray(lines)
    scores = np.tile(np.asarray([3, 2.5, 2, 1, 1, 0], np.float32), (len(rows), 1))
    scores[0, 4:] = -np.inf
    ids = [f"i{row}" for row in range(6)]
    table = pa.table({"item_id": ids, "tag": [["a"], ["a", "b"], [], ["b"], ["c"], ["a"]]})
    catalog = gm.Catalog(gm.IdMap(ids), [""] * 6, table, "item_id", None, ReadReport(6, 6, unit="row"))
    begun = gm.ExposureAccount.of(catalog, "tag", {"a": 2.0})
    order, after = evened(scores, rows, begun, k, strength)
    account = begun
    for line, found in enumerate(order):
        n = np.count_nonzero(np.isfinite(scores[line]))
        pool = gm.Pool(rows[line, :n], scores[line, :n], catalog, lambda asked: np.ones((len(asked), 1)))
        alone = gm.Exposure("tag", strength, account=account)(pool, k).order[:k]
        assert found[found >= 0].tolist() == alone.tolist()
        account = account.after([ids[row] for row in rows[line, alone]])
    assert after.to_dict() == pytest.approx(account.to_dict())
    assert begun.to_dict() == {"a": 2.0, "b": 0.0, "c": 0.0}, "an account does not change"


def test_an_account_evens_out_what_one_list_cannot() -> None:
    """Everybody likes the same ten items best: by score, nobody else is ever seen."""
    ids = [f"i{row}" for row in range(40)]
    catalog = gm.Catalog.from_ids(gm.IdMap(ids))
    scores = np.tile(np.linspace(1, 0, 40, dtype=np.float32), (60, 1))
    rows = np.tile(np.arange(40), (60, 1))
    shown, dcg = [], []
    for strength in (0, 0.1, 0.5, 2):
        order, account = evened(scores, rows, gm.ExposureAccount.of(catalog, "item_id"), 10, strength)
        assert account.given.sum() == pytest.approx(60 * attention(10).sum())
        shown.append(np.count_nonzero(account.given))
        dcg.append((np.take_along_axis(scores, order, axis=1) @ attention(10)).mean())
    assert shown[0] == 10
    assert shown == sorted(shown) and shown[-1] == 40
    assert dcg == sorted(dcg, reverse=True)


def test_exposure_by_hand() -> None:
    pool = pool_of([1.0, 0.9, 0.8, 0.0], {"author": ["ann", "ann", "bob", None]})
    # Second place, e = .63: ann has had 1 and gains log2(2.63) - 1 = .395; bob gains log2(1.63) = .705.
    assert gm.Exposure("author", 0.1)(pool, 2).order.tolist() == [0, 1, 2, 3]  # .568 + .040 against .505 + .071
    assert gm.Exposure("author", 0.3)(pool, 2).order.tolist() == [0, 2, 1, 3]  # .568 + .119 against .505 + .212
    account = gm.ExposureAccount.of(pool.catalog, "author", {"ann": 1.0, "bob": 0.0, "gone": 9.0})
    assert account.to_dict() == {"ann": 1.0, "bob": 0.0}
    # First place: .585 for ann, 1 for bob.
    assert gm.Exposure("author", 0.5, account=account)(pool, 1).order.tolist()[0] == 2  # 1.293 against 1.3
    assert gm.Exposure("author", 0.4, account=account)(pool, 1).order.tolist()[0] == 0  # 1.234 against 1.2
    later = account.after(["i7", "i5"])  # ann, then bob
    assert later.to_dict() == pytest.approx({"ann": 2.0, "bob": 1 / np.log2(3)})
    assert repr(later) == "ExposureAccount('author', 2 values, 2.6 exposure given)"
    with pytest.raises(UnknownId, match="i99"):
        account.after(["i99"])


# --- fusion ----------------------------------------------------------------------------------------------------------


def test_fusion_by_hand() -> None:
    found = gm.fuse([["a", "b", "c"], ["c", "a"], ["d"]])
    assert [id for id, _ in found] == ["a", "c", "d", "b"]
    expected = [1 / 61 + 1 / 62, 1 / 63 + 1 / 61, 1 / 61, 1 / 62]
    assert [score for _, score in found] == pytest.approx(expected)
    assert gm.fuse([["b", "a"], ["a", "b"]], k=0) == [("b", 1.5), ("a", 1.5)], "of equals, the one met first"
    assert gm.fuse([]) == gm.fuse([[], []]) == []


@given(rankings=st.lists(st.lists(st.integers(0, 9), unique=True), max_size=4), k=st.floats(0, 100))
def test_fusion_holds_every_item_once_and_its_scores_fall(rankings: list[list[int]], k: float) -> None:
    found = gm.fuse(rankings, k)
    assert sorted(str(id) for id, _ in found) == sorted(str(id) for id in set().union(*rankings))
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    if len(rankings) == 1:
        assert [id for id, _ in found] == rankings[0]


# --- by the recommender ----------------------------------------------------------------------------------------------

ask = st.fixed_dictionaries(
    {"k": st.integers(1, 30)}, optional={"where": st.sampled_from(["year >= 1990", "topic == 1", "year < 1900"])}
)
known = st.fixed_dictionaries(
    {"user": st.sampled_from(range(100, 124))},
    optional={"text": st.just("boats on the water"), "exclude_seen": st.booleans()},
)
alike = st.fixed_dictionaries(
    {"item": st.sampled_from(["i0", "i7", "wet", "bare"])}, optional={"space": st.sampled_from(["factors", "text"])}
)
METHODS: dict[str, tuple[Callable[..., gm.Recommendations], st.SearchStrategy[dict[str, Any]]]] = {
    "recommend": (gm.Recommender.recommend, known),
    "similar_items": (gm.Recommender.similar_items, alike),
    "trending": (gm.Recommender.trending, st.just({})),
}
"""What takes re-rankers, and what else it is asked with."""

methods = pytest.mark.parametrize("method", METHODS)
OF: dict[str, dict[str, Any]] = {"recommend": {"user": 100}, "similar_items": {"item": "i0"}, "trending": {}}
"""One request of each."""


@methods
@given(data=st.data(), asked=ask, diversity=st.floats(0, 1))
def test_filters_and_scores_are_as_without(
    recommender: gm.Recommender, method: str, data: st.DataObject, asked: dict[str, Any], diversity: float
) -> None:
    call, own = METHODS[method]
    request = asked | data.draw(own)
    plain = call(recommender, **request)
    assert call(recommender, **request, rerank=[]) == plain
    assert call(recommender, **request, rerank=gm.MMR(0)) == plain
    told = {item.id: item for item in call(recommender, **{**request, "k": 40})}
    found = call(recommender, **request, rerank=[gm.MMR(diversity), gm.Exposure("topic", diversity)])
    assert len(set(found.ids)) == len(found) == len(plain)
    for item in found:
        assert item.id in told, "neither a seen item nor one outside the condition"
        assert item.score == pytest.approx(told[item.id].score, abs=1e-6)
        assert (item.behaviour, item.text) == pytest.approx((told[item.id].behaviour, told[item.id].text), abs=1e-6)
    assert found.reason == plain.reason


@methods
def test_a_reranker_chooses_from_more_than_the_list(recommender: gm.Recommender, method: str) -> None:
    call = METHODS[method][0]
    plain = call(recommender, **OF[method], k=6)
    turned = call(recommender, **OF[method], k=6, rerank=lambda pool, k: gm.Reranked(np.arange(len(pool))[::-1]))
    every = call(recommender, **OF[method], k=40)
    assert turned.ids == every.ids[::-1][:6] != plain.ids
    few = call(recommender, **OF[method], k=9, rerank=[gm.MMR(0.3), gm.Quota("topic", at_most=1)])
    topics = [recommender.catalog.table.column("topic")[recommender.catalog.items.row(id)].as_py() for id in few.ids]
    assert len(topics) == len(set(topics)) < 9
    assert f"{len(few)} of 9: at most 1 per value of 'topic', among {len(every)} candidates" in few.reason
    with pytest.raises(InvalidInput, match=r"expected a re-ranker such as MMR\(0.3\)"):
        bad: Any = "mmr"
        call(recommender, **OF[method], rerank=bad)
    with pytest.raises(InvalidInput, match="no column 'topci'"):
        call(recommender, **OF[method], rerank=gm.Quota("topci", at_most=2))


def test_a_request_without_a_reranker_does_not_wait_for_what_one_would_need(recommender: gm.Recommender) -> None:
    rec = changed(recommender, live=recommender.live.copy())
    rec.recommend(100)
    rec.trending()
    assert "likeness" not in vars(rec.now) and "mean_item" not in vars(rec.now.folding)
    rec.recommend(100, rerank=gm.MMR(0.3))
    assert "likeness" in vars(rec.now)


@methods
def test_removed_items_stay_away(recommender: gm.Recommender, method: str) -> None:
    live = recommender.live.copy()
    live[recommender.catalog.items.rows(["i4", "wet"])] = False
    found = METHODS[method][0](changed(recommender, live=live), **OF[method], k=27, rerank=gm.MMR(0.8))
    assert found.ids and not {"i4", "wet"} & set(found.ids)


def test_alike_is_what_similar_items_says(recommender: gm.Recommender) -> None:
    rows = recommender.catalog.items.rows(["i0", "i1", "i2", "wet", "bare"])
    directions = recommender.now.likeness.directions(rows)
    lengths = np.linalg.norm(directions, axis=1)
    assert not lengths[-1]
    for one in range(4):
        nearest = recommender.similar_items(recommender.catalog.items.take(rows)[one], k=27)
        scores = dict(zip(nearest.ids, nearest.scores, strict=True))
        for other in range(4):
            id = recommender.catalog.items.take(rows)[other]
            if one != other:
                cosine = directions[one] @ directions[other] / (lengths[one] * lengths[other])
                assert cosine == pytest.approx(scores[id], abs=1e-5)


def test_a_quota_at_the_door(recommender: gm.Recommender) -> None:
    rec = recommender
    found = rec.recommend(100, k=4, rerank=gm.Quota("topic", at_most=2))
    topics = [rec.catalog.table.column("topic")[rec.catalog.items.row(id)].as_py() for id in found.ids]
    assert sorted(topics) == [0, 0, 1, 1] and found.reason == ""
    short = rec.recommend(100, k=5, rerank=[gm.MMR(0.3), gm.Quota("topic", at_most=2)])
    assert len(short) == 4
    assert short.reason == "4 of 5: at most 2 per value of 'topic', among 16 candidates"
    few = rec.recommend(100, k=9, where="year < 1986", rerank=gm.Quota("topic", at_most=1))
    assert few.reason == (
        "4 of 9: no other item is allowed (where 'year < 1986', the 11 already seen left out); "
        "2 of 9: at most 1 per value of 'topic', among 4 candidates"
    )
    wanted = rec.recommend(100, k=2, rerank=gm.Quota("topic", at_least={1: 1, 7: 1}))
    assert len(wanted) == 2 and wanted.reason == "0 instead of at least 1 with 7 in 'topic', among 16 candidates"


def test_a_list_that_comes_out_short_is_chosen_from_more() -> None:
    """300 items, of which the best 150 are by one author."""
    scores, asked = np.linspace(1, 0, 300, dtype=np.float32), []
    whole = pool_of(scores, {"author": ["ann"] * 150 + [f"author {i}" for i in range(150)]})

    def best(n: int) -> gm.Pool:
        asked.append(n)
        return whole.take(np.arange(min(n, 300)))

    for rerankers, sizes, length in (
        ((gm.MMR(0.3),), [100], 10),
        ((gm.Quota("author", at_most=2),), [100, 300], 10),
        ((gm.Quota("author", at_most=2, pool=120),), [120], 2),
        ((gm.MMR(0.3, pool=20), gm.Exposure("author", pool=155)), [155], 10),
        ((gm.MMR(0.3, pool=3),), [10], 10),
        ((gm.Quota("author", at_least={"nobody": 1}),), [100, 300], 10),
        ((), [10], 10),
    ):
        asked.clear()
        found, candidates, reason = choose(rerankers, 10, 300, best)
        assert (asked, len(found), candidates) == (sizes, length, sizes[-1])
        assert bool(reason) == (length < 10 or "nobody" in reason)
    asked.clear()
    choose((gm.MMR(0.3),), 50, 10**6, best)
    assert asked == [250]


def test_a_function_is_a_reranker(recommender: gm.Recommender) -> None:
    def oldest_first(pool: gm.Pool, k: int) -> gm.Reranked:
        assert pool.vectors.shape == (len(pool), 40)
        return gm.Reranked(np.argsort(pool.column("year"), kind="stable"))

    found = recommender.recommend(101, k=5, rerank=oldest_first)
    years = [recommender.catalog.table.column("year")[recommender.catalog.items.row(id)].as_py() for id in found.ids]
    assert years == sorted(years) and len(years) == 5
    assert found.scores != sorted(found.scores, reverse=True)
    two = recommender.recommend(101, k=5, rerank=lambda pool, k: gm.Reranked(np.arange(2)))
    assert two.reason == "2 of 5: the re-ranking leaves out the others of 16 candidates"


@pytest.mark.parametrize(
    ("order", "told"),
    [
        (np.asarray([0, 0]), "different places from 0 to 15"),
        (np.asarray([-1]), "different places from 0 to 15"),
        (np.asarray([16]), "different places from 0 to 15"),
        (np.asarray([0.5]), "float64"),
        (np.zeros((1, 1), int), r"\[1, 1\]"),
        (np.asarray([True]), "bool"),
    ],
)
def test_an_order_that_is_none(recommender: gm.Recommender, order: np.ndarray, told: str) -> None:
    def mine(pool: gm.Pool, k: int) -> gm.Reranked:
        return gm.Reranked(order)

    with pytest.raises(InvalidInput, match=f"the re-ranker mine returned .*{told}"):
        recommender.recommend(100, rerank=mine)


def test_what_is_no_reranker(recommender: gm.Recommender) -> None:
    bad: Any
    for bad in (0.3, "mmr", gm.MMR, [gm.MMR(0.3), None]):
        with pytest.raises(InvalidInput, match=r"expected a re-ranker such as MMR\(0.3\)"):
            recommender.recommend(100, rerank=bad)
    bad = lambda pool, k: np.arange(3)  # noqa: E731
    with pytest.raises(InvalidInput, match=r"returned ndarray; expected Reranked\(order\)"):
        recommender.recommend(100, rerank=bad)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: gm.MMR(1.1), "diversity is 1.1; expected a number from 0"),
        (lambda: gm.MMR(-0.1), "diversity is -0.1"),
        (lambda: gm.MMR(float("nan")), "diversity is nan"),
        (lambda: gm.MMR(True), "diversity is True"),
        (lambda: gm.MMR(0.5, pool=0), "pool is 0; expected a whole number"),
        (lambda: gm.Quota("tag"), "a quota for 'tag' needs a limit"),
        (lambda: gm.Quota("tag", at_most=0), "at_most is 0; expected a number of items, 1 or more"),
        (lambda: gm.Quota("tag", at_most=1.5), "at_most is 1.5"),
        (lambda: gm.Quota("tag", at_most=True), "at_most is True"),
        (lambda: gm.Quota("tag", at_most={"a": -1}), "at_most for 'a' is -1"),
        (lambda: gm.Quota("tag", at_least={"a": 0.0}), "at_least for 'a' is 0.0"),
        (lambda: gm.Quota("tag", at_least=["a"]), "expected named values"),  # pyright: ignore[reportArgumentType]
        (lambda: gm.Quota("tag", at_most=1, pool=2.0), "pool is 2.0"),  # pyright: ignore[reportArgumentType]
        (lambda: gm.Exposure("tag", -1), "strength is -1; expected a number of at least 0"),
        (lambda: gm.Exposure("tag", float("inf")), "strength is inf"),
        (lambda: gm.Exposure("tag", curve="cube"), "curve is 'cube'; expected one of log"),  # pyright: ignore
        (lambda: gm.Exposure("tag", account=gm.ExposureAccount.of(small_catalog(), "topic")), "is of column 'topic'"),
        (lambda: gm.ExposureAccount.of(small_catalog(), "tpoic"), "no column 'tpoic'; its columns are topic"),
        (lambda: gm.ExposureAccount.of(small_catalog(), "topic", {0: -1.0}), "the exposure of 0 is -1.0"),
        (lambda: gm.fuse([["a"]], k=-1), "k is -1; expected a number of at least 0"),
        (lambda: gm.fuse([["a", "b", "a"]]), "'a' stands twice in ranking 0"),
        (lambda: gm.fuse(["ab"]), "ranking 0 is 'ab'; expected several rankings"),
        (lambda: mmr(np.zeros((1, 3)), np.zeros((1, 2, 4)), 2, 0.5), r"scores are \[1, 3\] and vectors \[1, 2, 4\]"),
    ],
)
def test_settings_that_are_refused(make: Any, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        make()


def test_what_is_refused_at_the_door(recommender: gm.Recommender) -> None:
    for one in (gm.Quota("topci", at_most=2), gm.Exposure("topci")):
        with pytest.raises(InvalidInput, match="no column 'topci'; its columns are topic, title, item_id, year"):
            recommender.recommend(100, rerank=one)
    with pytest.raises(InvalidInput, match="'even' is no value of a column of int64"):
        recommender.recommend(100, rerank=gm.Quota("topic", at_least={"even": 2}))
    older = gm.ExposureAccount.of(small_catalog().take(range(20)), "topic")
    with pytest.raises(InvalidInput, match=r"the account knows 20 items, the index has 27: take ExposureAccount\.of"):
        recommender.recommend(100, rerank=gm.Exposure("topic", account=older))
    structs = pa.table({"item_id": ["a"], "x": [{"y": 1}]})
    catalog = gm.Catalog(gm.IdMap(["a"]), [""], structs, "item_id", None, ReadReport(1, 1, unit="row"))
    with pytest.raises(InvalidInput, match="column 'x' holds struct.*expected text, numbers"):
        Groups.of(catalog, "x")


def test_what_is_gone_is_not_taken_though_no_score_counts() -> None:
    scores = np.array([[0, 0, 0, -np.inf, -np.inf]], np.float32)
    assert mmr(scores, np.zeros((1, 5, 3), np.float32), 5, 1.0).tolist() == [[0, 1, 2, -1, -1]]
