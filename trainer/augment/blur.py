"""The blur of what D judges, which fades while training begins (Karras et al. 2021, arXiv:2106.12423, appendix D.2).

It keeps D from looking at details before G has any; config R of StyleGAN3 needs it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from trainer.core.recording import number


class FadingBlur:
    """A Gaussian filter whose width falls in a straight line, to nothing after so many pictures.

    Args:
        sigma: the first width in pixels. A pixel k away counts 2^-(k / sigma)², as in the authors' code, up to three
            widths away. Beyond the border there are zeros, which are grey.
        images: pictures after which there is no blur.
    """

    def __init__(self, sigma: float, images: int) -> None:
        self.first, self.images = sigma, images
        self.reach = int(3 * sigma)

    def due(self, images_seen: int) -> bool:
        """Tell whether the update that begins at `images_seen` blurs."""
        return self.first > 0 and images_seen < self.images

    def sigma(self, images_seen: int) -> float:
        """Return the width in the update that begins at `images_seen`."""
        return max(1 - images_seen / self.images, 0.0) * self.first

    def __call__(self, x: Float[Tensor, "n c h w"], images_seen: int) -> Float[Tensor, "n c h w"]:
        """Blur pictures, with as many taps for any width: those too far away are zero."""
        if not self.due(images_seen):
            return x
        # A tensor, as it is in a CUDA graph: plain numbers are divided by in another way.
        sigma = torch.as_tensor(number(self.sigma, images_seen), dtype=torch.float32, device=x.device)
        places = torch.arange(-self.reach, self.reach + 1, dtype=torch.float32, device=x.device)
        taps = torch.exp2(-(places / sigma).square()) * (places.abs() <= (3 * sigma).floor())
        taps = (taps / taps.sum()).to(x.dtype).expand(x.shape[1], 1, -1)
        with torch.autocast(x.device.type, enabled=False):
            x = F.conv2d(x, taps[:, :, :, None], None, 1, (self.reach, 0), groups=x.shape[1])
            return F.conv2d(x, taps[:, :, None], None, 1, (0, self.reach), groups=x.shape[1])
