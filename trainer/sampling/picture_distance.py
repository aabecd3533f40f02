"""How far pictures are from a target, differentiably: by colours, by edges, and by the features of an extractor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from trainer.core.fields import Refused
from trainer.extractors import Extractor

LEAST_SIDE = 8  # pixels, of the smallest copy that is compared


@dataclass(frozen=True)
class DistanceWeights:
    """What each part counts in the distance."""

    colour: float = 1.0
    """The differences of colours, of the pictures and of copies at half, a quarter … of their size."""
    edges: float = 1.0
    """The differences of the steps from pixel to pixel, of the same copies."""
    features: float = 1.0
    """The distance of the extractor's features."""

    def check(self) -> None:
        """Check them.

        Raises:
            Refused: one is negative or none is positive.
        """
        values = (self.colour, self.edges, self.features)
        if not all(0 <= value < 1e6 for value in values) or not any(values):
            raise Refused("--distance.colour, edges and features must not be negative, and one must be positive")


class PictureDistance:
    """The distance to one picture.

    Args:
        target: (1, c, h, w) in [-1, 1], premultiplied if it is RGBA.
        extractor: of features; None: they are not compared.
        weights: of the parts.
    """

    def __init__(self, target: Float[Tensor, "1 c h w"], extractor: Extractor | None, weights: DistanceWeights) -> None:
        self.weights, self.extractor = weights, extractor if weights.features else None
        if self.extractor:
            size = self.extractor.network.size
            self.resize = [resize_matrix(side, size).to(target) for side in target.shape[2:]]
        self.copies = list(smaller_copies(target))
        self.features = self.extract(target)

    def parts(self, x: Float[Tensor, "n c h w"]) -> dict[str, Float[Tensor, " n"]]:
        """Return each part of the distance of pictures as they are saved, without its weight."""
        x = clipped(x)
        pairs = list(zip(smaller_copies(x), self.copies, strict=True))
        found = {
            "colour": mean_of(size_of(mine - theirs) for mine, theirs in pairs),
            "edges": mean_of(
                size_of(a - b) for mine, theirs in pairs for a, b in zip(steps(mine), steps(theirs), strict=True)
            ),
        }
        if self.features is not None:
            mine = self.extract(x)
            assert mine is not None
            found["features"] = (mine - self.features).square().mean(1) / self.features.square().mean().clamp_min(1e-12)
        return found

    def total(self, parts: dict[str, Float[Tensor, " n"]]) -> Float[Tensor, " n"]:
        """Return the weighted sum of the parts."""
        return torch.stack([getattr(self.weights, name) * value for name, value in parts.items()]).sum(0)

    def extract(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"] | None:
        """Return the features of pictures; None: they are not compared."""
        if self.extractor is None:
            return None
        rows, columns = self.resize
        # By matrices, because the gradient of interpolation is not deterministic on a GPU.
        features: Tensor
        features, _ = self.extractor.network((rows @ rgb(x) @ columns.T + 1) * 127.5)
        return features.flatten(1)


def clipped(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Clip to [-1, 1] as files do; gradients pass as if nothing was clipped, so what is far outside can come back."""
    return x + (x.clamp(-1, 1) - x).detach()


def rgb(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 h w"]:
    """Return pictures in [-1, 1] as RGB: grey three times, premultiplied RGBA over white."""
    if x.shape[1] == 4:
        return x[:, :3] + (1 - x[:, 3:])  # in [0, 1] it is c + (1 - alpha); in [-1, 1] the halves cancel
    return x.expand(-1, 3, -1, -1)


def smaller_copies(x: Float[Tensor, "n c h w"]) -> Iterator[Float[Tensor, "n c h2 w2"]]:
    """Yield pictures, and their copies at half the size, as long as these have LEAST_SIDE pixels."""
    yield x
    while min(x.shape[2:]) >= 2 * LEAST_SIDE:
        x = F.avg_pool2d(x, 2)
        yield x


def steps(x: Float[Tensor, "n c h w"]) -> tuple[Tensor, Tensor]:
    """Return the differences of neighbouring pixels, downward and to the right."""
    return x[:, :, 1:] - x[:, :, :-1], x[:, :, :, 1:] - x[:, :, :, :-1]


def size_of(difference: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Return the mean of |d| + d²: the first keeps edges sharp, the second hurries where much is wrong."""
    return (difference.abs() + difference.square()).mean((1, 2, 3))


def mean_of(values: Iterator[Tensor]) -> Tensor:
    """Return the mean of tensors of one shape."""
    return torch.stack(list(values)).mean(0)


def resize_matrix(before: int, after: int) -> Float[Tensor, "after before"]:
    """Return the matrix that resizes one axis, bilinearly and with antialiasing."""
    unit = torch.eye(before)[None, None]
    return F.interpolate(unit, (after, before), mode="bilinear", align_corners=False, antialias=True)[0, 0]
