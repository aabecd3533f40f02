"""A real Slurm with several nodes on this one machine, in one folder: start it, fail and heal its nodes, stop it."""

from __future__ import annotations

import fcntl
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from command_line.program import program
from slurm.client import run_slurm
from slurm.configuration import check_folder, write_configuration
from slurm.daemons import Daemons
from slurm.dev_settings import DevClusterSettings, load_settings
from slurm.errors import SlurmUsageError
from slurm.node_readiness import wait_until_ready
from slurm.parsing import as_job, as_node, parse_records
from slurm.programs import ensure_programs
from slurm.records import Node, SlurmJob

FOLDER = ".slurm-dev"  # the usual one, in the current folder


class DevCluster:
    """The development cluster in a folder.

    FOLDER/ settings.json  the settings of `up`
            slurm.conf     export SLURM_CONF=FOLDER/slurm.conf to use it
            logs/          munged.log, slurmctld.log, and one log per node
            munge/         its key and its socket
            pids/ lock     and Slurm's own: spool/ state/
    """

    def __init__(self, folder: Path | str = FOLDER) -> None:
        self.folder = Path(folder).resolve()  # processes are found by this path in their environment
        self.conf, self.settings_file = self.folder / "slurm.conf", self.folder / "settings.json"
        self.environment = {"SLURM_CONF": str(self.conf)}
        self.daemons = Daemons(self.folder)

    def up(self, settings: DevClusterSettings | None = None) -> bool:
        """Start the cluster, and wait until all nodes are ready. False: it was up already, with the same settings.

        Raises:
            SlurmUsageError: a setting or the folder is impossible, or something is missing.
            SlurmError: it does not start; the message ends with the log that says why.
        """
        settings = settings or DevClusterSettings()
        settings.check()
        check_folder(self.folder)
        ensure_programs()
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.locked():  # two commands `up` at once start one cluster
            if self.is_up():
                if load_settings(self.settings_file) != settings:
                    down = self.command("down")
                    raise SlurmUsageError(
                        f"a cluster with other settings is up in {self.folder}: stop it first with: {down}"
                    )
                return False
            self.daemons.stop_all()  # what a killed `up` or a crashed controller has left
            settings.save(self.settings_file)
            write_configuration(self.folder, settings)
            self.daemons.start_all(settings.names)  # last: its processes hold the ports that were just written
        return True

    def down(self) -> None:
        """Stop its daemons and every process of its jobs. Pending jobs are pending again after `up`."""
        if not self.exists():
            raise SlurmUsageError(f"no cluster lives in {self.folder}; start one with: {self.command('up')}")
        with self.locked():
            self.daemons.stop_all()

    def fail(self, node: str) -> None:
        """Make a node fail: SIGKILL to its slurmd and to every process on it.

        Raises:
            SlurmUsageError: there is no such node, or it is dead already.
        """
        self.require_node(node)
        with self.locked():
            if not self.daemons.running("slurmd", node=node):
                raise SlurmUsageError(f"{node} is dead already: bring it back with: {self.command('heal', node)}")
            self.daemons.stop_node(node)

    def heal(self, node: str) -> None:
        """Bring a failed or drained node back, and wait until it is ready.

        Raises:
            SlurmUsageError: there is no such node.
            SlurmError: it does not come back.
        """
        self.require_node(node)
        with self.locked():
            if not self.daemons.running("slurmd", node=node):
                self.daemons.start_node(node)
            # A drained node has its slurmd: that one is only returned to service, by `wait_until_ready`.
            wait_until_ready(self.folder, {node})

    def drain(self, node: str, reason: str = "drained by hand") -> None:
        """Drain a node: it finishes its jobs and takes no more."""
        self.require_node(node)
        self.ask("scontrol", "update", f"NodeName={node}", "State=DRAIN", f"Reason={reason}")

    def restart_controller(self, away_s: float = 0.0) -> None:
        """Stop slurmctld, and start it again after a while; jobs go on meanwhile."""
        settings = self.require_up()
        with self.locked():
            self.daemons.stop_controller()
            time.sleep(away_s)
            self.daemons.start_controller()
            wait_until_ready(self.folder, set(settings.names))

    def processes(self, node: str | None = None) -> list[tuple[int, str, str]]:
        """Return pid, node and command of processes of jobs: slurmstepd, batch scripts, srun, tasks, their children."""
        return [(one.pid, one.node, one.command) for one in self.daemons.running("job", node=node)]

    def exists(self) -> bool:
        """Return whether the folder holds a cluster, made by any version."""
        return self.settings_file.exists()

    def is_up(self) -> bool:
        """Return whether its controller runs."""
        return bool(self.daemons.running("controller"))

    def nodes(self) -> list[Node]:
        """Return its nodes, as Slurm sees them."""
        return [as_node(fields) for fields in parse_records(self.ask("scontrol", "show", "node"))]

    def jobs(self) -> list[SlurmJob]:
        """Return the jobs that its controller remembers."""
        return [as_job(fields) for fields in parse_records(self.ask("scontrol", "show", "job")) if "JobId" in fields]

    def ask(self, *command: str) -> str:
        """Run a Slurm command on this cluster, and return what it printed."""
        return run_slurm(*command, environment=self.environment)

    def command(self, *words: str) -> str:
        """Return a command of `python -m slurm` for this cluster, which can be copied into a shell."""
        usual = self.folder == Path(FOLDER).resolve()
        return shlex.join([*program("slurm"), *words, *([] if usual else ["--folder", str(self.folder)])])

    def require_up(self) -> DevClusterSettings:
        """Return the settings of the cluster.

        Raises:
            SlurmUsageError: it is not up.
        """
        if not self.is_up():
            what = "is up" if self.exists() else "lives"
            raise SlurmUsageError(f"no cluster {what} in {self.folder}; start one with: {self.command('up')}")
        if (settings := load_settings(self.settings_file)) is None:
            renew = f"{self.command('down')} && {self.command('up')}"
            raise SlurmUsageError(
                f"another version has brought up the cluster in {self.folder}; renew it with: {renew}"
            )
        return settings

    def require_node(self, node: str) -> None:
        """Check that the cluster is up and has a node.

        Raises:
            SlurmUsageError: it is not up, or has no such node.
        """
        if node not in (names := self.require_up().names):
            raise SlurmUsageError(f"there is no node {node}: {', '.join(names)}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the cluster, so that two commands never change it at the same time."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
