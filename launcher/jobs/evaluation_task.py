"""One task of a job that evaluates: `python -m launcher.jobs.evaluation_task evaluate RUN …`, which srun starts.

The tasks meet nowhere: they share features through files. So signals are let pass. What asks this process to end comes
before a SIGKILL, after which Slurm starts a preempted job again, and what was computed until then is there.
"""

from __future__ import annotations

import signal
import sys

from slurm import job_environment
from trainer.core.stopping import REQUESTS
from trainer.distributed.rank_environment import become_rank


def main() -> int:
    """Run a command of the trainer as one of the job's tasks."""
    for number in REQUESTS:
        signal.signal(number, signal.SIG_IGN)
    place = job_environment.task_info()
    become_rank(place.rank, place.local_rank, place.size, place.local_size)
    # After the signals and this task's place are settled: torch reads the environment, and takes seconds to load.
    from trainer.__main__ import main as trainer

    return trainer(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
