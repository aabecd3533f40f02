"""`launcher submit`: check everything, say what will happen, and have it trained. `launcher resume` is the same on an
old run.

The way of a run: the command line is read here, `prepare_run` checks and resolves it once, and what comes of that is
shown, and then queued (`submit_to_slurm`) or trained (`train_here`).
"""

from __future__ import annotations

import itertools
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape

from command_line.arguments import parse, said
from launcher.jobs.preparation import PreparedJob, PreparedRun, TrainingRequest, prepare_run
from launcher.jobs.resource_request import ResourceRequest, describe_this_machine
from launcher.jobs.submission import batch_script, submit_to_slurm
from launcher.status.wandb_link import wandb_link
from trainer.config.config import Config
from trainer.config.wandb_environment import resolve_mode
from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.launch.local_training import PreparedTraining, train_here
from trainer.runs.config_loading import load_defaults, read_config, resolve_length
from trainer.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Submit:
    """Train: on Slurm where there is one, else here with processes. On an existing --run it resumes."""

    recipe: tyro.conf.Positional[str | None] = None
    """Its name, such as dcgan-64, the default (python -m launcher recipes lists all); an existing run keeps its own."""
    run: Path | None = None
    """The run folder; default: runs/RECIPE-TIME."""
    keep_batch: bool = False
    """Refuse, rather than append micro-batches, when there are more processes than micro-batches."""
    dry_run: bool = False
    """Check everything, show the plan and the batch script, and do nothing."""
    resources: Annotated[ResourceRequest, tyro.conf.arg(name="")] = ResourceRequest()
    config: Annotated[Config, tyro.conf.arg(name="")] = Config()


