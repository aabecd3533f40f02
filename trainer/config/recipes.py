"""Named recipes: settings that follow a paper, what it reports of them, and what they cost there.

Batches are the papers' or their code's; micro-batches, in which BatchNorm, packing and minibatch statistics couple
pictures, are ours. What becomes of the rest with another batch is the recipe's `rule` (batch_rules.py). Figures are the
papers' own, on their data; nothing here says that a run on other data comes near them. Where a paper has only a larger
size, a smaller one keeps its optimizer and penalties; a learning rate that falls in a straight line there falls along
half a cosine here, or stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainer.augment.base import AugmentSettings
from trainer.config import batch_rules
from trainer.config.batch_rules import BatchRule
from trainer.config.batch_scaling import ScaleRule, Scaling, find_scaling
from trainer.config.config import Config
from trainer.config.groups import OptimizerSettings as Adam
from trainer.config.recipe_families import (
    ADA_AUGMENT,
    BIGGAN_32,
    DCGAN_64,
    FASTGAN_256,
    FEW_SHOT_AUGMENT,
    MSG_GAN_64,
    PROJECTED_256,
    SAGAN_64,
    SNGAN_32,
    SNGAN_64_NETWORK,
    STYLEGAN2_64,
    STYLEGAN2_256,
    STYLEGAN2_AUTO_256,
    STYLEGAN3_T_256,
    UNET_128,
    r3gan_config,
)
from trainer.core.registry import choose_from
from trainer.losses.penalties import Penalties
from trainer.losses.penalties.base import Weighted
from trainer.networks.network_settings import NetworkSettings as Net


@dataclass(frozen=True)
class Recipe:
    """Settings, and where they come from."""

    config: Config
    paper: str
    expect: str
    """What the paper reports, and of what."""
    cost: str = "not given"
    """On the paper's hardware."""
    rule: BatchRule | None = None
    """What its paper does with other batches; None: nothing is said."""


DCGAN = "Radford, Metz, Chintala 2016, arXiv:1511.06434"
GOODFELLOW = "Goodfellow et al. 2014, arXiv:1406.2661"
LSGAN = "Mao et al. 2017, arXiv:1611.04076"
RAGAN = "Jolicoeur-Martineau 2019, arXiv:1807.00734"
DRAGAN = "Kodali et al. 2017, arXiv:1705.07215"
PACGAN = "Lin et al. 2018, arXiv:1712.04086"
ACGAN = "Odena, Olah, Shlens 2017, arXiv:1610.09585"
CAN = "Elgammal et al. 2017, arXiv:1706.07068"
WGAN_GP = "Gulrajani et al. 2017, arXiv:1704.00028"
SNGAN = "Miyato et al. 2018, arXiv:1802.05957"
PROJECTION = "Miyato, Koyama 2018, arXiv:1802.05637"
BCR = "Zhao et al. 2021, arXiv:2002.04724"
SAGAN = "Zhang et al. 2019, arXiv:1805.08318"
BIGGAN = "Brock, Donahue, Simonyan 2019, arXiv:1809.11096"
LECAM = "Tseng et al. 2021, arXiv:2104.03310"
DIFFAUGMENT = "Zhao et al. 2020, arXiv:2006.10738"
STYLEGAN2 = "Karras et al. 2020, arXiv:1912.04958"
ADA = "Karras et al. 2020, arXiv:2006.06676"
APA = "Jiang et al. 2021, arXiv:2111.06849"
STYLEGAN3 = "Karras et al. 2021, arXiv:2106.12423"
UNET = "Schönfeld, Schiele, Khoreva 2020, arXiv:2002.12655"
PROJECTED = "Sauer et al. 2021, arXiv:2111.01007"
FASTGAN = "Liu et al. 2021, arXiv:2101.04775"
MSG_GAN = "Karnewar, Wang 2020, arXiv:1903.06048"
R3GAN = "Huang et al. 2024, arXiv:2501.05441"

