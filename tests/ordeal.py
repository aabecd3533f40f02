"""A run on a real Slurm that is made to suffer, and what must hold of it in the end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from launcher.jobs import attempts
from launcher.jobs.attempts import Attempt, Cause, Decision
from launcher.jobs.job_record import JobRecord
from slurm import control
from slurm.dev_cluster import DevCluster
from tests.conftest import HOME, TINY, fingerprint, run, train
from tests.slurm_cluster import wait_for
from tests.test_same_bits import last_images
from tests.wandb_server import WandbServer
from trainer.runs import journal
from trainer.runs.checkpoint import find_checkpoints
from trainer.runs.run_folder import RunFolder

TOTAL = 9_600  # some ten seconds of training on two cores
CHECKPOINT = 1_024
SETTINGS = [*TINY, "--total-images", str(TOTAL), "--checkpoint-every-images", str(CHECKPOINT)]
SETTINGS += ["--sample-every-images", "4096", "--stall-after-s", "8"]


@dataclass
class Ordeal:
    """One run, the cluster that it is on, and the server that it reports to.

    Args:
        cluster, data, folder: the dev cluster, the shards, and where the run folder will be.
        server: W&B's, in this process; None: the run does not report.
        chance: of what the faults choose by chance.
    """

    cluster: DevCluster
    data: Path
    folder: Path
    server: WandbServer | None = None
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    settings: tuple[str, ...] = ()
    """Besides those of all ordeals."""
    stack: ExitStack = field(default_factory=ExitStack)
    """What must be undone when all was checked."""

    @property
    def run(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.folder)

    @property
    def job(self) -> int:
        """The newest job of the run."""
        return JobRecord.load(self.run).job

    def submit(self, *wanted: str) -> None:
        """Submit it as a user would."""
        tracking = ("--tracking.mode", "online") if self.server else ()
        settings = [*SETTINGS, *tracking, *self.settings, "--data", str(self.data), "--run", str(self.folder)]
        self.command("submit", *settings, *(wanted or ("--nodes", "4")))

    def command(self, *command: str) -> str:
        """Run a command of the launcher, as a user would, and return what it said."""
        environment = self.server.environment() if self.server else {}
        environment |= self.cluster.environment | {"WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1"}
        done = run("launcher", *command, timeout=240, folder=HOME, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def attempts(self) -> list[Attempt]:
        """The attempts so far."""
        return attempts.read_attempts(self.run)

    def wait_for_images(self, images: int) -> None:
        """Wait until the present start has trained so far."""

        def there() -> bool:
            known = self.attempts()
            return bool(known) and known[-1].ended is None and last_images(self.folder) >= images and self.training()

        assert wait_for(there, timeout_s=150), self.story()

    def training(self) -> bool:
        """Tell whether the present start has begun to train."""
        began = self.attempts()[-1].began
        return any(row["kind"] == "start" and row["time"] >= began for row in journal.read_rows(self.run.events))

    def wait_for_start(self, number: int) -> None:
        """Wait until the job was started so many times, the first start being number 0."""

        def there() -> bool:
            return len(self.attempts()) > number

        assert wait_for(there, timeout_s=150), self.story()

    def wait_for_end(self, timeout_s: float = 240) -> Attempt:
        """Wait until the job is over, and return its last attempt."""

        def over() -> bool:
            known = self.attempts()
            decided = bool(known) and known[-1].decision not in (None, Decision.GO_ON)
            job = control.show_job(self.job)
            return decided and (job is None or job.state not in ("PENDING", "RUNNING", "COMPLETING"))

        assert wait_for(over, timeout_s=timeout_s, every_s=0.3), self.story()
        return self.attempts()[-1]

    def causes(self) -> list[Cause | None]:
        """Why each attempt has ended."""
        return [attempt.cause for attempt in self.attempts()]

    def ranks(self) -> dict[int, psutil.Process]:
        """The processes of the ranks, by rank."""
        found = {}
        for pid, _, command in self.cluster.processes():
            if "launcher.jobs.rank" in command and "srun" not in command and str(self.folder) in command:
                try:
                    process = psutil.Process(pid)
                    found[int(process.environ()["SLURM_PROCID"])] = process
                except (psutil.NoSuchProcess, KeyError):
                    continue
        return found

    def kill_rank(self, rank: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to one rank's process alone."""
        ranks = wait_for(lambda: found if rank in (found := self.ranks()) else None, timeout_s=60)
        assert ranks, self.story()
        os.kill(ranks[rank].pid, number)

    def preempt(self, seconds: int = 2) -> None:
        """Let a job of higher priority take all nodes for a moment."""
        command = ["sbatch", "--partition=urgent", f"--nodes={len(self.cluster.nodes())}", "--exclusive"]
        command += ["--output=/dev/null", f"--wrap=sleep {seconds}"]
        subprocess.run(command, env=os.environ | self.cluster.environment, check=True, capture_output=True)

    def story(self) -> str:
        """Tell what is known, for a failed assertion."""
        lines = [str(attempt) for attempt in self.attempts()]
        for log in sorted(self.run.logs.rglob("*")) if self.run.logs.exists() else []:
            if log.is_file() and log.suffix != ".sh":
                lines += [f"--- {log.name} of {log.parent.name}", *log.read_text(errors="replace").splitlines()[-12:]]
        lines += [f"--- squeue\n{self.cluster.ask('squeue')}{self.cluster.ask('sinfo', '-N', '-l')}"]
        return "\n".join(lines)

    def check(self, undisturbed: Path) -> None:
        """Hold the run against one that nothing disturbed: bits, history, checkpoints, processes left behind."""
        assert fingerprint(self.folder) == fingerprint(undisturbed), self.story()
        assert self.run.metrics.read_bytes() == RunFolder(undisturbed).metrics.read_bytes(), self.story()
        for checkpoint in find_checkpoints(self.run.checkpoints):
            checkpoint.verify()
        assert not list(self.run.checkpoints.glob(".writing*")), "half a checkpoint is left"
        assert not self.run.lease.exists(), "the lease is left"
        self.check_no_orphans()
        if self.server:
            self.check_history()

    def check_no_orphans(self) -> None:
        """No process of the job is left on any node, nor one that knows the run folder."""

        def left() -> list[str]:
            named = subprocess.run(["pgrep", "-af", str(self.folder)], capture_output=True, text=True, check=False)
            return [command for _, _, command in self.cluster.processes()] + named.stdout.splitlines()

        assert wait_for(lambda: not left(), timeout_s=70), left()

    def check_history(self) -> None:
        """W&B has each row once, in order, as the run folder has them."""
        assert self.server
        segments = json.loads(self.run.wandb_identity.read_text())["segments"]
        assert len(segments) == 1, segments
        kept = list(journal.read_rows(self.run.metrics))
        rows = [row for row in self.server.history(segments[0]["id"]) if "loss_d" in row]
        assert [row["images_seen"] for row in rows] == [row["images_seen"] for row in kept]
        assert [{key: row[key] for key in mine} for row, mine in zip(rows, kept, strict=True)] == kept
        assert not self.server.unknown


def undisturbed_run(folder: Path, data: Path, *settings: str) -> Path:
    """Train on this machine with two processes, and nothing else happening."""
    train(folder, data, *SETTINGS[len(TINY) :], *settings, processes=2)
    return folder


Fault = Callable[[Ordeal], None]
