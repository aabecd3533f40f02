"""`edit`: pictures whose codes move along a direction, by more and more: sheets of strengths."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from command_line.help_page import HelpPage
from trainer.core.fields import Refused
from trainer.core.stopping import Outcome
from trainer.runs.trained_generator import SamplingOptions, TrainedGenerator, parse_seeds
from trainer.sampling.class_directions import ClassChange, class_change
from trainer.sampling.code_files import encode_directions, read_codes, read_directions
from trainer.sampling.directions import Layers, deviations, find_directions, move, parse_layers
from trainer.sampling.image_files import check_parent, check_picture, encode_image, write_file
from trainer.sampling.sampler import LatentCode
from trainer.sampling.sheets import labelled_sheet

MOST_STEPS = 100
MOST_PICTURES = 10_000
Change = Callable[[LatentCode, float], LatentCode]
"""Moves a picture's code by a strength."""


@dataclass(frozen=True)
class Edit:
    """Change pictures along directions that are found in the weights, loaded, or lead from class to class."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "runs/NAME --out sheet.png --direction 0-4": "along five directions",
            "runs/NAME --out sheet.png --from-class Baroque --to-class Cubism": "from class to class",
        },
        everyday={
            "what": ("--out", "--seeds", "--direction", "--strengths", "--layers", "--from-class", "--to-class"),
            "how": ("--checkpoint", "--class", "--label", "--truncation", "--ema"),
        },
    )

    run: tyro.conf.Positional[Path]
    """The run folder."""
    out: Path
    """The sheet to write, such as sheet.png: a row for each picture and direction, a column for each strength."""
    seeds: str = "0-3"
    """The pictures to change, such as 0-3,42."""
    code: Path | None = None
    """Change the pictures of this file of codes in place of seeds, such as a projected picture's."""
    direction: str | None = None
    """Which directions, such as 0 or 0-4,7: 0 is the one that changes most; default: 0."""
    strengths: Annotated[str, tyro.conf.arg(metavar="FROM..TO|LIST")] = "-3..3"
    """From .. to, or a list such as -2,0,2. 1 is a standard deviation of codes along the direction; from class to
    class, all of the way."""
    steps: int = 7
    """Columns, for strengths from .. to."""
    layers: str | None = None
    """Find directions of these layers and move them alone: coarse, middle, fine or numbers such as 0-2."""
    directions: Path | None = None
    """Take the directions from this file in place of the weights."""
    save: Path | None = None
    """Write the directions, as steps of strength 1, into this file, such as directions.safetensors."""
    from_class: Annotated[str | None, tyro.conf.arg(metavar="NAME|INDEX")] = None
    """Lead from the pictures of this class …"""
    to_class: Annotated[str | None, tyro.conf.arg(metavar="NAME|INDEX")] = None
    """… to those of this one: by the means of w; in networks without w by what they are told of the class."""
    options: Annotated[SamplingOptions, tyro.conf.arg(name="")] = SamplingOptions()


def run_edit(args: Edit) -> Outcome:
    """Generate the sheet.

    Raises:
        Refused: it cannot be done; nothing was generated.
    """
    check_picture(args.out, "sheet.png")
    if args.save:
        check_parent(args.save)
    strengths = parse_strengths(args.strengths, args.steps)
    check_choices(args)
    if not args.code:
        check_size(len(parse_seeds(args.seeds)) * len(parse_numbers(args.direction or "0")) * len(strengths))
    trained = TrainedGenerator(args.run, args.options)
    change = from_class_to_class(args, trained)
    named, steps = starting_codes(args, trained, change), None
    if change is None:
        count = trained.sampler.generator.by_layer(named[0][1][0]).shape[1]
        layers = None if args.layers is None else parse_layers(args.layers, count)
        steps = chosen_directions(args, trained, layers)
        changes = [(f"direction {k}", moving(step, layers)) for k, step in steps]
    else:
        changes = [(change.name, change)]
    check_size(len(named) * len(changes) * len(strengths))
    coded = [alter(one, strength) for _, one in named for _, alter in changes for strength in strengths]
    pictures = np.concatenate([*trained.sampler.synthesize(coded)])
    rows = [f"{name}, {what}" for name, _ in named for what, _ in changes]
    sheet = labelled_sheet(
        pictures.reshape(len(rows), len(strengths), *pictures.shape[1:]), rows, [f"{s:+.3g}" for s in strengths]
    )
    content = encode_image(sheet, args.out)
    if args.save:
        saved = change.step() if change else torch.stack([step for _, step in steps or ()])
        write_file(args.save, encode_directions(saved))
    write_file(args.out, content)
    print(f"{len(pictures)} pictures generated at {trained.images_seen:,} images seen: {args.out}")
    return Outcome.FINISHED


