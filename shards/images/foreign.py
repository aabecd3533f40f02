"""What a file is that Pillow does not open: the reason names it, so that nobody has to guess from its first bytes."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator

from PIL import Image, TiffImagePlugin

from shards.images.exclusion import Excluded

# First bytes -> what it is; a picture of a kind that Pillow does not read, and what is no picture.
PICTURES = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
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
OTHERS = {
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
BRANDS = {"heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"}  # of HEIF; its pictures are mostly HEVC
UNSUPPORTED = ("unsupported", "not supported", "not yet supported", "unimplemented", "not implemented", "cannot handle",
               "not configured", "unknown", "unable to determine", "wrong mode", "not enough channels")  # fmt: skip
EARLY = ("truncated", "end of file", "not enough", "unpack requires", "buffer is not large enough", "incomplete")
BIG, WIDTH, HEIGHT = 43, 256, 257  # the version of a BigTIFF; tags
NO_DECODER = ("EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF")  # EPS: a program, for an interpreter that is no decoder
TEXT = 512  # bytes, from which text is told


def why_not(data: bytes) -> Excluded:
    """Return the reason why Pillow opens no picture here."""
    if not any(data):
        return Excluded("damaged", f"nothing but {len(data)} zero bytes")
    if what := beginning(data, PICTURES) or container(data):
        return Excluded("unsupported", what)
    if what := beginning(data, OTHERS) or text(data):
        return Excluded("unsupported" if what.startswith("SVG") else "not_an_image", what)
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return why_no_tiff(data)
    for name, error in refusals(data):
        return Excluded(reason_of(error), f"{name}: {error}")
    return Excluded("not_an_image", f"starts with {data[:16]!r}")


def reason_of(error: Exception) -> str:
    """Tell a variant that Pillow does not read, a file that ends too early, and one that is damaged."""
    words = str(error).lower()
    if isinstance(error, NotImplementedError) or any(known in words for known in UNSUPPORTED):
        return "unsupported"
    early = isinstance(error.__cause__ or error, EOFError | IndexError | struct.error)  # Pillow wraps them
    return "truncated" if early or any(known in words for known in EARLY) else "damaged"


def beginning(data: bytes, known: dict[bytes, str]) -> str:
    """Return what begins like this file."""
    return next((what for magic, what in known.items() if data.startswith(magic)), "")


def container(data: bytes) -> str:
    """Return what is told by a mark that is not at the very beginning."""
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("latin-1")
        if brand in BRANDS:
            return f"HEIC (of type {brand!r})"
        return "" if brand.startswith("avi") else f"a film, or a camera's raw file (of type {brand!r})"
    if data[8:10] == b"CR" and data[:2] == b"II":
        return "a camera's raw file (Canon)"
    return "DICOM" if data[128:132] == b"DICM" else ""


def text(data: bytes) -> str:
    """Return what kind of text it is, if it is one."""
    if data[257:262] == b"ustar":
        return ARCHIVE.format("tar")
    start = data[:TEXT].lstrip(b"\xef\xbb\xbf").lstrip()
    try:
        words = start.decode("utf-8", "strict" if len(data) <= TEXT else "ignore")
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


def refusals(data: bytes) -> Iterator[tuple[str, Exception]]:
    """Yield each format of Pillow that claims this file by its first bytes, and why it does not open it."""
    for name, (factory, accept) in Image.OPEN.items():
        if accept is None or accept(data[:16]) is not True:
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


def why_no_tiff(data: bytes) -> Excluded:
    """Tell a variant that Pillow does not read from a file whose tags are not whole."""
    if data.startswith(b"MM\0+"):
        return Excluded("unsupported", "TIFF: BigTIFF in big-endian order")
    header = io.BytesIO(data)
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(header.read(16 if data[2] == BIG else 8))
        header.seek(tags.next)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow warns where a tag lies beyond the end
            tags.load(header)
            whole = all(number in tags for number in (WIDTH, HEIGHT))
            return Excluded("unsupported" if whole else "damaged", f"TIFF: {describe_tags(tags)}")
    except Exception as error:  # hostile bytes raise anything
        return Excluded("truncated", f"TIFF: {error}")


def describe_tags(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    """Return what decides whether Pillow reads a TIFF, in the words of the standard."""
    numbers = {"Compression": 259, "PhotometricInterpretation": 262, "SamplesPerPixel": 277, "BitsPerSample": 258,
               "SampleFormat": 339, "PlanarConfiguration": 284, "ExtraSamples": 338}  # fmt: skip
    return ", ".join(f"{name} {tags[number]}" for name, number in numbers.items() if number in tags)
