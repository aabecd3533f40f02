"""The worked example of docs/data.md, painter by numbers, on a small imitation of what the competition gives."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest

from shards.__main__ import main
from shards.dataset.index import Index
from tests.conftest import HOME
from tests.made_competition import PAINTED
from tests.made_sources import excluded, facts


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
