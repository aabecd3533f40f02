"""Run `trainer export`: from a run or a bundle to a bundle."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from shards.images.encode import to_pillow
from trainer.core.fields import Refused
from trainer.core.migration import with_schema
from trainer.core.stopping import Outcome
from trainer.exporting import onnx_file, torch_program
from trainer.exporting.arguments import Export
from trainer.exporting.bundle_folder import check_new, new_folder, tensors_hash, write_weights
from trainer.exporting.model_card import model_card
from trainer.exporting.network_call import NetworkCall
from trainer.runs.bundle import MEAN_STYLE, BundleConfig, plain_state
from trainer.runs.bundle_files import CARD, LABELS, ONNX, PROGRAM, SAMPLES
from trainer.runs.journal import Journal, now
from trainer.runs.run_folder import RunFolder
from trainer.runs.trained_generator import TrainedGenerator
from trainer.sampling.sampler import image_grid

SHOWN = 16  # pictures of the card


def run_export(args: Export) -> Outcome:
    """Write a bundle.

    Raises:
        Refused: it cannot be done; nothing is left.
    """
    check_new(args.out)
    if "onnx" in args.format:
        onnx_file.require_packages()
    trained = TrainedGenerator(args.run, args.options)
    if not trained.sampler.settings.size:
        raise Refused(f"{args.run} generates points in the plane: a bundle is of pictures")
    tensors = generator_tensors(trained)
    discriminator = trained.weights.discriminator_state() if args.discriminator else None
    if args.discriminator and discriminator is None:
        raise Refused(f"--discriminator: {args.run} is a bundle that holds none: leave it out")
    bundle = describe(trained, args, tensors)
    with new_folder(args.out) as folder:
        write_weights(folder, bundle, tensors, discriminator)
        labels = RunFolder(args.run).labels
        if trained.weights.known:
            (folder / LABELS).write_bytes(labels.read_bytes())
        write_formats(folder, trained, args)
        (folder / SAMPLES).write_bytes(sample_grid(trained))
        (folder / CARD).write_text(model_card(trained, bundle, args.license, args.format))
    note_export(trained, args, bundle)
    print(f"{args.out}: {', '.join(sorted(path.name for path in args.out.iterdir()))}")
    return Outcome.FINISHED


def note_export(trained: TrainedGenerator, args: Export, bundle: BundleConfig) -> None:
    """Note in the run's folder which bundle was made of it; a folder that cannot be written stays as it is."""
    if not trained.weights.checkpoint:
        return  # a bundle of a bundle
    facts = {"images_seen": bundle.images_seen, "averaged": bundle.averaged, "fingerprint": bundle.fingerprint}
    place = {"place": str(args.out.resolve()), "checkpoint": trained.weights.checkpoint.path.name}
    exports = Journal(RunFolder(args.run).exports)
    exports.append(with_schema({"time": now(), **place, **facts}))
    exports.close()


def generator_tensors(trained: TrainedGenerator) -> dict[str, Tensor]:
    """Return the generator's tensors, and its mean style where its code is w."""
    sampler = trained.sampler
    tensors = plain_state(sampler.generator)
    if sampler.generator.interpolates_linearly:
        tensors[MEAN_STYLE] = sampler.mean_code().cpu().contiguous().clone()
    return tensors


def describe(trained: TrainedGenerator, args: Export, tensors: dict[str, Tensor]) -> BundleConfig:
    """Return what the bundle is."""
    weights, options = trained.weights, args.options
    labels = options.labels
    if options.label is not None:
        columns = weights.known.columns if weights.known else ()
        name = next((column.name for column in columns if column.kind == "class"), "class")
        labels = (*labels, f"{name}={options.label}")
    if weights.bundle:
        stored = weights.bundle
        return replace(
            stored, truncation=trained.truncation, labels=labels or stored.labels, fingerprint=tensors_hash(tensors)
        )
    config = weights.config
    return BundleConfig(
        generator=config.generator,
        discriminator=config.discriminator,
        network=config.network,
        seed=config.seed,
        micro_batch_size=config.micro_batch_size,
        truncation=trained.truncation,
        images_seen=trained.images_seen,
        averaged=options.ema,
        recipe=config.recipe,
        fingerprint=tensors_hash(tensors),
        classes=weights.classes if config.network.g_conditional and not weights.known else (),
        labels=labels,
    )


def write_formats(folder: Path, trained: TrainedGenerator, args: Export) -> None:
    """Write generator.onnx and generator.pt2, as asked; each is checked against the generator itself.

    Raises:
        Refused: one does not compute the same.
    """
    call = NetworkCall.of(trained)
    if "onnx" in args.format:
        print(onnx_file.write_onnx(call, folder / ONNX))
    if "torch-export" in args.format:
        print(torch_program.write_program(call, folder / PROGRAM))


def sample_grid(trained: TrainedGenerator) -> bytes:
    """Return a grid of the pictures of the first seeds as PNG."""
    pictures = np.concatenate([*trained.seeded(range(SHOWN))])
    file = io.BytesIO()
    picture: Image.Image = to_pillow(image_grid(pictures, 4))
    picture.save(file, "PNG")
    return file.getvalue()
