"""StyleGAN2, FastGAN, R3GAN and the fully connected networks are the papers'."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.core.randomness import normal, philox
from trainer.networks import fastgan, initialise, mlp, r3gan, style_layers, stylegan2
from trainer.networks.base import Discriminator, DiscriminatorOutput, Generator, Latent, Network
from trainer.networks.equalized import scale_all
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.resample import Blur, Downsample, Upsample

NETWORKS: dict[str, tuple[type[Generator], type[Discriminator]]] = {
    "stylegan2": (stylegan2.Generator, stylegan2.Discriminator),
    "fastgan": (fastgan.Generator, fastgan.Discriminator),
    "r3gan": (r3gan.Generator, r3gan.Discriminator),
    "mlp": (mlp.Generator, mlp.Discriminator),
}
TINY = NetworkSettings(size=32, z_dim=8, g_channels=8, d_channels=8, max_channels=16, mapping_layers=2)
CONDITIONAL: dict[str, Any] = {"classes": 3, "g_conditional": True}
VARIATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "packed": {"pack": 2},
    "projection": {**CONDITIONAL, "d_head": "projection"},
    "classifier": {**CONDITIONAL, "d_head": "classifier", "d_batch_norm": False},
}
CASES = [
    pytest.param(name, replace(TINY, size=size, mbstd_group=group, **settings), id=f"{name}-{size}-{variation}")
    for name, size, group in (
        ("stylegan2", 16, 2),
        ("fastgan", 32, 0),
        ("fastgan", 64, 2),
        ("r3gan", 16, 2),
        ("mlp", 16, 0),
        ("mlp", 0, 0),
    )
    for variation, settings in VARIATIONS.items()
]


def ready(network: Network) -> None:
    """Draw the weights, and move those that begin at zero away from it."""
    initialise(network, 0, "test")
    for key, parameter in network.named_parameters():
        if not parameter.any():
            parameter.data += 0.1 * normal(philox(key), *parameter.shape)


def build(name: str, settings: NetworkSettings) -> tuple[Generator, Discriminator]:
    generator, discriminator = NETWORKS[name][0](settings), NETWORKS[name][1](settings)
    ready(generator)
    ready(discriminator)
    return generator, discriminator


def draw(generator: Generator, n: int = 4) -> Latent:
    label = torch.arange(n) % (generator.settings.classes + 1) - 1
    return generator.draw(generator.settings, philox("latent"), label)


def picture_shape(settings: NetworkSettings, n: int) -> tuple[int, ...]:
    return (n, 3, settings.size, settings.size) if settings.size else (n, 2)


def count(network: type[Network], settings: NetworkSettings) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in network(settings).parameters())


def rebuilding(judgement: DiscriminatorOutput) -> Tensor:
    pairs = zip(judgement.reconstructions[::2], judgement.reconstructions[1::2], strict=True)
    return torch.stack([judgement.logits.new_zeros(()), *(F.mse_loss(guess, truth) for guess, truth in pairs)]).sum()


# Counts


@pytest.mark.parametrize(
    ("size", "base", "layers", "g_count", "d_count"),
    [
        (1024, 32768, 2, 28_794_124, 29_012_513),  # printed by the authors' code for FFHQ-1024, --cfg=auto
        (1024, 32768, 8, 30_370_060, 29_012_513),  # six more layers of 262,656
        (512, 32768, 8, 30_276_583, 28_982_849),
        (256, 32768, 8, 30_034_338, 28_864_129),
        (256, 16384, 8, 24_767_458, 24_001_089),  # --cfg=paper256
    ],
)
def test_stylegan2_has_as_many_weights_as_the_authors(
    size: int, base: int, layers: int, g_count: int, d_count: int
) -> None:
    width = base // size
    settings = NetworkSettings(
        size=size, z_dim=512, g_channels=width, d_channels=width, mapping_layers=layers, mbstd_group=4
    )
    assert count(stylegan2.Generator, settings) == g_count
    assert count(stylegan2.Discriminator, settings) == d_count


@pytest.mark.parametrize(
    ("size", "width", "limit", "g_count", "d_count"),
    [
        (256, 96, 768, 23_057_952, 23_009_568),  # FFHQ-256
        (64, 384, 768, 22_429_824, 22_381_440),  # FFHQ-64
        (32, 768, 768, 20_732_160, 20_683_776),  # CIFAR-10
        (64, 1536, 1536, 103_408_128, 103_311_360),  # ImageNet-64, without its classes
    ],
)
def test_r3gan_has_as_many_weights_as_the_authors(
    size: int, width: int, limit: int, g_count: int, d_count: int
) -> None:
    """Counted from the authors' networks with the presets of their train.py, and by this arithmetic."""
    settings = NetworkSettings(size=size, z_dim=64, g_channels=width, d_channels=width, max_channels=limit)
    channels = r3gan.widths(settings, width)
    blocks = sum(2 * (4 * c**2 + 2 * c * 9 * (16 if c <= 768 else 32) + 4 * c) for c in channels)
    changes = sum(a * b for a, b in pairwise(channels) if a != b)
    rest = 3 * channels[-1] + 16 * channels[0]
    assert count(r3gan.Generator, settings) == blocks + changes + rest + 64 * channels[0] == g_count
    assert count(r3gan.Discriminator, settings) == blocks + changes + rest + channels[0] == d_count


