"""What the doctor's probe is started with: the command and the environment that a job's ranks would have."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from launcher.jobs.batch_script import apptainer_arguments
from launcher.jobs.environment_reset import stays_behind
from slurm.command_environment import PASSED_ON
from slurm.job_environment import interface_variables
from slurm.profile import Profile
from slurm.records import Partition
from trainer.distributed.rank_environment import is_foreign

# A probe takes seconds; a short limit lets Slurm fit it in between other jobs.
LIMIT_MIN = 15


@dataclass(frozen=True)
class ProbePlan:
    """What is to be probed."""

    folder: Path
    """Empty, on the file system under test."""
    size: int
    where: Partition | None
    """None: this machine, without Slurm."""
    gpus: int
    """Of each node; 0 on this machine: the probe looks itself."""
    profile: Profile

    def command(self) -> list[str]:
        """Return what starts the probes."""
        probe = ["-m", "launcher.doctor.probe", str(self.folder)]
        if self.where is None:
            return [sys.executable, *probe]
        site = self.profile
        values = {"partition": self.where.name, "account": site.account, "qos": site.qos, "constraint": site.constraint}
        values |= {
            "nodes": str(self.size),
            "ntasks-per-node": "1",
            "time": str(time_limit(self.where)),
            "job-name": "lienzo-doctor",
        }
        if self.gpus:
            # One probe a node, which starts a rank a GPU; with the cores that a run would have there.
            values |= {"gpus-per-node": str(self.gpus)}
            values |= {"cpus-per-task": str(max(1, self.where.cores_per_node * self.gpus // self.where.gpus_per_node))}
        values |= {"mem": f"{site.memory_gb}GB"} if site.memory_gb else {}
        if site.container == "pyxis":
            values |= {"container-image": site.image, "container-mounts": ",".join(site.mounts)}
        arguments = [f"--{name}={value}" for name, value in values.items() if value]
        inside = ["apptainer", "exec", *apptainer_arguments(site), site.image] if site.container == "apptainer" else []
        python = site.python or sys.executable
        # --label: lines say which task they are of, for start.py. --unbuffered: also the last ones before a death.
        srun = ["srun", "--label", "--unbuffered", *arguments, *site.srun, *inside, python, *probe]
        # The lines of the profile act on the environment that srun passes on, as they do in a batch script.
        return ["bash", "-c", "\n".join([*site.setup, 'exec "$@"']), "bash", *srun] if site.setup else srun

    def environment(self, code: Path) -> dict[str, str]:
        """Return the probes' environment; a job that this command itself runs in stays out of it."""
        # On this machine GPU variables are the user's choice of a device, and nothing reads Slurm's.
        left_out = stays_behind if self.where else is_foreign
        kept = {name: value for name, value in os.environ.items() if not left_out(name)}
        # What sbatch reads as SBATCH_RESERVATION, srun reads as SLURM_RESERVATION.
        kept |= {"SLURM_" + name.removeprefix("SBATCH_"): os.environ[name] for name in PASSED_ON if name in os.environ}
        kept |= {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        if self.profile.interface:
            kept |= interface_variables(self.profile.interface)
        return kept | dict(variable.split("=", 1) for variable in self.profile.environment)


def time_limit(where: Partition) -> int:
    """Return the minutes of the doctor's own job."""
    return min(LIMIT_MIN, where.max_time_min or LIMIT_MIN)
