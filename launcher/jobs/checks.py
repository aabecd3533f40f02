"""What is checked before anything is queued; each refusal has a message of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace

from command_line.suggestion import did_you_mean
from launcher.jobs import job_record, runs
from launcher.jobs.file_systems import file_system, is_local, is_this_machine
from launcher.jobs.job_record import JobRecord
from launcher.jobs.resource_request import node_range
from slurm.control import SlurmError
from slurm.profile import Profile
from slurm.records import Node, Partition
from trainer.config.config import Config
from trainer.config.wandb_environment import has_key, resolve_mode
from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.runs.run_folder import RunFolder


def parse_minutes(time: str, where: str = "--time") -> int:
    """Read a time limit as Slurm writes it: minutes[:seconds], hours:minutes:seconds, days-hours[:minutes[:seconds]].

    `where` names it to the user.

    Raises:
        Refused: it is none of these.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if not match:
        raise Refused(f"{where} must be minutes, hours:minutes:seconds or days-hours, but is {time!r}")
    days, first, second, third = (int(part) if part else None for part in match.groups())
    if days is not None:
        # Slurm counts in minutes: a begun one is rounded up, as less than asked for would cut the attempt short.
        total = (days * 24 + (first or 0)) * 60 + (second or 0) + (1 if third else 0)
    elif third is not None:
        total = (first or 0) * 60 + (second or 0) + (1 if third else 0)
    else:
        total = (first or 0) + (1 if second else 0)
    if total < 1:
        raise Refused(f"{where} must be at least a minute, but is {time!r}")
    return total


def choose_partition(name: str, known: Sequence[Partition]) -> Partition:
    """Return the partition of a name, or the default one.

    Raises:
        Refused: there is none, or it takes no jobs.
    """
    if not known:
        raise Refused("the cluster has no partition that you may use; see: sinfo")
    # No partition need be the default one; then the plan names the first, rather than that sbatch refuses the job.
    found = [p for p in known if p.name == name] if name else [p for p in known if p.default] or list(known[:1])
    if not found:
        names = [p.name for p in known]
        hint = did_you_mean(name, names, f"there are {', '.join(names)}")
        raise Refused(f"there is no partition {name!r}; {hint}")
    # Slurm may queue a job for a partition that is down, and there it would wait unnoticed.
    if found[0].state != "UP":
        raise Refused(f"partition {found[0].name} is {found[0].state}: it takes no jobs now; see: sinfo")
    return found[0]


def check_partition_limits(nodes: str, time_min: int, gpus: int, partition: Partition) -> None:
    """Refuse what a partition can never give.

    Raises:
        Refused: too many nodes or GPUs, or too long.
    """
    _, most = node_range(nodes)
    if most > partition.total_nodes:
        raise Refused(f"--nodes {nodes}: partition {partition.name} has {partition.total_nodes} nodes")
    if partition.max_nodes is not None and most > partition.max_nodes:
        raise Refused(f"--nodes {nodes}: a job in partition {partition.name} gets at most {partition.max_nodes}")
    if partition.max_time_min is not None and time_min > partition.max_time_min:
        raise Refused(
            f"--time {time_min} minutes: partition {partition.name} gives at most {partition.max_time_min}; a run goes "
            "on over as many attempts as it needs, so ask for less"
        )
    if gpus < 0:
        raise Refused(f"--gpus-per-node must not be negative, but is {gpus}")
    if gpus > partition.gpus_per_node:
        have = f"have {partition.gpus_per_node}" if partition.gpus_per_node else "have none"
        raise Refused(f"--gpus-per-node {gpus}: the nodes of partition {partition.name} {have}")


def limit_warning_time(profile: Profile, time_min: int) -> Profile:
    """Return the profile with a warning that leaves at least half of a short time limit for training."""
    return replace(profile, warn_s=min(profile.warn_s, time_min * 30))


def check_run_folder(run: RunFolder, nodes: Sequence[Node]) -> None:
    """Refuse a run folder that cannot be written, or that other nodes cannot see.

    Raises:
        Refused: with the reason.
    """
    # In the path of a job's log, Slurm replaces %j, %x and their like.
    if "%" in str(run.path.resolve()) or not str(run.path.resolve()).isprintable():
        raise Refused(f"the run folder {str(run.path)!r}: Slurm cannot hold '%' or control characters in a path")
    # The folder need not exist yet: its nearest folder that does tells whether it can be made.
    there = next(path for path in (run.path.resolve(), *run.path.resolve().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise Refused(f"the run folder {run.path} cannot be written: {there} does not let you")
    kind = file_system(there)
    # The nodes of a development cluster are all this machine, so there a tmpfs will do.
    if is_local(kind) and not all(is_this_machine(node) for node in nodes):
        raise Refused(
            f"the run folder {run.path} lies on a {kind}, which no other node sees: name a --run on a file system that "
            "all nodes share"
        )


def check_container_mounts(run: RunFolder, site: Profile) -> None:
    """Refuse a run folder that the container of the ranks does not see.

    Raises:
        Refused: no mount holds it.
    """
    path = run.path.resolve()
    if site.container and not any(path.is_relative_to(mount.split(":")[0]) for mount in site.mounts):
        raise Refused(f"the run folder {path} is in none of the container's mounts: add it to `mounts` in the profile")


def check_wandb_key(config: Config) -> None:
    """Refuse to mirror to W&B online without a key.

    Raises:
        Refused: there is none.
    """
    # Here rather than on a node, hours later, where nobody sees it.
    if resolve_mode(config.tracking.mode) == "online" and not has_key():
        raise Refused(
            "W&B is asked for online, but there is no key: set WANDB_API_KEY, run `wandb login`, or use "
            "--tracking.mode offline"
        )


def refuse_live_job(run: RunFolder) -> JobRecord | None:
    """Refuse a run whose job waits or runs; return what was submitted for it before.

    Raises:
        Refused: naming the job; or Slurm cannot be asked.
    """
    record = job_record.find_record(run)
    try:
        job = runs.job_of(record) if record else None
    except SlurmError as error:
        raise Refused(str(error)) from error
    if record and job and runs.is_live(job):
        raise Refused(
            f"{run.path} has job {record.job} already, which is {job.state.lower()}: watch it with "
            f"`{command('launcher', 'status', run.path)}`, or end it with `{command('launcher', 'cancel', run.path)}`"
        )
    return record
