"""The augmentations against direct formulas, draw by draw."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck

from trainer.augment.ada import Ada, Transformation, amplify_bands, colour_matrix, values_of
from trainer.augment.base import Augmentation, AugmentSettings
from trainer.augment.diffaugment import DiffAugment
from trainer.augment.wavelets import band_matrices, downsampling_matrix, upsampling_matrix
from trainer.core.randomness import philox

CPU = torch.device("cpu")
ONE, ZERO = torch.tensor(1.0), torch.tensor(0.0)
WHOLE = "bgcfno"


def ada(pipe: str, size: int = 16) -> Ada:
    return Ada(AugmentSettings(kind="ada", pipe=pipe), (3, size, size))


def diffaugment(policy: str, size: int = 16) -> DiffAugment:
    return DiffAugment(AugmentSettings(kind="diffaugment", policy=policy), (3, size, size))


def pictures(n: int, size: int = 16, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(philox("pictures", n, size).uniform(-1, 1, (n, 3, size, size))).to(dtype)


def chosen(pipe: Ada, n: int = 1, **raw: float | tuple[float, ...]) -> dict[str, Tensor]:
    """Draws at which, with p = 1, only the named transformations happen, each with these raw draws."""
    draws = pipe.draw(philox("chosen"), n)
    draws["gate"].fill_(1)
    gate, column = 0, {"uniform": 0, "normal": 0}
    for t in pipe.transformations:
        if t.name in raw:
            draws["gate"][:, gate : gate + t.gates] = 0
            draws[t.law][:, column[t.law] : column[t.law] + t.width] = torch.tensor(raw[t.name])
        gate += t.gates
        column[t.law] += t.width
    return draws


def apply(pipe: Ada, x: Tensor, **raw: float | tuple[float, ...]) -> Tensor:
    return pipe(x, chosen(pipe, len(x), **raw), ONE)


def forward(pipe: Ada, draws: dict[str, Tensor]) -> Tensor:
    """G, from the paper's definitions: each transformation as it moves a point, the first one first."""
    t, _ = pipe.parameters({name: d.double() for name, d in draws.items()}, ONE)
    matrices = []
    for i in range(len(draws["gate"])):
        g = np.eye(3)
        turn = [math.pi / 2 * -t["quarters"][i], -t["turn"][i], -t["turn_again"][i]]
        spin = [np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) for a in map(float, turn)]
        whole, part = np.eye(3), np.eye(3)
        whole[:2, 2] = (t["shift"][i] * pipe.shape[1]).round().numpy()
        part[:2, 2] = (t["move"][i] * pipe.shape[1]).numpy()
        scale, stretch = float(t["scale"][i]), float(t["stretch"][i])
        for step in (
            np.diag([1 - 2 * float(t["flip"][i]), 1, 1]),
            *(spin[0], whole, np.diag([scale, scale, 1]), spin[1]),
            *(np.diag([stretch, 1 / stretch, 1]), spin[2], part),
        ):
            g = step @ g
        matrices.append(torch.from_numpy(g))
    return torch.stack(matrices)


# Filters


def test_half_the_doubled_resolution_is_the_picture() -> None:
    down, up = downsampling_matrix(16, CPU, torch.float64), upsampling_matrix(16, CPU, torch.float64)
    assert torch.allclose(down @ up[2:-1], torch.eye(16, dtype=torch.float64), atol=1e-10)
    assert torch.allclose(up.sum(1), torch.ones(45, dtype=torch.float64), atol=1e-8)  # a flat picture stays flat


@pytest.mark.parametrize("size", [8, 16, 64])
def test_the_bands_sum_to_the_picture(size: int) -> None:
    b = band_matrices(size, CPU, torch.float64)
    assert torch.allclose(b.sum(0), torch.eye(size, dtype=torch.float64), atol=1e-12)
    flat = torch.ones(size, dtype=torch.float64)
    assert torch.allclose(b @ flat, torch.tensor([[1.0], [0], [0], [0]], dtype=torch.float64).expand(4, size))
    finest = (-1.0) ** torch.arange(size, dtype=torch.float64)
    assert torch.allclose(b[3] @ finest, finest)


