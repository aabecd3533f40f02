"""A build whose --out is a URL: the local folder that it works in, and whether the URL may be built to."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from shards.building.finalize import used_plugins
from shards.building.options import Build
from shards.dataset.files import EXCLUDED, INDEX
from shards.dataset.index import DataError, Index
from shards.sources.listing import compare_settings
from shards.storage.place import Url
from shards.storage.storage import Storage, open_storage

PROBE = ".lienzo-write-test"  # an object that is written and deleted before the work begins


def local_folder(args: Build) -> Path:
    """Return the folder that a build works in: --out itself, or for a URL one in --work that is named by the URL.

    Raises:
        DataError: --work is given, and --out is no URL.
    """
    if isinstance(args.out, Path):
        if args.work is not None:
            raise DataError(
                f"--work is for --out URL, and --out {args.out} is a folder, which holds what is unfinished: leave "
                "--work away"
            )
        return args.out
    target = args.out.text.rstrip("/")
    name = f"{args.out.name or args.out.root.rpartition('/')[2]}-{hashlib.sha256(target.encode()).hexdigest()[:12]}"
    return (args.work or default_work()) / name


def default_work() -> Path:
    """Return where unfinished builds are kept unless the user names a folder; it should outlive a job."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lienzo" / "builds"


def is_finished_at(out: Url, folder: Path, unfinished: bool, args: Build, settings: dict[str, Any]) -> bool:
    """Return whether the URL already holds the finished result of this very build.

    Args:
        out: the URL.
        folder: that the build works in.
        unfinished: whether it holds an unfinished build.
        args: of the build.
        settings: of the build.

    Raises:
        DataError: the URL holds something else.
        StorageError: it cannot be read or written.
    """
    storage = open_storage(out)
    probe(storage)
    found = {one.name for one in storage.list()} - {EXCLUDED, PROBE}
    if INDEX in found and args.resume:
        known = Index.open(out).content["settings"]
        chosen = {} if args.shard_samples else {"shard_samples": known["shard_samples"]}
        compare_settings(known, used_plugins(settings, known.get("plugins", {})) | chosen)
        shutil.rmtree(folder, ignore_errors=True)  # killed between uploading the index and removing it
        return True
    if unfinished and not args.resume:
        raise DataError(
            f"{folder} holds an unfinished build of {out}: go on with --resume, or build into another folder"
        )
    if found and not unfinished:
        raise DataError(
            f"{out} is not empty, and {folder} has no unfinished build of it: build into a new folder, or name the "
            "--work with which the build began"
        )
    return False


def probe(storage: Storage) -> None:
    """Write and delete a tiny object: what is not allowed shows before the work begins.

    Raises:
        StorageError: the message says what was refused.
    """
    storage.write(PROBE, b"lienzo")
    storage.delete(PROBE)
