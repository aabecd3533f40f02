"""StyleGAN2's convolutions beside the way of the authors' code: `python -m bench.style_operations`.

There (Karras et al. 2020, §2.2), each sample has weights of its own, scaled and demodulated, and one convolution in as
many groups as there are samples; a filter runs over the whole padded map. Here inputs and outputs are scaled, and the
convolution is an ordinary one; a filter computes only the places that are kept. Both give the same numbers, which is
checked first. Forward and backward pass, float32; with `--device cuda` on a GPU. The authors' own kernels for filters
are CUDA code that is not here: what is measured is the way, in torch's operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import tyro
from torch import Tensor
from torch.nn import functional as F

from bench.measure import machine, ratios, seconds, spread, table, take_turns
from trainer.distributed.numerical_environment import state_float32_kernels
from trainer.networks.resample import Downsample
from trainer.networks.style_layers import EPS, ModulatedConv, modulations

OURS, THEIRS = "ours", "theirs"
TOLERANCE = 1e-4  # of the largest value


@dataclass(frozen=True)
class Bench:
    """Measure the operations."""

    samples: int = 8
    """Of a micro-batch: the recipe's."""
    sides: tuple[int, ...] = (32, 128)
    """Of the maps; channels are those of stylegan2-ada-256 there."""
    channels: tuple[int, ...] = (512, 128)
    turns: int = 5
    device: str = "cpu"


def filter_rows(x: Tensor) -> Tensor:
    """Return the filter [1, 3, 3, 1] along both axes, whose entries sum to one, as a depthwise weight."""
    row = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device) / 8
    return torch.outer(row, row).expand(x.shape[1], 1, 4, 4)


def modulate(layer: ModulatedConv, x: Tensor, code: Tensor) -> Tensor:
    """Convolve with weights of each sample's own, by a convolution in groups."""
    n, inputs, h, w = x.shape
    weight = layer.weight[None] * layer.affine(code)[:, None, :, None, None]
    weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) * layer.gain**2 + EPS).rsqrt() * layer.gain
    flat = x.reshape(1, n * inputs, h, w)
    if layer.blur is None:
        out = F.conv2d(flat, weight.flatten(0, 1), padding=1, groups=n)
        return out.view(n, -1, h, w)
    out = F.conv_transpose2d(flat, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=n)
    out = out.view(n, -1, 2 * h + 1, 2 * w + 1)
    return F.conv2d(F.pad(out, (1, 1, 1, 1)), 4 * filter_rows(out), groups=out.shape[1])


def halve(x: Tensor) -> Tensor:
    """Filter the whole map, then keep every second place."""
    return F.conv2d(F.pad(x, (1, 1, 1, 1)), filter_rows(x), groups=x.shape[1])[:, :, ::2, ::2]


Pair = dict[str, Callable[[], Tensor]]


def pairs(n: int, side: int, channels: int, device: str) -> dict[str, Pair]:
    """Return each operation in both ways, on the same tensors."""
    torch.manual_seed(0)
    x = torch.randn(n, channels, side, side, device=device, requires_grad=True)
    code = torch.randn(n, channels, device=device)
    found: dict[str, Pair] = {}
    for name, up in (("modulated convolution", False), ("modulated convolution, twice the side", True)):
        layer = ModulatedConv(channels, channels, channels, 3, up).to(device)
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter)
        found[name] = {
            OURS: lambda layer=layer: layer(x, modulations([layer], [code])[0]),  # type: ignore[misc]
            THEIRS: partial(modulate, layer, x, code),
        }
    down = Downsample().to(device)
    found["filter, half the side"] = {OURS: lambda: down(x), THEIRS: lambda: halve(x)}
    return found


def check(name: str, pair: Pair) -> None:
    """End if both ways do not give the same numbers."""
    ours, theirs = (pair[way]().detach() for way in (OURS, THEIRS))
    if float((ours - theirs).abs().amax() / theirs.abs().amax()) > TOLERANCE:
        raise SystemExit(f"{name}: the two ways do not give the same numbers")


def passes(act: Callable[[], Tensor], device: str) -> float:
    """Return the seconds of a forward and a backward pass."""

    def run() -> None:
        act().sum().backward()
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    return seconds(run)


def main(args: Bench) -> None:
    """Check, measure, and print a table."""
    torch.set_num_threads(1)
    print(f"{machine()}; 1 thread, {args.device}; {args.samples} samples, {args.turns} turns\n")
    if args.device.startswith("cuda"):
        state_float32_kernels()
    rows = []
    for side, channels in zip(args.sides, args.channels, strict=True):
        for name, pair in pairs(args.samples, side, channels, args.device).items():
            check(name, pair)
            candidates = {way: partial(passes, act, args.device) for way, act in pair.items()}
            take_turns(candidates, 1)
            times = take_turns(candidates, args.turns)
            speeds = [spread([1000 * s for s in times[way]], 1) for way in (OURS, THEIRS)]
            rows.append([f"{name}, {channels} × {side} × {side}", *speeds, spread(ratios(times[THEIRS], times[OURS]))])
    table(["operation", "ours, ms", "the authors' way, ms", "theirs ÷ ours"], rows)


if __name__ == "__main__":
    main(tyro.cli(Bench, description=__doc__))
