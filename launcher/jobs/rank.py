"""One task of a job: `python -m launcher.jobs.rank RUN`, started by srun on every node.

Signals are only noted from the first moment on, so that one which comes while torch is still being loaded is answered
like any other: at the next step boundary.
"""

from __future__ import annotations

from trainer.core.stopping import Outcome, StopRequest

stop = StopRequest()
stop.install()

import logging  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from command_line.loading import loading  # noqa: E402
from launcher.jobs import job_record  # noqa: E402
from launcher.jobs.allocation import other_world  # noqa: E402
from launcher.jobs.own_log import redirect_output  # noqa: E402
from slurm import job_environment  # noqa: E402
from trainer.distributed.rank_environment import become_rank  # noqa: E402
from trainer.launch.job_context import JobContext  # noqa: E402
from trainer.runs.journal import EventKind, Journal, event_row  # noqa: E402
from trainer.runs.lease_holder import Owner  # noqa: E402
from trainer.runs.run_folder import RunFolder  # noqa: E402


def join_world(place: job_environment.TaskInfo) -> None:
    """Tell torch and accelerate who this process is, as torchrun would; the batch script has said where to meet."""
    become_rank(place.rank, place.local_rank, place.size, place.local_size)
    if interface := job_environment.interface_towards(os.environ["MASTER_ADDR"]):
        for name, value in job_environment.interface_variables(interface).items():
            # setdefault: an interface that the profile names was exported by the batch script, and wins.
            os.environ.setdefault(name, value)


def main() -> None:
    """Train, and end with 0 where the job's end is in order: srun kills the other ranks at any other code."""
    run, place = RunFolder(Path(sys.argv[1])), job_environment.task_info()
    if not run.config.exists():  # said into srun's own log: there is no run folder here to say it in
        sys.exit(f"{run.path} is not to be seen on {place.node}: it must lie on a file system that all nodes share")
    redirect_output(run.log(place.job, place.restart_count, place.rank))
    if (submitted := job_record.find_record(run)) and (
        problem := other_world(place, job_environment.num_nodes(), submitted)
    ):
        print(f"refused: {problem}", flush=True)
        # All ranks find the same, and one row is enough.
        if place.rank == 0:
            Journal(run.events).append(event_row(EventKind.REFUSED, problem=problem))
        os._exit(Outcome.REFUSED)
    join_world(place)
    with loading():
        from trainer.runs.config_loading import read_config
        from trainer.training.worker import run_rank  # torch, after the signals and the log are in our hands

    context = JobContext(Owner.slurm_job(place.job), place.restart_count, place.node, own_log=True, stop=stop)
    outcome = run_rank(read_config(run), run, context)
    logging.shutdown()
    # Not sys.exit: a thread that still waits, for a collective say, would keep the rank alive, and the job with it.
    os._exit(0 if outcome in (Outcome.FINISHED, Outcome.INTERRUPTED) else outcome)


if __name__ == "__main__":
    main()
