"""Find published weights, check their hash, and read them without running code of theirs.

Nothing is ever downloaded. Files lie in the folder $LIENZO_WEIGHTS, or else ~/.cache/lienzo/weights.
"""

from __future__ import annotations

import hashlib
import math
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trainer.core.fields import Refused
from trainer.core.file_hash import file_sha256
from trainer.core.randomness import normal, philox
from trainer.extractors.base import CACHE, HASH_DIGITS, Network

Weights = dict[str, Tensor]
N = TypeVar("N", bound=Network)


@dataclass(frozen=True)
class Published:
    """A file of weights.

    Args:
        name: of the file.
        sha256: of its bytes, as hex digits; None: no hash is known, and any file is taken.
        source: where it is to be had.
    """

    name: str
    sha256: str | None
    source: str

    def __str__(self) -> str:
        known = f"SHA-256 {self.sha256}, " if self.sha256 else ""
        return f"{self.name} ({known}{self.source})"


@dataclass(frozen=True)
class WeightsFile:
    """The file that an extractor needs.

    Args:
        extractor: its name in the registry.
        published: the known files, the usual one first.
        others: whether files with other names and hashes are accepted.
    """

    extractor: str
    published: Sequence[Published]
    others: bool

    def find(self, chosen: Path | None) -> Path:
        """Return the path of the file.

        Raises:
            Refused: there is none; the message says which one is needed, and what to use in its place.
        """
        folder = Path(os.environ.get("LIENZO_WEIGHTS", CACHE / "weights")).expanduser()
        places = [chosen.expanduser()] if chosen else [folder / file.name for file in self.published]
        for place in places:
            if place.is_file():
                return place
        missing = f"there is no file {chosen}" if chosen else f"it is not in {folder}"
        raise Refused(
            f"{self.extractor} needs {self.published[0]}, and {missing}: put it there, or name it with --weights; "
            "set LIENZO_WEIGHTS for another folder. The extractors random-vgg and classifier need no file"
        )

    def read(self, chosen: Path | None) -> tuple[Weights, str, Path]:
        """Return tensors as float32 on the CPU, the start of the file's hash, and where the file lies.

        Raises:
            Refused: there is no file, it is not the published one, or it holds no tensors.
        """
        path = self.find(chosen)
        found = sha256_or_refuse(path)
        # A file with a published name must have its hash; other names are the user's own weights, where allowed.
        wanted = [file for file in self.published if file.sha256 and (file.name == path.name or not self.others)]
        if wanted and found not in {file.sha256 for file in wanted}:
            raise Refused(f"{path} has the SHA-256 {found}, and is damaged or not {wanted[0]}: get it again")
        return read_tensors(path), found[:HASH_DIGITS], path


def sha256_or_refuse(path: Path) -> str:
    """Return the hash of a file.

    Raises:
        Refused: it cannot be read.
    """
    try:
        return file_sha256(path)
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from error


def read_tensors(path: Path) -> Weights:
    """Read safetensors, or what torch.save wrote of a state dict.

    Raises:
        Refused: it is neither.
    """
    try:
        # weights_only: a pickle of others must not run code.
        held = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:100]
        raise Refused(
            f"{path} holds no plain tensors ({reason}): save them with safetensors, or with torch.save "
            "of a state dict; files with code, such as TorchScript, are not read"
        ) from error
    if not isinstance(held, Mapping) or not all(isinstance(tensor, Tensor) for tensor in held.values()):
        raise Refused(f"{path} holds no tensors by name: save a state dict alone")
    return {str(name): tensor.float() for name, tensor in held.items()}


def build_with_weights(build: Callable[[], N], weights: Mapping[str, Tensor], where: object) -> N:
    """Build a network with given weights, without drawing any.

    Args:
        build: makes the network.
        weights: all of its tensors by name, and no others.
        where: they come from, for the message.

    Raises:
        Refused: a tensor is missing, has another shape, or is unknown; the message names the first.
    """
    with torch.device("meta"):  # no memory, and no draw from the global generator
        network = build()
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if name not in weights:
            raise Refused(f"{where} does not fit: it has no tensor {name}")
        if weights[name].shape != tensor.shape:
            shapes = f"the shape {tuple(weights[name].shape)}, and needs {tuple(tensor.shape)}"
            raise Refused(f"{where} does not fit: {name} has {shapes}")
    if unknown := [name for name in weights if name not in wanted]:
        raise Refused(f"{where} does not fit: it has a tensor {unknown[0]}, and the network has none")
    network.load_state_dict(weights, assign=True)
    return network


def random_weights(build: Callable[[], Network], *key: int | str) -> Weights:
    """Draw weights for ReLUs as in He et al. 2015, arXiv:1502.01852, equation 10; biases are 0, factors of norms 1."""
    with torch.device("meta"):
        wanted = build().state_dict()

    def draw(name: str, shape: Sequence[int]) -> Tensor:
        if len(shape) == 1:
            return torch.full(shape, float(name.endswith("weight")))
        return normal(philox(*key, name), *shape) * math.sqrt(2 / math.prod(shape[1:]))

    return {name: draw(name, tensor.shape) for name, tensor in wanted.items()}


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Return the start of the SHA-256 of named tensors, for weights that come from no file."""
    total = hashlib.sha256()
    # Names and shapes count as well: the same bytes cut otherwise are other weights.
    for name, tensor in sorted(weights.items()):
        total.update(f"{name} {tuple(tensor.shape)}\n".encode() + tensor.contiguous().cpu().numpy().tobytes())
    return total.hexdigest()[:HASH_DIGITS]
