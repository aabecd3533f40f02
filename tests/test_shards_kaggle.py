"""The worked example of docs/data.md, painter by numbers, on a small imitation of what the competition gives."""

from __future__ import annotations

import csv
import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest

from shards.__main__ import main
from shards.dataset.index import Index
from tests.conftest import HOME
from tests.made_sources import excluded, facts, jpeg

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


def documented() -> list[str]:
    """Return the words of the command in docs/data.md."""
    text = (HOME / "docs" / "data.md").read_text().partition("#### Painter by numbers")[2]
    return shlex.split(text.partition("python -m shards ")[2].partition("\n\n")[0].replace("\\\n", " "))


def test_painter_by_numbers(competition: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(competition)
    assert main([*documented(), "--workers", "1"]) == 0
    index = Index.open(Path("pbn"))
    assert index.classes == ("Color Field Painting", "Impressionism", "Ukiyo-e")
    assert excluded(index.folder) == {"train/21.jpg": "truncated", "train/8.jpg": "duplicate"}
    assert index.content["labels"] == {
        "rows_with_picture": 40,
        "rows_without_picture": 20,
        "pictures_without_row": 0,
    }
    genre, artist = index.content["attributes"]["columns"]
    assert genre["classes"] == sorted({genre for _, _, genre, _ in PAINTED})
    assert artist["classes"] == sorted({artist for artist, *_ in PAINTED})
    stored = np.load(index.folder / "labels.npy")
    told = [picture for split in ("train", "holdout") for picture in facts(index, split)]
    assert len(told) == 38
    for row, label, picture in zip(stored, index.table["label"], told, strict=True):
        number = int(picture["file"].removeprefix("train/").removesuffix(".jpg")) - 1
        painter, _, kind, style = PAINTED[number % 4]
        assert (artist["classes"][row["artist"]], genre["classes"][row["genre"]]) == (painter, kind)
        assert (index.classes[label] if label >= 0 else "") == style


def test_one_genre(competition: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(competition)
    text = (HOME / "docs" / "data.md").read_text()
    assert "`--filter genre=portrait`" in text
    assert main([*documented(), "--workers", "1", "--filter", "genre=landscape", "--holdout", "0"]) == 0
    assert {picture["labels"]["artist"] for picture in facts(Index.open(Path("pbn")))} == {"Hiroshige"}
