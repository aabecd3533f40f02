"""Hostile inputs for the readers of shards: real files that are mutated, and structures with extreme fields."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from shards.images.plugins import installed_plugins

EXTREMES = (b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\xff" * 8, b"\0\0\0\x80", b"\x80\0\0\0")
HUGE = (0, 1, -1, 2**31, 2**32 - 1, 2**63, 10**30, -(10**30))
HOSTILE_TEXTS = (
    "",
    ".",
    "..",
    "../secret",
    "a/../../secret",
    "/",
    "a\0b",
    "\ud800",
    "\n| <script>",
    "x" * 999,
    "{",
    "[",
)
Edit = tuple[str, int, int, bytes]
Strategy = st.SearchStrategy[Any]

edits: st.SearchStrategy[list[Edit]] = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "cut", "delete", "repeat", "splice"]),
        st.one_of(st.integers(0, 64), st.integers(0, 1 << 20)),  # many headers are at the beginning
        st.one_of(st.integers(0, 64), st.integers(0, 1 << 14)),
        st.one_of(st.sampled_from(EXTREMES), st.binary(min_size=1, max_size=8)),
    ),
    max_size=6,
)


def edit_bytes(data: bytes, other: bytes, changes: Sequence[Edit]) -> bytes:
    """Return a file after changes, of which some take parts of another file."""
    for kind, place, length, value in changes:
        at = place % (len(data) + 1)
        match kind:
            case "flip" if at < len(data):
                data = data[:at] + bytes([data[at] ^ 1 << length % 8]) + data[at + 1 :]
            case "set":
                data = data[:at] + value + data[at + len(value) :]
            case "cut":
                data = data[:at]
            case "delete":
                data = data[:at] + data[at + length :]
            case "repeat":
                data = data[:at] + data[at : at + length] * 2 + data[at + length :]
            case "splice":
                data = data[:at] + other[place % (len(other) + 1) :]
    return data


def mutated(bases: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Return mutations of files."""
    return st.builds(edit_bytes, st.sampled_from(bases), st.sampled_from(bases), edits)


@cache
def pictures() -> tuple[bytes, ...]:
    """Return small pictures of all formats and variants that Pillow and its plugins write, and arrays of NumPy."""
    noise = np.random.default_rng(0).integers(0, 256, (21, 34, 4), dtype=np.uint8)
    rgb, rgba = Image.fromarray(noise[..., :3]), Image.fromarray(noise)
    wide = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    variants: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (rgb, "JPEG", {}),
        (
            rgb,
            "JPEG",
            {"progressive": True, "exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"},
        ),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgba, "PNG", {"icc_profile": b"no profile"}),
        (rgb.convert("P"), "PNG", {"transparency": 3}),
        (wide, "PNG", {}),
        (rgb.convert("1"), "PNG", {}),
        (rgba, "WEBP", {"lossless": True}),
        (rgb, "WEBP", {}),
        (rgb.convert("P"), "GIF", {"save_all": True, "append_images": [rgb.convert("P")]}),
        (rgb, "TIFF", {}),
        (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (rgb, "TIFF", {"compression": "jpeg"}),
        (wide, "TIFF", {"compression": "tiff_adobe_deflate"}),
        *((rgb, format, {}) for format in ("BMP", "AVIF", "JPEG2000", "PPM", "PCX", "QOI", "ICO", "TGA")),
        *((rgb, format, {}) for format in installed_plugins()),
    ]
    found = []
    for image, format, options in variants:
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        found.append(buffer.getvalue())
    apple = found[3].replace(b"IHDR", b"CgBI\x50\0\x20\x02IHDR", 1)
    for array in (noise, noise[..., 0], noise.astype(np.float32)):
        np.save(buffer := io.BytesIO(), array)
        found.append(buffer.getvalue())
    return *found, apple, b"\x93NUMPY\x01\0\x76\0" + npy_header("(1 << 40, 1 << 20)".replace("1 << ", "9" * 6))


def npy_header(shape: str) -> bytes:
    """Return the header of an array with a shape, padded to 118 bytes."""
    return f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"


def tar_header(name: bytes, size: bytes, kind: bytes, magic: bytes) -> bytes:
    """Return a header of a tar member with a right checksum, whatever its fields hold."""
    fields = struct.pack(
        "100s8s8s8s12s12s8s1s100s8s247s", name, b"644", b"0", b"0", size, b"0", b" " * 8, kind, b"../x", magic, b""
    )
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:]


def tar_member(name: bytes, content: bytes, kind: bytes, size: bytes | None, repeat: int) -> bytes:
    """Return a member, several times; its size is that of its content, or what `size` says."""
    stated = b"%011o\0" % len(content) if size is None else size
    return (tar_header(name, stated, kind, b"ustar  \0") + content + bytes(-len(content) % 512)) * (
        repeat if len(content) < 999 else 1
    )


def pax_record(key: str, value: str) -> bytes:
    """Return a record of a pax header."""
    text = f" {key}={value}\n".encode("utf-8", "surrogatepass")
    return b"%d" % (len(text) + len(str(len(text) + 3))) + text


