"""The options of `trainer import`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from command_line.help_page import HelpPage
from trainer.core.registry import one_of
from trainer.importing.programs import PROGRAMS


@dataclass(frozen=True)
class Import:
    """Make a bundle of a checkpoint that another program has written: sample, evaluate and fine-tune it as one of ours.

    Pickles are read as data: no class is looked up, and nothing of the file runs.
    """

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "ffhq.pkl --as stylegan2-ada --out model": "of NVIDIA's code",
            "G_ema.pth --as biggan --out model": "without its discriminator",
        },
    )

    file: tyro.conf.Positional[Path]
    """The checkpoint: .pkl, .pth or .pt."""
    program: Annotated[str, tyro.conf.arg(name="as"), one_of(PROGRAMS)]
    """The program that has written it."""
    out: Path
    """The folder to make: the bundle."""
    discriminator_file: Path | None = None
    """The discriminator's checkpoint, where the program writes it into a file of its own (biggan, studiogan)."""
    ema: bool = True
    """Take the moving average, where the file has it as well; --no-ema: the weights as they were trained last."""
    license: str = "unknown"
    """Of the weights, for the model card."""
