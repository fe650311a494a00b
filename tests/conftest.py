"""What tests share: a strict JAX, an embedding cache of their own, the checkerboard and one small recommender."""

import os
from collections.abc import Iterator

# Read by JAX when it is imported, here or in a subprocess: no silent change of a dtype or of a rank.
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"

import numpy as np
import pytest
from scipy import sparse

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


def board(n: int) -> sparse.csr_array:
    user, item = np.indices((n, n))
    return sparse.csr_array(((user % 2 == item % 2) & (user != item)).astype(np.float32))
