"""Which runs there are, and what Slurm says of their jobs; what cannot be read or asked is never an error here."""

from __future__ import annotations

from pathlib import Path

from launcher.jobs import attempts, job_record
from launcher.jobs.attempts import Attempt
from launcher.jobs.job_record import JobRecord
from shards.dataset.files import INDEX
from slurm import control
from slurm.records import SlurmJob
from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.runs import journal
from trainer.runs.bundle_files import is_bundle
from trainer.runs.journal import Row
from trainer.runs.run_folder import RunFolder

HOME = Path("runs")
# A state that stands in neither list counts as live: the worst of that is a refusal, not a second job in the folder.
OVER = (
    *("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE"),
    *("OUT_OF_MEMORY", "REVOKED"),
)
WAITING = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")


class SlurmQueue:
    """Slurm, asked about jobs. Once it has not answered, `problem` says why, and it is not asked again."""

    def __init__(self) -> None:
        self.problem: str | None = None
        self.absent = False
        try:
            self.absent = control.find_cluster() is None
        except control.SlurmError as error:
            self.problem = f"Slurm cannot be used: {error}"
        if self.absent:
            self.problem = "there is no Slurm here"

    def find_job(self, record_of: JobRecord) -> SlurmJob | None:
        """Return a run's job; None: Slurm no longer knows it, or did not answer."""
        # Not asked again: with many runs, each question would wait for its time-out.
        if self.problem:
            return None
        try:
            return job_of(record_of)
        except control.SlurmError as error:
            self.problem = f"Slurm does not answer: {error}"
            return None


def job_of(record_of: JobRecord) -> SlurmJob | None:
    """Return the job that was submitted for a run; None: there is none. Another one may have its number by now.

    Raises:
        SlurmError: Slurm does not answer.
    """
    found = control.show_job(record_of.name) if record_of.job else None
    # sacct keeps a comment only where the site has it so, and earlier versions wrote none: then the number must do.
    mine = (
        found is None
        or not (found.comment and record_of.token)
        or found.comment == job_record.job_comment(record_of.token)
    )
    return found if mine else None


def is_live(job: SlurmJob | None) -> bool:
    """Tell whether a job waits, runs or is just ending."""
    # sacct appends "by UID" to CANCELLED, and a plus to what it has cut.
    return job is not None and job.state.split(" ")[0].rstrip("+") not in OVER


def is_waiting(job: SlurmJob) -> bool:
    """Tell whether a job is in the queue and has no nodes."""
    return job.state in WAITING


def existing_run(path: Path) -> RunFolder:
    """Return the run in a folder.

    Raises:
        Refused: there is none.
    """
    run = RunFolder(path)
    if not run.config.exists():
        if (path / INDEX).exists():
            look = command("shards", "inspect", path)
            raise Refused(f"{path} holds no run, but a dataset; look at it with: {look}")
        elsewhere = HOME / path
        hint = f"; did you mean {elsewhere}?" if RunFolder(elsewhere).config.exists() else ""
        raise Refused(f"{path} holds no run: there is no {run.config.name} in it{hint}")
    return run


def find_runs(home: Path = HOME) -> list[RunFolder]:
    """Return the runs in a folder, the one that was begun or taken up last first."""
    found = []
    for path in home.iterdir() if home.is_dir() else ():
        try:
            if not is_bundle(path):
                found.append(((path / "config.json").stat().st_mtime, path))
        except OSError:
            continue  # no run, or removed just now
    return [RunFolder(path) for _, path in sorted(found, reverse=True)]


def rows_of(path: Path) -> list[Row]:
    """Return the whole rows of a journal; none where there is no file, or none that may be read."""
    try:
        return list(journal.read_rows(path))
    except OSError:
        return []


def attempts_of(run: RunFolder) -> list[Attempt]:
    """Return the attempts of a run's job."""
    try:
        return attempts.read_attempts(run)
    except (OSError, ValueError, TypeError, KeyError):
        return []


def record_of(run: RunFolder) -> JobRecord | None:
    """Return what was submitted for a run."""
    try:
        return job_record.find_record(run)
    except (OSError, ValueError, TypeError):
        return None


def copied_from(run: RunFolder) -> str | None:
    """Return the run folder whose job this one's record names, if this one is a copy of it."""
    try:
        return job_record.copied_from(run)
    except (OSError, ValueError, TypeError):
        return None


def ended_for_good(run: RunFolder) -> bool:
    """Tell, without asking Slurm, whether the newest job of a run is known to be over."""
    submitted, known = record_of(run), attempts_of(run)
    if submitted is None or not known or known[-1].job != submitted.job:
        return False
    return known[-1].decision not in (None, attempts.Decision.GO_ON)
