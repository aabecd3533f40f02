"""The residual networks have the papers' weights, and do what the papers' formulas say."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.core.randomness import normal, philox
from trainer.networks import base, biggan, biggan_deep, initialise, residual, sagan, sngan, wgan_gp
from trainer.networks.attention import SelfAttention
from trainer.networks.base import DiscriminatorOutput, Latent
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.spectral_norm import add_spectral_norm

BLOCKS = residual.UpBlock, residual.DownBlock, biggan_deep.UpBlock, biggan_deep.DownBlock, SelfAttention
NETWORKS = [sngan, wgan_gp, sagan, biggan]
CLASSES: dict[str, Any] = {"g_conditional": True, "d_head": "projection", "classes": 1000}


def small(**changes: Any) -> NetworkSettings:
    values: dict[str, Any] = {
        "size": 32,
        "z_dim": 8,
        "g_channels": 4,
        "d_channels": 4,
        "max_channels": 16,
        "classes": 3,
    }
    return NetworkSettings(**values | changes)


def pair(
    module: ModuleType, settings: NetworkSettings, spectral_norm: bool = False
) -> tuple[base.Generator, base.Discriminator]:
    generator, discriminator = module.Generator(settings), module.Discriminator(settings)
    if spectral_norm:
        add_spectral_norm(discriminator)
    initialise(generator, 0, "generator")
    initialise(discriminator, 0, "discriminator")
    return generator, discriminator


def drawn(*shape: int) -> Tensor:
    return normal(philox(0, "test", *shape), *shape)


def latent(settings: NetworkSettings, n: int = 4) -> Latent:
    return Latent(drawn(n, settings.z_dim), torch.arange(n) % 4 - 1)


def weights(module: ModuleType, **values: Any) -> tuple[int, int]:
    settings = NetworkSettings(**values)
    assert module.Generator.problem(settings) is None
    assert module.Discriminator.problem(settings) is None
    with torch.device("meta"):
        networks = module.Generator(settings), module.Discriminator(settings)
    generator, discriminator = (sum(p.numel() for p in network.parameters()) for network in networks)
    return generator, discriminator


def attention_weights(channels: int) -> int:
    return channels * (channels // 8 * 2 + channels // 2 * 2) + 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"size": 32, "g_channels": 256, "d_channels": 128}, (4_276_739, 1_053_825)),
        ({"size": 64, "max_channels": 1024}, (12_220_675, 10_141_441)),
        ({"size": 128, "max_channels": 1024}, (32_150_787, 29_017_857)),
    ],
)
def test_sngan_has_as_many_weights_as_the_reference(values: dict[str, Any], expected: tuple[int, int]) -> None:
    """Counted from kwotsin/mimicry, SNGANGenerator32 and so on with their defaults."""
    assert weights(sngan, z_dim=128, **values) == expected


def test_wgan_gp_has_as_many_weights_as_the_reference() -> None:
    """Counted from kwotsin/mimicry, with ngf 128 at 32 pixels; at 64 it leaves the layer normalisation out."""
    assert weights(wgan_gp, size=32, z_dim=128, g_channels=128, d_channels=128) == (1_204_483, 1_053_825)
    layer_norm = 2 * 2 * (64 + 128 + 256 + 512)  # gain and bias, before both convolutions of the blocks after the first
    assert weights(wgan_gp, size=64, z_dim=128, max_channels=1024) == (12_220_675, 10_141_441 + layer_norm)


def test_sagan_128_has_as_many_weights_as_the_reference() -> None:
    """Counted from ajbrock/BigGAN-PyTorch with SAGAN's settings (no shared embedding, no hierarchical z, ch 64)."""
    row = 2 * (1024 + 1024 + 1024 + 512 + 512 + 256 + 256 + 128 + 128 + 64)  # gain and bias of the unknown class
    expected = 42_078_852 + row, 39_463_618 + 1024
    assert weights(sagan, size=128, z_dim=128, max_channels=1024, **CLASSES) == expected


def test_biggan_has_as_many_weights_as_the_reference() -> None:
    """At 128 pixels those that google/compare_gan asserts; at 64 and 32 counted from ajbrock/BigGAN-PyTorch."""
    generator, discriminator = weights(biggan, size=128, z_dim=120, g_channels=96, d_channels=96, **CLASSES)
    assert generator == 70_433_988 + 128  # the unknown class's row in the shared embedding
    assert discriminator == 87_982_370 + 16 * 96  # and in the projection
    assert weights(biggan, size=256, z_dim=140, g_channels=96, d_channels=96, **CLASSES) == (
        82_235_844 + 128,
        99_225_890 + 16 * 96,
    )
    assert weights(biggan, size=64, z_dim=120, **CLASSES | {"classes": 100}) == (31_854_340 + 128, 19_650_242 + 1024)
    assert weights(biggan, size=32, z_dim=128, **CLASSES | {"classes": 10}) == (
        4_373_251 + 128 + attention_weights(256),  # its CIFAR script has no attention
        4_207_361 + 256 + attention_weights(256),
    )


