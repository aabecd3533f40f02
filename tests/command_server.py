"""Commands as processes of their own, without the seconds that each would spend on imports.

The server has imported what commands import, and forks: `python -m tests.command_server`. What starts a command is
`{"command": […], "folder": PATH, "environment": {…}, "out": PATH, "err": PATH}` (fork_server.py).
"""

from __future__ import annotations

import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from tests.fork_server import ForkServer, serve

SERVED = "launcher", "trainer"
"""Packages whose commands import torch."""
READ_LATE = "PATH", "PYTEST", "SLURM", "WANDB"
"""Beginnings of the names of variables that nothing reads when it is imported."""


def become(command: Sequence[str], folder: str, environment: Mapping[str, str], out: str, err: str) -> NoReturn:
    """Run a command in this process as `python -m` does in a folder, and end."""
    code: object = 1
    try:
        for stream, path in enumerate((os.devnull, out, err)):
            file = os.open(path, os.O_WRONLY if stream else os.O_RDONLY)
            os.dup2(file, stream)
            os.close(file)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = list(command)
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        if isinstance(code, str):
            print(code, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def start(command: Sequence[str], folder: str, environment: Mapping[str, str], out: str, err: str) -> int:
    """Fork, and become the command in the child."""
    if child := os.fork():
        return child
    become(command, folder, environment, out, err)


def read_early(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a module may read when it is imported."""
    return {name: value for name, value in environment.items() if not name.startswith(READ_LATE)}


class CommandServer(ForkServer):
    """The other end. A command that is told another environment than the server's is started as any other process."""

    def __init__(self) -> None:
        super().__init__("tests.command_server")
        self.environment = read_early(os.environ)

    def serves(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Tell whether a command that is started now would be the same from the server."""
        return command[0] in SERVED and read_early(environment) == self.environment

    def run(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end.

        Raises:
            TimeoutExpired: it took longer, and was killed.
        """
        start = {"command": command, "folder": str(folder), "environment": dict(environment)}
        with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
            pid = self.ask(start | {"out": out.name, "err": err.name})
            over = os.pidfd_open(pid)
            if in_time := bool(select.select([over], [], [], timeout)[0]):
                code = self.ask({"wait": pid})
            else:
                os.kill(pid, signal.SIGKILL)
                self.ask({"wait": pid})
            os.close(over)
            said = [Path(file.name).read_text() for file in (out, err)]
        if not in_time:
            raise subprocess.TimeoutExpired([*command], timeout, *said)
        return subprocess.CompletedProcess([*command], code, *said)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch, as the commands do
    for module in ("launcher.cli.submit", "trainer.commands.train", "trainer.commands.sample"):
        import_module(module)
    serve(start)
