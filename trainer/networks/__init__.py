"""The architectures: one file each, one line here for each network. Any generator goes with any discriminator."""

from __future__ import annotations

import torch

from command_line.plugins import Registry
from trainer.core.randomness import philox
from trainer.core.registry import is_kind
from trainer.networks import (
    biggan,
    biggan_deep,
    dcgan,
    disconnected,
    fastgan,
    mlp,
    msg_gan,
    projected,
    r3gan,
    sagan,
    sngan,
    stylegan2,
    stylegan3,
    unet,
    wgan_gp,
)
from trainer.networks.base import Discriminator, Generator, Network, named_weights
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.spectral_norm import add_spectral_norm, start_spectral_norm

OUR_GENERATORS: dict[str, type[Generator]] = {
    "dcgan": dcgan.Generator,
    "wgan-gp": wgan_gp.Generator,
    "sngan": sngan.Generator,
    "sagan": sagan.Generator,
    "biggan": biggan.Generator,
    "biggan-deep": biggan_deep.Generator,
    "stylegan2": stylegan2.Generator,
    "stylegan3-t": stylegan3.Generator,
    "stylegan3-r": stylegan3.RotationGenerator,
    "fastgan": fastgan.Generator,
    "r3gan": r3gan.Generator,
    "msg-gan": msg_gan.Generator,
    "mlp": mlp.Generator,
    "disconnected": disconnected.Generator,
}

OUR_DISCRIMINATORS: dict[str, type[Discriminator]] = {
    "dcgan": dcgan.Discriminator,
    "wgan-gp": wgan_gp.Discriminator,
    "sngan": sngan.Discriminator,
    "sagan": sagan.Discriminator,
    "biggan": biggan.Discriminator,
    "biggan-deep": biggan_deep.Discriminator,
    "unet": unet.Discriminator,
    "stylegan2": stylegan2.Discriminator,
    "fastgan": fastgan.Discriminator,
    "r3gan": r3gan.Discriminator,
    "msg-gan": msg_gan.Discriminator,
    "projected": projected.Discriminator,
    "mlp": mlp.Discriminator,
    "disconnected": disconnected.Discriminator,
}

GENERATORS = Registry("generators", OUR_GENERATORS, "a subclass of trainer.networks.base.Generator", is_kind(Generator))
DISCRIMINATORS = Registry(
    "discriminators", OUR_DISCRIMINATORS, "a subclass of trainer.networks.base.Discriminator", is_kind(Discriminator)
)


def build_generator(name: str, settings: NetworkSettings) -> Generator:
    """Build a generator; its weights are not drawn yet."""
    network = GENERATORS[name](settings)
    if settings.g_spectral_norm:
        add_spectral_norm(network, network.without_spectral_norm)
    return network


def build_discriminator(name: str, settings: NetworkSettings) -> Discriminator:
    """Build a discriminator; its weights are not drawn yet."""
    network = DISCRIMINATORS[name](settings)
    if settings.d_spectral_norm:
        add_spectral_norm(network, network.without_spectral_norm)
    return network


@torch.no_grad()
def initialise(network: Network, seed: int, role: str) -> None:
    """Draw the weights: each one's draw is keyed by the network's role and its own name."""
    for key, weight in named_weights(network):
        name = key.replace("parametrizations.", "").replace(".original", "")  # the same with spectral normalisation
        value = network.initial_value(name, tuple(weight.shape), philox(seed, "weights", role, name))
        if value is not None:
            weight.copy_(torch.as_tensor(value))
    network.fill_frozen(seed)
    start_spectral_norm(network, seed, role)  # after the weights, which the vectors are to fit
