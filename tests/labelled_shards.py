"""Shards with several labels for each picture: three columns of classes and a number, empty here and there."""

from __future__ import annotations

import csv
import math
import zipfile
from pathlib import Path

from tests.conftest import HOME, run

SOURCE = HOME / "examples" / "clipart.zip"
COLUMNS = ("--label-column", "style", "genre", "artist", "--number-column", "year")


def labels_of(name: str, number: int) -> dict[str, str]:
    """Return what the table says of a picture, of which some is not known."""
    folder, _, file = name.partition("/")
    return {
        "file": name,
        "style": "" if number % 11 == 0 else folder,
        "genre": ("early", "middle", "late")[(ord(file[0].lower()) - ord("a")) * 3 // 26 % 3],
        "artist": "" if number % 5 == 0 else f"artist {len(file) % 4}",
        "year": "" if number % 7 == 0 else str(1500 + 3 * number),
    }


def build_labelled(folder: Path, *options: str) -> Path:
    """Build shards of 32 px of the bundled pictures; return their folder."""
    with zipfile.ZipFile(SOURCE) as archive:
        names = sorted(one for one in archive.namelist() if one.endswith(".png"))
    rows = [labels_of(name, number) for number, name in enumerate(names)]
    table, out = folder / "labels.csv", folder / "labelled"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    built = ("--out", str(out), "--size", "32", "--shard-samples", "100", "--labels", str(table), *COLUMNS)
    done = run("shards", "build", str(SOURCE), *built, *options)
    assert done.returncode == 0, done.stderr
    return out


def table_rows(folder: Path) -> dict[str, dict[str, str]]:
    """Return the rows of the table, by the name of the picture."""
    with (folder / "labels.csv").open(newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def number(text: str) -> float:
    """Return the number in a cell, NaN if it is empty."""
    return float(text) if text else math.nan
