"""What every generator and every discriminator is, so that any pair of them goes together.

No network draws by itself: a generator is a function of its `Latent`, which holds every draw.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from trainer.core.randomness import normal
from trainer.networks.checkpointing import checkpointed
from trainer.networks.network_settings import NetworkSettings

Weights = npt.NDArray[np.float64] | npt.NDArray[np.float32] | float


@dataclass(frozen=True)
class Latent:
    """All that a generated image is a function of, besides the weights."""

    z: Float[Tensor, "n z"]
    """Noise, N(0, 1)."""
    label: Num[Tensor, "n ..."]
    """What the pictures are to be: (n,) classes, -1: unknown; (n, values) labels; or their vectors (labels.py)."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """What the architecture draws besides, by name; the first dimension of each is n."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Latent:
        """Return the latent with each of its tensors changed."""
        return Latent(change(self.z), change(self.label), {name: change(t) for name, t in self.extra.items()})

    def tensors(self) -> list[Tensor]:
        """Return its tensors, in the order in which `map` changes them."""
        return [self.z, self.label, *self.extra.values()]

    @staticmethod
    def cat(parts: Sequence[Latent]) -> Latent:
        """Join latents along n."""
        extra = {name: torch.cat([part.extra[name] for part in parts]) for name in parts[0].extra}
        return Latent(torch.cat([p.z for p in parts]), torch.cat([p.label for p in parts]), extra)


class DiscriminatorOutput(NamedTuple):
    """What a discriminator says of pictures."""

    logits: Float[Tensor, " n"]
    """High: real. One for each pack of pictures, or several, (n, logits)."""
    classes: Float[Tensor, "n k"] | None = None
    """Logits of the classes, of one label after the other, where the discriminator guesses them."""
    reconstructions: tuple[Tensor, ...] = ()
    """Pictures rebuilt from its features, where it rebuilds them (FastGAN), and what they should be, alternating."""
    pixels: Float[Tensor, "n h w"] | None = None
    """Logits of the pixels, where it judges each of them (U-Net)."""
    features: Float[Tensor, "n f"] | None = None
    """What the logit is a linear function of, but for the label; None: it is of several (Projected GAN)."""

    @property
    def levels(self) -> list[Tensor]:
        """All logits that losses are about: of pictures, and of pixels, (n, h * w), if there are any."""
        return [self.logits] if self.pixels is None else [self.logits, self.pixels.flatten(1)]


class Network(nn.Module, ABC):
    """A network that knows how its weights begin, and what it cannot be."""

    without_spectral_norm: tuple[str, ...] = (".gain", ".shift")
    """Endings of the names of layers that spectral normalisation leaves alone: the classes' gains and biases."""
    has_blocks = False
    """It runs its blocks by `run_block`, which can do without keeping their activations."""
    gradients_last = False
    """Its forward pass begins with all of its weights, so a backward pass completes their gradients only at the end."""
    weight_buffers: tuple[str, ...] = ()
    """Endings of the names of buffers that belong to the weights: they are drawn, averaged and taken over with them."""
    checkpointing = False
    """Compute the activations of blocks again in the backward pass, in place of keeping them."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.settings, self.labels = settings, settings.labels

    @staticmethod
    @abstractmethod
    def initial_value(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Weights | None:
        """Draw a parameter's first value; None keeps what the constructor gave, which must not be drawn."""

    @staticmethod
    def problem(settings: NetworkSettings) -> str | None:
        """Return what this network cannot do with these settings, or None."""
        return None

    def fill_frozen(self, seed: int) -> None:
        """Fill in the buffers that are drawn or read when a run begins, and never trained; most networks have none."""

    def run_block(self, block: nn.Module, *inputs: Any) -> Any:
        """Call one of the network's blocks."""
        return checkpointed(block, *inputs) if self.checkpointing and torch.is_grad_enabled() else block(*inputs)


