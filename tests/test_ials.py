"""The mathematics of implicit ALS against a float64 reference that is written as the textbook writes it."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Literal

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from geo_mf import FitDiverged
from geo_mf.factorize import ials
from geo_mf.factorize.fit import Factors, Priors, Settings, fit
from geo_mf.factorize.ials import Objective, Solver

RANK, USERS, ITEMS = 12, 40, 30
COLD_USER, BARE_USER, COLD_ITEM, BARE_ITEM = 3, 8, 5, 11  # no history; the bare ones have no features either
ALPHA = 3.0


@dataclass(frozen=True)
class Regression:
    """The ridge regression of one side's factors on its features."""

    design: np.ndarray
    weights: np.ndarray
    shrinkage: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray | None, weights: np.ndarray) -> "Regression | None":
        if features is None:
            return None
        known = np.any(features != 0, axis=1)
        design, weights = np.c_[features, np.ones(len(features))] * known[:, None], weights * known
        shrinkage = np.full(design.shape[1], ALPHA * weights[weights > 0].mean())
        shrinkage[-1] *= 1e-6
        return cls(design, weights, shrinkage)

    def fit(self, factors: np.ndarray) -> np.ndarray:
        weighted = self.weights[:, None] * self.design
        return np.linalg.solve(weighted.T @ self.design + np.diag(self.shrinkage), weighted.T @ factors)


def predicted(regression: Regression | None, factors: np.ndarray) -> np.ndarray:
    return np.zeros_like(factors) if regression is None else regression.design @ regression.fit(factors)


@dataclass
class Reference:
    """Alternating least squares in float64, one dense normal equation a row; items first, then users.

    The order of B, H, W and the placing of the prior are those that factorize/fit.py promises.
    """

    matrix: np.ndarray
    objective: Objective
    w: np.ndarray
    h: np.ndarray
    features: np.ndarray | None = None
    user_features: np.ndarray | None = None
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        seen = (self.matrix > 0).astype(float)
        users, items = self.matrix.shape
        a0, nu = self.objective.unobserved_weight, self.objective.nu
        self.r_users = (seen.sum(1) + a0 * items) ** nu
        self.r_items = (seen.sum(0) + a0 * users) ** nu
        self.of_items = Regression.of(self.features, self.r_items * (seen.sum(0) > 0))
        self.of_users = Regression.of(self.user_features, self.r_users * (seen.sum(1) > 0))

    def coefficients(self) -> np.ndarray | None:
        """The ridge regression of the item factors on the features."""
        return None if self.of_items is None else self.of_items.fit(self.h)

    def run(self, epochs: int) -> "Reference":
        for _ in range(epochs):
            self.h = self._solve(self.matrix.T, self.w, self.r_items, predicted(self.of_items, self.h))
            self.w = self._solve(self.matrix, self.h, self.r_users, predicted(self.of_users, self.w))
            self.losses.append(self.loss())
        return self

    def _solve(self, weights: np.ndarray, fixed: np.ndarray, r: np.ndarray, prior: np.ndarray) -> np.ndarray:
        a0, lam = self.objective.unobserved_weight, self.objective.regularization
        return np.stack(
            [
                np.linalg.solve(
                    a0 * fixed.T @ fixed + (fixed.T * c) @ fixed + lam * r[row] * np.eye(fixed.shape[1]),
                    fixed.T @ c + lam * r[row] * prior[row],
                )
                for row, c in enumerate(weights)
            ]
        )

    def loss(self) -> float:
        """The objective of DESIGN, and the penalty on the regressions' coefficients."""
        lam, scores = self.objective.regularization, self.w @ self.h.T
        total = np.sum(self.matrix * (scores - 1) ** 2) + self.objective.unobserved_weight * np.sum(scores**2)
        sides = (self.r_users, self.w, self.of_users), (self.r_items, self.h, self.of_items)
        for r, factors, regression in sides:
            total += lam * r @ np.sum((factors - predicted(regression, factors)) ** 2, axis=1)
            if regression is not None:
                total += lam * regression.shrinkage @ np.sum(regression.fit(factors) ** 2, axis=1)
        return float(total)


