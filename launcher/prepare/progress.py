"""What a preparation does: the states of its jobs, from their folders and from Slurm, and what follows for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from launcher.jobs import runs
from launcher.jobs.runs import SlurmQueue
from launcher.jobs.share_progress import ShareProgress
from launcher.prepare.folder import PlannedShare, Preparation, PrepareFolder
from launcher.status.attempts import RunAttempt, merge_attempts
from launcher.status.facts import RunState, StateFacts, gather_facts
from launcher.status.run_status import nodes_in_use
from launcher.status.states import judge_state, last_problem
from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.runs.run_folder import RunFolder

PREPARING = "preparing"


@dataclass(frozen=True)
class JobStatus:
    """What one job of a preparation does."""

    name: str
    """share 3, or finish."""
    planned: PlannedShare | None
    """None: it finishes."""
    state: RunState
    reason: str
    job: int | None
    nodes: tuple[str, ...]
    attempts: tuple[RunAttempt, ...]
    progress: ShareProgress

    @property
    def words(self) -> str:
        """The state: nothing is trained here."""
        return PREPARING if self.state is RunState.TRAINING else str(self.state)

    @property
    def per_s(self) -> float | None:
        """The speed of now."""
        return self.progress.per_s if self.state is RunState.TRAINING else None

    @property
    def restarts(self) -> list[str]:
        """Why each attempt but the one that goes on has ended."""
        ended = self.attempts if self.state.live else self.attempts[:-1]
        return [attempt.cause for attempt in ended if attempt.cause]

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {
            "name": self.name,
            "state": self.words,
            "reason": self.reason,
            "job": self.job,
            "nodes": list(self.nodes),
            "done": self.progress.done,
            "total": self.planned.size if self.planned else None,
            "restarts": len(self.restarts),
            "causes": self.restarts,
            "starts": [asdict(attempt) for attempt in self.attempts],
        }


@dataclass(frozen=True)
class PrepareStatus:
    """What a preparation does."""

    folder: PrepareFolder
    preparation: Preparation
    shares: Sequence[JobStatus]
    finish: JobStatus
    state: RunState
    reason: str

    @property
    def words(self) -> str:
        """The state."""
        return PREPARING if self.state is RunState.TRAINING else str(self.state)

    @property
    def jobs(self) -> list[JobStatus]:
        """All jobs."""
        return [*self.shares, self.finish]

    @property
    def nodes(self) -> tuple[str, ...]:
        """Where something is done now."""
        return tuple(dict.fromkeys(node for job in self.jobs for node in job.nodes))

    @property
    def done(self) -> int:
        """Pictures or tars that are done, durably."""
        if self.state is RunState.FINISHED:
            return self.preparation.total
        return self.preparation.done_before + sum(share.progress.done for share in self.shares)

    @property
    def per_s(self) -> float | None:
        """The speed of now, of all shares together."""
        return sum(share.per_s or 0.0 for share in self.shares) or None

    @property
    def eta_s(self) -> float | None:
        """How much longer the shares take."""
        return (self.preparation.total - self.done) / self.per_s if self.per_s else None

    @property
    def next(self) -> str | None:
        """The command that goes on, where that is its user's to do."""
        return command("launcher", "resume", self.folder.path) if self.state.resumable else None

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain values; see docs/cluster.md for what they mean."""
        return {
            "run": str(self.folder.path),
            "prepares": self.preparation.kind,
            "out": self.preparation.out,
            "state": self.words,
            "live": self.state.live,
            "reason": self.reason,
            "next": self.next,
            "nodes": list(self.nodes),
            "unit": self.preparation.unit,
            "done": self.done,
            "total": self.preparation.total,
            "per_s": self.per_s,
            "eta_s": self.eta_s and round(self.eta_s, 1),
            "jobs": [job.to_json() for job in self.jobs],
        }


def gather_preparation(folder: PrepareFolder, queue: SlurmQueue) -> PrepareStatus:
    """Look at a preparation.

    Raises:
        Refused: it cannot be read.
    """
    preparation = folder.newest
    shares = [
        gather_job(f"share {number}", run, queue, planned)
        for number, (run, planned) in enumerate(zip(folder.shares_of(preparation), preparation.shares, strict=True))
    ]
    finish = gather_job("finish", folder.finish(preparation.submission), queue, None)
    if preparation.finished_here:
        return PrepareStatus(folder, preparation, shares, finish, RunState.FINISHED, "on one machine")
    return PrepareStatus(folder, preparation, shares, finish, *judge_preparation(shares, finish))


def gather_job(name: str, run: RunFolder, queue: SlurmQueue, planned: PlannedShare | None) -> JobStatus:
    """Look at one job; of one that a newer version has written, nothing is known but that."""
    try:
        facts = gather_facts(run, queue)
        state, reason = judge_state(facts)
    except Refused as error:
        return JobStatus(name, planned, RunState.UNKNOWN, str(error), None, (), (), ShareProgress())
    if not state.live and state is not RunState.CANCELLED and (problem := said_last(facts)) and problem not in reason:
        reason = f"{reason}: {problem}".lstrip(": ")
    return JobStatus(
        name=name,
        planned=planned,
        state=state,
        reason=reason,
        job=facts.record.job if facts.record else None,
        nodes=nodes_in_use(facts),
        attempts=merge_attempts(facts.attempts, facts.events),
        progress=ShareProgress.of(run),
    )


def said_last(facts: StateFacts) -> str:
    """Return what the process itself said was wrong, in its last attempt, if anything."""
    return last_problem(facts.events).removeprefix("refused: ")


def judge_preparation(shares: Sequence[JobStatus], finish: JobStatus) -> tuple[RunState, str]:
    """Say what a preparation does, and why: a function of what its jobs do."""
    if finish.state is RunState.FINISHED:
        return finish.state, ""
    ended_badly = [job for job in shares if not job.state.live and job.state is not RunState.FINISHED]
    live = [job for job in shares if job.state.live]
    troubles = "; ".join(describe(job) for job in ended_badly)
    if live:
        order = (RunState.TRAINING, RunState.STARTING, RunState.STOPPING, RunState.SUSPENDED, RunState.WAITING)
        first = min(live, key=lambda job: order.index(job.state) if job.state in order else len(order))
        return first.state, "; ".join(filter(None, [troubles, first.reason]))
    if ended_badly:
        cancelled = all(job.state is RunState.CANCELLED for job in ended_badly)
        return (RunState.CANCELLED, "") if cancelled else (ended_badly[0].state, troubles)
    # All shares are made, and only this job is left.
    return finish.state, describe(finish)


def describe(job: JobStatus) -> str:
    """Say what a job does."""
    return f"{job.name}: {job.words}{f', {job.reason}' if job.reason else ''}"


def is_over(status: PrepareStatus) -> bool:
    """Tell whether nothing will happen any more without its user."""
    return not status.state.live and status.state is not RunState.UNKNOWN


def live_jobs(folder: PrepareFolder) -> list[RunFolder]:
    """Return the jobs of which Slurm says that they wait or run.

    Raises:
        SlurmError: it does not answer.
    """
    found = []
    for run in folder.jobs.values():
        record = runs.record_of(run)
        if record and not runs.ended_for_good(run) and runs.is_live(runs.job_of(record)):
            found.append(run)
    return found
