"""`launcher evaluate`: measure a run in a job of its own, or on this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar
from uuid import uuid4

import tyro

from command_line.help_page import HelpPage
from launcher.jobs import code_snapshot, runs
from launcher.jobs.batch_script import environment_lines, executor_of
from launcher.jobs.preparation import fit_job
from launcher.jobs.resource_request import ResourceRequest, describe_this_machine, node_range, use_slurm
from trainer.core.fields import Refused
from trainer.evaluation.arguments import Evaluate as Measured
from trainer.evaluation.arguments import command_line
from trainer.evaluation.command import evaluate_locally
from trainer.evaluation.prepare import plan_evaluation, with_checkpoint_name
from trainer.extractors.base import CACHE


@dataclass(frozen=True)
class Evaluate:
    """Measure a run beside its training, in a job of its own on Slurm where there is one, else here."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "runs/NAME": "FID and more, with intervals",
            "runs/NAME --checkpoint best": "its best",
        },
        everyday={
            "what": ("--metrics", "--against", "--num-samples", "--extractor", "--weights", "--checkpoint", "--json"),
            "where": ("--nodes", "--time", "--partition", "--profile", "--processes", "--dry-run"),
        },
    )

    measured: Annotated[Measured, tyro.conf.arg(name="")]
    dry_run: bool = False
    """Check everything, show the batch script, and do nothing."""
    resources: Annotated[ResourceRequest, tyro.conf.arg(name="")] = ResourceRequest()


def run_evaluate(args: Evaluate) -> int:
    """Carry out `evaluate`.

    Raises:
        Refused: something is wrong; nothing was started.
    """
    subject = args.measured.subject
    if not isinstance(subject, Path):
        raise Refused(f"{subject} is a URL, and runs are folders")
    run = runs.existing_run(subject)
    node_range(args.resources.nodes)
    if not use_slurm(args.resources):
        return show_here(args) if args.dry_run else evaluate_locally(args.measured)
    # Other nodes may not see the home folder of this one, but they see the run's.
    shared = run.cache.resolve() if args.measured.cache == CACHE else args.measured.cache
    measured = with_checkpoint_name(replace(args.measured, cache=shared))
    parts = plan_evaluation(measured, "leave").parts
    request = fit_job(run, args.resources, f"{run.path.resolve().name}-evaluate", parts).request
    folder = run.logs.resolve() / f"evaluation-{uuid4().hex[:8]}"
    code = folder / "code"
    # bash outlives what is sent to the whole job before SIGKILL, so that Slurm starts a preempted job again.
    setup = [*environment_lines(code, request.profile), "trap : TERM USR1 USR2 CONT"]
    # together=False: the tasks share features through files and meet nowhere, so one that dies must not end the others.
    job = executor_of(
        folder, ["launcher.jobs.evaluation_task", *command_line(measured)], setup, request, together=False
    )
    if args.dry_run:
        print(job.text())
        return 0
    code_snapshot.copy_code(code)
    number = job.submit_run()
    print(f"submitted job {number}; it says all in {folder}, and its figures will stand in {run.evaluations}")
    return 0


def show_here(args: Evaluate) -> int:
    """Check everything, and say what would be measured on this machine."""
    plan = plan_evaluation(with_checkpoint_name(args.measured), "leave")
    metrics = ", ".join(metric.name for metric in plan.metrics)
    print(f"{describe_this_machine(args.resources)}: {metrics} of {plan.fake.source.name}, {plan.count:,} pictures")
    return 0
