"""POSTECH's PyTorch-StudioGAN: model=G_ema-….pth, model=G-….pth and model=D-….pth of its residual backbones.

Its big_resnet is our biggan, its resnet our sagan where it attends, and else our sngan. Their BatchNorm adds 1e-4 to
variances, ours 1e-5: the difference is added to the stored variances. Their other backbones have layers that ours lack,
and are refused.
"""

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
    batch_norm,
    check_shared,
    convolution,
    torch_weight,
)
from trainer.networks import biggan, sagan
from trainer.networks.biggan import D_WIDTHS, G_WIDTHS
from trainer.networks.network_settings import NetworkSettings

EPS_DIFFERENCE = 1e-4 - 1e-5
LAYERS = {"conv1": "conv2d1", "conv2": "conv2d2", "shortcut": "conv2d0"}
ATTENTION = {
    "theta": "conv1x1_theta",
    "phi": "conv1x1_phi",
    "g": "conv1x1_g",
    "o": "conv1x1_attn",
    "gamma": "sigma",
}


def open_networks(content: Any, averaged: bool, other: Any) -> Networks:
    """Take the state dict of a generator's file, and of a discriminator's.

    Raises:
        DoesNotFit: it is of another backbone.
    """
    state = state_of(state_dict(content))
    if "linear0.weight" not in state and "linear0.weight_orig" not in state:
        raise DoesNotFit("it has no linear0: it is no generator of StudioGAN's residual backbones")
    return Networks(state, state_of(state_dict(other)) or None if other is not None else None, averaged)


def state_dict(content: Any) -> Any:
    """Return the state dict in what a file holds."""
    return content.get("state_dict", content) if isinstance(content, dict) else content


def blocks_of(source: Source) -> list[tuple[str, bool]]:
    """Return the names of a network's blocks in order, and which of them are self-attention."""
    numbers = sorted({int(m[1]) for name in source.tensors if (m := re.match(r"blocks\.(\d+)\.0\.", name))})
    return [(f"blocks.{k}.0", source.has(f"blocks.{k}.0.sigma")) for k in numbers]


def weight_of(source: Source, layer: str) -> str:
    """Return the name of a layer's weight, with spectral normalisation or without."""
    return f"{layer}.weight_orig" if source.has(f"{layer}.weight_orig") else f"{layer}.weight"


def settings(g: Source, d: Source | None, facts: Mapping[str, Any]) -> tuple[str, NetworkSettings]:
    """Return the architecture and the settings of networks of these shapes."""
    kinds = [attends for _, attends in blocks_of(g)]
    blocks = kinds.count(False)
    if blocks not in SIZES:
        raise DoesNotFit(f"it has {blocks} blocks, and ours {', '.join(map(str, SIZES))}")
    heights = [4 << kinds[:k].count(False) for k, attends in enumerate(kinds) if attends]
    common: dict[str, Any] = {
        "size": SIZES[blocks],
        "channels": g.size(weight_of(g, "conv2d5")),
        "g_spectral_norm": g.has("linear0.weight_orig"),
    }
    if d is not None:
        common |= {
            "d_head": "projection" if d.has(weight_of(d, "embedding")) else "plain",
            "d_spectral_norm": d.has("linear1.weight_orig"),
        }
    if takes_part_of_z(g):
        values = common | of_big_resnet(g, d, blocks)
        own = biggan.attention_height(NetworkSettings(**values))
        return "biggan", NetworkSettings(**values, attention=attended_side(heights, own))
    values = common | of_resnet(g, d)
    if not heights:
        return "sngan", NetworkSettings(**values)
    own = sagan.attention_height(NetworkSettings(**values))
    return "sagan", NetworkSettings(**values, attention=attended_side(heights, own))


def takes_part_of_z(g: Source) -> bool:
    """Tell whether BatchNorm is conditional on a part of z, perhaps beside the class: that is big_resnet."""
    gain = weight_of(g, "blocks.0.0.bn1.gain")
    return g.has(gain) and (g.has("shared.weight") or g.size(gain, 1) == g.size(weight_of(g, "linear0"), 1))


def of_big_resnet(g: Source, d: Source | None, blocks: int) -> dict[str, Any]:
    """Return what follows from the shapes of BigGAN's networks."""
    size = SIZES[blocks]
    classes = g.size("shared.weight") if g.has("shared.weight") else 0
    if classes:
        check_shared(g.size("shared.weight", 1))
    found: dict[str, Any] = {
        "z_dim": g.size(weight_of(g, "linear0"), 1) * (blocks + 1),
        "g_channels": g.size("bn4.weight") // G_WIDTHS[size][0],
        "classes": classes,
        "g_conditional": classes > 0,
    }
    if d is not None:
        found["d_channels"] = d.size(weight_of(d, "blocks.0.0.conv2d1")) // D_WIDTHS[size][0]
    return found


