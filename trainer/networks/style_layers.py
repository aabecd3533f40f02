"""Layers of StyleGAN2 that know styles: the mapping network, and convolutions that a style modulates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.networks.equalized import SQRT2, Linear, lrelu, scale_all, scaled
from trainer.networks.labels import LabelLayout
from trainer.networks.resample import Blur

MAPPING_RATE = 0.01  # factor on the mapping networks' learning rate (Karras et al. 2019, appendix C)
EPS = 1e-8


def normalise_vectors(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Scale vectors to a mean square of one."""
    return x * (x.square().mean(1, keepdim=True) + EPS).rsqrt()


class Mapping(nn.Module):
    """z, the labels or both to a vector: each is normalised, then layers at a hundredth of the learning rate.

    All of it is in full precision under autocast.
    """

    def __init__(self, z_dim: int, labels: LabelLayout | None, outputs: int, layers: int) -> None:
        super().__init__()
        self.labels = labels
        self.embed = Linear(labels.dim, outputs) if labels else None
        dims = [z_dim + (outputs if labels else 0)] + [outputs] * layers
        self.layers = nn.ModuleList(Linear(before, after, SQRT2, MAPPING_RATE) for before, after in pairwise(dims))

    def forward(self, z: Float[Tensor, "n z"] | None, label: Num[Tensor, "n ..."]) -> Float[Tensor, "n o"]:
        """Map to w, or to the labels' direction."""
        # Every style follows from w: in bf16 its rounding would show in all of the picture.
        with torch.autocast(label.device.type, enabled=False):
            parts = [] if z is None else [z]
            if self.embed is not None and self.labels is not None:
                parts.append(self.embed(self.labels(label).to(self.embed.weight.dtype)))
            x = torch.cat([normalise_vectors(part) for part in parts], 1)
            for layer, used in zip(self.layers, scaled(*self.layers), strict=True):
                x = lrelu(layer(x, used))
        return x


class Modulation(NamedTuple):
    """What a style does in one layer."""

    style: Float[Tensor, "n i"]
    """Factors of the inputs; the equalised learning rate's gain of the weight is in them."""
    norm: Float[Tensor, "n o"] | None
    """Factors of the outputs: the demodulation, where there is one."""


class ModulatedConv(nn.Module):
    """Convolution whose input channels are scaled by a style (§2.2, eqs. 1-3).

    In place of each sample's own weights, the input is scaled by the style and the output by the demodulation: the same
    function, by one ordinary convolution for the whole micro-batch. On a CPU that is as fast as a grouped one, and
    about three times as fast where maps are small.

    Args:
        inputs, outputs: channels.
        w_dim: dimensions of a style's code.
        kernel: height and width of the weight.
        up: double height and width.
        demodulate: scale the outputs to unit variance.
        factor: of the input.
        padding: zeros on each side; None: as many as keep height and width.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        kernel: int,
        up: bool = False,
        demodulate: bool = True,
        factor: float = 1.0,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        self.affine = Linear(w_dim, inputs)
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, kernel, kernel))
        # Equalised learning rate: weights are N(0, 1), and scaled as they are used (Karras et al. 2018, §4.1).
        self.gain, self.factor = factor / math.sqrt(inputs * kernel**2), factor
        # Of s places the transposed convolution makes 2 s + 1, and the filter leaves 2 s.
        self.blur = Blur(padding=1, gain=4) if up else None
        self.demodulate = demodulate
        self.padding = kernel // 2 if padding is None else padding

    def forward(self, x: Float[Tensor, "n i h w"], modulation: Modulation) -> Float[Tensor, "n o p q"]:
        """Convolve x as the style says."""
        style, norm = modulation
        # Scaling the input by the style equals scaling the weights' input channels; likewise for the output.
        x = x * style.to(x.dtype)[:, :, None, None]
        if self.blur is None:
            x = F.conv2d(x, self.weight, padding=self.padding)
        else:
            x = self.blur(F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2))
        return x if norm is None else x * norm.to(x.dtype)[:, :, None, None]


def modulations(layers: Sequence[ModulatedConv], codes: Sequence[Float[Tensor, "n w_dim"]]) -> list[Modulation]:
    """Return what the code of each layer does there: for all layers by few operations, in full precision."""
    with torch.autocast(codes[0].device.type, enabled=False):
        styles = scale_all([layer.gain for layer in layers], styles_of(layers, codes))
        both = [(layer, style) for layer, style in zip(layers, styles, strict=True) if layer.demodulate]
        norms = iter(demodulations(*zip(*both, strict=True)) if both else ())
        return [
            Modulation(style, next(norms) if layer.demodulate else None)
            for layer, style in zip(layers, styles, strict=True)
        ]


def styles_of(layers: Sequence[ModulatedConv], codes: Sequence[Tensor]) -> list[Float[Tensor, "n i"]]:
    """Return the affine map of each layer's code, by one product for neighbouring layers of the same width."""
    groups = [list(group) for _, group in groupby((layer.affine for layer in layers), lambda a: a.weight.shape)]
    scaled_codes = (torch.stack(list(codes)) * layers[0].affine.gain).split([len(group) for group in groups])
    styles: list[Tensor] = []
    for group, code in zip(groups, scaled_codes, strict=True):
        weights, biases = (torch.stack([affine.get_parameter(name) for affine in group]) for name in ("weight", "bias"))
        styles += torch.baddbmm(biases[:, None], code, weights.mT).unbind()
    return styles


