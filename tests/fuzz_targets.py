"""What is fuzzed: each target reads a hostile input, and may refuse it with the errors that it documents."""

from __future__ import annotations

import copy
import hashlib
import html.parser
import io
import json
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from hypothesis import strategies as st

from shards.building.card_page import Code, Section, Table, Text, to_html, to_markdown
from shards.dataset import remote_table
from shards.dataset.cache_settings import CacheSettings
from shards.dataset.files import INDEX, TABLE
from shards.dataset.index import Index
from shards.dataset.stream import Reader
from shards.errors import DataError
from shards.exclusion import REASONS, Excluded
from shards.images.decode import decode_image
from shards.images.decoding import Decoding
from shards.images.npy import as_image
from shards.indexing.patterns import expand_braces, find_tars
from shards.indexing.tar_index import read_member
from shards.indexing.tar_samples import MAX_LABEL_BYTES, LabelMember, read_samples
from shards.inspect import Inspect, run_inspect
from shards.sources.label_file import open_file, open_member
from shards.sources.label_table import LabelTable
from shards.sources.source import open_source
from shards.sources.source_entry import encode_name
from shards.storage.errors import StorageError
from shards.storage.place import Url, parse_place
from shards.storage.storage import open_storage
from shards.verify import verify_folder
from tests import small_shards
from tests.fuzz_inputs import (
    HOSTILE_TEXTS,
    Strategy,
    changed_json,
    edit_bytes,
    edits,
    hostile_json,
    mutated,
    patterns,
    pictures,
    tables,
    tars,
    zips,
)

MAX_BYTES = 1 << 20
DECODING = Decoding((8, 8), "crop", (0, 0, 0), 3, 1 << 20, 1)
LABELS = LabelMember("json", "a"), LabelMember("cls"), None


class Target(NamedTuple):
    """What is fuzzed."""

    inputs: Strategy
    check: Callable[[Any], None]
    """Reads an input; an AssertionError, or any other error, is a failure."""


@contextmanager
def refusal() -> Iterator[None]:
    """Allow the errors that are documented, if their messages are what a person can read."""
    try:
        yield
    except Excluded as error:
        text = error.detail if error.reason in REASONS else ""
    except (DataError, StorageError) as error:
        text = str(error)
    else:
        return
    assert text, "a refusal without a message, or for an unknown reason"
    assert "\n" not in text, f"a message of several lines: {text!r}"


def check_picture(data: bytes) -> None:
    """Decode a picture."""
    with refusal():
        decode_image(as_image(data), DECODING)


def check_archive(path: Path, data: bytes) -> None:
    """Read all members of an archive, and a table of labels from inside it."""
    path.write_bytes(data)
    with refusal():
        source = open_source(path, follow_links=False)
        for entry in source.scan():
            parts = entry.name.split(b"/")
            assert entry.reason or not (b".." in parts or entry.name.startswith(b"/")), entry.name
            assert entry.reason is None or entry.reason in REASONS, entry.reason
            if entry.reason is None:
                with refusal():
                    assert len(source.read(entry.name, entry.place, MAX_BYTES)) <= MAX_BYTES
    with refusal(), open_member(path, "labels.csv", MAX_BYTES) as file:
        assert len(file.read()) <= MAX_BYTES


def check_tar(path: Path, data: bytes) -> None:
    """Read a tar as a source, and as one of WebDataset's."""
    check_archive(path, data)
    for labels in LABELS:
        with refusal(), path.open("rb") as file:
            for sample in read_samples(file, labels, None):
                with refusal():
                    as_image(read_member(file.fileno(), sample.picture, MAX_BYTES))
                if sample.label and labels:
                    with refusal():
                        content = read_member(file.fileno(), sample.label, MAX_LABEL_BYTES)
                        check_label(labels, content)


def check_label(labels: LabelMember, content: bytes) -> None:
    """Read a label, which must be storable."""
    try:
        label = labels.read(content)
    except ValueError:
        return
    if label is not None:
        encode_name(label)


def check_table(path: Path, example: tuple[bytes, tuple[str, ...], bool]) -> None:
    """Read a table of labels."""
    data, numbers, normalise = example
    path.write_bytes(data)
    with refusal():
        for row in LabelTable(path, partial(open_file, path), "file", ("label",), numbers, (), normalise).rows():
            assert isinstance(row.file, bytes)
            if row.extra:
                json.loads(row.extra)