tar_sizes = st.one_of(
    st.none(),
    st.sampled_from(
        [b"", b"-1", b"-0001000\0", b"9" * 12, b"7" * 12, b"\xff" * 12, b"\x80" + b"\x7f" * 11, b"\x80" * 12]
    ),
    st.binary(max_size=12),
)
pax_records = st.builds(
    pax_record,
    st.sampled_from(["path", "size", "linkpath", "mtime", "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.map",
                     "GNU.sparse.size", "GNU.sparse.realsize", "GNU.sparse.name", "hdrcharset", "charset"]),
    st.one_of(st.sampled_from(["0", "1", "-1", "9" * 30, "1,2", "nan", *HOSTILE_TEXTS]), st.text(max_size=20)),
)  # fmt: skip


def tars() -> st.SearchStrategy[bytes]:
    """Return tars with extreme fields, some of them mutated."""
    names = st.sampled_from([b"a.jpg", b"a.json", b"a.cls", b"../a.png", b"/a.png", b"", b"\xff.jpg", b"b\\..\\c.png"])
    labels = [b"3", b'{"a": "\\ud800"}', b'{"a": 1e999}', b"[" * 9999, b"\xff", b'{"a": ' + b"9" * 5000 + b"}"]
    contents = st.one_of(
        st.sampled_from([b"", *pictures()[:3], *labels]),
        st.binary(max_size=40),
        st.lists(st.one_of(pax_records, st.just(b"0 a=b\n"))).map(b"".join),
    )
    kinds = st.sampled_from([b"0", b"0", b"0", b"\0", b"L", b"K", b"x", b"g", b"X", b"S", b"1", b"2", b"5", b"7", b"Z"])
    member = st.builds(tar_member, names, contents, kinds, tar_sizes, st.sampled_from([1, 1, 1, 1, 1, 2, 700]))
    whole = st.builds(
        lambda parts, end: b"".join(parts) + bytes(end), st.lists(member, max_size=6), st.integers(0, 2048)
    )
    return st.builds(edit_bytes, whole, whole, st.one_of(st.just([]), edits))


@cache
def zips() -> tuple[bytes, ...]:
    """Return zips of all methods, one with wrong sizes, one with comments."""
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            archive.writestr("a/b.png", pictures()[3])
            archive.writestr("../c.png", b"c" * 300)
            archive.writestr("labels.csv", b"file,label\nb.png,x\n")
            archive.comment = b"comment"
        found.append(buffer.getvalue())
    large = bytearray(found[1])
    place = large.index(b"PK\1\2")
    large[place + 20 : place + 28] = b"\xff" * 8  # sizes that a zip64 field would tell
    return *found, bytes(large)


hostile_json = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from(HUGE),
        st.floats(),
        st.sampled_from(HOSTILE_TEXTS),
        st.text(max_size=9),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=8,
)


def places_in(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of each value in JSON, but for the whole."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [found for key, value in items for found in ((*path, key), *places_in(value, (*path, key)))]


def json_with(content: Any, changes: Mapping[tuple[Any, ...], Any]) -> Any:
    """Return JSON with other values at paths; a value of `...` removes what is there."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else None
    if items is None:
        return content
    new = {}
    for key, value in items:
        if (key,) in changes and changes[(key,)] is ...:
            continue
        below = {path[1:]: change for path, change in changes.items() if path[0] == key and len(path) > 1}
        new[key] = changes[(key,)] if (key,) in changes else json_with(value, below)
    return new if isinstance(content, dict) else list(new.values())


def changed_json(content: Any) -> Strategy:
    """Return JSON like another one, with up to three hostile values in it."""
    places = st.sampled_from(places_in(content))
    return st.dictionaries(places, st.one_of(hostile_json, st.just(...)), max_size=3).map(
        lambda changes: json_with(content, changes)
    )


def tables() -> st.SearchStrategy[bytes]:
    """Return tables of labels: CSV, TSV and dataset.json, in many encodings, mutated."""
    cells = st.one_of(st.text(max_size=6), st.sampled_from(['"', "a.png", "1,5", "nan", "1e999", *HOSTILE_TEXTS]))
    csv = st.builds(
        lambda rows, separator, encoding: (
            separator.join(["file", "label", "number"]).encode(encoding)
            + b"".join(f"\n{separator.join(row)}".encode(encoding, "replace") for row in rows)
        ),
        st.lists(st.lists(cells, max_size=5), max_size=5),
        st.sampled_from([",", ";", "\t", "|"]),
        st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"]),
    )
    bases = (
        b"file,label,number\na.png,x,1\n",
        b'{"labels": [["a.png", 3], ["b.png", 1e5]]}',
        b'{"labels": [["\\ud800", "\\udfff"]]}',
        b'{"labels": [["a.png", [1, %s]]]}' % (b"9" * 400),
        b"[" * 5000,
        b'{"labels": [["a.png", %s]]}' % (b"9" * 5000),
        *zips()[:1],
    )
    return st.one_of(csv, mutated(bases), hostile_json.map(json_bytes))


def json_bytes(labels: Any) -> bytes:
    """Return dataset.json with these labels."""
    return json.dumps({"labels": labels}).encode()


pieces = ["..", "{0..9999999999}", "{a..z}", "{1..9..0}", "\0", "://", "s3", "file", "x.tar", "{" * 1500, "a" * 300]
patterns = st.lists(st.sampled_from([*"{},.*?[]!\\/~:@%ab09", *pieces]), max_size=12).map("".join)
