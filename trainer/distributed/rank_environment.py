"""The environment of a rank: all of its parent's, but for what would tell it something else than its parent does.

Variables of torchrun, accelerate and MPI in a shell (inside another job, a notebook, an operator's container) would
change a rank's place or its device; those of thread libraries and of Python what it computes, or whether it lives.
docs/cluster.md has the list for users.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from trainer.core.fields import Refused

PLACES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "NODE_RANK")
RENDEZVOUS = ("MASTER_ADDR", "MASTER_PORT")
FOREIGN = {
    *PLACES,
    *RENDEZVOUS,
    *("ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME", "FORK_LAUNCHED"),
    # One thread a process: OMP_NUM_THREADS says it to all, unless one of these says otherwise.
    *("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "BLIS_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DYNAMIC"),
    *("OMP_DYNAMIC", "OMP_PROC_BIND", "OMP_PLACES", "OMP_THREAD_LIMIT", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"),
    # A library's warning is no reason to end a training; nor is a prompt wanted after it.
    *("PYTHONWARNINGS", "PYTHONINSPECT", "PYTHONOPTIMIZE"),
    "WANDB_SERVICE",  # the W&B process of the program that started us, which ends with it
}
FOREIGN_PREFIXES = ("TORCHELASTIC_", "ACCELERATE_", "FSDP_", "PMI_", "PMIX_", "OMPI_", "MV2_", "I_MPI_", "MPI_LOCAL")

COUNTED_BY = {
    "srun": "SLURM_STEP_NUM_TASKS",
    "mpirun": "OMPI_COMM_WORLD_SIZE",
    "mpiexec": "PMI_SIZE",
    "mpirun_rsh": "MV2_COMM_WORLD_SIZE",
}
"""Program that starts several processes: the variable by which it tells them how many."""

CHANGES_BITS = (
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
    *("ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
)
"""Passed on, and a part of the numerical environment that is recorded and compared."""


def is_foreign(name: str) -> bool:
    """Tell whether a variable is not passed on to a rank."""
    return name in FOREIGN or name.startswith(FOREIGN_PREFIXES)


def own_environment(parent: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that we start: what comes from other launchers stays behind."""
    return {name: value for name, value in parent.items() if not is_foreign(name)} | {"OMP_NUM_THREADS": "1"}


def rank_environment(
    parent: Mapping[str, str], rank: int, local_rank: int, size: int, local_size: int
) -> dict[str, str]:
    """Return the environment of rank `rank` of `size`, of which `local_size` are on its node."""
    places = {"RANK": rank, "LOCAL_RANK": local_rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": local_size}
    return {
        **own_environment(parent),
        **{name: str(place) for name, place in places.items()},
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is served by the parent
        "TORCHELASTIC_RESTART_COUNT": "0",
    }


def become_rank(rank: int, local_rank: int, size: int, local_size: int) -> None:
    """Make this process a rank, which meets the others where MASTER_ADDR and MASTER_PORT say."""
    meeting = {name: os.environ[name] for name in RENDEZVOUS if name in os.environ}
    mine = rank_environment(os.environ, rank, local_rank, size, local_size) | meeting
    for name in os.environ.keys() - mine.keys():
        del os.environ[name]
    os.environ.update(mine)


def is_rank() -> bool:
    """Tell whether somebody has started this process as one of a group: torchrun or we ourselves, or accelerate."""
    return "RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ


def refuse_crowd(command: str) -> None:
    """Refuse to begin in one of several processes that know nothing of each other: each would do all of the work.

    Args:
        command: that they all were given.

    Raises:
        Refused: naming who has started them.
    """
    for program, variable in COUNTED_BY.items():
        if os.environ.get(variable, "1") not in ("", "1"):
            raise Refused(
                f"{program} has started `{command}` {os.environ[variable]} times ({variable}), and each would do all "
                "of the work; start it once: `python -m launcher submit --nodes N` starts the others on Slurm, "
                "`--processes N` on one machine"
            )


def bits_variables() -> str:
    """Return those of CHANGES_BITS that are set, as NAME=VALUE."""
    return " ".join(f"{name}={os.environ[name]}" for name in CHANGES_BITS if name in os.environ)
