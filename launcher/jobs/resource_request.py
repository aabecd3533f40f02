"""Where a run is trained, and what is asked of it."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from slurm import control
from trainer.core.fields import Refused

ClusterName = Literal["auto", "local", "slurm"]


@dataclass(frozen=True)
class ResourceRequest:
    """What a job asks for; what is left out comes from the profile, then from the cluster."""

    nodes: str = "1"
    """How many nodes: 4, or 2-4 for what is free; any number gives the same bits."""
    cluster: ClusterName = "auto"
    """auto: Slurm if it is there, else this machine."""
    gpus_per_node: int | None = None
    """GPUs of each node; default: all that the partition's nodes have."""
    time: str | None = None
    """Time limit of one attempt of the job: minutes, hours:minutes:seconds, days-hours."""
    partition: str | None = None
    """Slurm's partition; default: the cluster's."""
    profile: str | None = None
    """A site profile: a .toml file, or the name of an example in slurm/profiles."""
    name: str | None = None
    """The job's name; default: the run folder's."""
    after: Path | None = None
    """Start when the job of this other run has ended."""


def use_slurm(resources: ResourceRequest) -> bool:
    """Decide where to train.

    Raises:
        Refused: Slurm is asked for, and is not here.
    """
    # Before Slurm is looked for: where it is broken, this is how to do without.
    if resources.cluster == "local":
        return False
    try:
        found = control.find_cluster()
    except control.SlurmError as error:
        raise Refused(f"Slurm cannot be used: {error}; with --cluster local, training is on this machine") from error
    if found is None and resources.cluster == "slurm":
        why = "is not answering" if shutil.which("sbatch") else "is not here: sbatch is not on the PATH"
        raise Refused(
            f"--cluster slurm: Slurm {why}; use --cluster local to train on this machine, or try a cluster on this "
            "machine with: python -m slurm up"
        )
    return found is not None


def describe_this_machine(resources: ResourceRequest) -> str:
    """Say in words that a run is trained here, and what was asked of Slurm in vain."""
    why = "" if resources.cluster == "local" else "no Slurm here: "
    instead = f" in place of {resources.nodes} nodes" if resources.nodes != "1" else ""
    idle = [
        f.name
        for f in fields(ResourceRequest)
        if f.name not in ("nodes", "cluster") and getattr(resources, f.name) is not None
    ]
    without = "".join(f", --{name.replace('_', '-')}" for name in idle)
    return f"{why}this machine{instead}" + (f" (not used, as they are of Slurm: {without[2:]})" if idle else "")


def refuse_processes(named: bool, job_has_gpus: bool) -> None:
    """Refuse to say how many processes there are on Slurm: its nodes decide.

    Args:
        named: the command line says how many.
        job_has_gpus: what there is one process of: a GPU, or a core.

    Raises:
        Refused: the command line does.
    """
    if named:
        what = "GPU: use --gpus-per-node" if job_has_gpus else "core, and at most one a micro-batch: use --nodes"
        raise Refused(f"--processes is of this machine, as with --cluster local; on Slurm there is one a {what}")


def node_range(nodes: str) -> tuple[int, int]:
    """Read 4, or 2-4.

    Raises:
        Refused: it is neither.
    """
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", nodes)
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= least <= most:
        raise Refused(f"--nodes must be a number such as 4, or a range such as 2-4, but is {nodes!r}")
    return least, most
