"""Every kind of picture, and of file that is none, through shards.images.decode."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms, features

from shards.exclusion import REASONS, Excluded
from shards.images.decode import Picture, decode_image
from shards.images.decoding import Decoding
from shards.images.fit import Fit
from shards.images.pillow import decodable_formats

PLAIN = Decoding(size=(8, 8), fit="crop", background=(255, 255, 255), scaled_decode=4, max_pixels=1 << 24, min_size=2)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def saved(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def color(data: bytes, settings: Decoding = PLAIN) -> tuple[int, ...]:
    """Return the one colour of a picture that has just one."""
    pixels = decode_image(data, settings).pixels
    assert pixels.shape == (*settings.size, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == pixels[0, 0]).all()
    return tuple(pixels[0, 0].tolist())


def reason(data: bytes, settings: Decoding = PLAIN) -> str:
    with pytest.raises(Excluded) as error:
        decode_image(data, settings)
    assert error.value.reason in REASONS
    assert error.value.detail
    return error.value.reason


def photograph(width: int = 640, height: int = 480) -> Image.Image:
    """Return a smooth picture with some texture."""
    y, x = np.mgrid[:height, :width]
    planes = [127 + 100 * np.sin(x / 37 + c) * np.cos(y / 29 - c) + 20 * np.sin(x * y / 999) for c in range(3)]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("L", 77, (77, 77, 77)),
        ("1", 255, WHITE),
        ("1", 0, (0, 0, 0)),
        ("LA", (0, 255), (0, 0, 0)),
        ("LA", (0, 51), (204, 204, 204)),
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (255, 0, 0, 0), WHITE),
        ("RGBA", (255, 0, 0, 51), (255, 204, 204)),
        ("I;16", 0x80FF, (128, 128, 128)),
        ("I;16", 65535, WHITE),
        ("I;16", 300, (1, 1, 1)),
    ],
)
def test_modes_of_png(mode: str, value: float | tuple[int, ...], expected: tuple[int, ...]) -> None:
    image = Image.new(mode, (20, 12), value)
    assert color(saved(image)) == expected
    assert decode_image(saved(image), PLAIN).mode == mode


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("CMYK", (0, 255, 255, 0), RED),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("YCbCr", (76, 85, 255), (254, 0, 0)),
        ("I;16B", 0x4000, (64, 64, 64)),
        ("I", 65535, WHITE),
        ("F", 0.5, (128, 128, 128)),
        ("F", 100.0, (100, 100, 100)),
        ("RGBX", (1, 2, 3, 0), (1, 2, 3)),
    ],
)
def test_modes_of_tiff(mode: str, value: float | tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert color(saved(Image.new(mode, (20, 12), value), "TIFF")) == expected


def test_lab() -> None:
    for value, expected in (((255, 128, 128), WHITE), ((138, 209, 198), RED)):
        assert np.abs(np.array(color(saved(Image.new("LAB", (20, 12), value), "TIFF"))) - expected).max() <= 6


def test_wide_values_are_spread_and_never_clipped() -> None:
    values = np.linspace(-5e5, 5e5, 8 * 8, dtype=np.float32).reshape(8, 8)
    pixels = decode_image(saved(Image.fromarray(values), "TIFF"), PLAIN).pixels
    assert (pixels[0, 0, 0], pixels[-1, -1, 0]) == (0, 255)
    assert len(np.unique(pixels)) == 64
    values[3, 3] = np.nan
    assert reason(saved(Image.fromarray(values), "TIFF")) == "damaged"


def test_palettes() -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([*RED, *BLUE])
    assert color(saved(image)) == BLUE
    assert color(saved(image, transparency=1)) == WHITE
    assert color(saved(image, "GIF", transparency=1), replace(PLAIN, background=GREEN)) == GREEN
    assert color(saved(image, transparency=bytes([255, 51]))) == (204, 204, 255)  # an alpha for each colour


def test_one_transparent_color() -> None:
    assert color(saved(Image.new("RGB", (9, 9), RED), transparency=RED), replace(PLAIN, background=BLUE)) == BLUE
    assert color(saved(Image.new("L", (9, 9), 3), transparency=3), replace(PLAIN, background=BLUE)) == BLUE
    assert color(saved(Image.new("RGB", (9, 9), RED), transparency=BLUE)) == RED


def test_hidden_colors_do_not_bleed() -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))  # transparent red
    image.paste((0, 0, 255, 255), (0, 0, 32, 64))
    pixels = decode_image(saved(image), PLAIN).pixels.astype(int)
    assert (pixels[:, :, 0] - pixels[:, :, 1]).max() <= 0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_exif_orientation(orientation: int, format: str) -> None:
    upright = photograph(96, 64)
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # Pillow's transpositions
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {} if format in ("PNG", "TIFF") else {"quality": 95}
    picture = decode_image(saved(stored, format, exif=exif, **options), replace(PLAIN, fit="stretch", size=(32, 32)))
    expected = np.asarray(upright.resize((32, 32), Image.Resampling.LANCZOS))
    assert (picture.width, picture.height) == (96, 64)
    assert np.abs(picture.pixels.astype(int) - expected).mean() < 3


def test_damaged_exif_does_no_harm() -> None:
    assert color(saved(Image.new("RGB", (9, 9), BLUE), exif=b"Exif\0\0MM\0*garbage")) == BLUE


def swapped_profile() -> bytes:
    """Return a profile whose red is sRGB's green and the other way around."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"s\0R\0G\0B", b"t\0e\0s\0t").replace(b"rXYZ", b"____")
    return profile.replace(b"gXYZ", b"rXYZ").replace(b"____", b"gXYZ")