def test_fastgan_256_has_as_many_weights_as_the_authors() -> None:
    """Counted from models.py with ngf = ndf = 64, nz = 256, without what judges and paints at 128 x 128."""
    settings = NetworkSettings(size=256, z_dim=256, g_channels=32, d_channels=16, max_channels=1024)

    def gated(a: int, b: int) -> int:
        return 9 * a * 2 * b + 4 * b

    def excitation(a: int, b: int) -> int:
        return 16 * a * b + b * b

    first = 16 * 256 * 2048 + 2 * 2048
    noisy = sum(gated(a, b) + gated(b, b) + 2 for a, b in ((1024, 512), (256, 128), (128, 64)))
    plain = sum(gated(a, b) for a, b in ((512, 256), (128, 128), (64, 32)))
    excitations = excitation(1024, 128) + excitation(512, 64) + excitation(256, 32)
    assert count(fastgan.Generator, settings) == first + noisy + plain + excitations + 9 * 32 * 3

    channels = [16, 32, 64, 128, 256, 512]
    down = sum(16 * a * b + 9 * b * b + a * b + 6 * b for a, b in pairwise(channels))
    excitations = excitation(16, 128) + excitation(32, 256) + excitation(64, 512)
    logit = 512 * 1024 + 2 * 1024 + 16 * 1024
    decoders = sum(gated(a, 128) + gated(128, 64) + gated(64, 64) + gated(64, 32) + 9 * 32 * 3 for a in (512, 256))
    assert count(fastgan.Discriminator, settings) == 27 * 16 + down + excitations + logit + decoders


def test_the_mlp_is_pacgans() -> None:
    settings = NetworkSettings(size=0, z_dim=2, g_channels=400, d_channels=200, pack=3)
    assert count(mlp.Generator, settings) == 2 * 400 + 3 * 400**2 + 4 * 800 + 2 * 400 + 2
    assert count(mlp.Discriminator, settings) == 1000 * (6 + 1) + 2 * 1000 * (200 + 1) + 200 + 1


