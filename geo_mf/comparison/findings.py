"""The figures of a comparison as sentences, each computed from the figures, and none that they do not bear out."""

from typing import TYPE_CHECKING

from geo_mf.comparison.figures import FEWEST_USERS, Crossover, Estimate, Hubness, PairGroup, WhoIsRight

if TYPE_CHECKING:
    from geo_mf.comparison.result import Comparison

NEAR = 10
"""The number of neighbours that is told of."""
HUBS = 1.0
"""A skew from which on hubs are told of."""
POPULAR = 0.5
"""A rank correlation from which on length is said to go with popularity, and a share of its variance from which on it
mostly is popularity."""


def findings(found: "Comparison") -> tuple[str, ...]:
    """What a comparison says, most general first."""
    lines = [_alike(found), _shared(found), _read(found), *_lengths(found), *_hubs(found)]
    if found.who_is_right is not None:
        lines += _right(found.who_is_right, found.names)
    return tuple(lines)


def _alike(found: "Comparison") -> str:
    a, b = found.names
    cka, left = found.similarity.cka, found.alignment.residual.value
    if cka > 0.99 and left < 0.01:
        return f"{_up(a)} and {b} are the same space, up to a rotation (CKA {cka:.2f})."
    return (
        f"{_up(a)} and {b} have a CKA of {cka:.2f} (0 is nothing in common, 1 the same up to a rotation); laid on each "
        f"other, {_percent(min(left, 1))} of their variance does not match."
    )


def _shared(found: "Comparison") -> str:
    at = min(found.overlaps, key=lambda one: abs(one.k - NEAR))
    said = f"The spaces share {_percent(at.share.value)} of their {at.k} nearest neighbours; chance would give "
    beyond = "" if at.share.low > at.chance else ", and the difference is not certain"
    return f"{said}{_percent(at.chance)}{beyond}."


def _read(found: "Comparison") -> str:
    forth, back = found.alignment.readings
    better, worse = (forth, back) if forth.r2.value >= back.r2.value else (back, forth)
    if max(forth.r2.low, back.r2.low) <= 0:
        return f"Neither space can be read from the other by a linear map (R² {_r2(forth.r2)} and {_r2(back.r2)})."
    if better.r2.low > worse.r2.high:
        return (
            f"{_up(better.target)} can be read from {better.source} (R² {_r2(better.r2)}) better than "
            f"{worse.target} from {worse.source} ({_r2(worse.r2)})."
        )
    return (
        f"{_up(forth.target)} can be read from {forth.source} about as well as the other way round "
        f"(R² {_r2(forth.r2)} and {_r2(back.r2)})."
    )


def _lengths(found: "Comparison") -> list[str]:
    return [
        f"The length of {one.space} {'is mostly' if one.r2 > POPULAR else 'goes with'} popularity "
        f"(rank correlation {one.spearman:.2f})."
        for one in found.norms
        if one.spearman > POPULAR
    ]


def _hubs(found: "Comparison") -> list[str]:
    return [
        f"{_up(one.space)} have hubs: {_among(one, found.items)}{one.hubs[0].item.short} is among the {one.k} nearest "
        f"of {one.hubs[0].count:,} items, and {_percent(one.antihubs)} of the items are nobody's neighbour."
        for one in found.hubness
        if one.skew > HUBS and one.hubs
    ]


def _among(one: Hubness, items: int) -> str:
    return f"in a sample of {one.items:,} items, " if one.items < items else ""


