"""Signs of collapse in generated images: their diversity against the data's own.

No file and no extractor is needed: pictures are described by colour, contrast and fine texture on a grid of 8 × 8
cells. That is cheap, the same for any data, and enough to tell many pictures from variations of a few.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate

from shards.images.display import premultiply
from trainer.metrics.ms_ssim import WINDOW, pair_similarities
from trainer.sampling.sampler import Images

MOST_IMAGES = 256  # pictures at each look
CELLS = 8
SIDE = 64  # larger pictures are made smaller first: the eye that tells many from few needs no more, and a look is quick
NEIGHBOURS = 5

Features = Float[Tensor, "n d"]


class CollapseMetrics:
    """Compares generated images with the data.

    Args:
        pictures: of the data, (2 n, h, w, c) bytes: the first half is the reference, the second half stands beside the
            generated ones, as what a perfect generator would give.
        labels: (2 n,) their classes.
    """

    def __init__(self, pictures: Images, labels: npt.NDArray[np.int64]) -> None:
        pictures = shrink_images(pictures)
        self.number = len(pictures) // 2
        self.labels = labels[: self.number]
        parts = image_descriptors(pictures[: self.number])
        # Of pictures that are all equal the spread is 0, here and below.
        self.scales = [float(part.std()) or 1.0 for part in parts]
        self.reference, own = self.features(pictures[: self.number]), self.features(pictures[self.number :])
        self.width = 0.5 * float(torch.pdist(self.reference).median()) or 1.0
        self.own_variety, self.own_similarity = self.variety(own), mean_ms_ssim(pictures[self.number :])
        self.own_coverage, self.own_distance = self.coverage(own), self.distance(own) or 1.0

    def __call__(self, fake: Images) -> dict[str, float]:
        """Return the evidence; a generator that matches the data has about the values in brackets.

        diversity (1): how many different pictures there are, the data's own being 1: Vendi scores (Friedman and Dieng
        2023) with a Gaussian kernel half as wide as the data is. similarity (0): mean MS-SSIM between pairs, less the
        data's own (Odena et al. 2017). coverage (1): the share of reals with a generated image among their neighbours
        (Naeem et al. 2020), against the data's own. distance_to_data (1): the median distance to the nearest real,
        against the data's own. classes (0): the total variation between the classes of the nearest reals and the data.

        Args:
            fake: (n, h, w, c) bytes, as many as `number`.
        """
        fake = shrink_images(fake)
        features = self.features(fake)
        evidence = {
            "diversity": self.variety(features) / self.own_variety,
            "similarity": mean_ms_ssim(fake) - self.own_similarity,
            "coverage": self.coverage(features) / self.own_coverage if self.own_coverage else 1.0,
            "distance_to_data": self.distance(features) / self.own_distance,
        }
        if len(set(self.labels.tolist())) > 1:
            evidence["classes"] = self.class_distance(features)
        return evidence

    def features(self, pictures: Images) -> Features:
        """Describe pictures, each part in units of its spread over the reference."""
        parts = zip(image_descriptors(pictures), self.scales, strict=True)
        return torch.cat([part / scale for part, scale in parts], 1)

    def variety(self, features: Features) -> float:
        """Return the Vendi score: exp of the entropy of the eigenvalues of K / n."""
        kernel = torch.exp(-0.5 * (pairwise_distances(features, features) / self.width).square())
        # Rounding leaves some just below 0; x log x goes to 0 with x.
        eigenvalues = torch.linalg.eigvalsh(kernel / len(features)).clamp_min(1e-12)
        return float(torch.exp(-(eigenvalues * eigenvalues.log()).sum()))

    def coverage(self, features: Features) -> float:
        """Return the share of the reference that is covered."""
        # One more: the nearest of each is itself.
        radius = pairwise_distances(self.reference, self.reference).kthvalue(NEIGHBOURS + 1, 1).values
        return float((pairwise_distances(self.reference, features).amin(1) < radius).double().mean())

    def distance(self, features: Features) -> float:
        """Return the median distance to the nearest of the reference."""
        return float(pairwise_distances(features, self.reference).amin(1).median())

    def class_distance(self, features: Features) -> float:
        """Return the total variation between the classes of the generated images and those of the data."""
        generated = self.labels[pairwise_distances(features, self.reference).argmin(1).numpy()]
        kinds = np.unique(self.labels)
        shares = [(labels[:, None] == kinds).mean(0) for labels in (generated, self.labels)]
        return 0.5 * float(np.abs(shares[0] - shares[1]).sum())


def pairwise_distances(a: Features, b: Features) -> Float[Tensor, "n m"]:
    """Return Euclidean distances; equal rows are exactly 0 apart."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def shrink_images(pictures: Images) -> Images:
    """Bring pictures to no more than SIDE pixels of height and width, by the means of areas; RGBA is premultiplied."""
    pictures = premultiply(pictures)
    longer = max(pictures.shape[1:3])
    if longer <= SIDE:
        return pictures
    # Even numbers: textures are differences to the means of 2 x 2 pixels.
    height, width = (2 * max(1, round(side * SIDE / longer / 2)) for side in pictures.shape[1:3])
    shrunk = [adaptive_avg_pool2d(torch.from_numpy(one).permute(2, 0, 1).float(), (height, width)) for one in pictures]
    return torch.stack(shrunk).round().byte().permute(0, 2, 3, 1).contiguous().numpy()  # bytes, as smaller pictures are


def image_descriptors(pictures: Images) -> list[Features]:
    """Describe cells in float64 by their colours (n, 64 c), contrasts (n, 64) and fine textures (n, 64)."""
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).double() / 127.5 - 1
    colour = adaptive_avg_pool2d(x, CELLS)
    # E x² - (E x)², which rounding may bring below 0.
    contrast = (adaptive_avg_pool2d(x.square(), CELLS) - colour.square()).clamp_min(0).mean(1).sqrt()
    fine = x - interpolate(avg_pool2d(x, 2), scale_factor=2, mode="nearest")
    texture = adaptive_avg_pool2d(fine.square(), CELLS).mean(1).sqrt()
    return [part.flatten(1) for part in (colour, contrast, texture)]


def mean_ms_ssim(pictures: Images) -> float:
    """Return the mean MS-SSIM of pairs of pictures; 0 where they are too small for it."""
    return float(pair_similarities(pictures).mean()) if min(pictures.shape[1:3]) >= WINDOW else 0.0