def test_biggan_deep_has_as_many_weights_as_the_reference() -> None:
    """Counted from BigGANdeep.py of BigGAN-PyTorch with 1000 classes, of which one stands for the unknown one here."""
    thousand = CLASSES | {"classes": 999}
    for size, width, expected in (
        (64, 64, (17_188_228, 5_755_138)),
        (128, 128, (50_244_484, 34_590_210)),
        (256, 128, (55_736_708, 38_247_426)),
    ):
        counted = weights(biggan_deep, size=size, z_dim=128, g_channels=width, d_channels=width, **thousand)
        assert counted == expected
    # Their discriminator for 32 pixels attends after each of three stages, at 16 x 16 and twice at 8 x 8.
    generator, discriminator = weights(biggan_deep, size=32, z_dim=128, g_channels=128, d_channels=128, **thousand)
    assert (generator, discriminator + 2 * attention_weights(512)) == (7_889_668, 4_071_172)


def test_shortcuts_of_biggan_deep_keep_channels_as_they_are() -> None:
    """With the last convolutions at zero a block in G drops channels, and one in D appends what `more` makes."""
    up, down = biggan_deep.UpBlock(8, 4, 3, up=True), biggan_deep.DownBlock(4, 8, down=True)
    for block in (up, down):
        for parameter in block.conv4.parameters():
            parameter.data.zero_()
    x = drawn(2, 8, 4, 4)
    torch.testing.assert_close(up(x, drawn(2, 3)), F.interpolate(x[:, :4], scale_factor=2))
    out = down(x[:, :4])
    assert down.more is not None
    torch.testing.assert_close(out[:, :4], F.avg_pool2d(x[:, :4], 2))
    torch.testing.assert_close(out[:, 4:], down.more(F.avg_pool2d(x[:, :4], 2)))


def heights(network: nn.Module) -> list[int]:
    """Return the height of what each block puts out."""
    found: list[int] = []

    def note(_: nn.Module, __: Any, out: Tensor) -> None:
        found.append(out.shape[2])

    for module in network.modules():
        if isinstance(module, BLOCKS):
            module.register_forward_hook(note)
    settings = network.settings
    assert isinstance(settings, NetworkSettings)
    if isinstance(network, base.Generator):
        network(latent(settings, 2))
    else:
        network(drawn(2, 3, settings.size, settings.size), torch.tensor([0, -1]))
    return found


