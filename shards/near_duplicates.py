"""`python -m shards inspect --duplicates SHEET.png`: groups of equal and nearly equal pictures of a dataset."""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from shards.building.near import find_near
from shards.dataset.facts import read_facts
from shards.dataset.index import Index
from shards.images.display import over_checkerboard
from shards.images.fingerprint import PRINT, fingerprint

AT_ONCE = 256  # pictures that are decoded
MAX_ROWS, MAX_COLUMNS = 40, 12  # of the sheet
GAP = 2  # pixels between the pictures
HELD_OUT = "red"  # the frame of held-out pictures


@dataclass(frozen=True)
class Place:
    """A sample of a dataset."""

    split: str
    sample: int  # in the split


def find_groups(index: Index) -> list[list[Place]]:
    """Return the groups of equal and nearly equal pictures, the largest first. Fingerprints are in a temporary file."""
    from shards.dataset.stream import Reader  # brings webdataset and with it torch, which take seconds to import

    places = [Place(name, sample) for name, split in index.splits.items() for sample in range(split.samples)]
    with tempfile.TemporaryFile() as file:
        prints: npt.NDArray[np.void] = np.memmap(file, PRINT, "w+", shape=len(places) or 1)[: len(places)]
        done = 0
        for name, split in index.splits.items():
            read = Reader(index, name, lambda sample, what: print(f"sample {sample}: {what}", file=sys.stderr))
            for first in range(0, split.samples, AT_ONCE):
                for pixels in read(np.arange(first, min(first + AT_ONCE, split.samples))).images:
                    prints[done] = fingerprint(pixels)
                    done += 1
        leaders = find_near(prints)
    groups = defaultdict[int, list[Place]](list)
    for number in np.flatnonzero(np.bincount(leaders, minlength=len(places))[leaders] > 1).tolist():
        groups[int(leaders[number])].append(places[number])
    return sorted(groups.values(), key=lambda group: -len(group))


def group_lines(index: Index, groups: list[list[Place]]) -> Iterator[str]:
    """Yield a line of counts, and one for each group on the sheet."""
    repeated = sum(len(group) - 1 for group in groups)
    both = sum(len({place.split for place in group}) > 1 for group in groups)
    yield f"equal or nearly equal: {repeated:,} pictures repeat one of {len(groups):,} others; on both sides: {both:,}"
    for row, group in enumerate(groups[:MAX_ROWS], 1):
        names = [repr(read_facts(index, place.split, place.sample)["file"]) for place in group[:MAX_COLUMNS]]
        more = f" and {len(group) - len(names):,} more" if len(group) > len(names) else ""
        yield f"row {row}: {', '.join(names)}{more}"


def draw_groups(index: Index, groups: list[list[Place]]) -> Image.Image:
    """Return the contact sheet: a row for each of the largest groups; held-out pictures have a red frame."""
    from shards.dataset.stream import Reader

    readers = {name: Reader(index, name, lambda *_: None) for name in index.splits}
    height, width = (side + 2 * GAP for side in index.size)
    shown = groups[:MAX_ROWS]
    columns = min(MAX_COLUMNS, max(map(len, shown), default=1))
    sheet = Image.new("RGB", (columns * width, max(1, len(shown)) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, group in enumerate(shown):
        for column, place in enumerate(group[:columns]):
            left, top = column * width, row * height
            if place.split != "train":
                draw.rectangle((left, top, left + width - 1, top + height - 1), fill=HELD_OUT)
            picture = readers[place.split](np.array([place.sample])).images[0]
            sheet.paste(Image.fromarray(over_checkerboard(picture)), (left + GAP, top + GAP))
    return sheet
