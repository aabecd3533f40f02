"""State dicts as BigGAN-PyTorch, FastGAN and StudioGAN write them: their names and shapes, with drawn weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from tests.made_checkpoints import Shapes, drawn
from trainer.core.randomness import normal, philox


def batch_norm(name: str, channels: int) -> Shapes:
    """Return the tensors of a BatchNorm."""
    shapes: Shapes = {f"{name}.{one}": (channels,) for one in ("weight", "bias", "running_mean", "running_var")}
    return {**shapes, f"{name}.num_batches_tracked": ()}


def spectrally_normalised(state: Mapping[str, Tensor], transposed: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return a state dict with torch's spectral normalisation of each weight, after two iterations."""
    made: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not name.endswith("weight") or tensor.dim() < 2:
            made[name] = tensor
            continue
        matrix = (tensor.transpose(0, 1) if name in transposed else tensor).flatten(1)
        u = normal(philox("made", f"{name}_u"), len(matrix))
        for _ in range(2):
            v = normalize(u @ matrix, dim=0)
            u = normalize(matrix @ v, dim=0)
        made |= {f"{name}_orig": tensor, f"{name}_u": u, f"{name}_v": v}
    return made


def fastgan_g_shapes(widths: Mapping[int, int], z_dim: int) -> Shapes:
    """Return the tensors of FastGAN's generator of 256 pixels, in the order of its modules."""
    shapes: dict[str, tuple[int, ...]] = {"init.init.0.weight": (z_dim, 2 * widths[4], 4, 4)}
    shapes |= batch_norm("init.init.1", 2 * widths[4])
    before = widths[4]
    for side in (8, 16, 32, 64, 128, 256):
        wide = 2 * widths[side]
        shapes[f"feat_{side}.1.weight"] = (wide, before, 3, 3)
        if side in (8, 32, 128):
            shapes |= {f"feat_{side}.2.weight": (1,), **batch_norm(f"feat_{side}.3", wide)}
            shapes[f"feat_{side}.5.weight"] = (wide, widths[side], 3, 3)
            shapes |= {f"feat_{side}.6.weight": (1,), **batch_norm(f"feat_{side}.7", wide)}
        else:
            shapes |= batch_norm(f"feat_{side}.2", wide)
        before = widths[side]
    for small, large in ((4, 64), (8, 128), (16, 256)):
        shapes |= excited(f"se_{large}", widths[small], widths[large])
    return {**shapes, "to_128.weight": (3, widths[128], 1, 1), "to_big.weight": (3, widths[256], 3, 3)}


def excited(name: str, small: int, large: int) -> Shapes:
    """Return the tensors of a FastGAN's skip-layer excitation."""
    return {f"{name}.main.1.weight": (large, small, 4, 4), f"{name}.main.3.weight": (large, large, 1, 1)}


def fastgan_d_shapes() -> Shapes:
    """Return the tensors of FastGAN's discriminator of 256 pixels: its decoders fit one width, the one that it has."""
    widths = (16, 32, 64, 128, 256, 512)
    shapes: dict[str, tuple[int, ...]] = {"down_from_big.0.weight": (16, 3, 3, 3)}
    for k, (before, after) in enumerate(pairwise(widths)):
        down = f"down_{4 << k}"
        for layer, shape in (
            ("main.0", (after, before, 4, 4)),
            ("main.3", (after, after, 3, 3)),
            ("direct.1", (after, before, 1, 1)),
        ):
            sequence, number = layer.split(".")
            shapes |= {f"{down}.{layer}.weight": shape, **batch_norm(f"{down}.{sequence}.{int(number) + 1}", after)}
    shapes |= {"rf_big.0.weight": (1024, 512, 1, 1), **batch_norm("rf_big.1", 1024), "rf_big.3.weight": (1, 1024, 4, 4)}
    for name, small, large in (("se_2_16", 16, 128), ("se_4_32", 32, 256), ("se_8_64", 64, 512)):
        shapes |= excited(name, small, large)
    shapes["down_from_small.0.weight"] = (32, 3, 4, 4)
    for k, (before, after) in enumerate(pairwise((32, 64, 128, 256))):
        one = f"down_from_small.{k + 2}.main"
        shapes |= {f"{one}.0.weight": (after, before, 4, 4), **batch_norm(f"{one}.1", after)}
    shapes["rf_small.weight"] = (1, 256, 4, 4)
    for decoder, inputs in (("big", 512), ("part", 256), ("small", 256)):
        for k, (before, after) in enumerate(pairwise((inputs, 128, 64, 64, 32))):
            one = f"decoder_{decoder}.main.{k + 1}"
            shapes |= {f"{one}.1.weight": (2 * after, before, 3, 3), **batch_norm(f"{one}.2", 2 * after)}
        shapes[f"decoder_{decoder}.main.5.weight"] = (3, 32, 3, 3)
    return shapes


