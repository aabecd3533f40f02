"""How similar fakes are to each other: the mean multi-scale structural similarity of pairs.

MS-SSIM: Wang, Simoncelli and Bovik 2003, equation 7, with Gaussian windows of 11 pixels, σ = 1.5, K = 0.01 and 0.03,
and their weights. Each colour channel is compared alone. Their five scales need 176 pixels: of smaller pictures only
the scales on which a window has room are taken, and their weights brought to the sum 1, so sizes do not compare.
As a measure of diversity: Odena et al. 2017, arXiv:1610.09585, §4.2. A collapsed generator's pairs are more alike than
the data's. Every picture is in one pair, so pairs are independent.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shards.images.display import premultiply
from trainer.core.randomness import philox
from trainer.metrics.arrays import row_spans
from trainer.metrics.base import Estimate, Float64Array, Indices, Metric, Sample
from trainer.metrics.intervals import Variance

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
VALUES_PER_PIECE = 2**20  # of each side at a time
METHOD = "Student's interval of the mean over {} disjoint pairs of fakes"
EXPECTED = "the expected similarity of two fakes"

ByteImages = npt.NDArray[np.uint8]


def ms_ssim(x: ByteImages, y: ByteImages) -> Float64Array:
    """Return the similarity of n pairs, (n,): 1 for equal images, 0 for images with nothing in common.

    Args:
        x, y: (n, h, w, c), at least 11 pixels high and wide.

    Raises:
        ValueError: the shapes do not fit.
    """
    if x.ndim != 4 or x.shape != y.shape or min(x.shape[1:3]) < WINDOW:
        raise ValueError(f"pairs must be (n, h, w, c) with {WINDOW} pixels or more, but are {x.shape} and {y.shape}")
    at_once = max(1, VALUES_PER_PIECE // int(np.prod(x.shape[1:])))
    found = [similarity(channels(x[span]), channels(y[span])) for span in row_spans(len(x), at_once)]
    return np.concatenate(found) if found else np.zeros(0)


def channels(images: ByteImages) -> Float64Array:
    """Return (n, c, h, w) values from 0 to 255."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float64)


def similarity(x: Float64Array, y: Float64Array) -> Float64Array:
    """Return the similarity of pairs, (n,), from channels."""
    weights = np.array(WEIGHTS[: scales_of_side(min(x.shape[2:]))])
    weights /= weights.sum()
    product = np.ones(x.shape[:2])
    for number, weight in enumerate(weights, 1):
        luminance, structure = compare(x, y)
        both = luminance * structure if number == len(weights) else structure
        product *= (
            both.mean((2, 3)).clip(0) ** weight
        )  # negative structure counts as no similarity; a power of it is undefined
        x, y = halve(x), halve(y)
    return np.asarray(product.mean(1))


def scales_of_side(side: int) -> int:
    """Return the number of scales, at most five, on which an image of this side has room for a window."""
    return min(len(WEIGHTS), (side // WINDOW).bit_length())


def compare(x: Float64Array, y: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return luminance, and contrast times structure, of every window: (n, 3, h - 10, w - 10) each."""
    mean_x, mean_y = blur(x), blur(y)
    square_x, square_y, product = mean_x**2, mean_y**2, mean_x * mean_y
    variance = blur(x * x) - square_x + blur(y * y) - square_y
    covariance = blur(x * y) - product
    return (2 * product + C1) / (square_x + square_y + C1), (2 * covariance + C2) / (variance + C2)


def blur(x: Float64Array) -> Float64Array:
    """Average over each window that lies within the picture."""
    return np.asarray(windows(x.shape[2]) @ x @ windows(x.shape[3]).T)


def windows(side: int) -> Float64Array:
    """Return the weights of each window along one side: (side - 10, side)."""
    offsets = np.arange(side) - np.arange(side - WINDOW + 1)[:, None] - WINDOW // 2
    weights = np.where(abs(offsets) <= WINDOW // 2, np.exp(-(offsets**2) / (2 * SIGMA**2)), 0)
    return np.asarray(weights / weights.sum(1, keepdims=True))


def halve(x: Float64Array) -> Float64Array:
    """Average over 2 × 2 pixels."""
    n, c, h, w = x.shape
    return np.asarray(x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5)))


def pair_similarities(images: ByteImages, *key: int | str) -> Float64Array:
    """Return the similarities of n // 2 disjoint pairs, which `key` chooses among n pictures."""
    half = len(images) // 2  # each image is in one pair: pairs that share an image would not be independent
    order: Indices = philox("ms-ssim pairs", *key).permutation(len(images))
    return ms_ssim(images[order[:half]], images[order[half : 2 * half]])


def measure(real: Sample, fake: Sample, held_out: Sample | None) -> dict[str, Estimate]:
    """Measure pairs of any fakes; of RGBA the colours are multiplied by alpha."""
    if fake.images is None or len(fake.images) < 4:
        raise ValueError("the similarity of pairs needs 4 pictures")
    found = pair_similarities(premultiply(fake.images))
    variance = Variance.of_mean(found)
    estimate = variance.around(float(found.mean()), len(fake.images), METHOD.format(len(found)), EXPECTED)
    return {"ms_ssim": estimate.within(0, 1)}


def measure_classes(real: Sample, fake: Sample, held_out: Sample | None) -> dict[str, Estimate]:
    """Measure pairs within each class of at least 4 fakes, and take the mean over these classes; -1 is none."""
    if fake.images is None or fake.labels is None:
        raise ValueError("pictures or labels are missing")
    # Four images give two pairs, the fewest with a variance.
    labels, counts = np.unique(fake.labels[fake.labels >= 0], return_counts=True)
    images = premultiply(fake.images)
    found = [pair_similarities(images[fake.labels == c], int(c)) for c in labels[counts >= 4]]
    if not found:
        raise ValueError("the similarity of pairs within a class needs 4 pictures of one")
    variances = [Variance.of_mean(pairs) for pairs in found]
    variance = sum(variances[1:], variances[0]) * (1 / len(found) ** 2)
    method = METHOD.format(sum(map(len, found))) + f", in each of {len(found)} classes of {len(labels)}"
    value = float(np.mean([pairs.mean() for pairs in found]))
    return {"intra_ms_ssim": variance.around(value, len(fake.images), method, f"{EXPECTED} of one class").within(0, 1)}


MS_SSIM = Metric(
    "ms_ssim",
    frozenset({"images"}),
    {"ms_ssim": "data"},
    "mean MS-SSIM between fakes (Odena et al. 2017, arXiv:1610.09585)",
    measure,
    "none",
)

INTRA_MS_SSIM = Metric(
    "intra_ms_ssim",
    frozenset({"images", "labels"}),
    {"intra_ms_ssim": "data"},
    "mean MS-SSIM between fakes of one class, averaged over classes (Odena et al. 2017, arXiv:1610.09585)",
    measure_classes,
    "none",
)
