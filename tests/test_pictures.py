"""Figures of comparisons, calibration, fits and searches: what they say, and that nothing is cut off or covered."""

import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Text
from numpy.typing import NDArray

from geo_mf import plot
from geo_mf.errors import InvalidInput, MissingExtra
from geo_mf.plot.calibrated import wilson
from geo_mf.plot.fitting import cut, width, wrapped
from geo_mf.plot.flat import flatten
from geo_mf.plot.movers import moving
from geo_mf.plot.scales import Short, written
from geo_mf.plot.style import blank

LONG = "Überaus lange Wörter, die in keine Zeile passen, и ещё несколько слов, και λίγα ακόμα, " * 3
NAMES = [
    "factors",
    "$x^_{",
    "_hidden",
    "Faktoren aus dem Verhalten von Leserinnen und Lesern in Köln",
    "история",
    "a name " * 20,
]


@dataclass(frozen=True)
class Part:
    """A figure with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Near:
    k: int
    share: Part
    chance: float


@dataclass(frozen=True)
class Pairs:
    label: str
    low: int
    high: int | None
    typical: float | None
    pairs: int
    first: Part
    second: Part
    both: Part
    difference: Part


@dataclass(frozen=True)
class Cross:
    before: str
    after: str
    at: float
    low: float
    high: float | None
    clear: bool


@dataclass(frozen=True)
class Right:
    k: int
    overall: Pairs
    groups: Sequence[Pairs]
    crossover: Cross | None = None
    leader: str | None = None
    dropped: Sequence[str] = ()


def part(value: float, half: float = 0.02) -> Part:
    return Part(value, max(value - half, 0.0), min(value + half, 1.0))


def group(
    first: float, second: float, low: int = 0, high: int | None = 0, pairs: int = 1234, half: float = 0.02
) -> Pairs:
    """Pairs with `low` to `high` interactions."""
    label = f"{low}+" if high is None else f"{low}-{high}" if high > low else str(low)
    typical = float(low) if high is None else (low + high) / 2
    apart = first - second
    both = part(min(max(first, second) + 0.03, 1.0), half)
    return Pairs(label, low, high, typical, pairs, part(first, half), part(second, half), both,
                 Part(apart, apart - half, apart + half))  # fmt: skip


GROUPS = [
    group(0.02 + 0.06 * n, 0.15 + 0.015 * n, *ends)
    for n, ends in enumerate([(0, 0), (1, 2), (3, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, None)])
]
CROSS = Cross("embeddings", "factors", 7.6, 4.1, 15.0, True)


def lists(items: int, lead: float = 0.0, cold: float = 0.2, scale: float = 1.0) -> tuple[NDArray, NDArray, NDArray]:
    """Scores, whether they were right, and cold. `lead`: how much too high cold items are scored."""
    random = np.random.default_rng(items)
    truth, new = random.normal(size=items), random.random(items) < cold
    return (truth + lead * new) * scale, random.random(items) < 0.4 / (1 + np.exp(-truth)), new


def epochs(count: int, late: int = 0) -> list[tuple[int, float, float, float | None]]:
    """What the callback of a fit gets: the figure on interactions held out is best after epoch 14 + late."""
    return [
        (n, 0.1, 5 * np.exp(-n / 9) + 0.4, 0.3 - 0.0008 * (n - 13 - late) ** 2 if n % 2 else None) for n in range(count)
    ]


CURVE = [(0.836, 23200), (0.871, 19300), (0.908, 14200), (0.938, 9200), (0.957, 5300), (0.967, 1580)]
SHARES = np.linspace(0, 1, 11)
BAND = np.stack([0.3 - 0.2 * (SHARES - 0.4) ** 2 + end for end in (0, -0.006, 0.006)], axis=1)
SPACE = np.random.default_rng(3).normal(size=(60, 8))
TITLES = [f"A rather long title for the item of number {n}" for n in range(60)]

PICTURES: dict[str, Callable[[], Figure]] = {
    "overlap": lambda: plot.overlap_curve([Near(k, part(0.1 + k / 500), k / 3000) for k in (1, 5, 10, 20, 50, 100)]),
    "overlap of one k": lambda: plot.overlap_curve([Near(10, part(0.003, 0.001), 0.0033)]),
    "overlap of all": lambda: plot.overlap_curve([Near(k, part(k / 60), k / 60) for k in range(1, 61)], title=LONG),
    "overlap of nothing": lambda: plot.overlap_curve([Near(k, Part(0, 0, 0), 0.0) for k in (1, 10**6)]),
    "crossover": lambda: plot.crossover(Right(20, GROUPS[0], GROUPS, CROSS)),
    "no crossover": lambda: plot.crossover(Right(20, group(0.1, 0.3), GROUPS, None, "embeddings")),
    "one group": lambda: plot.crossover(Right(20, group(0.1, 0.11), [])),
    "many groups": lambda: plot.crossover(
        Right(20, GROUPS[0], [group(0.5, 0.4, 100 * n, 100 * n + 99, 10**n) for n in range(14)], CROSS),
        (NAMES[3], NAMES[5]),
    ),
    "calibration": lambda: plot.calibration(*lists(5000, 1.2)),
    "calibration of few": lambda: plot.calibration(*lists(30), names=("$_", NAMES[3])),
    "calibration of tiny scores": lambda: plot.calibration(*lists(3000, scale=1e-7), bins=40),
    "calibration of one kind": lambda: plot.calibration(*lists(300, cold=0.0)),
    "calibration of one score": lambda: plot.calibration([1.0] * 4, np.arange(4) > 1, np.arange(4) % 2 == 0),
    "loss": lambda: plot.training_loss([(n, 0.1, 1e6 * (0.4 + 0.6 * np.exp(-n / 2))) for n in range(15)]),
    "loss of six": lambda: plot.training_loss({name: epochs(40, n) for n, name in enumerate(NAMES)}),
    "loss of one epoch": lambda: plot.training_loss([0.69]),
    "steep loss": lambda: plot.training_loss({"a": [1e9, 1e3, 1.0], "b": [1e9, 1e8, 1e7, 1e6]}),
    "flat loss": lambda: plot.training_loss([1000001, 1000000.5, 1000000.4], loss=LONG, title=LONG),
    "speed": lambda: plot.recall_speed({"all rows": [(1.0, 830)], "IVF": CURVE}, target=0.95, note=LONG),
    "speed of six": lambda: plot.recall_speed({name: np.array(CURVE) * (1, n + 1) for n, name in enumerate(NAMES)}),
    "speed of one point": lambda: plot.recall_speed({"exact": [(1.0, 123.4)]}),
    "choice": lambda: plot.validation_curve(SHARES, BAND, setting="share of text", metric="NDCG@10"),
    "choice of six": lambda: plot.validation_curve(
        [8, 16, 32, 64, 128, 256], {name: np.arange(6) + n for n, name in enumerate(NAMES)}, setting=LONG, metric=LONG
    ),
    "choice of one": lambda: plot.validation_curve([64], [[0.2, 0.1, 0.3]], setting="rank", metric="NDCG@10"),
    "choice of tiny": lambda: plot.validation_curve([1e-9, 1e-3, 1e3], [1e-7, 1.0001e-7, 1.0002e-7], smaller=True),
    "movers": lambda: plot.two_maps(SPACE, SPACE[::-1], None, TITLES, movers=8, mark=[3]),
    "a few movers": lambda: plot.two_maps(SPACE, SPACE[::-1], ["a", "b", "c"] * 20, movers=[1, 58, 30]),
}


def said(figure: Figure) -> str:
    """The title, in one line."""
    return figure.axes[0].get_title(loc="left").replace("\n", " ")


def keys(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def boxes(figure: Figure) -> dict[str, list[NDArray[np.float64]]]:
    """Where words stand, in pixels: of the picture, of each scale, and of the key."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()

    def extents(texts: Sequence[Text]) -> list[NDArray[np.float64]]:
        found = (np.asarray(text.get_window_extent(renderer).extents) for text in texts if text.get_text().strip())
        return [box for box in found if (box[2:] > box[:2]).all()]

    around: list[Text] = []
    scales: dict[str, list[NDArray[np.float64]]] = {}
    for number, axes in enumerate(figure.axes):
        around += [axes.xaxis.label, axes.yaxis.label, axes._left_title]  # type: ignore[attr-defined]
        for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            scales[f"{name}{number}"] = extents([tick.label1 for tick in ticks if tick.label1.get_visible()])
    if figure._supxlabel is not None:  # type: ignore[attr-defined]
        around.append(figure._supxlabel)  # type: ignore[attr-defined]
    legend = figure.axes[0].get_legend()
    key = [] if legend is None else [np.asarray(legend.get_window_extent(renderer).extents)]
    frames = [np.asarray(axes.get_window_extent(renderer).extents) for axes in figure.axes]
    return {"around": extents(around), "key": key, "frames": frames, **scales}


