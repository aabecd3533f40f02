"""The attempts of a run's job on a cluster: what each began with, how it ended and why, and whether it goes on.

`attempts.jsonl` has two rows for each attempt: one when it begins, one when its end is known. The job's batch script
writes both; the second one is missing when the batch script itself was killed, and then the next attempt writes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from launcher.jobs.share_progress import ShareProgress
from trainer.core.migration import with_schema
from trainer.runs import journal
from trainer.runs.journal import Journal, now
from trainer.runs.run_folder import RunFolder

NO_PROGRESS = 3  # so many attempts in a row that brought nothing, by their own fault, end the run
NODE_FAILURES = 2  # a node that failed so often is left out


class Cause(StrEnum):
    """Why an attempt of the job ended."""

    FINISHED = "finished"
    CANCELLED = "cancelled"
    REFUSED = "refused: bad input"
    PREEMPTED = "preempted"
    TIME_LIMIT = "time limit"
    NODE_FAILED = "node failed"
    REQUEUED = "requeued by an administrator"
    SIGNALLED = "asked to stop by a signal"
    NODES_EXCLUDED = "started again without nodes that failed"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out of memory"
    STALLED = "stalled"
    CRASHED = "crashed"


# The cluster is not to blame for these, so they would come again and again.
OWN_FAULTS = (Cause.TIME_LIMIT, Cause.STALLED, Cause.CRASHED)
# After these the job is not started again: the run is complete, or only its user can help.
FINAL = (Cause.FINISHED, Cause.CANCELLED, Cause.REFUSED, Cause.DIVERGED, Cause.OUT_OF_MEMORY)


class Decision(StrEnum):
    """What follows the end of an attempt."""

    END = "end"
    """The run is over, or waits for its user."""
    GO_ON = "go on"
    """The job is started again."""
    STOP = "stop"
    """It would be started again, but brings nothing."""
    REFUSED = "requeue refused"
    """It should be started again, and Slurm refused."""


@dataclass(frozen=True)
class Attempt:
    """One start of the job."""

    job: int
    restart: int
    began: str
    nodes: tuple[str, ...]
    images_seen: int
    """Of the last durable checkpoint when it began."""
    ended: str | None = None
    cause: Cause | None = None
    detail: str = ""
    """What is known besides the cause: the ranks, the exit code."""
    saved: int = 0
    """Images seen at the last durable checkpoint when it ended."""
    failed_nodes: tuple[str, ...] = field(default=())
    decision: Decision | None = None

    @property
    def key(self) -> tuple[int, int]:
        """Name this attempt."""
        # A requeued job keeps its number: only the count of restarts tells its attempts apart.
        return self.job, self.restart


def read_attempts(run: RunFolder) -> list[Attempt]:
    """Return the attempts so far, in order; the last row of each wins."""
    found: dict[tuple[int, int], Attempt] = {}
    for row in journal.read_rows(run.attempts):
        row = row | {"nodes": tuple(row["nodes"]), "failed_nodes": tuple(row["failed_nodes"])}
        row |= {
            "cause": Cause(row["cause"]) if row["cause"] else None,
            "decision": Decision(row["decision"]) if row["decision"] else None,
        }
        attempt = Attempt(**row)
        # Rows are only ever appended, so that a kill can tear the last one at most; a later row has the last word.
        found[attempt.key] = attempt
    return list(found.values())


def write_attempt(run: RunFolder, attempt: Attempt) -> None:
    """Record what is known of an attempt, durably."""
    journal = Journal(run.attempts)
    journal.append(with_schema(asdict(attempt)))
    # On the disk before Slurm is asked to requeue, which ends this process.
    journal.sync()
    journal.close()


def durable_images(run: RunFolder) -> int:
    """Return the images seen at the newest durable checkpoint, or of a share of a dataset, what is done; 0: nothing."""
    newest = run.newest_checkpoint()
    return newest[0] if newest else ShareProgress.of(run).done


def no_progress_count(attempts: Sequence[Attempt]) -> int:
    """Count the job's last attempts in a row that ended by their own fault and brought no new durable checkpoint."""
    count = 0
    for attempt in reversed(attempts):
        another_job = attempt.job != attempts[-1].job  # whoever resumes a run that was stopped wants to try again
        if another_job or attempt.cause not in OWN_FAULTS or attempt.saved > attempt.images_seen:
            break
        count += 1
    return count


def decide_what_follows(attempts: Sequence[Attempt]) -> Decision:
    """Say what follows the end of the last attempt."""
    if attempts[-1].cause in FINAL:
        return Decision.END
    return Decision.STOP if no_progress_count(attempts) >= NO_PROGRESS else Decision.GO_ON


def bad_nodes(attempts: Sequence[Attempt]) -> list[str]:
    """Return the nodes that failed NODE_FAILURES times under the newest job.

    Where half of a job's nodes or more go at once, it is the cluster that fails, and none of them is to blame.
    """
    # Slurm keeps the list of excluded nodes with the job, so each job begins with none.
    mine = [attempt for attempt in attempts if attempt.job == attempts[-1].job]
    # 3: in a job of one or two nodes, a single one that fails is half of them or more, and still to blame.
    blamed = [attempt for attempt in mine if 2 * len(attempt.failed_nodes) < max(len(attempt.nodes), 3)]
    counts = Counter(node for attempt in blamed for node in attempt.failed_nodes)
    return sorted(node for node, count in counts.items() if count >= NODE_FAILURES)


def to_seconds(moment: str) -> float:
    """Return a journal's time as seconds since 1970, which is how Slurm's are given."""
    return datetime.fromisoformat(moment).timestamp()


def close_attempt(attempt: Attempt, cause: Cause, detail: str, saved: int, failed_nodes: Sequence[str] = ()) -> Attempt:
    """Return an attempt whose end is known."""
    return replace(attempt, ended=now(), cause=cause, detail=detail, saved=saved, failed_nodes=tuple(failed_nodes))
