"""A study's settings: arms, seeds, the budget that all get, and by what they are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from launcher.jobs.evaluation_target import Measurement
from shards.storage.place import Place
from trainer.config.batch_scaling import ScaleRule
from trainer.core.fields import Refused

Kind = Literal["images", "seconds", "flops"]
SELECT_SEEDS = 1_000  # the first seed of the runs that only decide which arms go on


@dataclass(frozen=True)
class Budget:
    """What each run may use. Exactly one is given."""

    images: int | None = None
    """Real pictures seen."""
    seconds: float | None = None
    """Seconds of training at the speed that the arm has on the machine where it runs: measured once for each arm."""
    flops: float | None = None
    """Arithmetic of training."""

    @property
    def kind(self) -> Kind:
        """What all arms get the same of."""
        return "images" if self.images is not None else "seconds" if self.seconds is not None else "flops"

    @property
    def amount(self) -> float:
        """How much of it."""
        return float(getattr(self, self.kind))


@dataclass(frozen=True)
class Halving:
    """Successive halving: seeds of their own decide early which arms go on."""

    rungs: int = 2
    """How often arms are left behind."""
    keep: float = 0.5
    """The share of the arms that goes on each time."""
    seeds: int = 1
    """Runs of each arm that decide; they play no part in the comparison."""


@dataclass(frozen=True)
class Arm:
    """One of the things that are compared."""

    recipe: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the recipe, nested as in lienzo.toml."""
    scale_rule: ScaleRule = "none"
    """paper: where `settings` name another batch than the recipe's, the rule of its paper sets rates, penalties and
    moving average."""


@dataclass(frozen=True)
class StudySettings:
    """A study."""

    name: str
    data: Place
    arms: Mapping[str, Arm]
    seeds: tuple[int, ...]
    """Of the runs of each arm that are compared; runs of the same seed see the same pictures in the same order."""
    budget: Budget
    evaluation: Measurement = Measurement()
    halving: Halving | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """For all arms; an arm's own settings win."""
    nodes: str = "1"
    """Of each run, on a cluster: 1, or 1-2."""
    at_once: int | None = None
    """So many runs at the same time; default: on a cluster as many as fit, on this machine one."""
    project: str | None = None
    """W&B's project."""

    @property
    def better(self) -> Literal["lower", "higher"]:
        """Which values of the figure that decides are better; asks the trainer's metrics."""
        from trainer.metrics import METRICS  # it takes seconds, and most of what is asked of a study wants it not

        for name in self.evaluation.metrics:
            found = METRICS[name].better.get(self.evaluation.metric) if name in METRICS else None
            if found == "lower" or found == "higher":
                return found
        figures = [f for name in self.evaluation.metrics if name in METRICS for f in METRICS[name].better]
        raise Refused(
            f"evaluation: metric {self.evaluation.metric!r} cannot decide: take one of the figures that `metrics` give "
            f"and of which lower or higher is better: {', '.join(figures)}"
        )

    @property
    def select_seeds(self) -> tuple[int, ...]:
        """The seeds of the runs that decide which arms go on."""
        count = self.halving.seeds if self.halving else 0
        return tuple(range(SELECT_SEEDS, SELECT_SEEDS + count))

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares of the budget at which arms are left behind."""
        halving = self.halving
        return tuple(halving.keep ** (halving.rungs - rung) for rung in range(halving.rungs)) if halving else ()
