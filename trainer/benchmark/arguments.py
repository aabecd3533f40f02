"""The options of `trainer benchmark`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from command_line.help_page import HelpPage


@dataclass(frozen=True)
class Benchmark:
    """Count the modes that recipes capture, by the published protocols: ring, grid, digits (docs/collapse.md).

    Each training takes one core and is kept under --out when it is done: the same command goes on where it stopped.
    """

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "ring grid --out collapse": "both, of all recipes",
            "digits --out collapse --seeds 3": "three seeds of each",
        },
    )

    protocols: tyro.conf.Positional[tuple[Literal["ring", "grid", "digits"], ...]]
    """What to learn: 8 Gaussians on a ring, 25 on a grid, 1,000 triples of digits."""
    out: Path
    """The folder of the results."""
    recipe: tuple[str, ...] = ()
    """Their names; default: all that a protocol has."""
    seeds: int = 10
    """Trainings of each recipe, of the seeds from 0 on."""
    steps: int | None = None
    """Updates of the generator; default: the recipe's own. Published: 400,000 for ring and grid, 100,000 for digits."""
    processes: int | None = None
    """Trainings at a time; default: one a core."""
    markdown: Path | None = None
    """Put the tables into this document, between its lines `<!-- benchmark -->` and `<!-- /benchmark -->`, and the
    pictures into the folder of its name beside it."""
