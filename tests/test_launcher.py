"""The launcher's commands, as typed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import HOME, TINY, fingerprint, run, train


def launch(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run the launcher from another folder than the repository's."""
    return run("launcher", *command, folder=folder, timeout=240, WANDB_MODE="disabled")


def test_submit_trains_here_and_resume_goes_on(shards32: Path, tmp_path: Path) -> None:
    settings = (*TINY, "--data", str(shards32), "--total-images", "60", "--run", "r")
    done = launch(tmp_path, "submit", *settings, "--nodes", "4")
    assert done.returncode == 0, done.stderr
    assert "this machine in place of 4 nodes" in done.stdout
    assert "the same bits" in done.stdout
    assert "rounded up to whole steps: 64" in done.stderr
    assert "finished: 64 images" in done.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = launch(elsewhere, "resume", str(tmp_path / "r"), "--total-images", "96", "--processes", "3")
    assert done.returncode == 0, done.stderr
    assert "resuming at 64 images" in done.stderr
    assert fingerprint(tmp_path / "r")[0] == 96
    refused = launch(tmp_path, "resume", "r", "--seed", "3")
    assert refused.returncode == 2
    assert "seed is 0" in refused.stderr


def test_a_grid_is_the_same_whoever_asks(shards32: Path, tmp_path: Path) -> None:
    settings = ("--data", str(shards32), "--total-images", "32", "--run", str(tmp_path / "r"))
    assert run("trainer", "train", *TINY, *settings).returncode == 0
    for name, num, seed in (("a", 64, 0), ("b", 64, 0), ("c", 16, 0), ("d", 64, 1)):
        out = str(tmp_path / f"{name}.png")
        done = run("trainer", "sample", str(tmp_path / "r"), "--num", str(num), "--out", out, "--seed", str(seed))
        assert done.returncode == 0, done.stderr
        assert "generated at 32 images seen" in done.stdout
    a, b, c, d = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "abcd")
    assert a.shape == (256, 256, 3)
    assert c.shape == (128, 128, 3)
    assert (a == b).all()
    assert (a != d).any()
    assert (a[:32, :128] == c[:32]).all(), "picture i depends on how many are painted"


def test_more_processes_than_micro_batches_grow_the_batch_of_a_new_run(shards32: Path, tmp_path: Path) -> None:
    settings = ("submit", *TINY, "--data", str(shards32), "--processes", "6", "--dry-run")
    done = launch(tmp_path, *settings)
    assert done.returncode == 0, done.stderr
    assert "batch 48 = 6 micro-batches of 8 (grown from 32" in done.stdout
    assert not (tmp_path / "runs").exists(), "a dry run wrote something"
    done = launch(tmp_path, *settings, "--keep-batch")
    assert done.returncode == 2
    assert "6 processes cannot share 4 micro-batches" in done.stderr


def test_slurm_is_refused_where_there_is_none(shards32: Path, tmp_path: Path) -> None:
    done = launch(tmp_path, "submit", *TINY, "--data", str(shards32), "--cluster", "slurm")
    assert done.returncode == 2
    assert "--cluster slurm" in done.stderr


def test_init_writes_defaults_that_submit_reads(shards32: Path, tmp_path: Path) -> None:
    done = launch(tmp_path, "init", "--data", str(shards32), "--project", "art")
    assert done.returncode == 0, done.stderr
    done = launch(tmp_path, "submit", *TINY, "--dry-run", "--tracking.mode", "offline")
    assert done.returncode == 0, done.stderr
    assert str(shards32) in done.stdout
    assert "project art" in done.stdout
    assert "exists already" in launch(tmp_path, "init").stderr
    (tmp_path / "lienzo.toml").write_text("dada = 1")
    refused = launch(tmp_path, "submit", *TINY, "--dry-run")
    assert refused.returncode == 2
    assert "lienzo.toml: there is no setting 'dada'; did you mean 'data'?" in refused.stderr


def test_init_refuses_data_that_is_none(tmp_path: Path) -> None:
    assert launch(tmp_path, "init", "--data", "nowhere").returncode == 2
    assert not (tmp_path / "lienzo.toml").exists()


def test_without_data_the_bundled_pictures_are_built(tmp_path: Path) -> None:
    done = launch(tmp_path, "submit", *TINY, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert str(HOME / "demo" / "shards-32") in done.stdout


@pytest.mark.parametrize("package", ["launcher", "trainer", "shards"])
def test_help_fits_what_it_says(package: str) -> None:
    done = run(package, "--help")
    assert done.returncode == 0
    assert "python -m" in done.stdout


def test_a_training_loads_nothing_that_only_figures_or_compilation_need(
    shards32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would take seconds of each start of each process."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    said = train(tmp_path / "r", shards32, "--total-images", "64")
    assert "finished: 64 images" in said
    loaded = {line.rpartition("|")[2].strip() for line in said.splitlines() if line.startswith("import time:")}
    assert "trainer.gan.step" in loaded
    only_for_figures = {"scipy.stats", "scipy.special", "sklearn", "matplotlib", "submitit"}
    only_to_compile = {"torch._dynamo", "torch._inductor"}
    assert loaded.isdisjoint(only_for_figures | only_to_compile)
