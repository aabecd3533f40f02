"""ajbrock's BigGAN-PyTorch: state dicts G_ema.pth or G.pth, and D.pth, with hierarchical z and a shared embedding."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trainer.importing.checkpoint_file import state_of
from trainer.importing.mapping import DoesNotFit, Named, Networks, Program, Source, with_unknown
from trainer.importing.residual_mapping import (
    SIZES,
    attended_side,
    attention,
    check_shared,
    convolution,
    iterated_weight,
)
from trainer.networks.biggan import D_WIDTHS, G_WIDTHS, attention_height
from trainer.networks.network_settings import NetworkSettings

PARTS = "theta", "phi", "g", "o", "gamma"


def open_networks(content: Any, averaged: bool, other: Any) -> Networks:
    """Take a generator's state dict, and a discriminator's of a second file.

    Raises:
        DoesNotFit: they are none.
    """
    state = state_of(content)
    if "linear.weight" not in state or "shared.weight" not in state:
        raise DoesNotFit(
            "it is no state dict of a generator with a shared embedding (G_shared): it lacks linear or shared"
        )
    return Networks(state, state_of(other) or None if other is not None else None, averaged)


def settings(g: Source, d: Source | None, facts: Mapping[str, Any]) -> tuple[str, NetworkSettings]:
    """Return the settings of networks of these shapes."""
    blocks = len({m[1] for name in g.tensors if (m := re.match(r"blocks\.(\d+)\.", name))})
    if blocks not in SIZES:
        raise DoesNotFit(f"it has {blocks} blocks, and ours {', '.join(map(str, SIZES))}")
    size = SIZES[blocks]
    heights = [8 << int(m[1]) for name in g.tensors if (m := re.fullmatch(r"blocks\.(\d+)\.1\.gamma", name))]
    check_shared(g.size("shared.weight", 1))
    network = NetworkSettings(
        size=size,
        channels=g.size("output_layer.2.weight"),  # type: ignore[arg-type]  # checked with the settings
        z_dim=g.size("linear.weight", 1) * (blocks + 1),
        g_channels=g.size("output_layer.0.gain") // G_WIDTHS[size][0],
        d_channels=d.size("blocks.0.0.conv1.weight") // D_WIDTHS[size][0] if d else 64,
        classes=g.size("shared.weight"),
        g_conditional=True,
        d_head="projection",
        g_spectral_norm=g.has("linear.u0"),
        d_spectral_norm=True,
    )
    own = attention_height(network)
    return "biggan", network if heights == [own] else NetworkSettings(
        **{**vars(network), "attention": attended_side(heights, own)}
    )


def norm(g: Source, ours: str, theirs: str) -> Named:
    """Return the tensors of a conditional BatchNorm, whose statistics one of their variants keeps in an inner layer."""
    inner = f"{theirs}.bn" if g.has(f"{theirs}.bn.stored_mean") else theirs
    return {
        f"{ours}.gain.weight": iterated_weight(g, f"{theirs}.gain", ours),
        f"{ours}.shift.weight": iterated_weight(g, f"{theirs}.bias", ours),
        f"{ours}.normalise.running_mean": g(f"{inner}.stored_mean", ours),
        f"{ours}.normalise.running_var": g(f"{inner}.stored_var", ours),
    }


def generator(g: Source, network: NetworkSettings) -> Named:
    """Return our generator's tensors."""
    made = convolution(g, iterated_weight, "first", "linear")
    made["embedding"] = with_unknown(g("shared.weight", "embedding"), axis=0)
    for k in range(len(G_WIDTHS[network.nominal]) - 1):
        theirs, ours = f"blocks.{k}.0", f"blocks.{k}"
        for one, other in (("conv1", "conv1"), ("conv2", "conv2"), ("shortcut", "conv_sc")):
            made |= convolution(g, iterated_weight, f"{ours}.{one}", f"{theirs}.{other}")
        made |= norm(g, f"{ours}.norm1", f"{theirs}.bn1") | norm(g, f"{ours}.norm2", f"{theirs}.bn2")
        if 8 << k == attention_height(network):
            names = {part: f"blocks.{k}.1.{part}" for part in PARTS}
            made |= attention(g, iterated_weight, f"attentions.{k}", names)
    inner = "output_layer.0.bn" if g.has("output_layer.0.bn.stored_mean") else "output_layer.0"
    made |= {
        "norm.weight": g("output_layer.0.gain", "norm"),
        "norm.bias": g("output_layer.0.bias", "norm"),
        "norm.running_mean": g(f"{inner}.stored_mean", "norm"),
        "norm.running_var": g(f"{inner}.stored_var", "norm"),
    }
    return made | convolution(g, iterated_weight, "last", "output_layer.2")


def discriminator(d: Source, network: NetworkSettings) -> Named:
    """Return our discriminator's tensors; ours has attention as a block of its own."""
    made, at, count = Named(), 0, len(D_WIDTHS[network.nominal])
    for k in range(count):
        theirs = f"blocks.{k}.0"
        ours = "last" if k == count - 1 else f"blocks.{at}"
        for one, other in (("conv1", "conv1"), ("conv2", "conv2"), ("shortcut", "conv_sc")):
            if d.has(f"{theirs}.{other}.weight"):
                made |= convolution(d, iterated_weight, f"{ours}.{one}", f"{theirs}.{other}")
        at += 1
        if d.has(f"blocks.{k}.1.gamma"):
            names = {part: f"blocks.{k}.1.{part}" for part in PARTS}
            made |= attention(d, iterated_weight, f"blocks.{at}", names)
            at += 1
    made |= convolution(d, iterated_weight, "head.real", "linear")
    made["head.embed.weight"] = with_unknown(iterated_weight(d, "embed", "head.embed").T.contiguous())
    return made


PROGRAM = Program(
    "github.com/ajbrock/BigGAN-PyTorch: G_ema.pth, G.pth, D.pth",
    r"\.(u|sv)\d+$|accumulation_counter$",
    open_networks,
    settings,
    generator,
    discriminator,
)
