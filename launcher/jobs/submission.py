"""A prepared run, put into Slurm's queue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

from launcher.jobs import checks, code_snapshot, job_record
from launcher.jobs.batch_script import run_executor
from launcher.jobs.job_record import JobRecord
from launcher.jobs.preparation import PreparedJob
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
        write_config(run, config)
        identity_of(run, config.tracking).save(run.wandb_identity)  # so that its page can be named at once
        submission = before.submission + 1 if before else 1
        code = code_snapshot.take_snapshot(run, submission)
        request = replace(job.request, token=uuid4().hex[:12])
        asked = (request.nodes, request.tasks_per_node, request.profile.warn_s)
        record = JobRecord(0, submission, *asked, now(), job.partition.name, request.token)
        with recorded({run: record}):  # before the job can ask for it
            number = run_executor(run, request, code).submit_run()
            replace(record, job=number).save(run)
    return number


@contextmanager
def recorded(records: Mapping[RunFolder, JobRecord]) -> Iterator[None]:
    """Record in each run what is being submitted for it; if it is not, all is as it was before."""
    before = {run: job_record.find_record(run) for run in records}
    for run, record in records.items():
        record.save(run)
    try:
        yield
    except BaseException:
        for run, old in before.items():
            if old:
                old.save(run)
            else:
                run.job.unlink(missing_ok=True)
        raise
