"""The processes of a training, started without a parent as a cluster does, on as many nodes as a test pretends."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # re-exported without a word

from tests.command_server import CommandServer
from tests.conftest import HOME, TINY, command_server
from trainer.runs.run_folder import RunFolder


@dataclass
class Ranks:
    """Some processes, and where they meet."""

    processes: list[subprocess.Popen[str]]
    store: TCPStore

    def wait(self) -> list[int]:
        """Return the exit codes when all have ended."""
        return [process.wait() for process in self.processes]

    def ended(self) -> bool:
        """Tell whether any has ended."""
        return any(process.poll() is not None for process in self.processes)

    def kill(self) -> list[int]:
        """SIGKILL all, none of which has time to notice that another is gone, and return the exit codes."""
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in self.processes:
                process.send_signal(number)
        return self.wait()


def start_ranks(run: RunFolder, size: int, *settings: str, mistake: str | None = None, nodes: int = 1) -> Ranks:
    """Begin or go on with a run in so many processes, as if on so many nodes, perhaps with a mistake of planted.py."""
    return start(["train", "--run", str(run.path), *settings], size, Path(f"{run.path}.log"), mistake, nodes)


def start(
    command: Sequence[str],
    size: int,
    log: Path,
    mistake: str | None = None,
    nodes: int = 1,
    server: CommandServer | None = None,
) -> Ranks:
    """Start a command of the trainer in so many processes, which write into one log; only a training knows of ranks."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    module = ["tests.planted", mistake] if mistake else ["trainer"]
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    each = size // nodes
    processes = []
    for rank in range(size):
        places = {"RANK": rank, "LOCAL_RANK": rank % each, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": each}
        told = {name: str(place) for name, place in places.items()} if command[0] == "train" else {}
        with log.open("a") as out:
            streams = {"stdout": out, "stderr": out, "start_new_session": True}
            process = (server or command_server()).begin([*module, *command], HOME, os.environ | meet | told, **streams)
        processes.append(process)
    return Ranks(processes, store)


def train_planted(mistake: str, folder: Path, data: Path, processes: int, *settings: str) -> None:
    """Train a tiny run with a mistake planted."""
    ranks = start_ranks(RunFolder(folder), processes, *TINY, "--data", str(data), *settings, mistake=mistake)
    assert ranks.wait() == [0] * processes, Path(f"{folder}.log").read_text()
