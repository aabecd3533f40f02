"""The settings that all networks share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trainer.core.fields import identity

Head = Literal["plain", "projection", "classifier"]


@dataclass(frozen=True)
class NetworkSettings:
    """The size of both networks, what they know of labels, and the layers that any of them can have."""

    size: int = identity(64, "[0, 4096]")
    """Height and width of the pictures: a power of two. 0: points in the plane in place of pictures."""
    z_dim: int = identity(100, "[1, 65536]")
    """Dimensions of the noise; of StyleGAN2's w as well."""
    g_channels: int = identity(64, "[1, 65536]")
    """The generator's width: channels of its hidden layer at the picture's side."""
    d_channels: int = identity(64, "[1, 65536]")
    """The discriminator's width: channels of its hidden layer at the picture's side."""
    max_channels: int = identity(512, "[1, 65536]")
    """No layer has more channels, however deep; DCGAN, BigGAN and mlp go without a limit."""
    classes: int = identity(0, "[0, 1000000]")
    """Classes of the labels, where the networks use them; 0: as many as the data has."""
    g_conditional: bool = identity(False)
    """The generator is told the class: conditional BatchNorm, or the mapping network's input."""
    d_head: Head = identity("plain")
    """What the discriminator does with classes: plain: nothing; projection (Miyato and Koyama 2018, eq. 3);
    classifier: it also guesses the class (AC-GAN, CAN)."""
    pack: int = identity(1, "[1, 1024]")
    """Pictures that the discriminator judges together, as more channels (PacGAN, Lin et al. 2018)."""
    g_spectral_norm: bool = identity(False)
    """Divide each weight of the generator by its largest singular value (Zhang et al. 2019)."""
    d_spectral_norm: bool = identity(False)
    """Divide each weight of the discriminator by its largest singular value (Miyato et al. 2018)."""
    d_batch_norm: bool = identity(True)
    """The discriminators of DCGAN and FastGAN have BatchNorm; most gradient penalties and packing do better without."""
    attention: int = identity(0, "[0, 4096]")
    """Height of the feature maps with self-attention in SAGAN and BigGAN; 0: as their papers have it."""
    mbstd_group: int = identity(0, "[0, inf)")
    """Pictures whose standard deviation the discriminator sees (Karras et al. 2018, §3); 0: it does not."""
    mapping_layers: int = identity(8, "[1, 1024]")
    """Layers of StyleGAN2's mapping network, and of that of its discriminator's classes."""
    style_mixing: float = identity(0.9, "[0, 1]")
    """Probability that StyleGAN2 generates a training picture from two styles."""

    def check(self) -> str | None:
        """Return what is wrong with these settings whatever the networks, or None."""
        if self.size and (self.size < 4 or self.size & (self.size - 1)):
            return f"network.size must be a power of two from 4, or 0 for points, but is {self.size}"
        if self.pack > 1 and self.uses_classes:
            return "network.pack above 1 does not go with classes: the packed pictures are of different ones"
        return None

    @property
    def uses_classes(self) -> bool:
        """Tell whether any network looks at labels."""
        return self.g_conditional or self.d_head != "plain"

    @property
    def g_classes(self) -> int:
        """Classes that the generator is told; 0: none."""
        return self.classes if self.g_conditional else 0

    @property
    def d_classes(self) -> int:
        """Classes that the discriminator knows; 0: none."""
        return self.classes if self.d_head != "plain" else 0

    @property
    def channels(self) -> int:
        """Channels of a picture as the discriminator sees it."""
        return 3 * self.pack
