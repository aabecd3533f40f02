"""Sliced Wasserstein distance between patches, level by level of a Laplacian pyramid.

Karras et al. 2018, arXiv:1710.10196, §5: it needs no feature extractor, and compares appearance and variation at each
scale. Here 32 patches a picture and 128 directions in place of 128 and 512, so values do not compare with the paper's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from trainer.core.randomness import normal, philox
from trainer.metrics.arrays import spans
from trainer.metrics.base import Estimate, Metric, Sample
from trainer.metrics.intervals import BY_BLOCKS, Variance, block_number, blocks

PATCH = 7
PATCHES = 32  # per picture and level
DIRECTIONS = 128
SMALLEST = 16  # pixels, from which on a level is not halved
VALUES = 2**23  # of pictures at a time

Pictures = npt.NDArray[np.uint8]  # (n, h, w, 3); h = w, at least 16
Images = Float[Tensor, "n 3 h w"]
Patches = Float[Tensor, "patches 7 7 3"]
Projected = tuple[Float[Tensor, "patches directions"], Int[Tensor, "patches directions"]]


class SlicedWasserstein:
    """The distance of any set of pictures to a fixed one of the same size.

    Args:
        real: (n, h, w, 3) bytes; h = w, at least 16.
    """

    def __init__(self, real: Pictures) -> None:
        self.real = []
        for number, patches in enumerate(all_patches(real)):
            mean, std = moments(patches)
            self.real.append((mean, std, project((patches - mean) / std, number)[0]))

    def __call__(self, fake: Pictures) -> float:
        """Return the distance, times 1000, averaged over the levels: 0 for the same pictures.

        Args:
            fake: (n, h, w, 3) bytes, as many as the real ones.
        """
        distances = []
        for number, (patches, (mean, std, real)) in enumerate(zip(all_patches(fake), self.real, strict=True)):
            # Whitened by the reals' moments, where Karras et al. take each set's own: a wrong colour counts.
            painted, _ = project((patches - mean) / std, number)
            distances.append((real - painted).abs().mean().item())
        return 1000 * float(np.mean(distances))


def all_patches(pictures: Pictures) -> list[Patches]:
    """Cut patches from each level of the pyramid, from fine to coarse, at keyed places, the same for any pictures."""
    n, size = len(pictures), pictures.shape[1]
    found: list[list[Patches]] = []
    for span in spans(n, max(1, VALUES // int(np.prod(pictures.shape[1:])))):
        levels = pyramid(pictures[span])
        found.append([cut_patches(level, n, span, number) for number, level in enumerate(levels)])
    if not found or size < SMALLEST:
        raise ValueError(f"patches are cut from pictures of {SMALLEST} pixels or more, but {pictures.shape} is given")
    return [torch.cat(level) for level in zip(*found, strict=True)]


def pyramid(pictures: Pictures) -> list[Images]:
    """Return the band-pass levels from fine to coarse, and the low-pass rest.

    That has 16 pixels or fewer, or else an odd side, which cannot be halved: 25 of 100 pixels, on the third level.
    """
    image = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    levels = []
    while image.shape[-1] > SMALLEST and image.shape[-1] % 2 == 0:
        smaller = F.avg_pool2d(image, 2)
        levels.append(image - F.interpolate(smaller, scale_factor=2, mode="bilinear", align_corners=False))
        image = smaller
    return [*levels, image]


def cut_patches(level: Images, n: int, span: slice, number: int) -> Patches:
    """Cut patches from one level of the pictures `span` of n."""
    size = level.shape[-1]
    places = philox("sliced wasserstein places", number).integers(0, size - PATCH + 1, (2, n, PATCHES, 1, 1))
    corners, offset = torch.from_numpy(places[:, span]), torch.arange(PATCH)
    rows, columns = corners[0] + offset[:, None], corners[1] + offset[None, :]
    patches: Tensor = level[torch.arange(len(level))[:, None, None, None], :, rows, columns].flatten(0, 1)
    return patches


def moments(patches: Patches) -> tuple[Float[Tensor, 3], Float[Tensor, 3]]:
    """Return mean and spread of the channels, which is never 0."""
    return patches.mean((0, 1, 2)), patches.std((0, 1, 2)) + 1e-8


def project(patches: Patches, number: int) -> Projected:
    """Project patches on keyed directions and sort along each of them: what is there, and the patches' numbers."""
    flat = patches.flatten(1)
    directions = normal(philox("sliced wasserstein directions", number), flat.shape[1], DIRECTIONS)
    projected: Tensor = flat @ (directions / torch.linalg.vector_norm(directions, dim=0))
    values, order = projected.sort(dim=0)
    return values, order


def distances(real: Pictures, fake: Pictures, number: int) -> list[float]:
    """Return the distance between all pictures, then without each of `number` blocks of both sides.

    What is left out of a sorted row leaves it sorted. Whitening and places stay those of all pictures.
    """
    block = torch.zeros(len(real), dtype=torch.uint8)
    for i, span in enumerate(blocks(len(real), number), 1):
        block[span] = i
    block = block.repeat_interleave(PATCHES)
    found = []
    for level, (reals, fakes) in enumerate(zip(all_patches(real), all_patches(fake), strict=True)):
        mean, std = moments(reals)
        sides = []
        for patches in (reals, fakes):
            values, order = project((patches - mean) / std, level)
            sides.append((values.T.contiguous(), block[order.T]))
        found.append([between(sides, left_out) for left_out in range(number + 1)])
    return [1000 * float(np.mean(column)) for column in zip(*found, strict=True)]


def between(sides: list[tuple[Tensor, Tensor]], left_out: int) -> float:
    """Return the distance on one level without the patches of a block; 0 is none."""
    a, b = (values[block != left_out].view(DIRECTIONS, -1) for values, block in sides)
    return (a - b).abs().mean().item()


def measure(real: Sample, fake: Sample, held_out: Sample | None) -> dict[str, Estimate]:
    """Measure pictures, as many of each side."""
    if real.pictures is None or fake.pictures is None:
        raise ValueError("pictures are missing")
    count = min(len(real.pictures), len(fake.pictures))
    if count < 4:
        raise ValueError(f"the sliced Wasserstein distance needs 4 pictures of each side, and there are {count}")
    number = block_number(count)
    value, *replicas = distances(real.pictures[:count], fake.pictures[:count], number)
    return {"swd": Variance.jackknife(replicas).around(value, count, BY_BLOCKS.format(number)).within(0)}


SWD = Metric(
    "swd",
    frozenset({"pictures"}),
    {"swd": "lower"},
    "sliced Wasserstein distance of patches, mean over a Laplacian pyramid, × 1000 (Karras et al. 2018)",
    measure,
)
