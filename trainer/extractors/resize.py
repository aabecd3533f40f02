"""Filters that bring pictures to the size of a network: the same FID differs by whole points between them.

Parmar et al. 2022, arXiv:2104.11222. All take (n, h, w, c) bytes and return (n, 3, size, size) in [0, 255], float32,
without rounding to bytes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from shards.images.display import over_white

Images = npt.NDArray[np.uint8]  # (n, h, w, c)
Planes = Float[Tensor, "n 3 size size"]


def float_planes(images: Images) -> Float[Tensor, "n 3 h w"]:
    """Return pictures as planes of float32 in [0, 255]: of grey the same three times, of RGBA over white."""
    return torch.from_numpy(np.ascontiguousarray(over_white(images).transpose(0, 3, 1, 2))).float()


def torch_bilinear(images: Images, size: int) -> Planes:
    """Interpolate between centres of pixels, without antialiasing, as pytorch-fid does."""
    return interpolate(float_planes(images), (size, size), mode="bilinear", align_corners=False)


def tf_bilinear(images: Images, size: int) -> Planes:
    """Interpolate as TensorFlow 1 did: pixel i of the result lies at i · h / size of the picture, without antialiasing.

    The corners on the upper left fall together, those on the lower right do not. This is the filter inside the graph of
    Inception-2015, and so of torch-fidelity and of NVIDIA's metrics.
    """
    x = float_planes(images)
    return interpolate_axis(interpolate_axis(x, 3, size), 2, size)


def interpolate_axis(x: Tensor, axis: int, size: int) -> Tensor:
    """Interpolate along one axis, as TensorFlow 1 did."""
    length = x.shape[axis]
    # In float32 throughout, as TensorFlow computes it: positions in float64 round to other pixels.
    at = torch.arange(size, dtype=torch.float32) * torch.tensor(length / size, dtype=torch.float32)
    left = at.floor().long().clamp(max=length - 1)
    share = (at - left).reshape(-1, *[1] * (3 - axis))
    near, far = x.index_select(axis, left), x.index_select(axis, (left + 1).clamp(max=length - 1))
    return near + (far - near) * share


def resize_clean(images: Images, size: int) -> Planes:
    """Filter each plane with Pillow's antialiased bicubic in float32, as clean-fid does; of the right size: nothing."""
    x = float_planes(images)
    if x.shape[2:] == (size, size):
        return x
    whole = (Image.fromarray(plane) for plane in x.flatten(0, 1).numpy())
    sized = [np.asarray(plane.resize((size, size), Image.Resampling.BICUBIC)) for plane in whole]
    return torch.from_numpy(np.stack(sized)).clamp(0, 255).reshape(-1, 3, size, size)


FILTERS: dict[str, Callable[[Images, int], Planes]] = {
    "clean": resize_clean,
    "torch-bilinear": torch_bilinear,
    "tf-bilinear": tf_bilinear,
}
