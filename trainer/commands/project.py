"""`project`: find the code of a picture, so that it can be generated again, edited and mixed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
import tyro
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from command_line.help_page import HelpPage
from shards.images.decoding import Decoding
from shards.images.display import over_checkerboard, premultiply
from trainer.core.fields import Refused
from trainer.core.file_hash import file_sha256
from trainer.core.migration import with_schema
from trainer.core.registry import one_of
from trainer.core.stopping import Outcome
from trainer.evaluation.named_extractor import open_by_name, training_images
from trainer.evaluation.source import MAX_PIXELS, WHITE, decode_file
from trainer.extractors import EXTRACTORS, Extractor
from trainer.extractors.base import exact_kernels
from trainer.runs.trained_generator import SamplingOptions, TrainedGenerator
from trainer.sampling.code_files import encode_codes
from trainer.sampling.films import check_film, encode_film
from trainer.sampling.image_files import check_own_folder, check_parent, encode_image, make_folder, write_file
from trainer.sampling.picture_distance import DistanceWeights, PictureDistance
from trainer.sampling.projection import Projection, ProjectionOptions, Step
from trainer.sampling.sampler import Images
from trainer.sampling.sheets import labelled_sheet

SHOWN = 7  # pictures of progress, beside the target
FRAMES = 100  # of a film, at most
CODE = "code.safetensors"
FILES = ("target.png", "projected.png", "progress.png", "distance.png", "distance.csv", "projection.json", CODE)


@dataclass(frozen=True)
class Project:
    """Find the code whose picture is nearest to a given one, and write it beside how it was found."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "me.png runs/NAME --out projected": "the code of its nearest picture",
            "me.png runs/NAME --out projected --space w+": "nearer",
        },
        everyday={
            "what": ("--out", "--film", "--space", "--steps", "--force"),
            "how": ("--checkpoint", "--class", "--label", "--truncation", "--ema"),
        },
    )

    picture: tyro.conf.Positional[Path]
    """The picture; its centre is cropped and resized to the generator's size, as `shards build` does it."""
    run: tyro.conf.Positional[Path]
    """The run folder."""
    out: Path
    """The folder to write: code.safetensors, projected.png, target.png, progress.png, distance.csv, distance.png and
    projection.json."""
    film: Path | None = None
    """Write a film of the search, too: .gif, .webp or .mp4."""
    fps: float = 20.0
    """Of the film: pictures per second."""
    extractor: Annotated[str | None, one_of(EXTRACTORS)] = None
    """Compares pictures by its features; default: random-vgg, which needs no file."""
    weights: Path | None = None
    """The extractor's file of weights."""
    force: bool = False
    """Replace what an earlier projection has written there."""
    search: Annotated[ProjectionOptions, tyro.conf.arg(name="")] = ProjectionOptions()
    distance: DistanceWeights = DistanceWeights()
    options: Annotated[SamplingOptions, tyro.conf.arg(name="")] = SamplingOptions()


def run_project(args: Project) -> Outcome:
    """Project a picture.

    Raises:
        Refused: it cannot be done; nothing was written.
    """
    check(args)
    trained = TrainedGenerator(args.run, args.options)
    network = trained.sampler.settings
    if not network.size:
        raise Refused(f"{args.run} generates points in the plane, and no pictures")
    decoding = Decoding(network.shape, "crop", WHITE, 0, MAX_PIXELS, 1, network.channels)
    target = decode_file(args.picture, decoding).pixels
    extractor = None
    if args.distance.features:
        extractor = open_by_name(args.extractor, args.weights, training_images(trained.config))
    with exact_kernels(trained.sampler.device):
        distance = PictureDistance(as_tensor(target).to(trained.sampler.device), extractor, args.distance)
        search = Projection(trained.sampler, distance, trained.codes(range(args.search.starts)), args.search)
        begin, steps, found = search.measure(search.coded()), list(search), search.found
        end = search.measure(found)
    picture = next(trained.sampler.synthesize([found]))[0]
    pictures = {
        "target.png": target,
        "projected.png": picture,
        "progress.png": progress_sheet(target, steps, picture),
        "distance.png": plot(steps, end["distance"]),
    }
    contents = {name: encode_image(shown, args.out / name) for name, shown in pictures.items()}
    facts = known_facts(args, trained, extractor) | {"space": search.space, "begin": begin, "end": end}
    contents["projection.json"] = (json.dumps(with_schema(facts), indent=1) + "\n").encode()
    contents["distance.csv"], contents[CODE] = as_csv(steps), encode_codes([found])
    film = encode_film(film_frames(steps, picture), args.film.suffix.lower(), args.fps, False) if args.film else b""
    write_files(args, contents, film)
    numbers = f"distance {begin['distance']:.4g}, then {end['distance']:.4g}"
    print(f"{args.picture} projected to {search.space} by {len(steps)} steps, {numbers}: {args.out}")
    return Outcome.FINISHED


