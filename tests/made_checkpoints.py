"""Checkpoints as other programs write them: their names, shapes and pickled classes, with drawn weights.

`python`'s pickles of classes that are defined in modules of the names that those programs have; for StyleGAN2-ADA with
its way of pickling a class's source (torch_utils.persistence).
"""

from __future__ import annotations

import math
import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from trainer.core.randomness import normal, philox

Shapes = Mapping[str, tuple[int, ...]]


def drawn(shapes: Shapes, by_fan_in: bool = False) -> dict[str, Tensor]:
    """Draw tensors from N(0, 1) by their names; over the root of their inputs where layers do not divide by it."""
    made = {name: normal(philox("made", name), *shape) for name, shape in shapes.items()}
    if not by_fan_in:
        return made
    return {name: t / max(1, math.prod(t.shape[1:])) ** 0.5 if t.dim() > 1 else 0.3 * t for name, t in made.items()}


def reconstruct(meta: Any) -> Any:
    """Stand for torch_utils.persistence._reconstruct_persistent_obj; nobody calls it."""
    raise AssertionError("code of a pickle ran")


class Persistent(nn.Module):
    """A module that is pickled as NVlabs' are: with its source, and by a function that would run it."""

    def __init__(self, class_name: str) -> None:
        super().__init__()
        self.class_name = class_name

    def __reduce__(self) -> Any:
        state = {name: value for name, value in self.__dict__.items() if name != "class_name"}
        source = "raise AssertionError('code of a pickle ran')"
        meta = {"type": "class", "version": 6, "module_src": source, "class_name": self.class_name, "state": state}
        return reconstruct, (meta,), None


class Plain(nn.Module):
    """A module that is pickled by the name of its class."""


@contextmanager
def modules_named(**names: Any) -> Iterator[None]:
    """Let functions and classes be pickled under the names of another program, for a while."""
    before = dict(sys.modules)
    try:
        for path, thing in names.items():
            module, _, name = path.replace("__", ".").rpartition(".")
            for n in range(module.count(".") + 1):
                parent = ".".join(module.split(".")[: n + 1])
                sys.modules.setdefault(parent, ModuleType(parent))
            setattr(sys.modules[module], name, thing)
            thing.__module__, thing.__qualname__, thing.__name__ = module, name, name
        yield
    finally:
        for name in set(sys.modules) - set(before):
            del sys.modules[name]


def as_modules(state: Mapping[str, Tensor], new: Any, buffers: tuple[str, ...]) -> nn.Module:
    """Return nested modules that have tensors by these names."""
    root: nn.Module = new("Network")
    for name, tensor in state.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, new("Layer"))
            module = module.get_submodule(part)
        if last in buffers:
            module.register_buffer(last, tensor)
        else:
            module.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
    return root


def stylegan2_shapes(size: int, channels: Mapping[int, int], classes: int, dim: int = 8, layers: int = 2) -> Shapes:
    """Return the tensors of StyleGAN2-ADA's generator."""
    shapes: dict[str, tuple[int, ...]] = {"synthesis.b4.const": (channels[4], 4, 4)}
    before = 0
    for side, width in channels.items():
        block = f"synthesis.b{side}"
        shapes[f"{block}.resample_filter"] = (4, 4)
        for conv, inputs in (("conv0", before), ("conv1", width)):
            if inputs:
                one = f"{block}.{conv}"
                shapes |= {f"{one}.affine.weight": (inputs, dim), f"{one}.affine.bias": (inputs,)}
                shapes |= {f"{one}.weight": (width, inputs, 3, 3), f"{one}.bias": (width,)}
                shapes |= {f"{one}.noise_const": (side, side), f"{one}.noise_strength": ()}
        rgb = f"{block}.torgb"
        shapes |= {f"{rgb}.affine.weight": (width, dim), f"{rgb}.affine.bias": (width,)}
        shapes |= {f"{rgb}.weight": (3, width, 1, 1), f"{rgb}.bias": (3,)}
        before = width
    if classes:
        shapes |= {"mapping.embed.weight": (dim, classes), "mapping.embed.bias": (dim,)}
    for k in range(layers):
        inputs = dim * (2 if classes and k == 0 else 1)
        shapes |= {f"mapping.fc{k}.weight": (dim, inputs), f"mapping.fc{k}.bias": (dim,)}
    return {**shapes, "mapping.w_avg": (dim,)}


