"""Measure figures with names, confidence intervals and floors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trainer.evaluation.extraction import ExtractedSamples
from trainer.metrics.base import Estimate, Metric, Sample

MAX_IMAGES = 4096  # per side, for metrics of the images themselves, which need them in memory
MIN_FLOOR_IMAGES = 16  # real images in place of the fakes; a floor of fewer says nothing
FIELDS = ("features", "probabilities", "images", "labels")  # of Sample


@dataclass(frozen=True)
class Figure:
    """One number of an evaluation."""

    name: str
    """Such as "precision"."""
    column: str
    """Such as "precision_5k/<extractor>": figures in different columns must not be compared."""
    better: str
    """"lower", "higher", or "data": the closer to the floor, the better."""
    estimate: Estimate
    floor: Estimate | None
    """The same figure of real images in place of the fakes; None: there are too few."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"better": self.better, **asdict(self.estimate), "floor": self.floor and asdict(self.floor)}


@dataclass(frozen=True)
class Comparison:
    """Fakes, reals and held-out images. A metric decides how many reals the fakes are compared with."""

    fake: ExtractedSamples
    real: ExtractedSamples
    held_out: ExtractedSamples | None

    def figures(self, metric: Metric, extractor: str) -> list[Figure]:
        """Compute the figures of a metric, and their floors.

        Args:
            metric: one that the extractor serves.
            extractor: its label, for the names of columns.

        Raises:
            ValueError: the metric cannot be computed of these pictures; the message says why.
        """
        fake, real = as_sample(self.fake, metric), as_sample(self.real, metric)
        held_out = as_sample(self.held_out, metric) if self.held_out and "held out" in metric.needs else None
        found = metric(real if metric.against == "all" else slice_sample(real, 0, fake.count), fake, held_out)
        floors = measure_floor(metric, real, fake.count, held_out)
        # Metrics of the images themselves do not depend on the extractor.
        label = extractor if {"features", "probabilities"} & {*metric.needs} else "pictures"
        return [
            Figure(name, column_name(name, estimate, label), metric.better_of(name), estimate, floors.get(name))
            for name, estimate in found.items()
        ]


def measure_floor(metric: Metric, real: Sample, count: int, held_out: Sample | None) -> Mapping[str, Estimate]:
    """Compute the figures of real images in place of the fakes: as many, or half of the reals if there are fewer.

    They are compared with real images that come before them, as many or all: no image is on both sides.
    """
    size = min(count, real.count if metric.against == "none" else real.count // 2)
    if size < MIN_FLOOR_IMAGES:
        return {}
    reals = {"none": 0, "as many": size, "all": real.count - size}[metric.against]
    try:
        return metric(slice_sample(real, 0, reals), slice_sample(real, reals, reals + size), held_out)
    except ValueError:  # enough reals to compare with the fakes, too few to be cut in two
        return {}


def as_sample(seen: ExtractedSamples, metric: Metric) -> Sample:
    """Return what a metric needs, of all images for which all of it is known."""
    known = {name: getattr(seen, name) for name in FIELDS if name in metric.needs}
    whole = Sample(**known)
    return slice_sample(whole, 0, min((len(array) for array in known.values() if array is not None), default=0))


def slice_sample(whole: Sample, start: int, stop: int) -> Sample:
    """Return the images start to stop - 1."""
    return Sample(*(None if array is None else array[start:stop] for array in (getattr(whole, f) for f in FIELDS)))


def column_name(name: str, estimate: Estimate, label: str) -> str:
    """Return the column of a figure: only comparable figures share one."""
    # The numbers of images are part of the name, because FID and others are biased by them.
    same = estimate.reals in (None, estimate.count)
    return f"{name}_{short_count(estimate.count)}/{label}" + (
        "" if same else f"/of-{short_count(estimate.reals or 0)}-reals"
    )


def short_count(count: int) -> str:
    """Return 50000 as "50k", and 1234 as it is."""
    return f"{count // 1000}k" if count and count % 1000 == 0 else str(count)
