"""The optimizers and the moving average of the generator's weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from trainer.config.groups import OptimizerSettings
from trainer.core.recording import number
from trainer.core.schedules import half_cosine, warm_up


class Adam(torch.optim.Optimizer):
    """torch.optim.Adam, fused: torch's function of that name, so its bits (Kingma & Ba 2015, algorithm 1).

    torch.optim's own class loads the compiler as soon as one is made: half of the processor time of a start, which a
    preempted job pays on every rank. So this is an Optimizer to those who take one, which are set_rates and GradScaler,
    but is not made as one. Its state exists from the start: a checkpoint always has the same tensors.
    """

    _step_supports_amp_scaling = True  # read by GradScaler, which then says below what it found, and does not wait
    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    def __init__(self, network: nn.Module, lr: float, settings: OptimizerSettings) -> None:
        parameters, betas = list(network.parameters()), (settings.beta1, settings.beta2)
        self.param_groups = [{"params": parameters, "lr": lr, "betas": betas, "eps": settings.eps}]
        self.state = defaultdict(dict)
        for parameter in parameters:
            self.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # it takes no function that computes the loss again
        """Move each weight that has a gradient."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            states = [self.state[parameter] for parameter in parameters]
            adam(
                parameters,
                [parameter.grad for parameter in parameters],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],  # AMSGrad's
                [state["step"] for state in states],
                fused=True,
                grad_scale=self.grad_scale,
                found_inf=self.found_inf,
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=0.0,
                eps=group["eps"],
                maximize=False,
            )


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
        group.update(lr=rate, betas=(s.beta1, beta2))


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
