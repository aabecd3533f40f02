"""The variables of a shell that reach Slurm's commands, and the jobs that they submit.

Slurm's commands read options from the environment, and for sbatch these override the batch script. A shell inside a job
also has the numbers of that job, which srun takes for options: submitted from there, a job of two nodes would run one
task on one node. So of Slurm's variables only those are passed on that say where the cluster is, and who pays.
"""

from __future__ import annotations

from collections.abc import Mapping

OPTION_PREFIXES = (
    *("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SALLOC_"),
    *("SCANCEL_", "SCONTROL_", "SQUEUE_", "SACCT_", "SINFO_"),
)
CLUSTER_VARIABLES = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT")
SITE_SETTINGS = ("partition", "account", "qos", "constraint")
"""For these, sbatch's variable is used if the profile sets nothing; they reach sbatch through the batch script."""
PASSED_ON = ("SBATCH_RESERVATION", "SBATCH_WCKEY")


def is_option(name: str) -> bool:
    """Return whether a variable is an option of a Slurm command or a fact of another job, which are not passed on."""
    return name.startswith(OPTION_PREFIXES) and name not in (*CLUSTER_VARIABLES, *PASSED_ON)


def without_options(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for Slurm's commands."""
    return {name: value for name, value in environment.items() if not is_option(name)}


def site_default(name: str, environment: Mapping[str, str]) -> str:
    """Return what the user has set for sbatch, for one of SITE_SETTINGS; empty: nothing."""
    return environment.get(f"SBATCH_{name.upper()}", "")
