"""Models on disk: what comes back is what was saved, and nothing damaged comes back at all."""

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import geo_mf as gm
from geo_mf.errors import IncompatibleIndex, InvalidInput
from geo_mf.factorize import persistence


@pytest.fixture(scope="module")
def matrix() -> sparse.csr_array:
    return sparse.csr_array(np.eye(4) + np.eye(4, k=1))


@pytest.fixture(scope="module")
def model(matrix: sparse.csr_array) -> gm.IALS:
    features = np.arange(8.0).reshape(4, 2)
    return gm.IALS(3, 0.02, 0.03, 1, 0.5, "cholesky", 4, num_threads=2, random_state=5).fit(matrix, features)


@pytest.fixture
def path(tmp_path: Path, model: gm.IALS) -> Path:
    path = tmp_path / "model.safetensors"
    model.save(path)
    return path


SETTINGS = (
    "factors",
    "regularization",
    "unobserved_weight",
    "iterations",
    "nu",
    "solver",
    "cg_steps",
    "prior_regularization",
    "num_threads",
    "calculate_training_loss",
    "random_state",
)


def test_a_loaded_model_is_the_saved_one(path: Path, model: gm.IALS, matrix: sparse.csr_array) -> None:
    loaded = gm.IALS.load(path)
    for name in SETTINGS:
        assert getattr(loaded, name) == getattr(model, name)
        assert type(getattr(loaded, name)) is type(getattr(model, name))
    for name in ("user_factors", "item_factors", "prior_coefficients"):
        assert np.array_equal(getattr(loaded, name), getattr(model, name))
        assert getattr(loaded, name).dtype == np.float32
    ids, scores = loaded.recommend([0, 3], matrix[[0, 3]], N=2, recalculate_user=True)
    wanted = model.recommend([0, 3], matrix[[0, 3]], N=2, recalculate_user=True)
    assert np.array_equal(ids, wanted[0])
    assert np.array_equal(scores, wanted[1])
    assert np.array_equal(loaded.fit(matrix).user_factors, gm.IALS.load(path).fit(matrix).user_factors)


def test_a_model_without_features(tmp_path: Path, matrix: sparse.csr_array) -> None:
    model = gm.IALS(3, iterations=1, random_state=np.random.default_rng(0)).fit(matrix)
    model.save(tmp_path / "plain")
    loaded = gm.IALS.load(str(tmp_path / "plain"))
    assert loaded.prior_coefficients is None
    assert loaded.random_state is None, "a generator cannot be kept"
    assert np.array_equal(loaded.item_factors, model.item_factors)


def test_the_same_model_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    gm.IALS.load(path).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_every_flipped_bit_is_refused_with_the_file_s_name(path: Path) -> None:
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 7):  # every byte, and each of its bits in turn
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(IncompatibleIndex, match=r"model\.safetensors"):
            gm.IALS.load(path)


def test_every_cut_and_every_addition_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for damaged in [*(whole[:length] for length in range(0, len(whole), 3)), whole + b"\0", b"\0" * len(whole)]:
        path.write_bytes(damaged)
        with pytest.raises(IncompatibleIndex, match=r"model\.safetensors"):
            gm.IALS.load(path)


def test_another_kind_and_another_format_are_named(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    persistence.save(other, "BiasedMF", {}, {"user_factors": np.zeros((1, 1), np.float32)})
    with pytest.raises(IncompatibleIndex, match="other holds 'BiasedMF', format '2'; expected 'IALS', format '2'"):
        gm.IALS.load(other)
    monkeypatch.setattr(persistence, "FORMAT", "3")
    with pytest.raises(IncompatibleIndex, match="format '2'; expected 'IALS', format '3'"):
        gm.IALS.load(path)


def test_a_safetensors_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"user_factors": np.zeros((2, 2), np.float32)}, tmp_path / "foreign")
    with pytest.raises(IncompatibleIndex, match="holds None"):
        gm.IALS.load(tmp_path / "foreign")


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir])
def test_no_file(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no model at .*none"):
        gm.IALS.load(tmp_path / "none")


def test_a_model_that_was_not_fitted_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"call fit\(user_items\) first"):
        gm.IALS().save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_the_old_file_whole(
    path: Path, model: gm.IALS, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        model.save(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_a_saved_file_can_be_read_by_others(path: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