# One line a field would hide the table.
# fmt: off
RECIPES = {
    "dcgan-32": Recipe(
        replace(DCGAN_64, batch_size=64, micro_batch_size=16, network=Net(size=32)),
        DCGAN, "here: recognisable flags after some 100,000 pictures"),
    "dcgan-64": Recipe(
        DCGAN_64,
        DCGAN, "LSUN bedrooms, looked at"),
    "dcgan-128": Recipe(
        replace(DCGAN_64, network=Net(size=128)),
        DCGAN, "one more layer in each network than the paper's"),
    "gan-32": Recipe(
        Config(generator="mlp", discriminator="mlp", batch_size=100, micro_batch_size=20,
               network=Net(size=32, z_dim=100, g_channels=1200, d_channels=240)),
        GOODFELLOW, "CIFAR-10, looked at; the widths of its MNIST networks, and Adam for its SGD"),
    "lsgan-64": Recipe(
        replace(DCGAN_64, objective="least-squares"),
        LSGAN, "LSUN scenes, looked at"),
    "ragan-64": Recipe(
        replace(DCGAN_64, objective="relativistic-average"),
        RAGAN, "cats at 256 px from 2,011 pictures, where GAN and LSGAN fail: FID 32.11"),
    "dragan-64": Recipe(
        replace(DCGAN_64, penalties=Penalties(dragan=Weighted(10.0))),
        DRAGAN, "more stable training, looked at; its penalty does not mind BatchNorm in D"),
    "pacgan-64": Recipe(
        replace(DCGAN_64, network=Net(size=64, d_batch_norm=False, pack=2)),
        PACGAN, "stacked MNIST: 1000 of 1000 modes, KL 0.06"),
    "acgan-64": Recipe(
        replace(DCGAN_64, network=Net(size=64, g_conditional=True, d_head="classifier"),
                penalties=Penalties(classes_d=Weighted(1.0), classes_g=Weighted(1.0))),
        ACGAN, "ImageNet at 128 px: 84.7 % of classes as diverse as real data"),
    "can-64": Recipe(
        replace(DCGAN_64, network=Net(size=64, d_head="classifier"),
                penalties=Penalties(style=Weighted(1.0), ambiguity=Weighted(1.0))),
        CAN, "WikiArt at 256 px: 53 % of people took its pictures for an artist's"),
    "wgan-gp-32": Recipe(
        replace(SNGAN_32, generator="wgan-gp", discriminator="wgan-gp", objective="wasserstein",
                network=Net(size=32, z_dim=128, g_channels=128, d_channels=128),
                penalties=Penalties(wgan_gp=Weighted(10.0)),
                optimizer=Adam(beta1=0.0, beta2=0.9, lr_final=0.0, decay_images=32_000_000)),
        WGAN_GP, "CIFAR-10: inception score 7.86"),
    "wgan-gp-64": Recipe(
        replace(SNGAN_32, generator="wgan-gp", discriminator="wgan-gp", objective="wasserstein",
                g_batches=1, network=Net(size=64, z_dim=128), penalties=Penalties(wgan_gp=Weighted(10.0)),
                optimizer=Adam(g_lr=1e-4, d_lr=1e-4, beta1=0.0, beta2=0.9)),
        WGAN_GP, "LSUN bedrooms, looked at"),
    "sngan-32": Recipe(
        SNGAN_32,
        SNGAN, "CIFAR-10: inception score 8.22, FID 21.7"),
    "sngan-64": Recipe(
        replace(SNGAN_32, g_batches=1, network=SNGAN_64_NETWORK),
        SNGAN, "its ImageNet networks at half their size"),
    "projection-64": Recipe(
        replace(SNGAN_32, g_batches=1,
                network=replace(SNGAN_64_NETWORK, g_conditional=True, d_head="projection")),
        PROJECTION, "ImageNet at 128 px: inception score 29.7, intra-class FID 103.1", "4 GPUs, time not given"),
    "bcr-32": Recipe(
        replace(SNGAN_32, penalties=Penalties(bcr=Weighted(10.0))),
        BCR, "CIFAR-10: better than consistency on reals alone"),
    "icr-32": Recipe(
        replace(BIGGAN_32, penalties=Penalties(bcr=Weighted(10.0), zcr_d=Weighted(20.0), zcr_g=Weighted(0.5))),
        BCR, "CIFAR-10: FID 9.21; its weights are StudioGAN's (BigGAN-ICR.yaml)", rule=batch_rules.BIGGAN),
    "sagan-64": Recipe(
        SAGAN_64,
        SAGAN, "the networks of the paper at half their size, without labels", rule=batch_rules.SAGAN),
    "sagan-128": Recipe(
        replace(SAGAN_64, network=replace(SAGAN_64.network, size=128, g_conditional=True, d_head="projection")),
        SAGAN, "ImageNet: inception score 52.52, FID 18.65", "several weeks on 4 GPUs",
        batch_rules.SAGAN),
    "biggan-32": Recipe(
        BIGGAN_32,
        BIGGAN, "CIFAR-10: FID 14.73; batch and rates are BigGAN-PyTorch's", rule=batch_rules.BIGGAN),
    "biggan-128": Recipe(
        replace(BIGGAN_32, batch_size=2048, micro_batch_size=32, d_steps=1,
                optimizer=Adam(1e-4, 4e-4, beta1=0.0, eps=1e-6, ema_half_life_images=1.42e7),
                network=replace(BIGGAN_32.network, size=128, z_dim=120, g_channels=96, d_channels=96)),
        BIGGAN, "ImageNet: inception score 97.35 by BigGAN-PyTorch, whose settings these are; the paper's: --d-steps 2 "
        "--optimizer.g-lr 5e-5 --optimizer.d-lr 2e-4", "15 days on 8 V100", batch_rules.BIGGAN),
    "biggan-deep-128": Recipe(
        replace(BIGGAN_32, generator="biggan-deep", discriminator="biggan-deep", batch_size=2048, micro_batch_size=32,
                d_steps=1, optimizer=Adam(1e-4, 4e-4, beta1=0.0, eps=1e-6, ema_half_life_images=1.42e7),
                network=replace(BIGGAN_32.network, size=128, z_dim=128, g_channels=128, d_channels=128)),
        BIGGAN, "ImageNet: inception score 124.5, FID 5.7; the settings are BigGAN-PyTorch's", rule=batch_rules.BIGGAN),
    "unet-128": Recipe(
        UNET_128,
        UNET, "FID better than BigGAN's by 2.7, on average over FFHQ, CelebA and COCO-Animals"),
    "msg-gan-64": Recipe(
        MSG_GAN_64,
        MSG_GAN, "CelebA at 64 px, looked at: of the first author's own PyTorch code"),
    "lecam-32": Recipe(
        replace(BIGGAN_32, flip=True, penalties=Penalties(lecam=Weighted(0.3)), augment=FEW_SHOT_AUGMENT),
        LECAM, "CIFAR-10, with DiffAugment: FID 8.46", rule=batch_rules.BIGGAN),
    "diffaugment-32": Recipe(
        replace(BIGGAN_32, flip=True, augment=FEW_SHOT_AUGMENT),
        DIFFAUGMENT, "CIFAR-10: FID 8.70 (without: 9.59)", "about a day on 2 GPUs", batch_rules.BIGGAN),
    "stylegan2-64": Recipe(
        STYLEGAN2_64,
        STYLEGAN2, "its networks at 64 px, of StyleGAN2-ADA's width and penalty", rule=batch_rules.AUTO),
    "stylegan2-256": Recipe(
        STYLEGAN2_256,
        STYLEGAN2, "FFHQ at 1024 px: FID 2.84; here of StyleGAN2-ADA's width and penalty", "4 days 18 h on 8 V100",
        batch_rules.PAPER_256),
    "stylegan2-ada-64": Recipe(
        replace(STYLEGAN2_64, augment=ADA_AUGMENT, network=replace(STYLEGAN2_64.network, mapping_layers=2)),
        ADA, "what its code chooses for 64 px", rule=batch_rules.AUTO),
    "stylegan2-ada-256": Recipe(
        replace(STYLEGAN2_AUTO_256, augment=ADA_AUGMENT),
        ADA, "FFHQ of 5,000 pictures: FID 10.96", "1 day 11 h on 8 V100", batch_rules.AUTO),
    "stylegan3-t-256": Recipe(
        STYLEGAN3_T_256,
        STYLEGAN3, "FFHQ at 1024 px: FID 2.79", "3 days 19 h on 8 V100"),
    "stylegan3-r-256": Recipe(
        replace(STYLEGAN3_T_256, generator="stylegan3-r",
                augment=replace(ADA_AUGMENT, blur_sigma=10.0, blur_images=200_000)),
        STYLEGAN3, "FFHQ at 1024 px: FID 3.07", "3 days 11 h on 8 V100"),
    "apa-256": Recipe(
        replace(STYLEGAN2_AUTO_256, augment=AugmentSettings(apa=True)),
        APA, "FFHQ of 5,000 pictures: FID 13.25", rule=batch_rules.AUTO),
    "fastgan-256": Recipe(
        FASTGAN_256,
        FASTGAN, "100 pictures of Obama: FID 41.05", "a few hours on one RTX 2080", batch_rules.FASTGAN),
    "projected-256": Recipe(
        PROJECTED_256,
        PROJECTED, "FFHQ: FID 3.39 with EfficientNet-Lite0 (--network.features-file)", rule=batch_rules.PROJECTED),
    "r3gan-32": Recipe(
        r3gan_config(Net(size=32, z_dim=64, g_channels=768, d_channels=768, max_channels=768,
                         g_conditional=True, d_head="projection"), 512, 0.05, 0.55, ema=5e6),
        R3GAN, "CIFAR-10: FID 1.96", "4 days on 8 L40", batch_rules.R3GAN),
    "r3gan-64": Recipe(
        r3gan_config(Net(size=64, z_dim=64, g_channels=384, d_channels=384, max_channels=768), 256, 2.0, 0.3),
        R3GAN, "FFHQ: FID 1.95", rule=batch_rules.R3GAN),
    "r3gan-256": Recipe(
        r3gan_config(Net(size=256, z_dim=64, g_channels=96, d_channels=96, max_channels=768), 256, 150.0, 0.3),
        R3GAN, "FFHQ: FID 2.75", rule=batch_rules.R3GAN),
}
# fmt: on


def recipe_config(name: str) -> Config:
    """Return a recipe's settings.

    Raises:
        Refused: there is none of this name.
    """
    return replace(choose_from(RECIPES, name, "recipe").config, recipe=name)


def scaling_of(config: Config) -> Scaling | None:
    """Return what its recipe's rule does to a run's settings; None: nothing, or the recipe is none of these."""
    recipe = RECIPES.get(config.recipe)
    return find_scaling(recipe.config, recipe.rule, config) if recipe else None


def scale(config: Config, by: ScaleRule) -> Config:
    """Return the settings as a rule has them.

    Raises:
        Refused: the recipe's paper has none.
    """
    scaling = scaling_of(config) if by == "paper" else None
    return scaling.apply(config) if scaling else config