def known_facts(args: Project, trained: TrainedGenerator, extractor: Extractor | None) -> dict[str, object]:
    """Return what was asked for, and of which picture, run and checkpoint."""
    checkpoint = trained.weights.checkpoint
    return {
        "picture": str(args.picture),
        "picture_sha256": file_sha256(args.picture),
        "run": str(args.run),
        "checkpoint": checkpoint.path.name if checkpoint else None,
        "images_seen": trained.images_seen,
        "search": asdict(args.search),
        "weights": asdict(args.distance),
        "extractor": extractor.label if extractor else None,
    }


def check(args: Project) -> None:
    """Check what can be checked before anything is loaded.

    Raises:
        Refused: naming what is wrong.
    """
    args.search.check()
    args.distance.check()
    if args.options.truncation is not None:
        raise Refused("--truncation is of drawn pictures, and a projected one is found: leave it out")
    if not args.picture.is_file():
        raise Refused(f"there is no picture {args.picture}")
    check_parent(args.out)
    check_own_folder(args.out, FILES, args.force)
    if args.film:
        check_film(args.film, args.fps, None)
        check_parent(args.film)


def as_tensor(pixels: Images) -> Float[Tensor, "1 c h w"]:
    """Return a picture (h, w, c) in [-1, 1], premultiplied, as generators make them."""
    return torch.from_numpy(premultiply(pixels).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def some(steps: Sequence[Step], most: int) -> list[Step]:
    """Return at most so many steps at equal distances, the first and the last among them."""
    return [steps[k] for k in sorted({*np.linspace(0, len(steps) - 1, most).round().astype(int).tolist()})]


def progress_sheet(target: Images, steps: Sequence[Step], picture: Images) -> Image.Image:
    """Return a sheet of the target, of some steps, and of what was found."""
    shown = some(steps, SHOWN)
    names = ["target", *(f"step {step.number}" for step in shown), "found"]
    return labelled_sheet(np.stack([target, *(step.picture[0] for step in shown), picture])[None], [], names)


def film_frames(steps: Sequence[Step], picture: Images) -> Images:
    """Return the frames of a film of the search, RGB."""
    return over_checkerboard(np.stack([*(step.picture[0] for step in some(steps, FRAMES)), picture]))


def as_csv(steps: Sequence[Step]) -> bytes:
    """Return a table of the distance and its parts over the steps."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["step", "distance", *steps[0].parts])
    table.writerows([step.number, step.distance, *step.parts.values()] for step in steps)
    return text.getvalue().encode()


def plot(steps: Sequence[Step], end: float) -> Image.Image:
    """Draw the distance over the steps, and that of what was found."""
    # Here, because it takes a second, and all commands of the trainer read this file.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="step", ylabel="distance", yscale="log")
    axes.plot([step.number for step in steps], [step.distance for step in steps], label="with noise on the code")
    axes.axhline(end, color="black", linewidth=0.8, linestyle="dashed", label="found")
    axes.legend()
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def write_files(args: Project, contents: Mapping[str, bytes], film: bytes) -> None:
    """Write all files.

    Raises:
        Refused: one cannot be written.
    """
    make_folder(args.out)
    for name, content in contents.items():
        write_file(args.out / name, content)
    if args.film:
        write_file(args.film, film)
