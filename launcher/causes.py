"""Why a start of the job has ended, from what the ranks, srun and Slurm have left behind."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from typing import Any

from launcher.attempts import Attempt, Cause, close, durable_images, seconds
from launcher.job_record import JobRecord
from slurm import control
from slurm.records import Job
from trainer import journal
from trainer.run_folder import RunFolder

TIME_LIMIT_SLACK_S = 75.0  # Slurm may give its warning so much earlier than asked
MARK = "lienzo: a start of the job begins"  # in the log of the batch script
DEATH = re.compile(r"srun: error: (\S+): tasks? ([\d,-]+): (.+)")


def explain(run: RunFolder, attempt: Attempt, code: int, now: Job | None) -> Attempt:
    """Close a start whose ranks have ended with `code`, the greatest of theirs."""
    events = [row for row in journal.rows(run.events) if row["time"] >= attempt.began]
    cause, detail, nodes = why(run, attempt, code, now, events)
    return close(attempt, cause, detail, durable_images(run), nodes)


def why(
    run: RunFolder, attempt: Attempt, code: int, now: Job | None, events: list[dict[str, Any]]
) -> tuple[Cause, str, list[str]]:
    """Return the cause, what else is known, and the nodes to blame."""
    record = JobRecord.load(run)
    ends = [row for row in events if row["kind"] == "end"]
    outcome, received = (ends[-1]["outcome"], ends[-1]["signal"]) if ends else (None, None)
    if code == 0 and outcome == "finished":
        return Cause.FINISHED, "", []
    if record.cancelled or (now and now.state.startswith("CANCELLED")):
        return Cause.CANCELLED, "" if record.cancelled else "with scancel", []
    if code == 2:
        refusals = [row["problem"] for row in events if row["kind"] == "refused"]
        return Cause.REFUSED, refusals[0] if refusals else "see its log", []
    if now and preempted(now, attempt):
        return Cause.PREEMPTED, "saved" if outcome == "interrupted" else "the grace time was too short for a save", []
    if now and now.end_time and time.time() >= now.end_time - record.warn_s - TIME_LIMIT_SLACK_S:
        return Cause.TIME_LIMIT, "", []
    if code == 0 and outcome == "interrupted":
        return Cause.ASKED, str(received), []
    if stalls := [row for row in events if row["kind"] == "stalled"]:
        return Cause.STALLED, stalls[-1]["problem"], stalls[-1]["places"]
    node, detail = first_death(run, attempt.job)
    return Cause.CRASHED, detail or describe(code), [node] if node else []


def explain_silence(run: RunFolder, silent: Attempt) -> Attempt:
    """Close a start whose batch script did not live to say how it ended: Slurm has killed it, or its node is gone."""
    saved, now = durable_images(run), control.job(silent.job)
    failed = {name for name in silent.nodes if failed_since(name, silent)}
    if now and now.failed_node:
        failed.add(now.failed_node)
    if failed:
        return close(silent, Cause.NODE_FAILED, ", ".join(sorted(failed)), saved, sorted(failed))
    if now and preempted(now, silent):
        return close(silent, Cause.PREEMPTED, "the grace time was too short for a save", saved)
    return close(silent, Cause.REQUEUED, "", saved)


def preempted(now: Job, attempt: Attempt) -> bool:
    """Tell whether a job of higher priority took the nodes in this start."""
    return now.preempt_time is not None and now.preempt_time >= seconds(attempt.began) - 1


def failed_since(name: str, attempt: Attempt) -> bool:
    """Tell whether a node is down, or has started anew since the attempt began."""
    try:
        node = control.node(name)
    except control.SlurmError:
        return False
    down = node.state.startswith("DOWN") or "*" in node.state
    return down or (node.slurmd_start_time is not None and node.slurmd_start_time > seconds(attempt.began))


def first_death(run: RunFolder, job: int) -> tuple[str | None, str]:
    """Return the node and the words of srun about the first rank that died in the newest start; the rest follow it."""
    log = batch_log(run, job)
    said = log.read_text(errors="replace").rpartition(MARK)[2] if log.exists() else ""
    if death := DEATH.search(said):
        return death[1], f"rank {death[2]} on {death[1]}: {death[3]}"
    return None, ""


def batch_log(run: RunFolder, job: int) -> Path:
    """Return where the batch script and srun themselves speak."""
    return run.logs / "slurm" / f"{job}_0_log.out"


def describe(code: int) -> str:
    """Say what the exit code of the ranks means."""
    if code > 128 and code - 128 in [*signal.Signals]:
        return f"a rank was killed by {signal.Signals(code - 128).name}"
    return f"exit code {code}"
