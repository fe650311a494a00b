"""Reciprocal rank fusion: several rankings become one, by places alone.

Source: Cormack, Clarke and Buettcher 2009, *Reciprocal rank fusion outperforms Condorcet and individual rank learning
methods*, SIGIR.
"""

from collections.abc import Hashable, Iterable

from geo_mf.errors import InvalidInput


def fuse(rankings: Iterable[Iterable[Hashable]], k: float = 60) -> list[tuple[Hashable, float]]:
    """One ranking from several, which need not hold the same items nor have scores that compare.

    An item's score is the sum of 1 / (k + place) over the rankings that hold it; the first place is 1.

    Args:
        rankings: ids, best first: `fuse([rec.recommend("42").ids, search_engine_ids])`.
        k: the larger, the less the first places stand out; 60 is the paper's.

    Returns:
        (id, score), best first; of equal scores, the one that was met first.

    Raises:
        InvalidInput: k is negative or no number, or a ranking is none: an id stands twice in it, or it is a text.
    """
    if isinstance(k, bool) or not isinstance(k, int | float) or not 0 <= k < float("inf"):
        raise InvalidInput(f"k is {k!r}; expected a number of at least 0, such as 60")
    scores: dict[Hashable, float] = {}
    for number, ranking in enumerate(rankings):
        if isinstance(ranking, str | bytes):
            raise InvalidInput(f"ranking {number} is {ranking!r}; expected several rankings, each a list of ids")
        here: set[Hashable] = set()
        for place, id in enumerate(ranking, 1):
            if id in here:
                raise InvalidInput(f"{id!r} stands twice in ranking {number}; expected different ids, best first")
            here.add(id)
            scores[id] = scores.get(id, 0.0) + 1 / (k + place)
    return sorted(scores.items(), key=lambda pair: -pair[1])
