"""`cancel` and `resume`, carried out for the view in processes of their own, which go on when it ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from command_line.printable import printable
from launcher.watch.watched import Watched
from trainer.core.advice import command
from trainer.runs.run_folder import RunFolder

LAST_LINES = 3  # of what a command said, when it has ended


def cancel_words(watched: Watched) -> list[str]:
    """Return the command that saves and ends."""
    return ["cancel", str(watched.path)]


def resume_words(watched: Watched) -> list[str]:
    """Return the command that goes on, with as many nodes as were asked for before."""
    nodes = ["--nodes", watched.nodes_asked] if watched.nodes_asked else []
    return ["resume", str(watched.path), *nodes]


def typed(words: Sequence[str]) -> str:
    """Return a command as its user would type it."""
    return printable(command("launcher", *words))


async def carry_out(words: Sequence[str], path: Path) -> tuple[int, str]:
    """Carry out a command of the launcher; return its exit code, and the last lines that it has said.

    A resume on one machine trains, so this may take days. Whoever stops waiting leaves the process to itself.

    Args:
        words: the command.
        path: the run folder, whose resume.log takes what it says: nobody may be there to read a pipe.

    Raises:
        OSError: the log cannot be written.
    """
    log = RunFolder(path).resume_log
    with log.open("ab") as file:
        start = file.tell()
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "launcher", *words),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            # Neither Ctrl-C nor the end of this terminal is meant for it.
            start_new_session=True,
        )
    code = await child.wait()
    with log.open("rb") as file:
        file.seek(start)
        said = file.read().decode(errors="replace")
    lines = [line for line in said.splitlines() if line.strip()]
    return code, printable("\n".join(lines[-LAST_LINES:]))
