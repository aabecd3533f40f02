"""What the discriminator is shown in place of the pictures: augmentation, APA, and the probability that both follow.

A fading blur comes before all of that (blur.py).

p is a scalar on the device and part of the state; the host never waits for it. It moves as in Karras et al. 2020
(arXiv:2006.06676, §3.1): every `interval` updates of D by a fixed amount, up when E sign(D(real)) over them is above
the target, down when it is below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.augment import AUGMENTATIONS
from trainer.augment.base import AugmentSettings
from trainer.augment.blur import FadingBlur
from trainer.core.randomness import uniform
from trainer.core.recording import number
from trainer.core.running_scalars import RunningScalars
from trainer.core.schedules import half_cosine

P, SIGNS = "augment_p", "augment_signs"


class AugmentPipeline:
    """Shows pictures to the discriminator.

    Args:
        settings: of the run.
        shape: of the pictures, (c, h, w); points, of the shape (2,), are not augmented.
        decay_images: pictures over which a p that does not adapt moves to its final value.
        batch_size: real pictures per update of D.
    """

    def __init__(self, settings: AugmentSettings, shape: tuple[int, ...], decay_images: int, batch_size: int) -> None:
        self.settings, self.decay_images, self.batch_size = settings, decay_images, batch_size
        self.augmentation = AUGMENTATIONS[settings.kind](settings, shape)
        self.blur = FadingBlur(settings.blur_sigma, settings.blur_images)
        self.certain = torch.ones(())  # for what does not ask
        self.step = batch_size * settings.interval / settings.speed_images

    def initial_scalars(self) -> dict[str, float]:
        """Return the scalars that training begins with."""
        return {P: self.settings.p, SIGNS: 0.0} if self.settings.uses_p else {}

    def logged(self, running_scalars: RunningScalars) -> dict[str, Tensor]:
        """Return p as a row shows it."""
        return {P: running_scalars[P].clone()} if self.settings.uses_p else {}

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
        """Draw on the CPU what n pictures need."""
        drawn = self.augmentation.draw(rng, n)
        return drawn | ({"deceive": uniform(rng, n)} if self.settings.apa else {})

    def apa_replace(
        self, x: Tensor, fake: Tensor, draws: Mapping[str, Tensor], running_scalars: RunningScalars
    ) -> Tensor:
        """Pass fakes off as reals: with APA each, with probability p (Jiang et al. 2021, arXiv:2111.06849, §3.2)."""
        if not self.settings.apa:
            return x
        deceived = draws["deceive"] < running_scalars[P]
        return torch.where(deceived.view(-1, *(1 for _ in x.shape[1:])), fake.to(x.dtype), x)

    def __call__(self, x: Tensor, draws: Mapping[str, Tensor], running_scalars: RunningScalars) -> Tensor:
        """Augment what D is to judge."""
        return self.augmentation(x, draws, running_scalars[P] if self.settings.uses_p else self.certain)

    def update_p(self, running_scalars: RunningScalars, sign_real: Tensor, images_seen: int) -> None:
        """Move p after the update of D that began at `images_seen`; what is not finite does not count."""
        if not self.settings.uses_p:
            return
        if not self.settings.adaptive:
            p: Any = number(self.p_after, images_seen)
            running_scalars[P].fill_(p)
            return
        # Signs are averaged over `interval` updates: of one update they are too noisy to steer by.
        running_scalars[SIGNS].add_(sign_real.nan_to_num(0.0))
        if self.moves_p(images_seen):
            over = (running_scalars[SIGNS] / self.settings.interval - self.settings.target).sign()
            running_scalars[P].add_(over * self.step).clamp_(0, 1)
            running_scalars[SIGNS].zero_()

    def p_after(self, images_seen: int) -> float:
        """Return the p, where it does not adapt, that the update after the one that begins at `images_seen` sees."""
        return half_cosine(self.settings.p, self.settings.p_final, images_seen + self.batch_size, self.decay_images)

    def moves_p(self, images_seen: int) -> bool:
        """Tell whether an adaptive p moves after the update of D that begins at `images_seen`."""
        adaptive = self.settings.uses_p and self.settings.adaptive
        return adaptive and (images_seen // self.batch_size + 1) % self.settings.interval == 0
