"""Settings that several recipes share: one for each family of networks, as its paper or the authors' code has them."""

from __future__ import annotations

from dataclasses import replace

from trainer.augment.base import AugmentSettings
from trainer.config.config import Config
from trainer.config.groups import OptimizerSettings as Adam
from trainer.losses.penalties import Penalties
from trainer.losses.penalties.base import Weighted
from trainer.networks.network_settings import NetworkSettings as Net

DCGAN_64 = Config(batch_size=128, micro_batch_size=32, network=Net(size=64))

SNGAN_32 = Config(
    generator="sngan",
    discriminator="sngan",
    batch_size=64,
    micro_batch_size=16,
    d_steps=5,  # the paper's n_dis, as in WGAN-GP
    g_batches=2,  # in both authors' code for CIFAR G's batch is 128
    objective="hinge",
    optimizer=Adam(beta1=0.0, beta2=0.9),  # and until the end, where the authors' falls to 0
    network=Net(size=32, z_dim=128, g_channels=256, d_channels=128, d_spectral_norm=True),
)
SNGAN_64_NETWORK = Net(size=64, z_dim=128, max_channels=1024, d_spectral_norm=True)

SAGAN_64 = Config(
    generator="sagan",
    discriminator="sagan",
    batch_size=256,
    micro_batch_size=32,
    objective="hinge",
    # In place of several updates of D, D has the higher rate (two time-scales: Heusel et al. 2017, arXiv:1706.08500).
    optimizer=Adam(g_lr=1e-4, d_lr=4e-4, beta1=0.0, beta2=0.9),
    network=Net(size=64, z_dim=128, max_channels=1024, g_spectral_norm=True, d_spectral_norm=True),
)
BIGGAN_32 = Config(
    generator="biggan",
    discriminator="biggan",
    batch_size=50,
    micro_batch_size=10,
    d_steps=4,
    objective="hinge",
    optimizer=Adam(beta1=0.0, ema_half_life_images=1.4e6),  # a decay of 0.9999 a step, of 200 pictures
    network=Net(
        size=32, z_dim=128, g_spectral_norm=True, d_spectral_norm=True, g_conditional=True, d_head="projection"
    ),
)
MSG_GAN_64 = Config(
    generator="msg-gan",
    discriminator="msg-gan",
    batch_size=32,
    micro_batch_size=8,
    objective="relativistic-hinge",
    optimizer=Adam(3e-4, 3e-4, beta1=0.0, beta2=0.99),  # the rate that the code's guide asks for in all experiments
    network=Net(
        size=64,
        z_dim=256,
        g_channels=128,
        d_channels=128,
        max_channels=256,
        mbstd_group=8,
        g_spectral_norm=True,
        d_spectral_norm=True,
    ),
)
UNET_128 = Config(  # the authors' script for CelebA; theirs averages weights from the 21,000th step on
    generator="biggan",
    discriminator="unet",
    batch_size=50,
    micro_batch_size=10,
    optimizer=Adam(5e-5, 2e-4, beta1=0.0, eps=1e-6, ema_half_life_images=3.5e5),
    network=Net(size=128, z_dim=126, g_spectral_norm=True, d_spectral_norm=True),
    penalties=Penalties(cutmix=Weighted(1.0)),
)
# What DiffAugment's code takes for CIFAR.
FEW_SHOT_AUGMENT = AugmentSettings(kind="diffaugment", policy="translation,cutout")

