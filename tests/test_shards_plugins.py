"""HEIC and JPEG XL, which plugins of Pillow read: decoded where these are installed, else named with what is to do."""

from __future__ import annotations

import contextlib
import io
import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main
from shards.exclusion import Excluded
from shards.images.decode import decode_image
from shards.images.plugins import codestream_start, installed_plugins, jxl_size
from tests.made_sources import build, refuse
from tests.test_shards_decode import PLAIN, photograph

FORMATS = ("HEIF", "JXL")
WITHOUT = """
import sys
sys.modules["pillow_heif"] = sys.modules["pillow_jxl"] = None
from shards.exclusion import Excluded
from shards.images.decode import decode_image
from tests.test_shards_decode import PLAIN
for name in sys.argv[1:]:
    try:
        decode_image(open(name, "rb").read(), PLAIN)
    except Excluded as error:
        print(error.reason, error.detail)
"""


def saved_by_plugin(image: Image.Image, format: str, **options: object) -> bytes:
    assert installed_plugins().keys() == set(FORMATS)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_they_are_decoded(format: str, mode: str) -> None:
    image = photograph(96, 64)
    if mode == "RGBA":
        image.putalpha(Image.new("L", image.size, 255))
    elif mode == "L":
        image = image.convert("L")
    picture = decode_image(saved_by_plugin(image, format, quality=95), PLAIN)
    assert (picture.width, picture.height, picture.format) == (96, 64, format)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    exact = decode_image(buffer.getvalue(), PLAIN).pixels
    assert np.abs(picture.pixels.astype(int) - exact).mean() < 4


@pytest.mark.parametrize("format", FORMATS)
def test_they_are_turned_once(format: str) -> None:
    """HEIC has a rotation in its container, to which the plugin brings EXIF; JPEG XL has it beside the pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = photograph(96, 64)
    picture = decode_image(saved_by_plugin(image, format, exif=exif.tobytes(), quality=95), PLAIN)
    expected = image.transpose(Image.Transpose.ROTATE_270) if format == "HEIF" else image
    assert (picture.width, picture.height) == expected.size
    buffer = io.BytesIO()
    expected.save(buffer, "PNG")
    assert np.abs(picture.pixels.astype(int) - decode_image(buffer.getvalue(), PLAIN).pixels).mean() < 4


@pytest.mark.parametrize("format", FORMATS)
def test_damage_is_an_exclusion(format: str) -> None:
    data, draw = saved_by_plugin(photograph(96, 64), format), random.Random(0)
    for length in range(0, len(data) - 1, len(data) // 12):
        with pytest.raises(Excluded):
            decode_image(data[:length], PLAIN)
    for _ in range(60):
        damaged = bytearray(data)
        damaged[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        with contextlib.suppress(Excluded):  # nothing else is raised
            decode_image(bytes(damaged), PLAIN)
    with pytest.raises(Excluded) as caught:
        decode_image(data[: len(data) // 2], PLAIN)
    assert caught.value.reason in ("damaged", "truncated")


@pytest.mark.parametrize("format", FORMATS)
def test_bombs_are_known_before_they_are_decoded(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved_by_plugin(photograph(96, 64), format)
    if format == "JXL":
        monkeypatch.setattr("pillow_jxl.JpegXLImagePlugin.JXLImageFile._open", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(Excluded) as caught:
        decode_image(data, replace(PLAIN, max_pixels=96 * 64 - 1))
    assert caught.value.reason == "too_many_pixels"


@pytest.mark.parametrize("size", [(8, 8), (256, 256), (17, 300), (1000, 600), (400, 300), (161, 90), (3000, 9)])
@pytest.mark.parametrize("container", [False, True])
def test_the_size_of_a_jpeg_xl(size: tuple[int, int], container: bool) -> None:
    data = saved_by_plugin(Image.new("RGB", size), "JXL", use_container=container, effort=1)
    assert (codestream_start(data) == 0) is not container
    assert jxl_size(data) == size
    assert jxl_size(data[:1]) is None
    assert jxl_size(b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a" + bytes(40)) is None


def test_without_the_plugins_the_detail_says_what_to_install(tmp_path: Path) -> None:
    for format in FORMATS:
        (tmp_path / format).write_bytes(saved_by_plugin(photograph(96, 64), format))
    command = [sys.executable, "-c", WITHOUT, *(str(tmp_path / format) for format in FORMATS)]
    home = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "unsupported HEIC (of type 'heic'); pip install lienzo[formats] reads it",
        "unsupported JPEG XL; pip install lienzo[formats] reads it",
    ]


def test_versions_of_used_plugins_are_in_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    photograph(96, 64).save(source / "a.png")
    plain = build(source, tmp_path / "plain", "--holdout", "0")
    assert "plugins" not in plain.content["settings"]
    (source / "b.heic").write_bytes(saved_by_plugin(photograph(96, 64), "HEIF"))
    index = build(source, tmp_path / "out", "--holdout", "0")
    assert index.content["settings"]["plugins"] == {"HEIF": installed_plugins()["HEIF"]}
    assert index.content["statistics"]["formats"] == {"HEIF": 1, "PNG": 1}
    command = ["build", str(source), "--out", str(index.folder), "--size", "16", "--holdout", "0", "--resume"]
    assert main(command) == 0
    other = {"HEIF": "pillow-heif 0.1"}
    monkeypatch.setattr("shards.building.decoding_options.installed_plugins", lambda: other)
    refuse(source, index.folder, "this build began with plugins", *command[4:])
    command[3] = str(plain.path)
    assert main(command) == 0, "it has nothing that a plugin read"
    text = json.loads((index.folder / "index.json").read_text())
    assert next(iter(text["settings"])) == "plugins"