@dataclass(frozen=True)
class Problem:
    matrix: np.ndarray
    start: tuple[np.ndarray, np.ndarray]
    features: np.ndarray | None
    objective: Objective
    user_features: np.ndarray | None = None

    def reference(self, epochs: int) -> Reference:
        w, h = (table.astype(np.float64) for table in self.start)
        return Reference(self.matrix, self.objective, w, h, self.features, self.user_features).run(epochs)

    def fit(self, epochs: int, solver: Solver, steps: int = 3) -> Factors:
        matrix = sparse.csr_array(self.matrix.astype(np.float32))
        priors = Priors.of(matrix, self.objective, ALPHA, self.features, self.user_features)
        how = Settings(RANK, self.objective, epochs, solver, steps, loss=True)
        return fit(matrix, how, lambda: self.start, priors)


Given = Literal["", "items", "users", "both"]
"""Which sides have features."""


def problem(given: Given, nu: float = 1.0, a0: float = 0.05, cold: bool = True, short: bool = False) -> Problem:
    """Weights that are not equal; rows without a history; histories shorter and longer than RANK, or only `short`.

    The exact solver factorizes one system for short histories and another for long ones.
    """
    rng = np.random.default_rng(7)
    mask = rng.random((USERS, ITEMS)) < np.outer(rng.uniform(0.02, 1, USERS), rng.uniform(0.1, 1, ITEMS))
    if short:
        mask &= rng.random(mask.shape) < 0.15
    if cold:
        mask[[COLD_USER, BARE_USER]], mask[:, [COLD_ITEM, BARE_ITEM]] = False, False
    else:
        mask[:, ~mask.any(axis=0)] = True
    matrix = mask * rng.choice([0.5, 1.0, 2.5], mask.shape)
    for axis in (0, 1):
        longest = np.count_nonzero(matrix, axis=axis).max()
        assert longest <= 8 if short else longest > RANK
    of_items, of_users = (rng.standard_normal((n, 4)).astype(np.float32) for n in (ITEMS, USERS))
    if cold:
        of_items[BARE_ITEM], of_users[BARE_USER] = 0, 0
    start = tuple(rng.standard_normal((n, RANK)).astype(np.float32) * 0.1 for n in matrix.shape)
    return Problem(
        matrix,
        (start[0], start[1]),
        of_items if given in ("items", "both") else None,
        Objective(a0, 0.02, nu),
        of_users if given in ("users", "both") else None,
    )


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


every = pytest.mark.parametrize("features", ["", "items", "users", "both"])


@every
@pytest.mark.parametrize("short", [False, True], ids=["long", "short"])
@pytest.mark.parametrize("nu", [1.0, 0.5, 0.0])
def test_the_exact_solver_is_the_reference(features: Given, nu: float, short: bool) -> None:
    # The factorization turns both tables as it goes, so what is compared is what a turn leaves alone.
    given = problem(features, nu, short=short)
    fitted, wanted = given.fit(4, "cholesky"), given.reference(4)
    assert fitted.users.dtype == fitted.items.dtype == np.float32
    assert relative(fitted.users @ fitted.items.T, wanted.w @ wanted.h.T) < 1e-4
    assert relative(fitted.users @ fitted.users.T, wanted.w @ wanted.w.T) < 1e-4
    assert relative(fitted.items @ fitted.items.T, wanted.h @ wanted.h.T) < 1e-4
    assert fitted.losses == pytest.approx(wanted.losses, rel=1e-4)
    coefficients = wanted.coefficients()
    if coefficients is None:
        assert fitted.coefficients is None
    else:
        assert fitted.coefficients is not None
        assert relative(fitted.users @ fitted.coefficients.T, wanted.w @ coefficients.T) < 1e-4
    assert (fitted.user_coefficients is None) == (given.user_features is None)
    if fitted.user_coefficients is not None and given.user_features is not None:
        # Those that the users were solved with: what the factors before the last half-epoch say.
        before = given.reference(3)
        told = before.of_users
        assert told is not None
        coefficients = told.fit(before.w)
        assert relative(fitted.user_coefficients @ fitted.items.T, coefficients @ wanted.h.T) < 1e-4


