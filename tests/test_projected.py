"""Projected GAN's discriminator: its features are frozen, its interpolation is torch's, its size is the authors'."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from tests.made_batches import made_batches
from tests.zoo_cases import CASES
from trainer.core.fields import Refused
from trainer.core.file_hash import file_sha256
from trainer.distributed.world import World
from trainer.gan.assembly import assemble_step, create_state, reduce_exactly
from trainer.networks import build_discriminator, initialise
from trainer.networks.efficientnet import EfficientNetLite0
from trainer.networks.frozen_features import resize
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.projected import Discriminator
from trainer.runs.config_resolution import settle_features

SMALL = NetworkSettings(size=32, d_channels=4, features_side=128)
CONFIG = CASES["recipe projected-256"]


def weights_of_no_use(path: Path) -> Path:
    """A file like timm's, of other numbers."""
    generator = torch.Generator().manual_seed(0)
    network = EfficientNetLite0()
    save_file({name: torch.rand(t.shape, generator=generator) for name, t in network.state_dict().items()}, path)
    return path


@pytest.mark.parametrize(("inputs", "outputs", "corners"), [(32, 224, False), (100, 64, False), (7, 14, True)])
def test_interpolation_is_that_of_torch(inputs: int, outputs: int, corners: bool) -> None:
    x = torch.linspace(-1, 1, 2 * 3 * inputs * 5, dtype=torch.float64).sin().reshape(2, 3, inputs, 5)
    theirs = F.interpolate(x, (outputs, 10), mode="bilinear", align_corners=corners)
    torch.testing.assert_close(resize(x, outputs, 10, corners), theirs)


@pytest.mark.parametrize(("classes", "count"), [(0, 10_331_328), (10, 12_434_368)])
def test_it_has_as_many_weights_as_the_authors(classes: int, count: int) -> None:
    """Counted from their MultiScaleD (projected-gan e1c246b) on maps of 64, 64, 128 and 256 channels."""
    settings = NetworkSettings(size=256, d_channels=64, classes=classes, d_head="projection" if classes else "plain")
    with torch.device("meta"):
        network = Discriminator(settings)
    assert sum(p.numel() for p in network.parameters()) == count


def test_efficientnet_has_as_many_weights_as_timms() -> None:
    """Of tf_efficientnet_lite0's 4,652,008 without its head: 320 to 1,280 channels, their norm, and 1,000 classes."""
    with torch.device("meta"):
        network = EfficientNetLite0()
    assert sum(p.numel() for p in network.parameters()) == 4_652_008 - 320 * 1280 - 2 * 1280 - 1281 * 1000
    maps = EfficientNetLite0().eval()(torch.zeros(1, 3, 64, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [(24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)]


def test_every_place_of_the_last_maps_gives_a_logit() -> None:
    for side, logits in ((128, 4), (224, 64)):
        network = build_discriminator("projected", replace(SMALL, features_side=side))
        initialise(network, 0, "discriminator")
        x = torch.linspace(-1, 1, 2 * 32 * 32).reshape(2, 1, 32, 32)
        assert network(x, torch.tensor([-1, -1])).logits.shape == (2, logits)


def test_frozen_weights_are_drawn_once_and_never_trained() -> None:
    state = create_state(CONFIG, "data", torch.device("cpu"))
    step = assemble_step(CONFIG, state, reduce_exactly(CONFIG, World()), nullcontext)

    def frozen() -> dict[str, Tensor]:
        parts = ("discriminator.features", "discriminator.mix", "discriminator.fuse")
        return {name: t.clone() for name, t in state.tensors().items() if name.startswith(parts)}

    before = frozen()
    assert all(t.is_floating_point() and bool(t.any()) for t in before.values() if t.dim() > 1)
    step([made_batches(CONFIG)], lambda: False)
    assert all(torch.equal(t, before[name]) for name, t in frozen().items())
    assert not [name for name in state.tensors() if "optimizer.features" in name or "optimizer.mix" in name]
    other = create_state(replace(CONFIG, seed=1), "data", torch.device("cpu")).tensors()
    for part, same in (("features.layers.0", True), ("mix.0", False)):
        name = f"discriminator.{part}.weight"
        assert torch.equal(other[name], before[name]) == same


def test_the_generator_learns_through_frozen_features() -> None:
    network = build_discriminator("projected", SMALL)
    initialise(network, 0, "discriminator")
    x = torch.linspace(-1, 1, 2 * 3 * 32 * 32).sin().reshape(2, 3, 32, 32).requires_grad_()
    network(x, torch.tensor([-1, -1])).logits.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().min(0).values.max() > 0


def test_features_come_from_a_file_once(tmp_path: Path) -> None:
    file = weights_of_no_use(tmp_path / "lite0.safetensors")
    asked = replace(CONFIG, network=replace(CONFIG.network, features_file=file))
    config = settle_features(asked)
    assert config.network.features_hash == file_sha256(file)
    state = create_state(config, "data", torch.device("cpu"))
    held = state.tensors()["discriminator.features.blocks.6.0.conv_pwl.weight"]
    assert torch.equal(held, load_file(file)["blocks.6.0.conv_pwl.weight"])
    file.unlink()
    resumed = create_state(config, "data", torch.device("cpu"), draw=False)
    resumed.load(state.tensors(), state.scalars(), "here")
    with pytest.raises(Refused, match="is needed once, when the run begins"):
        create_state(config, "data", torch.device("cpu"))


def test_wrong_files_are_refused_by_name(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.safetensors"
    save_file({"conv_stem.weight": torch.zeros(32, 3, 3, 3)}, wrong)
    config = settle_features(replace(CONFIG, network=replace(CONFIG.network, features_file=wrong)))
    with pytest.raises(Refused, match=r"is no EfficientNet-Lite0: bn1\.running_mean is missing there"):
        create_state(config, "data", torch.device("cpu"))
    wrong.write_bytes(b"other")
    with pytest.raises(Refused, match="is another file than"):
        create_state(config, "data", torch.device("cpu"))
    with pytest.raises(Refused, match="is no file"):
        settle_features(replace(config, network=replace(config.network, features_file=tmp_path / "none")))
    with pytest.raises(Refused, match="is for the discriminator projected"):
        settle_features(replace(config, discriminator="dcgan"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features_side": 130}, "must be a multiple of 32, but is 130"),
        ({"channels": 4}, "no points, packs or transparency"),
        ({"pack": 2}, "no points, packs or transparency"),
        ({"d_head": "classifier", "classes": 3}, "does not guess classes"),
    ],
)
def test_what_it_cannot_do_is_refused(changes: dict[str, int], words: str) -> None:
    assert words in (Discriminator.problem(replace(SMALL, **changes)) or "")  # type: ignore[arg-type]
