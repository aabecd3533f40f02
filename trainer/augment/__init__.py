"""The augmentations: one file each, one line here."""

from __future__ import annotations

from command_line.plugins import Registry
from trainer.augment.ada import Ada
from trainer.augment.base import Augmentation
from trainer.augment.diffaugment import DiffAugment
from trainer.augment.none import Nothing
from trainer.core.registry import is_kind

OUR_AUGMENTATIONS: dict[str, type[Augmentation]] = {
    "none": Nothing,
    "diffaugment": DiffAugment,
    "ada": Ada,
}
AUGMENTATIONS = Registry(
    "augmentations", OUR_AUGMENTATIONS, "a subclass of trainer.augment.base.Augmentation", is_kind(Augmentation)
)
