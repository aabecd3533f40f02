"""What was said in one attempt of a job, by all its processes, in the order of time."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from command_line.printable import printable
from launcher.jobs.attempts import Attempt
from launcher.jobs.exit_cause import MARK, batch_log
from launcher.jobs.runs import attempts_of
from trainer.runs.run_folder import RunFolder

STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z ")
LAST = "9999"  # sorts after every time


@dataclass(frozen=True)
class Line:
    """A line, and when it was written. One without a time of its own belongs to the line before it."""

    time: str
    text: str


class Tail:
    """The lines of a growing file.

    Args:
        name: stands before lines that do not say themselves who writes them.
        began: the time of lines before the first one with a time.
    """

    def __init__(self, path: Path, name: str, began: str) -> None:
        # 23: to the millisecond, as lines are stamped, so that both sort as texts.
        self.path, self.name, self.time = path, name, began[:23]
        self.place, self.torn, self.floor = 0, b"", ""

    def read(self, rest: bool = False) -> list[Line]:
        """Return the whole lines that were added since the last call; with `rest`, also what a kill has torn."""
        return [self.line(text) for text in self.texts(rest)]

    def texts(self, rest: bool) -> list[str]:
        """Return what was added, as it stands."""
        try:
            with self.path.open("rb") as file:  # opened anew each time: a network file system then looks anew as well
                file.seek(self.place)
                data = file.read()
        except OSError:
            return []
        self.place += len(data)
        # What has no end of line yet may still be growing: it is kept for the next call.
        *lines, self.torn = (self.torn + data).split(b"\n")
        if rest and self.torn:
            lines, self.torn = [*lines, self.torn], b""
        return [line.decode(errors="replace") for line in lines]

    def line(self, text: str) -> Line:
        """Give a line its time."""
        stamp = STAMP.match(text)
        if stamp:
            self.time = self.floor = max(self.floor, stamp[1])  # a clock set back changes no order within a file
        return Line(self.time, text if stamp else f"[{self.name}] {text}")


class BatchTail(Tail):
    """The lines of the batch script and of srun in one attempt: the file holds those of all attempts of the job."""

    def __init__(self, path: Path, number: int, ended: str | None) -> None:
        super().__init__(path, "job", ended or LAST)
        self.number, self.marks = number, 0

    def read(self, rest: bool = False) -> list[Line]:
        """Return what was added for this attempt. It bears no time, and mostly tells of an end, so it comes last."""
        found = []
        for text in self.texts(rest):
            said = text.removesuffix(MARK)  # what a kill has torn may stand before it, in the same line
            # The lines bear no time, so marks alone tell the attempts apart. 0: what bash says before the first mark.
            if (said or text != MARK) and max(0, self.marks - 1) == self.number:
                found.append(self.line(said))
            self.marks += said != text
        return found


class AttemptLog:
    """All that is said in one attempt of the job.

    Args:
        run: of the run.
        attempt: the attempt.
        number: how many attempts of the same job came before.
        rank: the only process to listen to; None: to all.
    """

    def __init__(self, run: RunFolder, attempt: Attempt, number: int, rank: int | None) -> None:
        self.run, self.attempt, self.rank = run, attempt, rank
        self.tails: dict[Path, Tail] = {}
        if rank is None:
            path = batch_log(run, attempt.job)
            self.tails[path] = BatchTail(path, number, attempt.ended)

    def ranks(self) -> list[int]:
        """Return the processes that have said something."""
        folder = self.run.log(self.attempt.job, self.attempt.restart, 0).parent
        try:
            names = os.listdir(folder)
        except OSError:
            return []
        found = (re.fullmatch(r"rank-(\d+)\.log", name) for name in names)
        return sorted(int(match[1]) for match in found if match)

    def read(self, rest: bool = False) -> list[Line]:
        """Return the lines that were added since the last call, in the order of time."""
        # Looked for at each call: the log of a rank appears when that rank has started.
        for rank in self.ranks() if self.rank is None else [self.rank]:
            path = self.run.log(self.attempt.job, self.attempt.restart, rank)
            self.tails.setdefault(path, Tail(path, f"rank {rank}", self.attempt.began))
        lines = [line for _, tail in sorted(self.tails.items()) for line in tail.read(rest)]
        # The sort is stable: lines of one process with the same time keep their order.
        return sorted(lines, key=lambda line: line.time)


class JobLog:
    """What a run's job says in its newest attempt, and in those that follow.

    Args:
        run: of the job.
        name: of the job, which stands before what is announced.
        announce: is told of each attempt.
    """

    def __init__(self, run: RunFolder, name: str, announce: Callable[[str], None]) -> None:
        self.run, self.name, self.announce = run, name, announce
        self.log: AttemptLog | None = None

    def read(self, rest: bool = False) -> list[Line]:
        """Return the lines that were added since the last call; with `rest`, also what a kill has torn."""
        known, lines = attempts_of(self.run), list[Line]()
        if known and (self.log is None or self.log.attempt.key != known[-1].key):
            if self.log:
                lines = self.log.read(rest=True)  # of the attempt before
            attempt = known[-1]
            nodes = ", ".join(attempt.nodes)
            self.announce(f"{self.name}, attempt {len(known) - 1}: job {attempt.job} on {nodes}")
            self.log = open_log(self.run, known, len(known) - 1, None)
        return [*lines, *self.log.read(rest)] if self.log else lines


def open_log(run: RunFolder, known: Sequence[Attempt], number: int, rank: int | None) -> AttemptLog:
    """Return what was said in the attempt of a number."""
    attempt = known[number]
    before = sum(1 for other in known if other.job == attempt.job and other.restart < attempt.restart)
    return AttemptLog(run, attempt, before, rank)


def print_lines(lines: Sequence[Line]) -> bool:
    """Print lines; False: there are none. What a terminal would obey is escaped: a rank's words are a stranger's."""
    sys.stdout.writelines(f"{printable(line.text)}\n" for line in lines)
    sys.stdout.flush()
    return bool(lines)


def print_note(message: str) -> None:
    """Put a line beside the logs, on standard error."""
    sys.stdout.flush()
    print(f"── {printable(message)}", file=sys.stderr, flush=True)
