"""`launcher study`: recipes × settings × seeds at the same budget, and which of them is better, if that can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import tyro
from rich.table import Table
from rich.text import Text

from command_line.help_page import HelpPage
from launcher.cli.training_plan import describe_job
from launcher.cli.wide_console import wide_console
from launcher.jobs.preparation import PreparedJob
from launcher.jobs.resource_request import ResourceRequest, describe_this_machine, use_slurm
from launcher.study import array
from launcher.study.folder import HOME, StudyFolder
from launcher.study.local_runner import LocalRunner
from launcher.study.plan import StudyPlan, StudyTask
from launcher.study.prepare import load_arm, prepare_study, resolve_tasks, with_absolute_paths
from launcher.study.publish import write_report
from launcher.study.run_progress import TaskProgress, next_tasks, stage_progress
from launcher.study.settings import StudySettings
from launcher.study.settings_file import read_settings
from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.core.stopping import Outcome
from trainer.runs.config_defaults import read_project_file


@dataclass(frozen=True)
class Study:
    """Compare arms over seeds, at the same budget. The same command goes on with what is not finished."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "examples/study.toml --dry-run": "what it would train, and what that costs",
            "examples/study.toml": "train all, or go on; then the page",
            "studies/NAME --seeds 10": "ten seeds of each arm in all",
        },
        everyday={
            "what": ("--out", "--seeds", "--retry", "--dry-run", "--status", "--report"),
            "where": ("--at-once", "--nodes", "--processes", "--time", "--partition", "--profile"),
        },
    )

    study: tyro.conf.Positional[Path]
    """STUDY.toml, or the folder of a study that was begun."""
    out: Path | None = None
    """The study's folder; default: studies/NAME."""
    seeds: int | None = None
    """So many seeds of each arm, 0, 1, 2, …, and those in the file: more can be added at any time, none taken away."""
    at_once: int | None = None
    """So many runs at the same time, in place of what the file says."""
    processes: int | None = None
    """Processes of each run on this machine."""
    retry: bool = False
    """Train again what has failed, and the short runs that tell an arm's speed; else failures are counted."""
    dry_run: bool = False
    """Check everything, show the plan and its cost, and do nothing."""
    status: bool = False
    """Only tell how far each run is."""
    report: bool = False
    """Only write results and page, from what there is."""
    resources: Annotated[ResourceRequest, tyro.conf.arg(name="")] = ResourceRequest()


def run_study(args: Study) -> int:
    """Carry out `study`.

    Raises:
        Refused: something is wrong; nothing was started.
    """
    asked, folder, toml = read_study(args)
    if args.status or args.report:
        plan = StudyPlan.open(folder)
        if args.status:
            show_progress([one for stage in stage_progress(plan) for one in stage])
        else:
            wide_console().print(write_report(plan))
        return 0
    on_slurm = use_slurm(args.resources)
    if on_slurm and args.processes:
        raise Refused("--processes is of runs on this machine, as with --cluster local: on Slurm, the nodes decide")
    resources = args.resources
    if resources.nodes == ResourceRequest.nodes:  # the command line says nothing
        resources = replace(resources, nodes=asked.nodes)
    if args.study.is_dir() and folder.plan.exists():  # it goes on as it was begun, wherever the user stands now
        known = StudyPlan.open(folder)
        home, project, profile = known.home, known.project, known.resources.profile
    else:
        home, project = Path.cwd(), read_project_file()
        profile = project.get("profile")
    resources = with_absolute_paths(resources, Path.cwd(), profile)
    plan = prepare_study(asked, folder, resources, args.processes, home, project)
    if args.dry_run:
        go_on(plan, args, on_slurm)
        return 0
    with folder.held():
        plan = replace(plan, settings=with_known_seeds(plan.settings, folder))  # another may have added some just now
        plan.save(toml.read_text())
        return go_on(plan, args, on_slurm)


def go_on(plan: StudyPlan, args: Study, on_slurm: bool) -> int:
    """Show what is to be trained now, and unless it is a dry run, queue it or train it here."""
    stage, todo = next_tasks(plan, args.retry)
    prepared = array.prepare_array(plan, todo) if on_slurm and todo else None
    show_plan(plan, todo, prepared.job if prepared else None, args)
    if args.dry_run:
        if prepared:
            print(f"\n{array.array_script(prepared)}")
        return 0
    if not on_slurm:
        return train_here(plan, args.retry)
    if prepared:
        # Before it is queued: the end of a first task looks whether the stage is claimed, and would queue it again.
        array.claim_stage(plan, stage)
        print(f"submitted array {array.submit_array(prepared)} of {len(todo)} runs")
    write_report(plan)
    return 0


def with_known_seeds(asked: StudySettings, folder: StudyFolder) -> StudySettings:
    """Return a study with the seeds that were added before: they stay.

    Raises:
        Refused: the folder holds another study.
    """
    if not folder.plan.exists():
        return asked
    known = StudyPlan.open(folder).settings
    if known.name != asked.name:
        raise Refused(f"{folder.path} holds the study {known.name!r}, not {asked.name!r}; name another --out")
    return replace(asked, seeds=tuple(dict.fromkeys((*asked.seeds, *known.seeds))))


