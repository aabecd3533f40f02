"""Figures as other programs compute them, to stand beside theirs; docs/metrics.md tells why ours differ."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from trainer.core.randomness import philox
from trainer.extractors.conventions import Convention
from trainer.metrics import METRICS, Metric, kernel_distance
from trainer.metrics.arrays import checked_pair
from trainer.metrics.base import Against, Estimate, Measure, Sample
from trainer.metrics.frechet import Gaussian
from trainer.metrics.inception_score import inception_score
from trainer.metrics.intervals import blocks
from trainer.metrics.prdc import measure


def like(metric: Metric, convention: Convention) -> Metric | None:
    """Return a metric as a convention has it; None: it has none of this name."""
    measures: dict[str, Measure] = {"fid": partial(fid, convention=convention)}
    if convention.kid_subsets:
        measures["kid"] = partial(kid, convention=convention)
    if convention.prdc_k is not None:
        measures["prdc"] = partial(precision_and_recall, k=convention.prdc_k, closed=convention.prdc_closed)
    if convention.is_splits:
        measures["is"] = partial(split_score, splits=convention.is_splits)
    if metric.name not in measures:
        return None
    against: Against = "none" if metric.against == "none" else "all"  # reals, as all of these programs do
    return replace(metric, measure=measures[metric.name], against=against)


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
    found = measure(real, fake, None, k, closed)
    return {name: found[name] for name in ("precision", "recall")}


def split_score(real: Sample, fake: Sample, held_out: Sample | None, splits: int) -> dict[str, Estimate]:
    """Measure the Inception Score as the mean over parts of the fakes, each of which has a smaller one."""
    ours = METRICS["is"](real, fake)["is"]  # which checks the probabilities
    assert fake.probabilities is not None
    if len(fake.probabilities) < splits:
        raise ValueError(f"{splits} parts need as many fakes, and there are {len(fake.probabilities)}")
    values = [inception_score(fake.probabilities[part]) for part in blocks(len(fake.probabilities), splits)]
    return {"is": moved(ours, float(np.mean(values))).within(1)}
