"""The settings of a development cluster."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from slurm.errors import SlurmUsageError

CLUSTER_NAME = "lienzo-dev"


@dataclass(frozen=True)
class DevClusterSettings:
    """The settings of a development cluster."""

    nodes: int = 4
    """How many nodes: n1, n2, and so on."""
    cores: int = 2
    """Cores of each node, as Slurm counts them; the machine may have fewer."""
    memory_mb: int = 4096
    """Memory of each node, as Slurm counts it."""
    grace_s: int = 20
    """GraceTime of `main`: what a preempted job has between the signal and SIGKILL."""
    signal_style: Literal["term", "user"] = "term"
    """What a preempted job gets: SIGTERM, or the signal it asked for (sbatch --signal)."""
    kill_wait_s: int = 5
    """KillWait: from SIGTERM to SIGKILL at the time limit."""
    requeue: Literal["yes", "no"] = "yes"
    """no: a site where batch jobs are never requeued, whatever they ask for."""
    requeue_delay_s: int = 10
    """How long a requeued job waits (Slurm's own default: 120)."""
    time_limit: str = "UNLIMITED"
    """The longest job in `main`, in Slurm's notation: minutes, or [days-]hours:minutes:seconds."""

    @property
    def names(self) -> list[str]:
        """The nodes' names."""
        return [f"n{number}" for number in range(1, self.nodes + 1)]

    def check(self) -> None:
        """Check all settings.

        Raises:
            SlurmUsageError: naming one that is impossible.
        """
        if not 1 <= self.nodes <= 64:
            raise SlurmUsageError(f"--nodes must be between 1 and 64, but is {self.nodes}")
        for name in ("cores", "memory_mb", "requeue_delay_s"):
            if getattr(self, name) < 1:
                raise SlurmUsageError(f"--{name.replace('_', '-')} must be positive, but is {getattr(self, name)}")
        for name in ("grace_s", "kill_wait_s"):
            if getattr(self, name) < 0:
                raise SlurmUsageError(f"--{name.replace('_', '-')} must not be negative, but is {getattr(self, name)}")
        if not re.fullmatch(r"UNLIMITED|\d+|(\d+-)?\d+(:\d+){0,2}", self.time_limit):
            raise SlurmUsageError(
                f"--time-limit must be minutes, days-hours or hours:minutes:seconds, but is {self.time_limit}"
            )

    def save(self, path: Path) -> None:
        """Write the settings as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")


def load_settings(path: Path) -> DevClusterSettings | None:
    """Read the settings; None: there are none, or another version of this program wrote them."""
    try:
        return DevClusterSettings(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
