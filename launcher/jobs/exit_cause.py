"""Why an attempt of the job has ended, from what the ranks, srun and Slurm have left behind."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from launcher.jobs.attempts import Attempt, Cause, close_attempt, durable_images, to_seconds
from launcher.jobs.evaluation_target import EvaluationTarget
from launcher.jobs.job_record import find_record
from slurm import control
from slurm.records import Node, SlurmJob
from trainer.runs import journal
from trainer.runs.journal import EventKind
from trainer.runs.run_folder import RunFolder

TIME_LIMIT_SLACK_S = 75.0  # Slurm may give its warning so much earlier than asked
ANSWER_S = 3.0  # a live node answers at once; this is what a dead one costs
MARK = "lienzo: a start of the job begins"  # in the log of the batch script
VERDICT = re.compile(r"JOB \d+ ON \S+ CANCELLED AT \S+ DUE TO ([A-Z ]+?) \*")
COMPLAINT = re.compile(r"srun: error: (.+)")
DEATH = re.compile(r"srun: error: (\S+): tasks? ([\d,-]+): (.+)")


def explain_end(run: RunFolder, attempt: Attempt, code: int, now: SlurmJob | None) -> Attempt:
    """Close an attempt whose ranks have ended with `code`, the greatest of theirs."""
    # The file holds the whole run: the words of an earlier attempt would explain the wrong end.
    events = [row for row in journal.read_rows(run.events) if row["time"] >= attempt.began]
    cause, detail, nodes = find_cause(run, attempt, code, now, events)
    return close_attempt(attempt, cause, detail, durable_images(run), nodes)


def find_cause(
    run: RunFolder, attempt: Attempt, code: int, now: SlurmJob | None, events: list[dict[str, Any]]
) -> tuple[Cause, str, list[str]]:
    """Return the cause, what else is known, and the nodes to blame."""
    ends = [row for row in events if row["kind"] == EventKind.END]
    outcome, received = (ends[-1]["outcome"], ends[-1]["signal"]) if ends else (None, None)
    target = EvaluationTarget.of(run)
    if outcome == "finished" and not (target and target.due(run)):  # said when all was durable, whatever came then
        return Cause.FINISHED, "", []
    # `launcher cancel` notes it before it asks Slurm, so the order of the two does not matter here.
    record = find_record(run)
    if record and record.cancelled:
        return Cause.CANCELLED, "", []
    saved = "saved" if outcome == "interrupted" else "the grace time was too short for a save"
    if now and now.restarts > attempt.restart:  # Slurm is starting it again already
        return find_cause_of_requeue(run, attempt, now, saved)
    if now and now.state != "RUNNING":  # Slurm is ending it, and would even so start it again if it were asked to
        late = now.reason == "TimeLimit" or read_slurm_verdict(run, attempt.job) == "TIME LIMIT"
        return (Cause.TIME_LIMIT, saved, []) if late else (Cause.CANCELLED, "with scancel", [])
    # Asked before anything that would start again: the same settings diverge again, and need as much memory.
    if ends and ends[-1].get("diverged"):
        return Cause.DIVERGED, ends[-1]["problem"], []
    # Of whichever rank: for rank 0 that one is only gone, and srun calls it a crash.
    if memory := [row["problem"] for row in events if row["kind"] == EventKind.OUT_OF_MEMORY]:
        return Cause.OUT_OF_MEMORY, memory[0], []
    refusals = [row["problem"] for row in events if row["kind"] == EventKind.REFUSED]
    if code == 2 or refusals:  # srun may have killed the slower ranks before they could say so, too
        unsaid = "its evaluation: see its log" if outcome == "finished" else "see its log"
        return Cause.REFUSED, refusals[0] if refusals else unsaid, []
    # The job still runs: Slurm has warned it, and waits for the grace time to pass.
    if now and was_preempted(now, attempt):
        return Cause.PREEMPTED, saved, []
    warn_s = record.warn_s if record else 0
    if now and now.end_time and time.time() >= now.end_time - warn_s - TIME_LIMIT_SLACK_S:
        return Cause.TIME_LIMIT, saved, []
    if code == 0 and outcome == "interrupted":
        return Cause.SIGNALLED, str(received), []
    return find_cause_of_failure(run, attempt, code, events)


def find_cause_of_failure(
    run: RunFolder, attempt: Attempt, code: int, events: list[dict[str, Any]]
) -> tuple[Cause, str, list[str]]:
    """Return the cause of an end that nobody wanted."""
    # A dead node first: it makes the ranks elsewhere stall and crash, and they would be blamed for it.
    if silent := not_answering(attempt.nodes):
        return Cause.NODE_FAILED, f"{', '.join(silent)} does not answer", silent
    if stalls := [row for row in events if row["kind"] == EventKind.STALLED]:
        return Cause.STALLED, stalls[0]["problem"], stalls[0]["places"]
    node, detail = first_death(run, attempt.job)
    return Cause.CRASHED, detail or describe_exit_code(code), [node] if node else []


def find_cause_of_requeue(run: RunFolder, attempt: Attempt, now: SlurmJob, saved: str) -> tuple[Cause, str, list[str]]:
    """Return why Slurm starts a job again of its own accord, or at an administrator's word."""
    if was_preempted(now, attempt) or read_slurm_verdict(run, attempt.job) == "PREEMPTION":
        return Cause.PREEMPTED, saved, []
    if failed := failed_since(attempt):
        return Cause.NODE_FAILED, ", ".join(failed), failed
    return Cause.REQUEUED, saved if saved == "saved" else "", []


