"""One matrix as the product of two thinner ones, and how much of each to keep: arrays only, in float64.

A layer `y = W x` is replaced by `y = A (B x)`. Its loss is measured where it counts: on the inputs that the layer gets,
and by what a change of its outputs does to the vector of the whole text,

    loss = tr(G (W - AB) C (W - AB)^T),    C = E[x x^T],  G = E[g g^T],  g = d(vector) / d(output).

With roots `C = S S^T` and `G = R R^T` this is the squared Frobenius norm of `R^T (W - AB) S`, which a truncated
singular value decomposition minimises (Eckart and Young 1936). Without `G` it is the truncation-aware whitening of
SVD-LLM (Wang et al. 2024, arXiv 2403.07378); `C` and `G` together are the factors of K-FAC (Martens and Grosse 2015,
arXiv 1503.05671).
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geo_mf.errors import InvalidInput

__all__ = ["Directions", "Shape", "allocate", "conditioned", "directions"]


@dataclass(frozen=True)
class Shape:
    """What a matrix costs, in numbers: `dense` as it is, `each` for one direction of two thinner ones.

    Attributes:
        rows, columns: of the matrix.
    """

    rows: int
    columns: int

    @property
    def dense(self) -> int:
        return self.rows * self.columns

    @property
    def each(self) -> int:
        return self.rows + self.columns

    @property
    def most(self) -> int:
        """The highest rank whose two matrices hold fewer numbers than the one; 0 where there is none."""
        return (self.dense - 1) // self.each


@dataclass(frozen=True)
class Directions:
    """A matrix taken apart, the directions that matter most first.

    Attributes:
        losses: float64 [k], what leaving out each direction costs; falling.
        left: float64 [rows, k].
        right: float64 [k, columns]. `left @ right` is the matrix.
    """

    losses: np.ndarray
    left: np.ndarray
    right: np.ndarray

    def factors(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """`A` float64 [rows, rank] and `B` [rank, columns]: the best of that rank, both of the same scale."""
        left, right = self.left[:, :rank], self.right[:rank]
        heights, widths = np.linalg.norm(left, axis=0), np.linalg.norm(right, axis=1)
        # A direction without length stays as it is: there is nothing to share between its two sides.
        even = np.sqrt(np.where((heights > 0) & (widths > 0), widths, 1) / np.where(heights > 0, heights, 1))
        even = np.where((heights > 0) & (widths > 0), even, 1)
        return left * even, right / even[:, None]


def conditioned(moment: np.ndarray, samples: int, share: float | None = None) -> np.ndarray:
    """A second moment [d, d] that can be inverted: mixed with a multiple of the identity.

    Directions that no sample showed get a small share instead of none, because other texts may show them. A moment of
    nothing but zeros becomes the identity.

    Args:
        moment: positive semidefinite.
        samples: that it is the mean of.
        share: of the identity in the mixture; None takes the more, the fewer samples there are for each dimension.
    """
    d = len(moment)
    mean = float(np.trace(moment)) / d
    if not mean > 0:
        return np.eye(d)
    if share is None:
        share = max(1e-6, 0.1 * d / (d + samples))
    return (1 - share) * moment + share * mean * np.eye(d)


def directions(weight: np.ndarray, inputs: np.ndarray, outputs: np.ndarray | None = None) -> Directions:
    """Take `weight` [rows, columns] apart.

    Args:
        weight: `W`.
        inputs: `C` [columns, columns], positive definite, see `conditioned`.
        outputs: `G` [rows, rows], positive definite; None is the identity.

    Raises:
        InvalidInput: a number is not finite.
    """
    weight = np.asarray(weight, np.float64)
    for name, array in (("weight", weight), ("inputs", inputs), ("outputs", outputs)):
        if array is not None and not np.isfinite(array).all():
            raise InvalidInput(f"{name} of shape {array.shape} holds numbers that are not finite; check the model")
    root, inverse = _roots(inputs)
    seen = weight @ root
    if outputs is None:
        u, s, vt = np.linalg.svd(seen, full_matrices=False)
        return Directions(s**2, u * s, vt @ inverse)
    back, unback = _roots(outputs)
    u, s, vt = np.linalg.svd(back @ seen, full_matrices=False)
    return Directions(s**2, unback @ (u * s), vt @ inverse)


def _roots(moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The symmetric square root and its inverse."""
    values, vectors = np.linalg.eigh(np.asarray(moment, np.float64))
    # Rounding can push the smallest below nothing.
    values = np.sqrt(np.maximum(values, values[-1] * 1e-14 if values[-1] > 0 else 1.0))
    return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T


