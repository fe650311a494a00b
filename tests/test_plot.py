"""Figures: what they place where, that nothing is cut off or covered, and that no global state is touched."""

import itertools
import subprocess
import sys
from collections.abc import Sequence

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from numpy.typing import NDArray

from geo_mf.errors import InvalidInput
from geo_mf.evaluation.report import EvaluationReport, ReportRow
from geo_mf.plot import Picture, bar_metrics, space_map, spectrum, two_maps
from geo_mf.plot.flat import flatten
from geo_mf.plot.style import COLOURS
from geo_mf.plot.words import apart

TITLES = [f"A rather long title for the item of number {n}" for n in range(60)]


def clusters(groups: int = 12, each: int = 5, dim: int = 8, spread: float = 0.1) -> tuple[NDArray, list[str]]:
    """Tight groups around random directions: vectors [groups * each, dim] and their names."""
    random = np.random.default_rng(3)
    centres = random.normal(size=(groups, dim))
    vectors = np.repeat(centres, each, axis=0) + spread * random.normal(size=(groups * each, dim))
    return vectors, [f"group {n // each}" for n in range(groups * each)]


def report(*rows: tuple[str, str, int, float]) -> EvaluationReport:
    return EvaluationReport(
        "given", 0, tuple(ReportRow(s, "overall", k, m, v, v - 0.01, v + 0.02, 100) for s, m, k, v in rows)
    )


NDCG = report(("blend", "ndcg", 10, 0.3), ("popularity", "ndcg", 10, 0.1), ("content kNN", "ndcg", 10, 0.2))


def every_figure() -> list[Figure]:
    vectors, labels = clusters()
    texts = np.random.default_rng(4).normal(size=(len(vectors), 20))
    return [
        space_map(vectors),
        space_map(vectors, labels, TITLES, mark=[0, 1, 30], title="Groups lie together"),
        space_map(vectors, list(range(len(vectors))), label_name="year"),
        two_maps(vectors, texts, labels, TITLES, mark=[7], label_name="topics"),
        spectrum(vectors, texts),
        bar_metrics(NDCG),
        bar_metrics(NDCG, title="The blend is best"),
    ]


def dots(axes: Axes) -> list[PathCollection]:
    return [found for found in axes.collections if isinstance(found, PathCollection)]


def places(axes: Axes) -> NDArray[np.float64]:
    """All drawn points, in an order that does not depend on colour."""
    found = np.concatenate([np.asarray(one.get_offsets(), np.float64) for one in dots(axes)])
    return found[np.lexsort(found.T)]


def names(axes: Axes) -> list[Annotation]:
    return [text for text in axes.texts if isinstance(text, Annotation)]


def extents(figure: Figure, texts: Sequence[Annotation]) -> NDArray[np.float64]:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array([text.get_window_extent(canvas.get_renderer()).extents for text in texts])


def cover(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return bool(np.all(np.minimum(a[2:], b[2:]) > np.maximum(a[:2], b[:2]) + 0.5))


# The plane


def test_points_are_the_first_two_principal_components() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 6))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    u, s, _ = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    plane = flatten(vectors, "vectors")
    np.testing.assert_allclose(np.abs(plane.points), np.abs(u[:, :2] * s[:2]), atol=1e-9)
    np.testing.assert_allclose(plane.shares, s**2 / np.sum(s**2), atol=1e-9)


@given(seed=st.integers(0, 2**16), scale=st.sampled_from([1e-200, 1e-3, 1.0, 1e180]))
@settings(max_examples=30, deadline=None)
def test_lengths_do_not_matter_and_the_input_stays(seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(12, 5))
    longer = vectors * random.uniform(0.5, 2, size=(12, 1)) * scale
    before = longer.copy()
    np.testing.assert_allclose(flatten(longer, "v").points, flatten(vectors, "v").points, atol=1e-6)
    np.testing.assert_array_equal(longer, before)


def test_a_row_of_zeros_has_no_place() -> None:
    vectors = np.random.default_rng(0).normal(size=(9, 4))
    vectors[4] = 0
    plane = flatten(vectors, "vectors")
    assert np.flatnonzero(~plane.drawn).tolist() == [4]
    np.testing.assert_allclose(plane.points[plane.drawn], flatten(np.delete(vectors, 4, 0), "v").points)
    assert len(places(space_map(vectors).axes[0])) == 8
    assert len(places(space_map(vectors, list("aaabbbccc"), mark=[4]).axes[0])) == 8
    assert len(places(space_map(vectors, list(range(9))).axes[0])) == 8


def test_equal_vectors_share_one_place() -> None:
    points = flatten(np.ones((5, 3)), "vectors").points
    np.testing.assert_allclose(points, 0, atol=1e-12)


def test_two_maps_of_one_space_coincide_however_it_is_turned() -> None:
    vectors, labels = clusters()
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))
    left, right = two_maps(vectors, vectors @ turn, labels).axes
    np.testing.assert_allclose(places(left), places(right), atol=1e-9)


# Colours


