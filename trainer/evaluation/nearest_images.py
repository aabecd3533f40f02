"""Draw generated images beside the nearest real ones, which shows what a generator has memorized."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from shards.images.display import over_checkerboard
from trainer.evaluation.extraction import ExtractionTask
from trainer.metrics import nearest
from trainer.sampling.sampler import GAP, Images

SHOWN_NEAREST = 5  # real images in each row
ROWS = 16  # generated images: those nearest to a real one

Features = npt.NDArray[np.floating]


def nearest_images_png(
    fake: ExtractionTask, real: ExtractionTask, fake_features: Features, real_features: Features
) -> bytes:
    """Return a PNG with a row for each of the fakes that are nearest to a real image: the fake, then its nearest reals.

    Args:
        fake, real: tasks whose sources have the images.
        fake_features: (n, d), of the first n fakes.
        real_features: (m, d), of the first m reals.
    """
    distances, indices = nearest(fake_features, real_features, min(SHOWN_NEAREST, len(real_features)))
    # Stable: equal distances keep their order, so the picture is the same on every machine.
    chosen = np.argsort(distances[:, 0], kind="stable")[:ROWS]
    generated = over_checkerboard(fake.source.images(chosen))
    near = over_checkerboard(real.source.images(indices[chosen].ravel())).reshape(
        *indices[chosen].shape, *generated.shape[1:]
    )
    lines = [np.concatenate([with_gap(fake), *row], axis=1) for fake, row in zip(generated, near, strict=True)]
    file = io.BytesIO()
    Image.fromarray(np.concatenate(lines)).save(file, "png")
    return file.getvalue()


def with_gap(picture: npt.NDArray[np.uint8]) -> Images:
    """Return an image, (h, w, 3), with a white gap on its right."""
    return np.pad(picture, ((0, 0), (0, GAP), (0, 0)), constant_values=255)
