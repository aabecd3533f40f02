"""Run `trainer import`: from a checkpoint of another program to a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from trainer.core.fields import Refused
from trainer.core.registry import choose_from
from trainer.core.stopping import Outcome
from trainer.exporting.bundle_folder import check_new, new_folder, tensors_hash, write_weights
from trainer.exporting.command import sample_grid
from trainer.exporting.model_card import model_card
from trainer.importing.arguments import Import
from trainer.importing.checkpoint_file import read_checkpoint
from trainer.importing.mapping import DoesNotFit, Named, Networks, Program, Source
from trainer.importing.programs import PROGRAMS
from trainer.networks.network_settings import NetworkSettings
from trainer.runs.bundle import MEAN_STYLE, BundleConfig, check_shapes
from trainer.runs.bundle_files import CARD, SAMPLES
from trainer.runs.trained_generator import SamplingOptions, TrainedGenerator

MICRO_BATCH = 32  # pictures that are generated together
SHOWN = 12  # tensors that are left, in a refusal


class Imported(NamedTuple):
    """A checkpoint as ours."""

    bundle: BundleConfig
    generator: Named
    discriminator: Named | None
    sources: tuple[Source, ...]
    note: str
    """Why the discriminator was left out; empty: it was not, or there is none."""


def run_import(args: Import) -> Outcome:
    """Import a checkpoint.

    Raises:
        Refused: it cannot be read, or does not fit; nothing is left.
    """
    check_new(args.out)
    program = choose_from(PROGRAMS, args.program, "program")
    content = read_checkpoint(args.file)
    other = read_checkpoint(args.discriminator_file) if args.discriminator_file else None
    try:
        found = program.open(content, args.ema, other)
        imported = convert(args, program, found)
    except DoesNotFit as error:
        raise Refused(f"{args.file} does not fit {args.program}: {error}") from error
    show(imported)
    with new_folder(args.out) as folder:
        write_weights(folder, imported.bundle, imported.generator, imported.discriminator)
        trained = TrainedGenerator(folder, SamplingOptions())
        (folder / SAMPLES).write_bytes(sample_grid(trained))
        (folder / CARD).write_text(model_card(trained, imported.bundle, args.license, ()))
    print(
        f"{args.out}: a {imported.bundle.generator} of {imported.bundle.network.size} pixels; see: {args.out / SAMPLES}"
    )
    return Outcome.FINISHED


def convert(args: Import, program: Program, found: Networks) -> Imported:
    """Return the networks as ours, each tensor accounted for.

    Raises:
        DoesNotFit, Refused: something is missing, left over, or of another shape.
    """
    g = Source(found.generator, program.passed_over)
    d = Source(found.discriminator, program.passed_over) if found.discriminator else None
    note = ""
    try:
        architecture, network = program.settings(g, d, found.facts)
    except DoesNotFit as error:
        if d is None:
            raise
        d, note = None, str(error)
        architecture, network = program.settings(g, None, found.facts)
    tensors = contiguous(program.generator(g, network))
    bundle = describe(args, found, (architecture, program.d_architecture or architecture), network, tensors)
    bundle.config.check()
    check_fit(bundle, tensors, g, args.file)
    theirs = None
    if d is not None:
        try:
            theirs = contiguous(program.discriminator(d, network))
            check_fit(bundle, theirs, d, args.discriminator_file or args.file, generator=False)
        except (DoesNotFit, Refused) as error:
            theirs, note = None, str(error)
    return Imported(bundle, tensors, theirs, (g, *([d] if d and theirs else [])), note)


def contiguous(tensors: Mapping[str, Tensor]) -> Named:
    """Return tensors of which none shares memory with another one."""
    return {name: tensor.float().contiguous().clone() for name, tensor in tensors.items()}


def describe(
    args: Import,
    found: Networks,
    architectures: tuple[str, str],
    network: NetworkSettings,
    tensors: Mapping[str, Tensor],
) -> BundleConfig:
    """Return what the bundle is; the architectures are those of G and of D."""
    return BundleConfig(
        generator=architectures[0],
        discriminator=architectures[1],
        network=network,
        seed=0,
        micro_batch_size=MICRO_BATCH,
        truncation=None,
        images_seen=found.images_seen,
        averaged=found.averaged,
        recipe=f"imported from {args.program}",
        fingerprint=tensors_hash(tensors),
        classes=tuple(str(k) for k in range(network.classes)) if network.g_conditional else (),
    )


def check_fit(
    bundle: BundleConfig, tensors: Mapping[str, Tensor], source: Source, file: Path, generator: bool = True
) -> None:
    """Compare shapes with our network's, and refuse what is left over or not finite.

    Raises:
        Refused: naming the tensors.
    """
    if left := source.left():
        more = f", and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        raise Refused(f"{file} does not fit: nothing of ours is made of {', '.join(left[:SHOWN])}{more}")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name != MEAN_STYLE}
    check_shapes(bundle, shapes, file, generator)
    if odd := [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]:
        raise Refused(f"{file}: {odd[0]} holds NaN or Inf")


def rows(source: Source) -> Iterator[tuple[str, str, str]]:
    """Yield what each tensor became: its name, its shape, and ours; each layer once."""
    for name, tensor in source.tensors.items():
        shape = " x ".join(map(str, tensor.shape)) or "one number"
        yield name, shape, source.taken.get(name, "passed over")


def show(imported: Imported) -> None:
    """Print what became of each tensor."""
    table = Table("tensor of the file", "shape", "tensor of ours")
    for source in imported.sources:
        for row in rows(source):
            table.add_row(*row)
        table.add_section()
    Console(highlight=False, width=160).print(table)
    if imported.note:
        print(f"the discriminator is left out: {imported.note}")
