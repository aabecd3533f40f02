"""What `submit` and `resume` do with a run that is prepared: they show it, and have it trained."""

from __future__ import annotations

import shlex

from rich.console import Console
from rich.markup import escape

from launcher.jobs.preparation import PreparedJob, PreparedRun
from launcher.jobs.resource_request import describe_this_machine
from launcher.jobs.submission import batch_script, submit_to_slurm
from launcher.status.wandb_link import future_link
from shards.images.size import format_size
from trainer.config.wandb_environment import resolve_mode
from trainer.core.advice import command
from trainer.launch.local_processes import train_here


def carry_out(prepared: PreparedRun, dry_run: bool) -> int:
    """Show what will be done, and unless it is a dry run, have the run trained, on Slurm or here."""
    training, job = prepared.training, prepared.job
    show_plan(prepared)
    if dry_run:
        if job:
            print(f"\n{batch_script(training.run, job)}")
        return 0
    if job is None:
        return train_here(training)
    number = submit_to_slurm(training, job)
    print(f"submitted job {number}; W&B: {future_link(training.run, training.config.tracking.mode)}")
    return 0


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
        "recipe": f"{config.recipe}, {format_size(dataset.size)} px, mixed precision: {config.mixed_precision}",
        "where": f"{describe_place(prepared)}{same}",
        "data": f"{config.data}: {samples:,} pictures, {len(dataset.classes)} classes",
        "training": f"{total:,} images = {steps}; batch {batch}",
        "rates": prepared.scaling.describe(prepared.scaled) if prepared.scaling else "",
        "run folder": f"{run.path}{going_on}",
        "W&B": f"{mode}, project {config.tracking.project}{later}",
        "watch": f"{watch}; pictures in {run.samples}",
        "stop": f"{stop}; go on with: {command('launcher', 'resume', run.path)}",
    }
    console = Console(highlight=False, soft_wrap=True)  # never broken: what stands here is copied
    for name, text in rows.items():
        if text:
            console.print(f"[bold]{name:<12}[/bold]{escape(text)}")