@dataclass(frozen=True)
class Resume:
    """Go on with a run from its newest whole checkpoint. Operational settings may change; identity settings only in a
    run of their own, with --as."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    new_run: Annotated[Path | None, tyro.conf.arg(name="as")] = None
    """Go on as a new run in this folder, from the whole state of the other: any setting but the networks may change."""
    dry_run: bool = False
    """Check everything, show the plan and the batch script, and do nothing."""
    resources: Annotated[ResourceRequest, tyro.conf.arg(name="")] = ResourceRequest()
    config: Annotated[Config, tyro.conf.arg(name="")] = Config()


def run_submit(parsed: Submit, arguments: Sequence[str]) -> int:
    """Carry out `submit`.

    Raises:
        Refused: something is wrong; nothing was started.
    """
    defaults = replace(parsed, config=load_defaults(parsed.recipe, RunFolder(parsed.run) if parsed.run else None))
    args: Submit = parse(Submit, arguments, "python -m launcher submit", defaults)
    config = resolve_length(args.config, arguments)
    with run_folder(args.run, config.recipe) as run:
        names_processes = said(arguments, "processes")
        return train(TrainingRequest(run, config, args.resources, not args.keep_batch, names_processes), args.dry_run)


def run_resume(parsed: Resume, arguments: Sequence[str]) -> int:
    """Carry out `resume`.

    Raises:
        Refused: there is no such run, or something is wrong.
    """
    config = read_config(RunFolder(parsed.run))
    if parsed.new_run:
        config = replace(config, init_state="all")  # unless the command line says --init-state weights
    args: Resume = parse(Resume, arguments, "python -m launcher resume", replace(parsed, config=config))
    run, config = RunFolder(args.new_run or args.run), resolve_length(args.config, arguments)
    if args.new_run:
        config = replace(config, init_from=args.run)
        if run.config.exists():
            again = command("launcher", "resume", run.path)
            raise Refused(f"--as {run.path}: this run exists already; go on with it: {again}")
    names_processes = said(arguments, "processes")
    return train(TrainingRequest(run, config, args.resources, False, names_processes), args.dry_run)


@contextmanager
def run_folder(named: Path | None, recipe: str) -> Iterator[RunFolder]:
    """Give the folder of a run: the one that is named, else a fresh one, which is removed if it stays empty.

    Raises:
        Refused: none can be made.
    """
    if named:
        yield RunFolder(named)
        return
    path = make_fresh_folder(Path("runs") / f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        yield RunFolder(path)
    finally:
        with suppress(OSError):  # it holds a run
            path.rmdir()
            path.parent.rmdir()  # unless it holds others


def make_fresh_folder(proposed: Path) -> Path:
    """Make a folder that nobody else has, of this name or with a number behind it.

    Raises:
        Refused: none can be made.
    """
    path = proposed
    try:
        for number in itertools.count(2):
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                path = proposed.with_name(f"{proposed.name}-{number}")
    except OSError as error:
        raise Refused(f"the run folder {path} cannot be made: {error.strerror}; name another --run") from error
    return path


def train(asked: TrainingRequest, dry_run: bool) -> int:
    """Have a run trained, on Slurm or here; on a dry run, only show what would be done."""
    prepared = prepare_run(asked)
    training, job = prepared.training, prepared.job
    show_plan(prepared)
    if dry_run:
        if job:
            print(f"\n{batch_script(training.run, job)}")
        return 0
    if job is None:
        return train_here(training)
    number = submit_to_slurm(training, job)
    print(f"submitted job {number}; W&B: {wandb_page(training)}")
    return 0


def wandb_page(training: PreparedTraining) -> str:
    """Say where W&B will show a run that has not begun."""
    return replace(wandb_link(training.run), state=resolve_mode(training.config.tracking.mode)).words(training.run)


def describe_job(job: PreparedJob) -> str:
    """Say in words what a job gets."""
    request = job.request
    what = f"{request.nodes} node{'' if request.nodes == '1' else 's'}"
    each = f"{request.tasks_per_node} process{'es' if request.tasks_per_node > 1 else ''}"
    gpus = f" and {request.gpus_per_node} GPUs" if request.gpus_per_node else ""
    limit = f"{request.time_min // 60} h {request.time_min % 60:02d} min"
    return f"Slurm partition {job.partition.name}, {what} with {each}{gpus} each, {limit} an attempt"


def describe_place(prepared: PreparedRun) -> str:
    """Say in words where a run will be trained."""
    if prepared.job:
        return describe_job(prepared.job)
    size = prepared.training.processes
    return f"{describe_this_machine(prepared.resources)}, {size} process{'es' if size > 1 else ''}"


def show_plan(prepared: PreparedRun) -> None:
    """Print what will happen."""
    run, config, dataset = prepared.training.run, prepared.training.config, prepared.training.dataset
    samples = dataset.splits["train"].samples
    total = config.images_to_see(samples)
    batch = f"{config.batch_size} = {config.micro_batches} micro-batches of {config.micro_batch_size}"
    if config.batch_size != prepared.batch_asked:
        batch += f" (grown from {prepared.batch_asked}: each process has one micro-batch)"
    same = "; any other number gives the same bits" if config.reduction == "exact" else ""
    going_on = " (exists: going on)" if run.config.exists() else ""
    mode = resolve_mode(config.tracking.mode)
    later = f"; send it later with: {command('launcher', 'sync', run.path)}" if mode == "offline" else ""
    watch, stop = shlex.join(["tail", "-f", str(run.metrics)]), "Ctrl-C saves and stops"
    if prepared.job:
        watch = f"{command('launcher', 'status', run.path)}, {command('launcher', 'logs', run.path, '-f')}"
        stop = command("launcher", "cancel", run.path)
    steps = f"{total // config.step_images:,} steps, {total / samples:.1f} epochs"
    rows = {
        "recipe": f"{config.recipe}, {dataset.size} px, mixed precision: {config.mixed_precision}",
        "where": f"{describe_place(prepared)}{same}",
        "data": f"{config.data}: {samples:,} pictures, {len(dataset.classes)} classes",
        "training": f"{total:,} images = {steps}; batch {batch}",
        "run folder": f"{run.path}{going_on}",
        "W&B": f"{mode}, project {config.tracking.project}{later}",
        "watch": f"{watch}; pictures in {run.samples}",
        "stop": f"{stop}; go on with: {command('launcher', 'resume', run.path)}",
    }
    console = Console(highlight=False, soft_wrap=True)  # never broken: what stands here is copied
    for name, text in rows.items():
        console.print(f"[bold]{name:<12}[/bold]{escape(text)}")
