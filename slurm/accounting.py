"""Ask sacct for a job that the controller has forgotten.

The controller forgets a job MinJobAge after its end; slurmdbd keeps it. Clusters without accounting have no answer.
"""

from __future__ import annotations

from slurm.client import run_slurm
from slurm.errors import SlurmError
from slurm.parsing import expand_node_list, text_field, time_field
from slurm.records import SlurmJob

LIVE_STATES = ("PENDING", "RUNNING", "SUSPENDED", "REQUEUED", "RESIZING")
FIELDS = ("JobID", "JobName", "State", "Reason", "NodeList", "Submit", "Start", "End", "Comment")


def find_ended_job(id: str) -> SlurmJob | None:
    """Return an ended job as sacct keeps it.

    None: there is no accounting, no such job, or a runaway job, whose end slurmdbd never received.
    """
    # sacct cuts columns to some 20 characters unless a width is given.
    columns = ",".join(f"{name}%1000" if name in ("JobName", "NodeList", "Comment") else name for name in FIELDS)
    try:
        said = run_slurm(
            "sacct", "--jobs", id, "--allocations", "--parsable2", "--noheader", "--format", columns, tries=2
        )
    except SlurmError:
        return None
    lines = (line for line in said.splitlines() if line.count("|") >= len(FIELDS) - 1)
    job = next(map(as_ended_job, lines), None)
    # The controller no longer knows the job, so one that still counts as live is a runaway.
    return None if job and job.state in LIVE_STATES else job


def as_ended_job(line: str) -> SlurmJob:
    """Parse a line of sacct. A job's name may contain the separator: surplus columns belong to it."""
    parts = line.split("|")
    over = len(parts) - len(FIELDS)
    parts[1 : 2 + over] = ["|".join(parts[1 : 2 + over])]
    row = dict(zip(FIELDS, parts, strict=True))
    # sacct writes this for a job that was cancelled before it started.
    node_list = row["NodeList"] if row["NodeList"] != "None assigned" else ""
    return SlurmJob(
        id=row["JobID"],
        name=row["JobName"],
        state=row["State"].partition(" ")[0],  # CANCELLED by 1000
        reason=text_field(row, "Reason"),
        node_list=node_list,
        nodes=expand_node_list(node_list),
        restarts=0,
        submit_time=time_field(row, "Submit"),
        start_time=time_field(row, "Start"),
        end_time=time_field(row, "End"),
        preempt_time=None,
        comment=row["Comment"],
    )