def test_profiles() -> None:
    image = Image.new("RGB", (9, 9), (200, 50, 50))
    converted = color(saved(image, icc_profile=swapped_profile()))
    assert np.abs(np.array(converted) - (50, 200, 50)).max() <= 2
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert color(saved(image, icc_profile=srgb)) == (200, 50, 50)
    assert color(saved(image, icc_profile=b"no profile")) == (200, 50, 50)
    transparent = Image.new("RGBA", (9, 9), (200, 50, 50, 0))
    assert color(saved(transparent, icc_profile=swapped_profile())) == WHITE
    grey = Image.new("L", (9, 9), 90)
    assert color(saved(grey, icc_profile=swapped_profile())) == (90, 90, 90)


def test_animations_give_their_first_frame() -> None:
    frames = [Image.new("RGB", (16, 16), shade) for shade in (RED, GREEN, BLUE)]
    for format in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if format == "WEBP" else {}
        assert color(saved(frames[0], format, save_all=True, append_images=frames[1:], **options)) == RED


def test_many_formats() -> None:
    for format in ("BMP", "DDS", "DIB", "ICNS", "ICO", "JPEG2000", "PCX", "PPM", "SGI", "TGA", "QOI"):
        picture = decode_image(saved(Image.new("RGB", (128, 128), (240, 16, 32)), format), PLAIN)
        assert picture.format == format
        assert np.abs(picture.pixels[0, 0].astype(int) - (240, 16, 32)).max() <= 2, format
    assert features.check("avif")
    assert "EPS" not in decodable_formats()
    assert reason(saved(Image.new("RGB", (20, 20)), "EPS")) == "unsupported"


def test_content_decides_and_not_the_name() -> None:
    assert decode_image(saved(Image.new("RGB", (20, 20)), "JPEG"), PLAIN).format == "JPEG"
    assert reason(b"a diary named .jpg, with more than a few words in it") == "not_an_image"


