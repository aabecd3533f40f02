"""All that `launcher status` tells of one run, gathered from its folder and from Slurm."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from command_line.printable import printable
from launcher.jobs import runs
from launcher.jobs.attempts import to_seconds
from launcher.jobs.runs import SlurmQueue
from launcher.status.attempts import RunAttempt, merge_attempts
from launcher.status.facts import RunState, StateFacts, gather_facts
from launcher.status.progress import Progress, read_progress
from launcher.status.states import judge_state
from launcher.status.wandb_link import WandbLink, wandb_link
from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.runs import journal
from trainer.runs.journal import EventKind
from trainer.runs.run_folder import RunFolder


@dataclass(frozen=True)
class RunStatus:
    """What a run does."""

    run: RunFolder
    state: RunState
    reason: str
    job: int | None
    """Slurm's number; None: it is trained on one machine."""
    nodes: tuple[str, ...]
    nodes_asked: str | None
    expected_start: float | None
    """When Slurm expects to start it, in seconds since 1970."""
    attempts: tuple[RunAttempt, ...]
    progress: Progress
    wandb: WandbLink

    @property
    def next(self) -> str | None:
        """The command that goes on, where that is its user's to do."""
        return f"{command('launcher', 'resume', self.run.path)}" if self.state.resumable else None

    @property
    def causes(self) -> list[str]:
        """Why each attempt but the one that goes on has ended; the end of the run itself is its state."""
        ended = self.attempts if self.state.live else self.attempts[:-1]
        return [attempt.cause for attempt in ended if attempt.cause]

    @property
    def images_per_s(self) -> float | None:
        """The speed of now; None: nothing trains, or has logged a step yet."""
        return self.progress.images_per_s if self.state.under_way else None

    @property
    def at_risk(self) -> int:
        """The images that a kill now would lose; what the last end has cost is lost already."""
        return self.progress.at_risk if self.state.under_way else 0

    @property
    def eta_s(self) -> float | None:
        """How much longer it takes."""
        return self.progress.eta_s if self.state is RunState.TRAINING else None

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain values; see docs/cluster.md for what they mean."""
        now, link = self.progress, self.wandb
        return {
            "run": str(self.run.path),
            "state": str(self.state),
            "live": self.state.live,
            "reason": self.reason,
            "next": self.next,
            "job": self.job,
            "nodes": list(self.nodes),
            "nodes_asked": self.nodes_asked,
            "expected_start": format_time(self.expected_start),
            "restarts": len(self.causes),
            "causes": self.causes,
            # The key that programs know, though the code says attempts.
            "starts": [asdict(attempt) for attempt in self.attempts],
            "images_seen": now.images_seen,
            "total_images": now.total_images,
            "images_per_s": self.images_per_s,
            "images_per_s_average": now.images_per_s_average and round(now.images_per_s_average, 2),
            "eta_s": self.eta_s and round(self.eta_s, 1),
            # JSON has no NaN, and a run that diverged is one whose status is asked for.
            "metrics": {k: journal.number_or_name(v) if isinstance(v, float) else v for k, v in now.metrics.items()},
            "logged": format_time(now.logged),
            "checkpoint_images": now.checkpoint_images,
            "checkpoint_time": format_time(now.checkpoint_time),
            "images_at_risk": self.at_risk,
            "wandb": asdict(link) | {"url": link.url},
        }


def gather_status(run: RunFolder, queue: SlurmQueue) -> RunStatus:
    """Look at a run; of one that a newer version has written, nothing is known but that."""
    try:
        return gather_readable_status(run, queue)
    except Refused as error:
        nothing = Progress(0, None, None, None, {}, None, None, None)
        unknown = WandbLink("unsent", "", None, None, None)
        return RunStatus(run, RunState.UNKNOWN, str(error), None, (), None, None, (), nothing, unknown)


def gather_readable_status(run: RunFolder, queue: SlurmQueue) -> RunStatus:
    """Look at a run.

    Raises:
        Refused: a newer version has written it.
    """
    facts = gather_facts(run, queue)
    state, reason = judge_state(facts)
    record, job = (None if facts.local else facts.record), facts.job
    starting = [row for row in facts.events if row["kind"] == EventKind.START]
    return RunStatus(
        run=run,
        state=state,
        reason=printable(reason),  # what another user's run folder says may hold what a terminal obeys
        job=record.job if record else None,
        nodes=nodes_in_use(facts),
        nodes_asked=record.nodes if record else None,
        # Of a job that runs, Slurm's StartTime is when it began.
        expected_start=job.start_time if job and runs.is_waiting(job) else None,
        attempts=merge_attempts(facts.attempts, facts.events),
        # Infinity: no row is new enough, so that a run which nobody trains has no speed.
        progress=read_progress(run, to_seconds(starting[-1]["time"]) if starting and state.under_way else float("inf")),
        wandb=wandb_link(run),
    )


def nodes_in_use(facts: StateFacts) -> tuple[str, ...]:
    """Return the nodes that it trains on now."""
    if facts.local:
        return (facts.holder.host,) if facts.holder and facts.trains else ()
    return facts.job.nodes if facts.job and runs.is_live(facts.job) else ()


def format_time(time_s: float | None) -> str | None:
    """Return a time as the journals write it."""
    return None if time_s is None else datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")
