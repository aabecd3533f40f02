"""`seeds`: the seeds with the best pictures by a measure, as a list that --seeds takes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import tyro
from tqdm import tqdm

from command_line.help_page import HelpPage
from shards.storage.argument import OptionalPlace
from trainer.core.fields import Refused
from trainer.core.iteration import batched
from trainer.core.migration import with_schema
from trainer.core.registry import choose_from, one_of
from trainer.core.stopping import Outcome
from trainer.evaluation.seed_scores import SCORES, ScoreOptions
from trainer.extractors import EXTRACTORS
from trainer.extractors.base import CACHE
from trainer.metrics.base import Float64Array
from trainer.runs.journal import number_or_name
from trainer.runs.trained_generator import SamplingOptions, TrainedGenerator, parse_seeds
from trainer.sampling.image_files import check_parent, check_picture, encode_image, write_file
from trainer.sampling.sheets import named_grid

MOST_SHOWN = 400  # pictures on the sheet
AT_ONCE = 256  # pictures that are scored at a time


@dataclass(frozen=True)
class Seeds:
    """Score the pictures of seeds one by one, and list the best."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "runs/NAME --out best.txt --sheet best.png": "the 100 best of 1000",
            "runs/NAME --out odd.txt --by novelty --best 20": "novel ones",
        },
        everyday={
            "what": ("--out", "--best", "--among", "--by", "--worst", "--sheet", "--data"),
            "how": ("--checkpoint", "--class", "--label", "--truncation", "--ema"),
        },
    )

    run: tyro.conf.Positional[Path]
    """The run folder."""
    out: Path
    """The list to write, such as best.txt, the best first; `--seeds best.txt` takes it."""
    best: int = 100
    """How many to list."""
    among: str = "0-999"
    """The seeds to choose from, such as 0-9999."""
    by: Annotated[str, one_of(SCORES)] = "realism"
    """realism: near the real pictures, by features; logit: of the run's discriminator; mean-style: near the mean of w;
    novelty: far from all real pictures."""
    worst: bool = False
    """List the worst in place of the best: what to mend, or to leave out."""
    sheet: Path | None = None
    """Write a picture of those that are listed, with their seeds and scores, such as best.png."""
    json: Path | None = None
    """Write all scores into this file."""
    data: OptionalPlace = None
    """The real pictures of realism and novelty; default: the data that the run was trained on."""
    extractor: Annotated[str | None, one_of(EXTRACTORS)] = None
    """Of realism and novelty; default: random-vgg, which needs no file."""
    weights: Path | None = None
    """The extractor's file of weights."""
    cache: Path = CACHE
    """Where the features of the data are kept for the next time."""
    options: Annotated[SamplingOptions, tyro.conf.arg(name="")] = SamplingOptions()


def run_seeds(args: Seeds) -> Outcome:
    """Score seeds.

    Raises:
        Refused: it cannot be done; only features in the cache were written.
    """
    seeds = check(args)
    measure = choose_from(SCORES, args.by, "measure")
    trained = TrainedGenerator(args.run, args.options)
    score = measure(ScoreOptions(trained, args.data, args.extractor, args.weights, args.cache))
    groups = tqdm(list(batched(seeds, AT_ONCE)), unit="part", leave=False, disable=None)
    scores = np.concatenate([score(trained.codes(group)) for group in groups])
    order = ranking(scores, score.higher_is_better != args.worst)
    chosen = [seeds[k] for k in order[: args.best]]
    sheet = args.sheet and sheet_of(args, trained, chosen, scores[order])
    if args.json:
        rows = {str(seeds[k]): number_or_name(float(scores[k])) for k in order}
        facts = {"run": str(args.run), "images_seen": trained.images_seen, "by": args.by, "scores": rows}
        write_file(args.json, (json.dumps(with_schema(facts), indent=1) + "\n").encode())
    if args.sheet and sheet:
        write_file(args.sheet, sheet)
    write_file(args.out, (",".join(map(str, chosen)) + "\n").encode())
    ends = f"{scores[order[0]]:.4g} to {scores[order[len(chosen) - 1]]:.4g}"
    which = "worst" if args.worst else "best"
    print(f"the {which} {len(chosen)} of {len(seeds):,} seeds by {args.by}, {ends}: {args.out}")
    return Outcome.FINISHED


def check(args: Seeds) -> Sequence[int]:
    """Return the seeds to choose from, or refuse what is wrong before anything is generated.

    Raises:
        Refused: naming the option.
    """
    seeds = list(dict.fromkeys(parse_seeds(args.among)))
    if not 1 <= args.best <= len(seeds):
        raise Refused(f"--best must be from 1 to the {len(seeds):,} seeds of --among, but is {args.best}")
    check_parent(args.out)
    if args.json:
        check_parent(args.json)
    if args.sheet:
        check_picture(args.sheet, "best.png")
    return seeds


def ranking(scores: Float64Array, high_first: bool) -> list[int]:
    """Return the places of scores from the best to the worst; equal ones stay in order, and NaN comes last.

    Args:
        scores: (n,).
        high_first: high is best.
    """
    found: list[int] = np.lexsort((-scores if high_first else scores, np.isnan(scores))).tolist()
    return found


def sheet_of(args: Seeds, trained: TrainedGenerator, chosen: Sequence[int], scores: Float64Array) -> bytes:
    """Return a sheet of the first of the chosen seeds, with their scores."""
    assert args.sheet
    shown = chosen[:MOST_SHOWN]
    pictures = np.concatenate([*trained.seeded(shown)])
    names = [f"{seed}: {score:.3g}" for seed, score in zip(shown, scores, strict=False)]
    columns = math.isqrt(len(shown) - 1) + 1
    return encode_image(named_grid(pictures, names, columns), args.sheet)
