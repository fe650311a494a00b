"""What a Comparison is made of. Plain values only: numbers, strings and the caller's own ids."""

from dataclasses import dataclass
from typing import Any

WIDE = 48
"""Characters of a title that is printed."""
FEWEST_USERS = 10
"""From fewer, no difference between spaces is certain."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies on one side of 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Similarity:
    """Linear CKA of the two spaces.

    Attributes:
        cka: debiased; 1 for spaces that differ by a rotation and a scale, 0 on average for independent ones.
        biased: the plain estimate, which is above 0 for independent spaces, the more so the more dimensions they have.
    """

    cka: float
    biased: float


@dataclass(frozen=True)
class Overlap:
    """How many of an item's k nearest neighbours both spaces name.

    Attributes:
        share: of the k, averaged over the items asked about. Of items at the same cosine each space has others, by
            lot.
        chance: what two spaces without anything in common would share, k / (n - 1).
    """

    k: int
    share: Estimate
    chance: float


@dataclass(frozen=True)
class ItemName:
    """An item as the caller calls it."""

    id: Any
    title: str

    @property
    def short(self) -> str:
        """The title on one line, cut where it is long."""
        title = " ".join(self.title.split())
        return title if len(title) <= WIDE else title[: WIDE - 1].rstrip() + "…"


@dataclass(frozen=True)
class Hub:
    """An item that is among the k nearest of `count` others."""

    item: ItemName
    count: int


@dataclass(frozen=True)
class Hubness:
    """How unevenly a space deals out places among the k nearest.

    Attributes:
        k: how near.
        items: among how many items; a seeded sample, among itself, where there are many.
        skew: skewness of the k-occurrences N_k. Near 0 where all items are equally often a neighbour; above 1 hubs
            rule.
        antihubs: share of the items that are nobody's neighbour.
        hubs: the items that are a neighbour most often, the first the most.
    """

    space: str
    k: int
    items: int
    skew: float
    antihubs: float
    hubs: tuple[Hub, ...]


@dataclass(frozen=True)
class Reading:
    """How well one space can be read from the other by a linear map (ridge regression).

    Attributes:
        source, target: names of the spaces: the target is predicted.
        r2: share of the target's variance that is predicted, on items held out.
        penalty: of the ridge, as a multiple of the mean eigenvalue of the source's scatter; inf for the constant map.
    """

    source: str
    target: str
    r2: Estimate
    penalty: float


@dataclass(frozen=True)
class Alignment:
    """How far the spaces fit each other on items held out.

    Attributes:
        residual: what is left of one space after the other was turned, scaled and laid on it (orthogonal Procrustes),
            as a share of its squared length; the mean of both ways. 0 is a perfect fit, 1 is none.
        readings: the first space read from the second, then the second read from the first.
        held_out: how many items were held out.
    """

    residual: Estimate
    readings: tuple[Reading, Reading]
    held_out: int


@dataclass(frozen=True)
class Spectrum:
    """How many directions a space uses.

    Attributes:
        shares: of the variance, for each principal direction, falling, summing to 1; as many as dimensions.
        effective_rank: exp of the entropy of the singular values (Roy & Vetterli 2007).
        participation_ratio: (sum of variances)^2 / sum of squared variances.
    """

    space: str
    shares: tuple[float, ...]
    effective_rank: float
    participation_ratio: float


@dataclass(frozen=True)
class Norms:
    """How much of the length of a row is popularity.

    Attributes:
        spearman: rank correlation of length and number of interactions.
        r2: share of the variance of log length that log(1 + interactions) explains in a straight line.
        varies: whether the lengths differ at all; if not, both figures are 0.
    """

    space: str
    spearman: float
    r2: float
    varies: bool


@dataclass(frozen=True)
class DisagreeingItem:
    """An item with different neighbours in each space.

    Attributes:
        overlap: share of its `Disagreement.k` nearest that both spaces name.
        ranks: where the k nearest of one space stand in the other, on (geometric) average: those of the first space in
            the second, and those of the second in the first.
        nearest: the few nearest in the first space, and in the second.
    """

    item: ItemName
    overlap: float
    ranks: tuple[float, float]
    nearest: tuple[tuple[ItemName, ...], tuple[ItemName, ...]]


@dataclass(frozen=True)
class DisagreeingPair:
    """Two items that are near in one space and far in the other.

    Attributes:
        item, other: `other` is ranked among the neighbours of `item`.
        ranks: in the first space and in the second, from 1; ties count half.
    """

    item: ItemName
    other: ItemName
    ranks: tuple[float, float]


@dataclass(frozen=True)
class Disagreement:
    """Where the spaces disagree most.

    Attributes:
        k: how near is near.
        judged: how many items could be judged: asked about, and with enough interactions where these are known.
        least: interactions an item needs to be judged; 0 where interactions are not known.
        items: those with the most different neighbours, the worst first.
        near_in_first: pairs that are near in the first space and far in the second, the farthest first.
        near_in_second: the other way round.
    """

    k: int
    judged: int
    least: int
    items: tuple[DisagreeingItem, ...]
    near_in_first: tuple[DisagreeingPair, ...]
    near_in_second: tuple[DisagreeingPair, ...]


def span(low: int, high: int | None) -> str:
    """What to call numbers from `low` to `high`, None being no end."""
    if high is None:
        return f"{low}+" if low else "all"
    return str(low) if low == high else f"{low}-{high}"


@dataclass(frozen=True)
class PairGroup:
    """Held-out pairs whose less touched item has from `low` to `high` interactions, and how many each space finds.

    Attributes:
        low, high: interactions; `high` is None where there is no upper end.
        typical: exp(mean of log(1 + interactions)) - 1, where the group stands on the axis; None where interactions are
            not known.
        pairs, users: how many, and from how many users they came.
        first, second: share of the pairs found by each space.
        both: found by the mean of both cosines.
        difference: first - second.
        gain: both - the better of the two.

    From fewer than FEWEST_USERS users, the intervals hold whatever is possible: 0 to 1, and -1 to 1 of differences.
    """

    low: int
    high: int | None
    typical: float | None
    pairs: int
    users: int
    first: Estimate
    second: Estimate
    both: Estimate
    difference: Estimate
    gain: Estimate

    @property
    def label(self) -> str:
        """Such as "0", "3-5", "101+", "all"."""
        return span(self.low, self.high)


@dataclass(frozen=True)
class Crossover:
    """From how many interactions on one space finds more than the other.

    Attributes:
        before, after: names of the spaces: which finds more below, and which from here on.
        at: interactions of the less touched item of a pair.
        low, high: 95 % interval. low is 0 where `after` might lead everywhere, high is None where `before` might.
        clear: whether `before` leads for certain in some group below, and `after` in some group above (the intervals of
            their differences leave out 0), and in no group it is for certain the other way round.
    """

    before: str
    after: str
    at: float
    low: float
    high: float | None
    clear: bool


@dataclass(frozen=True)
class WhoIsRight:
    """Each space as item-to-item recommender on held-out behaviour.

    A pair is found when one of its items is among the k nearest of the other. Intervals come from drawing users again;
    the items and their vectors stay as they are.

    Attributes:
        k: how near.
        items: among how many items a pair had to be found.
        overall: all pairs.
        groups: by interactions of the less touched item in training, rising; empty where these are not known.
        dropped: groups that had too few pairs to judge, such as "0"; their pairs are in `overall` alone. Other small
            groups were joined with their neighbours.
        crossover: None where there is none, or interactions are not known.
        leader: the space that leads at every number of interactions, by the monotone curve through the groups, or
            overall where these are not known; None where there is a crossover, and on a tie. A group may say otherwise.
        left_out: held-out interactions whose item is not compared.
    """

    k: int
    items: int
    overall: PairGroup
    groups: tuple[PairGroup, ...]
    dropped: tuple[str, ...]
    crossover: Crossover | None
    leader: str | None
    left_out: int
