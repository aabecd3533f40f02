"""The layout of a study's folder."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from trainer.core.fields import Refused
from trainer.runs.run_folder import RunFolder

HOME = Path("studies")
POLL_S = 0.2
WAIT_S = 60.0  # at the end of a task: for others that end, or look at the study, in this moment


def try_lock(file: TextIO) -> bool:
    """Take the lock of a file, until it is closed; False: another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # some network file systems have no locks
        print(f"no lock on {file.name}: {error.strerror}", file=sys.stderr)
    return True


@dataclass(frozen=True)
class StudyFolder:
    """Paths inside one study's folder.

    STUDY/
      study.toml    what is compared; a copy
      plan.json     what each arm costs, where the runs are trained, and what lienzo.toml said where it was begun
      runs/         a run folder for each arm and seed: ARM-sSEED
      pace/         for a budget in seconds: a short run of each arm, which tells its speed
      queue/        on a cluster: the run folders of each array, a line each; which stages were queued by a task's end
      code/, logs/  on a cluster: the code that runs, and what Slurm itself says
      features/     of the data, for all measurements
      study.lock, report.lock       who queues or trains now, and who writes what came of it
      results.json, results.csv     what each run used and was measured to be
      conclusions.json, index.html  what follows from that
    """

    path: Path

    @property
    def toml(self) -> Path:
        """What is compared."""
        return self.path / "study.toml"

    @property
    def plan(self) -> Path:
        """What each arm costs, and where the runs are trained."""
        return self.path / "plan.json"

    @property
    def queue(self) -> Path:
        """The run folders of each array."""
        return self.path / "queue"

    @property
    def features(self) -> Path:
        """Features of the data, for all measurements: on a file system that all nodes see."""
        return self.path / "features"

    @property
    def results(self) -> Path:
        """What came of it, for programs."""
        return self.path / "results.json"

    @property
    def conclusions(self) -> Path:
        """What may be concluded, for programs."""
        return self.path / "conclusions.json"

    @property
    def table(self) -> Path:
        """What came of it, for spreadsheets."""
        return self.path / "results.csv"

    @property
    def page(self) -> Path:
        """What came of it, for people."""
        return self.path / "index.html"

    @contextmanager
    def held(self, what: str = "study", wait_s: float = 0.0) -> Iterator[None]:
        """Let no other process go on with the study meanwhile, or write what came of it ("report").

        Raises:
            Refused: another still does after so many seconds, or the folder cannot be written.
        """
        deadline = time.monotonic() + wait_s
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # "a+": opening must not empty the file, in which its holder says who it is.
            file = (self.path / f"{what}.lock").open("a+")
        except OSError as error:
            raise Refused(f"the study's folder {self.path} cannot be written: {error.strerror}") from error
        with file:
            while not try_lock(file):
                if time.monotonic() > deadline:
                    file.seek(0)
                    raise Refused(
                        f"{self.path} is in the hands of {file.read() or 'another process'}: wait for it, or end it"
                    )
                time.sleep(POLL_S)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
            file.flush()
            yield

    def tasks(self, submission: int) -> Path:
        """The run folders of an array, a line each."""
        return self.queue / f"{submission:04d}.txt"

    def code(self, submission: int) -> Path:
        """The code of an array."""
        return self.jobs.code / f"{submission:04d}"

    @property
    def jobs(self) -> RunFolder:
        """Where code and logs of the arrays lie: as in a run folder."""
        return RunFolder(self.path)

    def run(self, arm: str, seed: int) -> RunFolder:
        """The run of an arm and a seed."""
        return RunFolder(self.path / "runs" / f"{arm}-s{seed}")

    def pace(self, arm: str) -> RunFolder:
        """The short run that tells an arm's speed."""
        return RunFolder(self.path / "pace" / arm)
