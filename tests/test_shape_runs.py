"""Whole runs on grey pictures that are not square, and on RGBA: the same bits on one and on two processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main as shards
from tests.ranks import start_ranks
from trainer.__main__ import main as trainer
from trainer.config.config import Config
from trainer.core.fields import overlay_settings
from trainer.gan.fingerprint import fingerprint
from trainer.runs.checkpoint import newest_whole
from trainer.runs.config_loading import write_config
from trainer.runs.config_resolution import resolve_config
from trainer.runs.run_folder import RunFolder

STEP, STEPS = 16, 3
COMMON = {
    "batch_size": STEP,
    "micro_batch_size": 8,
    "flip": True,
    "mixed_precision": "no",
    "total_images": STEP * STEPS,
    "log_every_images": STEP,
    "checkpoint_every_images": STEP,
    "sample_every_images": STEP * STEPS,
    "tracking": {"mode": "disabled"},
}
TINY = {"size": 48, "width": 64, "z_dim": 16, "g_channels": 8, "d_channels": 8, "max_channels": 16}
RUNS: dict[str, tuple[int, dict[str, object]]] = {
    "grey dcgan": (1, {"augment": {"kind": "diffaugment"}, "network": TINY | {"channels": 1}}),
    "RGBA stylegan2": (
        4,
        {
            "generator": "stylegan2",
            "discriminator": "stylegan2",
            "augment": {"kind": "ada", "pipe": "bgcfno", "p": 0.5},
            "network": TINY | {"channels": 4, "mapping_layers": 2, "mbstd_group": 4},
            "penalties": {"r1": {"weight": 1.0, "every": 2}, "path_length": {"weight": 1.0, "every": 2}},
        },
    ),
    "RGBA dcgan": (4, {"penalties": {"bcr": {"weight": 1.0}}, "network": TINY | {"channels": 4}}),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Shards by their number of channels: discs of any colour on nothing, with noise behind what is hidden."""
    folder = tmp_path_factory.mktemp("shapes")
    (folder / "source").mkdir()
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:60, :80]
    for i in range(40):
        pixels = rng.integers(0, 256, (60, 80, 4), dtype=np.uint8)
        inside = (rows - rng.integers(20, 40)) ** 2 + (columns - rng.integers(20, 60)) ** 2 < 300
        pixels[inside, :3] = rng.integers(0, 256, 3)
        pixels[..., 3] = inside * 255
        Image.fromarray(pixels).save(folder / "source" / f"{i}.png")
    for channels in (1, 4):
        out = ["--out", str(folder / str(channels)), "--size", "48x64", "--channels", str(channels)]
        assert shards(["build", str(folder / "source"), *out, "--workers", "1", "--holdout", "0"]) == 0
    return {channels: folder / str(channels) for channels in (1, 4)}


def train(folder: Path, name: str, data: dict[int, Path], processes: int) -> RunFolder:
    """Train a run to its end."""
    channels, settings = RUNS[name]
    run = RunFolder(folder)
    values = COMMON | settings | {"data": str(data[channels])}
    write_config(run, resolve_config(run, overlay_settings(Config(), values, name)).config)
    codes = start_ranks(run, processes).wait()
    assert codes == [0] * processes, Path(f"{run.path}.log").read_text()
    return run


def state(run: RunFolder) -> str:
    """Return the fingerprint of the newest checkpoint."""
    found = newest_whole(run.checkpoints, lambda checkpoint, problem: None)
    assert found
    return fingerprint(*found.read())


@pytest.mark.parametrize("name", RUNS)
def test_one_and_two_processes_and_what_they_generate(name: str, data: dict[int, Path], tmp_path: Path) -> None:
    one, two = (train(tmp_path / str(count), name, data, count) for count in (1, 2))
    assert state(one) == state(two)
    assert one.metrics.read_bytes() == two.metrics.read_bytes()
    channels, _ = RUNS[name]
    with Image.open(one.sample(STEP * STEPS)) as grid:
        assert grid.mode == "RGB"
    grid_file, files = tmp_path / "grid.png", tmp_path / "files"
    assert trainer(["sample", str(one.path), "--out", str(grid_file), "--num", "4"]) == 0
    with Image.open(grid_file) as grid:
        assert (grid.mode, grid.size) == ("RGB", (128, 96))
    assert trainer(["sample", str(one.path), "--out", str(files), "--num", "2", "--files"]) == 0
    with Image.open(files / "seed0001.png") as single:
        assert (single.mode, single.size) == ({1: "L", 4: "RGBA"}[channels], (64, 48))
        pixels = np.asarray(single)
    assert channels == 1 or (pixels[pixels[..., 3] == 0] == 0).all()
    assert trainer(["interpolate", str(one.path), "--out", str(tmp_path / "way.webp"), "--steps", "2"]) == 0
    looks = ["--metrics", "swd", "ms_ssim", "fid", "--extractor", "random-vgg", "--cache", str(tmp_path / "cache")]
    assert trainer(["evaluate", str(one.path), "--processes", "1", "--out", str(tmp_path / "looks"), *looks]) == 0
    assert trainer(
        ["evaluate", str(files), "--against", str(data[channels]), "--metrics", "swd", "--processes", "1"]
    ) in (0, 2)
