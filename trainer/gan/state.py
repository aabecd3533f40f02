"""What a checkpoint holds is exactly the fields of one dataclass."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from trainer.collapse.monitor_state import Record
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.core.migration import first_tensor_name, identities, with_first_names
from trainer.core.running_scalars import Memory
from trainer.gan.optimizers import adam
from trainer.networks import build_discriminator, build_generator, initialise
from trainer.networks.base import Discriminator, Generator

FIRST_SCALE = 2.0**15  # torch's own, twice as much, is no fp16 number, which gradient penalties need it to be


@dataclass
class TrainState:
    """Everything that a later step reads and that the settings and the data do not already say."""

    generator: Generator
    discriminator: Discriminator
    ema: dict[str, Tensor]
    """Moving average of the generator's parameters; its BatchNorm statistics are made when it paints (sample.py)."""
    g_optimizer: torch.optim.Adam
    d_optimizer: torch.optim.Adam
    g_scaler: GradScaler
    d_scaler: GradScaler
    memory: Memory
    """What penalties and augmentation remember."""
    dataset: str
    """Hash of the dataset's index."""
    identities: tuple[str, ...]
    """Hash of the identity settings, then those of earlier formats: a checkpoint has one of them."""
    images_seen: int = 0
    rollbacks: list[dict[str, Any]] = field(default_factory=list)
    """For each rollback, where it started (`from`) and where it went (`to`), in images seen, `why`, and what it
    changed besides the draws (`change`), if anything."""
    sentinel: Record = Record()
    """What the sentinel remembers."""

    @classmethod
    def create(cls, config: Config, dataset: str, device: torch.device, draw: bool = True) -> TrainState:
        """Build the state of a run that has seen nothing; every bit of it follows from the settings.

        Where a checkpoint is read next, the weights need not be drawn: BigGAN's take long.
        """
        generator = build_generator(config.generator, config.network)
        discriminator = build_discriminator(config.discriminator, config.network)
        for network, role in ((generator, "generator"), (discriminator, "discriminator")):
            if draw:
                initialise(network, config.seed, role)
            if config.channels_last:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
            network.to(device)
        fp16 = config.mixed_precision == "fp16"
        return cls(
            generator,
            discriminator,
            {name: p.detach().clone() for name, p in generator.named_parameters()},
            adam(generator, config.optimizer.g_lr, config.optimizer),
            adam(discriminator, config.optimizer.d_lr, config.optimizer),
            GradScaler(device.type, FIRST_SCALE, enabled=fp16),
            GradScaler(device.type, FIRST_SCALE, enabled=fp16),
            {name: torch.tensor(value, device=device) for name, value in first_memory(config).items()},
            dataset,
            identities(config),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the state by name; they are the live ones."""
        named = {f"generator.{k}": v for k, v in self.generator.state_dict().items()}
        named |= {f"discriminator.{k}": v for k, v in self.discriminator.state_dict().items()}
        named |= {f"ema.{k}": v for k, v in self.ema.items()}
        named |= {f"memory.{k}": v for k, v in self.memory.items()}
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
            "sentinel": asdict(self.sentinel),
            "dataset": self.dataset,
            "identity": self.identities[0],
            "g_scaler": self.g_scaler.state_dict(),
            "d_scaler": self.d_scaler.state_dict(),
        }

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any], where: str) -> None:
        """Take over a saved state.

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
        """Take over progress, what the sentinel remembers, and fp16's scalers where both states have them."""
        self.images_seen = scalars["images_seen"]
        self.sentinel = Record(**scalars["sentinel"])
        for scaler, saved in ((self.g_scaler, scalars["g_scaler"]), (self.d_scaler, scalars["d_scaler"])):
            if saved and scaler.is_enabled():
                scaler.load_state_dict(saved)


def first_memory(config: Config) -> dict[str, float]:
    """Return what penalties and augmentation remember before the first step, by name."""
    first = config.disguise().first_memory()
    for active in config.penalties.active():
        first |= active.first_memory()
    return first


def fingerprint(tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> str:
    """Return one SHA-256 over a whole state, as hex digits: equal if and only if every bit is.

    The hashes of the dataset and the settings are left out: they say where a state came from, not what it is. All names
    are those of the first format, so that a state has the same fingerprint in every version.
    """
    values = {key: value for key, value in with_first_names(scalars).items() if key not in ("dataset", "identity")}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for name, one in sorted((first_tensor_name(name), one) for name, one in tensors.items()):
        tensor = one.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
