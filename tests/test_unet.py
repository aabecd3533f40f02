"""The U-Net discriminator, the losses over its two kinds of logits, and CutMix."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from tests.made_batches import made_batches
from trainer.config.config import Config
from trainer.core.randomness import normal, philox
from trainer.distributed.world import World
from trainer.gan.assembly import assemble_step, create_state, reduce_exactly
from trainer.losses.discriminator_pass import DiscriminatorPass
from trainer.losses.objectives import OBJECTIVES, TopK
from trainer.losses.penalties.cutmix import CutMix, mask
from trainer.networks import initialise, unet
from trainer.networks.network_settings import NetworkSettings

TINY = NetworkSettings(size=32, z_dim=8, g_channels=4, d_channels=4, max_channels=8)
CONDITIONAL: dict[str, Any] = {"classes": 999, "d_head": "projection"}


def made(settings: NetworkSettings) -> unet.Discriminator:
    discriminator = unet.Discriminator(settings)
    initialise(discriminator, 0, "test")
    return discriminator


def made_pass(**changes: Any) -> DiscriminatorPass:
    config = Config(discriminator="unet", batch_size=8, micro_batch_size=8, **{"network": TINY} | changes)
    state = create_state(config, "data", torch.device("cpu"))
    step = assemble_step(config, state, reduce_exactly(config, World()), nullcontext)
    (batch,) = made_batches(config)
    with torch.no_grad():
        fake = step.generate(batch)
    return DiscriminatorPass(step.models, batch, fake, state.discriminator, torch.ones(()))


@pytest.mark.parametrize(
    ("size", "changes", "expected"),
    [
        (128, {}, 31_481_602),
        (128, CONDITIONAL, 32_569_602),
        (256, {}, 44_067_586),
        (256, CONDITIONAL, 45_155_586),
    ],
)
def test_there_are_as_many_weights_as_the_authors_have(size: int, changes: dict[str, Any], expected: int) -> None:
    """Counted from their Unet_Discriminator with 1000 classes, without its layer `linear`, which it does not call."""
    with torch.device("meta"):
        discriminator = unet.Discriminator(NetworkSettings(size=size, **changes))
    assert sum(p.numel() for p in discriminator.parameters()) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"width": 48},
        {"size": 64},
        {"pack": 2, "channels": 1},
        {"channels": 4},
        {"mbstd_group": 2},
        {"classes": 3, "d_head": "projection"},
        {"classes": 3, "d_head": "classifier"},
    ],
)
def test_each_pixel_has_a_logit(changes: dict[str, Any]) -> None:
    settings = replace(TINY, **changes)
    x = normal(philox("x"), 4, settings.channels, *settings.shape)
    output = made(settings)(x, torch.arange(4) % 3)
    n = 4 // settings.pack
    assert output.pixels is not None
    assert output.logits.shape == (n,)
    assert output.pixels.shape == (n, *settings.shape)
    assert [level.shape for level in output.levels] == [(n,), (n, settings.shape[0] * settings.shape[1])]


def test_a_pixel_is_judged_by_what_is_near_and_by_all_of_the_picture() -> None:
    """By skip connections, and by way of the bottleneck; each has a path of its own."""
    discriminator = made(TINY)
    x = normal(philox("x"), 1, 3, 32, 32).requires_grad_()
    pixels = discriminator(x, torch.tensor([-1])).pixels
    (gradient,) = torch.autograd.grad(pixels[0, 16, 16], x)
    assert (gradient[0].abs().sum(0) > 0).all()
    # Without the bottleneck nothing comes from afar.
    with torch.no_grad():
        for parameter in discriminator.decoder[0].parameters():
            parameter.zero_()
    pixels = discriminator(x, torch.tensor([-1])).pixels
    (gradient,) = torch.autograd.grad(pixels[0, 0, 0], x)
    assert gradient[0, :, :4, :4].any()
    assert not gradient[0, :, -1].any()


@pytest.mark.parametrize("objective", ["non-saturating", "hinge", "relativistic-pairing"])
def test_losses_are_means_over_both_levels(objective: str) -> None:
    d_pass, losses = made_pass(), OBJECTIVES[objective]
    real, fake = d_pass.d_real, d_pass.d_fake
    assert real.pixels is not None
    assert fake.pixels is not None
    flat = real.pixels.flatten(), fake.pixels.flatten()
    expected = (losses.discriminator(real.logits, fake.logits) + losses.discriminator(*flat)) / 2
    torch.testing.assert_close(d_pass.discriminator_loss(losses), expected)
    of_pixels = losses.generator(flat[1], lambda: flat[0])
    expected = (losses.generator(fake.logits, lambda: real.logits) + of_pixels) / 2
    torch.testing.assert_close(d_pass.generator_loss(losses, TopK(1.0, 1)), expected)


def test_the_dual_contrastive_loss_compares_pixels_of_one_place() -> None:
    """Each with that of the same place in the other pictures, by the formula, place by place."""
    d_pass, losses = made_pass(), OBJECTIVES["dual-contrastive"]
    real, fake = d_pass.d_real.pixels, d_pass.d_fake.pixels
    assert real is not None
    assert fake is not None
    places = [(i, j) for i in range(32) for j in range(32)]
    of_pixels = torch.stack([losses.discriminator(real[:, i, j], fake[:, i, j]) for i, j in places]).mean()
    of_pictures = losses.discriminator(d_pass.d_real.logits, d_pass.d_fake.logits)
    torch.testing.assert_close(d_pass.discriminator_loss(losses), (of_pictures + of_pixels) / 2)


def test_one_pass_judges_as_two_do() -> None:
    d_pass = made_pass()
    assert d_pass.at_once
    alone = d_pass.run_discriminator(d_pass.augmented_fake)
    assert alone.pixels is not None
    torch.testing.assert_close(d_pass.d_fake.pixels, alone.pixels)


def test_rectangles_are_drawn_as_in_the_paper() -> None:
    draws = CutMix().draw(philox("boxes"), 20_000, NetworkSettings(size=32, width=64))
    top, bottom, left, right = draws["box"].unbind(1)
    assert (top >= 0).all()
    assert (bottom <= 32).all()
    assert (left >= 0).all()
    assert (right <= 64).all()
    # Away from the borders the area is half of 1 - lambda, lambda uniform, but for rounding: sides as the pictures'.
    inner = (top > 0) & (bottom < 32) & (left > 0) & (right < 64)
    ratio = (right - left)[inner].double().sum() / (bottom - top)[inner].double().sum()
    assert ratio.item() == pytest.approx(2, rel=0.05)
    share = mask(draws["box"], draws["inside"], 32, 64).double().mean((1, 2))
    assert share.mean().item() == pytest.approx(0.5, abs=0.01)
    assert draws["inside"].double().mean().item() == pytest.approx(0.5, abs=0.02)


def test_the_mask_is_the_rectangle() -> None:
    box, inside = torch.tensor([[1, 3, 0, 2], [1, 3, 0, 2]]), torch.tensor([True, False])
    found = mask(box, inside, 4, 3)
    assert found[0].tolist() == [[False] * 3, [True, True, False], [True, True, False], [False] * 3]
    assert torch.equal(found[1], ~found[0])


def reference(d_pass: DiscriminatorPass, is_real: Tensor) -> Tensor:
    """Return the three terms for masks (n, h, w), picture by picture."""
    terms = []
    for k, where in enumerate(is_real):
        mixed = torch.where(where, d_pass.batch.real[k], d_pass.fake[k])
        output = d_pass.models.discriminator(mixed[None], d_pass.batch.label[k : k + 1])
        assert output.pixels is not None
        assert d_pass.d_real.pixels is not None
        assert d_pass.d_fake.pixels is not None
        apart = torch.where(where, d_pass.d_real.pixels[k], d_pass.d_fake.pixels[k])
        signed = torch.where(where, -output.pixels[0], output.pixels[0])
        terms.append((output.pixels[0] - apart).square().mean() + softplus(signed).mean() + softplus(output.logits[0]))
    return torch.stack(terms).mean()


def test_cutmix_is_the_paper_s() -> None:
    d_pass = made_pass()
    penalty = CutMix()
    draws = penalty.draw(philox("mix"), 8, NetworkSettings(size=32))
    value, _ = penalty(d_pass, draws)
    boxes = np.zeros((8, 32, 32), dtype=bool)
    for k, (top, bottom, left, right) in enumerate(draws["box"].tolist()):
        boxes[k, top:bottom, left:right] = True
    is_real = torch.from_numpy(boxes) == draws["inside"][:, None, None]
    assert 0 < is_real.double().mean() < 1
    torch.testing.assert_close(value, reference(d_pass, is_real))
    gradient = torch.autograd.grad(value, list(d_pass.models.discriminator.parameters()), allow_unused=True)
    assert all(one is not None and one.any() for one in gradient)


def test_packed_pictures_are_mixed_alike() -> None:
    d_pass = made_pass(network=replace(TINY, pack=2))
    penalty = CutMix()
    draws = penalty.draw(philox("mix"), 8, NetworkSettings(size=32))
    one = penalty(d_pass, draws)[0]
    draws["box"][1::2] = 0
    assert torch.equal(one, penalty(d_pass, draws)[0])
