"""odegeasslbc's FastGAN-pytorch: N.pth with g (the average) and d; all_N.pth with g, d and the average as g_ema.

Its discriminator judges each picture at two sizes. Ours is the one that sees the whole picture; the tensors of the
small one, and those of the small picture that the generator makes beside the large one, are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from trainer.importing.checkpoint_file import state_of
from trainer.importing.mapping import DoesNotFit, Named, Networks, Program, Source
from trainer.importing.residual_mapping import batch_norm, torch_weight
from trainer.networks.fastgan import NOISY, WIDTHS
from trainer.networks.network_settings import NetworkSettings

BUFFER = re.compile(r"(running_mean|running_var|num_batches_tracked|weight_[uv])$")
SIZE = 256
EXCITED = {"32": "se_2_16", "16": "se_4_32", "8": "se_8_64"}
"""Layers of their discriminator by the side of the maps that they excite; theirs are named as for 1,024 pixels."""
PARTS = {"decode_whole": "decoder_big", "decode_part": "decoder_part"}


def open_networks(content: Any, averaged: bool, other: Any) -> Networks:
    """Take both networks; the average is the generator of the one file, and a list of parameters in the other.

    Raises:
        DoesNotFit: there is no generator, or its average is of another one.
    """
    found = content if isinstance(content, dict) else {}
    state = state_of(found.get("g", content))
    if "init.init.0.weight_orig" not in state:
        raise DoesNotFit("it has no g with an init.init.0: it is no generator of FastGAN's")
    if averaged and "g_ema" in found:
        state |= parameters(state, found["g_ema"])
    return Networks(state, state_of(found["d"]) if "d" in found else None, averaged or "g_ema" not in found)


def parameters(state: Mapping[str, Tensor], average: Any) -> dict[str, Tensor]:
    """Return the average by the names of a state dict, which lists parameters in the same order.

    Raises:
        DoesNotFit: it has others.
    """
    names = [name for name in state if not BUFFER.search(name)]
    found = average if isinstance(average, list | tuple) else []
    if [getattr(tensor, "shape", None) for tensor in found] != [state[name].shape for name in names]:
        raise DoesNotFit("its g_ema is no list of the parameters of g (--no-ema takes g itself)")
    return dict(zip(names, found, strict=True))


def settings(g: Source, d: Source | None, facts: Mapping[str, Any]) -> tuple[str, NetworkSettings]:
    """Return the settings of networks of these shapes."""
    sides = [int(m[1]) for name in g.tensors if (m := re.match(r"feat_(\d+)\.1\.", name))]
    if max(sides, default=0) != SIZE:
        raise DoesNotFit(f"it makes pictures of {max(sides, default=0)} pixels, and ours of {SIZE}")
    g_channels = g.size("to_big.weight_orig", 1)
    widest = [g.size("init.init.0.weight_orig", 1) // 2]
    if d is not None:
        widest.append(d.size("rf_big.0.weight_orig"))
    return "fastgan", NetworkSettings(
        size=SIZE,
        channels=g.size("to_big.weight_orig"),  # type: ignore[arg-type]  # checked with the settings
        z_dim=g.size("init.init.0.weight_orig"),
        g_channels=g_channels,
        d_channels=d.size("down_from_big.0.weight_orig") if d else max(1, g_channels // 2),
        max_channels=max(widest),
        g_spectral_norm=True,
        d_spectral_norm=True,
        g_tanh=False,
    )


def weight(source: Source, ours: str, theirs: str, out_dim: int = 0) -> Named:
    """Return a layer's weight; none has a bias."""
    return {f"{ours}.weight": torch_weight(source, theirs, ours, out_dim)}


def gated(source: Source, ours: str, theirs: str, first: int, noisy: bool = False) -> Named:
    """Return a convolution's tensors, with its noise's and its BatchNorm's, which follow it in their sequence."""
    made = weight(source, f"{ours}.conv", f"{theirs}.{first}")
    if noisy:
        made[f"{ours}.strength"] = source(f"{theirs}.{first + 1}.weight", ours).reshape(())
    return made | batch_norm(source, f"{ours}.norm.normalise", f"{theirs}.{first + 1 + noisy}")


def excitation(source: Source, ours: str, theirs: str) -> Named:
    """Return the tensors of a skip-layer excitation."""
    return weight(source, f"{ours}.squeeze", f"{theirs}.main.1") | weight(source, f"{ours}.excite", f"{theirs}.main.3")


def generator(g: Source, network: NetworkSettings) -> Named:
    """Return our generator's tensors."""
    made = weight(g, "first.conv", "init.init.0", out_dim=1) | batch_norm(g, "first.norm.normalise", "init.init.1")
    for side in (side for side in WIDTHS if side > 4):
        noisy = side in NOISY
        made |= gated(g, f"blocks.{side}.0", f"feat_{side}", 1, noisy)
        if noisy:  # upsampling, convolution, noise, BatchNorm, gate: the second convolution is the sixth
            made |= gated(g, f"blocks.{side}.1", f"feat_{side}", 5, noisy)
        if g.has(f"se_{side}.main.1.weight_orig"):
            made |= excitation(g, f"excitations.{side}", f"se_{side}")
    return made | weight(g, "last", "to_big")


def discriminator(d: Source, network: NetworkSettings) -> Named:
    """Return our discriminator's tensors."""
    made = weight(d, "first.0", "down_from_big.0")
    for k, side in enumerate((128, 64, 32, 16, 8)):
        ours, theirs = f"blocks.{side}", f"down_{4 << k}"
        for layer, at in (("deep.0", "main.0"), ("deep.1", "main.3"), ("direct.1", "direct.1")):
            sequence, number = at.split(".")
            made |= weight(d, f"{ours}.{layer}.0", f"{theirs}.{at}")
            made |= batch_norm(d, f"{ours}.{layer}.1", f"{theirs}.{sequence}.{int(number) + 1}")
    for side_name, theirs in EXCITED.items():
        made |= excitation(d, f"excitations.{side_name}", theirs)
    made |= weight(d, "mix.0", "rf_big.0") | batch_norm(d, "mix.1", "rf_big.1")
    # One logit of each 4 x 4 window there; here a linear layer on the mean of the windows.
    made["head.real.weight"] = torch_weight(d, "rf_big.3", "head.real").flatten(1)
    for ours, theirs in PARTS.items():
        for k in range(4):
            made |= gated(d, f"{ours}.layers.{k}", f"{theirs}.main.{k + 1}", 1)
        made |= weight(d, f"{ours}.last", f"{theirs}.main.5")
    return made


PROGRAM = Program(
    "github.com/odegeasslbc/FastGAN-pytorch: N.pth, all_N.pth",
    r"num_batches_tracked$|weight_[uv]$|^(to_128|down_from_small|rf_small|decoder_small)\.",
    open_networks,
    settings,
    generator,
    discriminator,
)
