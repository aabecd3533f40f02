"""The table of a benchmark: the measured figures, and those of the literature."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.benchmark.protocol import Figures, Protocol
from trainer.benchmark.results import Result

HEADER = (
    "recipe",
    "steps",
    "trainings",
    "modes",
    "with all modes",
    "high quality, %",
    "worst, %",
    "reverse KL",
    "seconds of a core",
)
DIGITS = {"modes": 1, "high_quality": 2, "reverse_kl": 4, "cpu_s": 0}  # after the point


@dataclass(frozen=True)
class Estimate:
    """A mean over trials with its standard error; None: of one trial there is none."""

    mean: float
    error: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Estimate from independent trials."""
        # The standard error of the mean, which is what the literature reports.
        error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
        return cls(float(np.mean(values)), error)

    def text(self, digits: int) -> str:
        """Return it with so many digits after the point."""
        return f"{self.mean:.{digits}f}" + ("" if self.error is None else f" ± {self.error:.{digits}f}")


@dataclass(frozen=True)
class Summary:
    """The results of one recipe over its seeds."""

    seeds: int
    steps: int
    modes: Estimate
    complete: int
    """Trials that have all modes."""
    high_quality: Estimate | None
    """In percent."""
    worst: float | None
    """The high-quality share of the worst trial, in percent."""
    reverse_kl: Estimate
    cpu_s: Estimate

    @classmethod
    def of(cls, results: Sequence[Result], modes: int) -> Summary:
        """Summarize the trials of one recipe on a protocol with so many modes."""
        figures = [result.figures for result in results]
        shares = [100 * f.high_quality for f in figures if f.high_quality is not None]
        return cls(
            seeds=len(results),
            steps=results[0].steps,
            modes=Estimate.of([f.modes for f in figures]),
            # Beside the mean, because nine full trials and one collapsed one have the mean of ten mediocre ones.
            complete=sum(f.modes == modes for f in figures),
            high_quality=Estimate.of(shares) if shares else None,
            worst=min(shares) if shares else None,
            reverse_kl=Estimate.of([f.reverse_kl for f in figures]),
            cpu_s=Estimate.of([result.cpu_s for result in results]),
        )

    def cells(self) -> tuple[str, ...]:
        """Return its row of the table, without the name of the recipe."""
        written = {name: e.text(n) if (e := getattr(self, name)) else "" for name, n in DIGITS.items()}
        return (
            f"{self.steps:,}",
            str(self.seeds),
            written["modes"],
            f"{self.complete} of {self.seeds}",
            written["high_quality"],
            "" if self.worst is None else f"{self.worst:.2f}",
            written["reverse_kl"],
            written["cpu_s"],
        )


def results_table(protocol: Protocol, summaries: Mapping[str, Summary], data: Figures) -> str:
    """Return a Markdown table: the figures of the data itself, of the recipes, and of the literature."""
    own = "" if data.high_quality is None else f"{100 * data.high_quality:.2f}"
    lines = [HEADER, ("---",) * len(HEADER)]
    lines += [("the data itself", "", "", str(data.modes), "", own, "", f"{data.reverse_kl:.4f}", "")]
    lines += [(name, *summary.cells()) for name, summary in summaries.items()]
    for name, p in protocol.published.items():
        lines += [
            (f"{name}, published", f"{protocol.steps:,}", "10", p.modes, "", p.high_quality, "", p.reverse_kl, "")
        ]
    return "\n".join(map(as_line, lines)) + f"\n\nPublished: {protocol.source}. {protocol.note()}".rstrip() + "\n"


def as_line(cells: Iterable[str]) -> str:
    """Return one row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"
