"""The interface of all metrics: samples in, estimates with confidence intervals out."""

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

DEFINITIONS = 2  # version of the metrics: increased when one gives another figure for the same images


@dataclass(frozen=True)
class Sample:
    """What is known of n images, in random order; None: the metric does not need it."""

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
        """The number of images; 0: nothing is known of them."""
        known = (self.features, self.probabilities, self.images, self.labels)
        return next((len(array) for array in known if array is not None), 0)


@dataclass(frozen=True)
class Estimate:
    """A figure with its confidence interval."""

    value: float
    low: float
    high: float
    count: int
    """Measured images: fakes, or reals in their place for a floor."""
    method: str
    """How the interval was computed."""
    estimand: str
    """What the interval estimates."""
    level: float = 0.95
    reals: int | None = None
    """Real images that they were compared with; None: the metric compares with none."""
    held_out: int | None = None
    """Held-out images that were used; None: the metric uses none."""

    def within(self, low: float, high: float = math.inf) -> Estimate:
        """Return the estimate with its interval clipped to possible values."""
        return replace(self, low=max(self.low, low), high=min(self.high, high))


Measure = Callable[[Sample, Sample, Sample | None], dict[str, Estimate]]


@dataclass(frozen=True)
class Metric:
    """An entry of the registry.

    Args:
        name: in the registry.
        needs: the fields of the samples that it uses.
        better: its figures, and whether lower or higher is better, or closer to the floor ("data").
        summary: what it is and where it is defined, in one line.
        measure: a function of the reals, the fakes, and held-out reals that the generator was not trained on.
        against: how many reals the fakes are compared with: as many as fakes, all, or none if it measures fakes alone.
    """

    name: str
    needs: frozenset[Need]
    better: Mapping[str, Better]
    summary: str
    measure: Measure
    against: Against = "as many"

    def __call__(self, real: Sample, fake: Sample, held_out: Sample | None = None) -> dict[str, Estimate]:
        """Return the estimates by name, with the numbers of images.

        Raises:
            ValueError: it cannot be computed of these samples; the message says why.
        """
        reals = None if self.against == "none" else real.count
        unseen = held_out.count if held_out and "held out" in self.needs else None
        found = self.measure(real, fake, held_out)
        return {name: replace(estimate, reals=reals, held_out=unseen) for name, estimate in found.items()}

    def better_of(self, figure: str) -> Better:
        """Return which values of a figure are better."""
        return self.better[figure]