def drawn_with_variances(shapes: Shapes) -> dict[str, Tensor]:
    """Draw tensors, of which variances are positive and gains about 1."""
    made = drawn(shapes, by_fan_in=True)
    for name, tensor in made.items():
        if name.endswith("_var") or (name.endswith(("weight", "gain")) and tensor.dim() == 1):
            tensor.abs_().add_(0.5)
        elif name.endswith("num_batches_tracked"):
            made[name] = torch.tensor(100)
    return made


def write_fastgan(file: Path, classes: int) -> dict[str, dict[str, Tensor]]:
    """Write an all_N.pth of 256 pixels, of several devices, and return the average's and D's tensors."""
    widths = {4: 32, 8: 16, 16: 8, 32: 4, 64: 4, 128: 2, 256: 1}
    shapes = fastgan_g_shapes({side: 2 * width for side, width in widths.items()}, z_dim=8)
    average = spectrally_normalised(drawn_with_variances(shapes), transposed=["init.init.0.weight"])
    live = {name: tensor if name.endswith(FASTGAN_BUFFERS) else tensor + 1 for name, tensor in average.items()}
    d = spectrally_normalised(drawn_with_variances(fastgan_d_shapes()))
    content = {
        "g": {f"module.{name}": tensor for name, tensor in live.items()},  # as DataParallel names them
        "d": {f"module.{name}": tensor for name, tensor in d.items()},
        "g_ema": [nn.Parameter(tensor) for name, tensor in average.items() if not name.endswith(FASTGAN_BUFFERS)],
        "opt_g": {"state": {}, "param_groups": [{"lr": 0.0002}]},
    }
    torch.save(content, file)
    return {"G_ema": average, "D": d}


FASTGAN_BUFFERS = ("num_batches_tracked", "running_mean", "running_var", "weight_u", "weight_v")


def convolution(name: str, outputs: int, inputs: int, kernel: int, bias: bool = True) -> Shapes:
    """Return the tensors of a convolution."""
    return {f"{name}.weight": (outputs, inputs, kernel, kernel), **({f"{name}.bias": (outputs,)} if bias else {})}


def residual_block(name: str, before: int, after: int, layers: tuple[str, str, str]) -> Shapes:
    """Return the tensors of a residual block's convolutions: two, and one beside them."""
    first, second, beside = (f"{name}.{layer}" for layer in layers)
    shapes = {**convolution(first, after, before, 3), **convolution(second, after, after, 3)}
    return {**shapes, **convolution(beside, after, before, 1)}


