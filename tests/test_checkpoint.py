"""A fit that was killed, run again, ends with the factors of one that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import geo_mf as gm
from geo_mf.errors import IncompatibleIndex, InvalidInput

FEATURES = np.random.default_rng(1).standard_normal((40, 3)).astype(np.float32)


def fitted(matrix: sparse.csr_array, features: np.ndarray | None = None, epochs: int = 6, **how: object) -> gm.IALS:
    """With features, items and users both have them: the matrix is square."""
    model = gm.IALS(factors=8, iterations=epochs, random_state=0, calculate_training_loss=True)
    return model.fit(matrix, features, user_features=features, **how)  # pyright: ignore[reportArgumentType]


def assert_same_users(found: gm.IALS, wanted: gm.IALS) -> None:
    assert found.user_prior_coefficients is not None and wanted.user_prior_coefficients is not None
    assert np.array_equal(found.user_prior_coefficients, wanted.user_prior_coefficients)


class Killed(Exception):
    pass


@pytest.mark.parametrize("features", [None, FEATURES], ids=["behaviour", "features"])
@pytest.mark.parametrize("after", [0, 3, 5])
def test_a_fit_goes_on_where_it_was_stopped(
    checkerboard: sparse.csr_array, tmp_path: Path, features: np.ndarray | None, after: int
) -> None:
    def stop(epoch: int, seconds: float, loss: float | None) -> None:
        if epoch == after:
            raise Killed

    path, seen = tmp_path / "fit.safetensors", []
    with pytest.raises(Killed):
        fitted(checkerboard, features, checkpoint=path, callback=stop)
    resumed = fitted(
        checkerboard, features, checkpoint=path, callback=lambda epoch, seconds, loss: seen.append((epoch, loss))
    )
    whole = fitted(checkerboard, features)
    assert np.array_equal(resumed.user_factors, whole.user_factors)
    assert np.array_equal(resumed.item_factors, whole.item_factors)
    if features is not None:
        assert resumed.prior_coefficients is not None and whole.prior_coefficients is not None
        assert np.array_equal(resumed.prior_coefficients, whole.prior_coefficients)
        assert_same_users(resumed, whole)
    assert seen[-1][0] == 5
    assert (seen[0][0] > 0) == (after > 0), "what was kept is not computed again"
    again = fitted(checkerboard, features, checkpoint=path, callback=stop)  # finished: no epoch is left to stop at
    assert np.array_equal(again.item_factors, whole.item_factors)
    if features is not None:
        assert_same_users(again, whole)
    longer = fitted(checkerboard, features, epochs=8, checkpoint=path)
    assert np.array_equal(longer.item_factors, fitted(checkerboard, features, epochs=8).item_factors)


def test_kill_at_any_moment(checkerboard: sparse.csr_array, tmp_path: Path) -> None:
    sparse.save_npz(tmp_path / "m.npz", sparse.csr_matrix(checkerboard))
    script = (
        "import sys; from scipy import sparse; import geo_mf as gm\n"
        "m = sparse.csr_array(sparse.load_npz(sys.argv[1]))\n"
        "gm.IALS(8, iterations=4000, random_state=0).fit(m, checkpoint=sys.argv[2], callback=lambda e, s, l: print(e))"
    )
    path = tmp_path / "fit.safetensors"
    command = [sys.executable, "-u", "-c", script, str(tmp_path / "m.npz"), str(path)]
    for wait in (0.05, 0.4):
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as process:
            assert process.stdout is not None and process.stdout.readline()
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
    assert path.exists()
    resumed = gm.IALS(8, iterations=4000, random_state=0).fit(checkerboard, checkpoint=path)
    whole = gm.IALS(8, iterations=4000, random_state=0).fit(checkerboard)
    assert np.array_equal(resumed.user_factors, whole.user_factors)
    assert np.array_equal(resumed.item_factors, whole.item_factors)


def test_another_fit_and_a_damaged_file_are_refused(checkerboard: sparse.csr_array, tmp_path: Path) -> None:
    path = tmp_path / "fit.safetensors"
    fitted(checkerboard, checkpoint=path)
    kept = path.read_bytes()
    other = checkerboard.copy()
    other.data[0] = 2
    for call in (
        lambda: fitted(other, checkpoint=path),
        lambda: fitted(checkerboard, FEATURES, checkpoint=path),
        lambda: gm.IALS(8, random_state=0).fit(checkerboard, user_features=FEATURES, checkpoint=path),
        lambda: gm.IALS(factors=9, random_state=0).fit(checkerboard, checkpoint=path),
        lambda: gm.IALS(factors=8, random_state=1).fit(checkerboard, checkpoint=path),
    ):
        with pytest.raises(InvalidInput, match="is of another fit.*another path, or delete it"):
            call()
    assert path.read_bytes() == kept
    with pytest.raises(InvalidInput, match="is of 6 epochs, and only 5 are asked for"):
        fitted(checkerboard, epochs=5, checkpoint=path)
    assert path.read_bytes() == kept
    path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(IncompatibleIndex, match="damaged"):
        fitted(checkerboard, checkpoint=path)
