"""The end of an attempt of the job: why it came, and whether Slurm is asked to start the job again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from launcher.jobs import attempts
from launcher.jobs.attempts import Attempt, Cause, Decision
from launcher.jobs.exit_cause import describe_exit_code, explain_end
from launcher.jobs.job_record import find_record
from slurm import control, job_environment
from trainer.runs.journal import now
from trainer.runs.run_folder import RunFolder

T = TypeVar("T")

PAUSE_S = 5.0


def end_attempt(run: RunFolder, code: int) -> int:
    """Record how this attempt ended, have the job started again if it should go on, and return the job's exit code."""
    known = attempts.read_attempts(run)
    mine = next((a for a in known if a.key == (job_environment.job_id(), job_environment.restart_count())), None)
    if mine is None:
        # `begin` has turned this attempt away, since the run was stopped: that row stands.
        if known and known[-1].decision is Decision.STOP and known[-1].job == job_environment.job_id():
            return code
        mine = this_attempt(run)  # its beginning could not be written: the disk was full
    elif mine.ended is not None:  # by `serve_store`, when the ranks had not saved yet, or by `begin`
        record_attempt(run, replace(mine, saved=max(mine.saved, attempts.durable_images(run))))
        return code
    else:
        known.remove(mine)  # another job of the same run may have begun, and been refused, since
    # The decision looks at all attempts: one that makes no progress may be bad luck, several in a row are not.
    known.append(try_to_explain_end(run, mine, code))
    decision = attempts.decide_what_follows(known)
    mine = replace(known[-1], decision=decision)
    record_attempt(run, mine)  # before the requeue, after which this process has not long to live
    if decision is Decision.GO_ON:
        again = start_again(run, mine, attempts.bad_nodes(known))
        if again != mine:
            record_attempt(run, again)
    elif starting_again(mine):  # Slurm would, of its own accord
        control.cancel_job(job_environment.unique_job_id(mine.job))
    # Slurm calls a job that ends with 0 COMPLETED: an attempt that broke must not look so.
    return 0 if mine.cause in (Cause.FINISHED, Cause.CANCELLED) else code or 1


def try_to_explain_end(run: RunFolder, mine: Attempt, code: int) -> Attempt:
    """Return this attempt with its end; whatever is wrong with what it left behind, the run goes on."""
    try:
        return explain_end(run, mine, code, retry_until_answer(partial(control.show_job, mine.job)))
    except (OSError, ValueError, LookupError, TypeError, control.SlurmError) as error:
        return attempts.close_attempt(
            mine, Cause.CRASHED, f"{describe_exit_code(code)}; {error!r}", attempts.durable_images(run)
        )


def start_again(run: RunFolder, mine: Attempt, bad: Sequence[str]) -> Attempt:
    """Ask Slurm to start the job again, without the bad nodes; return what became of it."""
    found = retry_until_answer(partial(control.show_job, mine.job))
    # Slurm counts a restart when it puts the job back into the queue, while this attempt may still be running.
    under_way = found is not None and found.restarts > mine.restart
    ending = found is not None and found.state != "RUNNING" and not under_way
    if ending and mine.cause is not Cause.TIME_LIMIT:  # scancel, in this moment: a requeue would revive the job
        return replace(mine, cause=Cause.CANCELLED, decision=Decision.END, detail="with scancel")
    try:
        if not under_way:
            retry_until_answer(partial(control.requeue_job, job_environment.unique_job_id(mine.job)))
    except control.SlurmError as error:
        if not starting_again(mine):  # it may have been heard in spite of what it said
            print(f"lienzo: Slurm refuses to start the job again: {error}", file=sys.stderr)
            return replace(mine, decision=Decision.REFUSED, detail=f"{mine.detail}; {error}".lstrip("; "))
    # The job is queued again by now; excluding nodes is an improvement that may fail.
    if not bad:
        return replace(mine, decision=Decision.GO_ON)
    note = f"{', '.join(bad)} failed {attempts.NODE_FAILURES} times, but the job cannot do without"
    if can_do_without(run, bad):
        try:
            control.exclude_nodes(job_environment.unique_job_id(mine.job), bad)
            note = f"{', '.join(bad)} left out from now on"
        except control.SlurmError as error:
            note += f": {error}"
    return replace(mine, decision=Decision.GO_ON, detail=f"{mine.detail}; {note}".lstrip("; "))


def starting_again(mine: Attempt) -> bool:
    """Tell whether Slurm is starting the job again already."""
    found = retry_until_answer(partial(control.show_job, mine.job))
    return found is not None and found.restarts > mine.restart


def can_do_without(run: RunFolder, bad: Sequence[str]) -> bool:
    """Tell whether the partition has enough nodes for the job besides the bad ones: Slurm would wait for ever."""
    submitted = find_record(run)
    if submitted is None:
        return False
    # Excluding nodes that the job cannot do without would leave it pending for ever.
    there = [p for p in retry_until_answer(control.list_partitions) if p.name == submitted.partition]
    return bool(there) and len({*there[0].nodes} - {*bad}) >= int(submitted.nodes.partition("-")[0])


def retry_until_answer(act: Callable[[], T]) -> T:
    """Ask Slurm until it answers: while its controller is away, nobody else starts this job again."""
    # Without a limit: giving up would end a run because a controller was restarted.
    while True:
        try:
            return act()
        except control.NoAnswer as error:
            print(f"lienzo: {error}; asking again", file=sys.stderr)
            time.sleep(PAUSE_S)


def record_attempt(run: RunFolder, attempt: Attempt) -> None:
    """Write down what is known of an attempt; a full disk must not keep the job from being started again."""
    try:
        attempts.write_attempt(run, attempt)
    except OSError as error:
        print(f"lienzo: {run.attempts} cannot be written: {error.strerror}; {attempt}", file=sys.stderr)


def this_attempt(run: RunFolder) -> Attempt:
    """Return what is known of this attempt when it begins."""
    nodes = tuple(control.expand_node_list(job_environment.node_list()))
    return Attempt(
        job_environment.job_id(), job_environment.restart_count(), now(), nodes, attempts.durable_images(run)
    )
