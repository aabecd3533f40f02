"""From a study to the settings of its runs: all that can be wrong with one is found before anything is queued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from launcher.jobs.evaluation_target import images_trained
from launcher.jobs.preparation import PreparedJob, with_precision_of_nodes
from launcher.jobs.resource_request import ResourceRequest
from launcher.study.folder import StudyFolder
from launcher.study.plan import PACE_ROWS, PACE_STEPS, Cost, StudyPlan, StudyTask
from launcher.study.settings import StudySettings
from shards.dataset.index import Index
from shards.storage.place import seen_from
from trainer.config.batch_scaling import Scaling
from trainer.config.config import Config
from trainer.config.dataset import open_data
from trainer.config.groups import TrackingSettings
from trainer.config.labels import settle_labels
from trainer.config.recipes import recipe_config, scale, scaling_of
from trainer.core.fields import Refused, overlay_settings
from trainer.gan.flops import flops_per_image
from trainer.runs.config_defaults import PROJECT_FILE
from trainer.runs.config_loading import read_config
from trainer.runs.config_resolution import resolve_config


class ArmConfig(NamedTuple):
    """The settings of an arm, but for seed and budget, and the data that they fit."""

    config: Config
    dataset: Index
    scaling: Scaling | None = None
    """What the paper's rule does to its batch; done where the arm asks for it."""


def load_arm(study: StudySettings, arm: str, home: Path, project: Mapping[str, Any]) -> ArmConfig:
    """Return the settings of an arm.

    Args:
        study: the arm's.
        arm: its name.
        home: from where relative paths are seen.
        project: what lienzo.toml says.

    Raises:
        Refused: there is no such recipe, or a setting is unknown or impossible.
    """
    made = study.arms[arm]
    try:
        # The later one wins: recipe, lienzo.toml, the settings of all arms, the arm's own; `profile` is none of a run.
        config = overlay_settings(
            recipe_config(made.recipe), {k: v for k, v in project.items() if k != "profile"}, str(PROJECT_FILE)
        )
        config = overlay_settings(overlay_settings(config, study.settings, "settings"), made.settings, "settings")
        init_from = home / config.init_from if config.init_from else None
        # epochs=None: the budget alone decides when a run ends.
        config = replace(config, data=seen_from(home, study.data), init_from=init_from, epochs=None)
        config.check()
        scaling = scaling_of(config)
        return ArmConfig(scale(config, made.scale_rule), open_data(config), scaling)
    except Refused as error:
        raise Refused(f"arm {arm!r}: {error}") from error


def task_config(plan: StudyPlan, task: StudyTask, config: Config) -> Config:
    """Return the settings of a task's run, from those of its arm."""
    settings = plan.settings
    project = settings.project or config.tracking.project
    # One group in W&B, so that its runs stand side by side there.
    tracking = replace(config.tracking, project=project, name=task.run.path.name, group=settings.name)
    config = replace(config, seed=task.seed, total_images=task.images, processes=plan.processes, tracking=tracking)
    return speed_run_config(config) if task.seed_set is None else config


def resolve_task(plan: StudyPlan, task: StudyTask, arm: ArmConfig, job: PreparedJob | None) -> Config:
    """Return the resolved settings of a task's run; `job`: what trains it, None: this machine.

    Raises:
        Refused: the run exists, and was begun with other settings.
    """
    config = task_config(plan, task, arm.config)
    if config.mixed_precision == "auto" and task.run.config.exists():
        config = replace(config, mixed_precision=read_config(task.run).mixed_precision)  # as the run began
    elif job:
        config = with_precision_of_nodes(config, job)
    try:
        return resolve_config(task.run, config, arm.dataset).config
    except Refused as error:
        raise Refused(f"{task.name}: {error}") from error


def speed_run_config(config: Config) -> Config:
    """Return settings under which a run does nothing but train, and tells its time at each row."""
    # Grids, checkpoints and uploads would be timed with the steps.
    never, tracking = (PACE_STEPS + 1) * config.step_images, TrackingSettings(mode="disabled")
    return replace(
        config,
        log_every_images=PACE_STEPS // PACE_ROWS * config.step_images,
        sample_every_images=0,
        checkpoint_every_images=never,
        log_every_s=None,
        sample_every_s=None,
        checkpoint_every_s=None,
        metrics=replace(config.metrics, every_images=0),
        tracking=tracking,
    )


def prepare_study(
    settings: StudySettings,
    folder: StudyFolder,
    resources: ResourceRequest,
    processes: int | None,
    home: Path,
    project: Mapping[str, Any],
) -> StudyPlan:
    """Return a checked study; nothing is written.

    Args:
        settings: of the study.
        folder: of the study.
        resources: that each run asks Slurm for.
        processes: of each run, on this machine.
        home: from where relative paths are seen.
        project: what lienzo.toml says.

    Raises:
        Refused: naming what is wrong, and where.
    """
    assert settings.better  # or it is refused
    settings = replace(settings, data=seen_from(home, settings.data))
    arms = {arm: load_arm(settings, arm, home, project) for arm in settings.arms}
    costs = {
        arm: Cost(flops_per_image(settle_labels(made.config, made.dataset)), made.config.step_images)
        for arm, made in arms.items()
    }
    plan = StudyPlan(settings, folder, costs, resources, processes, home, project)
    refuse_lowered_budget(plan)  # before a run refuses the lower total: what it would advise is for a run by itself
    for arm, made in arms.items():
        if processes:
            made.config.check_world(processes)
        images = plan.images(arm) if plan.knows_length(arm) else made.config.step_images
        for seed in (*settings.seeds, *settings.select_seeds):
            run = folder.run(arm, seed)
            task = StudyTask(arm, seed, run, max(images, images_trained(run)), "report")
            resolve_task(plan, task, made, None)
    return plan


def with_absolute_paths(resources: ResourceRequest, home: Path, profile: str | None) -> ResourceRequest:
    """Return the same request, with paths that mean the same wherever they are read.

    Args:
        resources: paths in it are seen from `home`.
        home: a folder.
        profile: the one to take where the request names none.
    """
    named = resources.profile or profile
    if named and Path(named).suffix == ".toml":  # else it is the name of an example
        named = str(home / Path(named).expanduser())
    return replace(resources, profile=named, after=home / resources.after if resources.after else None)


def refuse_lowered_budget(plan: StudyPlan) -> None:
    """Refuse a budget that a run has exceeded: what is measured is its newest checkpoint.

    Raises:
        Refused: naming the run.
    """
    for stage in plan.stages():
        for task in stage:
            if task.seed_set and not plan.is_done(task) and (seen := images_trained(task.run)) > task.images:
                raise Refused(
                    f"{task.name} has seen {seen:,} images already, but is to be measured at {task.images:,}: a budget "
                    "cannot be lowered, nor rungs be measured in another way; name another --out"
                )


def load_arms(plan: StudyPlan, tasks: Sequence[StudyTask]) -> dict[str, ArmConfig]:
    """Return the settings of the arms that the tasks are of."""
    return {arm: load_arm(plan.settings, arm, plan.home, plan.project) for arm in {task.arm for task in tasks}}


def resolve_tasks(plan: StudyPlan, tasks: Sequence[StudyTask]) -> list[tuple[StudyTask, Config]]:
    """Return the resolved settings of runs that are trained on this machine.

    Raises:
        Refused: a run was begun with other settings.
    """
    arms = load_arms(plan, tasks)
    return [(task, resolve_task(plan, task, arms[task.arm], None)) for task in tasks]
