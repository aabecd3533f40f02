"""Weights in files: which file a path means, and which tensors of it a network can take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.core.migration import schema_of, tensor_name
from trainer.networks import build_discriminator, build_generator
from trainer.networks.base import named_weights
from trainer.networks.spectral_norm import SpectralNorm
from trainer.runs.bundle import MEAN_STYLE, check_files
from trainer.runs.bundle_files import D_WEIGHTS, WEIGHTS, is_bundle
from trainer.runs.checkpoint import MANIFEST, TENSORS, Checkpoint, Damaged, newest_or_refuse
from trainer.runs.run_folder import RunFolder

PREFIXES = GENERATOR, DISCRIMINATOR, AVERAGE = "generator.", "discriminator.", "ema."
RUNNING_SCALARS = "running_scalars."
ALL_PREFIXES = (*PREFIXES, "g_optimizer.", "d_optimizer.", RUNNING_SCALARS)


def substitute_name(name: str) -> str:
    """Return the tensor that stands in for a missing one: the average for a generator's weight, and vice versa."""
    prefix, _, rest = name.partition(".")
    return {"generator": AVERAGE, "ema": GENERATOR}.get(prefix, DISCRIMINATOR) + rest


def weights_file(path: Path) -> Path:
    """Return the file that holds the weights of a run's newest whole checkpoint, a checkpoint or a bundle, or the file.

    Raises:
        Refused: there is none.
    """
    if path.is_file():
        return path
    if is_bundle(path):
        return path / WEIGHTS
    if (path / MANIFEST).exists():
        try:
            Checkpoint(path, 0, 0).verify()
        except Damaged as error:
            raise Refused(f"--init-from {path}: this checkpoint is damaged: {error}") from error
        return path / TENSORS
    if not RunFolder(path).config.exists():
        raise Refused(f"--init-from {path} is no run folder, no checkpoint folder, no bundle and no safetensors file")
    return newest_or_refuse(RunFolder(path), f"--init-from {path}: this run holds no whole checkpoint").path / TENSORS


def read_tensors(path: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Read those tensors of a safetensors file whose names begin so.

    Raises:
        Refused: it cannot be read, is no such file, or is of a later version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            schema = schema_of(file.metadata(), str(path))
            # By today's names: the file may be of an earlier format.
            names = {tensor_name(name, schema): name for name in file.keys()}  # noqa: SIM118
            return {name: file.get_tensor(stored) for name, stored in names.items() if name.startswith(prefixes)}
    except (OSError, SafetensorError) as error:
        raise Refused(f"{path} cannot be read as a safetensors file: {error}") from error


def is_of_bundle(file: Path) -> bool:
    """Tell whether a file holds the weights of a bundle's generator."""
    return file.name == WEIGHTS and is_bundle(file.parent)


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read the weights of both networks and of the average by their names in a state, as far as a file has them.

    Of a bundle there is one generator, and a discriminator where it has one; both are without spectral normalisation.

    Raises:
        Refused: it cannot be read, or is damaged.
    """
    if not is_of_bundle(file):
        return read_tensors(file, PREFIXES)
    check_files(file.parent, WEIGHTS, D_WEIGHTS)
    theirs = {GENERATOR + name: tensor for name, tensor in read_tensors(file, ("",)).items() if name != MEAN_STYLE}
    if (other := file.with_name(D_WEIGHTS)).exists():
        theirs |= {DISCRIMINATOR + name: tensor for name, tensor in read_tensors(other, ("",)).items()}
    return theirs


def network_shapes(config: Config, with_vectors: bool = True) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and shape of each tensor of the networks and the average, with spectral norm's vectors or not."""
    with torch.device("meta"):  # shapes alone: nothing is allocated
        generator = build_generator(config.generator, config.network)
        discriminator = build_discriminator(config.discriminator, config.network)
    for prefix, network in ((GENERATOR, generator), (DISCRIMINATOR, discriminator)):
        vectors = set() if with_vectors else spectral_vectors(network)
        for name, tensor in network.state_dict().items():
            if name not in vectors:
                yield prefix + name, tuple(tensor.shape)
    for name, weight in named_weights(generator):
        yield AVERAGE + name, tuple(weight.shape)


def spectral_vectors(network: nn.Module) -> set[str]:
    """Return the names of spectral norm's vectors, which follow from the weights."""
    norms = [name for name, module in network.named_modules() if isinstance(module, SpectralNorm)]
    return {f"{name}.{vector}" for name in norms for vector in ("u", "v")}
