"""`shards build --size 16 24x32 64`: the datasets of several sizes in one pass are those of a build each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main
from shards.building.interruption import BuildStopped
from shards.images import frame
from shards.images.decode import decode_image
from shards.images.frame import Frames
from tests.made_sources import digests, said_by
from tests.test_shards_shapes import WIDE, saved, scene

SIZES = ("16", "24x32", "64")
OPTIONS = ("--labels", "folders", "--holdout", "0.3", "--shard-samples", "5", "--deduplicate", "near")


def kinds(folder: Path) -> Path:
    """Make pictures of all kinds that are decoded in their own way, each larger than some of the sizes."""
    exif = Image.Exif()
    exif[274] = 6
    wide, cmyk = scene(150, 400), scene(90, 300).convert("CMYK")
    deep = Image.fromarray(np.random.default_rng(0).integers(0, 4096, (70, 90), dtype=np.uint16))
    faded = scene(200, 100).convert("RGBA")
    faded.putalpha(Image.linear_gradient("L").resize(faded.size))
    made = {
        "a/wide.jpg": saved(wide, "JPEG"),
        "a/large.jpg": saved(scene(900, 1200), "JPEG"),
        "a/lying.jpg": saved(wide, "JPEG", exif=exif),
        "a/cmyk.jpg": saved(cmyk, "JPEG"),
        "a/progressive.jpg": saved(scene(800, 640), "JPEG", progressive=True),
        "b/faded.png": saved(faded, "PNG"),
        "b/again.png": saved(faded, "PNG"),
        "b/large.png": saved(scene(600, 700), "PNG"),
        "b/deep.tif": saved(deep, "TIFF"),
        "b/lying.tif": saved(wide, "TIFF", exif=exif),
        "b/picture.webp": saved(scene(300, 200), "WEBP"),
        "c/palette.gif": saved(wide.quantize(16), "GIF"),
        "c/cut.jpg": saved(wide, "JPEG")[:2000],
        "c/cut.png": saved(wide, "PNG")[:20_000],
        "c/tiny.png": saved(scene(8, 8), "PNG"),
        "c/notes.txt": b"not a picture",
    }
    made |= {f"d/{number}.png": saved(scene(60 + number, 80), "PNG") for number in range(8)}
    for name, data in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kinds(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def alone(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Return the digests of all files of a build of each size by itself."""
    out = tmp_path_factory.mktemp("alone")
    for size in SIZES:
        assert main(["build", str(source), "--out", str(out / size), "--size", size, *OPTIONS, "--workers", "1"]) == 0
    return {size: digests(out / size) for size in SIZES}


def together(source: Path, out: Path, *options: str, sizes: tuple[str, ...] = SIZES) -> list[str]:
    return ["build", str(source), "--out", str(out), "--size", *sizes, *OPTIONS, *options]


@pytest.mark.parametrize("workers", ["1", "3"])
def test_several_sizes_are_those_of_a_build_each(
    workers: str, source: Path, alone: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    assert main(together(source, tmp_path, "--workers", workers)) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(SIZES)
    for size in SIZES:
        assert digests(tmp_path / size) == alone[size]


def test_a_kill_at_any_moment_and_other_workers_change_nothing(
    source: Path, alone: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "shards", *together(source, tmp_path, "--workers", "2")]
    for delay in (1.2, 1.8, 2.4):  # about where imports end, tasks are done, and the first size is complete
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(delay)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        command = [*command, "--resume"] if "--resume" not in command else command
    assert main(together(source, tmp_path, "--workers", "1", "--resume")) == 0
    assert {size: digests(tmp_path / size) for size in SIZES} == alone


def test_a_size_that_is_finished_stays_when_the_others_are_resumed(
    source: Path, alone: dict[str, dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from shards.building.finalize import finalize_dataset

    def interrupt_the_second(build_db: object, folders: object, target: object, *rest: object) -> object:
        if str(tmp_path / "24x32") in str(folders):
            raise BuildStopped("interrupted")
        return finalize_dataset(build_db, folders, target, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.building.phases.finalize_dataset", interrupt_the_second)
        assert main(together(source, tmp_path, "--workers", "1")) == 75
    before = (tmp_path / "16" / "index.json").stat().st_mtime_ns
    capsys.readouterr()
    assert main(together(source, tmp_path, "--workers", "1", "--resume")) == 0
    assert f"{tmp_path / '16'} is complete" in capsys.readouterr().out
    assert (tmp_path / "16" / "index.json").stat().st_mtime_ns == before
    assert {size: digests(tmp_path / size) for size in SIZES} == alone
    assert main(together(source, tmp_path, "--resume")) == 0  # nothing is left to do


def test_a_picture_is_decoded_once_where_the_sizes_allow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """JPEGs are loaded at a half, a quarter or an eighth where that is enough, so they may need several frames."""
    loaded, real = list[int](), frame.load_pixels

    def load(*given: Any) -> Image.Image:
        loaded.append(1)
        return real(*given)

    monkeypatch.setattr(frame, "load_pixels", load)
    for data, expected in (
        (saved(scene(600, 700), "PNG"), 1),
        (saved(scene(100, 120), "JPEG"), 2),
        (saved(scene(900, 1200), "JPEG"), 3),
    ):
        frames: Frames = {}
        loaded.clear()
        for size in (16, 64, 128):
            wanted = replace(WIDE, size=(size, size), scaled_decode=3)
            alone = decode_image(data, wanted).pixels
            loaded.pop()  # that of the picture alone
            assert np.array_equal(decode_image(data, wanted, frames).pixels, alone)
        assert len(loaded) == expected


def test_sizes_that_cannot_be_are_refused(source: Path, tmp_path: Path) -> None:
    refusals = {
        ("16", "16x16"): "--size names 16 twice: name it once",
        ("16", "wide"): "--size: ",
        (): "--size names no size: give at least one, such as 64",
    }
    for sizes, said in refusals.items():
        done = said_by(*together(source, tmp_path, sizes=sizes))
        assert said in done
    assert not [*tmp_path.iterdir()]
