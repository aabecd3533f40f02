"""Open an extractor by its name for commands that look at single pictures, with what a classifier learns from."""

from __future__ import annotations

from pathlib import Path

from shards.dataset.index import DataError
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.core.registry import choose_from
from trainer.evaluation.prepare import labelled_images
from trainer.evaluation.source import FolderImages, ShardImages, open_images
from trainer.extractors import DEFAULT, EXTRACTORS, Extractor, ExtractorOptions
from trainer.extractors.base import CACHE


def training_images(config: Config) -> ShardImages | FolderImages | None:
    """Return the pictures that a run was trained on; None: they are not there any more."""
    try:
        return open_images(config.data, None) if config.data else None
    except (DataError, Refused):
        return None


def open_by_name(
    name: str | None, weights: Path | None, real: ShardImages | FolderImages | None, cache: Path = CACHE
) -> Extractor:
    """Open an extractor.

    Args:
        name: in the registry; None: the one that needs no file.
        weights: its file.
        real: what a classifier learns from.
        cache: where trained classifiers are kept.

    Raises:
        Refused: there is none of this name, its file is missing, or it learns classes and there are none.
    """
    opener = choose_from(EXTRACTORS, name or DEFAULT, "extractor")
    data = labelled_images(real) if real else None
    return opener(ExtractorOptions(weights, data=data, cache=cache.expanduser()))