def attention_shapes(name: str, channels: int, layers: tuple[str, str, str, str]) -> Shapes:
    """Return the weights of self-attention: those of queries, keys, values and of what comes out."""
    queries, keys, values, out = (f"{name}.{layer}" for layer in layers)
    shapes = {
        **convolution(queries, channels // 8, channels, 1, False),
        **convolution(keys, channels // 8, channels, 1, False),
    }
    return {
        **shapes,
        **convolution(values, channels // 2, channels, 1, False),
        **convolution(out, channels, channels // 2, 1, False),
    }


def biggan_shapes(classes: int, chunk: int = 4) -> tuple[Shapes, Shapes]:
    """Return the tensors of BigGAN-PyTorch's networks of 64 pixels that attend at 16."""
    g: dict[str, tuple[int, ...]] = {
        "shared.weight": (classes, 128),
        "linear.weight": (1024, chunk),
        "linear.bias": (1024,),
    }
    names, layers, width = ("theta", "phi", "g", "o"), ("conv1", "conv2", "conv_sc"), (64, 64, 32, 16, 8)
    for k, (before, after) in enumerate(pairwise(width)):
        g |= residual_block(f"blocks.{k}.0", before, after, layers)
        for norm, channels in (("bn1", before), ("bn2", after)):
            one = f"blocks.{k}.0.{norm}"
            g |= {f"{one}.stored_mean": (channels,), f"{one}.stored_var": (channels,)}
            g |= {f"{one}.{part}.weight": (channels, 128 + chunk) for part in ("gain", "bias")}
    g |= {"blocks.1.1.gamma": (), **attention_shapes("blocks.1.1", 32, names)}
    g |= {f"output_layer.0.{one}": (8,) for one in ("gain", "bias", "stored_mean", "stored_var")}
    g |= convolution("output_layer.2", 3, 8, 3)
    d: dict[str, tuple[int, ...]] = {"blocks.1.1.gamma": (), **attention_shapes("blocks.1.1", 8, names)}
    for k, (before, after) in enumerate(pairwise((3, 4, 8, 16, 32, 64))):
        d |= residual_block(f"blocks.{k}.0", before, after, layers)
    return g, {**d, "linear.weight": (1, 64), "linear.bias": (1,), "embed.weight": (classes, 64)}


def write_biggan(file: Path, classes: int) -> dict[str, dict[str, Tensor]]:
    """Write a G_ema.pth, and beside it a D.pth, with the vectors of that program's spectral normalisation."""
    states = {}
    for name, shapes in zip(("G_ema", "D"), biggan_shapes(classes), strict=True):
        state = drawn_with_variances(shapes)
        for layer in [
            name for name, t in state.items() if name.endswith("weight") and t.dim() > 1 and "shared" not in name
        ]:
            vector = layer.replace("weight", "u0")
            state[vector] = normalize(normal(philox("made", vector), 1, len(state[layer])))
            state[layer.replace("weight", "sv0")] = torch.ones(1)
        states[name] = state
    torch.save(states["G_ema"], file)
    torch.save(states["D"], file.with_name("D.pth"))
    return states


def studiogan_shapes(classes: int, big: bool, attends: bool) -> tuple[Shapes, Shapes]:
    """Return the tensors of StudioGAN's networks of 32 pixels, of big_resnet or resnet, that can attend at 16."""
    names = ("conv1x1_theta", "conv1x1_phi", "conv1x1_g", "conv1x1_attn")
    layers, z, told = ("conv2d1", "conv2d2", "conv2d0"), 4, 128 + 4 if big else classes
    g: dict[str, tuple[int, ...]] = {"linear0.weight": (512, z), "linear0.bias": (512,)}
    if big:
        g["shared.weight"] = (classes, 128)
    d: dict[str, tuple[int, ...]] = dict(residual_block("blocks.0.0", 3, 32, layers))
    for k in (0, 1, 2 + attends):  # attention is a block of its own
        g |= residual_block(f"blocks.{k}.0", 32, 32, layers)
        for one in (f"blocks.{k}.0.bn1", f"blocks.{k}.0.bn2"):
            statistics = {name: shape for name, shape in batch_norm(f"{one}.bn", 32).items() if ".bn.r" in name}
            g |= (
                statistics | {f"{one}.{part}.weight": (32, told) for part in ("gain", "bias")}
                if told
                else batch_norm(one, 32)
            )
    if attends:
        g |= {"blocks.2.0.sigma": (1,), **attention_shapes("blocks.2.0", 32, names)}
        d |= {"blocks.1.0.sigma": (1,), **attention_shapes("blocks.1.0", 32, names)}
    g |= {**batch_norm("bn4", 32), **convolution("conv2d5", 3, 32, 3)}
    d |= residual_block(f"blocks.{1 + attends}.0", 32, 32, layers)
    for k in (2 + attends, 3 + attends):  # they keep their side, and have no convolution beside the two
        d |= {**convolution(f"blocks.{k}.0.conv2d1", 32, 32, 3), **convolution(f"blocks.{k}.0.conv2d2", 32, 32, 3)}
    embedding = {"embedding.weight": (classes, 32)} if classes else {}
    return g, {**d, "linear1.weight": (1, 32), "linear1.bias": (1,), **embedding}


def write_studiogan(file: Path, classes: int) -> dict[str, dict[str, Tensor]]:
    """Write the generator's file, and the discriminator's beside it: with classes of big_resnet."""
    return write_studiogan_of(studiogan_shapes(classes, big=classes > 0, attends=classes > 0), file)


def write_studiogan_resnet(file: Path, classes: int) -> dict[str, dict[str, Tensor]]:
    """Write the files of the backbone resnet that attends, with each class's BatchNorm."""
    return write_studiogan_of(studiogan_shapes(classes, big=False, attends=True), file)


def write_studiogan_of(networks: tuple[Shapes, Shapes], file: Path) -> dict[str, dict[str, Tensor]]:
    """Write the files of networks."""
    states = {}
    for name, shapes in zip(("G_ema", "D"), networks, strict=True):
        state = drawn_with_variances(shapes)
        shared = {one: state.pop(one) for one in list(state) if one.startswith("shared")}
        states[name] = spectrally_normalised(state) | shared
    torch.save({"state_dict": states["G_ema"], "optimizer": {}, "epoch": 3, "best_fid": None}, file)
    torch.save({"state_dict": states["D"], "optimizer": {}, "epoch": 3}, file.with_name("D.pth"))
    return states
