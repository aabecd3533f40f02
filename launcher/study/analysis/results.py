"""What is known of a study: arms, runs and how they were measured, as strict JSON. Nothing is concluded here."""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union

from shards.atomic_files import write_atomically
from trainer.core.fields import Refused, check_names, check_table, convert_value
from trainer.core.migration import upgrade_values, with_schema

Status = Literal["waiting", "running", "finished", "failed", "stopped-by-halving"]
Better = Literal["lower", "higher"]
Kind = Literal["images", "seconds", "flops"]


@dataclass(frozen=True)
class Arm:
    """One of the things that are compared."""

    name: str
    recipe: str
    settings: Mapping[str, str]
    """What differs from the recipe, as on the command line."""


@dataclass(frozen=True)
class Score:
    """What one run's pictures measure, with the interval of that measurement: it says nothing of other seeds."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """A place on a learning curve."""

    images_seen: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Entry:
    """One run of one arm."""

    arm: str
    seed: int
    run: str
    """Its folder, seen from that of the study."""
    status: Status
    role: Literal["compare", "select"] = "compare"
    """Runs that select decide which arms go on, and are not compared: the chosen would score too well."""
    reason: str = ""
    """Why it failed, or was stopped."""
    images_seen: int = 0
    seconds: float = 0.0
    """Of training, all attempts together."""
    node_seconds: float = 0.0
    """The same, times nodes."""
    flops: float | None = None
    restarts: int = 0
    preemptions: int = 0
    """Those of the restarts that made place for another job."""
    curve: tuple[Point, ...] = ()
    """In the order of images seen."""
    score: Score | None = None
    """The study's metric at the end of its budget."""
    figures: Mapping[str, Score] = field(default_factory=dict)
    """Whatever else was measured there, by the names of the columns."""
    grid: str | None = None
    """Its newest grid of samples, a PNG seen from the study's folder."""


@dataclass(frozen=True)
class Budget:
    """What each run may use."""

    kind: Kind
    amount: float


@dataclass(frozen=True)
class Evaluation:
    """How the scores were measured."""

    extractor: str
    """Its label, with the version."""
    num_samples: int
    """Pictures of each side."""
    seed_set: str
    """Of the noise that the images are generated from."""
    floor: float | None = None
    """What the data measures against itself at this count."""


@dataclass(frozen=True)
class Rung:
    """A place where arms were left behind."""

    amount: float
    """Of the budget, that each run had used."""
    scores: Mapping[str, float | None]
    """Of each arm that came so far: the mean over its selecting runs. None: none of them gave one."""
    kept: tuple[str, ...]


@dataclass(frozen=True)
class Made:
    """What made the study."""

    version: str
    command: str


@dataclass(frozen=True)
class Study:
    """All that is known of a study.

    Args:
        name: of the study.
        metric: the figure that decides, by the name of its column.
        better: which of its values are.
        budget: of each run.
        evaluation: how the figure is measured.
        arms: in the order of STUDY.toml.
        entries: the runs, in any order.
        made: by what.
        rungs: where arms were left behind, in order.
    """

    name: str
    metric: str
    better: Better
    budget: Budget
    evaluation: Evaluation
    arms: tuple[Arm, ...]
    entries: tuple[Entry, ...]
    made: Made
    rungs: tuple[Rung, ...] = ()

    def of(self, arm: str, role: Literal["compare", "select"] = "compare") -> Iterator[Entry]:
        """Yield the runs of an arm, by seed."""
        runs = (e for e in self.entries if (e.arm, e.role) == (arm, role))
        yield from sorted(runs, key=lambda e: e.seed)

    def scores(self, arm: str) -> dict[int, float]:
        """Return what the finished runs of an arm score, by seed; those without a number are left out."""
        ended = {e.seed: e.score.value for e in self.of(arm) if e.status == "finished" and e.score is not None}
        return {seed: score for seed, score in ended.items() if math.isfinite(score)}

    def left_at(self, arm: str) -> Rung | None:
        """Return the rung where an arm was left behind, if it was."""
        return next((rung for rung in self.rungs if arm in rung.scores and arm not in rung.kept), None)


def write_results(study: Study, path: Path) -> None:
    """Write a study's file: durable, and at no time half written.

    Raises:
        ValueError: it holds a NaN or an infinity; what is not known is None.
        OSError: it cannot be written.
    """
    write_atomically(path, json.dumps(with_schema(asdict(study)), indent=1, allow_nan=False).encode() + b"\n")


def read_results(path: Path) -> Study:
    """Read a study's file.

    Raises:
        Refused: it cannot be read, or it is not what `write_results` writes.
    """
    try:
        # Python's reader takes NaN and Infinity, which other readers of the same file refuse.
        values = json.loads(path.read_text(), parse_constant=refuse_constant)
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read: {error}") from error
    made = upgrade_values(path.name, check_table(values, str(path)), str(path))
    return typing.cast(Study, build_value(made, Study, str(path)))


def refuse_constant(constant: str) -> None:
    """Refuse what Python's JSON reads and JSON has not."""
    raise ValueError(f"it holds {constant}")


def build_value(value: Any, hint: Any, where: str) -> Any:
    """Build a value of a type from plain ones: dataclasses with each field named, tuples, mappings, or None for those.

    Raises:
        Refused: it is of another shape; the message names the place.
    """
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType) and is_dataclass(options[0]):
        return None if value is None else build_value(value, options[0], where)
    if is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        named = check_names(typing.cast(type, hint), check_table(value, where), where)
        if missing := [f.name for f in fields(hint) if f.name not in named]:
            raise Refused(f"{where}: {missing[0]!r} is missing")
        return typing.cast(type, hint)(
            **{name: build_value(v, hints[name], f"{where}: {name}") for name, v in named.items()}
        )
    if origin is tuple:
        if not isinstance(value, list):
            raise Refused(f"{where} must be a list, but is {value!r}")
        return tuple(build_value(v, options[0], f"{where}[{number}]") for number, v in enumerate(value))
    if origin is Mapping:
        return {key: build_value(v, options[1], f"{where}: {key}") for key, v in check_table(value, where).items()}
    return convert_value(value, hint, where)
