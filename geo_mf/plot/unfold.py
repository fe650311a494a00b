"""A space laid flat by UMAP, which keeps neighbours rather than distances (McInnes, Healy and Melville 2018)."""

import warnings

import numpy as np
from numpy.typing import ArrayLike

from geo_mf.errors import MissingExtra
from geo_mf.plot.flat import Plane, directions

try:
    with warnings.catch_warnings():
        # It says that an optional part of its own is not installed.
        warnings.simplefilter("ignore", ImportWarning)
        from umap import UMAP  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise MissingExtra("maps by UMAP need umap-learn: pip install 'geo_mf[umap]', or use method='pca'") from error

NEIGHBOURS = 15


def unfolded(vectors: ArrayLike, what: str) -> Plane:
    """Lay a space flat: rows of zeros get no place, and the map is centred and scaled to a mean square radius of 1.

    The same rows give the same map. Raises InvalidInput as `flatten` does.
    """
    alive, unit = directions(vectors, what)
    reducer = UMAP(n_components=2, n_neighbors=min(NEIGHBOURS, len(unit) - 1), init="pca", random_state=0, n_jobs=1)
    found = np.asarray(reducer.fit_transform(unit), np.float64)
    found -= found.mean(axis=0)
    spread = np.sqrt(np.mean(np.sum(found**2, axis=1)))
    points = np.full((len(alive), 2), np.nan)
    points[alive] = found / spread if spread > 0 else found
    return Plane(points, np.empty(0))
