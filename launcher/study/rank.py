"""One process of a study's array: `python -m launcher.study.rank RUNS`, started by srun on every node of a task.

It is launcher.jobs.rank for the run that stands in the task's line of a file. It is a program of its own, since the
command of an array is the same for all its tasks: only a process of the task knows which run it is.
"""

from __future__ import annotations

from launcher.jobs import rank  # isort: skip  # first: it notes signals from here on

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.argv[1] = Path(sys.argv[1]).read_text().splitlines()[int(os.environ["SLURM_ARRAY_TASK_ID"])]
    rank.main()
