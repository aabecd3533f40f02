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

from shards.images.display import premultiply
from trainer.core.randomness import normal, philox
from trainer.metrics.arrays import row_spans
from trainer.metrics.base import Estimate, Metric, Sample
from trainer.metrics.intervals import BY_BLOCKS, Variance, block_number, block_slices

PATCH = 7
PATCHES = 32  # per picture and level
DIRECTIONS = 128
MIN_SIZE = 16  # pixels; a level of this size is not halved any more
VALUES_PER_PIECE = 2**23  # of pictures at a time

ByteImages = npt.NDArray[np.uint8]  # (n, h, w, c); sides of at least 16
Images = Float[Tensor, "n c h w"]
Patches = Float[Tensor, "patches 7 7 c"]
Projected = tuple[Float[Tensor, "patches directions"], Int[Tensor, "patches directions"]]


class SlicedWasserstein:
    """The distance of any set of images to a fixed set of the same size.

    Args:
        real: (n, h, w, c) bytes; sides of at least 16. Of RGBA the colours are multiplied by alpha.
    """

    def __init__(self, real: ByteImages) -> None:
        self.real = []
        for number, patches in enumerate(all_patches(real)):
            mean, std = moments(patches)
            self.real.append((mean, std, project((patches - mean) / std, number)[0]))

    def __call__(self, fake: ByteImages) -> float:
        """Return the distance, times 1000, averaged over the levels: 0 for the same pictures.

        Args:
            fake: (n, h, w, c) bytes, as many as the real ones.
        """
        distances = []
        for number, (patches, (mean, std, real)) in enumerate(zip(all_patches(fake), self.real, strict=True)):
            # Whitened by the moments of the reals; Karras et al. use each set's own, which hides a wrong colour.
            generated, _ = project((patches - mean) / std, number)
            distances.append((real - generated).abs().mean().item())
        return 1000 * float(np.mean(distances))


def all_patches(images: ByteImages) -> list[Patches]:
    """Cut patches from each level of the pyramid, fine to coarse, at keyed places, the same for all images."""
    n, size = len(images), min(images.shape[1:3])
    found: list[list[Patches]] = []
    for span in row_spans(n, max(1, VALUES_PER_PIECE // int(np.prod(images.shape[1:])))):
        levels = laplacian_pyramid(images[span])
        found.append([cut_patches(level, n, span, number) for number, level in enumerate(levels)])
    if not found or size < MIN_SIZE:
        raise ValueError(f"patches are cut from pictures of {MIN_SIZE} pixels or more, but {images.shape} is given")
    return [torch.cat(level) for level in zip(*found, strict=True)]


def laplacian_pyramid(images: ByteImages) -> list[Images]:
    """Return the band-pass levels from fine to coarse, and the low-pass rest.

    The rest has at most 16 pixels on a side, or an odd number, which cannot be halved: 25 on the third level of 100.
    """
    image = torch.from_numpy(premultiply(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    levels = []
    while min(image.shape[-2:]) > MIN_SIZE and not any(side % 2 for side in image.shape[-2:]):
        smaller = F.avg_pool2d(image, 2)
        levels.append(image - F.interpolate(smaller, scale_factor=2, mode="bilinear", align_corners=False))
        image = smaller
    return [*levels, image]


def cut_patches(level: Images, n: int, span: slice, number: int) -> Patches:
    """Cut patches from one level of the pictures `span` of n."""
    height, width = level.shape[-2:]
    # One number for squares: of two NumPy draws other places.
    ends = (
        width - PATCH + 1 if height == width else np.reshape([height - PATCH + 1, width - PATCH + 1], (2, 1, 1, 1, 1))
    )
    places = philox("sliced wasserstein places", number).integers(0, ends, (2, n, PATCHES, 1, 1))
    corners, offset = torch.from_numpy(places[:, span]), torch.arange(PATCH)
    rows, columns = corners[0] + offset[:, None], corners[1] + offset[None, :]
    patches: Tensor = level[torch.arange(len(level))[:, None, None, None], :, rows, columns].flatten(0, 1)
    return patches


def moments(patches: Patches) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
    """Return mean and standard deviation of the channels; the latter is never 0."""
    return patches.mean((0, 1, 2)), patches.std((0, 1, 2)) + 1e-8


def project(patches: Patches, number: int) -> Projected:
    """Project patches on keyed directions, sort along each, and return the values and the order."""
    flat = patches.flatten(1)
    directions = normal(philox("sliced wasserstein directions", number), flat.shape[1], DIRECTIONS)
    projected: Tensor = flat @ (directions / torch.linalg.vector_norm(directions, dim=0))
    values, order = projected.sort(dim=0)  # in one dimension, optimal transport pairs values by rank
    return values, order


def distances(real: ByteImages, fake: ByteImages, number: int) -> list[float]:
    """Return the distance between all pictures, then without each of `number` blocks of both sides.

    A sorted row stays sorted when values are left out. Whitening and places are those of all images.
    """
    block = torch.zeros(len(real), dtype=torch.uint8)
    for i, span in enumerate(block_slices(len(real), number), 1):
        block[span] = i
    block = block.repeat_interleave(PATCHES)  # all patches of an image are left out together: they are dependent
    found = []
    for level, (reals, fakes) in enumerate(zip(all_patches(real), all_patches(fake), strict=True)):
        mean, std = moments(reals)
        sides = []
        for patches in (reals, fakes):
            values, order = project((patches - mean) / std, level)
            sides.append((values.T.contiguous(), block[order.T]))
        found.append([level_distance(sides, left_out) for left_out in range(number + 1)])
    return [1000 * float(np.mean(column)) for column in zip(*found, strict=True)]


def level_distance(sides: list[tuple[Tensor, Tensor]], left_out: int) -> float:
    """Return the distance on one level without the patches of a block; 0: without none."""
    a, b = (values[block != left_out].view(DIRECTIONS, -1) for values, block in sides)
    return (a - b).abs().mean().item()


def measure(real: Sample, fake: Sample, held_out: Sample | None) -> dict[str, Estimate]:
    """Measure as many images of each side."""
    if real.images is None or fake.images is None:
        raise ValueError("pictures are missing")
    count = min(len(real.images), len(fake.images))
    if count < 4:
        raise ValueError(f"the sliced Wasserstein distance needs 4 pictures of each side, and there are {count}")
    number = block_number(count)
    value, *replicas = distances(real.images[:count], fake.images[:count], number)
    return {"swd": Variance.jackknife(replicas).around(value, count, BY_BLOCKS.format(number)).within(0)}


SWD = Metric(
    "swd",
    frozenset({"images"}),
    {"swd": "lower"},
    "sliced Wasserstein distance of patches, mean over a Laplacian pyramid, × 1000 (Karras et al. 2018)",
    measure,
)