@pytest.mark.parametrize("size", [32, 64, 128])
def test_attention_is_where_the_papers_have_it(size: int) -> None:
    settings = small(size=size, z_dim=60 if size != 32 else 8, g_channels=1, d_channels=1)
    for module, height in (sagan, 16 if size == 32 else 32), (biggan, min(64, size // 2)):
        grown = [h for h in (8, 16, 32, 64, 128) if h <= size for _ in range(2 if h == height else 1)]
        assert heights(module.Generator(settings)) == grown
        shrunk = [16, 8, 8, 8] if size == 32 else [h for h in (64, 32, 16, 8, 4, 4) if h < size]
        shrunk.insert(shrunk.index(height), height)
        assert heights(module.Discriminator(settings)) == shrunk


def test_attention_is_the_papers_formula() -> None:
    attention = SelfAttention(16).double()
    nn.init.constant_(attention.gamma, 0.7)
    x = drawn(2, 16, 8, 8).double()
    keys, values = F.max_pool2d(attention.phi(x), 2), F.max_pool2d(attention.g(x), 2)
    expected = x.clone()
    for n, i, j in np.ndindex(2, 8, 8):
        s = torch.einsum("c,chw->hw", attention.theta(x)[n, :, i, j], keys[n])
        beta = s.exp() / s.exp().sum()
        o = attention.o.weight[:, :, 0, 0] @ torch.einsum("hw,chw->c", beta, values[n])
        expected[n, :, i, j] += 0.7 * o
    torch.testing.assert_close(attention(x), expected)


def test_attention_starts_as_the_identity_and_learns() -> None:
    attention, x = SelfAttention(8), drawn(2, 8, 4, 4)
    assert torch.equal(attention(x), x)
    attention(x).square().sum().backward()
    assert attention.gamma.grad is not None
    assert attention.gamma.grad != 0


def silence(convolution: nn.Conv2d) -> None:
    """Leave of a block only its shortcut."""
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)


def test_shortcuts_are_the_papers_whichever_comes_first() -> None:
    x = drawn(2, 4, 8, 8)
    up = residual.UpBlock(4, 6, 0)
    silence(up.conv2)
    torch.testing.assert_close(up(x, None), up.shortcut(F.interpolate(x, scale_factor=2, mode="nearest")))
    down = residual.DownBlock(4, 6, 6, down=True, first=False, layer_norm=False)
    silence(down.conv2)
    torch.testing.assert_close(down(x), F.avg_pool2d(down.shortcut(x), 2))
    same = residual.DownBlock(4, 4, 4, down=False, first=False, layer_norm=False)
    silence(same.conv2)
    assert torch.equal(same(x), x)


def test_blocks_are_the_papers() -> None:
    x = drawn(2, 4, 8, 8)
    up = residual.UpBlock(4, 6, 0)
    norms = [nn.BatchNorm2d(4), nn.BatchNorm2d(6)]
    h = up.conv1(F.interpolate(norms[0](x).relu(), scale_factor=2))
    h = up.conv2(norms[1](h).relu())
    torch.testing.assert_close(up(x, None) - F.interpolate(up.shortcut(x), scale_factor=2), h)
    down = residual.DownBlock(4, 6, 5, down=True, first=False, layer_norm=True)
    h = down.conv1(F.layer_norm(x, (4, 8, 8)).relu())
    h = F.avg_pool2d(down.conv2(F.layer_norm(h, (5, 8, 8)).relu()), 2)
    torch.testing.assert_close(down(x) - down.shortcut(F.avg_pool2d(x, 2)), h)
    first = residual.DownBlock(4, 6, 6, down=True, first=True, layer_norm=False)
    h = F.avg_pool2d(first.conv2(first.conv1(x).relu()), 2)
    torch.testing.assert_close(first(x) - first.shortcut(F.avg_pool2d(x, 2)), h)


def test_wgan_gps_critic_averages_over_places_and_sngans_sums() -> None:
    x = drawn(2, 3, 5, 5)
    critic, discriminator = wgan_gp.Discriminator(small()), sngan.Discriminator(small())
    torch.testing.assert_close(25 * critic.pool(x), discriminator.pool(x))


@pytest.mark.parametrize("module", NETWORKS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"g_conditional": True, "d_head": "projection", "mbstd_group": 2},
        {"g_conditional": True, "d_head": "classifier"},
        {"pack": 2, "mbstd_group": 4},
        {"size": 64, "z_dim": 10},
    ],
)
def test_every_parameter_learns(module: ModuleType, changes: dict[str, Any]) -> None:
    settings = small(**changes)
    generator, discriminator = pair(module, settings, spectral_norm=module is not wgan_gp)
    given = latent(settings)
    x = generator(given)
    assert x.shape == (4, 3, settings.size, settings.size)
    assert -1 <= x.min() < x.max() <= 1
    judgement: DiscriminatorOutput = discriminator(x.contiguous(memory_format=torch.channels_last), given.label)
    assert judgement.logits.shape == (4 // settings.pack,)
    loss = F.softplus(-judgement.logits).sum()
    if settings.d_head == "classifier":
        assert judgement.classes is not None
        assert judgement.classes.shape == (4, 3)
        loss = loss + judgement.classes.square().sum()
    loss.backward()
    for network in generator, discriminator:
        for name, p in network.named_parameters():
            assert p.grad is not None, name
            assert p.grad.isfinite().all(), name


@pytest.mark.parametrize("module", NETWORKS)
def test_gradient_penalties_have_the_right_gradient(module: ModuleType) -> None:
    """R1's gradient along one direction of weights, against a finite difference in float64."""
    settings = small(size=64, z_dim=10, d_channels=2)
    discriminator = pair(module, settings)[1].double()
    for name, p in discriminator.named_parameters():
        if name.endswith("gamma"):
            nn.init.constant_(p, 0.5)
    x = drawn(2, 3, 64, 64).double().requires_grad_()
    parameters = list(discriminator.parameters())
    directions = [normal(philox(1, i), *p.shape).double() for i, p in enumerate(parameters)]

    def penalty() -> Tensor:
        logits = discriminator(x, torch.tensor([0, -1])).logits
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return gradient.square().sum()

    def moved(step: float) -> float:
        with torch.no_grad():
            for p, direction in zip(parameters, directions, strict=True):
                p.add_(direction, alpha=step)
        value = penalty().item()
        with torch.no_grad():
            for p, direction in zip(parameters, directions, strict=True):
                p.sub_(direction, alpha=step)
        return value

    gradients = torch.autograd.grad(penalty(), parameters, allow_unused=True)
    slope = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True) if g is not None)
    assert (moved(1e-7) - moved(-1e-7)) / 2e-7 == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("module", NETWORKS)
