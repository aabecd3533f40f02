"""What processes have in common that have imported much, and fork into others for the tests.

They read one JSON object a line, and answer each with a number.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

HOME = Path(__file__).parent.parent


def serve(start: Callable[..., int]) -> None:
    """Answer until the input ends: start a process, or with `{"wait": PID}` wait for one and tell its exit code.

    Args:
        start: forks with what was asked, and returns the child's PID.
    """
    for line in sys.stdin:
        asked = json.loads(line)
        answer = os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]) if "wait" in asked else start(**asked)
        print(answer, flush=True)


def know_settings() -> None:
    """Let the parser read the docstrings of a training's settings, which it remembers."""
    from command_line.arguments import parse
    from trainer.commands.train import Train

    parse(Train, ["--run", "."], "")


class ForkServer:
    """The other end.

    Args:
        module: the server's program.
    """

    def __init__(self, module: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HOME
        )

    def ask(self, question: Mapping[str, object]) -> int:
        """Send a line and return the answer."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        """End the server."""
        self.process.communicate()
