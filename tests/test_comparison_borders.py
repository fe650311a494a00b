"""A comparison at its borders: what is left out, what is printed and handed on, odd input, and what is refused."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_comparison import Rows, normal, planted

import geo_mf as gm
from geo_mf.errors import InvalidInput

VECTORS = gm.Vectors(gm.IdMap(range(20)), normal(20, 3))
TOUCHED = {"ids": range(20), "interactions": gm.Interactions.from_arrays([0, 0, 1, 1], [0, 1, 2, 3])}


def test_titles_stand_in_the_order_of_rows() -> None:
    """Also those of a Series whose labels are in another order."""
    a, b = planted(0.3, n=60)
    order = np.random.default_rng(0).permutation(60)
    titles = pd.Series([f"title {n}" for n in range(60)]).iloc[order]
    found = gm.compare(a[order], b[order], ids=order, titles=titles).disagreement
    assert found.items and all(one.item.title == f"title {one.item.id}" for one in found.items)


def test_nearly_all_may_be_near() -> None:
    found = gm.compare(normal(20, 3), normal(20, 3, 1), **{**TOUCHED, "k": 18})
    assert found.who_is_right is not None and found.who_is_right.k == 18
    # Where nothing is judged, k is of no matter.
    assert gm.compare(normal(12, 3), normal(12, 3, 1)).items == 12


def test_rows_of_zeros_are_left_out_and_counted() -> None:
    a, b = planted(0.5, n=120)
    kept = np.setdiff1d(np.arange(120), [0, 7, 119])
    a[[0, 7]], b[[7, 119]] = 0, 0
    counts = np.arange(120)
    found = gm.compare(a, b, counts=counts, ids=np.arange(1000, 1120))
    alone = gm.compare(a[kept], b[kept], counts=counts[kept], ids=np.arange(1000, 1120)[kept])
    assert (found.items, found.left_out) == (117, 3)
    assert replace(found, left_out=0) == alone
    assert "3 left out" in str(found)


def test_what_is_printed_is_escaped_and_handed_on_whole() -> None:
    a, b = planted(0.3, n=40)
    ids = [f"<script>{n}</script>" for n in range(40)]
    titles = ["<b>Fish & 'chips'</b>\n" + "long " * 30] * 40
    found = gm.compare(a, b, ids=ids, titles=titles, names=("<i>x</i>", "y & z"), counts=np.full(40, 9))
    html = found._repr_html_()
    assert "<script" not in html and "<b>" not in html and "<i>" not in html and "&amp; z" in html
    assert repr(found) == str(found) and "\n\n\n" not in str(found)
    assert max(map(len, str(found).splitlines())) < 400
    told = json.loads(json.dumps(found.to_dict()))
    assert told["similarity"]["cka"] == found.similarity.cka
    assert told["disagreement"]["items"][0]["item"]["id"] in ids
    assert told["findings"] == list(found.findings) and told["names"] == ["<i>x</i>", "y & z"]
    assert set(told) == {*asdict(found), "level", "findings"}


def test_what_cannot_be_read_is_a_constant_map_and_still_json() -> None:
    found = gm.compare(normal(30, 2), normal(30, 20, 8))
    penalties = [one.penalty for one in found.alignment.readings]
    told = [one["penalty"] for one in found.to_dict()["alignment"]["readings"]]
    assert told == [None if np.isinf(one) else one for one in penalties]
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_same_seed_gives_the_same() -> None:
    a, b = planted(0.4, n=90)
    assert gm.compare(a, b, seed=3) == gm.compare(a.copy(), b.copy(), seed=3)
    assert gm.compare(a, b, seed=3).alignment != gm.compare(a, b, seed=4).alignment


@settings(max_examples=40)
@given(
    n=st.integers(10, 30),
    dims=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 2**16),
    size=st.sampled_from([1e-30, 1e-3, 1.0, 1e30]),
    grid=st.booleans(),
    counted=st.booleans(),
)
def test_odd_spaces(n: int, dims: tuple[int, int], seed: int, size: float, grid: bool, counted: bool) -> None:
    random = np.random.default_rng(seed)
    a, b = (size * random.standard_normal((n, dim)) for dim in dims)
    if grid:
        a, b = np.sign(a), np.round(b / size)
    counts = random.integers(0, 3, n) if counted else None
    known = a.any(axis=1) & b.any(axis=1)
    try:
        found = gm.compare(a, b, counts=counts)
    except InvalidInput as error:
        assert "point the same way" in str(error) or ("not zero in both" in str(error) and known.sum() < 10)
        return
    assert (found.items, found.left_out) == (known.sum(), n - known.sum())
    json.dumps(found.to_dict(), allow_nan=False)
    assert str(found) and found._repr_html_() and found.findings
    assert abs(found.similarity.cka) <= 1 + 1e-9
    for one in found.spectra:
        assert sum(one.shares) == pytest.approx(1) and 1 - 1e-9 <= one.effective_rank <= len(one.shares) + 1e-9


@pytest.mark.parametrize(
    ("a", "b", "more", "message"),
    [
        (normal(20, 3), normal(21, 3), {}, "factors have 20 rows and embeddings have 21"),
        (normal(20, 3), np.full((20, 2), np.nan), {}, "embeddings must be finite; row 0"),
        (np.where(np.arange(60).reshape(20, 3) == 10, np.inf, 1.0), normal(20, 2), {}, "factors must be finite; row 3"),
        (np.arange(20.0), normal(20, 3), {}, r"factors have shape \(20,\)"),
        (np.zeros((20, 0)), normal(20, 3), {}, r"factors have shape \(20, 0\)"),
        (np.array([["x"] * 3] * 20), normal(20, 3), {}, "expected numbers"),
        (normal(9, 3), normal(9, 3), {}, "at least 10"),
        (normal(20, 3) * (np.arange(20) < 9)[:, None], normal(20, 3), {}, "9 of 20 items"),
        (np.ones((20, 3)), normal(20, 3), {}, "factors point the same way"),
        (normal(20, 3), normal(20, 3), {"ids": list("ab") * 10}, "ids must be unique"),
        (normal(20, 3), normal(20, 3), {"ids": list("ab")}, "2 ids for 20 rows"),
        (normal(20, 3), normal(20, 3), {"titles": ["x"]}, "1 titles for 20 rows"),
        (normal(20, 3), normal(20, 3), {"counts": [1, 2]}, "counts have shape"),
        (normal(20, 3), normal(20, 3), {"counts": np.full(20, -1)}, "from 0 on"),
        (normal(20, 3), normal(20, 3), {"counts": np.full(20, 0.5)}, "counts has 0.5 at row 0; expected whole numbers"),
        (normal(20, 3), normal(20, 3), {"counts": [3] * 19 + [np.nan]}, "counts has nan at row 19; expected whole"),
        (normal(20, 3), normal(20, 3), {"counts": [3] * 19 + [[1, 2]]}, "counts are no array"),
        ([[1.0, 2.0], [3.0]] * 10, normal(20, 3), {}, "factors are no array"),
        (VECTORS, normal(20, 3), {}, r"factors are a Vectors; expected a 2-D array .* give their \.matrix"),
        (normal(20, 3), None, {}, "embeddings are a NoneType; expected a 2-D array"),
        (normal(20, 3), normal(20, 3), {"names": "ab"}, "names is 'ab'; expected two different names"),
        (normal(20, 3), normal(20, 3), {"names": None}, "names is None; expected two different names"),
        (
            normal(20, 3),
            normal(20, 3),
            {"interactions": pd.DataFrame()},
            "is a DataFrame; .*read them with gm.read_int",
        ),
        (normal(20, 3), normal(20, 3), {**TOUCHED, "k": 19}, "k is 19 and 20 items are compared: .* k below 19"),
        (normal(20, 3), normal(20, 3), {**TOUCHED, "k": 500}, "k is 500 and 20 items are compared"),
        (normal(20, 3), normal(20, 3), {"names": ("x", "x")}, "two different names"),
        (normal(20, 3), normal(20, 3), {"k": 0}, "k is 0"),
        (normal(20, 3), normal(20, 3), {"seed": -1}, "seed is -1"),
    ],
)
def test_what_cannot_be_compared_is_named(a: Rows, b: Rows, more: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        gm.compare(a, b, **more)
