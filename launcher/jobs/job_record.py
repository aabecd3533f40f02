"""What was submitted for a run: `job.json` in its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from shards.atomic_files import write_atomically
from trainer.core.migration import load_json, with_schema
from trainer.runs.origin import inode, is_copy
from trainer.runs.run_folder import RunFolder

WRITTEN_IN = "written_in"


@dataclass(frozen=True)
class JobRecord:
    """The newest submission of a run."""

    job: int
    """Slurm's number of it."""
    submission: int
    """How often the run was submitted; names its copy of the code."""
    nodes: str
    """As asked for: 4, or 2-4."""
    tasks_per_node: int
    warn_s: int
    """Slurm warns so many seconds before the time limit."""
    submitted: str
    partition: str = ""
    """Where it was submitted to."""
    token: str = ""
    """Stands in the job's comment: numbers begin anew with a new cluster, and each cluster has its own."""
    cancelled: bool = False
    """Its user has ended it: it is not started again."""
    task: int | None = None
    """Its place in an array, which `job` is the number of until the task begins and has a number of its own."""

    @property
    def name(self) -> str:
        """What Slurm's commands call it."""
        return str(self.job) if self.task is None else f"{self.job}_{self.task}"

    @classmethod
    def load(cls, run: RunFolder) -> JobRecord:
        """Read `job.json`.

        Raises:
            FileNotFoundError: the run was never submitted to a cluster.
            ValueError, TypeError: the file is damaged.
        """
        return cls(**{name: value for name, value in stored_values(run).items() if name != WRITTEN_IN})

    def save(self, run: RunFolder) -> None:
        """Write `job.json`, atomically, with the folder that it is written in."""
        path = run.path.resolve()
        values = with_schema(asdict(self) | {WRITTEN_IN: [str(path), inode(path)]})
        write_atomically(run.job, json.dumps(values, indent=1).encode() + b"\n")


def job_comment(token: str) -> str:
    """Return what the job says of itself in Slurm's queue."""
    return f"lienzo-{token}"


def find_record(run: RunFolder) -> JobRecord | None:
    """Return what was submitted for a run; None: nothing, or only for the run that this folder is a copy of."""
    # In a copy the number is that of the original's job: `cancel` there would end a run that is not meant.
    return JobRecord.load(run) if run.job.exists() and copied_from(run) is None else None


def copied_from(run: RunFolder) -> str | None:
    """Return the folder whose job `job.json` names, if this one is a copy of it."""
    if not run.job.exists():
        return None
    path, number = stored_values(run).get(WRITTEN_IN, ("", 0))
    return path if is_copy(run.path, run.job.name, path, number) else None


def stored_values(run: RunFolder) -> dict[str, Any]:
    """Return what `job.json` holds."""
    return load_json(run.job)