STYLEGAN2_64 = Config(
    generator="stylegan2",
    discriminator="stylegan2",
    batch_size=32,
    micro_batch_size=8,
    flip=True,
    optimizer=Adam(g_lr=2.5e-3, d_lr=2.5e-3, beta1=0.0, beta2=0.99),
    network=Net(size=64, z_dim=512, g_channels=256, d_channels=256, mbstd_group=4),
    # R1's weight is 0.0002 size² / batch, as StyleGAN2-ADA's code has it; 16 and 4 are StyleGAN2's lazy intervals.
    penalties=Penalties(r1=Weighted(0.0256, every=16), path_length=Weighted(2.0, every=4)),
)
STYLEGAN2_256 = replace(  # paper256 of StyleGAN2-ADA's code
    STYLEGAN2_64,
    batch_size=64,
    network=Net(size=256, z_dim=512, g_channels=64, d_channels=64, mbstd_group=8),
    penalties=Penalties(r1=Weighted(1.0, every=16), path_length=Weighted(2.0, every=4)),
    optimizer=replace(STYLEGAN2_64.optimizer, ema_half_life_images=20_000.0, ema_ramp=0.0),
)
STYLEGAN2_AUTO_256 = replace(  # what StyleGAN2-ADA's code chooses for a batch of 32
    STYLEGAN2_64,
    network=replace(STYLEGAN2_256.network, mapping_layers=2, mbstd_group=4),
    penalties=Penalties(r1=Weighted(0.41, every=16), path_length=Weighted(2.0, every=4)),  # by the rule above
)
ADA_AUGMENT = AugmentSettings(kind="ada")

STYLEGAN3_T_256 = Config(  # what its code sets for --cfg=stylegan3-t --batch=32 --gamma=2, as its guide has it
    generator="stylegan3-t",
    discriminator="stylegan2",
    batch_size=32,
    micro_batch_size=8,
    optimizer=Adam(g_lr=2.5e-3, d_lr=2e-3, beta1=0.0, beta2=0.99),
    network=Net(size=256, z_dim=512, g_channels=128, d_channels=128, mbstd_group=4, mapping_layers=2),
    penalties=Penalties(r1=Weighted(2.0, every=16)),
    augment=ADA_AUGMENT,
)

FASTGAN_256 = Config(
    generator="fastgan",
    discriminator="fastgan",
    batch_size=8,
    micro_batch_size=8,
    flip=True,
    objective="hinge",
    network=Net(
        size=256, z_dim=256, g_channels=32, d_channels=16, max_channels=1024, g_spectral_norm=True, d_spectral_norm=True
    ),
    augment=AugmentSettings(kind="diffaugment", policy="color,translation"),
    penalties=Penalties(reconstruction=Weighted(1.0)),
    optimizer=Adam(ema_half_life_images=5540, ema_ramp=0.0),  # a decay of 0.999 a step, of 8 pictures
)
PROJECTED_256 = Config(
    generator="fastgan",
    discriminator="projected",
    batch_size=64,
    micro_batch_size=8,
    flip=True,
    objective="hinge",
    network=Net(
        size=256, z_dim=256, g_channels=32, d_channels=64, max_channels=1024, g_spectral_norm=True, d_spectral_norm=True
    ),
    augment=AugmentSettings(kind="diffaugment"),
    optimizer=Adam(beta1=0.0, beta2=0.99, ema_half_life_images=20_000.0, ema_ramp=0.0),
)


def r3gan_config(net: Net, batch: int, gamma: float, p: float, ema: float = 5e5) -> Config:
    """Return R3GAN's configuration E; gamma falls to a tenth, p and the half-life rise, over 20 million pictures."""
    return Config(
        generator="r3gan",
        discriminator="r3gan",
        objective="relativistic-pairing",
        batch_size=batch,
        micro_batch_size=16,
        flip=True,
        network=net,
        penalties=Penalties(r1=Weighted(gamma, gamma / 10), r2=Weighted(gamma, gamma / 10)),
        augment=AugmentSettings(kind="ada", pipe="bgco", colour_share=0.5, adaptive=False, p_final=p),
        optimizer=Adam(
            beta1=0.0,
            beta2=0.9,
            beta2_final=0.99,
            lr_final=0.25,
            decay_images=20_000_000,
            ema_half_life_images=0.0,
            ema_half_life_final=ema,
            ema_ramp=0.0,
        ),
    )
