"""The promise, for every entry of every registry: any number of processes, any interruption, the same bits."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from shards.dataset.index import Index
from tests.conftest import run
from tests.ranks import start_ranks
from tests.zoo_cases import CASES
from trainer.config.config import Config
from trainer.gan.fingerprint import fingerprint
from trainer.runs.checkpoint import newest_whole
from trainer.runs.config_loading import write_config
from trainer.runs.config_resolution import resolve_config
from trainer.runs.run_folder import RunFolder

ENOUGH = 10**6  # pictures, before which the kill comes
GENERATE = "recipe dcgan-32", "recipe sngan-32", "recipe stylegan2-ada-64"
"""Cases whose last rows have the distance of a sample grid, for which BatchNorm's statistics are measured anew."""


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled pictures with their folders as classes."""
    out = tmp_path_factory.mktemp("data") / "labelled-32"
    done = run("shards", "build", "examples/clipart.zip", "--out", str(out), "--size", "32", "--labels", "folders")
    assert done.returncode == 0, done.stderr
    return out


def prepare(case: str, folder: Path, data: Path) -> RunFolder:
    """Write the settings of a run."""
    config, run_folder = CASES[case], RunFolder(folder)
    if config.network.uses_classes:
        config = replace(config, network=replace(config.network, classes=len(Index.open(data).classes)))
    config = replace(
        config,
        data=data,
        flip=True,
        log_every_images=config.step_images,
        checkpoint_every_images=config.step_images,
        sample_every_images=ENOUGH if case in GENERATE else 0,
        tracking=replace(config.tracking, mode="disabled"),
    )
    write_config(run_folder, resolve_config(run_folder, config).config)
    return run_folder


def train(run_folder: RunFolder, size: int, total: int, mistake: str | None = None) -> None:
    """Train to the end."""
    codes = start_ranks(run_folder, size, "--total-images", str(total), mistake=mistake).wait()
    assert codes == [0] * size, Path(f"{run_folder.path}.log").read_text()


def reached(run_folder: RunFolder) -> int:
    """Return how far the newest whole checkpoint is."""
    found = newest_whole(run_folder.checkpoints, lambda checkpoint, problem: None)
    return found.images_seen if found else 0


def kill_after(run_folder: RunFolder, size: int, images_seen: int) -> None:
    """Train until a checkpoint is as far as that, and kill every process."""
    ranks = start_ranks(run_folder, size, "--total-images", str(ENOUGH))
    deadline = time.monotonic() + 120
    while reached(run_folder) < images_seen and time.monotonic() < deadline and not ranks.ended():
        time.sleep(0.02)
    assert ranks.kill() == [-signal.SIGKILL] * size, Path(f"{run_folder.path}.log").read_text()


def state(run_folder: RunFolder) -> str:
    """Return the fingerprint of the newest checkpoint."""
    found = newest_whole(run_folder.checkpoints, lambda checkpoint, problem: None)
    assert found
    return fingerprint(*found.read())


@pytest.mark.parametrize("case", CASES)
def test_killed_on_two_and_resumed_on_three_is_undisturbed_on_one(case: str, labelled: Path, tmp_path: Path) -> None:
    """Weights, averages, optimizers, memory and rows."""
    config: Config = CASES[case]
    disturbed = prepare(case, tmp_path / "disturbed", labelled)
    kill_after(disturbed, 2, config.step_images)
    total = reached(disturbed) + 2 * config.step_images
    train(disturbed, 3, total)
    undisturbed = prepare(case, tmp_path / "undisturbed", labelled)
    train(undisturbed, 1, total)
    assert state(disturbed) == state(undisturbed)
    assert disturbed.metrics.read_bytes() == undisturbed.metrics.read_bytes()


@pytest.mark.parametrize(
    ("mistake", "case"),
    [
        ("lost_memory", "recipe stylegan2-ada-64"),
        ("lost_memory", "recipe lecam-32"),
        ("vectors_by_passes", "recipe sngan-32"),
        ("draw_by_rank", "recipe wgan-gp-32"),
    ],
)
def test_planted_mistakes_are_seen(mistake: str, case: str, labelled: Path, tmp_path: Path) -> None:
    step = CASES[case].step_images
    states = []
    for name, planted in (("right", None), ("wrong", mistake)):
        run_folder = prepare(case, tmp_path / name, labelled)
        train(run_folder, 2, step, planted)
        train(run_folder, 3, 3 * step, planted)
        states.append(state(run_folder))
    assert states[0] != states[1]
