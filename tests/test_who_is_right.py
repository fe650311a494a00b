"""Which space finds what people touch together: planted behaviour, pairs, groups, the crossover, and indexes."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import SIZE, changed, small_catalog
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

import geo_mf as gm
import geo_mf.comparison.who_is_right as module
from geo_mf.comparison.bootstrap import estimate, resampled_sums
from geo_mf.comparison.crossover import crossing, isotonic
from geo_mf.comparison.figures import Estimate, WhoIsRight
from geo_mf.comparison.findings import findings
from geo_mf.comparison.of_index import held_out, refitted
from geo_mf.comparison.pairs import PER_USER, Pairs, _some_pairs
from geo_mf.comparison.spaces import Items, Space
from geo_mf.comparison.who_is_right import grouped, who_is_right
from geo_mf.data.interactions import Interactions
from geo_mf.errors import IncompatibleIndex, InvalidInput

EQUAL_AT = 12
"""Interactions at which both planted spaces are equally noisy."""


def planted(seed: int, clusters: int = 100, size: int = 12, dim: int = 10) -> dict:
    """Items in clusters that users keep to. Both spaces see the clusters through noise: text through the same for all,
    factors through the less the more interactions a cluster has; as much as text at EQUAL_AT."""
    random = np.random.default_rng(seed)
    n = clusters * size
    cluster = np.repeat(np.arange(clusters), size)
    counts = np.floor(np.exp(random.uniform(0, np.log(200), clusters))).astype(int)[cluster]
    centres = random.standard_normal((clusters, dim))[cluster]
    noise = 0.8 * np.sqrt((EQUAL_AT + 1) / (counts + 1))
    factors = centres + noise[:, None] * random.standard_normal((n, dim))
    texts = centres + 0.8 * random.standard_normal((n, dim))
    users = np.repeat(np.arange(700), 5)
    items = random.integers(0, clusters, 700)[:, None] * size + random.integers(0, size, (700, 5))
    ids = [f"item {number}" for number in range(n)]
    held = Interactions.from_arrays(users, [ids[item] for item in items.ravel()])
    return {"a": factors, "b": texts, "ids": ids, "interactions": held, "counts": counts, "names": ("factors", "texts")}


def right_of(found: gm.Comparison) -> WhoIsRight:
    assert found.who_is_right is not None
    return found.who_is_right


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_planted_crossover_is_found(seed: int) -> None:
    found = gm.compare(**planted(seed), seed=seed)
    right = right_of(found)
    crossover = right.crossover
    assert crossover is not None and right.leader is None
    assert (crossover.before, crossover.after, crossover.clear) == ("texts", "factors", True)
    assert crossover.high is not None and EQUAL_AT / 2 < crossover.at < 2 * EQUAL_AT
    assert crossover.low <= crossover.at <= crossover.high and crossover.high < 8 * max(crossover.low, 1)
    assert sum(group.pairs for group in right.groups) == right.overall.pairs
    assert right.groups[0].difference.sign == -1 and right.groups[-1].difference.sign == 1
    # Two noisy looks at the same clusters are better than one.
    assert right.overall.gain.sign == 1
    assert any("factors find what people touch together more often than texts" in line for line in found.findings)


def test_the_interval_of_the_crossover_holds_the_planted_one() -> None:
    held = []
    for seed in range(20):
        # About one user of each cluster, so that drawing users again draws clusters, and their noise, again.
        one = planted(seed, clusters=700, size=6)
        a, b = Space.of("factors", one["a"]), Space.of("texts", one["b"])
        items = Items.of(len(a), gm.IdMap(one["ids"]), None, one["counts"])
        pairs = Pairs.drawn(one["interactions"], items, seed)
        crossover = who_is_right(a, b, pairs, items.counts, 20, seed).crossover
        assert crossover is not None and crossover.clear and crossover.high is not None
        assert EQUAL_AT / 1.5 < crossover.at < EQUAL_AT * 1.5
        held.append(crossover.low < EQUAL_AT < crossover.high)
    assert np.mean(held) >= 0.8


def test_the_order_of_the_spaces_is_of_no_matter() -> None:
    given_ = planted(5)
    plain = right_of(gm.compare(**given_))
    swap = {**given_, "a": given_["b"], "b": given_["a"], "names": ("texts", "factors")}
    swapped = right_of(gm.compare(**swap))
    assert swapped.crossover == plain.crossover
    for one, other in zip(plain.groups, swapped.groups, strict=True):
        assert (one.first, one.second, one.both) == (other.second, other.first, other.both)
        assert one.difference.value == -other.difference.value


def test_one_space_that_always_leads_has_no_crossover() -> None:
    given_ = planted(3)
    noise = np.random.default_rng(0).standard_normal(given_["a"].shape)
    found = gm.compare(**{**given_, "a": given_["b"], "b": noise, "names": ("texts", "noise")})
    right = right_of(found)
    assert right.crossover is None and right.leader == "texts"
    assert all(group.second.value < 0.05 for group in right.groups)
    assert any(line == "Texts lead at every number of interactions." for line in found.findings)


def test_equal_spaces_tie() -> None:
    given_ = planted(4)
    found = gm.compare(**{**given_, "b": 3 * given_["a"]})
    right = right_of(found)
    assert right.crossover is None and right.leader is None
    assert right.overall.difference == Estimate(0, 0, 0)
    assert any("no difference between factors and texts is certain" in line for line in found.findings)


def test_without_counts_there_is_one_figure() -> None:
    given_ = planted(0)
    right = right_of(gm.compare(**{**given_, "counts": None}))
    grouped_ = right_of(gm.compare(**given_))
    assert right.groups == () and right.crossover is None
    assert replace(right.overall, typical=1.0) == replace(grouped_.overall, typical=1.0)
    assert right.leader == ("factors" if right.overall.difference.value > 0 else "texts")


def test_noise_shows_no_certain_difference() -> None:
    certain = 0
    for seed in range(12):
        random = np.random.default_rng(seed)
        held = Interactions.from_arrays(np.repeat(np.arange(120), 4), random.integers(0, 100, 480))
        right = right_of(
            gm.compare(*random.standard_normal((2, 100, 5)), ids=np.arange(100), interactions=held, seed=seed)
        )
        certain += right.overall.difference.sign != 0
        assert right.overall.first.low < 20 / 99 + 0.02 and right.overall.first.high > 20 / 99 - 0.02
    assert certain <= 3


def test_behaviour_that_cannot_be_used_is_named() -> None:
    given_ = planted(0, clusters=10)
    with pytest.raises(InvalidInput, match="without ids; give ids="):
        gm.compare(**{**given_, "ids": None})
    others = Interactions.from_arrays([1, 1, 2, 2], ["x", "y", "x", "z"])
    with pytest.raises(InvalidInput, match=r"4 are with other items; ids are such as \['item 0'.*theirs.*'x'"):
        gm.compare(**{**given_, "interactions": others})
    lonely = Interactions.from_arrays([1, 2, 3], ["item 1", "item 2", "item 3"])
    with pytest.raises(InvalidInput, match="no user of the 3 held-out interactions touched two"):
        gm.compare(**{**given_, "interactions": lonely})


def test_items_that_are_not_compared_are_counted() -> None:
    given_ = planted(0, clusters=12)
    given_["a"][:3] = 0
    held = given_["interactions"]
    gone = np.isin(held.items.take(held.item_rows), ["item 0", "item 1", "item 2"]).sum()
    more = Interactions.from_arrays(
        [*(str(user) for user in held.users.take(held.user_rows)), "0", "new"],
        [*held.items.take(held.item_rows), "nowhere", "nowhere"],
    )
    right = right_of(gm.compare(**{**given_, "interactions": more}))
    assert (right.left_out, right.items) == (gone + 2, 12 * 12 - 3)
    assert f"{gone + 2} held-out interactions are with items that are not compared" in str(
        gm.compare(**{**given_, "interactions": more})
    )


@given(st.integers(2, 400), st.integers(0, 99))
def test_pairs_of_one_user_are_different_and_within(n: int, seed: int) -> None:
    first, second = _some_pairs(n, np.random.default_rng(seed))
    assert len(first) == min(PER_USER, n * (n - 1) // 2)
    assert (first != second).all() and min(first.min(), second.min()) >= 0 and max(first.max(), second.max()) < n
    assert len({frozenset(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)}) == len(first)


def test_busy_users_do_not_outweigh_the_others() -> None:
    held = Interactions.from_arrays([0] * 500 + [1, 1], [*range(500), 7, 9])
    items = Items.of(500, gm.IdMap(np.arange(500)), None, None)
    pairs = Pairs.drawn(held, items, 0)
    assert np.bincount(pairs.users).tolist() in ([PER_USER, 1], [1, PER_USER])
    assert {7, 9} in [{int(q), int(r)} for q, r in zip(pairs.asked, pairs.wanted, strict=True)]


@given(st.lists(st.tuples(st.integers(0, 150), st.integers(0, 30)), min_size=1, max_size=400))
def test_every_pair_is_in_one_group_or_told_of(drawn: list[tuple[int, int]]) -> None:
    rarer, users = np.repeat(np.array(drawn), 4, axis=0).T
    judged, dropped = grouped(rarer, users)
    assert (np.sum([group.members for group in [*judged, *dropped]], axis=0) == 1).all()
    assert all(group.members.sum() >= 50 and len(np.unique(users[group.members])) >= 10 for group in judged)
    assert [group.low for group in judged] == sorted(group.low for group in judged)
    for group in (*judged, *dropped):
        found = rarer[group.members]
        assert group.low <= found.min() and (group.high is None or found.max() <= group.high)
        assert (group.low == 0) == (0 in found)


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 90)), min_size=1, max_size=8))
def test_the_monotone_curve_is_that_of_scikit_learn(groups: list[tuple[int, int]]) -> None:
    sums, weights = np.array(groups, float).T
    expected = IsotonicRegression().fit_transform(np.arange(len(sums)), sums / weights, sample_weight=weights)
    assert isotonic(sums[None], weights[None])[0] == pytest.approx(expected, abs=1e-9)


def crossing_of(differences: list[float]) -> tuple[int, float]:
    found = np.tile(np.array(differences) * 100, (3, 1))
    seen = crossing(found, np.full(found.shape, 100.0), np.log1p(np.arange(len(differences)) * 10.0))
    return seen.sign, seen.at


def test_crossings_that_are_known() -> None:
    halfway = np.expm1((np.log1p(10) + np.log1p(20)) / 2)
    assert crossing_of([-0.3, -0.2, 0.2, 0.3]) == (1, pytest.approx(halfway))
    assert crossing_of([0.3, 0.2, -0.2, -0.3]) == (-1, pytest.approx(halfway))
    assert crossing_of([-0.3, -0.2, 0.2, -0.01, 0.4])[1] == pytest.approx(
        np.expm1(np.log1p(10) + (np.log1p(20) - np.log1p(10)) * 0.2 / 0.295)
    )
    assert crossing_of([0.1, 0.2, 0.3]) == (1, 0.0)
    assert crossing_of([-0.3, -0.2, -0.1]) == (1, np.inf)
    assert crossing_of([0.1]) == (1, 0.0) and crossing_of([-0.1]) == (1, np.inf)


def test_an_interval_may_have_no_upper_end() -> None:
    found = np.array([[-10.0, 1.0], *[[-10.0, 1.0]] * 50, *[[-10.0, -5.0]] * 50])
    seen = crossing(found, np.full(found.shape, 100.0), np.array([0.0, 1.0]))
    assert 0 < seen.at < np.expm1(1) and seen.high == np.inf
    right = right_of(gm.compare(**planted(0)))
    assert right.crossover is not None
    comparison = gm.compare(**planted(0))
    endless = replace(comparison, who_is_right=replace(right, crossover=replace(right.crossover, high=None)))
    assert any("to more than was seen" in line for line in findings(endless))
    json.dumps(endless.to_dict(), allow_nan=False)


def judged(monkeypatch: pytest.MonkeyPatch, groups: dict[int, tuple[int, int, int]]) -> WhoIsRight:
    """Of pairs of which each space finds so many of so many, by the number of interactions; 4 pairs a user, and each of
    these finds its part."""
    hits, counts = [], []
    for count, (first, second, pairs) in groups.items():
        turn = np.arange(pairs) * 7919 % pairs  # spread over the users
        hits.append(np.stack([turn < first, turn < second, turn < max(first, second)], axis=1))
        counts += [count] * pairs
    found, rows = np.concatenate(hits), np.arange(len(counts))
    monkeypatch.setattr(module, "ranks", lambda *_: np.where(found, 1, 1000))
    a, b = (Space(name, np.zeros((len(rows), 2), np.float32), np.ones(len(rows))) for name in ("factors", "texts"))
    return who_is_right(a, b, Pairs(rows // 4, rows, rows), np.array(counts), 20, 0)


def said(right: WhoIsRight) -> tuple[str, ...]:
    comparison = gm.compare(*np.random.default_rng(0).standard_normal((2, 30, 3)), names=("factors", "texts"))
    return findings(replace(comparison, who_is_right=right))


def test_a_group_that_the_curve_pools_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it leads for certain the other way round, there is neither a leader nor one clear crossover."""
    right = judged(monkeypatch, {1: (1500, 600, 3000), 3: (200, 350, 1000), 6: (1800, 900, 3000)})
    assert [group.difference.sign for group in right.groups] == [1, -1, 1]
    assert (right.crossover, right.leader) == (None, "factors")
    single = "There is no single crossover: factors lead for certain at 1-2 and 11+, texts at 3-10 interactions."
    assert single.replace("11+", right.groups[-1].label).replace("3-10", right.groups[1].label) in said(right)
    groups = {1: (600, 1500, 3000), 3: (750, 400, 1500), 6: (300, 600, 1500), 11: (1800, 900, 3000)}
    right = judged(monkeypatch, groups)
    assert [group.difference.sign for group in right.groups] == [-1, 1, -1, 1]
    assert right.crossover is not None and not right.crossover.clear
    (line,) = [line for line in said(right) if "crossover" in line or "overtake" in line or "From about" in line]
    assert line.startswith("There is no single crossover: factors lead for certain at 3-5 and 11")
    # A certain group alone against a leader that is certain nowhere.
    unsure = replace(right.groups[1], difference=Estimate(0.2, -0.1, 0.5))
    against = replace(right, groups=(unsure, right.groups[2]), crossover=None, leader="factors")
    assert "Only at 6-10 interactions is a difference certain: there, texts lead." in said(against)


