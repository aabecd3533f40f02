"""DINOv2: features of a transformer trained on images alone, closer to human judgement than Inception's.

Oquab et al. 2023, arXiv:2304.07193; Stein et al. 2023, arXiv:2306.04675, who compare extractors, take ViT-L/14, the
normalised class token and pictures of 224 pixels. Names of tensors are those of the published files; the width and the
depth are read from the file. Registers and the gated layers of ViT-g are not written out.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, scaled_dot_product_attention

from trainer.core.fields import Refused
from trainer.extractors.base import DEFAULT_OPTIONS, Extractor, ExtractorOptions, Network, Outputs, normalize_images
from trainer.extractors.weights import Published, WeightsFile, build_with_weights

SOURCE = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{0}14/dinov2_vit{0}14_pretrain.pth"
SHA256 = {
    "l": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    "b": "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    "s": "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
}
FILE = WeightsFile(
    "dinov2",
    [Published(f"dinov2_vit{size}14_pretrain.pth", hash, SOURCE.format(size)) for size, hash in SHA256.items()],
    others=True,
)
PATCH = 14
TRAINED = 37  # patches along a side of its training images
OFFSET = 0.1  # that the authors add when they scale the position embeddings
SIZE = 224  # pixels that it sees
HEAD = 64  # features of each head of attention
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
Tokens = Float[Tensor, "n t d"]


class Attention(nn.Module):
    """Self-attention."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tokens) -> Tokens:
        """Return (n, t, d)."""
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, d // HEAD, HEAD).permute(2, 0, 3, 1, 4)
        seen: Tokens = self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d))
        return seen


class Mlp(nn.Module):
    """Two layers for each token."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tokens) -> Tokens:
        """Return (n, t, d)."""
        out: Tokens = self.fc2(gelu(self.fc1(x)))
        return out


class LayerScale(nn.Module):
    """A factor for each feature (Touvron et al. 2021, arXiv:2103.17239)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(dim))

    def forward(self, x: Tokens) -> Tokens:
        """Return (n, t, d)."""
        return x * self.gamma


class Block(nn.Module):
    """Attention, then two layers, each beside a way past them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(dim, 1e-6), Attention(dim), LayerScale(dim)
        self.norm2, self.mlp, self.ls2 = nn.LayerNorm(dim, 1e-6), Mlp(dim), LayerScale(dim)

    def forward(self, x: Tokens) -> Tokens:
        """Return (n, t, d)."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        out: Tokens = x + self.ls2(self.mlp(self.norm2(x)))
        return out


class Patches(nn.Module):
    """One token for each 14 x 14 pixels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, PATCH)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Tokens:
        """Return (n, h / 14 · w / 14, d)."""
        tokens: Tokens = self.proj(x).flatten(2).transpose(1, 2)
        return tokens


class DinoV2(Network):
    """The vision transformer.

    Args:
        dim: features of a token.
        depth: blocks.
    """

    size = SIZE

    def __init__(self, dim: int, depth: int) -> None:
        super().__init__()
        self.dim = dim
        self.patch_embed = Patches(dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + TRAINED**2, dim))
        self.blocks = nn.Sequential(*(Block(dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, 1e-6)

    def positions(self, side: int) -> Float[Tensor, "1 t d"]:
        """Return those of the class token and of side x side patches, interpolated as the authors do."""
        own, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:].reshape(1, TRAINED, TRAINED, -1).permute(0, 3, 1, 2)
        scale = (side + OFFSET) / TRAINED  # the offset keeps rounding from losing a patch
        grid = interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
        return torch.cat([own, grid.flatten(2).transpose(1, 2)], 1)

    def forward(self, x: Float[Tensor, "n 3 224 224"]) -> Outputs:
        """Return the class token after the last norm, (n, d)."""
        patches = self.patch_embed(normalize_images(x, MEAN, DEVIATION))
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], 1)
        tokens = self.blocks(tokens + self.positions(self.size // PATCH))
        return self.norm(tokens)[:, 0], None


def open_dinov2(options: ExtractorOptions = DEFAULT_OPTIONS, /) -> Extractor:
    """Open DINOv2 from the user's file: ViT-L, B or S."""
    weights, version, path = FILE.read(options.weights)
    if "cls_token" not in weights:
        raise Refused(f"{path} does not fit: it has no tensor cls_token")
    weights.pop("mask_token", None)  # for training only
    # Width and depth are read from the file, so that one function opens S, B and L.
    depth = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    network = build_with_weights(lambda: DinoV2(weights["cls_token"].shape[-1], depth), weights, path)
    return Extractor("dinov2", version, network, options.resize or "clean")
