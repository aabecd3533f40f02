"""What is known of a run, from its folder and from Slurm, and the states that it can be in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from launcher.jobs import runs
from launcher.jobs.attempts import Attempt
from launcher.jobs.job_record import JobRecord
from launcher.jobs.runs import SlurmQueue, is_live
from launcher.status.attempts import on_one_machine
from slurm.records import SlurmJob
from trainer.runs import lease_holder
from trainer.runs.journal import EventKind, Row
from trainer.runs.lease_holder import Holder, boot_id
from trainer.runs.run_folder import RunFolder

SILENT_S = (
    60.0  # a holder elsewhere that has not touched its lease for so long is gone; STALE_S and clocks' differences
)


class RunState(StrEnum):
    """What a run does."""

    NEW = "not started"
    QUEUED = "queued"
    WAITING = "waiting to start again"
    STARTING = "starting"
    TRAINING = "training"
    SUSPENDED = "suspended"
    STOPPING = "stopping"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    NO_PROGRESS = "stopped: no progress"
    NO_REQUEUE = "requeue refused"
    FAILED = "failed"
    LOST = "lost"
    UNKNOWN = "unknown"

    @property
    def live(self) -> bool:
        """Tell whether it trains, or will without anybody's doing."""
        return self in ALIVE

    @property
    def under_way(self) -> bool:
        """Tell whether processes train now, so that there is a speed, and something that a kill would lose."""
        return self in (RunState.TRAINING, RunState.SUSPENDED, RunState.STOPPING)

    @property
    def resumable(self) -> bool:
        """Tell whether it waits for its user to resume it."""
        return not self.live and self not in (RunState.FINISHED, RunState.UNKNOWN)


ALIVE = (RunState.QUEUED, RunState.WAITING, RunState.STARTING, RunState.TRAINING, RunState.SUSPENDED, RunState.STOPPING)


@dataclass(frozen=True)
class StateFacts:
    """What is known of a run."""

    record: JobRecord | None
    attempts: Sequence[Attempt]
    events: Sequence[Row]
    holder: Holder | None
    """Who holds the lease, and is not known to be dead."""
    silent_s: float
    """How long the holder has not touched it."""
    job: SlurmJob | None
    problem: str | None
    """Why Slurm was not asked, or did not answer."""
    copied_from: str | None = None
    """The run folder that this one is a copy of, if what leads to processes or jobs leads to that one's."""

    @property
    def last(self) -> Row | None:
        """The newest attempt or end of a training."""
        return next((row for row in reversed(self.events) if row["kind"] in (EventKind.START, EventKind.END)), None)

    @property
    def trains(self) -> bool:
        """Whether somebody holds the lease and shows signs of life."""
        # On this machine a dead process is known to be dead, so silence says nothing: it may be suspended.
        return self.holder is not None and (self.holder.boot == boot_id() or self.silent_s < SILENT_S)

    @property
    def attempt(self) -> Attempt | None:
        """The newest attempt of the newest job."""
        mine = [attempt for attempt in self.attempts if self.record and attempt.job == self.record.job]
        return mine[-1] if mine else None

    @property
    def local(self) -> bool:
        """Whether the run was last trained on one machine, outside any job."""
        if self.record is None:
            return True
        if self.holder and self.trains:
            return not self.holder.owner.is_slurm_job
        start = next((row for row in reversed(self.events) if row["kind"] == EventKind.START), None)
        if is_live(self.job) or start is None or not on_one_machine(start, self.attempts):
            return False
        later = [self.record.submitted, *(attempt.began for attempt in self.attempts[-1:])]
        return bool(start["time"] > max(later))  # else a job came after it, and has trained nothing yet


def gather_facts(run: RunFolder, queue: SlurmQueue) -> StateFacts:
    """Gather what is known of a run. Slurm is asked only where the folder does not tell that the job is over."""
    record = runs.record_of(run)
    ask = record is not None and record.job and not runs.ended_for_good(run)
    job = queue.find_job(record) if ask and record else None
    try:
        held = lease_holder.read_lease(run.lease)
    except OSError:
        held = None
    copied = held is not None and held[0].of_copy(run)
    # A negative attempt is no training yet: the launcher holds the folder for the processes that it starts.
    holder = held[0] if held and held[0].attempt >= 0 and not held[0].dead() and not copied else None
    silent_s = max(0.0, time.time() - held[1] / 1e9) if held else 0.0
    events = [row for row in runs.rows_of(run.events) if {"kind", "time"} <= row.keys()]
    origin = held[0].folder if held and copied else runs.copied_from(run)
    return StateFacts(
        record, runs.attempts_of(run), events, holder, silent_s, job, queue.problem if ask else None, origin
    )
