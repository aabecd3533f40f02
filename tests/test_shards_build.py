"""`python -m shards build`: what comes in, what goes out, what is refused, and that kills change nothing."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from shards.__main__ import main
from shards.building.holdout import SPLITS, HoldOut
from shards.dataset.index import Index
from shards.exclusion import Excluded
from shards.sources.folder import FolderSource
from tests.made_sources import add, build, digests, excluded, jpeg, make_source, refuse, said_by, samples

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves its shards open


def run(*args: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shards", "build", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_source(tmp_path_factory.mktemp("source"), 150)
    (folder / "notes.txt").write_text("not a picture")
    (folder / "broken.jpg").write_bytes(jpeg(1)[:200])
    return folder


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return shards as two workers make them."""
    out = tmp_path_factory.mktemp("built") / "shards"
    done = run(source, "--out", out, *OPTIONS, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "pictures/s" in done.stdout
    return out


OPTIONS = ("--size", "16", "--labels", "folders", "--shard-samples", "10", "--holdout", "0.2")


def test_index_and_webdataset_agree(built: Path) -> None:
    index = Index.open(built)
    assert index.classes == ("class 0", "class 1", "class 2")
    assert sum(index.content["class_counts"]) == len(index.table) == 150
    assert excluded(built) == {"broken.jpg": "truncated", "notes.txt": "not_an_image"}
    keys = []
    for split in index.splits.values():
        read = samples(index, split.name)
        rows = index.table[split.first : split.first + split.samples]
        assert len(read) == split.samples == sum(shard.samples for shard in split.shards)
        for sample, row in zip(read, rows, strict=True):
            with open(sample["__url__"], "rb") as file:
                data = os.pread(file.fileno(), int(row["size"]), int(row["offset"]))
            assert np.array_equal(np.load(io.BytesIO(data)), sample["npy"])
            assert sample["npy"].shape == (16, 16, 3)
            facts = sample["json"]
            assert index.classes[row["label"]] == facts["label"] == facts["file"].split("/")[0]
            assert (facts["width"], facts["height"]) == (60, 40)
            keys.append(sample["__key__"])
    assert len(set(keys)) == 150
    assert all(key.isdigit() for key in keys)
    pixels = np.stack([sample["npy"] for split in index.splits for sample in samples(index, split)]).reshape(-1, 3)
    statistics = index.content["statistics"]
    assert np.allclose(statistics["mean"], pixels.mean(0), atol=1e-3)
    assert np.allclose(statistics["std"], pixels.std(0), atol=1e-3)
    assert statistics["formats"] == {"JPEG": 150}


def test_nothing_of_the_machine_is_in_the_shards(built: Path, source: Path) -> None:
    for name in "index.json", "card.md", "card.html":
        assert str(source.parent) not in (built / name).read_text()
    assert sorted(path.name for path in built.iterdir() if not path.name.endswith(".tar")) == [
        "card.html",
        "card.md",
        "excluded.jsonl",
        "index.json",
        "table.npy",
    ]
    with tarfile.open(built / "train-000000.tar") as archive:
        members = archive.getmembers()
    assert {(m.mtime, m.uname, m.gname, m.uid, m.gid, m.mode) for m in members} == {
        (0, "lienzo", "lienzo", 0, 0, 0o644)
    }


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_no_byte(built: Path, source: Path, tmp_path: Path, workers: int) -> None:
    done = run(source, "--out", tmp_path / "out", *OPTIONS, "--workers", str(workers))
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "out") == digests(built)


