"""Writes checkpoints while training goes on, verifies them, and prunes old ones; checkpoint.py says what they hold."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from shards.atomic_files import fsync
from trainer.config.groups import CheckpointSettings
from trainer.core.file_hash import file_sha256
from trainer.core.migration import with_schema
from trainer.core.tensor_file import write_tensors
from trainer.runs.checkpoint import MANIFEST, TENSORS, VALUES, Checkpoint, Damaged, find_checkpoints


class Snapshot:
    """A copy of the state in memory of its own, reused from one checkpoint to the next."""

    def __init__(self) -> None:
        self.copies: dict[str, Tensor] = {}
        self.taken: torch.cuda.Event | None = None

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors; what is computed from here on may change them. Nothing waits for a GPU to copy."""
        if {name: copy.shape for name, copy in self.copies.items()} != {n: t.shape for n, t in tensors.items()}:
            self.copies = {
                # A GPU copies in the background into pinned memory only.
                name: torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
                for name, tensor in tensors.items()
            }
        # One launch for all tensors: training stands still meanwhile.
        torch._foreach_copy_(list(self.copies.values()), list(tensors.values()), non_blocking=True)
        if any(tensor.is_cuda for tensor in tensors.values()):
            # On the stream that computes: whatever changes the tensors is queued behind it.
            self.taken = torch.cuda.Event()
            self.taken.record()

    def arrived(self) -> Mapping[str, Tensor]:
        """Return the copies, once they are there; to be called by the thread that reads them."""
        if self.taken:
            self.taken.synchronize()
        return self.copies


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
        self.keep_newest_of: Sequence[Callable[[Checkpoint], bool]] = ()  # of each of these, the newest stays
        self.snapshot = Snapshot()
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.pending: Future[Saved] | None = None

    def save(
        self, tensors: Mapping[str, Tensor], values: dict[str, Any], later: Callable[[], dict[str, Any]] = dict
    ) -> None:
        """Copy the state and write it in the background; `result` must have been asked for the one before.

        Args:
            tensors: of the state.
            values: the rest of it.
            later: gives, in the background, those values that are not known yet; OSError if they will never be.
        """
        started = time.perf_counter()
        self.snapshot.take(tensors)
        stall = time.perf_counter() - started
        self.pending = self.executor.submit(lambda: self.write(values | later(), stall))

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
        # A name that no reader takes for a checkpoint, in the same folder, so that the rename is atomic.
        temporary = self.folder / f".writing-{final.name}"
        self.folder.mkdir(exist_ok=True)  # in a run folder that is there: one that was moved is not made again
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            self.write_files(temporary, values)
            if final.exists():  # a run resumed from before it comes by again: what is there is the same or damaged
                shutil.rmtree(final)
            temporary.rename(final)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            # safetensors tells of a full disk in an error of its own.
            raise error if isinstance(error, OSError) else OSError(str(error)) from error
        fsync(self.folder)  # the rename is durable only with its folder
        self.prune()
        return Saved(images_seen, stall, time.perf_counter() - started)

    def write_files(self, folder: Path, values: dict[str, Any]) -> None:
        """Write the files of one checkpoint, the manifest last, and verify what the disk gives back."""
        tensors = {name: tensor.contiguous() for name, tensor in self.snapshot.arrived().items()}
        write_tensors(tensors, folder / TENSORS)
        (folder / VALUES).write_text(json.dumps(with_schema(values), indent=1))
        files = {}
        for name in (TENSORS, VALUES):
            fsync(folder / name)
            files[name] = {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
        # Without a manifest the checkpoint is not valid: rows that it promises must be durable first.
        self.before_manifest()
        (folder / MANIFEST).write_text(json.dumps(with_schema({"files": files}), indent=1))
        fsync(folder / MANIFEST)
        fsync(folder)

    def prune(self) -> None:
        """Remove what the settings do not keep and nobody wants, after the newest was read back whole."""
        kept_interval = -1
        checkpoints = find_checkpoints(self.folder)
        if not checkpoints:  # the run folder was moved just now
            raise OSError(f"{self.folder} holds no checkpoints any more")
        try:
            checkpoints[0].verify()
        except Damaged as error:
            raise OSError(f"the checkpoint was written, but reads back damaged: {error}") from error
        kept = self.kept()
        newest = [next(filter(wanted, checkpoints), None) for wanted in self.keep_newest_of]
        # From old to new, because of each interval the first one stays.
        for checkpoint in reversed(checkpoints[self.settings.keep_last :]):
            interval = checkpoint.images_seen // (self.settings.keep_every_images or 1 << 62)
            if self.settings.keep_every_images and interval > kept_interval:
                kept_interval = interval
            elif checkpoint not in newest and checkpoint.path.name not in kept:
                shutil.rmtree(checkpoint.path)

    def close(self) -> None:
        """End the background thread."""
        self.executor.shutdown()
