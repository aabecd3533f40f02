"""The report of `make gpu`, in Markdown and JSON, and what it takes from the output of the parts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

USAGE = ("utilisation_percent", "memory_mib", "power_w", "temperature_c")


@dataclass(frozen=True)
class Result:
    """What became of a part."""

    name: str
    command: str
    limit_s: int
    outcome: str
    """passed, failed or late."""
    exit_code: int
    """Negative: the signal that ended it."""
    seconds: float
    usage: dict[str, tuple[float, float]]
    """Of the GPU meanwhile: mean and most of utilisation_percent, memory_mib, power_w and temperature_c."""
    last_lines: list[str]
    tables: list[list[dict[str, str]]]


@dataclass
class Report:
    """What report.md and report.json say."""

    commit: str
    device: dict[str, Any] = field(default_factory=dict)
    parts: list[Result] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write both files."""
        (folder / "report.json").write_text(json.dumps(asdict(self), indent=1) + "\n")
        (folder / "report.md").write_text(self.markdown())

    def markdown(self) -> str:
        """Return the report for people."""
        facts = [f"- {name}: {value}" for name, value in {"commit": self.commit, **self.device}.items()]
        head = "| part | outcome | s | limit, s | GPU busy, % | memory, MiB | power, W | °C |\n" + "|---" * 8 + "|"
        rows = [
            f"| {part.name} | {part.outcome} | {part.seconds:.0f} | {part.limit_s} | "
            + " | ".join(f"{part.usage[n][0]:.0f}, at most {part.usage[n][1]:.0f}" if part.usage else "" for n in USAGE)
            + " |"
            for part in self.parts
        ]
        sections = [line for part in self.parts for line in ("", *section(part))]
        return "\n".join(["# On a GPU", "", *facts, "", head, *rows, *sections]) + "\n"


def section(part: Result) -> Iterator[str]:
    """Yield the lines on one part."""
    yield f"## {part.name}: {part.outcome}"
    yield f"\n`{part.command}`\n"
    for rows in part.tables:
        yield "| " + " | ".join(rows[0]) + " |\n" + "|---" * len(rows[0]) + "|"
        yield from ("| " + " | ".join(row.values()) + " |" for row in rows)
        yield ""
    yield from ("```", *part.last_lines, "```")


def read_tables(lines: Sequence[str]) -> list[list[dict[str, str]]]:
    """Return the rows of the Markdown tables in an output, by their heads."""
    tables: list[list[dict[str, str]]] = []
    head: list[str] = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            head = []
        elif not head:
            head = cells
        elif set(line) <= set("|-"):
            tables.append([])
        else:
            tables[-1].append(dict(zip(head, cells, strict=False)))
    return [rows for rows in tables if rows]


def read_usage(text: str) -> dict[str, tuple[float, float]]:
    """Return mean and most of each column; a line that has not a number in each is left out."""
    rows = []
    for line in text.splitlines():
        with suppress(ValueError):
            rows.append([float(cell) for cell in line.split(",")])
    columns = zip(*[row for row in rows if len(row) == len(USAGE)], strict=True)
    return {name: (sum(of) / len(of), max(of)) for name, of in zip(USAGE, columns, strict=False)}
