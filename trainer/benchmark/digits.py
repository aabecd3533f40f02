"""Stacked digits: three random digits as the channels of a picture, 1,000 modes (Srivastava et al. 2017, VEEGAN, §4.2).

MNIST in the papers; here the 1,797 scanned digits of 8 x 8 pixels that scikit-learn brings along (Alpaydin and
Kaynak 1998, UCI), enlarged to 16. The number of modes is the papers'; data, size, networks and classifier are ours, so
that no number but theirs of modes compares. The classifier names each channel's digit: an RBF support vector machine on
8 x 8 pixels, trained on four fifths of the digits, of which the reals are made too, and tested on the rest.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor
from torch.nn import functional as F

from trainer.benchmark.protocol import Figures, Protocol, Published, Samples, reverse_kl
from trainer.core.randomness import philox
from trainer.sampling.sampler import image_grid, to_images

SIZE = 16
LARGEST = 16.0  # value of a pixel in scikit-learn's digits
HELD_OUT = 5  # one of so many digits tests the classifier
COLUMNS = 8


class StackedDigits(Protocol):
    """Three digits, drawn uniformly from the training digits, as red, green and blue."""

    modes = 1_000
    samples = 26_000
    shown = COLUMNS**2
    steps = 100_000
    source = (
        "stacked MNIST at 28 pixels; Lin et al. 2018, table 3: 10 trainings, ± standard error, 50 passes over 128,000 "
        "pictures; ALI, Unrolled and VEEGAN as Srivastava et al. 2017 have them"
    )
    published = {  # noqa: RUF012
        "DCGAN": Published("99.0", "3.40"),
        "ALI": Published("16.0", "5.40"),
        "Unrolled GAN": Published("48.7", "4.32"),
        "VEEGAN": Published("150.0", "2.95"),
        "DCGAN (PacGAN's code)": Published("78.9 ± 6.5", "4.50 ± 0.13"),
        "PacDCGAN2": Published("1000.0 ± 0.0", "0.06 ± 0.003"),
        "PacDCGAN3": Published("1000.0 ± 0.0", "0.06 ± 0.003"),
        "PacDCGAN4": Published("1000.0 ± 0.0", "0.07 ± 0.005"),
    }

    @cached_property
    def digits(self) -> tuple[Float[Tensor, "n 8 8"], Int[Tensor, " n"]]:
        """All digits in [-1, 1] with their labels, in a random order that is always the same."""
        found = load_digits()
        order = philox("digits", "order").permutation(len(found.target))
        pixels = torch.from_numpy(found.images[order] / LARGEST * 2 - 1).float()
        return pixels, torch.from_numpy(found.target[order])

    @cached_property
    def training(self) -> Float[Tensor, "n 16 16"]:
        """The digits that reals are made of, resized to 16 x 16."""
        pixels = self.digits[0]
        # Their order is random, so every fifth one is a random fifth.
        kept = pixels[torch.arange(len(pixels)) % HELD_OUT > 0]
        return F.interpolate(kept[:, None], SIZE, mode="bilinear", align_corners=False)[:, 0]

    @cached_property
    def classifier(self) -> SVC:
        """The classifier of single digits: (n, 64) in [-1, 1] to 0…9."""
        labels = self.digits[1]
        kept = torch.arange(len(labels)) % HELD_OUT > 0
        return SVC(gamma="scale", C=10.0).fit(classifier_input(self.training), labels[kept].numpy())

    def accuracy(self) -> float:
        """Return the classifier's accuracy on the held-out digits, resized as the reals are."""
        pixels, labels = self.digits
        held = torch.arange(len(labels)) % HELD_OUT == 0
        seen = F.interpolate(pixels[held][:, None], SIZE, mode="bilinear", align_corners=False)[:, 0]
        return float((self.classifier.predict(classifier_input(seen)) == labels[held].numpy()).mean())

    def draw(self, rng: np.random.Generator, n: int) -> Float[Tensor, "n 3 16 16"]:
        """Draw pictures in [-1, 1]."""
        # The channels are independent: 10 × 10 × 10 digits make the 1,000 modes.
        return self.training[torch.from_numpy(rng.integers(0, len(self.training), (n, 3)))]

    def count_modes(self, samples: Samples) -> Figures:
        """Count the combinations of three digits; every finite image is one of the 1,000."""
        finite = samples[np.isfinite(samples).all((1, 2, 3))]
        if not len(finite):
            return Figures(0, reverse_kl(np.zeros(self.modes, dtype=np.int64)))
        # Hundreds, tens and ones: each combination is a number below 1,000.
        named = self.classifier.predict(classifier_input(torch.from_numpy(finite).flatten(0, 1))).reshape(-1, 3)
        counts = np.bincount(named @ np.array([100, 10, 1]), minlength=self.modes)
        return Figures(int((counts > 0).sum()), reverse_kl(counts))

    def draw_samples(self, samples: Samples, title: str) -> Image.Image:
        """Draw the images as a grid, at twice their size."""
        shown = image_grid(to_images(torch.from_numpy(samples)), COLUMNS)
        return Image.fromarray(shown).resize((2 * shown.shape[1], 2 * shown.shape[0]), Image.Resampling.NEAREST)

    def note(self) -> str:
        """Return the accuracy of the classifier, in words."""
        return f"The classifier names {100 * self.accuracy():.1f} % of the held-out digits rightly."


def classifier_input(channels: Float[Tensor, "n 16 16"]) -> npt.NDArray[np.float32]:
    """Return single channels as the classifier takes them: (n, 64)."""
    # To 8 x 8 again, as the digits were before they were enlarged.
    return F.avg_pool2d(channels[:, None], 2).flatten(1).numpy()
