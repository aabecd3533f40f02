"""Slurm's programs on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from slurm.settings import ClusterRefused

# What a development cluster needs, and the Debian packages that have it.
PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmstepd", "scontrol", "sbatch", "srun")
PACKAGES = ("slurm-wlm", "munge")
INSTALL = Path(__file__).parent.parent / "tools" / "install-debian"


def program(name: str) -> str:
    """The path of a program; daemons lie where a user's PATH does not lead. The name itself if it is nowhere."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin:/usr/local/sbin"
    return shutil.which(name, path=path) or name


def missing_programs() -> list[str]:
    """The programs that are not there."""
    return [name for name in PROGRAMS if program(name) == name]


def see_to_programs() -> None:
    """Install what is missing if we may, else say what is missing.

    Raises:
        Refused: something is missing.
    """
    if missing_programs() and os.geteuid() == 0 and shutil.which("apt-get") and INSTALL.exists():
        print(f"installing {' and '.join(PACKAGES)} …")
        subprocess.run([str(INSTALL), *PACKAGES], check=False)
    if missing := missing_programs():
        raise ClusterRefused(f"missing: {', '.join(missing)} (Debian, as root: apt-get install {' '.join(PACKAGES)})")
