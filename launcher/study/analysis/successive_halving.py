"""Successive halving: which arms go on (Jamieson & Talwalkar 2016, arXiv:1502.07943).

Who goes on was lucky as well as good, so the scores that chose would flatter the chosen. Therefore runs of seeds of
their own do the choosing, and the comparison uses other seeds: given the choice, its error rates are those of any study
of the arms that are left. Arms left behind used less of the budget: they are told with their rung and never ranked.
The plan of a study asks it, the comparison does not: so it is apart from both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from launcher.study.analysis.results import Better


def survivors(scores: Mapping[str, float | None], keep: float, better: Better) -> tuple[str, ...]:
    """Return the arms that go on, in the order given: the best share, rounded up, and whoever is as good as its last.

    Args:
        scores: of each arm at the rung; an arm without a number does not go on.
        keep: the share, above 0, below 1.
        better: which scores are.
    """
    sign = 1 if better == "lower" else -1
    costs = {arm: sign * score for arm, score in scores.items() if score is not None and math.isfinite(score)}
    places = math.ceil(round(keep * len(scores), 9))  # 0.7 × 10 is 7.000000000000001
    last = sorted(costs.values())[:places][-1:]
    return tuple(arm for arm, cost in costs.items() if cost <= last[0])
