"""`launcher submit`: check everything, say what will happen, and have it trained. `launcher resume` is the same on an
old run."""

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

from command_line.arguments import parse
from launcher.cli.demo_data import demo_shards
from launcher.jobs import submission as slurm_job
from launcher.jobs.resource_request import ResourceRequest, instead_of_slurm, node_range, refuse_processes, use_slurm
from launcher.jobs.submission import PreparedJob
from launcher.status.wandb_link import wandb_link
from shards.dataset.index import Index
from trainer.commands.train import train_here
from trainer.config.config import Config
from trainer.config.dataset import open_data
from trainer.config.wandb_environment import resolve_mode
from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.distributed.rank_environment import refuse_crowd
from trainer.launch.local_processes import default_processes
from trainer.runs.config_loading import check_identity, defaults, read_config, settle, settle_length
from trainer.runs.lease import held, refuse_living
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
    wanted: Annotated[ResourceRequest, tyro.conf.arg(name="")] = ResourceRequest()
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
    wanted: Annotated[ResourceRequest, tyro.conf.arg(name="")] = ResourceRequest()
    config: Annotated[Config, tyro.conf.arg(name="")] = Config()


def run_submit(parsed: Submit, arguments: Sequence[str]) -> int:
    """Carry out `submit`.

    Raises:
        Refused: something is wrong; nothing was started.
    """
    run = RunFolder(parsed.run) if parsed.run else None
    start = replace(parsed, config=defaults(parsed.recipe, run))
    asked: Submit = parse(Submit, arguments, "python -m launcher submit", start)
    asked = replace(asked, config=settle_length(asked.config, arguments))
    if asked.run:
        return launch(RunFolder(asked.run), asked, arguments)
    with fresh_folder(Path("runs") / f"{asked.config.recipe}-{time.strftime('%Y%m%d-%H%M%S')}") as path:
        return launch(RunFolder(path), asked, arguments)


@contextmanager
def fresh_folder(wanted: Path) -> Iterator[Path]:
    """Make a folder that nobody else has, of this name or with a number behind it; if it stays empty, remove it.

    Raises:
        Refused: none can be made.
    """
    path = wanted
    try:
        for number in itertools.count(2):
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                path = wanted.with_name(f"{wanted.name}-{number}")
    except OSError as error:
        raise Refused(f"the run folder {path} cannot be made: {error.strerror}; name another --run") from error
    try:
        yield path
    finally:
        with suppress(OSError):  # it holds a run
            path.rmdir()
            path.parent.rmdir()  # unless it holds others


def run_resume(parsed: Resume, arguments: Sequence[str]) -> int:
    """Carry out `resume`.

    Raises:
        Refused: there is no such run, or something is wrong.
    """
    config = read_config(RunFolder(parsed.run))
    if parsed.new_run:
        config = replace(config, init_state="all")  # unless the command line says --init-state weights
    asked: Resume = parse(Resume, arguments, "python -m launcher resume", replace(parsed, config=config))
    asked = replace(asked, config=settle_length(asked.config, arguments))
    if asked.new_run is None:
        return launch(RunFolder(asked.run), asked, arguments)
    run, config = RunFolder(asked.new_run), replace(asked.config, init_from=asked.run)
    if run.config.exists():
        again = command("launcher", "resume", run.path)
        raise Refused(f"--as {run.path}: this run exists already; go on with it: {again}")
    return launch(run, replace(asked, config=config), arguments)


