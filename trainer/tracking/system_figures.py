"""How busy a node is: processors, memory, disks and network, from Linux's counters, and its GPUs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from trainer.tracking.gpu_figures import read_gpus, visible_gpus

MIB = 2**20
SYSFS = Path("/sys")


@dataclass(frozen=True)
class Counters:
    """What Linux has counted since the node started; `time_s` is this process's clock."""

    time_s: float
    cpu_busy_s: float
    cpu_s: float
    disk_read: int
    disk_written: int
    received: int
    sent: int
    rdma_received: int | None
    """Bytes that pass Linux's network by, as NCCL's do; None: there is no InfiniBand."""
    rdma_sent: int | None

    @classmethod
    def read(cls, sysfs: Path = SYSFS) -> Counters:
        """Read them: of all cores, all whole disks, and all cards of the network."""
        cpu = psutil.cpu_times()
        # Linux counts guests in `user`, too.
        whole = sum(cpu) - getattr(cpu, "guest", 0.0) - getattr(cpu, "guest_nice", 0.0)
        idle = cpu.idle + getattr(cpu, "iowait", 0.0)
        # Partitions, LVM and RAID, bridges and bonds count again what the devices below them have counted.
        disks = psutil.disk_io_counters(perdisk=True) or {}
        whole_disks = [n for name, n in disks.items() if (sysfs / "block" / name / "device").exists()]
        wires = {name: n for name, n in psutil.net_io_counters(pernic=True).items() if name != "lo"}
        cards = [n for name, n in wires.items() if (sysfs / "class/net" / name / "device").exists()]
        cards = cards or [*wires.values()]  # a container has none
        return cls(
            time.monotonic(),
            whole - idle,
            whole,
            sum(disk.read_bytes for disk in whole_disks),
            sum(disk.write_bytes for disk in whole_disks),
            sum(card.bytes_recv for card in cards),
            sum(card.bytes_sent for card in cards),
            infiniband_bytes(sysfs, "port_rcv_data"),
            infiniband_bytes(sysfs, "port_xmit_data"),
        )

    def rates_since(self, before: Counters) -> dict[str, float]:
        """Return what happened between two readings, a second."""
        seconds, cpu_s = self.time_s - before.time_s, self.cpu_s - before.cpu_s
        if seconds <= 0:
            return {}
        pairs = {
            "disk_read_mb_per_s": self.disk_read - before.disk_read,
            "disk_write_mb_per_s": self.disk_written - before.disk_written,
            "network_receive_mb_per_s": self.received - before.received,
            "network_send_mb_per_s": self.sent - before.sent,
        }
        for name, now, then in (
            ("infiniband_receive_mb_per_s", self.rdma_received, before.rdma_received),
            ("infiniband_send_mb_per_s", self.rdma_sent, before.rdma_sent),
        ):
            if now is not None and then is not None:
                pairs[name] = now - then
        # A device that was taken away takes its counts with it.
        rates = {name: round(max(0, count) / MIB / seconds, 3) for name, count in pairs.items()}
        busy = (self.cpu_busy_s - before.cpu_busy_s) / cpu_s if cpu_s > 0 else 0.0
        return {"cpu_percent": round(100 * min(max(busy, 0.0), 1.0), 1)} | rates


def infiniband_bytes(sysfs: Path, counter: str) -> int | None:
    """Return what a counter of all InfiniBand ports of the node says; None: there are none."""
    ports = [*(sysfs / "class/infiniband").glob(f"*/ports/*/counters/{counter}")]
    return sum(4 * int(port.read_text()) for port in ports) if ports else None  # it counts words of four bytes


class SystemFigures:
    """Reads the figures of this node, each time for the time since the last one."""

    def __init__(self) -> None:
        self.before, self.gpus = Counters.read(), visible_gpus()

    def read(self) -> dict[str, float]:
        """Return the figures."""
        before, self.before = self.before, Counters.read()
        memory = psutil.virtual_memory()
        sizes = {
            "memory_used_mb": float((memory.total - memory.available) // MIB),
            "memory_total_mb": float(memory.total // MIB),
        }
        return self.before.rates_since(before) | sizes | read_gpus(self.gpus)