def allocate(losses: Sequence[np.ndarray], shapes: Sequence[Shape], budget: int, step: int = 1) -> list[int | None]:
    """The rank of each matrix, so that all of them hold at most `budget` numbers and lose as little as possible.

    Numbers go where each saves most. Ranks of one matrix save less and less, but the step from its last useful rank to
    leaving it whole saves all that is left at once: each matrix follows the lower hull of its (numbers, loss) points
    (Shoham and Gersho 1988), and what then remains of the budget is filled up with single steps.

    Args:
        losses: of each matrix, what each direction costs when left out; falling.
        shapes: of each matrix.
        budget: numbers that all may hold together.
        step: ranks are multiples of this where a matrix is large enough.

    Returns:
        A rank for each matrix; None for one that stays whole, which is as dear or cheaper than two thin ones.

    Raises:
        InvalidInput: not even the smallest rank of each matrix fits into the budget.
    """
    options = [_options(loss, shape, step) for loss, shape in zip(losses, shapes, strict=True)]
    spent = sum(one[0][1] for one in options)
    if spent > budget:
        raise InvalidInput(
            f"{budget:,} numbers are too few for {len(options)} layers: the least they need is {spent:,}; "
            "give a larger ratio"
        )
    chosen = [0] * len(options)
    hulls = [_hull(one) for one in options]
    waiting = [(-_slope(options[at], *hull[:2]), at, 1) for at, hull in enumerate(hulls) if len(hull) > 1]
    heapq.heapify(waiting)
    while waiting:
        saved, at, place = heapq.heappop(waiting)
        if not saved < 0:
            break  # what saves nothing is not bought
        one, hull = options[at], hulls[at]
        price = one[hull[place]][1] - one[chosen[at]][1]
        if spent + price > budget:
            continue
        spent += price
        chosen[at] = hull[place]
        if place + 1 < len(hull):
            heapq.heappush(waiting, (-_slope(one, hull[place], hull[place + 1]), at, place + 1))
    _fill(options, chosen, budget - spent)
    return [one[place][0] for one, place in zip(options, chosen, strict=True)]


_Option = tuple[int | None, int, float]
"""A rank, the numbers that it takes, and the loss that it leaves."""


def _options(losses: np.ndarray, shape: Shape, step: int) -> list[_Option]:
    """From the cheapest to the dearest, the last one whole."""
    ranks = list(range(step, shape.most + 1, step)) or list(range(1, shape.most + 1))
    left = np.concatenate([np.cumsum(losses[::-1])[::-1], [0.0]])
    found: list[_Option] = [(rank, rank * shape.each, float(left[min(rank, len(losses))])) for rank in ranks]
    return [*found, (None, shape.dense, 0.0)]


def _slope(options: list[_Option], before: int, after: int) -> float:
    """Loss saved by each number spent."""
    return (options[before][2] - options[after][2]) / (options[after][1] - options[before][1])


def _hull(options: list[_Option]) -> list[int]:
    """Places of the options on the lower convex hull of (numbers, loss)."""
    hull: list[int] = []
    for place in range(len(options)):
        while len(hull) > 1 and _slope(options, hull[-2], hull[-1]) <= _slope(options, hull[-1], place):
            hull.pop()
        hull.append(place)
    return hull


def _fill(options: list[list[_Option]], chosen: list[int], rest: int) -> None:
    """Spend what is left on the single steps that save most for each number; changes `chosen`."""
    while True:
        best: tuple[float, int, int] | None = None
        for at, one in enumerate(options):
            for place in range(chosen[at] + 1, len(one)):
                if one[place][1] - one[chosen[at]][1] > rest:
                    break
                saved = _slope(one, chosen[at], place)
                if best is None or saved > best[0]:
                    best = (saved, at, place)
        if best is None or best[0] <= 0:
            return
        _, at, place = best
        rest -= options[at][place][1] - options[at][chosen[at]][1]
        chosen[at] = place
