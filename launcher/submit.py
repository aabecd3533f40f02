"""`launcher submit`: check everything, say what will happen, train. `launcher resume` is the same on an old run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape

from launcher.cluster import Cluster, choose
from launcher.demo_data import demo_shards
from shards.index import Index
from trainer.commands import train_here
from trainer.config import Config
from trainer.mirror import resolve_mode
from trainer.process import open_data
from trainer.processes import default_processes
from trainer.resolve import defaults, read_config, settle
from trainer.run_folder import RunFolder
from trainer.settings import Refused


@dataclass(frozen=True)
class Submit:
    """Train: on Slurm where there is one, else here with processes. On an existing --run it resumes."""

    recipe: tyro.conf.Positional[str | None] = None
    """dcgan-32, dcgan-64 (default) or dcgan-128; an existing run keeps its own."""
    nodes: int = 1
    """How many nodes to ask a cluster for."""
    cluster: Cluster = "auto"
    """auto: Slurm if it is there, else this machine."""
    run: Path | None = None
    """The run folder; default: runs/RECIPE-TIME."""
    keep_batch: bool = False
    """Refuse, rather than append micro-batches, when there are more processes than micro-batches."""
    dry_run: bool = False
    """Check everything and show the plan, and do nothing."""
    config: Annotated[Config, tyro.conf.arg(name="")] = Config()


@dataclass(frozen=True)
class Resume:
    """Go on with a run from its newest whole checkpoint. Operational settings may change; identity settings may not."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    nodes: int = 1
    """How many nodes to ask a cluster for."""
    cluster: Cluster = "auto"
    """auto: Slurm if it is there, else this machine."""
    config: Annotated[Config, tyro.conf.arg(name="")] = Config()


def run_submit(parsed: Submit, arguments: Sequence[str]) -> int:
    """Carry out `submit`.

    Raises:
        Refused: something is wrong; nothing was started.
    """
    run = RunFolder(parsed.run) if parsed.run else None
    start = replace(parsed, config=defaults(parsed.recipe, run))
    asked = tyro.cli(Submit, args=list(arguments), default=start, prog="python -m launcher submit")
    folder = RunFolder(asked.run or Path("runs") / f"{asked.config.recipe}-{time.strftime('%Y%m%d-%H%M%S')}")
    return launch(folder, asked.config, asked.nodes, asked.cluster, asked.keep_batch, asked.dry_run)


def run_resume(parsed: Resume, arguments: Sequence[str]) -> int:
    """Carry out `resume`.

    Raises:
        Refused: there is no such run, or something is wrong.
    """
    start = replace(parsed, config=read_config(RunFolder(parsed.run)))
    asked = tyro.cli(Resume, args=list(arguments), default=start, prog="python -m launcher resume")
    return launch(RunFolder(asked.run), asked.config, asked.nodes, asked.cluster, keep_batch=True, dry_run=False)


def launch(run: RunFolder, config: Config, nodes: int, cluster: Cluster, keep_batch: bool, dry_run: bool) -> int:
    """Check everything, print the plan, and train."""
    if nodes < 1:
        raise Refused(f"--nodes must be positive, but is {nodes}")
    where = choose(cluster, nodes)
    config.check()
    if config.data is None:
        config = replace(config, data=demo_shards(config.network.size))
    grown = config
    if config.processes and config.processes > config.micro_batches and not keep_batch and not run.config.exists():
        grown = config.grown_to(config.processes)
    grown = settle(run, grown)
    size = grown.processes or default_processes(grown)
    grown.check_world(size)
    show_plan(run, grown, open_data(grown), where, size, config.batch_size)
    return 0 if dry_run else train_here(grown, run)


def show_plan(run: RunFolder, config: Config, index: Index, where: str, processes: int, batch_before: int) -> None:
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
    later = f"; send it later with: python -m launcher sync {run.path}" if mode == "offline" else ""
    rows = {
        "recipe": f"{config.recipe}, {index.size} px, mixed precision: {config.mixed_precision}",
        "where": f"{where}, {processes} process{'es' if processes > 1 else ''}{same}",
        "data": f"{config.data}: {samples:,} pictures, {len(index.classes)} classes",
        "training": f"{total:,} images = {steps:,} steps, {total / samples:.1f} epochs; batch {batch}",
        "run folder": f"{run.path}{going_on}",
        "W&B": f"{mode}, project {config.tracking.project}{later}",
        "watch": f"tail -f {run.metrics}; pictures in {run.samples}",
        "stop": f"Ctrl-C saves and stops; go on with: python -m launcher resume {run.path}",
    }
    console = Console(highlight=False, soft_wrap=True)  # never broken: what stands here is copied
    for name, text in rows.items():
        console.print(f"[bold]{name:<12}[/bold]{escape(text)}")
