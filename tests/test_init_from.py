"""Fine-tuning: a new run takes another's weights, exactly those, and needs nothing of it later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from launcher.__main__ import main as launcher
from tests.conftest import TINY, fingerprint, train
from trainer.__main__ import main
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.gan.assembly import create_state
from trainer.gan.fingerprint import fingerprint as hash_of
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.spectral_norm import normalised_weights
from trainer.runs.config_loading import read_config, write_config
from trainer.runs.config_resolution import resolve_config
from trainer.runs.init_from import find_pretrained, read_pretrained, take_over
from trainer.runs.run_folder import RunFolder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source(shards32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that others start from, with checkpoints at 0, 32 and 64 images."""
    folder = tmp_path_factory.mktemp("source") / "run"
    train(folder, shards32, "--total-images", "64", "--checkpoint-every-images", "32")
    return folder


def newest(folder: Path) -> Path:
    """Return the file of tensors of a run's newest checkpoint."""
    return max((folder / "checkpoints").iterdir()) / "state.safetensors"


def from_source(source: Path, **network: object) -> Config:
    """Return settings of a run like the source, with changes to its networks, that starts from it."""
    config = read_config(RunFolder(source))
    return replace(config, init_from=source, network=replace(config.network, **network))  # type: ignore[arg-type]


