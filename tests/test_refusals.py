"""Bad input: one clear message, exit code 2, nothing half-written, no traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import TINY, run, train
from trainer.config.config import Config
from trainer.config.groups import CheckpointSettings
from trainer.config.recipes import RECIPES
from trainer.core.fields import (
    Refused,
    from_json,
    identity_hash,
    identity_settings,
    overlay_settings,
    setting_leaves,
    to_json,
)
from trainer.networks.network_settings import NetworkSettings

REFUSALS = {
    "misspelt setting": (("--batch-sise", "64"), "batch-size"),
    "unknown recipe": (("dcgan-65",), "did you mean"),
    "batch that does not divide": (("--batch-size", "30"), "not a multiple of micro_batch_size 8; try --batch-size 32"),
    "more processes than micro-batches": (("--processes", "5"), "5 processes cannot share 4 micro-batches"),
    "fp16 on a CPU": (("--mixed-precision", "fp16"), "fp16 needs a GPU"),
    "another size": (("--network.size", "64"), "pictures in"),
    "a rate of nothing": (("--optimizer.g-lr", "0"), "optimizer.g_lr must be positive"),
    "a total of nothing": (("--total-images", "0"), "total_images must be positive"),
    "a negative seed": (("--seed", "-1"), "seed must not be negative"),
    "two lengths": (("--epochs", "2", "--total-images=64"), "--epochs and --total-images both tell how long to train"),
    "a decay of one": (("--optimizer.beta1", "1"), "optimizer.beta1 must be in [0, 1)"),
    "no checkpoint to keep": (("--checkpoint.keep-last", "0"), "checkpoint.keep_last must be positive"),
    "no processes": (("--processes", "0"), "processes must be positive"),
    "an interval of nothing": (("--log-every-images", "0"), "log_every_images must be positive"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_settings_are_refused(name: str, shards32: Path, tmp_path: Path) -> None:
    settings, message = REFUSALS[name]
    recipe = [] if name == "unknown recipe" else TINY[:1]
    done = run(
        "trainer", "train", *recipe, *TINY[1:], "--run", str(tmp_path / "run"), "--data", str(shards32), *settings
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_folder_without_index_is_refused(tmp_path: Path) -> None:
    said = train(tmp_path / "run", tmp_path, expect=2)
    assert "holds no finished shards: build them with python -m shards build" in said
    assert "does not exist" in train(tmp_path / "run", tmp_path / "nowhere", expect=2)
    assert not (tmp_path / "run").exists()


def test_a_missing_shard_is_refused(shards32: Path, tmp_path: Path) -> None:
    shutil.copytree(shards32, tmp_path / "data")
    (tmp_path / "data" / "train-000001.tar").unlink()
    assert "lacks the shard train-000001.tar" in train(tmp_path / "run", tmp_path / "data", expect=2)


def test_identity_settings_cannot_change_and_operational_ones_can(shards32: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, shards32, "--total-images", "32")
    said = train(folder, shards32, "--total-images", "64", "--seed", "9", expect=2)
    assert "seed is 0 in" in said
    assert "cannot become 9" in said
    said = train(folder, shards32, "--total-images", "64", "--network.g-channels", "9", expect=2)
    assert "network.g_channels is 8" in said
    train(folder, shards32, "--total-images", "64", "--checkpoint-every-images", "32", processes=2)
    stored = json.loads((folder / "config.json").read_text())
    assert (stored["total_images"], stored["checkpoint_every_images"], stored["processes"]) == (64, 32, 2)
    done = run("trainer", "train", "dcgan-64", "--run", str(folder))
    assert done.returncode == 2
    assert "is a run of recipe 'dcgan-32', not 'dcgan-64'" in done.stderr


def test_another_dataset_is_refused(shards32: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", shards32, "--total-images", "32")
    other = tmp_path / "other"
    built = run("shards", "build", "examples/clipart.zip", "--out", str(other), "--size", "32", "--seed", "5")
    assert built.returncode == 0, built.stderr
    assert "another dataset" in train(tmp_path / "run", other, "--total-images", "64", expect=2)


def test_a_damaged_config_is_refused(shards32: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, shards32, "--total-images", "32")
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stored | {"batch_sise": 3}))
    assert "did you mean 'batch_size'" in train(folder, shards32, expect=2)
    (folder / "config.json").write_text(json.dumps(stored | {"batch_size": "many"}))
    assert "batch_size must be a whole number, but is 'many'" in train(folder, shards32, expect=2)
    (folder / "config.json").write_text("{")
    assert "cannot be read" in train(folder, shards32, expect=2)


def test_a_read_only_run_folder_is_refused(shards32: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    said = train(small_disk / "run", shards32, expect=2)
    assert "cannot be written: Read-only file system" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", ["sample", "fingerprint"])
def test_there_must_be_a_checkpoint(command: str, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "grid.png")) if command == "sample" else ()
    done = run("trainer", command, str(tmp_path / "nowhere"), *out)
    assert done.returncode == 2
    assert "holds no" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_setting_is_marked() -> None:
    kinds = {name: kind for name, kind, _ in setting_leaves(Config())}
    assert len(kinds) > 30
    assert set(kinds.values()) == {"identity", "operational"}
    for name in ("seed", "batch_size", "micro_batch_size", "mixed_precision", "order_window", "network.size"):
        assert kinds[name] == "identity"
    for name in ("data", "processes", "total_images", "tracking.mode", "workers", "checkpoint.keep_last"):
        assert kinds[name] == "operational"


def test_the_identity_hash_is_of_identity_settings_only() -> None:
    base = Config()
    assert identity_hash(base) == identity_hash(replace(base, processes=7, checkpoint=CheckpointSettings(keep_last=9)))
    assert identity_hash(base) != identity_hash(replace(base, network=NetworkSettings(z_dim=99)))
    assert "processes" not in identity_settings(base)


@given(
    seed=st.integers(0, 2**63),
    rate=st.floats(1e-9, 1, allow_subnormal=False),
    epochs=st.none() | st.integers(1, 99),
    name=st.sampled_from(sorted(RECIPES)),
)
def test_settings_survive_json(seed: int, rate: float, epochs: int | None, name: str) -> None:
    config = RECIPES[name].config
    config = replace(config, seed=seed, epochs=epochs, data=Path("/a b"))
    config = replace(config, optimizer=replace(config.optimizer, g_lr=rate))
    assert from_json(Config, json.loads(json.dumps(to_json(config))), "here") == config


def test_project_files_are_read_strictly() -> None:
    text = 'data = "x"\n[tracking]\nproject = "art"\n[optimizer]\ng_lr = 1\n'
    config = overlay_settings(Config(), tomllib.loads(text), "lienzo.toml")
    assert (config.data, config.tracking.project, config.optimizer.g_lr) == (Path("x"), "art", 1.0)
    for bad, message in {
        "[tracking]\nprojekt = 1": "lienzo.toml: tracking: there is no setting 'projekt'; did you mean 'project'",
        "batch_size = 'x'": "batch_size must be a whole number, but is 'x'",
        "flip = 1": "flip must be true or false, but is 1",
        "tracking = 1": "tracking is a group of settings",
        "mixed_precision = 'fp8'": "mixed_precision must be 'auto' or 'no' or 'bf16' or 'fp16'",
    }.items():
        with pytest.raises(Refused, match=message.replace("(", r"\(")):
            overlay_settings(Config(), tomllib.loads(bad), "lienzo.toml")