def test_filter_gains_keep_the_expected_power() -> None:
    x = pictures(1, 64)
    assert torch.allclose(amplify_bands(x, torch.ones(1, 4, dtype=torch.float64)), x, atol=1e-10)
    gains = torch.tensor([[1.0, 1, 3, 1]], dtype=torch.float64)
    f = sum(g * b for g, b in zip((1, 1, 3, 1), band_matrices(64, CPU, torch.float64), strict=True))
    assert isinstance(f, Tensor)
    assert torch.allclose(
        amplify_bands(x, gains), f @ x @ f.T / ((10 + 1 + 9 + 1) / 13)
    )  # once for each axis: a square


# Geometry


def smooth(size: int = 32) -> Tensor:
    """A picture of low frequencies: sym6, not quite symmetric, moves a mirrored picture by a tenth of a pixel."""
    y, x = torch.meshgrid(*[torch.arange(size, dtype=torch.float64)] * 2, indexing="ij")
    waves = [(0.2 * x + 0.1 * y).sin(), (0.15 * y - 0.05 * x).cos(), (0.1 * x).sin() * (0.2 * y).cos()]
    return torch.stack(waves)[None]


def test_flips_and_quarter_turns() -> None:
    x = smooth()
    assert torch.allclose(apply(ada("b", 32), x, flip=0.7), x.flip(3), atol=0.04)
    assert torch.allclose(apply(ada("bgc", 32), x, flip=0.2), x, atol=1e-6)
    for quarters in range(4):
        turned = apply(ada("b", 32), x, quarters=quarters / 4 + 0.1)
        assert torch.allclose(turned, x.rot90(quarters, (2, 3)), atol=0.04)


@pytest.mark.parametrize("x", [smooth(), pictures(1, 32)])
def test_whole_shifts_move_pixels(x: Tensor) -> None:
    """By 3 to the right and by 2 upwards; the mirrored border is that of the doubled resolution."""
    shifted = apply(ada("b", 32), x, shift=(0.5 + 3 / 8, 0.5 - 2 / 8))
    assert torch.allclose(shifted[:, :, 3:-7, 8:-3], x[:, :, 5:-5, 5:-6], atol=1e-5)
    if torch.equal(x, smooth()):
        mirrored = torch.nn.functional.pad(x, (3, 0, 0, 2), mode="reflect")[:, :, 2:, :-3]
        assert torch.allclose(shifted, mirrored, atol=0.04)


def test_a_turn_by_pi_is_two_flips() -> None:
    x = smooth()
    assert torch.allclose(apply(ada("g", 32), x, turn=1.0), x.flip(2, 3), atol=0.04)
    assert torch.allclose(apply(ada("g", 32), x, turn_again=0.0), x.flip(2, 3), atol=0.04)


def test_scale_stretch_and_move_sample_between_pixels() -> None:
    """On a wave along x, of which every sample is known."""
    size = 32
    u = torch.arange(size, dtype=torch.float64) - (size - 1) / 2

    def wave(u: Tensor) -> Tensor:
        return (0.3 * u).sin().expand(1, 3, size, size)

    inner = slice(6, -6)
    for raw, source in [
        ({"scale": math.log2(1.25) / 0.2}, u / 1.25),
        ({"stretch": math.log2(1.25) / 0.2}, u / 1.25),
        ({"move": (0.3, 0.1)}, u - 0.3 / 8 * size),
    ]:
        out = apply(ada("g", size), wave(u), **raw)  # type: ignore[arg-type]
        assert torch.allclose(out[..., inner], wave(source)[..., inner], atol=0.03), raw


def test_the_inverse_is_the_inverse() -> None:
    pipe = ada("bg", 64)
    draws = pipe.draw(philox("inverse"), 20)
    t, _ = pipe.parameters({name: d.double() for name, d in draws.items()}, ONE)
    eye = torch.eye(3, dtype=torch.float64).expand(20, 3, 3)
    assert torch.allclose(forward(pipe, draws) @ pipe.inverse(t), eye, atol=1e-10)


def test_points_far_outside_are_mirrored_again() -> None:
    """However small the picture becomes, nothing is empty."""
    x = torch.ones(1, 3, 16, 16, dtype=torch.float64)
    assert torch.allclose(apply(ada("g"), x, scale=-15.0, move=(40.0, -30.0)), x, atol=0.01)


