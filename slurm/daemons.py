"""Start and stop the daemons of a development cluster."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection
from pathlib import Path

from slurm.command_environment import without_options
from slurm.errors import SlurmError
from slurm.node_readiness import log_tail, wait_until_ready
from slurm.processes import CLUSTER_MARK, NODE_MARK, ClusterProcess, Kind, find_processes, stop_processes
from slurm.programs import find_program


class Daemons:
    """The daemons of the cluster in a folder, and the processes that they have started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = str(folder / "slurm.conf")

    def running(self, *kinds: Kind, node: str | None = None) -> list[ClusterProcess]:
        """Return the live processes of some kinds (default: all) and of one node (default: all)."""
        found = find_processes(self.folder)
        return [one for one in found if (not kinds or one.kind in kinds) and node in (None, one.node)]

    def start_all(self, nodes: Collection[str]) -> None:
        """Start everything and wait until the nodes are ready; on any failure nothing is left running.

        Raises:
            SlurmError: it does not start; the message ends with the log that says why.
        """
        try:
            munge = self.folder / "munge"
            # --force: munged refuses a folder below one that others may write to; this key protects nothing else.
            self.start(
                "munged",
                "--force",
                f"--key-file={munge / 'key'}",
                f"--socket={munge / 'socket'}",
                f"--pid-file={self.folder / 'pids' / 'munged'}",
                f"--seed-file={munge / 'seed'}",
                f"--log-file={self.folder / 'logs' / 'munged.log'}",
                "--num-threads=2",
            )
            self.start_controller()
            for node in nodes:
                self.start_node(node)
            wait_until_ready(self.folder, nodes)
        except BaseException:  # Ctrl-C too
            self.stop_all()
            raise

    def start_controller(self) -> None:
        """Start slurmctld, which loads the state that it has saved."""
        self.start("slurmctld", "-f", self.conf)

    def stop_controller(self) -> None:
        """Stop slurmctld, which saves its state; jobs go on without it.

        Raises:
            SlurmError: it survived.
        """
        self.require_ended(stop_processes(lambda: self.running("controller"), gently=True))

    def start_node(self, node: str) -> None:
        """Start a node's slurmd."""
        self.start("slurmd", "-N", node, "-f", self.conf, node=node)

    def start(self, name: str, *arguments: str, node: str = "") -> None:
        """Start a daemon, which puts itself into the background.

        Raises:
            SlurmError: it refused to start.
        """
        # Started inside a job of another cluster, the daemons must not count as processes of that job.
        environment = {
            name: value for name, value in without_options(os.environ).items() if not name.startswith("LIENZO_DEV")
        }
        environment |= {"SLURM_CONF": self.conf, CLUSTER_MARK: str(self.folder)} | ({NODE_MARK: node} if node else {})
        log = self.folder / "logs" / f"{node or name}.log"
        with log.open("a") as said:
            done = subprocess.run(
                [find_program(name), *arguments],
                env=environment,
                cwd="/",  # a daemon must not keep a folder of the user busy
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                timeout=30,
                check=False,
            )
        if done.returncode:
            raise SlurmError(f"{name} did not start; {log_tail(log)}")

    def stop_node(self, node: str) -> None:
        """Kill everything on a node.

        Raises:
            SlurmError: something survived.
        """
        self.require_ended(stop_processes(lambda: self.running("slurmd", "job", node=node)))

    def stop_all(self) -> None:
        """Stop everything; the controller first, so that it saves its state and starts no more jobs.

        Raises:
            SlurmError: something survived.
        """
        self.stop_controller()
        self.require_ended(stop_processes(lambda: self.running("slurmd", "job")))
        self.require_ended(stop_processes(lambda: self.running("munged"), gently=True))

    def require_ended(self, ended: bool) -> None:
        """Raise SlurmError with the processes that survived."""
        if not ended:
            raise SlurmError(f"these do not end: {', '.join(str(one.pid) for one in self.running())}")
