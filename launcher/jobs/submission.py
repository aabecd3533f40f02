"""A prepared run, put into Slurm's queue."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

from launcher.jobs import code_snapshot, job_record
from launcher.jobs.batch_script import executor
from launcher.jobs.job_record import JobRecord
from launcher.jobs.preparation import PreparedJob, refuse_live_job
from trainer.config.config import Config
from trainer.launch.local_training import PreparedTraining
from trainer.runs.config_loading import check_identity, write_config
from trainer.runs.journal import now
from trainer.runs.lease import held
from trainer.runs.run_folder import RunFolder
from trainer.tracking.tracker import identity_of


def batch_script(run: RunFolder, job: PreparedJob) -> str:
    """Return the batch script, for a look at it before anything is done."""
    return executor(run, job.request, run.code.resolve() / "0001").text()


def submit_to_slurm(training: PreparedTraining, job: PreparedJob) -> int:
    """Queue a prepared run, and return its job's number.

    The run folder is held meanwhile, or two submissions at once would write over each other. What another one may have
    changed between our checks and the moment at which we hold the folder is checked again: whether the run has a job,
    and whether it is still the run that the settings are of.

    Raises:
        Refused: somebody trains in the folder or has submitted it; it cannot be written; Slurm does not take the job.
    """
    with held(training.run, "a submission"):
        refuse_live_job(training.run)
        check_identity(training.run, training.config)
        return queue_job(training.run, training.config, job)


def queue_job(run: RunFolder, config: Config, job: PreparedJob) -> int:
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
    record = JobRecord(0, submission, *asked, now(), job.partition.name, request.token)
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
