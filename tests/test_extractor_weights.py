"""Extractors with published weights: their layout, their layers, and what is refused. The files are not here."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trainer.core.fields import Refused
from trainer.extractors import EXTRACTORS, ExtractorOptions, clip, dinov2, inception
from trainer.extractors.base import Network
from trainer.extractors.weights import Weights, build_with_weights, random_weights, weights_fingerprint

GOLDEN = Path(__file__).parent / "golden"


def random(build: Callable[[], Network], *key: str) -> Weights:
    """Return weights none of which is 0, so that each counts."""
    weights = random_weights(build, *key)
    moved = {n: t + 0.01 * (i % 7 + 1) if t.dim() == 1 else t for i, (n, t) in enumerate(weights.items())}
    return moved | {name: tensor + 1 for name, tensor in moved.items() if name.endswith("running_var")}


def pixels(count: int, size: int) -> Tensor:
    """Return pictures in [0, 255]."""
    found = np.random.default_rng(count).integers(0, 256, (count, 3, size, size))
    return torch.from_numpy(found.astype(np.float32))


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("inception-2015", inception.Inception),
        ("dinov2-s", lambda: dinov2.DinoV2(384, 12)),
        ("clip-vit-b-32", clip.Clip),
    ],
)
def test_tensors_have_the_names_and_shapes_of_the_published_file(name: str, build: Callable[[], Network]) -> None:
    """As the authors' own code has them."""
    with torch.device("meta"):
        found = {key: list(tensor.shape) for key, tensor in build().state_dict().items()}
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    assert {key.removeprefix("visual."): shape for key, shape in expected.items()} == found


@pytest.fixture(scope="module")
def network() -> inception.Inception:
    """Inception-2015 with random weights."""
    return build_with_weights(inception.Inception, random(inception.Inception, "test"), "here").eval()


@torch.inference_mode()
def test_inception_has_features_and_logits_without_a_bias(network: inception.Inception) -> None:
    x = pixels(1, 299)
    features, logits = network(x)
    assert features.shape == (1, 2048)
    assert logits is not None
    assert logits.shape == (1, 1008)
    assert torch.allclose(logits, features @ network.fc.weight.T)
    stem = network.Conv2d_2b_3x3(network.Conv2d_2a_3x3(network.Conv2d_1a_3x3(x)))
    assert stem.shape == (1, 64, 147, 147)


def test_average_pools_do_not_count_what_they_pad_with() -> None:
    """So an even surface stays even; every other Inception darkens its border."""
    assert torch.allclose(inception.average_pool(torch.full((1, 1, 5, 5), 3.0)), torch.tensor(3.0))


@torch.inference_mode()
@pytest.mark.parametrize(("name", "maximum"), [("Mixed_7b", False), ("Mixed_7c", True)])
def test_the_last_block_takes_maxima(network: inception.Inception, name: str, maximum: bool) -> None:
    """And the one before it means: one bright point on darkness tells which."""
    block: inception.BlockE = getattr(network, name)
    x = torch.full((1, 1280 if name == "Mixed_7b" else 2048, 8, 8), -1.0)
    x[:, :, 4, 4] = 8
    around = torch.full_like(x, -1.0)
    around[:, :, 3:6, 3:6] = 8 if maximum else 0
    expected = block.branch_pool(around)
    assert torch.allclose(block(x)[:, -192:], expected, atol=1e-5)


def test_norms_use_the_statistics_of_the_file() -> None:
    norm = inception.Norm(2)
    given = {"weight": [2.0, 1.0], "bias": [0.5, 0.0], "running_mean": [3.0, 0.0], "running_var": [4.0, 1.0]}
    norm.load_state_dict({name: torch.tensor(values) for name, values in given.items()})
    x = torch.tensor([5.0, 1.0]).reshape(1, 2, 1, 1)
    expected = [2 * (5 - 3) / (4 + 0.001) ** 0.5 + 0.5, 1 / (1 + 0.001) ** 0.5]
    assert norm(x).flatten().tolist() == pytest.approx(expected)


def test_inception_is_opened_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grey is 128, and 127.5 after the filter of pytorch-fid, as each of the programs has it."""
    weights = random(inception.Inception, "test") | {"Conv2d_1a_3x3.bn.num_batches_tracked": torch.tensor(0)}
    path = tmp_path / inception.FILE.published[0].name
    torch.save(weights, path)
    with pytest.raises(Refused, match=r"and is damaged or not pt_inception-2015-12-05-6726825d.pth"):
        EXTRACTORS["inception-2015"](ExtractorOptions(path))
    published = replace(inception.FILE.published[0], sha256=hash_of(path))
    monkeypatch.setattr(inception, "FILE", replace(inception.FILE, published=[published]))
    monkeypatch.setenv("LIENZO_WEIGHTS", str(tmp_path))
    for resize, grey in (("tf-bilinear", 128), ("clean", 128), ("torch-bilinear", 127.5)):
        extractor = EXTRACTORS["inception-2015"](ExtractorOptions(resize=resize))
        assert extractor.label == f"inception-2015-{hash_of(path)[:8]}/{resize}-299/uint8"
        assert isinstance(extractor.network, inception.Inception)
        assert extractor.network.grey == grey
    assert (extractor.dim, extractor.classes) == (2048, 1008)
    assert EXTRACTORS["inception-2015"]().resize == "tf-bilinear"


def hash_of(path: Path) -> str:
    """Return the SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["inception-2015", "dinov2", "clip"])