def explain_silence(run: RunFolder, silent: Attempt) -> Attempt:
    """Close an attempt whose batch script could not say how it ended: Slurm has killed it, or its node is gone."""
    now = control.show_job(silent.job)
    if now is None:
        return close_attempt(silent, Cause.CRASHED, "Slurm does not know the job any more", durable_images(run))
    if now.state in ("CANCELLED", "TIMEOUT", "OUT_OF_MEMORY"):  # another job's, which nobody has started again
        cause = {"CANCELLED": Cause.CANCELLED, "TIMEOUT": Cause.TIME_LIMIT}.get(now.state, Cause.CRASHED)
        return close_attempt(silent, cause, "without a last word", durable_images(run))
    cause, detail, nodes = find_cause_of_requeue(run, silent, now, "the grace time was too short for a save")
    return close_attempt(silent, cause, detail, durable_images(run), nodes)


def was_preempted(now: SlurmJob, attempt: Attempt) -> bool:
    """Tell whether a job of higher priority took the nodes in this attempt."""
    # Slurm counts whole seconds, and keeps the time of an earlier preemption of the same job.
    return now.preempt_time is not None and now.preempt_time >= to_seconds(attempt.began) - 1


def failed_since(attempt: Attempt) -> list[str]:
    """Return the nodes of an attempt that are down, or have started anew since it began."""
    try:
        nodes = [node for node in control.list_nodes() if node.name in attempt.nodes]
    except control.SlurmError:
        return []

    def failed(node: Node) -> bool:
        # A star behind the state: the node does not respond. A slurmd that was started anew: the node went down and
        # came back before anybody asked, and the tasks that it had are gone.
        down = node.state.startswith("DOWN") or "*" in node.state
        return down or (node.slurmd_start_time is not None and node.slurmd_start_time > to_seconds(attempt.began))

    return [node.name for node in nodes if failed(node)]


def not_answering(names: Sequence[str]) -> list[str]:
    """Return the nodes whose slurmd takes no connections: Slurm itself notices a dead node only after a while."""
    try:
        nodes = [node for node in control.list_nodes() if node.name in names]
    except control.SlurmError:
        return []  # the controller is away: nothing is known of the nodes
    # In parallel: a dead node costs the whole timeout, and a job may have hundreds.
    with ThreadPoolExecutor(32) as threads:
        return [node.name for node, there in zip(nodes, threads.map(slurmd_answers, nodes), strict=True) if not there]


def slurmd_answers(node: Node) -> bool:
    """Tell whether a node's slurmd takes connections."""
    try:
        with socket.create_connection((node.address, node.port), timeout=ANSWER_S):
            return True
    except OSError:
        return False


def first_death(run: RunFolder, job: int) -> tuple[str | None, str]:
    """Return node and words of srun about the first rank that died in the newest attempt, or else why srun failed."""
    said = newest_words(run, job)
    # The first one: srun then kills the other ranks, and reports these in the same words.
    if death := DEATH.search(said):
        return death[1], f"rank {death[2]} on {death[1]}: {death[3]}"
    complaint = COMPLAINT.search(said)
    return None, complaint[1] if complaint else ""


def read_slurm_verdict(run: RunFolder, job: int) -> str:
    """Return why Slurm ended the newest attempt, as it says: PREEMPTION, TIME LIMIT, NODE FAILURE, JOB REQUEUE."""
    # Slurm says it in the batch script's log only, and only to the attempt that it ended.
    found = VERDICT.findall(newest_words(run, job))
    return str(found[0]) if found else ""


def newest_words(run: RunFolder, job: int) -> str:
    """Return what the batch script and srun have said since the newest attempt began."""
    log = batch_log(run, job)
    # Slurm appends to this file at each start of the job, so earlier attempts stand above the newest mark.
    return log.read_text(errors="replace").rpartition(MARK)[2] if log.exists() else ""


def batch_log(run: RunFolder, job: int) -> Path:
    """Return where the batch script and srun themselves speak."""
    # As submitit names it: 0 for its first, and here its only, task.
    return run.logs / "slurm" / f"{job}_0_log.out"


def describe_exit_code(code: int) -> str:
    """Say what the exit code of the ranks means."""
    # Shells and srun report a death by a signal as 128 + its number.
    if code > 128 and code - 128 in [*signal.Signals]:
        return f"a rank was killed by {signal.Signals(code - 128).name}"
    return f"exit code {code}"
