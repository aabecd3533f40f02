"""Figures as other programs compute them, to compare with their published numbers.

Each value of CONVENTIONS was read from their code; docs/metrics.md says why our own definitions differ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from trainer.core.randomness import philox
from trainer.metrics import METRICS, Metric, kernel_distance
from trainer.metrics.arrays import check_pair
from trainer.metrics.base import Against, Estimate, Measure, Sample
from trainer.metrics.frechet import Gaussian
from trainer.metrics.inception_score import inception_score
from trainer.metrics.intervals import block_slices
from trainer.metrics.prdc import measure_prdc


@dataclass(frozen=True)
class Convention:
    """How a program turns pictures into its figures. All look at pictures of whole bytes, and compare all reals.

    Args:
        extractor: the network.
        resize: the filter before it.
        ddof: 1: unbiased covariances in FID; 0: sums divided by the number of pictures.
        kid_subsets, kid_subset_size: KID is the mean over so many random subsets of each side; 0: it has no KID.
        prdc_k: the neighbour that balls reach to, which stylegan3 and torch-fidelity look for among features of VGG16
            unless told otherwise; None: it has no precision and recall.
        prdc_closed: balls hold what lies exactly on them: ≤ in place of <.
        is_splits: Inception Score is the mean over so many parts of the fakes; 0: it has none.
    """

    extractor: str
    resize: str
    ddof: Literal[0, 1]
    kid_subsets: int
    kid_subset_size: int
    prdc_k: int | None
    prdc_closed: bool
    is_splits: int = 0


CONVENTIONS: dict[str, Convention] = {
    "pytorch-fid": Convention("inception-2015", "torch-bilinear", 1, 0, 0, None, False),
    "clean-fid": Convention("inception-2015", "clean", 1, 100, 1000, None, False),
    "stylegan3": Convention("inception-2015", "tf-bilinear", 0, 100, 1000, 3, True, 10),
    "torch-fidelity": Convention("inception-2015", "tf-bilinear", 1, 100, 1000, 3, True, 10),
}


def metric_by_convention(metric: Metric, convention: Convention) -> Metric | None:
    """Return a metric as a convention defines it; None: it has none of this name."""
    measures: dict[str, Measure] = {"fid": partial(fid_by_convention, convention=convention)}
    if convention.kid_subsets:
        measures["kid"] = partial(kid_by_convention, convention=convention)
    if convention.prdc_k is not None:
        measures["prdc"] = partial(precision_recall_by_convention, k=convention.prdc_k, closed=convention.prdc_closed)
    if convention.is_splits:
        measures["is"] = partial(inception_score_by_splits, splits=convention.is_splits)
    if metric.name not in measures:
        return None
    against: Against = (
        "none" if metric.against == "none" else "all"
    )  # reals: all of these programs compare with all of them
    return replace(metric, measure=measures[metric.name], against=against)


def fid_by_convention(
    real: Sample, fake: Sample, held_out: Sample | None, convention: Convention
) -> dict[str, Estimate]:
    """Measure the Fréchet distance, with covariances divided by n - ddof."""
    features = check_pair(real.features, fake.features)
    a, b = (with_ddof(Gaussian.of(rows), convention.ddof, len(rows)) for rows in features)
    return {"fid": shift_interval(METRICS["fid"](real, fake)["fid"], a.distance(b))}


def with_ddof(gaussian: Gaussian, ddof: int, count: int) -> Gaussian:
    """Return the Gaussian with its covariance divided by n - ddof instead of n - 1."""
    # The factor is a root of the covariance.
    return replace(gaussian, factor=gaussian.factor * ((count - 1) / (count - ddof)) ** 0.5)


def kid_by_convention(
    real: Sample, fake: Sample, held_out: Sample | None, convention: Convention
) -> dict[str, Estimate]:
    """Measure the kernel distance as the mean over random subsets of both sides, drawn by a key."""
    features = check_pair(real.features, fake.features)
    size = min(convention.kid_subset_size, *map(len, features))
    values = []
    for number in range(convention.kid_subsets):
        rng = philox("kid subset", number)  # keyed, where other programs draw anew: the same figure each time
        values.append(kernel_distance(*(rows[rng.choice(len(rows), size, replace=False)] for rows in features)))
    return {"kid": shift_interval(METRICS["kid"](real, fake)["kid"], float(np.mean(values)))}


def shift_interval(ours: Estimate, value: float) -> Estimate:
    """Return another value, with our interval shifted to it."""
    by = value - ours.value
    method = f"{ours.method}, of our own definition, moved to this value"
    return replace(ours, value=value, low=ours.low + by, high=ours.high + by, method=method)


def precision_recall_by_convention(
    real: Sample, fake: Sample, held_out: Sample | None, k: int, closed: bool
) -> dict[str, Estimate]:
    """Measure precision and recall with the k-th neighbour, and balls that include their surface if `closed`."""
    found = measure_prdc(real, fake, None, k, closed)
    return {name: found[name] for name in ("precision", "recall")}


def inception_score_by_splits(real: Sample, fake: Sample, held_out: Sample | None, splits: int) -> dict[str, Estimate]:
    """Measure the Inception Score as the mean over parts of the fakes, each of which has a smaller one."""
    ours = METRICS["is"](real, fake)["is"]  # which checks the probabilities
    assert fake.probabilities is not None
    if len(fake.probabilities) < splits:
        raise ValueError(f"{splits} parts need as many fakes, and there are {len(fake.probabilities)}")
    values = [inception_score(fake.probabilities[part]) for part in block_slices(len(fake.probabilities), splits)]
    return {"is": shift_interval(ours, float(np.mean(values))).within(1)}