def test_a_missing_file_is_told_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIENZO_WEIGHTS", str(tmp_path))
    with pytest.raises(Refused) as refused:
        EXTRACTORS[name]()
    message = str(refused.value)
    for told in (name, str(tmp_path), "https://", "--weights", "LIENZO_WEIGHTS", "random-vgg and classifier"):
        assert told in message
    if name == "inception-2015":
        assert "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2" in message
    with pytest.raises(Refused, match=r"there is no file nowhere.pth"):
        EXTRACTORS[name](ExtractorOptions(Path("nowhere.pth")))


class Code:
    """What makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_what_holds_no_tensors_is_refused(tmp_path: Path) -> None:
    script, text, nested = (tmp_path / name for name in ("script.pth", "text.safetensors", "nested.pth"))
    torch.save({"model": {"a": torch.zeros(1)}}, nested)
    text.write_text("no tensors")
    torch.save({"a": Code(tmp_path / "run")}, script)
    for path, message in ((script, "no plain tensors"), (text, "no plain tensors"), (nested, "no tensors by name")):
        with pytest.raises(Refused, match=message):
            EXTRACTORS["dinov2"](ExtractorOptions(path))
    assert not (tmp_path / "run").exists(), "no code of a file is run"


def small_dino() -> dinov2.DinoV2:
    """DINOv2 that is narrow and flat."""
    return dinov2.DinoV2(64, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm.bias": None}, "it has no tensor norm.bias"),
        ({"norm.bias": torch.zeros(3)}, r"norm.bias has the shape \(3,\), and needs \(64,\)"),
        ({"register_tokens": torch.zeros(1, 4, 64)}, "it has a tensor register_tokens, and the network has none"),
        ({"cls_token": None}, "it has no tensor cls_token"),
    ],
)
def test_wrong_tensors_are_named(tmp_path: Path, change: dict[str, Tensor | None], message: str) -> None:
    weights = {name: tensor for name, tensor in (random(small_dino) | change).items() if tensor is not None}
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(Refused, match=f"a.safetensors does not fit: {message}"):
        EXTRACTORS["dinov2"](ExtractorOptions(tmp_path / "a.safetensors"))


def test_dinov2_is_opened_from_any_file_but_a_wrong_one_of_a_known_name(tmp_path: Path) -> None:
    weights = random(small_dino) | {"mask_token": torch.zeros(1, 64)}
    save_file(weights, tmp_path / "mine.safetensors")
    extractor = EXTRACTORS["dinov2"](ExtractorOptions(tmp_path / "mine.safetensors"))
    assert extractor.label == f"dinov2-{hash_of(tmp_path / 'mine.safetensors')[:8]}/clean-224/uint8"
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    seen = extractor(images)
    assert seen.features.shape == (3, 64) == (3, extractor.dim)
    assert seen.probabilities is None
    assert np.array_equal(extractor(images[1:2]).features, seen.features[1:2])
    torch.save(weights, tmp_path / "dinov2_vitl14_pretrain.pth")
    with pytest.raises(Refused, match=r"is damaged or not dinov2_vitl14_pretrain.pth"):
        EXTRACTORS["dinov2"](ExtractorOptions(tmp_path / "dinov2_vitl14_pretrain.pth"))


@torch.inference_mode()
def test_the_class_token_is_the_answer_after_the_last_norm() -> None:
    """With blocks that add nothing, it depends on no picture."""
    weights = random(small_dino)
    weights |= {name: torch.zeros_like(tensor) for name, tensor in weights.items() if "gamma" in name}
    network = build_with_weights(small_dino, weights, "here")
    token = weights["cls_token"][0, 0] + weights["pos_embed"][0, 0]
    expected = nn.functional.layer_norm(token, (64,), weights["norm.weight"], weights["norm.bias"], 1e-6)
    features, logits = network(pixels(2, 224))
    assert logits is None
    assert torch.allclose(features, expected.expand(2, -1), atol=1e-5)


def test_positions_are_interpolated_between_those_that_were_learnt() -> None:
    """A plane stays one, as nearly as this bicubic keeps planes, away from the border; the class token's is no part."""
    network = build_with_weights(small_dino, random(small_dino), "here")
    rows, columns = torch.meshgrid(torch.arange(37.0), torch.arange(37.0), indexing="ij")
    plane = (rows + 2 * columns).flatten()[None, :, None].expand(1, -1, 64)
    network.pos_embed.data = torch.cat([torch.full((1, 1, 64), 7.0), plane], 1)
    found = network.positions(16)
    assert found.shape == (1, 257, 64)
    assert torch.equal(found[:, 0], torch.full((1, 64), 7.0))
    at = (torch.arange(16) + 0.5) * 37 / 16.1 - 0.5
    expected = at[:, None] + 2 * at[None, :]
    assert torch.allclose(found[0, 1:, 0].reshape(16, 16)[2:-2, 2:-2], expected[2:-2, 2:-2], atol=0.25)


