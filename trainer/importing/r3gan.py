"""brownvc's R3GAN: pickles with G, D and G_ema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trainer.importing.mapping import DoesNotFit, Named, Program, Source, base_width, copied, told_classes, with_unknown
from trainer.importing.stylegan2_ada import open_networks
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.r3gan import BLOCKS, widths

BASIS, AGGREGATION, EXTRACTION = "Model.MainLayers.0.Layers.0.", "Model.AggregationLayer.", "Model.ExtractionLayer."


def settings(g: Source, d: Source | None, facts: Mapping[str, Any]) -> tuple[str, NetworkSettings]:
    """Return the settings of networks of these shapes."""
    stages = {int(m[1]) for name in g.tensors if (m := re.match(r"Model\.MainLayers\.(\d+)\.Layers\.1\.", name))}
    if not stages or stages != {*range(len(stages))}:
        raise DoesNotFit("it has no Model.MainLayers")
    size = 4 << (len(stages) - 1)
    first = "Model.MainLayers.{}.Layers.{}.LinearLayer1.Layer.weight"
    g_channels, g_most = base_width({4 << k: g.size(first.format(k, 1), 1) for k in stages}, size)
    d_channels, d_most = g_channels, g_most
    if d is not None:
        d_channels, d_most = base_width({size >> k: d.size(first.format(k, 0), 1) for k in stages}, size)
    classes, embedded = 0, 0
    if g.has("Model.EmbeddingLayer.weight"):
        embedded, classes = g.size("Model.EmbeddingLayer.weight"), g.size("Model.EmbeddingLayer.weight", 1)
    z_dim = g.size(f"{BASIS}LinearLayer.weight", 1) - embedded
    if classes and embedded != z_dim:
        raise DoesNotFit(
            f"its classes are embedded in {embedded} dimensions, and its noise has {z_dim}: ours has as many"
        )
    return "r3gan", NetworkSettings(
        size=size,
        channels=g.size(f"{AGGREGATION}Layer.weight"),  # type: ignore[arg-type]  # checked with the settings
        z_dim=z_dim,
        g_channels=g_channels,
        d_channels=d_channels,
        max_channels=max(g_most, d_most),
        **told_classes(classes),
    )


def residual(ours: str, theirs: str) -> dict[str, str]:
    """Return pairs of names of a residual block's tensors."""
    return {
        f"{ours}.expand.weight": f"{theirs}.LinearLayer1.Layer.weight",
        f"{ours}.expand.bias": f"{theirs}.NonLinearity1.Bias",
        f"{ours}.grouped.weight": f"{theirs}.LinearLayer2.Layer.weight",
        f"{ours}.grouped.bias": f"{theirs}.NonLinearity2.Bias",
        f"{ours}.contract.weight": f"{theirs}.LinearLayer3.Layer.weight",
    }


def generator(g: Source, network: NetworkSettings) -> Named:
    """Return our generator's tensors; ours has all layers in one sequence."""
    pairs, at, channels = {"modulate.weight": f"{BASIS}LinearLayer.weight"}, 0, widths(network, network.g_channels)
    for k, now in enumerate(channels):
        theirs = f"Model.MainLayers.{k}.Layers"
        if k:
            if channels[k - 1] != now:
                pairs[f"layers.{at}.weight"] = f"{theirs}.0.LinearLayer.Layer.weight"
                at += 1
            at += 1  # the filter
        for block in range(BLOCKS):
            pairs |= residual(f"layers.{at}", f"{theirs}.{block + 1}")
            at += 1
    pairs["to_rgb.weight"] = f"{AGGREGATION}Layer.weight"
    made = copied(g, pairs)
    made["constant"] = g(f"{BASIS}Basis", "constant")[None]
    if network.classes:
        made["embed.weight"] = with_unknown(g("Model.EmbeddingLayer.weight", "embed.weight"))
    return made


def discriminator(d: Source, network: NetworkSettings) -> Named:
    """Return our discriminator's tensors."""
    pairs, at, channels = {"from_rgb.weight": f"{EXTRACTION}Layer.weight"}, 0, widths(network, network.d_channels)[::-1]
    for k, now in enumerate(channels):
        theirs = f"Model.MainLayers.{k}.Layers"
        for block in range(BLOCKS):
            pairs |= residual(f"layers.{at}", f"{theirs}.{block}")
            at += 1
        if k + 1 < len(channels):
            at += 1  # the filter
            if channels[k + 1] != now:
                pairs[f"layers.{at}.weight"] = f"{theirs}.{BLOCKS}.LinearLayer.Layer.weight"
                at += 1
    last = f"Model.MainLayers.{len(channels) - 1}.Layers.{BLOCKS}"
    pairs |= {"weigh.weight": f"{last}.Basis.weight", "real.weight": f"{last}.LinearLayer.weight"}
    made = copied(d, pairs)
    if network.classes:
        made["embed.weight"] = with_unknown(d("Model.EmbeddingLayer.weight", "embed.weight"))
    return made


PROGRAM = Program(
    "github.com/brownvc/R3GAN: network-snapshot-….pkl", r"Kernel$", open_networks, settings, generator, discriminator
)