def points(line: Line2D) -> NDArray[np.float64]:
    """x and y of a line, [2, n]."""
    return np.array([np.asarray(values, float) for values in line.get_data()])


def cover(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return bool(np.all(np.minimum(a[2:], b[2:]) > np.maximum(a[:2], b[:2]) + 1.0))


def check(figure: Figure) -> None:
    """Nothing is cut off, no words cover other words, and neither title, key nor labels cover the data."""
    found = boxes(figure)
    wide, high = figure.get_size_inches() * figure.dpi
    everything = list(itertools.chain.from_iterable(found.values()))
    for box in everything:
        assert (box[:2] >= -0.5).all() and box[2] <= wide + 0.5 and box[3] <= high + 0.5, (box, wide, high)
    frames = found.pop("frames")
    for frame in frames:
        assert ((frame[2:] - frame[:2]) > 150).all()
        for box in [*found["around"], *found["key"]]:
            assert not cover(box, frame)
    words = list(itertools.chain.from_iterable(found.values()))
    for a, b in itertools.combinations(words, 2):
        assert not cover(a, b)


@pytest.mark.parametrize("name", PICTURES)
def test_nothing_is_cut_off_or_covered(name: str) -> None:
    before = matplotlib.rcParams.copy()
    figure, again = PICTURES[name](), PICTURES[name]()
    assert isinstance(figure, plot.Picture) and isinstance(again, plot.Picture)
    assert figure._repr_png_() == again._repr_png_()
    check(figure)
    assert said(figure)
    assert matplotlib.rcParams.copy() == before


finite = st.floats(-1e12, 1e12, allow_subnormal=False)


@given(
    st.lists(st.tuples(finite, finite), min_size=1, max_size=40, unique_by=lambda pair: pair[0]),
    st.integers(1, 6),
    st.text(st.characters(codec="latin-1", exclude_categories=("Cc", "Cf")), max_size=60),
)
@settings(max_examples=10, deadline=None)
def test_curves_of_any_size_stay_in_their_place(points: list[tuple[float, float]], many: int, name: str) -> None:
    x, y = np.array(points).T
    check(plot.validation_curve(x, {f"{n}{name}": y + n for n in range(many)}, setting=name, metric=name or "m"))


@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=60), st.integers(1, 6))
@settings(max_examples=8, deadline=None)
def test_losses_of_any_size_stay_in_their_place(losses: list[float], many: int) -> None:
    check(plot.training_loss({NAMES[n]: losses[n:] or losses for n in range(many)}))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1e-2, 1e8)), min_size=1, max_size=12), st.floats(0, 1))
