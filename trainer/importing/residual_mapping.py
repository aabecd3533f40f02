"""What the networks of BigGAN-PyTorch, FastGAN and StudioGAN have in common when they become ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from trainer.importing.mapping import DoesNotFit, Named, Source
from trainer.networks.biggan import SHARED_DIM

SIZES = {3: 32, 4: 64, 5: 128, 6: 256}
"""Side of the pictures by the number of the generator's blocks."""
Weight = Callable[[Source, str, str], Tensor]
"""Takes a layer's weight, with spectral normalisation carried out: the source, the layer's name there, and ours."""


def iterated_weight(source: Source, layer: str, ours: str) -> Tensor:
    """Return a weight over its singular value as BigGAN-PyTorch measures it: by one more iteration from u0."""
    weight = source(f"{layer}.weight", ours)
    if not source.has(f"{layer}.u0"):
        return weight
    matrix, u = weight.flatten(1), source(f"{layer}.u0", ours)
    v = normalize(u @ matrix, eps=1e-12)
    sigma = (v @ matrix.T) @ normalize(v @ matrix.T, eps=1e-12).T
    return weight / sigma.squeeze()


def torch_weight(source: Source, layer: str, ours: str, out_dim: int = 0) -> Tensor:
    """Return a weight over its singular value as torch.nn.utils.spectral_norm measures it: from stored u and v.

    Args:
        source, layer, ours: the layer there and here.
        out_dim: the dimension that counts outputs: 1 for a transposed convolution.
    """
    if not source.has(f"{layer}.weight_orig"):
        return source(f"{layer}.weight", ours)
    weight = source(f"{layer}.weight_orig", ours)
    u, v = source(f"{layer}.weight_u", ours), source(f"{layer}.weight_v", ours)
    return weight / torch.dot(u, weight.movedim(out_dim, 0).flatten(1) @ v)


def convolution(source: Source, weight: Weight, ours: str, theirs: str) -> Named:
    """Return a layer's weight and bias."""
    return {f"{ours}.weight": weight(source, theirs, ours), f"{ours}.bias": source(f"{theirs}.bias", f"{ours}.bias")}


def batch_norm(source: Source, ours: str, theirs: str) -> Named:
    """Return the tensors of a BatchNorm with a gain and a bias, as torch names them."""
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{ours}.{name}": source(f"{theirs}.{name}", ours) for name in names}


def attention(source: Source, weight: Weight, ours: str, theirs: Mapping[str, str]) -> Named:
    """Return the tensors of self-attention.

    Args:
        source, weight: theirs.
        ours: the layer.
        theirs: names of their layers by those of ours; that of gamma is a tensor.
    """
    layers = {name: layer for name, layer in theirs.items() if name != "gamma"}
    made = {f"{ours}.{name}.weight": weight(source, layer, ours) for name, layer in layers.items()}
    return made | {f"{ours}.gamma": source(theirs["gamma"], f"{ours}.gamma").reshape(())}


def attended_side(heights: Sequence[int], own_choice: int) -> int:
    """Return the setting network.attention for the heights of maps that attend.

    Raises:
        DoesNotFit: there is not one such height.
    """
    if len(heights) != 1:
        raise DoesNotFit(f"it attends at {len(heights)} heights, and ours at one")
    return 0 if heights[0] == own_choice else heights[0]


def check_shared(dim: int) -> None:
    """Refuse a class embedding of another width than ours.

    Raises:
        DoesNotFit: it is of another one.
    """
    if dim != SHARED_DIM:
        raise DoesNotFit(f"its shared class embedding has {dim} dimensions, and ours {SHARED_DIM}")
