"""STUDY.toml, read strictly: what is unknown, missing or of the wrong type is refused with its place in the file."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from launcher.jobs.evaluation_target import Measurement
from launcher.study.settings import Arm, Budget, Halving, StudySettings
from trainer.core.aliases import todays_settings
from trainer.core.fields import Refused, check_names, check_table, convert_value
from trainer.core.migration import kept_settings

T = TypeVar("T")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# An arm that sets one of these would not be compared at the same budget, on the same data, over the same seeds.
DECIDED_BY_STUDY = {
    "seed": "`seeds` lists them",
    "total_images": "[budget] decides",
    "epochs": "[budget] decides",
    "data": "`data` names it for all",
    "recipe": "`recipe` of an arm names it",
    "init_hash": "it follows from init_from",
}


def read_settings(path: Path, name: str | None = None, kept: bool = False) -> StudySettings:
    """Read STUDY.toml; a study that does not name itself has the name that is given, else that of the file.

    Args:
        kept: it is the copy that a study keeps, whose settings may have the names of any earlier version.

    Raises:
        Refused: it cannot be read, or something in it cannot be.
    """
    try:
        return parse_study(tomllib.loads(path.read_text()), str(path), name or path.stem, kept)
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read: {error}") from error


def parse_study(values: Mapping[str, Any], where: str, name: str, kept: bool = False) -> StudySettings:
    """Read what a TOML file holds; `name` is the study's unless it names itself, and `kept` is that of `read_settings`.

    Raises:
        Refused: naming the place.
    """
    check_names(StudySettings, values, where)
    arms = {name: check_table(arm, f"{where}: {name}") for name, arm in read_section(values, "arms", where).items()}
    made = {
        "name": values.get("name", name),
        "seeds": parse_seeds(values.get("seeds"), f"{where}: seeds"),
        "arms": {name: parse_arm(values, f"{where}: arms.{name}", kept) for name, values in arms.items()},
        "budget": build_dataclass(Budget, read_section(values, "budget", where), f"{where}: budget"),
        "evaluation": parse_measurement(read_section(values, "evaluation", where), f"{where}: evaluation"),
        "settings": parse_arm_settings(read_section(values, "settings", where), f"{where}: settings", kept),
    }
    if "halving" in values:
        made["halving"] = build_dataclass(Halving, read_section(values, "halving", where), f"{where}: halving")
    study = build_dataclass(StudySettings, values, where, **made)
    check_study(study, where)
    return study


def check_study(study: StudySettings, where: str) -> None:
    """Refuse what cannot be.

    Raises:
        Refused: with one message about the first of it.
    """
    # They become names of folders, of W&B groups and of jobs.
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


def parse_seeds(value: Any, where: str) -> tuple[int, ...]:
    """Read a list of seeds, or how many: 3 is [0, 1, 2].

    Raises:
        Refused: it is neither.
    """
    # Not isinstance: true is an int in Python.
    if type(value) is int and value > 0:
        return tuple(range(value))
    numbers = isinstance(value, list) and value and all(type(seed) is int and seed >= 0 for seed in value)
    if numbers and len({*value}) == len(value):
        return tuple(value)
    raise Refused(f"{where} must be how many, such as 5, or a list such as [0, 1, 2] without doubles, but is {value!r}")


def parse_arm(values: Mapping[str, Any], where: str, kept: bool) -> Arm:
    """Read an arm."""
    return build_dataclass(
        Arm,
        values,
        where,
        settings=parse_arm_settings(read_section(values, "settings", where), f"{where}: settings", kept),
    )


def parse_measurement(values: Mapping[str, Any], where: str) -> Measurement:
    """Read the evaluation; `metrics` is a list of names."""
    names = values.get("metrics", list(Measurement.metrics))
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise Refused(f"{where}: metrics must be a list of names, but is {names!r}")
    return build_dataclass(Measurement, values, where, metrics=tuple(names))


def parse_arm_settings(values: Mapping[str, Any], where: str, kept: bool) -> dict[str, Any]:
    """Return settings by today's names in Python: the command line writes d-lr for d_lr.

    Raises:
        Refused: the study itself decides one of them.
    """
    for name in values:
        if reason := DECIDED_BY_STUDY.get(name.replace("-", "_")):
            raise Refused(f"{where}: {name} is not an arm's to set: {reason}")
    made = underscored(values)
    return kept_settings(made) if kept else todays_settings(made, where)


def underscored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested names with underscores for hyphens."""
    return {k.replace("-", "_"): underscored(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def read_section(values: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    """Return a table of the file; empty where there is none."""
    return check_table(values.get(name, {}), f"{where}: {name}")


def build_dataclass(cls: type[T], values: Mapping[str, Any], where: str, **made: Any) -> T:
    """Build a dataclass from a table; fields that need more than `convert_value` are given ready `made`.

    Raises:
        Refused: a name is unknown or missing, or a value is of the wrong type.
    """
    # Annotations are texts here, by the import from __future__.
    hints = get_type_hints(cls)
    for name, value in check_names(cls, values, where).items():
        if name not in made:
            made[name] = convert_value(value, hints[name], f"{where}: {name}")
    for f in fields(cls):  # type: ignore[arg-type]  # a dataclass
        if f.name not in made and f.default is MISSING and f.default_factory is MISSING:
            raise Refused(f"{where}: {f.name} is missing")
    return cls(**made)