def stylegan2_d_shapes(size: int, channels: Mapping[int, int], classes: int, layers: int = 2) -> Shapes:
    """Return the tensors of StyleGAN2-ADA's discriminator."""
    shapes: dict[str, tuple[int, ...]] = {
        f"b{size}.fromrgb.weight": (channels[size], 3, 1, 1),
        f"b{size}.fromrgb.bias": (channels[size],),
    }
    for side in [s for s in channels if s > 4]:
        width, after = channels[side], channels[side // 2]
        shapes |= {f"b{side}.conv0.weight": (width, width, 3, 3), f"b{side}.conv0.bias": (width,)}
        shapes |= {f"b{side}.conv1.weight": (after, width, 3, 3), f"b{side}.conv1.bias": (after,)}
        shapes[f"b{side}.skip.weight"] = (after, width, 1, 1)
    last = channels[4]
    shapes |= {"b4.conv.weight": (last, last + 1, 3, 3), "b4.conv.bias": (last,)}
    shapes |= {"b4.fc.weight": (last, last * 16), "b4.fc.bias": (last,)}
    shapes |= {"b4.out.weight": (last if classes else 1, last), "b4.out.bias": (last if classes else 1,)}
    if classes:
        shapes |= {"mapping.embed.weight": (last, classes), "mapping.embed.bias": (last,)}
        for k in range(layers):
            shapes |= {f"mapping.fc{k}.weight": (last, last), f"mapping.fc{k}.bias": (last,)}
    return shapes


BUFFERS = (
    *("resample_filter", "noise_const", "w_avg", "Kernel", "up_filter", "down_filter", "transform"),
    *("freqs", "phases", "magnitude_ema"),
)


def write_stylegan2(file: Path, classes: int) -> dict[str, dict[str, Tensor]]:
    """Write a network-snapshot.pkl of 16 pixels, and return the tensors of G_ema and D."""
    channels = {4: 12, 8: 12, 16: 6}
    states = {
        "G_ema": drawn(stylegan2_shapes(16, channels, classes)),
        "D": drawn(stylegan2_d_shapes(16, channels, classes)),
    }
    for name, tensor in ((n, t) for state in states.values() for n, t in state.items()):
        if name.startswith("mapping.fc"):
            tensor.mul_(100.0)  # over their learning rate's factor, as these are stored: else w would be nearly zero
    with modules_named(torch_utils__persistence___reconstruct_persistent_obj=reconstruct):
        content: dict[str, Any] = {name: as_modules(state, Persistent, BUFFERS) for name, state in states.items()}
        content["training_set_kwargs"] = OrderedDict(path="~/data", max_size=100)
        file.write_bytes(pickle.dumps(content))
    return states


def stylegan3_shapes(size: int, widths: Sequence[int], kernel: int, classes: int, dim: int = 8) -> Shapes:
    """Return the tensors of StyleGAN3's generator, of layers with so many channels; the sizes in names are made up."""
    shapes: dict[str, tuple[int, ...]] = {
        "synthesis.input.weight": (widths[0], widths[0]),
        "synthesis.input.affine.weight": (4, dim),
        "synthesis.input.affine.bias": (4,),
        "synthesis.input.transform": (3, 3),
        "synthesis.input.freqs": (widths[0], 2),
        "synthesis.input.phases": (widths[0],),
    }
    before = widths[0]
    for k, width in enumerate([*widths, 3]):
        taps = kernel if k < len(widths) else 1
        one = f"synthesis.L{k}_{size if k == len(widths) else 36}_{width}"
        shapes |= {f"{one}.affine.weight": (before, dim), f"{one}.affine.bias": (before,)}
        shapes |= {f"{one}.weight": (width, before, taps, taps), f"{one}.bias": (width,), f"{one}.magnitude_ema": ()}
        shapes |= {f"{one}.up_filter": (12,), f"{one}.down_filter": (12,)}
        before = width
    if classes:
        shapes |= {"mapping.embed.weight": (dim, classes), "mapping.embed.bias": (dim,)}
    for k in range(2):
        inputs = dim * (2 if classes and k == 0 else 1)
        shapes |= {f"mapping.fc{k}.weight": (dim, inputs), f"mapping.fc{k}.bias": (dim,)}
    return {**shapes, "mapping.w_avg": (dim,)}


def write_stylegan3(file: Path, classes: int) -> dict[str, dict[str, Tensor]]:
    """Write a network-snapshot.pkl of 16 pixels, of T without classes and of R with them; return G_ema's and D's."""
    of_t = (*[12] * 7, 11, 10, 8, 8, 7, 6, 6)  # channel_base 96 and channel_max 12; of R 192 and 24
    of_r = (*[24] * 7, 21, 19, 17, 15, 13, 12, 12)
    states = {
        "G_ema": drawn(stylegan3_shapes(16, of_r if classes else of_t, 1 if classes else 3, classes)),
        "D": drawn(stylegan2_d_shapes(16, {4: 12, 8: 12, 16: 6}, classes)),
    }
    for name, tensor in ((n, t) for state in states.values() for n, t in state.items()):
        if name.startswith("mapping.fc"):
            tensor.mul_(100.0)
        if name.endswith("magnitude_ema"):
            tensor.abs_().add_(0.5)
    with modules_named(torch_utils__persistence___reconstruct_persistent_obj=reconstruct):
        content = {name: as_modules(state, Persistent, BUFFERS) for name, state in states.items()}
        file.write_bytes(pickle.dumps(content))
    return states


def r3gan_states(classes: int) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of R3GAN's networks of 16 pixels."""
    widths, z_dim = (32, 32, 16), 8
    g: dict[str, tuple[int, ...]] = {"Model.AggregationLayer.Layer.weight": (3, widths[-1], 1, 1)}
    d: dict[str, tuple[int, ...]] = {"Model.ExtractionLayer.Layer.weight": (widths[-1], 3, 1, 1)}

    def block(name: str, width: int) -> dict[str, tuple[int, ...]]:
        wide = 2 * width
        return {
            f"{name}.LinearLayer1.Layer.weight": (wide, width, 1, 1),
            f"{name}.LinearLayer2.Layer.weight": (wide, 16, 3, 3),
            f"{name}.LinearLayer3.Layer.weight": (width, wide, 1, 1),
            f"{name}.NonLinearity1.Bias": (wide,),
            f"{name}.NonLinearity2.Bias": (wide,),
        }

    for k, width in enumerate(widths):
        stage, other = f"Model.MainLayers.{k}.Layers", f"Model.MainLayers.{len(widths) - 1 - k}.Layers"
        for n in range(2):
            g |= block(f"{stage}.{n + 1}", width)
            d |= block(f"{other}.{n}", width)
        if k == 0:
            g |= {f"{stage}.0.Basis": (width, 4, 4)}
            g[f"{stage}.0.LinearLayer.weight"] = (width, 2 * z_dim if classes else z_dim)
            d |= {f"{other}.2.Basis.weight": (width, 1, 4, 4)}
            d[f"{other}.2.LinearLayer.weight"] = (width if classes else 1, width)
        else:
            g[f"{stage}.0.Resampler.Kernel"] = d[f"{other}.2.Resampler.Kernel"] = (4, 4)
            if widths[k - 1] != width:
                g[f"{stage}.0.LinearLayer.Layer.weight"] = (width, widths[k - 1], 1, 1)
                d[f"{other}.2.LinearLayer.Layer.weight"] = (widths[k - 1], width, 1, 1)
    if classes:
        g["Model.EmbeddingLayer.weight"], d["Model.EmbeddingLayer.weight"] = (z_dim, classes), (widths[0], classes)
    return {"G_ema": drawn(g, by_fan_in=True), "D": drawn(d, by_fan_in=True)}


def write_r3gan(file: Path, classes: int) -> dict[str, dict[str, Tensor]]:
    """Write a network-snapshot.pkl, and return the tensors."""
    states = r3gan_states(classes)
    with modules_named(training__networks__Generator=Plain):
        content: dict[str, Any] = {name: as_modules(s, lambda _: Plain(), BUFFERS) for name, s in states.items()}
        file.write_bytes(pickle.dumps(content | {"cur_nimg": 5000}))
    return states