def _right(right: WhoIsRight, names: tuple[str, str]) -> list[str]:
    group = right.overall
    a, b = names
    lines = [
        f"Of {group.pairs:,} held-out pairs of items, {a} find {_percent(group.first.value)} among the {right.k} "
        f"nearest, {b} {_percent(group.second.value)}, both together {_percent(group.both.value)}."
    ]
    if group.difference.sign:
        first, second = names if group.difference.sign > 0 else (b, a)
        low, high = sorted(abs(end) for end in (group.difference.low, group.difference.high))
        lines.append(
            f"Over all pairs, {first} find what people touch together more often than {second} "
            f"(by {100 * low:.1f} to {100 * high:.1f} points)."
        )
    elif group.users < FEWEST_USERS:
        users = "1 user" if group.users == 1 else f"{group.users} users"
        lines.append(f"Behaviour of {users} is too little to tell which of them finds more; {FEWEST_USERS} are needed.")
        return lines
    else:
        lines.append(f"Over all pairs, no difference between {a} and {b} is certain.")
    if _refuted(right, names):
        lines.append(_both_ways(right, names))
    elif right.crossover is not None:
        lines.append(_crossing(right.crossover))
    elif right.groups:
        lines.append(_leading(right, names))
    return [*lines, _blend(group)]


def _crossing(crossover: Crossover) -> str:
    if not crossover.clear:
        return (
            f"{_up(crossover.after)} may overtake {crossover.before} from about {_count(crossover.at)} on "
            f"({_interval(crossover)}), but on one side of that no group of pairs shows a certain difference."
        )
    return (
        f"From about {_count(crossover.at)} on ({_interval(crossover)}), {crossover.after} find what people touch "
        f"together more often than {crossover.before}; below, {crossover.before} do."
    )


def _refuted(right: WhoIsRight, names: tuple[str, str]) -> bool:
    """Whether some group is for certain on the other side than the monotone curve has it."""
    point = right.crossover
    if point is None and right.leader is None:
        return False
    winner = right.leader if point is None else point.after
    sign, at = 1 if winner == names[0] else -1, 0.0 if point is None else point.at
    return any(one.difference.sign == (-sign if (one.typical or 0.0) >= at else sign) for one in right.groups)


def _both_ways(right: WhoIsRight, names: tuple[str, str]) -> str:
    first, second = (_certain(right, sign) for sign in (1, -1))
    if first and second:
        told = f"{names[0]} lead for certain at {first}, {names[1]} at {second} interactions"
        return f"There is no single crossover: {told}."
    winner = names[0] if first else names[1]
    return f"Only at {first or second} interactions is a difference certain: there, {winner} lead."


def _certain(right: WhoIsRight, sign: int) -> str:
    """The groups in which one space leads for certain: 1 the first, -1 the second."""
    *most, last = [group.label for group in right.groups if group.difference.sign == sign] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def _leading(right: WhoIsRight, names: tuple[str, str]) -> str:
    number = "number of interactions that could be judged" if right.dropped else "number of interactions"
    if right.leader is None:
        return f"Neither space leads at any {number}."
    other = names[1] if right.leader == names[0] else names[0]
    sign = 1 if right.leader == names[0] else -1
    certain = _certain(right, sign)
    if not certain:
        return f"No {number} shows a certain difference between {names[0]} and {names[1]}."
    if all(group.difference.sign == sign for group in right.groups):
        return f"{_up(right.leader)} lead at every {number}."
    return (
        f"There is no crossover: {right.leader} do not fall behind {other} for certain at any {number}, and lead for "
        f"certain at {certain}."
    )


def _blend(group: PairGroup) -> str:
    if group.gain.sign > 0:
        return f"Both together find {100 * group.gain.value:.1f} points more than the better one alone."
    if group.gain.sign < 0:
        return (
            f"Both together, in equal parts, find {-100 * group.gain.value:.1f} points less than the better one alone."
        )
    return "Both together, in equal parts, find neither more nor less than the better one alone, as far as can be told."


def _interval(crossover: Crossover) -> str:
    high = "more than was seen" if crossover.high is None else f"{crossover.high:.0f}"
    return f"interval {crossover.low:.0f} to {high}"


def _count(at: float) -> str:
    return "1 interaction" if round(at) == 1 else f"{at:.0f} interactions"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def _r2(figure: Estimate) -> str:
    return f"{figure.value:.2f}"


def _up(name: str) -> str:
    return name[:1].upper() + name[1:]
