"""A bundle: a trained generator in a folder of its own, in the layout of a Hugging Face model repository.

    README.md                  the model card; people may edit it
    config.json                what the generator is, and what is asked of it where nobody says otherwise
    model.safetensors          weights and buffers, and the mean style (`mean_style`) where the code is w
    discriminator.safetensors  where it is given away as well, for fine-tuning
    labels.json                of a generator that is told --network.label-columns (run_labels.py)
    generator.py               plain PyTorch that loads it without lienzo; beside it generator.onnx and generator.pt2
    samples.png                pictures
    manifest.json              size and SHA-256 of each file; written last

Spectral normalisation is carried out before weights are written, so that layers are plain ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from trainer.config.config import Config
from trainer.core.fields import Refused, convert_value, from_json, to_json
from trainer.core.file_hash import file_sha256
from trainer.core.migration import load_json, with_schema
from trainer.networks import build_discriminator, build_generator
from trainer.networks.network_settings import NetworkSettings
from trainer.networks.spectral_norm import SpectralNorm
from trainer.runs.run_folder import is_bundle as is_bundle  # most of this package knows it from here

FORMAT = 1
CARD, CONFIG, WEIGHTS, D_WEIGHTS = "README.md", "config.json", "model.safetensors", "discriminator.safetensors"
LABELS, CODE, ONNX, PROGRAM, SAMPLES = "labels.json", "generator.py", "generator.onnx", "generator.pt2", "samples.png"
MANIFEST = "manifest.json"
MEAN_STYLE = "mean_style"
FLOATS = "F32", "F16", "BF16"


@dataclass(frozen=True)
class BundleConfig:
    """What config.json of a bundle says."""

    generator: str
    """The architecture."""
    discriminator: str
    """That of the discriminator that it was trained against."""
    network: NetworkSettings
    seed: int
    """Of the run: it names the noise from which buffers and the mean style are computed."""
    micro_batch_size: int
    """Pictures that are generated together."""
    truncation: float | None
    """What is asked of it where nobody says otherwise; the buffers fit it."""
    images_seen: int
    averaged: bool
    """The weights are the moving average."""
    recipe: str
    fingerprint: str
    """SHA-256 over the tensors in model.safetensors."""
    classes: tuple[str, ...] = ()
    """Names of the classes."""
    labels: tuple[str, ...] = ()
    """The labels that it is asked for where nobody says otherwise: COLUMN=VALUE, or class=NAME."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = to_json(self) | {"classes": list(self.classes), "labels": list(self.labels)}
        return with_schema({"bundle": FORMAT, **values})

    @property
    def config(self) -> Config:
        """Settings with which the generator can be built and sampled; spectral normalisation is done already."""
        network = replace(self.network, g_spectral_norm=False, d_spectral_norm=False)
        return replace(
            Config(),
            recipe=self.recipe,
            generator=self.generator,
            discriminator=self.discriminator,
            network=network,
            seed=self.seed,
            batch_size=self.micro_batch_size,
            micro_batch_size=self.micro_batch_size,
            mixed_precision="no",
        )


def read_bundle(folder: Path) -> BundleConfig:
    """Read what a bundle is; it may come from a stranger.

    Raises:
        Refused: it is damaged, of a later version, or no generator can be built from it.
    """
    file = folder / CONFIG
    check_files(folder, CONFIG, LABELS)
    try:
        values = load_json(file)
        if values.pop("bundle") != FORMAT:
            raise Refused(f"{file} is of a format of bundles that this version does not read: update lienzo")
        classes, labels = (read_names(values[name], f"{file}: {name}") for name in ("classes", "labels"))
        network = from_json(NetworkSettings, values["network"], f"{file}: network")
        plain: dict[str, Any] = {
            name: convert_value(values.get(name), hint, f"{file}: {name}")
            for name, hint in (
                *(("generator", str), ("discriminator", str), ("recipe", str), ("fingerprint", str)),
                *(("seed", int), ("micro_batch_size", int), ("images_seen", int)),
                *(("averaged", bool), ("truncation", float | None)),
            )
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(f"{file} is damaged: {error}") from error
    bundle = BundleConfig(network=network, classes=classes, labels=labels, **plain)
    bundle.config.check()
    return bundle


def read_names(values: object, where: str) -> tuple[str, ...]:
    """Return a list of texts as a tuple.

    Raises:
        Refused: it is something else.
    """
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Refused(f"{where} must be a list of texts")
    return tuple(values)


def read_manifest(folder: Path) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 of each file of a bundle; empty: it has no manifest.

    Raises:
        Refused: it is damaged.
    """
    try:
        files = load_json(folder / MANIFEST)["files"]
        return {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(f"{folder / MANIFEST} is damaged: {error}") from error


def check_files(folder: Path, *names: str) -> None:
    """Compare files of a bundle with its manifest, where they are there and it names them.

    Raises:
        Refused: one is not what was written.
    """
    manifest = read_manifest(folder)
    for name in names:
        path = folder / name
        if name in manifest and (not path.is_file() or (path.stat().st_size, file_sha256(path)) != manifest[name]):
            raise Refused(f"{path} is not what {MANIFEST} says: it is damaged, or was changed; get the bundle again")


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's tensors on the CPU, with spectral normalisation carried out."""
    norms = {name for name, module in network.named_modules() if isinstance(module, SpectralNorm)}
    found = {name: t for name, t in network.state_dict().items() if name.rpartition(".")[0] not in norms}
    made = {}
    for name, tensor in found.items():
        plain = plain_name(name)
        layer, _, attribute = plain.rpartition(".")
        value = tensor if plain == name else getattr(network.get_submodule(layer), attribute)
        made[plain] = value.detach().cpu().contiguous().clone()
    return made


def plain_name(name: str) -> str:
    """Return what a tensor is called without spectral normalisation."""
    return name.replace("parametrizations.", "").replace(".original", "")


def stored_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a safetensors file, without reading any; the mean style is left out.

    Raises:
        Refused: it cannot be read, or holds something else than weights.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys() if name != MEAN_STYLE}  # noqa: SIM118
            odd = [name for name, one in slices.items() if one.get_dtype() not in FLOATS]
            shapes = {name: tuple(one.get_shape()) for name, one in slices.items()}
    except (OSError, SafetensorError) as error:
        raise Refused(f"{file} cannot be read as a safetensors file: {error}") from error
    if odd:
        raise Refused(f"{file}: {odd[0]} is of a type that weights are not of")
    return shapes


def check_shapes(
    bundle: BundleConfig, shapes: Mapping[str, tuple[int, ...]], where: Path, generator: bool = True
) -> None:
    """Compare the shapes of tensors with what the settings say, before anything of that size is made.

    Raises:
        Refused: naming one that is missing, too many, or of another shape.
    """
    config = bundle.config
    with torch.device("meta"):
        network: nn.Module = (
            build_generator(config.generator, config.network)
            if generator
            else build_discriminator(config.discriminator, config.network)
        )
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name in sorted(wanted.keys() | shapes.keys()):
        if wanted.get(name) != shapes.get(name):
            both = f"it is {shapes.get(name, 'missing')}, and by {CONFIG} {wanted.get(name, 'not one of them')}"
            raise Refused(f"{where} does not fit its {CONFIG}: {name}: {both}")