def test_truncation() -> None:
    for format in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"):
        data = saved(photograph(), format)
        for share in (0.0, 0.001, 0.3, 0.6, 0.9):
            found = reason(data[: int(len(data) * share)])
            assert found in ("empty", "not_an_image", "truncated"), (format, share)
    data = saved(photograph(), "JPEG")
    assert reason(data[: len(data) // 2]) == "truncated"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "AVIF", "ICO", "TGA"])
def test_flipped_bytes_never_crash(format: str) -> None:
    data = saved(photograph(64, 64), format)
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for place in random.integers(0, len(data), 4):
            damaged[place] = random.integers(0, 256)
        try:
            picture: Picture | None = decode_image(bytes(damaged), PLAIN)
        except Excluded as error:
            picture = None
            assert error.reason in REASONS  # noqa: PT017  # either outcome is right
        assert picture is None or picture.pixels.shape == (8, 8, 3)


def png_of(width: int, height: int, rows: bytes) -> bytes:
    """Return a PNG whose header says what it likes."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT" + zlib.compress(rows), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def test_bombs() -> None:
    assert reason(png_of(100_000, 100_000, b"")) == "too_many_pixels"
    assert reason(png_of(5000, 5000, b"")) == "too_many_pixels"
    assert reason(saved(photograph(), "GIF"), replace(PLAIN, max_pixels=640 * 480 - 1)) == "too_many_pixels"
    assert decode_image(saved(photograph(), "GIF"), replace(PLAIN, max_pixels=640 * 480)).width == 640
    beyond_pillow = png_of(18_000, 9_950, bytes(18_001 * 9_950))  # more than Pillow's own limit
    assert color(beyond_pillow, replace(PLAIN, max_pixels=1 << 28)) == (0, 0, 0)


def test_small_pictures() -> None:
    assert reason(saved(Image.new("RGB", (1, 50)))) == "too_small"
    assert color(saved(Image.new("RGB", (2, 2), BLUE))) == BLUE  # enlarged


def test_fit() -> None:
    image = Image.new("RGB", (48, 16), RED)
    image.paste(BLUE, (16, 0, 32, 16))
    data = saved(image)
    assert (decode_image(data, PLAIN).pixels[:, 3:5] == BLUE).all()  # the filter looks beyond the edge of the crop
    stretched = decode_image(data, replace(PLAIN, fit="stretch", size=(24, 24))).pixels
    assert stretched[5, 2].tolist() == list(RED)
    assert stretched[5, 12].tolist() == list(BLUE)
    padded = decode_image(data, replace(PLAIN, fit="pad", size=(24, 24), background=GREEN)).pixels
    assert (padded[[0, 7, 16, 23]] == GREEN).all()
    assert padded[12, 12].tolist() == list(BLUE)
    line = decode_image(saved(Image.new("RGB", (2000, 2), RED)), replace(PLAIN, fit="pad")).pixels
    assert (line == RED).all(-1).sum() == 8


def psnr(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


@pytest.mark.parametrize("width", [640, 643, 1001])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_scaled_decoding_is_close_to_full_decoding(fit: Fit, width: int) -> None:
    for format in ("JPEG", "PNG"):
        data = saved(photograph(width, 479), format)
        settings = replace(PLAIN, fit=fit, size=(32, 32))
        full = decode_image(data, replace(settings, scaled_decode=0)).pixels
        assert psnr(decode_image(data, replace(settings, scaled_decode=4)).pixels, full) > 45
        assert psnr(decode_image(data, replace(settings, scaled_decode=1)).pixels, full) > 25


def test_full_decoding_is_plain_lanczos() -> None:
    image = photograph(200, 120)
    expected = image.resize((8, 8), Image.Resampling.LANCZOS, (40, 0, 160, 120))
    assert np.array_equal(decode_image(saved(image), replace(PLAIN, scaled_decode=0)).pixels, np.asarray(expected))


def test_large_pictures_are_converted_in_strips() -> None:
    image = photograph(2500, 2000).convert("RGBA")
    image.putalpha(200)
    whole = Image.new("RGB", image.size, PLAIN.background)
    whole.paste(image, mask=image.getchannel("A"))
    expected = whole.resize((8, 8), Image.Resampling.LANCZOS, (250, 0, 2250, 2000))
    assert np.array_equal(
        decode_image(saved(image, "TIFF"), replace(PLAIN, scaled_decode=0)).pixels, np.asarray(expected)
    )
    assert psnr(decode_image(saved(image, "TIFF"), PLAIN).pixels, np.asarray(expected)) > 40


def test_memory_of_large_pictures() -> None:
    program = """
import io, resource, struct, sys, zlib
from tests.test_shards_decode import PLAIN, png_of
from dataclasses import replace
from shards.images.decode import decode_image
data = png_of(12_000, 9_000, bytes(12_001 * 9_000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decode_image(data, replace(PLAIN, max_pixels=1 << 28))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 250_000  # kB; the picture itself is 108 MB
