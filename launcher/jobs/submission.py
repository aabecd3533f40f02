"""A prepared run, put into Slurm's queue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

from launcher.jobs import checks, code_snapshot, job_record
from launcher.jobs.batch_script import Request, run_executor
from launcher.jobs.job_record import JobRecord
from launcher.jobs.preparation import PreparedJob
from trainer.config.config import Config
from trainer.launch.prepared_training import PreparedTraining
from trainer.runs.config_loading import write_config
from trainer.runs.journal import now
from trainer.runs.lease import held
from trainer.runs.lease_holder import SUBMISSION
from trainer.runs.run_folder import RunFolder
from trainer.tracking.tracker import identity_of


def batch_script(run: RunFolder, job: PreparedJob) -> str:
    """Return the batch script, for a look at it before anything is done."""
    return run_executor(run, job.request, run.code.resolve() / "0001").text()


def submit_to_slurm(training: PreparedTraining, job: PreparedJob) -> int:
    """Queue a prepared run, and return its job's number.

    The run folder is held meanwhile, or two submissions at once would write over each other. What another one may have
    changed between our checks and the moment at which we hold the folder is checked again: here whether the run has a
    job, and in `write_config` whether it is still the run that the settings are of.

    Raises:
        Refused: somebody trains in the folder or has submitted it; it cannot be written; Slurm does not take the job.
    """
    run, config = training.run, training.config
    with held(run, SUBMISSION):
        before = checks.refuse_live_job(run)
        write_settings(run, config)
        # Only now: a dry run and a plan show no token, so that the same request gives the same script.
        request = replace(job.request, token=uuid4().hex[:12])
        record = new_record(before, request, job.partition.name)
        code = code_snapshot.take_snapshot(run, record.submission)
        with record_submission({run: record}):  # before the job can ask for it
            number = run_executor(run, request, code).submit_run()
            replace(record, job=number).save(run)
    return number


def write_settings(run: RunFolder, config: Config) -> None:
    """Write what a job reads of its run: the settings, and what the run is called in W&B.

    Raises:
        Refused: the folder cannot be written, or holds another run.
    """
    write_config(run, config)
    identity_of(run, config.tracking).save(run.wandb_identity)  # so that its page can be named at once


def new_record(before: JobRecord | None, request: Request, partition: str, task: int | None = None) -> JobRecord:
    """Return what is recorded of a job that is about to be queued, and has no number yet.

    Args:
        before: what was submitted for the run last.
        request: that the job makes.
        partition: that it goes to.
        task: its place in an array.
    """
    submission = before.submission + 1 if before else 1
    asked = (request.nodes, request.tasks_per_node, request.profile.warn_s)
    return JobRecord(0, submission, *asked, now(), partition, request.token, task=task)


@contextmanager
def record_submission(records: Mapping[RunFolder, JobRecord]) -> Iterator[None]:
    """Record in each run what is being submitted for it; if it is not, all is as it was before."""
    before = {run: job_record.find_record(run) for run in records}
    # All before the job is queued: the tasks of an array look for their records as soon as they start.
    for run, record in records.items():
        record.save(run)
    try:
        yield
    except BaseException:  # Ctrl-C too: what stands in a run folder must be a job that Slurm has
        for run, old in before.items():
            if old:
                old.save(run)
            else:
                run.job.unlink(missing_ok=True)
        raise
