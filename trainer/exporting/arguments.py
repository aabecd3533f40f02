"""The options of `trainer export`, `push` and `pull`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from command_line.help_page import HelpPage
from shards.storage.argument import PlaceArgument
from trainer.runs.trained_generator import SamplingOptions

Format = Literal["safetensors", "onnx", "torch-export"]


@dataclass(frozen=True)
class Export:
    """Write a trained generator into a folder of its own, which needs neither the run nor lienzo."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "runs/NAME --out model": "plain PyTorch and a model card",
            "runs/NAME --out model --format onnx": "for any runtime",
        },
        everyday={
            "what": ("--out", "--format", "--discriminator", "--license"),
            "how": ("--checkpoint", "--class", "--label", "--truncation", "--ema"),
        },
    )

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN|BUNDLE")]
    """The run folder, or a bundle, to add formats."""
    out: Path
    """The folder to make: the bundle."""
    format: tuple[Format, ...] = ("safetensors",)
    """What stands in it besides weights and code: onnx (generator.onnx, for any runtime), torch-export (generator.pt2).
    safetensors, with generator.py that loads it in plain PyTorch, always does."""
    discriminator: bool = False
    """Give the discriminator away as well, so that others can go on from both (--init-from)."""
    license: str = "unknown"
    """Of the weights, for the model card: a name as Hugging Face has it, such as apache-2.0 or cc-by-4.0."""
    options: Annotated[SamplingOptions, tyro.conf.arg(name="")] = SamplingOptions()


@dataclass(frozen=True)
class Push:
    """Copy a bundle to a URL, such as s3://bucket/model or hf://owner/model."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "model s3://bucket/model": "to a bucket",
            "model hf://owner/model": "to Hugging Face",
        },
    )

    bundle: tyro.conf.Positional[Path]
    """The bundle."""
    url: tyro.conf.Positional[PlaceArgument]
    """Where to; files of a bundle that is there are replaced."""


@dataclass(frozen=True)
class Pull:
    """Copy a bundle from a URL into a folder, and compare every file with the bundle's manifest."""

    help_page: ClassVar[HelpPage] = HelpPage(examples={"s3://bucket/model model": "from a bucket"})

    url: tyro.conf.Positional[PlaceArgument]
    """Where from."""
    out: tyro.conf.Positional[Path]
    """The folder to make."""
