"""A run on a dataset that was extended goes on from a run on the one before, with more classes too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from shards.__main__ import main as shards
from tests.conftest import train
from tests.made_sources import jpeg
from tests.test_init_from import initialised, newest
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.gan.assembly import create_state
from trainer.networks import DISCRIMINATORS, GENERATORS
from trainer.networks.base import Latent
from trainer.networks.network_settings import NetworkSettings
from trainer.runs.config_loading import read_config
from trainer.runs.init_from import find_pretrained, take_over
from trainer.runs.run_folder import RunFolder

CPU = torch.device("cpu")
LABELS = torch.tensor([0, 1, -1, 0, 1, -1, 1, 0])  # -1: unknown
CONDITIONAL = ("--network.g-conditional", "--network.d-head", "projection")


CASES = [(name, "projection") for name in sorted(GENERATORS.keys() & DISCRIMINATORS.keys() - {"disconnected"})]
CASES += [("dcgan", "classifier"), ("r3gan", "classifier"), ("stylegan2", "classifier")]


@pytest.mark.parametrize(("name", "head"), CASES)
def test_what_networks_know_of_old_classes_stays(
    name: str, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of old classes and of an unknown one are the same, and so is what the discriminator makes of them."""
    network = NetworkSettings(
        size=32, z_dim=32, g_channels=8, d_channels=8, max_channels=16, mapping_layers=2, classes=2, g_conditional=True,
        d_head=head,  # type: ignore[arg-type]
    )  # fmt: skip
    config = Config(mixed_precision="no", generator=name, discriminator=name, network=network)
    old = create_state(config, "data", CPU)
    with torch.no_grad():
        for number, tensor in enumerate(old.tensors().values()):
            if tensor.is_floating_point():
                tensor += 0.2 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number))
    file = tmp_path / "weights.safetensors"
    save_file({key: tensor.contiguous().clone() for key, tensor in old.tensors().items()}, file)
    grown = replace(config, network=replace(network, classes=5), init_from=file, seed=1)
    monkeypatch.setattr("trainer.runs.init_from.classes_before", lambda *_: 2)
    found = find_pretrained(grown)
    assert set(found.left.values()) == {"but for the 2 classes there, of 5 here"}
    state = create_state(grown, "data", CPU)
    take_over(state, found, grown.seed)
    latent = GENERATORS[name].draw(network, np.random.default_rng(0), LABELS)
    with torch.no_grad():
        pictures = old.generator(latent)
        torch.testing.assert_close(state.generator(latent), pictures)
        assert not torch.equal(old.generator(Latent(latent.z, LABELS.flip(0), latent.extra)), pictures)
        there, here = old.discriminator(pictures, LABELS), state.discriminator(pictures, LABELS)
    torch.testing.assert_close(here.logits, there.logits)
    if there.classes is not None:
        torch.testing.assert_close(here.classes[:, :2], there.classes)


def add_pictures(folder: Path, label: str, seed: int) -> None:
    (folder / label).mkdir(parents=True)
    for number in range(24):
        (folder / label / f"{number}.jpg").write_bytes(jpeg(seed + number))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two classes, one with a third class besides, one with more of the same, and a run on the first."""
    folder = tmp_path_factory.mktemp("old")
    for source, labels in {"first": "bc", "third": "ab", "same": "bc"}.items():
        for label in labels:
            add_pictures(folder / source, label, 100 * ord(label) + 10_000 * len(source))
    first = ["--size", "32", "--labels", "folders", "--holdout", "0.2", "--workers", "1"]
    assert shards(["build", str(folder / "first"), "--out", str(folder / "dataset"), *first]) == 0
    for name in "third", "same":
        added = ["--add", str(folder / "dataset"), "--out", str(folder / f"{name} added")]
        assert shards(["build", str(folder / name), *added]) == 0
    train(folder / "run", folder / "dataset", *CONDITIONAL, "--total-images", "32")
    return folder


def test_a_run_goes_on_with_more_classes(old: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = (*CONDITIONAL, "--init-from", str(old / "run"), "--total-images", "64")
    said = train(run, old / "third added", *settings)
    assert "not taken: generator.norms.0.gain.weight but for the 2 classes there, of 3 here" in said
    (event,) = initialised(run)
    assert set(event["left"].values()) == {"but for the 2 classes there, of 3 here"}  # type: ignore[attr-defined]
    theirs, ours = load_file(newest(old / "run")), load_file(run / "checkpoints/000000000000-r00" / newest(run).name)
    for name, tensor in ours.items():
        if not name.startswith(("generator.", "discriminator.", "ema.")):
            continue
        if tensor.shape == theirs[name].shape:
            assert torch.equal(tensor, theirs[name]), name
        else:  # "b" and "c" are 0 and 1 as before, "a" is 2, and the last one is an unknown class
            assert torch.equal(tensor[:, [0, 1, 3]], theirs[name]), name
    assert newest(run).parent.name.startswith("000000000064")


def on(data: Path, old: Path, classes: int) -> Config:
    """Return the settings of the old run, for a run on other data that starts from it."""
    config = read_config(RunFolder(old / "run"))
    return replace(config, data=data, init_from=old / "run", network=replace(config.network, classes=classes))


def test_more_pictures_of_the_same_classes_leave_nothing_out(old: Path) -> None:
    assert find_pretrained(on(old / "same added", old, 2)).left == {}


def test_classes_of_another_dataset_are_not_taken(old: Path, tmp_path: Path) -> None:
    """Its third class may be any; and a whole state does not fit."""
    options = ("--size", "32", "--labels", "folders", "--holdout", "0.2", "--workers", "1")
    assert shards(["build", str(old / "same"), "--out", str(tmp_path / "other"), *options]) == 0
    added = ("--add", str(tmp_path / "other"), "--out", str(tmp_path / "data"))
    assert shards(["build", str(old / "third"), *added]) == 0
    left = find_pretrained(on(tmp_path / "data", old, 3)).left
    assert left["generator.norms.0.gain.weight"] == "is (32, 3) there, (32, 4) here"
    assert left.keys() == find_pretrained(on(old / "third added", old, 3)).left.keys()
    with pytest.raises(Refused, match="--init-state weights takes what fits"):
        find_pretrained(replace(on(old / "third added", old, 3), init_state="all"))
