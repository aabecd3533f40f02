"""How a user starts our commands: with the program `lienzo`, or with `python -m` and the name of a package."""

from __future__ import annotations

import re
import sys
from pathlib import Path

PROGRAM = "lienzo"
WITHOUT_NAME = "launcher"  # lienzo submit is python -m launcher submit, and lienzo shards build python -m shards build

COMMAND = re.compile(r"\bpython -m (launcher|shards|slurm|trainer)\b")


def program(package: str) -> list[str]:
    """Return the words that start a package's commands, as the user has started this process.

    Messages name commands in these words: where `lienzo` was typed, `python` may be another one, or not be there.
    """
    if Path(sys.argv[0]).name != PROGRAM:
        return ["python", "-m", package]
    return [PROGRAM] if package == WITHOUT_NAME else [PROGRAM, package]


def as_typed(text: str) -> str:
    """Return a text with each command in it, such as `python -m shards build`, in the words of `program`."""
    return COMMAND.sub(lambda found: " ".join(program(found[1])), text)
