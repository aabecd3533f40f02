"""What the end of a study's task may set going: `python -m launcher.study.advance STUDY`, run by its batch script.

Results and page are written anew; where the task was the last of its stage, the next stage is queued. Nobody needs to
be logged in for that. Of tasks that end in the same moment one queues it: who makes the file of that stage. Should it
be killed just then, `launcher study` queues what is missing.
"""

from __future__ import annotations

import os

for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF"]:
    del os.environ[name]  # sbatch would take them for what is asked of the next job

import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from launcher.study import array  # noqa: E402
from launcher.study.folder import StudyFolder  # noqa: E402
from launcher.study.plan import Plan  # noqa: E402
from launcher.study.prepare import with_settings  # noqa: E402
from launcher.study.report import report  # noqa: E402
from launcher.study.standing import now  # noqa: E402
from slurm.settings import Refused as SlurmRefused  # noqa: E402
from trainer.settings import Refused  # noqa: E402


def advance(folder: StudyFolder) -> None:
    """Write what there is, and queue the next stage if it is its turn.

    Raises:
        Refused: it cannot be queued.
    """
    plan = Plan.open(folder)
    report(plan)
    stage = [one for one in now(plan) if one.status in ("running", "waiting")]
    untouched = stage and all(one.status == "waiting" and not one.live for one in stage)
    if not untouched or not claim(plan, stage[0].task.images):
        return
    tasks = [one.task for one in stage]
    job = array.prepare(plan, with_settings(plan, tasks, gpus=False))
    gpus = bool(job.request.gpus_per_node)
    print(f"queued array {array.submit(plan, with_settings(plan, tasks, gpus), job)}")


def claim(plan: Plan, images: int) -> bool:
    """Tell whether this process is the one that queues the stage."""
    try:
        os.close(os.open(plan.folder.queue / f"stage-{images}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


if __name__ == "__main__":
    try:
        advance(StudyFolder(Path(sys.argv[1])))
    except (Refused, SlurmRefused) as error:
        sys.exit(f"the study does not go on: {error}")