@settings(max_examples=8, deadline=None)
def test_rates_of_any_size_stay_in_their_place(points: list[tuple[float, float]], target: float) -> None:
    check(plot.recall_speed({"first": points, "second": points[:1]}, target=target))


@given(st.integers(1, 300), st.integers(1, 30), st.floats(0, 1), st.sampled_from([1e-12, 1e-3, 1.0, 1e7]))
@settings(max_examples=8, deadline=None)
def test_calibration_of_any_size_stays_in_its_place(items: int, bins: int, cold: float, scale: float) -> None:
    check(plot.calibration(*lists(items, cold=cold, scale=scale), bins=bins))


# Numbers and words


def test_numbers_are_short() -> None:
    told = {
        0: "0",
        5: "5",
        9999: "9,999",
        10_000: "10 k",
        1_234_567: "1.23 M",
        0.05: "0.05",
        -2.5: "−2.5",
        3e-9: "3e−9",
    }
    assert {x: written(x) for x in told} == told


@given(st.floats(-1e9, 1e9), st.sampled_from([0.25, 1.0, 2.0, 2.5, 5.0]), st.integers(-4, 6), st.integers(2, 9))
def test_numbers_of_an_axis_are_told_apart(start: float, step: float, power: int, count: int) -> None:
    step *= 10.0**power
    first = round(start / step) * step
    if abs(first) < 1e6 * step:
        assert len(set(Short().format_ticks([first + n * step for n in range(count)]))) == count


