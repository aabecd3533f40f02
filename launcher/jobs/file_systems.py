"""Which file systems other nodes see; asked before a submission, and by the doctor on each node."""

from __future__ import annotations

from pathlib import Path

import psutil

from slurm.records import Node

LOCAL_FILE_SYSTEMS = ("tmpfs", "ramfs", "overlay")


def is_local(kind: str) -> bool:
    """Tell whether no other node sees a file system of this kind."""
    return kind in LOCAL_FILE_SYSTEMS


def is_this_machine(node: Node) -> bool:
    """Tell whether a node is this very machine."""
    own = {a.address for addresses in psutil.net_if_addrs().values() for a in addresses}
    return node.address in own or node.address == "localhost"


def file_system(path: Path) -> str:
    """Return the kind of file system that a path lies on."""
    mounts = [p for p in psutil.disk_partitions(all=True) if path.is_relative_to(p.mountpoint)]
    return max(mounts, key=lambda p: len(p.mountpoint)).fstype if mounts else ""
