"""What a run measures of itself while it trains."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.settings import operational


@dataclass(frozen=True)
class MetricsSettings:
    """Evaluations of checkpoints, beside the training, by a process of low priority."""

    every_images: int = operational(0, "[0, inf)")
    """Evaluate the first checkpoint after each so many pictures; 0: none."""
    names: str = operational("fid,kid,prdc")
    """The metrics, with commas between them; python -m trainer evaluate --help names them all."""
    num_samples: int = operational(5_000, "[2, inf)")
    """Compare so many pictures of each side, or as many as the data has."""
    extractor: str | None = operational(None)
    """What turns pictures into features; default: that of python -m trainer evaluate."""
    keep_best: str | None = operational("fid")
    """Keep the best checkpoint by this figure, such as fid or recall, and name it in best.json; None: none."""

    @property
    def chosen(self) -> tuple[str, ...]:
        """The names, one by one."""
        return tuple(name.strip() for name in self.names.split(","))

    def check(self) -> str | None:
        """Return what is wrong with these settings, or None."""
        if self.extractor is not None:
            from trainer.extractors import EXTRACTORS

            if self.extractor not in EXTRACTORS:
                return f"metrics.extractor: there is no {self.extractor!r}; there are {', '.join(EXTRACTORS)}"
        if not self.every_images and self.names == MetricsSettings.names:
            return None
        from trainer.metrics import METRICS  # it takes a second, which most runs need not spend

        if unknown := [name for name in self.chosen if name not in METRICS]:
            return f"metrics.names: there is no metric {unknown[0]!r}; there are {', '.join(METRICS)}"
        figures = [figure for name in self.chosen for figure in METRICS[name].better]
        if self.every_images and self.keep_best is not None and self.keep_best not in figures:
            return f"metrics.keep_best is {self.keep_best!r}, and metrics.names give {', '.join(figures)}"
        return None
