"""Unusual but legal pictures: each is read as it is meant, or its true reason is named; what was guessed is told."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from shards.__main__ import main
from shards.exclusion import NOTES, Excluded
from shards.images.decode import decode_image
from tests.test_shards_damage import chunk, with_chunks
from tests.test_shards_decode import PLAIN, photograph, saved

Array = npt.NDArray[np.generic]
RAMP = np.linspace(0.0, 1.0, 256).reshape(16, 16, 1)
BRIGHT, DARK = 246, 9  # the corners of RAMP, after it is filtered to 8 x 8


def tiff(pixels: Array, order: str = "<", tile: int = 0, separate: bool = False, **changes: list[int]) -> bytes:
    """Write a TIFF of (height, width, channels) pixels without compression; BigTIFF for order "<<" and ">>".

    Args:
        pixels: of any type.
        order: of the bytes.
        tile: side of the tiles; 0: one strip.
        separate: whether each channel has a plane.
        changes: other values of tags, named by "tag" and their number.
    """
    height, width, channels = pixels.shape
    big, order = len(order) == 2, order[0]
    byte_order: Literal["<", ">"] = "<" if order == "<" else ">"
    planes = np.split(pixels, channels, 2) if separate else [pixels]
    side = tile or max(height, width)
    pieces = []
    for plane in planes:
        for y in range(0, height, side):
            for x in range(0, width, side):
                piece = plane[y : y + side, x : x + side]
                if tile:
                    missing = [(0, tile - piece.shape[0]), (0, tile - piece.shape[1]), (0, 0)]
                    piece = np.pad(piece, missing)
                pieces.append(np.ascontiguousarray(piece).astype(pixels.dtype.newbyteorder(byte_order)).tobytes())
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    start, body = 16 if big else 8, b"".join(pieces)
    offsets = [start + sum(map(len, pieces[:i])) for i in range(len(pieces))]
    colors = 3 if channels >= 3 else 1
    tags = {
        256: [width],
        257: [height],
        258: [pixels.dtype.itemsize * 8] * channels,
        259: [1],
        262: [2 if colors == 3 else 1],
    }
    tags |= {277: [channels], 284: [1 + separate], 339: [kind] * channels}
    tags |= {322: [tile], 323: [tile], 324: offsets} if tile else {273: offsets, 278: [height]}
    tags[325 if tile else 279] = [len(piece) for piece in pieces]
    if channels > colors:
        tags[338] = [0] * (channels - colors)
    tags |= {int(name[3:]): values for name, values in changes.items()}
    return directory(order, big, start, body, tags)


def directory(order: str, big: bool, start: int, body: bytes, tags: dict[int, list[int]]) -> bytes:
    """Put header and tags around the pixels of a TIFF."""
    word, head, entry = ("Q", "Q", "HHQ") if big else ("I", "H", "HHI")
    size = struct.calcsize(word)
    after = start + len(body) + struct.calcsize(order + head) + len(tags) * struct.calcsize(order + entry + word) + size
    entries = extra = b""
    for tag, values in sorted(tags.items()):
        data = struct.pack(f"{order}{len(values)}I", *values)
        if len(data) > size:
            data, extra = struct.pack(order + word, after + len(extra)), extra + data
        entries += struct.pack(order + entry, tag, 4, len(values)) + data.ljust(size, b"\0")
    mark = b"II" if order == "<" else b"MM"
    first = (
        struct.pack(order + "HHHQ", 43, 8, 0, start + len(body))
        if big
        else struct.pack(order + "HI", 42, start + len(body))
    )
    return mark + first + body + struct.pack(order + head, len(tags)) + entries + bytes(size) + extra


def corners(data: bytes) -> tuple[int, int]:
    pixels = decode_image(data, PLAIN).pixels
    return int(pixels[0, 0, 0]), int(pixels[-1, -1, 0])


def why_not(data: bytes) -> tuple[str, str]:
    with pytest.raises(Excluded) as error:
        decode_image(data, PLAIN)
    return error.value.reason, error.value.detail


def ramp(kind: str, high: float, channels: int = 1, low: float = 0) -> Array:
    return (low + RAMP * (high - low)).repeat(channels, 2).astype(kind)


@pytest.mark.parametrize("order", ["<", ">", "<<"])
@pytest.mark.parametrize("tile", [0, 16, 48])
def test_tiffs_of_all_orders_and_tiles(order: str, tile: int) -> None:
    for pixels in (ramp("u1", 255), ramp("u1", 255, 3), ramp("u2", 65535), ramp("u2", 65535, 3), ramp("f4", 1)):
        assert corners(tiff(pixels, order, tile)) == (DARK, BRIGHT), pixels.dtype


@pytest.mark.parametrize(
    ("pixels", "notes"),
    [
        (ramp("u2", 65535), {"scaled"}),
        (ramp("u2", 4095), {"twelve_bits"}),
        (ramp("u4", 2**32 - 1), {"spread"}),
        (ramp("i2", 32767, low=-32768), {"spread"}),
        (ramp("i4", 2**31 - 1, low=-(2**31)), {"spread"}),
        (ramp("f4", 1), {"scaled"}),
        (ramp("f4", 255), {"scaled"}),
        (ramp("f4", 1e6, low=-1e6), {"spread"}),
        (ramp("u1", 255, 5), {"extra_channels"}),
        (ramp("u1", 255, 2), {"extra_channels"}),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, np.ndarray) else None,
)
def test_values_of_tiffs_and_what_is_told_of_them(pixels: Array, notes: set[str]) -> None:
    assert corners(tiff(pixels)) == (DARK, BRIGHT)
    assert decode_image(tiff(pixels), PLAIN).notes == notes


def test_white_is_zero() -> None:
    for pixels in (ramp("u1", 255), ramp("u2", 65535), ramp("f4", 1), ramp("u2", 4095)):
        assert corners(tiff(pixels, tag262=[0])) == (BRIGHT, DARK)


def test_planes_of_eight_bits() -> None:
    colors = np.stack([ramp("u1", 255)[:, :, 0], np.zeros((16, 16)), np.full((16, 16), 77)], -1).astype("u1")
    separate, together = (decode_image(tiff(colors, separate=each), PLAIN).pixels for each in (True, False))
    assert np.array_equal(separate, together)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (tiff(ramp("f2", 1)), "BitsPerSample (16,), SampleFormat (3,)"),
        (tiff(ramp("f8", 1)), "BitsPerSample (64,)"),
        (tiff(ramp("f4", 1, 3)), "SamplesPerPixel 3, BitsPerSample (32, 32, 32)"),
        (tiff(ramp("u2", 65535, 6)), "SamplesPerPixel 6"),
        (tiff(ramp("u2", 65535, 3), separate=True), "PlanarConfiguration 2"),
        (tiff(ramp("i1", 127, low=-128)), "SampleFormat (2,)"),
        (tiff(ramp("u2", 4095, 3)), "12 bits in 16"),
        (tiff(ramp("u1", 255, 3), ">>"), "BigTIFF in big-endian order"),
        (tiff(ramp("u1", 255, 3), tag259=[50002]), "Compression 50002"),
        (tiff(ramp("u1", 255), tag262=[32803]), "PhotometricInterpretation 32803"),
        (tiff(ramp("u1", 255, 3), tag50706=[0x01040000]), "a camera's raw file"),
        (tiff(ramp("u1", 255, 3), tag254=[1], tag330=[8]), "a camera's raw file"),
        (tiff(ramp("u1", 255, 3), tag262=[6], tag530=[2, 2]), "PhotometricInterpretation 6"),
    ],
)
def test_variants_of_tiff_that_cannot_be_read_are_named(data: bytes, name: str) -> None:
    reason, detail = why_not(data)
    assert reason == "unsupported"
    assert name in detail


def test_texts_and_profiles_of_any_length_in_a_png() -> None:
    image = photograph()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data, expected = saved(image), decode_image(saved(image), PLAIN).pixels
    text = chunk(b"zTXt", b"key\0\0" + zlib.compress(b"a" * 1_000_000))
    bomb = chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(100 << 20)))
    assert decode_image(saved(image, icc_profile=profile + bytes(3 << 20)), PLAIN).notes == frozenset()
    for odd in (with_chunks(data, text), with_chunks(data, *[text] * 80), with_chunks(data, bomb), data[:-12] + bomb):
        picture = decode_image(odd, PLAIN)
        assert np.array_equal(picture.pixels, expected)
        assert picture.notes <= {"extras_ignored"}


def test_huge_metadata_of_jpeg_and_webp() -> None:
    image = photograph(96, 64)
    jpeg = saved(image, "JPEG")
    crowded = jpeg[:2] + (b"\xff\xe2\xff\xff" + bytes(65533)) * 100 + jpeg[2:]
    assert np.array_equal(decode_image(crowded, PLAIN).pixels, decode_image(jpeg, PLAIN).pixels)
    webp = [saved(image, "WEBP", lossless=True, xmp=text) for text in (b"", b"x" * (5 << 20))]
    assert np.array_equal(decode_image(webp[0], PLAIN).pixels, decode_image(webp[1], PLAIN).pixels)


@pytest.mark.parametrize("bits", [1, 2, 4, 16])
def test_pngs_of_all_depths(bits: int) -> None:
    rows = (b"\0" + b"\xff" * (2 * bits)) * 16
    header = struct.pack(">IIBBBBB", 16, 16, bits, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert (decode_image(data, PLAIN).pixels == 255).all()
    transparent = with_chunks(data, chunk(b"tRNS", struct.pack(">H", (1 << bits) - 1)))
    assert (decode_image(transparent, replace(PLAIN, background=(1, 2, 3))).pixels == (1, 2, 3)).all()


def test_a_transparent_color_of_sixteen_bits() -> None:
    header = struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)
    color = struct.pack(">HHH", 0x1234, 0x5678, 0x9ABC)
    rows = chunk(b"IDAT", zlib.compress((b"\0" + color * 16) * 16))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"tRNS", color) + rows + chunk(b"IEND", b"")
    assert (decode_image(data, replace(PLAIN, background=(1, 2, 3))).pixels == (1, 2, 3)).all()


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_animations_the_first_frame_is_told(format: str) -> None:
    frames = [photograph(64, 48), photograph(64, 48).rotate(180)]
    data = saved(frames[0], format, save_all=True, append_images=frames[1:])
    assert decode_image(data, PLAIN).notes == {"first_frame"}
    assert decode_image(saved(frames[0], format), PLAIN).notes == frozenset()
    assert decode_image(saved(frames[0], "MPO", save_all=True, append_images=frames[1:]), PLAIN).notes == frozenset()


def test_profiles_that_do_not_fit_are_told() -> None:
    image = photograph(64, 48)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert decode_image(saved(image, icc_profile=profile), PLAIN).notes == {"profile_ignored"}
    assert decode_image(saved(image, icc_profile=b"no profile"), PLAIN).notes == {"profile_ignored"}
    assert decode_image(saved(image.convert("CMYK"), "JPEG"), PLAIN).notes == {"cmyk_by_formula"}


@pytest.mark.parametrize(
    ("data", "reason", "name"),
    [
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(30), "unsupported", "raw file (Canon)"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0" + bytes(99), "unsupported", "raw file"),
        (b"8BPS\0\2" + bytes(100), "unsupported", "PSB"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported", "SVG"),
        (b"%PDF-1.4 and so on", "unsupported", "PDF"),
        (b"\x93NUMPY\1\0" + bytes(100), "unsupported", "NumPy"),
        (b"PK\3\4" + bytes(100) + b"x", "not_an_image", "archive (zip)"),
        (bytes(257) + b"ustar\0" + bytes(300), "not_an_image", "archive (tar)"),
        (b"Rar!\x1a\7" + bytes(100), "not_an_image", "archive (RAR)"),
        (b"<!DOCTYPE html><html><body>403 Forbidden", "not_an_image", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "not_an_image", "Git LFS"),
        (b'{"a": [1, 2]}', "not_an_image", "a text"),
        ("ein Tagebuch von Müller".encode(), "not_an_image", "a text"),
        (bytes(3000), "damaged", "3000 zero bytes"),
        (bytes(range(1, 256)), "not_an_image", "starts with"),
    ],
)
def test_what_is_no_picture_that_can_be_read_is_named(data: bytes, reason: str, name: str) -> None:
    assert why_not(data)[0] == reason
    assert name in why_not(data)[1]


def test_the_advice_to_unpack_an_archive(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "plain.png").write_bytes(saved(photograph()))
    with zipfile.ZipFile(source / "more.zip", "w") as archive:
        archive.writestr("packed.png", saved(photograph()))
    told = [*map(json.loads, build(source, tmp_path / "a").joinpath("excluded.jsonl").read_text().splitlines())]
    assert [(line["file"], line["detail"].rpartition(": ")[2]) for line in told] == [("more.zip", "unpack it")]
    shutil.unpack_archive(source / "more.zip", source)
    content = json.loads(build(source, tmp_path / "b").joinpath("index.json").read_text())
    assert sum(split["samples"] for split in content["splits"].values()) == 2


def build(source: Path, out: Path) -> Path:
    assert main(["build", str(source), "--out", str(out), "--workers", "1", "--holdout", "0"]) == 0
    return out


def test_a_png_of_apple_is_named() -> None:
    header, rows = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0), (b"\0" + bytes(48)) * 16
    packer = zlib.compressobj(wbits=-15)  # without the header and the checksum of zlib
    pixels = chunk(b"IDAT", packer.compress(rows) + packer.flush())
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"CgBI", bytes(4)) + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")
    assert why_not(data) == ("unsupported", "a PNG as Apple packs it for its devices (CgBI)")


def test_variants_of_jpeg_that_cannot_be_read_are_named() -> None:
    data = bytearray(saved(photograph(), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    assert why_not(bytes(data)) == ("unsupported", "JPEG: cannot handle 12-bit layers")


def test_the_summary_and_the_index_tell_what_was_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, plain = tmp_path / "source", tmp_path / "plain"
    for folder in source, plain:
        folder.mkdir()
        for i in range(3):
            (folder / f"{i}.png").write_bytes(saved(photograph(64, 48 + i)))
    for i in range(2):
        (source / f"wide {i}.tif").write_bytes(tiff(ramp("u2", 4095)))
    (source / "more.gif").write_bytes(saved(photograph(), "GIF", save_all=True, append_images=[photograph().rotate(9)]))
    for folder in source, plain:
        build(folder, Path(f"{folder} out"))
    out = capsys.readouterr().out
    assert f"noted of 2: {NOTES['twelve_bits']}" in out
    assert f"noted of 1: {NOTES['first_frame']}" in out
    statistics = [
        json.loads(Path(f"{folder} out", "index.json").read_text())["statistics"] for folder in (source, plain)
    ]
    assert statistics[0]["noted"] == {"first_frame": 1, "twelve_bits": 2}
    assert "noted" not in statistics[1]


def test_grey_with_alpha_of_a_tiff() -> None:
    pixels = np.full((16, 16, 2), 255, "u1")
    pixels[:, :, 1] = 0
    assert (decode_image(tiff(pixels, tag338=[2]), replace(PLAIN, background=(9, 8, 7))).pixels == (9, 8, 7)).all()


def test_profile_and_orientation_survive_the_loss_of_extras() -> None:
    image, exif = photograph(96, 64), Image.Exif()
    exif[0x0112] = 6
    good = saved(image, exif=exif)
    odd = decode_image(with_chunks(good, chunk(b"tEXt", b"a\0b", crc=1)), PLAIN)
    assert (odd.width, odd.height) == (64, 96)
    assert np.array_equal(odd.pixels, decode_image(good, PLAIN).pixels)
