"""The trend: what everybody touches lately, and how a build learns how much that counts."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import small_catalog, small_interactions
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import geo_mf as gm
from geo_mf.builder import trending
from geo_mf.builder.learning import learn
from geo_mf.builder.trial import Described
from geo_mf.geometry import trend
from geo_mf.geometry.blend import Blend
from geo_mf.geometry.trend import DAY, HALF_LIVES, TREND_WEIGHTS

NOW = 1_700_000_000 * 10**9


def test_touches_by_hand() -> None:
    items = np.asarray([0, 0, 1, 1, 3])
    when = NOW - DAY * np.asarray([0, 30, 60, 90, 0])
    assert trend.touches(items, when, 5, 30.0).tolist() == pytest.approx([1.5, 0.375, 0, 1, 0])
    assert trend.touches(items, when, 5, None).tolist() == [2, 2, 0, 1, 0]
    assert trend.touches(items, None, 5, 30.0).tolist() == [2, 2, 0, 1, 0]
    assert trend.touches(items[:0], when[:0], 2, 30.0).tolist() == [0, 0]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50_000 * DAY)), min_size=1, max_size=30),
    st.sampled_from(HALF_LIVES),
)
def test_touched_and_untouched_are_told_apart(entries: list[tuple[int, int]], half_life: float | None) -> None:
    items, when = (np.asarray(column) for column in zip(*entries, strict=True))
    found = trend.touches(items, when, 10, half_life)
    assert found.dtype == np.float32
    assert set(np.flatnonzero(found)) == set(items.tolist())
    assert trend.touches(items, when + 5 * DAY, 10, half_life).tolist() == found.tolist(), "only ages count"
    column = trend.column(found, np.zeros((10, 1), np.float32), 1.0)
    assert np.isfinite(column).all()
    assert not column[found == 0].any()
    if column.any():
        met = column[found > 0].astype(float)
        assert (met.mean(), met.std()) == pytest.approx((0, 1), abs=1e-4)
        assert (np.diff(column[np.argsort(found)][np.sort(found) > 0]) >= 0).all(), "in the order of the touches"


def test_a_new_item_gets_the_trend_of_its_text() -> None:
    touched = np.asarray([9, 9, 9, 1, 1, 1, 0, 0, 0], np.float32)
    topics = np.eye(2, dtype=np.float32)[[0, 0, 0, 1, 1, 1, 0, 1, 0]]
    topics[8] = 0
    column = trend.column(touched, topics, 0.01)
    assert column[:6] == pytest.approx([1, 1, 1, -1, -1, -1])
    assert column[6:] == pytest.approx([1, -1, 0], abs=0.02)


def crowd(drift: bool, seed: int = 0) -> tuple[sparse.csr_array, np.ndarray]:
    """300 readers over 1,000 days and 100 items: every ten days others are what everybody reads, or always the same."""
    rng = np.random.default_rng(seed)
    users, items, days = [], [], []
    for user in range(300):
        start = rng.integers(0, 900)
        for day in np.sort(start + rng.integers(0, 100, 12)):
            fashion = (day // 10 + rng.integers(0, 4)) % 100
            users.append(user)
            items.append(int(fashion) if drift else int(100 * rng.random() ** 3))
            days.append(int(day))
    keys, first = np.unique(np.asarray(users) * 100 + items, return_index=True)
    when = NOW + np.asarray(days)[first] * DAY
    ones = np.ones(len(keys), np.float32)
    return sparse.csr_array((ones, (keys // 100, keys % 100)), shape=(300, 100)), when


def test_a_fashion_is_learned_and_an_evergreen_is_not_forgotten() -> None:
    config, mute = gm.BuildConfig.of(factors=4, iterations=2), Described(*[np.zeros((100, 1), np.float32)] * 2)
    moving, when = crowd(drift=True)
    learned = trending.learn(moving, when, mute, config, Blend(1.0))
    assert learned.half_life is not None and learned.half_life <= 30
    assert learned.trend == TREND_WEIGHTS[-1]
    found = learn(moving, mute, config, when).blend
    assert replace(found, newcomer=1.0) == learned, "also where there is no text"
    assert trending.learn(moving, when[::-1] * 0 + NOW, mute, config, Blend(1.0)) == Blend(1.0), "all at one moment"
    evergreen = trending.learn(*crowd(drift=False), mute, config, Blend(1.0))
    assert evergreen.half_life is None or evergreen.half_life > 100


def test_too_few_users_teach_nothing() -> None:
    moving, when = crowd(drift=True)
    few = np.flatnonzero(np.diff(moving.indptr))[:10]
    some = sparse.csr_array(moving[few])
    times = when[: some.nnz]
    config, mute = gm.BuildConfig.of(factors=4, iterations=2), Described(*[np.zeros((100, 1), np.float32)] * 2)
    assert trending.learn(some, times, mute, config, Blend(1.0)) == Blend(1.0)


def test_a_build_counts_touches_in_its_own_order() -> None:
    """Datetimes reach the entries they belong to, whatever the order of the rows, and the newest counts."""
    given = small_interactions()
    random = np.random.default_rng(0)
    order = random.permutation(len(given))
    when = NOW + random.integers(0, 900, len(given)) * DAY
    users, items = given.users.take(given.user_rows[order]), given.items.take(given.item_rows[order])
    timed = gm.Interactions.from_arrays(users, items, given.weights[order], when)
    config = gm.BuildConfig.of(factors=4, iterations=1, cache=False)
    rec = gm.build(timed, small_catalog(), config=config, encoder=gm.HashEncoder(dim=8))
    listed = np.asarray([item != "unlisted" for item in items])
    rows = np.asarray([int(item[1:]) for item in items if item != "unlisted"])
    wanted = trend.touches(rows, when[listed], len(rec.catalog), rec.blend.half_life)
    assert rec.touches == pytest.approx(wanted, rel=1e-6)
    if rec.blend.half_life is not None:
        assert rec.trending(k=1).ids == [f"i{int(np.argmax(wanted))}"]
