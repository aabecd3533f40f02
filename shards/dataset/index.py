"""Open a folder of shards: its index says what is in it, and where each sample lies.

index.json      schema, settings, classes, shards with their SHA-256, statistics; written last
table.npy       one row per sample, memory-mapped: any sample is one positioned read
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.dataset.cache_settings import CacheSettings
from shards.dataset.files import BUILD_AGAIN, INDEX
from shards.dataset.index_content import LeadsOutside, check_content
from shards.dataset.splits import Split, read_splits
from shards.dataset.table import Table, open_table
from shards.errors import DataError as DataError  # most of this package knows it from here
from shards.images.size import Size
from shards.storage.errors import NotFound
from shards.storage.place import SCHEME, Place, Url, parse_place
from shards.storage.storage import open_storage

SCHEMA = 2  # of index.json; its bytes are the dataset's identity, so it rises only with what it holds


def upgrade_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a build of schema 1, of square RGB, as schema 2 has them; later ones as they are."""
    if "size" not in settings:
        return settings
    made = {name: value for name, value in settings.items() if name != "size"}
    shape = {"height": settings["size"], "width": settings["size"], "channels": 3}
    return shape | made | {"crop": "centre", "max_aspect": None}


UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: lambda content: content | {"settings": upgrade_settings(content["settings"])}
}
"""By schema: from what it has in index.json to what the next one has."""
ORIGINAL = "original"  # the encoding of pictures that are decoded as they are


@dataclass(frozen=True)
class Index:
    """The index of a complete folder of shards."""

    path: Place
    hash: str  # SHA-256 of index.json, which holds the hashes of all other files: it names the whole dataset
    size: Size  # height and width of the pictures
    channels: int  # 1: grey, 3: RGB, 4: RGBA
    encoding: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    table: Table  # (samples,) of ROW: the rows of "train", then those of "holdout"
    content: Mapping[str, Any]  # index.json as it is
    cache: CacheSettings  # of remote shards

    @property
    def shards_at(self) -> Place:
        """Where the shards are: beside the index, or where those lie that were indexed in place."""
        return shards_at(self.path, self.content)

    @property
    def folder(self) -> Path:
        """The folder of a local dataset."""
        assert isinstance(self.path, Path), f"{self.path} is not local"
        return self.path

    @classmethod
    def open(cls, path: Place, cache: CacheSettings | None = None) -> Index:
        """Open a folder of shards. It is quick for any size: nothing is hashed, and the table is mapped, not read.

        Args:
            path: of a folder, or the URL of a bucket or a folder in it.
            cache: where copies of remote files are kept; None: at the usual place.

        Raises:
            DataError: there is no complete index, or it does not fit the table.
        """
        raw = read_index(path)
        content = parse_index(path, raw)
        try:
            samples = sum(split.samples for _, split in read_splits(content))
        except (LookupError, TypeError, AttributeError):
            raise DataError(f"{path / INDEX} is damaged: {BUILD_AGAIN}") from None
        cache = cache or CacheSettings()
        table = open_table(path, samples, str(content.get("table_sha256")), cache)
        return cls.of_content(path, hashlib.sha256(raw).hexdigest(), content, table, cache)

    @classmethod
    def of_content(
        cls, path: Place, name: str, content: Mapping[str, Any], table: Table, cache: CacheSettings
    ) -> Index:
        """Return the index with this content, hash and table.

        Raises:
            DataError: something is missing in it.
        """
        try:
            splits, classes = dict(read_splits(content)), tuple(content["classes"])
            settings = content["settings"]
            size, channels = (settings["height"], settings["width"]), settings["channels"]
            return cls(path, name, size, channels, settings["encode"], classes, splits, table, content, cache)
        except (LookupError, TypeError, AttributeError):
            raise DataError(f"{path / INDEX} is damaged: {BUILD_AGAIN}") from None


def shards_at(path: Place, content: Mapping[str, Any]) -> Place:
    """Return where the shards of an index at `path` are: there, in a folder below, or where an URL or a path says.

    Raises:
        DataError: it says something else.
    """
    text = content.get("shards_at", "")
    if not isinstance(text, str) or "\0" in text:
        raise DataError(f"{path / INDEX} is damaged: {BUILD_AGAIN}")
    if not text:
        return path
    if ".." in text.split("/"):
        raise DataError(
            f"{path / INDEX} says that its shards are at {text!r}, which is refused: they may lie "
            f"beside the index, in a folder below, at an absolute path or at a URL: {BUILD_AGAIN}"
        )
    return parse_place(text) if SCHEME.match(text) or text.startswith("/") else path / text


def read_index(path: Place) -> bytes:
    """Return the bytes of index.json.

    Raises:
        DataError: there is none, or it cannot be read; the message says what to do.
    """
    if isinstance(path, Url):
        try:
            return open_storage(path).read(INDEX)
        except NotFound as error:
            raise DataError(f"{path} holds no finished shards: {error}") from None
    try:
        return (path / INDEX).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} {explain_no_index(path)}") from None
    except OSError as error:
        raise DataError(f"{path / INDEX} cannot be read: {error.strerror}") from error


def explain_no_index(path: Path) -> str:
    """Return why a path has no index, and what to do, as the end of a message.

    A path of pictures is a usual mistake: the message then names their shards, or the command that builds them.
    """
    if (path / ".build").exists():
        return "holds an unfinished build: go on with the command that began it and --resume"
    what = "holds no finished shards" if path.exists() else "does not exist"
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return f"{what}: build them with python -m shards build SRC --out {shlex.quote(str(path))}"
    plain = Path(os.path.abspath(path))
    for out in (plain.with_name(f"{plain.stem}-shards{number}") for number in ("", *range(2, 1000))):
        if (out / INDEX).exists():
            return f"{what}: name {shlex.quote(str(out))}, which does"
        if not out.exists():
            break
    return (
        f"{what}: if it is pictures, build them with python -m shards build {shlex.quote(str(path))} "
        f"--out {shlex.quote(str(out))} and name that"
    )


def parse_index(path: Place, raw: bytes) -> dict[str, Any]:
    """Parse index.json, and check that this version can read it.

    Raises:
        DataError: it is damaged, or of another schema.
    """
    try:
        content: dict[str, Any] = json.loads(raw)
        schema = content["schema"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path / INDEX} is damaged: {BUILD_AGAIN}") from error
    # Not a comparison: what stands there may be no number.
    if schema not in range(1, SCHEMA + 1):
        raise DataError(
            f"{path / INDEX} has schema {schema}, and this version reads those up to {SCHEMA}: update lienzo, or "
            "build again, into a new folder"
        )
    try:
        for number in range(schema, SCHEMA):
            content = UPGRADES[number](content)
        check_content(content)
    except LeadsOutside as error:
        raise DataError(
            f"{path / INDEX} names {str(error)!r} as a shard, which is outside of the folder of the shards: "
            f"{BUILD_AGAIN}"
        ) from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path / INDEX} is damaged: {BUILD_AGAIN}") from error
    return content
