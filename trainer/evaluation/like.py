"""Figures as other programs compute them, to stand beside theirs; docs/metrics.md tells why ours differ."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from trainer.extractors.conventions import Convention
from trainer.metrics import METRICS, Metric, kernel_distance
from trainer.metrics.arrays import checked_pair, spans
from trainer.metrics.base import Doubles, Estimate, Features, Sample
from trainer.metrics.frechet import Gaussian
from trainer.metrics.intervals import Variance
from trainer.metrics.neighbours import Squares, search
from trainer.randomness import philox


def like(metric: Metric, convention: Convention) -> Metric | None:
    """Return a metric as a convention has it; None: it has none of this name."""
    if metric.name == "fid":
        return replace(metric, measure=partial(fid, convention=convention))
    if metric.name == "kid" and convention.kid_subsets:
        return replace(metric, measure=partial(kid, convention=convention))
    if metric.name == "prdc" and convention.prdc_k is not None:
        measure = partial(precision_and_recall, k=convention.prdc_k, closed=convention.prdc_closed)
        return replace(metric, measure=measure)
    return None


def fid(real: Sample, fake: Sample, held_out: Sample | None, convention: Convention) -> dict[str, Estimate]:
    """Measure the Fréchet distance, with covariances divided by n - ddof."""
    features = checked_pair(real.features, fake.features)
    a, b = (scaled(Gaussian.of(rows), convention.ddof, len(rows)) for rows in features)
    return {"fid": moved(METRICS["fid"](real, fake)["fid"], a.distance(b))}


def scaled(gaussian: Gaussian, ddof: int, count: int) -> Gaussian:
    """Divide by n - ddof where it was n - 1."""
    return replace(gaussian, factor=gaussian.factor * ((count - 1) / (count - ddof)) ** 0.5)


def kid(real: Sample, fake: Sample, held_out: Sample | None, convention: Convention) -> dict[str, Estimate]:
    """Measure the kernel distance as the mean over random subsets of both sides, drawn by a key."""
    features = checked_pair(real.features, fake.features)
    size = min(convention.kid_subset_size, *map(len, features))
    values = []
    for number in range(convention.kid_subsets):
        rng = philox("kid subset", number)
        values.append(kernel_distance(*(rows[rng.choice(len(rows), size, replace=False)] for rows in features)))
    return {"kid": moved(METRICS["kid"](real, fake)["kid"], float(np.mean(values)))}


def moved(ours: Estimate, value: float) -> Estimate:
    """Return another value with the interval that ours has."""
    by = value - ours.value
    method = f"{ours.method}, of our own definition, moved to this value"
    return replace(ours, value=value, low=ours.low + by, high=ours.high + by, method=method)


def precision_and_recall(
    real: Sample, fake: Sample, held_out: Sample | None, k: int, closed: bool
) -> dict[str, Estimate]:
    """Measure precision and recall with balls that reach to the k-th neighbour and hold their surface if closed."""
    reals, fakes = checked_pair(real.features, fake.features, least=k + 1)
    count, method = min(len(reals), len(fakes)), "Student's interval of the mean over pictures, given the balls"
    found = {"precision": inside(reals, fakes, k, closed), "recall": inside(fakes, reals, k, closed)}
    return {name: Variance.of_mean(held).around(float(held.mean()), count, method) for name, held in found.items()}


def inside(centres: Features, queries: Features, k: int, closed: bool) -> Doubles:
    """Return 1 for each query in the ball of any centre, and 0 for the others: (n,)."""
    radii, _ = search(centres, centres, k, itself=True)
    pairs, found = Squares(centres, queries), np.zeros(len(queries))
    slack = pairs.error if closed else -pairs.error  # what lies on the surface does not depend on rounding
    for of_centres in spans(len(centres)):
        for of_queries, squares in pairs(of_centres):
            found[of_queries] += (squares <= radii[of_centres, k - 1, None] + slack).any(0)
    return (found > 0).astype(np.float64)
