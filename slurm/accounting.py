"""What slurmdbd remembers of a job that the controller has forgotten; nothing where there is no accounting."""

from __future__ import annotations

from slurm.commands import SlurmError, ask
from slurm.parsing import expand, moment, text
from slurm.records import Job

LIVE = ("PENDING", "RUNNING", "SUSPENDED", "REQUEUED", "RESIZING")
FIELDS = ("JobID", "JobName", "State", "Reason", "NodeList", "Submit", "Start", "End", "Comment")


def ended_job(id: str) -> Job | None:
    """A job of the past, with what sacct keeps of it; None for a runaway, whose end slurmdbd has never heard of."""
    columns = ",".join(f"{name}%1000" if name in ("JobName", "NodeList", "Comment") else name for name in FIELDS)
    try:
        said = ask("sacct", "--jobs", id, "--allocations", "--parsable2", "--noheader", "--format", columns, tries=2)
    except SlurmError:
        return None
    lines = (line for line in said.splitlines() if line.count("|") >= len(FIELDS) - 1)
    job = next(map(as_ended_job, lines), None)
    return None if job and job.state in LIVE else job


def as_ended_job(line: str) -> Job:
    """The job of a line of sacct's. A name may hold the sign between columns: what is over belongs to it."""
    parts = line.split("|")
    over = len(parts) - len(FIELDS)
    parts[1 : 2 + over] = ["|".join(parts[1 : 2 + over])]
    row = dict(zip(FIELDS, parts, strict=True))
    node_list = row["NodeList"] if row["NodeList"] != "None assigned" else ""
    return Job(
        id=row["JobID"],
        name=row["JobName"],
        state=row["State"].partition(" ")[0],  # CANCELLED by 1000
        reason=text(row, "Reason"),
        node_list=node_list,
        nodes=expand(node_list),
        restarts=0,
        submit_time=moment(row, "Submit"),
        start_time=moment(row, "Start"),
        end_time=moment(row, "End"),
        preempt_time=None,
        comment=row["Comment"],
    )