def test_kills_change_no_byte(built: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "shards", "build", str(source), "--out", str(out), *OPTIONS, "--workers", "2"]
    kept: set[str] = set()
    for kill in range(3):
        process = subprocess.Popen(
            [*command, *(["--resume"] if kill else [])], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and len(kept) <= 3 * kill:
            kept |= {path.name for path in (out / ".build").glob("*.tar")} if (out / ".build").exists() else set()
        process.kill()
        process.wait()
    assert not (out / "index.json").exists()
    assert run(source, "--out", out, *OPTIONS).returncode == 2  # unfinished, and --resume was not given
    done = run(source, "--out", out, *OPTIONS, "--resume", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "looked at 152 pictures" not in done.stdout  # what was finished is not made again
    assert digests(out) == digests(built)
    again = run(source, "--out", out, *OPTIONS, "--resume")
    assert again.returncode == 0
    assert "is complete" in again.stdout


def test_a_kill_while_the_folder_is_finished(built: Path, source: Path, tmp_path: Path) -> None:
    program = """
import os, sys
import shards.building.layout
real = os.replace
def replace(*names):
    real(*names)
    if os.fspath(names[1]).endswith(sys.argv[1]):
        os.kill(os.getpid(), 9)
shards.building.layout.os.replace = replace
from shards.__main__ import main
main(sys.argv[2:])
"""
    arguments = ["build", str(source), "--out", str(tmp_path / "out"), *OPTIONS, "--workers", "1"]
    command = [sys.executable, "-c", program, "train-000003.tar", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "out" / "train-000003.tar").exists()
    assert not (tmp_path / "out" / "index.json").exists()
    assert main([*arguments, "--resume"]) == 0
    assert digests(tmp_path / "out") == digests(built)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_is_one_message(source: Path, tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "shards", "build", str(source), "--out", str(tmp_path / "out"), *OPTIONS]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("out/.build/*.tar")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 75
    assert out == ""
    assert err == "shards build: interrupted; finished shards are kept, and --resume goes on\n"


def test_orphaned_workers_end(source: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "shards",
        "build",
        str(source),
        "--out",
        str(tmp_path / "out"),
        *OPTIONS,
        "--workers",
        "2",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not list(tmp_path.glob("out/.build/*.tar")):
        time.sleep(0.01)
    orphans = children.read_text().split()
    process.kill()
    process.wait()
    assert len(orphans) >= 2
    deadline = time.monotonic() + 10
    while any(is_alive(int(orphan)) for orphan in orphans):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_strange_files_of_a_folder(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", 2, 1)
    picture = source / "class 0" / "0000.jpg"
    (source / "empty.png").touch()
    (source / ".hidden.jpg").write_bytes(jpeg(0))
    (source / ".git").mkdir()
    os.mkfifo(source / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(source / "socket.jpg"))
    (tmp_path / "elsewhere.jpg").write_bytes(jpeg(0))
    (source / "away.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (source / "up").symlink_to(tmp_path)
    (source / "class 0" / "loop").symlink_to(source)
    (source / "self").symlink_to("self")
    (source / "nothing.jpg").symlink_to("missing.jpg")
    (source / "other folder").symlink_to("class 0")
    (source / "link.jpg").symlink_to("class 0/0000.jpg")
    (source / "new\nline.jpg").write_bytes(picture.read_bytes())
    (source / ("long" * 60 + ".jpg")).write_bytes(picture.read_bytes())
    Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9.jpg")).write_bytes(picture.read_bytes())
    (source / "large.bmp").write_bytes(b"BM" + bytes(5000))
    index = build(source, tmp_path / "out", "--max-bytes", "5000", "--holdout", "0")
    assert excluded(tmp_path / "out") == {
        ".git": "hidden",
        ".hidden.jpg": "hidden",
        "away.jpg": "outside_source",
        "class 0/loop": "symlink_loop",
        "empty.png": "empty",
        "large.bmp": "too_many_bytes",
        "nothing.jpg": "dangling_link",
        "other folder": "linked_folder",
        "pipe.jpg": "special_file",
        "self": "symlink_loop",
        "socket.jpg": "special_file",
        "up": "outside_source",
    }
    taken = [sample["json"]["file"] for sample in samples(index, "train")]
    assert taken == [
        "caf\udce9.jpg",
        "class 0/0000.jpg",
        "class 0/0001.jpg",
        "link.jpg",
        f"{'long' * 60}.jpg",
        "new\nline.jpg",
    ]


def test_files_that_change_after_they_were_listed(tmp_path: Path) -> None:
    source = FolderSource(make_source(tmp_path / "source", 3, 1))
    names = sorted(found.name for found in source.scan())
    paths = [tmp_path / "source" / os.fsdecode(name) for name in names]
    for path in paths:
        path.unlink()
    os.mkfifo(paths[1])
    paths[2].mkdir()
    for name, reason in zip(names, ("unreadable", "special_file", "unreadable"), strict=True):
        with pytest.raises(Excluded) as error:
            source.read(name, "", 1000)
        assert error.value.reason == reason


def test_the_same_picture_is_never_on_both_sides(tmp_path: Path) -> None:
    """Under another name, as a link, and encoded anew with equal pixels."""
    source = make_source(tmp_path / "source", 40, 1)
    for i, path in enumerate(sorted(source.rglob("*.jpg"))):
        (source / f"link {i}.jpg").symlink_to(path.relative_to(source))
        (source / f"copy {i}.jpg").write_bytes(path.read_bytes())
        Image.open(path).save(source / f"again {i}.png")
    index = build(source, tmp_path / "out", "--holdout", "0.5", "--scaled-decode", "0", "--shard-samples", "7")
    sides = {split: [sample["npy"].tobytes() for sample in samples(index, split)] for split in ("train", "holdout")}
    assert len(sides["train"]) + len(sides["holdout"]) == 160
    assert 40 < len(sides["holdout"]) < 120
    assert not set(sides["train"]) & set(sides["holdout"])
    assert all(shard.samples == 7 for shard in index.splits["holdout"].shards[:-1])
    drawn = HoldOut(0.5, 0)
    for name, split in index.splits.items():  # as the table alone says
        rows = index.table[split.first : split.first + split.samples]
        assert {SPLITS[drawn.side_of(int(row["image_hash"]))] for row in rows} == {name}


def test_more_pictures_move_none_across(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", 30, 1)
    before = {
        sample["json"]["file"] for sample in samples(build(source, tmp_path / "a", "--holdout", "0.4"), "holdout")
    }
    make_source(source, 50, 1)
    for path in sorted(source.rglob("*.jpg")):
        path.rename(path.with_name(f"renamed {path.name}"))
    after = {sample["json"]["file"] for sample in samples(build(source, tmp_path / "b", "--holdout", "0.4"), "holdout")}
    known = {name for name in after if int(name.split()[-1].split(".")[0]) < 30}
    assert {name.replace("renamed ", "") for name in known} == before
    assert before


def test_the_holdout_is_drawn_for_each_picture_alone() -> None:
    hashes = np.random.default_rng(0).integers(0, 1 << 64, 20_000, dtype=np.uint64).tolist()
    held_out = [HoldOut(0.1, 0).side_of(content) for content in hashes]
    assert abs(sum(held_out) - 2000) < 200
    assert held_out != [HoldOut(0.1, 1).side_of(content) for content in hashes]
    assert not any(HoldOut(0.0, 0).side_of(content) for content in hashes)
    assert all(HoldOut(0.2, 0).side_of(content) for content, held in zip(hashes, held_out, strict=True) if held)


def test_copied_shards_are_those_that_webdataset_writes(tmp_path: Path) -> None:
    """The hold-out of many small tasks has the bytes of one that a task wrote alone."""
    source = make_source(tmp_path / "source", 60, 1)
    alone = build(source, tmp_path / "alone", "--holdout", "0.5", "--shard-samples", "60")
    many = build(source, tmp_path / "many", "--holdout", "0.5", "--shard-samples", "30")
    copied = many.splits["holdout"].shards[0]
    assert copied.samples > 10
    with tarfile.open(many.folder / copied.name) as archive:
        members = [(member.name, member.size) for member in archive]
    with tarfile.open(alone.folder / "holdout-000000.tar") as archive:
        content = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    options = {"user": "lienzo", "group": "lienzo", "mode": 0o644, "mtime": 0}
    with (tmp_path / "own.tar").open("wb") as file, webdataset.TarWriter(file, encoder=False, **options) as writer:
        for name, _ in members[::2]:
            key = name.split(".")[0]
            writer.write({"__key__": key, "npy": content[f"{key}.npy"], "json": content[f"{key}.json"]})
    assert (tmp_path / "own.tar").read_bytes() == (many.folder / copied.name).read_bytes()


def test_builds_of_earlier_versions_are_not_mixed_with_this_one(tmp_path: Path) -> None:
    source, out = make_source(tmp_path / "source", 6, 1), tmp_path / "out"
    said = "an earlier version, which drew the hold-out by the names of the pictures"
    index = build(source, out)
    content = json.loads((out / "index.json").read_text())
    del content["settings"]["holdout_by"]
    (out / "index.json").write_text(json.dumps(content))
    refuse(source, out, said, "--size", "16", "--resume")
    assert Index.open(out).splits == index.splits
    unfinished = tmp_path / "unfinished"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.building.phases.finalize_dataset", interrupted)
        assert main(["build", str(source), "--out", str(unfinished), "--size", "16", "--workers", "1"]) == 75
    with contextlib.closing(sqlite3.connect(unfinished / ".build" / "listing")) as database:
        database.execute("UPDATE fact SET value = json_remove(value, '$.holdout_by') WHERE name = 'settings'")
        database.commit()
    refuse(source, unfinished, said, "--size", "16", "--resume")


def test_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "source.tar", "w") as archive:
        for name in (
            "./a/1.jpg",
            "b/2.jpg",
            "b/2.jpg",
            "/etc/3.jpg",
            "../4.jpg",
            "a/../5.jpg",
            "a\\..\\6.jpg",
            "C:\\7.jpg",
        ):
            add(archive, name, jpeg(1))
        add(archive, "a", type=tarfile.DIRTYPE)
        add(archive, "a/link.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(archive, "a/hard.jpg", type=tarfile.LNKTYPE, linkname="a/1.jpg")
        add(archive, "a/pipe.jpg", type=tarfile.FIFOTYPE)
        add(archive, "a/._1.jpg", jpeg(1))
        add(archive, "a/large.jpg", bytes(9000))
        add(archive, "x" * 3000 + ".jpg", jpeg(2))
    index = build(
        tmp_path / "source.tar", tmp_path / "out", "--labels", "folders", "--max-bytes", "8000", "--holdout", "0"
    )
    assert excluded(tmp_path / "out") == {
        "../4.jpg": "escapes_archive",
        "/etc/3.jpg": "escapes_archive",
        "C:\\7.jpg": "escapes_archive",
        "a/../5.jpg": "escapes_archive",
        "a/._1.jpg": "hidden",
        "a/hard.jpg": "link_in_archive",
        "a/large.jpg": "too_many_bytes",
        "a/link.jpg": "link_in_archive",
        "a/pipe.jpg": "special_file",
        "a\\..\\6.jpg": "escapes_archive",
        "b/2.jpg": "duplicate_name",
    }
    taken = samples(index, "train")
    assert [sample["json"]["file"] for sample in taken] == ["a/1.jpg", "b/2.jpg", "x" * 3000 + ".jpg"]
    assert [sample["json"]["label"] for sample in taken] == ["a", "b", None]
    assert index.table["label"].tolist() == [0, 1, -1]


def test_zip(tmp_path: Path) -> None:
    path = tmp_path / "source.zip"
    link = zipfile.ZipInfo("a/link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        for i, method in enumerate((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)):
            archive.writestr(f"a/{i}.jpg", jpeg(i), compress_type=method)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a/0.jpg", jpeg(5))
        archive.writestr("../up.jpg", jpeg(5))
        archive.writestr("__MACOSX/._0.jpg", jpeg(5))
        archive.writestr("a/bomb.jpg", bytes(50_000_000), compress_type=zipfile.ZIP_DEFLATED)
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a/locked.jpg", jpeg(6))
        archive.writestr("a/damaged.jpg", jpeg(7))
        archive.writestr("a/boasting.jpg", bytes(3000), compress_type=zipfile.ZIP_DEFLATED)
        archive.writestr("höhle.jpg", jpeg(8))
        archive.mkdir("empty folder")
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    lock_folder = data.index(b"a/locked.jpg", directory) - 46
    data[lock_folder + 8] |= 1
    damaged = data.index(b"a/damaged.jpg") + 200
    data[damaged] ^= 1
    boasting = data.index(b"a/boasting.jpg", directory) - 46
    data[boasting + 24 : boasting + 28] = struct.pack("<I", 4000)
    path.write_bytes(data)
    index = build(path, tmp_path / "out", "--max-bytes", "9000", "--holdout", "0")
    assert excluded(tmp_path / "out") == {
        "../up.jpg": "escapes_archive",
        "__MACOSX/._0.jpg": "hidden",
        "a/0.jpg": "duplicate_name",
        "a/bomb.jpg": "too_many_bytes",
        "a/boasting.jpg": "truncated",
        "a/damaged.jpg": "unreadable",
        "a/link.jpg": "link_in_archive",
        "a/locked.jpg": "encrypted",
    }
    assert len(samples(index, "train")) == 5


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "good.tar", "w") as archive:
        for i in range(5):
            add(archive, f"{i}.jpg", jpeg(i))
    data = bytearray((tmp_path / "good.tar").read_bytes())
    (tmp_path / "short.tar").write_bytes(data[:3000])
    second = data.index(b"1.jpg")
    data[second + 150] ^= 0x7F  # its header's checksum
    (tmp_path / "header.tar").write_bytes(data)
    with tarfile.open(tmp_path / "packed.tar.gz", "w:gz") as archive:
        add(archive, "0.jpg", jpeg(0))
    with zipfile.ZipFile(tmp_path / "good.zip", "w") as zipped:
        zipped.writestr("0.jpg", jpeg(0))
    (tmp_path / "short.zip").write_bytes((tmp_path / "good.zip").read_bytes()[:-30])
    (tmp_path / "text.tar").write_text("no archive at all")
    for name, message in {
        "short.tar": "is damaged",
        "header.tar": f"is damaged at byte {second}",
        "packed.tar.gz": "is compressed as a whole (gzip)",
        "short.zip": "is damaged",
        "text.tar": "is not an archive that can be read",
        "missing": "does not exist",
    }.items():
        refuse(tmp_path / name, tmp_path / "out", message)
        assert not list(tmp_path.glob("out/*"))


def test_labels_of_a_csv(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", 8, 2)
    table = tmp_path / "all data.csv"
    table.write_text(
        "\ufeffname,style\nclass 0/0000.jpg,Rococo\n0001.jpg,Op Art\n0002,Rococo\n0003.jpg,\nlost.jpg,Rococo\n"
        "0005.jpg,Ukiyo-e\n",
        encoding="utf-8",
    )
    options = ("--labels", table, "--file-column", "name", "--label-column", "style", "--holdout", "0")
    index = build(source, tmp_path / "out", *options)
    labels = {sample["json"]["file"].split("/")[1]: sample["json"]["label"] for sample in samples(index, "train")}
    assert labels == {
        "0000.jpg": "Rococo",
        "0001.jpg": "Op Art",
        "0002.jpg": "Rococo",
        "0003.jpg": None,
        "0004.jpg": None,
        "0005.jpg": "Ukiyo-e",
        "0006.jpg": None,
        "0007.jpg": None,
    }
    assert index.classes == ("Op Art", "Rococo", "Ukiyo-e")
    assert index.content["class_counts"] == [1, 2, 1]
    assert index.content["labels"] == {"rows_with_picture": 5, "rows_without_picture": 1, "pictures_without_row": 3}
    refuse(source, tmp_path / "a", "has no column 'artist'; it has: 'name', 'style'", *options[:-3], "artist")
    table.write_text("name,style\n0001.jpg,Rococo\n0001.jpg,Op Art\n")
    refuse(source, tmp_path / "a", "different labels for '0001.jpg'", *options)
    table.write_text("name,style\nx.jpg,Rococo\n")
    refuse(source, tmp_path / "a", "no row of", *options)
    assert not list(tmp_path.glob("a/*"))


def test_a_class_without_usable_pictures_is_no_class(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", 6, 3)
    for path in (source / "class 1").iterdir():
        path.write_bytes(b"")
    index = build(source, tmp_path / "out", "--labels", "folders", "--holdout", "0")
    assert index.classes == ("class 0", "class 2")
    assert index.table["label"].tolist() == [0, 0, 1, 1]


def test_shards_without_pictures_leave_no_gap(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", 12, 1)
    for i in range(4, 8):
        (source / "class 0" / f"{i:04d}.jpg").write_bytes(b"")
    index = build(source, tmp_path / "out", "--shard-samples", "4", "--holdout", "0")
    assert [shard.name for shard in index.splits["train"].shards] == ["train-000000.tar", "train-000001.tar"]
    assert index.splits["holdout"].shards == ()


@pytest.mark.parametrize("encode", ["raw", "png", "jpg", "webp"])
def test_encodings(tmp_path: Path, encode: str) -> None:
    source = make_source(tmp_path / "source", 4, 1)
    index = build(source, tmp_path / "out", "--encode", encode, "--holdout", "0")
    extension = {"raw": "npy"}.get(encode, encode)
    decoder = [] if encode == "raw" else ["rgb8"]
    urls = [str(index.path / shard.name) for shard in index.splits["train"].shards]
    read = list(webdataset.WebDataset(urls, shardshuffle=False).decode(*decoder))
    assert [sample[extension].shape for sample in read] == [(16, 16, 3)] * 4


def test_refusals(tmp_path: Path, built: Path, source: Path) -> None:
    small = make_source(tmp_path / "source", 3, 1)
    full = tmp_path / "full"
    full.mkdir()
    (full / "letter.txt").touch()
    bad = make_source(tmp_path / "bad", 2, 1)
    for path in (bad / "class 0").iterdir():
        path.write_bytes(b"no")
    (tmp_path / "void").mkdir()
    refuse(small, full, "is not empty")
    refuse(small, full, "is not empty", "--resume")
    refuse(small, built, "is not empty")
    refuse(small, full / "letter.txt", "is a file")
    refuse(small, small / "out", "lies inside the source")
    refuse(small, tmp_path / "a", "--labels must be none, folders or a table", "--labels", "folder")
    refuse(small, tmp_path / "a", "--background must be a colour", "--background", "mauvish")
    refuse(small, tmp_path / "a", "--holdout is a share", "--holdout", "1")
    refuse(small, tmp_path / "a", "--size: '0' is no number of pixels", "--size", "0")
    refuse(small, tmp_path / "a", "--shard-samples must be at least 1", "--shard-samples", "0")
    refuse(tmp_path / "void", tmp_path / "a", "the source has no files")
    refuse(small, tmp_path / "a", "as all 3 are held out: give a lower --holdout", "--holdout", "0.9999")
    assert not list(tmp_path.glob("a/*"))
    said = said_by("build", bad, "--out", tmp_path / "a")
    assert f"no picture to train on; 2 files are excluded, see {tmp_path}/a/excluded.jsonl" in said
    assert [path.name for path in tmp_path.glob("a/*")] == ["excluded.jsonl"]
    assert main(["build", str(small), "--out", str(tmp_path / "a")]) == 0  # that is no obstacle
    refuse(source, built, "began with height 16, and now it is 32", *OPTIONS[2:], "--size", "32", "--resume")


def test_resuming_checks_source_and_settings(tmp_path: Path) -> None:
    source, out = make_source(tmp_path / "source", 6, 1), tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.building.phases.finalize_dataset", interrupted)
        arguments = ["build", str(source), "--out", str(out), "--size", "16", "--workers", "1", "--shard-samples", "3"]
        assert main(arguments) == 75
    refuse(source, out, "holds an unfinished build", *arguments[4:])
    refuse(source, out, "began with seed 0, and now it is 1", *arguments[4:], "--resume", "--seed", "1")
    added = source / "0.jpg"
    added.write_bytes(jpeg(9))
    refuse(
        source,
        out,
        "the source has changed since this build began: '0.jpg' is new or changed",
        *arguments[4:],
        "--resume",
    )
    added.unlink()
    last = source / "class 0" / "0005.jpg"
    kept, times = last.read_bytes(), last.stat()
    last.unlink()
    refuse(source, out, "'class 0/0005.jpg' is gone", *arguments[4:], "--resume")
    last.write_bytes(kept)
    os.utime(last, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert main([*arguments, "--resume"]) == 0


def interrupted(*args: object) -> None:
    raise KeyboardInterrupt


def test_two_builds_do_not_meet(tmp_path: Path) -> None:
    source, out = make_source(tmp_path / "source", 6, 1), tmp_path / "out"
    from shards.building.build import lock_folder

    (out / ".build").mkdir(parents=True)
    with lock_folder(out / ".build"):
        (out / ".build" / "listing.new").touch()
        refuse(source, out, "another build is at work", "--resume")
        assert (out / ".build" / "listing.new").exists()  # what the other one has begun


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    done = run(make_source(tmp_path / "source", 3, 1), "--out", "/proc/shards")
    assert done.returncode == 75
    assert done.stderr.startswith("shards build: cannot write to /proc/shards")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("free", [20_000, 300_000])  # too little for the list of files; for the shards
def test_a_full_disk_is_one_message(source: Path, built: Path, small_disk: Path, free: int) -> None:
    ballast, out = small_disk / "ballast", small_disk / "out"
    ballast.write_bytes(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize - free))
    done = run(source, "--out", out, *OPTIONS)
    assert done.returncode == 75
    assert done.stderr.startswith("shards build: cannot ")
    assert done.stderr.count("\n") == 1
    ballast.unlink()
    done = run(source, "--out", out, *OPTIONS, "--resume")
    assert done.returncode == 0, done.stderr
    assert digests(out) == digests(built)


def test_starting_is_quick() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "shards", "build", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "torch" not in done.stderr
    assert "webdataset" not in done.stderr


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path: Path) -> None:
    program = """
import resource, sys
from pathlib import Path
from shards.sources.source_entry import SourceEntry
from shards.building.build_db import BuildDb
from shards.building.build_dbs import BuildDbs
from shards.sources.listing import write_listing
class Many:
    def scan(self):
        return (SourceEntry(b"folder/picture %d.jpg" % (i * 7919 % count), "1:2") for i in range(count))
count = int(sys.argv[1])
write_listing(Path(sys.argv[2]), Many(), "none", {"seed": 0, "holdout": 0.02}, lambda n: None)
build_db = BuildDb(Path(sys.argv[2]))
assert sum(len(task.pictures) for task in BuildDbs([build_db]).open_tasks(1000)) == count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = []
    for count in (5_000, 60_000):
        command = [sys.executable, "-c", program, str(count), str(tmp_path / str(count))]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 12_000  # kB; SQLite's cache fills up
