"""`launcher cancel`: have a run save and end, or end it at once."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import tyro
from rich.console import Console

from command_line.help_page import HelpPage
from launcher.jobs import runs
from launcher.jobs.job_record import JobRecord
from launcher.jobs.runs import SlurmQueue
from launcher.prepare.folder import PrepareFolder, is_preparation
from launcher.prepare.progress import gather_preparation, live_jobs
from launcher.status.facts import RunState, StateFacts, gather_facts
from launcher.status.progress import newest_checkpoint
from launcher.status.states import judge_state
from slurm import control
from trainer.core.advice import command
from trainer.core.fields import Refused
from trainer.runs import lease_holder
from trainer.runs.lease_holder import Holder
from trainer.runs.run_folder import RunFolder

WAIT_S = 600.0  # for the save
AGAIN_S = 5.0  # a job that was just starting had nobody yet who could hear the signal
POLL_S = 0.5


@dataclass(frozen=True)
class Cancel:
    """Have a run save and end; `resume` goes on with it. Where nothing trains or waits, nothing is done."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "runs/NAME": "save, then end; resume goes on",
            "runs/NAME --now": "end without a save",
        },
    )

    run: tyro.conf.Positional[Path]
    """The run folder."""
    now: bool = False
    """End it at once, without a save: the last durable checkpoint serves."""


def run_cancel(args: Cancel) -> int:
    """Carry out `cancel`: 0 when nothing trains or waits any more, 1 when it still does.

    Raises:
        Refused: there is no such run; it is not ours to end from here; Slurm does not answer.
    """
    if is_preparation(args.run):
        return cancel_preparation(PrepareFolder(args.run))
    run = runs.existing_run(args.run)
    facts = gather_facts(run, SlurmQueue())
    state, reason = judge_state(facts)
    if facts.holder and facts.trains and facts.local:
        return end_processes(run, facts.holder, args.now)
    if facts.problem:
        if facts.record:
            mark_cancelled(run, facts.record)
        raise Refused(
            f"{facts.problem}; {run.path} is marked as cancelled, so that its job is not started again, but it may "
            "still train: try again"
        )
    if facts.record and runs.is_live(facts.job):
        return end_job(run, facts, args.now)
    print(f"nothing to cancel: {run.path} is {state}{f' ({reason})' if reason else ''}")
    return 0


def mark_cancelled(run: RunFolder, record: JobRecord) -> None:
    """Note that the job's user has ended it: whatever ends it now, it is not started again."""
    try:
        replace(record, cancelled=True).save(run)
    except OSError as error:  # a full disk, say: scancel, too, tells that it was the user
        print(f"{run.job} cannot be written: {error.strerror}", file=sys.stderr)
        if record.job:
            control.cancel_job(record.name)


def end_job(run: RunFolder, facts: StateFacts, at_once: bool) -> int:
    """End a job, and wait until it is over."""
    assert facts.record
    number = facts.record.name
    # Before the signal: the end of the attempt looks for the mark, and must not find it missing.
    mark_cancelled(run, facts.record)
    ending = EndingJob(facts.record, at_once)
    what = f"job {number} to end" if at_once else f"job {number} to save and end"
    return wait_until_over(
        run, what, ending.over, f"scancel {number} ends it" if at_once else "--now ends it without a save"
    )


@dataclass
class EndingJob:
    """A job that is asked to end, again and again until it has ended."""

    record: JobRecord
    at_once: bool
    """Without a save."""
    asked_at: float = float("-inf")

    def over(self) -> bool:
        """Tell whether it has ended, and ask it to."""
        try:
            job = runs.job_of(self.record)
            if job is None or not runs.is_live(job):
                return True
            if time.monotonic() >= self.asked_at + AGAIN_S:
                self.asked_at = time.monotonic()
                # A job that waits has no ranks that could save.
                if self.at_once or runs.is_waiting(job):
                    control.cancel_job(job.unique_id)
                elif job.state != "COMPLETING":
                    # Not scancel: that gives the ranks only the site's KillWait, often too short for a save.
                    control.send_signal(job.unique_id, "TERM")
        except control.SlurmError:  # the job ended in this moment, or Slurm is not there for a while: look again
            pass
        return False