def check_size(pictures: int) -> None:
    """Refuse a sheet of too many pictures."""
    if pictures > MOST_PICTURES:
        raise Refused(f"the sheet would have more than {MOST_PICTURES:,} pictures: name fewer --seeds or directions")


def check_choices(args: Edit) -> None:
    """Check which options are given together.

    Raises:
        Refused: they do not go together.
    """
    if (args.from_class is None) != (args.to_class is None):
        raise Refused("--from-class and --to-class go together: name both")
    if args.from_class is not None:
        if args.direction or args.directions or args.layers:
            raise Refused("from class to class there is one direction: leave --direction, --directions, --layers out")
        if args.options.label is not None:
            raise Refused("--from-class is the class of the pictures: leave --class out")
        if args.code:
            raise Refused("--from-class begins with pictures of that class: use --seeds in place of --code")
    if args.code and (args.options.label is not None or args.options.labels or args.options.truncation is not None):
        raise Refused("--code has all that its pictures are functions of: leave --class, --label, --truncation out")


def from_class_to_class(args: Edit, trained: TrainedGenerator) -> ClassChange | None:
    """Return the change between the classes that are asked for, if any.

    Raises:
        Refused: there are no such classes, or both are the same.
    """
    if args.from_class is None or args.to_class is None:
        return None
    start, end = trained.class_labels(args.from_class), trained.class_labels(args.to_class)
    change = class_change(trained.sampler, f"{args.from_class} to {args.to_class}", start, end)
    if not change.of_label.any():
        raise Refused(f"--from-class and --to-class are both {args.from_class!r}: name two classes")
    return change


def starting_codes(args: Edit, trained: TrainedGenerator, change: ClassChange | None) -> list[tuple[str, LatentCode]]:
    """Return the names and codes of the pictures that are changed."""
    if args.code:
        return [(f"code {k}", one) for k, one in enumerate(read_codes(args.code, trained.sampler))]
    seeds = parse_seeds(args.seeds)
    if change is None:
        return [(f"seed {seed}", one) for seed, one in zip(seeds, trained.codes(seeds), strict=True)]
    sampler = trained.sampler
    latents = (
        sampler.latent(s, ("seed",), change.start[s % len(change.start)].tolist(), trained.truncation) for s in seeds
    )
    coded = sampler.latent_codes(latents, trained.truncation)
    return [(f"seed {seed}", one) for seed, one in zip(seeds, coded, strict=True)]


def chosen_directions(
    args: Edit, trained: TrainedGenerator, layers: Layers
) -> list[tuple[int, Float[Tensor, " code"]]]:
    """Return the numbers of the directions and their steps of strength 1.

    Raises:
        Refused: there are none of these numbers.
    """
    numbers = parse_numbers(args.direction or "0")
    if args.directions:
        # What a file holds are steps already.
        steps = read_directions(args.directions, trained.sampler.settings.z_dim)
        if max(numbers) >= len(steps):
            raise Refused(f"--direction {args.direction}: {args.directions} has directions from 0 to {len(steps) - 1}")
        return [(k, steps[k]) for k in numbers]
    sampler = trained.sampler
    found = find_directions(sampler.generator, max(numbers) + 1, layers)
    if sampler.generator.interpolates_linearly:
        # z has deviation 1 along every direction; how far w spreads is known from many of them.
        found = found * deviations(sampler.many_codes(trained.labels), found)[:, None]
    return [(k, found[k]) for k in numbers]


def moving(step: Float[Tensor, " code"], layers: Layers) -> Change:
    """Return what moves a code along a direction."""

    def change(one: LatentCode, strength: float) -> LatentCode:
        code, latent = one
        return move(code, step, strength, layers), latent

    return change


def parse_numbers(text: str) -> list[int]:
    """Read the numbers of directions, such as 0-4,7.

    Raises:
        Refused: it is no such list.
    """
    try:
        return list(dict.fromkeys(parse_seeds(text)))
    except Refused:
        raise Refused(f"--direction must be numbers such as 0 or 0-4,7, but is {text!r}") from None


def parse_strengths(text: str, steps: int) -> Sequence[float]:
    """Read -3..3 as so many strengths at equal distances, or a list such as -2,0,2.

    Raises:
        Refused: it is neither, or they are too many.
    """
    if not 2 <= steps <= MOST_STEPS:
        raise Refused(f"--steps must be from 2 to {MOST_STEPS}, but is {steps}")
    first, dots, last = text.partition("..") if not re.search(r"\.\.\.", text) else ("", "", "")
    try:
        ends = [float(first), float(last)] if dots else [float(part) for part in text.split(",")]
    except ValueError:
        ends = []
    if not ends or len(ends) > MOST_STEPS or not all(map(math.isfinite, ends)):
        raise Refused(f"--strengths must be from .. to, such as -3..3, or a list such as -2,0,2, but is {text!r}")
    return [float(value) for value in np.linspace(ends[0], ends[1], steps)] if dots else ends