def test_the_groups_asked_for_are_coloured_alike_on_both_sides() -> None:
    vectors, labels = clusters()
    figure = two_maps(vectors, np.random.default_rng(5).normal(size=(60, 9)), labels, highlight=["group 3", "group 1"])
    left, right = ([(text.get_text(), text.get_color()) for text in names(axes)] for axes in figure.axes)
    assert left == right
    assert [name for name, _ in left] == ["group 3", "group 1"]
    assert len({colour for _, colour in left}) == 2


def test_the_groups_chosen_are_the_tight_ones() -> None:
    """Five tight groups on the axes of the plane, and ten loose ones in the middle."""
    random = np.random.default_rng(2)
    angles = np.repeat(np.arange(5) * 2 * np.pi / 5, 6)
    tight = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 5 + 0.2 * random.normal(size=(30, 2))
    loose = 2 * random.normal(size=(60, 2))
    # A constant third coordinate keeps the scaling to unit length from spoiling the plane.
    vectors = np.concatenate([np.concatenate([tight, loose]), np.full((90, 1), 50.0)], axis=1)
    labels = [f"tight {n // 6}" for n in range(30)] + [f"loose {n // 6}" for n in range(60)]
    shown = {text.get_text() for text in names(space_map(vectors, labels).axes[0])}
    assert shown == {f"tight {n}" for n in range(5)}


def test_numbers_become_a_scale() -> None:
    vectors, _ = clusters()
    figure = space_map(vectors, [2000 + n for n in range(60)], label_name="year")
    drawn = dots(figure.axes[0])[0].get_array()
    assert drawn is not None and np.asarray(drawn).tolist() == [2000 + n for n in range(60)]
    assert figure.axes[1].get_ylabel() == "year"


def test_no_label_is_no_group() -> None:
    vectors, _ = clusters(groups=2, each=4)
    figure = space_map(vectors, ["a", "a", "a", "a", None, None, None, None])
    assert [text.get_text() for text in names(figure.axes[0])] == ["a"]


def test_colours_can_be_told_apart_in_grey_of_the_colour_blind() -> None:
    """Machado, Oliveira and Fernandes (2009), severity 1: protanopia and deuteranopia."""
    matrices = (
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    )
    rgb = np.array([to_rgb(colour) for colour in COLOURS]) ** 2.2
    for matrix in matrices:
        seen = np.clip(rgb @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 0.12


# Words


@given(
    st.lists(st.tuples(st.floats(0, 800), st.floats(0, 600), st.floats(20, 300)), min_size=1, max_size=8),
    st.lists(st.tuples(st.floats(100, 700), st.floats(150, 450)), max_size=2),
)
@settings(max_examples=100, deadline=None)
def test_names_end_up_inside_and_off_each_other(
    spots: list[tuple[float, float, float]], rings: list[tuple[float, float]]
) -> None:
    boxes = np.array([(x, y, x + width, y + 18) for x, y, width in spots])
    fixed = np.array([(x - 12, y - 12, x + 12, y + 12) for x, y in rings]).reshape(-1, 4)
    moved = apart(boxes, fixed, (0, 0, 800, 600))
    np.testing.assert_allclose(moved[:, 2:] - moved[:, :2], boxes[:, 2:] - boxes[:, :2])
    assert (moved[:, :2] > 0).all() and (moved[:, 2:] < [800, 600]).all()
    everything = [*moved, *fixed]
    for a, b in itertools.combinations(range(len(everything)), 2):
        if a < len(moved):
            assert not cover(everything[a], everything[b])


def test_names_that_are_free_stay_where_they_are() -> None:
    boxes = np.array([[50.0, 50, 90, 70], [50, 100, 90, 120]])
    np.testing.assert_array_equal(apart(boxes, np.empty((0, 4)), (0, 0, 200, 200)), boxes)


@pytest.mark.parametrize("number", range(7))
def test_nothing_is_cut_off_and_no_name_covers_another(number: int) -> None:
    figure = every_figure()[number]
    width, height = figure.get_size_inches() * figure.dpi
    for axes in figure.axes:
        boxes = extents(figure, names(axes))
        for a, b in itertools.combinations(boxes, 2):
            assert not cover(a, b)
        frame = axes.get_window_extent().extents
        assert all((box[:2] >= frame[:2]).all() and (box[2:] <= frame[2:]).all() for box in boxes)
    tight = np.asarray(figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer()).extents) * figure.dpi
    assert (tight[:2] >= -1).all() and (tight[2:] <= [width + 1, height + 1]).all()


def test_marked_items_are_ringed_and_named() -> None:
    vectors, labels = clusters()
    axes = space_map(vectors, labels, TITLES, mark=[3, 33]).axes[0]
    written = [text.get_text() for text in names(axes)]
    assert written[-2:] == ["A rather long title for the item…", "A rather long title for the item…"]
    rings = [one for one in dots(axes) if not len(one.get_facecolor())]
    found = np.concatenate([np.asarray(ring.get_offsets()) for ring in rings])
    np.testing.assert_allclose(found, flatten(vectors, "v").points[[3, 33]])


