"""What is to be trained, stage after stage, and what it costs. All of it follows from the settings and the folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from launcher.jobs.evaluation_target import EvaluationTarget, SeedSet
from launcher.jobs.resource_request import ResourceRequest
from launcher.study.analysis.successive_halving import survivors
from launcher.study.folder import StudyFolder
from launcher.study.settings import StudySettings
from launcher.study.settings_file import read_settings
from launcher.study.speed import images_per_s
from shards.atomic_files import write_atomically
from shards.storage.place import seen_from
from trainer.core.fields import Refused
from trainer.core.migration import load_json, with_schema
from trainer.runs import journal
from trainer.runs.run_folder import RunFolder

PACE_STEPS, PACE_ROWS = 80, 5  # of the runs that tell the speed; the first row is not counted


@dataclass(frozen=True)
class Cost:
    """What an arm costs."""

    flops_per_image: float
    step_images: int
    """Pictures that a step sees."""


@dataclass(frozen=True)
class StudyTask:
    """A run that is to be trained so far, and measured then."""

    arm: str
    seed: int
    run: RunFolder
    images: int
    seed_set: SeedSet | None
    """None: it only tells the speed, and nothing is measured."""

    @property
    def name(self) -> str:
        """Name it in words."""
        return f"{self.arm}, seed {self.seed}" if self.seed_set else f"{self.arm}, its speed"


@dataclass(frozen=True)
class StudyPlan:
    """A study's settings, its folder, and what its arms cost."""

    settings: StudySettings
    folder: StudyFolder
    costs: Mapping[str, Cost]
    resources: ResourceRequest
    processes: int | None = None
    """Of each run, on this machine."""
    home: Path = Path()
    """Where the user stood: relative paths of the settings are seen from there."""
    project: Mapping[str, Any] = field(default_factory=dict)
    """What lienzo.toml said there."""

    @classmethod
    def open(cls, folder: StudyFolder) -> StudyPlan:
        """Read a study that was begun.

        Raises:
            Refused: there is none, or another version has written it.
        """
        try:
            values = load_json(folder.plan)
        except FileNotFoundError:
            raise Refused(f"{folder.path} holds no study: there is no {folder.plan.name} in it") from None
        if not {"home", "project"} <= values.keys():
            raise Refused(f"{folder.plan} is of another version: remove it, and begin the study again by its TOML file")
        costs = {arm: Cost(**cost) for arm, cost in values["costs"].items()}
        settings = replace(
            read_settings(folder.toml, kept=True), **values["settings"] | {"seeds": tuple(values["settings"]["seeds"])}
        )
        home, stored = Path(values["home"]), values["wanted"]
        settings = replace(settings, data=seen_from(home, settings.data))
        resources = ResourceRequest(**stored | {"after": stored["after"] and Path(stored["after"])})
        return cls(settings, folder, costs, resources, values["processes"], home, values["project"])

    def save(self, toml: str) -> None:
        """Write plan and copy, atomically."""
        self.folder.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder.toml, toml.encode())
        values = {
            # Only what the command line may have changed: the rest is read from the copy of the TOML file.
            "settings": {name: getattr(self.settings, name) for name in ("name", "seeds", "at_once")},
            "costs": {arm: asdict(cost) for arm, cost in self.costs.items()},
            # The file's own word for it, which earlier versions have written.
            "wanted": asdict(self.resources),
            "processes": self.processes,
            "home": self.home,
            "project": self.project,
        }
        write_atomically(self.folder.plan, json.dumps(with_schema(values), indent=1, default=str).encode() + b"\n")

    def target(self, task: StudyTask) -> EvaluationTarget | None:
        """Return how a task's run is to be measured."""
        if task.seed_set is None:
            return None
        return EvaluationTarget(
            task.images, task.seed_set, self.settings.evaluation, str(self.folder.features.resolve())
        )

    def is_done(self, task: StudyTask) -> bool:
        """Tell whether a task's run is trained and measured."""
        target = self.target(task)
        return target.score(task.run).exists() if target else self.images_per_s(task.arm) is not None

    def is_begun(self, task: StudyTask) -> bool:
        """Tell whether anybody has queued or begun a task; its run may have been, for an earlier rung."""
        target = EvaluationTarget.of(task.run) if task.seed_set else None
        return target.images >= task.images if target else task.run.config.exists() or task.run.job.exists()

    def figures(self, task: StudyTask) -> Mapping[str, Any] | None:
        """Return all that was measured of a task's run; None: nothing yet."""
        target = self.target(task)
        return target.figures(task.run) if target else None

    def deciding_column(self, figures: Mapping[str, Any]) -> str:
        """Return the full name of the figure that decides; empty: it could not be measured."""
        # Columns name the number of pictures behind the metric, such as fid_5k/…, and that is not asked for here.
        decides = re.compile(rf"{re.escape(self.settings.evaluation.metric)}_\d+k?/")
        return next(filter(decides.match, figures.get("figures", {})), "")

    def score(self, task: StudyTask) -> float | None:
        """Return the figure that decides; None: not measured yet, or no number."""
        figures = self.figures(task) or {}
        value = figures.get("figures", {}).get(self.deciding_column(figures), {}).get("value")
        return value if isinstance(value, float) else None

    def images_per_s(self, arm: str) -> float | None:
        """Return the speed that an arm has shown in its whole short run; None: not yet."""
        rows = list(journal.read_rows(self.folder.pace(arm).system))
        seen = max((row.get("images_seen", 0) for row in rows), default=0)
        # Not before its end: until then the speed changes with each row, and the length of the runs would with it.
        return images_per_s(rows) if seen >= PACE_STEPS * self.costs[arm].step_images else None

    def knows_length(self, arm: str) -> bool:
        """Tell whether it is known how many pictures the runs of an arm see."""
        return self.settings.budget.kind != "seconds" or self.images_per_s(arm) is not None

    def images(self, arm: str, share: float = 1.0) -> int:
        """Return the pictures that a run of an arm sees for a share of the budget: whole steps that do not exceed it.

        Raises:
            Refused: the budget is less than a step, or the speed of the arm is not known.
        """
        budget, cost = self.settings.budget, self.costs[arm]
        # 1e-9: a budget of whole steps must not lose one to the rounding of a division.
        steps = int(budget.amount * share / self.budget_per_image(arm) / cost.step_images + 1e-9)
        if steps < 1:
            part = f" × {share:g}" if share < 1 else ""
            raise Refused(f"budget {budget.kind} = {budget.amount:g}{part} is less than one step of arm {arm!r}")
        return steps * cost.step_images

    def budget_per_image(self, arm: str) -> float:
        """Return what a picture of an arm takes of the budget.

        Raises:
            Refused: the speed of the arm is not known.
        """
        if self.settings.budget.kind == "images":
            return 1.0
        if self.settings.budget.kind == "flops":
            return self.costs[arm].flops_per_image
        if (speed := self.images_per_s(arm)) is None:
            raise Refused(f"the speed of arm {arm!r} is not known, so its share of seconds is not")
        return 1 / speed

    def stages(self) -> Iterator[list[StudyTask]]:
        """Yield what is to be trained, stage after stage; a stage must be measured before the next is asked for.

        An arm whose speed is needed and could not be told plays no part.
        """
        if self.settings.budget.kind == "seconds":
            yield [
                StudyTask(arm, 0, self.folder.pace(arm), PACE_STEPS * cost.step_images, None)
                for arm, cost in self.costs.items()
            ]
        arms: Sequence[str] = [arm for arm in self.settings.arms if self.knows_length(arm)]
        for share in self.settings.shares:
            stage = self.tasks(arms, self.settings.select_seeds, share, "select")
            yield stage
            arms = self.who_goes_on(stage)
        yield self.tasks(arms, self.settings.seeds, 1.0, "report")

    def tasks(self, arms: Sequence[str], seeds: Sequence[int], share: float, seed_set: SeedSet) -> list[StudyTask]:
        """Return a run of each arm for each seed; all arms of a seed come before the next seed."""
        return [
            StudyTask(arm, seed, self.folder.run(arm, seed), self.images(arm, share), seed_set)
            # Seeds outside: a study that is stopped early then has whole seeds, which are what is compared.
            for seed in seeds
            for arm in arms
        ]

    def who_goes_on(self, stage: Sequence[StudyTask]) -> Sequence[str]:
        """Return the arms that the scores of a stage leave."""
        assert self.settings.halving
        return survivors(self.means(stage), self.settings.halving.keep, self.settings.better)

    def means(self, stage: Sequence[StudyTask]) -> dict[str, float | None]:
        """Return what the runs of each arm score on average in a stage; None: none of them has a score."""
        found: dict[str, list[float]] = {task.arm: [] for task in stage}
        for task in stage:
            if (score := self.score(task)) is not None:
                found[task.arm].append(score)
        return {arm: fmean(scores) if scores else None for arm, scores in found.items()}
