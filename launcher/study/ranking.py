"""A ranking that says no more than is known: the compact letter display (Piepho 2004, J. Comput. Graph. Stat. 13)."""

from __future__ import annotations

from collections.abc import Sequence, Set
from string import ascii_lowercase


def letters(ranked: Sequence[str], apart: Set[tuple[str, str]]) -> dict[str, str]:
    """Give letters to arms so that two share one if and only if they cannot be separated.

    Args:
        ranked: the arms, the best mean first.
        apart: the pairs that are separated, in that order.
    """
    groups = [frozenset(ranked)]
    for a, b in sorted(apart, key=lambda pair: (ranked.index(pair[0]), ranked.index(pair[1]))):
        split = [part for group in groups for part in ((group - {a}, group - {b}) if {a, b} <= group else (group,))]
        groups = [group for group in dict.fromkeys(split) if not any(group < other for other in split)]
    groups.sort(key=lambda group: [arm not in group for arm in ranked])
    return {arm: "".join(mark(n) for n, group in enumerate(groups) if arm in group) for arm in ranked}


def mark(number: int) -> str:
    """Return a, b … z, aa, bb …."""
    return ascii_lowercase[number % 26] * (number // 26 + 1)
