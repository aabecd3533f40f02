"""Data by strangers: what fuzzing has found (tests/fuzz.py), so that it stays mended."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import time
import tracemalloc
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards.building.card_page import Section, Table, to_html, to_markdown
from shards.dataset.files import INDEX, TABLE
from shards.dataset.index import DataError, Index
from shards.dataset.stream import Reader
from shards.dataset.table import ROW
from shards.exclusion import Excluded
from shards.images.npy import as_image
from shards.indexing.patterns import MOST_TARS, expand_braces, find_tars
from shards.indexing.tar_samples import LabelMember, read_samples
from shards.inspect import Inspect, draw_grid, run_inspect
from shards.sources.label_file import find_label_file, open_file
from shards.sources.label_table import LabelTable
from shards.sources.tar_source import TarSource
from shards.sources.zip_source import ZipSource
from shards.storage.place import parse_place
from shards.verify import verify_folder
from tests import small_shards
from tests.fuzz_inputs import npy_header, tar_member
from tests.test_shards_decode import reason

PICTURE = tar_member(b"a.jpg", b"picture", b"0", None, 1)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_shards.build(tmp_path_factory.mktemp("hostile"), "raw")


@pytest.fixture
def data(built: Path, tmp_path: Path) -> Path:
    """A dataset whose index and table may be changed; its shards are those of all tests here."""
    for file in built.iterdir():
        (tmp_path / file.name).hardlink_to(file)
    for name in (INDEX, TABLE):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        (tmp_path / name).write_bytes(content)
    return tmp_path


def change(data: Path, *path: str, value: object) -> None:
    """Set a value in index.json."""
    content = json.loads((data / INDEX).read_text())
    place: Any = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (data / INDEX).write_text(json.dumps(content))


def refused(data: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line with which all three commands refuse a dataset."""
    with pytest.raises(DataError) as caught:
        Index.open(data)
    message = str(caught.value)
    assert "\n" not in message
    assert run_inspect(Inspect(data)) == 2
    assert verify_folder(data, (data / INDEX).read_bytes(), 1) == 1
    out, err = capsys.readouterr()
    assert message in out
    assert message in err
    return message


