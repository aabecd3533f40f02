"""Spectral normalisation against the singular value decomposition, and when its vectors move."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn.functional import normalize

from tests.made_batches import made_batches
from trainer.config.config import Config
from trainer.core.randomness import philox
from trainer.distributed.world import World
from trainer.gan.assembly import assemble_step, create_state, reduce_exactly
from trainer.gan.fingerprint import fingerprint
from trainer.gan.state import TrainState
from trainer.gan.step import GanStep
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.spectral_norm import (
    SpectralNorm,
    add_spectral_norm,
    advance_spectral_norm,
    normalised_weights,
    start_spectral_norm,
)

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(7, 4),
    "conv": lambda: nn.Conv2d(3, 5, 3),
    "conv-transposed": lambda: nn.ConvTranspose2d(6, 4, 2),
}


def layer(kind: str, iterations: int = 0) -> nn.Module:
    made = LAYERS[kind]()
    weight = made.get_parameter("weight")
    weight.data = torch.from_numpy(philox("spectral", kind).standard_normal(weight.shape))
    network = nn.Sequential(made.double())
    add_spectral_norm(network)
    network.double()
    start_spectral_norm(network, 0, "test", iterations)
    return network


def by_output(kind: str, weight: Tensor) -> Tensor:
    """Rows are output channels; a transposed convolution's weight has its inputs first."""
    return (weight.transpose(0, 1) if kind == "conv-transposed" else weight).flatten(1)


