"""Commands as processes of their own, without the seconds that each would spend on imports.

The server has imported what commands import, and forks: `python -m tests.command_server`. The processes of ours that a
command starts, such as the ranks of a training, are forks of it in turn. Its standard input is a socket: it reads one
JSON object a packet, with open files beside it, and answers each with a number.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from command_line.loading import loading

HOME = Path(__file__).parent.parent
PACKET = 1 << 20  # bytes
WIDE = " " * 4096  # a last argument, whose room the names of forks take (rename)
SERVED = "launcher", "trainer", "bench", "tests.planted"
"""Packages and modules whose commands import torch."""
FORKING = "launcher", "trainer"
"""Those that compute with one thread, so that the processes that they start can be forks."""
READ_LATE = "PATH", "PYTEST", "SLURM", "WANDB"
"""Beginnings of the names of variables that nothing reads when it is imported."""
TOLD = "RANK", "LOCAL_", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_", "LIENZO_", "OMP_NUM_THREADS"
"""Beginnings of the names of variables that our processes are told by those that start them."""


def serve() -> None:
    """Until the other end closes, start commands, or with `{"wait": PID}` wait for one and tell its exit code."""
    with socket.socket(fileno=0) as other:
        while True:
            said, streams, _, _ = socket.recv_fds(other, PACKET, 3)
            if not said:
                return
            asked = json.loads(said)
            if pid := asked.get("wait"):
                answer = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            else:
                answer = start(**asked, streams=streams)
            for stream in streams:
                os.close(stream)
            other.send(str(answer).encode())


def know_settings() -> None:
    """Let the parser read the docstrings of a training's settings, which it remembers."""
    from command_line.arguments import parse
    from trainer.commands.train import Train

    parse(Train, ["--run", "."], "")


def become(command: Sequence[str], folder: str, environment: Mapping[str, str]) -> NoReturn:
    """Run a command in this process as `python -m` does in a folder, and end."""
    code: object = 1
    try:
        rename([sys.executable, "-m", *command])
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


def rename(words: Sequence[str]) -> None:
    """Let this process have a command line in lists of processes, in place of the server's."""
    first, end = (int(field) for field in Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(first)
        memory.write("\0".join(words).encode()[: end - first - 1].ljust(end - first, b"\0"))


def start(
    command: Sequence[str], folder: str, environment: Mapping[str, str], session: bool, streams: Sequence[int]
) -> int:
    """Fork, and become the command in the child; `session`: in one of its own."""
    if child := os.fork():
        return child
    if session:
        os.setsid()
    begin_anew(streams)
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
    ours = isinstance(args, list) and args[:2] == [sys.executable, "-m"] and args[2] in FORKING
    return ours and read_early(environment) == read_early(os.environ)


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
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)


def read_early(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a module may read when it is imported; one thread is what our commands ask for."""
    early = {name: value for name, value in environment.items() if not name.startswith(TOLD + READ_LATE)}
    return early | {"OMP_NUM_THREADS": environment.get("OMP_NUM_THREADS", "1")}


class ServedProcess(subprocess.Popen[Any]):
    """A command that the server starts: its parent is not this process, but the server.

    Args:
        streams: stdin, stdout and stderr, as of any Popen.
    """

    def __init__(
        self,
        server: CommandServer,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        **streams: Any,
    ) -> None:
        self.server, session = server, streams.pop("start_new_session", False)
        self.question = {"command": command, "folder": str(folder), "environment": {**environment}, "session": session}
        super().__init__([sys.executable, "-m", *command], **streams)

    def _execute_child(self, *given: Any) -> None:
        stdin, _, _, stdout, _, stderr = pipes = given[10:16]
        streams = [own if stream == -1 else stream for own, stream in enumerate((stdin, stdout, stderr))]
        self.pid = self.server.ask(self.question, streams)
        self._child_created = True
        self.over = os.pidfd_open(self.pid)
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        return self.ended(0)

    def _wait(self, timeout: float | None) -> int:
        if (code := self.ended(timeout)) is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def ended(self, timeout: float | None) -> int | None:
        """Wait for the end, and return the exit code; None: it has not come in time."""
        if self.returncode is None and select.select([self.over], [], [], timeout)[0]:
            self.returncode = self.server.ask({"wait": self.pid})
            os.close(self.over)
        return self.returncode


class CommandServer:
    """The other end. A command that is told another environment than the server's is started as any other process."""

    def __init__(self) -> None:
        self.socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.command_server", WIDE], stdin=its.fileno(), cwd=HOME
            )
        self.environment = read_early(os.environ)

    def ask(self, question: Mapping[str, object], streams: Sequence[int] = ()) -> int:
        """Send a question, with open files, and return the answer."""
        socket.send_fds(self.socket, [json.dumps(question).encode()], streams)
        return int(self.socket.recv(PACKET))

    def close(self) -> None:
        """End the server."""
        self.socket.close()
        self.process.wait()

    def serves(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Tell whether a command that is started now would be the same from the server."""
        served = command[0] in SERVED or command[0].partition(".")[0] in SERVED
        return served and read_early(environment) == self.environment

    def begin(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], **streams: Any
    ) -> subprocess.Popen[str]:
        """Start a command in a folder, from here where that is the same; `streams` are those of Popen."""
        if self.serves(command, environment):
            return ServedProcess(self, command, folder, environment, text=True, **streams)
        argv = [sys.executable, "-m", *command]
        return subprocess.Popen(argv, cwd=folder, env=environment, text=True, **streams)

    def run(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end.

        Raises:
            TimeoutExpired: it took longer, and was killed.
        """
        # Files, as what outlives the command would hold a pipe open.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = self.begin(command, folder, environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            late = None
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired as error:
                late = error
                process.kill()
                process.wait()
            said = [file.read() for file in (out, err) if not file.seek(0)]
        if late:
            raise subprocess.TimeoutExpired([*command], timeout, *said) from late
        return subprocess.CompletedProcess([*command], process.returncode, *said)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch, as the commands do
    ours = "launcher.cli.submit", "trainer.training.worker", "trainer.commands.sample"
    late = "torch._dynamo", "torch.distributed.tensor", "numpy.ma"  # what the first step imports
    with loading():
        for module in (*ours, *late):
            import_module(module)
        know_settings()
    serve()
