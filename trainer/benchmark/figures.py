"""What a benchmark measures of a sample: how many modes it holds, and how evenly.

Lin et al. 2018 (PacGAN), arXiv:1712.04086, §4.1, after Srivastava et al. 2017 (VEEGAN), arXiv:1705.07761, §4.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Figures:
    """What was counted in one sample."""

    modes: int
    """Modes with at least one counted point."""
    reverse_kl: float
    """KL(histogram of the counted points || uniform), in nats: log K minus the entropy; log K, its largest value, if
    no point counts."""
    high_quality: float | None = None
    """Share of the points that count, in [0, 1]; None: the protocol counts all."""


def reverse_kl(counts: Indices) -> float:
    """Return KL(p || uniform) in nats of the histogram p over K modes; log K for an empty one."""
    p = counts[counts > 0] / max(1, counts.sum())
    return float(np.log(len(counts)) + (p * np.log(p)).sum())
