"""Mixtures of Gaussians in the plane: the ring and the grid of Lin et al. 2018 (PacGAN), §4.1, as their code has them.

A point is of high quality if it lies within three standard deviations of the nearest centre: d / std < 3, in the plane.
Of the data itself, 1 - exp(-9/2) = 98.9 % are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from trainer.benchmark.protocol import Figures, Protocol, Published, Samples, reverse_kl

Points = npt.NDArray[np.float64]  # (n, 2)
MAX_DEVIATIONS = 3.0  # of a point of high quality from the nearest centre, in standard deviations
INCHES, DOTS = 3.2, 100
MARGIN = 0.4  # of the data's extent, that a picture shows around it


def ring_centres(count: int = 8, radius: float = 1.0) -> Points:
    """Return evenly spaced centres on a circle: (count, 2)."""
    angles = 2 * np.pi * np.arange(count) / count
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def grid_centres(side: int = 5, spacing: float = 2.0) -> Points:
    """Return centres on a square grid around the origin: (side², 2)."""
    steps = spacing * (np.arange(side) - (side - 1) / 2)
    return np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)


class Mixture(Protocol):
    """A mixture of Gaussians with equal weights.

    Args:
        centres: (K, 2), their means.
        std: their standard deviation in each coordinate.
        published: values of the literature.
    """

    samples = shown = 2_500
    steps = 400_000
    source = "Lin et al. 2018, table 1: 10 trainings, ± standard error, after 400,000 steps with batches of 100"

    def __init__(self, centres: Points, std: float, published: dict[str, Published]) -> None:
        self.centres, self.std, self.published = centres, std, published
        self.modes = len(centres)

    def draw(self, rng: np.random.Generator, n: int) -> Float[Tensor, "n 2"]:
        """Draw points."""
        centres = self.centres[rng.integers(0, self.modes, n)]
        return torch.from_numpy((centres + self.std * rng.standard_normal((n, 2))).astype(np.float32))

    def count_modes(self, samples: Samples) -> Figures:
        """Count the modes that have a point of high quality."""
        # In float64: float32 squares would move points at the limit of high quality.
        squares = np.square(samples[:, None].astype(np.float64) - self.centres).sum(2)  # (n, K)
        counted = np.sqrt(squares.min(1)) / self.std < MAX_DEVIATIONS  # False for NaN
        counts = np.bincount(squares[counted].argmin(1), minlength=self.modes)
        return Figures(int((counts > 0).sum()), reverse_kl(counts), float(counted.mean()))

    def draw_samples(self, samples: Samples, title: str) -> Image.Image:
        """Draw the points, and circles around the modes."""
        figure = Figure(figsize=(INCHES, INCHES), dpi=DOTS, layout="constrained")
        axes = figure.add_subplot()
        axes.scatter(
            self.centres[:, 0], self.centres[:, 1], s=60, facecolors="none", edgecolors="tab:orange", linewidths=0.8
        )
        axes.scatter(samples[:, 0], samples[:, 1], s=2, c="tab:blue", alpha=0.4, linewidths=0)
        extent = float(np.abs(self.centres).max()) * (1 + MARGIN)
        axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", title=title)
        canvas = FigureCanvasAgg(figure)  # without pyplot, which keeps every figure in memory
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


# Radius, spacing and deviations, here and below, are those of Lin et al. 2018.
RING = Mixture(
    ring_centres(),
    0.01,
    {
        "GAN": Published("6.3 ± 0.5", "0.45 ± 0.09", "98.2 ± 0.2"),
        "ALI": Published("6.6 ± 0.3", "0.36 ± 0.04", "97.6 ± 0.4"),
        "PacGAN2": Published("7.9 ± 0.1", "0.07 ± 0.03", "95.6 ± 2.0"),
        "PacGAN3": Published("7.8 ± 0.1", "0.10 ± 0.02", "97.7 ± 0.3"),
        "PacGAN4": Published("7.8 ± 0.1", "0.07 ± 0.02", "95.9 ± 1.4"),
    },
)
GRID = Mixture(
    grid_centres(),
    0.05,
    {
        "GAN": Published("17.3 ± 0.8", "0.70 ± 0.07", "94.8 ± 0.7"),
        "ALI": Published("24.1 ± 0.4", "0.14 ± 0.03", "95.7 ± 0.6"),
        "PacGAN2": Published("23.8 ± 0.7", "0.13 ± 0.04", "91.3 ± 0.8"),
        "PacGAN3": Published("24.6 ± 0.4", "0.06 ± 0.02", "94.2 ± 0.4"),
        "PacGAN4": Published("24.8 ± 0.2", "0.04 ± 0.01", "93.6 ± 0.6"),
    },
)
