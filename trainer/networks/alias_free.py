"""Filtered LeakyReLU and its low-pass filters (Karras et al. 2021, arXiv:2106.12423, §3.1, appendices B.1 and C).

LeakyReLU makes frequencies that a feature map cannot hold. So it is applied at twice the sampling rate or more, and
what is too high is filtered away before the rate falls again. Filters are windowed sincs of Kaiser's design, along one
axis after the other, or for config R a windowed jinc, the same in all directions. They follow from the settings, and
are no part of a state.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.networks.base import to_float32

TAPS = 6
"""Taps of a filter for each place of the lower of its two rates."""
OVERSAMPLING = 2
"""LeakyReLU has this many times the higher rate of what it takes and gives."""
CLAMP = 256.0
"""What LeakyReLU gives is at most so large."""
Taps = npt.NDArray[np.float64]


class Band(NamedTuple):
    """What feature maps can hold: frequencies in cycles, rates in places, per side of a square picture."""

    cutoff: float
    """f_c: what is above is filtered away."""
    half_width: float
    """f_h: half of the way from what passes to what does not."""
    rate: int
    """s: places along a side, without the margin around the picture."""
    size: tuple[int, int]
    """Height and width of the maps, with the margin."""
    channels: int


def kaiser_window(taps: int, width: float) -> Taps:
    """Return Kaiser's window for a transition of `width`, as a share of the highest frequency (Kaiser 1974)."""
    attenuation = 2.285 * (taps - 1) * math.pi * width + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    else:
        over = max(attenuation - 21, 0.0)
        beta = 0.5842 * over**0.4 + 0.07886 * over
    return np.kaiser(taps, beta)


def lowpass(taps: int, cutoff: float, width: float, rate: float) -> Taps:
    """Return a filter (taps,) whose entries sum to 1, for one axis; all frequencies are in the unit of the rate."""
    places = np.arange(taps) - (taps - 1) / 2
    taken = np.sinc(2 * cutoff / rate * places) * kaiser_window(taps, 2 * width / rate)
    return np.asarray(taken / taken.sum())


def radial_lowpass(taps: int, cutoff: float, width: float, rate: float) -> Taps:
    """Return the filter (taps, taps) of a disc of frequencies, J1(2 pi f r) / r; `taps` is even, so r is never 0."""
    places = (np.arange(taps) - (taps - 1) / 2) / rate
    radius = np.hypot(places[:, None], places)
    window = kaiser_window(taps, 2 * width / rate)
    jinc = torch.special.bessel_j1(torch.from_numpy(2 * math.pi * cutoff * radius)).numpy() / radius
    taken = jinc * np.outer(window, window)
    return np.asarray(taken / taken.sum())


class FilteredLeakyRelu(nn.Module):
    """More places, LeakyReLU with slope 0.2 times sqrt(2), clamping, fewer places: all of it in float32.

    Args:
        before: what comes in, but for `more` places along each axis, which a convolution has added.
        after: what goes out.
        more: of those places.
        radial: the filter before the rate falls is the same in all directions.
    """

    up_taps: Tensor
    down_taps: Tensor

    def __init__(self, before: Band, after: Band, more: int, radial: bool) -> None:
        super().__init__()
        rate = OVERSAMPLING * max(before.rate, after.rate)
        self.up, self.down = rate // before.rate, rate // after.rate
        up = lowpass(TAPS * self.up, before.cutoff, 2 * before.half_width, rate)
        # Zeros stand between the places: the filter makes up for them. The gain of LeakyReLU is shared by both axes.
        self.register_buffer("up_taps", torch.tensor(up * self.up * 2**0.25, dtype=torch.float32), persistent=False)
        design = radial_lowpass if radial else lowpass
        down = design(TAPS * self.down, after.cutoff, 2 * after.half_width, rate)
        self.register_buffer("down_taps", torch.tensor(down, dtype=torch.float32), persistent=False)
        # Of all that the filter makes of the maps, it keeps what the next filter takes for `size` places. The sample
        # positions are those of appendix C.3: where the surplus is odd, one place more is left before than behind.
        self.trims = [self.trim(a + more, b) for a, b in zip(before.size, after.size, strict=True)]

    def trim(self, places: int, wanted: int) -> tuple[int, int]:
        """Return how many places of a full convolution of an axis to leave out before and behind."""
        up_taps, down_taps = TAPS * self.up, TAPS * self.down
        kept = (wanted - 1) * self.down + down_taps
        padding = kept + up_taps - 1 - places * self.up
        before = up_taps - 1 - (padding + self.up) // 2
        return before, (places - 1) * self.up + up_taps - kept - before

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Apply it."""
        # In bf16 the filters' own rounding would let through what they are made to stop.
        with torch.autocast(x.device.type, enabled=False):
            x = self.upsample(self.upsample(to_float32(x), 3), 2)
            return self.downsample(F.leaky_relu(x, 0.2).clamp(-CLAMP, CLAMP))

    def upsample(self, x: Tensor, axis: int) -> Tensor:
        """Return x with more places along an axis."""
        shape, stride, padding = [1, 1], [1, 1], [0, 0]
        before, behind = self.trims[axis - 2]
        within = max(min(before, behind), 0)
        shape[axis - 2], stride[axis - 2], padding[axis - 2] = -1, self.up, within
        weight = self.up_taps.view(1, 1, *shape).expand(x.shape[1], -1, -1, -1)
        x = F.conv_transpose2d(x, weight, None, stride, padding, groups=x.shape[1])
        return x.narrow(axis, before - within, x.shape[axis] - before - behind + 2 * within)

    def downsample(self, x: Tensor) -> Tensor:
        """Return x with fewer places along both axes."""
        groups, taps = x.shape[1], self.down_taps
        if taps.dim() == 2:
            return F.conv2d(x, taps.expand(groups, 1, -1, -1), None, self.down, groups=groups)
        x = F.conv2d(x, taps[:, None].expand(groups, 1, -1, -1), None, (self.down, 1), groups=groups)
        return F.conv2d(x, taps[None].expand(groups, 1, -1, -1), None, (1, self.down), groups=groups)