class Tags(html.parser.HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append(f"{tag} {' '.join(name for name, _ in attributes)}")


def check_card(example: tuple[list[str], int]) -> None:
    """Hostile names must not change the structure of a card."""
    names, count = example

    def sections(texts: list[str]) -> list[Section]:
        rows = [(text, 3) for text in texts]
        tables = [Table(text, ["class", text], rows, bars=True) for text in texts]
        numbers = Table("counts", ["class", "pictures"], [("x", abs(count)), ("y", 0)], bars=True)
        return [Section("Labels", [Text(" ".join(texts)), *tables, Code("python"), numbers])]

    hostile, plain = sections(names), sections(["x"] * len(names))
    assert Tags(to_html("title", hostile)).found == Tags(to_html("title", plain)).found
    assert len(to_markdown("title", hostile).splitlines()) == len(to_markdown("title", plain).splitlines())
    to_html("title", hostile).encode()
    to_markdown("title", hostile).encode()


def check_place(folder: Path, text: str) -> None:
    """Parse a place, and find tars by a pattern below a folder."""
    with refusal():
        place = parse_place(text)
        assert str(place / "name")
        assert isinstance(place.parent, Path | Url)
        if isinstance(place, Url):
            assert place.root, place.key
    with refusal():
        expand_braces(text)
    with refusal():
        for name in find_tars([f"{folder}/{text.replace('..', '')}"]).names:
            assert not name.startswith("/")


@contextmanager
def silence() -> Iterator[None]:
    """Drop what is printed."""
    with (
        io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") as text,
        redirect_stdout(text),
        redirect_stderr(text),
    ):
        yield


class Dataset:
    """A small dataset whose index and table are exchanged.

    Args:
        folder: for it; the dataset is in a folder inside of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = small_shards.build(folder / "inside", "raw")
        self.table, content = (self.folder / TABLE).read_bytes(), json.loads((self.folder / INDEX).read_bytes())
        (folder / "secret").write_bytes(b"secret")
        placed = copy.deepcopy(content) | {"shards_at": "."}
        for name, split in placed["splits"].items():
            numbers = range(len(split["shards"]["samples"]))
            split["shards"]["names"] = [f"{name}-{number:06d}.tar" for number in numbers]
        self.contents = content, placed
        tables = st.one_of(st.just(self.table), st.builds(edit_bytes, st.just(self.table), st.just(zips()[0]), edits))
        contents = st.one_of(*map(changed_json, self.contents), *map(changed_json, self.contents), hostile_json)
        raw = mutated([json.dumps(one).encode() for one in self.contents])
        self.inputs = st.tuples(st.one_of(st.builds(rehashed, contents), raw), st.one_of(st.just(self.table), tables))

    def check(self, example: tuple[bytes, bytes]) -> None:
        """Open, read, verify and inspect a local dataset."""
        raw, table = example
        (self.folder / INDEX).write_bytes(raw)
        (self.folder / TABLE).unlink()  # what is mapped elsewhere stays as it is
        (self.folder / TABLE).write_bytes(table)
        with refusal():
            index = Index.open(self.folder)
            if math.prod(index.size) < 1 << 20:  # else the user's own size asks for the memory
                Reader(index, "train", lambda *_: None)(np.arange(min(3, index.splits["train"].samples)))
        with refusal(), silence():
            assert verify_folder(self.folder, raw, 1) in (0, 1)
        with silence():
            assert run_inspect(Inspect(self.folder, self.folder.parent / "grid.png", num=4)) in (0, 2)

    def check_remote(self, example: tuple[bytes, bytes]) -> None:
        """Open a dataset in a bucket whose objects are hostile."""
        url = Url("memory://fuzz/place")
        storage = open_storage(url)
        for name, content in zip((INDEX, TABLE), example, strict=True):
            storage.write(name, content)
        for copied in (0, 1 << 30):
            with refusal(), mock.patch.object(remote_table, "COPIED", copied):
                index = Index.open(url, CacheSettings(self.folder.parent / "cache", patience_s=0.0))
                if isinstance(index.table, np.ndarray):
                    assert len(index.table[:3]) <= 3


def rehashed(content: Any) -> bytes:
    """Return index.json with its own hash, as `write_index` does."""
    if not isinstance(content, dict) or not isinstance(content.get("index_sha256"), str):
        return json.dumps(content).encode()
    text = json.dumps(content | {"index_sha256": "0" * 64}).encode()
    return text.replace(b"0" * 64, hashlib.sha256(text).hexdigest().encode())


def targets(folder: Path, wanted: Collection[str]) -> dict[str, Target]:
    """Return targets, which write into a folder alone; those that need a dataset only if they are wanted."""
    inside = folder / "inside"
    inside.mkdir()
    hostile = [*HOSTILE_TEXTS, "```", "</td>", '" onload="x', "a|b", "\x1b[31m"]
    names = st.lists(st.one_of(st.text(max_size=12), st.sampled_from(hostile)), max_size=5)
    options = st.tuples(tables(), st.sampled_from([(), ("number",)]), st.booleans())
    found = {
        "decoder": Target(mutated(pictures()), check_picture),
        "tar": Target(tars(), partial(check_tar, inside / "x.tar")),
        "zip": Target(mutated(zips()), partial(check_archive, inside / "x.zip")),
        "labels": Target(options, partial(check_table, inside / "labels.csv")),
        "card": Target(st.tuples(names, st.integers(0, 10**40)), check_card),
        "place": Target(patterns, partial(check_place, inside / "source")),
    }
    if not found.keys() >= set(wanted):
        dataset = Dataset(folder)
        found["index"] = Target(dataset.inputs, dataset.check)
        found["remote"] = Target(dataset.inputs, dataset.check_remote)
    return found