@every
def test_three_conjugate_gradient_steps_come_within_half_a_percent(features: Given) -> None:
    given = problem(features)
    fitted, wanted = given.fit(25, "cg", steps=3), given.reference(25)
    # With two priors that move, the steps end at another point than the exact solver.
    assert fitted.losses[-1] == pytest.approx(wanted.losses[-1], rel=1e-2 if features == "both" else 5e-3)
    again = Reference(
        given.matrix,
        given.objective,
        fitted.users.astype(float),
        fitted.items.astype(float),
        given.features,
        given.user_features,
    )
    assert fitted.losses[-1] == pytest.approx(again.loss(), rel=1e-4), "the loss is that of the factors returned"


@every
def test_many_conjugate_gradient_steps_are_the_exact_solver(features: Given) -> None:
    given = problem(features)
    steps, exact = given.fit(2, "cg", steps=RANK + 2), given.fit(2, "cholesky")
    assert relative(steps.users @ steps.items.T, exact.users @ exact.items.T) < 1e-3


@every
def test_the_objective_never_rises_with_the_exact_solver(features: Given) -> None:
    losses = np.asarray(problem(features, cold=False).fit(25, "cholesky").losses)
    assert np.all(np.diff(losses) <= 1e-6 * losses[:-1])
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_rows_without_a_history(solver: Solver) -> None:
    given = problem("both")
    fitted, wanted = given.fit(5, solver), given.reference(5)
    assert not fitted.users[BARE_USER].any() and not fitted.items[BARE_ITEM].any(), "neither history nor features"
    assert fitted.users[COLD_USER].any() and fitted.items[COLD_ITEM].any()
    if solver == "cholesky":
        assert relative(fitted.users @ fitted.items[COLD_ITEM], wanted.w @ wanted.h[COLD_ITEM]) < 1e-4
        assert relative(fitted.items @ fitted.users[COLD_USER], wanted.h @ wanted.w[COLD_USER]) < 1e-4
    assert not problem("users").fit(2, solver).items[COLD_ITEM].any()
    assert not problem("items").fit(2, solver).users[COLD_USER].any()


@every
@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_without_an_unobserved_weight_cold_rows_keep_their_prior(features: Given, solver: Solver) -> None:
    given = problem(features, a0=0.0)
    fitted = given.fit(2, solver)
    assert np.isfinite(fitted.users).all()
    assert np.isfinite(fitted.items).all()
    assert not fitted.items[BARE_ITEM].any()
    assert fitted.items[COLD_ITEM].any() == (features in ("items", "both"))
    assert fitted.users[COLD_USER].any() == (features in ("users", "both"))


def test_equal_weights_need_no_table_of_weights_and_count_all_the_same() -> None:
    given = problem("")
    for weight in (1.0, 0.3):
        matrix = weight * (given.matrix > 0)
        equal = Problem(matrix, given.start, None, given.objective)
        fitted, wanted = equal.fit(2, "cholesky"), equal.reference(2)
        assert relative(fitted.users @ fitted.items.T, wanted.w @ wanted.h.T) < 1e-4


