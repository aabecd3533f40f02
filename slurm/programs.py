"""Find Slurm's programs on this machine, and install what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from slurm.errors import SlurmUsageError

# What a development cluster needs, and the Debian packages that have it.
PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmstepd", "scontrol", "sbatch", "srun")
PACKAGES = ("slurm-wlm", "munge")
INSTALL = Path(__file__).parent.parent / "tools" / "install-debian"


def find_program(name: str) -> str:
    """Return the path of a program; the name itself if there is none. Daemons lie outside of a user's PATH."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin:/usr/local/sbin"
    return shutil.which(name, path=path) or name


def missing_programs() -> list[str]:
    """Return the names of missing programs."""
    return [name for name in PROGRAMS if find_program(name) == name]


def ensure_programs() -> None:
    """Install missing programs if this is possible: as root, on Debian.

    Raises:
        SlurmUsageError: some are still missing; the message says how to install them.
    """
    # Only as root in a checkout on Debian, as in a container of CI: elsewhere an administrator decides.
    if missing_programs() and os.geteuid() == 0 and shutil.which("apt-get") and INSTALL.exists():
        print(f"installing {' and '.join(PACKAGES)} …")
        subprocess.run([str(INSTALL), *PACKAGES], check=False)
    if missing := missing_programs():
        raise SlurmUsageError(f"missing: {', '.join(missing)} (Debian, as root: apt-get install {' '.join(PACKAGES)})")
