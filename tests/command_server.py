"""Commands as processes of their own, without the seconds that each would spend on imports.

The server has imported what commands import, and forks: `python -m tests.command_server`. What starts a command is
`{"command": […], "folder": PATH, "environment": {…}, "out": PATH, "err": PATH}` (fork_server.py). The processes of ours
that a command starts, such as the ranks of a training, are forks of it in turn.
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
from typing import Any, NoReturn

from tests.fork_server import ForkServer, know_settings, serve

SERVED = "launcher", "trainer", "bench"
"""Packages whose commands import torch."""
FORKING = "launcher", "trainer"
"""Those that compute with one thread, so that the processes that they start can be forks."""
READ_LATE = "PATH", "PYTEST", "SLURM", "WANDB"
"""Beginnings of the names of variables that nothing reads when it is imported."""
TOLD = "RANK", "LOCAL_", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_", "LIENZO_", "OMP_NUM_THREADS"
"""Beginnings of the names of variables that our processes are told by those that start them."""


def become(command: Sequence[str], folder: str, environment: Mapping[str, str]) -> NoReturn:
    """Run a command in this process as `python -m` does in a folder, and end."""
    code: object = 1
    try:
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
    for stream, path in enumerate((os.devnull, out, err)):
        file = os.open(path, os.O_WRONLY if stream else os.O_RDONLY)
        os.dup2(file, stream)
        os.close(file)
    if command[0] in FORKING:
        subprocess.Popen = ForkingPopen  # type: ignore[misc]
    become(command, folder, environment)


class ForkingPopen(subprocess.Popen[Any]):
    """Starts a process of ours by a fork, as it would be after its imports; any other as ever."""

    def _execute_child(
        self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, pass_fds: Any, cwd: Any, env: Any, *rest: Any
    ) -> None:
        environment = dict(os.environ if env is None else env)
        if not is_ours(args, environment):
            super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest)  # type: ignore[misc]
            return
        sys.stdout.flush()  # else the child would write it, too
        sys.stderr.flush()
        stdin, _, _, stdout, _, stderr = pipes = rest[3:9]
        if child := os.fork():
            self.pid, self._child_created = child, True
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]
            return
        os.setsid()
        begin_anew((stdin, stdout, stderr))
        become(args[2:], cwd or os.getcwd(), environment)


def is_ours(args: Any, environment: Mapping[str, str]) -> bool:
    """Tell whether the server has imported what a process needs, and in such an environment."""
    if not isinstance(args, list) or args[:2] != [sys.executable, "-m"] or args[2] not in FORKING:
        return False
    here = os.environ
    changed = {name for name in here.keys() | environment.keys() if here.get(name) != environment.get(name)}
    one_thread = environment.get("OMP_NUM_THREADS", "1") == "1"
    return one_thread and all(name.startswith(TOLD + READ_LATE) for name in changed)


def begin_anew(streams: Sequence[int]) -> None:
    """Leave behind, after a fork, what a new program would not have: open files, signal handlers, what is written.

    Args:
        streams: what becomes standard input, output and error; -1: that of before.
    """
    for stream, file in enumerate(streams):
        if file != -1:
            os.dup2(file, stream)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(k, "w" if k else "r", closefd=False) for k in range(3))


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
        return command[0].partition(".")[0] in SERVED and read_early(environment) == self.environment

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
    for module in ("launcher.cli.submit", "trainer.training.worker", "trainer.commands.sample"):
        import_module(module)
    know_settings()
    serve(start)
