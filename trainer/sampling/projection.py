"""Projection: the code whose picture is nearest to a given one.

In w it is StyleGAN2's (Karras et al. 2020, arXiv:1912.04958, appendix D): Adam on one w for all layers and on the maps
of noise, noise on w that fades over three quarters of the steps, a rate that rises and falls, and a penalty on maps
that are not white noise. W+ has a w for each layer (Abdal et al. 2019, arXiv:1904.03189). In z the same is done on the
noise itself, which may not grow longer than drawn ones are. It departs from the paper in that the nearest of some drawn
pictures is the beginning, beside the mean of w, and in the distance (picture_distance.py), as LPIPS needs weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from trainer.core.fields import Refused
from trainer.core.iteration import batched
from trainer.core.randomness import normal, philox
from trainer.networks.base import Latent
from trainer.sampling.picture_distance import PictureDistance
from trainer.sampling.sampler import Images, LatentCode, Sampler, to_images

Space = Literal["auto", "w", "w+", "z"]
RISE, FALL = 0.05, 0.25  # shares of the steps in which the rate rises and falls
FADE = 0.75  # share of the steps in which the noise on the code fades
SMALLEST_MAP = 8  # pixels, of the copies of a noise map that must be white
MOST_STEPS, MOST_STARTS = 100_000, 10_000


@dataclass(frozen=True)
class ProjectionOptions:
    """How a picture is projected."""

    space: Space = "auto"
    """w: one style for all layers, which stays within what the generator draws; w+: one for each layer, nearer to the
    picture and less fit for edits; z: of networks without styles. auto: w, or z where there are no styles."""
    steps: int = 500
    """Steps of the optimiser."""
    rate: float = 0.1
    """Learning rate, in units of the spread of codes."""
    starts: int = 64
    """Drawn pictures, of which the nearest is the beginning."""
    noise: float = 0.05
    """Noise on the code at the beginning, in units of the length of codes: it leads the search out of hollows."""
    map_weight: float = 1e5
    """Weight of the penalty on noise maps that are no white noise. 0: the maps, where there are some, stay as drawn."""

    def check(self) -> None:
        """Check the numbers.

        Raises:
            Refused: naming the one that is out of its range.
        """
        for name, value, low, high in (
            ("steps", self.steps, 1, MOST_STEPS),
            ("starts", self.starts, 1, MOST_STARTS),
            ("rate", self.rate, 1e-6, 100),
            ("noise", self.noise, 0, 10),
            ("map-weight", self.map_weight, 0, 1e9),
        ):
            if not low <= value <= high:
                raise Refused(f"--{name} must be from {low:g} to {high:g}, but is {value:g}")


@dataclass(frozen=True)
class Step:
    """What one step saw, before it moved."""

    number: int
    distance: float
    parts: dict[str, float]
    picture: Images
    """(1, h, w, c): of the code with its noise."""


class Projection:
    """A search for one picture's code; iterate it step by step, then read `found`.

    Args:
        sampler: of the generator.
        distance: to the picture.
        candidates: codes to begin with: the nearest one is taken.
        options: how.

    Raises:
        Refused: the generator has no such space.
    """

    def __init__(
        self, sampler: Sampler, distance: PictureDistance, candidates: list[LatentCode], options: ProjectionOptions
    ) -> None:
        self.sampler, self.distance, self.options = sampler, distance, options
        self.styled = sampler.generator.interpolates_linearly
        self.space = ("w" if self.styled else "z") if options.space == "auto" else options.space
        if (self.space == "z") == self.styled:
            there = "styles: --space w or w+" if self.styled else "no styles: --space z"
            raise Refused(f"--space {self.space} does not fit this generator, which has {there}")
        self.middle, self.deviation = self.spread()
        if self.styled:
            # The middle of w comes first, with the labels and the noise of the first candidate.
            candidates = [(self.middle.expand_as(candidates[0][0]).clone(), candidates[0][1]), *candidates]
        code, latent = self.nearest(candidates)
        self.layers = code.shape[1] if self.styled else 0
        start = code[:, :1] if self.space == "w" else code
        self.code = start.detach().clone().requires_grad_()
        self.latent = sampler.bring(latent)
        moving = {name: value.clone().requires_grad_() for name, value in self.latent.extra.items() if value.dim() == 4}
        self.maps = moving if options.map_weight else {}
        self.best: tuple[float, LatentCode] = (math.inf, self.coded())

    def spread(self) -> tuple[Tensor, float]:
        """Return the middle of codes, and the deviation of their entries."""
        if not self.styled:
            return torch.zeros(self.sampler.settings.z_dim, device=self.sampler.device), 1.0
        codes = self.sampler.many_codes()
        return codes.mean(0), float((codes[:, 0] - codes[:, 0].mean(0)).square().mean().sqrt())

    @torch.no_grad()
    def nearest(self, candidates: list[LatentCode]) -> LatentCode:
        """Return the candidate whose picture is nearest."""
        found = []
        for group in batched(candidates, self.sampler.config.micro_batch_size):
            codes, latents = zip(*self.sampler.padded(group), strict=True)
            x = self.sampler.generator.synthesize(torch.cat(codes), self.sampler.bring(Latent.cat(latents)))
            found += self.distance.total(self.distance.parts(x))[: len(group)].tolist()
        return candidates[int(np.argmin(found))]

    def coded(self) -> LatentCode:
        """Return the code as it is, for all layers, and the latent that goes with it, on the CPU."""
        extra = {**self.latent.extra, **self.maps}
        latent = replace(self.latent, extra=extra).map(lambda tensor: tensor.detach().clone().cpu())
        return self.whole(self.code).detach().clone(), latent

    def whole(self, code: Tensor) -> Float[Tensor, "1 ..."]:
        """Return a code of all layers."""
        return code.expand(-1, self.layers, -1) if self.styled else code

    def __iter__(self) -> Iterator[Step]:
        """Search, and yield what each step saw."""
        options = self.options
        groups = [{"params": [self.code], "scale": self.deviation}]
        groups += [{"params": list(self.maps.values()), "scale": 1.0}] if self.maps else []
        adam = torch.optim.Adam(groups, betas=(0.9, 0.999))
        length = self.deviation * math.sqrt(self.code.shape[-1])
        for number in range(options.steps):
            done = number / options.steps
            for group in adam.param_groups:
                group["lr"] = options.rate * group["scale"] * rate_factor(done)
            noise = options.noise * length * max(0.0, 1 - done / FADE) ** 2
            drawn = normal(philox("projection", number), *self.code.shape).to(self.code)
            latent = replace(self.latent, extra={**self.latent.extra, **self.maps})
            x = self.sampler.generator.synthesize(self.whole(self.code + noise * drawn), latent)
            parts = self.distance.parts(x)
            distance = self.distance.total(parts).sum()
            if not noise and float(distance.detach()) < self.best[0]:
                self.best = float(distance.detach()), self.coded()
            seen = {name: float(value.detach()) for name, value in parts.items()}
            yield Step(number, float(distance.detach()), seen, to_images(x.detach()))
            adam.zero_grad()
            (distance + options.map_weight * sum(map(roughness, self.maps.values()))).backward()
            adam.step()
            self.stay_within()

    @torch.no_grad()
    def stay_within(self) -> None:
        """Keep maps of noise at mean 0 and deviation 1, and z no longer than what is drawn."""
        for value in self.maps.values():
            value.sub_(value.mean()).mul_(value.square().mean().add(1e-12).rsqrt())
        if self.space == "z":
            # The length of d numbers from N(0, 1) is about sqrt(d), with a deviation of sqrt(1/2).
            longest = math.sqrt(self.code.shape[1]) + 3 * math.sqrt(0.5)
            self.code.mul_((longest / self.code.norm().clamp_min(1e-12)).clamp_max(1.0))

    @torch.no_grad()
    def measure(self, one: LatentCode) -> dict[str, float]:
        """Return the distance of a code's picture, and its parts."""
        parts = self.distance.parts(self.sampler.generator.synthesize(one[0], self.sampler.bring(one[1])))
        return {"distance": float(self.distance.total(parts)), **{name: float(v) for name, v in parts.items()}}

    @property
    def found(self) -> LatentCode:
        """The nearest code without noise on it, of the steps that were made."""
        return self.best[1] if math.isfinite(self.best[0]) else self.coded()


def rate_factor(done: float) -> float:
    """Return the share of the learning rate after this share of the steps: it rises linearly, and falls as a cosine."""
    fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - done) / FALL))
    return fall * min(1.0, (done + 1e-3) / RISE)


def roughness(noise: Float[Tensor, "1 1 h w"]) -> Tensor:
    """Return how far a noise map is from white noise (appendix D, eq. 7): neighbours of all scales must not correlate.

    Copies at half the size are means of 2 x 2 places times 2, which of white noise have deviation 1 again.
    """
    total = noise.new_zeros(())
    while True:
        total = total + (noise * noise.roll(1, 3)).mean().square() + (noise * noise.roll(1, 2)).mean().square()
        if min(noise.shape[2:]) < 2 * SMALLEST_MAP:
            return total
        noise = 2 * F.avg_pool2d(noise, 2)