def test_names_are_never_read_as_formulas() -> None:
    vectors, _ = clusters(groups=2, each=4)
    labels = ["$\\frac{1}{$"] * 4 + ["costs $5, sells at $6"] * 4
    figure = space_map(vectors, labels, ["$x_$"] * 8, mark=[0], title="$\\bad{$", label_name="$y^$")
    assert figure_png(figure).startswith(b"\x89PNG")
    table = report(("a $\\wrong{$ name", "ndcg", 10, 0.3))
    assert figure_png(bar_metrics(table)).startswith(b"\x89PNG")


def figure_png(figure: Figure) -> bytes:
    assert isinstance(figure, Picture)
    return figure._repr_png_()


# Charts


def test_the_spectrum_of_an_even_space_rises_evenly() -> None:
    """±e_1 ... ±e_10: ten equal directions, so 80 % takes eight; the text's first of three holds 80 % alone."""
    even = np.concatenate([np.eye(10), -np.eye(10)])
    steep = np.array([[1.0, 0, 0]] * 8 + [[-1.0, 0, 0]] * 8 + [[0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    axes = spectrum(even, steep).axes[0]
    curves = {str(line.get_label()): np.asarray(line.get_ydata(), float) for line in axes.get_lines()}
    np.testing.assert_allclose(curves["factors: 8 of 10 directions"], np.arange(10, 101, 10))
    np.testing.assert_allclose(curves["text embeddings: 1 of 3 directions"], [80, 90, 100])


def test_bars_are_sorted_with_their_values_and_intervals() -> None:
    axes = bar_metrics(NDCG).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["popularity", "content kNN", "blend"]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0.1, 0.2, 0.3])  # type: ignore[attr-defined]
    assert [text.get_text() for text in names(axes)] == ["0.100", "0.200", "0.300"]
    ends = np.array([line.get_xdata() for line in axes.get_lines()])
    np.testing.assert_allclose(ends, [[0.09, 0.12], [0.19, 0.22], [0.29, 0.32]])


def test_the_smallest_gini_is_the_best() -> None:
    axes = bar_metrics(report(("even", "gini", 10, 0.2), ("skewed", "gini", 10, 0.9)), "gini").axes[0]
    assert axes.get_yticklabels()[-1].get_text() == "even"
    assert axes.get_xlabel() == "Gini@10 (smaller is better)"


def test_bars_of_nothing_but_zeros() -> None:
    assert figure_png(bar_metrics(report(("a", "ndcg", 10, 0.0)))).startswith(b"\x89PNG")


def test_k_must_be_said_when_there_are_several() -> None:
    both = report(("blend", "ndcg", 10, 0.3), ("blend", "ndcg", 20, 0.4))
    with pytest.raises(InvalidInput, match="k = 10, 20; say which"):
        bar_metrics(both)
    assert bar_metrics(both, k=20).axes[0].get_xlabel().startswith("NDCG@20")


# Refusals


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones(5), r"shape \(5,\); expected \[items, dim\]"),
        (np.ones((5, 1)), "at least 2 dimensions"),
        (np.zeros((5, 3)), "0 rows of vectors are not zero"),
        (np.array([[1.0, 2], [3, np.nan], [1, 1]]), "row 1 is not"),
    ],
)
def test_unusable_vectors_are_refused(vectors: NDArray, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        space_map(vectors)


def test_sizes_and_names_that_do_not_fit_are_refused() -> None:
    vectors, labels = clusters()
    with pytest.raises(InvalidInput, match="59 labels for 60 items"):
        space_map(vectors, labels[1:])
    with pytest.raises(InvalidInput, match="1 titles for 60 items"):
        space_map(vectors, labels, ["one"])
    with pytest.raises(InvalidInput, match="row 60, but there are 60 items"):
        space_map(vectors, mark=[60])
    with pytest.raises(InvalidInput, match=r"highlight is \['nowhere'\]"):
        space_map(vectors, labels, highlight=["nowhere"])
    with pytest.raises(InvalidInput, match="at most 6 of the labels"):
        space_map(vectors, labels, highlight=list(dict.fromkeys(labels)))
    with pytest.raises(InvalidInput, match="60 rows and embeddings 59"):
        two_maps(vectors, vectors[1:])
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        spectrum(vectors, vectors, share=80)
    with pytest.raises(InvalidInput, match="no figure for 'ndgc'"):
        bar_metrics(NDCG, "ndgc")


# The house


def test_the_same_picture_is_the_same_bytes_and_settings_stay() -> None:
    before = matplotlib.rcParams.copy()
    first, second = ([figure_png(figure) for figure in every_figure()] for _ in range(2))
    assert first == second
    assert matplotlib.rcParams.copy() == before


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_pyplot_is_never_loaded() -> None:
    run = python(
        "import sys, numpy as np; from geo_mf import plot;"
        "plot.space_map(np.eye(6), list('aaabbb'))._repr_png_(); plot.spectrum(np.eye(6), np.eye(6));"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert run.returncode == 0, run.stderr


def test_without_matplotlib_the_message_says_what_to_install() -> None:
    run = python("import sys; sys.modules['matplotlib'] = None; from geo_mf import plot")
    assert "MissingExtra: plots need matplotlib" in run.stderr
    assert "pip install 'geo_mf[plots]'" in run.stderr
