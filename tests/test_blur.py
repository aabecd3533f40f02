"""The blur of what D judges while training begins."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from trainer.augment.base import AugmentSettings
from trainer.augment.blur import FadingBlur
from trainer.augment.pipeline import AugmentPipeline
from trainer.config.recipes import recipe_config
from trainer.core.randomness import normal, philox
from trainer.core.recording import recorded_by


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """Return x (n, c, h, w) filtered as StyleGAN3's training/loss.py has it, by a sum over shifts."""
    reach = math.floor(3 * sigma)
    shares = {k: 2 ** -((k / sigma) ** 2) for k in range(-reach, reach + 1)}
    total = sum(shares.values())
    for axis in (2, 3):
        out = torch.zeros_like(x)
        for k, share in shares.items():
            n = x.shape[axis] - abs(k)
            if n > 0:
                out.narrow(axis, max(k, 0), n).add_(x.narrow(axis, max(-k, 0), n), alpha=share / total)
        x = out
    return x


@pytest.mark.parametrize(("images_seen", "sigma"), [(0, 4.0), (250, 3.0), (900, 0.4), (950, 0.2)])
def test_the_blur_is_the_authors_and_fades_in_a_straight_line(images_seen: int, sigma: float) -> None:
    x = normal(philox("x"), 2, 3, 8, 12)
    blurred = FadingBlur(4.0, 1000)(x, images_seen)
    expected = gaussian(x, sigma) if 3 * sigma >= 1 else x
    torch.testing.assert_close(blurred, expected)


def test_there_is_none_afterwards_or_without_settings() -> None:
    x = normal(philox("x"), 2, 3, 8, 8)
    assert FadingBlur(4.0, 1000)(x, 1000) is x
    assert AugmentPipeline(AugmentSettings(), (3, 8, 8), 0, 4).blur(x, 0) is x
    assert not FadingBlur(4.0, 1000).due(1000)


class Replay:
    """Records numbers as a CUDA graph does: as tensors of another moment."""

    def number(self, compute: Callable[[int], float], images_seen: int, dtype: torch.dtype) -> Tensor:
        return torch.tensor(compute(images_seen), dtype=torch.float64).to(dtype)

    def between_graphs(self, act: Callable[[int], object], images_seen: int) -> None:
        raise AssertionError


def test_a_recorded_step_has_the_same_bits() -> None:
    x, blur = normal(philox("x"), 2, 3, 8, 8), FadingBlur(3.7, 977)
    expected = blur(x, 123)
    with recorded_by(Replay()):
        assert torch.equal(blur(x, 123), expected)


def test_config_r_has_the_authors_schedule() -> None:
    """train.py of StyleGAN3: blur_init_sigma 10, over 200,000 pictures for a batch of 32; config T has none."""
    augment = recipe_config("stylegan3-r-256").augment
    assert (augment.blur_sigma, augment.blur_images) == (10.0, 200_000)
    assert recipe_config("stylegan3-t-256").augment == replace(augment, blur_sigma=0.0, blur_images=0)
