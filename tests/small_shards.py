"""A small dataset, built by the real thing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from shards.building.build import run_build
from shards.building.options import Build

SIZE = 20
CLASSES = ("flags", "others")
PICTURES = 24  # of each class
EXCLUDED = {"empty": 1, "not_an_image": 2}


def build(folder: Path, encode: Literal["raw", "png", "jpg", "webp"]) -> Path:
    """Build several shards of training pictures, and a hold-out share, in `folder`/data; return that."""
    for label, name in enumerate(CLASSES):
        (folder / "source" / name).mkdir(parents=True)
        for i in range(PICTURES):
            shape = (30 + i, 40, 3) if i else (300, 40, 3)
            pixels = np.random.default_rng([label, i]).integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "source" / name / f"picture {i}.png")
    (folder / "source" / "empty.png").touch()
    for name in CLASSES:
        (folder / "source" / name / "text.jpg").write_text("no picture")
    args = Build(
        folder / "source",
        folder / "data",
        size=(str(SIZE),),
        encode=encode,
        labels="folders",
        holdout=0.2,
        shard_samples=8,
        workers=1,
    )
    assert run_build(args) == 0
    return folder / "data"
