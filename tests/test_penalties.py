"""Each penalty against its closed form, and its gradients against finite differences, on networks of a few weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn import functional as F

from tests.made_batches import made_batches
from trainer.augment.base import AugmentSettings
from trainer.augment.pipeline import AugmentPipeline
from trainer.config.config import Config
from trainer.config.groups import OptimizerSettings
from trainer.core.randomness import philox
from trainer.core.running_scalars import RunningScalars
from trainer.distributed.world import World
from trainer.gan.assembly import assemble_step, create_state, reduce_exactly
from trainer.gan.fingerprint import fingerprint
from trainer.gan.state import TrainState
from trainer.gan.step import GanStep
from trainer.losses.batch import Batch
from trainer.losses.discriminator_pass import DiscriminatorPass, Models
from trainer.losses.objectives import OBJECTIVES
from trainer.losses.penalties import Penalties
from trainer.losses.penalties.base import Penalty, Weighted
from trainer.losses.penalties.classes import DiscriminatorClasses, GeneratorClasses, Style, StyleAmbiguity
from trainer.losses.penalties.consistency import Consistency, mirror_and_shift
from trainer.losses.penalties.feature_matching import FeatureMatching
from trainer.losses.penalties.latent_consistency import DiscriminatorLatentConsistency, GeneratorLatentConsistency
from trainer.losses.penalties.lecam import LeCam
from trainer.losses.penalties.orthogonal import Orthogonal
from trainer.losses.penalties.path_length import PathLength
from trainer.losses.penalties.r1_r2 import R1, R2
from trainer.losses.penalties.reconstruction import Reconstruction
from trainer.losses.penalties.wgan_gp import Dragan, WganGp
from trainer.networks import DISCRIMINATORS, GENERATORS
from trainer.networks.base import Discriminator, DiscriminatorOutput, Generator, Latent, Weights, pack_images
from trainer.networks.batch_norm import BatchNorm2d
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.spectral_norm import add_spectral_norm

N, SIZE = 4, 6
SETTINGS = NetworkSettings(size=SIZE, z_dim=3, classes=3)


def noise(name: str, *shape: int) -> Tensor:
    return torch.from_numpy(philox("penalties", name).standard_normal(shape))


def close(a: Tensor, b: Tensor | float) -> None:
    torch.testing.assert_close(a.detach(), torch.as_tensor(b, dtype=a.dtype).detach(), rtol=1e-10, atol=1e-10)


def initial_value(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Weights | None:
    return rng.normal(0, 0.3, shape)


class Linear(Discriminator):
    """D(x) = <w, x>, over packs of pictures."""

    initial_value = staticmethod(initial_value)

    def __init__(self, m: int = 1) -> None:
        super().__init__(SETTINGS)
        self.m = m
        self.w = nn.Parameter(noise("w", m * 3 * SIZE**2))

    def forward(self, x: Tensor, label: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(pack_images(x, self.m).flatten(1) @ self.w)


class Quadratic(Discriminator):
    """D(x) = x' A x / 2, with A symmetric."""

    initial_value = staticmethod(initial_value)

    def __init__(self) -> None:
        super().__init__(SETTINGS)
        a = noise("a", 3 * SIZE**2, 3 * SIZE**2) / 30
        self.a = nn.Parameter(a + a.t())

    def forward(self, x: Tensor, label: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(0.5 * ((x.flatten(1) @ self.a) * x.flatten(1)).sum(1))


class Mean(Discriminator):
    """The root mean square of each channel: mirroring does not change it."""

    initial_value = staticmethod(initial_value)

    def __init__(self) -> None:
        super().__init__(SETTINGS)
        self.w = nn.Parameter(noise("mean", 3))

    def forward(self, x: Tensor, label: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(x.square().mean((2, 3)).sqrt() @ self.w)


class Smooth(Discriminator):
    """A convolution, softplus, and on them a logit, guesses of three classes, and a picture reconstructions."""

    initial_value = staticmethod(initial_value)
    reconstructs = True

    def __init__(self, settings: NetworkSettings = SETTINGS) -> None:
        super().__init__(settings)
        features = 2 * (settings.size // 2) ** 2
        self.conv = nn.Conv2d(3, 2, 3, 2, 1)
        self.head, self.classify, self.rebuild = nn.Linear(features, 1), nn.Linear(features, 3), nn.Linear(2, 3)

    def forward(self, x: Tensor, label: Tensor) -> DiscriminatorOutput:
        features = F.softplus(self.conv(x))
        flat = features.flatten(1)
        reconstructions = self.rebuild(features.mean((2, 3))), x.mean((2, 3))
        return DiscriminatorOutput(self.head(flat).flatten(), self.classify(flat), reconstructions, features=flat)


class OfPixels(Smooth):
    """And a logit for each pixel."""

    judges_pixels = True

    def __init__(self, settings: NetworkSettings = SETTINGS) -> None:
        super().__init__(settings)
        self.pixels = nn.Conv2d(3, 1, 3, 1, 1)

    def forward(self, x: Tensor, label: Tensor) -> DiscriminatorOutput:
        return super().forward(x, label)._replace(pixels=self.pixels(x)[:, 0])


class Painter(Generator):
    """G(z) = M z."""

    initial_value = staticmethod(initial_value)

    def __init__(self, settings: NetworkSettings = SETTINGS) -> None:
        super().__init__(settings)
        self.m = nn.Parameter(noise("m", 3 * settings.size**2, settings.z_dim).float() / 10)

    def synthesize(self, code: Tensor, latent: Latent) -> Tensor:
        painted: Tensor = (code @ self.m.t()).unflatten(1, (3, self.settings.size, self.settings.size))
        return painted


class Layered(Painter):
    """Like StyleGAN2: w = tanh(A z), one for each of L layers, and G = sum over layers of M_l w_l."""

    LAYERS = 5

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(noise("mapping", 3, 3))
        self.layers = nn.Parameter(noise("layers", self.LAYERS, 3 * SIZE**2, 3) / 10)

    def latent_code(self, latent: Latent) -> Tensor:
        return (latent.z @ self.a.t()).tanh()[:, None].expand(-1, self.LAYERS, -1)

    def synthesize(self, code: Tensor, latent: Latent) -> Tensor:
        painted: Tensor = torch.einsum("nlw,lpw->np", code, self.layers).unflatten(1, (3, SIZE, SIZE))
        return painted


class SmoothPainter(Painter):
    """G(z) = tanh(M z)."""

    def synthesize(self, code: Tensor, latent: Latent) -> Tensor:
        return super().synthesize(code, latent).tanh()


def look(
    d: Discriminator,
    g: Generator | None = None,
    n: int = N,
    label: Iterable[int] | None = None,
    running_scalars: RunningScalars | None = None,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> DiscriminatorPass:
    """A round over made pictures, which paints them where there is somebody to paint."""
    labels = torch.tensor(list(label) if label is not None else [-1] * n)
    latent = Latent(noise("z", n, 3).to(dtype), labels)
    real = noise("real", n, 3, SIZE, SIZE).to(dtype)
    fake = g(latent) if g else noise("fake", n, 3, SIZE, SIZE).to(dtype).requires_grad_()
    batch = Batch(0, 0, real, latent, {"show real": {}, "show fake": {}}, 0)
    augment_pipeline = AugmentPipeline(AugmentSettings(), (3, SIZE, SIZE), 0, n)
    models = Models(g or Painter().double(), d, augment_pipeline, running_scalars or {})
    return DiscriminatorPass(models, batch, fake, d, torch.tensor(scale), True)


def drawn(penalty: Penalty, n: int = N) -> dict[str, Tensor]:
    draws = penalty.draw(philox("draws", type(penalty).__name__), n, SETTINGS)
    return {name: t.double() if t.dtype == torch.float32 else t for name, t in draws.items()}


def value(penalty: Penalty, seen: DiscriminatorPass) -> Tensor:
    return penalty(seen, drawn(penalty, len(seen.batch.label)))[0]


# Gradient penalties


@pytest.mark.parametrize("penalty", [R1(), R2()])
def test_r1_and_r2_of_a_linear_discriminator(penalty: Penalty) -> None:
    d = Linear()
    loss = value(penalty, look(d))
    close(loss, 0.5 * d.w.square().sum())
    loss.backward()
    assert d.w.grad is not None
    close(d.w.grad, d.w)


def test_r1_and_r2_of_a_quadratic_discriminator() -> None:
    """The gradient is A x, at reals for R1 and at fakes for R2."""
    d, seen = Quadratic(), look(Quadratic())
    for penalty, x in ((R1(), seen.real), (R2(), seen.fake)):
        close(value(penalty, look(d)), 0.5 * (x.flatten(1) @ d.a).square().sum(1).mean())


def test_a_packed_discriminators_gradient_is_that_of_the_pack() -> None:
    """What D judges is a pack, so the length is that over all pictures in it."""
    d = Linear(2)
    half_square, from_one = 0.5 * d.w.square().sum(), (d.w.norm() - 1).square()
    expected = ((R1(), half_square), (R2(), half_square), (WganGp(), from_one), (Dragan(), from_one))
    for penalty, closed_form in expected:
        close(value(penalty, look(d)), closed_form)


def test_wgan_gp_of_a_quadratic_discriminator() -> None:
    """With x = a real + (1 - a) fake, one a for each picture: E (|A x| - 1)²."""
    d, seen = Quadratic(), look(Quadratic())
    alpha = drawn(WganGp())["alpha"].flatten()
    assert alpha.shape == (N,)
    assert len(alpha.unique()) == N
    x = torch.stack([a * r + (1 - a) * f for a, r, f in zip(alpha, seen.real, seen.fake, strict=True)]).flatten(1)
    close(value(WganGp(), look(d)), ((x @ d.a).norm(dim=1) - 1).square().mean())


def test_dragan_of_a_quadratic_discriminator() -> None:
    d, seen = Quadratic(), look(Quadratic())
    draws = drawn(Dragan())
    pixels = seen.real.detach().numpy()
    x = pixels + draws["alpha"].numpy() * 0.5 * pixels.std(ddof=1) * draws["u"].numpy()
    gradient = x.reshape(N, -1) @ d.a.detach().numpy()
    close(value(Dragan(), look(d)), ((np.linalg.norm(gradient, axis=1) - 1) ** 2).mean())
    assert draws["u"].shape == (N, 3, SIZE, SIZE)
    assert draws["alpha"].shape == (N, 1, 1, 1)


@pytest.mark.parametrize("size", [0, 8])
def test_draws_have_the_shape_of_pictures_or_of_points(size: int) -> None:
    settings = replace(SETTINGS, size=size)
    shape, rng = settings.data_shape, philox("shapes")
    x = torch.zeros(N, *shape)
    for penalty in (WganGp(), Dragan(), PathLength()):
        for draw in penalty.draw(rng, N, settings).values():
            assert (x[: len(draw)] * draw).shape == (len(draw), *shape)
    assert PathLength().draw(rng, 4000, settings)["y"].std().item() == pytest.approx(1 / max(size, 1), rel=0.05)


def test_the_loss_scale_changes_no_bit_of_a_gradient() -> None:
    gradients = []
    for scale in (1.0, 2.0**10):
        seen = look(Linear().float(), scale=scale, dtype=torch.float32)
        gradients.append(seen.gradient(seen.d_real.logits, seen.real))
    assert torch.equal(gradients[0], gradients[1])
    assert gradients[0].any()


def test_the_loss_scale_keeps_what_fp16_would_lose() -> None:
    """A gradient of 2^-26 is below half precision's smallest number; scaled by 2^10 it is not."""
    x = torch.zeros(2, 3, requires_grad=True)
    for scale, kept in ((1.0, False), (2.0**10, True)):
        seen = look(Linear(), scale=scale)
        gradient = seen.gradient(x.half() * 2.0**-13 * 2.0**-13, x)
        assert bool((gradient == 2.0**-26).all()) is kept


# The generator's path lengths


def test_path_length_of_a_linear_generator() -> None:
    """|M' y| for each of the first half of the pictures."""
    g, a = Painter().double(), 0.3
    draws = drawn(PathLength())
    seen = look(Linear(), g, running_scalars={"path_length_mean": torch.tensor(a, dtype=torch.float64)})
    loss, measured = PathLength()(seen, draws)
    lengths = [(g.m.t() @ draws["y"][i].flatten()).norm() for i in range(N // 2)]
    close(measured["path_length_now"], torch.stack(lengths).mean())
    close(loss, torch.stack([(length - a) ** 2 for length in lengths]).mean())


def test_path_length_in_w_is_averaged_over_the_layers() -> None:
    """The root of the mean over layers of |M_l' y|²: the mapping network has no part in it."""
    g = Layered().double()
    draws = drawn(PathLength())
    seen = look(Linear(), g, running_scalars={"path_length_mean": torch.tensor(0.0)})
    loss, measured = PathLength()(seen, draws)
    layers = g.layers.detach().numpy()
    lengths = [
        np.sqrt(np.mean([((layer.T @ draws["y"][i].flatten().numpy()) ** 2).sum() for layer in layers]))
        for i in range(N // 2)
    ]
    close(measured["path_length_now"], np.mean(lengths))
    close(loss, np.square(lengths).mean())
    loss.backward()
    assert g.layers.grad is not None
    assert g.layers.grad.any()


def test_the_mean_path_length_follows_its_recursion() -> None:
    running_scalars = {"path_length_mean": torch.tensor(0.0, dtype=torch.float64)}
    mean = 0.0
    for k in range(50):
        PathLength().update_scalars(running_scalars, {"path_length_now": torch.tensor(1.0 + k, dtype=torch.float64)})
        mean = 0.99 * mean + 0.01 * (1.0 + k)
        close(running_scalars["path_length_mean"], mean)


# Latent consistency


def test_latent_consistency_of_linear_networks() -> None:
    """G(z) = M z and D(x) = w · x: what remains of two neighbours is what becomes of the step between them."""
    g, d = Painter().double(), Linear()
    step = drawn(GeneratorLatentConsistency())["step"]
    moved = step @ g.m.t()
    loss = value(GeneratorLatentConsistency(), look(d, g))
    close(loss, -moved.square().mean())
    loss.backward()
    assert g.m.grad is not None
    close(g.m.grad, -2 * moved.t() @ step / moved.numel())
    g, step = Painter().double(), drawn(DiscriminatorLatentConsistency())["step"]
    loss = value(DiscriminatorLatentConsistency(), look(d, g))
    close(loss, (step @ g.m.t() @ d.w).square().mean())
    loss.backward()
    assert d.w.grad is not None
    assert d.w.grad.any()
    assert torch.cat([drawn(DiscriminatorLatentConsistency(), 4000)["step"]]).std().item() == pytest.approx(0.05, 0.05)


# Feature matching


def test_feature_matching_of_linear_features() -> None:
    """With f(x) = x: the squared distance between the means, and a gradient that moves every fake alike."""

    class Itself(Linear):
        def forward(self, x: Tensor, label: Tensor) -> DiscriminatorOutput:
            return super().forward(x, label)._replace(features=x.flatten(1))

    seen = look(Itself(), SmoothPainter().double())
    seen.fake.retain_grad()
    apart = seen.fake.flatten(1).mean(0) - seen.real.flatten(1).mean(0)
    loss = value(FeatureMatching(), seen)
    close(loss, apart.square().sum())
    loss.backward()
    assert seen.fake.grad is not None
    close(seen.fake.grad.flatten(1), (2 * apart / N).expand(N, -1))
    assert seen.real.grad is None


# LeCam


def test_lecam_follows_its_formula_over_updates() -> None:
    """Running means are plain means over the first 100 updates, then they decay by 0.99; none: nothing counts."""
    d = Linear()
    running_scalars = {name: torch.tensor(first, dtype=torch.float64) for name, first in LeCam.running_scalars.items()}
    sides: dict[str, list[float]] = {"real": [], "fake": []}
    mean = {"real": 0.0, "fake": 0.0}
    for k in range(130):
        d.w.data = noise(f"lecam {k}", 3 * SIZE**2)
        seen = look(d, running_scalars=running_scalars)
        loss = value(LeCam(), seen)
        real, fake = (seen.real.flatten(1) @ d.w).tolist(), (seen.fake.flatten(1) @ d.w).tolist()
        beyond_fake = sum(max(0.0, r - mean["fake"]) ** 2 for r in real) / N
        beyond_real = sum(max(0.0, mean["real"] - f) ** 2 for f in fake) / N
        close(loss, beyond_fake + beyond_real if k else 0.0)
        for side, logits in (("real", real), ("fake", fake)):
            sides[side].append(sum(logits) / N)
            mean[side] = sum(sides[side]) / (k + 1) if k < 100 else 0.99 * mean[side] + 0.01 * sides[side][-1]
        means = {f"logits_{side}": torch.tensor(sides[side][-1], dtype=torch.float64) for side in sides}
        LeCam().update_scalars(running_scalars, means)
        for side in sides:
            close(running_scalars[f"lecam_{side}"], mean[side])


# Consistency


def moved_by_hand(x: Tensor, flip: bool, shift: tuple[int, int]) -> Tensor:
    """Mirror, then move up and to the left, pixel by pixel, with reflection at the border."""
    y = torch.flip(x, (2,)) if flip else x
    size = x.shape[1]
    out = torch.empty_like(x)
    for row in range(size):
        for column in range(size):
            i, j = (abs(place) for place in (row + shift[0], column + shift[1]))
            out[:, row, column] = y[:, min(i, 2 * (size - 1) - i), min(j, 2 * (size - 1) - j)]
    return out


def test_pictures_are_mirrored_and_shifted_with_reflection() -> None:
    x = noise("move", 81, 3, SIZE, SIZE)
    flip = torch.arange(81) % 2 == 0
    shift = torch.cartesian_prod(torch.arange(-4, 5), torch.arange(-4, 5))
    for i, y in enumerate(mirror_and_shift(x, flip, shift)):
        assert torch.equal(y, moved_by_hand(x[i], bool(flip[i]), (int(shift[i, 0]), int(shift[i, 1]))))


def test_the_draws_of_consistency_reach_everywhere() -> None:
    draws = Consistency().draw(philox("reach"), 3000, SETTINGS)
    assert set(draws["shift"].flatten().tolist()) == set(range(-4, 5))
    assert draws["flip"].double().mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.05)
    assert not torch.equal(draws["flip"][:, 0], draws["flip"][:, 1])


def test_consistency_is_zero_for_an_invariant_discriminator() -> None:
    draws = {"flip": torch.ones(N, 2, dtype=torch.bool), "shift": torch.zeros(N, 2, 2, dtype=torch.int64)}
    close(Consistency()(look(Mean()), draws)[0], 0.0)
    assert Consistency()(look(Linear()), draws)[0] > 1


def test_consistency_equals_its_direct_computation() -> None:
    d, draws = Linear(), drawn(Consistency())
    seen = look(d)
    loss = Consistency()(seen, draws)[0]
    w, total, gradient = d.w.detach(), 0.0, torch.zeros_like(d.w)
    for k, x in enumerate((seen.real.detach(), seen.fake.detach())):
        for i in range(N):
            flip, shift = bool(draws["flip"][i, k]), draws["shift"][i, k].tolist()
            difference = (moved_by_hand(x[i], flip, (shift[0], shift[1])) - x[i]).flatten()
            total += (difference @ w).item() ** 2 / N
            gradient += 2 * (difference @ w) * difference / N
    close(loss, total)
    loss.backward()
    assert d.w.grad is not None
    close(d.w.grad, gradient)


# Weights


def test_orthogonal_sums_the_squares_off_the_diagonal() -> None:
    class Several(Linear):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.conv = nn.Linear(5, 4), nn.Conv2d(2, 3, 3)
            self.up = nn.ConvTranspose2d(4, 3, 2)
            self.embed = nn.Linear(5, 5)

    d = Several().double()
    up = d.up.weight
    by_output = [d.linear.weight, d.conv.weight.flatten(1), up.permute(1, 0, 2, 3).flatten(1)]
    expected = sum((w[i] @ w[j]) ** 2 for w in by_output for i in range(len(w)) for j in range(len(w)) if i != j)
    close(value(Orthogonal("d"), look(d)), expected)
    add_spectral_norm(d)
    close(value(Orthogonal("d"), look(d)), expected)


def test_orthogonal_looks_at_its_own_network() -> None:
    g = Painter().double()
    product = g.m @ g.m.t()
    close(value(Orthogonal("g"), look(Smooth().double(), g)), (product - product.diag().diag()).square().sum())


# Classes


def entropies(d: Discriminator, x: Tensor, label: list[int]) -> float:
    guesses = d(x, torch.tensor(label)).classes
    assert guesses is not None
    known: list[float] = [-guesses[i].log_softmax(0)[k].item() for i, k in enumerate(label) if k >= 0]
    return sum(known) / len(known)


class TwoLabels(Smooth):
    """It guesses three classes of one label, and two of another."""

    def __init__(self) -> None:
        super().__init__(replace(SETTINGS, classes=0, label_columns="a,b", label_kinds="3 classes, 2 classes"))
        self.classify = nn.Linear(self.classify.in_features, 5)


def test_class_losses_of_several_labels_add_up() -> None:
    d = TwoLabels().double()
    rows = [[0, 1], [2, -1], [-1, 0], [1, 1]]
    latent = Latent(noise("z", N, 3), torch.tensor(rows, dtype=torch.float64))
    seen = replace(look(d), batch=replace(look(d).batch, latent=latent))
    found = [d(x, latent.label).classes for x in (seen.real, seen.fake)]
    expected = 0.0
    for guesses in found:
        assert guesses is not None
        for logits, label in ((guesses[:, :3], [0, 2, -1, 1]), (guesses[:, 3:], [1, -1, 0, 1])):
            known: list[float] = [-logits[i].log_softmax(0)[k].item() for i, k in enumerate(label) if k >= 0]
            expected += sum(known) / len(known)
    close(value(DiscriminatorClasses(), seen), expected)


@pytest.mark.parametrize("label", [[0, 2, 1, 1], [2, -1, 0, -1]])
def test_class_losses_are_cross_entropies_over_known_classes(label: list[int]) -> None:
    d = Smooth().double()
    seen = look(d, label=label)
    real, fake = entropies(d, seen.real, label), entropies(d, seen.fake, label)
    close(value(DiscriminatorClasses(), look(d, label=label)), real + fake)
    close(value(GeneratorClasses(), look(d, label=label)), fake)
    close(value(Style(), look(d, label=label)), real)


def test_without_a_known_class_there_is_no_class_loss() -> None:
    d = Smooth().double()
    for penalty in (DiscriminatorClasses(), GeneratorClasses(), Style()):
        loss = value(penalty, look(d))
        close(loss, 0.0)
        loss.backward()
    assert d.classify.weight.grad is not None
    assert not d.classify.weight.grad.any()


class Guess(Linear):
    """Guesses that are its weights."""

    def __init__(self, guesses: Tensor) -> None:
        super().__init__()
        self.guesses = nn.Parameter(guesses)

    def forward(self, x: Tensor, label: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(super().forward(x, label).logits, self.guesses)


def ambiguity(guesses: Tensor) -> tuple[float, Tensor]:
    d = Guess(guesses)
    loss = value(StyleAmbiguity(), look(d))
    loss.backward()
    assert d.guesses.grad is not None
    return loss.item(), d.guesses.grad


@pytest.mark.parametrize("k", [2, 3, 27])
def test_ambiguity_is_least_where_every_style_is_as_likely(k: int) -> None:
    """There it is log K - (K - 1) log(1 - 1/K), the sum of K entropies of a coin of bias 1/K."""
    least, gradient = ambiguity(torch.full((N, k), 0.7, dtype=torch.float64))
    assert least == pytest.approx(math.log(k) - (k - 1) * math.log(1 - 1 / k), abs=1e-10)
    close(gradient, torch.zeros(N, k))
    for trial in range(20):
        assert ambiguity(noise(f"guesses {trial}", N, k))[0] > least + 1e-3


def test_ambiguity_is_the_papers_sum_and_finite_at_certainty() -> None:
    guesses = noise("styles", N, 5)
    p = guesses.softmax(1)
    terms = 1 / 5 * p.log() + 4 / 5 * (1 - p).log()
    assert ambiguity(guesses)[0] == pytest.approx(-terms.sum(1).mean().item(), abs=1e-10)
    certain = torch.zeros(N, 5)
    certain[:, 0] = 200.0
    loss, gradient = ambiguity(certain.double())
    assert math.isfinite(loss)
    assert gradient.isfinite().all()
    assert (gradient[:, 0] > 0).all()  # downhill is away from certainty


def test_reconstruction_is_the_mean_squared_error_of_each_pair() -> None:
    class Rebuilds(Linear):
        def forward(self, x: Tensor, label: Tensor) -> DiscriminatorOutput:
            halves = x[:, :, ::2, ::2]
            return DiscriminatorOutput(super().forward(x, label).logits, None, (x * 0.5, x, halves + 2, halves))

    x = look(Linear()).real
    close(value(Reconstruction(), look(Rebuilds())), 0.25 * x.square().mean() + 4)


# Gradients of every penalty


@pytest.mark.parametrize("name", [f.name for f in fields(Penalties)])
def test_gradients_equal_finite_differences(name: str) -> None:
    penalties = Penalties(**{name: Weighted(1.0)})
    (active,) = penalties.active()
    penalty = active.penalty
    d = (OfPixels() if penalty.wants_pixels else Smooth()).double()
    g = (Layered() if name == "path_length" else SmoothPainter()).double()
    running_scalars = {
        key: torch.tensor(0.05 if "real" not in key else 0.4, dtype=torch.float64) for key in penalty.running_scalars
    }
    if name == "lecam":
        running_scalars["lecam_updates"].fill_(3)
    network: nn.Module = g if penalty.network_name == "g" else d

    def loss(*_: Tensor) -> Tensor:
        seen = look(
            d, g if penalty.network_name == "g" else None, label=[0, 2, -1, 1], running_scalars=dict(running_scalars)
        )
        return value(penalty, seen)

    parameters = [p for p in network.parameters() if torch.autograd.grad(loss(), p, allow_unused=True)[0] is not None]
    assert parameters
    assert gradcheck(loss, parameters)
    assert any(torch.autograd.grad(loss(), p)[0].abs().max() > 1e-6 for p in parameters)


# Penalties in training


CONFIG = Config(
    batch_size=12,
    micro_batch_size=4,
    mixed_precision="no",
    generator="tiny",
    discriminator="tiny",
    network=NetworkSettings(size=8, z_dim=3),
    optimizer=OptimizerSettings(d_lr=1e-2, g_lr=1e-2, eps=1e-2),  # a large eps, so that Adam does not amplify noise
)
DCGAN = replace(
    CONFIG,
    generator="dcgan",
    discriminator="dcgan",
    network=NetworkSettings(size=16, z_dim=8, g_channels=6, d_channels=6, classes=3, d_head="classifier"),
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GENERATORS, "tiny", SmoothPainter)
    monkeypatch.setitem(DISCRIMINATORS, "tiny", Smooth)
    monkeypatch.setitem(DISCRIMINATORS, "tiny of pixels", OfPixels)


Autocast = Callable[[], AbstractContextManager[None]]


def make(config: Config, autocast: Autocast = nullcontext) -> tuple[TrainState, GanStep]:
    state = create_state(config, "data", torch.device("cpu"))
    return state, assemble_step(config, state, reduce_exactly(config, World()), autocast)


def never() -> bool:
    return False


def by_hand(d: Discriminator, share: list[Batch], g: Generator, r1: float) -> tuple[Tensor, Tensor]:
    losses, penalties = [], []
    for batch in share:
        x = batch.real.clone().requires_grad_()
        logits = d(x, batch.label).logits
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        penalties.append(0.5 * (gradient**2).sum((1, 2, 3)).mean())
        fakes = d(g(batch.latent).detach(), batch.label).logits
        losses.append(F.softplus(-logits).mean() + F.softplus(fakes).mean())
    penalty = torch.stack(penalties).mean()
    return torch.stack(losses).mean() + r1 * penalty, penalty.detach()


@pytest.mark.parametrize("final", [None, 0.5])
def test_a_lazy_penalty_equals_adam_by_hand(final: float | None) -> None:
    """In updates 0 and 3 of every three, with three times the weight, which moves along half a cosine."""
    every, over = 3, 72
    config = replace(CONFIG, penalties=Penalties(r1=Weighted(2.0, final, every)))
    config = replace(config, optimizer=replace(config.optimizer, decay_images=over))
    state, step = make(config)
    d, g = copy.deepcopy(state.discriminator), state.generator
    adam = torch.optim.Adam(d.parameters(), lr=1e-2, betas=(0.5, 0.999), eps=1e-2)
    shown = []
    for k in range(5):
        seen = k * config.batch_size
        share = made_batches(config, images_seen=seen)
        assert ("r1" in share[0].draws) is (k % every == 0)
        last = 2.0 if final is None else final
        weight = last + (2.0 - last) * 0.5 * (1 + math.cos(math.pi * seen / over))
        loss, penalty = by_hand(d, share, g, every * weight if k % every == 0 else 0.0)
        adam.zero_grad()
        loss.backward()
        adam.step()
        if k % every == 0:
            expected = penalty
        scalars, _ = step.update_discriminator(share)
        torch.testing.assert_close(scalars["r1"], expected, rtol=1e-4, atol=1e-7)
        shown.append(scalars["r1"].item())
        for ours, theirs in zip(state.discriminator.parameters(), d.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert shown[0] == shown[1] == shown[2] != shown[3] == shown[4]


def test_a_lazy_penalty_of_the_generator_counts_the_generators_updates() -> None:
    config = replace(CONFIG, d_steps=2, penalties=Penalties(path_length=Weighted(1.0, None, 2)))
    _, step = make(config)
    means = []
    for k in range(4):
        starts = [(2 * k + i) * config.batch_size for i in range(2)]
        step([made_batches(config, images_seen=start) for start in starts], never)
        means.append(step.models.running_scalars["path_length_mean"].item())
    assert 0 < means[0] == means[1] < means[2] == means[3]


def test_the_factor_has_its_end_points() -> None:
    (active,) = Penalties(r1=Weighted(10.0, 1.0, 4)).active()
    factors = [active.factor(seen, 1000) for seen in (0, 500, 1000, 5000)]
    assert factors == pytest.approx([40.0, 22.0, 4.0, 4.0])
    assert active.factor(500, 0) == 40.0
    assert [k for k in range(9) if active.due(k)] == [0, 4, 8]


def test_a_weight_of_zero_leaves_a_penalty_out() -> None:
    assert not list(Penalties().active())
    assert [a.name for a in Penalties(r2=Weighted(0.0, 1.0), r1=Weighted(1.0)).active()] == ["r1", "r2"]


def running(network: nn.Module) -> list[Tensor]:
    layers = [m for m in network.modules() if isinstance(m, BatchNorm2d)]
    assert layers
    return [t.clone() for layer in layers for t in (layer.running_mean, layer.running_var)]


@pytest.mark.parametrize("micro_batch_size", [4, 12])
@pytest.mark.parametrize("name", ["wgan_gp", "dragan", "bcr", "path_length"])
def test_the_passes_of_penalties_leave_no_trace_in_running_statistics(name: str, micro_batch_size: int) -> None:
    """The first update's statistics are those of the first weights, with a penalty and without."""
    config = replace(DCGAN, micro_batch_size=micro_batch_size)
    states = []
    for penalties in (Penalties(), Penalties(**{name: Weighted(1.0)})):
        state, step = make(replace(config, penalties=penalties))
        before = running(state.discriminator), running(state.generator)
        if name == "path_length":
            step.update_generator(made_batches(replace(config, penalties=penalties)), None, never)
        else:
            step.update_discriminator(made_batches(replace(config, penalties=penalties)))
        states.append((state, before))
    (plain, before), (penalised, _) = states
    network = "generator" if name == "path_length" else "discriminator"
    ours, theirs = getattr(plain, network), getattr(penalised, network)
    assert all(torch.equal(a, b) for a, b in zip(running(ours), running(theirs), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(running(ours), before[network == "generator"], strict=True))
    assert fingerprint(ours.state_dict(), {}) != fingerprint(theirs.state_dict(), {})  # the weights did move otherwise


def measured(config: Config, autocast: Autocast) -> Mapping[str, Tensor]:
    _, step = make(config, autocast)
    return step([made_batches(config)], never)


BELOW = "reconstruction", "lecam", "cutmix"


@pytest.mark.parametrize("name", [f.name for f in fields(Penalties) if f.name not in BELOW])
def test_penalties_under_bf16_are_near_those_in_float32(name: str) -> None:
    """Lecam's is 0 in the first update; what DCGAN's discriminator cannot do is tested below."""
    settings = replace(DCGAN.network, d_batch_norm=False, d_channels=16)
    config = replace(DCGAN, network=settings, penalties=Penalties(**{name: Weighted(1.0)}))
    plain = measured(config, nullcontext)
    low = measured(config, lambda: torch.autocast("cpu", torch.bfloat16))
    assert low["loss_d"] != plain["loss_d"]  # it is another precision
    torch.testing.assert_close(low[name], plain[name], rtol=0.05, atol=1e-6)
    assert low["grad_norm_d"].isfinite()
    assert low["grad_norm_g"].isfinite()


def test_rebuilding_and_pixels_under_bf16_are_near_those_in_float32() -> None:
    every = Penalties(**{name: Weighted(1.0) for name in BELOW})
    config = replace(CONFIG, discriminator="tiny of pixels", penalties=every)
    plain = measured(config, nullcontext)
    low = measured(config, lambda: torch.autocast("cpu", torch.bfloat16))
    for name in ("reconstruction", "cutmix"):
        torch.testing.assert_close(low[name], plain[name], rtol=0.05, atol=0)
    assert low["lecam"] == 0


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_all_penalties_go_together(objective: str) -> None:
    """With every objective: each is measured, and every running_scalars stays finite."""
    every = Penalties(**{f.name: Weighted(0.01) for f in fields(Penalties)})
    config = replace(CONFIG, objective=objective, penalties=every, discriminator="tiny of pixels")
    config = replace(config, network=replace(config.network, classes=3, d_head="classifier"))
    state, step = make(config)
    for k in range(2):
        scalars = step([made_batches(config, images_seen=k * config.batch_size)], never)
    for f in fields(Penalties):
        assert scalars[f.name].isfinite()
        assert scalars[f.name] != 0, f.name
    assert all(v.isfinite() for v in state.running_scalars.values())
    assert state.running_scalars["lecam_updates"] == 2


def test_what_is_not_finite_is_not_remembered() -> None:
    config = replace(CONFIG, penalties=Penalties(lecam=Weighted(1.0), r1=Weighted(1.0)))
    state, step = make(config)
    broken = [replace(b, real=b.real * float("nan")) for b in made_batches(config)]
    step.update_discriminator(broken)
    assert {name: v.item() for name, v in state.running_scalars.items() if name.startswith("lecam_")} == {
        "lecam_real": 0.0,
        "lecam_fake": 0.0,
        "lecam_updates": 0.0,
    }
    assert state.running_scalars["r1"] == 0
