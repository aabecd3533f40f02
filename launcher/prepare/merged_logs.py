"""What all jobs of a preparation say, merged by time."""

from __future__ import annotations

import time
from collections.abc import Callable

from command_line.streams import reader_gone
from launcher.jobs.log_files import JobLog, Line, print_lines, print_note
from launcher.jobs.runs import SlurmQueue
from launcher.prepare.folder import PrepareFolder
from launcher.prepare.progress import gather_preparation, is_over
from trainer.core.fields import Refused
from trainer.runs.run_folder import RunFolder

POLL_S = 0.5
LOOK_S = 3.0  # so often Slurm is asked whether all has ended, while nothing is said


class MergedLog:
    """The newest attempt of each job of a preparation, and those that follow.

    Args:
        folder: of the preparation.
        announce: is told of each attempt.
    """

    def __init__(self, folder: PrepareFolder, announce: Callable[[str], None] = print_note) -> None:
        self.folder, self.announce = folder, announce
        self.logs: dict[str, JobLog] = {}

    def read(self, rest: bool = False) -> list[Line]:
        """Return the lines that were added since the last call, in the order of time; announce new attempts."""
        # Looked for at each call: who resumes a preparation submits other jobs.
        for name, run in self.folder.jobs.items():
            self.logs.setdefault(name, JobLog(run, name, self.announce)).run = run
        lines = [line for log in self.logs.values() for line in log.read(rest)]
        # The sort is stable: lines of one job with the same time keep their order.
        return sorted(lines, key=lambda line: line.time)


def show_shares(folder: PrepareFolder, follow: bool, restart: int | None) -> int:
    """Print what all jobs say; return the exit code.

    Raises:
        Refused: an attempt is named, which each job has of its own.
    """
    if restart is not None:
        raise Refused(f"--restart {restart}: each share has attempts of its own; name one with --rank as well")
    log, looked, over = MergedLog(folder), float("-inf"), False
    while not reader_gone():
        # Nothing will complete a line that a kill has torn: it is shown as it stands.
        if print_lines(log.read(rest=over or not follow)):
            continue
        if over or not follow:
            break
        if time.monotonic() > looked + LOOK_S:
            looked = time.monotonic()
            over = is_over(gather_preparation(folder, SlurmQueue()))  # read once more what was said by then
        time.sleep(POLL_S)
    status = gather_preparation(folder, SlurmQueue())
    print_note(f"{status.words}{f': {status.reason}' if status.reason else ''}")
    return 0


def share_of(folder: PrepareFolder, number: int) -> RunFolder:
    """Return the folder of a share.

    Raises:
        Refused: there is none of this number.
    """
    if not 0 <= number < len(folder.shares):
        raise Refused(f"--rank {number}: {folder.path} has {len(folder.shares)} shares, counted from 0")
    return folder.shares[number]
