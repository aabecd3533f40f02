"""Where a run is trained."""

from __future__ import annotations

import shutil
from typing import Literal

from trainer.settings import Refused

Cluster = Literal["auto", "local", "slurm"]


def choose(cluster: Cluster, nodes: int) -> str:
    """Say in words where the run is trained: this machine, until this version learns to submit to Slurm.

    Raises:
        Refused: Slurm is asked for.
    """
    here = shutil.which("sbatch") is not None
    if cluster == "slurm":
        found = "this version does not submit to it yet" if here else "there is none here: sbatch is not on the PATH"
        raise Refused(f"--cluster slurm: {found}; use --cluster local to train on this machine")
    why = "" if cluster == "local" else "Slurm is not used yet: " if here else "no Slurm here: "
    instead = f" in place of {nodes} nodes" if nodes > 1 else ""
    return f"{why}this machine{instead}"
