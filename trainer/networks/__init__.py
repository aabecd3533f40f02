"""The architectures: one file each, one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from trainer.networks import dcgan


@dataclass(frozen=True)
class Architecture:
    """A pair of networks that share their settings, and how their weights are drawn."""

    generator: Callable[[dcgan.DcganSettings], nn.Module]
    discriminator: Callable[[dcgan.DcganSettings], nn.Module]
    initialise: Callable[[nn.Module, int, str], None]
    """(network, seed, name) -> None."""


ARCHITECTURES = {
    "dcgan": Architecture(dcgan.Generator, dcgan.Discriminator, dcgan.initialise),
}
