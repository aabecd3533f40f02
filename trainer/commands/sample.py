"""`sample` generates pictures with a trained generator, `interpolate` the way from one to the next."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import tyro

from command_line.help_page import HelpPage
from trainer.core.fields import Refused
from trainer.core.stopping import Outcome
from trainer.runs.trained_generator import MOST_SEEDS, SamplingOptions, TrainedGenerator, parse_seeds
from trainer.sampling.code_files import read_codes
from trainer.sampling.films import check_film, encode_film
from trainer.sampling.image_files import check_parent, check_picture, encode_image, write_file
from trainer.sampling.sampler import Images, image_grid

NUM = 64
MOST_STEPS = 10_000


@dataclass(frozen=True)
class Sample:
    """Generate pictures with a checkpoint's averaged generator: one grid, or a file each."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "runs/NAME --out grid.png": "a grid of 64",
            "runs/NAME --out best.png --seeds 0-15,42": "these seeds",
            "runs/NAME --out pictures --files --num 1000": "a file each",
        },
        everyday={
            "what": ("--out", "--num", "--seed", "--seeds", "--files", "--force"),
            "how": ("--checkpoint", "--class", "--label", "--truncation", "--ema"),
        },
    )

    run: tyro.conf.Positional[Path]
    """The run folder."""
    out: Path
    """The picture to write, such as grid.png; with --files: the folder."""
    num: int | None = None
    """How many pictures; default: 64."""
    seed: int | None = None
    """Names the noise; picture i is the same whatever --num; default: 0."""
    seeds: str | None = None
    """In place of --num and --seed: such as 0-15,42. Picture s is the same whatever else is generated."""
    code: Path | None = None
    """In place of seeds: the pictures of a file of codes, as `project` writes it."""
    files: bool = False
    """Write seed0042.png and so on into the folder --out; without --seeds: of the seeds from 0 to --num - 1."""
    force: bool = False
    """Replace pictures that are there, and write into a folder that holds other things."""
    options: Annotated[SamplingOptions, tyro.conf.arg(name="")] = SamplingOptions()


@dataclass(frozen=True)
class Interpolate:
    """Film the way from picture to picture: on the sphere in z, along straight lines in w (stylegan2)."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "runs/NAME --out way.gif": "past seeds 0 to 3",
            "runs/NAME --out way.mp4 --seeds 1,7,42 --steps 60": "a slower film",
        },
        everyday={
            "what": ("--out", "--seeds", "--steps", "--fps", "--loop", "--grid"),
            "how": ("--checkpoint", "--class", "--label", "--truncation", "--ema"),
        },
    )

    run: tyro.conf.Positional[Path]
    """The run folder."""
    out: Path
    """The film to write: way.gif (256 colours in all), way.webp, or way.mp4, which ffmpeg makes."""
    seeds: str = "0-3"
    """The pictures to pass, such as 1,2,3 or 0-15,42; they are those that `sample --seeds` generates."""
    steps: int = 30
    """Pictures from each to the next."""
    fps: float = 20.0
    """Pictures per second, up to 50; a GIF's times are whole hundredths of a second, so that 30 play as 33."""
    loop: bool = True
    """Go back to the first picture, and play for ever (an .mp4: as the player does)."""
    grid: int = 1
    """Show so many ways across and down; each passes seeds of its own, that follow those of the way before."""
    quality: int | None = None
    """Of a .webp or an .mp4, from 1 to 100; default: a lossless .webp, an .mp4 that looks so (CRF 16)."""
    options: Annotated[SamplingOptions, tyro.conf.arg(name="")] = SamplingOptions()


def run_sample(args: Sample) -> Outcome:
    """Generate pictures.

    Raises:
        Refused: it cannot be done; nothing was generated.
    """
    if args.seeds is not None and (args.num, args.seed) != (None, None):
        raise Refused("--seeds says which pictures, and how many: leave --num and --seed out")
    if args.files and args.seed is not None:
        raise Refused("--files names each picture by a seed of its own: use --seeds in place of --seed")
    if args.code is not None:
        return sample_codes(args, args.code)
    num = NUM if args.num is None else args.num
    if not 1 <= num <= MOST_SEEDS:
        raise Refused(f"--num must be from 1 to {MOST_SEEDS:,}, but is {num}")
    if args.seed is not None and args.seed < 0:
        raise Refused(f"--seed must not be negative, but is {args.seed}")
    if args.files:
        return sample_files(args, parse_seeds(f"0-{num - 1}" if args.seeds is None else args.seeds))
    check_picture(args.out, "grid.png", "; with --files it is a folder")
    seeds = None if args.seeds is None else parse_seeds(args.seeds)
    trained = TrainedGenerator(args.run, args.options)
    pictures = trained.numbered(num, args.seed or 0) if seeds is None else np.concatenate([*trained.seeded(seeds)])
    write_grid(args.out, pictures, trained)
    return Outcome.FINISHED


