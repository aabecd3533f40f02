"""Painted pictures beside the nearest real ones: what a generator has learnt by heart shows here."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.evaluation.extraction import ExtractionTask
from trainer.metrics import nearest
from trainer.sampling.sampler import GAP, Images

NEIGHBOURS = 5
SHOWN = 16  # painted pictures: those nearest to a real one

Features = npt.NDArray[np.floating]


def nearest_pictures(
    fake: ExtractionTask, real: ExtractionTask, fake_features: Features, real_features: Features
) -> bytes:
    """Return a PNG: one line for each of the fakes nearest to a real picture, itself and then its neighbours.

    Args:
        fake, real: whose pictures are shown.
        fake_features: (n, d), of the first n fakes.
        real_features: (m, d), of the first m reals.
    """
    distances, indices = nearest(fake_features, real_features, min(NEIGHBOURS, len(real_features)))
    chosen = np.argsort(distances[:, 0], kind="stable")[:SHOWN]
    painted = fake.source.pictures(chosen)
    near = real.source.pictures(indices[chosen].ravel()).reshape(*indices[chosen].shape, *painted.shape[1:])
    lines = [np.concatenate([wide(fake), *row], axis=1) for fake, row in zip(painted, near, strict=True)]
    file = io.BytesIO()
    Image.fromarray(np.concatenate(lines)).save(file, "png")
    return file.getvalue()


def wide(picture: npt.NDArray[np.uint8]) -> Images:
    """Set a picture (h, w, 3) off from what follows on its right."""
    return np.pad(picture, ((0, 0), (0, GAP), (0, 0)), constant_values=255)