@pytest.mark.parametrize("kind", LAYERS)
def test_sigma_becomes_the_largest_singular_value(kind: str) -> None:
    network = layer(kind)
    ((norm, weight),) = normalised_weights(network)
    u, s, vt = torch.linalg.svd(by_output(kind, weight.detach()), full_matrices=False)
    assert len(norm.u) == len(u)
    assert not torch.allclose(weight / network[0].weight, s[0], rtol=1e-3)  # type: ignore[index]
    advance_spectral_norm(network, 2000)
    now = network[0].weight.detach()  # type: ignore[index]
    torch.testing.assert_close(now * s[0], weight.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        torch.linalg.matrix_norm(by_output(kind, now), 2), torch.ones_like(s[0]), rtol=1e-10, atol=1e-10
    )
    torch.testing.assert_close((norm.u @ u[:, 0]).abs(), torch.ones_like(s[0]), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close((norm.v @ vt[0]).abs(), torch.ones_like(s[0]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_gradient_goes_through_the_weight_in_sigma_only(kind: str) -> None:
    """With u and v fixed: finite differences, and Miyato's eq. 12, (G - <G, W/sigma> u v') / sigma."""
    network = layer(kind, 2)
    ((norm, weight),) = normalised_weights(network)

    def normalise(w: Tensor) -> Tensor:
        out: Tensor = norm(
            w * 1
        )  # gradcheck changes w unseen, so that a sigma that is known would be taken for its own
        return out

    assert gradcheck(normalise, weight)
    g = torch.from_numpy(philox("gradient").standard_normal(weight.shape))
    (gradient,) = torch.autograd.grad((normalise(weight) * g).sum(), weight)
    matrix, incoming = by_output(kind, weight.detach()), by_output(kind, g)
    sigma = norm.u @ matrix @ norm.v
    expected = (incoming - (incoming * matrix / sigma).sum() * torch.outer(norm.u, norm.v)) / sigma
    torch.testing.assert_close(by_output(kind, gradient), expected, rtol=1e-10, atol=1e-10)


def test_an_advance_is_one_power_iteration() -> None:
    network = layer("conv", 1)
    ((norm, weight),) = normalised_weights(network)
    matrix = by_output("conv", weight.detach())
    v = matrix.t() @ norm.u / (matrix.t() @ norm.u).norm()
    u = matrix @ v / (matrix @ v).norm()
    assert not torch.allclose(norm.u, u, rtol=1e-6)
    advance_spectral_norm(network)
    torch.testing.assert_close((norm.u, norm.v), (u, v), rtol=1e-10, atol=1e-10)


def test_the_first_vectors_are_keyed_by_seed_and_name_and_layer() -> None:
    def vectors(seed: int, name: str) -> list[Tensor]:
        network = nn.Sequential(nn.Linear(9, 8), nn.Linear(9, 8))
        add_spectral_norm(network)
        start_spectral_norm(network, seed, name, 0)
        return [norm.u for norm, _ in normalised_weights(network)]

    first = vectors(0, "a")
    assert all(torch.equal(a, b) for a, b in zip(first, vectors(0, "a"), strict=True))
    for other in ((1, "a"), (0, "b")):
        assert not any(torch.equal(a, b) for a, b in zip(first, vectors(*other), strict=True))
    assert not torch.equal(*first)
    assert first[0].norm().item() == pytest.approx(1, abs=1e-6)


def test_named_layers_are_left_alone() -> None:
    network = nn.ModuleDict({"gain": nn.Linear(2, 2), "again": nn.Linear(2, 2), "norm": nn.BatchNorm2d(2)})
    holder = nn.ModuleDict({"block": network})
    add_spectral_norm(holder, (".gain",))
    assert [tuple(norm.u.shape) for norm, _ in normalised_weights(holder)] == [(2,)]
    assert not hasattr(network["gain"], "parametrizations")
    assert isinstance(network["again"].parametrizations.weight[0], SpectralNorm)  # type: ignore[index, union-attr]


# In training


CONFIG = Config(
    batch_size=12,
    micro_batch_size=4,
    mixed_precision="no",
    network=NetworkSettings(
        size=16, z_dim=8, g_channels=6, d_channels=6, d_batch_norm=False, g_spectral_norm=True, d_spectral_norm=True
    ),
)


def make() -> tuple[TrainState, GanStep]:
    state = create_state(CONFIG, "data", torch.device("cpu"))
    return state, assemble_step(CONFIG, state, reduce_exactly(CONFIG, World()), nullcontext)


def vectors(network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    return [(norm.u.clone(), norm.v.clone()) for norm, _ in normalised_weights(network)]


def test_forward_passes_move_nothing() -> None:
    state, _ = make()
    before = fingerprint(state.discriminator.state_dict(), {})
    batch = made_batches(CONFIG)[0]
    for _ in range(3):
        state.discriminator(batch.real, batch.label).logits.sum().backward()
    assert fingerprint(state.discriminator.state_dict(), {}) == before
    assert any("u" in name.split(".") for name in state.discriminator.state_dict())


@pytest.mark.parametrize("name", ["g", "d"])
def test_vectors_advance_once_an_update_on_the_new_weights(name: str) -> None:
    """Whatever the number of micro-batches: three here."""
    state, step = make()
    networks: dict[str, nn.Module] = {"g": state.generator, "d": state.discriminator}
    own, (other,) = networks.pop(name), networks.values()
    before, others = vectors(own), vectors(other)
    assert len(before) > 2
    if name == "d":
        step.update_discriminator(made_batches(CONFIG))
    else:
        step.update_generator(made_batches(CONFIG), None, lambda: False)
    for (norm, weight), (u, _) in zip(normalised_weights(own), before, strict=True):
        matrix = norm.matrix(weight.detach())
        v = normalize(matrix.t() @ u, dim=0)
        torch.testing.assert_close(norm.v, v, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(norm.u, normalize(matrix @ v, dim=0), rtol=1e-5, atol=1e-6)
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(before, vectors(own), strict=True))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(others, vectors(other), strict=True))


def test_the_first_vectors_fit_the_first_weights() -> None:
    """What D begins with is nearly 1-Lipschitz: 15 iterations are enough for the start."""
    state, _ = make()
    for norm, weight in normalised_weights(state.discriminator):
        s = torch.linalg.svdvals(norm.matrix(weight.detach()))
        assert (norm.u @ norm.matrix(weight.detach()) @ norm.v / s[0]).item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("kind", LAYERS)
def test_sigma_is_known_until_something_is_written(kind: str) -> None:
    """And it has the bits that it would have if it were measured, as it is after a checkpoint was loaded."""
    network = layer(kind, 3)
    ((norm, weight),) = normalised_weights(network)
    known = norm.sigma(weight)
    assert known is norm.sigma(weight)
    norm.u.copy_(norm.u.clone())
    assert norm.sigma(weight) is not known
    assert torch.equal(norm.sigma(weight), known)
    advance_spectral_norm(network)
    with torch.no_grad():
        weight.mul_(2)
    assert torch.equal(norm.sigma(weight), 2 * norm.known[0])  # type: ignore[index]


def test_sigma_is_measured_anew_where_the_weight_lies_otherwise() -> None:
    network = layer("conv", 3)
    ((norm, weight),) = normalised_weights(network)
    known = norm.sigma(weight)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    assert norm.sigma(weight) is not known
    torch.testing.assert_close(norm.sigma(weight), known)
    advance_spectral_norm(network)
    u, v, matrix = norm.u, norm.v, norm.matrix(weight.detach())
    torch.testing.assert_close((u @ matrix @ v, u), (norm.sigma(weight), normalize(matrix @ v, dim=0)))


def test_its_gradient_is_differentiable() -> None:
    """With u and v fixed, so that sigma is u' W v wherever W goes."""
    network = layer("conv-transposed", 50)
    ((norm, weight),) = normalised_weights(network)

    def plain(w: Tensor) -> Tensor:
        return w / (norm.u @ norm.matrix(w) @ norm.v)

    seconds = []
    for normalise in (norm, plain):
        (gradient,) = torch.autograd.grad(normalise(weight).sin().sum(), weight, create_graph=True)
        seconds.append(torch.autograd.grad(gradient.square().sum(), weight)[0])
    torch.testing.assert_close(*seconds, rtol=1e-10, atol=1e-10)
