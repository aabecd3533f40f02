"""Where pictures lie: on a plane of seeds, between two of them, moved along directions of the code.

The plane is a lattice with the picture of a seed at each whole number: 1,000 seeds in a row, 1,000 rows, and beyond
its edges it begins anew. Between them, pictures are interpolated from the four around, so one can walk anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import Tensor

from trainer.sampling.directions import mix, parse_layers
from trainer.sampling.sampler import LatentCode, Sampler
from trainer.serving.limits import SEEDS

ROW = 1000  # seeds
ALL = "all"  # layers


@dataclass(frozen=True)
class Style:
    """What pictures of one answer have in common."""

    label: str | None = None
    """The class, by its name or index."""
    labels: tuple[str, ...] = ()
    """Each COLUMN=VALUE."""
    truncation: float | None = None


@dataclass(frozen=True)
class Point:
    """Where one picture lies."""

    seed: int
    dx: float = 0.0
    """Columns to the right of the seed on the plane."""
    dy: float = 0.0
    """Rows below it."""
    mix: int | None = None
    """A second seed."""
    share: float = 0.0
    """How far towards the second seed, in [0, 1]."""
    layers: str = ALL
    """What the second seed changes: all, coarse, middle, fine, or numbers of layers."""
    moves: tuple[tuple[int, float], ...] = ()
    """Directions by number, and how far along each, in standard deviations of the code."""

    def corners(self) -> tuple[list[int], float, float]:
        """Return the four seeds around the point, row by row, and where it lies between them, in [0, 1)."""
        x, y = self.seed % ROW + self.dx, self.seed // ROW + self.dy
        column, row = int(x // 1), int(y // 1)
        seeds = [(column + i) % ROW + (row + j) % (SEEDS // ROW) * ROW for j in (0, 1) for i in (0, 1)]
        return seeds, x - column, y - row

    def seeds(self) -> set[int]:
        """Return the seeds that the picture is made of."""
        (here, right, below, across), x, y = self.corners()
        around = {here} | ({right} if x else set()) | ({below} if y else set()) | ({across} if x and y else set())
        return around if self.mix is None else around | {self.mix}


def locate(sampler: Sampler, point: Point, code: Callable[[int], LatentCode]) -> LatentCode:
    """Return the latent code of a point, before it is moved along directions.

    Args:
        sampler: of the generator.
        point: where the picture lies.
        code: returns that of a seed.
    """
    (here, right, below, across), x, y = point.corners()
    found = sampler.interpolated(code(here), code(right), x) if x else code(here)
    if y:
        under = sampler.interpolated(code(below), code(across), x) if x else code(below)
        found = sampler.interpolated(found, under, y)
    if point.mix is None:
        return found
    mixed = sampler.interpolated(found, code(point.mix), point.share)
    if point.layers == ALL:
        return mixed
    own, latent = found
    layers = parse_layers(point.layers, count_layers(sampler, own))
    return mix(sampler.generator, own, mixed[0], layers), latent


def count_layers(sampler: Sampler, code: Tensor) -> int:
    """Return how many layers take a part of a code, (1, ...), of their own."""
    return int(sampler.generator.by_layer(code).shape[1])


def wall(first: Point, columns: int, rows: int, spacing: float) -> list[Point]:
    """Return the points of a wall row by row, from its upper left one; `spacing` is their distance on the plane."""
    return [
        replace(first, dx=first.dx + i * spacing, dy=first.dy + j * spacing)
        for j in range(rows)
        for i in range(columns)
    ]


def film(seeds: list[int], steps: int, loop: bool, moves: tuple[tuple[int, float], ...]) -> list[Point]:
    """Return the points on the way through seeds, `steps` from each to the next, as `interpolate` passes them."""
    legs = pairwise([*seeds, seeds[0]] if loop else seeds)
    way = [Point(a, mix=b, share=k / steps, moves=moves) for a, b in legs for k in range(steps)]
    return way if loop else [*way, Point(seeds[-1], moves=moves)]
