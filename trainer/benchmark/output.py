"""Write the results of a benchmark: a summary for programs, tables and pictures for people."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path

from PIL import Image

from shards.atomic_files import write_atomically
from trainer.benchmark import results
from trainer.benchmark.recipes import PROTOCOLS, RECIPES
from trainer.benchmark.report import Summary, results_table
from trainer.benchmark.results import Result, Trial
from trainer.benchmark.run_trials import kept_result
from trainer.core.fields import Refused
from trainer.core.randomness import philox

BEGIN, END = "<!-- benchmark -->", "<!-- /benchmark -->"


@dataclass(frozen=True)
class Document:
    """A Markdown file, split at the place of the tables."""

    path: Path
    before: str
    after: str

    @classmethod
    def open(cls, path: Path) -> Document:
        """Read a file, and find the place.

        Raises:
            Refused: the file cannot be read, or has not exactly one such place.
        """
        try:
            text = path.read_text()
        except (OSError, ValueError) as error:
            raise Refused(f"--markdown: {path} cannot be read: {error}") from error
        before, begin, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end or BEGIN in rest:
            raise Refused(f"--markdown: {path} must hold one line {BEGIN} and one line {END} after it")
        return cls(path, f"{before}{begin}\n\n", f"\n{end}{after}")

    @property
    def pictures(self) -> Path:
        """The folder of its pictures."""
        return self.path.with_suffix("")


def write_output(trials: Sequence[Trial], out: Path, document: Document | None) -> str:
    """Write summary.json and one picture a recipe under `out`, and both tables and pictures into the document.

    Returns: the tables.
    """
    summaries: dict[str, dict[str, Summary]] = {}
    pictures: dict[str, bytes] = {}
    for protocol, recipe in dict.fromkeys((trial.protocol, trial.recipe) for trial in trials):
        # The picture is of the first seed, not of the best one.
        first = next(trial for trial in trials if (trial.protocol, trial.recipe) == (protocol, recipe))
        summaries.setdefault(protocol, {})[recipe] = Summary.of([*all_results(first, out)], PROTOCOLS[protocol].modes)
        shown = PROTOCOLS[protocol].draw_samples(results.read_samples(first, out), recipe)
        pictures[f"{protocol}-{recipe}.png"] = as_png(shown)
    values = {name: {recipe: asdict(one) for recipe, one in rows.items()} for name, rows in summaries.items()}
    write_atomically(out / "summary.json", (json.dumps(values, indent=2) + "\n").encode())
    write_pictures(out, pictures)
    # The document links to copies of its own, so that it can be moved without `out`.
    text = "\n".join(protocol_section(name, rows) for name, rows in summaries.items())
    if document:
        write_pictures(document.pictures, pictures)
        shown_there = "\n".join(f"![{name}]({document.pictures.name}/{name})" for name in pictures)
        write_atomically(document.path, f"{document.before}{text}\n{shown_there}\n{document.after}".encode())
    return text


def all_results(first: Trial, out: Path) -> Iterator[Result]:
    """Yield the results of all seeds from the first one on, also of an earlier command with more seeds."""
    seeds = count(first.seed)  # up to the first seed without a result
    while result := kept_result(replace(first, seed=next(seeds)), out):
        yield result


def protocol_section(name: str, summaries: dict[str, Summary]) -> str:
    """Return the section of a protocol: its table, and a list of the recipes."""
    protocol = PROTOCOLS[name]
    data = protocol.count_modes(protocol.draw(philox("benchmark", "the data itself"), protocol.samples).numpy())
    tried = {recipe: RECIPES[name][recipe] for recipe in summaries}
    recipes = "\n".join(f"- **{recipe}** ({one.paper}): {one.expect}." for recipe, one in tried.items())
    return f"### {name}\n\n{results_table(protocol, summaries, data)}\n{recipes}\n"


def as_png(picture: Image.Image) -> bytes:
    """Encode a picture as PNG."""
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()


def write_pictures(folder: Path, pictures: dict[str, bytes]) -> None:
    """Write each picture under its name into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in pictures.items():
        write_atomically(folder / name, content)
