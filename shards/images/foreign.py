"""Explain why Pillow opens no picture: the reason names the format, so that nobody has to look at the bytes."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator

from PIL import Image, TiffImagePlugin

from shards.exclusion import Excluded
from shards.images.plugins import INSTALL, installed_plugins, is_jxl

# First bytes -> format: pictures that Pillow does not read, and files that are not pictures (OTHER_MAGIC).
PICTURE_MAGIC = {
    b"\xff\x0a": f"JPEG XL{INSTALL}",
    b"\0\0\0\x0cJXL ": f"JPEG XL{INSTALL}",
    b"FUJIFILMCCD-RAW": "a camera's raw file (Fujifilm)",
    b"IIRO": "a camera's raw file (Olympus)",
    b"IIRS": "a camera's raw file (Olympus)",
    b"MMOR": "a camera's raw file (Olympus)",
    b"IIU\0": "a camera's raw file (Panasonic)",
    b"II\xbc\x01": "JPEG XR",
    b"8BPS\0\x02": "a large Photoshop document (PSB)",
    b"gimp xcf": "a GIMP document",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript program",
    b"\xc5\xd0\xd3\xc6": "a PostScript program",
    b"AT&TFORM": "DjVu",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
}
ARCHIVE = "an archive ({}), which is not looked into: unpack it"
OTHER_MAGIC = {
    b"PK\x03\x04": ARCHIVE.format("zip"),
    b"\x1f\x8b": ARCHIVE.format("gzip"),
    b"7z\xbc\xaf\x27\x1c": ARCHIVE.format("7z"),
    b"Rar!": ARCHIVE.format("RAR"),
    b"BZh": ARCHIVE.format("bzip2"),
    b"\xfd7zXZ": ARCHIVE.format("xz"),
    b"\x28\xb5\x2f\xfd": ARCHIVE.format("zstd"),
    b"version https://git-lfs": "a pointer of Git LFS, and not the file itself, which git lfs pull brings",
    b"\x1aE\xdf\xa3": "a film (Matroska, WebM)",
    b"SQLite format 3": "a database",
}
BRANDS = {
    "heic",
    "heix",
    "heim",
    "heis",
    "hevc",
    "hevx",
    "mif1",
    "msf1",
}  # of HEIF containers, mostly with HEVC pictures
UNSUPPORTED = ("unsupported", "not supported", "not yet supported", "unimplemented", "not implemented", "cannot handle",
               "not configured", "unknown", "unable to determine", "wrong mode", "not enough channels")  # fmt: skip
ENDS_EARLY = ("truncated", "end of file", "not enough", "unpack requires", "buffer is not large enough", "incomplete")
BIG_TIFF, WIDTH, HEIGHT = 43, 256, 257  # the version of a BigTIFF; tags
NO_DECODER = (
    "EPS",
    "BUFR",
    "GRIB",
    "HDF5",
    "MPEG",
    "WMF",
)  # formats that Pillow recognizes and cannot decode by itself
TEXT_BYTES = 512  # by which text is recognized


def explain_unreadable(data: bytes) -> Excluded:
    """Return the reason why Pillow opens no picture in these bytes."""
    if not any(data):
        return Excluded("damaged", f"nothing but {len(data)} zero bytes")
    plugin = "JXL" if is_jxl(data) else "HEIF" if match_container(data).startswith("HEIC") else ""
    if plugin in installed_plugins():  # it was tried
        error = next((error for name, error in pillow_errors(data) if name == plugin), None)
        return Excluded(reason_of(error) if error else "damaged", f"{plugin}: {error or 'not recognized'}")
    if what := match_magic(data, PICTURE_MAGIC) or match_container(data):
        return Excluded("unsupported", what)
    if what := match_magic(data, OTHER_MAGIC) or describe_text(data):
        return Excluded("unsupported" if what.startswith("SVG") else "not_an_image", what)
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return explain_tiff(data)
    for name, error in pillow_errors(data):
        return Excluded(reason_of(error), f"{name}: {error}")
    return Excluded("not_an_image", f"starts with {data[:16]!r}")


def reason_of(error: Exception) -> str:
    """Return the key of REASONS for an error of Pillow: "unsupported", "truncated" or "damaged"."""
    words = str(error).lower()
    if isinstance(error, NotImplementedError) or any(known in words for known in UNSUPPORTED):
        return "unsupported"
    early = isinstance(error.__cause__ or error, EOFError | IndexError | struct.error)  # Pillow wraps them
    return "truncated" if early or any(known in words for known in ENDS_EARLY) else "damaged"


def match_magic(data: bytes, known: dict[bytes, str]) -> str:
    """Return the format whose first bytes the file has; empty: none of `known`."""
    return next((what for magic, what in known.items() if data.startswith(magic)), "")


def match_container(data: bytes) -> str:
    """Return the format by a mark that is not at the very beginning; empty: unknown."""
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("latin-1")
        if brand in BRANDS:
            return f"HEIC (of type {brand!r}){INSTALL}"
        return "" if brand.startswith("avi") else f"a film, or a camera's raw file (of type {brand!r})"
    if data[8:10] == b"CR" and data[:2] == b"II":
        return "a camera's raw file (Canon)"
    return "DICOM" if data[128:132] == b"DICM" else ""


def describe_text(data: bytes) -> str:
    """Return what kind of text the file is; empty: it is not text."""
    if data[257:262] == b"ustar":
        return ARCHIVE.format("tar")
    start = data[:TEXT_BYTES].lstrip(b"\xef\xbb\xbf").lstrip()
    try:
        words = start.decode("utf-8", "strict" if len(data) <= TEXT_BYTES else "ignore")
    except UnicodeDecodeError:
        return ""
    if not words or any(not (letter.isprintable() or letter.isspace()) for letter in words):
        return ""
    lower = words.lower()
    if "<svg" in lower:
        return "SVG, a drawing without pixels"
    if lower.startswith(("<!doctype html", "<html", "<head", "<body")):
        return "a web page (an error, perhaps, in place of the picture)"
    return f"a text: {words[:40]!r}"


def pillow_errors(data: bytes) -> Iterator[tuple[str, Exception]]:
    """Yield the name and the error of each format of Pillow that accepts the first bytes and then fails."""
    for name, (factory, accept) in Image.OPEN.items():
        try:
            if accept is None or accept(data[:16]) is not True:
                continue
        except Exception:  # of a file that is shorter than what is looked at
            continue
        if name in NO_DECODER:
            yield name, NotImplementedError("Pillow has no decoder for it")
            continue
        try:
            factory(io.BytesIO(data), "")
        except MemoryError:
            raise
        except Exception as error:  # hostile bytes raise anything
            yield name, error


def explain_tiff(data: bytes) -> Excluded:
    """Return why a TIFF is not opened: an unsupported variant, or damaged tags."""
    if data.startswith(b"MM\0+"):
        return Excluded("unsupported", "TIFF: BigTIFF in big-endian order")
    header = io.BytesIO(data)
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(header.read(16 if data[2] == BIG_TIFF else 8))
        header.seek(tags.next)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow warns where a tag lies beyond the end
            tags.load(header)
            whole = all(number in tags for number in (WIDTH, HEIGHT))
            return Excluded("unsupported" if whole else "damaged", f"TIFF: {describe_tags(tags)}")
    except Exception as error:  # hostile bytes raise anything
        return Excluded("truncated", f"TIFF: {error}")


def describe_tags(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    """Return the tags that decide whether Pillow reads a TIFF, by their names in the standard."""
    numbers = {"Compression": 259, "PhotometricInterpretation": 262, "SamplesPerPixel": 277, "BitsPerSample": 258,
               "SampleFormat": 339, "PlanarConfiguration": 284, "ExtraSamples": 338}  # fmt: skip
    return ", ".join(f"{name} {tags[number]}" for name, number in numbers.items() if number in tags)
