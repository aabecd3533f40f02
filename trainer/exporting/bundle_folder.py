"""Write a bundle: whole or not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from uuid import uuid4

from torch import Tensor

from shards.atomic_files import fsync
from trainer.core.fields import Refused
from trainer.core.file_hash import file_sha256
from trainer.core.migration import with_schema
from trainer.core.tensor_file import write_tensors
from trainer.exporting.gather import Gathering
from trainer.exporting.source_module import Internal
from trainer.gan.fingerprint import fingerprint
from trainer.networks import GENERATORS
from trainer.runs.bundle import BundleConfig
from trainer.runs.bundle_files import CODE, CONFIG, D_WEIGHTS, MANIFEST, WEIGHTS

TEMPLATE = "trainer.exporting.standalone"
PLACEHOLDER = Internal("trainer.networks.dcgan", "Generator")


def check_new(out: Path) -> None:
    """Refuse a folder that holds something, or has no parent, before anything is computed for it.

    Raises:
        Refused: naming it.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise Refused(f"{out} is there already: name another folder, or remove it")
    if not out.resolve().parent.is_dir():
        raise Refused(f"{out} cannot be made: there is no folder {out.parent}")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write into; at the end it gets a manifest and its name, or after an error nothing is left.

    Raises:
        Refused: it cannot be written.
    """
    check_new(out)
    temporary = out.resolve().with_name(f".{out.resolve().name}.{uuid4().hex}.tmp")
    try:
        temporary.mkdir()
        yield temporary
        write_manifest(temporary)
        for path in temporary.iterdir():
            fsync(path)
        fsync(temporary)
        if out.is_dir():
            out.rmdir()  # it is empty
        temporary.rename(out.resolve())
        fsync(out.resolve().parent)
    except OSError as error:
        raise Refused(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_manifest(folder: Path) -> None:
    """Write size and SHA-256 of each file."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST and path.is_file()
    }
    (folder / MANIFEST).write_text(json.dumps(with_schema({"files": files}), indent=1) + "\n")


def write_weights(
    folder: Path, bundle: BundleConfig, tensors: Mapping[str, Tensor], discriminator: Mapping[str, Tensor] | None
) -> None:
    """Write config.json, the weights and generator.py.

    Args:
        folder: of the bundle.
        bundle: what it is.
        tensors: of the generator, and the mean style where there is one.
        discriminator: its tensors, where they are given away.
    """
    (folder / CONFIG).write_text(json.dumps(bundle.to_json(), indent=1) + "\n")
    write_tensors(tensors, folder / WEIGHTS)
    if discriminator is not None:
        write_tensors(discriminator, folder / D_WEIGHTS)
    (folder / CODE).write_text(standalone_code(bundle.generator))


@cache  # sources do not change while a program runs
def standalone_code(generator: str) -> str:
    """Return generator.py for an architecture.

    Raises:
        Refused: it is of another package.
    """
    if plugin := GENERATORS.plugins.get(generator):
        raise Refused(
            f"generator {generator!r} is of the package {plugin}: a bundle holds the code of its generator, which is "
            "gathered from lienzo's own alone; share the run folder, and name the package"
        )
    architecture = GENERATORS[generator]
    instead = {
        PLACEHOLDER: Internal(architecture.__module__, architecture.__name__),
        Internal("trainer.networks", "build_generator"): Internal(TEMPLATE, "build_generator"),
    }
    return Gathering(TEMPLATE, instead).write()


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the fingerprint of weights."""
    return fingerprint(tensors, {})
