"""NVlabs' stylegan3: pickles with G, D and G_ema of configurations T and R; D is StyleGAN2's.

Whether it is T or R is told by the kernels, 3 x 3 or 1 x 1. A transformation of the input that somebody has set by hand
is left out. Labels are taken as classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trainer.importing.mapping import DoesNotFit, Named, Program, Source, copied
from trainer.importing.stylegan2_ada import (
    common_settings,
    discriminator,
    discriminator_width,
    layer,
    mapping,
    open_networks,
    to_rgb,
)
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.stylegan3 import LAYERS, bands
from trainer.runs.bundle import MEAN_STYLE

LAYER = re.compile(r"synthesis\.L(\d+)_(\d+)_(\d+)\.weight")
MOST_WIDTH = 2048


def layer_names(g: Source) -> list[str]:
    """Return the names of the layers in their order, that to RGB last.

    Raises:
        DoesNotFit: there are not as many as ours has.
    """
    found = {int(m[1]): name.removesuffix(".weight") for name in g.tensors if (m := LAYER.fullmatch(name))}
    if sorted(found) != [*range(LAYERS + 1)]:
        raise DoesNotFit(f"it has {len(found)} layers named L0 to L{LAYERS}, which should be {LAYERS + 1}")
    return [found[k] for k in range(LAYERS + 1)]


def width_of(channels: list[int], network: NetworkSettings, widen: int) -> NetworkSettings:
    """Return settings whose layers have these channels.

    Raises:
        DoesNotFit: they follow no rule of the authors'.
    """
    network = replace(network, max_channels=max(channels) // widen)
    for width in range(1, MOST_WIDTH + 1):
        tried = replace(network, g_channels=width)
        if [band.channels for band in bands(tried, widen)[1:-1]] == channels:
            return tried
    raise DoesNotFit(f"its layers have {channels} channels, which do not go by the cutoffs of {network.size} pixels")


def settings(g: Source, d: Source | None, facts: Mapping[str, Any]) -> tuple[str, NetworkSettings]:
    """Return the settings of networks of these shapes."""
    names = layer_names(g)
    size = int(names[-1].split("_")[1])
    kernel = g.size(f"{names[0]}.weight", 3)
    widen = 1 if kernel == 3 else 2
    network = NetworkSettings(
        size=size,
        channels=g.size(f"{names[-1]}.weight"),  # type: ignore[arg-type]  # checked with the settings
        z_dim=g.size("mapping.w_avg"),
        **common_settings(g, facts),
    )
    network = width_of([g.size(f"{name}.weight") for name in names[:-1]], network, widen)
    if d is not None:
        d_channels, most = discriminator_width(d, size)
        if most > network.max_channels:
            raise DoesNotFit(f"D has up to {most} channels, and G {network.max_channels}: ours have one limit")
        network = replace(network, d_channels=d_channels)
    return "stylegan3-t" if kernel == 3 else "stylegan3-r", network


def generator(g: Source, network: NetworkSettings) -> Named:
    """Return our generator's tensors."""
    *names, rgb = layer_names(g)
    pairs = {"input.frequencies": "synthesis.input.freqs", "input.phases": "synthesis.input.phases"}
    pairs |= layer("input", "synthesis.input", "weight", "affine.weight", "affine.bias")
    for ours, theirs in (*((f"layers.{k}", name) for k, name in enumerate(names)), ("to_rgb", rgb)):
        pairs |= to_rgb(ours, theirs)
    made = mapping(g, network) | copied(g, pairs)
    for ours, theirs in (*((f"layers.{k}", name) for k, name in enumerate(names)), ("to_rgb", rgb)):
        place = f"{ours}.magnitude.mean_square"
        made[place] = g(f"{theirs}.magnitude_ema", place).reshape(1)
    made[MEAN_STYLE] = g("mapping.w_avg", MEAN_STYLE)[None].repeat(LAYERS + 2, 1)
    return made


PROGRAM = Program(
    "github.com/NVlabs/stylegan3: network-snapshot-….pkl of stylegan3-t and stylegan3-r",
    r"(up|down|resample)_filter$|noise_const$|input\.transform$|^b4\.mbstd",
    open_networks,
    settings,
    generator,
    discriminator,
    d_architecture="stylegan2",
)
