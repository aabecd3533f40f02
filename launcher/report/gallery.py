"""The pictures of a report: through time, reals beside fakes, nearest neighbours, and ways from picture to picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image, ImageSequence

from launcher.pages.markup import Markup, tag
from launcher.report.film import Frame, Track, build_film, read_fakes, read_frame, read_image, read_reals, spread_over
from launcher.report.making import FILM, SHEET, made_folder
from launcher.report.run_facts import RunFacts
from trainer.core.advice import command

MOST_FRAMES = 24  # of a run's grids
MOST_STEPS = 40  # of a way from picture to picture
MOST_ALARMS = 4


@dataclass(frozen=True)
class Room:
    """The bytes that the pictures of each section may take; base64 makes a third more of them."""

    film: int = 1_500_000
    grids: int = 700_000
    nearest: int = 600_000
    ways: int = 600_000


def grids_through_time(found: Sequence[RunFacts], room: Room) -> Markup:
    """Return the fixed grid of each run at each time: what the same noise gives as training goes on."""
    tracks = [
        Track(
            facts.name,
            [
                Frame(images, f"{images:,} images seen", partial(read_fakes, path))
                for images, path in spread_over(facts.grids, MOST_FRAMES)
            ],
        )
        for facts in found
    ]
    return build_film("The same noise through time, by real images seen", "images seen", tracks, room.film)


def reals_and_fakes(found: Sequence[RunFacts], room: Room) -> list[Markup]:
    """Return the reals and the fakes of each run's newest grid, and what the collapse monitor gave alarm about."""
    pairs = []
    for facts in found:
        share = room.grids // (2 * len(found))
        for images, path in facts.grids[-1:]:
            when = f"{facts.name}, {images:,} images seen"
            for what, read in (("reals", read_reals), ("fakes", read_fakes)):
                pairs.append(picture(Frame(images, f"{what.capitalize()}: {when}", partial(read, path)), share))
        for path in alarm_files(facts):
            share = room.grids // (8 * len(found))
            words = f"Alarm of the collapse monitor, reals left, fakes right: {facts.name}, {path.stem}"
            pairs.append(picture(Frame(0, words, partial(read_image, path)), share))
    return [tag("div", *pairs, class_="figures")] if pairs else []


def alarm_files(facts: RunFacts) -> list[Path]:
    """Return the newest pictures that the collapse monitor gave alarm about."""
    return sorted(facts.run.samples.glob("alarm-*.png"))[-MOST_ALARMS:]


def nearest_sheets(found: Sequence[RunFacts], room: Room) -> list[Markup]:
    """Return generated pictures beside the nearest ones of the data, where they were made."""
    made = [(facts, folder) for facts in found if (folder := made_folder(facts.run, SHEET))]
    if not made:
        return [how_to_make(found, "Which pictures of the data are nearest to generated ones")]
    note = "Left: generated. Right: the nearest pictures of the data by the features of an extractor, nearest first."
    shown = []
    for facts, folder in made:
        words = f"{facts.name}, checkpoint {folder.name}"
        shown.append(picture(Frame(0, words, partial(read_image, folder / SHEET)), room.nearest // len(made)))
    return [tag("p", note, class_="note"), tag("div", *shown, class_="figures")]


def ways_between(found: Sequence[RunFacts], room: Room) -> list[Markup]:
    """Return the way from picture to picture, where it was made."""
    made = [(facts, folder) for facts in found if (folder := made_folder(facts.run, FILM))]
    tracks = [Track(facts.name, list(film_frames(folder / FILM))) for facts, folder in made]
    last = max((track.frames[-1].at for track in tracks if track.frames), default=0)
    shown = build_film("The way from picture to picture", f"of {last}", tracks, room.ways)
    return [shown] if shown else [how_to_make(found, "What lies between two generated pictures")]


def film_frames(path: Path) -> Iterator[Frame]:
    """Yield the pictures of a film."""
    try:
        with Image.open(path) as film:
            frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]
    except (OSError, ValueError):
        return
    for k, frame in spread_over([*enumerate(frames)], MOST_STEPS):
        yield Frame(k + 1, f"picture {k + 1} of {len(frames)}", frame.copy)


def how_to_make(found: Sequence[RunFacts], what: str) -> Markup:
    """Say how a section gets its pictures."""
    again = command("launcher", "report", *(facts.run.path for facts in found), "--pictures")
    return tag("p", f"{what} is not made yet; the generator makes it with: {again}", class_="note")


def picture(frame: Frame, share: int) -> Markup:
    """Return a picture with its words below it."""
    return tag("figure", read_frame(frame, share, frame.words), tag("figcaption", frame.words))
