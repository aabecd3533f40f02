"""`push` and `pull`: a bundle to a place and back, every file compared with the manifest."""

from __future__ import annotations

import json
import re
from pathlib import Path

from shards.storage.errors import NotFound
from shards.storage.storage import Storage, open_storage
from trainer.core.fields import Refused
from trainer.core.file_hash import file_sha256
from trainer.core.migration import with_schema
from trainer.core.stopping import Outcome
from trainer.exporting.arguments import Pull, Push
from trainer.exporting.bundle_folder import check_new, new_folder
from trainer.runs.bundle import check_files, read_bundle, read_manifest
from trainer.runs.bundle_files import CARD, CONFIG, MANIFEST, is_bundle

PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
MOST_FILES = 100
MOST_MANIFEST_BYTES = 1 << 20


def run_push(args: Push) -> Outcome:
    """Copy a bundle to a place; the manifest goes last, so that a reader finds all of it or what was there.

    Raises:
        Refused: it is no bundle, or a file of it has changed.
        StorageError: the place cannot be written.
    """
    if not is_bundle(args.bundle):
        raise Refused(f"{args.bundle} is no bundle: make one with python -m trainer export")
    files = read_manifest(args.bundle)
    if not files:
        raise Refused(f"{args.bundle} has no {MANIFEST}: make the bundle again with python -m trainer export")
    check_files(args.bundle, *(name for name in files if name != CARD))  # people may edit the card
    storage = open_storage(args.url)
    entries = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in files.items()}
    if (card := args.bundle / CARD).is_file():
        entries[CARD] = {"bytes": card.stat().st_size, "sha256": file_sha256(card)}
    for name in entries:
        storage.write(name, args.bundle / name)
    storage.write(MANIFEST, (json.dumps(with_schema({"files": entries}), indent=1) + "\n").encode())
    print(f"{len(entries) + 1} files: {args.url}")
    return Outcome.FINISHED


def run_pull(args: Pull) -> Outcome:
    """Copy a bundle from a place into a new folder.

    Raises:
        Refused: there is none, or a file is not what its manifest says; nothing is left.
        StorageError: the place cannot be read.
    """
    check_new(args.out)
    storage = open_storage(args.url)
    with new_folder(args.out) as folder:
        for name, (size, digest) in read_remote_manifest(storage, folder).items():
            there = storage.head(name).size
            if there != size:
                raise Refused(f"{args.url}: {name} has {there} bytes, and by {MANIFEST} {size}: push the bundle again")
            with (folder / name).open("wb") as file:
                storage.copy(name, size, file)
            if file_sha256(folder / name) != digest:
                raise Refused(f"{args.url}: {name} is not what {MANIFEST} says: push the bundle again")
        if not is_bundle(folder):
            raise Refused(f"{args.url} is no bundle: its {CONFIG} does not say so")
        read_bundle(folder)
    print(f"{args.out}: {', '.join(sorted(path.name for path in args.out.iterdir()))}")
    return Outcome.FINISHED


def read_remote_manifest(storage: Storage, folder: Path) -> dict[str, tuple[int, str]]:
    """Return what a manifest at a place says of its files, of which each must lie in the bundle itself.

    Raises:
        Refused: there is none, or it names other places.
    """
    try:
        if storage.head(MANIFEST).size > MOST_MANIFEST_BYTES:
            raise Refused(f"{storage.place}: {MANIFEST} is too large to be one")
        (folder / MANIFEST).write_bytes(storage.read(MANIFEST))
    except NotFound as error:
        raise Refused(f"{storage.place} is no bundle: there is no {MANIFEST}") from error
    files = read_manifest(folder)
    (folder / MANIFEST).unlink()  # it is written anew with the folder
    odd = [name for name in files if not PLAIN_NAME.fullmatch(name) or name == MANIFEST]
    if odd or len(files) > MOST_FILES:
        raise Refused(
            f"{storage.place}: {MANIFEST} names {odd[0]!r}, which is no file of a bundle"
            if odd
            else f"{storage.place}: {MANIFEST} names more than {MOST_FILES} files"
        )
    return files
