"""Two spaces compared: each measure against cases known by construction, and against other libraries."""

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

import geo_mf as gm
from geo_mf.comparison.alignment import HELD_OUT, alignment
from geo_mf.comparison.disagreement import standard_cosines
from geo_mf.comparison.neighbours import Neighbours, nearest, skewness
from geo_mf.comparison.ranks import ranks
from geo_mf.comparison.run import compared
from geo_mf.comparison.similarity import similarity
from geo_mf.comparison.spaces import Items, Space
from geo_mf.comparison.spectrum import spectrum

Rows = NDArray[np.floating]


def normal(n: int, dim: int, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).standard_normal((n, dim))


def turned(rows: Rows, seed: int = 9) -> Rows:
    return rows @ np.linalg.qr(normal(rows.shape[1], rows.shape[1], seed))[0]


def planted(share: float, n: int = 600, dim: int = 12) -> tuple[Rows, Rows]:
    """Two spaces whose variance is shared to this part, the rest their own."""
    common, own, other = (normal(n, dim, seed) for seed in (1, 2, 3))
    return share**0.5 * common + (1 - share) ** 0.5 * own, turned(share**0.5 * common + (1 - share) ** 0.5 * other)


def naive_cka(x: Rows, y: Rows) -> float:
    """Song et al. 2012, equation 5, as it stands, with n x n matrices."""
    n, one = len(x), np.ones(len(x))

    def hsic(k: Rows, m: Rows) -> float:
        k, m = (g - np.diag(np.diag(g)) for g in (k, m))
        whole = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return float(np.trace(k @ m) + whole - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))

    kernels = x @ x.T, y @ y.T
    return hsic(*kernels) / (hsic(kernels[0], kernels[0]) * hsic(kernels[1], kernels[1])) ** 0.5


def figures(found: gm.Comparison) -> dict[str, float]:
    """The figures that do not depend on which items were held out, by name."""
    return {
        "cka": found.similarity.cka,
        "biased": found.similarity.biased,
        **{f"shared {one.k}": one.share.value for one in found.overlaps},
        **{f"rank {one.space}": one.effective_rank for one in found.spectra},
        **{f"participation {one.space}": one.participation_ratio for one in found.spectra},
        **{f"skew {one.space}": one.skew for one in found.hubness},
        **{f"antihubs {one.space}": one.antihubs for one in found.hubness},
        **{f"spearman {one.space}": one.spearman for one in found.norms},
    }


@pytest.mark.parametrize("scale", [1.0, 37.0])
def test_a_space_and_its_rotation_are_the_same(scale: float) -> None:
    rows = normal(300, 16)
    found = gm.compare(rows, scale * turned(rows))
    assert found.similarity.cka == pytest.approx(1, abs=1e-6)
    assert found.alignment.residual.value == pytest.approx(0, abs=1e-9)
    assert all(one.r2.value > 0.9999 for one in found.alignment.readings)
    assert all(one.share.value > 0.999 for one in found.overlaps)
    assert found.spectra[0].shares == pytest.approx(found.spectra[1].shares, abs=1e-6)
    assert "the same space" in found.findings[0]


def test_a_space_filled_up_with_zeros_is_the_same() -> None:
    rows = normal(200, 8)
    wider = turned(np.concatenate([rows, np.zeros((200, 5))], axis=1))
    for a, b in ((rows, wider), (wider, rows)):
        found = gm.compare(a, b)
        assert found.alignment.residual.value == pytest.approx(0, abs=1e-9)
        assert found.similarity.cka == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_independent_spaces_have_nothing_in_common(seed: int) -> None:
    found = gm.compare(normal(500, 60, seed), normal(500, 90, seed + 100), seed=seed)
    assert abs(found.similarity.cka) < 0.03
    assert found.similarity.biased > 0.1
    assert all(one.share.low <= one.chance * 1.3 and abs(one.share.value - one.chance) < 0.01 for one in found.overlaps)
    assert 0.98 < found.alignment.residual.value < 1.25
    assert all(-0.05 < one.r2.value < 0.02 for one in found.alignment.readings)
    assert any("Neither space can be read" in line for line in found.findings)


