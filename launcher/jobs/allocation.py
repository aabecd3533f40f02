"""What Slurm has made of a plan: what it has taken against what was asked, what an attempt has against what it needs.

A plugin of the site, a default or a variable may change a job between the plan and the queue. A job with fewer nodes or
processes than planned would train all the same, slowly, and nobody would know.
"""

from __future__ import annotations

from collections.abc import Iterator

from launcher.jobs.job_record import JobRecord
from launcher.jobs.resource_request import node_range
from slurm.job_environment import TaskInfo
from slurm.records import SlurmJob


def other_nodes(asked: str, taken: SlurmJob) -> str | None:
    """Say that a job was taken with another number of nodes than asked for; None: it was not, or Slurm does not say."""
    if not taken.nodes_asked:  # as in a record from sacct, which is not asked for it
        return None
    least, most = node_range(asked)
    now_least, now_most = node_range(taken.nodes_asked)  # once it runs, twice the number that it has
    if least <= now_least <= now_most <= most:
        return None
    found = str(now_least) if now_least == now_most else taken.nodes_asked  # while it waits, Slurm says 1-1
    return f"Slurm has taken the job with {found} nodes in place of {asked}"


def other_terms(partition: str, time_min: int, taken: SlurmJob) -> Iterator[str]:
    """Say what else is not as planned, and harms no run."""
    if taken.partition not in ("", partition):
        yield f"Slurm has put the job into partition {taken.partition} in place of {partition}"
    if taken.partition and taken.time_min != time_min:
        limit = f"{taken.time_min} minutes" if taken.time_min else "no limit"
        yield f"Slurm has given each attempt {limit} in place of {time_min} minutes"
    # Said at once: whoever learns it after the first preemption has lost the time since then.
    if not taken.requeues:
        yield "Slurm will not start the job again: after an interruption, resume it"


def other_world(place: TaskInfo, nodes: int, record: JobRecord) -> str | None:
    """Say that an attempt has another number of processes than its job asked for; None: it has that number.

    Args:
        place: of this task.
        nodes: that the job has.
    """
    least, most = node_range(record.nodes)
    wanted = nodes * record.tasks_per_node
    if least <= nodes <= most and place.size == wanted:
        return None
    return (
        f"the job asked for {record.nodes} nodes with {record.tasks_per_node} processes each, and this attempt has "
        f"{nodes} nodes and {place.size} processes: the job sets options of Slurm itself (SLURM_NTASKS, say): look "
        "into `setup`, `environment` and `srun` of the site profile, and the site's own prolog, and resume"
    )
