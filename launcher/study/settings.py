"""What STUDY.toml says: arms, seeds, the budget that all get, and by what they are compared. Read strictly."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

from launcher.jobs.evaluation_target import Measurement
from trainer.core.aliases import todays_settings
from trainer.core.fields import Refused, check_names, check_table, convert_value
from trainer.core.migration import kept_settings

T = TypeVar("T")

Kind = Literal["images", "seconds", "flops"]
SELECT_SEEDS = 1_000  # the first seed of the runs that only decide which arms go on
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
OURS = {
    "seed": "`seeds` lists them",
    "total_images": "[budget] decides",
    "epochs": "[budget] decides",
    "data": "`data` names it for all",
    "recipe": "`recipe` of an arm names it",
    "init_hash": "it follows from init_from",
}


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


@dataclass(frozen=True)
class StudySettings:
    """A study."""

    name: str
    data: Path
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


def read_settings(path: Path, name: str | None = None, kept: bool = False) -> StudySettings:
    """Read STUDY.toml; a study that does not name itself has the name that is given, else that of the file.

    Args:
        kept: it is the copy that a study keeps, whose settings may have the names of any earlier version.

    Raises:
        Refused: it cannot be read, or something in it cannot be.
    """
    try:
        return parse(tomllib.loads(path.read_text()), str(path), name or path.stem, kept)
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read: {error}") from error


def parse(values: Mapping[str, Any], where: str, name: str, kept: bool = False) -> StudySettings:
    """Read what a TOML file holds; `name` is the study's unless it names itself, and `kept` is that of `read`.

    Raises:
        Refused: naming the place.
    """
    check_names(StudySettings, values, where)
    arms = {name: check_table(arm, f"{where}: {name}") for name, arm in section(values, "arms", where).items()}
    made = {
        "name": values.get("name", name),
        "seeds": seeds(values.get("seeds"), f"{where}: seeds"),
        "arms": {name: arm(values, f"{where}: arms.{name}", kept) for name, values in arms.items()},
        "budget": table(Budget, section(values, "budget", where), f"{where}: budget"),
        "evaluation": measurement(section(values, "evaluation", where), f"{where}: evaluation"),
        "settings": plain(section(values, "settings", where), f"{where}: settings", kept),
    }
    if "halving" in values:
        made["halving"] = table(Halving, section(values, "halving", where), f"{where}: halving")
    study = table(StudySettings, values, where, **made)
    check(study, where)
    return study


def check(study: StudySettings, where: str) -> None:
    """Refuse what cannot be.

    Raises:
        Refused: with one message about the first of it.
    """
    for name in (study.name, *study.arms):
        if not NAME.fullmatch(name):
            raise Refused(f"{where}: {name!r} names files: use letters, digits, '-', '_' and '.'")
    if not study.arms:
        raise Refused(f"{where}: there is nothing to compare: add [arms.NAME] with a recipe, at least once")
    given = [f.name for f in fields(Budget) if getattr(study.budget, f.name) is not None]
    if len(given) != 1 or not 0 < study.budget.amount < math.inf:
        raise Refused(f"{where}: budget must be exactly one of images, seconds and flops, above 0; it is {given}")
    if study.at_once is not None and study.at_once < 1:
        raise Refused(f"{where}: at_once must be positive, but is {study.at_once}")
    if study.evaluation.num_samples < 2:
        raise Refused(f"{where}: evaluation: num_samples must be at least 2, but is {study.evaluation.num_samples}")
    if (halving := study.halving) is None:
        return
    if not 0 < halving.keep < 1 or halving.rungs < 1 or halving.seeds < 1:
        raise Refused(f"{where}: halving needs rungs ≥ 1, seeds ≥ 1 and 0 < keep < 1, but has {halving}")
    if both := {*study.seeds} & {*study.select_seeds}:
        raise Refused(f"{where}: seed {min(both)} is one of those that decide which arms go on; take others")


def seeds(value: Any, where: str) -> tuple[int, ...]:
    """Read a list of seeds, or how many: 3 is [0, 1, 2].

    Raises:
        Refused: it is neither.
    """
    if type(value) is int and value > 0:
        return tuple(range(value))
    numbers = isinstance(value, list) and value and all(type(seed) is int and seed >= 0 for seed in value)
    if numbers and len({*value}) == len(value):
        return tuple(value)
    raise Refused(f"{where} must be how many, such as 5, or a list such as [0, 1, 2] without doubles, but is {value!r}")


def arm(values: Mapping[str, Any], where: str, kept: bool) -> Arm:
    """Read an arm."""
    return table(Arm, values, where, settings=plain(section(values, "settings", where), f"{where}: settings", kept))


def measurement(values: Mapping[str, Any], where: str) -> Measurement:
    """Read the evaluation; `metrics` is a list of names."""
    names = values.get("metrics", list(Measurement.metrics))
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise Refused(f"{where}: metrics must be a list of names, but is {names!r}")
    return table(Measurement, values, where, metrics=tuple(names))


def plain(values: Mapping[str, Any], where: str, kept: bool) -> dict[str, Any]:
    """Return settings by today's names in Python: the command line writes d-lr for d_lr.

    Raises:
        Refused: the study itself decides one of them.
    """
    for name in values:
        if reason := OURS.get(name.replace("-", "_")):
            raise Refused(f"{where}: {name} is not an arm's to set: {reason}")
    made = underscored(values)
    return kept_settings(made) if kept else todays_settings(made, where)


def underscored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested names with underscores for hyphens."""
    return {k.replace("-", "_"): underscored(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def section(values: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    """Return a table of the file; empty where there is none."""
    return check_table(values.get(name, {}), f"{where}: {name}")


def table(cls: type[T], values: Mapping[str, Any], where: str, **made: Any) -> T:
    """Build a dataclass from a table; fields that need more than `convert_value` are given ready `made`.

    Raises:
        Refused: a name is unknown or missing, or a value is of the wrong type.
    """
    hints = get_type_hints(cls)
    for name, value in check_names(cls, values, where).items():
        if name not in made:
            made[name] = convert_value(value, hints[name], f"{where}: {name}")
    for f in fields(cls):  # type: ignore[arg-type]  # a dataclass
        if f.name not in made and f.default is MISSING and f.default_factory is MISSING:
            raise Refused(f"{where}: {f.name} is missing")
    return cls(**made)
