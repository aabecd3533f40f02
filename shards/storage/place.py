"""Where something is: a local path, or a URL that is kept as it was typed."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from command_line.arguments import expand_user
from shards.errors import DataError

SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")


class Url:
    """A URL; like a path it has a name, a parent, and names below it.

    Args:
        text: as it was typed.
    """

    # No dataclass: one among settings would be a group of them.
    def __init__(self, text: str) -> None:
        self.text = text

    @property
    def scheme(self) -> str:
        """What stands before `://`, in small letters."""
        return self.text.partition("://")[0].lower()

    @property
    def root(self) -> str:
        """Scheme and bucket, host or the like: `s3://bucket`."""
        scheme, _, rest = self.text.partition("://")
        return f"{scheme}://{rest.partition('/')[0]}"

    @property
    def key(self) -> str:
        """What follows the root, without slashes at its ends: empty for a whole bucket."""
        return self.text[len(self.root) :].strip("/")

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> Url:
        """Where it lies."""
        above = self.key.rpartition("/")[0]
        return Url(f"{self.root}/{above}" if above else self.root)

    def resolve(self) -> Url:
        """Return itself: unlike a path, it does not depend on where one stands."""
        return self

    def __truediv__(self, name: str) -> Url:
        return Url(f"{self.text.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Url({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Url) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


Place = Path | Url


def parse_place(text: str) -> Place:
    """Return the place that a text names: a URL if it begins with a scheme, else a path, with `~` expanded.

    Raises:
        DataError: the URL names no bucket or host, or holds credentials, which would end up in logs and run folders.
    """
    if "\0" in unquote(text):
        raise DataError(f"{text!r} has a zero byte, which no path and no URL has: correct it")
    if not SCHEME.match(text):
        try:
            return expand_user(text)
        except ValueError as error:
            raise DataError(str(error)) from None
    try:
        parts = urlsplit(text)
        password = parts.password
    except ValueError as error:  # such as a bracket that is never closed
        raise DataError(f"{text!r} is no URL: {error}") from None
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    url = Url(text)
    if not url.root.partition("://")[2]:
        raise DataError(f"{text} names no bucket or host: write {url.scheme}://BUCKET/FOLDER")
    if password is not None or parts.query:
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise DataError(
            f"{shown} is given with a password or a signature, which would be written into logs and run folders: name "
            "it without, and put credentials into the environment (docs/data.md, A bucket)"
        )
    return url


def seen_from(folder: Path, place: Place) -> Place:
    """Return a place that means the same wherever it is read; relative paths are seen from `folder`."""
    return place if isinstance(place, Url) else folder / place
