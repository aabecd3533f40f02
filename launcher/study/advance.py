"""What the end of a study's task may set going: `python -m launcher.study.advance STUDY`, run by its batch script.

Results and page are written anew; where the task was the last of its stage, the next stage is queued. Nobody needs to
be logged in for that. Of tasks that end in the same moment one queues it: who makes the file of that stage. A stage of
which anything was queued or begun before is its user's to go on with, by `launcher study`: what is missing of it may
have been cancelled.
"""

from __future__ import annotations

import sys
from pathlib import Path

from launcher.study import array
from launcher.study.folder import WAIT_S, StudyFolder
from launcher.study.plan import StudyPlan
from launcher.study.publish import write_report
from launcher.study.run_progress import pending_tasks, stage_progress
from slurm.errors import SlurmUsageError
from trainer.core.fields import Refused


def queue_next_stage(folder: StudyFolder) -> None:
    """Write what there is, and queue the next stage if it is its turn.

    Raises:
        Refused: it cannot be queued.
    """
    # Without holding the study: reports have a lock of their own.
    write_report(StudyPlan.open(folder))
    with folder.held(wait_s=WAIT_S):
        plan = StudyPlan.open(folder)  # as it is now that nobody else changes it
        found = list(stage_progress(plan))
        tasks = pending_tasks(found[-1], retry=False)
        if (
            not tasks
            or any(plan.is_begun(one.task) for one in found[-1])
            or not array.claim_stage(plan, len(found) - 1)
        ):
            return
        print(f"queued array {array.submit_array(array.prepare_array(plan, tasks))}")


if __name__ == "__main__":
    try:
        queue_next_stage(StudyFolder(Path(sys.argv[1])))
    except (Refused, SlurmUsageError) as error:
        sys.exit(f"the study does not go on: {error}")