def read_study(args: Study) -> tuple[StudySettings, StudyFolder, Path]:
    """Return what is asked for, where it will lie, and the file that says so.

    Raises:
        Refused: it cannot be read, or cannot be.
    """
    for name in ("seeds", "at_once", "processes"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise Refused(f"--{name.replace('_', '-')} must be positive, but is {value}")
    toml = args.study / "study.toml" if args.study.is_dir() else args.study
    begun = StudyFolder(args.study)
    asked = read_settings(
        toml, StudyPlan.open(begun).settings.name if begun.plan.exists() else None, args.study.is_dir()
    )
    if args.study.is_dir() and args.out is None:
        folder = StudyFolder(args.study)
    else:
        folder = StudyFolder(args.out or HOME / asked.name)
    # Before --seeds: these are added to the seeds that the study has, whatever its file says by now.
    asked = with_known_seeds(asked, folder)
    if args.seeds is not None:
        asked = replace(asked, seeds=tuple(dict.fromkeys((*asked.seeds, *range(args.seeds)))))
    return replace(asked, at_once=args.at_once or asked.at_once), folder, toml


def train_here(plan: StudyPlan, retry: bool) -> int:
    """Train and measure stage after stage on this machine; results and page are written after each."""
    runner = LocalRunner(plan, plan.settings.at_once or 1)
    tried: set[StudyTask] = set()
    while todo := next_tasks(plan, retry, tried)[1]:
        # With --retry, what fails again would otherwise be tried for ever.
        tried |= {*todo}
        if not runner.train_and_measure(resolve_tasks(plan, todo)):
            print(f"stopped and saved; the same command goes on: {command('launcher', 'study', plan.folder.path)}")
            return Outcome.INTERRUPTED
        write_report(plan)
    wide_console().print(write_report(plan))
    return 0


def show_plan(plan: StudyPlan, todo: Sequence[StudyTask], job: PreparedJob | None, args: Study) -> None:
    """Print what will happen, and what it costs."""
    settings = plan.settings
    table = Table("arm", "recipe", "images a run", "GFLOPs an image", "PFLOPs in all", "images/s", box=None)
    for arm, cost in plan.costs.items():
        images = plan.images(arm) if plan.knows_length(arm) else None
        speed = plan.images_per_s(arm) if settings.budget.kind == "seconds" else None
        total = images and images * cost.flops_per_image * len(settings.seeds) / 1e15
        table.add_row(
            arm,
            settings.arms[arm].recipe,
            f"{images:,}" if images else "when its speed is known",
            f"{cost.flops_per_image / 1e9:.3g}",
            f"{total:.3g}" if total else "",
            f"{speed:.0f}" if speed else "",
        )
    where = describe_job(job) + " for each run" if job else describe_this_machine(args.resources)
    begun = sum(task.run.config.exists() for task in todo)
    console = wide_console()
    console.print(table)
    watch = command("launcher", "study", plan.folder.path, "--status")
    rows = {
        "budget": f"{settings.budget.kind} = {settings.budget.amount:g} for each run",
        "runs": f"{len(plan.costs)} arms × {len(settings.seeds)} seeds; {len(todo)} now, {begun} of them begun before",
        "halving": describe_halving(plan) if settings.halving else "",
        "rates": describe_scaling(plan),
        "decides": f"{settings.evaluation.metric}, {settings.evaluation.num_samples:,} pictures",
        "where": where,
        "folder": str(plan.folder.path),
        "watch": f"{watch}; each run: python -m launcher status RUN",
        "results": f"{plan.folder.page}, {plan.folder.results}",
    }
    for name, text in rows.items():
        if text:
            console.print(f"[bold]{name:<12}[/bold]", end="")
            console.print(text, markup=False, soft_wrap=True)


def describe_scaling(plan: StudyPlan) -> str:
    """Say what the rules of papers do to the arms whose batch is not their recipe's."""
    made = {arm: load_arm(plan.settings, arm, plan.home, plan.project).scaling for arm in plan.settings.arms}
    return "; ".join(
        f"{arm}: {scaling.describe(plan.settings.arms[arm].scale_rule == 'paper')}"
        for arm, scaling in made.items()
        if scaling
    )


def describe_halving(plan: StudyPlan) -> str:
    """Say how arms are left behind."""
    settings = plan.settings
    assert settings.halving
    rungs = ", ".join(f"{share:.3g}" for share in settings.shares)
    return (
        f"runs of {settings.halving.seeds} other seeds decide after {rungs} of the budget: "
        f"{settings.halving.keep:.0%} of the arms go on each time"
    )


def show_progress(runs: Sequence[TaskProgress]) -> None:
    """Print how far each run is."""
    table = Table("run", "state", "images", "of", "why", box=None)
    for one in runs:
        task = one.task
        table.add_row(*map(Text, (task.name, one.status, f"{one.images:,}", f"{task.images:,}", one.reason)))
    wide_console().print(table)
