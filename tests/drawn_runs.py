"""Run folders of generators with drawn weights, as if they had trained: whatever is zero at first is not zero there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from trainer.config.config import Config
from trainer.config.groups import CheckpointSettings
from trainer.core.randomness import normal, philox
from trainer.gan.assembly import create_state
from trainer.networks import GENERATORS
from trainer.networks.network_settings import NetworkSettings
from trainer.runs.checkpoint_writer import Checkpoints
from trainer.runs.config_loading import write_config
from trainer.runs.run_folder import RunFolder

IMAGES = 64


def small_config(generator: str, network: Mapping[str, object], discriminator: str = "dcgan") -> Config:
    """Return settings of a small generator of 32 pixels."""
    sizes: dict[str, object] = {"size": 32, "z_dim": 16, "g_channels": 16, "d_channels": 4, "max_channels": 32}
    settings = NetworkSettings(**{**sizes, "mapping_layers": 2, **network})  # type: ignore[arg-type]
    return replace(
        Config(),
        generator=generator,
        discriminator=generator if GENERATORS[generator].makes_all_sides else discriminator,
        network=settings,
        batch_size=8,
        micro_batch_size=8,
        mixed_precision="no",
    )


@torch.no_grad()
def make_run(folder: Path, config: Config) -> Path:
    """Make a run folder with one checkpoint."""
    run = RunFolder(folder)
    write_config(run, config)
    state = create_state(config, "data", torch.device("cpu"))
    state.images_seen = IMAGES
    for name, tensor in state.tensors().items():
        if name.startswith(("generator.", "discriminator.", "ema.")) and tensor.is_floating_point():
            tensor.add_(normal(philox("made", name), *tensor.shape), alpha=0.1)
    checkpoints = Checkpoints(run.checkpoints, CheckpointSettings(), lambda: None)
    checkpoints.save(state.tensors(), state.scalars())
    assert not isinstance(checkpoints.result(wait=True), OSError)
    checkpoints.close()
    return folder
