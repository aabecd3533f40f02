"""Make examples/clipart.zip from Debian's openclipart-png: the flags, and what a build of shards has to cope with.

Flags, because a small GAN paints them recognisably at 32 pixels: few colours, large areas, one frame. Left out is what
lies in the flag folders and is no flag (maps, outlines, buildings, semaphore men), and exact copies. The files are
stored as they are, uncompressed (a PNG hardly shrinks), in the order of their names and with one date: the same package
gives the same bytes with any version of zlib.
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import tyro

FLAGS = "signs_and_symbols/flags"
NO_FLAGS = (
    "semaphore/*",
    "*/*_map_*",
    "*/map_of_*",
    "*/*_outline_*",
    "*/us_capitol_*",
    "*/ampel*",
    "*golf_flag*",
    "*/inuit_*",
    "*/route_*",
    "*_umbrella_*",
    "*/arkansas_symbol_*",
    "*/fleur_de_lis_*",
    "australia_mike_*",
    "southen_cross_*",
    "europe/andalusia_*",
    "europe/aragon_*",
    "europe/asturias_*",
    "europe/spain/balearian_*",
    "europe/canarian_*",
    "europe/cantabria_*",
    "europe/spain/castilla_*",
    "europe/catalunya_*",
    "europe/euskadi_*",
    "europe/extremadura_*",
    "europe/galicia_*",
    "europe/spain/madrid_*",
    "europe/murcia_*",
    "europe/spain/navarra_*",
    "europe/rios_*",
    "europe/spain/valencia_*",
    "europe/spain/spain_peninsule_*",
    "*/spanish_regions_*",
)
"""Patterns of names below FLAGS."""

OTHERS = (
    "signs_and_symbols/stop_sign_miguel_s_nchez_.png",  # 623 million pixels
    "recreation/games/chess/chesspieces-knight.png",  # of the modes L and LA, which flags seldom have
    "recreation/games/chess/chesspieces-rook.png",
    "special/patterns/pattern-circles-1.png",
    "special/patterns/pattern-deltoids-1.png",
    "special/patterns/pattern-diamond-cubes-1.png",
    "signs_and_symbols/flags/europe/galicia_01.png",
    "signs_and_symbols/flags/europe/murcia_01.png",
)
"""Pictures that are no flags, for their modes and sizes."""

TORN = "africa/kenya.png"
DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Settings:
    """Make the archive of example pictures from Debian's package openclipart-png."""

    source: Path = Path("/usr/share/openclipart/png")
    """Where the package's pictures are."""
    out: Path = Path(__file__).with_name("clipart.zip")
    """The archive to write."""


def flags(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each flag; of equal files the first."""
    seen = set()
    for path in sorted(folder.rglob("*.png")):
        name = path.relative_to(folder).as_posix()
        data = path.read_bytes()
        digest = hashlib.sha256(data).digest()
        if digest in seen or any(fnmatchcase(name, pattern) for pattern in NO_FLAGS):
            continue
        seen.add(digest)
        if "/" not in name:
            name = ("signals/" if name.startswith("signalflag") else "miscellany/") + name
        yield name, data


def members(source: Path) -> dict[str, bytes]:
    """Return the archive's content: flags by region, others, and three files that are spoiled on purpose."""
    content = dict(flags(source / FLAGS))
    for name in OTHERS:
        content[f"others/{Path(name).name}"] = (source / name).read_bytes()
    # The package has none of these, and every large collection has.
    content["spoiled/empty.png"] = b""
    content["spoiled/text.png"] = b"This is no picture, whatever its name says.\n"
    content["spoiled/torn.png"] = content[TORN][: len(content[TORN]) // 2]
    return content


def write(content: dict[str, bytes], out: Path) -> None:
    """Write a zip file whose bytes are a function of the content."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(content.items()):
            member = zipfile.ZipInfo(name, DATE)
            member.create_system = 3  # Unix, wherever this runs
            member.external_attr = 0o644 << 16
            archive.writestr(member, data)


def main() -> int:
    """Make the archive."""
    settings = tyro.cli(Settings, description=__doc__)
    if not (settings.source / FLAGS).is_dir():
        what = f"{settings.source} has no {FLAGS}: apt-get install openclipart-png, or name its folder with --source"
        print(what, file=sys.stderr)
        return 2
    try:
        content = members(settings.source)
        write(content, settings.out)
    except OSError as error:
        print(f"{error.filename or settings.out}: {error.strerror}", file=sys.stderr)
        return 2
    digest = hashlib.sha256(settings.out.read_bytes()).hexdigest()
    print(f"{settings.out}: {len(content)} files, {settings.out.stat().st_size:,} bytes, SHA-256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
