"""Which variables of the shell that submits stay behind: a job is what the plan says, wherever it is submitted from.

Jobs and the doctor's probe use it, so that the probe sees what a job would see.
"""

from __future__ import annotations

from collections.abc import Iterable

from slurm.command_environment import is_option
from trainer.distributed.rank_environment import is_foreign

SHELL = ("SHELLOPTS", "BASHOPTS", "POSIXLY_CORRECT")
"""They would change how bash reads the batch script: `set -e` in the shell that submits is not meant for it."""
GPUS = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
"""They name this machine's GPUs; Slurm names those of the job."""


def stays_behind(name: str) -> bool:
    """Tell whether a variable is not passed on to a job."""
    return is_option(name) or is_foreign(name) or name in SHELL or name in GPUS


def without_inherited(names: Iterable[str], command: list[str]) -> list[str]:
    """Return a command that runs without those of the variables `names` that stay behind; no value is written in it."""
    return ["env", *(f"--unset={name}" for name in sorted(names) if stays_behind(name)), *command]
