"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958), configuration F; told classes as StyleGAN2-ADA (arXiv:2006.06676).

A layer at side s has width * size / s channels, and never more than max_channels. Widths of 32, 64 and 128 at sides of
1024, 512 and 256 are the authors' channel_base of 32768; half of each is 16384, their choice for 256 x 256.

Pictures are not squashed by tanh: they learn to lie about [-1, 1], and are clipped where they are saved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from trainer.core.randomness import normal
from trainer.networks import base
from trainer.networks.base import DiscriminatorOutput, Latent, Weights, minibatch_std, pack_images
from trainer.networks.equalized import SQRT2, Conv2d, Linear, lrelu, scaled
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.resample import Blur, Downsample, Upsample
from trainer.networks.style_layers import (
    MAPPING_RATE,
    Mapping,
    ModulatedConv,
    Modulation,
    StyledConv,
    ToRGB,
    modulations,
)


def sides(settings: NetworkSettings) -> list[int]:
    """Return the sides of the feature maps, from 4 to the picture's."""
    return [2**k for k in range(2, settings.nominal.bit_length())]


def widths(settings: NetworkSettings, width: int) -> list[int]:
    """Return the channels at each of the sides."""
    return [min(width * settings.nominal // side, settings.max_channels) for side in sides(settings)]


def style_layers(settings: NetworkSettings) -> int:
    """Return how many layers take a style: the convolutions, and the last one to RGB."""
    return 2 * len(sides(settings))


def initial_value(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Weights | None:
    """Draw weights and the constant from N(0, 1), those of mapping networks over their learning rate's factor.

    Styles begin at one; other biases and the strengths of noise at zero.
    """
    if name.endswith("bias"):
        return 1.0 if "affine" in name else 0.0
    if name.endswith("strength"):
        return 0.0
    # Layers divide by the root of their inputs when they are used, so all begin alike here.
    drawn = rng.standard_normal(shape, dtype=np.float32)
    return drawn / np.float32(MAPPING_RATE) if "mapping.layers" in name else drawn


def problem(settings: NetworkSettings, spectral_norm: bool) -> str | None:
    """Return what StyleGAN2 cannot do with these settings, or None."""
    if settings.nominal < 8:
        return f"network.size must be a power of two from 8 for stylegan2, but is {settings.size}"
    # Equalised learning rates and spectral norm both rescale the weights: together they undo one another.
    if spectral_norm:
        return "spectral normalisation does not go with stylegan2: its learning rates are equalised"
    return None


class SynthesisBlock(nn.Module):
    """Twice the side: two styled convolutions, and a picture beside that of the side before (fig. 7b)."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, colours: int) -> None:
        super().__init__()
        self.up = StyledConv(inputs, outputs, w_dim, up=True)
        self.conv = StyledConv(outputs, outputs, w_dim)
        self.to_rgb = ToRGB(outputs, w_dim, colours)
        self.upsample = Upsample()

    def forward(
        self, x: Tensor, picture: Tensor, styles: Sequence[Modulation], noise: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the next feature maps and the picture so far."""
        x = self.conv(self.up(x, styles[0], noise[0]), styles[1], noise[1])
        return x, self.upsample(picture) + self.to_rgb(x, styles[2])


class Generator(base.Generator):
    """z to styles w, and styles to pictures; the class is mapped beside z."""

    has_blocks = True
    gradients_last = True  # those of the demodulations, of which each weight has a part
    interpolates_linearly = True
    initial_value = staticmethod(initial_value)

    @staticmethod
    def problem(settings: NetworkSettings) -> str | None:
        """Return what StyleGAN2's generator cannot do with these settings, or None."""
        return problem(settings, settings.g_spectral_norm)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        w_dim = settings.z_dim
        self.mapping = Mapping(
            settings.z_dim, self.labels if settings.g_condition else None, w_dim, settings.mapping_layers
        )
        channels = widths(settings, settings.g_channels)
        self.constant = nn.Parameter(torch.zeros(1, channels[0], *settings.base))
        self.first = StyledConv(channels[0], channels[0], w_dim, factor=1)  # the constant comes from no LeakyReLU
        self.to_rgb = ToRGB(channels[0], w_dim, settings.channels)
        self.blocks = nn.ModuleList(SynthesisBlock(a, b, w_dim, settings.channels) for a, b in pairwise(channels))

    @staticmethod
    def extra(settings: NetworkSettings, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
        """Draw n pictures' noise maps and, unless the probability of mixing is zero, their second styles.

        noise_{side}_{k}: (n, 1, h, w) for the k-th convolution of a side; z_mix: (n, z); crossover: (n,) int64,
        the first layer that takes the second style, which is one past the last layer where styles are not mixed. The
        noise maps are the same whether styles are mixed or not.
        """
        draws = {
            f"noise_{side}_{k}": normal(rng, n, 1, *settings.map_shape(side))
            for side in sides(settings)
            for k in range(1 if side == 4 else 2)  # at 4 the constant stands in for the other
        }
        if settings.style_mixing:
            layers = style_layers(settings)
            mixed = rng.random(n) < settings.style_mixing
            # For all pictures, mixed or not, so that the draw of one does not shift that of the next.
            draws["z_mix"] = normal(rng, n, settings.z_dim)
            draws["crossover"] = torch.from_numpy(np.where(mixed, rng.integers(1, layers, n), layers))
        return draws

    def modulated(self) -> list[ModulatedConv]:
        """Return the convolutions that take styles, from the first side to the last, each side's layer to RGB last."""
        return [module for module in self.modules() if isinstance(module, ModulatedConv)]

    def styles_taken(self) -> list[int]:
        """Return which layer of w each of these takes."""
        # The layer to RGB shares its style with the next side's first convolution.
        return [0, 1, *(2 * k + i for k in range(len(self.blocks)) for i in (1, 2, 3))]

    def latent_code(self, latent: Latent) -> Float[Tensor, "n layers w"]:
        """Return the style of each layer: from `crossover` on, the second one, where the latent has one."""
        layers = style_layers(self.settings)
        if "z_mix" not in latent.extra:  # all layers share one style
            return self.mapping(latent.z, latent.label)[:, None].expand(-1, layers, -1)  # type: ignore[no-any-return]
        both = torch.cat([latent.z, latent.extra["z_mix"]]), torch.cat([latent.label, latent.label])
        w, second = self.mapping(*both)[:, None].chunk(2)
        first = torch.arange(layers, device=w.device) < latent.extra["crossover"][:, None]
        return torch.where(first[:, :, None], w, second)

    def code_layers(self) -> list[Float[Tensor, "outputs code"]]:
        """Return the affine weights of each layer of w, those of layers to RGB included."""
        found: list[list[Tensor]] = [[] for _ in range(style_layers(self.settings))]
        for k, layer in zip(self.styles_taken(), self.modulated(), strict=True):
            found[k].append(layer.affine.weight)
        return [torch.cat(weights) for weights in found]

    def by_layer(self, code: Float[Tensor, "n layers w"]) -> Float[Tensor, "n layers w"]:
        """Return the code as it is: each layer has a style."""
        return code

    def synthesize(self, code: Float[Tensor, "n layers w"], latent: Latent) -> Float[Tensor, "n c h w"]:
        """Generate pictures, about [-1, 1]."""
        noise, by_layer = latent.extra, code.unbind(1)
        first, rgb, *rest = modulations(self.modulated(), [by_layer[k] for k in self.styles_taken()])
        x = self.first(self.constant.expand(code.shape[0], -1, -1, -1), first, noise["noise_4_0"])
        picture: Tensor = self.to_rgb(x, rgb)
        for k, (side, block) in enumerate(zip(sides(self.settings)[1:], self.blocks, strict=True)):
            styles = rest[3 * k : 3 * k + 3]
            x, picture = self.run_block(block, x, picture, styles, (noise[f"noise_{side}_0"], noise[f"noise_{side}_1"]))
        return picture


class DiscriminatorBlock(nn.Module):
    """Half the side: two convolutions beside a 1 x 1 one, their sum over sqrt(2) (fig. 7c)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = Conv2d(inputs, inputs, 3, padding=1, factor=SQRT2)
        # Of s places it makes s + 1, of which the 3 x 3 convolution with stride 2 makes s / 2.
        self.blur = Blur(padding=2)
        # The sum of two parts of unit variance is over sqrt(2), which LeakyReLU's sqrt(2) cancels for this part.
        self.down = Conv2d(inputs, outputs, 3, stride=2)
        self.downsample = Downsample()
        self.skip = Conv2d(inputs, outputs, 1, bias=False, factor=math.sqrt(0.5))

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h/2 w/2"]:
        """Compute the next feature maps."""
        conv, down, skip = scaled(self.conv, self.down, self.skip)
        out: Tensor = lrelu(self.down(self.blur(lrelu(self.conv(x, conv))), down)) + self.skip(self.downsample(x), skip)
        return out


class Discriminator(base.Discriminator):
    """Pictures to logits by residual blocks; the logit of a class is a product with its mapped direction (ADA)."""

    has_blocks = True
    initial_value = staticmethod(initial_value)

    @staticmethod
    def problem(settings: NetworkSettings) -> str | None:
        """Return what StyleGAN2's discriminator cannot do with these settings, or None."""
        return problem(settings, settings.d_spectral_norm)

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        channels = widths(settings, settings.d_channels)[::-1]
        last = channels[-1]
        self.from_rgb = Conv2d(settings.d_inputs, channels[0], 1, factor=SQRT2)
        self.blocks = nn.Sequential(*(DiscriminatorBlock(a, b) for a, b in pairwise(channels)))
        self.conv = Conv2d(last + bool(settings.mbstd_group), last, 3, padding=1, factor=SQRT2)
        self.dense = Linear(math.prod(settings.base) * last, last, SQRT2)
        if settings.d_head == "projection":
            self.mapping = Mapping(0, self.labels, last, settings.mapping_layers)
        elif settings.d_head == "classifier":
            self.classify = Linear(last, self.labels.guessed)
        # For a projection this is a vector, and its product with the class's direction is the logit.
        self.real = Linear(last, last if settings.d_head == "projection" else 1)

    def forward(self, x: Float[Tensor, "n c h w"], label: Num[Tensor, "n ..."]) -> DiscriminatorOutput:
        """Judge pictures: high logits are real ones."""
        x = lrelu(self.from_rgb(pack_images(x, self.settings.pack)))
        for block in self.blocks:
            x = self.run_block(block, x)
        conv, dense, last = scaled(self.conv, self.dense, self.real)
        x = lrelu(self.conv(minibatch_std(x, self.settings.mbstd_group), conv))
        x = lrelu(self.dense(x.flatten(1), dense))
        real = self.real(x, last)
        if self.settings.d_head == "projection":
            # Over the root of the width, as in StyleGAN2-ADA's code: the variance does not grow with it.
            logits = (real * self.mapping(None, label)).sum(1) / math.sqrt(real.shape[1])
            return DiscriminatorOutput(logits, features=x)
        classes = self.classify(x) if self.settings.d_head == "classifier" else None
        return DiscriminatorOutput(real.flatten(), classes, features=x)
