"""A process that has imported everything and forks into training processes: `python -m tests.zygote`.

Real processes with real signals, without the seconds that each would spend on imports. What starts one is
`{"env": {…}, "argv": […], "log": PATH, "mistake": NAME}` (fork_server.py).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import signal
from collections.abc import Sequence

import torch
from torch import _dynamo  # noqa: F401  # the first optimizer would import it

from tests.fork_server import ForkServer, know_settings, serve
from tests.planted import MISTAKES
from trainer.__main__ import main
from trainer.commands import sample, train  # noqa: F401  # as above
from trainer.runs.run_folder import RunFolder
from trainer.training import worker  # noqa: F401  # as above


def start(env: dict[str, str], argv: list[str], log: str, mistake: str | None) -> int:
    """Fork, and become a training process in the child, perhaps with a planted mistake."""
    if child := os.fork():
        return child
    code = 1
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(file, stream)
        os.environ.update(env)
        MISTAKES.get(mistake or "", lambda: None)()
        code = main(argv)
    finally:
        os._exit(code)


class Zygote(ForkServer):
    """The other end: starts training processes in groups."""

    def __init__(self) -> None:
        super().__init__("tests.zygote")

    def start(
        self, run: RunFolder, size: int, port: int, *settings: str, mistake: str | None = None, nodes: int = 1
    ) -> list[int]:
        """Start a group of processes that go on with a run, as if on so many nodes; they meet at a store on `port`."""
        pids, each = [], size // nodes
        for rank in range(size):
            places = {"RANK": rank, "LOCAL_RANK": rank % each, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": each}
            env = {name: str(place) for name, place in places.items()}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            env |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
            argv = ["train", "--run", str(run.path), *settings]
            pids.append(self.ask({"env": env, "argv": argv, "log": f"{run.path}.log", "mistake": mistake}))
        return pids

    def wait(self, pids: Sequence[int]) -> list[int]:
        """Return exit codes."""
        return [self.ask({"wait": pid}) for pid in pids]

    def kill(self, pids: Sequence[int]) -> list[int]:
        """SIGKILL all of a group, none of which has time to notice that another is gone, and return exit codes."""
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                os.kill(pid, number)
        return self.wait(pids)


if __name__ == "__main__":
    torch.set_num_threads(1)
    know_settings()
    serve(start)
