"""The tars that people name: paths and URLs, with braces, wildcards, or of folders that hold them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice, takewhile
from pathlib import Path

from braceexpand import braceexpand

from shards.errors import DataError
from shards.sources.source_entry import quote_name
from shards.storage.place import Place, Url, parse_place
from shards.storage.storage import open_storage

WILDCARDS = re.compile(r"[*?\[]")
MOST_TARS = 1_000_000  # that braces may name
BRACES = re.compile(r"\\.|\{(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?\}|[{},]", re.ASCII | re.DOTALL)
DIGITS = 18  # of the ends of a range


@dataclass(frozen=True)
class Tars:
    """Tars at one place."""

    root: Place
    """The nearest folder that has all of them below it."""
    names: tuple[str, ...]
    """Of each one below the root, with `/` between their parts; in the order in which they were named."""


def find_tars(patterns: Sequence[str]) -> Tars:
    """Return the tars that patterns name; those that one pattern names come in the order of their names.

    Raises:
        DataError: a pattern names none, or they lie in several buckets.
    """
    texts = [text for pattern in patterns for text in expand_braces(pattern)]
    named = [parse_place(text) for text in texts]
    roots = {place.root if isinstance(place, Url) else "" for place in named}
    if len(roots) > 1:
        names = " and ".join(sorted(root or "this machine" for root in roots))
        raise DataError(f"the tars lie on {names}: index those of each one by itself, into a folder of their own")
    places = list(dict.fromkeys(found for place in named for found in expand(place)))
    if roots != {""}:
        return below_one_root(Url(roots.pop()), [place.key for place in places if isinstance(place, Url)])
    return below_one_root(Path("/"), [str(place)[1:] for place in places])


def below_one_root(root: Place, names: Sequence[str]) -> Tars:
    """Return the tars with these names below a root, seen from the nearest folder above them."""
    parts = [name.split("/") for name in names]
    shared = sum(1 for _ in takewhile(lambda level: len({*level}) == 1, zip(*(p[:-1] for p in parts), strict=False)))
    folder = root / "/".join(parts[0][:shared]) if shared else root
    return Tars(folder, tuple("/".join(p[shared:]) for p in parts))


def expand_braces(pattern: str) -> list[str]:
    """Return the texts that a pattern with braces stands for, such as x-{0000..0099}.tar.

    Raises:
        DataError: it is none, or stands for too many.
    """
    try:
        # Before: braceexpand holds the texts of each pair of braces in memory.
        if count_texts(pattern) > MOST_TARS:
            raise DataError(
                f"{quote_name(pattern)} stands for more than {MOST_TARS:,} tars: name fewer, or use a wildcard, such "
                "as *.tar"
            )
        return list(islice(braceexpand(pattern), MOST_TARS))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{quote_name(pattern)} is no pattern: {error}") from None


def count_texts(pattern: str) -> int:
    """Return how many texts a pattern with braces stands for; a range of letters counts as one.

    Raises:
        ValueError: a number in it is too long.
    """
    # Of each open brace: the sum over the alternatives before, and the product inside of this one.
    open_braces = [[0, 1]]
    for found in BRACES.finditer(pattern):
        if found[1]:
            if max(len(found[1]), len(found[2])) > DIGITS:
                raise ValueError("a number in it is too long")
            open_braces[-1][1] *= abs(int(found[2]) - int(found[1])) // max(1, int(found[3] or 1)) + 1
        elif found[0] == "{":
            open_braces.append([0, 1])
        elif found[0] == "," and len(open_braces) > 1:
            open_braces[-1] = [sum(open_braces[-1]), 1]
        elif found[0] == "}" and len(open_braces) > 1:
            texts = sum(open_braces.pop())
            open_braces[-1][1] *= texts
    return max(product for _, product in open_braces)


def expand(place: Place) -> list[Place]:
    """Return the places that a place with wildcards names; local ones are absolute.

    Raises:
        DataError: there is none.
    """
    found = remote_tars(place) if isinstance(place, Url) else local_tars(place)
    if not found:
        raise DataError(f"{place} names no tar: name tars, a folder of them, or a pattern such as DIR/*.tar")
    return found


def local_tars(path: Path) -> list[Place]:
    """Return the files that a local path with wildcards names, or the tars below a folder."""
    plain = Path(os.path.abspath(path))
    # Not Path.exists and the like, which raise where a name is too long.
    if os.path.isdir(plain):
        return [*sorted(file for file in plain.rglob("*.tar") if file.is_file())]
    if os.path.exists(plain) or not WILDCARDS.search(str(plain)):
        return [plain] if os.path.exists(plain) else []
    return [Path(name) for name in sorted(glob.glob(str(plain), recursive=True)) if os.path.isfile(name)]


def remote_tars(url: Url) -> list[Place]:
    """Return the objects that a URL with wildcards names, or the tars below a folder."""
    bucket = open_storage(Url(url.root))
    wild = WILDCARDS.search(url.key)
    if not wild and not url.text.endswith("/") and bucket.exists(url.key):
        return [url]
    prefix = url.key[: wild.start()] if wild else f"{url.key}/" if url.key else ""
    wanted = url.key if wild else "*.tar"
    return [Url(f"{url.root}/{found.name}") for found in bucket.list(prefix) if fnmatchcase(found.name, wanted)]
