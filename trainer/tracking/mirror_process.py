"""What the processes beside the trainer have in common, which copy a run's journals to W&B and to TensorBoard.

The trainer holds the other end of their standard input. When it closes, by intention or by death, they copy what the
files hold and end, after DRAIN_S at the latest.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

DRAIN_S = 60.0


def start_mirror(module: str, log_file: Path, *arguments: str) -> subprocess.Popen[bytes] | None:
    """Start a process that copies a run; its standard input tells it how and when the trainer ends.

    Args:
        module: its program.
        log_file: where its output goes, in a folder that is made.
        arguments: of the program.
    """
    try:
        log_file.parent.mkdir(exist_ok=True)
        with log_file.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[2],  # where `-m trainer` is found, wherever the user stands
                start_new_session=True,  # a Ctrl-C or a SIGTERM to the trainer's group is the trainer's to answer
            )
    except OSError as error:
        log.warning("training goes on without %s, which does not start: %s", module, error)
        return None


def stop_mirror(mirror: subprocess.Popen[bytes], outcome: str, timeout_s: float) -> bool:
    """Tell the process the outcome and wait for it; kill it when the time is up. Whether it copied everything."""
    try:
        mirror.communicate(outcome.encode(), timeout=timeout_s)
    except subprocess.TimeoutExpired:
        mirror.kill()
        mirror.communicate()
    return mirror.returncode == 0


def watch_trainer(on_end: Callable[[str], None]) -> None:
    """Wait for the trainer's end, tell its outcome, and end this process when its time is up."""
    trainer = os.getppid()
    while not select.select([sys.stdin], [], [], 1.0)[0] and os.getppid() == trainer:
        pass  # asked for its parent as well, since the trainer's children may hold the pipe open after its death
    said = os.read(sys.stdin.fileno(), 64) if os.getppid() == trainer else b""
    on_end(said.decode() or "failed")
    time.sleep(DRAIN_S)
    log_line("out of time; the rest waits for: launcher sync")
    os._exit(1)


@contextmanager
def sole_sender(lock: Path, wait: bool) -> Iterator[None]:
    """Be the only process that copies this run there: two would write rows twice. BlockingIOError if not `wait`."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:  # some network file systems have no locks
            log_line(f"no lock on {file.name}: {error.strerror}")
        yield


def one_line(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def log_line(message: str) -> None:
    """One line in the process's log."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}", flush=True)
