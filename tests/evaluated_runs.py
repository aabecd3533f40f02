"""Runs that have not learnt anything yet, made in a moment, for the tests of evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from shards.building.build import run_build
from shards.building.options import Build
from shards.dataset.index import Index
from trainer.config.config import Config
from trainer.config.recipes import recipe_config
from trainer.core.fields import overlay_settings
from trainer.gan.assembly import create_state
from trainer.runs.checkpoint_writer import Checkpoints
from trainer.runs.config_loading import write_config
from trainer.runs.config_resolution import resolve_config
from trainer.runs.run_folder import RunFolder

COLOURS = {"red": 0, "green": 1, "blue": 2}
PICTURES = 60  # of each class
SMALL = {"g_channels": 8, "d_channels": 8, "z_dim": 16}


def blots(folder: Path) -> Path:
    """Build shards of 32 px of blots of three colours on noise, with classes and a hold-out share."""
    for name, channel in COLOURS.items():
        (folder / "source" / name).mkdir(parents=True)
        for number in range(PICTURES):
            pixels = np.random.default_rng([channel, number]).integers(0, 128, (32, 32, 3), dtype=np.uint8)
            pixels[number % 20 : number % 20 + 12, 4:28, channel] += 100
            Image.fromarray(pixels).save(folder / "source" / name / f"{number}.png")
    asked = Build(
        folder / "source", folder / "data", size=("32",), labels="folders", holdout=0.3, shard_samples=50, workers=1
    )
    assert run_build(asked) == 0
    return folder / "data"


def made_run(folder: Path, data: Path, *images_seen: int, **network: object) -> RunFolder:
    """Make a run of 32 px with a checkpoint at each of these numbers of pictures, whose weights differ."""
    run, start = RunFolder(folder), {"batch_size": 16, "micro_batch_size": 8, "network": SMALL | network}
    config = resolve_config(run, replace(overlay_settings(recipe_config("dcgan-32"), start, "here"), data=data)).config
    write_config(run, config)
    for number in images_seen:
        checkpoint(run, config, number)
    return run


def checkpoint(run: RunFolder, config: Config, images_seen: int) -> None:
    """Add a checkpoint."""
    assert config.data
    state = create_state(replace(config, seed=images_seen), Index.open(config.data).hash, torch.device("cpu"))
    state.images_seen = images_seen
    saver = Checkpoints(run.checkpoints, replace(config.checkpoint, keep_last=99), lambda: None)
    saver.save(state.tensors(), state.scalars())
    assert not isinstance(saver.result(wait=True), OSError)
    saver.close()
