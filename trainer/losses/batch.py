"""One micro-batch on the device, with every draw that its updates need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Num
from torch import Tensor

from trainer.networks.base import Latent


@dataclass(frozen=True)
class Batch:
    """A slice of the global batch of one update of the discriminator."""

    micro_batch: int
    images_seen: int
    """When the update began."""
    real: Float[Tensor, "n 3 h w"]
    """Pictures in [-1, 1]."""
    latent: Latent
    """What fakes are generated from; their labels are those of the reals."""
    draws: Mapping[str, Mapping[str, Tensor]]
    """Of augmentation and penalties: by purpose, then by name."""
    replaced: int | Float[Tensor, ""]
    """How many planned samples were damaged."""

    @property
    def label(self) -> Num[Tensor, "n ..."]:
        """What networks are told of the pictures (networks/labels.py)."""
        return self.latent.label

    def tensors(self) -> list[Tensor]:
        """Return its tensors."""
        return [self.real, *self.latent.tensors(), *(t for parts in self.draws.values() for t in parts.values())]

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the micro-batch with each of its tensors changed."""
        draws = {purpose: {name: change(t) for name, t in parts.items()} for purpose, parts in self.draws.items()}
        return replace(self, real=change(self.real), latent=self.latent.map(change), draws=draws)

    @staticmethod
    def join(shares: Sequence[Share]) -> Share:
        """Join the micro-batches of several updates that have the same number; a single share stays what it is."""
        return shares[0] if len(shares) == 1 else [Batch.cat(batches) for batches in zip(*shares, strict=True)]

    @staticmethod
    def cat(batches: Sequence[Batch]) -> Batch:
        """Join micro-batches, with what was drawn for each of them; when the update began is that of the last one."""
        common = [purpose for purpose in batches[0].draws if all(purpose in batch.draws for batch in batches)]
        draws = {
            purpose: {name: torch.cat([b.draws[purpose][name] for b in batches]) for name in batches[0].draws[purpose]}
            for purpose in common
        }
        real, latent = torch.cat([batch.real for batch in batches]), Latent.cat([batch.latent for batch in batches])
        return replace(batches[-1], real=real, latent=latent, draws=draws)


Share = Sequence[Batch]
"""The micro-batches of one update that a rank computes."""
