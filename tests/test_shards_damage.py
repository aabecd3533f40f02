"""Damage inside of pictures: what is noticed of it, what is let through, and that good pictures keep their bits."""

from __future__ import annotations

import contextlib
import io
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from shards.exclusion import NOTES, REASONS, Excluded
from shards.images.decode import decode_image
from tests.test_shards_decode import PLAIN, photograph, reason, saved

END = b"\xff\xd9"
FULL = replace(PLAIN, scaled_decode=0, size=(64, 64))


def noisy(width: int = 320, height: int = 240, seed: int = 0) -> Image.Image:
    """Return a picture with texture everywhere, so that each part of its file matters."""
    noise = np.random.default_rng(seed).normal(0, 25, (height, width, 3))
    return Image.fromarray((np.asarray(photograph(width, height)) + noise).clip(0, 255).astype(np.uint8))


def scan_of(data: bytes) -> int:
    """Return where the compressed pixels of a JPEG begin."""
    return data.index(b"\xff\xda") + 14


def hole(data: bytes, random: np.random.Generator) -> bytes:
    place = int(random.integers(scan_of(data), len(data) - 1100))
    return data[:place] + bytes(1024) + data[place + 1024 :]


def flips(data: bytes, random: np.random.Generator) -> bytes:
    damaged = bytearray(data)
    for place in random.integers(scan_of(data), len(data) - 2, 40):
        damaged[place] ^= int(random.integers(1, 256))
    return bytes(damaged)


def cut_with_an_end(data: bytes, random: np.random.Generator) -> bytes:
    return data[: random.integers(scan_of(data), len(data) - 100)] + END


@pytest.mark.parametrize("damage", [hole, flips, cut_with_an_end])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}], ids=str)
def test_damage_inside_of_jpegs(
    damage: Callable[[bytes, np.random.Generator], bytes], options: dict[str, object]
) -> None:
    random = np.random.default_rng(0)
    found = []
    for seed in range(10):
        data = saved(noisy(seed=seed), "JPEG", quality=85, **options)
        assert decode_image(data, PLAIN).notes == frozenset()
        try:
            decode_image(damage(data, random), PLAIN)
        except Excluded as error:
            found.append((error.reason, error.detail))
    assert len(found) >= 9
    assert {reason for reason, _ in found} <= {"damaged", "truncated"}
    assert all(detail for _, detail in found)


def test_damage_inside_of_grey_and_cmyk_jpegs() -> None:
    for mode in ("L", "CMYK"):
        data = saved(noisy().convert(mode), "JPEG")
        assert decode_image(data, PLAIN).mode == mode
        assert reason(cut_with_an_end(data, np.random.default_rng(0))) == "damaged"


