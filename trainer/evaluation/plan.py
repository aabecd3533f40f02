"""What an evaluation compares, decided and checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trainer.core.fields import Refused
from trainer.distributed.world import World
from trainer.evaluation.extraction import ExtractionTask
from trainer.evaluation.figures import Figure, Sides
from trainer.evaluation.nearest_images import nearest_pictures
from trainer.evaluation.report import Evaluation
from trainer.evaluation.store import groups
from trainer.metrics.base import Metric
from trainer.runs.run_folder import RunFolder
from trainer.sampling.image_files import write

NEAREST = "nearest.png"


@dataclass(frozen=True)
class EvaluationPlan:
    """An evaluation, ready to be computed."""

    run: RunFolder | None
    facts: Mapping[str, object]
    metrics: tuple[Metric, ...]
    left_out: Mapping[str, str]
    label: str
    """Of the extractor, for the columns; empty: none is needed."""
    fake: ExtractionTask
    real: ExtractionTask
    held_out: ExtractionTask | None

    @property
    def count(self) -> int:
        """Painted pictures."""
        return self.fake.count

    @property
    def parts(self) -> int:
        """How many processes can share the largest of the extractions."""
        return len(groups(max(self.fake.count, self.real.count)))

    def extract(self, world: World) -> None:
        """Compute this process's part of all features; those of the data, which others wait for as well, first."""
        for task in (self.real, self.held_out, self.fake):
            if task:
                task.extract(world)

    @cached_property
    def sides(self) -> Sides:
        """All that is known of the pictures, once it is extracted."""
        held_out = self.held_out.gather() if self.held_out else None
        return Sides(self.fake.gather(), self.real.gather(), held_out)

    def measure(self) -> Evaluation:
        """Compute all figures.

        Raises:
            Refused: none could be computed.
        """
        figures, left_out = list[Figure](), dict(self.left_out)
        for metric in self.metrics:
            try:
                figures += self.sides.figures(metric, self.label)
            except ValueError as error:
                left_out[metric.name] = str(error)
        if not figures:
            raise Refused(none_left(left_out))
        return Evaluation(self.facts, tuple(figures), left_out)

    def show_nearest(self, folder: Path) -> Path:
        """Write painted pictures beside the nearest real ones into a folder.

        Raises:
            Refused: the folder cannot be written.
        """
        fake, real = self.sides.fake.features, self.sides.real.features
        assert fake is not None
        assert real is not None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"the folder {folder} cannot be made: {error.strerror}") from error
        write(folder / NEAREST, nearest_pictures(self.fake, self.real, fake, real))
        return folder / NEAREST

    def forget(self) -> None:
        """Remove the features of painted pictures: only those of data are wanted again."""
        if self.run:
            self.fake.store.remove()


def none_left(left_out: Mapping[str, str]) -> str:
    """Say why nothing can be measured."""
    return "; ".join(f"{name} cannot be measured: {why}" for name, why in left_out.items())
