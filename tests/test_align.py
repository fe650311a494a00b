"""One space laid on another."""

import numpy as np
import pytest

from geo_mf.errors import InvalidInput
from geo_mf.geometry.align import residual, rotation


def test_a_turned_space_is_turned_back() -> None:
    random = np.random.default_rng(0)
    target = random.standard_normal((50, 6)).astype(np.float32)
    turn = np.linalg.qr(random.standard_normal((6, 6)))[0].astype(np.float32)
    found = rotation(target @ turn.T, target)
    assert found == pytest.approx(turn, abs=1e-5)
    assert found @ found.T == pytest.approx(np.eye(6), abs=1e-5)
    assert residual(target @ turn.T @ found, target) < 1e-5


def test_no_other_rotation_comes_nearer() -> None:
    random = np.random.default_rng(1)
    source, target = (random.standard_normal((30, 4)).astype(np.float32) for _ in range(2))
    best = residual(source @ rotation(source, target), target)
    turns = [np.linalg.qr(random.standard_normal((4, 4)))[0] for _ in range(200)]
    assert best <= min(residual(source @ turn, target) for turn in turns)


def test_degenerate_spaces() -> None:
    none = np.zeros((5, 3), np.float32)
    assert rotation(none, none) @ rotation(none, none).T == pytest.approx(np.eye(3))
    assert residual(none, none) == 0
    with pytest.raises(InvalidInput, match=r"shape \(5, 3\) cannot be laid on rows of shape \(4, 3\)"):
        rotation(none, none[:4])