def test_one_user_and_one_item() -> None:
    start = (np.full((1, RANK), 0.1, np.float32), np.full((1, RANK), 0.1, np.float32))
    lone = Problem(np.asarray([[2.0]]), start, None, Objective(0.05, 0.02, 1.0))
    fitted, wanted = lone.fit(3, "cholesky"), lone.reference(3)
    assert relative(fitted.users @ fitted.items.T, wanted.w @ wanted.h.T) < 1e-4


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 4, 8])
def test_tiles_of_few_factors_and_many_short_histories(rank: int, weighted: bool) -> None:
    rng = np.random.default_rng(rank)
    users = 20_000
    columns = np.argsort(rng.random((users, 60)), axis=1)[:, :8]
    weights = rng.choice([0.5, 1.0, 2.0], columns.size) if weighted else np.ones(columns.size)
    matrix = sparse.csr_array((weights, (np.repeat(np.arange(users), 8), columns.ravel())), dtype=np.float32)
    start = [rng.standard_normal((n, rank)).astype(np.float32) * 0.1 for n in (users, 60)]
    how = Settings(rank, Objective(0.05, 0.02, 1.0), 2, "cg", 8)
    exact = Settings(rank, how.objective, 2, "cholesky")
    found, wanted = (fit(matrix, one, lambda: (start[0], start[1])) for one in (how, exact))
    scores, right = (one.users[::97] @ one.items.T for one in (found, wanted))
    assert relative(scores, right) < 1e-3


@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_a_history_of_a_hundred_thousand(solver: Solver) -> None:
    rng = np.random.default_rng(3)
    mask = rng.random((60, 100_000)) < 0.002
    mask[1] = True
    mask[3] = False
    start = tuple(rng.standard_normal((n, RANK)).astype(np.float32) * 0.1 for n in mask.shape)
    wide = Problem(mask.astype(float), (start[0], start[1]), None, Objective(0.01, 0.02, 1.0))
    fitted, wanted = wide.fit(2, solver, steps=6), wide.reference(2)
    assert fitted.losses[-1] == pytest.approx(wanted.losses[-1], rel=1e-3)
    assert fitted.users[1].any()
    assert not fitted.users[3].any()


def test_weights_of_ten_million() -> None:
    given = problem("")
    heavy = Problem(given.matrix * 1e7, given.start, None, Objective(0.05e7, 0.02e7, 1.0))
    assert heavy.fit(4, "cholesky").losses == pytest.approx(heavy.reference(4).losses, rel=1e-3)
    # Against a ridge of ordinary size they leave rows that float32 cannot tell from singular ones; what is observed is
    # reproduced all the same.
    for some in (slice(None), slice(None, None, 25)):
        weights, places = given.matrix.copy(), np.argwhere(given.matrix > 0)[some]
        weights[tuple(places.T)] = 1e7
        fitted = Problem(weights, given.start, None, given.objective).fit(8, "cholesky")
        scores = np.sum(fitted.users[places[:, 0]] * fitted.items[places[:, 1]], axis=1)
        assert np.abs(scores - 1).max() < 0.05


def test_a_fit_that_overflows_says_what_to_do() -> None:
    given = problem("")
    huge = Problem(given.matrix * 1e37, given.start, None, given.objective)
    with pytest.raises(FitDiverged, match="raise the regularization, or scale the weights down"):
        huge.fit(3, "cg")


DETERMINISM = """
import hashlib, os, sys
cores, threads = int(sys.argv[1]), int(sys.argv[2])
if cores == 1:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import numpy as np
from scipy import sparse
import geo_mf as gm

# Rows and rank are enough for BLAS, LAPACK and XLA to split their work among cores if one lets them. One history makes
# the exact solver sum over many rows. The others have two lengths only: few shapes to compile, two to solve at once.
rng = np.random.default_rng(0)
users, items = 2000, 1000
rows = np.r_[np.zeros(items, int), np.repeat(np.arange(users), np.where(np.arange(users) % 2, 6, 40))]
columns = np.arange(len(rows)) * 7 % items
matrix = sparse.csr_array((rng.uniform(0.5, 2, len(rows)), (rows, columns)), shape=(users, items))
features = rng.standard_normal((items, 64)).astype(np.float32)
for solver in ("cg", "cholesky"):
    model = gm.IALS(96, iterations=1, solver=solver, num_threads=threads, random_state=0).fit(matrix, features)
    print(hashlib.sha256(model.user_factors.tobytes() + model.item_factors.tobytes()).hexdigest())
"""


