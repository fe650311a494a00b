"""compare: what one space knows that another does not."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from geo_mf.comparison.alignment import alignment
from geo_mf.comparison.disagreement import disagreement
from geo_mf.comparison.figures import WhoIsRight
from geo_mf.comparison.neighbours import OCCURRENCE, Neighbours, hubness, nearest
from geo_mf.comparison.norms import norms
from geo_mf.comparison.pairs import Pairs
from geo_mf.comparison.result import Comparison
from geo_mf.comparison.similarity import similarity
from geo_mf.comparison.spaces import Items, Space, check_aligned, comparable
from geo_mf.comparison.spectrum import spectrum
from geo_mf.comparison.who_is_right import who_is_right
from geo_mf.data.ids import IdMap, IdValues
from geo_mf.data.interactions import Interactions
from geo_mf.errors import InvalidInput

ASKED = 20_000
"""Items, at most, whose neighbours are looked for among all."""


def compare(
    a: ArrayLike,
    b: ArrayLike,
    *,
    ids: IdValues | IdMap | None = None,
    titles: Sequence[str] | None = None,
    interactions: Interactions | None = None,
    counts: ArrayLike | None = None,
    names: tuple[str, str] = ("factors", "embeddings"),
    k: int = 20,
    seed: int = 0,
) -> Comparison:
    """Compare two vector sets of the same items: factors and embeddings, two encoders, last month's factors and
    today's.

    Everything but `norms` looks at directions only: each row is brought to unit length. Rows of zeros in either space
    (an item without text, an item without a factor) are left out of everything, and counted. The neighbours of at most
    20,000 items, drawn with the seed, are looked for among all items. Memory is a few copies of the vectors and 1 GB.

    Args:
        a, b: [n, da] and [n, db], row i of both for the same item; n at least 10.
        ids: the items' ids, one each. By default 0 to n - 1. Needed with `interactions`.
        titles: what to call the items in lists. By default their ids.
        interactions: behaviour that NEITHER space has learned from, such as the test side of a split: each space is
            judged by how many pairs of items it finds that one user touched there. Factors that were fitted to these
            interactions know the answers, and would win whatever they are worth. Items are matched by id; interactions
            with items that are not compared are counted and left out. Pairs are drawn with the seed: at most 20 of a
            user and 20,000 in all.
        counts: [n], how many interactions each item had when the spaces were learned. They show how much of the length
            of a row is popularity, from how much behaviour on one space finds more than the other, and leave items with
            fewer than 5 out of the lists of disagreements.
        names: of the spaces, in the plural: they are the subject of sentences.
        k: a pair is found when one is among the k nearest of the other; not all of the others may be.
        seed: of every random choice.

    Raises:
        InvalidInput: the rows do not match, are too few or not finite, an id occurs twice, interactions came without
            ids, no user touched two of the items, or all of them are among the k nearest.
    """
    check_choices(names, k, seed)
    if interactions is not None and not isinstance(interactions, Interactions):
        raise InvalidInput(
            f"interactions is a {type(interactions).__name__}; expected gm.Interactions: read them with "
            "gm.read_interactions"
        )
    first, second = Space.of(names[0], a), Space.of(names[1], b)
    check_aligned(first, second)
    x, y, items = comparable(first, second, Items.of(len(first), ids, titles, counts))
    right = None
    if interactions is not None:
        check_reach(k, len(items))
        right = who_is_right(x, y, Pairs.drawn(interactions, items, seed), items.counts, k, seed)
    return compared(x, y, items, len(first) - len(items), seed, right)


def compared(
    a: Space, b: Space, items: Items, left_out: int, seed: int, right: WhoIsRight | None, asked: int = ASKED
) -> Comparison:
    """The geometry of two spaces, all of whose rows are known, put together with who is right about behaviour.

    With more than `asked` items, the neighbours of so many are looked for among all; and hubs among so many of them, as
    all but a few would be nobody's neighbour if only some were asked.
    """
    n = len(items)
    sample = np.sort(np.random.default_rng(seed).permutation(n)[:asked])
    found = Neighbours.of(a, b, sample)
    hubs = [
        hubness(space.take(sample), nearest(space.directions[sample], np.arange(asked), OCCURRENCE), items.take(sample))
        if n > asked
        else hubness(space, rows, items)
        for space, rows in ((a, found.first), (b, found.second))
    ]
    popular = () if items.counts is None else tuple(norms(space, items.counts) for space in (a, b))
    return Comparison(
        names=(a.name, b.name),
        dims=(a.directions.shape[1], b.directions.shape[1]),
        items=n,
        left_out=left_out,
        asked=len(sample),
        seed=seed,
        similarity=similarity(a.directions, b.directions),
        overlaps=found.overlaps(n),
        hubness=(hubs[0], hubs[1]),
        alignment=alignment(a, b, seed),
        spectra=(spectrum(a), spectrum(b)),
        norms=popular,
        disagreement=disagreement(a, b, items, found),
        who_is_right=right,
    )


def check_choices(names: tuple[str, str], k: int, seed: int) -> None:
    """Raises InvalidInput unless there are two different names, k >= 1 and seed >= 0."""
    if (
        not isinstance(names, tuple | list)
        or len(names) != 2
        or names[0] == names[1]
        or not all(isinstance(name, str) and name for name in names)
    ):
        raise InvalidInput(f"names is {names!r}; expected two different names, such as ('factors', 'embeddings')")
    for what, value, least in (("k", k, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InvalidInput(f"{what} is {value!r}; expected a whole number of at least {least}")


def check_reach(k: int, items: int) -> None:
    """Raises InvalidInput where the k nearest of each item are all the others."""
    if k >= items - 1:
        raise InvalidInput(
            f"k is {k} and {items} items are compared: every pair is found, whatever the spaces say; give a k below "
            f"{items - 1}"
        )
