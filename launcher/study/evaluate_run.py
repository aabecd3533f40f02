"""What follows the training of a study's run, in the same task: `python -m launcher.study.evaluate_run RUN`.

It becomes `trainer evaluate`, which answers signals; what it has computed until then is there for the next time.
With --due it only tells, by its exit code, whether there is anything to measure.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from launcher.jobs.evaluation_target import EvaluationTarget
from slurm import job_environment
from trainer.distributed.rank_environment import become_rank
from trainer.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Measure:
    """Measure a run of a study that has ended."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    due: bool = False
    """Only tell whether it is due: exit code 0, else 1."""
    task: bool = False
    """This is one of the tasks of a job's step, which share the work."""
    processes: int = 1
    """Processes on this machine."""


def main(args: Measure) -> int:
    """Measure, if that is due."""
    run = RunFolder(args.run)
    target = EvaluationTarget.of(run)
    due = target is not None and target.due(run)
    if args.due:
        return 0 if due else 1
    if target and due:
        if args.task:
            place = job_environment.task_info()
            become_rank(place.rank, place.local_rank, place.size, place.local_size)
        os.execv(sys.executable, [sys.executable, "-m", "trainer", *target.command(run, args.processes)])
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Measure)))
