"""A small imitation of what the competition painter by numbers gives."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import pytest

from tests.made_sources import jpeg

HEADER = ["artist", "date", "genre", "pixelsx", "pixelsy", "size_bytes", "source", "style", "title", "artist_group",
          "in_train", "new_filename"]  # fmt: skip
PAINTED = [("Barnett Newman", "1955.0", "abstract painting", "Color Field Painting"),
           ("Édouard Manet", "c.1870", "genre painting", "Impressionism"),
           ("Hiroshige", "", "landscape", "Ukiyo-e"),
           ("unknown", "", "portrait", "")]  # fmt: skip


@pytest.fixture
def competition(tmp_path: Path) -> Path:
    """Return a folder with train.zip and all_data_info.csv, whose rows are of both zips."""
    with (tmp_path / "all_data_info.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for i in range(60):
            artist, date, genre, style = PAINTED[i % 4]
            name = f"{i + 1}.jpg"
            train = i < 40
            title = f'Uranus, "{i}"'
            writer.writerow([artist, date, genre, 60, 40, 999, "wikiart", style, title, "train_and_test", train, name])
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.mkdir("train")
        for i in range(40):
            data = jpeg(i if i != 7 else 3)  # one picture is there twice
            archive.writestr(f"train/{i + 1}.jpg", data if i != 20 else data[:200])
    return tmp_path
