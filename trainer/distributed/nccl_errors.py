"""What an error of NCCL or gloo means: a mistake in how the run was started, a fault of a node, another process's end.

torch puts the kind that NCCL returns into its exception, and behind it the last warning that NCCL has given. The words
are those of NCCL's src/init.cc, src/bootstrap.cc, src/os/linux.cc and src/include/checks.h, and of torch's
torch/csrc/distributed/c10d/NCCLUtils.cpp and ProcessGroupNCCL.cpp.
"""

from __future__ import annotations

import os
import re
from enum import Enum

from torch import distributed as dist

LAST_ERROR = "Last error:\n"


class Meaning(Enum):
    """What an error means for the run."""

    SHARED_GPU = re.compile("Duplicate GPU detected|Multiple Ranks are using the same GPU")
    NO_INTERFACE = re.compile("no socket interface found|No usable listening interface found")
    VERSIONS = re.compile("Mismatched NCCL version|NCCL version mismatch")
    MEMORY = re.compile("Cuda failure.*out of memory")
    CUDA = re.compile("Cuda failure|unhandled cuda error|ncclUnhandledCudaError")
    NO_WAY = re.compile(
        "connect to .* (failed|returned) |Call to connect|No route to host|Network is unreachable|failed to connect to "
        "any network address"
    )
    GONE = re.compile(
        "ncclRemoteError|remote process exited|closed by (remote )?peer|Connection reset|caught collective operation "
        "timeout|NCCL communicator was aborted|NCCL timeout|gloo"
    )
    OTHER = re.compile("NCCL|nccl")

    @property
    def wrong_start(self) -> bool:
        """Tell whether the same start would end the same way."""
        return self in (Meaning.SHARED_GPU, Meaning.NO_INTERFACE, Meaning.VERSIONS)


def meaning_of(error: BaseException) -> Meaning | None:
    """Return what an error of a collective means; None: it is of something else."""
    for meaning in Meaning:
        if meaning.value.search(str(error)):
            return meaning
    # Gloo says that a peer is gone in a plain RuntimeError, with its name in it; the store, by the class.
    return Meaning.GONE if isinstance(error, dist.DistError) else None


def in_words(meaning: Meaning, error: BaseException) -> str:
    """Say in one line what is wrong, and what to do."""
    own = own_words(str(error))
    match meaning:
        case Meaning.SHARED_GPU:
            return (
                f"NCCL finds two processes on one GPU ({own}): start one process a GPU (--processes on this machine, "
                "--gpus-per-node on Slurm)"
            )
        case Meaning.NO_INTERFACE:
            asked = os.environ.get("NCCL_SOCKET_IFNAME", "that leads to other nodes").removeprefix("=")
            return f"NCCL finds no network interface {asked} ({own}): set `interface` in the profile to one of its own"
        case Meaning.VERSIONS:
            return f"the ranks have different versions of NCCL ({own}): install the same torch on all nodes"
        case Meaning.CUDA | Meaning.MEMORY:
            return f"a call to CUDA failed inside NCCL ({own}): look at nvidia-smi and dmesg on this node"
        case Meaning.NO_WAY:
            return (
                f"another process cannot be reached ({own}): see which way is closed with `python -m launcher doctor`, "
                "and name another `interface` in the profile"
            )
        case Meaning.GONE:
            return f"another process is gone: {own}"
        case Meaning.OTHER:
            return f"NCCL failed: {own}; with NCCL_DEBUG=INFO in the environment it tells more"


def own_words(text: str) -> str:
    """Return what NCCL itself has said last, or else the first line."""
    last = text.partition(LAST_ERROR)[2].strip() or text
    return last.partition("\n")[0].strip()
