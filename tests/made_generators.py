"""Runs of several generators that have not learnt anything yet, made in a moment, and what commands write of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.evaluated_runs import SMALL, blots, checkpoint
from trainer.__main__ import main
from trainer.config.recipes import recipe_config
from trainer.core.fields import overlay_settings
from trainer.runs.config_loading import write_config
from trainer.runs.config_resolution import resolve_config
from trainer.runs.run_folder import RunFolder
from trainer.sampling.sheets import FONT, MARGIN

SIZE = 32
TIMES = 2  # how many times as large pictures of 32 pixels are on sheets
Pixels = npt.NDArray[np.uint8]


def made_generator(folder: Path, data: Path, generator: str, **network: object) -> Path:
    """Make a run of 32 px with this generator and one checkpoint."""
    run = RunFolder(folder)
    settings = SMALL | {"max_channels": 16, "mapping_layers": 2} | network
    start = {"batch_size": 16, "micro_batch_size": 8, "generator": generator, "network": settings}
    config = resolve_config(run, replace(overlay_settings(recipe_config("dcgan-32"), start, "here"), data=data)).config
    write_config(run, config)
    checkpoint(run, config, 16)
    return folder


@pytest.fixture(scope="session")
def blot_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 32 px of three classes; the pictures lie in ../source."""
    return blots(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def generators(blot_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs whose code is z, w, and a z with parts, the last two told classes; and one with maps of noise."""
    folder, told = tmp_path_factory.mktemp("runs"), {"g_conditional": True}
    return {
        "z": made_generator(folder / "z", blot_shards, "dcgan"),
        "w": made_generator(folder / "w", blot_shards, "stylegan2", **told),
        "parts": made_generator(folder / "parts", blot_shards, "biggan", **told, z_dim=20),
        "maps": made_generator(folder / "maps", blot_shards, "fastgan"),
    }


def make(*words: object) -> None:
    """Run a command of the trainer; it succeeds."""
    assert main([str(word) for word in words]) == 0


def sheet_cells(path: Path, rows: int, columns: int) -> Pixels:
    """Return the pictures of a labelled sheet, (rows, columns, h, w, 3), at their own size."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    side = SIZE * TIMES
    left, top = pixels.shape[1] - columns * side, pixels.shape[0] - rows * side
    assert left >= 0
    assert top in (0, FONT + 2 * MARGIN)
    cells = pixels[top:, left:].reshape(rows, side, columns, side, 3).swapaxes(1, 2)
    small = cells[:, :, ::TIMES, ::TIMES]
    assert (small.repeat(TIMES, 2).repeat(TIMES, 3) == cells).all(), "each pixel is a square"
    return small


def pictures(run: Path, seeds: str, folder: Path, *options: str) -> Pixels:
    """Return the pictures that `sample` generates of these seeds, in rising order: (n, h, w, 3)."""
    make("sample", run, "--out", folder, "--files", "--seeds", seeds, "--force", *options)
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))])
