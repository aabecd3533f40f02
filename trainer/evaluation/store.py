"""Features on disk: computed once, by any process, for one group of pictures at a time.

    CACHE/features/<key>/00000012-256.part     features of pictures 3072 to 3327: a checksum, then safetensors
    CACHE/painted/<key>/00000012-256.part      the same of painted pictures
    CACHE/painted/<key>/done-<launch>          the evaluation has ended: who comes late has nothing to do

The key names everything that the content depends on, so a part that is there is right, whoever wrote it. Processes
share their work through these files alone: there is no group to join, and an evaluation that was killed goes on where
it stopped. The features of the data are there for the next one; those of painted pictures belong to one evaluation,
which is in their key, and go with it. What a killed one has left goes after a day. A damaged part is computed again.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import xxhash
from safetensors.numpy import load, save

from trainer.core.fields import Refused
from trainer.evaluation.source import Rows

GROUP = 256  # pictures in a part: fixed, since the bits of a picture's features may depend on those beside it

DAY_S = 24 * 3600
LAUNCH = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_ID", "MASTER_ADDR", "MASTER_PORT")

Arrays = dict[str, npt.NDArray[Any]]  # features, probabilities, pictures: one row a picture


@dataclass(frozen=True)
class Group:
    """Pictures start to stop - 1 of a source."""

    start: int
    stop: int

    @property
    def rows(self) -> Rows:
        """Their numbers."""
        return np.arange(self.start, self.stop)


def groups(count: int) -> list[Group]:
    """Cut `count` pictures into groups, the last of which may be smaller."""
    return [Group(start, min(start + GROUP, count)) for start in range(0, count, GROUP)]


def launch() -> str:
    """Name what processes that were started together have in common."""
    return "-".join(os.environ.get(variable, "") for variable in LAUNCH)


class Store:
    """The parts of one key.

    Args:
        cache: the folder of all keys.
        key: names all that the content depends on.
        evaluation: that they belong to; empty: they are for all.
    """

    def __init__(self, cache: Path, *key: str, evaluation: str = "") -> None:
        name = xxhash.xxh3_128_hexdigest(repr((*key, evaluation)).encode())
        self.folder = cache / ("painted" if evaluation else "features") / name
        self.done = self.folder / f"done-{launch()}"

    def path(self, group: Group) -> Path:
        """Return where a part lies."""
        return self.folder / f"{group.start // GROUP:08d}-{group.stop - group.start}.part"

    def has(self, group: Group) -> bool:
        """Tell whether a part is there, perhaps damaged."""
        return self.path(group).exists()

    def read(self, group: Group) -> Arrays | None:
        """Return a part; None: it is not there, or damaged.

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

    def write(self, group: Group, arrays: Arrays) -> None:
        """Write a part so that it is whole or not there.

        Raises:
            Refused: it cannot be written.
        """
        raw = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        temporary = self.path(group).with_suffix(f".{uuid4().hex}.tmp")  # processes of many nodes write here
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(xxhash.xxh3_128_digest(raw) + raw)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self.path(group))
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise Refused(f"the features cannot be kept in {self.folder}: {error.strerror}; name a --cache") from error

    def begin(self) -> None:
        """Forget that an evaluation of a launch that looked the same has ended."""
        with suppress(OSError):
            self.done.unlink()

    def remove(self) -> None:
        """Remove the parts of an evaluation that has ended, and what others have left behind a day ago."""
        with suppress(OSError):
            self.done.touch()
            for part in self.folder.glob("*.part"):
                part.unlink(missing_ok=True)
        for folder in self.folder.parent.glob("*"):
            with suppress(OSError):
                if folder.stat().st_mtime < time.time() - DAY_S:
                    shutil.rmtree(folder)