# What every network promises


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_every_parameter_learns_and_nothing_is_drawn(name: str, settings: NetworkSettings) -> None:
    generator, discriminator = build(name, settings)
    latent, before = draw(generator), torch.get_rng_state()
    fake = generator(latent)
    assert fake.shape == picture_shape(settings, 4)
    judgement = discriminator(fake, latent.label)
    assert judgement.logits.shape == (4 // settings.pack,)
    loss = judgement.logits.square().sum() + rebuilding(judgement)
    if settings.d_head == "classifier":
        assert judgement.classes is not None
        assert judgement.classes.shape == (4, 3)
        loss = loss + judgement.classes.square().sum()
    loss.backward()
    assert torch.equal(torch.get_rng_state(), before)
    for network in (generator, discriminator):
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.any(), key


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_gradient_penalties_have_gradients(name: str, settings: NetworkSettings) -> None:
    _, discriminator = build(name, settings)
    real = normal(philox("real"), *picture_shape(settings, 4)).requires_grad_()
    logits = discriminator(real, torch.tensor([0, 1, -1, 2])).logits
    (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    slope.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in discriminator.parameters())
    assert discriminator.get_parameter(next(k for k, _ in discriminator.named_parameters())).grad is not None


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_the_finite_differences(name: str) -> None:
    generator, discriminator = build(name, TINY)
    generator.double()
    discriminator.double()
    latent = draw(generator).map(lambda t: t.double() if t.is_floating_point() else t)
    direction = normal(philox("direction"), *latent.z.shape).double()

    def logits(step: float) -> Tensor:
        moved = Latent(latent.z + step * direction, latent.label, latent.extra)
        out: Tensor = discriminator(generator(moved), latent.label).logits.sum()
        return out

    latent.z.requires_grad_()
    (slope,) = torch.autograd.grad(logits(0.0), latent.z)
    difference = (logits(1e-6) - logits(-1e-6)) / 2e-6
    torch.testing.assert_close((slope * direction).sum(), difference.detach(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", NETWORKS)
def test_bf16_is_near(name: str) -> None:
    generator, discriminator = build(name, replace(TINY, mbstd_group=0 if name == "mlp" else 4))
    latent = draw(generator)
    with torch.no_grad():
        exact = generator(latent)
        logits = discriminator(exact, latent.label).logits
        with torch.autocast("cpu", torch.bfloat16):
            rough = generator(latent)
            near = discriminator(exact, latent.label).logits
    assert (rough - exact).abs().mean() < 0.05 * exact.std()
    assert (near - logits).abs().max() < 0.1 * logits.abs().max()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_layout_in_memory_changes_nothing(name: str) -> None:
    generator, discriminator = build(name, TINY)
    latent = draw(generator)
    fake = generator(latent)
    logits = discriminator(fake, latent.label).logits
    generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    discriminator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    again = generator(latent)
    torch.testing.assert_close(again, fake, rtol=1e-4, atol=1e-4 * fake.std().item())
    judged = discriminator(fake.contiguous(memory_format=torch.channels_last), latent.label).logits
    torch.testing.assert_close(judged, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_painting_a_code_is_the_whole_network(name: str) -> None:
    generator, _ = build(name, TINY)
    latent = draw(generator)
    assert torch.equal(generator.synthesize(generator.latent_code(latent), latent), generator(latent))


def test_impossible_settings_are_named() -> None:
    for name, (generator, discriminator) in NETWORKS.items():
        assert generator.problem(TINY) is None
        assert discriminator.problem(TINY) is None
        assert f"for {name}" in (generator.problem(replace(TINY, size=4)) or "")
    assert "mbstd_group" in (mlp.Discriminator.problem(replace(TINY, mbstd_group=4)) or "")
    assert "multiples of 8" in (r3gan.Generator.problem(replace(TINY, g_channels=6)) or "")
    for module in (stylegan2, r3gan):
        assert "spectral" in (module.Generator.problem(replace(TINY, g_spectral_norm=True)) or "")
        assert "spectral" in (module.Discriminator.problem(replace(TINY, d_spectral_norm=True)) or "")


# StyleGAN2


def per_sample(conv: style_layers.ModulatedConv, x: Tensor, w: Tensor) -> Tensor:
    """Convolve each sample with weights of its own (eqs. 1 and 3)."""
    maps = []
    for sample, style in zip(x.split(1), conv.affine(w), strict=True):
        weight = conv.weight * conv.gain * style[:, None, None]
        if conv.demodulate:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if conv.blur is None:
            maps.append(F.conv2d(sample, weight, padding=1))
        else:
            maps.append(conv.blur(F.conv_transpose2d(sample, weight.transpose(0, 1), stride=2)))
    return torch.cat(maps)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulation_is_that_of_weights_per_sample(up: bool, demodulate: bool) -> None:
    conv = style_layers.ModulatedConv(6, 5, 4, 3, up, demodulate)
    rng = philox("modulation")
    for parameter in conv.parameters():
        parameter.data = normal(rng, *parameter.shape)
    x, w = normal(rng, 3, 6, 8, 8), normal(rng, 3, 4)
    y = conv(x, style_layers.modulations([conv], [w])[0])
    assert y.shape == (3, 5, 16, 16) if up else (3, 5, 8, 8)
    torch.testing.assert_close(y, per_sample(conv, x, w), rtol=1e-4, atol=1e-5)


def test_demodulation_gives_unit_variance() -> None:
    conv = style_layers.ModulatedConv(64, 64, 16, 3)
    rng = philox("demodulation")
    for parameter in conv.parameters():
        parameter.data = normal(rng, *parameter.shape)
    x, w = normal(rng, 8, 64, 16, 16), normal(rng, 8, 16)
    y = conv(x, style_layers.modulations([conv], [w])[0])[:, :, 1:-1, 1:-1]
    assert y.var().item() == pytest.approx(1, abs=0.03)
    assert y.var((2, 3)).mean(0).sub(1).abs().max() < 0.3


def test_layers_are_modulated_together_as_each_alone() -> None:
    """Widths that repeat and that change, with and without demodulation; and gradients of gradients."""
    shapes = [(6, 6, True), (6, 3, False), (6, 6, True), (6, 4, True), (4, 4, True), (4, 3, False)]
    layers = [style_layers.ModulatedConv(i, o, 5, 3 if d else 1, demodulate=d, factor=1.5) for i, o, d in shapes]
    rng = philox("together")
    for parameter in (p for layer in layers for p in layer.parameters()):
        parameter.data = normal(rng, *parameter.shape).double()
    codes = [normal(rng, 3, 5).double().requires_grad_() for _ in layers]
    together = style_layers.modulations(layers, codes)
    for layer, code, (style, norm), (i, _, demodulate) in zip(layers, codes, together, shapes, strict=True):
        (alone,) = style_layers.modulations([layer], [code])
        true_style = F.linear(code, layer.affine.weight / math.sqrt(5), layer.affine.bias)
        assert torch.allclose(style, true_style * layer.gain, atol=1e-12)
        assert torch.allclose(style, alone.style, atol=1e-12)
        assert (norm is None) == (alone.norm is None) == (not demodulate)
        if norm is not None:
            weight = layer.weight * true_style[:, None, :, None, None] / math.sqrt(i * 9)
            assert torch.allclose(norm, (weight.square().sum((2, 3, 4)) + 1e-8).rsqrt(), atol=1e-12)
    assert torch.autograd.gradgradcheck(
        lambda *codes: modulated(layers, codes), codes, fast_mode=True, check_undefined_grad=False
    )


def modulated(layers: list[style_layers.ModulatedConv], codes: tuple[Tensor, ...]) -> Tensor:
    found = [part for one in style_layers.modulations(layers, codes) for part in one if part is not None]
    return torch.cat([part.sin().flatten() for part in found])


def test_gradients_of_scaled_tensors_and_of_sums_of_squares() -> None:
    """With respect to weights, once and twice; what no gradient comes for has none."""
    rng = philox("scaled")
    weights = [normal(rng, 4, 3, 2, 2).double().requires_grad_(), normal(rng, 2, 4, 1, 1).double().requires_grad_()]
    functions: list[Callable[..., Any]] = [
        lambda *w: scale_all([0.5, -3.0], w),
        lambda *w: style_layers.SquareSums.apply([0.5, -3.0], *w),  # type: ignore[no-untyped-call]
    ]
    for function in functions:
        assert torch.autograd.gradcheck(function, weights, check_undefined_grad=False)
        assert torch.autograd.gradgradcheck(function, weights, check_undefined_grad=False)
    first, second = scale_all([2.0, 3.0], weights)
    assert torch.autograd.grad(second.sum(), weights, allow_unused=True)[0] is None
    assert torch.equal(first, 2 * weights[0])


def test_styles_are_mixed_at_the_crossover() -> None:
    generator, _ = build("stylegan2", TINY)
    layers = stylegan2.style_layers(TINY)
    assert layers == 2 * int(math.log2(TINY.size)) - 2
    latent = draw(generator)
    crossover = torch.tensor([1, 3, layers - 1, layers])
    code = generator.latent_code(replace(latent, extra={**latent.extra, "crossover": crossover}))
    first = generator.latent_code(Latent(latent.z, latent.label))
    second = generator.latent_code(Latent(latent.extra["z_mix"], latent.label))
    assert code.shape == (4, layers, TINY.z_dim)
    assert torch.equal(first, first[:, :1].expand_as(first))
    for k, at in enumerate(crossover.tolist()):
        assert torch.equal(code[k, :at], first[k, :at])
        assert torch.equal(code[k, at:], second[k, at:])


def test_a_layer_to_rgb_shares_the_style_of_the_next_sides_first_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(TINY, size=16)
    generator, _ = build("stylegan2", settings)
    seen: dict[str, float] = {}
    names = {module: key for key, module in generator.named_modules()}

    def looked_at(layers: list[style_layers.ModulatedConv], codes: list[Tensor]) -> list[style_layers.Modulation]:
        seen.update({names[layer]: code.mean().item() for layer, code in zip(layers, codes, strict=True)})
        return style_layers.modulations(layers, codes)

    monkeypatch.setattr(stylegan2, "modulations", looked_at)
    code = torch.arange(6.0)[None, :, None].expand(1, 6, TINY.z_dim)
    generator.synthesize(code, draw(generator, 1))
    in_order = ["first.conv", "to_rgb.conv"]
    in_order += [f"blocks.{k}.{layer}.conv" for k in range(2) for layer in ("up", "conv", "to_rgb")]
    assert seen == dict(zip(in_order, (0, 1, 1, 2, 3, 3, 4, 5), strict=True))


def test_mixing_is_as_frequent_as_asked_and_can_be_left_out() -> None:
    layers = stylegan2.style_layers(replace(TINY, size=8))
    draws = stylegan2.Generator.extra(replace(TINY, size=8, style_mixing=0.75), philox(0), 4000)
    crossover = draws["crossover"]
    assert crossover.dtype == torch.int64
    assert (crossover < layers).float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert set(crossover.tolist()) == set(range(1, layers + 1))
    plain = stylegan2.Generator.extra(replace(TINY, size=8, style_mixing=0.0), philox(0), 4000)
    assert plain.keys() == {"noise_4_0", "noise_8_0", "noise_8_1"}
    assert all(torch.equal(plain[key], draws[key]) for key in plain)


def test_stylegan2_begins_with_unit_variance_in_w_and_in_features() -> None:
    settings = replace(TINY, z_dim=256, g_channels=32, max_channels=128, mapping_layers=8)
    generator = stylegan2.Generator(settings)
    initialise(generator, 0, "generator")
    latent = draw(generator, 16)
    w = generator.latent_code(latent)[:, 0]
    assert 0.5 < w.square().mean() < 2
    (modulation,) = style_layers.modulations([generator.first.conv], [w])
    features = generator.first(generator.constant.expand(16, -1, -1, -1), modulation, latent.extra["noise_4_0"])
    assert 0.5 < 2 * features.square().mean() < 2  # the sqrt(2) is a factor of the layers behind


# Resampling


def filtered(x: Tensor, gain: float = 1.0) -> Tensor:
    """Filter maps (n, c, h, w) by the definition, with all zeros beyond the border that the filter reaches."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    n, c, h, w = x.shape
    y = torch.zeros(n, c, h + 3, w + 3)
    for i in range(4):
        for j in range(4):
            y[:, :, i : i + h, j : j + w] += gain * taps[i] * taps[j] * x
    return y


def test_resampling_is_the_direct_formula() -> None:
    x = normal(philox("resampling"), 2, 3, 8, 8)
    torch.testing.assert_close(Blur(padding=3)(x), filtered(x))
    torch.testing.assert_close(Blur(padding=2)(x), filtered(x)[:, :, 1:-1, 1:-1])
    torch.testing.assert_close(Downsample()(x), filtered(x)[:, :, 2:-2:2, 2:-2:2])
    spread = torch.zeros(2, 3, 15, 15)
    spread[:, :, ::2, ::2] = x
    torch.testing.assert_close(Upsample()(x), filtered(spread, gain=4)[:, :, 1:-1, 1:-1])


def test_constants_stay_constant_within() -> None:
    ones = torch.ones(1, 2, 8, 8)
    torch.testing.assert_close(Downsample()(ones)[:, :, 1:-1, 1:-1], torch.ones(1, 2, 2, 2))
    torch.testing.assert_close(Upsample()(ones)[:, :, 1:-1, 1:-1], torch.ones(1, 2, 14, 14))


# FastGAN and R3GAN


def test_fastgan_rebuilds_the_whole_and_a_quadrant() -> None:
    settings = replace(TINY, size=64, pack=2)
    _, discriminator = build("fastgan", settings)
    x = normal(philox("pictures"), 12, 3, 64, 64)
    whole, half, part, quadrant = discriminator(x, torch.full((12,), -1)).reconstructions
    assert whole.shape == half.shape == part.shape == quadrant.shape == (6, 6, 32, 32)
    packs = x.reshape(6, 6, 64, 64)
    torch.testing.assert_close(half, F.interpolate(packs, size=32, mode="area"))
    for i in range(6):
        top, left = 32 * (i // 2 % 2), 32 * (i % 2)
        assert torch.equal(quadrant[i], packs[i, :, top : top + 32, left : left + 32])


def test_fastgans_logit_is_the_mean_of_a_map_of_logits() -> None:
    features = normal(philox("features"), 3, 6, 8, 8)
    weight = normal(philox("weight"), 1, 6, 4, 4)
    mean = F.linear(F.avg_pool2d(features, 5, stride=1).flatten(1), weight.flatten(1)).flatten()
    torch.testing.assert_close(mean, F.conv2d(features, weight).mean((1, 2, 3)))


def test_r3gan_begins_as_the_paper_says() -> None:
    settings = replace(TINY, size=64, g_channels=64, max_channels=64, z_dim=64)
    generator = r3gan.Generator(settings)
    initialise(generator, 0, "generator")
    gain = math.sqrt(2 / 1.04) * 10**-0.25  # five stages of two blocks
    weights = dict(generator.named_parameters())
    assert weights["layers.0.grouped.weight"].shape == (128, 16, 3, 3)
    assert not weights["layers.0.contract.weight"].any()
    for key, spread in {
        "constant": 1.0,
        "modulate.weight": 1 / 8,
        "layers.0.expand.weight": gain / 8,
        "layers.0.grouped.weight": gain / 12,
        "to_rgb.weight": 1 / 8,
    }.items():
        assert weights[key].std().item() == pytest.approx(spread, rel=0.1), key