def test_generators_paint_in_any_precision(module: ModuleType) -> None:
    settings = small(g_conditional=True)
    generator, discriminator = pair(module, settings)
    given = latent(settings)
    x = generator(given)
    exact = generator.double()(Latent(given.z.double(), given.label))
    assert exact.dtype == torch.float64
    torch.testing.assert_close(x.double(), exact, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        rough = discriminator(generator.float()(given), given.label).logits
    torch.testing.assert_close(rough.float(), discriminator(x, given.label).logits, atol=0.1, rtol=0.1)


def test_each_class_has_its_own_gains_and_starts_without() -> None:
    generator, _ = pair(sngan, small(g_conditional=True))
    given = latent(generator.settings)
    other = Latent(given.z, torch.full_like(given.label, 2))
    assert torch.equal(generator(given), generator(other))
    with torch.no_grad():
        for name, p in generator.named_parameters():
            if name.endswith("gain.weight"):
                p[:, 2] = 1.0
    same = given.label == 2
    moved = (generator.eval()(given) - generator(other)).abs().amax((1, 2, 3)) > 0
    assert torch.equal(moved, ~same)


@pytest.mark.parametrize("conditional", [False, True])
def test_biggan_gives_each_block_a_part_of_z(conditional: bool) -> None:
    settings = small(g_conditional=conditional, z_dim=8)
    generator, _ = pair(biggan, settings)
    seen: list[Tensor] = []
    for block in generator.blocks:  # type: ignore[union-attr]
        block.register_forward_hook(lambda _, __, out: seen.append(out))
    given = latent(settings)
    generator(given)
    for part in range(4):
        z = given.z.clone()
        z[:, 2 * part : 2 * part + 2] += 1
        seen[3:] = []
        generator(Latent(z, given.label))
        same = [torch.equal(before, after) for before, after in zip(seen[:3], seen[3:], strict=True)]
        assert same == [block + 1 < part for block in range(3)]


def test_biggans_weights_are_orthogonal() -> None:
    for network in pair(biggan, small(g_conditional=True, d_head="projection")):
        for name, p in network.named_parameters():
            if p.ndim > 1:
                matrix = p.detach().flatten(1)
                matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.t()
                torch.testing.assert_close(matrix @ matrix.t(), torch.eye(len(matrix)), atol=1e-5, rtol=0, msg=name)
            else:
                assert torch.equal(p, torch.full_like(p, name.endswith("weight"))), name


def test_weights_are_drawn_as_wgan_gps_code_does() -> None:
    rng = philox(0)
    convolution = residual.initial_value("blocks.0.conv1.weight", (64, 32, 3, 3), rng)
    shortcut = residual.initial_value("blocks.0.shortcut.weight", (64, 32, 1, 1), rng)
    assert np.std(convolution) == pytest.approx((4 / (9 * 96)) ** 0.5, rel=0.02)  # type: ignore[arg-type]
    assert np.std(shortcut) == pytest.approx((2 / 96) ** 0.5, rel=0.05)  # type: ignore[arg-type]
    for name in (
        "blocks.0.conv1.bias",
        "blocks.0.norm1.gain.weight",
        "blocks.0.norm1.shift.weight",
        "attentions.1.gamma",
    ):
        assert residual.initial_value(name, (3, 4), rng) == 0
    assert residual.initial_value("norm.weight", (3,), rng) == 1


def test_what_cannot_be_built_is_refused() -> None:
    for module in NETWORKS:
        assert "network.size" in module.Generator.problem(small(size=16))
        assert "network.size" in module.Discriminator.problem(small(size=512))
    for module in sagan, biggan:
        for height in 4, 32, 12:
            assert "network.attention" in module.Generator.problem(small(attention=height))
            assert "network.attention" in module.Discriminator.problem(small(attention=height))
        assert module.Discriminator.problem(small(attention=8)) is None
    assert sngan.Generator.problem(small(attention=3)) is None
    assert "multiple of 4" in (biggan.Generator.problem(small(z_dim=10)) or "")
    assert biggan.Discriminator.problem(small(z_dim=10)) is None
