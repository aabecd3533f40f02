"""From evidence to one state: healthy, warning, collapsed or diverged, with its reasons.

A young generator paints little variety, and so does a collapsed one: what tells them apart is that the second has done
better before. So most bounds are on how far a run has fallen from its own best, held over two looks. The bounds come
from runs that were healthy and runs that were provoked, and were tried on others: docs/collapse.md, `make sentinel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from math import inf, isfinite, log10

GRACE_IMAGES = 200_000  # by then a generator should have painted something
WATCHED = "loss_d", "loss_g", "grad_norm_d", "grad_norm_g"


class State(IntEnum):
    """How a run is, from good to bad."""

    HEALTHY = 0
    WARNING = 1
    COLLAPSED = 2
    DIVERGED = 3


@dataclass(frozen=True)
class Bound:
    """Beyond `warning` a sign is bad, beyond `alarm` very bad; both lie on the bad side of what healthy runs show."""

    warning: float
    alarm: float
    state: State
    """What it is a sign of. A look is very bad if one sign is or two are bad; a second such look makes the state."""
    words: str

    def badness(self, value: float) -> int:
        """Return 0 fine, 1 beyond the warning, 2 beyond the alarm."""
        sign = 1 if self.alarm > self.warning else -1
        return int(sign * value > sign * self.warning) + int(sign * value > sign * self.alarm)


BOUNDS = {
    "diversity_kept": Bound(0.6, 0.45, State.COLLAPSED, "{:.0%} of its own best variety"),
    "coverage_kept": Bound(0.6, 0.4, State.COLLAPSED, "{:.0%} of its own best coverage of the data"),
    "likeness_gained": Bound(0.25, 0.4, State.COLLAPSED, "pairs are more alike than at best by {:.2f} MS-SSIM"),
    "diversity": Bound(0.02, 0.01, State.COLLAPSED, "{:.0%} of the data's variety"),
    "gap": Bound(-0.5, -4.0, State.COLLAPSED, "D takes painted pictures for more real than real ones, by {:.1f}"),
    "strangeness": Bound(1.4, 1.8, State.DIVERGED, "pictures are {:.1f} times as far from the data as the data's own"),
    "growth": Bound(0.6, 1.0, State.DIVERGED, "losses and gradients have grown by 10 to the power of {:.1f}"),
    "saturation": Bound(12.0, inf, State.WARNING, "D tells real from painted by {:.1f} in its logits"),
}
OLD_ONLY = ("diversity",)  # a young generator may lack it
RISEN_ONLY = ("diversity_kept", "coverage_kept", "likeness_gained")  # nothing was gained yet that could be lost
RISEN = 0.1  # of the data's variety


@dataclass(frozen=True)
class Record:
    """What the sentinel remembers: a part of the state, the same on every process."""

    state: int = State.HEALTHY
    before: int = State.HEALTHY
    """The state before the last look."""
    badness: int = 0
    """Of the last look."""
    sound: bool = True
    """Nothing was bad at the last look that could raise an alarm: a state to go back to."""
    last: dict[str, float] = field(default_factory=dict)
    """What was seen of the pictures at the last look."""
    best: dict[str, float] = field(default_factory=dict)
    """The best of it so far that held over two looks."""
    steps: int = 0
    """Since the last look."""
    gap: float = 0.0
    """Sum over them of D's mean logit of reals less that of fakes."""
    size: float = 0.0
    """Sum over them of log10 of losses and gradients."""

    def step(self, scalars: Mapping[str, float]) -> Record:
        """Take in the reduced scalars of a step; of one whose gradients did not fit fp16, which is no step, nothing."""
        size = log10(1.0 + sum(abs(scalars[name]) for name in WATCHED))
        gap = scalars["logits_real"] - scalars["logits_fake"]
        if not isfinite(size + gap):
            return self
        return replace(self, steps=self.steps + 1, gap=self.gap + gap, size=self.size + size)

    def look(self, seen: Mapping[str, float], images_seen: int, logistic: bool) -> tuple[Record, dict[str, float]]:
        """Judge; return the record from here on, and all of the evidence.

        Args:
            seen: of the pictures, from the witness.
            images_seen: how far the run is.
            logistic: logits are log odds, so that their size means something.
        """
        steps = max(self.steps, 1)
        now = {**seen, "size": self.size / steps, "gap": self.gap / steps}
        best = {name: self.better(name, value) for name, value in now.items() if name in self.last}
        evidence = {
            **now,
            "diversity_kept": now["diversity"] / (best.get("diversity") or now["diversity"] or 1.0),
            "coverage_kept": now["coverage"] / (best.get("coverage") or now["coverage"] or 1.0),
            "likeness_gained": now["similarity"] - best.get("similarity", now["similarity"]),
            "growth": now["size"] - best.get("size", now["size"]),
        }
        if logistic:
            evidence["saturation"] = now["gap"]
        bad = bad_signs(evidence, images_seen, best.get("diversity", 0.0))
        worst = max(bad.values())
        badness = max(worst, min(2, sum(value > 0 for value in bad.values())))
        state = State.WARNING if badness else State.HEALTHY
        if badness == self.badness == 2:
            state = max(State.COLLAPSED, *(BOUNDS[name].state for name, value in bad.items() if value == worst))
        sound = not any(value for name, value in bad.items() if BOUNDS[name].alarm < inf)
        return Record(state, self.state, badness, sound, now, best), evidence

    def better(self, name: str, value: float) -> float:
        """Return the best of a sign, once `value` was seen at a second look or later: a single good one counts not."""
        pick, worse = (max, min) if name in ("diversity", "coverage") else (min, max)
        held = worse(value, self.last[name])
        return pick(held, self.best.get(name, held))


def bad_signs(evidence: Mapping[str, float], images_seen: int, risen: float) -> dict[str, int]:
    """Return how bad each sign is.

    Args:
        evidence: by sign.
        images_seen: how far the run is.
        risen: the best variety that it has painted.
    """
    idle = {*(OLD_ONLY if images_seen < GRACE_IMAGES else ()), *(RISEN_ONLY if risen < RISEN else ())}
    return {n: bound.badness(evidence[n]) for n, bound in BOUNDS.items() if n in evidence and n not in idle}


def reasons(evidence: Mapping[str, float], images_seen: int, risen: float) -> list[str]:
    """Say in words what is bad about the evidence, the worst first; arguments are those of `bad_signs`."""
    bad = bad_signs(evidence, images_seen, risen)
    worst_first = sorted((name for name in bad if bad[name]), key=lambda name: -bad[name])
    return [BOUNDS[name].words.format(evidence[name]) for name in worst_first]
