"""From a study to the settings of its runs: all that can be wrong with one is found before anything is queued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher.jobs.evaluation_target import images_trained
from launcher.jobs.resource_request import ResourceRequest
from launcher.study.folder import StudyFolder
from launcher.study.plan import PACE_ROWS, PACE_STEPS, Cost, StudyPlan, StudyTask
from launcher.study.settings import StudySettings
from trainer.config.config import Config
from trainer.config.dataset import open_data
from trainer.config.groups import TrackingSettings
from trainer.config.recipes import recipe
from trainer.core.fields import Refused, overlay
from trainer.gan.flops import flops_per_image
from trainer.runs.config_loading import PROJECT_FILE, read_config, settle


def arm_config(study: StudySettings, arm: str, home: Path, project: Mapping[str, Any]) -> Config:
    """Return the settings of an arm, but for seed and budget.

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
        config = overlay(recipe(made.recipe), {k: v for k, v in project.items() if k != "profile"}, str(PROJECT_FILE))
        config = overlay(overlay(config, study.settings, "settings"), made.settings, "settings")
        init_from = home / config.init_from if config.init_from else None
        config = replace(config, data=home / study.data, init_from=init_from, epochs=None)
        config.check()
        open_data(config)
    except Refused as error:
        raise Refused(f"arm {arm!r}: {error}") from error
    return config


def run_config(plan: StudyPlan, task: StudyTask, config: Config, gpus: bool) -> Config:
    """Return the settings of a task's run; `gpus`: it is trained on nodes that have some.

    Raises:
        Refused: the run exists, and was begun with other settings.
    """
    settings = plan.settings
    project = settings.project or config.tracking.project
    tracking = replace(config.tracking, project=project, name=task.run.path.name, group=settings.name)
    config = replace(config, seed=task.seed, total_images=task.images, processes=plan.processes, tracking=tracking)
    if config.mixed_precision == "auto" and (gpus or task.run.config.exists()):
        known = read_config(task.run).mixed_precision if task.run.config.exists() else "bf16"
        config = replace(config, mixed_precision=known)  # as the run began, or for the nodes: this machine may differ
    if task.seed_set is None:
        config = only_pace(config)
    try:
        return settle(task.run, config)
    except Refused as error:
        raise Refused(f"{task.name}: {error}") from error


def only_pace(config: Config) -> Config:
    """Return settings under which a run does nothing but train, and tells its time at each row."""
    never, tracking = (PACE_STEPS + 1) * config.step_images, TrackingSettings(mode="disabled")
    return replace(
        config,
        log_every_images=PACE_STEPS // PACE_ROWS * config.step_images,
        sample_every_images=never,
        checkpoint_every_images=never,
        metrics=replace(config.metrics, every_images=0),
        tracking=tracking,
    )


def begin(
    settings: StudySettings,
    folder: StudyFolder,
    wanted: ResourceRequest,
    processes: int | None,
    home: Path,
    project: Mapping[str, Any],
) -> StudyPlan:
    """Return a checked study; nothing is written.

    Args:
        settings: of the study.
        folder: of the study.
        wanted: of the cluster.
        processes: of each run, on this machine.
        home: from where relative paths are seen.
        project: what lienzo.toml says.

    Raises:
        Refused: naming what is wrong, and where.
    """
    assert settings.better  # or it is refused
    settings = replace(settings, data=home / settings.data)
    configs = {arm: arm_config(settings, arm, home, project) for arm in settings.arms}
    costs = {arm: Cost(flops_per_image(with_classes(config)), config.step_images) for arm, config in configs.items()}
    plan = StudyPlan(settings, folder, costs, wanted, processes, home, project)
    check_lowered(plan)  # before a run refuses the lower total: what it would advise is for a run by itself
    for arm, config in configs.items():
        if processes:
            config.check_world(processes)
        images = plan.images(arm) if plan.known(arm) else config.step_images
        for seed in (*settings.seeds, *settings.select_seeds):
            run = folder.run(arm, seed)
            run_config(plan, StudyTask(arm, seed, run, max(images, images_trained(run)), "report"), config, gpus=False)
    return plan


def from_anywhere(wanted: ResourceRequest, home: Path, profile: str | None) -> ResourceRequest:
    """Return what is wanted of the cluster so that it means the same wherever it is read.

    Args:
        wanted: its paths are seen from `home`.
        home: a folder.
        profile: the one to take where none is wanted.
    """
    named = wanted.profile or profile
    if named and Path(named).suffix == ".toml":  # else it is the name of an example
        named = str(home / Path(named).expanduser())
    return replace(wanted, profile=named, after=home / wanted.after if wanted.after else None)


def check_lowered(plan: StudyPlan) -> None:
    """Refuse a budget that a run has exceeded: what is measured is its newest checkpoint.

    Raises:
        Refused: naming the run.
    """
    for stage in plan.stages():
        for task in stage:
            if task.seed_set and not plan.done(task) and (seen := images_trained(task.run)) > task.images:
                raise Refused(
                    f"{task.name} has seen {seen:,} images already, but is to be measured at {task.images:,}: a budget "
                    "cannot be lowered, nor rungs be measured in another way; name another --out"
                )


def with_classes(config: Config) -> Config:
    """Return the settings with the number of classes that the data has, where they matter."""
    if not config.network.uses_classes or config.network.classes:
        return config
    return replace(config, network=replace(config.network, classes=len(open_data(config).classes)))


def with_settings(plan: StudyPlan, tasks: Sequence[StudyTask], gpus: bool) -> list[tuple[StudyTask, Config]]:
    """Return the settings of each task's run.

    Raises:
        Refused: a run was begun with other settings.
    """
    arms = {task.arm for task in tasks}
    configs = {arm: arm_config(plan.settings, arm, plan.home, plan.project) for arm in arms}
    return [(task, run_config(plan, task, configs[task.arm], gpus)) for task in tasks]
