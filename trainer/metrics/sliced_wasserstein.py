"""Sliced Wasserstein distance between patches, level by level of a Laplacian pyramid.

Karras et al. 2018, arXiv:1710.10196, §5: it needs no feature extractor, and compares appearance and variation at each
scale. Here 32 patches a picture and 128 directions in place of 128 and 512, so values do not compare with the paper's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from trainer.randomness import normal, philox

PATCH = 7
PATCHES = 32  # per picture and level
DIRECTIONS = 128
SMALLEST = 16  # pixels of the coarsest level

Images = Float[Tensor, "n 3 h w"]
Patches = Float[Tensor, "patches 7 7 3"]


class SlicedWasserstein:
    """The distance of any set of pictures to a fixed one of the same size.

    Args:
        real: (n, h, w, 3) bytes; h = w, at least 16.
    """

    def __init__(self, real: npt.NDArray[np.uint8]) -> None:
        self.real = []
        for number, level in enumerate(pyramid(real)):
            patches = cut_patches(level, number)
            mean, std = patches.mean((0, 1, 2)), patches.std((0, 1, 2)) + 1e-8
            self.real.append((mean, std, project((patches - mean) / std, number)))

    def __call__(self, fake: npt.NDArray[np.uint8]) -> float:
        """Return the distance, times 1000, averaged over the levels: 0 for the same pictures.

        Args:
            fake: (n, h, w, 3) bytes, as many as the real ones.
        """
        distances = []
        for number, (level, (mean, std, real)) in enumerate(zip(pyramid(fake), self.real, strict=True)):
            # Whitened by the reals' moments, where Karras et al. take each set's own: a wrong colour counts.
            painted = project((cut_patches(level, number) - mean) / std, number)
            distances.append((real - painted).abs().mean().item())
        return 1000 * float(np.mean(distances))


def pyramid(pictures: npt.NDArray[np.uint8]) -> list[Images]:
    """Return the band-pass levels from fine to coarse, and the low-pass rest at 16 pixels."""
    image = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    levels = []
    while image.shape[-1] > SMALLEST:
        smaller = F.avg_pool2d(image, 2)
        levels.append(image - F.interpolate(smaller, scale_factor=2, mode="bilinear", align_corners=False))
        image = smaller
    return [*levels, image]


def cut_patches(level: Images, number: int) -> Patches:
    """Cut patches at keyed places, the same ones for any pictures."""
    n, _, size, _ = level.shape
    places = philox("sliced wasserstein places", number).integers(0, size - PATCH + 1, (2, n, PATCHES, 1, 1))
    corners, offset = torch.from_numpy(places), torch.arange(PATCH)
    rows, columns = corners[0] + offset[:, None], corners[1] + offset[None, :]
    patches: Tensor = level[torch.arange(n)[:, None, None, None], :, rows, columns].flatten(0, 1)
    return patches


def project(patches: Patches, number: int) -> Float[Tensor, "patches directions"]:
    """Project patches on keyed directions, and sort along each of them."""
    flat = patches.flatten(1)
    directions = normal(philox("sliced wasserstein directions", number), flat.shape[1], DIRECTIONS)
    projected: Tensor = flat @ (directions / torch.linalg.vector_norm(directions, dim=0))
    return projected.sort(dim=0).values
