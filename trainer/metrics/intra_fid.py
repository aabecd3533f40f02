"""Fréchet distance within each class, averaged over classes (Miyato and Koyama 2018, arXiv:1802.05637, §4)."""

from __future__ import annotations

import numpy as np

from trainer.metrics.arrays import check_pair
from trainer.metrics.base import Estimate, Metric, Sample
from trainer.metrics.frechet import frechet_estimate
from trainer.metrics.intervals import Variance

MIN_CLASS_IMAGES = 50  # per side


def intra_fid(real: Sample, fake: Sample, held_out: Sample | None) -> dict[str, Estimate]:
    """Measure each class with at least 50 images on both sides; `method` names the others.

    Images with the label -1 have no class, and are ignored.
    """
    reals, fakes = check_pair(real.features, fake.features)
    if real.labels is None or fake.labels is None:
        raise ValueError("labels are missing")
    found: list[tuple[float, Variance]] = []
    left_out = []
    labels = np.unique(np.concatenate([real.labels, fake.labels]))
    for label in labels[labels >= 0]:
        sides = reals[real.labels == label], fakes[fake.labels == label]
        if min(map(len, sides)) < MIN_CLASS_IMAGES:
            left_out.append(str(label))
        else:
            found.append(frechet_estimate(*sides))
    if not found:
        raise ValueError(f"no class has {MIN_CLASS_IMAGES} pictures on each side")
    values, variances = zip(*found, strict=True)
    # Classes are independent, so the variances of their distances add up.
    total = sum(variances[1:], variances[0]) * (1 / len(found) ** 2)
    method = f"delete-block jackknife in each of {len(found)} classes"
    if left_out:
        method += f"; fewer than {MIN_CLASS_IMAGES} pictures and left out: classes {', '.join(left_out)}"
    return {"intra_fid": total.around(float(np.mean(values)), len(fakes), method).within(0)}


INTRA_FID = Metric(
    "intra_fid",
    frozenset({"features", "labels"}),
    {"intra_fid": "lower"},
    "mean over classes of the Fréchet distance within a class (Miyato and Koyama 2018, arXiv:1802.05637)",
    intra_fid,
)