def cancel_preparation(folder: PrepareFolder) -> int:
    """End all jobs of a preparation: what is done is kept, as each shard is durable when it is made.

    Raises:
        Refused: Slurm does not answer.
    """
    try:
        live = live_jobs(folder)
    except control.SlurmError as error:
        raise Refused(f"{error}; nothing is cancelled: try again") from error
    if not live:
        status = gather_preparation(folder, SlurmQueue())
        print(f"nothing to cancel: {folder.path} is {status.words}{f' ({status.reason})' if status.reason else ''}")
        return 0
    # The one that finishes first: else it would begin when the shares have ended.
    records = {run: record for run in reversed(live) if (record := runs.record_of(run))}
    for run, record in records.items():
        mark_cancelled(run, record)
    ending = [EndingJob(record, at_once=False) for record in records.values()]
    again = f"scancel {' '.join(record.name for record in records.values())} ends them"
    code = wait_until(f"{len(ending)} jobs to end", lambda: all([job.over() for job in ending]), again, folder.path)
    if code:
        return code
    status = gather_preparation(folder, SlurmQueue())
    done = f"{status.done:,} of {status.preparation.total:,} {status.preparation.unit} are done"
    more = f"; go on with: {command('launcher', 'resume', folder.path)}" if status.next else ""
    print(f"{status.words}: {done}{more}")
    return 0


def end_processes(run: RunFolder, holder: Holder, at_once: bool) -> int:
    """End a training on this machine. The process that holds the lease is asked; all of them agree on a stop.

    Raises:
        Refused: it runs elsewhere, or is another user's.
    """
    # Another machine, or this one before it was started anew: there the number is of another process, or of none.
    if holder.boot != lease_holder.boot_id():
        raise Refused(f"{run.path} is trained on {holder.host}, by process {holder.pid}: cancel it there")
    try:
        os.kill(holder.pid, signal.SIGINT if at_once else signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise Refused(f"{run.path} is trained by process {holder.pid}, which is another user's") from None

    def over() -> bool:
        if at_once and not holder.dead():
            with suppress(ProcessLookupError):
                os.kill(holder.pid, signal.SIGINT)  # the second one ends it, as a second Ctrl-C does
        return lease_holder.living_holder(run) is None

    instead = f"kill -9 {holder.pid} ends it" if at_once else "--now ends it without a save"
    what = f"process {holder.pid} to {'end' if at_once else 'save and end'}"
    return wait_until_over(run, what, over, instead)


def wait_until_over(run: RunFolder, what: str, over: Callable[[], bool], instead: str) -> int:
    """Wait until a training is over, and tell what is durable."""
    if code := wait_until(what, over, instead, run.path):
        return code
    # Asked after the end: the last save may have failed, on a full disk say.
    saved, _ = newest_checkpoint(run)
    state = judge_state(gather_facts(run, SlurmQueue()))[0]
    durable = "no checkpoint" if saved is None else f"the state at {saved:,} images"
    more = f"; go on with: {command('launcher', 'resume', run.path)}" if state is not RunState.FINISHED else ""
    print(f"{'finished' if state is RunState.FINISHED else 'cancelled'}: {durable} is durable{more}")
    return 0


def wait_until(what: str, over: Callable[[], bool], instead: str, path: Path) -> int:
    """Wait until something is over; return 0 when it is, 1 when it takes too long, 130 after Ctrl-C."""
    console, began = Console(highlight=False, soft_wrap=True), time.monotonic()
    try:
        with console.status(f"waiting for {what}") as line:
            while not over():
                if time.monotonic() > began + WAIT_S:
                    print(f"{what.partition(' to ')[0]} still goes on after {WAIT_S:.0f} s; {instead}")
                    return 1
                line.update(f"waiting for {what}: {time.monotonic() - began:.0f} s; Ctrl-C leaves it to itself")
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        print(f"no longer waiting for {what}; watch it with: {command('launcher', 'status', path)}")
        return 130
    return 0