def initialised(folder: Path) -> list[dict[str, object]]:
    """Return the events that tell what a run took over."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event["kind"] == "initialised"]


def test_the_same_bits_on_any_number_of_processes_and_without_the_source(
    source: Path, shards32: Path, tmp_path: Path
) -> None:
    origin, one, two = tmp_path / "origin", tmp_path / "one", tmp_path / "two"
    shutil.copytree(source, origin)
    settings = ("--network.z-dim", "8", "--init-from", str(origin))  # the first layer keeps its own weights
    said = train(one, shards32, *settings, "--total-images", "32")
    assert f"starting from {origin}/checkpoints/000000000064-r00/state.safetensors; tensors taken: 15 of gen" in said
    assert "not taken: generator.convolutions.0.weight is (16, 32, 4, 4) there, (8, 32, 4, 4) here" in said
    train(two, shards32, *settings, "--total-images", "64", processes=2)
    shutil.rmtree(origin)
    said = train(one, shards32, *settings, "--total-images", "64")  # the same command goes on
    assert "tensors taken" not in said
    assert fingerprint(one) == fingerprint(two)
    (event,) = initialised(one)
    assert event["taken"] == {"generator": 15, "discriminator": 12, "ema": 9}
    assert set(event["left"]) == {"generator.convolutions.0.weight", "ema.convolutions.0.weight"}  # type: ignore[call-overload]


def test_a_run_that_takes_everything_paints_what_its_source_does(source: Path, shards32: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, shards32, "--total-images", "32", "--init-from", str(source))
    begun = folder / "checkpoints" / "000000000000-r00"
    theirs, ours = load_file(newest(source)), load_file(begun / newest(source).name)
    for name, tensor in ours.items():
        if name.startswith(("generator.", "discriminator.", "ema.")):
            assert torch.equal(tensor, theirs[name]), name
        elif "optimizer" in name:
            assert not tensor.any(), name
    for run, which in ((source, ()), (folder, ("--checkpoint", begun.name))):
        assert main(["sample", str(run), "--out", str(tmp_path / f"{run.parent.name}.png"), "--num", "9", *which]) == 0
    first, second = sorted(tmp_path.glob("*.png"))
    assert first.read_bytes() == second.read_bytes()


def test_weights_that_changed_since_the_run_was_made_are_refused(source: Path, shards32: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    write_config(run, resolve_config(run, from_source(source)).config)
    weights = load_file(run.initial_weights)
    weights["ema.last.weight"][0, 0, 0, 0] += 1
    save_file(weights, run.initial_weights)
    said = train(run.path, shards32, processes=2, expect=2)
    assert f"{run.initial_weights} is not what the run was made with" in said
    assert "Traceback" not in said
    run.initial_weights.unlink()
    with pytest.raises(Refused, match="cannot be read as a safetensors file"):
        read_pretrained(run, "")


def test_a_source_that_changes_while_the_run_is_made_is_refused(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "source")
    run = RunFolder(tmp_path / "run")
    config = resolve_config(run, from_source(tmp_path / "source")).config
    shutil.rmtree(newest(tmp_path / "source").parent)
    with pytest.raises(Refused, match="has changed just now"):
        write_config(run, config)
    assert not run.config.exists()


def test_a_damaged_checkpoint_is_passed_over(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(source, tmp_path / "source")
    damaged = newest(tmp_path / "source")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    found = find_pretrained(from_source(tmp_path / "source"))
    assert found.source == str(tmp_path / "source" / "checkpoints" / "000000000032-r00" / "state.safetensors")
    assert "passed over damaged" in capsys.readouterr().err
    older = from_source(source)
    assert found.hash == find_pretrained(replace(older, init_from=source / "checkpoints" / "000000000032-r00")).hash
    assert found.hash != find_pretrained(older).hash
    with pytest.raises(Refused, match=r"this checkpoint is damaged: state\.safetensors has"):
        find_pretrained(replace(older, init_from=damaged.parent))


def test_a_run_keeps_the_weights_that_it_began_with(source: Path, shards32: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    config = resolve_config(run, from_source(source)).config
    write_config(run, config)
    assert resolve_config(run, config).config == config
    for other in (source / "checkpoints" / "000000000032-r00", newest(source)):
        if other == newest(source):  # the same weights by another name
            assert resolve_config(run, replace(config, init_from=other)).config.init_hash == config.init_hash
        else:
            with pytest.raises(Refused, match="did not begin with the weights of"):
                resolve_config(run, replace(config, init_from=other))
    said = train(source, shards32, "--total-images", "64", "--init-from", str(newest(source)), expect=2)
    assert "did not begin with the weights of" in said


def no_run(folder: Path) -> Path:
    folder.mkdir()
    return folder


def no_checkpoint(folder: Path) -> Path:
    write_config(RunFolder(folder), Config())
    return folder


def no_safetensors(folder: Path) -> Path:
    folder.write_text("words")
    return folder


def nothing_that_fits(folder: Path) -> Path:
    save_file({"generator.other": torch.zeros(3), "g_optimizer.last.weight": torch.zeros(3)}, folder)
    return folder


def not_a_number(folder: Path) -> Path:
    save_file({"ema.last.weight": torch.full((8, 3, 4, 4), torch.nan)}, folder)
    return folder


SOURCES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing": (lambda folder: folder, "is no run folder, no checkpoint folder, no bundle and no safetensors file"),
    "no run": (no_run, "is no run folder, no checkpoint folder, no bundle and no safetensors file"),
    "no checkpoint": (no_checkpoint, "this run holds no whole checkpoint"),
    "no safetensors": (no_safetensors, "cannot be read as a safetensors file"),
    "nothing that fits": (nothing_that_fits, "none of its 1 weights fits this run's networks"),
    "not a number": (not_a_number, "holds NaN or Inf"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_bad_source_is_refused_before_anything_is_done(
    name: str, shards32: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = SOURCES[name]
    origin, run = make(tmp_path / "origin"), tmp_path / "run"
    arguments = [*TINY, "--run", str(run), "--data", str(shards32), "--init-from", str(origin)]
    assert main(["train", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert launcher(["submit", *arguments, "--cluster", "local"]) == 2
    assert message in capsys.readouterr().err
    assert not run.exists()


def test_what_fits_is_taken_whatever_the_architecture(source: Path) -> None:
    """From 32 px to 64 px: the layers next to the picture are the same."""
    found = find_pretrained(from_source(source, size=64))
    assert {"generator.last.weight", "ema.last.weight", "discriminator.layers.0.weight"} <= set(found.weights)
    assert found.left["generator.convolutions.3.weight"] == "is missing there"
    assert found.left["generator.convolutions.1.weight"] == "is (32, 16, 4, 4) there, (64, 32, 4, 4) here"
    assert f"and {len(found.left) - 8} more: see events.jsonl" in found.words()


@pytest.mark.parametrize("kept", ["generator.", "ema."])
def test_generator_and_average_stand_in_for_each_other(kept: str, source: Path, tmp_path: Path) -> None:
    tensors = {name: t for name, t in load_file(newest(source)).items() if name.startswith(kept)}
    save_file(tensors, tmp_path / "weights.safetensors")
    config = replace(from_source(source), init_from=tmp_path / "weights.safetensors")
    run = RunFolder(tmp_path / "run")
    config = resolve_config(run, config).config
    write_config(run, config)
    state = create_state(config, "data", CPU)
    before = {name: t.clone() for name, t in state.discriminator.state_dict().items()}
    take_over(state, read_pretrained(run, config.init_hash), config.seed)
    for name, parameter in state.generator.named_parameters():
        assert torch.equal(parameter, tensors[kept + name]), name
        assert torch.equal(state.ema[name], parameter), name
    assert all(torch.equal(t, before[name]) for name, t in state.discriminator.state_dict().items())


def test_spectral_norms_begin_anew(tmp_path: Path) -> None:
    network = NetworkSettings(size=16, z_dim=8, g_channels=6, d_channels=6, d_spectral_norm=True)
    config = Config(mixed_precision="no", network=network, init_from=tmp_path / "weights.safetensors")
    other = create_state(replace(config, seed=5), "data", CPU)
    save_file({name: t.contiguous() for name, t in other.tensors().items()}, tmp_path / "weights.safetensors")
    found = find_pretrained(config)
    assert not [name for name in found.weights if name.endswith((".u", ".v"))]
    assert not found.left
    state = create_state(config, "data", CPU)
    take_over(state, found, config.seed)
    for (norm, weight), (_, theirs) in zip(
        normalised_weights(state.discriminator), normalised_weights(other.discriminator), strict=True
    ):
        assert torch.equal(weight, theirs)
        sigma = torch.linalg.matrix_norm(norm.matrix(weight), 2)
        torch.testing.assert_close(torch.dot(norm.u, norm.matrix(weight) @ norm.v), sigma, rtol=0.05, atol=0)


def test_no_weights_are_drawn_where_a_checkpoint_is_read() -> None:
    """Without a draw they do not depend on the run's seed, which every draw does."""
    network = NetworkSettings(size=16, z_dim=8, g_channels=6, d_channels=6, d_spectral_norm=True)
    config = Config(mixed_precision="no", network=network)
    state = create_state(config, "data", CPU)
    for draw in (True, False):
        torch.manual_seed(0)  # torch's own first values, which a draw overwrites
        one = create_state(config, "data", CPU, draw).tensors()
        torch.manual_seed(0)
        other = create_state(replace(config, seed=1), "data", CPU, draw).tensors()
        assert all(torch.equal(one[name], other[name]) for name in one) is not draw
    resumed = create_state(config, "data", CPU, draw=False)
    resumed.load(state.tensors(), state.scalars(), "here")
    assert hash_of(resumed.tensors(), resumed.scalars()) == hash_of(state.tensors(), state.scalars())