MANY_SYSTEMS = """
import numpy as np
from scipy import sparse
import geo_mf as gm

rng = np.random.default_rng(0)
rows = np.repeat(np.arange(6000), 60)
matrix = sparse.csr_array((rng.uniform(0.5, 2, len(rows)), (rows, np.arange(len(rows)) * 7 % 2000)))
gm.IALS(64, iterations=1, solver="cholesky", num_threads=4, random_state=0).fit(matrix)
"""


def test_the_exact_solver_does_not_wait_for_itself() -> None:
    # Batches of systems solved at the same time used to wait for each other's threads, for ever, nearly every time.
    subprocess.run([sys.executable, "-c", MANY_SYSTEMS], env=os.environ | {"NPROC": "2"}, timeout=60, check=True)


def test_the_same_factors_on_one_core_and_on_all() -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", DETERMINISM, *arguments], stdout=subprocess.PIPE, text=True, env=env)
        for arguments, env in (
            (("1", "1"), dict(os.environ)),
            (("0", "3"), os.environ | {"NPROC": "7"}),  # the size of XLA's thread pool
        )
    ]
    outputs = []
    for process in processes:
        outputs.append(process.communicate(timeout=120)[0])
        assert process.returncode == 0
    assert len(outputs[0].split()) == 2
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("room", "rows", "width"), [(1, 1, 1), (1, 8, 8), (2, 1, 16), (4, 3, 10), (8, 1, 300)])
def test_any_shape_of_a_call_solves_its_tiles_and_leaves_the_others(
    room: int, rows: int, width: int, weighted: bool, features: bool
) -> None:
    """Were one of these shapes to make the compiler abort, the whole test run would end here."""
    random = np.random.default_rng(0)
    size, rank, count = rows * room + 1, 3, max(1, room - 1)
    table = random.standard_normal((size, rank)).astype(np.float32)
    columns = random.integers(0, size, (room, rows, width)).astype(np.int32)
    lengths = random.integers(0, width + 1, (room, rows)).astype(np.int32)
    weights = random.uniform(0.5, 2, columns.shape).astype(np.float32) if weighted else np.full((), 1.5, np.float32)
    prior = random.standard_normal((size, rank)).astype(np.float32) if features else None
    ridge, spectrum = np.full(size, 0.3, np.float32), np.asarray([0.1, 0.2, 0.5], np.float32)
    expected = None if prior is None else jnp.asarray(prior)
    half = ials.HalfEpoch(jnp.asarray(table), jnp.asarray(spectrum), jnp.asarray(ridge), expected)
    arguments = (np.int32(0), np.int32(count), jnp.asarray(columns), jnp.asarray(weights), jnp.asarray(lengths))
    by_steps, exact = (np.asarray(ials.solve_rows(half, *arguments, how, 12)) for how in ("cg", "cholesky"))
    assert by_steps[: count * rows] == pytest.approx(exact[: count * rows], rel=1e-3, abs=1e-4)
    assert not by_steps[count * rows :].any() and not exact[count * rows :].any()
    for row in range(count * rows):
        n = lengths.reshape(-1)[row]
        x = table[columns.reshape(-1, width)[row, :n]].astype(float)
        c = weights.reshape(-1, width)[row, :n] if weighted else np.full(n, 1.5)
        system = np.diag(spectrum + ridge[row]) + (x * c[:, None]).T @ x
        right = x.T @ c + (ridge[row] * prior[row] if prior is not None else 0)
        assert exact[row] == pytest.approx(np.linalg.solve(system, right), rel=1e-3, abs=1e-4)