@given(st.text(max_size=200), st.floats(60, 700), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_words_fit_their_room(words: str, room: float, lines: int) -> None:
    figure = blank(4, 3)
    words = "".join(sign for sign in words if sign.isascii() and sign.isprintable())
    done = wrapped(figure, words, 12, room, lines).split("\n")
    assert len(done) <= lines
    assert all(width(figure, line, 12) <= room for line in done)
    if not any(line.endswith("…") for line in done):
        assert "".join(done).replace(" ", "") == words.replace(" ", "")


def test_short_words_are_not_cut() -> None:
    assert cut(blank(4, 3), "as they are", 12, 500) == "as they are"


# What the pictures say


def test_overlap_is_told_at_ten() -> None:
    figure = PICTURES["overlap"]()
    assert said(figure) == "Of an item's 10 nearest, the two spaces share 12 %; chance would give 0.33 %".replace(
        " %", "\u00a0%"
    )
    shared, chance = figure.axes[0].get_lines()
    np.testing.assert_allclose(points(shared)[1], 100 * (0.1 + np.array([1, 5, 10, 20, 50, 100]) / 500))
    np.testing.assert_allclose(points(chance)[1], np.array([1, 5, 10, 20, 50, 100]) / 30)


def test_the_crossover_is_marked_where_the_lines_cross() -> None:
    """Two groups at 1 and 7 interactions, and shares that cross halfway in log(1 + n): at 3."""
    groups = [group(0.1, 0.2, 1, 1), group(0.3, 0.2, 7, 7)]
    figure = plot.crossover(Right(10, groups[0], groups, Cross("embeddings", "factors", 3.0, 1.0, None, True)))
    assert said(figure) == "From about 3 interactions on (1 or more), more is found by factors than by embeddings"
    (span,) = figure.axes[0].patches
    assert span.get_extents().transformed(figure.axes[0].transData.inverted()).x0 == pytest.approx(-0.5)
    dotted = figure.axes[0].get_lines()[-1]
    np.testing.assert_allclose(points(dotted)[0], 0.5)
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert labels == ["1\n1,234", "7\n1,234"]


def test_without_a_crossover_the_title_says_who_leads_or_that_nobody_does() -> None:
    assert said(PICTURES["no crossover"]()) == "Altogether, more is found by embeddings than by factors"
    certain = [group(0.1, 0.3), group(0.2, 0.4)]
    every = plot.crossover(Right(20, certain[0], certain, None, "embeddings"))
    assert said(every) == "At every number of interactions, more is found by embeddings than by factors"
    assert said(PICTURES["one group"]()) == "No clear difference: factors and embeddings find about as much"
    part = plot.crossover(Right(20, certain[0], certain, None, "embeddings", ("0",)))
    assert said(part).replace("\n", " ").startswith("At every number of interactions that could be judged, more is")
    # Whoever leads in the groups may be behind altogether.
    behind = plot.crossover(Right(20, group(0.5, 0.2), certain, None, "embeddings", ("0",)))
    assert said(behind) == "Altogether, more is found by factors than by embeddings"
    unclear = Cross("embeddings", "factors", 7.6, 0.0, None, False)
    assert said(plot.crossover(Right(5, GROUPS[0], GROUPS, unclear))).startswith("Not certain: from about 8")


def test_calibration_sees_scores_that_are_too_high_and_only_those() -> None:
    assert said(plot.calibration(*lists(20_000, 1.2))).startswith("Cold items are scored too high")
    assert said(plot.calibration(*lists(20_000, -1.2))).startswith("Cold items are scored too low")
    assert said(plot.calibration(*lists(20_000))).startswith("Equal scores mean equal chances")
    assert said(PICTURES["calibration of one kind"]()) == "Only warm items: nothing to compare"
    split = plot.calibration(np.arange(6.0), np.ones(6, bool), np.arange(6) > 2)
    assert keys(split.axes[0]) == ["warm: 3 items", "cold: 3 items"]


def test_every_item_is_counted_in_a_bin() -> None:
    scores, right, cold = lists(2000)
    warm, new = plot.calibration(scores, right, cold, bins=1).axes[0].get_lines()
    np.testing.assert_allclose(points(warm)[1], [100 * right[~cold].mean()])
    np.testing.assert_allclose(points(new)[1], [100 * right[cold].mean()])


def test_wilson_intervals() -> None:
    """Wilson (1927): its ends solve |share - p| = z sqrt(p (1 - p) / n)."""
    right, asked = np.array([0, 3, 50, 7]), np.array([5, 10, 100, 7])
    for end in wilson(right, asked):
        bound = 1.959963984540054 * np.sqrt(end * (1 - end) / asked)
        inner = (end > 0) & (end < 1)
        np.testing.assert_allclose(np.abs(right / asked - end)[inner], bound[inner], atol=1e-12)


def test_the_best_epoch_is_ringed() -> None:
    figure = plot.training_loss(epochs(30))
    assert said(figure) == "Best after epoch 14: 0.3 NDCG@20 on interactions held out"
    ring = next(line for line in figure.axes[1].get_lines() if line.get_markerfacecolor() == "none")
    np.testing.assert_allclose(points(ring), [[14], [0.3]])
    drawn = figure.axes[1].get_lines()[0]
    np.testing.assert_array_equal(points(drawn)[0], np.arange(2, 31, 2))
    worst = plot.training_loss(epochs(30), smaller=True)
    assert said(worst).startswith("Best after epoch 30")


def test_a_loss_is_told_with_its_last_change() -> None:
    assert said(plot.training_loss([4.0, 2.0])) == "Training loss 2 after epoch 2: it fell by 50 % in the last epoch"
    assert said(plot.training_loss([2.0, 2.0])) == "Training loss 2 after epoch 2: it no longer changes"
    assert said(plot.training_loss([(7, 0.1, 5.0)])) == "Training loss 5 after epoch 8"
    assert plot.training_loss([1e6, 1.0]).axes[0].get_yscale() == "log"


def test_the_fastest_index_that_finds_enough_is_named() -> None:
    # Between two settings a line is worth what it shows there: 6,500 at .95, between 9,200 and 5,300.
    measured = {"all rows": [(1.0, 830)], "IVF": CURVE}
    assert said(plot.recall_speed(measured, target=0.95)).endswith("the fastest is IVF (6,500 queries a second)")
    assert said(plot.recall_speed(measured, target=0.96)).endswith("the fastest is IVF (3,700 queries a second)")
    assert said(plot.recall_speed({"IVF": CURVE}, target=0.99)) == "Nothing reaches recall 0.99; the most is 0.967"
    assert keys(plot.recall_speed(measured, target=0.95).axes[0]) == ["all rows", "IVF", "wanted: 0.95"]


def test_the_best_setting_is_marked_whatever_the_order() -> None:
    figure = plot.validation_curve(SHARES[::-1], BAND[::-1], setting="share of text", metric="NDCG@10")
    assert said(figure) == "NDCG@10 is best at share of text 0.4: 0.3"
    assert figure.axes[0].get_xscale() == "linear"
    rank = plot.validation_curve([8, 512, 64], {"a": [3.0, 2, 1], "b": [2.0, 2, 0.5]}, setting="rank", smaller=True)
    assert said(rank) == "Metric is best at rank 64 (b): 0.5"
    assert rank.axes[0].get_xscale() == "log"
    assert keys(rank.axes[0]) == ["a: best at 64", "b: best at 64"]


# Movers


def swapped() -> NDArray[np.float64]:
    """SPACE, in which the two rows farthest apart on the map have changed places."""
    points = flatten(SPACE, "space").points
    one, other = np.unravel_index(np.argmax(np.linalg.norm(points[:, None] - points[None], axis=2)), (60, 60))
    moved = SPACE.copy()
    moved[[one, other]] = SPACE[[other, one]]
    return moved


def test_the_items_that_move_farthest_get_arrows_from_place_to_place() -> None:
    moved = swapped()
    rows = np.flatnonzero((moved != SPACE).any(axis=1))
    left, right = flatten(SPACE, "a"), flatten(moved, "b")
    right = right.laid_over(left)
    assert set(moving(2, left, right)) == set(rows)
    axes = plot.two_maps(SPACE, moved, movers=2).axes
    arrows = [one for one in axes[1].patches if isinstance(one, FancyArrowPatch)]
    ends = np.array([one._posA_posB for one in arrows])  # type: ignore[attr-defined]
    order = moving(2, left, right)
    np.testing.assert_allclose(ends[:, 0], left.points[order], atol=1e-9)
    np.testing.assert_allclose(ends[:, 1], right.points[order], atol=1e-9)
    assert not [one for one in axes[0].patches if isinstance(one, FancyArrowPatch)]
    for panel in axes:
        assert [text.get_text() for text in panel.texts] == ["1", "2"]


def test_where_nothing_moves_there_is_no_arrow() -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))
    figure = plot.two_maps(SPACE, 3 * SPACE @ turn, movers=5)
    assert not [one for one in figure.axes[1].patches if isinstance(one, FancyArrowPatch)]
    plot.two_maps(SPACE, SPACE, movers=[4])._repr_png_()  # type: ignore[attr-defined]