class Generator(Network):
    """From a latent to pictures in [-1, 1]; the colours of RGBA are times alpha.

    `latent_code` returns what truncation and interpolation act on: z itself, or StyleGAN's w; the whole network is
    `synthesize(latent_code(latent), latent)`.
    """

    interpolates_linearly = False
    """Codes are averaged and interpolated along straight lines (w), not on a sphere (z)."""
    makes_all_sides = False
    """Called, it makes pictures of all sides, for a discriminator that takes them; synthesize makes the largest."""

    def forward(self, latent: Latent) -> Float[Tensor, "n c h w"]:
        """Generate pictures in [-1, 1], or points (n, 2)."""
        return self.synthesize(self.latent_code(latent), latent)

    def latent_code(self, latent: Latent) -> Float[Tensor, "n ..."]:
        """Return the code of a latent."""
        return latent.z

    def code_layers(self) -> list[Float[Tensor, "outputs code"]]:
        """Return the weights by which layers take the code, one matrix for each layer, in the order of the layers.

        The code is z, or one layer's w. A layer that takes a part of z has zeros for the rest. They are the weights as
        they are used, but for factors that all of them share; biases change no direction.
        """
        return []

    def by_layer(self, code: Float[Tensor, "n ..."]) -> Float[Tensor, "n layers part"]:
        """View a code as what each layer takes of it; in most networks one layer takes all of z."""
        return code[:, None]

    @abstractmethod
    def synthesize(self, code: Float[Tensor, "n ..."], latent: Latent) -> Float[Tensor, "n c h w"]:
        """Generate from codes; of the latent only the class and the extra draws are used."""

    @staticmethod
    def extra(settings: NetworkSettings, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
        """Draw on the CPU what the architecture wants besides z for n pictures."""
        return {}

    @classmethod
    def draw(cls, settings: NetworkSettings, rng: np.random.Generator, label: Num[Tensor, "n ..."]) -> Latent:
        """Draw the latent of pictures with these labels, on the CPU."""
        z = normal(rng, len(label), settings.z_dim)
        return Latent(z, label, cls.extra(settings, rng, len(label)))


class Discriminator(Network):
    """From pictures in [-1, 1] and their labels to its output."""

    reconstructs = False
    """It rebuilds pictures from its features."""
    several_logits = False
    """It has several logits of a picture, (n, logits), whose losses are averaged."""
    judges_pixels = False
    """It has a logit for each pixel, too."""
    takes_all_sides = False
    """It takes pictures of all sides, as such generators make them, or alone."""

    @property
    def judges_each_alone(self) -> bool:
        """Tell whether what it says of a picture is the same whatever it judges together with it."""
        return False

    @abstractmethod
    def forward(self, x: Float[Tensor, "n c h w"], label: Num[Tensor, "n ..."]) -> DiscriminatorOutput:
        """Judge pictures, or points (n, 2)."""


def named_weights(network: Network) -> Iterator[tuple[str, Tensor]]:
    """Yield what a network has learned: parameters, and the buffers that belong to them."""
    yield from network.named_parameters()
    yield from ((name, buffer) for name, buffer in network.named_buffers() if name.endswith(network.weight_buffers))


def weight_matrix(layer: nn.Module) -> Float[Tensor, "outputs inputs"]:
    """Return the weight of a linear or convolutional layer as it is used on a map of one place."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    # A transposed convolution's has the inputs first.
    return weight.flatten(1).T if isinstance(layer, nn.ConvTranspose2d) else weight.flatten(1)


def to_float32(x: Tensor) -> Tensor:
    """Return x in float32 at least."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def pack_images(x: Float[Tensor, "n c *s"], size: int) -> Float[Tensor, "n/m m*c *s"]:
    """Lay `size` neighbouring pictures of the micro-batch on top of one another (Lin et al. 2018, §3)."""
    return x if size == 1 else x.reshape(len(x) // size, size * x.shape[1], *x.shape[2:])


def minibatch_std(x: Float[Tensor, "n c h w"], group: int) -> Float[Tensor, "n c+1 h w"]:
    """Append one map: the standard deviation over a group of pictures, averaged over channels and places.

    Groups are formed within the micro-batch, as in Karras et al. 2018 (§3) and StyleGAN2's code: pictures i, i + n/g,
    i + 2n/g… belong together. With group 0, x is returned as it is.
    """
    if group == 0:
        return x
    n, c, h, w = x.shape
    # The largest group that divides the micro-batch, as every image must be in one.
    g = next(g for g in range(min(group, n), 0, -1) if n % g == 0)
    # Under the root, because its gradient at 0 is infinite; in float32, because small differences are squared.
    spread = to_float32(x).reshape(g, n // g, c, h, w).var(0, unbiased=False).add(1e-8).sqrt().mean((1, 2, 3))
    return torch.cat([x, spread.to(x.dtype).repeat(g)[:, None, None, None].expand(n, 1, h, w)], 1)


class Head(nn.Module):
    """The discriminator's last layer: from pooled features to its output.

    Args:
        features: dimensions of the features.
        settings: say what it does with labels.
        bias: of the logit; DCGAN has none.
    """

    def __init__(self, features: int, settings: NetworkSettings, bias: bool = True) -> None:
        super().__init__()
        self.settings, self.labels = settings, settings.labels
        self.real = nn.Linear(features, 1, bias=bias)
        if settings.d_head == "projection":
            self.embed = nn.Linear(self.labels.dim, features, bias=False)
        elif settings.d_head == "classifier":
            self.classify = nn.Linear(features, self.labels.guessed)

    def forward(self, features: Float[Tensor, "n f"], label: Num[Tensor, "n ..."]) -> DiscriminatorOutput:
        """Judge: psi(f), and for projection + <embed(label), f> (Miyato and Koyama 2018, eq. 3)."""
        logits = self.real(features).flatten()
        if self.settings.d_head == "projection":
            logits = logits + (self.embed(self.labels(label).to(features.dtype)) * features).sum(1)
        classes = self.classify(features) if self.settings.d_head == "classifier" else None
        return DiscriminatorOutput(logits, classes, features=features)
