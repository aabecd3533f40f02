"""The settings that all networks share."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from shards.images.size import format_size
from trainer.core.fields import identity, later_identity, operational
from trainer.networks.labels import LabelKind, LabelLayout, parse_kinds

LEAST_BASE, LARGEST_BASE = 4, 16  # pixels, of the sides of the smallest feature maps
Head = Literal["plain", "projection", "classifier"]


@dataclass(frozen=True)
class NetworkSettings:
    """The size of both networks, what they know of labels, and the layers that any of them can have."""

    size: int = identity(64, "[0, 4096]")
    """Height of the pictures, and their width unless network.width is set: 4, 5, 6 or 7 times a power of two. 0: points
    in the plane in place of pictures."""
    width: int = later_identity(0, "[0, 4096]")
    """Width of pictures that are not square: docs/architectures.md says which shapes there are; 0: as the height."""
    channels: Literal[1, 3, 4] = later_identity(3)
    """Of the pictures: 1 grey, 3 RGB, 4 RGBA with premultiplied colours."""
    z_dim: int = identity(100, "[1, 65536]")
    """Dimensions of the noise; of StyleGAN2's and StyleGAN3's w as well."""
    g_channels: int = identity(64, "[1, 65536]")
    """The generator's width: channels of its hidden layer at the picture's side."""
    d_channels: int = identity(64, "[1, 65536]")
    """The discriminator's width: channels of its hidden layer at the picture's side."""
    max_channels: int = identity(512, "[1, 65536]")
    """No layer has more channels, however deep, and of stylegan3-r twice as many; DCGAN, BigGAN, BigGAN-deep, U-Net and
    mlp go without a limit."""
    classes: int = identity(0, "[0, 1000000]")
    """Classes of the labels, where the networks use them; 0: as many as the data has."""
    label_columns: str = later_identity("")
    """The labels that the networks are told, with commas between them, such as style,genre,year: columns of classes, of
    numbers or vectors that the shards have. Default: the first column of classes."""
    label_kinds: Annotated[str, tyro.conf.Suppress] = later_identity("")
    """What each of these is in the data that the run began with, such as "27 classes, mean 1800.0 spread 120.0"."""
    g_conditional: bool = identity(False)
    """The generator is told the labels: conditional BatchNorm, or the mapping network's input."""
    d_head: Head = identity("plain")
    """What the discriminator does with labels: plain: nothing; projection (Miyato and Koyama 2018, eq. 3);
    classifier: it also guesses the class (AC-GAN, CAN)."""
    pack: int = identity(1, "[1, 1024]")
    """Pictures that the discriminator judges together, as more channels (PacGAN, Lin et al. 2018)."""
    g_spectral_norm: bool = identity(False)
    """Divide each weight of the generator by its largest singular value (Zhang et al. 2019)."""
    d_spectral_norm: bool = identity(False)
    """Divide each weight of the discriminator by its largest singular value (Miyato et al. 2018)."""
    d_batch_norm: bool = identity(True)
    """The discriminators of DCGAN and FastGAN have BatchNorm; most gradient penalties and packing do better without."""
    g_tanh: bool = later_identity(True)
    """FastGAN's generator ends in a tanh; without it, as in the authors' code, its pictures are cut off at -1 and 1."""
    attention: int = identity(0, "[0, 4096]")
    """Height of the feature maps with self-attention in SAGAN, BigGAN, BigGAN-deep; 0: as in their papers."""
    mbstd_group: int = identity(0, "[0, inf)")
    """Pictures whose standard deviation the discriminator sees (Karras et al. 2018, §3); 0: it does not."""
    features_file: Path | None = operational(None)
    """Weights of EfficientNet-Lite0 (timm's tf_efficientnet_lite0) for the discriminator projected, needed once, when
    the run begins; default: a random VGG, which needs no file."""
    features_hash: Annotated[str, tyro.conf.Suppress] = later_identity("")
    """SHA-256 of that file."""
    features_side: int = later_identity(224, "[128, 1024]")
    """The discriminator projected sees pictures resized to this side, a multiple of 32."""
    mapping_layers: int = identity(8, "[1, 1024]")
    """Layers of the mapping network of StyleGAN2 and StyleGAN3, and of that of the discriminator's classes."""
    style_mixing: float = identity(0.9, "[0, 1]")
    """Probability that StyleGAN2 generates a training picture from two styles."""

    def check(self) -> str | None:
        """Return what is wrong with these settings whatever the networks, or None."""
        if problem := self.label_problem():
            return problem
        if not self.size:
            return "network.width is of pictures: points (network.size 0) have none" if self.width else None
        unit = 1 << self.doublings
        if min(self.shape) < LEAST_BASE or max(self.base) > LARGEST_BASE or any(side % unit for side in self.shape):
            fitting = [min(max(side // unit, LEAST_BASE), LARGEST_BASE) * unit for side in self.shape]
            return (
                f"pictures of {format_size(self.shape)} (network.size x network.width) fit no network: both sides must "
                "be 4 to 16, and the shorter one 4 to 7, times the same power of two, such as "
                f"{format_size((fitting[0], fitting[1]))}"
            )
        return None

    def label_problem(self) -> str | None:
        """Return what is wrong with the settings on labels, or None."""
        if self.pack > 1 and self.uses_classes:
            return "network.pack above 1 does not go with classes: the packed pictures are of different ones"
        if not self.label_columns:
            return "network.label_kinds follow from network.label_columns" if self.label_kinds else None
        names = self.label_names if self.label_columns.isprintable() else ("",)
        if "" in names or len({*names}) < len(names):
            return f"network.label_columns must name columns, each once, but is {self.label_columns!r}"
        if not self.uses_classes:
            return "network.label_columns does nothing without --network.g-conditional or --network.d-head"
        if self.classes:
            return "network.classes is of the label in the table: with network.label_columns the data has the numbers"
        return None

    @property
    def uses_classes(self) -> bool:
        """Tell whether any network looks at labels."""
        return self.g_conditional or self.d_head != "plain"

    @property
    def label_names(self) -> tuple[str, ...]:
        """The columns of the labels; none: the label in the table."""
        # As CSV has it: a name may hold a comma, in quotes.
        row = next(csv.reader([self.label_columns], skipinitialspace=True)) if self.label_columns else []
        return tuple(name.strip() for name in row)

    @property
    def labels(self) -> LabelLayout:
        """How labels become what the networks are told."""
        return parse_kinds(self.label_kinds) if self.label_columns else LabelLayout((LabelKind(self.classes),))

    @property
    def g_condition(self) -> int:
        """Entries of the vector that the generator is told; 0: it is told nothing."""
        return self.labels.dim if self.g_conditional and (self.classes or self.label_columns) else 0

    @property
    def d_inputs(self) -> int:
        """Channels of what the discriminator judges at a time: a pack of pictures."""
        return self.channels * self.pack

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self.size, self.width or self.size

    @property
    def data_shape(self) -> tuple[int, ...]:
        """The shape of a picture, (channels, height, width), or of a point, (2,)."""
        return (self.channels, *self.shape) if self.size else (2,)

    @property
    def doublings(self) -> int:
        """How often the sides of the smallest feature maps are doubled: until their shorter side is 4 to 7."""
        return max(min(self.shape).bit_length() - 3, 0)

    @property
    def base(self) -> tuple[int, int]:
        """Height and width of the smallest feature maps: 4 and 4 for a power of two, 4 and 6 for 256x384."""
        return self.shape[0] >> self.doublings, self.shape[1] >> self.doublings

    @property
    def nominal(self) -> int:
        """The side of square pictures whose networks have the same layers: 4, doubled as often. 0: points.

        Networks name their feature maps by it: those of "side" s have s / 4 times the base's height and width.
        """
        return 4 << self.doublings if self.size else 0

    def map_shape(self, side: int) -> tuple[int, int]:
        """Return height and width of the feature maps that would be of this side if the pictures were square."""
        return self.base[0] * side // 4, self.base[1] * side // 4

    def shape_problem(self, network: str, sides: Sequence[int]) -> str | None:
        """Return that a network is not made for the pictures' shape, if their nominal side is none of `sides`."""
        if self.nominal in sides:
            return None
        *first, last = (str(side) if side else "0 (points)" for side in sides)
        known = f"{', '.join(first)} or {last}"
        if self.base in ((4, 4), (0, 0)):
            return f"network.size must be {known} for {network}, but is {self.size}"
        height, width = self.base
        return (
            f"{network} makes square pictures of {known}, and others of as many layers: {format_size(self.shape)}, "
            f"which is {height}x{width} doubled {self.doublings} times, is like {self.nominal}"
        )
