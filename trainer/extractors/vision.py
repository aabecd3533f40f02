"""What both vision transformers share: pictures as these networks were trained on, and the length of their heads."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

SIZE = 224
HEAD = 64  # features of each head of attention, in both families
Triple = tuple[float, float, float]


def standardised(x: Float[Tensor, "n 3 h w"], mean: Triple, deviation: Triple) -> Float[Tensor, "n 3 h w"]:
    """Return pictures from [0, 255] less the mean, by the deviation, of pictures in [0, 1]."""
    return (x / 255 - x.new_tensor(mean).reshape(3, 1, 1)) / x.new_tensor(deviation).reshape(3, 1, 1)
