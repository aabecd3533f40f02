"""`stylemix`: StyleGAN's table of pictures that take some layers' styles from one picture, the rest from another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import tyro
from torch import Tensor

from command_line.help_page import HelpPage
from trainer.core.fields import Refused
from trainer.core.stopping import Outcome
from trainer.networks.base import Generator
from trainer.runs.trained_generator import SamplingOptions, TrainedGenerator, parse_seeds
from trainer.sampling.directions import mix, parse_layers
from trainer.sampling.image_files import check_picture, encode_image, write_file
from trainer.sampling.sheets import blank, labelled_sheet

MOST_CELLS = 10_000


@dataclass(frozen=True)
class Stylemix:
    """Mix the codes of pictures by layer: each cell is its row's picture with some layers of its column's."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "runs/NAME --out table.png": "coarse layers of seeds 4 to 7",
            "runs/NAME --out table.png --layers fine": "fine layers",
        },
        everyday={
            "what": ("--out", "--rows", "--cols", "--layers"),
            "how": ("--checkpoint", "--class", "--label", "--truncation", "--ema"),
        },
    )

    run: tyro.conf.Positional[Path]
    """The run folder."""
    out: Path
    """The picture to write, such as table.png."""
    rows: str = "0-3"
    """Seeds of the pictures on the left, from which all but the chosen layers come, and labels and noise."""
    cols: str = "4-7"
    """Seeds of the pictures above, from which the chosen layers come."""
    layers: str = "coarse"
    """coarse, middle or fine, a third of the layers each; or numbers such as 0-6, from the smallest maps upward."""
    options: Annotated[SamplingOptions, tyro.conf.arg(name="")] = SamplingOptions()


def run_stylemix(args: Stylemix) -> Outcome:
    """Generate the table.

    Raises:
        Refused: it cannot be done; nothing was generated.
    """
    check_picture(args.out, "table.png")
    rows, columns = parse_seeds(args.rows), parse_seeds(args.cols)
    if len(rows) * len(columns) > MOST_CELLS:
        raise Refused(f"--rows times --cols are {len(rows) * len(columns):,} pictures: name fewer than {MOST_CELLS:,}")
    trained = TrainedGenerator(args.run, args.options)
    sampler, generator = trained.sampler, trained.sampler.generator
    of_rows, of_columns = trained.codes(rows), trained.codes(columns)
    layers = parse_layers(args.layers, mixable_layers(generator, of_rows[0][0]))
    mixed = [(mix(generator, code, other, layers), latent) for code, latent in of_rows for other, _ in of_columns]
    pictures = np.concatenate([*sampler.synthesize([*of_columns, *of_rows, *mixed])])
    above, left, inside = np.split(pictures, [len(columns), len(columns) + len(rows)])
    # The table: an empty corner, the columns' pictures, and in each row its own picture first.
    inside = inside.reshape(len(rows), len(columns), *pictures.shape[1:])
    table = np.concatenate(
        [np.concatenate([blank(above[:1]), left])[:, None], np.concatenate([above[None], inside])], 1
    )
    sheet = labelled_sheet(table, ["", *(f"seed {seed}" for seed in rows)], ["", *(f"seed {seed}" for seed in columns)])
    write_file(args.out, encode_image(sheet, args.out))
    taken = ", ".join(map(str, layers))
    print(
        f"{len(pictures)} pictures generated at {trained.images_seen:,} images seen, layers {taken} mixed: {args.out}"
    )
    return Outcome.FINISHED


def mixable_layers(generator: Generator, code: Tensor) -> int:
    """Return how many layers of a code can be mixed.

    Raises:
        Refused: one layer takes all of it.
    """
    count = generator.by_layer(code).shape[1]
    if count < 2:
        raise Refused(
            "this generator takes its whole code in one layer, so there are no layers to mix: stylegan2 has a style "
            "for each layer, and biggan a part of z. What lies between two pictures is shown by trainer interpolate"
        )
    return count
