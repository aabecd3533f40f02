"""The options of `trainer evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from command_line.help_page import HelpPage
from shards.storage.argument import OptionalPlace, PlaceArgument
from trainer.core.fields import Refused
from trainer.core.registry import choose_from, one_of
from trainer.evaluation.reference_conventions import CONVENTIONS
from trainer.extractors import EXTRACTORS
from trainer.extractors.base import CACHE
from trainer.metrics import METRICS


@dataclass(frozen=True)
class Evaluate:
    """Measure generated pictures against real ones, with intervals, and with real against real for comparison."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "runs/NAME": "against its own data",
            "runs/NAME --extractor inception-2015 --weights FILE": "as in papers",
            "MY_PICTURES --against my-shards": "pictures of a folder",
        },
        everyday={
            "what": ("--against", "--metrics", "--num-samples", "--extractor", "--weights", "--checkpoint"),
            "how": ("--processes", "--json", "--out"),
        },
    )

    subject: Annotated[tyro.conf.Positional[PlaceArgument], tyro.conf.arg(metavar="RUN|FOLDER|URL")]
    """What is measured: a run, a folder of shards, or a plain folder of pictures."""
    against: OptionalPlace = None
    """The real pictures: shards, or a plain folder; default: the data that the run was trained on."""
    metrics: Annotated[tuple[str, ...], one_of(METRICS)] = ("fid", "kid", "prdc")
    """What is measured."""
    num_samples: int = 50_000
    """Pictures of each side; fewer where there are fewer, and the names of the figures say how many."""
    extractor: Annotated[str | None, one_of(EXTRACTORS)] = None
    """What turns pictures into features; default: random-vgg, which needs no file."""
    weights: Path | None = None
    """The extractor's file of weights."""
    reference_convention: Annotated[str | None, one_of(CONVENTIONS)] = None
    """Compute as this other program does, to compare with its published numbers."""
    checkpoint: str | None = None
    """Of the run: its folder's name, its pictures seen, or "best"; default: the newest whole one."""
    seed_set: Literal["report", "select"] = "report"
    """The noise that pictures are generated from: choose a checkpoint by "select", and report it by "report"."""
    processes: int | None = None
    """Processes on this machine, for the same bits; default: one a GPU, or one a core."""
    json: Path | None = None
    """Write the figures into this file."""
    out: Path | None = None
    """Write nearest.png into this folder: the generated pictures nearest to real ones, each beside those."""
    cache: Path = CACHE
    """Where features are kept: those of the data for the next time."""

    def check(self) -> None:
        """Check what can be checked without opening any picture.

        Raises:
            Refused: naming what is wrong.
        """
        if not self.metrics:
            raise Refused(f"--metrics names none; there are {', '.join(METRICS)}")
        needs = {need for name in self.metrics for need in choose_from(METRICS, name, "metric").needs}
        if self.out and not needs & {"features", "probabilities"}:
            raise Refused("--out shows the nearest pictures by their features, and no metric here wants any: add fid")


def command_line(args: Evaluate) -> list[str]:
    """Return the arguments of `python -m trainer` for the same evaluation, valid in any working folder."""
    return ["evaluate", str(args.subject.resolve()), *option_words(args)]


def option_words(args: Evaluate) -> Iterator[str]:
    """Yield flags and values of all options but the subject that differ from their defaults; paths are absolute."""
    for field in fields(args)[1:]:
        value = getattr(args, field.name)
        if value == field.default:
            continue
        yield f"--{field.name.replace('_', '-')}"
        yield from value if isinstance(value, tuple) else [str(value.resolve() if isinstance(value, Path) else value)]
