"""`launcher logs`: what the processes of a run's job say, merged by time or one of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from command_line.help_page import HelpPage
from command_line.streams import reader_gone
from launcher.jobs import runs
from launcher.jobs.attempts import Attempt
from launcher.jobs.log_files import open_log, print_lines, print_note
from launcher.jobs.runs import SlurmQueue
from launcher.prepare.folder import PrepareFolder, is_preparation
from launcher.prepare.merged_logs import share_of, show_shares
from launcher.status.facts import RunState, gather_facts
from launcher.status.states import judge_state
from trainer.core.fields import Refused
from trainer.runs.run_folder import RunFolder

POLL_S = 0.5
LOOK_S = 3.0  # so often Slurm is asked whether the run has ended, while nothing is said


@dataclass(frozen=True)
class Logs:
    """Show what the processes of a job say: of its newest attempt, merged by time, in UTC."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "runs/NAME -f": "follow all ranks, across restarts",
            "runs/NAME --rank 0": "what rank 0 says",
        },
    )

    run: tyro.conf.Positional[Path]
    """The run folder."""
    follow: Annotated[bool, tyro.conf.arg(aliases=["-f"])] = False
    """Go on, over restarts, until the run has ended."""
    rank: int | None = None
    """Only this process; of a preparation: only this share."""
    restart: int | None = None
    """This attempt, counted from 0 as `launcher status RUN` does; default: the newest."""


def run_logs(args: Logs) -> int:
    """Carry out `logs`.

    Raises:
        Refused: there is no such run, attempt or rank, or it has no logs of its own.
    """
    if is_preparation(args.run):
        if args.rank is None:
            return show_shares(PrepareFolder(args.run), args.follow, args.restart)
        run = share_of(PrepareFolder(args.run), args.rank)
        args = replace(args, rank=None)
    else:
        run = runs.existing_run(args.run)
    check_arguments(run, args)
    if args.follow:
        follow_logs(run, args)
    else:
        show_logs(run, args)
    return 0


def check_arguments(run: RunFolder, args: Logs) -> None:
    """Refuse what is not there.

    Raises:
        Refused: saying what is.
    """
    known = runs.attempts_of(run)
    if not known and runs.record_of(run) is None:
        raise Refused(
            f"{run.path} has no logs: it was trained by hand or on one machine, and what it said went to the terminal; "
            f"its story is in {run.events}, its figures in {run.metrics}"
        )
    if args.restart is not None and not 0 <= args.restart < len(known):
        raise Refused(f"--restart {args.restart}: {run.path} has {len(known)} attempts, counted from 0")
    # With --follow the rank may not have started yet.
    if args.rank is not None and known and not args.follow:
        spoken = open_log(run, known, -1 if args.restart is None else args.restart, None).ranks()
        if args.rank not in spoken:
            have = f"ranks {spoken[0]} to {spoken[-1]} have" if spoken else "no rank has"
            raise Refused(f"--rank {args.rank} has said nothing in this attempt: {have} a log")


def show_logs(run: RunFolder, args: Logs) -> None:
    """Print one attempt."""
    known = runs.attempts_of(run)
    if not known:
        state, reason = judge_state(gather_facts(run, SlurmQueue()))
        return print_note(f"nothing was said yet: {state}{f', {reason}' if reason else ''}")
    number = len(known) - 1 if args.restart is None else args.restart
    announce_attempt(known, number)
    print_lines(open_log(run, known, number, args.rank).read(rest=True))
    if known[number].ended:
        announce_end(known[number])


def follow_logs(run: RunFolder, args: Logs) -> None:
    """Print one attempt after the other as they grow, until the run has ended."""
    number = max(0, len(runs.attempts_of(run)) - 1) if args.restart is None else args.restart
    log, told, looked, over = None, False, 0.0, False
    while not reader_gone():
        known = runs.attempts_of(run)
        if log is None and number < len(known):
            announce_attempt(known, number)
            log, told = open_log(run, known, number, args.rank), False
        # While lines come, Slurm need not be asked.
        if log and print_lines(log.read()):
            continue
        another = number + 1 < len(known)
        # Nothing will complete a line that a kill has torn: it is shown as it stands.
        if log and (another or over):
            print_lines(log.read(rest=True))
        if log and not told and number < len(known) and (another or known[number].ended):
            announce_end(known[number])
            told = True  # lines may still follow: the last words of ranks, and Slurm's
        if another and args.restart is not None:
            return
        if another:
            number, log, over = number + 1, None, False
            continue
        if over:
            return print_note(f"the run has ended: {judge_state(gather_facts(run, SlurmQueue()))[0]}")
        if time.monotonic() > looked + LOOK_S:
            state, reason = judge_state(gather_facts(run, SlurmQueue()))
            over = not state.live and state is not RunState.UNKNOWN  # read once more what was said by then
            if log is None and not looked and not over:
                print_note(f"waiting for an attempt: {state}{f', {reason}' if reason else ''}")
            looked = time.monotonic()
        time.sleep(POLL_S)


def announce_attempt(known: Sequence[Attempt], number: int) -> None:
    """Say which attempt is shown."""
    attempt = known[number]
    print_note(
        f"attempt {number} of {len(known)}: job {attempt.job} on {', '.join(attempt.nodes)}, {attempt.began[:19]}Z"
    )


def announce_end(attempt: Attempt) -> None:
    """Say how an attempt has ended."""
    detail = f": {attempt.detail}" if attempt.detail else ""
    print_note(f"ended: {attempt.cause}{detail}" if attempt.cause else "ended without a last word")
