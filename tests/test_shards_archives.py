"""All that an archive holds is taken, counted or refused: what lies behind an end, before a start, in no directory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import shlex
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.made_sources import add, build, excluded, facts, jpeg, refuse, said_by


def tar(path: Path, names: str, format: int = tarfile.PAX_FORMAT, first: int = 0) -> Path:
    with tarfile.open(path, "w", format=format) as archive:
        for i, name in enumerate(names.split(), first):
            add(archive, name, jpeg(i))
    return path


def zipped(path: Path, names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for i, name in enumerate(names.split()):
            archive.writestr(name, jpeg(i))
    return path


def joined(path: Path, *parts: Path | bytes) -> Path:
    path.write_bytes(b"".join(part if isinstance(part, bytes) else part.read_bytes() for part in parts))
    return path


def taken(source: Path, out: Path, *args: str) -> list[str]:
    return [picture["file"] for picture in facts(build(source, out, "--holdout", "0", *args))]


def without_entry(data: bytes, name: bytes) -> bytes:
    """Return a zip whose directory lacks a member."""
    end, entry = data.rindex(b"PK\x05\x06"), data.rindex(name) - 46
    start, length = data.index(b"PK\x01\x02"), 46 + len(name)
    count = struct.unpack_from("<H", data, end + 10)[0] - 1
    tail = bytearray(data[end:])
    struct.pack_into("<HHL", tail, 8, count, count, end - start - length)
    return data[:entry] + data[entry + length : end] + tail


# Tars


def test_tars_behind_one_another_are_one(tmp_path: Path) -> None:
    parts = [tar(tmp_path / f"{i}.tar", names, first=3 * i) for i, names in enumerate(("a.jpg b.jpg", "c.jpg a.jpg"))]
    third = tar(tmp_path / "2.tar", "d.jpg")
    whole = joined(tmp_path / "whole.tar", *parts, third)
    assert taken(whole, tmp_path / "out") == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert excluded(tmp_path / "out") == {"a.jpg": "duplicate_name"}


@pytest.mark.parametrize("zeros", [512, 5 * 512, 1 << 20])
def test_members_behind_any_number_of_zeros_are_taken(tmp_path: Path, zeros: int) -> None:
    data = tar(tmp_path / "a.tar", "a.jpg").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        member = archive.getmember("a.jpg")
    end = member.offset_data + -(-member.size // 512) * 512
    whole = joined(tmp_path / "whole.tar", data[:end], bytes(zeros), tar(tmp_path / "b.tar", "b.jpg"))
    assert taken(whole, tmp_path / "out") == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("rubbish", [b"rubbish", b"\0" * 700 + b"x", b"PK\x05\x06" + bytes(18)])
def test_what_lies_behind_a_tar(tmp_path: Path, rubbish: bytes) -> None:
    whole = joined(tmp_path / "my whole.tar", tar(tmp_path / "a.tar", "a.jpg"), rubbish)
    said = said_by("build", whole, "--out", tmp_path / "out")
    assert "goes on behind its end, at byte 10240" in said or "at byte 10752" in said
    subprocess.run(["sh", "-c", said.rpartition("with: ")[2]], cwd=tmp_path, check=True)
    assert taken(tmp_path / "NEW.tar", tmp_path / "out") == ["a.jpg"]


def test_a_tar_without_its_end_mark_is_taken_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tar(tmp_path / "a.tar", "a.jpg b.jpg").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        member = archive.getmember("b.jpg")
    cut = joined(tmp_path / "cut.tar", data[: member.offset_data + -(-member.size // 512) * 512])
    assert taken(cut, tmp_path / "out") == ["a.jpg", "b.jpg"]
    assert "cut.tar has no end mark" in capsys.readouterr().err
    assert taken(tmp_path / "a.tar", tmp_path / "other") == ["a.jpg", "b.jpg"]
    assert "end mark" not in capsys.readouterr().err
    shorter = joined(tmp_path / "shorter.tar", data[: member.offset_data + 100])
    refuse(shorter, tmp_path / "refused", "is damaged")


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_of_tars(tmp_path: Path, format: int) -> None:
    long = "/".join(["folder" * 5] * 4) + ".jpg"
    assert taken(tar(tmp_path / "a.tar", f"a.jpg {long}", format), tmp_path / "out") == ["a.jpg", long]


def test_a_tar_of_the_seventies(tmp_path: Path) -> None:
    """V7: no magic, no type, and a checksum of six digits."""
    data = bytearray(tar(tmp_path / "a.tar", "a.jpg", tarfile.USTAR_FORMAT).read_bytes())
    data[156:157] = b"\0"
    data[257:500] = bytes(243)
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    assert taken(joined(tmp_path / "old.tar", bytes(data)), tmp_path / "out") == ["a.jpg"]


@pytest.mark.parametrize("name", ["BZhang/a.jpg", "PKunzip/a.jpg", "7z\u00bc.jpg"])
def test_a_tar_is_known_by_its_header_not_by_the_first_name(tmp_path: Path, name: str) -> None:
    assert taken(tar(tmp_path / "a.tar", name), tmp_path / "out") == [name]


def test_a_member_that_leads_backwards_is_refused(tmp_path: Path) -> None:
    """A size of -1024 would make a reader come back to the first member for ever."""
    data = bytearray(tar(tmp_path / "a.tar", "a.jpg b.jpg", tarfile.GNU_FORMAT).read_bytes())
    second = data.index(b"b.jpg")
    data[second + 124 : second + 136] = (-1024).to_bytes(12, "big", signed=True)
    header = data[second : second + 512]
    data[second + 148 : second + 156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    refuse(joined(tmp_path / "back.tar", bytes(data)), tmp_path / "out", "negative size")


@pytest.mark.parametrize(
    ("compress", "program"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")]
)
def test_a_compressed_tar_is_named_whatever_its_name(
    tmp_path: Path, compress: Callable[[bytes], bytes], program: str
) -> None:
    plain = tar(tmp_path / "a.tar", "a.jpg b.jpg").read_bytes()
    packed = joined(tmp_path / "my packed.tar", compress(plain[:3000]), compress(plain[3000:]))  # in two streams
    said = said_by("build", packed, "--out", tmp_path / "out")
    assert f"is compressed as a whole ({program})" in said
    subprocess.run(["sh", "-c", said.rpartition("with: ")[2]], cwd=tmp_path, check=True)
    assert taken(tmp_path / "NEW.tar", tmp_path / "out") == ["a.jpg", "b.jpg"]


# Zips


def test_zips_behind_one_another_are_refused(tmp_path: Path) -> None:
    whole = joined(
        tmp_path / "my whole.zip", zipped(tmp_path / "a.zip", "a.jpg b.jpg"), zipped(tmp_path / "b.zip", "c.jpg")
    )
    said = said_by("build", whole, "--out", tmp_path / "out")
    assert "several zips behind one another" in said
    subprocess.run(["sh", "-c", said.rpartition("with: ")[2].partition(" and ")[0]], cwd=tmp_path, check=True)
    for name in "FIRST.zip", "SECOND.zip":
        with zipfile.ZipFile(tmp_path / name) as archive:
            archive.extractall(tmp_path / "one folder")
    assert taken(tmp_path / "one folder", tmp_path / "out") == ["a.jpg", "b.jpg", "c.jpg"]


@pytest.mark.parametrize("hidden", ["a.jpg", "b.jpg", "c.jpg"])  # before, between and behind those that are listed
def test_a_member_that_no_directory_lists_is_refused(tmp_path: Path, hidden: str) -> None:
    data = zipped(tmp_path / "whole.zip", "a.jpg b.jpg c.jpg").read_bytes()
    lacking = joined(tmp_path / "is lacking.zip", without_entry(data, hidden.encode()))
    said = said_by("build", lacking, "--out", tmp_path / "out")
    assert "has a member at byte" in said
    command = shlex.split(said.rpartition("with: ")[2].replace("FOLDER", "'one folder'"))
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True)
    assert taken(tmp_path / "one folder", tmp_path / "out") == sorted({"a.jpg", "b.jpg", "c.jpg"} - {hidden})


def test_a_zip_with_something_behind_its_end(tmp_path: Path) -> None:
    inside = zipped(tmp_path / "a.zip", "a.jpg")
    more = joined(tmp_path / "more.zip", inside, tar(tmp_path / "b.tar", "b.jpg"))
    said = said_by("build", more, "--out", tmp_path / "out")
    assert f"goes on behind its end, at byte {inside.stat().st_size}" in said
    subprocess.run(["sh", "-c", said.rpartition("with: ")[2]], cwd=tmp_path, check=True)
    assert taken(tmp_path / "NEW.zip", tmp_path / "out") == ["a.jpg"]
    assert taken(joined(tmp_path / "zeros.zip", inside, bytes(3000)), tmp_path / "zeros") == ["a.jpg"]
    far = joined(tmp_path / "far.zip", inside, random.Random(0).randbytes(70_000))
    refuse(far, tmp_path / "far", "or has more behind its end")


def test_a_part_of_a_split_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped(tmp_path / "a.zip", "a.jpg b.jpg").read_bytes())
    end = data.rindex(b"PK\x05\x06")
    struct.pack_into("<HH", data, end + 4, 2, 2)  # as Info-ZIP's `zip -s` writes the last part
    refuse(joined(tmp_path / "last.zip", bytes(data)), tmp_path / "out", "is the last of 3 parts of a split archive")
    refuse(joined(tmp_path / "a.z01", b"PK\x07\x08", bytes(data[:500])), tmp_path / "out", "a part of a split archive")
    refuse(joined(tmp_path / "a.zip.001", bytes(data[:500])), tmp_path / "out", "a part of a split archive")


@pytest.mark.parametrize("count", [1, 3])
def test_a_zip_whose_end_disagrees_with_its_directory(tmp_path: Path, count: int) -> None:
    data = bytearray(zipped(tmp_path / "a.zip", "a.jpg b.jpg").read_bytes())
    struct.pack_into("<HH", data, data.rindex(b"PK\x05\x06") + 8, count, count)
    wrong = joined(tmp_path / "wrong.zip", bytes(data))
    refuse(wrong, tmp_path / "out", f"its end tells of {count} members, its directory lists 2")


def test_the_large_format_and_counts_that_ran_over(tmp_path: Path) -> None:
    names = " ".join(f"{i}.txt" for i in range(0x10001))
    with zipfile.ZipFile(tmp_path / "large.zip", "w") as archive:
        for name in names.split():
            archive.writestr(name, b"")
        archive.writestr("a.jpg", jpeg(0))
    assert taken(tmp_path / "large.zip", tmp_path / "out") == ["a.jpg"]
    data = (tmp_path / "large.zip").read_bytes()
    record = data.rindex(b"PK\x06\x06")
    end = bytearray(data[data.rindex(b"PK\x05\x06") :])
    struct.pack_into("<HHLL", end, 8, 2, 2, *struct.unpack_from("<QQ", data, record + 40))  # as of old programs
    assert taken(joined(tmp_path / "old.zip", data[:record], bytes(end)), tmp_path / "old") == ["a.jpg"]


def test_a_zip_whose_names_are_not_what_it_says(tmp_path: Path) -> None:
    data = zipped(tmp_path / "a.zip", "\u00e9.jpg").read_bytes()  # with the bit for UTF-8
    refuse(
        joined(tmp_path / "b.zip", data.replace("\u00e9".encode(), b"\xff\xfe")),
        tmp_path / "out",
        "is damaged ('utf-8'",
    )


def test_a_program_that_unpacks_itself_is_harmless(tmp_path: Path) -> None:
    program = b"MZ" + random.Random(1).randbytes(5000) + b"PK\x03\x04" + b"\xe8\x17" * 50
    whole = joined(tmp_path / "setup.exe", program, zipped(tmp_path / "a.zip", "a.jpg b.jpg"))
    assert taken(whole, tmp_path / "out") == ["a.jpg", "b.jpg"]


def test_extra_fields_and_descriptors_are_no_gap(tmp_path: Path) -> None:
    """What is written to a pipe has its sizes behind each member; aligned members have padding before them."""

    class Pipe(io.RawIOBase):
        def __init__(self, path: Path) -> None:
            self.file = path.open("wb")

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            return self.file.write(data)  # type: ignore[arg-type]

        def close(self) -> None:
            self.file.close()
            super().close()

    with Pipe(tmp_path / "piped.zip") as pipe, zipfile.ZipFile(pipe, "w") as archive:
        fake = struct.pack("<4s22xHH", b"PK\x03\x04", 5, 0) + bytes(470)  # as if it were a member
        for i, content in enumerate((jpeg(0), fake, jpeg(2))):
            info = zipfile.ZipInfo(f"{i}.jpg")
            info.extra = struct.pack("<HH", 0xD935, len(fake)) + fake
            archive.writestr(info, content)
    assert taken(tmp_path / "piped.zip", tmp_path / "out") == ["0.jpg", "2.jpg"]


def test_a_folder_with_content_is_counted(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jpg", jpeg(0))
        archive.writestr("folder/", "")
        archive.writestr("b.jpg/", "what no reader would look at")
    assert taken(tmp_path / "a.zip", tmp_path / "out") == ["a.jpg"]
    assert excluded(tmp_path / "out") == {"b.jpg/": "special_file"}


def windows_zip(path: Path, names: list[str], system: int = 0) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for i, name in enumerate(names):
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name
            info.create_system = system
            archive.writestr(info, b"" if name.endswith("\\") else jpeg(i))
    return path


def test_backslashes_of_windows_are_folders(tmp_path: Path) -> None:
    names = ["cats\\", "cats\\1.jpg", "dogs\\young\\2.jpg", "..\\3.jpg", "C:\\4.jpg", "dogs\\..\\5.jpg", "cats\\.6.jpg"]
    source = windows_zip(tmp_path / "a.zip", names)
    assert taken(source, tmp_path / "out", "--labels", "folders") == ["cats/1.jpg", "dogs/young/2.jpg"]
    assert excluded(tmp_path / "out") == {
        "../3.jpg": "escapes_archive",
        "C:/4.jpg": "escapes_archive",
        "dogs/../5.jpg": "escapes_archive",
        "cats/.6.jpg": "hidden",
    }


def test_backslashes_elsewhere_are_parts_of_names(tmp_path: Path) -> None:
    """On Unix it is a character like others; beside a slash, the second half of one in Shift JIS."""
    assert taken(windows_zip(tmp_path / "a.zip", ["a\\b.jpg"], system=3), tmp_path / "unix") == ["a\\b.jpg"]
    assert taken(windows_zip(tmp_path / "b.zip", ["c/d\\e.jpg"]), tmp_path / "mixed") == ["c/d\\e.jpg"]