def of_resnet(g: Source, d: Source | None) -> dict[str, Any]:
    """Return what follows from the shapes of SNGAN's and SAGAN's networks."""
    gain, linear = weight_of(g, "blocks.0.0.bn1.gain"), weight_of(g, "linear0")
    classes = g.size(gain, 1) if g.has(gain) else 0
    found: dict[str, Any] = {
        "z_dim": g.size(linear, 1),
        "g_channels": g.size("bn4.weight"),
        "max_channels": g.size(linear) // 16,
        "classes": classes,
        "g_conditional": classes > 0,
    }
    if d is not None:
        found["d_channels"] = d.size(weight_of(d, "blocks.0.0.conv2d1"))
        found["max_channels"] = max(found["max_channels"], d.size(weight_of(d, "linear1"), 1))
        if d.has(embedding := weight_of(d, "embedding")):
            found["classes"] = d.size(embedding)
    return found


def plain_norm(g: Source, ours: str, theirs: str) -> Named:
    """Return the tensors of a BatchNorm with a gain and a bias."""
    made = batch_norm(g, ours, theirs)
    return made | {f"{ours}.running_var": made[f"{ours}.running_var"] + EPS_DIFFERENCE}


def norm(g: Source, ours: str, theirs: str) -> Named:
    """Return the tensors of a BatchNorm that can be conditional: on a class, or on its embedding and a part of z."""
    if g.has(f"{theirs}.running_mean"):
        return plain_norm(g, f"{ours}.normalise", theirs)
    gain, shift = torch_weight(g, f"{theirs}.gain", ours), torch_weight(g, f"{theirs}.bias", ours)
    if not takes_part_of_z(g):
        gain, shift = with_unknown(gain), with_unknown(shift)
    return {
        f"{ours}.gain.weight": gain,
        f"{ours}.shift.weight": shift,
        f"{ours}.normalise.running_mean": g(f"{theirs}.bn.running_mean", ours),
        f"{ours}.normalise.running_var": g(f"{theirs}.bn.running_var", ours) + EPS_DIFFERENCE,
    }


def generator(g: Source, network: NetworkSettings) -> Named:
    """Return our generator's tensors."""
    made, at = convolution(g, torch_weight, "first", "linear0"), 0
    for theirs, attends in blocks_of(g):
        if attends:
            names = {name: f"{theirs}.{other}" for name, other in ATTENTION.items()}
            made |= attention(g, torch_weight, f"attentions.{at - 1}", names)
            continue
        for one, other in LAYERS.items():
            made |= convolution(g, torch_weight, f"blocks.{at}.{one}", f"{theirs}.{other}")
        made |= norm(g, f"blocks.{at}.norm1", f"{theirs}.bn1") | norm(g, f"blocks.{at}.norm2", f"{theirs}.bn2")
        at += 1
    if g.has("shared.weight"):
        made["embedding"] = with_unknown(g("shared.weight", "embedding"), axis=0)
    return made | plain_norm(g, "norm", "bn4") | convolution(g, torch_weight, "last", "conv2d5")


def discriminator(d: Source, network: NetworkSettings) -> Named:
    """Return our discriminator's tensors; both have attention as a block of its own."""
    made, blocks = Named(), blocks_of(d)
    for at, (theirs, attends) in enumerate(blocks):
        ours = "last" if at == len(blocks) - 1 else f"blocks.{at}"
        if attends:
            names = {name: f"{theirs}.{other}" for name, other in ATTENTION.items()}
            made |= attention(d, torch_weight, ours, names)
            continue
        for one, other in LAYERS.items():
            if d.has(weight_of(d, f"{theirs}.{other}")):
                made |= convolution(d, torch_weight, f"{ours}.{one}", f"{theirs}.{other}")
    made |= convolution(d, torch_weight, "head.real", "linear1")
    if network.d_head == "projection":
        made["head.embed.weight"] = with_unknown(torch_weight(d, "embedding", "head.embed").T.contiguous())
    return made


PROGRAM = Program(
    "github.com/POSTECH-CVLab/PyTorch-StudioGAN: model=G_ema-….pth, model=G-….pth, model=D-….pth",
    r"num_batches_tracked$|weight_[uv]$",
    open_networks,
    settings,
    generator,
    discriminator,
)
