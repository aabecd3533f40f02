"""Files of codes and of directions, in safetensors: no code is run when they are read, and every shape is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from trainer.core.fields import Refused
from trainer.core.randomness import philox
from trainer.networks.base import Latent
from trainer.sampling.sampler import LatentCode, Sampler

EXTRA = "extra."
MOST = 10_000  # codes or directions in a file
Shape = tuple[int, ...]


def encode(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the bytes of a safetensors file."""
    content: bytes = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, {"format": "pt"})
    return content


def encode_directions(directions: Float[Tensor, "num code"]) -> bytes:
    """Return a file of directions, each the step that a strength of 1 is."""
    return encode({"directions": directions.float()})


def read_directions(path: Path, code_dim: int) -> Float[Tensor, "num code"]:
    """Read what `encode_directions` wrote.

    Raises:
        Refused: it is no such file, or its directions are of another code.
    """
    return read_tensors(path, {"directions": (code_dim,)}, "directions")["directions"]


def encode_codes(coded: Sequence[LatentCode]) -> bytes:
    """Return a file of codes: all that pictures are functions of, besides the weights."""
    codes, latents = zip(*coded, strict=True)
    latent = Latent.cat(latents)
    tensors = {"code": torch.cat(codes).float(), "label": latent.label.double()}
    tensors |= {EXTRA + name: value.float() for name, value in latent.extra.items()}
    return encode(tensors)


def read_codes(path: Path, sampler: Sampler) -> list[LatentCode]:
    """Read what `encode_codes` wrote, one picture each.

    Raises:
        Refused: it is no such file, or its codes are of another generator.
    """
    # What a generator takes besides is known by drawing it once.
    labels = sampler.labels([0])
    drawn = sampler.generator.draw(sampler.settings, philox("shapes"), labels)
    code = sampler.generator.latent_code(sampler.bring(drawn))
    shapes = {"code": tuple(code.shape[1:]), "label": tuple(labels.shape[1:])}
    shapes |= {EXTRA + name: tuple(value.shape[1:]) for name, value in drawn.extra.items()}
    tensors = read_tensors(path, shapes, "codes")
    num = {len(tensor) for tensor in tensors.values()}
    if len(num) > 1:
        raise Refused(f"{path} has tensors of different numbers of codes: write it again")
    # Of the latent, generators take z by the code only.
    z = torch.zeros(num.pop(), sampler.settings.z_dim)
    extra = {name: tensors[EXTRA + name] for name in drawn.extra}
    codes = tensors["code"].to(sampler.device).split(1)
    latents = (
        Latent(z[i : i + 1], tensors["label"][i : i + 1], {name: value[i : i + 1] for name, value in extra.items()})
        for i in range(len(z))
    )
    return list(zip(codes, latents, strict=True))


def read_tensors(path: Path, shapes: Mapping[str, Shape], what: str) -> dict[str, Tensor]:
    """Read tensors (n, *shape) of finite numbers; the header is checked before anything of their size is read.

    Raises:
        Refused: it cannot be read, is no such file, or holds others.
    """
    try:
        with safe_open(path, framework="pt") as file:
            there = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            for name, shape in shapes.items():
                if name not in there:
                    raise Refused(f"{path} is no file of {what} for this generator: it has no tensor {name!r}")
                found = there[name]
                if found[1:] != shape or not 1 <= found[0] <= MOST:
                    raise Refused(
                        f"{path} is no file of {what} for this generator: {name!r} has the shape {found}, "
                        f"and 1 to {MOST:,} rows of {shape} are wanted"
                    )
            tensors = {name: file.get_tensor(name) for name in shapes}
    except (OSError, SafetensorError) as error:
        raise Refused(f"{path} cannot be read as a safetensors file of {what}: {error}") from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise Refused(f"{path} is no file of {what}: {name!r} holds NaN, Inf or whole numbers")
    return {name: tensor.double() if name == "label" else tensor.float() for name, tensor in tensors.items()}
