"""Which of a shell's variables reach Slurm's commands and the jobs that they submit.

Slurm's commands take options from the environment, and for sbatch these win over the batch script. A shell inside a job
has that job's own numbers besides, which srun takes for what is asked of it: submitted from there, a job of two nodes
would run one task on one. So nothing of Slurm's is passed on but what says where the cluster is and who pays.
"""

from __future__ import annotations

from collections.abc import Mapping

OPTION_PREFIXES = (
    *("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SALLOC_"),
    *("SCANCEL_", "SCONTROL_", "SQUEUE_", "SACCT_", "SINFO_"),
)
CLUSTER_VARIABLES = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT")
SITE_SETTINGS = ("partition", "account", "qos", "constraint")
"""Of these, sbatch's variable stands where the profile is silent; they then reach sbatch in the batch script."""
PASSED_ON = ("SBATCH_RESERVATION", "SBATCH_WCKEY")


def is_option(name: str) -> bool:
    """Tell whether a variable is an option of Slurm's or a fact of some other job, neither of which is passed on."""
    return name.startswith(OPTION_PREFIXES) and name not in (*CLUSTER_VARIABLES, *PASSED_ON)


def without_options(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for Slurm's commands."""
    return {name: value for name, value in environment.items() if not is_option(name)}


def site_default(name: str, environment: Mapping[str, str]) -> str:
    """Return what a user has set for sbatch, of SITE; empty: nothing."""
    return environment.get(f"SBATCH_{name.upper()}", "")
