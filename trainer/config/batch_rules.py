"""What another batch does to rates, penalties and the moving average: one rule for each family of recipes.

A rule is a paper's, or that of its authors' code. Where neither says anything about other batches than its own, there
is none: of DCGAN and what has its batch of 128, and of WGAN-GP and SNGAN, whose 64 is the same on one GPU and on four.
The guide of StyleGAN3 keeps the batch of 32, gamma and rates on 1 to 8 GPUs, and says that a smaller batch usually
wants a larger gamma or lower rates (docs/configs.md): so goes the gamma of StyleGAN2-ADA.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trainer.config.config import Config

GAMMA = "penalties.r1.weight"
HALF_LIFE = "optimizer.ema_half_life_images"
RATES = ("optimizer.g_lr", "optimizer.d_lr")

Values = Mapping[str, float]
"""Settings by their dotted names."""


@dataclass(frozen=True)
class BatchRule:
    """What a paper, or its authors' code, does with another batch."""

    source: str
    summary: str
    """In words."""
    values: Callable[[Config, Config], Values]
    """Returns what it sets, from the recipe and from the settings of a run."""
    batch_on: Callable[[Config, int], int] = lambda recipe, gpus: recipe.batch_size
    """Returns the batch that it takes for a recipe on so many GPUs."""
    fewest: int = 8
    """Pictures of a micro-batch at least: BatchNorm's statistics of fewer are mostly noise."""


def stylegan2_auto(recipe: Config, config: Config) -> Values:
    """Return what `auto` sets in train.py of NVlabs/stylegan2-ada-pytorch, for the run's size and batch."""
    size, batch = config.network.size, config.batch_size
    return {GAMMA: 0.0002 * size**2 / batch, HALF_LIFE: batch * 10 / 32 * 1000} | stylegan2_rates(size)


def stylegan2_auto_batch(recipe: Config, gpus: int) -> int:
    """Return the batch of `auto`: what fits into a GPU of its time, 64 in all, and at least one picture a GPU."""
    return max(min(gpus * min(4096 // recipe.network.size, 32), 64), gpus)


def stylegan2_paper(recipe: Config, config: Config) -> Values:
    """Return the same by proportion to `paper256` there, whose gamma is 1 at 256 px for a batch of 64."""
    size, batch = config.network.size, config.batch_size
    return {GAMMA: (size / 256) ** 2 * 64 / batch, HALF_LIFE: batch * 10 / 32 * 1000} | stylegan2_rates(size)


def stylegan2_rates(size: int) -> dict[str, float]:
    """Return the rates of `auto`: they follow from the size alone."""
    return dict.fromkeys(RATES, 0.002 if size >= 1024 else 0.0025)


def decay_a_step(recipe: Config, config: Config) -> Values:
    """Return a half-life of as many steps as the recipe's, in pictures."""
    return {HALF_LIFE: recipe.optimizer.ema_half_life_images * config.step_images / recipe.step_images}


AUTO = BatchRule(
    "StyleGAN2-ADA's configuration auto (train.py)",
    "gamma is 0.0002 size² / batch, the half-life of the moving average 312.5 batch; rates go by the size alone",
    stylegan2_auto,
    stylegan2_auto_batch,
    fewest=2,  # there is no BatchNorm; minibatch standard deviation wants two
)
PAPER_256 = BatchRule(
    "StyleGAN2-ADA's configuration paper256 (train.py), and by auto for other batches",
    "gamma is 64 / batch at 256 px, the half-life of the moving average 312.5 batch; rates go by the size alone",
    stylegan2_paper,
    lambda recipe, gpus: max(64, gpus),
    fewest=2,
)
BIGGAN = BatchRule(
    "BigGAN's study of batches from 256 to 2,048 (Brock et al. 2019, table 1)",
    "rates stay; the moving average decays by step, so its half-life goes with the pictures of a step",
    decay_a_step,
)
SAGAN = BatchRule(
    "BigGAN's study of batches from 256 to 2,048 (Brock et al. 2019, table 1), which begins with SAGAN",
    "rates stay (there they are half of SAGAN's, with two updates of D a step, for each batch alike)",
    lambda recipe, config: {},
)
PROJECTED = BatchRule(
    "Projected GAN's code (train.py)",
    "the half-life of the moving average is 312.5 batch; rates stay",
    lambda recipe, config: {HALF_LIFE: config.batch_size * 10 / 32 * 1000},
)
FASTGAN = BatchRule(
    "FastGAN's code (train.py), whose moving average decays by step",
    "the half-life of the moving average goes with the pictures of a step; nothing is said of rates, and they stay",
    decay_a_step,
)
R3GAN = BatchRule(
    "R3GAN's presets (train.py) for batches of 256, of 512 and, on 32 and 64 GPUs, of 4,096",
    "rates stay; gamma and the half-life of the moving average go by the data, not by the batch",
    lambda recipe, config: {},
)
