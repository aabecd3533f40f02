"""The training state: what a checkpoint holds is exactly what the fields of this dataclass hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from trainer.collapse.monitor_state import MonitorState
from trainer.core.fields import Refused
from trainer.core.running_scalars import RunningScalars
from trainer.gan.optimizers import Adam
from trainer.networks.base import Discriminator, Generator


@dataclass
class TrainState:
    """Everything that a later step reads and that the settings and the data do not already say."""

    generator: Generator
    discriminator: Discriminator
    ema: dict[str, Tensor]
    """Moving average of the generator's weights. It has no BatchNorm statistics: sampling computes them."""
    g_optimizer: Adam
    d_optimizer: Adam
    g_scaler: GradScaler
    d_scaler: GradScaler
    running_scalars: RunningScalars
    """Of penalties and of augmentation."""
    dataset: str
    """Hash of the dataset's index."""
    identities: tuple[str, ...]
    """Hash of the identity settings, then those that earlier formats gave them: a checkpoint has one of these."""
    images_seen: int = 0
    rollbacks: list[dict[str, Any]] = field(default_factory=list)
    """For each rollback the images seen before it (`from`) and after it (`to`), `why`, and, if the policy changes
    settings, which (`change`)."""
    monitor: MonitorState = MonitorState()

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the state by name; they are the live ones."""
        named = {f"generator.{k}": v for k, v in self.generator.state_dict().items()}
        named |= {f"discriminator.{k}": v for k, v in self.discriminator.state_dict().items()}
        named |= {f"ema.{k}": v for k, v in self.ema.items()}
        named |= {f"running_scalars.{k}": v for k, v in self.running_scalars.items()}
        for name, network, optimizer in (
            ("g_optimizer", self.generator, self.g_optimizer),
            ("d_optimizer", self.discriminator, self.d_optimizer),
        ):
            for key, parameter in network.named_parameters():
                named |= {f"{name}.{key}.{k}": v for k, v in optimizer.state[parameter].items()}
        return named

    def scalars(self) -> dict[str, Any]:
        """Return the rest of the state as plain values."""
        return {
            "images_seen": self.images_seen,
            "rollbacks": [dict(rollback) for rollback in self.rollbacks],
            "collapse_monitor": asdict(self.monitor),
            "dataset": self.dataset,
            "identity": self.identities[0],
            "g_scaler": self.g_scaler.state_dict(),
            "d_scaler": self.d_scaler.state_dict(),
        }

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any], where: str) -> None:
        """Take over a saved state; `where` names it in messages.

        Raises:
            Refused: it is of another dataset, other identity settings, or other tensors; the field is named.
        """
        for name, ours in (("dataset", (self.dataset,)), ("identity", self.identities)):
            if scalars[name] not in ours:
                what = "another dataset" if name == "dataset" else "other identity settings"
                found = f"its {name} hash is {scalars[name][:12]}…, not {ours[0][:12]}…"
                raise Refused(f"{where} belongs to {what}: {found}")
        mine = self.tensors()
        if odd := sorted(mine.keys() ^ tensors.keys()):
            raise Refused(f"{where} does not fit: the tensor {odd[0]!r} is on one side only")
        for name, tensor in tensors.items():
            if mine[name].shape != tensor.shape:
                raise Refused(f"{where} does not fit: {name} is {tuple(tensor.shape)}, not {tuple(mine[name].shape)}")
            mine[name].copy_(tensor)
        self.rollbacks = [dict(rollback) for rollback in scalars["rollbacks"]]
        self.load_scalars(scalars)

    def load_scalars(self, scalars: Mapping[str, Any]) -> None:
        """Take over progress, the collapse monitor's state, and fp16's scalers where both states have them."""
        self.images_seen = scalars["images_seen"]
        self.monitor = MonitorState(**scalars["collapse_monitor"])
        for scaler, saved in ((self.g_scaler, scalars["g_scaler"]), (self.d_scaler, scalars["d_scaler"])):
            if saved and scaler.is_enabled():
                scaler.load_state_dict(saved)