@pytest.mark.parametrize("name", ["../secret.tar", "/etc/passwd", "a/../../secret.tar"])
def test_names_of_shards_stay_in_their_folder(data: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shards = json.loads((data / INDEX).read_text())["splits"]["train"]["shards"]["samples"]
    names = [f"train-{number:06d}.tar" for number in range(len(shards))]
    change(data, "splits", "train", "shards", "names", value=names)
    Index.open(data)  # and a name with dots in it is a name
    change(data, "splits", "train", "shards", "names", value=["a..b/c.tar", *names[1:]])
    Index.open(data)
    change(data, "splits", "train", "shards", "names", value=[*names[:-1], name])
    assert f"names {name!r} as a shard, which is outside of the folder" in refused(data, capsys)


@pytest.mark.parametrize("place", ["..", "a/../..", "a\0b", 3])
def test_shards_lie_below_or_at_an_absolute_place(data: Path, place: object) -> None:
    for right in (".", "below", "/elsewhere", "memory://bucket/folder"):
        change(data, "shards_at", value=right)
        assert str(Index.open(data).shards_at).endswith(right.removeprefix("."))
    change(data, "shards_at", value=place)
    with pytest.raises(DataError, match=r"shards are at|is damaged"):
        _ = Index.open(data).shards_at
    assert verify_folder(data, (data / INDEX).read_bytes(), 1) == 1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("splits", "train", "samples"), 10**30),
        (("splits", "train", "samples"), 41.0),
        (("splits", "../train"), {"samples": 0, "shards": {"samples": [], "bytes": [], "sha256": []}}),
        (("splits", "train", "shards", "bytes"), ["10240"]),
        (("splits", "train", "shards", "sha256"), ["../../secret"]),
        (("table_sha256",), "../../secret"),
        (("cards",), {"../../secret": "0" * 64}),
        (("settings", "height"), 10**9),
        (("settings", "channels"), True),
        (("classes",), [1]),
    ],
)
def test_an_index_of_other_kinds_of_values_is_damaged(
    data: Path, path: tuple[str, ...], value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    change(data, *path, value=value)
    assert "index.json is damaged: build the shards again" in refused(data, capsys)


def test_an_index_that_is_nested_deeply(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / INDEX).write_text("[" * 100_000)
    assert "is damaged" in refused(data, capsys)


@pytest.mark.parametrize("content", [b"PK\5\6" + bytes(18), b"\x93NUMPY\1\0\x76\0{", b"\x93NUMPY\3\0"])
def test_a_table_that_is_something_else(data: Path, content: bytes) -> None:
    (data / TABLE).write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        Index.open(data)


def test_a_row_that_leads_out_of_its_shard(data: Path) -> None:
    table = np.load(data / TABLE)
    said: list[str] = []
    for offset, size in ((2**64 - 1, 100), (0, 2**32 - 1)):
        table[0]["offset"], table[0]["size"] = offset, size
        np.save(data / TABLE, table)
        read = Reader(Index.open(data), "train", lambda _, what: said.append(what))
        assert read(np.array([0])).used.tolist() == [1]
        assert "its row of the table leads behind the end of its shard" in said[-1]


def test_an_array_asks_for_no_more_memory_than_it_has() -> None:
    for shape in ("(99999, 99999)", "(-1, 3)", "(((((", "(2, 0)"):
        tracemalloc.start()
        with pytest.raises(Excluded):
            as_image(b"\x93NUMPY\1\0\x76\0" + npy_header(shape))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


def test_a_file_of_few_bytes_is_no_image() -> None:
    assert {reason(bytes([byte]) * length) for byte in (0xFE, 0x42) for length in (1, 2, 3)} <= {
        "not_an_image",
        "damaged",
        "truncated",
    }


def read_first(source: TarSource | ZipSource, max_bytes: int = 1 << 20) -> bytes:
    """Return the content of the first member."""
    entry = next(iter([*source.scan()]))
    with source.open_archive():
        return source.read(entry.name, entry.place, max_bytes)


def test_the_detail_of_an_exclusion_is_one_line() -> None:
    assert Excluded("damaged", "first\nsecond\n").detail == "first second"
    assert Excluded("damaged", "two  blanks").detail == "two  blanks"


def scan_tar(path: Path, content: bytes) -> str:
    """Return why a tar is refused, as a source, as what is indexed, and where a table of labels is looked for."""
    path.write_bytes(content)
    with path.open("rb") as file, pytest.raises(Excluded):
        list(read_samples(file, None, None))
    with pytest.raises(DataError, match="cannot be read"), find_label_file("x.csv", path, 1 << 20)[1]():
        pass
    with pytest.raises(DataError) as caught:
        list(TarSource(path).scan())
    return str(caught.value)


def test_headers_of_tars_that_lead_nowhere(tmp_path: Path) -> None:
    path, started = tmp_path / "x.tar", time.monotonic()
    huge = tar_member(b"", b"", b"x", b"\x80" + (1 << 40).to_bytes(11, "big"), 1)
    assert "extended header of 1099511627776 bytes" in scan_tar(path, PICTURE + huge)
    assert "recursion" in scan_tar(path, tar_member(b"", b"long", b"L", None, 2000) + PICTURE)
    assert "negative size" in scan_tar(path, PICTURE + tar_member(b"b", b"", b"0", b"\xff" * 11 + b"\0", 1))
    path.write_bytes(PICTURE + tar_member(b"", b"0 a=b\n", b"x", None, 1) + PICTURE)
    with pytest.raises(DataError, match="belongs to no member"):
        list(TarSource(path).scan())  # it went on for ever
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_zip_unpacks_no_more_than_it_states(tmp_path: Path, method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("a.png", bytes(64 << 20))
    data = bytearray(buffer.getvalue())
    struct.pack_into("<I", data, data.index(b"PK\1\2") + 24, 1000)
    (tmp_path / "x.zip").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(Excluded, match="CRC"):
        read_first(ZipSource(tmp_path / "x.zip"))
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_offsets_of_a_zip_that_no_file_has(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("a.png")
        archive.writestr(info, b"x" * 99)
        archive.filelist[0].header_offset = 2**64 - 1
    (tmp_path / "x.zip").write_bytes(bytes(4) + buffer.getvalue()[4:])
    with pytest.raises(Excluded, match="zip member"):
        read_first(ZipSource(tmp_path / "x.zip"))  # it looked at each of 2**64 places


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_damage_inside_of_packed_members(tmp_path: Path, method: int) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.png", bytes(range(256)) * 4)
    data = bytearray(path.read_bytes())
    data[44:80] = b"\xff" * 36
    path.write_bytes(data)
    with pytest.raises(Excluded, match="zip member"):
        read_first(ZipSource(path))
    with pytest.raises(DataError, match="the labels, cannot be read"), find_label_file("a.png", path, 1 << 20)[1]():
        pass


def test_the_dictionary_of_lzma_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.png", b"content")
    data = bytearray(path.read_bytes())
    place = 30 + len("a.png") + 5
    assert read_first(ZipSource(path)) == b"content"
    data[place : place + 4] = b"\xff" * 4
    path.write_bytes(data)
    with pytest.raises(Excluded, match="a dictionary of 4294967295 bytes"):
        read_first(ZipSource(path))


@pytest.mark.parametrize(
    ("labels", "said"),
    [('[["\\ud800", 1]]', "half a character"), ('[["a", "\\udfff"]]', "half a character"),
     (f'[["a", [1, {"9" * 400}]]]', "neither a class")],
)  # fmt: skip
def test_labels_that_are_no_text_and_no_number(tmp_path: Path, labels: str, said: str) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(f'{{"labels": {labels}}}')
    with pytest.raises(DataError, match=said):
        list(LabelTable(path, partial(open_file, path), "file", ("label",)).rows())


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a": "\\ud800"}'])
def test_labels_of_tars_that_are_no_text(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"nested|surrogates"):
        LabelMember("json", "a").read(data)


def test_braces_and_places(tmp_path: Path) -> None:
    assert len(expand_braces("{a{0..9},b{00..19},c}-{x,y}")) == 62
    assert len(expand_braces(f"{{1..{MOST_TARS}}}")) == MOST_TARS
    for pattern in (
        "{0..999999999999}",
        "{1..1001}{1..1001}",
        "{{1..2000000},a}",
        "{0..9" + "9" * 30 + "}",
        "{" * 5000,
    ):
        with pytest.raises(DataError):
            expand_braces(pattern)
    (tmp_path / "7.tar").touch()
    with pytest.raises(DataError, match="name fewer, or use a wildcard"):
        find_tars([f"{tmp_path}/{{0..{MOST_TARS}}}.tar"])
    assert find_tars([f"{tmp_path}/*.tar"]).names == ("7.tar",)
    for text in ("s3://[bucket", "a\0b", "file:///a%00b"):
        with pytest.raises(DataError):
            parse_place(text)
    with pytest.raises(DataError, match="names no tar"):
        find_tars([f"{tmp_path}/{'a' * 300}"])


def test_a_grid_that_does_not_fit_into_memory(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def draw(index: Index, num: int, seed: int) -> Image.Image:
        if num > 4:
            raise MemoryError
        return draw_grid(index, num, seed)

    monkeypatch.setattr("shards.inspect.draw_grid", draw)
    assert run_inspect(Inspect(data, data / "grid.png", num=5)) == 2
    assert "5 pictures of 20 x 20 pixels does not fit into memory: give a lower --num" in capsys.readouterr().err
    assert run_inspect(Inspect(data, data / "grid.png", num=4)) == 0


def test_names_of_columns_keep_to_their_line() -> None:
    """CSV allows line ends in them."""
    plain, hostile = (Table(name, ["class", name], [("x", 1)]) for name in ("name", "a\nb\x85\ud800"))
    forms = [to_markdown("title", [Section("Labels", [table])]) for table in (plain, hostile)]
    assert len({len(form.splitlines()) for form in forms}) == 1
    to_html("title", [Section("Labels", [hostile])]).encode()


def test_a_tar_of_strangers_still_reads(tmp_path: Path) -> None:
    """Long names and attributes are what headers are for."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo(f"{'é' * 100}/{'x' * 120}.jpg")
        info.size, info.pax_headers = 3, {"SCHILY.xattr.user": "y" * 100_000}
        archive.addfile(info, io.BytesIO(b"abc"))
    assert read_first(TarSource(path)) == b"abc"
    with path.open("rb") as file:
        assert [sample.picture.size for sample in read_samples(file, None, None)] == [3]


def test_a_table_without_rows_asks_for_no_memory(data: Path) -> None:
    for split in ("train", "holdout"):
        change(data, "splits", split, value={"samples": 0, "shards": {"samples": [], "bytes": [], "sha256": []}})
    header = {"descr": np.lib.format.dtype_to_descr(ROW), "fortran_order": False, "shape": (10**12,)}
    with (data / TABLE).open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(DataError, match="it has not 0 rows"):
        Index.open(data)
