"""Each rank on the cores of its GPU's NUMA node, shared fairly with the ranks beside it.

Slurm's default distribution alternates sockets, while the GPUs 0 to 3 of a node often sit on one: half of the copies to
the devices would cross between sockets. Only cores that the job has given this process are ever used.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from trainer.distributed.gpu_places import RankPlace

SYSFS = Path("/sys")

log = logging.getLogger(__name__)


def bind_to_gpu(mine: RankPlace, places: Sequence[RankPlace], sysfs: Path = SYSFS) -> None:
    """Bind this process to its share of the cores beside its GPU, and say so; nothing is done on CPUs.

    Args:
        mine: the place of this process.
        places: of all ranks.
        sysfs: where the machine describes itself.
    """
    if not mine.gpus:
        return
    # Of this machine only: sysfs tells of no other.
    beside = [place for place in places if place.host == mine.host]
    cores, why = cores_for(mine, beside, sysfs)
    if not cores:
        log.info("rank %d keeps its %d cores: %s", mine.rank, len(mine.cores), why)
        return
    # Threads that are started from here on, and the processes that decode pictures, inherit it.
    os.sched_setaffinity(0, cores)
    log.info(
        "rank %d is bound to cores %s, beside its GPU %s, of the %d that it was given",
        *(mine.rank, format_cpu_list(cores), mine.bus, len(mine.cores)),
    )


def cores_for(mine: RankPlace, beside: Sequence[RankPlace], sysfs: Path = SYSFS) -> tuple[set[int], str]:
    """Return the cores for a rank, or none and why.

    Args:
        mine: the rank's place.
        beside: the places of all ranks of its machine, itself included.
        sysfs: as above.
    """
    local = local_cpus(mine.bus, sysfs)
    if not local:
        return set(), f"the machine does not tell which are beside the GPU {mine.bus or mine.name}"
    allowed = local & {*mine.cores}
    if not allowed:
        return set(), f"the job has given it none of those beside its GPU {mine.bus} ({format_cpu_list(local)})"
    # Ranks with other cores of the same NUMA node have their share from the job already.
    sharing = sorted(one.rank for one in beside if local_cpus(one.bus, sysfs) & {*one.cores} == allowed)
    groups = physical_cores(allowed, sysfs)
    number, size = sharing.index(mine.rank), len(sharing)
    share = groups[number * len(groups) // size : (number + 1) * len(groups) // size]
    # Fewer cores than ranks: then all have all of them, as before.
    return ({cpu for group in share for cpu in group} if len(groups) >= size else allowed), ""


def local_cpus(bus: str, sysfs: Path) -> set[int]:
    """Return the logical CPUs beside a PCI device; empty: not known."""
    try:
        return parse_cpu_list((sysfs / "bus/pci/devices" / bus / "local_cpulist").read_text()) if bus else set()
    except (OSError, ValueError):
        return set()


def physical_cores(cpus: set[int], sysfs: Path) -> list[list[int]]:
    """Return logical CPUs grouped by their core: the two threads of one must not go to two ranks."""
    groups: dict[int, list[int]] = {}
    for cpu in sorted(cpus):
        try:
            siblings = parse_cpu_list(
                (sysfs / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
            )
        except (OSError, ValueError):
            siblings = {cpu}
        groups.setdefault(min(siblings, default=cpu), []).append(cpu)
    return [groups[first] for first in sorted(groups)]


def parse_cpu_list(text: str) -> set[int]:
    """Read a list of CPUs as the kernel writes it, such as 0-3,8.

    Raises:
        ValueError: it is none.
    """
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def format_cpu_list(cpus: set[int]) -> str:
    """Write a list of CPUs as the kernel does."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