@given(st.integers(0, 8), st.integers(0, 100))
@settings(max_examples=4, deadline=None)
def test_arrows_end_apart_and_both_maps_show_the_same_part(count: int, seed: int) -> None:
    other = np.random.default_rng(seed).normal(size=(60, 5))
    figure = plot.two_maps(SPACE, other, ["a", "b", "c", "d"] * 15, movers=count)
    left, right = figure.axes
    np.testing.assert_allclose([*left.get_xlim(), *left.get_ylim()], [*right.get_xlim(), *right.get_ylim()], atol=2e-3)
    renderer = FigureCanvasAgg(figure).get_renderer()
    for panel in (left, right):
        numbers = [np.asarray(t.get_window_extent(renderer).extents) for t in panel.texts if t.get_text().isdigit()]
        assert len(numbers) <= count
        for a, b in itertools.combinations(numbers, 2):
            assert not cover(a, b)


def test_movers_are_named_below() -> None:
    figure = plot.two_maps(SPACE, swapped(), None, TITLES, movers=[7, 9])
    note = figure._supxlabel.get_text().replace("\n", " ")  # type: ignore[attr-defined]
    assert note == "Arrows come from the place in the left map. 1\u00a0A rather long title for the item…; " \
                   "2\u00a0A rather long title for the item…."  # fmt: skip


