"""The names of several sources in one build, which begin the names of their pictures: the last part of each path."""

from __future__ import annotations

import os
from collections.abc import Sequence

from shards.errors import DataError
from shards.storage.place import Place, Url

ARCHIVE_SUFFIXES = (".zip", ".tar", ".parquet")  # of what one source can be


def name_sources(sources: Sequence[Place]) -> list[str]:
    """Return the name of each source: the last part of its path, without the suffix of an archive.

    Where these are not all different, each is of the last two parts with a hyphen between them, and so on. So names do
    not depend on the order of the sources.

    Raises:
        DataError: a source is named twice, or two have one name whatever is done.
    """
    where = [str(source).rstrip("/") if isinstance(source, Url) else os.path.abspath(source) for source in sources]
    if twice := next((place for place in where if where.count(place) > 1), None):
        raise DataError(f"the source {twice} is named twice: name it once")
    paths = [path_parts(source) for source in sources]
    for length in range(1, 1 + max(map(len, paths))):
        names = ["-".join(path[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    one, other = [place for place, name in zip(where, names, strict=True) if names.count(name) > 1][:2]
    raise DataError(f"the sources {one} and {other} cannot be told apart by their names: rename one of them")


def path_parts(source: Place) -> tuple[str, ...]:
    """Return the parts of the path of a source, the last one without the suffix of an archive."""
    if isinstance(source, Url):
        parts = [source.root.partition("://")[2], *source.key.split("/")]
    else:
        parts = os.path.abspath(source).split("/")
    *above, last = [part for part in parts if part] or ["root"]
    return (*above, without_suffix(last))


def without_suffix(name: str) -> str:
    """Return a name without the suffix of an archive, in whatever case."""
    for suffix in ARCHIVE_SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name