class Quick(nn.Module):
    """CLIP's activation, by its formula."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x / (1 + exp(-1.702 x))."""
        return x / (1 + torch.exp(-1.702 * x))


@torch.inference_mode()
@pytest.mark.parametrize("family", ["dinov2", "clip"])
def test_blocks_are_those_of_a_transformer(family: str) -> None:
    """Torch's own encoder layer with the norm before, the same weights, and no factors on the ways."""
    block: Any = dinov2.Block(128) if family == "dinov2" else clip.Block(128)
    for i, (name, parameter) in enumerate(block.named_parameters()):
        noise = np.random.default_rng(i).standard_normal(parameter.shape, np.float32)
        parameter.data = torch.ones_like(parameter) if "gamma" in name else 0.2 * torch.from_numpy(noise)
    epsilon = 1e-6 if family == "dinov2" else 1e-5
    activation = nn.GELU() if family == "dinov2" else Quick()
    layer = nn.TransformerEncoderLayer(128, 2, 512, 0.0, activation, epsilon, batch_first=True, norm_first=True)
    own = [p.data for n, p in block.named_parameters() if "gamma" not in n]
    names = {
        "dinov2": ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"),
        "clip": ("ln_1", "attn.in_proj", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"),
    }[family]
    there = ("norm1", "self_attn.in_proj", "self_attn.out_proj", "norm2", "linear1", "linear2")
    state = block.state_dict()
    taken = {}
    for mine, theirs in zip(names, there, strict=True):
        for kind in ("weight", "bias"):
            joint = "_" if theirs.endswith("in_proj") else "."
            source = f"{mine}_{kind}" if mine.endswith("in_proj") else f"{mine}.{kind}"
            taken[f"{theirs}{joint}{kind}"] = state[source]
    assert len(taken) == len(own)
    layer.load_state_dict(taken)
    x = torch.from_numpy(np.random.default_rng(9).standard_normal((2, 5, 128), np.float32))
    assert torch.allclose(block(x), layer.eval()(x), atol=1e-4)


def hugging_face(weights: Weights) -> Weights:
    """Name the tensors of CLIP's visual tower as Hugging Face does."""
    found: Weights = {"vision_model.embeddings.position_ids": torch.arange(50)[None]}
    plain = {
        "class_embedding": "embeddings.class_embedding",
        "conv1.weight": "embeddings.patch_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
        "ln_pre": "pre_layrnorm",
        "ln_post": "post_layernorm",
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
        "attn.out_proj": "self_attn.out_proj",
    }
    for name, tensor in weights.items():
        if name == "proj":
            found["visual_projection.weight"] = tensor.T.contiguous()
            continue
        layer = re.match(r"transformer\.resblocks\.(\d+)\.", name)
        rest = name.removeprefix(layer[0]) if layer else name
        prefix = f"vision_model.encoder.layers.{layer[1]}." if layer else "vision_model."
        if rest.startswith("attn.in_proj_"):
            for part, share in zip("qkv", tensor.chunk(3), strict=True):
                found[f"{prefix}self_attn.{part}_proj.{rest.removeprefix('attn.in_proj_')}"] = share.contiguous()
            continue
        start = next(start for start in plain if rest.startswith(start))
        found[prefix + plain[start] + rest.removeprefix(start)] = tensor
    return found


def test_clip_reads_both_names(tmp_path: Path) -> None:
    """OpenAI's, in half precision as they publish it, and Hugging Face's; the tower of captions is passed over."""
    weights = {name: tensor.half().float() for name, tensor in random(lambda: clip.Clip(128, 2)).items()}
    captions = {"logit_scale": torch.zeros(()), "transformer.resblocks.0.ln_1.weight": torch.zeros(3)}
    torch.save({f"visual.{name}": tensor.half() for name, tensor in weights.items()} | captions, tmp_path / "a.pth")
    of_captions = {"text_model.final_layer_norm.weight": torch.zeros(3)}
    save_file(hugging_face(weights) | of_captions, tmp_path / "b.safetensors")
    found = [EXTRACTORS["clip"](ExtractorOptions(tmp_path / name)) for name in ("a.pth", "b.safetensors")]
    assert {weights_fingerprint(extractor.network.state_dict()) for extractor in found} == {
        weights_fingerprint(weights)
    }
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    seen = found[0](images)
    assert seen.features.shape == (2, 512)
    assert np.array_equal(found[1](images).features, seen.features)
    save_file({"visual_projection.weight": torch.zeros(1)} | captions, tmp_path / "c.safetensors")
    with pytest.raises(Refused, match=r"c.safetensors does not fit: it has no tensor visual.conv1.weight"):
        EXTRACTORS["clip"](ExtractorOptions(tmp_path / "c.safetensors"))