# UMAP


def test_umap_is_an_extra() -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, numpy as np; sys.modules['umap'] = None; from geo_mf import plot;"
            "plot.two_maps(np.eye(6), np.eye(6), method='umap')",
        ],
        capture_output=True,
        text=True,
    )
    assert "MissingExtra: maps by UMAP need umap-learn" in run.stderr
    assert "pip install 'geo_mf[umap]'" in run.stderr


def test_umap_keeps_neighbours_and_repeats_itself() -> None:
    try:
        from geo_mf.plot.unfold import unfolded
    except MissingExtra:
        pytest.skip("umap-learn is not installed")
    centres = np.random.default_rng(0).normal(size=(4, 8))
    vectors = np.repeat(centres, 20, axis=0) + 0.05 * np.random.default_rng(1).normal(size=(80, 8))
    vectors[3] = 0
    plane = unfolded(vectors, "vectors")
    assert np.flatnonzero(~plane.drawn).tolist() == [3]
    np.testing.assert_array_equal(plane.points, unfolded(vectors, "vectors").points)
    np.testing.assert_allclose(np.nanmean(plane.points, axis=0), 0, atol=1e-9)
    near = np.linalg.norm(plane.points[:, None] - plane.points[None], axis=2)
    np.fill_diagonal(near, np.inf)
    group_of = np.arange(80) // 20
    found = np.where(np.isnan(near), np.inf, near).argmin(axis=1)
    assert (group_of[found] == group_of)[plane.drawn].mean() > 0.95
    check(plot.two_maps(vectors, vectors, movers=0, method="umap"))


