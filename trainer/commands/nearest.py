"""`nearest`: generated or given pictures beside the nearest ones of the data, and which these are."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import tyro

from command_line.help_page import HelpPage
from shards.dataset.sample_origin import sample_origin
from shards.images.decoding import Decoding
from shards.storage.argument import OptionalPlace
from trainer.config.config import Config
from trainer.core.fields import Refused
from trainer.core.migration import with_schema
from trainer.core.registry import one_of
from trainer.core.stopping import Outcome
from trainer.distributed.world import World
from trainer.evaluation.extraction import ExtractionTask
from trainer.evaluation.named_extractor import open_by_name
from trainer.evaluation.prepare import find_run
from trainer.evaluation.source import (
    MAX_PIXELS,
    WHITE,
    FolderImages,
    ShardImages,
    decode_file,
    open_images,
    shuffled_places,
)
from trainer.extractors import EXTRACTORS
from trainer.extractors.base import CACHE
from trainer.metrics import nearest
from trainer.runs.config_loading import read_config
from trainer.runs.trained_generator import SamplingOptions, TrainedGenerator, parse_seeds
from trainer.sampling.image_files import check_own_folder, check_parent, encode_image, make_folder, write_file
from trainer.sampling.sampler import Images
from trainer.sampling.sheets import labelled_sheet

MOST_PICTURES, MOST_NEAREST = 1_000, 100
SHEET, TABLE = "nearest.png", "nearest.json"


@dataclass(frozen=True)
class Nearest:
    """Show which pictures of the data are nearest to generated or given ones, by the features of an extractor."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "runs/NAME --out nearest": "of seeds 0 to 15, in the run's data",
            "my.png --data my-shards --out nearest --num 10": "of a picture",
        },
        everyday={
            "what": ("--out", "--data", "--seeds", "--num", "--extractor", "--force"),
            "how": ("--checkpoint", "--class", "--label", "--truncation", "--ema"),
        },
    )

    subject: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN|PICTURES")]
    """A run, whose pictures of --seeds are looked for; or a picture, or a folder of pictures."""
    out: Path
    """The folder to write: nearest.png, a row for each picture, and nearest.json with the samples and distances."""
    data: OptionalPlace = None
    """Where to look: shards or a folder of pictures; default: the data that the run was trained on."""
    seeds: str | None = None
    """The pictures of a run, such as 0-15,42; default: 0-15."""
    num: int = 5
    """How many of the nearest are shown."""
    extractor: Annotated[str | None, one_of(EXTRACTORS)] = None
    """What turns pictures into features; default: random-vgg, which needs no file."""
    weights: Path | None = None
    """The extractor's file of weights."""
    cache: Path = CACHE
    """Where the features of the data are kept for the next time."""
    force: bool = False
    """Replace what is there of an earlier search."""
    options: Annotated[SamplingOptions, tyro.conf.arg(name="")] = SamplingOptions()


def run_nearest(args: Nearest) -> Outcome:
    """Look for the nearest pictures.

    Raises:
        Refused: it cannot be done; only features in the cache were written.
    """
    if not 1 <= args.num <= MOST_NEAREST:
        raise Refused(f"--num must be from 1 to {MOST_NEAREST}, but is {args.num}")
    check_parent(args.out)
    check_own_folder(args.out, (SHEET, TABLE), args.force)
    run = find_run(args.subject)
    if run:
        names, pictures, real = generated_pictures(args, read_config(run))
    else:
        names, pictures, real = given_pictures(args)
    if real.count < args.num:
        raise Refused(f"--num {args.num}: {real.name} has only {real.count} pictures")
    extractor = open_by_name(args.extractor, args.weights, real, args.cache)
    task = ExtractionTask(real, extractor, real.count, 0, args.cache.expanduser())
    task.extract(World())
    features = task.gather().features
    assert features is not None
    distances, rows = nearest(extractor(pictures).features, features, args.num)
    near = real.images(rows.ravel()).reshape(*rows.shape, *pictures.shape[1:])
    sheet = labelled_sheet(
        np.concatenate([pictures[:, None], near], 1), names, ["picture", *(f"{k + 1}." for k in range(args.num))]
    )
    found = [
        {"picture": name, "nearest": [origin(real, row) | {"distance": d} for row, d in zip(some, far, strict=True)]}
        for name, some, far in zip(names, rows.tolist(), distances.tolist(), strict=True)
    ]
    facts = {"subject": str(args.subject), "data": real.name, "extractor": extractor.label, "pictures": found}
    content = encode_image(sheet, args.out / SHEET)
    make_folder(args.out)
    write_file(args.out / SHEET, content)
    write_file(args.out / TABLE, (json.dumps(with_schema(facts), indent=1) + "\n").encode())
    print(f"the {args.num} nearest of {real.count:,} pictures to each of {len(pictures)}: {args.out / SHEET}")
    return Outcome.FINISHED


def generated_pictures(args: Nearest, config: Config) -> tuple[list[str], Images, ShardImages | FolderImages]:
    """Return the names and pictures of seeds, and the pictures to look among.

    Raises:
        Refused: there are no such seeds or data, or it is of another shape.
    """
    seeds = parse_seeds("0-15" if args.seeds is None else args.seeds)
    check_number(len(seeds))
    data = args.data or config.data
    if data is None or not config.network.size:
        raise Refused(f"{args.subject} was not trained on shards of pictures: there is nothing to look among")
    real = open_images(data, (*config.network.shape, config.network.channels))
    trained = TrainedGenerator(args.subject, args.options)
    return [f"seed {seed}" for seed in seeds], np.concatenate([*trained.seeded(seeds)]), real


def given_pictures(args: Nearest) -> tuple[list[str], Images, ShardImages | FolderImages]:
    """Return the names of files and their pictures, and the pictures to look among.

    Raises:
        Refused: there are none, one cannot be decoded, or options are of a run.
    """
    if args.seeds is not None or args.options != SamplingOptions():
        raise Refused(f"{args.subject} holds no run: --seeds and what is sampled are of a run, so leave them out")
    if args.data is None:
        raise Refused(f"{args.subject} holds no run, so name where to look: --data SHARDS or a folder of pictures")
    real = open_images(args.data, None)
    if not args.subject.exists():
        raise Refused(f"there is no run and no picture {args.subject}")
    files = [args.subject] if args.subject.is_file() else FolderImages(args.subject, real.form).files
    check_number(len(files))
    decoding = Decoding(real.form[:2], "crop", WHITE, 0, MAX_PIXELS, 1, real.form[2])
    return [file.name for file in files], np.stack([decode_file(file, decoding).pixels for file in files]), real


def check_number(count: int) -> None:
    """Refuse more pictures than a sheet can show."""
    if count > MOST_PICTURES:
        raise Refused(f"{count:,} pictures are too many for a sheet: name at most {MOST_PICTURES:,}")


def origin(real: ShardImages | FolderImages, row: int) -> dict[str, Any]:
    """Return which sample or file a picture of the data is."""
    place = int(shuffled_places(np.array([row]), real.count, real.order)[0])
    if isinstance(real, FolderImages):
        return {"file": real.files[place].relative_to(real.path).as_posix()}
    return asdict(sample_origin(real.reader, place))
