"""What was submitted for a run: `job.json` in its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from trainer import journal
from trainer.run_folder import RunFolder


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
        """
        values: dict[str, Any] = json.loads(run.job.read_text())
        return cls(**values)

    def save(self, run: RunFolder) -> None:
        """Write `job.json`, atomically."""
        journal.replace(run.job, json.dumps(asdict(self), indent=1).encode() + b"\n")


def comment(token: str) -> str:
    """Return what the job says of itself in Slurm's queue."""
    return f"lienzo-{token}"


def find(run: RunFolder) -> JobRecord | None:
    """Return what was submitted for a run; None: nothing."""
    return JobRecord.load(run) if run.job.exists() else None
