"""Shards that others wrote are a dataset where they lie: the pixels of a build, and nothing is copied."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from shards.__main__ import main
from shards.dataset.cache_settings import CacheSettings
from shards.dataset.facts import read_facts
from shards.dataset.index import DataError, Index
from shards.dataset.stream import Reader
from tests.conftest import HOME, TINY, fingerprint, train
from tests.made_sources import add, build, digests, excluded, jpeg
from tests.s3_server import Bucket, serve_bucket
from tests.slurm_cluster import wait_for

OPTIONS = ("--size", "32", "--holdout", "0.2", "--workers", "1")
STYLES = ["Baroque", "Cubism", "Pop Art"]


def member(number: int) -> tuple[str, bytes]:
    """A picture as one of several kinds of members."""
    if number % 3 == 0:
        return "jpg", jpeg(number, (90, 70))
    pixels = np.random.default_rng(number).integers(0, 256, (50 + number % 7, 64, 3), dtype=np.uint8)
    if number % 3 == 1:
        buffer = io.BytesIO()
        np.save(buffer, pixels)
        return "npy", buffer.getvalue()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True)
    return "webp", buffer.getvalue()


def write_tars(folder: Path, count: int = 96) -> Path:
    """As webdataset's own ShardWriter does: classes as numbers, and in json, as img2dataset has it."""
    folder.mkdir(parents=True)
    with webdataset.ShardWriter(str(folder / "part-%04d.tar"), maxcount=24, verbose=0) as writer:
        for number in range(count):
            extension, data = member(number)
            facts = {"key": f"{number:09d}", "status": "success", "meta": {"style": STYLES[number % 3]}}
            writer.write({"__key__": f"{number:09d}", extension: data, "cls": number % 12, "json": facts})
    return folder


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tars(tmp_path_factory.mktemp("tars") / "others")


def index(out: Path, *args: str | Path) -> Index:
    assert main(["index", "--out", str(out), *OPTIONS, *map(str, args)]) == 0
    return Index.open(out)


@pytest.fixture(scope="module")
def indexed(tars: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    return index(tmp_path_factory.mktemp("indexed") / "set", tars / "part-{0000..0003}.tar", "--labels", "cls")


def refuse(out: Path, message: str, *args: str | Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["index", "--out", str(out), *OPTIONS, *map(str, args)]) == 2
    told = capsys.readouterr().err
    assert message in told, told
    assert told.count("\n") == 1
    assert not out.is_dir() or not (out / ".build").exists()


def pictures(index: Index) -> dict[str, tuple[str, bytes]]:
    """Side and pixels of each sample by the number in its name."""
    found = {}
    for name, split in index.splits.items():
        reader = Reader(index, name, lambda *_: pytest.fail("damage"))
        images = reader(np.arange(split.samples)).images
        for number in range(split.samples):
            file = Path(read_facts(index, name, number)["file"]).name
            found[file.partition(".")[0]] = (name, images[number].tobytes())
    return found


def test_pixels_and_sides_are_those_of_a_build(indexed: Index, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(96):
        extension, data = member(number)
        if extension == "npy":  # no source of a build
            extension, buffer = "png", io.BytesIO()
            Image.fromarray(np.load(io.BytesIO(data))).save(buffer, "PNG")
            data = buffer.getvalue()
        (source / f"{number:09d}.{extension}").write_bytes(data)
    built = build(source, tmp_path / "built", *OPTIONS)
    assert pictures(indexed) == pictures(built)
    assert indexed.splits["holdout"].samples > 5
    assert (indexed.size, indexed.channels, indexed.content["statistics"]["modes"]) == ((32, 32), 3, {"RGB": 96})


def test_labels_are_those_of_the_members(indexed: Index, tars: Path, tmp_path: Path) -> None:
    assert indexed.classes == tuple(map(str, range(12)))  # numbers in their order: 2 before 10
    styled = index(tmp_path / "styled", tars, "--labels", "json:meta.style")
    assert styled.classes == tuple(STYLES)
    for name, split in styled.splits.items():
        for number, label in enumerate(styled.table[split.first : split.first + split.samples]["label"]):
            file = read_facts(styled, name, number)["file"]
            assert styled.classes[label] == STYLES[int(Path(file).stem) % 3]


def test_nothing_is_copied_and_both_can_move(tars: Path, tmp_path: Path) -> None:
    shutil.copytree(tars, tmp_path / "here" / "tars")
    before = digests(tmp_path / "here" / "tars")
    beside = index(tmp_path / "here", tmp_path / "here" / "tars")
    assert digests(tmp_path / "here" / "tars") == before
    assert {file.name for file in (tmp_path / "here").iterdir()} == {
        *("tars", "index.json", "table.npy", "excluded.jsonl", "card.md", "card.html")
    }
    (tmp_path / "here").rename(tmp_path / "there")
    moved = Index.open(tmp_path / "there")
    assert moved.hash == beside.hash
    assert len(pictures(moved)) == 96
    assert main(["verify", str(tmp_path / "there")]) == 0
    assert "python -m shards index TARS --out DIR" in (tmp_path / "there" / "card.md").read_text()
    assert (tmp_path / "there" / "card.html").read_text().count("data:image/png") == 25


def test_a_changed_byte_is_found(tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(tars, tmp_path / "tars")
    found = index(tmp_path / "set", tmp_path / "tars")
    path = tmp_path / "tars" / "part-0002.tar"
    with tarfile.open(path) as archive:
        place = archive.getmember("000000050.webp").offset_data + 30
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "set")]) == 1
    assert "(000000050) is damaged" in capsys.readouterr().out
    told: list[str] = []
    for name, split in found.splits.items():
        Reader(found, name, lambda _, what: told.append(what))(np.arange(split.samples))
    assert len(told) == 1
    assert told[0].startswith("part-0002.tar: its bytes are not those")


