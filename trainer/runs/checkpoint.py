"""Checkpoints: whole or not there, written while training goes on.

    checkpoints/000000064000-r00/     images seen, number of rollbacks
        state.safetensors             every tensor of the state
        state.json                    every other value of it
        manifest.json                 size and SHA-256 of both; written last

A checkpoint is written under a temporary name, each file fsynced, and then renamed. Reading checks the hashes and walks
back to the newest one that is whole; a damaged one is set aside, never deleted.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from shards.atomic_files import flush
from trainer.config.groups import CheckpointSettings
from trainer.core.fields import Refused
from trainer.core.migration import FIRST, in_metadata, known, load, numbered, tensor_name, upgraded
from trainer.runs.run_folder import RunFolder

TENSORS, VALUES, MANIFEST = "state.safetensors", "state.json", "manifest.json"


class Damaged(Exception):
    """A checkpoint is not what its manifest says; the message says how."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder that holds, or should hold, a state."""

    path: Path
    images_seen: int
    rollbacks: int

    @classmethod
    def parse(cls, path: Path) -> Checkpoint | None:
        """Read a folder's name; None when it is not a checkpoint's."""
        images, _, rollbacks = path.name.partition("-r")
        return cls(path, int(images), int(rollbacks)) if images.isdigit() and rollbacks.isdigit() else None

    @property
    def age(self) -> tuple[int, int]:
        """Sorts checkpoints from old to new: what a rollback has left behind is older than what came after it."""
        return self.rollbacks, self.images_seen

    def verify(self) -> None:
        """Compare every file with the manifest.

        Raises:
            Damaged: a file is missing, of another size or other content.
            Refused: a later version wrote it.
        """
        try:
            manifest = load(self.path / MANIFEST)
            for name in (TENSORS, VALUES):
                expected = manifest["files"][name]
                file = self.path / name
                if file.stat().st_size != expected["bytes"]:
                    raise Damaged(f"{name} has {file.stat().st_size} bytes in place of {expected['bytes']}")
                if sha256(file) != expected["sha256"]:
                    raise Damaged(f"{name} has changed since it was written")
        except OSError as error:
            raise Damaged(f"{Path(str(error.filename)).name} cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"{MANIFEST} is not a manifest") from error

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors and the other values, both without unpickling anything.

        Raises:
            Damaged: they cannot be read.
        """
        try:
            values = json.loads((self.path / VALUES).read_text())
            schema = known(values.get("schema", FIRST), str(self.path / VALUES))
            tensors = {tensor_name(name, schema): tensor for name, tensor in load_file(self.path / TENSORS).items()}
            return tensors, upgraded(VALUES, values, str(self.path / VALUES))
        except (OSError, ValueError, SafetensorError) as error:
            raise Damaged(str(error)) from error

    def healthy(self) -> bool:
        """Tell whether the sentinel had seen no sign of collapse or divergence when the state was saved."""
        try:
            return bool(load(self.path / VALUES)["sentinel"]["sound"])
        except (OSError, ValueError, KeyError):
            return False


def sha256(path: Path) -> str:
    """Return a file's SHA-256 as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints in a folder, from new to old, unverified."""
    found = [Checkpoint.parse(path) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((c for c in found if c), key=lambda c: c.age, reverse=True)


def newest_whole(
    folder: Path, on_damage: Callable[[Checkpoint, str], None], wanted: Callable[[Checkpoint], bool] = lambda _: True
) -> Checkpoint | None:
    """Walk back to the newest wanted checkpoint that is whole, telling `on_damage` of the damaged ones passed by."""
    for checkpoint in find(folder):
        try:
            checkpoint.verify()
            if wanted(checkpoint):
                return checkpoint
        except Damaged as error:
            on_damage(checkpoint, str(error))
    return None


def newest_or_refuse(run: RunFolder) -> Checkpoint:
    """Return the newest whole checkpoint, naming on standard error those that are damaged.

    Raises:
        Refused: there is none.
    """
    found = newest_whole(
        run.checkpoints,
        lambda checkpoint, problem: print(f"passed over damaged {checkpoint.path}: {problem}", file=sys.stderr),
    )
    if found is None:
        raise Refused(f"{run.path} holds no whole checkpoint")
    return found


def set_aside(checkpoint: Checkpoint) -> Path:
    """Rename a damaged checkpoint so that nothing takes it for one, and nothing prunes it."""
    for attempt in range(1, 1000):
        target = checkpoint.path.with_name(f"damaged-{checkpoint.path.name}-{attempt}")
        if not target.exists():
            return checkpoint.path.rename(target)
    raise FileExistsError(checkpoint.path)


class Snapshot:
    """A copy of the state in memory of its own, reused from one checkpoint to the next."""

    def __init__(self) -> None:
        self.copies: dict[str, Tensor] = {}

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors; on return they may change."""
        if {name: copy.shape for name, copy in self.copies.items()} != {n: t.shape for n, t in tensors.items()}:
            self.copies = {
                name: torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
                for name, tensor in tensors.items()
            }
        torch._foreach_copy_(list(self.copies.values()), list(tensors.values()), non_blocking=True)
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is durable."""

    images_seen: int
    stall_s: float  # training stood still
    write_s: float  # in the background


class Checkpoints:
    """Writes checkpoints in the background, one at a time, and prunes the old ones.

    Args:
        folder: where the checkpoints lie.
        settings: which stay.
        before_manifest: called in the background before a checkpoint becomes valid, to make durable what must
            be so first.
    """

    def __init__(self, folder: Path, settings: CheckpointSettings, before_manifest: Callable[[], None]) -> None:
        self.folder, self.settings, self.before_manifest = folder, settings, before_manifest
        self.kept: Callable[[], Container[str]] = tuple  # names of checkpoints that somebody else wants to stay
        self.spared: Sequence[Callable[[Checkpoint], bool]] = ()  # of each of these, the newest stays
        self.snapshot = Snapshot()
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.pending: Future[Saved] | None = None

    def save(self, tensors: Mapping[str, Tensor], values: dict[str, Any]) -> None:
        """Copy the state and write it in the background; `result` must have been asked for the one before."""
        started = time.perf_counter()
        self.snapshot.take(tensors)
        stall = time.perf_counter() - started
        self.pending = self.executor.submit(self.write, values, stall)

    def result(self, wait: bool) -> Saved | OSError | None:
        """Return what became of the last save, once; None while it is not done, or if there is none to tell of."""
        if self.pending is None or not (wait or self.pending.done()):
            return None
        future, self.pending = self.pending, None
        try:
            return future.result()
        except OSError as error:
            return error

    def write(self, values: dict[str, Any], stall: float) -> Saved:
        """Write the snapshot so that it is whole or not there."""
        started = time.perf_counter()
        images_seen, rollbacks = values["images_seen"], len(values["rollbacks"])
        final = self.folder / f"{images_seen:012d}-r{rollbacks:02d}"
        temporary = self.folder / f".writing-{final.name}"
        self.folder.mkdir(exist_ok=True)  # in a run folder that is there: one that was moved is not made again
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            self.fill(temporary, values)
            if final.exists():  # a run resumed from before it comes by again: what is there is the same or damaged
                shutil.rmtree(final)
            temporary.rename(final)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise error if isinstance(error, OSError) else OSError(str(error)) from error
        flush(self.folder)
        self.prune()
        return Saved(images_seen, stall, time.perf_counter() - started)

    def fill(self, folder: Path, values: dict[str, Any]) -> None:
        """Write the files of one checkpoint, the manifest last, and verify what the disk gives back."""
        tensors = {name: tensor.contiguous() for name, tensor in self.snapshot.copies.items()}
        save_file(tensors, folder / TENSORS, in_metadata())
        (folder / VALUES).write_text(json.dumps(numbered(values), indent=1))
        files = {}
        for name in (TENSORS, VALUES):
            flush(folder / name)
            files[name] = {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
        self.before_manifest()
        (folder / MANIFEST).write_text(json.dumps(numbered({"files": files}), indent=1))
        flush(folder / MANIFEST)
        flush(folder)

    def prune(self) -> None:
        """Remove what the settings do not keep and nobody wants, after the newest was read back whole."""
        kept_interval = -1
        checkpoints = find(self.folder)
        try:
            checkpoints[0].verify()
        except Damaged as error:
            raise OSError(f"the checkpoint was written, but reads back damaged: {error}") from error
        kept = self.kept()
        spared = [next(filter(wanted, checkpoints), None) for wanted in self.spared]
        for checkpoint in reversed(checkpoints[self.settings.keep_last :]):
            interval = checkpoint.images_seen // (self.settings.keep_every_images or 1 << 62)
            if self.settings.keep_every_images and interval > kept_interval:
                kept_interval = interval
            elif checkpoint not in spared and checkpoint.path.name not in kept:
                shutil.rmtree(checkpoint.path)

    def close(self) -> None:
        """End the background thread."""
        self.executor.shutdown()