def write_grid(out: Path, pictures: Images, trained: TrainedGenerator) -> None:
    """Write pictures as one grid, and say so."""
    # The root, rounded up: the grid is square, or nearly.
    write_file(out, encode_image(image_grid(pictures, columns=math.isqrt(len(pictures) - 1) + 1), out))
    print(f"{len(pictures)} pictures generated at {trained.images_seen:,} images seen: {out}")


def sample_codes(args: Sample, code: Path) -> Outcome:
    """Generate the pictures of a file of codes."""
    given = (args.num, args.seed, args.seeds, args.options.label, args.options.truncation)
    if given != (None,) * len(given) or args.options.labels or args.files:
        raise Refused("--code has all that its pictures are functions of: use it without other choices of pictures")
    check_picture(args.out, "grid.png")
    trained = TrainedGenerator(args.run, args.options)
    coded = read_codes(code, trained.sampler)
    write_grid(args.out, np.concatenate([*trained.sampler.synthesize(coded)]), trained)
    return Outcome.FINISHED


def sample_files(args: Sample, seeds: Sequence[int]) -> Outcome:
    """Generate each seed's picture into a file of its own."""
    seeds = list(dict.fromkeys(seeds))  # one file each
    paths = [args.out / f"seed{seed:04d}.png" for seed in seeds]
    if args.out.is_file():
        raise Refused(f"--out must be a folder with --files, but {args.out} is a file")
    if not args.force:
        check_folder(args.out, paths)
    trained = TrainedGenerator(args.run, args.options)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"the folder {args.out} cannot be made: {error.strerror}") from error
    pictures = (picture for some in trained.seeded(seeds) for picture in some)
    for path, picture in zip(paths, pictures, strict=True):
        write_file(path, encode_image(picture, path))
    print(f"{len(paths)} pictures generated at {trained.images_seen:,} images seen, in {args.out}")
    return Outcome.FINISHED


def check_folder(folder: Path, paths: Sequence[Path]) -> None:
    """Refuse to mix pictures with other things, or to replace any.

    Raises:
        Refused: naming one of them.
    """
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    for name in sorted(there):
        if not re.fullmatch(r"seed\d+\.png|\..*", name):
            raise Refused(f"{folder} holds other things, such as {name}: name another folder, or --force")
    for path in paths:
        if path.name in there:
            raise Refused(f"{path} is there already: name another folder, or --force to replace it")


def run_interpolate(args: Interpolate) -> Outcome:
    """Generate a film.

    Raises:
        Refused: it cannot be done; nothing was generated.
    """
    kind, seeds = args.out.suffix.lower(), parse_seeds(args.seeds)
    check_film(args.out, args.fps, args.quality)
    check_parent(args.out)
    for name, value in (("steps", args.steps), ("grid", args.grid)):
        if not 1 <= value <= MOST_STEPS:
            raise Refused(f"--{name} must be from 1 to {MOST_STEPS:,}, but is {value}")
    if len(seeds) < 2:
        raise Refused(f"--seeds must name two pictures at least, but is {args.seeds}")
    trained = TrainedGenerator(args.run, args.options)
    # So far apart that no way passes a picture of another one.
    span = max(seeds) - min(seeds) + 1
    stops = [[seed + k * span for seed in seeds] for k in range(args.grid**2)]
    ways = np.stack([trained.way(stop, args.steps, args.loop) for stop in stops], axis=1)
    frames = np.stack([image_grid(frame, args.grid) for frame in ways])
    write_file(args.out, encode_film(frames, kind, args.fps, args.loop, args.quality))
    print(f"{len(frames)} pictures generated at {trained.images_seen:,} images seen: {args.out}")
    return Outcome.FINISHED
