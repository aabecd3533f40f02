"""What every metric of two samples takes and gives: arrays in, estimates with intervals out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.floating[Any]]  # (n, d), of any precision: all that is computed of them is float64
Float64Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

Need = Literal["features", "probabilities", "images", "labels", "held out"]
Better = Literal["lower", "higher", "data"]
Against = Literal["as many", "all", "none"]

DEFINITIONS = 2  # what the metrics are; higher than before if one gives another figure for the same pictures


@dataclass(frozen=True)
class Sample:
    """What is known of n pictures, in random order; what a metric does not need is None."""

    features: Features | None = None
    """(n, d)."""
    probabilities: Features | None = None
    """(n, classes), each row a distribution."""
    images: npt.NDArray[np.uint8] | None = None
    """(n, h, w, 3)."""
    labels: Indices | None = None
    """(n,)."""

    @property
    def count(self) -> int:
        """How many pictures; 0: nothing is known of them."""
        known = (self.features, self.probabilities, self.images, self.labels)
        return next((len(array) for array in known if array is not None), 0)


@dataclass(frozen=True)
class Estimate:
    """A number with its interval."""

    value: float
    low: float
    high: float
    count: int
    """Pictures that were measured, fakes or what stands in for them."""
    method: str
    """Where the interval comes from."""
    estimand: str
    """What the interval is meant to hold."""
    level: float = 0.95
    reals: int | None = None
    """Real pictures that they were compared with; None: they were not."""
    held_out: int | None = None
    """Pictures that the generator never saw; None: they are not looked at."""

    def within(self, low: float, high: float = math.inf) -> Estimate:
        """Return the same with an interval that keeps to what is possible."""
        return replace(self, low=max(self.low, low), high=min(self.high, high))


Measure = Callable[[Sample, Sample, Sample | None], dict[str, Estimate]]


@dataclass(frozen=True)
class Metric:
    """An entry of the registry.

    Args:
        name: in the registry.
        needs: what of the samples is looked at.
        better: each figure that it gives, and whether lower or higher is better, or nearer to the data's own.
        summary: what it is and where it is defined, in one line.
        measure: the function of the reals, the fakes and reals that the generator never saw.
        against: how many reals the fakes are compared with: as many as there are fakes, all that there are, or none,
            where the figure is of the fakes alone.
    """

    name: str
    needs: frozenset[Need]
    better: Mapping[str, Better]
    summary: str
    measure: Measure
    against: Against = "as many"

    def __call__(self, real: Sample, fake: Sample, held_out: Sample | None = None) -> dict[str, Estimate]:
        """Measure, and say of how many pictures.

        Raises:
            ValueError: it cannot be computed of these samples; the message says why.
        """
        reals = None if self.against == "none" else real.count
        unseen = held_out.count if held_out and "held out" in self.needs else None
        found = self.measure(real, fake, held_out)
        return {name: replace(estimate, reals=reals, held_out=unseen) for name, estimate in found.items()}

    def better_of(self, figure: str) -> Better:
        """Return which values of one of its figures are better."""
        return self.better[figure]
