"""A preparation, put into Slurm's queue: an array that makes the shares, and behind it a job that finishes."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from launcher.jobs import batch_script, code_snapshot, job_record
from launcher.jobs.batch_script import Request, RunExecutor
from launcher.jobs.job_record import JobRecord
from launcher.jobs.preparation import fit_job
from launcher.jobs.submission import record_submission
from launcher.prepare.arguments import ArrayRequest
from launcher.prepare.folder import Preparation, PrepareFolder
from slurm import control
from slurm.records import Partition
from trainer.core.fields import Refused
from trainer.runs.journal import now
from trainer.runs.run_folder import RunFolder


@dataclass(frozen=True)
class ShareJob:
    """What the job of each share asks for, and where it goes."""

    request: Request
    partition: Partition


def fit_share_job(folder: PrepareFolder, resources: ArrayRequest) -> ShareJob:
    """Derive what each job asks Slurm for: one node with all its cores, for one process, which starts its workers.

    Raises:
        Refused: the cluster cannot give it; the folder will not do.
    """
    job = fit_job(RunFolder(folder.path), resources.of_share(), folder.path.resolve().name, 1)
    request = replace(job.request, cpus_per_task=max(1, job.partition.cores_per_node))
    return ShareJob(request, job.partition)


def submit_shares(folder: PrepareFolder, preparation: Preparation, job: ShareJob) -> tuple[int | None, int]:
    """Queue the shares and what finishes them; return the numbers of the array, if there are shares, and of that job.

    Raises:
        Refused: a folder cannot be written, or Slurm does not take one of them; then none is queued.
    """
    request = replace(job.request, token=uuid4().hex[:12])
    submission = preparation.submission
    record = JobRecord(0, submission, "1", 1, request.profile.warn_s, now(), job.partition.name, request.token)
    with record_preparation(folder, preparation):
        code = code_snapshot.copy_code(folder.code(submission))
        array = None
        if preparation.shares:
            runs = folder.shares_of(preparation)
            shares = {run: replace(record, task=number) for number, run in enumerate(runs)}
            array = submit_recorded(share_executor(folder, preparation, request, code), shares)
        try:
            finish = finish_executor(folder, preparation, request, code, array)
            return array, submit_recorded(finish, {folder.finish(submission): record})
        except BaseException:
            if array is not None:
                control.cancel_job(array)
            raise


@contextmanager
def record_preparation(folder: PrepareFolder, preparation: Preparation) -> Iterator[None]:
    """Write what is being submitted, before a job can ask for it; if it is not submitted, all is as it was before.

    Raises:
        Refused: it cannot be written.
    """
    before = folder.newest if folder.record.exists() else None
    runs = [*folder.shares_of(preparation), folder.finish(preparation.submission)]
    try:
        for run in runs:
            (run.logs / "slurm").mkdir(parents=True)
        folder.save(preparation)
        yield
    except BaseException as error:
        for run in runs:
            shutil.rmtree(run.path, ignore_errors=True)
        if before:
            folder.save(before)
        else:
            folder.record.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise Refused(f"{folder.path} cannot be written: {error.strerror}") from None
        raise


def submit_recorded(executor: RunExecutor, records: Mapping[RunFolder, JobRecord]) -> int:
    """Queue a job or an array, with a record in each folder, and return its number.

    Raises:
        Refused: Slurm does not take it.
    """
    with record_submission(records):
        number = executor.submit_run()
        for run, record in records.items():
            if job_record.find_record(run) == record:  # else it has begun already, and knows its own number
                replace(record, job=number).save(run)
    return number


def share_executor(folder: PrepareFolder, preparation: Preparation, request: Request, code: Path) -> RunExecutor:
    """Return what submits the array, with the script that it will be."""
    shares = folder.share(preparation.submission, 0).path.resolve().with_name(f"{preparation.submission:04d}-")
    # The number of a task as its folder has it.
    line = f'JOB={shlex.quote(str(shares))}$(printf %04d "$SLURM_ARRAY_TASK_ID")'
    made = executor_of(folder, line, "share", request, code)
    parameters = made.parameters["additional_parameters"] | {"array": f"0-{len(preparation.shares) - 1}"}
    made.update_parameters(additional_parameters=parameters)
    return made


def finish_executor(
    folder: PrepareFolder, preparation: Preparation, request: Request, code: Path, array: int | None
) -> RunExecutor:
    """Return what submits the job that finishes, once all tasks of the array have ended well."""
    line = f"JOB={shlex.quote(str(folder.finish(preparation.submission).path.resolve()))}"
    # One core: it renames or uploads what is there.
    request = replace(request, name=f"{request.name}-finish", cpus_per_task=1)
    made = executor_of(folder, line, "finish", request, code)
    if array is not None:
        # Else it would wait for ever behind a share that has failed.
        parameters = made.parameters["additional_parameters"] | {"kill_on_invalid_dep": "yes"}
        made.update_parameters(dependency=f"afterok:{array}", additional_parameters=parameters)
    return made


def executor_of(folder: PrepareFolder, line: str, task: str, request: Request, code: Path) -> RunExecutor:
    """Return what submits a job of one process.

    Args:
        folder: of the preparation.
        line: of shell, that sets JOB to the folder of the job.
        task: "share" or "finish".
        request: what it asks for.
        code: that it runs.
    """
    logs = folder.batch_logs.resolve()
    lines = [
        *batch_script.environment_lines(code.resolve(), request.profile),
        line,
        # What the batch script says is looked for in the folder of the job.
        f'ln -sfn {shlex.quote(str(logs))}/"${{SLURM_JOB_ID}}_0_log.out" "$JOB/logs/slurm/"',
        *batch_script.guard_lines('"$JOB"', begin="begin-alone"),
    ]
    module = ["launcher.prepare.rank", str(folder.path.resolve()), task]
    return batch_script.executor_of(logs, module, lines, request)