def launch(run: RunFolder, asked: Submit | Resume, arguments: Sequence[str]) -> int:
    """Check everything, print the plan, and have the run trained."""
    config, wanted = asked.config, asked.wanted
    refuse_crowd("launcher submit")
    node_range(wanted.nodes)
    on_slurm = use_slurm(wanted)
    config.check()
    if config.data is None:
        config = replace(config, data=demo_shards(config.network.size))
    job = slurm_job.prepare(run, config, wanted) if on_slurm else None
    if job:
        refuse_processes(arguments, job.request.gpus_per_node > 0)
    if job and job.request.gpus_per_node and config.mixed_precision == "auto":
        config = replace(config, mixed_precision="bf16")  # decided for the nodes' GPUs, not for this machine
    processes = job.most_tasks if job else config.processes
    grown = config
    if processes and processes > config.micro_batches and may_grow(asked) and not run.config.exists():
        grown = config.grown_to(processes)
    grown = settle(run, grown)
    size = processes or default_processes(grown)
    grown.check_world(size)
    index = open_data(grown)
    if job and not asked.dry_run:
        refuse_living(run)
    where = on_nodes(job) if job else f"{instead_of_slurm(wanted)}, {size} process{'es' if size > 1 else ''}"
    show_plan(run, grown, index, where, config.batch_size, job)
    if asked.dry_run:
        if job:
            print(f"\n{slurm_job.script(run, job)}")
        return 0
    if job is None:
        return train_here(grown, run)
    with held(run, "a submission"):  # or two at once would write over each other
        slurm_job.refuse_submitted(run)
        check_identity(run, grown)
        number = slurm_job.submit(run, grown, job)
    print(f"submitted job {number}; W&B: {page(run, grown)}")
    return 0


def may_grow(asked: Submit | Resume) -> bool:
    """Tell whether a new run may get more micro-batches."""
    return isinstance(asked, Submit) and not asked.keep_batch


def page(run: RunFolder, config: Config) -> str:
    """Say where W&B will show a run that has not begun."""
    return replace(wandb_link(run), state=resolve_mode(config.tracking.mode)).words(run)


def on_nodes(job: PreparedJob) -> str:
    """Say in words what a job gets."""
    request = job.request
    what = f"{request.nodes} node{'' if request.nodes == '1' else 's'}"
    each = f"{request.tasks_per_node} process{'es' if request.tasks_per_node > 1 else ''}"
    gpus = f" and {request.gpus_per_node} GPUs" if request.gpus_per_node else ""
    limit = f"{request.time_min // 60} h {request.time_min % 60:02d} min"
    return f"Slurm partition {job.where.name}, {what} with {each}{gpus} each, {limit} a start"


def show_plan(
    run: RunFolder, config: Config, index: Index, where: str, batch_before: int, job: PreparedJob | None
) -> None:
    """Print what will happen."""
    samples = index.splits["train"].samples
    total = config.images_to_see(samples)
    batch = f"{config.batch_size} = {config.micro_batches} micro-batches of {config.micro_batch_size}"
    if config.batch_size != batch_before:
        batch += f" (grown from {batch_before}: each process has one micro-batch)"
    same = "; any other number gives the same bits" if config.reduction == "exact" else ""
    going_on = " (exists: going on)" if run.config.exists() else ""
    steps = total // config.step_images
    mode = resolve_mode(config.tracking.mode)
    later = f"; send it later with: {command('launcher', 'sync', run.path)}" if mode == "offline" else ""
    watch, stop = shlex.join(["tail", "-f", str(run.metrics)]), "Ctrl-C saves and stops"
    if job:
        watch = f"{command('launcher', 'status', run.path)}, {command('launcher', 'logs', run.path, '-f')}"
        stop = command("launcher", "cancel", run.path)
    rows = {
        "recipe": f"{config.recipe}, {index.size} px, mixed precision: {config.mixed_precision}",
        "where": f"{where}{same}",
        "data": f"{config.data}: {samples:,} pictures, {len(index.classes)} classes",
        "training": f"{total:,} images = {steps:,} steps, {total / samples:.1f} epochs; batch {batch}",
        "run folder": f"{run.path}{going_on}",
        "W&B": f"{mode}, project {config.tracking.project}{later}",
        "watch": f"{watch}; pictures in {run.samples}",
        "stop": f"{stop}; go on with: {command('launcher', 'resume', run.path)}",
    }
    console = Console(highlight=False, soft_wrap=True)  # never broken: what stands here is copied
    for name, text in rows.items():
        console.print(f"[bold]{name:<12}[/bold]{escape(text)}")
