"""A ranking that says no more than is known: the compact letter display (Piepho 2004, J. Comput. Graph. Stat. 13)."""

from __future__ import annotations

from collections.abc import Sequence, Set
from string import ascii_lowercase


def group_letters(ranked: Sequence[str], apart: Set[tuple[str, str]]) -> dict[str, str]:
    """Give letters to arms so that two share one if and only if they cannot be separated.

    Args:
        ranked: the arms; letters are given in this order.
        apart: the pairs that are separated.
    """
    groups = [frozenset(ranked)]
    # Piepho's "insert and absorb": a separated pair splits each group that holds both, and a group inside another goes.
    # Sorted, since the order of a set, and with it the letters, would change from one process to the next.
    for a, b in sorted(apart):
        split = [part for group in groups for part in ((group - {a}, group - {b}) if {a, b} <= group else (group,))]
        groups = [group for group in dict.fromkeys(split) if not any(group < other for other in split)]
    groups.sort(key=lambda group: [arm not in group for arm in ranked])
    return {arm: "".join(letter_of_group(n) for n, group in enumerate(groups) if arm in group) for arm in ranked}


def rank_arms(arms: Sequence[str], better: Set[tuple[str, str]]) -> list[str]:
    """Return the arms so that each stands after those that are better: where verdicts leave it open, in their order.

    Args:
        arms: in the order of their means.
        better: pairs of an arm and one that it is better than; as each is tested on the seeds that its two arms share,
            they may contradict the means, and go round in a circle: that is broken at the best mean.
    """
    order, rest = list[str](), [*arms]
    while rest:
        beaten = {b for a, b in better if a in rest}
        order.append(next((arm for arm in rest if arm not in beaten), rest[0]))
        rest.remove(order[-1])
    return order


def letter_of_group(number: int) -> str:
    """Return a, b … z, aa, bb …."""
    return ascii_lowercase[number % 26] * (number // 26 + 1)
