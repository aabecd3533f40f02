"""Places of ranks on GPUs that are not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from trainer.distributed.gpu_places import RankPlace

V100, T4, A100, H100 = (7, 0), (7, 5), (8, 0), (9, 0)


@dataclass(frozen=True)
class Gpu:
    """What torch tells of a GPU."""

    name: str = "NVIDIA H100 80GB HBM3"
    bus: int = 0x19
    capability: tuple[int, int] = H100
    uuid: str = ""
    arch: str = ""

    def properties(self) -> SimpleNamespace:
        """Return torch's properties of it."""
        return SimpleNamespace(
            name=self.name,
            uuid=self.uuid or f"uuid-{self.bus:x}",
            gcnArchName=self.arch,
            **{"pci_domain_id": 0, "pci_bus_id": self.bus, "pci_device_id": 0},
            **{"major": self.capability[0], "minor": self.capability[1]},
        )


def pretend(monkeypatch: pytest.MonkeyPatch, gpus: Sequence[Gpu], hip: str | None = None) -> None:
    """Let torch see these GPUs, and no others."""
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "is_available", lambda: bool(gpus))
    monkeypatch.setattr(cuda, "device_count", lambda: len(gpus))
    monkeypatch.setattr(cuda, "get_device_properties", lambda index: gpus[index].properties())
    monkeypatch.setattr(cuda, "get_device_capability", lambda index: gpus[index].capability)
    monkeypatch.setattr(torch.version, "hip", hip)


def place(rank: int, card: int | None = None, **changes: object) -> RankPlace:
    """Return the place of a rank on a node of eight GPUs, by default of its own one."""
    gpu = Gpu(bus=rank if card is None else card)
    usual: dict[str, object] = {
        **{"rank": rank, "local_rank": rank % 8, "node": f"n{rank // 8}", "host": f"boot {rank // 8}"},
        **{"cores": tuple(range(96)), "gpus": 8, "index": rank % 8, "name": gpu.name},
        **{"uuid": f"uuid-{gpu.bus:x}", "bus": f"0000:{gpu.bus:02x}:00.0"},
    }
    return RankPlace(**usual | changes)  # type: ignore[arg-type]
