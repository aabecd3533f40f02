"""Reals and fakes judged by one pass of D, where what it says of a picture does not depend on the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.made_batches import made_batches
from tests.zoo_cases import CLASSES
from trainer.augment.base import AugmentSettings
from trainer.augment.pipeline import AugmentPipeline
from trainer.config.config import Config
from trainer.losses.discriminator_pass import DiscriminatorPass, Models
from trainer.networks import DISCRIMINATORS, build_discriminator, build_generator, initialise
from trainer.networks.base import Discriminator, DiscriminatorOutput
from trainer.networks.network_settings import Head, NetworkSettings

N = 4
SETTINGS = NetworkSettings(size=32, z_dim=8, g_channels=16, d_channels=16, max_channels=32, mapping_layers=1)


def discriminator(name: str, settings: NetworkSettings) -> Discriminator:
    """Return a discriminator in float64, with drawn weights."""
    d = build_discriminator(name, settings)
    initialise(d, 0, "discriminator")
    return d.double()


def look(d: Discriminator, d_calls: list[int], against: bool = False) -> DiscriminatorPass:
    """Return D's pass over a micro-batch of made pictures, which counts the pictures of each call."""

    def counted(x: Tensor, label: Tensor) -> DiscriminatorOutput:
        d_calls.append(len(x))
        out: DiscriminatorOutput = d(x, label)
        return out

    config = Config(network=d.settings, batch_size=N, micro_batch_size=N)
    (batch,) = (b.map(lambda t: t.double() if t.is_floating_point() else t) for b in made_batches(config))
    fake = batch.real.flip(0).roll(3, 2) / 2
    models = Models(build_generator("dcgan", d.settings), d, AugmentPipeline(AugmentSettings(), (3, 32, 32), 0, N), {})
    return DiscriminatorPass(models, batch, fake, counted, torch.tensor(1.0), against)


@pytest.mark.parametrize("name", DISCRIMINATORS)
@pytest.mark.parametrize("group", [0, 2])
def test_those_that_say_so_judge_each_picture_alone(name: str, group: int) -> None:
    d = discriminator(name, replace(SETTINGS, mbstd_group=group))
    assert d.judges_each_alone == (
        name in ("wgan-gp", "sngan", "sagan", "biggan", "biggan-deep", "unet") and group == 0
    )
    if d.judges_each_alone:
        x, label = look(d, []).real, torch.full((N,), -1)
        alone = torch.cat([d(x[i : i + 1], label[i : i + 1]).logits for i in range(N)])
        assert torch.allclose(d(x, label).logits, alone, atol=1e-12)


@pytest.mark.parametrize("head", ["plain", "projection", "classifier"])
def test_one_pass_says_what_two_say(head: Head) -> None:
    """The same logits, classes and gradients, from one call in place of two."""
    calls = list[int]()
    d = discriminator("sngan", replace(SETTINGS, d_head=head, classes=CLASSES, d_spectral_norm=True))
    seen = look(d, calls)
    expected = [d(x, seen.batch.label) for x in (seen.real, seen.fake)]
    outputs = [seen.d_real, seen.d_fake]
    assert calls == [2 * N]
    for ours, theirs in zip(outputs, expected, strict=True):
        assert torch.allclose(ours.logits, theirs.logits, atol=1e-12)
        assert (ours.classes is None) == (head != "classifier")
        if ours.classes is not None and theirs.classes is not None:
            assert torch.allclose(ours.classes, theirs.classes, atol=1e-12)
    one, two = ((real.logits.sigmoid() - 2 * fake.logits.cos()).sum() for real, fake in (outputs, expected))
    weights = [p for p in d.parameters() if p.ndim > 1]
    for a, b in zip(*(torch.autograd.grad(loss, weights, allow_unused=True) for loss in (one, two)), strict=True):
        assert (a is None) == (b is None)
        assert a is None or b is None or torch.allclose(a, b, atol=1e-12)


def test_gradients_with_respect_to_pictures_take_two_passes() -> None:
    """Else those of one half would be computed through the other as well; so for G, which learns from fakes alone."""
    d = discriminator("sngan", SETTINGS)
    for against, fakes_too in ((True, False), (False, True)):
        calls = list[int]()
        seen = look(d, calls, against)
        seen.fake.requires_grad_(fakes_too)
        assert len(seen.d_real.logits) == len(seen.d_fake.logits) == N
        assert calls == [N, N]
    calls = []
    grouped = look(discriminator("sngan", replace(SETTINGS, mbstd_group=2)), calls)
    assert len(grouped.d_real.logits) == len(grouped.d_fake.logits) == N
    assert calls == [N, N]
