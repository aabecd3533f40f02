"""CutMix for a discriminator that judges each pixel (Schönfeld et al. 2020, arXiv:2002.12655, eq. 5 to 7)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import softplus

from trainer.losses.discriminator_pass import DiscriminatorPass
from trainer.losses.objectives import Loss
from trainer.losses.penalties.base import Drawn, Penalty
from trainer.networks.base import to_float32
from trainer.networks.network_settings import NetworkSettings


class CutMix(Penalty):
    """Of a picture with a rectangle of another one, D knows which pixels are real, and says what it says of them there.

    The sum of three terms over pictures mixed of a real one and a fake: the mean squared difference between the pixels'
    logits and those of the two pictures where these were taken from (consistency), and the logistic losses by which
    each pixel is what it is, and the whole picture a fake, as in the authors' code.
    """

    wants_pixels = True

    def draw(self, rng: np.random.Generator, n: int, network: NetworkSettings) -> dict[str, Tensor]:
        """Draw a rectangle for each picture, and whether the real one is inside.

        box: (n, 4) int64, the first row, the row behind the last, and the same of columns. Its share of the area, but
        for what lies beyond the border, is uniform, and so is its middle (Yun et al. 2019, arXiv:1905.04899).
        """
        sides = np.array(network.shape)
        # Of centres and halves: (n, 2), rows and columns.
        middle = rng.integers(0, sides, (n, 2))
        half = (np.sqrt(rng.random((n, 1))) * sides).astype(np.int64) // 2
        box = np.stack([np.maximum(middle - half, 0), np.minimum(middle + half, sides)], 2)
        return {"box": torch.from_numpy(box.reshape(n, 4)), "inside": torch.from_numpy(rng.random(n) < 0.5)}

    def __call__(self, d_pass: DiscriminatorPass, draws: Drawn) -> tuple[Loss, dict[str, Tensor]]:
        """Return the penalty."""
        real, fake = d_pass.augmented_real.detach(), d_pass.augmented_fake.detach()
        discriminator = d_pass.models.discriminator
        # The pictures of a pack are judged as one, and mixed alike.
        pack = discriminator.settings.pack
        is_real = mask(draws["box"][::pack], draws["inside"][::pack], real.shape[2], real.shape[3])
        mixed = torch.where(is_real.repeat_interleave(pack, 0)[:, None], real, fake)
        # Through the bare module: the extra pass collects no statistics and no gradients but this loss's.
        output = discriminator(mixed, d_pass.batch.label)
        pixels, logits = to_float32(output.pixels), to_float32(output.logits)
        of_real, of_fake = d_pass.d_real.pixels, d_pass.d_fake.pixels
        assert of_real is not None
        assert of_fake is not None
        apart = torch.where(is_real, of_real, of_fake)
        consistency = (pixels - apart).square().mean()
        known = softplus(torch.where(is_real, -pixels, pixels)).mean() + softplus(logits).mean()
        return consistency + known, {}


def mask(box: Tensor, inside: Tensor, height: int, width: int) -> Bool[Tensor, "n h w"]:
    """Return where each mixed picture is the real one."""
    rows = torch.arange(height, device=box.device)
    columns = torch.arange(width, device=box.device)
    top, bottom, left, right = (edge[:, None] for edge in box.unbind(1))
    in_box = ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None]
    return in_box == inside[:, None, None]
