"""The augmentations: one file each, one line here."""

from __future__ import annotations

from trainer.augment.ada import Ada
from trainer.augment.base import Augmentation
from trainer.augment.diffaugment import DiffAugment
from trainer.augment.none import Nothing

AUGMENTATIONS: dict[str, type[Augmentation]] = {
    "none": Nothing,
    "diffaugment": DiffAugment,
    "ada": Ada,
}
