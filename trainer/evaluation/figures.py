"""From what is known of the pictures to figures with names, intervals and floors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy.typing as npt

from trainer.evaluation.extraction import Seen
from trainer.metrics.base import Estimate, Metric, Sample

PICTURES = 4096  # of each side at most, for metrics that look at the pictures themselves
LEAST_FLOOR = 16  # pictures of each half


@dataclass(frozen=True)
class Figure:
    """One number of an evaluation."""

    name: str
    """Such as "precision"."""
    column: str
    """Such as "precision_5k/<extractor>": what has another name is not comparable."""
    better: str
    """"lower", "higher", or "data": the nearer to the floor."""
    estimate: Estimate
    floor: Estimate | None
    """The same of real pictures in place of the fakes; None: there are too few."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"better": self.better, **asdict(self.estimate), "floor": self.floor and asdict(self.floor)}


@dataclass(frozen=True)
class Sides:
    """What is compared: `count` of the fakes with `compared` of the reals."""

    fake: Seen
    real: Seen
    held_out: Seen | None
    count: int
    compared: int
    reals: int
    """How many reals are known; from 2 x `count` on there is a floor at the same size."""

    def figures(self, metric: Metric, extractor: str) -> list[Figure]:
        """Measure, and measure the floor.

        Args:
            metric: one that the extractor serves.
            extractor: its label, for the columns.

        Raises:
            ValueError: the metric cannot be computed of these pictures; the message says why.
        """
        pictures = "pictures" in metric.needs
        most = min(self.count, PICTURES) if pictures else self.count
        compared = most if pictures else self.compared
        held_out = sample(self.held_out, metric, 0, most) if self.held_out and "held out" in metric.needs else None
        found = metric(sample(self.real, metric, 0, compared), sample(self.fake, metric, 0, most), held_out)
        floors = self.floors(metric, most, held_out)
        label = extractor if {"features", "probabilities"} & {*metric.needs} else "pictures"
        return [
            Figure(name, f"{name}_{short(estimate.count)}/{label}", metric.better_of(name), estimate, floors.get(name))
            for name, estimate in found.items()
        ]

    def floors(self, metric: Metric, most: int, held_out: Sample | None) -> Mapping[str, Estimate]:
        """Measure real pictures against other real ones: as many as were painted, or else half of those there are."""
        size = min(most, self.reals // 2)
        if size < LEAST_FLOOR:
            return {}
        halves = sample(self.real, metric, 0, size), sample(self.real, metric, size, 2 * size)
        try:
            return metric(*halves, held_out)
        except ValueError:  # enough for the fakes, too few for halves
            return {}


def sample(seen: Seen, metric: Metric, start: int, stop: int) -> Sample:
    """Return what a metric needs of the pictures start to stop - 1."""

    def cut(array: npt.NDArray[Any] | None, need: str) -> Any:
        return array[start:stop] if array is not None and need in metric.needs else None

    return Sample(
        cut(seen.features, "features"),
        cut(seen.probabilities, "probabilities"),
        cut(seen.pictures, "pictures"),
        cut(seen.labels, "labels"),
    )


def short(count: int) -> str:
    """Write 50000 as 50k, and 1234 as it is."""
    return f"{count // 1000}k" if count and count % 1000 == 0 else str(count)
