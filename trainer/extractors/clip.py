"""CLIP: the visual tower of ViT-B/32, which was trained on images with captions.

Radford et al. 2021, arXiv:2103.00020; FID with its features: Kynkäänniemi et al. 2023, arXiv:2203.06026. Names of
tensors are those of OpenAI, or of Hugging Face's safetensors, which are carried over.
"""

from __future__ import annotations

import re

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainer.core.fields import Refused
from trainer.extractors.base import DEFAULT_OPTIONS, Extractor, ExtractorOptions, Network, Outputs, normalize_images
from trainer.extractors.weights import Published, Weights, WeightsFile, build_with_weights

FILE = WeightsFile(
    "clip",
    [
        Published("clip-vit-base-patch32.safetensors", None, "https://huggingface.co/openai/clip-vit-base-patch32"),
        Published("ViT-B-32.pth", None, "the state dict of https://github.com/openai/CLIP"),
    ],
    others=True,
)
WIDTH, PATCH = 768, 32  # features of a token, and pixels along a side of it, in ViT-B/32
SIZE = 224  # pixels that it sees
HEAD = 64  # features of each head of attention
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's training images
HUGGING_FACE = {  # their names of all but the blocks, and OpenAI's
    "vision_model.embeddings.class_embedding": "class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.pre_layrnorm": "ln_pre",
    "vision_model.post_layernorm": "ln_post",
    "visual_projection.weight": "proj",
}
LAYER = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
LAYERS = {
    "layer_norm1": "ln_1.",
    "layer_norm2": "ln_2.",
    "mlp.fc1": "mlp.c_fc.",
    "mlp.fc2": "mlp.c_proj.",
    "self_attn.out_proj": "attn.out_proj.",
}
Tokens = Float[Tensor, "n t d"]


class QuickGelu(nn.Module):
    """The sigmoid approximation that CLIP was trained with (Hendrycks and Gimpel 2016, arXiv:1606.08415, §2)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x σ(1.702 x)."""
        return x * torch.sigmoid(1.702 * x)


class Mlp(nn.Module):
    """Two layers for each token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc, self.gelu, self.c_proj = nn.Linear(width, 4 * width), QuickGelu(), nn.Linear(4 * width, width)

    def forward(self, x: Tokens) -> Tokens:
        """Return (n, t, d)."""
        out: Tokens = self.c_proj(self.gelu(self.c_fc(x)))
        return out


class Block(nn.Module):
    """Attention, then two layers, each beside a way past them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), nn.MultiheadAttention(width, width // HEAD, batch_first=True)
        self.ln_2, self.mlp = nn.LayerNorm(width), Mlp(width)

    def forward(self, x: Tokens) -> Tokens:
        """Return (n, t, d)."""
        seen = self.ln_1(x)  # pre-norm, as in GPT-2
        x = x + self.attn(seen, seen, seen, need_weights=False)[0]
        out: Tokens = x + self.mlp(self.ln_2(x))
        return out


class Transformer(nn.Module):
    """All blocks, under the name that they have in the file."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(width) for _ in range(depth)))

    def forward(self, x: Tokens) -> Tokens:
        """Return (n, t, d)."""
        out: Tokens = self.resblocks(x)
        return out


class Clip(Network):
    """The visual tower.

    Args:
        width: features of a token.
        depth: blocks.
    """

    size = SIZE
    dim = 512

    def __init__(self, width: int = WIDTH, depth: int = 12) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        # One more than patches: the class token has a position as well.
        self.positional_embedding = nn.Parameter(torch.empty((SIZE // PATCH) ** 2 + 1, width))
        self.ln_pre, self.transformer = nn.LayerNorm(width), Transformer(width, depth)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, self.dim))

    def forward(self, x: Float[Tensor, "n 3 224 224"]) -> Outputs:
        """Return the embeddings that are compared with captions, (n, 512), before they are brought to length 1."""
        patches = self.conv1(normalize_images(x, MEAN, DEVIATION)).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_embedding.expand(len(x), 1, -1), patches], 1)
        tokens = self.transformer(self.ln_pre(tokens + self.positional_embedding))
        return self.ln_post(tokens[:, 0]) @ self.proj, None  # the class token only; CLIP has no classes


def visual_tower(weights: Weights) -> Weights:
    """Return the tensors of the visual tower, by OpenAI's names without their prefix; what is unknown keeps its own."""
    if not any(name.startswith("vision_model.") for name in weights):
        return {name.removeprefix("visual."): tensor for name, tensor in weights.items() if name.startswith("visual.")}
    tower: Weights = {}
    for name, tensor in weights.items():
        if not name.startswith(("vision_model.", "visual_projection.")) or name.endswith("position_ids"):
            continue
        if layer := LAYER.fullmatch(name):
            number, part, kind = layer.groups()
            tower[f"transformer.resblocks.{number}.{LAYERS.get(part, part + '.')}{kind}"] = tensor
            continue
        start = next((start for start in HUGGING_FACE if name.startswith(start)), None)
        renamed = name if start is None else HUGGING_FACE[start] + name.removeprefix(start)
        tower[renamed] = tensor.T if renamed == "proj" else tensor  # theirs is a Linear, OpenAI's a plain matrix
    return pack_attention(tower)


def pack_attention(tower: Weights) -> Weights:
    """Concatenate the three projections of each attention, which Hugging Face stores apart."""
    for number in range(depth_of(tower)):
        block = f"transformer.resblocks.{number}."
        for kind in ("weight", "bias"):
            parts = [f"{block}self_attn.{part}_proj.{kind}" for part in "qkv"]
            if all(part in tower for part in parts):
                tower[f"{block}attn.in_proj_{kind}"] = torch.cat([tower.pop(part) for part in parts])
    return tower


def depth_of(tower: Weights) -> int:
    """Return how many blocks have tensors."""
    return len({name.split(".")[2] for name in tower if name.startswith("transformer.resblocks.")})


def width_of(tower: Weights) -> int:
    """Return the features of a token; those of ViT-B/32 where the file does not tell: its shapes are refused then."""
    token = tower.get("class_embedding")
    return WIDTH if token is None or not token.numel() or token.numel() % HEAD else token.numel()


def open_clip(options: ExtractorOptions = DEFAULT_OPTIONS, /) -> Extractor:
    """Open CLIP from the user's file; tensors of the text tower are ignored."""
    weights, version, path = FILE.read(options.weights)
    tower = visual_tower(weights)
    if not tower:
        raise Refused(f"{path} does not fit: it has no tensor visual.conv1.weight")
    # Width and depth are read from the file, as DINOv2's are; patches and outputs must be those of ViT-B/32.
    network = build_with_weights(lambda: Clip(width_of(tower), depth_of(tower)), tower, path)
    return Extractor("clip", version, network, options.resize or "clean")
