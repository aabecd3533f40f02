"""`python -m shards inspect`: show counts, settings, exclusions, sizes of the originals, and a grid of pictures."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from command_line.help_page import HelpPage
from command_line.printable import printable
from shards.dataset.files import INDEX
from shards.dataset.index import DataError, Index
from shards.exclusion import REASONS
from shards.images.display import over_checkerboard
from shards.near_duplicates import draw_groups, find_groups, group_lines
from shards.storage.argument import PlaceArgument

BAR_WIDTH = 40  # characters of the longest bar
MAX_CLASSES = 20  # lines of classes
QUANTITIES = {"samples", "shards", "MB", "pictures", "files"}  # titles of columns of numbers
GAP = 2  # pixels between the pictures of the grid


@dataclass(frozen=True)
class Inspect:
    """Show what a folder of shards holds; exit code 0: done, 2: refused."""

    help_page: ClassVar[HelpPage] = HelpPage(
        examples={
            "my-shards --out grid.png": "tables and pictures",
            "my-shards --duplicates twins.png": "what is in it twice",
        },
    )

    path: Positional[PlaceArgument]
    """The folder of shards, or its URL."""
    out: Path | None = None
    """Also write a grid of training pictures: a PNG file."""
    num: int = 64
    """Pictures in the grid."""
    seed: int = 0
    """Names the choice of the pictures in the grid."""
    duplicates: Path | None = None
    """Also find equal and nearly equal pictures, and write a sheet of them, a row for each group: a PNG file. Held-out
    pictures have a red frame."""


def run_inspect(args: Inspect) -> int:
    """Run the command: print the tables, write the grid, and return the exit code."""
    try:
        if args.num < 1:
            raise DataError(f"--num {args.num}: a grid has at least one picture")
        if args.seed < 0:
            raise DataError(f"--seed must not be negative, but is {args.seed}")
        index = Index.open(args.path)
        console = Console(markup=False, highlight=False)
        for shown in inspection_lines(index):
            console.print(shown)
        if args.out:
            pictures = draw_grid(index, args.num, args.seed)
            pictures.save(args.out, "PNG")
            print(f"{args.out}: {pictures.width} x {pictures.height} pixels")
        if args.duplicates:
            groups = find_groups(index)
            draw_groups(index, groups).save(args.duplicates, "PNG")
            print("\n".join(group_lines(index, groups)))
    except DataError as error:
        print(printable(error), file=sys.stderr)
        return 2
    except MemoryError:
        print(
            f"a grid of {args.num} pictures of {index.size[0]} x {index.size[1]} pixels does not fit into memory: give "
            "a lower --num",
            file=sys.stderr,
        )
        return 2
    except OSError as error:
        print(f"{error.filename or args.path}: {error.strerror or error}", file=sys.stderr)
        return 2
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
        print(
            f"{args.path / INDEX} is damaged; run: python -m shards verify {shlex.quote(str(args.path))}",
            file=sys.stderr,
        )
        return 2
    return 0


def inspection_lines(index: Index) -> Iterator[Table | str]:
    """Yield the tables and lines to print."""
    content, statistics = index.content, index.content["statistics"]
    yield format_table(str(index.path), ["split", "samples", "shards", "MB"], split_rows(index))
    yield "settings: " + ", ".join(f"{name} {value}" for name, value in content["settings"].items())
    yield "originals: " + ", ".join(
        [*count_texts(statistics["formats"]), *count_texts(statistics["modes"]), f"{statistics['enlarged']:,} enlarged"]
    )
    if duplicates := statistics.get("duplicates"):  # not in the index of older builds
        yield (
            f"duplicates: {duplicates['train']:,} pictures to train on repeat another one of them"
            # Of datasets whose hold-out was drawn by name.
            + (
                f", and {both:,} held-out pictures are trained on as well"
                if (both := duplicates.get("holdout_in_train"))
                else ""
            )
        )
    for side in "widths", "heights":
        yield format_table(
            f"{side} of the originals, in pixels", ["", "pictures", ""], histogram_rows(**statistics[side])
        )
    if index.classes:
        yield format_table("classes", ["class", "pictures"], class_rows(index.classes, content["class_counts"]))
    if content["excluded"]:
        rows = [(reason, f"{count:,}", REASONS.get(reason, "")) for reason, count in content["excluded"].items()]
        yield format_table("excluded", ["reason", "files", "meaning"], rows)


def format_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table; columns of numbers are aligned to the right."""
    shown = Table(title=title, title_justify="left")
    for column in columns:
        shown.add_column(column, justify="right" if column in QUANTITIES else "left")
    for row in rows:
        shown.add_row(*row)
    return shown


def split_rows(index: Index) -> Iterator[Sequence[str]]:
    """Yield a row for each split."""
    for split in index.splits.values():
        size = sum(shard.bytes for shard in split.shards) / 1e6
        yield split.name, f"{split.samples:,}", f"{len(split.shards):,}", f"{size:,.1f}"


def count_texts(counts: Mapping[str, int]) -> Iterator[str]:
    """Yield "count name" of each, the largest first."""
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        yield f"{count:,} {name}"


def class_rows(classes: Sequence[str], counts: Sequence[int]) -> Iterator[Sequence[str]]:
    """Yield a row for each of the largest classes, and one for all others."""
    ranked = sorted(zip(classes, counts, strict=True), key=lambda item: -item[1])
    for name, count in ranked[:MAX_CLASSES]:
        yield name, f"{count:,}"
    if len(ranked) > MAX_CLASSES:
        yield f"{len(ranked) - MAX_CLASSES:,} others", f"{sum(count for _, count in ranked[MAX_CLASSES:]):,}"


def histogram_rows(edges: Sequence[int], counts: Sequence[int]) -> Iterator[Sequence[str]]:
    """Yield a row for each bin, without empty ones at both ends; counts[i] is of edges[i - 1] <= x < edges[i]."""
    used = [i for i, count in enumerate(counts) if count]
    bounds: list[Any] = [0, *edges, None]
    for i in range(used[0], used[-1] + 1) if used else ():
        label = f"{bounds[i]:,} and more" if bounds[i + 1] is None else f"{bounds[i]:,} to {bounds[i + 1] - 1:,}"
        yield label, f"{counts[i]:,}", "█" * math.ceil(counts[i] * BAR_WIDTH / max(counts))


def draw_grid(index: Index, num: int, seed: int) -> Image.Image:
    """Return a grid of pictures, in the order in which they are stored; the same seed gives the same pictures."""
    from shards.dataset.stream import Reader  # brings webdataset and with it torch, which take seconds to import

    samples = index.splits["train"].samples
    draw = np.random.Generator(np.random.Philox(key=seed))
    chosen = np.sort(draw.choice(samples, min(num, samples), replace=False, shuffle=False))
    read = Reader(index, "train", lambda sample, what: print(f"sample {sample}: {what}", file=sys.stderr))
    columns = math.ceil(math.sqrt(len(chosen)))
    down, across = (side + GAP for side in index.size)
    grid = Image.new("RGB", (columns * across + GAP, -(-len(chosen) // columns) * down + GAP), "white")
    for i, pixels in enumerate(over_checkerboard(read(chosen).images)):
        grid.paste(Image.fromarray(pixels), (i % columns * across + GAP, i // columns * down + GAP))
    return grid