def test_what_is_shared_shows_in_every_measure() -> None:
    found = [gm.compare(*planted(share)) for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    for rising in (
        [one.similarity.cka for one in found],
        [one.overlaps[2].share.value for one in found],
        [1 - one.alignment.residual.value for one in found],
        *([one.alignment.readings[way].r2.value for one in found] for way in (0, 1)),
    ):
        assert rising == sorted(rising) and rising[0] < 0.3 and rising[-1] > 0.3 and len(set(rising)) == 5


def test_a_part_of_a_space_can_be_read_from_the_whole_and_not_the_other_way_round() -> None:
    whole = normal(800, 20)
    found = gm.compare(whole, whole[:, :5], names=("wholes", "parts"))
    forth, back = found.alignment.readings
    assert (forth.source, forth.target, back.source, back.target) == ("parts", "wholes", "wholes", "parts")
    # Rows of a part are brought to unit length by themselves, which no linear map can do.
    assert back.r2.value > 0.9 and 0.15 < forth.r2.value < 0.3
    assert any(line.startswith("Parts can be read from wholes") for line in found.findings)


@settings(max_examples=30)
@given(st.integers(5, 40), st.integers(1, 8), st.integers(1, 60), st.integers(0, 99), st.integers(1, 50))
def test_debiased_cka_is_the_formula(n: int, dx: int, dy: int, seed: int, rows: int) -> None:
    x = normal(n, dx, seed) + 3
    y = normal(n, dy, seed + 1) + (x[:, :1] if seed % 2 else 0)
    found = similarity(x, y, rows)
    assert found.cka == pytest.approx(naive_cka(x, y), abs=1e-8)
    assert abs(found.cka) <= 1 + 1e-9
    centred = [side - side.mean(axis=0) for side in (x, y)]
    kernels = [side @ side.T for side in centred]
    plain = np.vdot(*kernels) / (np.linalg.norm(kernels[0]) * np.linalg.norm(kernels[1]))
    assert found.biased == pytest.approx(plain, abs=1e-8)


def test_debiased_cka_is_zero_on_average_and_the_plain_one_is_not() -> None:
    found = [similarity(normal(60, 30, seed), normal(60, 40, seed + 1000)) for seed in range(200)]
    values = np.array([one.cka for one in found])
    assert abs(values.mean()) < 3 * values.std() / len(values) ** 0.5
    assert np.mean([one.biased for one in found]) > 0.3


def test_neighbours_are_the_nearest_by_cosine() -> None:
    space = Space.of("a", normal(80, 5))
    cosines = space.directions.astype(float) @ space.directions.T
    np.fill_diagonal(cosines, -9)
    found = nearest(space.directions, np.arange(80), 12)
    assert np.take_along_axis(cosines, found, axis=1) == pytest.approx(-np.sort(-cosines, axis=1)[:, :12], abs=1e-6)
    some = np.array([3, 50, 79])
    assert (nearest(space.directions, some, 12, rows=2) == found[some]).all()


@given(st.integers(0, 1000), st.integers(11, 40), st.integers(1, 4))
def test_overlap_is_counted_as_it_is_defined(seed: int, n: int, dim: int) -> None:
    a, b = (Space.of(name, normal(n, dim, seed + at)) for at, name in enumerate("ab"))
    found = Neighbours.of(a, b, np.arange(n))
    for one in found.overlaps(n):
        shared = [len(set(x[: one.k]) & set(y[: one.k])) for x, y in zip(found.first, found.second, strict=True)]
        assert one.share.value == pytest.approx(np.mean(shared) / one.k)
        assert one.chance == one.k / (n - 1)
        assert 0 <= one.share.low <= one.share.value <= one.share.high <= 1


def test_items_alike_are_neighbours_of_each_other_and_never_of_themselves() -> None:
    rows = np.repeat(normal(4, 6), 30, axis=0)
    space = Space.of("a", rows)
    found = nearest(space.directions, np.arange(120), 10)
    assert not (found == np.arange(120)[:, None]).any()
    assert (found // 30 == np.arange(120)[:, None] // 30).all()
    assert all(len(set(line)) == 10 for line in found.tolist())


def test_ties_are_neither_shared_nor_hubs() -> None:
    """Rows of which many are equal, as attributes or texts may be: the order of rows must not pass for agreement."""
    random = np.random.default_rng(0)
    a, b = (np.eye(5)[random.integers(0, 5, 1000)] for _ in range(2))
    found = gm.compare(a, b)
    for one in found.overlaps:
        assert one.share.value == pytest.approx(one.chance, abs=0.005)
    assert all(one.skew < 1 and one.antihubs < 0.01 for one in found.hubness)
    assert not any("hubs" in line for line in found.findings)
    space, asked = Space.of("a", a), np.arange(0, 1000, 3)
    first, other = nearest(space.directions, asked, 10), nearest(space.directions, asked, 10, ties=1)
    assert (first == nearest(space.directions, asked, 10)).all() and (first != other).any(axis=1).all()
    for found_ in (first, other):
        assert (a[found_] == a[asked][:, None]).all() and not (found_ == asked[:, None]).any()
        assert all(len(set(line)) == 10 for line in found_.tolist())


def test_hubs_are_found() -> None:
    # All point away from each other and towards one.
    star = np.concatenate([np.eye(120), np.ones((1, 120))]) + 1e-3 * normal(121, 120)
    found = gm.compare(star, normal(121, 6), titles=[f"star {n}" for n in range(121)])
    hub = found.hubness[0].hubs[0]
    assert (hub.item.id, hub.item.title, hub.count) == (120, "star 120", 120)
    assert found.hubness[0].skew > 2 > found.hubness[1].skew
    assert any("Factors have hubs: star 120 is among the 10 nearest of 120 items" in line for line in found.findings)


@given(st.lists(st.integers(0, 50), min_size=3, max_size=40))
def test_skewness_is_that_of_scipy(values: list[int]) -> None:
    expected = 0.0 if len(set(values)) == 1 else float(stats.skew(values))
    assert skewness(np.array(values)) == pytest.approx(expected, abs=1e-9)


def test_ridge_is_that_of_scikit_learn() -> None:
    a, b = (Space.of(name, rows) for name, rows in zip("ab", planted(0.5, n=300), strict=True))
    found = alignment(a, b, seed=4)
    order = np.random.default_rng(4).permutation(300)
    held, learned = order[: round(HELD_OUT * 300)], order[round(HELD_OUT * 300) :]
    assert found.held_out == len(held)
    for reading, x, y in zip(found.readings, (b.directions, a.directions), (a.directions, b.directions), strict=True):
        x, y = x.astype(float), y.astype(float)
        centred = x[learned] - x[learned].mean(axis=0)
        strength = reading.penalty * np.trace(centred.T @ centred) / x.shape[1]
        told = Ridge(alpha=strength).fit(x[learned], y[learned]).predict(x[held])
        expected = r2_score(y[held], told, multioutput="variance_weighted")
        assert reading.r2.value == pytest.approx(expected, abs=1e-6)
        assert reading.r2.low < reading.r2.value < reading.r2.high


def test_the_residual_is_that_of_a_rotation_of_the_padded_spaces() -> None:
    x, y = planted(0.4, n=200)
    a, b = Space.of("a", x), Space.of("b", y[:, :7])
    order = np.random.default_rng(0).permutation(200)
    held, learned = order[:40], order[40:]
    padded = [np.zeros((200, 12)), np.zeros((200, 12))]
    for full, space in zip(padded, (a, b), strict=True):
        full[:, : space.directions.shape[1]] = space.directions
        full -= full[learned].mean(axis=0)
    ways = []
    for source, target in (padded, padded[::-1]):
        left, values, right = np.linalg.svd(source[learned].T @ target[learned])
        laid = values.sum() / (source[learned] ** 2).sum() * source[held] @ left @ right
        ways.append(((laid - target[held]) ** 2).sum() / (target[held] ** 2).sum())
    assert alignment(a, b, seed=0).residual.value == pytest.approx(np.mean(ways), abs=1e-9)
    swapped = alignment(b, a, seed=0)
    assert swapped.residual.value == pytest.approx(np.mean(ways), abs=1e-9)


def test_a_spectrum_that_is_known() -> None:
    axes = np.concatenate([np.eye(4), -np.eye(4)] * 5)
    found = spectrum(Space.of("cross", np.pad(axes, ((0, 0), (0, 3)))))
    assert found.shares == pytest.approx([0.25] * 4 + [0] * 3)
    assert found.effective_rank == pytest.approx(4) and found.participation_ratio == pytest.approx(4)
    rows = Space.of("rows", normal(50, 6) * [5, 4, 3, 2, 1, 1])
    values = np.linalg.svd(rows.directions - rows.directions.mean(axis=0), compute_uv=False)
    found = spectrum(rows, rows=7)
    assert found.shares == pytest.approx(values**2 / (values**2).sum(), abs=1e-6)
    assert found.effective_rank == pytest.approx(np.exp(stats.entropy(values)), rel=1e-5)


def test_length_that_is_popularity() -> None:
    random = np.random.default_rng(0)
    counts = random.geometric(0.02, 400)
    rows = normal(400, 8)
    rows *= (np.log1p(counts) / np.linalg.norm(rows, axis=1))[:, None]
    unit = normal(400, 5)
    unit = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype(np.float16)
    popular, even = gm.compare(rows, unit, counts=counts).norms
    assert popular.spearman == pytest.approx(1) and popular.varies
    lengths = np.linalg.norm(rows, axis=1)
    assert popular.r2 == pytest.approx(np.corrcoef(np.log1p(counts), np.log(lengths))[0, 1] ** 2)
    assert (even.spearman, even.r2, even.varies) == (0, 0, False)
    assert gm.compare(rows, unit, counts=counts).findings[3].startswith("The length of factors is mostly popularity")
    noisy = normal(400, 8, seed=5)
    expected = np.asarray(stats.spearmanr(np.linalg.norm(noisy, axis=1), counts))[0]
    assert gm.compare(noisy, unit, counts=counts).norms[0].spearman == pytest.approx(expected)


def test_length_that_goes_with_popularity_is_not_mostly_popularity() -> None:
    random = np.random.default_rng(0)
    counts = random.integers(1, 500, 2000)
    standard = (np.log1p(counts) - np.log1p(counts).mean()) / np.log1p(counts).std()
    unit, other = normal(2000, 8), normal(2000, 6)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    lengths = np.exp(0.7 * random.standard_normal(2000) + 0.55 * standard)
    found = gm.compare(unit * lengths[:, None], other, counts=counts)
    assert found.norms[0].spearman > 0.5 > found.norms[0].r2
    said = [line for line in found.findings if "length" in line]
    assert said == [f"The length of factors goes with popularity (rank correlation {found.norms[0].spearman:.2f})."]


def test_the_order_of_rows_is_of_no_matter() -> None:
    a, b = planted(0.5, n=200)
    counts, order = np.arange(200) % 30, np.random.default_rng(2).permutation(200)
    ids = np.array([f"i{n}" for n in range(200)])
    plain = gm.compare(a, b, ids=ids, counts=counts)
    mixed = gm.compare(a[order], b[order], ids=ids[order], counts=counts[order])
    assert figures(mixed) == pytest.approx(figures(plain), abs=1e-6)
    assert mixed.disagreement == plain.disagreement
    assert {hub.item.id: hub.count for hub in mixed.hubness[0].hubs}.keys() <= set(ids)


def test_the_size_of_chunks_is_of_no_matter() -> None:
    a, b = (Space.of(name, rows) for name, rows in zip("ab", planted(0.5, n=150), strict=True))
    everything = np.arange(150)
    assert astuple(similarity(a.directions, b.directions, 7)) == pytest.approx(
        astuple(similarity(a.directions, b.directions))
    )
    assert spectrum(a, 11).shares == pytest.approx(spectrum(a).shares, abs=1e-12)
    whole, parts = Neighbours.of(a, b, everything), Neighbours.of(a, b, everything, rows=13)
    assert (whole.first == parts.first).all() and (whole.second == parts.second).all()
    one, other = alignment(a, b, 0), alignment(a, b, 0, rows=17)
    assert astuple(one.residual) == pytest.approx(astuple(other.residual), abs=1e-9)
    assert astuple(one.readings[0].r2) == pytest.approx(astuple(other.readings[0].r2), abs=1e-9)
    asked, wanted = np.random.default_rng(0).integers(0, 150, (2, 300))
    asked, wanted = asked[asked != wanted], wanted[asked != wanted]
    assert (ranks(a, b, asked, wanted, 151) == ranks(a, b, asked, wanted)).all()


def test_a_sample_is_asked_where_there_are_many_items() -> None:
    x, y = planted(0.5, n=400)
    a, b, items = Space.of("a", x), Space.of("b", y), Items.of(400, None, None, None)
    whole, part = (compared(a, b, items, 0, 0, None, asked=asked) for asked in (400, 150))
    assert (whole.asked, part.asked, part.items) == (400, 150, 400)
    assert [one.chance for one in whole.overlaps] == [one.chance for one in part.overlaps]
    for all_of_them, some in zip(whole.overlaps, part.overlaps, strict=True):
        assert some.share.low - 0.01 < all_of_them.share.value < some.share.high + 0.01
    assert part.hubness[0].items == 150 and part.hubness[0].antihubs < 0.05
    assert "sample of 150 items (seed 0)" in str(part) and "sample" not in str(whole)
    assert "hubs and who is nobody's neighbour are those of this sample among itself" in str(part)
    star = Space.of("stars", np.concatenate([np.eye(380), np.ones((20, 380))]) + 1e-3 * normal(400, 380))
    few, every = (compared(star, b, items, 0, 0, None, asked=asked) for asked in (150, 400))
    assert any("Stars have hubs: in a sample of 150 items, " in line for line in few.findings)
    assert not any("sample" in line for line in every.findings)


def test_ranks_are_counted_as_they_are_defined() -> None:
    a, b = Space.of("a", np.round(normal(60, 3)) + [0, 0, 9]), Space.of("b", normal(60, 4))
    asked, wanted = np.array([0, 0, 5, 59]), np.array([1, 30, 4, 0])
    found = ranks(a, b, asked, wanted)
    cosines = [space.directions @ space.directions.T for space in (a, b)]
    for column, cosine in enumerate([*cosines, (cosines[0] + cosines[1]) / 2]):
        for line, (q, r) in enumerate(zip(asked, wanted, strict=True)):
            others = np.delete(cosine[q], [q, r])
            tied = np.isclose(others, cosine[q, r], atol=1e-6, rtol=0)
            assert found[line, column] == 1 + ((others > cosine[q, r]) & ~tied).sum() + tied.sum() / 2


def test_equal_items_share_their_ranks() -> None:
    space = Space.of("a", np.repeat(normal(2, 4), 10, axis=0))
    assert ranks(space, space, np.array([0, 0]), np.array([3, 15])).tolist() == [[5.0] * 3, [14.5] * 3]


def test_a_planted_disagreement_is_found() -> None:
    base = normal(300, 10)
    base[[6, 41]] = -base[[5, 40]]
    a, b = base.copy(), turned(base)
    # Items that point away from each other: 5 lies by 6 in the first space alone, 40 by 41 in the second alone.
    a[5] = a[6] + 0.01
    b[40] = b[41] + 0.01
    found = gm.compare(a, b, titles=[f"t{n}" for n in range(300)]).disagreement
    assert {found.near_in_first[0].item.id, found.near_in_first[0].other.id} == {5, 6}
    assert {found.near_in_second[0].item.id, found.near_in_second[0].other.id} == {40, 41}
    assert found.near_in_first[0].ranks == (1, 299)
    assert {one.item.id for one in found.items[:2]} == {5, 40}
    assert found.items[0].overlap < 0.3 and min(found.items[0].ranks) > 10
    assert (found.judged, found.least, found.items[0].item.title[0]) == (300, 0, "t")
    pairs = [frozenset((one.item.id, one.other.id)) for one in found.near_in_first]
    assert len(set(pairs)) == len(pairs)


def test_items_of_which_little_is_known_are_not_called_odd() -> None:
    a, b = planted(0.9, n=200)
    counts = np.full(200, 50)
    strange = np.arange(0, 200, 4)
    a[strange] = normal(50, 12, seed=7)
    counts[strange] = 4
    found = gm.compare(a, b, counts=counts).disagreement
    named = [one.item.id for one in found.items]
    for pair in (*found.near_in_first, *found.near_in_second):
        named += [pair.item.id, pair.other.id]
    assert not set(named) & set(strange.tolist()) and (found.judged, found.least) == (150, 5)
    everybody = gm.compare(a, b).disagreement
    assert {one.item.id for one in everybody.items} <= set(strange.tolist())
    nobody = gm.compare(a, b, counts=np.zeros(200, int))
    assert nobody.disagreement.items == nobody.disagreement.near_in_first == () and str(nobody)


def test_standard_cosines() -> None:
    space = Space.of("a", normal(70, 5) + 0.5)
    cosines = space.directions[3].astype(float) @ space.directions.T
    expected = (cosines[[9, 10]] - cosines.mean()) / cosines.std()
    assert standard_cosines(space, np.array([3]), np.array([[9, 10]]))[0] == pytest.approx(expected, abs=1e-4)