def test_what_could_not_be_judged_is_kept_out_of_every_number(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = judged(monkeypatch, {1: (1500, 600, 3000), 6: (1800, 900, 3000)})
    assert "Factors lead at every number of interactions." in said(whole)
    part = judged(monkeypatch, {0: (4, 36, 40), 1: (1500, 600, 3000), 6: (1800, 900, 3000)})
    assert part.dropped == ("0",)
    assert "Factors lead at every number of interactions that could be judged." in said(part)


def test_few_users_leave_everything_open() -> None:
    rows = np.random.default_rng(0).standard_normal((2, 60, 5))
    for users, line in ((1, "Behaviour of 1 user is too little to tell"), (9, "Behaviour of 9 users is too little")):
        held = Interactions.from_arrays(np.arange(60) % users, np.arange(60))
        found = gm.compare(*rows, ids=np.arange(60), interactions=held)
        overall = right_of(found).overall
        assert (overall.users, overall.difference.sign, overall.gain.sign) == (users, 0, 0)
        assert [(one.low, one.high) for one in (overall.difference, overall.gain)] == [(-1, 1)] * 2
        assert [(one.low, one.high) for one in (overall.first, overall.second, overall.both)] == [(0, 1)] * 3
        assert found.findings[-1].startswith(line)
        assert not any("more often" in finding or "Both together" in finding for finding in found.findings)
    enough = Interactions.from_arrays(np.arange(60) % 10, np.arange(60))
    overall = right_of(gm.compare(*rows, ids=np.arange(60), interactions=enough)).overall
    assert overall.difference.high - overall.difference.low < 1


def test_the_bootstrap_of_a_mean_is_as_wide_as_theory_has_it() -> None:
    values = np.random.default_rng(0).standard_normal((400, 1)) + 3
    found = estimate(resampled_sums(values, 0)[:, 0] / 400)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_none_found_of_few_is_not_certainly_none() -> None:
    random = np.random.default_rng(1)
    rows = random.standard_normal((3000, 8))
    held = Interactions.from_arrays(np.repeat(np.arange(12), 5), random.integers(0, 3000, 60))
    right = right_of(gm.compare(rows, random.standard_normal((3000, 8)), ids=np.arange(3000), interactions=held, k=1))
    assert right.overall.first.value == 0 and 0.2 < right.overall.first.high < 0.3


@pytest.fixture(scope="module")
def sample_index() -> gm.Recommender:
    from geo_mf.data import sample

    config = gm.BuildConfig.of(factors=16, iterations=4, cache=False, learn_blend=False, encoder="hash")
    catalog = gm.read_catalog(sample.articles_path(), text="{title}. {text}")
    return gm.build(gm.read_interactions(sample.interactions_path()), catalog, config=config)


def test_an_index_is_compared_with_answers_it_has_not_seen(sample_index: gm.Recommender) -> None:
    rec = sample_index
    before = [array.copy() for array in (rec.item_factors, rec.history.data, rec.embeddings)]
    found = gm.compare_index(rec, seed=1)
    assert found == gm.compare_index(rec, seed=1)
    assert all(
        (x == y).all() for x, y in zip(before, (rec.item_factors, rec.history.data, rec.embeddings), strict=True)
    )
    hot = ~rec.cold & rec.embeddings.any(axis=1)
    assert (found.items, found.left_out) == (hot.sum(), (~hot).sum())
    assert found.norms[0].spearman > 0.5 and not found.norms[1].varies
    right = right_of(found)
    assert right.items == rec.embeddings.any(axis=1).sum() and right.overall.pairs > 500
    assert found.disagreement.items[0].item.title in rec.titles
    assert json.dumps(found.to_dict(), allow_nan=False)
    # The geometry is that of the centred factors of the index.
    centred = rec.item_factors[hot] - rec.item_factors[~rec.cold].mean(axis=0)
    same = gm.compare(centred, rec.embeddings[hot])
    assert found.similarity.cka == pytest.approx(same.similarity.cka, abs=1e-4)


def test_the_refit_has_not_seen_the_answers(sample_index: gm.Recommender) -> None:
    now = sample_index.now
    held = held_out(now.history, 0)
    lengths = np.diff(now.history.indptr)
    given_ = np.add.reduceat(held.astype(int), now.history.indptr[:-1])
    assert (given_ == np.where(lengths >= 5, np.maximum(np.round(0.2 * lengths), 2), 0)).all()
    assert (held == held_out(now.history, 0)).all() and (held != held_out(now.history, 1)).any()
    # What is held out may say anything: the factors stay.
    from geo_mf.builder.trial import only

    train = only(now.history, ~held)
    again = refitted(now, train)
    other = now.history.copy()
    other.data[held] = 99.0
    assert (refitted(now, only(other, ~held)) == again).all()
    cold = np.bincount(train.indices, minlength=len(now.catalog)) == 0
    assert again[cold].any(axis=1).all()


def test_an_index_of_small_histories_has_geometry_alone(recommender: gm.Recommender) -> None:
    user, step = np.indices((SIZE, 4)).reshape(2, -1)
    few = Interactions.from_arrays(user, [f"i{item}" for item in (user + 2 * step) % SIZE])
    config = gm.BuildConfig.of(factors=4, iterations=2, cache=False, learn_blend=False)
    built = gm.build(few, small_catalog(), config=config, encoder=gm.HashEncoder(dim=16))
    assert np.diff(built.history.indptr).max() < 5
    found = gm.compare_index(built)
    assert found.who_is_right is None and "held-out" not in str(found)
    found = gm.compare_index(recommender, k=5)
    assert right_of(found).k == 5 and found.items == 24


def test_removed_items_are_out_and_bad_indexes_are_named(recommender: gm.Recommender) -> None:
    live = np.ones(len(recommender.catalog), bool)
    live[[0, 1]] = False
    found = gm.compare_index(changed(recommender, live=live))
    assert (found.items, found.left_out) == (22, 3)  # three are without behaviour; two are gone
    ids = {one.item.id for one in found.disagreement.items} | {hub.item.id for hub in found.hubness[0].hubs}
    assert not ids & {"i0", "i1"}
    with pytest.raises(IncompatibleIndex, match="build it again"):
        gm.compare_index(changed(recommender, card={}))
    mute = changed(recommender, embeddings=np.zeros_like(recommender.embeddings))
    with pytest.raises(InvalidInput, match="this index has no text to compare with; build it with a catalogue"):
        gm.compare_index(mute)
    with pytest.raises(InvalidInput, match="k is 25 and 26 items are compared"):
        gm.compare_index(recommender, k=25)