def test_stray_bytes_do_not_harm_a_jpeg() -> None:
    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 4}):
        data = saved(noisy(), "JPEG", **options)
        expected = decode_image(data, PLAIN).pixels
        for stray in (bytes(30), b"\xfe" * 30, b"\x17" * 1000):
            for odd in (data[:-2] + stray + END, data[:20] + stray + data[20:]):
                picture = decode_image(odd, PLAIN)
                assert np.array_equal(picture.pixels, expected)
                assert picture.notes == {"harmless_warning"}
        assert decode_image(data + b"behind the end", PLAIN).notes == frozenset()


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_an_odd_header_of_a_jpeg_hides_no_damage(mode: str) -> None:
    data = saved(noisy().convert(mode), "JPEG", quality=85)
    for good, odd in ((b"JFIF\0\1", b"JFIF\0\7"), (b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\7")):
        if good in data:
            header = data.replace(good, odd, 1)
            assert decode_image(header, PLAIN).notes >= {"harmless_warning"}
            assert reason(cut_with_an_end(header, np.random.default_rng(0))) == "damaged"
    stray = data[:20] + b"stray" + data[20:]
    assert reason(cut_with_an_end(stray, np.random.default_rng(0))) == "damaged"


def test_pixels_left_over_are_no_stray_bytes() -> None:
    """Damage that makes the decoder lose its place ends the picture early: what is left of it is no filling."""
    found = 0
    for seed in range(20):
        data = saved(noisy(96, 64, seed), "JPEG", quality=90)
        place = scan_of(data) + 400
        shifted = data[:place] + data[place + 1 + seed :]  # bytes are missing
        try:
            simplejpeg.decode_jpeg(shifted)
        except ValueError:
            found += reason(shifted) == "damaged"
    assert found >= 6


def test_a_few_pixels_left_over_are_no_stray_bytes() -> None:
    """So few that they might be anything: the bits before them tell."""
    left_over, found = 0, 0
    for seed in range(4):
        data = saved(photograph(96, 64).rotate(seed), "JPEG", quality=85, subsampling="4:4:4")
        for place in range(scan_of(data) + 50, len(data) - 60, 17):
            damaged = data[:place] + data[place + 2 :]
            try:
                simplejpeg.decode_jpeg(damaged)
            except ValueError as error:
                stray = re.search(r"(\d+) extraneous bytes before marker 0xd9", str(error))
                if stray and int(stray[1]) <= 32:
                    left_over += 1
                    with contextlib.suppress(Excluded):
                        decode_image(damaged, PLAIN)
                        continue
                    found += 1
    assert left_over >= 8
    assert found > left_over / 2


SAMPLINGS: list[dict[str, object]] = [{"subsampling": name} for name in ("4:4:4", "4:2:2", "4:2:0", "4:1:1")]
VARIANTS: list[dict[str, object]] = [{}, {"progressive": True}, {"restart_marker_blocks": 3}, {"quality": 100}]


@pytest.mark.parametrize("sampling", [*SAMPLINGS, "4:4:0", "L", "CMYK"], ids=str)
@pytest.mark.parametrize("scaled_decode", [0, 1, 3])
def test_good_jpegs_have_the_bits_of_pillow(
    sampling: dict[str, object] | str, scaled_decode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for size in ((320, 240), (333, 251), (64, 200), (17, 33), (9, 8), (3, 5)):
        image = noisy(*size)
        if sampling == "4:4:0":
            files.append(simplejpeg.encode_jpeg(np.asarray(image), 80, "RGB", "440"))
            continue
        mode, options = (sampling, {}) if isinstance(sampling, str) else ("RGB", sampling)
        if sampling == SAMPLINGS[0]:
            files.append(saved(image, "JPEG", keep_rgb=True))
        files += [saved(image.convert(mode), "JPEG", **options, **variant) for variant in VARIANTS]
    settings = [
        replace(PLAIN, scaled_decode=scaled_decode, size=(size, size), fit=fit)
        for size in (1, 40)
        for fit in ("crop", "pad")
    ]
    ours = [decode_image(data, each).pixels for data in files for each in settings]
    monkeypatch.setattr("shards.images.jpeg.MAX_COPIED_PIXELS", 0)
    not_copied = [decode_image(data, each).pixels for data in files for each in settings]
    monkeypatch.setattr("shards.images.frame.load_jpeg", lambda *args: (None, None))  # then Pillow decodes
    pillow = [decode_image(data, each).pixels for data in files for each in settings]
    assert all(np.array_equal(a, b) for a, b in zip(ours, pillow, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(not_copied, pillow, strict=True))


def test_jpegs_that_only_pillow_decodes() -> None:
    """Chroma of 3:1, which is written by patching the sampling factors of a grey picture's header into three planes."""
    data = bytearray(saved(photograph(48, 48), "JPEG", subsampling="4:4:4"))
    frame = data.index(b"\xff\xc0")
    data[frame + 11] = 0x31  # three blocks of light beside each other, and one of each colour
    data[frame + 5 : frame + 9] = struct.pack(">HH", 16, 48)
    with pytest.raises(ValueError, match="subsampling"):
        simplejpeg.decode_jpeg(bytes(data))
    with Image.open(io.BytesIO(bytes(data))) as image:
        assert isinstance(image, JpegImageFile)
        expected = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.LANCZOS, (16, 0, 32, 16)))
    assert np.array_equal(decode_image(bytes(data), FULL).pixels, expected)


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    return (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc)
    )


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """Put chunks behind the header of a PNG."""
    return png[:33] + b"".join(chunks) + png[33:]


def test_damage_inside_of_pngs() -> None:
    random = np.random.default_rng(0)
    data = saved(noisy(), "PNG")
    for place in random.integers(60, len(data) - 30, 20):
        flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        assert reason(flipped) == "damaged"
        assert reason(data[:place]) == "truncated"
    assert reason(data[:29] + b"\0\0\0\0" + data[33:]) == "damaged"  # the checksum of the header
    assert np.array_equal(
        decode_image(data[:-12], PLAIN).pixels, decode_image(data, PLAIN).pixels
    )  # only the end mark is missing


def test_damaged_extras_do_not_harm_a_png() -> None:
    data = saved(photograph(), "PNG")
    expected = decode_image(data, PLAIN)
    for extra in (
        chunk(b"tIME", b"1234567", crc=1),
        chunk(b"tEXt", b"a\0text", crc=1),
        chunk(b"gAMA", b"1"),
        chunk(b"tRNS", b"1"),
        chunk(b"iCCP", b"name\0\7" + zlib.compress(b"a method that nobody knows")),
        chunk(b"acTL", b"\0"),
        chunk(b"1\0\2x", b"no name"),
    ):
        picture = decode_image(with_chunks(data, extra), PLAIN)
        assert np.array_equal(picture.pixels, expected.pixels), extra[4:8]
        assert picture.notes == {"extras_ignored"}, extra[4:8]


def replaced(data: bytes, places: range, by: bytes | None = None) -> list[str]:
    """Return what becomes of a file with other bytes, or one that is changed, at each place."""
    found = []
    for place in places:
        new = by or bytes([data[place] ^ 0x55])
        try:
            decode_image(data[:place] + new + data[place + len(new) :], PLAIN)
            found.append("taken")
        except Excluded as error:
            found.append(error.reason)
    return found


@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "tiff_deflate"])
def test_damage_inside_of_deflated_tiffs(compression: str) -> None:
    data = saved(noisy(), "TIFF", compression=compression)
    assert decode_image(data, PLAIN).notes == frozenset()
    found = replaced(data, range(1000, len(data) - 1000, len(data) // 20))
    assert set(found) == {"damaged"}
    place = len(data) // 2
    assert reason(data[:place] + bytes(300) + data[place + 300 :]) == "damaged"
    assert reason(data[:-10]) == "truncated"
    one_strip = saved(photograph(16, 16), "TIFF", compression=compression)
    assert np.array_equal(decode_image(one_strip, PLAIN).pixels, decode_image(saved(photograph(16, 16)), PLAIN).pixels)


def test_damage_inside_of_tiffs_of_jpegs() -> None:
    data = saved(noisy(), "TIFF", compression="jpeg")
    assert decode_image(data, PLAIN).notes == frozenset()
    found = replaced(data, range(1000, len(data) - 1000, 1000), bytes(512))
    assert found.count("damaged") > len(found) / 4


def test_the_detail_has_the_words_of_libtiff(capfd: pytest.CaptureFixture[str]) -> None:
    data = saved(noisy(), "TIFF", compression="tiff_lzw")
    place = len(data) // 2
    with pytest.raises(Excluded, match="LZWDecode"):
        decode_image(data[:place] + bytes(300) + data[place + 300 :], PLAIN)
    assert capfd.readouterr().err == ""  # and they are nowhere else


@pytest.mark.parametrize(
    "format", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "JPEG2000", "PPM", "PCX", "QOI"]
)
def test_a_cut_is_noticed_in_every_format(format: str) -> None:
    data = saved(noisy(), format)
    for share in (0.3, 0.6, 0.95):
        assert reason(data[: int(len(data) * share)]) in ("truncated", "damaged"), share


def test_files_of_zeros_are_damaged() -> None:
    """What a computer that lost its power leaves, and a download that was given its length in advance."""
    assert reason(bytes(5000)) == "damaged"
    for share in (0.1, 0.5, 0.9):
        data = saved(noisy(), "JPEG")
        place = int(len(data) * share)
        assert reason(data[:place] + bytes(len(data) - place)) in ("damaged", "truncated"), share


def test_every_reason_and_note_is_documented() -> None:
    table = re.findall(r"`(\w+)`", Path("docs/data.md").read_text())
    assert set(REASONS) | set(NOTES) <= set(table)
