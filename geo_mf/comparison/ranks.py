"""Where given items stand among all, by cosine to others, in both spaces and in their equal blend."""

import numpy as np
from numpy.typing import NDArray

from geo_mf.comparison.spaces import Space

TIE = 1e-6
"""Cosines that differ by less are equal: float32 rounds them by about 1e-7."""
SCORES = 2**23
"""Cosines held at once, of each space."""


def ranks(
    a: Space, b: Space, asked: NDArray[np.integer], wanted: NDArray[np.integer], scores: int = SCORES
) -> NDArray[np.float64]:
    """float64 [m, 3]: the rank, from 1, of each row `wanted` by cosine to the row `asked`, which is left out itself.

    The columns: in the first space, in the second, and by the mean of both cosines. An item at the same cosine counts
    half.
    """
    queries, at = np.unique(asked, return_inverse=True)
    order = np.argsort(at, kind="stable")
    found = np.empty((len(asked), 3))
    step = max(1, scores // len(a))
    begins = np.searchsorted(at[order], np.arange(0, len(queries) + step, step))
    for chunk, start in enumerate(range(0, len(queries), step)):
        some = queries[start : start + step]
        cosines = [space.directions[some] @ space.directions.T for space in (a, b)]
        cosines.append((cosines[0] + cosines[1]) / 2)
        for pair in order[begins[chunk] : begins[chunk + 1]]:
            line = at[pair] - start
            found[pair] = [_rank(cosine[line], int(asked[pair]), int(wanted[pair])) for cosine in cosines]
    return found


def _rank(cosines: NDArray[np.float32], itself: int, wanted: int) -> float:
    aim = float(cosines[wanted])
    above = np.count_nonzero(cosines > aim + TIE)
    least = np.count_nonzero(cosines >= aim - TIE)
    # Both the wanted one and the one asked about are among those counted.
    above -= int(cosines[itself] > aim + TIE)
    least -= int(cosines[itself] >= aim - TIE)
    return 1 + above + (least - above - 1) / 2