# Refusals


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot.overlap_curve([]), r"k = \[\]; expected one or more rows"),
        (lambda: plot.overlap_curve([Near(5, part(0.1), 0.1)] * 2), "each of another k"),
        (
            lambda: plot.calibration([1.0, np.nan], [True] * 2, [True] * 2),
            r"scores must be finite; found nan at \(1,\)",
        ),
        (lambda: plot.calibration([1.0], [1], [True]), r"right is int64 of shape \(1,\); expected bool \[1\]"),
        (lambda: plot.calibration([1.0], [True], [True, False]), r"cold is bool of shape \(2,\)"),
        (lambda: plot.calibration([1.0], [True], [True], bins=0), "bins is 0; expected 1 or more"),
        (lambda: plot.calibration([], [], []), r"scores have shape \(0,\)"),
        (lambda: plot.training_loss({}), "0 runs; expected 1 to 6"),
        (lambda: plot.training_loss([]), "the run has no epochs"),
        (lambda: plot.training_loss({"a": [(0, 0.1, None)]}), "run 'a' is None; .*calculate_training_loss=True"),
        (lambda: plot.training_loss([1.0, float("inf")]), "loss of epoch 1 of the run is inf"),
        (lambda: plot.training_loss([(0, 1.0)]), r"epoch 0 of the run is \(0, 1.0\); expected a loss"),
        (lambda: plot.recall_speed({}), "0 indexes; expected 1 to 6"),
        (lambda: plot.recall_speed({"a": [(1.2, 5)]}), "expected a recall from 0 to 1"),
        (lambda: plot.recall_speed({"a": [(0.5, 0)]}), "queries a second above 0"),
        (lambda: plot.recall_speed({"a": [0.5, 100]}), r"points of 'a' have shape \(2,\); expected \[any, 2\]"),
        (lambda: plot.validation_curve([1, 1], [1.0, 2]), "expected each value once"),
        (lambda: plot.validation_curve([1, 2], [1.0]), r"the curve have shape \(1,\)|the curve has"),
        (lambda: plot.validation_curve([1], {"a": [[1, 2, 3]]}), "curve 'a' has values outside their intervals"),
        (lambda: plot.validation_curve([1], {str(n): [1.0] for n in range(7)}), "7 curves; expected 1 to 6"),
        (lambda: plot.validation_curve([1], ["a"]), "must be numbers"),
        (lambda: plot.two_maps(SPACE, SPACE, movers=9), "movers asks for 9 arrows; expected 0 to 8"),
        (lambda: plot.two_maps(SPACE, SPACE, movers=[60]), "movers names row 60"),
        (lambda: plot.two_maps(SPACE, SPACE, method="tsne"), "method is 'tsne'; expected 'pca' or 'umap'"),  # type: ignore[arg-type]
    ],
)
def test_unusable_input_is_refused(draw: Callable[[], Figure], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        draw()
