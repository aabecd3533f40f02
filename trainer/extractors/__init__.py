"""Feature extractors: frozen networks that turn images into features, for metrics that compare features.

One file per network; EXTRACTORS opens them by name.
"""

from __future__ import annotations

from command_line.plugins import Registry
from trainer.extractors.base import Extractor, ExtractorOptions, Features, LabelledImages, Opener
from trainer.extractors.classifier import open_classifier
from trainer.extractors.clip import open_clip
from trainer.extractors.dinov2 import open_dinov2
from trainer.extractors.inception import open_inception
from trainer.extractors.random_vgg import open_random_vgg

DEFAULT = "random-vgg"
OUR_EXTRACTORS: dict[str, Opener] = {
    "random-vgg": open_random_vgg,
    "classifier": open_classifier,
    "inception-2015": open_inception,
    "dinov2": open_dinov2,
    "clip": open_clip,
}
EXTRACTORS = Registry("extractors", OUR_EXTRACTORS, "a function of ExtractorOptions that opens an Extractor", callable)

__all__ = ["DEFAULT", "EXTRACTORS", "Extractor", "ExtractorOptions", "Features", "LabelledImages", "Opener"]