def demodulations(layers: Sequence[ModulatedConv], styles: Sequence[Tensor]) -> list[Float[Tensor, "n o"]]:
    """Return eq. 3 for each layer: one over the root of the sum over inputs i and places k of (s_i w_oik)².

    Layers that follow one another and have weights of the same shape share a product; the rest is done for all at once.
    """
    n = styles[0].shape[0]  # not len(), which is no symbol in torch.export
    weights = [layer.weight for layer in layers]
    sums: Sequence[Tensor] = SquareSums.apply([layer.factor**-2 for layer in layers], *weights)  # type: ignore[no-untyped-call]
    groups = [list(group) for _, group in groupby(sums, lambda one: one.shape)]
    squares = torch.cat([style.flatten() for style in styles]).square()
    parts = []
    for group, square in zip(groups, squares.split([len(g) * n * g[0].shape[1] for g in groups]), strict=True):
        stacked = torch.stack(group) if len(group) > 1 else group[0][None]
        parts.append((square.view(len(group), n, -1) @ stacked.mT).flatten())
    norms = (torch.cat(parts) + EPS).rsqrt().split([n * len(weight) for weight in weights])
    return [norm.view(n, -1) for norm in norms]


class SquareSums(torch.autograd.Function):
    """The sum over places of each weight's squares, (o, i), times a number."""

    @staticmethod
    def forward(ctx: Any, factors: Sequence[float], *weights: Tensor) -> tuple[Tensor, ...]:
        """Sum."""
        ctx.factors = factors
        ctx.save_for_backward(*weights)
        sums = [square.sum((2, 3)) for square in torch._foreach_mul(weights, weights)]
        torch._foreach_mul_(sums, factors)
        return tuple(sums)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return twice the weights, times the gradients of their sums."""
        twice = scale_all([2 * factor for factor in ctx.factors], grads)
        return None, *(weight * grad[:, :, None, None] for weight, grad in zip(ctx.saved_tensors, twice, strict=True))


class StyledConv(nn.Module):
    """Modulated 3 x 3 convolution, noise, bias and LeakyReLU, whose sqrt(2) is a factor of the layers behind it."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, up: bool = False, factor: float = SQRT2) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, w_dim, 3, up, factor=factor)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(
        self, x: Float[Tensor, "n i h w"], modulation: Modulation, noise: Float[Tensor, "n 1 p q"]
    ) -> Float[Tensor, "n o p q"]:
        """Compute the next feature maps."""
        x = self.conv(x, modulation)
        # The strength is learnt, and begins at zero: no noise until it helps.
        x = x + (self.strength * noise).to(x.dtype)
        return lrelu(x + self.bias.to(x.dtype)[:, None, None])


class ToRGB(nn.Module):
    """Modulated 1 x 1 convolution to a picture, without demodulation."""

    def __init__(self, inputs: int, w_dim: int, colours: int) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, colours, w_dim, 1, demodulate=False, factor=SQRT2)
        self.bias = nn.Parameter(torch.zeros(colours))

    def forward(self, x: Float[Tensor, "n c h w"], modulation: Modulation) -> Float[Tensor, "n c h w"]:
        """Return what this side adds to the picture, in the bias's precision: the sum over sides needs it."""
        out: Tensor = self.conv(x, modulation) + self.bias[:, None, None]
        return out