# Colour


def test_brightness_adds_and_contrast_multiplies() -> None:
    x = pictures(2)
    assert torch.allclose(apply(ada("c"), x, brightness=1.5), x + 0.3)
    assert torch.allclose(apply(ada("c"), x, contrast=2.0), x * 2)
    assert torch.allclose(apply(ada("c"), x, brightness=1.5, contrast=2.0), (x + 0.3) * 2)


def test_saturation_keeps_the_grey_part() -> None:
    x = pictures(2)
    grey = x.mean(1, keepdim=True)
    assert torch.allclose(apply(ada("c"), x, saturation=1.0), grey + 2 * (x - grey))
    assert torch.allclose(apply(ada("c"), x, saturation=-60.0), grey.expand_as(x))


def test_luma_flip_negates_the_grey_part_and_undoes_itself() -> None:
    x = pictures(2)
    flipped = apply(ada("c"), x, luma_flip=0.5)
    assert torch.allclose(flipped, x - 2 * x.mean(1, keepdim=True))
    assert torch.allclose(apply(ada("c"), flipped, luma_flip=0.5), x)
    assert torch.allclose(apply(ada("c"), x, luma_flip=0.4), x)


def test_hue_turns_about_grey() -> None:
    x = pictures(2)
    third = apply(ada("c"), x, hue=0.5 + 1 / 3)  # 2π/3: red to green, green to blue, blue to red
    assert torch.allclose(third, x.roll(1, 1), atol=1e-6)
    t, _ = ada("c").parameters(chosen(ada("c"), hue=0.5), ONE)
    whole = colour_matrix(t | {"hue": torch.full((1,), 4 * math.pi)})
    assert torch.allclose(whole, torch.eye(4)[None], atol=1e-6)


# Noise and cutout


def test_noise_adds_its_field() -> None:
    x, pipe = pictures(2), ada("n")
    draws = chosen(pipe, 2, sigma=-2.0)
    assert torch.allclose(pipe(x, draws, ONE), x + 0.2 * draws["noise"])


def test_cutout_empties_a_square() -> None:
    expected = pictures(1)
    x = expected.clone()
    expected[:, :, 8:16, 2:10] = 0  # centre (x, y) = (6, 12)
    assert torch.equal(apply(ada("o"), x, centre=(6 / 16, 12 / 16)), expected)
    expected = x.clone()
    expected[:, :, :4, :4] = 0
    assert torch.equal(apply(ada("o"), x, centre=(0.0, 0.0)), expected)


# What holds for all of ADA


@pytest.mark.parametrize("pipe", [*WHOLE, "bgc", WHOLE])
def test_p_zero_changes_no_bit(pipe: str) -> None:
    x = pictures(3, dtype=torch.float32)
    assert torch.equal(ada(pipe)(x, ada(pipe).draw(philox("draws"), 3), ZERO), x)


def test_neutral_parameters_change_nothing() -> None:
    """That of which a part happens goes through the whole pipe, where the rest is the identity."""
    x = pictures(3, 32, torch.float32)
    assert torch.allclose(apply(ada(WHOLE, 32), x, flip=0.3), x, atol=3e-5)
    assert torch.allclose(apply(ada(WHOLE, 32), x.double(), flip=0.3), x.double(), atol=1e-8)


def changed(t: Transformation, values: Tensor) -> Tensor:
    """Which parameters are not neutral, one column for each gate."""
    neutral = values_of(torch.full((1, t.width), float(t.still)), [t])[t.name].flatten()[0]
    return (values.reshape(len(values), t.gates, -1) != neutral).any(2).double()


