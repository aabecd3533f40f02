"""Has the generator memorized training images?

`authpct`: Alaa et al. 2022, arXiv:2102.08921, §3.3: a fake is authentic if it lies farther from its nearest training
picture than that one from its own nearest other training picture; the percentage of authentic fakes.

`memorisation`: Meehan et al. 2020, arXiv:2004.05675, with one cell: are fakes nearer to the training set than held-out
images? A one-sided Mann-Whitney test of the distances to the nearest training image.

In both, the fakes and the held-out images are random, and the training set is fixed. All of it is searched: a copy of
an image that is not searched would count as original.
"""

from __future__ import annotations

import numpy as np
import scipy  # scipy loads its parts on first use, so importing this module stays fast

from trainer.metrics.arrays import check_pair, check_rows
from trainer.metrics.base import Estimate, Features, Float64Array, Metric, Sample
from trainer.metrics.intervals import Variance
from trainer.metrics.neighbours import nearest, nearest_rows

FOR_TRAINING_SET = "the expectation for this training set"
ENDS = (-np.inf, np.inf)  # one distance below and one above all others


def authentic_fakes(real: Features, fake: Features) -> Float64Array:
    """Return 1 for each fake that is authentic and 0 for each that is not: (m,).

    Args:
        real: (n, d) of training pictures, n ≥ 2.
        fake: (m, d).

    Raises:
        ValueError: they cannot be compared.
    """
    real, fake = check_pair(real, fake)
    # Squared distances: only their order matters.
    squares, places = nearest_rows(fake, real, 1, itself=False)
    own, _ = nearest_rows(real, real, 1, itself=True)
    return np.asarray(squares[:, 0] > own[places[:, 0], 0], np.float64)


def authpct(real: Sample, fake: Sample, held_out: Sample | None) -> dict[str, Estimate]:
    """Measure the percentage of authentic fakes."""
    features = check_pair(real.features, fake.features)
    found = authentic_fakes(*features)
    share, count = float(found.mean()), len(found)
    variance = Variance.of_mean(found).of_share(share, count) * 100**2
    method = "Student's interval of the mean over fakes, given the training set"
    return {"authpct": variance.around(100 * share, count, method, FOR_TRAINING_SET).within(0, 100)}


def probability_nearer(fake: Float64Array, held_out: Float64Array) -> tuple[float, Variance]:
    """Return the probability that a fake is nearer than a held-out image, ties counted half, and its variance.

    DeLong's variance is 0 if no fake is nearer, or all are. So it is at least that with two more images per side, one
    nearer and one farther than all others, as in Variance.of_share.

    Args:
        fake, held_out: (n,) and (m,) distances to the nearest training picture, at least 2 each.
    """
    share, variance = delong(fake, held_out)
    moved, wider = delong(*(np.concatenate([side, ENDS]) for side in (fake, held_out)))
    least = Variance(wider.value + (moved - share) ** 2, wider.freedom)
    return share, max(variance, least, key=lambda found: found.value)


def delong(fake: Float64Array, held_out: Float64Array) -> tuple[float, Variance]:
    """Return both by DeLong et al. 1988: from the share of the other side that each image is nearer or farther than."""
    ranks = scipy.stats.rankdata(np.concatenate([fake, held_out]))
    n, m = len(fake), len(held_out)
    # A rank among all, less that on its own side, counts the other side below; ties count half.
    of_fake = 1 - (ranks[:n] - scipy.stats.rankdata(fake)) / m
    of_held_out = (ranks[n:] - scipy.stats.rankdata(held_out)) / n
    return float(of_fake.mean()), Variance.of_mean(of_fake) + Variance.of_mean(of_held_out)


def memorisation(real: Sample, fake: Sample, held_out: Sample | None) -> dict[str, Estimate]:
    """Measure whether fakes are nearer to the training set than pictures that the generator never saw."""
    reals, fakes = check_pair(real.features, fake.features)
    if held_out is None:
        raise ValueError("there are no pictures that the generator never saw")
    _, unseen = check_pair(reals, check_rows(held_out.features, "the features of pictures never seen"))
    distances = [nearest(rows, reals, 1)[0][:, 0] for rows in (fakes, unseen)]
    count = len(fakes)
    share, variance = probability_nearer(*distances)
    p = float(scipy.stats.mannwhitneyu(*distances, alternative="less").pvalue)
    return {
        "nearer": variance.around(share, count, "DeLong et al. 1988, given the training set", FOR_TRAINING_SET).within(
            0, 1
        ),
        "memorisation_p": Estimate(p, p, p, count, "a p-value has no interval", "one-sided Mann-Whitney test"),
    }


AUTHPCT = Metric(
    "authpct",
    frozenset({"features"}),
    {"authpct": "data"},
    "percentage of fakes that are no near copy of a training picture (Alaa et al. 2022, arXiv:2102.08921)",
    authpct,
    "all",
)

MEMORISATION = Metric(
    "memorisation",
    frozenset({"features", "held out"}),
    {"nearer": "data", "memorisation_p": "higher"},
    "are fakes nearer to the training set than unseen pictures? (Meehan et al. 2020, arXiv:2004.05675)",
    memorisation,
    "all",
)
