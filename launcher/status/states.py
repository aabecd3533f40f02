"""What a run does now, and why: a function of the facts."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from launcher.jobs.attempts import Attempt, Cause, Decision, to_seconds
from launcher.jobs.exit_cause import was_preempted
from launcher.jobs.runs import is_live, is_waiting
from launcher.status.facts import RunState, StateFacts
from slurm.control import describe_reason
from slurm.records import SlurmJob
from trainer.runs.journal import EventKind, Row
from trainer.runs.lease_holder import Holder, boot_id

ENDS = {
    Cause.FINISHED: RunState.FINISHED,
    Cause.CANCELLED: RunState.CANCELLED,
    Cause.REFUSED: RunState.REFUSED,
    Cause.DIVERGED: RunState.FAILED,
    Cause.OUT_OF_MEMORY: RunState.FAILED,
}


def judge_state(facts: StateFacts) -> tuple[RunState, str]:
    """Say what a run does, and why."""
    if facts.local:
        return judge_processes(facts)
    return judge_live_job(facts, facts.job) if facts.job and is_live(facts.job) else judge_ended_job(facts)


def judge_processes(facts: StateFacts) -> tuple[RunState, str]:
    """Judge a run on one machine by its lease and its last event."""
    last = facts.last
    if facts.holder and facts.trains:
        where = "here" if facts.holder.boot == boot_id() else f"on {facts.holder.host}"
        where = f"{where}, process {facts.holder.pid}"
        # Its newest event is older than the process: that is of an attempt before.
        if last is None or to_seconds(last["time"]) < holder_start_time(facts.holder):
            return RunState.STARTING, where
        return (RunState.STOPPING if last["kind"] == EventKind.END else RunState.TRAINING), where
    if last is None:
        refusals = [row.get("problem", "") for row in facts.events if row["kind"] == EventKind.REFUSED]
        return (RunState.REFUSED, str(refusals[-1])) if refusals else (RunState.NEW, "")
    if last["kind"] == EventKind.START:
        if facts.copied_from:
            return RunState.INTERRUPTED, f"a copy of {facts.copied_from}, made while that one trained"
        if facts.holder:
            return RunState.LOST, f"no sign of life from {facts.holder} for {facts.silent_s:.0f} s"
        return RunState.FAILED, "its process is gone without a last word: killed, or the machine went down"
    if last.get("outcome") == "failed":
        return RunState.FAILED, last_problem(facts.events) or "see the end of its output"
    signal = f"asked by {last['signal']}" if last.get("signal") else ""
    return (RunState.FINISHED, "") if last.get("outcome") == "finished" else (RunState.INTERRUPTED, signal)


def holder_start_time(holder: Holder) -> float:
    """Return when a holder was started, in seconds since 1970; 0: on another machine, whose clocks are not known."""
    if holder.boot != boot_id():
        return 0.0
    # /proc counts the start of a process in ticks since the machine was started, sleep included.
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + holder.started / os.sysconf("SC_CLK_TCK")


def last_problem(events: Sequence[Row]) -> str:
    """Return what the last training said before it failed."""
    begins = max((i for i, row in enumerate(events) if row["kind"] == EventKind.START), default=0)
    problems = [row for row in events[begins:] if "problem" in row]
    if not problems:
        return ""
    # Rank 0, which has the last word, knows only that another one is gone.
    if memory := [row for row in problems if row["kind"] == EventKind.OUT_OF_MEMORY]:
        return str(memory[0]["problem"])
    kind, what = problems[-1]["kind"], problems[-1]["problem"]
    return str(what) if kind == "end" else f"{kind}: {what}"


def judge_live_job(facts: StateFacts, job: SlurmJob) -> tuple[RunState, str]:
    """Judge a run whose job waits or runs."""
    attempt = facts.attempt
    if is_waiting(job):
        queued = describe_reason(job.reason) if job.reason not in ("", "None") else "Slurm has not said why yet"
        if attempt is None:
            return RunState.QUEUED, queued
        last = attempt.cause or "its last attempt ended without a word: killed, or its node failed"
        return RunState.WAITING, f"after: {last}; {queued}"
    if attempt and attempt.ended and attempt.restart >= job.restarts and attempt.decision is not Decision.GO_ON:
        return judge_ended_job(facts)  # Slurm is a moment late
    if job.state == "SUSPENDED":
        return RunState.SUSPENDED, "by Slurm, until it lets the job go on"
    if job.state in ("COMPLETING", "SIGNALING") or (attempt and attempt.ended and attempt.restart >= job.restarts):
        return RunState.STOPPING, attempt.cause or "" if attempt else ""
    # Slurm has begun an attempt that the batch script has not written down yet.
    if attempt is None or attempt.ended or attempt.restart < job.restarts:
        return RunState.STARTING, "its nodes are being prepared" if job.state == "CONFIGURING" else ""
    if facts.record and facts.record.cancelled:
        return RunState.STOPPING, "cancelled"
    if was_preempted(job, attempt):
        return RunState.STOPPING, "preempted"
    since = [row for row in facts.events if row["time"] >= attempt.began]
    if any(row["kind"] == EventKind.END for row in since):
        return RunState.STOPPING, ""
    return (RunState.TRAINING if any(row["kind"] == EventKind.START for row in since) else RunState.STARTING), ""


def judge_ended_job(facts: StateFacts) -> tuple[RunState, str]:
    """Judge a run whose job is over, or cannot be asked for."""
    record, attempt, job = facts.record, facts.attempt, facts.job
    number = record.job if record else 0
    if attempt and attempt.ended:
        if attempt.cause in ENDS:
            return ENDS[attempt.cause], attempt.detail
        if attempt.decision is Decision.STOP:
            return RunState.NO_PROGRESS, describe_end(attempt)
        if attempt.decision is Decision.REFUSED:
            return RunState.NO_REQUEUE, f"after: {describe_end(attempt)}"
    # The mark alone is not enough: while Slurm does not answer, the job that was to end may still train.
    if (job and job.state.startswith("CANCELLED")) or (record and record.cancelled and not facts.problem):
        return RunState.CANCELLED, "" if attempt else "before it began"
    if facts.problem:
        if facts.trains and attempt and not attempt.ended:
            return RunState.TRAINING, f"its last sign of life: {facts.silent_s:.0f} s ago; {facts.problem}"
        known = f"; its last attempt has ended: {describe_end(attempt)}" if attempt and attempt.ended else ""
        return (
            RunState.UNKNOWN,
            f"{facts.problem}{known}{'; marked as cancelled' if record and record.cancelled else ''}",
        )
    if attempt and attempt.ended:
        return (
            RunState.LOST,
            f"after: {describe_end(attempt)}; job {number} should start again, but Slurm {what_slurm_knows(job)}",
        )
    if attempt:
        return RunState.LOST, f"job {number} has begun, but has left no last word; Slurm {what_slurm_knows(job)}"
    if job:
        return RunState.FAILED, f"job {number} has ended before anything could train: Slurm {what_slurm_knows(job)}"
    return RunState.LOST, f"job {number} has never begun, and Slurm {what_slurm_knows(job)}"


def describe_end(attempt: Attempt) -> str:
    """Return the cause and the detail of an end."""
    return f"{attempt.cause} ({attempt.detail})" if attempt.detail else str(attempt.cause)


def what_slurm_knows(job: SlurmJob | None) -> str:
    """Say what Slurm knows of a job that is over."""
    if job is None:
        return "no longer knows it"
    why = f": {describe_reason(job.reason)}" if job.reason and job.reason != "None" else ""
    ended = f" at {time.strftime('%Y-%m-%d %H:%M', time.localtime(job.end_time))}" if job.end_time else ""
    return f"calls it {job.state}{why}{ended}"
