"""Ctrl-Z and `fg` of a process whose children have sessions of their own: they pause with it, and go on with it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Collection
from contextlib import suppress
from types import FrameType

import psutil


def suspend_together(children: Collection[subprocess.Popen[bytes]]) -> None:
    """Answer SIGTSTP from here on: pause all processes below this one, then this one, until SIGCONT."""

    def pause(number: int, frame: FrameType | None) -> None:
        paused = process_tree(list(children))
        send_signal(paused, signal.SIGSTOP)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)  # only the default action stops a process
        os.kill(os.getpid(), signal.SIGTSTP)  # returns at SIGCONT; where no shell could send that, at once
        signal.signal(signal.SIGTSTP, pause)
        send_signal(paused, signal.SIGCONT)

    # Ignored: no shell controls jobs here, and nobody would send SIGCONT.
    if signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN:
        signal.signal(signal.SIGTSTP, pause)


def process_tree(children: Collection[subprocess.Popen[bytes]]) -> list[psutil.Process]:
    """Return the processes that are there, and all that they have started."""
    found = []
    for child in children:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(child.pid)
            found += [process, *process.children(recursive=True)]
    return found


def send_signal(processes: Collection[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to those that are still there."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
