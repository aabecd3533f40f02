"""StyleGAN3's generators (Karras et al. 2021, arXiv:2106.12423), configurations T and R; D is StyleGAN2's.

Details move with what they are details of: every layer is equivariant to translation (T), and to rotation (R: 1 x 1
convolutions, twice the channels, radial filters). Sizes begin at 16. At 256 pixels the authors' --cfg has g_channels
128, z_dim 512 and mapping_layers 2. Pictures that are not square have the bands of square ones of as many doublings.

The authors' code divides weights and styles by their own size before it demodulates, for the range of fp16; up to an
epsilon of 1e-8 demodulation makes no difference of that, and here it is left out. The running magnitudes move once per
optimizer step, after it, and the average of the weights averages them, too; theirs move before each pass of G in D's
step, and are copied.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainer.networks import base, stylegan2
from trainer.networks.alias_free import CLAMP, Band, FilteredLeakyRelu
from trainer.networks.base import Latent, Weights, to_float32
from trainer.networks.batch_statistics import MeasuringLayer
from trainer.networks.fourier_features import FourierFeatures, draw_frequencies
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.style_layers import Mapping, ModulatedConv, Modulation, modulations

LAYERS, CRITICAL = 14, 2
"""Layers between the input and that to RGB; the last of them are sampled as sparsely as their cutoff allows."""
FIRST_CUTOFF, FIRST_STOPBAND, LAST_STOPBAND = 2.0, 2**2.1, 2**0.3
"""Of the first layer, and the last layer's stopband over its cutoff (§3.2)."""
MARGIN = 10  # places beyond each border of the picture
OUTPUT_SCALE = 0.25
HALF_LIFE = 20_000  # pictures, of the running magnitudes


