"""A real shell on a real pseudo-terminal, for tests of what people do there."""

from __future__ import annotations

import os
import pty
import select
import signal
import threading
from pathlib import Path

from tests.conftest import HOME


class Terminal:
    """An interactive bash, whose jobs have process groups of their own.

    Args:
        folder: where it stands.
    """

    def __init__(self, folder: Path) -> None:
        self.said = b""
        self.shell, self.keyboard = pty.fork()
        if not self.shell:
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
                signal.signal(number, signal.SIG_DFL)  # whatever the tests are run under
            os.chdir(folder)
            os.environ |= {"PYTHONPATH": str(HOME), "PS1": ""}
            os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
        self.closing = threading.Event()
        self.screen = threading.Thread(target=self.show)
        self.screen.start()

    def show(self) -> None:
        """Take what is written to the screen: who writes would wait otherwise."""
        while not self.closing.is_set():
            if select.select([self.keyboard], [], [], 0.02)[0]:
                try:
                    self.said += os.read(self.keyboard, 65536)
                except OSError:  # the shell has ended
                    return

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.keyboard, keys.encode())

    def close(self) -> None:
        """Do what the end of a window, a lost connection and `tmux kill-session` do."""
        self.closing.set()
        self.screen.join()
        os.close(self.keyboard)
        os.waitpid(self.shell, 0)