def run_with(bucket: Bucket, *command: str) -> None:
    environment, asked = {**os.environ, **bucket.environment}, [sys.executable, "-m", *command]
    done = subprocess.run(asked, cwd=HOME, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_training_has_the_same_bits_from_anywhere(tars: Path, indexed: Index, tmp_path: Path) -> None:
    settings = ("--total-images", "256")
    train(tmp_path / "one", indexed.folder, *settings)
    train(tmp_path / "two", indexed.folder, *settings, processes=2)
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")
    with serve_bucket(tmp_path / "buckets") as bucket:
        shutil.copytree(tars, bucket.root / "others")
        time.sleep(0.05)  # the server looks into its folder again after 20 ms
        command = ["shards", "index", f"{bucket.url}/others/part-*.tar", "--labels", "cls"]
        run_with(bucket, *command, "--out", str(tmp_path / "remote"), *OPTIONS)
        table, local = (folder / "table.npy" for folder in (tmp_path / "remote", indexed.folder))
        assert table.read_bytes() == local.read_bytes()
        begin = ["trainer", "train", *TINY, *settings, "--run", str(tmp_path / "from-bucket")]
        begin += ["--data", str(tmp_path / "remote"), "--cache", str(tmp_path / "cache"), "--processes", "1"]
        run_with(bucket, *begin)
        fetched = [path for _, path, _ in bucket.proxy.requests if path.endswith(".tar")]
        assert fetched
    assert fingerprint(tmp_path / "from-bucket")[1] == fingerprint(tmp_path / "one")[1]


def test_a_tar_that_was_replaced_is_refused(tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_bucket(tmp_path / "buckets") as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        shutil.copytree(tars, bucket.root / "others")
        time.sleep(0.05)
        index(tmp_path / "set", f"{bucket.url}/others/")
        write_tars(bucket.root / "new", 30)
        for path in (bucket.root / "new").iterdir():
            shutil.move(path, bucket.root / "others" / path.name)
        time.sleep(0.05)
        opened = Index.open(tmp_path / "set", CacheSettings(tmp_path / "cache", 0.0))
        reader = Reader(opened, "train", lambda *_: None)
        with pytest.raises(
            DataError, match=r"part-000\d\.tar is not the one that was indexed: put it back, or index anew"
        ):
            reader(np.arange(opened.splits["train"].samples))
        for path in tars.iterdir():  # as it advises
            shutil.copy(path, bucket.root / "others" / path.name)
        time.sleep(0.05)
        damaged: list[str] = []
        opened = Index.open(tmp_path / "set", CacheSettings(tmp_path / "cache", 0.0))
        Reader(opened, "train", lambda _, what: damaged.append(what))(np.arange(10))
        assert not damaged


def test_names_with_dots_and_folders(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("x/2021.05", "x/2021.06"):
            add(archive, f"{name}.jpg", jpeg(len(archive.getmembers())))
            add(archive, f"{name}.txt", name.encode())
        for kind in ("input", "target"):
            add(archive, f"y/7.{kind}.png", _png(kind))
        add(archive, "y/7.cls", b"seven")
        add(archive, "notes", b"no picture")
    found = index(tmp_path / "all", tmp_path / "a.tar", "--labels", "txt", "--seed", "1")
    assert set(found.classes) == {"x/2021.05", "x/2021.06"}
    assert sum(split.samples for split in found.splits.values()) == 4
    one = index(tmp_path / "one", tmp_path / "a.tar", "--member", "target.png", "--labels", "cls", "--holdout", "0")
    assert (one.classes, one.splits["train"].samples) == (("seven",), 1)
    assert read_facts(one, "train", 0)["file"] == "a.tar/y/7.target.png"


def _png(text: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((40, 40, 3), len(text) * 9, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_what_cannot_be_used_is_excluded_with_its_reason(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "0.jpg", jpeg(0))
        add(archive, "0.json", b'{"style": "A"}')
        add(archive, "1.jpg", b"")
        add(archive, "2.png", b"plain text")
        add(archive, "3.npy", b"\x93NUMPY")
        add(archive, "4.npy", _npy(np.zeros((40, 40), np.float32)))
        add(archive, "5.npy", _npy(np.array([{}], dtype=object)))
        add(archive, "6.jpg", jpeg(6))
        add(archive, "6.json", b"{")
        add(archive, "7.jpg", jpeg(7))
        add(archive, "7.json", b'{"style": ["A", "B"]}')
        add(archive, "8.jpg", jpeg(8))
    whole = (tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        end = archive.getmember("8.jpg").offset_data
    (tmp_path / "cut.tar").write_bytes(whole[: end + 10])
    (tmp_path / "z.tar").write_bytes(b"\x1f\x8b" + bytes(2000))
    names = ("a", "cut", "z")
    paths = [tmp_path / f"{name}.tar" for name in names]
    index(tmp_path / "set", *paths, "--labels", "json:style", "--holdout", "0", "--deduplicate", "exact")
    reasons = {"1.jpg": "empty", "2.png": "not_an_image", "4.npy": "unsupported", "5.npy": "unsupported"}
    reasons |= dict.fromkeys(("3.npy", "6.jpg", "7.jpg"), "damaged")
    wanted = {f"{tar}.tar/{name}": reason for tar in ("a", "cut") for name, reason in reasons.items()}
    wanted |= {"cut.tar": "damaged", "z.tar": "damaged", "cut.tar/0.jpg": "duplicate"}
    assert excluded(tmp_path / "set") == wanted


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_refusals(tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    refuse(out, "names no tar: name tars, a folder of them", tmp_path / "nothing" / "*.tar", capsys=capsys)
    refuse(out, "names no tar", tmp_path, capsys=capsys)
    refuse(
        out, "lie on s3://a and this machine: index those of each one by itself", tars, "s3://a/x.tar", capsys=capsys
    )
    refuse(out, "--labels must be none, cls, txt or json:FIELD", tars, "--labels", "folders", capsys=capsys)
    refuse(
        out, "no picture has a label of --labels txt: look for it with: tar -tf", tars, "--labels", "txt", capsys=capsys
    )
    listed = subprocess.run(["tar", "-tf", tars / "part-0000.tar"], capture_output=True, text=True, check=True)
    assert "000000000.cls" in listed.stdout.split()  # as it advises
    refuse(out, "have no picture to train on", tars, "--member", "gif", capsys=capsys)
    refuse(out, "have no picture to train on; 96 are excluded", tars, "--min-size", "500", capsys=capsys)
    full = tmp_path / "full"
    full.mkdir()
    (full / "letter").touch()
    refuse(full, "is not empty: index into a new folder", tars, capsys=capsys)
    index(out, tars)
    refuse(out, "holds a dataset already: index into another folder", tars, capsys=capsys)
    refuse(out, "this build began with seed 0, and now it is 1", tars, "--seed", "1", "--resume", capsys=capsys)
    assert main(["index", str(tars), "--out", str(out), *OPTIONS, "--resume"]) == 0


def test_killed_and_resumed_it_has_the_same_bytes(tars: Path, indexed: Index, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "shards", "index", str(tars), "--labels", "cls", "--out", str(out)]
    for attempt in range(40):
        begun = [*command, *OPTIONS, "--workers", str(1 + attempt % 2), *(["--resume"] if out.exists() else [])]
        with subprocess.Popen(begun, cwd=HOME, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5 + 0.8 * attempt)
            process.send_signal(signal.SIGKILL)
        if (out / "index.json").exists() and not (out / ".build").exists():
            break
        assert not (out / "index.json").exists() or attempt
    assert attempt >= 1, "it was never killed"
    assert digests(out) == digests(indexed.folder)


def test_an_interrupted_indexing_goes_on(
    tars: Path, indexed: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "shards", "index", str(tars), "--labels", "cls", "--out", str(out), *OPTIONS]
    with subprocess.Popen(command, cwd=HOME, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: (out / ".build" / "tars").exists())
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[1]
    assert process.returncode == 75
    assert said == "shards index: interrupted; what is done is kept, and --resume goes on\n"
    capsys.readouterr()
    for options, message in (
        (
            (tars, "--labels", "cls"),
            f"{out} holds an unfinished dataset: go on with --resume, or",
        ),
        ((tars / "part-0001.tar", "--labels", "cls", "--resume"), "the tars are not those with which this began"),
    ):
        assert main(["index", "--out", str(out), *OPTIONS, *map(str, options)]) == 2
        assert message in capsys.readouterr().err
    assert main([*command[3:], "--resume"]) == 0
    assert digests(out) == digests(indexed.folder)


@pytest.fixture
def deadly(tmp_path: Path) -> Path:
    """A program that indexes, and that dies at any picture whose bytes end with a word."""
    path = tmp_path / "deadly.py"
    path.write_text(
        "import os, signal\n"
        "import shards.indexing.tar_index as tar_index\n"
        "real = tar_index.decode_image\n"
        "def decode(data, settings):\n"
        "    if data.endswith(b'SIGSEGV'):\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return real(data, settings)\n"
        "tar_index.decode_image = decode\n"
        "if __name__ == '__main__':\n"
        "    from shards.__main__ import main\n"
        "    import sys\n"
        "    sys.exit(main())\n"
    )
    return path


def test_a_picture_that_ends_its_process_is_left_out(deadly: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number in range(8):
            add(archive, f"{number}.jpg", jpeg(number) + (b"SIGSEGV" if number in (2, 5) else b""))
    command = [sys.executable, str(deadly), "index", str(tmp_path / "a.tar"), "--out", str(tmp_path / "set"), *OPTIONS]
    done = subprocess.run(
        command, cwd=HOME, env={**os.environ, "PYTHONPATH": str(HOME)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert excluded(tmp_path / "set") == {"a.tar/2.jpg": "kills_worker", "a.tar/5.jpg": "kills_worker"}
    assert done.stderr.count("the picture is left out") == 2


def test_own_shards_can_be_indexed_too(tmp_path: Path) -> None:
    """With `json:label` they have the labels that they were built with."""
    source = tmp_path / "source"
    for number in range(12):
        (source / f"c{number % 3}").mkdir(parents=True, exist_ok=True)
        (source / f"c{number % 3}" / f"{number}.jpg").write_bytes(jpeg(number))
    built = build(source, tmp_path / "built", "--size", "32", "--labels", "folders", "--holdout", "0")
    found = index(tmp_path / "set", built.folder, "--labels", "json:label", "--holdout", "0")
    assert found.classes == built.classes
    assert sorted(pictures(found).values()) == sorted(pictures(built).values())
    assert json.loads((tmp_path / "set" / "index.json").read_text())["shards_at"] == str(built.folder)
