"""Files that commands write for their user: whole or not there."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path

from PIL import Image

from shards.atomic_files import write_atomically
from shards.images.encode import to_pillow
from trainer.core.fields import Refused
from trainer.sampling.sampler import Images


def check_parent(file: Path) -> None:
    """Refuse a file whose folder is not there, before anything is generated for it.

    Raises:
        Refused: naming the folder.
    """
    if not file.parent.is_dir():
        raise Refused(f"{file} cannot be written: there is no folder {file.parent}")


def check_picture(file: Path, such_as: str, more: str = "") -> None:
    """Refuse a file of a kind that pictures are not written in, or whose folder is not there.

    Args:
        file: that is to be written.
        such_as: an example of a name.
        more: what else there is to say.

    Raises:
        Refused: naming the file, or its folder.
    """
    if file.suffix.lower() not in Image.registered_extensions():
        raise Refused(f"--out must be a picture such as {such_as}, but is {file}{more}")
    check_parent(file)


def check_own_folder(folder: Path, files: Collection[str], force: bool) -> None:
    """Refuse a folder that holds other things than such files, and with these there, to replace them unasked.

    Raises:
        Refused: naming one of them.
    """
    if folder.exists() and not folder.is_dir():
        raise Refused(f"--out must be a folder, but {folder} is a file")
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for name in there:
        if name not in files and not name.startswith(".") and not force:
            raise Refused(f"{folder} holds other things, such as {name}: name another folder, or --force")
    for name in there:
        if name in files and not force:
            raise Refused(f"{folder / name} is there already: name another folder, or --force to replace it")


def make_folder(folder: Path) -> None:
    """Make a folder, if it is not there.

    Raises:
        Refused: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"the folder {folder} cannot be made: {error.strerror}") from error


def encode_image(picture: Images | Image.Image, path: Path) -> bytes:
    """Encode a picture (h, w, c), or one of Pillow's, as the suffix of its path says."""
    file = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else to_pillow(picture)
    try:
        image.save(file, Image.registered_extensions()[path.suffix.lower()])
    except (OSError, ValueError, KeyError) as error:  # a format that can only be read, or is too small for it
        raise Refused(f"{path} cannot be written: {error}") from error
    return file.getvalue()


def write_file(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there.

    Raises:
        Refused: it cannot be written.
    """
    try:
        write_atomically(path, content, durable=False)  # the same command makes the pictures again, bit by bit
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}") from error
