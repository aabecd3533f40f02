"""The networks are the paper's."""

from __future__ import annotations

import pytest
import torch

from trainer.networks import initialise
from trainer.networks.batch_norm import BatchNorm2d
from trainer.networks.batch_statistics import BatchStatistics
from trainer.networks.dcgan import Discriminator, Generator
from trainer.networks.network_settings import NetworkSettings


def test_dcgan_64_has_as_many_weights_as_the_reference() -> None:
    """Counted from pytorch/examples/dcgan with its defaults (nz 100, ngf 64, ndf 64)."""
    settings = NetworkSettings(size=64)
    assert sum(p.numel() for p in Generator(settings).parameters()) == 3_576_704
    assert sum(p.numel() for p in Discriminator(settings).parameters()) == 2_765_568


def test_weights_are_drawn_as_the_paper_says() -> None:
    generator = Generator(NetworkSettings())
    initialise(generator, 0, "generator")
    for name, p in generator.named_parameters():
        centre = {4: 0.0, 1: 0.0 if name.endswith("bias") else 1.0}[p.ndim]
        spread = 0.0 if name.endswith("bias") else 0.02
        assert p.mean().item() == pytest.approx(centre, abs=0.01)
        assert (p.std().item() if p.numel() > 1 else 0) == pytest.approx(spread, abs=0.005)


def test_weights_are_keyed_by_seed_and_network() -> None:
    def first(seed: int, name: str) -> torch.Tensor:
        network = Generator(NetworkSettings(size=16, g_channels=4))
        initialise(network, seed, name)
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    assert torch.equal(first(0, "generator"), first(0, "generator"))
    assert not torch.equal(first(0, "generator"), first(1, "generator"))
    assert not torch.equal(first(0, "generator"), first(0, "discriminator"))


def test_batch_norm_is_torchs_for_one_micro_batch() -> None:
    ours, theirs = BatchNorm2d(5), torch.nn.BatchNorm2d(5)
    statistics = BatchStatistics(ours, torch.device("cpu"))
    for k in range(3):
        x = torch.randn(7, 5, 4, 4) * 3 + k
        statistics.restart()
        assert torch.equal(ours(x), theirs(x))
        statistics.update_running(statistics.flat)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    x = torch.randn(7, 5, 4, 4)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_a_pass_that_is_not_finite_leaves_nothing_behind() -> None:
    """Else a process that has met one would go on otherwise than one that resumes."""
    norm = BatchNorm2d(2)
    statistics = BatchStatistics(norm, torch.device("cpu"))
    for x in (torch.full((4, 2, 3, 3), float("nan")), torch.randn(4, 2, 3, 3) + 5):
        statistics.restart()
        norm(x)
        statistics.update_running(statistics.flat)
    torch.testing.assert_close(norm.running_mean, 0.1 * x.mean((0, 2, 3)))


def test_running_statistics_are_frozen_in_forward_passes() -> None:
    norm = BatchNorm2d(2)
    norm(torch.randn(4, 2, 3, 3) + 5)
    assert torch.equal(norm.running_mean, torch.zeros(2))
    assert torch.equal(norm.running_var, torch.ones(2))


def test_passes_since_a_restart_are_averaged() -> None:
    norm = BatchNorm2d(2)
    statistics = BatchStatistics(norm, torch.device("cpu"))
    passes = [torch.randn(4, 2, 3, 3) + k for k in range(3)]
    statistics.restart()
    for x in passes:
        norm(x)
    mean, var = statistics.views(statistics.flat)[0]
    torch.testing.assert_close(mean, torch.stack([x.mean((0, 2, 3)) for x in passes]).mean(0))
    torch.testing.assert_close(var, torch.stack([x.var((0, 2, 3)) for x in passes]).mean(0))
