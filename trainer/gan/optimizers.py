"""The optimizers and the moving average of the generator's weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from trainer.config.groups import OptimizerSettings
from trainer.core.recording import number
from trainer.core.schedules import half_cosine, warm_up


def adam(network: nn.Module, lr: float, settings: OptimizerSettings) -> torch.optim.Adam:
    """Return a fused Adam whose state exists from the start, so that a checkpoint always has the same tensors."""
    betas = (settings.beta1, settings.beta2)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, betas=betas, eps=settings.eps, fused=True)
    # torch creates these at the first step; a checkpoint from before it would lack them.
    for parameter in network.parameters():
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, lr: float, images_seen: int, s: OptimizerSettings) -> None:
    """Set what the update that begins at `images_seen` steps with."""

    # A function of the images seen, not a scheduler with a state: a resumed run computes the same rates.
    def rate_at(seen: int) -> float:
        rate = lr * warm_up(seen, s.warmup_images) * half_cosine(1.0, s.lr_final, seen, s.decay_images)
        return float(np.float32(rate)) if on_gpu else rate

    on_gpu = optimizer.param_groups[0]["params"][0].is_cuda
    # There Adam takes a tensor in float32 only, so a plain number is rounded to that, too.
    rate = number(rate_at, images_seen, torch.float32 if on_gpu else torch.float64)
    beta2 = half_cosine(s.beta2, s.beta2_final, images_seen, s.decay_images)
    for group in optimizer.param_groups:
        group.update(lr=rate, betas=(s.beta1, beta2), capturable=isinstance(rate, Tensor))


@torch.no_grad()
def update_average(
    average: Sequence[Tensor], weights: Sequence[Tensor], step: int, seen: int, s: OptimizerSettings
) -> None:
    """Move the average towards the weights after a step of `step` pictures, `seen` pictures in all."""
    half_life = half_cosine(s.ema_half_life_images, s.ema_half_life_final, seen, s.decay_images)
    # Early on the weights change fast, and a long average would keep showing noise.
    half_life = min(half_life, s.ema_ramp * seen) if s.ema_ramp else half_life
    # 0.5 to the power of pictures per half-life is what stays of the old average; a half-life of 0 leaves nothing.
    torch._foreach_lerp_(list(average), list(weights), 1 - 0.5 ** (step / max(half_life, 1e-8)))
