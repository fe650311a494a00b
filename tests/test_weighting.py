"""Weights as a fit sees them, and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geo_mf.data.weighting import Meaning, Weighting

weights = hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(0.0009765625, 1000, width=32))


@pytest.mark.parametrize("meaning", ["log", "linear"])
@given(given_=weights)
def test_there_and_back(meaning: Meaning, given_: np.ndarray) -> None:
    weighting = Weighting.of(given_, meaning)
    scaled = weighting.scaled(given_)
    assert scaled.dtype == np.float32
    assert scaled.mean(dtype=np.float64) == pytest.approx(1, rel=1e-5)
    assert weighting.given(scaled) == pytest.approx(given_, rel=1e-4)


def test_uniform_weights_say_nothing() -> None:
    weighting = Weighting.of(np.asarray([3.0, 5.0], np.float32), "uniform")
    assert weighting == Weighting("uniform", 1.0)
    assert weighting.scaled(np.asarray([7.0])).tolist() == [1]
    assert weighting.given(np.ones(2, np.float32)).tolist() == [1, 1]
