"""Judges the GPUs of all nodes: whether each rank has its own, what connects them, and how fast that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from launcher.doctor.finding import Finding, listed
from launcher.doctor.measured import GpuRank, Probe

# MB/s to and from one GPU at once, while all others exchange: about a quarter of what each way is built for.
EXPECTED_MB_S = {
    "NVLink": 20_000.0,  # the second generation has 25 GB/s a link and direction
    "P2P": 3_000.0,  # PCI Express 3 with 16 lanes: 12 GB/s
    "SHM": 1_500.0,  # through the host's memory
    "NET/IB": 500.0,  # one adapter of 100 Gbit/s for eight GPUs: 1.5 GB/s each
    "NET/Socket": 100.0,  # one of 10 Gbit/s for eight GPUs
}


def judge_gpus(probes: Sequence[Probe]) -> list[Finding]:
    """Judge all of it; nothing where there are no GPUs."""
    ranks = [one for probe in probes for one in probe.gpus]
    if not ranks:
        return []
    findings = [judge_ranks(ranks)]
    if len(ranks) > 1 and findings[0].state == "ok":
        findings += [judge_inside(ranks)] if any(one.inside_mb_s is not None for one in ranks) else []
        findings += [judge_between(ranks)] if any(one.between_mb_s is not None for one in ranks) else []
    return findings


def judge_ranks(ranks: Sequence[GpuRank]) -> Finding:
    """Judge whether each rank has a GPU of its own, and NCCL has joined them."""
    if blind := [f"rank {one.rank} on {one.node}" for one in ranks if not (one.name or one.problem)]:
        return Finding(
            *("gpus", "problem", f"{listed(blind, 4)} sees no GPU", "training there would compute on CPUs, or fail"),
            "look at nvidia-smi on that node; torch must be a build for its GPUs (python -c 'import torch; "
            "print(torch.version.cuda)'), and a container must be started with them",
        )
    if failed := [f"rank {one.rank} on {one.node}: {one.problem}" for one in ranks if one.problem]:
        return Finding("gpus", "problem", listed(failed, 2), "training would fail the same way", "do what it says")
    kinds = Counter(one.name for one in ranks)
    measured = ", ".join(f"{count} × {name}" for name, count in kinds.items())
    return Finding("gpus", "ok", f"{measured}, on {len({one.node for one in ranks})} nodes", "a rank has each")


def judge_inside(ranks: Sequence[GpuRank]) -> Finding:
    """Judge what connects the GPUs of a node."""
    measured = [(one.inside_mb_s, one) for one in ranks if one.inside_mb_s is not None]
    speed, slowest = min(measured, key=lambda item: item[0])
    way = "NVLink" if slowest.nvlinks and any(via.startswith("P2P") for via in slowest.inside_via) else ""
    said = f"{speed:,.0f} MB/s each way over {way or named(slowest.inside_via)}, rank {slowest.rank} on {slowest.node}"
    if slowest.nvlinks is not None:
        said += f"; {slowest.nvlinks} NVLinks up"
    said += f"; it reaches {slowest.peers} other GPUs directly"
    if slowest.peers and not any(via.startswith("P2P") for via in slowest.inside_via):
        return Finding(
            *("gpu links", "warning", said, "NCCL takes a detour, though the GPUs reach each other"),
            "unset NCCL_P2P_DISABLE and NCCL_P2P_LEVEL, and ask the administrators about IOMMU and ACS",
        )
    if speed < expected(way, slowest.inside_via):
        todo = "see nvidia-smi topo -m and nvidia-smi nvlink -s on that node"
        return Finding("gpu links", "warning", said, "less than a quarter of what it is built for", todo)
    return Finding("gpu links", "ok", said, "between the GPUs of a node, while all exchange")


def judge_between(ranks: Sequence[GpuRank]) -> Finding:
    """Judge what connects GPUs of different nodes."""
    measured = [(one.between_mb_s, one) for one in ranks if one.between_mb_s is not None]
    speed, slowest = min(measured, key=lambda item: item[0])
    said = f"{speed:,.0f} MB/s each way over {named(slowest.between_via)}, rank {slowest.rank} on {slowest.node}"
    if slowest.infiniband and any(via.startswith("NET/Socket") for via in slowest.between_via):
        return Finding(
            *("gpu network", "warning", f"{said}; the node has {listed(slowest.infiniband)}"),
            "NCCL takes TCP, though there is InfiniBand or RoCE",
            "unset NCCL_IB_DISABLE, see NCCL_IB_HCA, and mount /dev/infiniband and libibverbs into a container",
        )
    if speed < expected("", slowest.between_via):
        todo = "set `interface` in the profile, or NCCL_IB_HCA in its environment, to the fast network"
        return Finding("gpu network", "warning", said, "less than a quarter of what it is built for", todo)
    return Finding("gpu network", "ok", said, "between GPUs of two nodes, while all exchange")


def named(ways: Sequence[str]) -> str:
    """Name what NCCL has taken."""
    return " and ".join(ways) or "a way that NCCL does not tell"


def expected(way: str, ways: Sequence[str]) -> float:
    """Return the least MB/s of a way, or of the slowest of those that NCCL names; 0: of none is anything known."""
    known = [EXPECTED_MB_S[way]] if way else [mb_s for key, mb_s in EXPECTED_MB_S.items() if begins(ways, key)]
    return min(known, default=0.0)


def begins(ways: Sequence[str], name: str) -> bool:
    """Tell whether one of the ways is of a kind."""
    return any(via.startswith(name) for via in ways)
