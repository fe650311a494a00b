"""What tests share: a strict JAX, an embedding cache of their own, the checkerboard and one small recommender."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

# Read by JAX when it is imported, here or in a subprocess: no silent change of a dtype or of a rank.
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import settings
from scipy import sparse

import geo_mf as gm
from geo_mf.data.interactions import ReadReport

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("geo_mf", deadline=None)
settings.load_profile("geo_mf")

SIZE = 24  # users, and items that somebody touched


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Embeddings are kept under the tests' own folder, never under the home of who runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEO_MF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def checkerboard() -> sparse.csr_array:
    """float32 [40, 40]: even users like even items, odd users odd ones; the diagonal, which they would like, is out."""
    return board(40)


def changed(rec: gm.Recommender, **parts: Any) -> gm.Recommender:
    """A recommender with some parts in place of those of another."""
    return gm.Recommender(replace(rec.now, **parts))


def board(n: int) -> sparse.csr_array:
    user, item = np.indices((n, n))
    return sparse.csr_array(((user % 2 == item % 2) & (user != item)).astype(np.float32))


def small_interactions() -> gm.Interactions:
    """The checkerboard over users 100..123 and items "i0".."i23", in weights of 1 to 3, and one item nobody lists."""
    user, item = (axis.tolist() for axis in board(SIZE).nonzero())
    weights = [1 + (u + i) % 3 for u, i in zip(user, item, strict=True)]
    users, items = [100 + u for u in user], [f"i{i}" for i in item]
    return gm.Interactions.from_arrays([*users, 100], [*items, "unlisted"], np.asarray([*weights, 1.0]))


def small_catalog() -> gm.Catalog:
    """Even items are about water, odd ones about mountains; "wet" and "steep" are new, "bare" is new and mute."""
    words = "amber birch cedar delta ember fjord grove heron islet jetty knoll larch maple night ocean pearl".split()
    ids = [*(f"i{i}" for i in range(SIZE)), "wet", "steep", "bare"]
    topics = [*(i % 2 for i in range(SIZE)), 0, 1, 0]
    lines = ("boats on rivers and lakes of water", "mountains of rock and paths of snow")
    texts = [f"{lines[topic]} {words[i % len(words)]}" for i, topic in enumerate(topics)]
    texts[-1] = ""
    titles = [f"Title of {id}" for id in ids]
    titles[4] = "<b>Fish & 'chips'</b>"
    table = pa.table({"item_id": ids, "title": titles, "year": range(1980, 1980 + len(ids)), "topic": topics})
    return gm.Catalog(gm.IdMap(ids), texts, table, "item_id", "title", ReadReport(len(ids), len(ids), unit="row"))


@pytest.fixture(scope="session")
def recommender() -> gm.Recommender:
    """Built from the two above, in memory, with a hashing encoder, a blend that is not learned, and a trend."""
    config = gm.BuildConfig.of(factors=8, iterations=8, cache=False, learn_blend=False)
    built = gm.build(small_interactions(), small_catalog(), config=config, encoder=gm.HashEncoder(dim=32))
    trendy = changed(built, blend=replace(built.blend, trend=0.1))
    return changed(trendy, index=gm.FaissIndex(trendy.vectors))
