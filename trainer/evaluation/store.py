"""Features on disk: each group of images is computed once, by any process.

    CACHE/features/<key>/00000012-256.part     features of pictures 3072 to 3327: a checksum, then safetensors
    CACHE/painted/<key>/00000012-256.part      the same of generated images
    CACHE/painted/<key>/done-<launch>          the evaluation has ended: a process that starts late has nothing to do

The key names everything that the content depends on, so a part that exists is valid, whoever wrote it. Processes share
their work only through these files: there is no process group, and an evaluation that was killed continues where it
stopped. Features of the data stay for the next evaluation. Those of generated images belong to one evaluation, which is
in their key, and are removed with it; what a killed one has left is removed after a day. A damaged part is computed
again.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash
from safetensors.numpy import load, save

from shards.atomic_files import write_atomically
from trainer.core.fields import Refused
from trainer.evaluation.source import Rows

GROUP_SIZE = 256  # images in a part: fixed, because the bits of features may depend on the other images of a batch

DAY_S = 24 * 3600
LAUNCH_VARIABLES = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_ID", "MASTER_ADDR", "MASTER_PORT")

Arrays = dict[str, npt.NDArray[Any]]  # "features", "probabilities", "pictures": one row per image


@dataclass(frozen=True)
class ImageGroup:
    """The images start to stop - 1 of a source."""

    start: int
    stop: int

    @property
    def rows(self) -> Rows:
        """Their numbers."""
        return np.arange(self.start, self.stop)


def split_groups(count: int) -> list[ImageGroup]:
    """Cut `count` images into groups; the last one may be smaller."""
    return [ImageGroup(start, min(start + GROUP_SIZE, count)) for start in range(0, count, GROUP_SIZE)]


def launch_id() -> str:
    """Return a name that processes which were started together share."""
    return "-".join(os.environ.get(variable, "") for variable in LAUNCH_VARIABLES)


class FeatureStore:
    """The stored groups of one key.

    Args:
        cache: the folder of all keys.
        key: everything that the content depends on.
        evaluation: names the one that they belong to; empty: they are for all.
    """

    def __init__(self, cache: Path, *key: str, evaluation: str = "") -> None:
        name = xxhash.xxh3_128_hexdigest(repr((*key, evaluation)).encode())
        self.folder = cache / ("painted" if evaluation else "features") / name
        self.done = self.folder / f"done-{launch_id()}"  # by launch: a requeued evaluation starts anew

    def path(self, group: ImageGroup) -> Path:
        """Return the file of a group."""
        return self.folder / f"{group.start // GROUP_SIZE:08d}-{group.stop - group.start}.part"

    def has(self, group: ImageGroup) -> bool:
        """Return whether a group is stored, perhaps damaged."""
        return self.path(group).exists()

    def read(self, group: ImageGroup) -> Arrays | None:
        """Return a group; None: it is not stored, or damaged.

        Raises:
            Refused: it cannot be read.
        """
        path = self.path(group)
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Refused(f"{path} cannot be read: {error.strerror}") from error
        return load(raw[16:]) if raw[:16] == xxhash.xxh3_128_digest(raw[16:]) else None

    def write(self, group: ImageGroup, arrays: Arrays) -> None:
        """Write a group, atomically.

        Raises:
            Refused: it cannot be written.
        """
        raw = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path(group), xxhash.xxh3_128_digest(raw) + raw)
        except OSError as error:
            raise Refused(f"the features cannot be kept in {self.folder}: {error.strerror}; name a --cache") from error

    def begin(self) -> None:
        """Remove the mark of an earlier evaluation with the same launch id that has ended."""
        with suppress(OSError):
            self.done.unlink()

    def remove(self) -> None:
        """Remove the groups of an evaluation that has ended, and what killed ones left more than a day ago."""
        with suppress(OSError):
            self.done.touch()  # first: a rank that is late must not compute what is being removed
            for part in self.folder.glob("*.part"):
                part.unlink(missing_ok=True)
        for folder in self.folder.parent.glob("*"):
            with suppress(OSError):
                # A running evaluation writes into its folder more often than that.
                if folder.stat().st_mtime < time.time() - DAY_S:
                    shutil.rmtree(folder)
