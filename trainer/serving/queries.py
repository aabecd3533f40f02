"""What the API is asked and what it answers: pydantic models, of which the OpenAPI description is made."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from trainer.core.fields import Refused
from trainer.runs.trained_generator import parse_seeds
from trainer.serving.limits import MOST_PICTURES, SEEDS
from trainer.serving.points import ALL, Point, Style, film, wall

FAR = 1e6  # columns and rows, in which floats are still exact to a millionth
MOVE = re.compile(r"(\d{1,4}):(-?\d{1,3}(?:\.\d{1,6})?)")
Text = Annotated[str, Field(max_length=300)]
Seed = Annotated[int, Field(ge=0, lt=SEEDS)]


class Query(BaseModel):
    """What all pictures have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    run: Text = Field("", description="The run, by its name in /runs; default: the first one.")
    checkpoint: Text = Field("", description="Its name, or the images it had seen; default: the newest.")
    label: Text | None = Field(None, alias="class", description="The class, by its name or index.")
    labels: tuple[Text, ...] = Field(
        (), alias="label", max_length=64, description="COLUMN=VALUE of a run that is told several labels."
    )
    truncation: float | None = Field(None, ge=0, le=100, description="As of `sample`; default: none.")
    move: tuple[Text, ...] = Field(
        (), max_length=64, description="DIRECTION:DEVIATIONS, such as 0:1.5; directions are numbered from 0."
    )
    format: Literal["png", "webp"] = Field("png", description="Both without loss; a PNG carries its parameters.")
    download: bool = Field(False, description="Name a file for the browser to save.")

    def style(self) -> Style:
        """Return label and truncation."""
        return Style(self.label, self.labels, self.truncation)

    def moves(self) -> tuple[tuple[int, float], ...]:
        """Return directions and how far along each.

        Raises:
            Refused: they are not of this form.
        """
        found = [(text, MOVE.fullmatch(text)) for text in self.move]
        for text, match in found:
            if match is None:
                raise Refused(f"move must be DIRECTION:DEVIATIONS, such as 0:1.5, but is {text!r}")
        return tuple((int(match[1]), float(match[2])) for _, match in found if match)

    def points(self) -> list[Point]:
        """Return the pictures that are wanted."""
        raise NotImplementedError


class PictureQuery(Query):
    """One picture."""

    seed: Seed = Field(0, description="The picture of this seed is that of `sample --seeds`.")
    dx: float = Field(0.0, ge=-FAR, le=FAR, description="Columns to the right of the seed, of 1,000 on a plane.")
    dy: float = Field(0.0, ge=-FAR, le=FAR, description="Rows below it. Pictures between seeds are interpolated.")
    mix: Seed | None = Field(None, description="A second seed.")
    share: float = Field(0.5, ge=0, le=1, description="How far towards the second seed.")
    layers: Text = Field(
        ALL, description="What the second seed changes: all, coarse, middle, fine, or numbers of layers such as 0-3."
    )

    def point(self) -> Point:
        """Return where the picture, or the upper left one, lies."""
        share = self.share if self.mix is not None else 0.0
        return Point(self.seed, self.dx, self.dy, self.mix, share, self.layers, self.moves())

    def points(self) -> list[Point]:
        """Return the one picture."""
        return [self.point()]


class WallQuery(PictureQuery):
    """Pictures beside and below each other on the plane of seeds; the seed is that of the upper left one."""

    columns: int = Field(4, ge=1, le=MOST_PICTURES)
    rows: int = Field(4, ge=1, le=MOST_PICTURES)
    spacing: float = Field(1.0, gt=0, le=1000, description="Their distance; at 1 each has a seed of its own.")

    def points(self) -> list[Point]:
        """Return the pictures row by row; of too many, enough to be refused."""
        rows = min(self.rows, MOST_PICTURES // self.columns + 1)
        return wall(self.point(), self.columns, rows, self.spacing)


class FilmQuery(Query):
    """A film from picture to picture."""

    seeds: Text = Field("0-3", pattern=r"^[0-9, -]*$", description="The pictures to pass, such as 3,7,42.")
    steps: int = Field(12, ge=1, le=MOST_PICTURES, description="Pictures from each to the next.")
    fps: float = Field(20.0, ge=1, le=50, description="Pictures a second.")
    loop: bool = Field(True, description="Lead back to the first picture, and play for ever.")
    format: Literal["webp", "gif"] = Field("webp", description="WebP is without loss; a GIF has 256 colours.")  # type: ignore[assignment]

    def points(self) -> list[Point]:
        """Return the pictures of the film; of too many, enough to be refused.

        Raises:
            Refused: the seeds are no list of two or more.
        """
        seeds = parse_seeds(self.seeds)[: MOST_PICTURES + 1]
        if len(seeds) < 2 or max(seeds) >= SEEDS:
            raise Refused(f"seeds must name two pictures at least, below {SEEDS:,}, but is {self.seeds!r}")
        return film(seeds, self.steps, self.loop, self.moves())


class LabelColumn(BaseModel):
    """A label that a generator is told."""

    name: str
    kind: str
    """class, number or vector."""
    length: int
    """Numbers of a vector."""
    classes: list[str]


class CheckpointAnswer(BaseModel):
    """A checkpoint."""

    name: str
    images_seen: int


class RunAnswer(BaseModel):
    """A run, and what can be asked of its newest checkpoint's generator."""

    name: str
    newest: str
    checkpoints: list[CheckpointAnswer]
    generator: str
    height: int
    width: int
    classes: list[str]
    """Their names, or numbers where the names are not known; none: it is told no classes."""
    labels: list[LabelColumn]
    truncation: Literal["z", "w"]
    """What it acts on."""
    layers: int
    """That take a part of the code of their own; 1: all of it goes into one."""
    directions: int


class RunsAnswer(BaseModel):
    """What is served."""

    runs: list[RunAnswer]
    most_pictures: int
    version: str


class Problem(BaseModel):
    """Why a request was not answered with what it wanted."""

    detail: str
