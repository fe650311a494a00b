"""A fit that was killed, run again, ends with the factors of one that was not."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import sparse

import geo_mf as gm
from geo_mf.errors import IncompatibleIndex, InvalidInput
from geo_mf.factorize import optimizer_state

Model = gm.IALS | gm.BiasedMF | gm.GradientMF
Maker = Callable[..., Model]

FEATURES = np.random.default_rng(1).standard_normal((40, 3)).astype(np.float32)


def ials(epochs: int = 6, **settings: Any) -> gm.IALS:
    given: dict[str, Any] = {"factors": 8, "random_state": 0, "calculate_training_loss": True}
    return gm.IALS(iterations=epochs, **(given | settings))


def biased(epochs: int = 6, **settings: Any) -> gm.BiasedMF:
    given: dict[str, Any] = {"factors": 8, "random_state": 0}
    return gm.BiasedMF(iterations=epochs, **(given | settings))


def gradient(epochs: int = 6, **settings: Any) -> gm.GradientMF:
    """It looks at what is held out after 4 epochs, and once more when 6 or 7 are over, and is never content."""
    given: dict[str, Any] = {
        "factors": 8,
        "batch_size": 64,
        "negatives": 16,
        "random_state": 0,
        "validate_every": 4,
        "patience": 9,
    }
    return gm.GradientMF(epochs=epochs, **(given | settings))


MODELS = (ials, biased, gradient)
every_model = pytest.mark.parametrize("make", MODELS)


@pytest.fixture(scope="module")
def graded(checkerboard: sparse.csr_array) -> sparse.csr_array:
    """float32 [40, 40]: the checkerboard in grades from 1 to 3."""
    matrix = checkerboard.copy()
    matrix.data += np.arange(matrix.nnz, dtype=np.float32) % 3
    return matrix


def fitted(model: Model, matrix: sparse.csr_array, features: np.ndarray | None = None, **how: Any) -> Model:
    """With features, items and, where a model takes them, users both have them: the matrix is square."""
    if isinstance(model, gm.IALS):
        return model.fit(matrix, features, user_features=features, **how)
    return model.fit(matrix, features, **how)


def assert_the_same(found: Model, wanted: Model) -> None:
    """In everything that was learned, to the bit."""
    arrays, expected = found._arrays(), wanted._arrays()
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert np.array_equal(array, expected[name]), name
    if isinstance(found, gm.IALS) and isinstance(wanted, gm.IALS):
        for mine, other in (
            (found.prior_coefficients, wanted.prior_coefficients),
            (found.user_prior_coefficients, wanted.user_prior_coefficients),
        ):
            assert (mine is None) == (other is None)
            assert mine is None or other is None or np.array_equal(mine, other)
    if isinstance(found, gm.GradientMF) and isinstance(wanted, gm.GradientMF):
        assert found.history == wanted.history


class Killed(Exception):
    pass


def stopping(after: int) -> Callable[..., None]:
    def stop(epoch: int, *figures: float | None) -> None:
        if epoch == after:
            raise Killed

    return stop


@every_model
@pytest.mark.parametrize("features", [None, FEATURES], ids=["behaviour", "features"])
@pytest.mark.parametrize("after", [0, 3, 5])
def test_a_fit_goes_on_where_it_was_stopped(
    make: Maker, graded: sparse.csr_array, tmp_path: Path, features: np.ndarray | None, after: int
) -> None:
    path, seen = tmp_path / "fit.safetensors", list[tuple[float | None, ...]]()
    with pytest.raises(Killed):
        fitted(make(), graded, features, checkpoint=path, callback=stopping(after))
    resumed = fitted(make(), graded, features, checkpoint=path, callback=lambda *told: seen.append(told))
    whole = fitted(make(), graded, features)
    assert_the_same(resumed, whole)
    assert seen[-1][0] == 5
    first = seen[0][0]
    assert first is not None and (first > 0) == (after > 0), "what was kept is not computed again"
    again = fitted(make(), graded, features, checkpoint=path, callback=stopping(5))  # no epoch is left to stop at
    assert_the_same(again, whole)
    longer = fitted(make(8), graded, features, checkpoint=path)
    assert_the_same(longer, fitted(make(8), graded, features))


@every_model
@pytest.mark.parametrize("seeded", [lambda: None, lambda: np.random.default_rng(3), lambda: np.random.RandomState(3)])
def test_a_fit_goes_on_whatever_its_seed_is(
    make: Maker, graded: sparse.csr_array, tmp_path: Path, seeded: Callable[[], Any]
) -> None:
    """A generator lies elsewhere in the next process; and without a seed only the file knows how the fit began."""
    path, seen = tmp_path / "fit.safetensors", list[int]()
    with pytest.raises(Killed):
        fitted(make(random_state=seeded()), graded, checkpoint=path, callback=stopping(5))
    resumed = fitted(
        make(random_state=seeded()), graded, checkpoint=path, callback=lambda epoch, *told: seen.append(epoch)
    )
    assert seen[0] > 0
    if seeded() is not None:
        assert_the_same(resumed, fitted(make(random_state=seeded()), graded))
        with pytest.raises(InvalidInput, match="is of another fit"):
            fitted(make(random_state=np.random.default_rng(4)), graded, checkpoint=path)


def _side(tables: dict[str, jax.Array]) -> dict[str, str]:
    return {name: "u" if name == "users" else "i" for name in tables}


OPTIMIZERS: dict[str, optax.GradientTransformation] = {
    "keys, bfloat16 and settings in its state": optax.chain(
        optax.add_noise(0.01, 0.5, jax.random.key(7)),
        optax.inject_hyperparams(optax.adam, static_args="mu_dtype")(
            optax.linear_schedule(0.1, 0.01, 40), mu_dtype=jnp.bfloat16
        ),
    ),
    "labels, and the loss of a batch": optax.chain(
        optax.multi_transform({"u": optax.adam(0.1), "i": optax.sgd(0.1, momentum=0.9)}, _side),
        optax.contrib.reduce_on_plateau(patience=1, accumulation_size=2),
    ),
    "momentum and a schedule": optax.sgd(optax.exponential_decay(0.1, 3, 0.9), momentum=0.9),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_is_taken_up_where_it_stood(name: str, graded: sparse.csr_array, tmp_path: Path) -> None:
    path, optimizer = tmp_path / "fit.safetensors", OPTIMIZERS[name]
    with pytest.raises(Killed):
        fitted(gradient(optimizer=optimizer), graded, FEATURES, checkpoint=path, callback=stopping(4))
    seen = list[int]()
    resumed = fitted(
        gradient(optimizer=optimizer),
        graded,
        FEATURES,
        checkpoint=path,
        callback=lambda epoch, *told: seen.append(epoch),
    )
    assert seen[0] > 0
    assert_the_same(resumed, fitted(gradient(optimizer=optimizer), graded, FEATURES))
    with pytest.raises(InvalidInput, match="is of another fit"):
        fitted(gradient(optimizer=optax.adam(0.03)), graded, FEATURES, checkpoint=path)


def test_optimizers_are_told_apart_by_what_they_do() -> None:
    shapes = {"users": (9, 4), "items": (7, 4), "bias": (7,)}

    def does(optimizer: optax.GradientTransformation) -> str:
        return optimizer_state.behaviour(optimizer, shapes)

    assert does(optax.adam(0.01)) == does(optax.adam(0.01))
    different = [
        optax.adam(0.01),
        optax.adam(0.0101),
        optax.adam(0.01, b2=0.99),
        optax.sgd(0.01),
        optax.sgd(0.01, momentum=0.9),
        optax.adam(optax.cosine_decay_schedule(0.01, 20_000)),
        optax.adam(optax.cosine_decay_schedule(0.01, 21_000)),
        optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.01)),
    ]
    assert len({does(optimizer) for optimizer in different}) == len(different)


def test_a_fit_that_stopped_early_stays_where_it_stopped(graded: sparse.csr_array, tmp_path: Path) -> None:
    path, done = tmp_path / "fit.safetensors", list[int]()
    wanted = fitted(
        gradient(60, validate_every=1, patience=2), graded, callback=lambda epoch, *told: done.append(epoch)
    )
    assert done[-1] < 59
    with pytest.raises(Killed):
        fitted(gradient(60, validate_every=1, patience=2), graded, checkpoint=path, callback=stopping(done[-1]))
    for epochs in (60, 60, 80):
        found = fitted(gradient(epochs, validate_every=1, patience=2), graded, checkpoint=path)
        assert_the_same(found, wanted)


KILLED = """
import sys; from scipy import sparse; import geo_mf as gm
m = sparse.csr_array(sparse.load_npz(sys.argv[1]))
eval(sys.argv[3]).fit(m, checkpoint=sys.argv[2], callback=lambda epoch, *told: print(epoch))
"""


@pytest.mark.parametrize(
    "model",
    [
        "gm.IALS(8, iterations=1000, random_state=0)",
        "gm.BiasedMF(8, iterations=1000, random_state=0)",
        "gm.GradientMF(8, epochs=250, batch_size=256, negatives=16, validate_every=100, patience=9, random_state=0)",
    ],
    ids=["IALS", "BiasedMF", "GradientMF"],
)
def test_kill_at_any_moment(model: str, graded: sparse.csr_array, tmp_path: Path) -> None:
    sparse.save_npz(tmp_path / "m.npz", sparse.csr_matrix(graded))
    path = tmp_path / "fit.safetensors"
    command = [sys.executable, "-u", "-c", KILLED, str(tmp_path / "m.npz"), str(path), model]
    # So many epochs and so much later: a time alone would be long enough for a fast machine to end the fit.
    for epochs, wait in ((1, 0.05), (40, 0.1)):
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as process:
            assert process.stdout is not None and all(process.stdout.readline() for _ in range(epochs))
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "the fit was over before it was killed"
    assert path.exists()
    seen = list[int]()
    resumed = eval(model).fit(graded, checkpoint=path, callback=lambda epoch, *told: seen.append(epoch))
    assert seen[0] > 0, "the fit went on"
    assert_the_same(resumed, eval(model).fit(graded))


@every_model
def test_another_fit_and_a_damaged_file_are_refused(make: Maker, graded: sparse.csr_array, tmp_path: Path) -> None:
    path = tmp_path / "fit.safetensors"
    fitted(make(), graded, checkpoint=path)
    kept = path.read_bytes()
    other = graded.copy()
    other.data[0] += 1
    wider = sparse.csr_array((graded.data, graded.indices, graded.indptr), shape=(40, 41))
    for call in (
        lambda: fitted(make(), other, checkpoint=path),
        lambda: fitted(make(), wider, checkpoint=path),
        lambda: fitted(make(), graded, FEATURES, checkpoint=path),
        lambda: fitted(make(factors=9), graded, checkpoint=path),
        lambda: fitted(make(random_state=1), graded, checkpoint=path),
        lambda: fitted(make(regularization=0.7), graded, checkpoint=path),
        *(lambda model=model: fitted(model(), graded, checkpoint=path) for model in MODELS if model is not make),
    ):
        with pytest.raises(InvalidInput, match="is of another fit.*another path, or delete it"):
            call()
    assert path.read_bytes() == kept
    if make is ials:
        with pytest.raises(InvalidInput, match="is of another fit"):
            ials().fit(graded, user_features=FEATURES, checkpoint=path)
    with pytest.raises(InvalidInput, match="is of 6 epochs, and only 5 are asked for"):
        fitted(make(5), graded, checkpoint=path)
    assert path.read_bytes() == kept
    for damaged in (kept[:-1] + bytes([kept[-1] ^ 1]), kept[: len(kept) // 2], b""):
        path.write_bytes(damaged)
        with pytest.raises(IncompatibleIndex, match="damaged|is not a whole safetensors file"):
            fitted(make(), graded, checkpoint=path)
        assert path.read_bytes() == damaged
