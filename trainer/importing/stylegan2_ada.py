"""NVlabs' stylegan2-ada-pytorch: pickles with G, D and G_ema, configurations with skip generator and residual D.

In eval mode their clamp of activations at 256 (of networks with half precision) is left out: no trained network reaches
it. Labels are taken as classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trainer.importing.checkpoint_file import attribute_of, state_of
from trainer.importing.mapping import (
    DoesNotFit,
    Named,
    Networks,
    Program,
    Source,
    base_width,
    copied,
    power_of_two,
    told_classes,
    with_unknown,
)
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.stylegan2 import sides, style_layers
from trainer.runs.bundle import MEAN_STYLE

GROUP = 4  # of the minibatch standard deviation, where the file does not say it


def open_networks(content: Any, averaged: bool, other: Any) -> Networks:
    """Find the networks in a pickle of {G, D, G_ema}, or of a generator alone.

    Raises:
        DoesNotFit: it holds none.
    """
    named = content if isinstance(content, dict) else {"G_ema": content}
    generator = named.get("G_ema" if averaged else "G", named.get("G_ema", named.get("G")))
    state, d = state_of(generator), state_of(named.get("D"))
    if not state:
        raise DoesNotFit("it holds neither G_ema nor G")
    group = attribute_of(named.get("D"), "b4", "mbstd", "group_size")
    images = named.get("cur_nimg", 0)
    seen = images if isinstance(images, int) else 0
    return Networks(state, d or None, averaged and "G_ema" in named, seen, {"group": group})


def settings(g: Source, d: Source | None, facts: Mapping[str, Any]) -> tuple[str, NetworkSettings]:
    """Return the settings of networks of these shapes."""
    found = {int(m[1]) for name in g.tensors if (m := re.match(r"synthesis\.b(\d+)\.conv1\.weight", name))}
    size = power_of_two(sorted(found))
    g_channels, g_most = base_width({s: g.size(f"synthesis.b{s}.conv1.weight") for s in found}, size)
    z_dim = g.size("mapping.w_avg") if g.has("mapping.w_avg") else g.size("mapping.fc0.weight")
    d_channels, d_most = (g_channels, g_most) if d is None else discriminator_width(d, size)
    return "stylegan2", NetworkSettings(
        size=size,
        channels=g.size(f"synthesis.b{size}.torgb.weight"),  # type: ignore[arg-type]  # checked with the settings
        z_dim=z_dim,
        g_channels=g_channels,
        d_channels=d_channels,
        max_channels=max(g_most, d_most),
        **common_settings(g, facts),
    )


def common_settings(g: Source, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is found alike in StyleGAN2's and StyleGAN3's files: classes, mapping network, D's groups."""
    group = facts.get("group")
    return {
        **told_classes(g.size("mapping.embed.weight", 1) if g.has("mapping.embed.weight") else 0),
        "mbstd_group": group if isinstance(group, int) else GROUP,
        "mapping_layers": sum(1 for name in g.tensors if re.fullmatch(r"mapping\.fc\d+\.weight", name)),
    }


def discriminator_width(d: Source, size: int) -> tuple[int, int]:
    """Return D's (width, max_channels).

    Raises:
        DoesNotFit: its channels follow no rule of ours.
    """
    sides = [4 << k for k in range(1, size.bit_length() - 2)]
    widths = {side: d.size(f"b{side}.conv0.weight", 1) for side in sides}
    return base_width(widths | {4: d.size("b4.fc.weight")}, size)


def layer(ours: str, theirs: str, *parts: str) -> dict[str, str]:
    """Return pairs of names of a layer's tensors."""
    return {f"{ours}.{part}": f"{theirs}.{part}" for part in parts}


def styled(ours: str, theirs: str) -> dict[str, str]:
    """Return pairs of names of a convolution with a style, noise and a bias."""
    return to_rgb(ours, theirs) | {f"{ours}.strength": f"{theirs}.noise_strength"}


def to_rgb(ours: str, theirs: str) -> dict[str, str]:
    """Return pairs of names of a convolution with a style and a bias."""
    conv = layer(f"{ours}.conv.affine", f"{theirs}.affine", "weight", "bias")
    return conv | {f"{ours}.conv.weight": f"{theirs}.weight", f"{ours}.bias": f"{theirs}.bias"}


def mapping(source: Source, network: NetworkSettings) -> Named:
    """Return the tensors of a mapping network."""
    pairs: dict[str, str] = {}
    for k in range(network.mapping_layers):
        pairs |= layer(f"mapping.layers.{k}", f"mapping.fc{k}", "weight", "bias")
    made = copied(source, pairs)
    if network.classes:
        made["mapping.embed.bias"] = source("mapping.embed.bias", "mapping.embed.bias")
        embed = source("mapping.embed.weight", "mapping.embed.weight")
        made["mapping.embed.weight"] = with_unknown(embed, equalized=True)
    return made


def generator(g: Source, network: NetworkSettings) -> Named:
    """Return our generator's tensors."""
    pairs = styled("first", "synthesis.b4.conv1") | to_rgb("to_rgb", "synthesis.b4.torgb")
    for k, side in enumerate(sides(network)[1:]):
        theirs = f"synthesis.b{side}"
        pairs |= styled(f"blocks.{k}.up", f"{theirs}.conv0") | styled(f"blocks.{k}.conv", f"{theirs}.conv1")
        pairs |= to_rgb(f"blocks.{k}.to_rgb", f"{theirs}.torgb")
    made = mapping(g, network) | copied(g, pairs)
    made["constant"] = g("synthesis.b4.const", "constant")[None]
    made[MEAN_STYLE] = g("mapping.w_avg", MEAN_STYLE)[None].repeat(style_layers(network), 1)
    return made


def discriminator(d: Source, network: NetworkSettings) -> Named:
    """Return our discriminator's tensors."""
    pairs = layer("from_rgb", f"b{network.size}.fromrgb", "weight", "bias")
    for k, side in enumerate(sides(network)[:0:-1]):
        pairs |= layer(f"blocks.{k}.conv", f"b{side}.conv0", "weight", "bias")
        pairs |= layer(f"blocks.{k}.down", f"b{side}.conv1", "weight", "bias")
        pairs |= layer(f"blocks.{k}.skip", f"b{side}.skip", "weight")
    for ours, theirs in (("conv", "b4.conv"), ("dense", "b4.fc"), ("real", "b4.out")):
        pairs |= layer(ours, theirs, "weight", "bias")
    return copied(d, pairs) | (mapping(d, network) if network.classes else {})


PROGRAM = Program(
    "github.com/NVlabs/stylegan2-ada-pytorch: network-snapshot-….pkl",
    r"resample_filter$|noise_const$|^b4\.mbstd",
    open_networks,
    settings,
    generator,
    discriminator,
)
