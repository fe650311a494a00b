"""One item's score, and everything that is in it."""

from typing import Any

import numpy as np
import pytest

import geo_mf as gm
from geo_mf.errors import InvalidInput, UnknownId


@pytest.mark.parametrize(
    "asked",
    [
        {"user": 104},
        {"history": ["i2"]},
        {"history": {"i2": 2.5, "i3": -1, "i0": 1}},
        {"text": "paths of snow"},
        {"user": 113, "history": {"i1": -1}, "text": "boats on water"},
        {"history": ["i4"], "text": "boats on water", "weights": (0.2, 3)},
    ],
    ids=str,
)
def test_every_share_is_told_and_they_sum_to_the_score(recommender: gm.Recommender, asked: dict[str, Any]) -> None:
    rec = recommender
    query = rec.query(**asked)
    for item in ("i5", "wet", "bare", "i2"):
        told = rec.explain(item, **asked)
        row = rec.catalog.items.row(item)
        assert told.id == item
        assert told.score == pytest.approx(float(query.vector[0] @ rec.vectors[row]), abs=1e-5)
        assert told.score == pytest.approx(told.behaviour + told.text, abs=1e-5)
        assert sum(because.share for because in told.because) == pytest.approx(told.score, abs=1e-4)
        named = [because.id for because in told.because if because.id is not None]
        assert sorted(named, key=str) == sorted(rec.catalog.items.take(query.rows), key=str), (
            "each item of the history, once"
        )
        shares = np.asarray([because.share for because in told.because])
        assert np.all(np.diff(shares) <= 0)


def test_a_list_and_an_explanation_agree(recommender: gm.Recommender) -> None:
    for listed in recommender.recommend(history=["i2", "i8"], k=5):
        told = recommender.explain(listed.id, history=["i2", "i8"])
        assert told.score == pytest.approx(listed.score, abs=1e-5)
        for one, other in zip(told.because, listed.because, strict=False):
            assert (one.id, one.title) == (other.id, other.title)
            assert one.share == pytest.approx(other.share, abs=1e-6)  # float32 sums, in an order of their own


def test_what_cannot_be_explained(recommender: gm.Recommender) -> None:
    with pytest.raises(UnknownId, match="item: .*nowhere"):
        recommender.explain("nowhere", history=["i2"])
    with pytest.raises(InvalidInput, match="nothing to go by"):
        recommender.explain("i2")
