"""The log of one process of a job: a file of its own, whose lines bear their time."""

from __future__ import annotations

import io
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO


def redirect_output(path: Path) -> None:
    """Let all that this process says, native libraries included, go to a file of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    # The descriptors, not Python's objects: libraries in C and a crash of the interpreter write to these.
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    os.close(log)


class StampedLines(io.TextIOBase):
    """A stream that puts the time in UTC and a name before each line, as the logs of ranks have them.

    Args:
        stream: that the lines go to.
        name: of who writes.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self.stream, self.name, self.begun = stream, name, ""

    def write(self, text: str) -> int:
        """Write the lines that are complete now."""
        *lines, self.begun = (self.begun + text).split("\n")
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        self.stream.writelines(f"{moment}Z [{self.name}] {line}\n" for line in lines)
        self.stream.flush()
        return len(text)

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        return self.stream.fileno()


def stamp_output(name: str) -> None:
    """Let each line that Python code prints begin with the time and a name."""
    sys.stdout, sys.stderr = StampedLines(sys.stdout, name), StampedLines(sys.stderr, name)
