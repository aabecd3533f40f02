"""A real Slurm with several nodes on this one machine, in one folder: bring it up, break it, mend it, take it down."""

from __future__ import annotations

import fcntl
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slurm.commands import ask
from slurm.configuration import check_folder, write_configuration
from slurm.daemons import Daemons
from slurm.parsing import as_job, as_node, records
from slurm.programs import see_to_programs
from slurm.readiness import wait_until_ready
from slurm.records import Job, Node
from slurm.settings import ClusterRefused, Settings, load

FOLDER = ".slurm-dev"  # the usual one, in the current folder


class DevCluster:
    """The development cluster in a folder.

    FOLDER/ settings.json  what `up` was told
            slurm.conf     export SLURM_CONF=FOLDER/slurm.conf to use it
            logs/          munged.log, slurmctld.log, and one log per node
            munge/         its key and its socket
            pids/ lock     and Slurm's own: spool/ state/
    """

    def __init__(self, folder: Path | str = FOLDER) -> None:
        self.folder = Path(folder).resolve()
        self.conf, self.told = self.folder / "slurm.conf", self.folder / "settings.json"
        self.environment = {"SLURM_CONF": str(self.conf)}
        self.daemons = Daemons(self.folder)

    def up(self, settings: Settings | None = None) -> bool:
        """Bring it up, and wait until all nodes are ready. False: it was up already, with the same settings.

        Raises:
            Refused: a setting or the folder is impossible, or something is missing.
            SlurmError: it does not come up; the message has the end of the log that tells why.
        """
        settings = settings or Settings()
        settings.check()
        check_folder(self.folder)
        see_to_programs()
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.locked():
            if self.is_up():
                if load(self.told) != settings:
                    down = self.command("down")
                    raise ClusterRefused(
                        f"a cluster with other settings is up in {self.folder}: stop it first with: {down}"
                    )
                return False
            self.daemons.stop_all()  # what a killed `up` or a lost controller has left
            settings.save(self.told)
            write_configuration(self.folder, settings)
            self.daemons.start_all(settings.names)
        return True

    def down(self) -> None:
        """Stop its daemons and everything that its jobs run. Its state stays: what waited waits again after `up`."""
        if not self.lives():
            raise ClusterRefused(f"no cluster lives in {self.folder}; start one with: {self.command('up')}")
        with self.locked():
            self.daemons.stop_all()

    def fail(self, node: str) -> None:
        """Let a node die: SIGKILL to its slurmd and to every process on it.

        Raises:
            Refused: there is no such node, or it is dead already.
        """
        self.must_have(node)
        with self.locked():
            if not self.daemons.running("slurmd", node=node):
                raise ClusterRefused(f"{node} is dead already: bring it back with: {self.command('heal', node)}")
            self.daemons.stop_node(node)

    def heal(self, node: str) -> None:
        """Bring a failed or drained node back, and wait until it is ready.

        Raises:
            Refused: there is no such node.
            SlurmError: it does not come back.
        """
        self.must_have(node)
        with self.locked():
            if not self.daemons.running("slurmd", node=node):
                self.daemons.start_node(node)
            wait_until_ready(self.folder, {node})

    def drain(self, node: str, reason: str = "drained by hand") -> None:
        """Let a node end what it runs and take no more jobs."""
        self.must_have(node)
        self.ask("scontrol", "update", f"NodeName={node}", "State=DRAIN", f"Reason={reason}")

    def restart_controller(self, away_s: float = 0.0) -> None:
        """Let slurmctld go, and come back after a while; jobs go on meanwhile."""
        settings = self.must_be_up()
        with self.locked():
            self.daemons.stop_controller()
            time.sleep(away_s)
            self.daemons.start_controller()
            wait_until_ready(self.folder, set(settings.names))

    def processes(self, node: str | None = None) -> list[tuple[int, str, str]]:
        """Pid, node and command of what jobs run: slurmstepd, batch scripts, srun, tasks and their children."""
        return [(one.pid, one.node, one.command) for one in self.daemons.running("job", node=node)]

    def lives(self) -> bool:
        """Whether the folder is that of a cluster, whatever version has made it."""
        return self.told.exists()

    def is_up(self) -> bool:
        """Whether its controller runs."""
        return bool(self.daemons.running("controller"))

    def nodes(self) -> list[Node]:
        """Its nodes, as Slurm sees them."""
        return [as_node(fields) for fields in records(self.ask("scontrol", "show", "node"))]

    def jobs(self) -> list[Job]:
        """The jobs that it remembers."""
        return [as_job(fields) for fields in records(self.ask("scontrol", "show", "job")) if "JobId" in fields]

    def ask(self, *command: str) -> str:
        """Run a command of Slurm on this cluster, and return what it printed."""
        return ask(*command, environment=self.environment)

    def command(self, *words: str) -> str:
        """Return a command of `python -m slurm` for this cluster, which can be copied into a shell."""
        usual = self.folder == Path(FOLDER).resolve()
        return shlex.join(["python", "-m", "slurm", *words, *([] if usual else ["--folder", str(self.folder)])])

    def must_be_up(self) -> Settings:
        """Refuse to go on without a cluster that is up."""
        if not self.is_up():
            what = "is up" if self.lives() else "lives"
            raise ClusterRefused(f"no cluster {what} in {self.folder}; start one with: {self.command('up')}")
        if (settings := load(self.told)) is None:
            renew = f"{self.command('down')} && {self.command('up')}"
            raise ClusterRefused(f"another version has brought up the cluster in {self.folder}; renew it with: {renew}")
        return settings

    def must_have(self, node: str) -> None:
        """Refuse to go on unless the cluster is up and has that node."""
        if node not in (names := self.must_be_up().names):
            raise ClusterRefused(f"there is no node {node}: {', '.join(names)}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else change the cluster meanwhile."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
