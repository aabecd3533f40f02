"""From what a user wants to a job in Slurm's queue."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from launcher.jobs import checks, code_snapshot, job_record
from launcher.jobs.batch_script import Request, executor
from launcher.jobs.job_record import JobRecord
from launcher.jobs.resource_request import ResourceRequest, node_range
from slurm import control
from slurm import profile as profiles
from slurm.errors import SlurmUsageError
from slurm.profile import Profile, with_site_defaults
from slurm.records import Partition
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.runs.config_loading import read_project_file, write_config
from trainer.runs.journal import now
from trainer.runs.run_folder import RunFolder
from trainer.tracking.tracker import identity_of

DEFAULT_TIME_MIN = 24 * 60


@dataclass(frozen=True)
class PreparedJob:
    """A checked request, and where it goes."""

    request: Request
    where: Partition

    @property
    def most_tasks(self) -> int:
        """Processes when all nodes asked for are there."""
        return node_range(self.request.nodes)[1] * self.request.tasks_per_node


def prepare(run: RunFolder, config: Config, wanted: ResourceRequest) -> PreparedJob:
    """Check what is wanted against the cluster, and derive the rest.

    Raises:
        Refused: the cluster cannot give it; the run has a job already; the run folder will not do.
    """
    job = fitted(run, wanted, run.path.resolve().name, config.micro_batches)
    refuse_submitted(run)
    checks.key(config)
    return job


def refuse_submitted(run: RunFolder) -> None:
    """Refuse a run whose job waits or runs.

    Raises:
        Refused: naming the job; or Slurm cannot be asked.
    """
    try:
        if record := job_record.find(run):
            checks.no_live_job(run, record)
    except control.SlurmError as error:
        raise Refused(str(error)) from error


def fitted(run: RunFolder, wanted: ResourceRequest, name: str, parts: int) -> PreparedJob:
    """Derive what a job asks for from what is wanted and what the cluster has.

    Args:
        run: that the job works on.
        wanted: by its user.
        name: of the job, unless its user names it.
        parts: of the work: without GPUs, there are no more processes than these.

    Raises:
        Refused: the cluster cannot give it; the run folder will not do.
    """
    try:
        site = site_profile(wanted)
        where = checks.partition(wanted.partition or site.partition, control.partitions())
        usual = site.gpus_per_node or where.gpus_per_node
        gpus = usual if wanted.gpus_per_node is None else wanted.gpus_per_node
        time_min = time_limit(wanted.time, site.time, where)
        checks.fits(wanted.nodes, time_min, gpus, where)
        checks.folder(run, [node for node in control.nodes() if node.name in where.nodes])
        checks.mounted(run, site)
    except (control.SlurmError, SlurmUsageError) as error:
        raise Refused(str(error)) from error
    _, most = node_range(wanted.nodes)
    request = Request(
        name=wanted.name or name,
        nodes=wanted.nodes,
        tasks_per_node=gpus or max(1, min(where.cores_per_node, parts // most)),
        cpus_per_task=max(1, where.cores_per_node // where.gpus_per_node) if gpus else 1,
        gpus_per_node=gpus,
        time_min=time_min,
        after=job_of(wanted.after) if wanted.after else None,
        profile=checks.warning_time(replace(site, partition=where.name), time_min),
    )
    return PreparedJob(request, where)


def site_profile(wanted: ResourceRequest) -> Profile:
    """Return the profile of the command line, else that of lienzo.toml, else an empty one, and sbatch's variables."""
    named = wanted.profile or read_project_file().get("profile")
    return with_site_defaults(profiles.load_profile(str(named)) if named else Profile(), os.environ)


def time_limit(asked: str | None, profile: str, where: Partition) -> int:
    """Return the minutes of one start: as asked for, else the profile's, else the partition's default, else a day."""
    if asked is not None:
        return checks.minutes(asked)
    if profile:
        return checks.minutes(profile, "time in the profile")
    return where.default_time_min or min(DEFAULT_TIME_MIN, where.max_time_min or DEFAULT_TIME_MIN)


def job_of(path: Path) -> str:
    """Return what Slurm calls the job of another run.

    Raises:
        Refused: it has none.
    """
    record = job_record.find(RunFolder(path))
    if record is None:
        raise Refused(f"--after {path}: this run was never submitted to a cluster")
    return record.name


def script(run: RunFolder, job: PreparedJob) -> str:
    """Return the batch script, for a look at it before anything is done."""
    return executor(run, job.request, run.code.resolve() / "0001").text()


def submit(run: RunFolder, config: Config, job: PreparedJob) -> int:
    """Write the run folder, copy the code, queue the job, and return its number.

    Raises:
        Refused: the folder cannot be written, or Slurm does not take the job.
    """
    write_config(run, config)
    identity_of(run, config.tracking).save(run.wandb_identity)  # so that its page can be named at once
    before = job_record.find(run)
    submission = before.submission + 1 if before else 1
    code = code_snapshot.take(run, submission)
    request = replace(job.request, token=uuid4().hex[:12])
    asked = (request.nodes, request.tasks_per_node, request.profile.warn_s)
    record = JobRecord(0, submission, *asked, now(), job.where.name, request.token)
    record.save(run)  # before the job can ask for it
    try:
        number = executor(run, request, code).submit_run()
    except BaseException:
        if before:
            before.save(run)
        else:
            run.job.unlink()
        raise
    replace(record, job=number).save(run)
    return number
