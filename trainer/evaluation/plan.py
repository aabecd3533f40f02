"""The plan of an evaluation: decided and checked before anything is computed, then carried out step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trainer.core.fields import Refused
from trainer.distributed.world import World
from trainer.evaluation.extraction import ExtractionTask
from trainer.evaluation.figures import Comparison, Figure
from trainer.evaluation.nearest_images import nearest_images_png
from trainer.evaluation.report import Evaluation
from trainer.evaluation.store import split_groups
from trainer.metrics.base import Metric
from trainer.runs.run_folder import RunFolder
from trainer.sampling.image_files import write_file

NEAREST = "nearest.png"


@dataclass(frozen=True)
class EvaluationPlan:
    """An evaluation that is ready to be computed."""

    run: RunFolder | None
    facts: Mapping[str, object]
    metrics: tuple[Metric, ...]
    left_out: Mapping[str, str]
    label: str
    """Of the extractor, for the names of columns; empty: no extractor is needed."""
    fake: ExtractionTask
    real: ExtractionTask
    held_out: ExtractionTask | None

    @property
    def count(self) -> int:
        """How many fakes are measured."""
        return self.fake.count

    @property
    def parts(self) -> int:
        """How many processes can share the largest of the extractions."""
        return len(split_groups(max(self.fake.count, self.real.count)))

    def extract(self, world: World) -> None:
        """Compute this rank's part of all features; those of the data first, which other evaluations use as well."""
        for task in (self.real, self.held_out, self.fake):
            if task:
                task.extract(world)

    @cached_property
    def sides(self) -> Comparison:
        """The extracted samples; `extract` must have run."""
        held_out = self.held_out.gather() if self.held_out else None
        return Comparison(self.fake.gather(), self.real.gather(), held_out)

    def measure(self) -> Evaluation:
        """Compute all figures. A metric that fails is listed in `left_out` with the reason.

        Raises:
            Refused: none could be computed.
        """
        figures, left_out = list[Figure](), dict(self.left_out)
        for metric in self.metrics:
            try:
                figures += self.sides.figures(metric, self.label)
            except ValueError as error:  # such as too few images: the other figures are still worth having
                left_out[metric.name] = str(error)
        if not figures:
            raise Refused(explain_no_metrics(left_out))
        return Evaluation(self.facts, tuple(figures), left_out)

    def write_nearest(self, folder: Path) -> Path:
        """Write generated images beside the nearest real ones, and return the file.

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
        write_file(folder / NEAREST, nearest_images_png(self.fake, self.real, fake, real))
        return folder / NEAREST

    def remove_generated_features(self) -> None:
        """Remove the features of generated images: only those of the data are used again."""
        if self.fake.source.count is None:
            self.fake.store.remove()


def explain_no_metrics(left_out: Mapping[str, str]) -> str:
    """Return why nothing can be measured."""
    return "; ".join(f"{name} cannot be measured: {why}" for name, why in left_out.items())
