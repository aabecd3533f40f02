"""What one job of a preparation does: it makes its share, or finishes; events and progress tell the others of it."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from launcher.jobs.own_log import redirect_output, stamp_output
from launcher.jobs.share_progress import ShareProgress
from launcher.prepare.arguments import parse_prepare
from launcher.prepare.folder import PrepareFolder
from launcher.prepare.work import Work
from shards.building.interruption import BuildStopped, Interruption
from shards.building.share_results import Share
from shards.errors import DataError
from slurm import job_environment
from trainer.core.stopping import Outcome, StopRequest
from trainer.runs.journal import EventKind, Journal, event_row
from trainer.runs.lease_holder import Owner
from trainer.runs.run_folder import RunFolder


class StopInterruption(Interruption):
    """Ends a build when the process was asked to stop, by whichever signal.

    Args:
        stop: notes the signals.
    """

    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop

    def check_before(self, tell: Callable[[int], None]) -> Callable[[int], None]:
        """Return a function that calls `tell`, but raises BuildStopped once there was a signal."""

        def check_and_tell(number: int) -> None:
            if self.stop():
                raise BuildStopped(f"interrupted by {self.stop.received}")
            tell(number)

        return check_and_tell


def run_job(path: Path, task: str, stop: StopRequest) -> int:
    """Do the job, and return 0 where its end is in order: what was asked to stop is started again by the batch script.

    Args:
        path: of the preparation.
        task: "share", of the number that this task of the array has, or "finish".
        stop: has noted the signals so far.
    """
    folder, place = PrepareFolder(path), job_environment.task_info()
    if not folder.record.exists():  # said into srun's own log: there is no folder here to say it in
        sys.exit(f"{path} is not to be seen on {place.node}: it must lie on a file system that all nodes share")
    number = None if task == "finish" else int(os.environ["SLURM_ARRAY_TASK_ID"])
    run = folder.finishing if number is None else folder.shares[number]
    redirect_output(run.log(place.job, place.restart_count, 0))
    stamp_output("finish" if number is None else f"share {number}")
    events = Journal(run.events)
    done = ShareProgress.of(run).done
    events.append(event_row(EventKind.START, owner=Owner.slurm_job(place.job), images_seen=done))
    outcome, problem = carry_out(partial(do_task, folder, number, StopInterruption(stop)), stop)
    if problem:
        print(problem, flush=True)
    if outcome is Outcome.REFUSED:
        events.append(event_row(EventKind.REFUSED, problem=problem))
    else:
        events.append(event_row(EventKind.END, outcome=outcome.name.lower(), signal=stop.received, problem=problem))
    events.close()
    return 0 if outcome in (Outcome.FINISHED, Outcome.INTERRUPTED) else outcome


def carry_out(act: Callable[[], None], stop: StopRequest) -> tuple[Outcome, str]:
    """Run a function; return how it ended, and what was wrong."""
    try:
        act()
    except DataError as error:
        return Outcome.REFUSED, str(error)
    except BuildStopped as error:
        return Outcome.INTERRUPTED if stop() else Outcome.FAILED, str(error)
    except Exception as error:  # a mistake of ours: the other jobs and `status` must learn of it, too
        traceback.print_exc()
        return Outcome.FAILED, f"{type(error).__name__}: {error}"
    return Outcome.FINISHED, ""


def do_task(folder: PrepareFolder, number: int | None, interruption: Interruption) -> None:
    """Make a share, or finish.

    Raises:
        DataError: the source, or the folder of what is unfinished, is not as it was.
        BuildStopped: interrupted, or it cannot go on.
    """
    preparation = folder.newest
    os.chdir(preparation.directory)  # paths of the command line are seen from there
    work = parse_prepare(preparation.arguments).work.in_folder(folder.path, resume=True)
    if number is None:
        work.finish(interruption)
        return
    make_share(work, folder, number, interruption)


def make_share(work: Work, folder: PrepareFolder, number: int, interruption: Interruption) -> None:
    """Make a share, and note how far it is."""
    planned, run = folder.newest.shares[number], folder.shares[number]
    share = Share(range(planned.start, planned.stop), f"{folder.newest.submission:04d}-{number:04d}")
    began, done_before = time.time(), None

    def note_left(left: int) -> None:
        nonlocal done_before
        done = planned.size - left
        done_before = done if done_before is None else done_before
        note_progress(run, ShareProgress(done, done_before, began, time.time()))

    print(f"begins: {planned.size:,} {work.unit} in tasks {planned.start} to {planned.stop - 1}")
    work.make_share(share, interruption, note_left)
    print(f"made: {planned.size:,} {work.unit}")


def note_progress(run: RunFolder, progress: ShareProgress) -> None:
    """Write down how far a share is; where the disk is full, the work itself will say so."""
    try:
        progress.save(run)
    except OSError as error:
        print(f"{ShareProgress.path(run)} cannot be written: {error.strerror}", file=sys.stderr)
