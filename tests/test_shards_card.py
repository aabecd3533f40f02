"""The card of a dataset: true, the same bytes each time, safe with hostile names, and enough to build it again."""

from __future__ import annotations

import html.parser
import json
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main
from shards.building.card_pictures import mean_picture, spread
from shards.dataset.index import Index
from tests.made_sources import build, digests, jpeg, samples

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves its shards open

HOSTILE = """<script>alert('x')</script> & "quoted" `code` | [a](javascript:b) 'ä.jpg"""


class Outline(html.parser.HTMLParser):
    """The tags of a page, its attributes and its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.cells: list[str] = []
        self.opened: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "img"):
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        self.cells.append(data)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("card")
    source = folder / "my secret source"
    names = ["Rococo"] * 12 + ["rococo "] * 4 + ["<b>Op & Art</b>"] * 4
    rows = ["file;style;genre;year"]
    source.mkdir()
    for i, name in enumerate(names):
        (source / f"{i:02d}.jpg").write_bytes(jpeg(i))
        rows.append(f"{i:02d}.jpg;{name};genre {i % 3};{1700 + i}")
    (source / HOSTILE.replace("/", "⁄")).write_bytes(jpeg(99))
    (source / "copy.jpg").write_bytes(jpeg(3))
    (source / (HOSTILE.replace("/", "⁄") + ".txt")).write_text("no picture")
    (folder / "labels.csv").write_text("\n".join(rows))
    options = ("--label-column", "style", "genre", "--number-column", "year", "--deduplicate", "exact", "--seed", "3")
    return build(source, folder / "out", "--labels", folder / "labels.csv", *options, "--holdout", "0.1")


def test_the_cards_are_known_and_tell_nothing_of_the_machine(index: Index) -> None:
    assert main(["verify", str(index.folder)]) == 0
    for name in "card.md", "card.html":
        text = (index.folder / name).read_text()
        assert "secret" not in text
        assert str(index.folder) not in text
        (damaged := bytearray(text.encode()))[-2] ^= 1
        (index.folder / name).write_bytes(damaged)
        assert main(["verify", str(index.folder)]) == 1
        (index.folder / name).write_text(text)
    assert main(["verify", str(index.folder)]) == 0


def test_hostile_names_are_text(index: Index) -> None:
    page = Outline((index.folder / "card.html").read_text())
    assert page.opened == []
    assert not {"script", "b", "a", "link", "iframe"} & set(page.tags)
    assert {name for name, _ in page.attributes} <= {
        "lang", "charset", "name", "content", "class", "src", "alt", "tabindex", "role", "aria-label", "scope",
        "aria-hidden",
    }  # fmt: skip
    assert all(value.startswith("data:image/png;base64,") for name, value in page.attributes if name == "src")
    assert "<b>Op & Art</b>" in page.cells
    told = [value for name, value in page.attributes if name == "alt"]
    assert HOSTILE.replace("/", "⁄") in told
    text = (index.folder / "card.md").read_text()
    assert "\\<b\\>Op \\& Art" in text
    assert not re.search(r"(?<!\\\\)<(script|b)>", text)


def test_the_numbers_are_those_of_the_data(index: Index) -> None:
    text, content = (index.folder / "card.md").read_text(), index.content
    train, holdout = content["splits"]["train"], content["splits"]["holdout"]
    for name, split in ("train", train), ("holdout", holdout):
        assert (
            f"| {name} | {split['samples']:,} | {len(split['shards']['bytes'])} | {sum(split['shards']['bytes']):,} |"
            in text
        )
    counts = np.array(content["class_counts"]) / sum(content["class_counts"])
    effective = math.exp(-(counts * np.log(counts)).sum())
    assert f"is {effective:.1f}." in text
    assert "style: 3 classes, 1 pictures of none. The largest has 12 pictures, the smallest 4." in text
    assert "Names that people take for one: 'Rococo', 'rococo '." in text
    assert "genre: 3 classes" in text
    assert "year: a number for each picture, in labels.npy." in text
    assert "Left out: 1 equal ones, and nearly equal ones: 0." in text
    assert "| not\\_an\\_image |" in text
    assert content["table_sha256"] in text
    assert content["attributes"]["sha256"] in text


def test_the_mean_is_that_of_the_stored_pictures(index: Index) -> None:
    stored = [sample["npy"] for sample in samples(index, "train")]
    mean = mean_picture(iter([(str(i), pixels) for i, pixels in enumerate(stored)]))
    assert np.array_equal(mean, np.floor(np.stack(stored).mean(0) + 0.5))
    assert spread(3, 24).tolist() == [0, 1, 2]
    assert spread(48, 24).tolist() == list(range(0, 48, 2))
    page = (index.folder / "card.html").read_text()
    assert page.count("data:image/png") == 1 + min(24, len(stored))


def test_the_command_on_it_builds_the_same_bytes(index: Index, tmp_path: Path) -> None:
    text = (index.folder / "card.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("python -m shards build"))
    folder = index.folder.parent
    paths = {"SRC": folder / "my secret source", "DIR": tmp_path / "again", "TABLE": folder / "labels.csv"}
    words = [str(paths.get(word, word)) for word in shlex.split(line)[3:]]
    assert main(words) == 0
    assert digests(tmp_path / "again") == digests(index.folder)


def test_large_pictures_and_none_left_out(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(3):
        (source / f"{i}.jpg").write_bytes(jpeg(i, (300, 200)))
    index = build(source, tmp_path / "out", "--size", "200", "--holdout", "0", "--encode", "webp")
    text = (index.folder / "card.md").read_text()
    assert "## Left out\n\nNothing." in text
    assert "## Labels\n\nNone." in text
    assert json.loads((index.folder / "index.json").read_text())["cards"].keys() == {"card.md", "card.html"}
    assert (index.folder / "card.html").stat().st_size < 300_000
    assert Image.open(source / "0.jpg").size == (300, 200)
