"""Metrics of real and generated images: mathematics on arrays alone, importable by others. One file per metric."""

from __future__ import annotations

from command_line.plugins import Registry
from trainer.core.registry import is_a
from trainer.metrics.base import Metric
from trainer.metrics.frechet import FID, frechet_distance
from trainer.metrics.frechet_infinity import FID_INFINITY
from trainer.metrics.inception_score import INCEPTION_SCORE
from trainer.metrics.intra_fid import INTRA_FID
from trainer.metrics.kernel import KID, kernel_distance
from trainer.metrics.memorisation import AUTHPCT, MEMORISATION
from trainer.metrics.ms_ssim import INTRA_MS_SSIM, MS_SSIM
from trainer.metrics.neighbours import nearest
from trainer.metrics.prdc import PRDC, prdc
from trainer.metrics.sliced_wasserstein import SWD
from trainer.metrics.vendi import VENDI

OUR_METRICS: dict[str, Metric] = {
    "fid": FID,
    "fid_infinity": FID_INFINITY,
    "kid": KID,
    "prdc": PRDC,
    "swd": SWD,
    "ms_ssim": MS_SSIM,
    "intra_ms_ssim": INTRA_MS_SSIM,
    "is": INCEPTION_SCORE,
    "vendi": VENDI,
    "intra_fid": INTRA_FID,
    "authpct": AUTHPCT,
    "memorisation": MEMORISATION,
}
METRICS = Registry("metrics", OUR_METRICS, "an instance of trainer.metrics.Metric", is_a(Metric))

__all__ = ["METRICS", "Metric", "frechet_distance", "kernel_distance", "nearest", "prdc"]
