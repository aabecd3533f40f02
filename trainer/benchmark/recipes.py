"""The protocols by name, and the recipes that are trained on them, in the manner of trainer/config/recipes.py.

Of ring and grid, networks, batch and optimizer are those of PacGAN's code unless a recipe says otherwise: fully
connected networks, z of two dimensions, batches of 100, Adam at 1e-4 with beta1 0.8, the newest weights in place of
their average. Of digits they are DCGAN's, of half the width. The steps are fewer than the papers', and stand beside
every figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from trainer.benchmark.digits import StackedDigits
from trainer.benchmark.mixtures import GRID, RING
from trainer.benchmark.protocol import Protocol
from trainer.config.config import Config
from trainer.config.groups import OptimizerSettings as Adam
from trainer.config.recipes import DCGAN, GOODFELLOW, PACGAN, R3GAN, WGAN_GP, Recipe
from trainer.losses.penalties import Penalties
from trainer.losses.penalties.base import Weighted
from trainer.networks.network_settings import NetworkSettings as Net

R1 = "Mescheder, Geiger, Nowozin 2018, arXiv:1801.04406"
NEWEST = 1.0  # images: with so short a half-life the averaged weights are the newest ones


@dataclass(frozen=True)
class BenchmarkRecipe(Recipe):
    """A recipe, and how long it is trained by default."""

    steps: int = 4_000
    """Updates of the generator for which the schedules of the settings are made."""

    def settings(self, name: str, seed: int, steps: int) -> Config:
        """Return the settings of one trial; schedules and the half-life of the average are scaled with the steps."""
        adam, stretch = self.config.optimizer, steps / self.steps
        half_life = adam.ema_half_life_images
        adam = replace(
            adam,
            decay_images=round(adam.decay_images * stretch),
            ema_half_life_images=half_life if half_life == NEWEST else half_life * stretch,
        )
        return replace(self.config, recipe=name, seed=seed, optimizer=adam)


def packed_config(config: Config, pack: int) -> Config:
    """Return settings with packs of `pack` samples (Lin et al. 2018, §3), and as many packs per batch as samples."""
    return replace(
        config,
        batch_size=pack * config.batch_size,
        micro_batch_size=pack * config.micro_batch_size,
        network=replace(config.network, pack=pack),
    )


points = Config(
    generator="mlp",
    discriminator="mlp",
    batch_size=100,
    micro_batch_size=100,
    mixed_precision="no",
    channels_last=False,
    network=Net(size=0, z_dim=2, g_channels=400, d_channels=200),
    optimizer=Adam(1e-4, 1e-4, beta1=0.8, ema_half_life_images=NEWEST, ema_ramp=0.0),
)
disconnected = replace(
    points,
    generator="disconnected",
    discriminator="disconnected",
    objective="relativistic-pairing",
    batch_size=256,
    micro_batch_size=256,
    network=Net(size=0, z_dim=2, g_channels=128, d_channels=128),
    penalties=Penalties(r1=Weighted(0.4, 4e-4), r2=Weighted(0.4, 4e-4)),
    optimizer=Adam(1e-3, 3e-3, beta1=0.0, beta2=0.99, lr_final=0.0, decay_images=8_000 * 256,
                   ema_half_life_images=160 * 256, ema_ramp=0.0),
)  # fmt: skip

digits = Config(
    batch_size=64,
    micro_batch_size=64,
    mixed_precision="no",
    channels_last=False,
    network=Net(size=16, g_channels=32, d_channels=32),
    optimizer=Adam(ema_half_life_images=NEWEST, ema_ramp=0.0),
)
pairing = replace(
    digits,
    objective="relativistic-pairing",
    network=replace(digits.network, d_batch_norm=False),
    penalties=Penalties(r1=Weighted(0.2, 0.02), r2=Weighted(0.2, 0.02)),
    optimizer=Adam(1e-3, 1e-3, beta1=0.0, beta2=0.99, lr_final=0.1, decay_images=3_000 * 64,
                   ema_half_life_images=60 * 64, ema_ramp=0.0),
)  # fmt: skip

# One line a field would hide the table.
# fmt: off
POINTS = {
    "gan": BenchmarkRecipe(
        points,
        GOODFELLOW, "the protocol's own baseline"),
    "pacgan2": BenchmarkRecipe(
        packed_config(points, 2),
        PACGAN, "D judges packs of two, so that a lack of variety shows"),
    "pacgan3": BenchmarkRecipe(
        packed_config(points, 3),
        PACGAN, "packs of three"),
    "pacgan4": BenchmarkRecipe(
        packed_config(points, 4),
        PACGAN, "packs of four"),
    "r1": BenchmarkRecipe(
        replace(points, penalties=Penalties(r1=Weighted(0.1))),
        R1, "D's gradients vanish on reals"),
    "wgan-gp": BenchmarkRecipe(
        replace(points, objective="wasserstein", d_steps=5, penalties=Penalties(wgan_gp=Weighted(0.1)),
                optimizer=replace(points.optimizer, beta1=0.5, beta2=0.9)),
        WGAN_GP, "the authors' toy settings: five updates of D, weight 0.1", steps=1_000),
    "r3gan": BenchmarkRecipe(
        replace(points, objective="relativistic-pairing", penalties=Penalties(r1=Weighted(0.1), r2=Weighted(0.1))),
        R3GAN, "the loss alone, on the protocol's networks: D compares pairs, R1 and R2"),
    "disconnected": BenchmarkRecipe(
        disconnected,
        R3GAN, "its loss and its falling penalties, rates that fall to zero, an average of the weights, and "
        "networks for data in pieces (trainer/networks/disconnected.py)", steps=8_000),
}
DIGITS = {
    "dcgan": BenchmarkRecipe(
        digits,
        DCGAN, "the protocol's own baseline, at 16 pixels", steps=3_000),
    "pacdcgan2": BenchmarkRecipe(
        packed_config(digits, 2),
        PACGAN, "D judges packs of two", steps=3_000),
    "pacdcgan4": BenchmarkRecipe(
        packed_config(digits, 4),
        PACGAN, "packs of four", steps=3_000),
    "r3gan": BenchmarkRecipe(
        pairing,
        R3GAN, "its loss and its schedules on DCGAN's networks, without BatchNorm in D", steps=3_000),
}
# fmt: on

PROTOCOLS: dict[str, Protocol] = {"ring": RING, "grid": GRID, "digits": StackedDigits()}
RECIPES: dict[str, Mapping[str, BenchmarkRecipe]] = {"ring": POINTS, "grid": POINTS, "digits": DIGITS}
