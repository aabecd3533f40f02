"""Training on pictures of any shape and number of channels: networks, augmentation, metrics and what is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from shards.__main__ import main as shards
from shards.images.display import over_white, premultiply
from tests.made_sources import make_source
from tests.test_augment import ONE, apply, chosen
from trainer.augment.ada import Ada
from trainer.augment.base import AugmentSettings
from trainer.augment.diffaugment import DiffAugment
from trainer.collapse.collapse_metrics import CollapseMetrics
from trainer.config.config import Config
from trainer.config.dataset import open_data
from trainer.core.fields import Refused, from_json, identity_hash, to_json
from trainer.core.randomness import philox
from trainer.extractors.resize import FILTERS, float_planes
from trainer.gan.batches import normalise
from trainer.metrics.ms_ssim import pair_similarities
from trainer.metrics.sliced_wasserstein import SlicedWasserstein
from trainer.networks import DISCRIMINATORS, GENERATORS, build_discriminator, build_generator, initialise
from trainer.networks.network_settings import NetworkSettings
from trainer.sampling.sampler import image_grid, to_images

TINY = NetworkSettings(size=48, width=64, z_dim=16, g_channels=16, d_channels=16, max_channels=32, mapping_layers=2)


def bytes_of(*shape: int) -> np.ndarray:
    return philox("pictures", *shape).integers(0, 256, shape, dtype=np.uint8)


def floats(*shape: int) -> Tensor:
    return torch.from_numpy(philox("pictures", *shape).uniform(-1, 1, shape))


@pytest.mark.parametrize(
    ("size", "width", "base", "nominal"),
    [(64, 0, (4, 4), 64), (256, 384, (4, 6), 256), (384, 256, (6, 4), 256), (48, 64, (6, 8), 32), (96, 0, (6, 6), 64)],
)
def test_a_shape_is_a_base_times_a_power_of_two(size: int, width: int, base: tuple[int, int], nominal: int) -> None:
    settings = NetworkSettings(size=size, width=width)
    assert settings.check() is None
    assert (settings.base, settings.nominal) == (base, nominal)
    assert settings.map_shape(nominal) == settings.shape == (size, width or size)


@pytest.mark.parametrize(
    ("size", "width", "fits"), [(72, 100, "64x96"), (250, 0, "224"), (64, 640, "64x256"), (3, 9, "4x9")]
)
def test_a_shape_that_no_network_has(size: int, width: int, fits: str) -> None:
    said = NetworkSettings(size=size, width=width).check()
    assert said is not None
    assert said.endswith(f"such as {fits}")
    height, _, across = fits.partition("x")
    assert NetworkSettings(size=int(height), width=int(across or 0)).check() is None


def test_networks_name_the_shapes_that_they_make() -> None:
    said = GENERATORS["fastgan"].problem(NetworkSettings(size=24, width=32))
    assert said == (
        "fastgan makes square pictures of 32, 64, 128 or 256, and others of as many layers: 24x32, which is 6x8 "
        "doubled 2 times, is like 16"
    )
    assert NetworkSettings(size=0, width=8).check() == "network.width is of pictures: points (network.size 0) have none"


def test_settings_of_square_rgb_keep_their_identity() -> None:
    config = Config()
    stored = to_json(config)
    assert stored["network"].pop("width") == 0
    assert stored["network"].pop("channels") == 3
    assert from_json(Config, stored, "here") == config
    wide, grey = (replace(config.network, **one) for one in ({"width": 96}, {"channels": 1}))  # type: ignore[arg-type]
    changed = [replace(config, network=network) for network in (wide, grey)]
    assert len({identity_hash(one) for one in [config, *changed]}) == 3
    assert identity_hash(config) == "447233224250c75df965900ddd97032d2dbb4cca58161fdd75380496b94d04e1", (
        "as before there were shapes"
    )


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", GENERATORS)
def test_every_network_makes_and_judges_them(name: str, channels: Literal[1, 4]) -> None:
    settings = replace(TINY, channels=channels, pack=2 if name == "dcgan" else 1)
    judge = name if name in DISCRIMINATORS else "stylegan2"  # StyleGAN3's is that
    assert GENERATORS[name].problem(settings) is None
    assert DISCRIMINATORS[judge].problem(settings) is None
    generator, discriminator = build_generator(name, settings), build_discriminator(judge, settings)
    initialise(generator, 0, "generator")
    initialise(discriminator, 0, "discriminator")
    label = torch.full((4,), -1)
    latent = generator.draw(settings, philox("z"), label)
    assert generator.synthesize(generator.latent_code(latent), latent).shape == (4, channels, 48, 64)
    made = generator(latent)
    logits = discriminator(made, label).logits
    assert logits.shape == (4 // settings.pack,)
    logits.sum().backward()
    assert made.std() > 0
    assert sum(p.grad is not None for p in generator.parameters()) > 3


def test_hidden_colours_are_no_data() -> None:
    pixels = torch.from_numpy(bytes_of(2, 4, 6, 4))
    pixels[..., 3] = torch.tensor([0, 1, 100, 200, 254, 255])
    other = pixels.clone()
    other[:, :, 0, :3] = 255 - other[:, :, 0, :3]
    x = normalise(pixels)
    assert torch.equal(x, normalise(other))
    assert x.is_contiguous(memory_format=torch.channels_last)
    straight, alpha = pixels.double() / 255, pixels[..., 3:].double() / 255
    assert torch.allclose(x.double().permute(0, 2, 3, 1)[..., :3], 2 * straight[..., :3] * alpha - 1, atol=1e-6)
    assert torch.allclose(x.double().permute(0, 2, 3, 1)[..., 3:], 2 * alpha - 1, atol=1e-6)
    back = to_images(x)
    assert np.array_equal(back[:, :, 1:], pixels[:, :, 1:].numpy())
    assert (back[:, :, 0] == 0).all()
    assert np.array_equal(to_images(normalise(pixels[..., :3])), pixels[..., :3].numpy())
    assert np.array_equal(to_images(normalise(pixels[..., :1])), pixels[..., :1].numpy())


def premultiplied(colours: Tensor, alpha: Tensor) -> Tensor:
    """RGBA as networks have it, of colours in [-1, 1] and alpha in [0, 1]."""
    return torch.cat([alpha * (colours + 1) - 1, 2 * alpha - 1], 1)


COLOURS: dict[str, float] = {"brightness": 0.7, "contrast": -0.8, "luma_flip": 0.9, "hue": 0.3, "saturation": 0.6}


@pytest.mark.parametrize("name", COLOURS)
def test_ada_changes_the_colours_of_rgba_and_not_alpha(name: str) -> None:
    colours, alpha = floats(3, 3, 8, 12), (floats(3, 1, 8, 12) + 1) / 2
    alpha[0, 0, :4] = 0
    settings = AugmentSettings(kind="ada", pipe="c")
    rgb, rgba = (Ada(settings, (channels, 8, 12)) for channels in (3, 4))
    expected = apply(rgb, colours, **{name: COLOURS[name]})
    assert not torch.equal(expected, colours)
    found = apply(rgba, premultiplied(colours, alpha), **{name: COLOURS[name]})
    assert torch.allclose(found, premultiplied(expected, alpha), atol=1e-12)


@pytest.mark.parametrize("name", COLOURS)
def test_ada_changes_grey_as_it_changes_grey_rgb(name: str) -> None:
    grey = floats(3, 1, 8, 12)
    settings = AugmentSettings(kind="ada", pipe="c")
    found = apply(Ada(settings, (1, 8, 12)), grey, **{name: COLOURS[name]})
    expected = apply(Ada(settings, (3, 8, 12)), grey.expand(-1, 3, -1, -1), **{name: COLOURS[name]})
    assert torch.allclose(found, expected.mean(1, keepdim=True), atol=1e-12)
    assert torch.allclose(found, grey) == (name in ("hue", "saturation"))


def test_ada_adds_noise_to_what_is_seen() -> None:
    colours, alpha = floats(2, 3, 8, 12), torch.ones(2, 1, 8, 12, dtype=torch.float64)
    alpha[:, :, :3] = 0
    pipe = Ada(AugmentSettings(kind="ada", pipe="n"), (4, 8, 12))
    x = premultiplied(colours, alpha)
    found = pipe(x, chosen(pipe, 2, sigma=1.0), ONE)
    assert torch.equal(found[:, :, :3], x[:, :, :3])
    assert torch.equal(found[:, 3], x[:, 3])
    assert (found - x)[:, :3, 3:].std().item() == pytest.approx(0.1, rel=0.3)


def test_ada_moves_pictures_that_are_not_square() -> None:
    x = floats(2, 4, 8, 12)
    pipe = Ada(AugmentSettings(kind="ada", pipe="bg"), (4, 8, 12))
    smooth = torch.from_numpy(np.add.outer(np.arange(8) / 8, np.arange(12) / 6)).expand(1, 4, 8, 12)
    # The filters are not quite symmetric, so that a mirrored picture is a little other at its borders.
    assert (apply(pipe, smooth, flip=0.9) - smooth.flip(3)).abs().max() < 0.06
    assert (apply(pipe, smooth, quarters=0.6) - smooth.flip(2, 3)).abs().max() < 0.06
    # An eighth of each side: 1.5 columns, rounded to the even 2, and one row.
    moved = apply(pipe, x, shift=(1.0, 1.0))
    assert torch.allclose(moved[..., 1:, 2:], x[..., :-1, :-2], atol=1e-10)
    assert torch.allclose(moved[..., :1, 2:], x[..., 1:2, :-2], atol=1e-10), "what comes in is mirrored"
    wide, tall = (Ada(AugmentSettings(kind="ada", pipe="g"), shape) for shape in ((4, 8, 12), (4, 12, 8)))
    lying = apply(wide, x, scale=0.7, stretch=0.4, move=(0.3, -0.5))
    upright = apply(tall, x.mT, scale=0.7, stretch=-0.4, move=(-0.5, 0.3))
    assert torch.allclose(lying.mT, upright, atol=1e-10)


def test_ada_filters_and_cuts_pictures_that_are_not_square() -> None:
    x = floats(2, 4, 12, 16)
    wide, tall = (Ada(AugmentSettings(kind="ada", pipe="fo"), shape) for shape in ((4, 12, 16), (4, 16, 12)))
    gains = (0.3, -0.4, 0.5, -0.6)
    assert torch.allclose(apply(wide, x, gains=gains).mT, apply(tall, x.mT, gains=gains), atol=1e-10)
    cut = apply(wide, x, centre=(0.5, 0.25))
    inside = torch.zeros(12, 16, dtype=torch.bool)
    inside[:6, 4:12] = True
    assert (cut[..., inside] == -1).all(), "transparent"
    assert torch.allclose(cut[..., ~inside], x[..., ~inside], atol=1e-10)


def test_diffaugment_of_rgba_and_grey() -> None:
    u = torch.tensor([[0.9, 0.3, 0.2], [0.1, 0.8, 0.7]])
    settings = AugmentSettings(kind="diffaugment", policy="color")
    colours = floats(2, 3, 8, 12)
    rgb, grey, rgba = (DiffAugment(settings, (channels, 8, 12)) for channels in (3, 1, 4))
    expected = rgb(colours, {"color": u}, ONE)
    whole = torch.ones(2, 1, 8, 12, dtype=torch.float64)
    assert torch.allclose(rgba(premultiplied(colours, whole), {"color": u}, ONE), premultiplied(expected, whole))
    # Half of the picture is not there, so contrast moves away from the mean of the other half.
    half = whole.clone()
    half[..., 6:] = 0
    seen = rgb(colours[..., :6], {"color": u}, ONE)
    found = rgba(premultiplied(colours, half), {"color": u}, ONE)
    assert torch.allclose(found[:, :3, :, :6], seen)
    assert (found[..., 6:] == -1).all()
    one = colours[:, :1]
    expected = rgb(one.expand(-1, 3, -1, -1), {"color": u}, ONE)[:, :1]
    assert torch.allclose(grey(one, {"color": u}, ONE), expected)


def test_diffaugment_of_pictures_that_are_not_square() -> None:
    augment = DiffAugment(AugmentSettings(kind="diffaugment", policy="translation,cutout"), (4, 16, 40))
    draws = augment.draw(philox("range"), 4000)
    assert draws["translation"].amax(0).tolist() == [2, 5]
    assert draws["translation"].amin(0).tolist() == [-2, -5]
    assert draws["cutout"].amax(0).tolist() == [16, 40]
    x = floats(2, 4, 16, 40)
    moved = DiffAugment(AugmentSettings(kind="diffaugment", policy="translation"), (4, 16, 40))(
        x, {"translation": torch.tensor([[2, -5], [0, 3]])}, ONE
    )
    assert torch.equal(moved[0, :, 2:, :-5], x[0, :, :-2, 5:])
    assert (moved[0, :, :2] == -1).all()
    assert (moved[0, :, :, -5:] == -1).all()
    assert torch.equal(moved[1, :, :, 3:], x[1, :, :, :-3])
    cut = DiffAugment(AugmentSettings(kind="diffaugment", policy="cutout"), (4, 16, 40))(
        x, {"cutout": torch.tensor([[8, 20], [0, 0]])}, ONE
    )
    inside = torch.zeros(16, 40, dtype=torch.bool)
    inside[4:12, 10:30] = True
    assert (cut[0][:, inside] == -1).all()
    assert torch.equal(cut[0][:, ~inside], x[0][:, ~inside])


@pytest.mark.parametrize("channels", [1, 4])
def test_metrics_without_networks(channels: int) -> None:
    real, fake = bytes_of(16, 48, 96, channels), bytes_of(16, 48, 96, channels)[::-1] // 2 + 60
    distance = SlicedWasserstein(real)
    assert distance(real) == 0
    assert distance(fake) > 10
    assert pair_similarities(np.repeat(real[:1], 4, 0)) == pytest.approx(1)
    metrics = CollapseMetrics(real, np.zeros(16, dtype=np.int64))
    seen = metrics(fake[:8])
    assert all(np.isfinite(value) for value in seen.values())
    assert metrics(np.repeat(fake[:1], 8, 0))["diversity"] < seen["diversity"] / 2


def test_hidden_colours_are_not_measured() -> None:
    one = bytes_of(16, 48, 96, 4)
    one[:, :, :40, 3] = 0
    other = one.copy()
    other[:, :, :40, :3] = 255 - other[:, :, :40, :3]
    assert not np.array_equal(one, other)
    assert SlicedWasserstein(one)(other) == 0
    assert np.array_equal(premultiply(one), premultiply(other))
    assert torch.equal(float_planes(one), float_planes(other))
    metrics = CollapseMetrics(one, np.zeros(16, dtype=np.int64))
    assert metrics(one[:8]) == metrics(other[:8])


@pytest.mark.parametrize("name", FILTERS)
def test_extractors_see_three_channels(name: str) -> None:
    grey, rgba = bytes_of(2, 12, 20, 1), bytes_of(2, 12, 20, 4)
    assert torch.equal(FILTERS[name](grey, 32), FILTERS[name](np.repeat(grey, 3, 3), 32))
    assert torch.equal(FILTERS[name](rgba, 32), FILTERS[name](over_white(rgba), 32))


def test_grids_are_rgb_whatever_the_pictures() -> None:
    for channels in (1, 3, 4):
        assert image_grid(bytes_of(3, 6, 10, channels), columns=2).shape == (12, 20, 3)
    assert {*np.unique(image_grid(np.zeros((1, 16, 16, 4), np.uint8), 1))} == {204, 255}


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grey")
    source, out = make_source(folder / "source", 6, 2), folder / "data"
    assert (
        shards(["build", str(source), "--out", str(out), "--size", "48x64", "--channels", "1", "--workers", "1"]) == 0
    )
    return out


def test_data_of_another_shape_is_refused_with_both_ways_out(grey: Path) -> None:
    config = Config(data=grey, network=NetworkSettings(size=32))
    with pytest.raises(Refused) as caught:
        open_data(config)
    assert str(caught.value) == (
        f"the pictures in {grey} are 48x64 pixels (height x width), grey, and the networks of this run want 32 "
        "pixels, RGB: build the shards again with --size 32, or begin a new run with --network.size 48 "
        "--network.width 64 --network.channels 1"
    )
    fitting = replace(config, network=replace(config.network, size=48, width=64, channels=1))
    assert open_data(fitting).size == (48, 64)
    with pytest.raises(
        Refused, match="build the shards again with --size 48x64 --channels 4, or begin a new run with "
    ):
        open_data(replace(fitting, network=replace(fitting.network, channels=4)))
    assert json.loads((grey / "index.json").read_text())["settings"]["channels"] == 1