def test_each_transformation_happens_with_probability_p() -> None:
    n, pipe, p = 40_000, ada(WHOLE, 8), torch.tensor(0.3)
    draws = {name: d for name, d in pipe.draw(philox("many"), n).items() if name != "noise"}
    values, happens = pipe.parameters(draws, p)
    idle = {"flip": 1 / 2, "quarters": 1 / 4, "luma_flip": 1 / 2}  # happens, and leaves things as they are
    none = 1.0
    for t in pipe.transformations:
        each = 1 - math.sqrt(0.7) if t.name in ("turn", "turn_again") else 0.3
        none *= (1 - each) ** t.gates
        expected = each * (1 - idle.get(t.name, 0))
        share = changed(t, values[t.name]).mean(0)
        assert ((share - expected).abs() < 6 * math.sqrt(expected * (1 - expected) / n)).all(), t.name
    turned = ((values["turn"] != 0) | (values["turn_again"] != 0)).double().mean()
    assert abs(turned - 0.3) < 6 * math.sqrt(0.21 / n)
    assert abs(happens.double().mean() - (1 - none)) < 6 * math.sqrt(none * (1 - none) / n)


def test_colour_happens_with_its_share_of_the_probability() -> None:
    n, p = 40_000, torch.tensor(0.3)
    pipe = Ada(AugmentSettings(kind="ada", pipe="gc", colour_share=0.5), (3, 8, 8))
    values, _ = pipe.parameters(pipe.draw(philox("many"), n), p)
    for t in pipe.transformations:
        expected = 0.15 if t.letter == "c" else 1 - math.sqrt(0.7) if "turn" in t.name else 0.3
        share = changed(t, values[t.name]).mean() * (2 if t.name == "luma_flip" else 1)  # half of them change nothing
        assert abs(share - expected) < 8 * math.sqrt(expected / n), t.name


def test_parameters_have_the_paper_s_distributions() -> None:
    n, pipe = 40_000, ada(WHOLE, 8)
    draws = {name: d for name, d in pipe.draw(philox("laws"), n).items() if name != "noise"}
    t, _ = pipe.parameters(draws, ONE)
    spread = {
        "shift": 0.25 / math.sqrt(12),
        "turn": 2 * math.pi / math.sqrt(12),
        "move": 0.125,
        "brightness": 0.2,
        "hue": 2 * math.pi / math.sqrt(12),
    }
    logarithmic = {"scale": 0.2, "stretch": 0.2, "contrast": 0.5, "saturation": 1.0, "gains": 1.0}
    for name, std in spread.items():
        assert abs(t[name].std() / std - 1) < 0.03, name
    for name, std in logarithmic.items():
        assert abs(t[name].log2().std() / std - 1) < 0.03, name
    assert abs(t["sigma"].square().mean().sqrt() / 0.1 - 1) < 0.03
    assert (t["quarters"].unique() == torch.arange(4)).all()


def test_unknown_letters_are_refused() -> None:
    assert Ada.problem(AugmentSettings(pipe="onfcgb")) is None
    problem = Ada.problem(AugmentSettings(pipe="bgx"))
    assert problem is not None
    assert "'x'" in problem
    assert "b (blit)" in problem
    assert "empty" in str(Ada.problem(AugmentSettings(pipe="")))


# What holds for every augmentation

EVERY: list[Augmentation] = [
    *(ada(pipe, 8) for pipe in (*WHOLE, WHOLE)),
    *(diffaugment(policy, 8) for policy in ("color", "translation", "cutout", "color,translation,cutout")),
]
NAMES = [a.settings.pipe if isinstance(a, Ada) else a.settings.policy for a in EVERY]


@pytest.mark.parametrize("augment", EVERY, ids=NAMES)
def test_gradients_and_their_gradients(augment: Augmentation) -> None:
    x = pictures(1, 8).requires_grad_()
    draws = augment.draw(philox("gradients"), 1)
    assert gradcheck(lambda x: augment(x, draws, ONE), x, fast_mode=True)
    assert gradgradcheck(lambda x: augment(x, draws, ONE) ** 2, x, fast_mode=True)


@pytest.mark.parametrize("augment", EVERY, ids=NAMES)
def test_a_picture_depends_on_itself_only(augment: Augmentation) -> None:
    x, p = pictures(4, 8), torch.tensor(0.7)
    draws = augment.draw(philox("alone"), 4)
    together = augment(x, draws, p)
    alone = [augment(x[i : i + 1], {k: d[i : i + 1] for k, d in draws.items()}, p) for i in range(4)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-9)
    assert together.shape == x.shape


