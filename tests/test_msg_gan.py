"""MSG-GAN: one tensor carries the pictures of all sides, and gradients reach each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.augment.base import AugmentSettings
from trainer.config.recipes import recipe_config
from trainer.core.fields import Refused
from trainer.core.randomness import normal, philox
from trainer.networks import build_discriminator, build_generator, initialise, msg_gan
from trainer.networks.base import Latent, Network
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.spectral_norm import normalised_weights

TINY = NetworkSettings(size=32, z_dim=8, g_channels=4, d_channels=4, max_channels=8)
UNKNOWN = torch.full((4,), -1)


def made(build: Callable[[str, NetworkSettings], Any], settings: NetworkSettings) -> Any:
    network: Network = build("msg-gan", settings)
    initialise(network, 0, "test")
    return network


def latent(settings: NetworkSettings = TINY) -> Latent:
    return msg_gan.Generator.draw(settings, philox("z"), UNKNOWN)


def convolution(before: int, after: int, places: int = 9) -> int:
    return before * after * places + after


def test_there_are_as_many_weights_as_the_author_has() -> None:
    """Of depth 5 and latent size 256, counted here layer by layer; his two networks have as many."""
    settings = NetworkSettings(size=64, z_dim=256, g_channels=128, d_channels=128, max_channels=256, mbstd_group=4)
    with torch.device("meta"):
        networks = build_generator("msg-gan", settings), build_discriminator("msg-gan", settings)
    generator, discriminator = (sum(p.numel() for p in network.parameters()) for network in networks)
    square = convolution(256, 256)
    to_rgb = 4 * convolution(256, 3, 1) + convolution(128, 3, 1)
    blocks = convolution(256, 256, 16) + square + 3 * 2 * square + convolution(256, 128) + convolution(128, 128)
    assert generator == blocks + to_rgb == 5_625_487
    from_rgb = 5 * convolution(3, 128, 1)
    blocks = 2 * convolution(128, 128) + 3 * (square + convolution(256, 128))
    assert discriminator == blocks + from_rgb + convolution(257, 256) + convolution(256, 256, 16) + 257 == 4_594_561


@pytest.mark.parametrize("changes", [{}, {"width": 48}, {"size": 8}, {"channels": 4}, {"g_channels": 3}])
def test_what_is_laid_out_is_taken_apart(changes: dict[str, Any]) -> None:
    settings = replace(TINY, **changes)
    height, width = settings.shape
    shapes = [(4, settings.channels, height >> k, width >> k) for k in range(settings.doublings + 1)]
    pictures = [normal(philox("x", k), *shape) for k, shape in enumerate(shapes)]
    together = msg_gan.lay_out(pictures)
    assert together.shape == (4, settings.channels, height, width + width // 2)
    assert together.abs().sum().item() == pytest.approx(sum(one.abs().sum().item() for one in pictures), rel=1e-5)
    for one, found in zip(pictures, msg_gan.take_apart(together, settings), strict=True):
        assert torch.equal(one, found)
    made_here = made(build_generator, settings)(latent(settings))
    assert made_here.shape == together.shape


def test_a_picture_alone_is_halved_by_averages() -> None:
    x = normal(philox("x"), 4, 3, 32, 32)
    found = msg_gan.take_apart(x, TINY)
    assert [one.shape[2] for one in found] == [32, 16, 8, 4]
    torch.testing.assert_close(found[3], x.reshape(4, 3, 4, 8, 4, 8).mean((3, 5)))
    discriminator = made(build_discriminator, TINY)
    both = (discriminator(one, UNKNOWN).logits for one in (x, msg_gan.lay_out(found)))
    assert torch.equal(*both)


def test_what_is_painted_is_the_largest_side() -> None:
    generator = made(build_generator, TINY)
    painted = generator.synthesize(generator.latent_code(latent()), latent())
    assert torch.equal(painted, generator(latent())[..., :32])
    assert painted.std() > 0


def test_each_side_is_learnt_from_directly() -> None:
    """The gradient of a logit with respect to a side's picture reaches that side's own layers of the generator."""
    generator, discriminator = made(build_generator, TINY), made(build_discriminator, TINY)
    pictures = msg_gan.take_apart(generator(latent()), TINY)
    alone = [one.detach().requires_grad_() for one in pictures]
    logits = discriminator(msg_gan.lay_out(alone), UNKNOWN).logits
    gradients = torch.autograd.grad(logits.sum(), alone)
    for k, (picture, gradient) in enumerate(zip(pictures, gradients, strict=True)):
        assert gradient.any()
        weights = [block.to_rgb.weight for block in generator.blocks]
        reached = torch.autograd.grad(picture, weights, gradient, retain_graph=True)
        assert [bool(one.any()) for one in reached] == [j == len(weights) - 1 - k for j in range(len(weights))]


def test_the_discriminator_is_the_formula() -> None:
    """At 8 pixels, layer by layer: half of the smallest maps come from the picture, half from the larger side."""
    settings = replace(TINY, size=8, d_channels=4)
    discriminator = made(build_discriminator, settings)
    large, small = normal(philox("large"), 4, 3, 8, 8), normal(philox("small"), 4, 3, 4, 4)

    def layer(module: nn.Module, x: Tensor) -> Tensor:
        return F.leaky_relu(module(x), 0.2)

    (block,) = discriminator.blocks
    x = layer(block.conv2, layer(block.conv1, block.from_rgb(large)))
    x = torch.cat([discriminator.from_rgb(small), x.reshape(4, 4, 4, 2, 4, 2).mean((3, 5))], 1)
    expected = discriminator.head.real(layer(discriminator.conv2, layer(discriminator.conv1, x))[:, :, 0, 0])[:, 0]
    found = discriminator(msg_gan.lay_out([large, small]), UNKNOWN).logits
    torch.testing.assert_close(found, expected)


def test_spectral_normalisation_is_of_the_convolutions_between_pictures() -> None:
    """Those of 1 x 1, to and from pictures, and the logit's are left alone, as in the author's code."""
    settings = replace(TINY, g_spectral_norm=True, d_spectral_norm=True)
    for build, count in ((build_generator, 8), (build_discriminator, 8)):
        network = made(build, settings)
        shapes = [weight.shape for _, weight in normalised_weights(network)]
        assert len(shapes) == count
        assert all(shape[2] in (3, 4) for shape in shapes)


def test_labels_are_embedded_beside_the_noise() -> None:
    """Of each class other pictures; the code is z alone, and so are the weights by which directions are found."""
    settings = replace(TINY, classes=3, g_conditional=True)
    generator = made(build_generator, settings)
    drawn = latent(settings)
    first, second = (generator(replace(drawn, label=torch.full((4,), k))) for k in range(2))
    assert not torch.equal(first, second)
    (weight,) = generator.code_layers()
    assert weight.shape == (8 * 16, 8)


def test_augmentations_are_left_out() -> None:
    config = recipe_config("msg-gan-64")
    for augment in (
        AugmentSettings(kind="ada"),
        AugmentSettings(apa=True),
        AugmentSettings(blur_sigma=2.0, blur_images=60),
    ):
        with pytest.raises(Refused, match=r"leave augment.kind, augment.apa and augment.blur_sigma out"):
            replace(config, augment=augment).check()
    replace(config, augment=AugmentSettings()).check()
