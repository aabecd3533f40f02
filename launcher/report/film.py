"""Pictures in the order of time: with a slider where the browser runs scripts, else side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from launcher.pages.markup import Markup, tag
from launcher.pages.pictures import embed_image

T = TypeVar("T")
SCRIPT = Path(__file__).with_suffix(".js")
GAP = 4  # pixels between the reals and the fakes of a sample grid


@dataclass(frozen=True)
class Frame:
    """A picture of a film."""

    at: int
    """When it is shown: images seen, or its number."""
    words: str
    """What stands below it."""
    image: Callable[[], Image.Image]
    """Reads it.

    Raises:
        OSError: it cannot be read.
    """


@dataclass(frozen=True)
class Track:
    """The pictures of one run."""

    name: str
    frames: Sequence[Frame]


def build_film(title: str, unit: str, tracks: Sequence[Track], most: int) -> Markup:
    """Return tracks side by side with one slider for all; none where there is no picture.

    Args:
        title: names the slider.
        unit: of the times, such as "images seen".
        tracks: those without pictures are left out.
        most: bytes that all pictures together may take.
    """
    tracks = [track for track in tracks if track.frames]
    if not tracks:
        return Markup()
    share = most // sum(len(track.frames) for track in tracks)
    columns = [build_track(track, title, share, named=len(tracks) > 1) for track in tracks]
    times = sorted({frame.at for track in tracks for frame in track.frames})
    slider = tag(
        "input",
        type="range",
        min="0",
        max=str(len(times) - 1),
        value=str(len(times) - 1),
        step="1",
        aria_label=title,
    )
    # Hidden until the script shows it: without one it would do nothing.
    player = tag("div", tag("button", "Play", type="button"), slider, tag("output"), class_="player", hidden="")
    shown = tag("div", *columns, class_="tracks")
    return tag("div", player, shown, class_="film", data_times=" ".join(map(str, times)), data_unit=unit)


def build_track(track: Track, title: str, share: int, named: bool) -> Markup:
    """Return the pictures of a run, each of at most `share` bytes; named, if it is not the only one."""
    shown = [
        tag(
            "figure",
            read_frame(frame, share, f"{track.name}: {frame.words}"),
            tag("figcaption", frame.words),
            data_at=str(frame.at),
        )
        for frame in track.frames
    ]
    strip = tag("div", *shown, class_="strip", tabindex="0", role="region", aria_label=f"{title}: {track.name}")
    return tag("div", *([tag("h3", track.name)] if named else []), strip, class_="track")


def read_frame(frame: Frame, share: int, told: str) -> Markup:
    """Return a picture, or words where it cannot be read."""
    try:
        return embed_image(frame.image(), share, told)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        return tag("p", f"cannot be read: {error}")


def read_image(path: Path) -> Image.Image:
    """Read a picture.

    Raises:
        OSError: it is none, or cannot be read.
    """
    with Image.open(path) as opened:
        return opened.convert("RGB")


def read_fakes(path: Path) -> Image.Image:
    """Read the generated pictures of a sample grid: its right half."""
    grid = read_image(path)
    return grid.crop(((grid.width + GAP) // 2, 0, grid.width, grid.height))


def read_reals(path: Path) -> Image.Image:
    """Read the real pictures of a sample grid: its left half."""
    grid = read_image(path)
    return grid.crop((0, 0, (grid.width - GAP) // 2, grid.height))


def spread_over(items: Sequence[T], most: int) -> Iterator[T]:
    """Yield at most so many items, evenly spread, with the first and the last."""
    if len(items) <= most:
        yield from items
        return
    for k in range(most):
        yield items[k * (len(items) - 1) // (most - 1)]
