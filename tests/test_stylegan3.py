"""StyleGAN3's generators are the authors': layers, filters, weights; and they are equivariant, as the paper says."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.signal
import scipy.special
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.made_batches import made_batches
from trainer.config.config import Config
from trainer.core.randomness import normal, philox
from trainer.distributed.world import World
from trainer.gan.assembly import assemble_step, create_state, reduce_exactly
from trainer.networks import build_generator, initialise, stylegan3
from trainer.networks.alias_free import FilteredLeakyRelu, lowpass, radial_lowpass
from trainer.networks.base import Generator, Latent, named_weights
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.stylegan3 import bands
from trainer.sampling.sampler import Sampler

FFHQ_256 = NetworkSettings(size=256, z_dim=512, g_channels=128, mapping_layers=2)
TINY = NetworkSettings(size=32, z_dim=8, g_channels=8, max_channels=16, mapping_layers=2)
CPU = torch.device("cpu")


def made(name: str, settings: NetworkSettings = TINY) -> Generator:
    generator = build_generator(name, settings)
    initialise(generator, 0, "test")
    return generator.eval()


def latent(settings: NetworkSettings, n: int = 2) -> Latent:
    return Latent(normal(philox("z"), n, settings.z_dim), torch.full((n,), -1))


# Tables printed by the authors' SynthesisNetwork at 256 x 256 (NVlabs/stylegan3, training/networks_stylegan3.py).
LAYERS_T = [
    # cutoff, half width, rate, side, channels
    (2.0, 6.0, 16, 36, 512),
    (2.828, 5.172, 16, 36, 512),
    (4.0, 4.0, 16, 36, 512),
    (5.657, 10.343, 32, 52, 512),
    (8.0, 8.0, 32, 52, 512),
    (11.314, 20.686, 64, 84, 512),
    (16.0, 16.0, 64, 84, 512),
    (22.627, 41.373, 128, 148, 512),
    (32.0, 32.0, 128, 148, 512),
    (45.255, 18.745, 128, 148, 362),
    (64.0, 64.0, 256, 276, 256),
    (90.51, 37.49, 256, 276, 181),
    (128.0, 29.586, 256, 276, 128),
    (128.0, 29.586, 256, 256, 128),
    (128.0, 29.586, 256, 256, 3),
]


def test_layers_are_the_authors() -> None:
    found = bands(FFHQ_256, widen=1)
    assert found[0] == found[1]
    rounded = [(round(b.cutoff, 3), round(b.half_width, 3), b.rate, b.size[0], b.channels) for b in found[1:]]
    assert rounded == LAYERS_T
    channels = [b.channels for b in bands(FFHQ_256, widen=2)[1:]]
    assert channels == [*[1024] * 9, 724, 512, 362, 256, 256, 3]  # of --cfg stylegan3-r


@pytest.mark.parametrize(
    ("name", "size", "width", "expected"),
    [
        ("stylegan3-t", 256, 128, 28_472_133),
        ("stylegan3-t", 256, 64, 23_320_443),
        ("stylegan3-t", 512, 64, 24_873_519),
        ("stylegan3-t", 1024, 32, 22_313_167),
        ("stylegan3-r", 256, 128, 18_816_387),
        ("stylegan3-r", 1024, 32, 15_093_151),
    ],
)
def test_there_are_as_many_weights_as_the_authors_have(name: str, size: int, width: int, expected: int) -> None:
    """Counted from their Generator with the --cfg of that name; widths of half the second are --cbase 16384."""
    with torch.device("meta"):
        generator = build_generator(name, replace(FFHQ_256, size=size, g_channels=width))
    assert sum(p.numel() for p in generator.parameters()) == expected


@pytest.mark.parametrize(("taps", "cutoff", "width", "rate"), [(12, 2.0, 4.6, 32.0), (24, 11.3, 9.0, 128.0)])
def test_filters_are_those_of_the_literature(taps: int, cutoff: float, width: float, rate: float) -> None:
    """SciPy's design of Kaiser's window, and the jinc of the paper's equation in appendix B."""
    expected = scipy.signal.firwin(numtaps=taps, cutoff=cutoff, width=width, fs=rate)
    np.testing.assert_allclose(lowpass(taps, cutoff, width, rate), expected, atol=1e-12)
    radial = radial_lowpass(taps, cutoff, width, rate)
    beta = scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(taps, width / (rate / 2)))
    for i, j in ((0, 0), (3, 7), (taps // 2, taps // 2)):
        y, x = ((k - (taps - 1) / 2) / rate for k in (i, j))
        r = math.hypot(x, y)
        jinc = scipy.special.j1(2 * math.pi * cutoff * r) / r
        window = np.kaiser(taps, beta)[i] * np.kaiser(taps, beta)[j]
        middle = radial[taps // 2, taps // 2]
        d = math.hypot(0.5, 0.5) / rate
        most = scipy.special.j1(2 * math.pi * cutoff * d) / d * np.kaiser(taps, beta)[taps // 2] ** 2
        assert radial[i, j] / middle == pytest.approx(jinc * window / most, rel=1e-6)
    assert radial.sum() == pytest.approx(1)


def filtered_by_zeros(layer: FilteredLeakyRelu, x: Tensor, side: int) -> Tensor:
    """Do what the layer does as appendix C describes it: zeros between the places, filters, every so many places."""
    n, c, h, _ = x.shape
    up = x.new_zeros(n, c, h * layer.up, h * layer.up)
    up[:, :, :: layer.up, :: layer.up] = x
    taps, down = layer.up_taps, layer.down_taps
    total = (side - 1) * layer.down + 1 - h * layer.up + len(taps) + len(down) - 2
    before = (total + layer.up) // 2
    padded = F.pad(up, (before, total - before) * 2)
    square = torch.outer(taps, taps).expand(c, 1, -1, -1)
    x = F.leaky_relu(F.conv2d(padded, square, groups=c), 0.2).clamp(-256, 256)
    square = (down if down.dim() == 2 else torch.outer(down, down)).expand(c, 1, -1, -1)
    return F.conv2d(x, square, groups=c)[:, :, :: layer.down, :: layer.down]


@pytest.mark.parametrize("radial", [False, True])
def test_filtered_leaky_relu_is_that_of_the_paper(radial: bool) -> None:
    found = bands(replace(TINY, size=128), widen=1)
    kinds = {(b.rate, a.rate, b.size[0] - a.size[0]): (b, a) for b, a in pairwise(found[:-1])}
    assert len(kinds) >= 4  # the same rate, a higher one, and the layers that cut off the margin
    for before, after in kinds.values():
        layer = FilteredLeakyRelu(before, after, 2, radial)
        # Large enough that some is clamped.
        x = 150 * normal(philox("x"), 1, 3, before.size[0] + 2, before.size[1] + 2)
        expected = filtered_by_zeros(layer, x, after.size[0])
        assert expected.shape[2:] == after.size
        torch.testing.assert_close(layer(x), expected, atol=1e-3, rtol=1e-4)


def closeness(a: Tensor, b: Tensor) -> float:
    """Return the ratio of signal to difference in dB."""
    return float(10 * torch.log10((a - a.mean()).square().mean() / (a - b).square().mean()))


def moved(generator: Generator, matrix: list[list[float]]) -> Tensor:
    """Return pictures with the plane transformed by the inverse of a matrix."""
    assert isinstance(generator, stylegan3.Generator)
    generator.input.transform.copy_(torch.tensor(matrix))
    with torch.no_grad():
        picture: Tensor = generator(latent(generator.settings))
    return picture


IDENTITY = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize(("name", "least"), [("stylegan3-t", 60), ("stylegan3-r", 90)])
def test_a_translation_moves_the_picture(name: str, least: float) -> None:
    """By whole pixels, and inside: what is beyond the margin is not known to a layer."""
    generator = made(name)
    still = moved(generator, IDENTITY)
    for pixels in (1, 2):  # of the picture; the first layers have one place for two of them
        # To the right: a place of the picture takes what was to its left.
        right = moved(generator, [[1.0, 0.0, -pixels / 32], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        there = slice(6 + pixels, pixels - 10)
        assert closeness(still[..., 6:-10, 6:-10], right[..., 6:-10, there]) > least, pixels
    assert closeness(still[..., 6:-10, 6:-10], right[..., 6:-10, 6:-10]) < 20


def test_config_r_turns_the_picture_exactly() -> None:
    """By a right angle, to rounding; T does not."""
    quarter = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    for name, least, most in (("stylegan3-r", 100, math.inf), ("stylegan3-t", -math.inf, 20)):
        generator = made(name)
        turned = moved(generator, IDENTITY).rot90(1, (2, 3))
        assert least < closeness(turned, moved(generator, quarter)) < most, name


@pytest.mark.parametrize(
    "changes", [{"size": 32, "width": 48}, {"size": 24}, {"channels": 1}, {"channels": 4}, {"size": 16}]
)
def test_pictures_have_the_shape_of_the_settings(changes: dict[str, Any]) -> None:
    settings = replace(TINY, **changes)
    picture = made("stylegan3-r", settings)(latent(settings))
    assert picture.shape == (2, settings.channels, *settings.shape)
    assert picture.isfinite().all()
    assert picture.std() > 1e-3


def test_bands_do_not_depend_on_the_shape() -> None:
    square, wide = (bands(replace(TINY, width=width), 1) for width in (32, 48))
    assert [b._replace(size=(0, 0)) for b in square] == [b._replace(size=(0, 0)) for b in wide]
    assert [b.size[1] for b in wide[:-2]] == [b.rate * 3 // 2 + 20 for b in wide[:-2]]


@pytest.mark.parametrize("changes", [{"size": 8}, {"size": 0}, {"g_spectral_norm": True}])
def test_what_it_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    assert stylegan3.Generator.problem(replace(TINY, **changes))
    assert stylegan3.Generator.problem(TINY) is None


def test_magnitudes_move_by_the_mean_of_all_micro_batches() -> None:
    """Once per step, with a half-life of 20,000 pictures; the average of the weights has them as well."""
    network = replace(TINY, g_channels=4, d_channels=4)
    config = Config(generator="stylegan3-t", batch_size=6, micro_batch_size=2, network=network)
    state = create_state(config, "data", CPU)
    step = assemble_step(config, state, reduce_exactly(config, World()), nullcontext)
    batches = made_batches(config)
    generator = state.generator
    assert isinstance(generator, stylegan3.Generator)
    with torch.no_grad():
        inputs = [generator.input(generator.latent_code(batch.latent)[:, 0]) for batch in batches]
    mean = torch.stack([x.square().mean() for x in inputs]).mean()
    step([batches], lambda: 0.0)
    squares = generator.layers[0].get_submodule("magnitude").get_buffer("mean_square")
    torch.testing.assert_close(squares, 1 + (mean[None] - 1) * (1 - 0.5 ** (6 / 20_000)), rtol=0, atol=1e-7)
    assert (mean - 1).abs() > 0.1
    assert {name for name, _ in named_weights(generator)} == state.ema.keys() == generator.state_dict().keys()


def test_a_sampler_has_the_magnitudes_of_the_average() -> None:
    config = Config(generator="stylegan3-t", network=TINY, micro_batch_size=2)
    state = create_state(config, "data", CPU)
    state.ema["layers.3.magnitude.mean_square"].fill_(4.0)
    sampler = Sampler(config, CPU)
    sampler.load(state.ema)
    assert sampler.generator.get_buffer("layers.3.magnitude.mean_square").item() == 4.0
    assert torch.equal(sampler.generator.get_buffer("input.frequencies"), state.ema["input.frequencies"])