def bands(settings: NetworkSettings, widen: int) -> list[Band]:
    """Return what the input and each layer put out; the input's band is the first layer's.

    Cutoffs and stopbands rise geometrically from the first layer to the first of the last, critical ones; so many
    channels that their number times the cutoff stays the same, and never more than max_channels.
    """
    last, found = settings.nominal / 2, []
    for i in range(LAYERS + 1):
        share = min(i / (LAYERS - CRITICAL), 1.0)
        cutoff = FIRST_CUTOFF * (last / FIRST_CUTOFF) ** share
        stopband = FIRST_STOPBAND * (last * LAST_STOPBAND / FIRST_STOPBAND) ** share
        rate = 2 ** math.ceil(math.log2(min(2 * stopband, settings.nominal)))
        margin = 2 * MARGIN if i < LAYERS - 1 else 0
        height, width = (side * rate // 4 + margin for side in settings.base)
        channels = round(widen * min(settings.g_channels * last / cutoff, settings.max_channels))
        channels = settings.channels if i == LAYERS else max(channels, 1)
        found.append(Band(cutoff, max(stopband, rate / 2) - cutoff, rate, (height, width), channels))
    return [found[0], *found]


def initial_value(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Weights | None:
    """Draw weights as StyleGAN2 does, frequencies and phases; the input is neither turned nor moved at first."""
    if name.endswith("mean_square"):
        return None
    if name.endswith("frequencies"):
        return draw_frequencies(rng, shape[0], FIRST_CUTOFF)
    if name.endswith("phases"):
        return rng.random(shape) - 0.5
    if name.startswith("input.affine"):
        return np.array([1.0, 0.0, 0.0, 0.0]) if name.endswith("bias") else 0.0
    return stylegan2.initial_value(name, shape, rng)


class InputMagnitude(MeasuringLayer):
    """One over the root of the running mean of squares of what a layer takes (§3.2)."""

    running = ("mean_square",)
    of_weights = True
    mean_square: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean_square", torch.ones(1))

    def weight_of_batch(self, images: int) -> float:
        """Return the weight by which the running mean's half-life is that of the paper's code."""
        return float(1 - 0.5 ** (images / HALF_LIFE))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, " 1"]:
        """Return the factor for x; in training, measure x as well."""
        if self.training and self.counts and not self.repeats and self.batch is not None:
            self.begin_pass()
            with torch.no_grad():
                self.batch[0].lerp_(to_float32(x).square().mean(), 1 / self.passes)
        return self.mean_square.rsqrt()


class SynthesisLayer(nn.Module):
    """Modulated convolution of all places that the maps touch, bias, filtered LeakyReLU."""

    def __init__(self, before: Band, after: Band, w_dim: int, kernel: int, radial: bool) -> None:
        super().__init__()
        self.magnitude = InputMagnitude()
        self.conv = ModulatedConv(before.channels, after.channels, w_dim, kernel, padding=kernel - 1)
        self.bias = nn.Parameter(torch.zeros(after.channels))
        self.activation = FilteredLeakyRelu(before, after, kernel - 1, radial)

    def forward(self, x: Float[Tensor, "n i h w"], modulation: Modulation) -> Float[Tensor, "n o p q"]:
        """Compute the next feature maps."""
        style = modulation.style * self.magnitude(x)
        x = self.conv(x, Modulation(style, modulation.norm))
        out: Tensor = self.activation(x + self.bias.to(x.dtype)[:, None, None])
        return out


class ToRGB(nn.Module):
    """Modulated 1 x 1 convolution to a picture, without demodulation or filters."""

    def __init__(self, before: Band, after: Band, w_dim: int) -> None:
        super().__init__()
        self.magnitude = InputMagnitude()
        self.conv = ModulatedConv(before.channels, after.channels, w_dim, 1, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(after.channels))

    def forward(self, x: Float[Tensor, "n c h w"], modulation: Modulation) -> Float[Tensor, "n c h w"]:
        """Return pictures about [-1, 1], in the bias's precision."""
        style = modulation.style * self.magnitude(x)
        x = self.conv(x, Modulation(style, None)) + self.bias[:, None, None]
        return x.clamp(-CLAMP, CLAMP) * OUTPUT_SCALE


class Generator(base.Generator):
    """Configuration T: z to a code w for each layer, Fourier features, 14 layers, RGB. Styles are not mixed."""

    has_blocks = True
    gradients_last = True  # those of the demodulations, of which each weight has a part
    interpolates_linearly = True
    weight_buffers = ".frequencies", ".phases", ".mean_square"
    initial_value = staticmethod(initial_value)
    kernel, widen, radial = 3, 1, False

    @staticmethod
    def problem(settings: NetworkSettings) -> str | None:
        """Return what StyleGAN3's generator cannot do with these settings, or None."""
        if settings.nominal < 16:
            return f"network.size must be at least 16 for stylegan3, but is {settings.size}"
        # Equalised learning rates and spectral norm both rescale the weights: together they undo one another.
        if settings.g_spectral_norm:
            return "spectral normalisation does not go with stylegan3: its learning rates are equalised"
        return None

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__(settings)
        w_dim = settings.z_dim
        told = self.labels if settings.g_condition else None
        self.mapping = Mapping(settings.z_dim, told, w_dim, settings.mapping_layers)
        first, *_ = found = bands(settings, self.widen)
        self.input = FourierFeatures(first, w_dim)
        layers = list(pairwise(found))
        # Sampled critically, a layer's filter has to stop at the border of the square of frequencies, not of the disc.
        sparse = len(layers) - 1 - CRITICAL
        self.layers = nn.ModuleList(
            SynthesisLayer(before, after, w_dim, self.kernel, self.radial and i < sparse)
            for i, (before, after) in enumerate(layers[:-1])
        )
        self.to_rgb = ToRGB(*layers[-1], w_dim)

    def latent_code(self, latent: Latent) -> Float[Tensor, "n layers w"]:
        """Return a code for the input, for each layer and for RGB, all of them the same."""
        w: Tensor = self.mapping(latent.z, latent.label)
        return w[:, None].expand(-1, len(self.layers) + 2, -1)

    def code_layers(self) -> list[Float[Tensor, "outputs code"]]:
        """Return the affine weights of the input, of each layer and of RGB."""
        affines = [self.input.affine, *(m.affine for m in self.modules() if isinstance(m, ModulatedConv))]
        return [affine.weight for affine in affines]

    def by_layer(self, code: Float[Tensor, "n layers w"]) -> Float[Tensor, "n layers w"]:
        """Return the code as it is: the input, each layer and RGB have a code."""
        return code

    def synthesize(self, code: Float[Tensor, "n layers w"], latent: Latent) -> Float[Tensor, "n c h w"]:
        """Generate pictures, about [-1, 1]; of the latent nothing is used."""
        first, *rest = code.unbind(1)
        *styles, last = modulations([m for m in self.modules() if isinstance(m, ModulatedConv)], rest)
        x = self.input(first)
        for layer, style in zip(self.layers, styles, strict=True):
            x = self.run_block(layer, x, style)
        picture: Tensor = self.to_rgb(x, last)
        return picture


class RotationGenerator(Generator):
    """Configuration R: with the same settings it has twice T's channels, as with the authors' --cfg."""

    kernel, widen, radial = 1, 2, True
