"""What a fit leaves open: textbook numbers for who names a weight, else numbers that follow the shape of the data."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import geo_mf as gm
from geo_mf.errors import InvalidInput
from geo_mf.factorize.ials import Objective


def clicks(users: int = 60, items: int = 40, density: float = 0.1, weight: float = 1.0) -> sparse.csr_array:
    rng = np.random.default_rng(0)
    mask = rng.random((users, items)) < density
    mask[0, 0] = True
    return sparse.csr_array(weight * mask.astype(np.float32))


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"regularization": 0.02, "unobserved_weight": 0.1}, Objective(0.1, 0.02, 1.0, 0.0, 0.0)),
        ({"regularization": 0.02, "unobserved_weight": 0.1, "nu": 0.5}, Objective(0.1, 0.02, 0.5, 0.0, 0.0)),
        (
            {"regularization": 0.02, "unobserved_weight": 0.1, "popularity_discount": 0.4},
            Objective(0.1, 0.02, 1.0, 0.0, 0.4),
        ),
    ],
)
def test_what_is_named_is_the_objective_of_the_literature(settings: dict[str, Any], wanted: Objective) -> None:
    assert gm.IALS(**settings).objective == wanted
    assert gm.IALS(**settings).objective_for(clicks()) == wanted


def test_one_weight_named_leaves_the_other_to_the_data() -> None:
    found = gm.IALS(regularization=0.02).objective_for(clicks())
    assert (found.regularization, found.nu, found.activity_discount, found.popularity_discount) == (0.02, 1.0, 0.0, 0.0)
    assert found.unobserved_weight > 0
    found = gm.IALS(unobserved_weight=0.3).objective_for(clicks())
    assert (found.unobserved_weight, found.nu) == (0.3, 1.0)
    assert found.regularization > 0


@given(users=st.integers(20, 200), items=st.integers(20, 200), density=st.floats(0.001, 0.5))
def test_unobserved_pairs_weigh_together_so_many_times_what_was_observed(
    users: int, items: int, density: float
) -> None:
    matrix = clicks(users, items, density)
    found = gm.IALS(8).objective_for(matrix)
    share = matrix.nnz / (users * items)
    wanted = min(40 * matrix.nnz * min(1, (0.002 / share) ** 0.5), 0.5 * users * items)
    assert found.unobserved_weight * users * items == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(("density", "less"), [(0.001, 1.0), (0.008, 0.5)])
def test_discounts_are_for_sparse_data(density: float, less: float) -> None:
    matrix = sparse.random_array((1000, 500), density=density, rng=0, format="csr", dtype=np.float32)
    found = gm.IALS(8).objective_for(matrix)
    assert (found.activity_discount, found.popularity_discount) == pytest.approx((0.25 * less, 0.4 * less))
    assert gm.IALS(8, popularity_discount=0.3).objective_for(matrix).popularity_discount == 0.3, "named, it stays"


@given(factor=st.sampled_from([0.01, 0.5, 40.0]))
def test_without_frequency_scaling_the_scale_of_the_weights_does_not_matter(factor: float) -> None:
    plain, scaled = (gm.IALS(8, nu=0.0).objective_for(clicks(weight=weight)) for weight in (1.0, factor))
    assert scaled.unobserved_weight == pytest.approx(factor * plain.unobserved_weight, rel=1e-5)
    assert scaled.regularization == pytest.approx(factor * plain.regularization, rel=1e-5)
    first, second = (gm.IALS(8, nu=0.0, solver="cholesky", random_state=0).fit(clicks(weight=w)) for w in (1.0, factor))
    assert first.predict([3, 4], [5, 6]) == pytest.approx(second.predict([3, 4], [5, 6]), abs=1e-3)


def test_more_factors_and_fewer_rows_need_more_regularization() -> None:
    ridge = [gm.IALS(factors).objective_for(clicks(100, 80)).regularization for factors in (1, 2, 4)]
    assert ridge[1] == pytest.approx(ridge[0] * 2**0.5)
    assert ridge[2] == pytest.approx(ridge[0] * 2)
    at_most = gm.IALS(40).objective_for(clicks())
    assert at_most == gm.IALS(400).objective_for(clicks()), "a quarter of a row's weight"


def test_what_a_fit_chose_is_told_kept_and_saved(tmp_path: Any) -> None:
    model = gm.IALS(8, iterations=2, random_state=0)
    with pytest.raises(InvalidInput, match="chosen by fit"):
        _ = model.objective
    model.fit(clicks())
    assert model.objective == model.objective_for(clicks())
    assert model.get_params()["regularization"] is None
    model.save(tmp_path / "model")
    assert gm.IALS.load(tmp_path / "model").objective == model.objective
    chosen = model.objective
    assert model.set_params(regularization=0.5).objective == Objective(
        chosen.unobserved_weight, 0.5, chosen.nu, chosen.activity_discount, chosen.popularity_discount
    )


def test_a_search_starts_from_the_numbers_that_a_build_would_choose() -> None:
    from geo_mf.builder.trial import settled

    config = settled(gm.BuildConfig(factors=8), clicks())
    wanted = gm.IALS(8).objective_for(clicks())
    assert config.regularization == pytest.approx(wanted.regularization, rel=1e-5)
    assert config.unobserved_weight == pytest.approx(wanted.unobserved_weight, rel=1e-5)
    assert settled(config, clicks(density=0.4)) == config