@pytest.mark.parametrize("augment", [EVERY[6], EVERY[-1]], ids=["ada", "diffaugment"])
def test_precision_is_float32_whatever_comes_in(augment: Augmentation) -> None:
    x = pictures(4, 8, torch.float32)
    draws = augment.draw(philox("precision"), 4)
    assert all(len(d) == 4 and d.device == CPU for d in draws.values())
    out = augment(x, draws, ONE)
    assert out.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment(x, draws, ONE), out)
        assert augment(x.bfloat16(), draws, ONE).dtype == torch.float32
    assert torch.allclose(augment(x.contiguous(memory_format=torch.channels_last), draws, ONE), out, atol=1e-5)
    assert torch.allclose(augment(x.double(), draws, ONE), out.double(), atol=1e-3)


@pytest.mark.parametrize("augment", [EVERY[6], EVERY[-1]], ids=["ada", "diffaugment"])
def test_the_host_reads_nothing(augment: Augmentation) -> None:
    """Tensors without contents: a value that the host wants, or a shape that depends on one, is an error."""
    x, p = pictures(2, 8, torch.float32), torch.tensor(0.5)
    draws = augment.draw(philox("fake"), 2)
    augment(x, draws, p)  # keeps the constants
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        out = augment(fake.from_tensor(x), {k: fake.from_tensor(d) for k, d in draws.items()}, fake.from_tensor(p))
    assert out.shape == x.shape


@pytest.mark.parametrize("augment", [EVERY[6], EVERY[-1]], ids=["ada", "diffaugment"])
def test_draws_are_a_function_of_their_key(augment: Augmentation) -> None:
    first, second = augment.draw(philox("key"), 3), augment.draw(philox("key"), 3)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


# DiffAugment


def test_color_is_brightness_then_saturation_then_contrast() -> None:
    x = pictures(2)
    u = torch.tensor([[0.9, 0.25, 0.8], [0.1, 1.0, 0.3]])
    out = diffaugment("color")(x, {"color": u}, ONE)
    for picture, (brightness, saturation, contrast), result in zip(x, u.double(), out, strict=True):
        y = picture + brightness - 0.5
        grey = y.mean(0, keepdim=True)
        y = grey + 2 * saturation * (y - grey)
        assert torch.allclose(result, y.mean() + (contrast + 0.5) * (y - y.mean()))


def test_translation_leaves_zeros_behind() -> None:
    x = pictures(2)
    out = diffaugment("translation")(x, {"translation": torch.tensor([[2, -1], [0, 0]])}, ONE)
    expected = torch.zeros_like(x[0])
    expected[:, 2:, :-1] = x[0, :, :-2, 1:]
    assert torch.equal(out, torch.stack([expected, x[1]]))


def test_cutout_is_half_the_side() -> None:
    x = pictures(2)
    out = diffaugment("cutout")(x, {"cutout": torch.tensor([[5, 16], [8, 8]])}, ONE)
    expected = x.clone()
    expected[0, :, 1:9, 12:] = 0
    expected[1, :, 4:12, 4:12] = 0
    assert torch.equal(out, expected)


def test_diffaugment_draws_the_whole_range() -> None:
    draws = diffaugment("color,translation,cutout", 32).draw(philox("range"), 5_000)
    assert draws["translation"].unique().tolist() == list(range(-4, 5))
    assert draws["cutout"].unique().tolist() == list(range(33))
    assert abs(draws["color"].mean() - 0.5) < 0.02


def test_the_policy_s_order_counts_and_p_does_not() -> None:
    x, a, b = pictures(3), diffaugment("color,cutout"), diffaugment("cutout,color")
    draws = a.draw(philox("order"), 3)
    assert not torch.allclose(a(x, draws, ONE), b(x, draws, ONE))
    assert torch.equal(a(x, draws, ONE), a(x, draws, ZERO))


@pytest.mark.parametrize(
    ("policy", "words"),
    [("color,cutot", "did you mean 'cutout'?"), ("zzz", "the parts are color"), ("color,color", "twice")],
)
def test_wrong_policies_are_refused(policy: str, words: str) -> None:
    problem = DiffAugment.problem(AugmentSettings(policy=policy))
    assert problem is not None
    assert words in problem
    assert DiffAugment.problem(AugmentSettings(policy="cutout,color")) is None
