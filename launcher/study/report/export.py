"""A study for programs and terminals: its conclusions as JSON, its runs as CSV, and a summary to read."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from launcher.pages.numbers import format_hours
from launcher.study.analysis.comparison import Comparison
from launcher.study.analysis.results import Study
from launcher.study.report import words
from shards.atomic_files import write_atomically
from trainer.core.migration import with_schema

COLUMNS = ("arm", "recipe", "settings", "seed", "role", "status", "reason", "images_seen", "seconds", "node_seconds")
LAST = ("flops", "restarts", "preemptions", "run")
RISKY = ("=", "+", "-", "@")  # a spreadsheet would run what begins so


def write_conclusions(study: Study, found: Comparison, path: Path) -> None:
    """Write what `compare` concludes, with the sentences, as JSON.

    Raises:
        OSError: it cannot be written.
    """
    said = {"headline": words.headline(study, found), "findings": [*words.findings(study, found)]}
    content = {"study": study.name, "metric": study.metric, "better": study.better, **said, **asdict(found)}
    write_atomically(
        path, json.dumps(with_schema(content), indent=1, allow_nan=False, ensure_ascii=False).encode() + b"\n"
    )


def write_csv(study: Study, path: Path) -> None:
    """Write one line a run: what it is, what it used, and each figure with its limits. What is not known is empty.

    Raises:
        OSError: it cannot be written.
    """
    arms = {arm.name: arm for arm in study.arms}
    names = sorted({name for entry in study.entries for name in entry.figures} - {study.metric})
    figures = [f"{name}{end}" for name in (study.metric, *names) for end in ("", " low", " high")]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*COLUMNS, *LAST, *figures])
    for entry in study.entries:
        arm = arms[entry.arm]
        settings = " ".join(f"{name.lstrip('-')}={value}" for name, value in arm.settings.items())
        known = {**asdict(entry), "recipe": arm.recipe, "settings": settings}
        scores = [entry.score, *(entry.figures.get(name) for name in names)]
        numbers = [x for score in scores for x in ((score.value, score.low, score.high) if score else ("", "", ""))]
        rows.writerow([escape_formula(known[name]) for name in (*COLUMNS, *LAST)] + numbers)
    write_atomically(path, text.getvalue().encode())


def escape_formula(value: object) -> object:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(RISKY) else value


def terminal_view(study: Study, found: Comparison) -> RenderableType:
    """Return what a terminal shows: the answer, the arms, and what else must be known."""
    table = Table(box=None, pad_edge=False)
    for name in (
        "arm",
        "group",
        f"{study.metric}, {study.better} is better",
        "seeds",
        "failed",
        "images/s",
        "node time",
    ):
        table.add_column(name, overflow="fold")
    for arm in found.arms:
        mean = words.format_estimate(arm.mean) if arm.rung is None else f"left behind at rung {arm.rung}"
        counts = str(len(arm.seeds)), f"{arm.failed} of {arm.ended}"
        row = (arm.arm, arm.letters or "–", mean, *counts, words.format_speed(arm), format_hours(arm.node_hours))
        table.add_row(*map(Text, row))
    answer = Text(words.headline(study, found), style="bold")
    return Group(answer, Text(), table, Text(), *(Text(f"• {finding}") for finding in words.findings(study, found)))
